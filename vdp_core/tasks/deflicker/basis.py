"""What a change of colour of a frame is made of: groups of functions of place and value, and the knots they become."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...image.resize import upsample
from ...models.colour import heights, logs

__all__ = ["LEVELS", "Basis", "hats"]

LEVELS = 8
"""Knots of brightness of the grid."""
COARSE_LEVELS = 4  # of those that vary over the frame
PLACES = 7, 10
"""Knots over the frame of a change that is the same at every brightness, along the short and the long side."""
CELLS = 3, 4
"""The same of one that is not."""
ROWS = 24


@dataclass(frozen=True)
class Basis:
    """Functions of which a change of one channel is a sum, read at some pixels of frames of one size.

    Groups, in this order: ``curve``, of the value alone; ``cells``, of value and place; ``places``; ``rows``;
    ``saturation``, the distance from grey.
    """

    height: int
    width: int
    stride: int
    """One of so many pixels of a row is read; those of a row lie beside those of the rows next to it, so that functions
    of rows alone are seen in every row."""

    @cached_property
    def groups(self) -> dict[str, slice]:
        """Which parameters belong to which group."""
        sizes = {
            "curve": LEVELS,
            "cells": COARSE_LEVELS * CELLS[0] * CELLS[1],
            "places": PLACES[0] * PLACES[1],
            "rows": ROWS,
            "saturation": 1,
        }
        found, first = {}, 0
        for name, size in sizes.items():
            found[name] = slice(first, first + size)
            first += size
        return found

    @property
    def count(self) -> int:
        """Number of parameters."""
        return self.groups["saturation"].stop

    def _oriented(self, knots: tuple[int, int]) -> tuple[int, int]:
        return knots if self.width >= self.height else (knots[1], knots[0])

    def read(self, fields: Tensor) -> Tensor:
        """The pixels that are read, ``(..., N)``, of ``(..., h, w)``."""
        return fields.flatten(-2)[..., self._pixels.to(fields.device)]

    @cached_property
    def _pixels(self) -> Tensor:
        """Numbers of the pixels that are read, ``(N,)``."""
        y, x = torch.meshgrid(torch.arange(self.height), torch.arange(self.width), indexing="ij")
        return ((x + y * (self.stride // 2 + 1)) % self.stride == 0).flatten().nonzero()[:, 0]

    @cached_property
    def _over_frame(self) -> tuple[Tensor, Tensor, Tensor]:
        """Functions of place alone, of cells, places and rows, ``(N, knots)`` each."""
        size = self.height, self.width

        def spline(knots: tuple[int, int]) -> Tensor:
            count = knots[0] * knots[1]
            return self.read(upsample(torch.eye(count).view(count, 1, *knots), size)[:, 0]).T.contiguous()

        return spline(self._oriented(CELLS)), spline(self._oriented(PLACES)), spline((ROWS, 1))

    @cached_property
    def _coarse(self) -> Tensor:
        """The knots of brightness, ``(LEVELS, COARSE_LEVELS)``, that a coarse one stands for."""
        return hats(torch.arange(float(LEVELS)) * ((COARSE_LEVELS - 1) / (LEVELS - 1)), COARSE_LEVELS)

    def functions(self, values: Tensor) -> Tensor:
        """All functions at the pixels that are read, ``(n, 3, N, count)``, of their values ``(n, 3, N)`` in 0..1."""
        _, places, rows = self._over_frame
        own = logs(values)
        still = torch.cat((places, rows), dim=1).to(values.device).expand(*values.shape, -1)
        chroma = own - own.mean(dim=1, keepdim=True)
        return torch.cat((self._of_value(hats(heights(values, LEVELS), LEVELS)), still, chroma[..., None]), dim=-1)

    def _of_value(self, hats: Tensor) -> Tensor:
        """Functions of value, and of value and place, from those of value ``(n, 3, N, LEVELS)``."""
        coarse = hats @ self._coarse.to(hats)
        cells = self._over_frame[0].to(hats)
        return torch.cat((hats, (coarse[..., :, None] * cells[:, None, :]).flatten(-2)), dim=-1)

    def products(self, levels: Tensor, chroma: Tensor) -> Tensor:
        """Sums over pixels of each function times something, ``(n, 3, count)``.

        Args:
            levels: that something times each function of value alone, ``(n, 3, LEVELS, N)``.
            chroma: that something times the distance from grey, ``(n, 3, N)``.
        """
        cells, places, rows = (part.to(levels) for part in self._over_frame)
        whole = levels.sum(dim=2)
        coarse = (self._coarse.T.to(levels) @ levels) @ cells
        parts = (levels.sum(dim=-1), coarse.flatten(2), whole @ places, whole @ rows, chroma.sum(dim=-1, keepdim=True))
        return torch.cat(parts, dim=-1)

    def knots(self, parameters: Tensor) -> dict[str, Tensor]:
        """Fields of the model ``colour`` for parameters ``(T, 3, count)``."""
        parts = {name: parameters[..., span] for name, span in self.groups.items()}
        size = self._oriented(PLACES)
        coarse = parts["cells"].unflatten(-1, (COARSE_LEVELS, -1))
        over = (self._coarse.to(coarse) @ coarse).unflatten(-1, self._oriented(CELLS))
        finer = upsample(over.flatten(0, 2)[:, None], size)[:, 0].view(*over.shape[:-2], *size)
        grid = finer + parts["curve"][..., None, None] + parts["places"].unflatten(-1, size)[:, :, None]
        return {"grid": grid, "rows": parts["rows"], "saturation": parts["saturation"][..., 0]}


def hats(places: Tensor, count: int) -> Tensor:
    """Linear interpolation between ``count`` knots: the share of each, ``(..., count)``."""
    return (1.0 - (places[..., None] - torch.arange(float(count), device=places.device)).abs()).clamp_min_(0.0)
