"""Small fields to native size: the expensive half of a decomposition works small, this brings its result up."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import ShapeError

__all__ = ["lift", "upsample"]

GUIDED_FROM = 48
"""Long side of a field, in samples, from which it can hold edges that are worth aligning with those of the picture."""


def upsample(fields: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize fields ``(N, C, h, w)`` to ``size`` = (H, W) bicubically; the outer samples stay at the corners."""
    return F.interpolate(fields, size=size, mode="bicubic", align_corners=True)


def lift(fields: Tensor, frames: Tensor, *, radius: int = 3, eps: float = 1e-3) -> Tensor:
    """Bring small fields to the size of the frames, their edges aligned with those of the frames where they have any.

    Grids too coarse to hold an edge are interpolated. Finer fields go through the fast guided filter (He and Sun,
    "Fast Guided Filter", 2015): in every small window the field is ``a * brightness + b``; a and b are found at the
    small size and applied at the native one.

    Args:
        fields: ``(N, C, h, w)``.
        frames: ``(N, H, W, 3)`` in 0..1, the guide.
        radius: of the windows, in samples of the small field.
        eps: how much brightness must vary in a window, as a variance, before the field follows it.

    Returns:
        ``(N, C, H, W)``.

    Raises:
        ShapeError: fields and frames differ in number.
    """
    if len(fields) != len(frames):
        raise ShapeError(f"lift: got fields of {len(fields)} frames and {len(frames)} frames to lift them to")
    size, small = (frames.shape[1], frames.shape[2]), (fields.shape[2], fields.shape[3])
    if max(small) < GUIDED_FROM:
        return upsample(fields, size)
    guide = frames.mean(dim=-1)[:, None]
    coarse = F.interpolate(guide, size=small, mode="area")

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, 2 * radius + 1, 1, radius, count_include_pad=False)

    brightness, field = mean(coarse), mean(fields)
    variance = mean(coarse.square()) - brightness.square()
    covariance = mean(coarse * fields) - brightness * field
    slope = covariance / (variance + eps)
    offset = field - slope * brightness
    slope, offset = (
        F.interpolate(mean(part), size=size, mode="bilinear", align_corners=False) for part in (slope, offset)
    )
    return slope.mul_(guide).add_(offset)
