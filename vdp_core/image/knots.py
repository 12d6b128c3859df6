"""Smooth fields kept as a few knots: a spline through them, read at any size, and vectors spread onto them."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .conjugate import conjugate_gradients

__all__ = ["bending", "fitted", "spread", "straightened", "sums_around", "through"]

STEPS = 30
"""Of conjugate gradients: what bends more slowly than over so many knots is straight enough."""
TWICE = 2.0**0.5
"""What counts twice when it is squared."""


def through(knots: Tensor, size: tuple[int, int]) -> Tensor:
    """The spline through knots, ``(..., h, w)``, at the centres of the pixels of a picture of ``size`` = (H, W).

    The outer knots lie on the edges of the picture, whatever its size. Bicubic (Catmull and Rom, 1974; Keys, "Cubic
    convolution interpolation for digital image processing", 1981, eq. 15), and linear beyond the outer knots, so that
    what is linear in place comes out exactly.
    """
    down = _spline(size[0], knots.shape[-2]).to(knots)
    across = _spline(size[1], knots.shape[-1]).to(knots)
    return down @ knots @ across.T


def spread(vectors: Tensor, weight: Tensor, size: tuple[int, int], *, little: float = 1.0) -> Tensor:
    """The weighted mean of vectors ``(C, H, W)`` around each of the knots, ``(C, h, w)`` for ``size`` = (h, w).

    Args:
        vectors: of pixels.
        weight: ``(H, W)``.
        size: of the knots, which lie as in ``through``.
        little: weight, in pixels, of nothing: knots with less around them get less than the mean.
    """
    sums = sums_around(torch.cat((vectors * weight, weight[None])), size)
    return sums[:-1] / (sums[-1:] + little)


def sums_around(values: Tensor, size: tuple[int, int]) -> Tensor:
    """What values of pixels ``(C, H, W)`` add up to around each of the knots, ``(C, h, w)``; none is counted twice."""
    down = _hats(values.shape[1], size[0]).to(values)
    across = _hats(values.shape[2], size[1]).to(values)
    return down.T @ values @ across


def fitted(values: Tensor, weight: Tensor, size: tuple[int, int], *, little: float = 1.0) -> Tensor:
    """The knots ``(C, h, w)`` of the spline, see ``through``, that comes nearest to values: weighted least squares.

    Args:
        values: ``(C, H, W)``.
        weight: the same.
        size: (h, w) of the knots.
        little: weight, in pixels, of 0, for each of the knots: those that nothing tells of stay there.
    """
    down = _spline(values.shape[1], size[0]).to(values)
    across = _spline(values.shape[2], size[1]).to(values)
    pairs = (down[:, :, None] * down[:, None]).flatten(1), (across[:, :, None] * across[:, None]).flatten(1)
    products = (pairs[0].T @ weight @ pairs[1]).unflatten(1, (size[0], size[0])).unflatten(3, (size[1], size[1]))
    matrix = products.movedim(3, 2).flatten(1, 2).flatten(2, 3).double()
    matrix = matrix + little * torch.eye(size[0] * size[1], dtype=torch.double, device=values.device)
    right = (down.T @ (weight * values) @ across).flatten(1).double()
    return torch.linalg.solve(matrix, right).to(values).unflatten(1, size)


def bending(knots: Tensor) -> Tensor:
    """How much knots ``(2, h, w)`` bend at each of them, squared, ``(h, w)``; 0 where they are linear in place.

    The energy of a thin plate (Duchon, "Splines minimizing rotation-invariant semi-norms in Sobolev spaces", 1977).
    """
    down, across, twist = (bend.square().sum(dim=0) for bend in _bends(knots))
    twist = F.avg_pool2d(F.pad(twist, (1, 1, 1, 1))[None], 2, 1)[0]
    return F.pad(down, (0, 0, 1, 1)) + F.pad(across, (1, 1)) + twist


def straightened(knots: Tensor, told: Tensor, stiffness: Tensor) -> Tensor:
    """Knots ``(2, h, w)`` that bend less, where little tells that they bend.

    The least of ``sum (k - knots)' told (k - knots) + stiffness * bending(k)``, by conjugate gradients.

    Args:
        knots: vectors (x, y).
        told: ``(3, h, w)``, how surely each is where it is: xx, xy and yy of the inverse of its covariance.
        stiffness: ``(h, w)``, the inverse of the square of how much it bends.
    """
    stiff = stiffness[1:-1], stiffness[:, 1:-1], F.avg_pool2d(stiffness[None], 2, 1)[0]

    def plate(k: Tensor) -> Tensor:
        down, across, twist = (one * bend for one, bend in zip(stiff, _bends(k), strict=True))
        return (
            F.pad(down, (0, 0, 2, 2)).diff(n=2, dim=1)
            + F.pad(across, (2, 2)).diff(n=2, dim=2)
            + TWICE * F.pad(twist, (1, 1, 1, 1)).diff(dim=1).diff(dim=2)
        )

    diagonal = told[::2] + 20.0 * stiffness  # of the plate: 6 and 6 along its sides, 8 of its twist

    def matrix(change: Tensor) -> Tensor:
        return torch.stack(((told[:2] * change).sum(dim=0), (told[1:] * change).sum(dim=0))) + plate(change)

    return knots + conjugate_gradients(matrix, -plate(knots), diagonal, dims=(0, 1, 2), steps=STEPS)


def _bends(knots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Second differences down, across, and of both, which counts twice."""
    return knots.diff(n=2, dim=1), knots.diff(n=2, dim=2), TWICE * knots.diff(dim=1).diff(dim=2)


def _places(pixels: int, knots: int) -> tuple[Tensor, Tensor]:
    place = (torch.arange(pixels, dtype=torch.double) + 0.5) * ((knots - 1) / pixels)
    cell = place.floor().clamp(max=knots - 2)
    return cell.long(), place - cell


@lru_cache(maxsize=64)
def _spline(pixels: int, knots: int) -> Tensor:
    """How much of each knot is in each pixel of a line, ``(pixels, knots)``."""
    cell, t = _places(pixels, knots)
    shares = torch.stack(
        (
            -0.5 * t + t**2 - 0.5 * t**3,
            1.0 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2.0 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ),
        dim=1,
    )
    padded = torch.zeros(pixels, knots + 2, dtype=torch.double)
    padded.scatter_add_(1, cell[:, None] + torch.arange(4), shares)
    # a knot beyond either end is where the line through the last two leads
    inner = padded[:, 1:-1].clone()
    inner[:, 0] += 2.0 * padded[:, 0]
    inner[:, 1] -= padded[:, 0]
    inner[:, -1] += 2.0 * padded[:, -1]
    inner[:, -2] -= padded[:, -1]
    return inner


@lru_cache(maxsize=64)
def _hats(pixels: int, knots: int) -> Tensor:
    """How much each pixel of a line counts for each knot, ``(pixels, knots)``."""
    cell, t = _places(pixels, knots)
    hats = torch.zeros(pixels, knots, dtype=torch.double)
    hats.scatter_(1, cell[:, None], 1.0 - t[:, None])
    hats.scatter_(1, cell[:, None] + 1, t[:, None])
    return hats
