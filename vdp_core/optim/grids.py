"""Smooth fields over time and frame as sums of small grids, and reading them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Pyramid", "centres", "frame_sizes", "read_grid", "resized", "smaller", "within"]


class Pyramid:
    """A field ``(T, h, w)`` over time and frame as a sum of grids, from its full size to the coarsest.

    The coarse parts let Adam, whose steps are as large for every parameter, move the whole frame or the whole clip at
    once.
    """

    def __init__(self, sizes: Sequence[tuple[int, int, int]], device: torch.device, *, level: float = 0.0) -> None:
        """Take the sizes ``(T, h, w)`` of the grids, the full one first, and what the field is to begin with."""
        self.size = sizes[0]
        self.parts = [torch.zeros(size, device=device) for size in sizes]
        self.parts[-1].fill_(level)
        for part in self.parts:
            part.requires_grad_()

    def __call__(self) -> Tensor:
        """The field, at its full size."""
        return torch.stack([resized(part, self.size) for part in self.parts]).sum(dim=0)


def frame_sizes(frames: Tensor, samples: int) -> list[tuple[int, int]]:
    """Sizes ``(h, w)`` of three grids over frames ``(T, 3, h, w)``, the first with ``samples`` along the long side."""
    height, width = frames.shape[2:]
    short = max(3, round(samples * min(height, width) / max(height, width)))
    sizes = [(short, samples), (5, 8), (3, 4)]
    return sizes if width >= height else [(w, h) for h, w in sizes]


def read_grid(grid: Tensor, places: Tensor) -> Tensor:
    """Read ``(T, h, w)`` at places ``(N, 3)``: (x, y, t), -1..1 between the centres of its outer samples."""
    where = places[None, None, None]
    return F.grid_sample(grid[None, None], where, padding_mode="border", align_corners=True)[0, 0, 0, 0]


def centres(indices: Tensor, count: int) -> Tensor:
    """Where pixels or frames, of ``count``, have their centres, -1..1 between the edges of the frame or the clip."""
    return (indices + 0.5) * (2.0 / count) - 1.0


def within(places: Tensor, size: tuple[int, int, int]) -> Tensor:
    """From places ``(N, 3)``, -1..1 between the edges, to those between the centres of the outer samples of a field.

    The samples of a field ``(T, h, w)`` of this size, two or more along each side, cover the frame as the pixels of a
    picture do (see ``image.sample``).
    """
    count, height, width = size
    return places * places.new_tensor([width / (width - 1), height / (height - 1), count / (count - 1)])


def smaller(size: tuple[int, int, int], factor: int) -> tuple[int, int, int]:
    """A size ``(T, h, w)`` divided, at least 2 along each side."""
    count, height, width = (max(2, length // factor) for length in size)
    return count, height, width


def resized(grid: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Resize ``(T, h, w)`` linearly; the outer samples stay where they are."""
    if tuple(grid.shape) == size:
        return grid
    return F.interpolate(grid[None, None], size=size, mode="trilinear", align_corners=True)[0, 0]
