"""Matte: ``x = a F + (1 - a) B`` with soft alpha a at native size and clean colours F, from a rough mask.

The given mask is first made as fine as its own frame has it, then carried from frame to frame, and from each given mask
both ways. In every frame log odds say which side a pixel is of::

    o = log odds of the mask of the frame beside it, along the object's motion
      + MOTION log(r_B / r_F)      which motion, the object's or that behind it, rebuilds the pixel from its neighbours
      + COLOUR log(n_F / n_B)      on which side, around here, its colour was seen

The band of doubt is where these do not agree: the share s = sigmoid(o) is of neither side alone. Alpha has the least ::

    a' L a + sum_i w_i (a_i - t_i)^2

with the matting Laplacian L (``image.laplacian``), the target t of 0 or 1 and the weight w of ``HOLD`` where s is sure,
and t = s and ``LEAN`` in the band. What is seen of a mask's own border decides how far it is trusted (``looseness``).
Then alpha is averaged with that of the frames beside it along the object's motion. At native size the same is solved in
pieces, near the small alpha, and colours of both sides are found in it (``image.foreground``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ...errors import InputError
from ...image.foreground import foreground_colours
from ...image.laplacian import MARGIN, solve_band
from ...image.matting import bounding_box
from ...image.morphology import dilate
from ...image.resize import resize, working_copy
from ...motion.background import track_background
from ...optim.fit import Fitted
from ...optim.progress import Progress
from ...store.journal import Journal, Kept
from ...store.lazy import computed_with_mask
from ...store.scratch import large_empty, need_room
from ...store.transfer import send
from ...types import Flow, Layers, OnStep, Shot
from ..base import Found, Given, Work
from .carry import carry
from .config import MatteConfig
from .shadow import cast_shadow

__all__ = ["find", "finish", "prepare"]

NATIVE_STEPS = 30
NEAR_SMALL, HELD = 0.05, 10.0
"""Weight of the small alpha in its band, and outside of it."""
MIXED = 0.02
"""Least share of either side in the band of the small alpha."""
LEAST = 1.0 / 255.0
"""Alpha below which, and above one less which, it is 0, or 1."""


def prepare(frames: Tensor, given: Given, config: MatteConfig) -> Given:
    """See that there is a mask, bring it to the working size, and see that what will be found has room.

    Raises:
        InputError: there is no mask, or nothing is left of it there.
        MediaError: neither memory nor the temporary folder has room for what will be found.
    """
    masks: Mapping[int, Tensor] | None = given["mask"]
    if masks is None:
        raise InputError("mask: the task matte needs one; link the object, roughly, in one frame")
    small = working_copy(frames[:1], config.side)
    need_room(4 * len(frames) * small[0, 0].numel() * (3 + 3 + 2 * 3))
    size = (small.shape[2], small.shape[3])
    shown = {index: resize(mask.sum(dim=0).clamp_max(1.0)[None, None], size)[0, 0] for index, mask in masks.items()}
    shown = {index: mask for index, mask in shown.items() if bool((mask > 0.5).any())}
    if not shown:
        raise InputError(
            f"mask: what it shows is smaller than a pixel at the working size, {size[1]}x{size[0]}; paint the whole "
            "object white, or crop the clip around it"
        )
    return {**given, "mask": shown}


def find(shot: Shot, given: Given, config: MatteConfig, work: Work) -> Found:
    """Find the small alpha of a shot.

    Returns:
        The fields ``masks`` ``(T, 2, h, w)``, the background first, sum 1; ``before`` and ``after``, where the
        background behind the object is seen (``motion.background.track_background``); and, where it is wanted,
        ``shadow`` ``(T, 3, h', w')``, what the object does to the light of the background (``shadow``).
    """
    assert shot.flow is not None
    masks: Mapping[int, Tensor] = given["mask"]
    carrying, tracing, shading = work.progress.phases(4, 1, 2 if given["with_shadow"] else 0)
    notes = {}
    if masks:
        kept, _ = work.journal.step("alpha", partial(_carried, shot.frames, shot.flow, masks, config, work, carrying))
        alphas = kept["alpha"]
        if not bool((alphas > 0.5).any()):
            notes["warning"] = "nothing of the mask's object could be held on to; give masks of more frames"
    else:
        alphas = torch.zeros(len(shot.frames), *working_copy(shot.frames[:1], config.side).shape[2:])
        notes["warning"] = "no mask shows anything here: the foreground is empty; give a mask of one of these frames"
    fields = large_empty(len(alphas), 2, *alphas.shape[1:])
    fields[:, 1] = alphas
    torch.sub(1.0, alphas, out=fields[:, 0])
    before, after = track_background(fields[:, 0], shot.flow, frames=shot.frames, device=work.device, on_step=tracing)
    kinds = {"masks": fields, "before": before, "after": after}
    if given["with_shadow"]:
        kept, _ = work.journal.step("shadow", partial(_shaded, shot, alphas, config, work, shading))
        kinds["shadow"] = kept["shadow"]
    mixed = 100.0 * float(torch.stack([((one > MIXED) & (one < 1.0 - MIXED)).float().mean() for one in alphas]).mean())
    notes["said"] = f"{mixed:.1f} % of the clip is soft"
    fitted = Fitted(config.steps, 0.0, {}, "steps")
    return Found(kinds, fitted, notes)


@torch.no_grad()
def _carried(
    frames: Tensor,
    flow: Flow,
    masks: Mapping[int, Tensor],
    config: MatteConfig,
    work: Work,
    progress: Progress,
    _: Journal,
) -> Kept:
    small = working_copy(frames, config.side, work.device)
    given = {index: mask.to(work.device) for index, mask in masks.items()}
    return {"alpha": carry(small, flow, given, config.steps, config.sweeps, progress).cpu()}, {}


def _shaded(shot: Shot, alphas: Tensor, config: MatteConfig, work: Work, progress: Progress, _: Journal) -> Kept:
    assert shot.flow is not None
    side = config.shadow_side
    return {"shadow": cast_shadow(shot.frames, alphas, shot.flow, side, work.device, progress)}, {}


def finish(layers: Layers, device: torch.device, on_step: OnStep) -> Layers:
    """The layers with alpha and the object's colours at native size; of a long clip they are made when looked at."""
    walk = partial(_native, layers.frames, layers.fields["masks"], device)
    colours, matte = computed_with_mask(walk, tuple(layers.frames.shape), on_step=on_step)
    return replace(layers, pictures={"matte": matte, "colour_1": colours})


