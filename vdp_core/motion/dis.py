"""Motion by dense inverse search, which needs no weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .equalise import equalised, normalised
from .estimator import Motion, RawMotion, completed_motion, likelier, no_motion

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Dis", "grey_copies"]

DESCENTS = 12
"""Steps by which a patch finds its place; with twice as many nothing is better."""

SMALLEST = 16
"""Pixels along a side, to which smaller pictures are filled up."""

Search = Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]


def grey_copies(grey: np.ndarray, dark: bool = False) -> np.ndarray:
    """A luminance ``(h, w)``, and beside it the same with its contrast evened out, ``(h, w, 2)``."""
    import numpy as np

    return np.stack((grey, equalised(grey[..., None])[..., 0] if dark else normalised(grey)), axis=-1)


class Dis:
    """OpenCV's dense inverse search, twice: pixel by pixel the likelier vector, filled in where neither is believed.

    Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. On the luminance it searches down to
    single pixels and smooths little, so that thin limbs keep their own motion; on a copy of even contrast it takes
    larger patches and smooths more, which finds motion in haze, noise and flicker.
    """

    def __init__(self) -> None:
        self._searches: tuple[Search, Search] = (
            _search(finest=0, patch=8, stride=4, smoothness=10.0, refinements=3),
            _search(finest=1, patch=12, stride=6, smoothness=40.0, refinements=5),
        )
        self._last: Tensor | None = None

    def read(self, picture: np.ndarray, dark: bool) -> np.ndarray:
        """See ``Estimator.read``."""
        import cv2

        return grey_copies(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dark)

    def pairs_at_once(self, height: int, width: int) -> int:
        """One: nothing is gained by more."""
        return 1

    def show(self, frames: Tensor) -> RawMotion:
        """See ``Estimator.show``."""
        run = frames if self._last is None else torch.cat((self._last, frames))
        self._last = frames[-1:]
        if len(run) < 2:
            return no_motion(frames)
        import numpy as np

        pictures = (run * 255.0).round().byte().numpy()
        ways = [*pairwise(pictures)]
        ways += [pair[::-1] for pair in ways]
        first, other = (
            torch.from_numpy(np.stack([search(before[copy], after[copy]) for before, after in ways])).movedim(-1, 1)
            for copy, search in enumerate(self._searches)
        )
        return likelier(first, other, run[:-1, :1], run[1:, :1])

    def finish(self, motion: RawMotion, before: Tensor, after: Tensor) -> Motion:
        """See ``Estimator.finish``."""
        return completed_motion(motion, before[:, :1], after[:, :1])


def _search(*, finest: int, patch: int, stride: int, smoothness: float, refinements: int) -> Search:
    """A search down to half the size ``finest`` times, with patches of so many pixels, so many apart."""
    import cv2

    # OpenCV's stubs leave out that calc() takes None, "start from rest", for the flow.
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setPatchStride(stride)
    search.setVariationalRefinementAlpha(smoothness)
    search.setVariationalRefinementIterations(refinements)
    search.setGradientDescentIterations(DESCENTS)

    def between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        # OpenCV refuses pictures that its patches do not fit into a few times over, or reads beyond them
        height, width = before.shape
        beside = (0, max(0, SMALLEST - height), 0, max(0, SMALLEST - width), cv2.BORDER_REPLICATE)
        before, after = (cv2.copyMakeBorder(picture, *beside) for picture in (before, after))
        fits = min(before.shape) >= 2 * patch << finest and max(before.shape) >= 4 * patch << finest
        search.setFinestScale(finest if fits else 0)
        search.setPatchSize(patch if fits else SMALLEST // 2)
        found: np.ndarray = search.calc(before, after, None)
        return found[:height, :width]

    return between
