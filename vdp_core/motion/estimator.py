"""The interface of a motion estimator."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .warp import occlusion

__all__ = ["Estimator", "Motion", "no_motion", "with_occlusion"]


class Motion(NamedTuple):
    """Flow and occlusion of n pairs of frames: the four tensors of a ``Flow``."""

    forward: Tensor
    backward: Tensor
    forward_occlusion: Tensor
    backward_occlusion: Tensor


class Estimator(Protocol):
    """Motion between each frame and the one before; it remembers the last frame it was shown."""

    wants_colour: bool
    """Whether it reads RGB, ``(n, 3, h, w)``, or copies of the luminance, ``(n, C, h, w)``, the best one first."""

    def pairs_at_once(self, height: int, width: int) -> int:
        """Number of frames to show in one call."""

    def show(self, frames: Tensor) -> Motion:
        """Take the next frames ``(n, C, h, w)``; return the motion between each and its predecessor.

        The first frame of a clip has no predecessor: the first call returns one pair less than it got frames.
        """


def with_occlusion(forward: Tensor, backward: Tensor) -> Motion:
    """Flow ``(n, 2, h, w)`` both ways, in pixels, with the occlusion that it implies (``warp.occlusion``)."""
    occluded = occlusion(torch.cat((forward, backward)), torch.cat((backward, forward)))
    return Motion(forward, backward, *occluded.chunk(2))


def no_motion(frames: Tensor) -> Motion:
    """Flow of no pairs at all, of the size of frames ``(n, C, h, w)``."""
    vectors = frames.new_zeros(0, 2, *frames.shape[-2:])
    return Motion(vectors, vectors, vectors[:, 0], vectors[:, 0])
