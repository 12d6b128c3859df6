"""A rough mask made fine in its own frame, and carried from frame to frame by motion, colours and edges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...image.colour import to_lab
from ...image.inpaint import inpaint
from ...image.laplacian import MattingLaplacian
from ...image.morphology import box_mean, distance_inside
from ...image.resize import resize
from ...motion.warp import pixel_grid, resize_flow, warp
from ...optim.progress import Progress
from ...store.memo import MEMO, digest
from ...store.scratch import large_empty
from ...types import Flow

__all__ = ["carry"]

COLOURS = 48
"""Kinds of colour that are told apart."""
NEAR = 0.06
"""Radius of the neighbourhood that colours are counted in, as a share of the long side."""
POOL = 4
"""Side of the squares that colours are counted in."""
CORE = 4.0
"""Pixels from a border at which motion and colours are those of one side alone."""
LEAST_RESIDUAL = 0.012
"""Colour difference that even the right motion leaves."""
MOTION, COLOUR = 2.0, 1.0
"""Weights of the evidence of motion and of colours, in log odds."""
SURE = 0.9
"""Share from which on a pixel begins to count as one side's alone."""
HOLD, LEAN = 3.0, 0.02
"""Weights of what is sure, and of the best guess in the band of doubt."""

FLOOR, ROUGH_FLOOR = 0.002, 0.02
"""Least share of a side that a mask leaves, of one that follows edges and of one that is rough."""
LOOSE = 2.0
"""Pixels by which a border may be off from which on a mask counts as rough."""
FINEST = 3.0
"""By how many pixels, at most, a rough mask may be off at the size where it is looked at first."""
WIDER = 2.0
"""How much farther than ``NEAR`` colours are counted there, for each pixel that the mask may be off by."""
CERTAIN = 8.0, 6.0
"""Exponents on how sure a rough mask, and what was found of it, are: the power is how much a pixel tells of a side."""
PRIOR = 0.5
"""Share of a rough mask's own log odds that count where it is not sure."""
LIFT = 0.2
"""What the shares of all kinds of colour on a rough mask's side add up to, against ``LEAST_COUNT``."""
ROUNDS = 5
"""How often a given mask is looked at with what was found of it."""
LEAST_COUNT = 2e-4
"""Share of a colour around a pixel below which it says little."""


