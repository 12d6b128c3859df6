"""The motion of a plane seen by a moving camera, fitted robustly."""

from __future__ import annotations

import torch
from torch import Tensor

from .warp import pixel_grid, warp

__all__ = ["planar_correction", "planar_motion", "robust_fit"]

REWEIGHTINGS = 12  # of reweighting; the planar fit stands still after six to ten
FLOW_SAMPLES = 6000  # pixels of a flow that eight numbers are fitted to
DENSE_SAMPLES = 20_000  # pixels of the frames that they are corrected on
FEWEST = 32  # pixels below which there is nothing to fit
CORRECTIONS = 4
RIDGE = 1e-4
"""Squared noise of a slope over that of a motion, 0.01 over one pixel: in a flat picture no motion is the best one."""


def _planar_basis(x: Tensor, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """``(n, 8)`` each: how much of each of the eight numbers is in the motion to the right, and down, at places."""
    side = max(size)
    x, y = (x - 0.5 * size[1]) / side, (y - 0.5 * size[0]) / side
    one, none = torch.ones_like(x), torch.zeros_like(x)
    across = torch.stack((one, x, y, none, none, none, x * x, x * y), dim=-1)
    return across, torch.stack((none, none, none, one, x, y, x * y, y * y), dim=-1)


def _chosen(weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of at most some ``count`` of the pixels where a weight ``(h, w)`` is not zero."""
    places = weight.nonzero()
    rows, columns = places[:: max(1, len(places) // count)].unbind(dim=-1)
    return rows, columns


def _planar_field(numbers: Tensor, size: tuple[int, int]) -> Tensor:
    """The planar motion ``(2, h, w)`` of eight numbers."""
    x, y = pixel_grid(*size, device=numbers.device).flatten(1)
    return torch.stack([part @ numbers for part in _planar_basis(x, y, size)]).view(2, *size)


def planar_motion(field: Tensor, weight: Tensor) -> Tensor:
    """The motion of a plane that fits a flow ``(2, h, w)`` best where ``weight`` ``(h, w)`` is not zero.

    ``u = a1 + a2 x + a3 y + a7 x^2 + a8 x y`` and ``v = a4 + a5 x + a6 y + a7 x y + a8 y^2``, linear in the eight
    numbers, found by least squares that are reweighted (Geman-McClure), so that what moves otherwise hardly counts.
    """
    size = (weight.shape[0], weight.shape[1])
    rows, columns = _chosen(weight, FLOW_SAMPLES)
    if len(rows) < FEWEST:
        return torch.zeros_like(field)
    basis = torch.stack(_planar_basis(columns.double(), rows.double(), size))  # (2, n, 8)
    target = field[:, rows, columns].double()
    weights = torch.ones_like(target[0])
    for _ in range(REWEIGHTINGS):
        found = _least_squares(basis, target, weights)
        squared_residual = (basis @ found - target).square().sum(dim=0)
        weights = _robust_weight(squared_residual)
    return _planar_field(found.to(field.dtype), size)


def planar_correction(here: Tensor, there: Tensor, field: Tensor, weight: Tensor) -> Tensor:
    """The small planar motion ``(2, h, w)`` that, added to a flow, brings two frames ``(3, h, w)`` together best.

    Lucas and Kanade, "An iterative image registration technique", IJCAI 1981, eq. 9, with the planar model and robust
    weights. Errors of estimated flow that all pixels share, 0.03 to 0.07 pixels with DIS, add up along a path.
    """
    size = (weight.shape[0], weight.shape[1])
    rows, columns = _chosen(weight, DENSE_SAMPLES)
    total = torch.zeros_like(field)
    if len(rows) < FEWEST or min(size) < 2:
        return total
    across, down = _planar_basis(columns.double(), rows.double(), size)
    least = float("inf")
    for _ in range(CORRECTIONS):
        seen = warp(there[None], (field + total)[None])[0]
        gap = (seen - here)[:, rows, columns].double()
        error = gap.square().sum(dim=0)
        weights = _robust_weight(error)
        cost = float((weights * error).sum() / weights.sum())
        if cost >= least:
            break
        least, best = cost, total
        slope_y, slope_x = (slope[:, rows, columns].double() for slope in torch.gradient(seen, dim=(1, 2)))
        basis = slope_x[..., None] * across + slope_y[..., None] * down  # (3, n, 8)
        total = total + _planar_field(_least_squares(basis, -gap, weights).to(field.dtype), size)
    return best


def _robust_weight(squared_residual: Tensor, least: float = 1e-6) -> Tensor:
    """How much squared errors count (Geman-McClure), by their median, or by ``least`` where that is more."""
    scale = squared_residual.median().clamp_min(least)
    return (scale / (scale + squared_residual)).square()


def robust_fit(
    basis: Tensor, target: Tensor, sure: Tensor, *, reweightings: int, least: float, little: float = 0.0
) -> Tensor:
    """The numbers ``(k, c)`` for which ``basis`` ``(n, k)`` times them is nearest to most of ``target`` ``(n, c)``.

    Least squares, reweighted by ``_robust_weight``.

    Args:
        sure: ``(n,)``, how far each row counts to begin with.
        reweightings: how often.
        least: squared error up to which rows count about alike.
        little: as many rows say that all numbers are 0.
    """
    eye = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    weights, found = sure, basis.new_zeros(basis.shape[1], target.shape[1])
    for _ in range(reweightings):
        weighted = basis * weights[:, None]
        # a little ridge keeps few rows, or such in a line, from turning the rest
        ridge = (1e-6 * weights.sum() + little + 1e-6) * eye
        found = torch.linalg.solve(weighted.T @ basis + ridge, weighted.T @ target)
        weights = sure * _robust_weight((basis @ found - target).square().sum(dim=1), least)
    return found


def _least_squares(basis: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The numbers ``(8,)`` for which ``basis`` ``(c, n, 8)`` times them is nearest to ``target`` ``(c, n)``."""
    weighted = (basis * weights[:, None]).flatten(0, 1)
    normal = weighted.T @ basis.flatten(0, 1)
    # the ridge keeps what a few pixels, or flat ones, cannot tell at zero: curvature, or all of the motion
    normal += (1e-6 * normal.diagonal().sum() + RIDGE) * torch.eye(8, device=basis.device)
    return torch.linalg.solve(normal, weighted.T @ target.flatten())
