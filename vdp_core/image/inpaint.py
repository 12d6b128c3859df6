"""Values filled in where they are not known."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .resize import resize

__all__ = ["inpaint"]


def inpaint(values: Tensor, weight: Tensor) -> Tensor:
    """Fill in values where their weight is zero, smoothly from around: the nearer, the finer.

    Push-pull (Gortler et al., "The Lumigraph", SIGGRAPH 1996, sec. 3.4): weighted means at half the size, filled in
    there first, take the place of what has no weight.

    Args:
        values: ``(N, C, h, w)``.
        weight: ``(N, 1, h, w)`` in 0..1, how far a value counts.

    Returns:
        ``(N, C, h, w)``, the values themselves where the weight is 1; all zero where nothing has any weight.
    """
    height, width = values.shape[-2:]
    if height == 1 and width == 1:
        return values * weight
    # odd sides: the last row or column stands for two
    pad = (0, width % 2, 0, height % 2)
    weighted = F.avg_pool2d(F.pad(values * weight, pad, mode="replicate"), 2)
    weights = F.avg_pool2d(F.pad(weight, pad, mode="replicate"), 2)
    half = inpaint(weighted / weights.clamp_min(1e-12), (4.0 * weights).clamp_max(1.0))
    filled = resize(half, (height + pad[3], width + pad[1]))
    return filled[..., :height, :width].lerp(values, weight)
