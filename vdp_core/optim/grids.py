"""Smooth fields over time and frame as sums of small grids, and reading them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LightGrid", "Pyramid", "centres", "read_grid", "resized", "smaller", "within"]


class LightGrid:
    """Log light ``(T, h, w)`` as a sum of grids, from one number a frame to the full size.

    The sum spans no more than its finest part; the coarse parts let Adam, whose steps are as large for every parameter,
    move the whole frame or the whole clip at once.
    """

    def __init__(self, small: Tensor, samples: int) -> None:
        """Take ``samples`` along the long side of the frames ``(T, 3, h, w)``."""
        count, _, height, width = small.shape
        short = max(3, round(samples * min(height, width) / max(height, width)))
        self._size = (count, short, samples) if width >= height else (count, samples, short)
        wide, broad = ((5, 8), (3, 4)) if width >= height else ((8, 5), (4, 3))
        sizes = (self._size, (count, *wide), (count, *broad), (count, 1, 1), (max(2, count // 6), *broad))
        self.parts = [torch.zeros(part, device=small.device, requires_grad=True) for part in sizes]

    def __call__(self) -> Tensor:
        total = self.parts[0]
        for part in self.parts[1:]:
            up = F.interpolate(part[None, None], size=self._size, mode="trilinear", align_corners=True)
            total = total + up[0, 0]
        return total


class Pyramid:
    """A field over time and frame as a sum of grids, from coarse to its full size.

    The coarse parts let Adam, whose steps are as large for every parameter, move large parts at once.
    """

    def __init__(self, sizes: Sequence[tuple[int, int, int]], device: torch.device) -> None:
        """Take the sizes ``(T, h, w)`` of the grids, the full one first."""
        self.size = sizes[0]
        self.parts = [torch.zeros(size, device=device) for size in sizes]

    def __call__(self) -> Tensor:
        """The field, at its full size."""
        return torch.stack([resized(part, self.size) for part in self.parts]).sum(dim=0)


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
