"""What lossy compression leaves of a picture: how strong its blocks are, and taking blocks and blotches out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..image.guided import fit_lines, follow
from ..image.morphology import box_mean
from ..image.resize import resize
from ..store.transfer import send
from .blocks import BLOCK, from_opponent, to_opponent

__all__ = ["estimate_blocking", "visible_blocking", "visible_blocks", "without_blocks"]

LARGEST = 6.0 / 255  # a step between neighbours above this is an edge of the scene
QUIET = 1.5 / 255  # most that neighbours differ by within blocks that are as good as flat
SPREAD = 8.0
"""Deviation of blocks from the scene, in steps that are seen at their borders. Of H.264 at CRF 28, 35 and 40, four
dark copies each, the steps are 0.13 to 0.17, 0.18 to 0.26 and 0.25 to 0.36 levels, and the error of colour 1.0 to 1.5,
1.2 to 1.8 and 1.2 to 2.1; without compression the steps are 0.04 at most."""
MOST = 4.0 / 255
"""Steps of half a level would be that: blocks that can be seen in bright pictures are few."""
SURE = 3.0  # standard errors that steps at borders have to be larger by; neighbouring rows are alike
VISIBLE, STANDS_OUT = 2.0 / 255, 2.0
"""Step across the side of a block that is seen, and how many times what is inside the two blocks it has to be."""
SEEN = 0.02
"""Share of blocks' sides that are seen at which half of their deviation counts. Frames of DAVIS, JPEG of good quality,
have 0.003 to 0.010 under haze (seven clips) and 0.016 to 0.023 without (three); under haze through H.264 0.016 to 0.054
at CRF 28, 0.021 to 0.088 at CRF 35; dark ones at CRF 35, lifted, 0.11 to 0.23."""
SAMPLES_SEEN = 4
LUMA_RADIUS, CHROMA_RADIUS = 6, 4  # of the windows, the latter in samples of a quarter of the size
CHROMA_SIZE = 4
LUMA_EDGE, CHROMA_EDGE = 2.0, 2.5  # deviations of the blocks that an edge has to have


def estimate_blocking(frames: Tensor, *, samples: int = 12, device: torch.device | str = "cpu") -> float:
    """Return the deviation that blocks of 8x8 pixels have from the scene, in 0..1; 0 where none are seen.

    Between blocks that are as good as flat, neighbours differ more than they do inside of them.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        samples: number of frames looked at, evenly spread.
        device: where to compute.
    """
    sums = torch.zeros(2, 3, device=device)  # steps at borders and inside, their squares, and their number
    some = torch.linspace(0, len(frames) - 1, min(samples, len(frames))).round().long().tolist()
    for index in some:
        grey = send(frames[index], device).float().mean(dim=-1)
        for picture in (grey, grey.T):
            sums += _steps(picture)
    number = sums[:, 2].clamp_min(1.0)
    mean = sums[:, 0] / number
    error = ((sums[:, 1] / number - mean.square()).clamp_min(0.0) / number).sum().sqrt()
    step = max(float(mean[0] - mean[1] - SURE * error), 0.0)
    return SPREAD * step / (1.0 + SPREAD * step / MOST)


def _steps(grey: Tensor) -> Tensor:
    """Of the steps along the rows of a picture ``(h, w)``, at the borders of blocks and inside: sum, sum of squares and
    number."""
    steps = grey.diff(dim=1).abs()
    if steps.shape[1] < BLOCK:
        return steps.new_zeros(2, 3)
    last = steps.shape[1] - 3
    around = torch.stack([steps[:, 3 + by : last + by] for by in (-3, -2, -1, 1, 2, 3)]).amax(dim=0)
    quiet = around < QUIET
    steps = steps[:, 3:last].clamp_max(LARGEST)
    place = torch.arange(3, last, device=grey.device) % BLOCK
    # inside, 3 would be the border of blocks of 4, which files have too
    kinds = (place == BLOCK - 1, (place == 1) | (place == 5))
    values = torch.stack((steps * quiet, steps.square() * quiet, quiet.float()))
    return torch.stack([values[..., kind].sum(dim=(1, 2)) for kind in kinds])


def visible_blocks(frames: Tensor) -> float:
    """Share of the sides of 8x8 blocks that are seen, 0..1, less the share of lines through their middles.

    A side is seen where the step across it, from two pixels before to one pixel behind, as a mean over its 8 pixels and
    in the channel where it is largest, is above 2 levels of 255 and more than twice as large as the same steps through
    the middles of the two blocks. Edges of the scene are seen in both places alike, and texture hides blocks. Blocks
    begin at the first pixel.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
    """
    seen = [share for frame in frames for share in (_seen(frame), _seen(frame.transpose(0, 1)))]
    return max(0.0, sum(seen) / len(seen))


def _seen(picture: Tensor) -> float:
    """Of a picture ``(H, W, 3)``, the sides between columns that are seen less the middles that are, as a share."""
    rows = picture.shape[0] // BLOCK * BLOCK
    means = picture[:rows].unflatten(0, (-1, BLOCK)).mean(dim=1)
    # step k is across x = 4 k + 4: sides at odd k, middles at even k
    steps = (means[:, 3:] - means[:, :-3]).abs().amax(dim=-1)[:, 2::4]
    inside = torch.maximum(steps[:, :-2], steps[:, 2:])
    stands_out = (steps[:, 1:-1] > VISIBLE) & (steps[:, 1:-1] > STANDS_OUT * inside)
    sides, middles = stands_out[:, 0::2], stands_out[:, 1::2]
    if sides.numel() == 0 or middles.numel() == 0:
        return 0.0
    return float(sides.float().mean() - middles.float().mean())


def visible_blocking(frames: Tensor, *, gain: float = 1.0, device: torch.device | str = "cpu") -> float:
    """``estimate_blocking`` as far as blocks are seen: where texture hides them, taking them out costs texture.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        gain: how much brighter they are looked at.
        device: where to compute.
    """
    some = torch.linspace(0, len(frames) - 1, min(SAMPLES_SEEN, len(frames))).round().long().tolist()
    shown = [(gain * send(frames[index], device).float()).clamp_max(1.0) for index in some]
    seen = sum(visible_blocks(frame[None]) for frame in shown) / len(shown)
    return estimate_blocking(frames, device=device) * seen**2 / (seen**2 + SEEN**2)


def without_blocks(frames: Tensor, deviation: float) -> Tensor:
    """Smooth what differs by no more than blocks do; edges stay.

    Brightness is a linear function of itself in small windows (the guided filter, He, Sun and Tang, TPAMI 2013), colour
    one of brightness and itself in windows as large as the largest blocks: files hold it at half size, and so coarser.

    Args:
        frames: ``(N, H, W, 3)`` in 0..1.
        deviation: as ``estimate_blocking`` gives it; 0 changes nothing.

    Returns:
        The same shape.
    """
    if deviation <= 0.0:
        return frames
    picture = to_opponent(frames)
    # a grey step is the root of three as large there
    luma_eps, chroma_eps = ((edge * deviation * math.sqrt(3.0)) ** 2 for edge in (LUMA_EDGE, CHROMA_EDGE))
    luma = picture[:, :1]
    lines = fit_lines(luma, luma, radius=LUMA_RADIUS, eps=luma_eps)
    smooth = follow(box_mean(lines.coefficients, LUMA_RADIUS), luma)
    size = (frames.shape[1], frames.shape[2])
    small = resize(picture, (max(1, size[0] // CHROMA_SIZE), max(1, size[1] // CHROMA_SIZE)), mode="area")
    lines = fit_lines(small, small[:, 1:], radius=CHROMA_RADIUS, eps=chroma_eps)
    means = box_mean(lines.coefficients, CHROMA_RADIUS).flatten(1, 2)
    chroma = follow(resize(means, size).unflatten(1, (2, 4)), torch.cat((smooth, picture[:, 1:]), dim=1))
    return from_opponent(torch.cat((smooth, chroma), dim=1)).clamp_(0.0, 1.0)
