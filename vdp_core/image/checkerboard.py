"""Checkerboards, to judge a mapping by: where it is right, squares stay on what they lie on."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BOARDS", "LINE", "MARKED", "SQUARES", "checkerboard"]

SQUARES = 16
"""Of a checkerboard, along the width of a frame."""
MARKED = 4
"""Squares from a marked line to the next."""
LINE = 0.16
"""Width of a marked line, in squares."""
BOARDS = (
    ((0.2, 0.2, 0.2), (0.85, 0.85, 0.85)),
    ((0.3, 0.08, 0.35), (0.98, 0.92, 0.6)),
    ((0.05, 0.25, 0.12), (0.75, 0.95, 0.8)),
    ((0.08, 0.1, 0.35), (0.7, 0.9, 0.98)),
)
"""Colours of dark and light squares, by number: grey, violet and yellow, greens, blues."""
ACROSS, DOWN = (0.95, 0.45, 0.1), (0.15, 0.5, 0.95)
"""Colours of lines at multiples of x, and of those at multiples of y."""
Colour = tuple[float, float, float]


def checkerboard(places: Tensor, number: int) -> Tensor:
    """A checkerboard's colours ``(3, H, W)`` at places ``(2, H, W)``, one square long and high.

    Each pixel shows the mean over the box that it covers, along each side by itself: differences of integrals (Crow,
    "Summed-area tables for texture mapping", SIGGRAPH 1984). Each 4th line is marked: orange across, blue down.

    Args:
        places: (x, y), counted in squares.
        number: which of the ``BOARDS``; beyond the last one they begin again.
    """
    down, across = torch.gradient(places, dim=(1, 2))
    covered = (down.abs() + across.abs()).clamp_min(1e-3)
    low, high = places - 0.5 * covered, places + 0.5 * covered
    squares = ((_alternating(high) - _alternating(low)) / covered).prod(dim=0)
    lines = (_lines(high) - _lines(low)) / covered
    dark, light = (_colour(colour, places) for colour in BOARDS[number % len(BOARDS)])
    board = torch.lerp(dark, light, 0.5 + 0.5 * squares)
    for line, colour in zip(lines, (ACROSS, DOWN), strict=True):
        board = board.lerp(_colour(colour, places), line)
    return board


def _alternating(x: Tensor) -> Tensor:
    """The integral up to x of what is 1 in even squares and -1 in odd ones."""
    return 1.0 - (x.remainder(2.0) - 1.0).abs()


def _lines(x: Tensor) -> Tensor:
    """The integral up to x of what is 1 on marked lines, and 0 elsewhere."""
    x = x + 0.5 * LINE
    return LINE * (x / MARKED).floor() + x.remainder(MARKED).clamp_max(LINE)


def _colour(colour: Colour, like: Tensor) -> Tensor:
    return like.new_tensor(colour).view(3, 1, 1)
