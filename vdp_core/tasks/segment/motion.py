"""Objects that move by themselves, on the small grid of the flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...image.morphology import box_mean
from ...image.resize import resize
from ...motion.camera import residual_motion
from ...motion.objects import moving_objects
from ...motion.trajectories import average_along
from ...motion.warp import resize_flow, warp
from ...optim.progress import Progress
from ...store.scratch import large_empty
from ...types import Flow

__all__ = ["MotionTracks"]

MOTION_SIDE = 256
"""Long side of the flow that motion is looked at on."""
AVERAGING_FRAMES = 8
"""Frames either way over which a pixel's motion is averaged: that of water averages out, an object's stays."""
TOGETHER = 32
"""Pairs of frames whose flow is resized at a time."""
LEAST_SPEED = 0.05
"""Pixels a frame that are added to speeds by which changes are divided."""
LEAST_CHANGE = 0.05
"""Change of motion, as a share of it, below which nothing is told apart."""
LEAST_UNCERTAINTY = 0.01
"""The same for one less the confidence of the flow."""
SMOOTHING = 2
"""Radius of the windows in which changes of motion and confidence are averaged."""
OWN = 0.25
"""Quantile within the objects that is taken for an object's own; the upper ones are those of what moves with it."""
BETWEEN = 0.35
"""Where between an object's own and the background's, in logs, a pixel is as much like the one as like the other."""
CONFIDENCE = 3.0
"""Weight of the flow's confidence against that of unsteady motion."""
DOUBT = 1.0
"""Log odds against an object up to which a pixel that moves with it belongs to it."""
MOST_TRACKS = 8
"""Most tracks that are kept apart when a mask says which of them is meant."""


class MotionTracks:
    """Objects that move by themselves, on the small grid of the flow."""

    def __init__(self, flow: Flow, wanted: int, device: torch.device, progress: Progress) -> None:
        scale = MOTION_SIDE / max(flow.size)
        size = (max(2, round(flow.size[0] * scale)), max(2, round(flow.size[1] * scale))) if scale < 1.0 else flow.size
        small = _resized(flow, size)
        self.flow = small.to(device)
        camera, objects = progress.phases(1, 4)
        motion = residual_motion(small, camera).to(device)
        fields = torch.cat((motion, _changes(motion, self.flow), _uncertainty(self.flow)), dim=1)
        lasting = average_along(fields, self.flow, AVERAGING_FRAMES)
        residual = lasting[:, :2]
        # connected pieces, and which of them are one thing, are found on the CPU
        self.objects = moving_objects(residual.cpu(), small, wanted, objects).to(device)
        """``(T, K, h, w)``."""
        speed = residual.norm(dim=1, keepdim=True)
        self.speed = (speed / speed.flatten(1).quantile(0.98, dim=1).clamp_min(0.1).view(-1, 1, 1, 1)).clamp_max(2.0)
        """Against the scene, as a share of the frame's fastest, ``(T, 1, h, w)``. Which object a pixel seems to be is
        kept from the classifier: it would repeat it instead of learning what the objects look like."""
        changes, uncertainty = box_mean(lasting[:, 2:], SMOOTHING).split(1, dim=1)
        self._unsteady = (changes / (speed + LEAST_SPEED)).clamp_min(LEAST_CHANGE).log()
        self._uncertain = uncertainty.clamp_min(LEAST_UNCERTAINTY).log()

    def _doubt(self) -> Tensor:
        """Log odds that what moves with an object is none of it, ``(T, K, h, w)``.

        Reflections, wakes and shadows move with an object, and what has no texture seems to, but not as steadily, and
        flow there is believed less. How much that says depends on how unlike objects and background are in it: as two
        normal distributions of one deviation, a background that is as steady as the object says nothing.
        """
        background = self.objects.amax(dim=1, keepdim=True) < 0.5
        doubt = torch.empty_like(self.objects)
        for number in range(doubt.shape[1]):
            own = self.objects[:, number : number + 1] > 0.5
            unsteady, uncertain = (_against(one, own, background) for one in (self._unsteady, self._uncertain))
            doubt[:, number : number + 1] = unsteady + CONFIDENCE * uncertain - DOUBT
        return doubt

    def merge_given(self, given: Mapping[int, Tensor]) -> None:
        """Merge the tracks that belong to each object of the given masks ``(K, h, w)``; the others become one more.

        Smooth flow makes moving objects too large, so a fifth of a track inside a mask is enough. A track that is not
        seen in those frames may be the only object, occluded there; its appearance will decide.
        """
        index = torch.tensor(list(given), device=self.objects.device)
        shown = torch.stack(list(given.values()), dim=1)[:, :, None]
        seen = self.objects[index].sum(dim=(0, 2, 3))
        inside = torch.stack([(self.objects[index] * one).sum(dim=(0, 2, 3)) for one in shown])
        belongs = inside >= 0.2 * seen
        if len(shown) > 1:
            belongs &= (seen > 0.0) & (inside == inside.amax(dim=0))
        empty = torch.zeros_like(self.speed)
        *objects, other = (
            torch.cat((empty, self.objects[:, which]), dim=1).amax(dim=1, keepdim=True)
            for which in (*belongs, ~belongs.any(dim=0))
        )
        self.objects = torch.cat([*objects, other] if bool(other.any()) else objects, dim=1)

    def labels(self, size: tuple[int, int]) -> Tensor:
        """Masks with the background first, ``(T, 1 + K, h, w)``, of ones and zeros."""
        lasting = average_along(self.objects * (self._doubt() < 0.0), self.flow, AVERAGING_FRAMES)
        labels = large_empty(len(lasting), 1 + lasting.shape[1], *size, device=lasting.device)
        kinds = torch.arange(labels.shape[1], device=lasting.device).view(-1, 1, 1)
        for index in range(len(lasting)):
            best, number = resize(lasting[index : index + 1], size)[0].max(dim=0)
            labels[index] = torch.where(best > 0.5, number + 1, 0) == kinds
        return labels


