"""A picture read so that nothing aliases where it is made smaller."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .sample import sample

__all__ = ["Mips"]

SHARPER = 0.25
"""Levels below the one that is free from any aliasing; up: sharper, and more of it."""


class Mips:
    """Copies of a picture, each half as large as the one before (Williams, "Pyramidal Parametrics", 1983)."""

    def __init__(self, picture: Tensor) -> None:
        """Of a picture ``(C, H, W)``; smaller copies are made when they are needed."""
        self._levels = [picture]

    def at(self, places: Tensor, apart: Tensor) -> Tensor:
        """The picture at places, ``(C, h, w)``, bicubically, from the two copies whose pixels lie about so far apart.

        Args:
            places: ``(2, h, w)``, (x, y) in pixels of the picture.
            apart: ``(h, w)``, how many of these lie between neighbouring places.
        """
        level = (apart.clamp_min(1.0).log2() - SHARPER).clamp(0.0, math.log2(max(self._levels[0].shape[1:])))
        first, last = int(level.min()), math.ceil(float(level.max()))
        numbers, reads = range(first, last + 1), []
        for number in numbers:
            there = ((places + 0.5) / 2.0**number - 0.5).movedim(0, -1)
            reads.append(sample(self._level(number)[None], there[None], mode="bicubic")[0])
        if len(reads) == 1:
            return reads[0]
        weights = [(1.0 - (level - number).abs()).clamp_min(0.0) for number in numbers]
        return torch.stack([weight * read for weight, read in zip(weights, reads, strict=True)]).sum(dim=0)

    def _level(self, number: int) -> Tensor:
        while len(self._levels) <= number:
            finer = self._levels[-1]
            # an odd side's last pixel stands for itself
            finer = F.pad(finer[None], (0, finer.shape[2] % 2, 0, finer.shape[1] % 2), mode="replicate")
            self._levels.append(F.avg_pool2d(finer, 2)[0])
        return self._levels[number]
