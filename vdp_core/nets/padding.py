"""Pictures padded for networks that halve their size several times."""

from __future__ import annotations

from types import EllipsisType

import torch.nn.functional as F
from torch import Tensor

__all__ = ["padded"]


def padded(pictures: Tensor, multiple: int = 32) -> tuple[Tensor, tuple[EllipsisType, slice, slice]]:
    """Pictures ``(N, C, h, w)`` with sides that are multiples of a number, and the index that crops them again.

    The border is repeated, on the right and below.
    """
    height, width = pictures.shape[-2:]
    grown = F.pad(pictures, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    return grown, (..., slice(height), slice(width))