@torch.no_grad()
def _native(frames: Tensor, masks: Tensor, device: torch.device, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The object's colours ``(H, W, 3)`` and alpha ``(H, W)`` of each frame from ``start`` on."""
    for index in range(start, len(frames)):
        frame = send(frames[index], device)
        picture = frame.movedim(-1, 0).contiguous()
        alpha = native_alpha(picture, send(masks[index, 1], device))
        colours = torch.zeros_like(frame)
        if bool(alpha.any()):
            rows, columns = bounding_box(alpha, 2 * MARGIN)
            rows, columns = slice(rows.start, min(rows.stop, len(frame))), slice(columns.start, columns.stop)
            own = foreground_colours(picture[:, rows, columns], alpha[rows, columns])[0]
            colours[rows, columns] = own.movedim(0, -1) * (alpha[rows, columns] > 0.0)[..., None]
        yield colours, alpha


def native_alpha(picture: Tensor, small: Tensor) -> Tensor:
    """Alpha ``(H, W)`` of a picture ``(3, H, W)``, near the small one ``(h, w)``, solved in pieces where it is soft."""
    size = (picture.shape[1], picture.shape[2])
    alpha = resize(small[None, None], size)[0, 0].clamp(0.0, 1.0)
    if tuple(small.shape) != size:
        band = dilate(((small > MIXED) & (small < 1.0 - MIXED)).float()[None, None], 1)
        band = resize(band, size, mode="nearest")[0, 0]
        alpha = solve_band(picture, alpha, NEAR_SMALL + HELD * (1.0 - band), band, steps=NATIVE_STEPS)
    return ((alpha - LEAST) / (1.0 - 2.0 * LEAST)).clamp_(0.0, 1.0)
