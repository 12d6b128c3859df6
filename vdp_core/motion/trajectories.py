"""Points followed along the flow over several frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..types import Flow
from .warp import pixel_grid, warp

__all__ = ["average_along", "follow"]

TOGETHER = 32
"""Frames whose pixels are followed at a time: what that takes is many times as large as they are."""


def follow(
    forward: Tensor, occluded: Tensor, confidence: Tensor, spans: Sequence[int]
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Follow every pixel of every frame over several distances in time.

    Args:
        forward: ``(T-1, 2, h, w)``, the flow from each frame to the next, in pixels.
        occluded: ``(T-1, h, w)``, 1 where a pixel is not seen in the next frame.
        confidence: ``(T-1, h, w)`` in 0..1, of the vectors.
        spans: distances in frames, rising.

    Yields:
        The first frame of a run, a span, where the pixels of that frame and those after it have moved by then
        ``(n, 2, h, w)``, in pixels, and how far they can be believed ``(n, h, w)``: how visible they were all the
        way, times the least confidence on it (errors of one place are alike, so that its product would be too little);
        0 outside the picture.
    """
    count, _, height, width = forward.shape
    grid = pixel_grid(height, width, device=forward.device)
    corner = forward.new_tensor([width - 1, height - 1]).view(1, 2, 1, 1)
    chunk = 64
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        path = torch.zeros(stop - start, 2, height, width, device=forward.device)
        seen = torch.ones(stop - start, 1, height, width, device=forward.device)
        sure = seen
        for hop in range(max(spans, default=0)):
            alive = max(0, min(stop, count - hop) - start)
            if alive == 0:
                break
            path, seen, sure = path[:alive], seen[:alive], sure[:alive]
            at = slice(start + hop, start + hop + alive)
            # both read where the path has led to so far
            onward = warp(torch.cat((forward[at], occluded[at, None], confidence[at, None]), dim=1), path)
            path = path + onward[:, :2]
            seen = seen * (1.0 - onward[:, 2:3])
            sure = torch.minimum(sure, onward[:, 3:])
            if hop + 1 in spans:
                place = grid + path
                yield start, hop + 1, path, (seen * sure)[:, 0] * ((place >= 0.0) & (place <= corner)).all(dim=1)


def average_along(fields: Tensor, flow: Flow, span: int) -> Tensor:
    """Mean of ``(T, C, h, w)`` along the path of each pixel, up to ``span`` frames either way while it is seen."""
    return torch.cat([_averaged(fields, flow, span, start) for start in range(0, len(fields), TOGETHER)])


def _averaged(fields: Tensor, flow: Flow, span: int, start: int) -> Tensor:
    """The mean of ``average_along`` in the ``TOGETHER`` frames from one on."""
    count, stop = len(fields), min(start + TOGETHER, len(fields))
    total, weight = fields[start:stop].clone(), torch.ones_like(fields[start:stop, :1])
    for vectors, occluded, sign in (
        (flow.forward, flow.forward_occlusion, 1),
        (flow.backward, flow.backward_occlusion, -1),
    ):
        path = fields.new_zeros(stop - start, 2, *flow.size)
        seen = fields.new_ones(stop - start, 1, *flow.size)
        for hop in range(1, span + 1):
            # frames from which the hop stays in the clip; the flow of pair i starts at frame i, or leads back to it
            first, end = (start, min(stop, count - hop)) if sign > 0 else (max(start, hop), stop)
            if first >= end:
                break
            ours, theirs = slice(first - start, end - start), slice(first + sign * hop, end + sign * hop)
            pair = slice(first + hop - 1, end + hop - 1) if sign > 0 else theirs
            onward = warp(torch.cat((vectors[pair], occluded[pair, None]), dim=1), path[ours])
            path[ours] += onward[:, :2]
            seen[ours] *= 1.0 - onward[:, 2:3]
            total[ours] += seen[ours] * warp(fields[theirs], path[ours])
            weight[ours] += seen[ours]
    return total.div_(weight)