def _changes(motion: Tensor, flow: Flow) -> Tensor:
    """How much motion ``(T, 2, h, w)`` differs from that of the frame before, along the flow, ``(T, 1, h, w)``."""
    changes = motion.new_zeros(len(motion), 1, *flow.size)
    for start in range(0, len(flow), TOGETHER):
        before = slice(start, min(start + TOGETHER, len(flow)))
        after = slice(before.start + 1, before.stop + 1)
        changes[after] = (motion[after] - warp(motion[before], flow.backward[before])).norm(dim=1, keepdim=True)
    return changes


def _uncertainty(flow: Flow) -> Tensor:
    """One less the confidence of the flow from each frame, the less of both ways, ``(T, 1, h, w)``."""
    ahead = torch.cat((flow.forward_confidence, torch.ones_like(flow.forward_confidence[:1])))
    back = torch.cat((torch.ones_like(flow.backward_confidence[:1]), flow.backward_confidence))
    return 1.0 - torch.minimum(ahead, back)[:, None]


def _against(values: Tensor, own: Tensor, background: Tensor) -> Tensor:
    """Log odds against an object, ``(T, 1, h, w)``, by a measure that is larger in the background, frame by frame."""
    out = torch.zeros_like(values)
    for index, (one, inside, outside) in enumerate(zip(values, own, background, strict=True)):
        if bool(inside.any()) and bool(outside.any()):
            least, most = one[inside].quantile(OWN), one[outside].median()
            out[index] = (most - least).clamp_min(0.0) * (one - least.lerp(most, BETWEEN))
    return out


def _resized(flow: Flow, size: tuple[int, int]) -> Flow:
    """A flow of another size, some pairs at a time."""
    if flow.size == size:
        return flow
    parts: dict[str, Any] = {name: large_empty(*part.shape[:-2], *size) for name, part in flow.tensors().items()}
    for start in range(0, len(flow), TOGETHER):
        some = resize_flow(flow.part(start, min(start + TOGETHER, len(flow)) + 1), size)
        for name, part in some.tensors().items():
            parts[name][start : start + TOGETHER] = part
    return replace(flow, **parts)
