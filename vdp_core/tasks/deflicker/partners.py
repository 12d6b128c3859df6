"""Where the points of every frame are seen in frames around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...motion.trajectories import follow
from ...motion.warp import resize_flow, warp
from ...types import Flow

__all__ = ["SPANS", "Partners"]

SPANS = (1, 2, 4, 8, 16)
"""Distances in frames; long ones keep errors from adding up, and hold what lasts over several frames to what is around
it."""


class _Link(NamedTuple):
    ours: slice
    theirs: slice
    path: Tensor
    """``(n, 2, h, w)``, in pixels."""
    seen: Tensor
    """``(n, h, w)`` in 0..1."""


class Partners:
    """The partners of the pixels of a clip, at distances of ``SPANS`` in both directions."""

    def __init__(self, flow: Flow, size: tuple[int, int], device: torch.device) -> None:
        """Follow the flow, at the size (h, w) of the copies that will be compared."""
        flow = resize_flow(flow, size)
        self.count = len(flow) + 1
        self._links: list[_Link] = []
        for vectors, occluded, sure, sign in (
            (flow.forward, flow.forward_occlusion, flow.forward_confidence, 1),
            (flow.backward.flip(0), flow.backward_occlusion.flip(0), flow.backward_confidence.flip(0), -1),
        ):
            spans = [span for span in SPANS if span < self.count]
            vectors, occluded, sure = vectors.to(device), occluded.to(device), sure.to(device)
            for start, span, path, seen in follow(vectors, occluded, sure, spans):
                stop = start + len(path)
                if sign > 0:
                    ours = slice(start, stop)
                else:
                    path, seen = path.flip(0), seen.flip(0)
                    ours = slice(self.count - stop, self.count - start)
                theirs = slice(ours.start + sign * span, ours.stop + sign * span)
                self._links.append(_Link(ours, theirs, path.half(), seen.half()))

    def of(self, fields: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Bring ``(T, C, h, w)`` along.

        Yields:
            Frames, what their partners hold ``(n, C, h, w)``, and how far these can be believed ``(n, 1, h, w)``.
        """
        for link in self._links:
            yield link.ours, warp(fields[link.theirs], link.path.float()), link.seen[:, None].float()
