"""Clips at the size that is optimised on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["working_copy"]


def working_copy(frames: Tensor, side: int) -> Tensor:
    """Return the frames as ``(T, 3, h, w)``, averaged down to a long side of ``side``; smaller ones stay."""
    height, width = frames.shape[1], frames.shape[2]
    scale = side / max(height, width)
    size = (max(2, round(height * scale)), max(2, round(width * scale))) if scale < 1.0 else (height, width)
    # a frame at a time: an interpolation of the whole clip would first copy it
    return torch.cat([F.interpolate(frame[None].movedim(-1, 1).float(), size=size, mode="area") for frame in frames])
