"""The guided filter: fields that follow the edges of a picture.

In every small window a field is a linear function of the picture, ``a . guide + b`` (He, Sun and Tang, "Guided Image
Filtering", TPAMI 2013, equations 5 and 6 of a grey guide, 19 and 20 of colours); a pixel takes the mean over the
windows that hold it. Uses differ in how pixels weigh in the fits, and windows in the mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from .morphology import box_mean
from .resize import resize, upsample

__all__ = ["Lines", "fit_lines", "follow", "joint_upsample"]

GUIDED_FROM = 48
"""Long side of a field, in samples, from which it can hold edges that are worth aligning with those of the picture."""


class Lines(NamedTuple):
    """Fields as linear functions of a guide, in the window around each pixel."""

    coefficients: Tensor
    """``(N, K, G + 1, h, w)``: slopes along the guide's channels, and the constant."""
    variance: Tensor
    """``(N, K, h, w)``, of the fields in the window."""
    explained: Tensor
    """``(N, K, h, w)``, what of it the guide explains."""


def fit_lines(guide: Tensor, fields: Tensor, *, radius: int, eps: float, weights: Tensor | None = None) -> Lines:
    """Fit fields ``(N, K, h, w)`` to a guide ``(N, G, h, w)``, grey or colours, in windows around each pixel.

    Args:
        guide: G is 1 or 3.
        fields: of the same size.
        radius: of the windows, in pixels.
        eps: least variance of the guide that an edge is followed at; up: softer, steadier.
        weights: ``(N, 1, h, w)``, how much pixels count; None: all alike.
    """
    kinds, count = guide.shape[1], fields.shape[1]
    pairs = [(a, b) for a in range(kinds) for b in range(a, kinds)]
    products = torch.stack([guide[:, a] * guide[:, b] for a, b in pairs], dim=1)
    with_field = (guide[:, None] * fields[:, :, None]).flatten(1, 2)
    means = box_mean(torch.cat((guide, fields, products, with_field, fields.square()), dim=1), radius, weights)
    mean, level, products, with_field, squares = means.split([kinds, count, len(pairs), kinds * count, count], dim=1)
    covariance = with_field.unflatten(1, (count, kinds)) - level[:, :, None] * mean[:, None]  # (N, K, G, h, w)
    own = [products[:, i] - mean[:, a] * mean[:, b] + (eps if a == b else 0.0) for i, (a, b) in enumerate(pairs)]
    slope = covariance / own[0][:, None, None] if kinds == 1 else _solved(own, covariance)
    constant = level[:, :, None] - (slope * mean[:, None]).sum(dim=2, keepdim=True)
    variance = (squares - level.square()).clamp_min(0.0)
    return Lines(torch.cat((slope, constant), dim=2), variance, (slope * covariance).sum(dim=2))


def _solved(own: list[Tensor], covariance: Tensor) -> Tensor:
    """The inverse of symmetric 3x3 matrices, by their cofactors, times vectors ``(N, K, 3, h, w)``.

    ``own`` are rr, rg, rb, gg, gb and bb, ``(N, h, w)`` each.
    """
    rr, rg, rb, gg, gb, bb = own
    c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = (rr * c_rr + rg * c_rg + rb * c_rb).clamp_min(1e-20)
    red, green, blue = covariance.unbind(dim=2)
    rows = ((c_rr, c_rg, c_rb), (c_rg, c_gg, c_gb), (c_rb, c_gb, c_bb))
    solved = [a[:, None] * red + b[:, None] * green + c[:, None] * blue for a, b, c in rows]
    return torch.stack(solved, dim=2) / determinant[:, None, None]


def follow(coefficients: Tensor, guide: Tensor) -> Tensor:
    """Fields ``(N, K, ...)`` from coefficients ``(N, K, G + 1, ...)`` and a guide ``(N, G, ...)``."""
    return (coefficients[:, :, :-1] * guide[:, None]).sum(dim=2).add_(coefficients[:, :, -1])


def joint_upsample(
    fields: Tensor, frames: Tensor, *, radius: int = 3, eps: float = 1e-3, continued: bool = False
) -> Tensor:
    """Bring small fields to the size of the frames, their edges aligned with those of the frames where they have any.

    Grids too coarse to hold an edge are knots that are interpolated. Finer fields go through the fast guided filter (He
    and Sun, "Fast Guided Filter", 2015): fitted to brightness at the small size, applied at the native one.

    Args:
        fields: ``(N, C, h, w)``.
        frames: ``(N, H, W, 3)`` in 0..1, the guide.
        radius: of the windows, in samples of the small field.
        eps: how much brightness must vary in a window, as a variance, before the field follows it.
        continued: windows at the border are whole, as if fields and frames went on there; what they lack on one side
            otherwise flattens a field that slopes.

    Returns:
        ``(N, C, H, W)``.

    Raises:
        ShapeError: fields and frames differ in number.
    """
    if len(fields) != len(frames):
        raise ShapeError(f"joint_upsample: got fields of {len(fields)} frames and {len(frames)} frames to guide them")
    size, small = (frames.shape[1], frames.shape[2]), (fields.shape[2], fields.shape[3])
    if max(small) < GUIDED_FROM:
        return upsample(fields, size)
    guide = frames.mean(dim=-1)[:, None]
    parts = resize(guide, small, mode="area"), fields
    margin = min(2 * radius, min(small) - 1) if continued else 0
    lines = fit_lines(*(_continued(part, margin) for part in parts), radius=radius, eps=eps)
    coefficients = box_mean(lines.coefficients, radius)
    inside = (..., slice(margin, margin + small[0]), slice(margin, margin + small[1]))
    slope, constant = (resize(part, size) for part in coefficients[inside].unbind(dim=2))
    return (slope * guide).add_(constant)


def _continued(fields: Tensor, margin: int) -> Tensor:
    """Fields ``(N, C, h, w)`` continued by ``margin`` on each side, turned about the values at the border."""
    for dim in (2, 3):
        first, last = fields.narrow(dim, 0, 1), fields.narrow(dim, -1, 1)
        before = 2.0 * first - fields.narrow(dim, 1, margin).flip(dim)
        after = 2.0 * last - fields.narrow(dim, -1 - margin, margin).flip(dim)
        fields = torch.cat((before, fields, after), dim=dim)
    return fields
