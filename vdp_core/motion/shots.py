"""Where a clip cuts from one shot to the next, at once or in a dissolve."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.resize import resize, size_within
from ..store.lazy import floats
from ..store.scratch import large_empty
from .dis import Dis, grey_copies
from .estimator import RawMotion
from .warp import warp

__all__ = ["SHORTEST", "differ", "is_cut", "join_shots", "small_copy"]

SHORTEST = 5
"""Frames of the shortest shot: what is shorter, such as a flash, belongs to its neighbours."""
DISSOLVE_SIDE = 96  # pixels of the copies that dissolves are looked for on
REACHES = (3, 6, 12)
"""Frames on either side of its middle that a dissolve of up to twice that length is looked for in."""
CONTRAST = 0.88
"""Variance of a mixture, of the mean of its two pictures': less than this, as two scenes that have nothing to do with
each other cancel. At the best reach it was at most 0.82 in 62 of 64 dissolves of real clips; where something large
passed by, it was 0.96 or more."""
LEAST_TOGETHER = 0.58
"""Share of the change that must be on its way equally far in every pixel: in all but one of the dissolves it was; where
something passes by, a pixel shows what was before or what comes after."""
ON_ITS_WAY = 0.25  # how equally far
BACK = 0.1
"""Share of the way that a dissolve may seem to go back from one frame to the next; where light flickers it is more."""
DIFFERENT = 0.4  # squared difference of the two, over the sum of their variances: less tells nothing
RELATED = 0.75  # correlation of the two from which they are one scene whose light changes
FLAT_DEVIATION = 0.02  # deviation of brightness below which a frame shows nothing, as in the middle of a fade


def small_copy(pictures: Tensor) -> Tensor:
    """Copies ``(n, h, w)``, in 8 bits, of pictures ``(n, 1, H, W)`` in 0..1, for ``join_shots``."""
    height, width = pictures.shape[-2:]
    small = resize(pictures, size_within(height, width, DISSOLVE_SIDE), mode="area")
    return (small[:, 0] * 255.0).round().byte()


def join_shots(copies: Tensor, jumps: list[int], differs: Callable[[Tensor, Tensor], bool]) -> tuple[int, ...]:
    """The first frame of every shot but the first.

    Args:
        copies: the clip, ``(T, h, w)``, as ``small_copy`` gives it.
        jumps: frames that show another scene than the frame before.
        differs: whether two copies ``(1, 1, h, w)``, in 0..1, show different scenes.
    """
    clip = floats(copies[:, None])

    def apart(first: int, second: int) -> bool:
        return differs(clip[first : first + 1], clip[second : second + 1])

    cuts: list[int] = []
    for cut in sorted(jumps):
        if cuts and cut - cuts[-1] < SHORTEST:
            # a flash: the scene after it is the one before
            if not apart(cuts[-1] - 1, cut):
                cuts.pop()
            continue
        cuts.append(cut)
    fades = _fades(clip, cuts, apart)
    cuts += fades + _dissolves(clip, cuts, fades, apart)
    kept: list[int] = []
    for cut in sorted(set(cuts)):
        if cut - (kept[-1] if kept else 0) >= SHORTEST and len(clip) - cut >= SHORTEST:
            kept.append(cut)
    return tuple(kept)


def _fades(clip: Tensor, cuts: list[int], apart: Callable[[int, int], bool]) -> list[int]:
    """The middles of stretches that show nothing, where they lie between two scenes."""
    flat = [bool(frame.std() < FLAT_DEVIATION) for frame in clip]
    edges = [index for index in range(1, len(flat)) if flat[index] != flat[index - 1]]
    return [
        (first + end) // 2
        for first, end in pairwise(edges)
        if flat[first] and not any(first <= cut <= end for cut in cuts) and apart(first - 1, end)
    ]


def _dissolves(clip: Tensor, cuts: list[int], fades: list[int], apart: Callable[[int, int], bool]) -> list[int]:
    """The middles of stretches whose frames are mixtures of the first and the last, more and more of the last."""
    pixels = large_empty(len(clip), *F.avg_pool2d(clip[0], 2, ceil_mode=True).flatten().shape)
    for index, frame in enumerate(clip):
        pixels[index] = F.avg_pool2d(frame, 2, ceil_mode=True).flatten()
    found: list[tuple[float, int, int]] = []
    for reach in REACHES:
        for middle in range(reach, len(pixels) - reach):
            first, last = middle - reach, middle + reach
            if any(first < cut <= last for cut in cuts):
                continue
            mixed = _mixture(pixels[first], pixels[first + 1 : last], pixels[last])
            if mixed is not None:
                found.append((mixed[0], first + 1 + mixed[1], reach))
    middles: list[int] = []
    for _, middle, reach in sorted(found):
        near = any(abs(middle - other) <= 2 * max(REACHES) for other in (*middles, *fades))
        if not near and apart(max(middle - reach, 0), min(middle + reach, len(clip) - 1)):
            middles.append(middle)
    return middles


def _mixture(first: Tensor, inner: Tensor, last: Tensor) -> tuple[float, int] | None:
    """How low the contrast of frames ``(n, p)`` is for mixtures of two others ``(p,)``, and which shows half of each.

    None where they are no such mixtures.
    """
    contrasts = torch.stack((first.var(), last.var()))
    first, inner, last = (frames - frames.mean(dim=-1, keepdim=True) for frames in (first, inner, last))
    change = last - first  # but for brightness, which flickers
    if change.square().mean() < DIFFERENT * contrasts.sum() or contrasts.min() < FLAT_DEVIATION**2:
        return None
    if torch.corrcoef(torch.stack((first, last)))[0, 1] > RELATED:
        return None
    share = (inner - first) @ change / change.square().sum()
    between = (share > 0.25) & (share < 0.75)
    if not bool(between.any()) or share[0] > 0.5 or share[-1] < 0.5 or share.diff().min() < -BACK:
        return None
    inner, part = inner[between], share[between, None]
    contrast = (inner.var(dim=1) / torch.lerp(contrasts[0], contrasts[1], part[:, 0])).mean()
    on_its_way = (inner - first) / torch.where(change.abs() < 1e-3, 1e-3, change)
    together = ((on_its_way - part).abs() < ON_ITS_WAY).float().mul(change.square()).sum(dim=1) / change.square().sum()
    if contrast > CONTRAST or together.mean() < LEAST_TOGETHER:
        return None
    return float(contrast), int((share > 0.5).nonzero()[0])


def differ(before: Tensor, after: Tensor) -> bool:
    """Whether two pictures ``(1, 1, h, w)`` show different scenes."""
    import numpy as np

    copies = [grey_copies(picture[0, 0].numpy()) for picture in (before, after)]
    motion = Dis().show(torch.from_numpy(np.stack(copies)).movedim(-1, 1))
    return bool(is_cut(before, after, motion)[0])


def is_cut(before: Tensor, after: Tensor, motion: RawMotion) -> Tensor:
    """Return for each pair of frames whether they show different scenes.

    Across a cut many pixels find no way home, and what the flow does bring over looks little like the frame; both are
    asked for, so that a fast pan does not count as a cut. Between joined real clips, clean and dark, 0.58 and more was
    occluded (0.34 at a cut of one clip) and the likeness at most 0.31; within them, down to every third frame, at most
    0.28 and, where it was 0.2 or more, a likeness of at least 0.71.

    Args:
        before, after: ``(n, 1, h, w)``, the frames as the estimator read them.
        motion: what it found for these pairs.

    Returns:
        ``(n,)`` bool.
    """
    cut = motion.backward_occlusion.flatten(1).mean(dim=1) > 0.3
    if cut.any():
        cut[cut.clone()] = _likeness(warp(before[cut], motion.backward[cut]), after[cut]) < 0.6
    return cut


def _likeness(a: Tensor, b: Tensor) -> Tensor:
    """Correlation, -1..1, of the details of pictures ``(n, 1, h, w)``: what differs from the local mean; ``(n,)``."""

    def details(pictures: Tensor) -> Tensor:
        height, width = pictures.shape[-2:]
        cells = (max(1, round(24 * height / max(height, width))), max(1, round(24 * width / max(height, width))))
        mean = resize(resize(pictures, cells, mode="area"), (height, width))
        return (pictures - mean).flatten(1)

    a, b = details(a), details(b)
    # The small constant, a deviation of 1/255, makes two flat pictures unlike rather than undefined.
    noise = 255.0**-2
    return (a * b).mean(dim=1) / ((a.square().mean(dim=1) + noise) * (b.square().mean(dim=1) + noise)).sqrt()
