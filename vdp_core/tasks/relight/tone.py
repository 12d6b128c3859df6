"""How to expose a clip whose light is known."""

from __future__ import annotations

import torch
from torch import Tensor

from ...image.resize import upsample, working_copy
from .priors import natural_tone

__all__ = ["tone_of", "tone_of_clip", "without_light"]


def tone_of(small: Tensor, grid: Tensor) -> tuple[float, tuple[float, float, float]]:
    """Gamma and neutral log gains that expose frames ``(n, 3, h, w)`` with log light ``(n, gh, gw)`` well."""
    gamma, gain = natural_tone(without_light(small, grid).mean(dim=1))
    return gamma, (gain, gain, gain)


def tone_of_clip(
    frames: Tensor, grid: Tensor, side: int, device: torch.device
) -> tuple[float, tuple[float, float, float]]:
    """Gamma and neutral log gains that expose the whole clip well, from at most some 64 frames."""
    some = slice(None, None, max(1, len(frames) // 64))
    return tone_of(working_copy(frames[some], side, device), grid[some].to(device))


def without_light(small: Tensor, grid: Tensor) -> Tensor:
    """``x / light`` for ``(n, 3, h, w)`` and log light ``(n, gh, gw)``."""
    return small * torch.exp(-upsample(grid[:, None], (small.shape[2], small.shape[3])))
