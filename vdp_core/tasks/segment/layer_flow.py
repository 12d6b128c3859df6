"""How each layer moves, and which layer's motion explains a pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...image.inpaint import spread
from ...image.morphology import box_mean
from ...image.resize import resize
from ...motion.warp import resize_flow, warp
from ...types import Flow

__all__ = ["LayerFlows"]

DEEP = 3.0
"""Samples of the flow from a border at which its motion is that of one layer alone."""
HIDDEN = 0.5
"""A layer is hidden where it shows less than this share of what it shows both before and after."""
SLIVER = 0.15
"""Where a layer shows less than this share of the most that is ever seen of it, flow is mostly its surroundings'."""
NOISE = 0.01
"""Difference of colours that even the right motion leaves."""


class LayerFlows:
    """How each layer moves, also where it is covered: its motion in its middle, spread smoothly."""

    def __init__(self, labels: Tensor, flow: Flow) -> None:
        labels = resize(labels, flow.size, mode="area")
        self.forward = torch.stack([_spread_inside(flow.forward, mask[:-1]) for mask in labels.unbind(dim=1)], dim=1)
        """``(T-1, L, 2, h, w)``, like the flow's."""
        self.backward = torch.stack([_spread_inside(flow.backward, mask[1:]) for mask in labels.unbind(dim=1)], dim=1)

    def from_to(self, index: int, other: int, size: tuple[int, int]) -> Tensor:
        """Where the layers' pixels of a frame are in the one before or after it, ``(L, 2, H, W)``."""
        return resize_flow(self.forward[index] if other > index else self.backward[other], size)

    def explained(self, small: Tensor, index: int) -> Tensor:
        """How much better each object's motion explains the pixels than the background's, ``(1, L - 1, H, W)``.

        A log ratio of differences to the better one of the two neighbouring frames: what is hidden in one is mostly
        seen in the other.
        """
        size = (small.shape[2], small.shape[3])
        least: Tensor | None = None
        for other in (index - 1, index + 1):
            if not 0 <= other < len(small):
                continue
            ways = self.from_to(index, other, size)
            there = warp(small[other].expand(len(ways), -1, -1, -1), ways)
            differs = (there - small[index]).abs().mean(dim=1, keepdim=True)
            differs = box_mean(differs, 1)
            least = differs if least is None else torch.minimum(least, differs)
        assert least is not None
        least = least[:, 0] + NOISE
        return (least[:1] / least[1:]).log()[None].clamp(-2.0, 2.0)


def _spread_inside(vectors: Tensor, masks: Tensor) -> Tensor:
    """Motion ``(N, 2, h, w)`` of the middle of masks ``(N, h, w)``: at borders flow mixes both sides."""
    import cv2

    deep = np.stack([cv2.distanceTransform((mask > 0.5).numpy().astype(np.uint8), cv2.DIST_L2, 3) for mask in masks])
    weight = (torch.from_numpy(deep) / DEEP).clamp(0.0, 1.0).square()[:, None]
    weight = torch.maximum(weight, 0.02 * masks[:, None])
    filled = spread(vectors, weight)
    # what is hidden for a while, or has hardly entered, moves there as in the frames that see it; what grows does not
    seen = weight.sum(dim=(1, 2, 3)).numpy()
    before, after = np.maximum.accumulate(seen), np.maximum.accumulate(seen[::-1])[::-1]
    well = np.flatnonzero((seen > SLIVER * seen.max()) & (seen >= HIDDEN * np.minimum(before, after)))
    mean = ((vectors * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp_min(1e-6)).numpy()
    for index in np.setdiff1d(np.arange(len(masks)), well) if len(well) else ():
        step = [np.interp(index, well, mean[well, axis]) for axis in (0, 1)]
        filled[index] = torch.tensor(step, dtype=filled.dtype).view(2, 1, 1)
    return filled
