"""The interface of a motion estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from .confidence import confidence, ground, log_odds
from .warp import occlusion

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Estimator",
    "Motion",
    "RawMotion",
    "no_motion",
    "with_confidence",
    "with_occlusion",
]


class RawMotion(NamedTuple):
    """Flow of n pairs of frames as it was found, and where it does not lead home."""

    forward: Tensor
    backward: Tensor
    forward_occlusion: Tensor
    backward_occlusion: Tensor


class Motion(NamedTuple):
    """Flow, occlusion and confidence of n pairs of frames: the tensors of a ``Flow``."""

    forward: Tensor
    backward: Tensor
    forward_occlusion: Tensor
    backward_occlusion: Tensor
    forward_confidence: Tensor
    backward_confidence: Tensor


class Estimator(Protocol):
    """Motion between each frame and the one before; it remembers the last frame it was shown."""

    def read(self, picture: np.ndarray, dark: bool) -> np.ndarray:
        """A frame ``(h, w, 3)`` float32 in 0..1 as the estimator reads it, ``(h, w, C)``; whether its clip is dark.

        The first channel is the luminance, or an equalised copy of it.
        """

    def pairs_at_once(self, height: int, width: int) -> int:
        """Number of frames to show in one call."""

    def show(self, frames: Tensor) -> RawMotion:
        """Take the next frames ``(n, C, h, w)``; return the motion between each and its predecessor.

        The first frame of a clip has no predecessor: the first call returns one pair less than it got frames.
        """

    def finish(self, motion: RawMotion, before: Tensor, after: Tensor) -> Motion:
        """Make the best of what ``show`` found between frames ``(n, C, h, w)``, and say how sure it is."""


def with_occlusion(forward: Tensor, backward: Tensor) -> RawMotion:
    """Flow ``(n, 2, h, w)`` both ways, in pixels, with the occlusion that it implies (``warp.occlusion``)."""
    occluded = occlusion(torch.cat((forward, backward)), torch.cat((backward, forward)))
    return RawMotion(forward, backward, *occluded.chunk(2))


def with_confidence(motion: RawMotion, before: Tensor, after: Tensor) -> Motion:
    """Motion as it was found, with its confidence."""
    vectors, seen = torch.cat((motion.forward, motion.backward)), ground(torch.cat((before, after)))
    trusted = confidence(log_odds(vectors, seen), (vectors.shape[-2], vectors.shape[-1]))
    return Motion(*motion, *trusted.chunk(2))


def no_motion(frames: Tensor) -> RawMotion:
    """Flow of no pairs at all, of the size of frames ``(n, C, h, w)``."""
    vectors = frames.new_zeros(0, 2, *frames.shape[-2:])
    return RawMotion(vectors, vectors, vectors[:, 0], vectors[:, 0])
