"""The interface of a motion estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from .confidence import confidence
from .warp import occlusion

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Estimator", "Motion", "no_motion", "with_masks"]


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
        """A frame ``(h, w, 3)`` float32 in 0..1 as the estimator reads it, ``(h, w, C)``; whether its clip is dark."""

    def pairs_at_once(self, height: int, width: int) -> int:
        """Number of frames to show in one call."""

    def show(self, frames: Tensor) -> Motion:
        """Take the next frames ``(n, C, h, w)``; return the motion between each and its predecessor.

        The first frame of a clip has no predecessor: the first call returns one pair less than it got frames.
        """


def with_masks(forward: Tensor, backward: Tensor, before: Tensor, after: Tensor) -> Motion:
    """Flow ``(n, 2, h, w)`` both ways, in pixels, with the occlusion and confidence that it implies.

    ``before`` and ``after`` are the frames ``(n, C, h, w)`` that it was found on.
    """
    ahead, back = torch.cat((forward, backward)), torch.cat((backward, forward))
    occluded = occlusion(ahead, back)
    trusted = confidence(ahead, back, torch.cat((before, after)), torch.cat((after, before)))
    return Motion(forward, backward, *occluded.chunk(2), *trusted.chunk(2))


def no_motion(frames: Tensor) -> Motion:
    """Flow of no pairs at all, of the size of frames ``(n, C, h, w)``."""
    vectors = frames.new_zeros(0, 2, *frames.shape[-2:])
    return Motion(vectors, vectors, *[vectors[:, 0]] * 4)
