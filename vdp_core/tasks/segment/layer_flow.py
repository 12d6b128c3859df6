"""The flow of each layer, and the layer whose flow explains a pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from ...image.inpaint import inpaint
from ...image.morphology import box_mean, distance_inside
from ...image.resize import resize, size_within
from ...motion.trajectories import follow
from ...motion.warp import resize_flow, warp
from ...store.scratch import large_empty
from ...types import Flow

__all__ = ["LayerFlows"]

CORE_DISTANCE = 3
"""Samples of the flow from a border at which its motion is that of one layer alone."""
OCCLUDED = 0.5
"""A layer is occluded where it shows less than this share of what it shows both before and after."""
LEAST_VISIBLE = 0.15
"""Where a layer shows less than this share of the most that is ever seen of it, flow is mostly its surroundings'."""
LEAST_CONFIDENCE = 0.02  # of a layer without texture, its flow is still the best guess
TOGETHER = 16
"""Frames whose flow is extended at a time."""
LEAST_RESIDUAL = 0.01
"""Residual that even the right flow leaves."""
SPANS = (4, 8, 16, 24)
"""Distances in frames, either way, to where the background behind an object may be seen."""
PATH_SIDE = 128
"""Long side of the paths of the background: they are smooth."""


class LayerFlows:
    """The flow of each layer, also where the layer is covered: the flow of its middle, inpainted."""

    def __init__(self, labels: Tensor, flow: Flow) -> None:
        labels = resize(labels, flow.size, mode="area")
        shape = (len(flow), labels.shape[1], 2, *flow.size)
        self.forward, self.backward = (large_empty(*shape, device=labels.device) for _ in range(2))
        """``(T-1, L, 2, h, w)``, like the flow's."""
        for layer, masks in enumerate(labels.unbind(dim=1)):
            self.forward[:, layer] = _extended_flow(flow.forward, flow.forward_confidence, masks[:-1])
            self.backward[:, layer] = _extended_flow(flow.backward, flow.backward_confidence, masks[1:])

    def from_to(self, index: int, other: int, size: tuple[int, int]) -> Tensor:
        """Flow of the layers from a frame to the one before or after it, ``(L, 2, H, W)``."""
        return resize_flow(self.forward[index] if other > index else self.backward[other], size)

    def warp_evidence(self, small: Tensor, index: int) -> Tensor:
        """Log ratio of the warp residuals of background and objects, ``(1, L - 1, H, W)`` in -2..2.

        Above 0 the object's flow explains a pixel better. Each residual is that to the better one of the two
        neighbouring frames: a pixel that is occluded in one is mostly seen in the other.
        """
        size = (small.shape[2], small.shape[3])
        least: Tensor | None = None
        for other in (index - 1, index + 1):
            if not 0 <= other < len(small):
                continue
            flows = self.from_to(index, other, size)
            warped = warp(small[other].expand(len(flows), -1, -1, -1), flows)
            residual = (warped - small[index]).abs().mean(dim=1, keepdim=True)
            residual = box_mean(residual, 1)
            least = residual if least is None else torch.minimum(least, residual)
        assert least is not None
        least = least[:, 0] + LEAST_RESIDUAL
        return (least[:1] / least[1:]).log()[None].clamp(-2.0, 2.0)

    def background_evidence(self, small: Tensor, labels: Tensor) -> Tensor:
        """How unlike each pixel is to the background that other frames show at its place, ``(T, 2, h, w)``, half.

        Each frame is compared with those some ``SPANS`` away, along the background's motion, where they show the
        background: what is one colour all over looks alike when it moves by a pixel, but not when it has gone. First
        the log of the median colour difference, over what is usual in the clip; then the share of frames that show the
        background. Both are 0 where none does.
        """
        count, height, width = len(small), small.shape[2], small.shape[3]
        size = (height, width)
        grid = size_within(height, width, PATH_SIDE)
        sure = small.new_ones(count - 1, *grid)
        reach = 2 * len(SPANS)
        unlike = large_empty(count, reach, height, width, dtype=torch.half, device=small.device).fill_(torch.nan)
        for way, vectors in enumerate((self.forward[:, 0], self.backward[:, 0].flip(0))):
            motion = resize_flow(vectors, grid)
            for start, span, paths, inside in follow(motion, 1.0 - sure, sure, SPANS):
                for number in range(len(paths)):
                    index, other = start + number, start + number + span
                    if way == 1:
                        index, other = count - 1 - index, count - 1 - other
                    path = resize_flow(paths[number : number + 1], size)
                    there = warp(torch.cat((small[other], labels[other, :1]))[None], path)[0]
                    shown = (there[3] > 0.5) & (resize(inside[None, number : number + 1], size)[0, 0] > 0.5)
                    difference = box_mean((there[:3] - small[index]).abs().mean(dim=0, keepdim=True), 1)[0]
                    place = len(SPANS) * way + SPANS.index(span)
                    unlike[index, place] = torch.where(shown, difference, torch.nan)
        out = large_empty(count, 2, height, width, dtype=torch.half, device=small.device)
        for index in range(count):
            known = (~unlike[index].isnan()).float().mean(dim=0)
            out[index, 0] = (unlike[index].float().nanmedian(dim=0).values + LEAST_RESIDUAL).log()
            out[index, 1] = known
        some = out[:: max(1, count // 16), 0, ::4, ::4].float()
        out[:, 0] -= some.nanmedian().nan_to_num().to(out.dtype)
        return out.nan_to_num_(0.0)


def _extended_flow(vectors: Tensor, confidence: Tensor, masks: Tensor) -> Tensor:
    """Motion ``(N, 2, h, w)`` of the middle of masks ``(N, h, w)``: at borders flow mixes both sides."""
    out = large_empty(*vectors.shape, device=vectors.device)
    seen, mean = masks.new_empty(len(masks)), masks.new_empty(len(masks), 2)
    for start in range(0, len(masks), TOGETHER):
        here = slice(start, start + TOGETHER)
        weight = (distance_inside(masks[here] > 0.5, CORE_DISTANCE) / CORE_DISTANCE).square()[:, None]
        weight = torch.maximum(weight, 0.02 * masks[here, None])
        trusted = weight * confidence[here, None].clamp_min(LEAST_CONFIDENCE)
        out[here] = inpaint(vectors[here], trusted)
        seen[here] = weight.sum(dim=(1, 2, 3))
        mean[here] = (vectors[here] * trusted).sum(dim=(2, 3)) / trusted.sum(dim=(1, 2, 3)).clamp_min(1e-6)[:, None]
    # what is occluded for a while, or has hardly entered, moves there as in the frames that see it; what grows does not
    before, after = seen.cummax(dim=0).values, seen.flip(0).cummax(dim=0).values.flip(0)
    well = (seen > LEAST_VISIBLE * seen.max()) & (seen >= OCCLUDED * torch.minimum(before, after))
    lost = ~well & well.any()
    out[lost] = _between(mean, well)[lost][:, :, None, None]
    return out


def _between(values: Tensor, known: Tensor) -> Tensor:
    """Values ``(N, C)``, linear in time between those that are known ``(N,)``, and the nearest of them beyond."""
    at = torch.arange(len(values), device=values.device)
    last = len(values) - 1
    earlier = torch.where(known, at, -1).cummax(dim=0).values
    later = torch.where(known, at, last + 1).flip(0).cummin(dim=0).values.flip(0)
    # (where nothing is known, nothing is asked for)
    first, second = (torch.where(earlier < 0, later, earlier), torch.where(later > last, earlier, later))
    share = (at - first) / (second - first).clamp_min(1)
    first, second = first.clamp(0, last), second.clamp(0, last)
    return values[first].lerp(values[second], share[:, None])
