"""How a clip looks where no truth is known: what a person sees at once in a bad result, as numbers.

Each figure is the mean over frames ``(T, H, W, 3)`` in 0..1. Those of a result are read beside the same figures of its
source, so that what the scene has counts in both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from comfyui_vdp.vdp_core.denoise.coarse import visible_blocks as blocks

__all__ = [
    "bands",
    "black_blocks",
    "blocks",
    "burnt",
    "colour_in_black",
    "crushed",
    "flat_parts",
    "flicker",
    "neon",
    "noise",
    "saturation",
]

BLOCK = 8  # pixels
WHITE, BLACK = 254.0 / 255, 1.0 / 255
NEON_BRIGHT, NEON_PURE = 0.4, 0.1
"""Least of the largest channel, and most of the smallest as a share of it, of a colour that photographs hardly have."""
DARK = 16.0 / 255  # most of a block's mean that counts as black
FLAT = 0.25  # share of blocks that counts as flat
RUN = 4  # alike pixels on both sides of a band's border


def burnt(frames: Tensor) -> float:
    """Share of pixels with a channel at white, 254 of 255 or more; 0..1."""
    return float((frames.amax(dim=-1) >= WHITE - 1e-6).float().mean())


def crushed(frames: Tensor) -> float:
    """Share of pixels with all channels at black, 1 of 255 or less; 0..1."""
    return float((frames.amax(dim=-1) <= BLACK + 1e-6).float().mean())


def saturation(frames: Tensor) -> float:
    """HSV's saturation, the mean over pixels weighted by value: sum of (largest - smallest channel) over sum of
    largest; 0..1. What is bright counts, as it is seen."""
    high, low = frames.amax(dim=-1), frames.amin(dim=-1)
    return float((high - low).sum(dtype=torch.float64) / high.sum(dtype=torch.float64).clamp_min(1e-9))


def neon(frames: Tensor) -> float:
    """Share of pixels that are bright and all but pure: largest channel 0.4 or more, smallest a tenth of it or less."""
    high, low = frames.amax(dim=-1), frames.amin(dim=-1)
    return float(((high >= NEON_BRIGHT) & (low <= NEON_PURE * high)).float().mean())


def black_blocks(source: Tensor) -> Tensor:
    """Which 8x8 blocks of a source are black, ``(T, H // 8, W // 8)``: means of all channels below 16 of 255."""
    return _block_means(source).amax(dim=1) < DARK


def colour_in_black(frames: Tensor, black: Tensor) -> float:
    """Largest less smallest channel of the means of the blocks that are black in the source, their mean, in levels.

    Means leave noise out; violet that was lifted out of nothing stays. 0 where no block is black.
    """
    means = _block_means(frames)
    chroma = 255.0 * (means.amax(dim=1) - means.amin(dim=1))
    return float(chroma[black].mean()) if bool(black.any()) else 0.0


def _block_means(frames: Tensor) -> Tensor:
    """``(T, 3, H // 8, W // 8)``."""
    return torch.cat([F.avg_pool2d(frame.movedim(-1, 0)[None], BLOCK) for frame in frames])


def flat_parts(source: Tensor) -> Tensor:
    """The flattest quarter of the 8x8 blocks of each frame, ``(T, H // 8, W // 8)``: those whose means are nearest to
    those of their neighbours, which noise hardly changes. Blocks at white or black do not count."""
    means = _block_means(source).mean(dim=1)
    around = F.pad(means[:, None], (1, 1, 1, 1), mode="replicate")
    away = F.max_pool2d(around, 3, 1) + F.max_pool2d(-around, 3, 1)  # highest less lowest of 3x3
    away = away[:, 0].masked_fill((means <= 2.0 * BLACK) | (means >= WHITE), torch.nan)
    least = away.flatten(1).nanquantile(FLAT, dim=1)[:, None, None]
    return away <= least


def noise(frames: Tensor, flat: Tensor) -> float:
    """Deviation of fine noise in flat parts, in levels of 255.

    The root mean square of ``(a - b - c + e) / 2`` of the means of the channels of 2x2 pixels: that of white noise is
    its deviation.
    """
    grey = frames.mean(dim=-1)
    height, width = (BLOCK * side for side in flat.shape[1:])
    a, b, c, e = (grey[:, y:height:2, x:width:2] for y in (0, 1) for x in (0, 1))
    detail = (255.0 * 0.5 * (a - b - c + e)).square()
    inside = flat.repeat_interleave(BLOCK // 2, dim=1).repeat_interleave(BLOCK // 2, dim=2)
    return float(detail[inside].mean().sqrt()) if bool(inside.any()) else 0.0


def bands(frames: Tensor) -> float:
    """Share of neighbours between which a band ends, 0..1: 4 pixels of one value in a row on both sides, in 8 bits, and
    a step of 2 levels or more between them, in the mean of the channels."""
    ends = [share for frame in frames for share in (_band_ends(frame), _band_ends(frame.transpose(0, 1)))]
    return sum(ends) / len(ends)


def _band_ends(picture: Tensor) -> float:
    levels = (255.0 * picture).round()
    steps = levels.diff(dim=1)
    alike = (steps == 0.0).all(dim=-1).float()
    length = RUN - 1
    if alike.shape[1] < 2 * length + 1:
        return 0.0
    whole = F.avg_pool1d(alike[:, None], length, stride=1)[:, 0] == 1.0  # the next pixels have one value
    step = steps.mean(dim=-1).abs()[:, length:-length] >= 2.0
    return float((whole[:, : -length - 1] & whole[:, length + 1 :] & step).float().mean())


def flicker(frames: Tensor) -> float:
    """Mean absolute second difference of the frames' means, in levels of 255; 0 of less than three frames."""
    means = 255.0 * frames.mean(dim=(1, 2, 3))
    return float(means.diff(n=2).abs().mean()) if len(means) > 2 else 0.0
