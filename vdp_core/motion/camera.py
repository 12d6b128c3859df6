"""The camera's motion, and the residual motion against it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..types import Flow, OnStep
from .warp import occlusion, pixel_grid

__all__ = ["camera_motion", "residual_motion"]


def camera_motion(flow: Flow) -> Flow:
    """The camera's motion alone: a flow whose pairs are homographies, found as in ``residual_motion``."""
    forward, backward = torch.empty_like(flow.forward), torch.empty_like(flow.backward)
    for index in range(len(flow)):
        forward[index] = _planar(flow.forward[index], flow.forward_occlusion[index])
        backward[index] = _planar(flow.backward[index], flow.backward_occlusion[index])
    ahead, back = occlusion(torch.cat((forward, backward)), torch.cat((backward, forward))).chunk(2)
    sure = torch.ones_like(flow.forward_confidence)
    return Flow(forward, backward, ahead, back, flow.source_size, flow.method, flow.cuts, sure, sure)


def residual_motion(flow: Flow, on_step: OnStep | None = None) -> Tensor:
    """Flow less the camera's homography, ``(T, 2, h, w)`` in pixels a frame.

    The homography of each pair is found robustly (MAGSAC++, Barath et al. 2020) on the pixels that both frames see. The
    middle frames average what leads to them and away from them. ``on_step`` is told after every pair.
    """
    count = len(flow) + 1
    residual = torch.zeros(count, 2, *flow.size)
    for index in range(len(flow)):
        away = flow.forward[index].cpu() - _planar(flow.forward[index], flow.forward_occlusion[index])
        back = flow.backward[index].cpu() - _planar(flow.backward[index], flow.backward_occlusion[index])
        residual[index] += away if index == 0 else 0.5 * away
        residual[index + 1] -= back if index + 2 == count else 0.5 * back
        if on_step is not None:
            on_step(index + 1, len(flow), None)
    return residual


def _planar(vectors: Tensor, occluded: Tensor) -> Tensor:
    """The homography that most of a flow ``(2, h, w)`` is of, as a flow, on the CPU; where none is found, all of it."""
    import cv2

    height, width = vectors.shape[1:]
    places = pixel_grid(height, width)
    every = max(1, min(height, width) // 24)
    some = (slice(every // 2, None, every), slice(every // 2, None, every))
    seen = occluded[some] < 0.5
    start = places[:, some[0], some[1]][:, seen].T.numpy()
    end = (places + vectors.cpu())[:, some[0], some[1]][:, seen].T.numpy()
    if len(start) < 12:
        return vectors.cpu()
    cv2.setRNGSeed(0)
    camera, _ = cv2.findHomography(start, end, cv2.USAC_MAGSAC, 0.5, maxIters=2000)
    if camera is None:
        return vectors.cpu()
    moved = cv2.perspectiveTransform(places.flatten(1).T[None].numpy(), camera.astype(np.float32))[0]
    return torch.from_numpy(moved.T).view(2, height, width) - places
