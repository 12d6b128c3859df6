"""Motion by dense inverse search, which needs no weights."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .equalise import equalised
from .estimator import Motion, RawMotion, no_motion, with_confidence, with_occlusion

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Dis", "grey_copies"]


def grey_copies(picture: np.ndarray, dark: bool) -> np.ndarray:
    """The luminance ``(h, w, 1)`` of a picture ``(h, w, 3)``; of a dark one two equalised copies, ``(h, w, 2)``."""
    import cv2
    import numpy as np

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    return np.concatenate((equalised(grey), equalised(grey, keep=0.4)), axis=-1) if dark else grey


class Dis:
    """OpenCV's dense inverse search, medium preset, with more rounds of variational refinement.

    Given several copies of the luminance, it reads the first; where that leaves much occluded, it tries the others and
    keeps the best. On equalised dark copies of real clips ten rounds instead of five took the error from 0.75 to 0.72
    pixels and a twentieth off what is occluded; on the clean ones nothing changed.
    """

    content_with = 0.25
    """Part of the pixels that may be occluded before another copy is tried."""

    def __init__(self, refinements: int = 10) -> None:
        import cv2

        # OpenCV's stubs leave out that calc() takes None, "start from rest", for the flow.
        self._search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._search.setVariationalRefinementIterations(refinements)
        self._last: Tensor | None = None

    def read(self, picture: np.ndarray, dark: bool) -> np.ndarray:
        """See ``Estimator.read``."""
        return grey_copies(picture, dark)

    def pairs_at_once(self, height: int, width: int) -> int:
        """One: nothing is gained by more."""
        return 1

    def show(self, frames: Tensor) -> RawMotion:
        """See ``Estimator.show``."""
        run = frames if self._last is None else torch.cat((self._last, frames))
        self._last = frames[-1:]
        found = [self._best(*pair) for pair in pairwise((run * 255.0).round().byte().numpy())]
        return RawMotion(*map(torch.cat, zip(*found, strict=True))) if found else no_motion(frames)

    def finish(self, motion: RawMotion, before: Tensor, after: Tensor) -> Motion:
        """See ``Estimator.finish``."""
        return with_confidence(motion, before[:, :1], after[:, :1])

    def _best(self, before: np.ndarray, after: np.ndarray) -> RawMotion:
        """Motion between two frames ``(C, h, w)``, by the copy that leaves least occluded."""
        tried = []
        for a, b in zip(before, after, strict=True):
            motion = with_occlusion(self._between(a, b), self._between(b, a))
            occluded = float(motion.backward_occlusion.mean())
            tried.append((occluded, motion))
            if occluded <= self.content_with:
                break
        return min(tried, key=lambda attempt: attempt[0])[1]

    def _between(self, before: np.ndarray, after: np.ndarray) -> Tensor:
        return torch.from_numpy(self._search.calc(before, after, None)).movedim(-1, 0)[None]