class Palette:
    """The kinds of colours of a clip."""

    def __init__(self, small: Tensor) -> None:
        every = max(1, small.shape[0] * small.shape[2] * small.shape[3] // 20000)
        lab = to_lab(small).movedim(1, -1).reshape(-1, 3)[::every]
        self._scale = torch.tensor([0.7, 1.0, 1.0], device=lab.device)
        lab = lab * self._scale
        lab = lab[lab[:, 0].argsort()]
        centres = lab[torch.linspace(0, len(lab) - 1, COLOURS, device=lab.device).long()]
        for _ in range(12):
            nearest = torch.cdist(lab, centres).argmin(dim=1)
            sums = torch.zeros(COLOURS, 4, device=lab.device)
            sums.index_add_(0, nearest, torch.cat((lab, torch.ones_like(lab[:, :1])), dim=1))
            centres = torch.where(sums[:, 3:] > 0.0, sums[:, :3] / sums[:, 3:].clamp_min(1.0), centres)
        self._centres = centres

    def kinds(self, picture: Tensor) -> Tensor:
        """Which kind each pixel of ``(3, h, w)`` is, ``(h, w)``."""
        lab = to_lab(picture[None])[0].flatten(1).T * self._scale
        return torch.cdist(lab, self._centres).argmin(dim=1).view(picture.shape[1:])


def counted(kinds: Tensor, alpha: Tensor, weight: Tensor, wider: float | None = None) -> Tensor:
    """How much of each kind is around, in front and behind: ``(2, COLOURS, h / POOL, w / POOL)``.

    With ``wider`` so much farther around, and as shares of its side: where most is in doubt, more is sure of one side
    than of the other, and that says nothing of a colour.
    """
    height, width = kinds.shape
    size = (-(-height // POOL), -(-width // POOL))
    column, row = pixel_grid(height, width, device=kinds.device, dtype=torch.long) // POOL
    place = (kinds * size[0] + row) * size[1] + column
    out = alpha.new_zeros(2, COLOURS * size[0] * size[1])
    out[0].index_add_(0, place.flatten(), (alpha * weight).flatten())
    out[1].index_add_(0, place.flatten(), ((1.0 - alpha) * weight).flatten())
    out = out.view(2, COLOURS, *size)
    radius = min(max(1, round((wider or 1.0) * NEAR * max(height, width) / POOL)), *size)
    around = box_mean(box_mean(out, radius), radius)
    around += 0.03 * out.mean(dim=(2, 3), keepdim=True)
    return around if wider is None else LIFT * around / around.sum(dim=1, keepdim=True).clamp_min(1e-9)


def colour_log_odds(counts: Tensor, kinds: Tensor, vectors: Tensor | None) -> Tensor:
    """Log odds ``(h, w)`` that a colour is in front, of what is counted where ``vectors`` ``(2, h, w)`` lead."""
    places = pixel_grid(*kinds.shape, device=kinds.device)
    if vectors is not None:
        places = places + vectors
    column, row = (places / POOL).long()
    column, row = column.clamp(0, counts.shape[3] - 1), row.clamp(0, counts.shape[2] - 1)
    place = (kinds * counts.shape[2] + row) * counts.shape[3] + column
    front, back = counts.flatten(1)[:, place]
    return ((front + LEAST_COUNT) / (back + LEAST_COUNT)).log().clamp(-3.0, 3.0)


def one_sided(vectors: Tensor, confidence: Tensor, inside: Tensor) -> Tensor:
    """Motion ``(2, h, w)`` of one side, spread from its core over the frame."""
    weight = (distance_inside(inside > 0.5, round(CORE)) / CORE).square()
    weight = torch.maximum(weight, 0.01 * inside) * confidence.clamp_min(0.02)
    return inpaint(vectors[None], weight[None, None])[0]


def _vectors(flow: Flow, index: int, other: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The flow ``(2, h, w)`` of a frame to one of its neighbours, and how far it can be believed ``(h, w)``."""
    way, pair = "forward" if other > index else "backward", min(index, other)
    vectors, confidence = getattr(flow, way)[pair], getattr(flow, f"{way}_confidence")[pair]
    confidence = resize(confidence[None, None].to(device), size)[0, 0]
    return resize_flow(vectors[None].to(device), size)[0], confidence


def neighbours(small: Tensor, index: int) -> dict[int, Tensor]:
    """A frame and its neighbours ``(3, h, w)``, by frame."""
    return {other: small[other] for other in range(max(0, index - 1), min(len(small), index + 2))}


class Motion:
    """The motion of both sides of a frame, to one of its neighbours; ``known`` is how far alpha ``(h, w)`` is sure."""

    def __init__(self, flow: Flow, index: int, other: int, alpha: Tensor, known: Tensor | float = 1.0) -> None:
        vectors, confidence = _vectors(flow, index, other, (alpha.shape[0], alpha.shape[1]), alpha.device)
        confidence = confidence * known
        self.front, self.back = (one_sided(vectors, confidence, side) for side in (alpha, 1.0 - alpha))


def in_frame(vectors: Tensor) -> Tensor:
    """Whether vectors ``(..., 2, h, w)`` lead to a place in the frame, ``(..., h, w)``."""
    height, width = vectors.shape[-2:]
    column, row = (vectors + pixel_grid(height, width, device=vectors.device)).unbind(dim=-3)
    return (column > -0.5) & (column < width - 0.5) & (row > -0.5) & (row < height - 0.5)


def residuals(here: Tensor, there: Tensor, motion: Motion) -> Tensor:
    """How far the other frame, moved as each side, is from this one, ``(2, h, w)``; infinite beyond the frame."""
    both = torch.stack((motion.front, motion.back))
    moved = warp(there.expand(2, -1, -1, -1), both)
    off = box_mean((moved - here).abs().mean(dim=1, keepdim=True), 2)[:, 0]
    return off.where(in_frame(both), torch.inf)


def motion_log_odds(
    pictures: Mapping[int, Tensor], flow: Flow, index: int, alpha: Tensor, known: Tensor | float = 1.0
) -> Tensor:
    """Log odds ``(h, w)`` that a pixel moves as the object and not as what is behind it."""
    least: Tensor | None = None
    for other in (index - 1, index + 1):
        if other in pictures:
            found = residuals(pictures[index], pictures[other], Motion(flow, index, other, alpha, known))
            least = found if least is None else torch.minimum(least, found)
    assert least is not None
    front, back = least + LEAST_RESIDUAL
    # what no neighbour shows says nothing
    return (back / front).log().clamp(-1.5, 1.5).where(least.isfinite().all(dim=0), 0.0)


REACH = 5
"""Pixels from a border within which what is sure may still be mixed."""


def away(share: Tensor) -> Tensor:
    """How far a pixel is from the border between both sides, as a share of ``REACH``, at most 1."""
    front = share > 0.5
    return (distance_inside(front, REACH) + distance_inside(~front, REACH)) / REACH


def settled(picture: Tensor, share: Tensor, start: Tensor, steps: int) -> Tensor:
    """Alpha ``(h, w)`` in the band of doubt, where ``share`` ``(h, w)`` is sure of neither side."""
    sure = (((2.0 * share - 1.0).abs() - (2 * SURE - 1)) / (2 - 2 * SURE)).clamp(0.0, 1.0)
    target = torch.where(sure > 0.0, (share > 0.5).float(), share)
    # beside a border what is sure may be mixed: there lines along colour decide
    weight = LEAN + HOLD * sure * away(share).square()
    laplacian = MattingLaplacian(picture[None])
    return laplacian.solve(target[None, None], weight[None, None], start=start[None, None], steps=steps)[0, 0]


def logit(share: Tensor, least: float) -> Tensor:
    share = share.clamp(least, 1.0 - least)
    return (share / (1.0 - share)).log()


def blurred(mask: Tensor, radius: float) -> Tensor:
    """A mask ``(h, w)`` blurred twice by a box."""
    r = max(1, round(radius))
    return box_mean(box_mean(mask[None, None], r), r)[0, 0]


def looseness(picture: Tensor, mask: Tensor) -> float:
    """By how many pixels the border of a mask may be off, 1 where it follows edges of the picture."""
    grey = picture.mean(dim=0)
    step = F.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    slope = ((step[1:-1, 2:] - step[1:-1, :-2]).square() + (step[2:, 1:-1] - step[:-2, 1:-1]).square()).sqrt()
    hard = mask > 0.5
    inside = distance_inside(hard, 12)
    outside = distance_inside(~hard, 12)
    place = inside - outside
    at = slope[place.abs() <= 1.5].mean()
    beside = slope[(place.abs() >= 4.0) & (place.abs() < 10.0)].mean()
    ratio = float(at / beside.clamp_min(1e-6))
    rough = 0.12 * math.sqrt(float(hard.sum()))
    return 1.0 + (rough - 1.0) * min(1.0, max(0.0, (1.6 - ratio) / 0.3))


def beyond_blurred(mask: Tensor, radius: float) -> Tensor:
    """``blurred``, with what is beyond the frame of neither side, where that makes a mask less."""
    r = max(1, round(radius))
    signed = F.pad(2.0 * mask - 1.0, (2 * r, 2 * r, 2 * r, 2 * r))[None, None]
    inner = box_mean(box_mean(signed, r), r)[0, 0, 2 * r : -2 * r, 2 * r : -2 * r]
    return torch.minimum(blurred(mask, radius), 0.5 + 0.5 * inner)


def refined(small: Tensor, flow: Flow, index: int, mask: Tensor, palette: Palette, steps: int) -> Tensor:
    """A given mask ``(h, w)`` as alpha, as fine as motion, colours and edges of its frame have it.

    A rough one is looked at first where it is off by few pixels, at a smaller size; there only what is sure tells what
    both sides look like and how they move. Each larger size goes on from what was found at the one before.
    """
    loose = looseness(small[index], mask)
    pictures = neighbours(small, index)
    if loose < LOOSE:
        return looked_at(pictures, flow, index, mask, blurred(mask, loose), palette, steps, FLOOR)
    coarsest = max(0, math.ceil(math.log2(loose / FINEST)))
    alpha = mask
    for level in range(coarsest, -1, -1):
        height, width = (max(min(8, side), round(side / 2**level)) for side in mask.shape)
        size = (height, width)
        alpha = resize(alpha[None, None], size, mode="area" if level == coarsest else "bilinear")[0, 0]
        alpha = alpha.clamp(0.0, 1.0)
        there = {other: resize(picture[None], size, mode="area")[0] for other, picture in pictures.items()}
        look = partial(looked_at, there, flow, index, alpha, palette=palette, steps=steps, floor=ROUGH_FLOOR)
        off = loose / 2**level
        alpha = look(beyond_blurred(alpha, off), off=off) if level == coarsest else look(blurred(alpha, 1.0))
    return alpha


def looked_at(
    pictures: Mapping[int, Tensor],
    flow: Flow,
    index: int,
    alpha: Tensor,
    soft: Tensor,
    palette: Palette,
    steps: int,
    floor: float,
    off: float | None = None,
) -> Tensor:
    """Alpha ``(h, w)`` of a frame from a mask, and that as ``soft`` as its border is known; ``off`` by so many pixels
    if it is rough."""
    kinds = palette.kinds(pictures[index])
    prior = logit(soft, floor)
    trust = (2.0 * soft - 1.0).abs()
    powers, wider = (2.0, 2.0), None
    if off is not None:
        prior *= PRIOR + (1.0 - PRIOR) * trust.square()
        powers, wider = CERTAIN, max(1.0, WIDER * off)
    weight = trust.pow(powers[0])
    for _ in range(ROUNDS):
        count = counted(kinds, alpha, weight, wider)
        odds = prior + COLOUR * colour_log_odds(count, kinds, None)
        odds += MOTION * motion_log_odds(pictures, flow, index, alpha, weight)
        share = odds.sigmoid()
        alpha = settled(pictures[index], share, share, steps)
        weight = torch.maximum(weight, (2.0 * share - 1.0).abs().pow(powers[1]))
    return alpha


def carried(
    small: Tensor, flow: Flow, index: int, before: int, alpha: Tensor, palette: Palette, steps: int, own: Tensor | None
) -> Tensor:
    """Alpha ``(h, w)`` of a frame from that of the one beside it, and from what was found there before, if it was."""
    size = (small.shape[2], small.shape[3])
    guess = own
    if guess is None:
        vectors, _ = _vectors(flow, index, before, size, small.device)
        guess = warp(alpha[None, None], vectors[None])[0, 0]
    motion = Motion(flow, index, before, guess)
    start = warp(alpha[None, None], motion.front[None])[0, 0]
    # what comes from beyond the frame is not known
    odds = logit(blurred(start, 1), FLOOR) * in_frame(motion.front)
    if own is not None:
        odds = 0.5 * (odds + logit(blurred(own, 1), FLOOR))
    count = counted(palette.kinds(small[before]), alpha, torch.ones_like(alpha))
    odds = odds + COLOUR * colour_log_odds(count, palette.kinds(small[index]), motion.front)
    odds = odds + MOTION * motion_log_odds(neighbours(small, index), flow, index, start)
    return settled(small[index], odds.sigmoid(), start if own is None else 0.5 * (start + own), steps)


def steadied(small: Tensor, flow: Flow, index: int, alpha: Tensor, beside: Mapping[int, Tensor]) -> Tensor:
    """Mean of a frame's alpha and of those beside it, by frame, along the motion of the object."""
    total, weight = 2.0 * alpha, 2.0
    for other, theirs in beside.items():
        motion = Motion(flow, index, other, alpha)
        total += warp(theirs[None, None], motion.front[None])[0, 0]
        weight += 1.0
    return total / weight


def carry(
    small: Tensor, flow: Flow, masks: Mapping[int, Tensor], steps: int, sweeps: int, progress: Progress
) -> Tensor:
    """Alpha ``(T, h, w)`` of a shot.

    What lies between two masks follows from these two, so that another mask changes nothing before the mask before it,
    nor behind the one behind it; and what does not change is not computed again in the same process.

    Args:
        small: ``(T, 3, h, w)`` in 0..1.
        flow: of the shot.
        masks: ``(h, w)`` in 0..1, by frame; one or more.
        steps: most of them of each solve.
        sweeps: how often the shot is gone through again.
        progress: told after every frame; stops the work by raising.
    """
    palette, count = Palette(small), len(small)
    clip = digest(steps, small, *flow.tensors().values())
    reading, *walking, settling = progress.phases(2, *[4] * (2 + sweeps), 1)
    shown = {}
    for index, mask in masks.items():
        shown[index] = MEMO(
            digest("refined", clip, index, mask), partial(refined, small, flow, index, mask, palette, steps)
        )
        reading(len(shown), len(masks), None)

    def from_beside(index: int, before: int, alpha: Tensor, own: Tensor | None) -> Tensor:
        key = digest("carried", clip, index, before, alpha, own)
        return MEMO(key, partial(carried, small, flow, index, before, alpha, palette, steps, own))

    alphas = large_empty(count, *small.shape[2:], device=small.device).zero_()
    weight = [0.0] * count
    for step, phase in zip((1, -1), walking, strict=False):
        alpha: Tensor | None = None
        since = 0
        order = range(count)[::step]
        for number, index in enumerate(order, 1):
            since += 1
            if index in shown:
                alpha, since = shown[index], 0
            elif alpha is not None:
                alpha = from_beside(index, index - step, alpha, None)
            if alpha is not None:
                # what was shown keeps its frame, and the nearer one counts more in between
                part = 1e6 if since == 0 else 1.0 / since
                alphas[index] += part * alpha
                weight[index] += part
            phase(number, count, partial(_shown, small[index], alphas[index] / max(weight[index], 1e-6)))
    alphas /= torch.tensor(weight, device=small.device).view(-1, 1, 1)
    for sweep, phase in enumerate(walking[2:]):
        step = -1 if sweep % 2 == 0 else 1
        for number, index in enumerate(range(count)[::step], 1):
            if number > 1:
                # a mask that was given stands for all behind it: they need not change with what is before it
                before = shown.get(index - step, alphas[index - step])
                alphas[index] = from_beside(index, index - step, before, alphas[index])
            phase(number, count, partial(_shown, small[index], alphas[index]))

    def settled_in(index: int, beside: dict[int, Tensor]) -> Tensor:
        key = digest("steadied", clip, index, alphas[index], *(part for pair in beside.items() for part in pair))
        return MEMO(key, partial(steadied, small, flow, index, alphas[index], beside))

    out = large_empty(*alphas.shape, device=alphas.device)
    for index in range(count):
        others = [other for other in (index - 1, index + 1) if 0 <= other < count]
        out[index] = settled_in(index, {other: shown.get(other, alphas[other]) for other in others})
        settling(index + 1, count, None)
    return out


def _shown(picture: Tensor, alpha: Tensor) -> Tensor:
    """The picture with what is behind dimmed."""
    return (picture * (0.3 + 0.7 * alpha)).movedim(0, -1)
