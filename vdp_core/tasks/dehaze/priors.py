"""What identifies haze in a clip: ``x = t J + (1 - t) L``, x the hazy colour, J the clear one, L the airlight.

The same point of the scene, seen through more and through less haze, moves on a straight line towards the airlight:
``x2 - L = (t2 / t1) (x1 - L)``. Nearly every part of a picture holds something that is almost black in one channel (He,
Sun and Tang, "Single image haze removal using dark channel prior", CVPR 2009), which bounds the transmission from above
and below at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...denoise.noise import Noise
from ...motion.trajectories import follow
from ...motion.warp import pixel_grid, resize_flow, warp
from ...optim.grids import centres
from ...types import Flow

__all__ = [
    "Extremes",
    "FollowedColours",
    "block_extremes",
    "evidence_of_haze",
    "followed_colours",
    "initial_airlight",
    "ranked",
    "transmission_bounds",
]

LARGEST_CHANGE = 0.25  # of a colour, beyond which the flow is rather wrong
DRAWS = 2  # of noise that is added
BRIGHTEST_SHARE = 0.5
"""Of the brightest blocks in how bright the airlight is taken for; the rest is the densest haze's. On 80 hazy copies of
16 clips (benchmarks/dehaze.py, range) the guess is 9 % off (rms) and errs to neither side; without, it is 13 % off. A
share of 0.75 comes as near, but makes real haze and that of dusk too bright."""
LEAST_TRANSMISSION = 0.02  # transmissions below this are taken for this: 8 bits hold nothing there


@dataclass(frozen=True)
class FollowedColours:
    """Points of the scene seen in two frames. Places are (x, y, t), -1..1 between the edges of frame and clip."""

    first: Tensor
    """``(N, 3)``, where and when the first view was."""
    second: Tensor
    before: Tensor
    """``(N, 3)``, the colour in the first view."""
    after: Tensor

    def __len__(self) -> int:
        return len(self.first)


@torch.no_grad()
def followed_colours(
    frames: Tensor,
    flow: Flow,
    *,
    spans: tuple[int, ...] = (2, 4, 8, 16),
    blur: int = 5,
    limit: int = 400_000,
    seed: int = 0,
    area: Tensor | None = None,
) -> FollowedColours:
    """Follow points along the flow, forward and backward in equal number.

    What is read between pixels loses contrast, as haze makes it lose: the frames are blurred first, and following both
    ways lets what is left of the effect cancel.

    Args:
        frames: the working copy ``(T, 3, h, w)``.
        flow: of the same clip, any size.
        spans: distances in frames, rising.
        blur: width of the box filter, odd, in pixels.
        limit: the most points; a random choice is made above it.
        seed: of that choice.
        area: ``(h, w)``, where points are followed, from and to; None: everywhere.
    """
    count, _, height, width = frames.shape
    smooth = F.avg_pool2d(F.pad(frames, (blur // 2,) * 4, mode="replicate"), blur, 1)
    flow = resize_flow(flow, (height, width))
    spans = tuple(span for span in spans if span < count) or (1,)
    share = limit / (2 * len(spans) * count * height * width)
    grid = pixel_grid(height, width, device=frames.device)
    generator = torch.Generator(frames.device).manual_seed(seed)
    found: list[tuple[Tensor, ...]] = []
    for backward in (False, True):
        # backward in time is forward in the reversed clip
        clip = smooth.flip(0) if backward else smooth
        vectors = flow.backward.flip(0) if backward else flow.forward
        occluded = flow.backward_occlusion.flip(0) if backward else flow.forward_occlusion
        confidence = flow.backward_confidence.flip(0) if backward else flow.forward_confidence
        motion = [part.to(frames.device) for part in (vectors, occluded, confidence)]
        direction = frames.new_tensor([1.0, 1.0, -1.0 if backward else 1.0])
        for start, span, path, weight in follow(motion[0], motion[1], motion[2], spans):
            before = clip[start : start + len(path)]
            after = warp(clip[start + span : start + span + len(path)], path)
            chosen = torch.rand(weight.shape, generator=generator, device=frames.device) < share * weight
            chosen &= (before - after).abs().amax(dim=1) < LARGEST_CHANGE
            if area is not None:
                chosen &= area & (warp(area.to(before.dtype).expand(len(path), 1, -1, -1), path)[:, 0] > 0.5)
            index, y, x = chosen.nonzero(as_tuple=True)
            (to_x, to_y), when = (grid + path)[index, :, y, x].unbind(dim=-1), index + start
            first = torch.stack((centres(x, width), centres(y, height), centres(when, count)), dim=-1)
            there = (centres(to_x, width), centres(to_y, height), centres(when + span, count))
            second = torch.stack(there, dim=-1)
            found.append((first * direction, second * direction, before[index, :, y, x], after[index, :, y, x]))
    return FollowedColours(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@dataclass(frozen=True)
class Extremes:
    """The darkest and brightest values of blocks of the clip, each channel by itself."""

    low: Tensor
    """``(N, 3)``."""
    high: Tensor
    """``(N, 3)``."""
    places: Tensor
    """``(N, 3)``, centres of the blocks: (x, y, t), -1..1 between the edges of frame and clip."""


def block_extremes(
    frames: Tensor,
    noise: Noise | None = None,
    *,
    block: int = 10,
    length: int = 2,
    share: float = 0.01,
    area: Tensor | None = None,
) -> Extremes:
    """Return a low and a high quantile of every block of a clip, as they would be without its noise.

    Noise makes the darkest values of a block too dark, by up to two deviations, which in dense haze is a quarter of t.
    As much noise added again shows by how much (simulation and extrapolation: Cook and Stefanski, JASA 1994).

    Args:
        frames: the working copy ``(T, 3, h, w)``.
        noise: of the working copy; None: it has none.
        block: side of a block, in pixels.
        length: of a block, in frames.
        share: of a block's values that lie below the low and above the high one.
        area: ``(h, w)``, in which blocks have to lie as a whole; None, or where none does: all of them.
    """
    found = _quantiles(frames, block, length, share, area)
    if noise is None:
        return found
    generator = torch.Generator(frames.device).manual_seed(0)
    # opponent channels are a rotation of the colours: their mean variance is that of the colours
    deviation = noise.variance(frames.mean(dim=1, keepdim=True)).mean(dim=1, keepdim=True).sqrt()
    low, high = torch.zeros_like(found.low), torch.zeros_like(found.high)
    for _ in range(DRAWS):
        again = torch.randn(frames.shape, generator=generator, device=frames.device)
        noisier = _quantiles(torch.addcmul(frames, deviation, again), block, length, share, area)
        low, high = low + noisier.low / DRAWS, high + noisier.high / DRAWS
    return replace(found, low=2.0 * found.low - low, high=2.0 * found.high - high)


def _quantiles(frames: Tensor, block: int, length: int, share: float, area: Tensor | None) -> Extremes:
    count, _, height, width = frames.shape
    block = min(block, height, width)
    rows, columns = height // block, width // block
    top, left = (height - rows * block) // 2, (width - columns * block) // 2
    crop = slice(top, top + rows * block), slice(left, left + columns * block)
    middle = (block - 1) / 2
    y = centres(torch.arange(rows, device=frames.device) * block + middle + top, height)
    x = centres(torch.arange(columns, device=frames.device) * block + middle + left, width)
    grid_y, grid_x = (places.flatten() for places in torch.meshgrid(y, x, indexing="ij"))
    whole = torch.arange(rows * columns, device=frames.device)
    if area is not None:
        inside = area[crop].unflatten(1, (columns, block)).unflatten(0, (rows, block)).all(dim=3).all(dim=1)
        whole = inside.flatten().nonzero()[:, 0] if inside.any() else whole
    low, high, places = [], [], []
    for start in range(0, count, length):
        part = frames[start : start + length][..., crop[0], crop[1]]
        values = part.unflatten(3, (columns, block)).unflatten(2, (rows, block))  # (n, 3, rows, block, columns, block)
        values = values.permute(2, 4, 1, 0, 3, 5).reshape(rows * columns, 3, -1)[whole]
        rank = max(1, round(share * values.shape[-1]))
        low.append(values.kthvalue(rank, dim=-1).values)
        high.append(values.kthvalue(values.shape[-1] + 1 - rank, dim=-1).values)
        when = (start + len(part) / 2) * (2.0 / count) - 1.0
        places.append(torch.stack((grid_x, grid_y, torch.full_like(grid_x, when)), dim=-1)[whole])
    return Extremes(torch.cat(low), torch.cat(high), torch.cat(places))


def initial_airlight(blocks: Extremes) -> Tensor:
    """Return a first guess of the airlight, ``(3,)``.

    Its colour is the median of the hundredth of blocks with least dark. How bright it is lies between that, which is
    too dark where something is seen through the densest haze, and what only a tenth of all blocks exceed anywhere.
    """
    dark = blocks.low.amin(dim=1)
    some = dark.topk(max(1, len(dark) // 100)).indices
    densest = blocks.low[some].median(dim=0).values
    brightest = blocks.high.mean(dim=1)
    return densest * (ranked(brightest, 0.9) / densest.mean().clamp_min(LEAST_TRANSMISSION)) ** BRIGHTEST_SHARE


def transmission_bounds(blocks: Extremes, airlight: Tensor) -> tuple[Tensor, Tensor]:
    """Return lower bounds on log t from the darkest and the brightest value of each block, ``(N,)`` each.

    ``J = L + (x - L) / t`` lies in 0..1, so ``t >= 1 - x / L`` of the darkest channel, which is about t itself where
    something almost black lies in the block, and ``t >= (x - L) / (1 - L)`` of the brightest.

    Args:
        blocks: of the hazy clip.
        airlight: L at each block, ``(N, 3)``.
    """
    dark = 1.0 - (blocks.low / airlight.clamp_min(LEAST_TRANSMISSION)).amin(dim=1)
    bright = ((blocks.high - airlight) / (1.0 - airlight).clamp_min(LEAST_TRANSMISSION)).amax(dim=1)
    return dark.clamp_min(LEAST_TRANSMISSION).log(), bright.clamp(LEAST_TRANSMISSION, 1.0).log()


def evidence_of_haze(blocks: Extremes, airlight: Tensor) -> tuple[float, float, float]:
    """Return what tells haze from a clear scene that is bright: the veil over what is nearest, and the contrast.

    Clear scenes have something black and some strong contrast; haze lies over the nearest things too, and takes
    contrast from everything.

    Args:
        blocks: of the hazy clip.
        airlight: L, ``(3,)``.

    Returns:
        The veil, darkest channel over L, that all but a twentieth of the blocks have, and that all but a hundredth
        have; and the contrast, high less low, that only a twentieth exceeds.
    """
    veil = (blocks.low / airlight.clamp_min(LEAST_TRANSMISSION)).amin(dim=1).clamp_min(0.0)
    near, nearest = (ranked(veil, share) for share in (0.05, 0.01))
    contrast = (blocks.high - blocks.low).mean(dim=1)
    return float(near), float(nearest), float(ranked(contrast, 0.95))


def ranked(values: Tensor, share: float) -> Tensor:
    """The value ``()`` of ``values`` ``(n,)`` that a share of them does not exceed."""
    return values.kthvalue(max(1, round(share * len(values)))).values
