"""Segment: ``x = sum_i m_i c_i`` with masks that sum to one; layer 0 is the background, the others are what moves.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) finds masks and colours with networks
whose losses are satisfied before the masks mean anything: that is the preset ``paper``. The other presets let motion
speak first. What moves alike against the scene, and lasts, is an object (``motion.py``), or it is what a person's mask
shows. Then, in turn: each layer's motion is spread over the frame, and says which layer rebuilds a pixel best from the
neighbouring frames; a small classifier learns what the layers look like; and both, the masks of the neighbouring frames
and the edges of the picture are put together frame by frame, forwards and backwards through the clip. Colours are the
frames' own, so colour cannot settle before the masks do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import as_mask, check_flow, check_frames
from ..errors import InputError, ShapeError
from ..image.inpaint import spread
from ..image.matting import settle
from ..image.resize import working_copy
from ..motion.background import trace
from ..motion.camera import own_motion
from ..motion.objects import moving_objects
from ..motion.trajectories import average_along
from ..motion.warp import resize_flow, warp
from ..optim.fit import Fitted, fit
from ..optim.windows import OVERLAP, Window, joined, load_window, save_window, share_of_steps, windows
from ..store.checkpoint import Checkpoint
from ..store.lazy import large_empty
from ..types import Flow, Layers, OnStep

__all__ = ["PRESETS", "SegmentConfig", "decompose"]

SMALLEST_SIDE = 16
MOTION_SIDE = 256
"""Long side of the flow that motion is looked at on."""
SPAN = 8
"""Frames either way over which a pixel's motion is averaged: water's evens out, an object's lasts."""
TRACKS = 8
"""Most moving things that are told apart where a mask says which of them is meant."""
CERTAIN = 6.0
"""Pixels from the border of a first mask at which its labels are taken as certain."""
WINDOW = 8
"""Radius of the guided filter's windows."""
FLAT = 1e-4
"""Variance of colour below which the guided filter sees no edge."""
SHARPEN = 2.0
"""Slope with which masks return to 0 and 1 after the guided filter has softened them."""
DOUBT = 0.1
"""How far masks from a neighbouring frame are kept from 0 and 1, so that evidence can overrule them."""
DEEP = 3.0
"""Samples of the flow from a border at which its motion is that of one layer alone."""
HIDDEN = 0.5
"""A layer is hidden where it shows less than this share of what it shows both before and after."""
SLIVER = 0.15
"""Where a layer shows less than this share of the most that is ever seen of it, flow is mostly its surroundings'."""
NOISE = 0.01
"""Difference of colours that even the right motion leaves."""
LOUDEST = 4.0
"""Most that the classifier may say, as a log of odds."""


@dataclass(frozen=True)
class SegmentConfig:
    """What a preset sets."""

    steps: int = 300
    """Of the classifier, each time."""
    side: int = 512
    """Long side of the masks; up: finer, slower."""
    rounds: int = 2
    """How often the classifier learns from the masks, and the masks are found with it."""
    samples: int = 4096
    """Pixels a frame that the classifier learns from."""
    learning_rate: float = 5e-3
    appearance: float = 1.0
    """Weight of what the classifier says; up: masks follow colour and motion, down: the neighbouring frames."""
    rebuilt: float = 6.0
    """Weight of which layer's motion rebuilds a pixel from the neighbouring frames; up: borders as motion has them."""
    neighbours: float = 1.0
    """Weight of the masks of neighbouring frames; down: every frame decides for itself."""
    window: int = 160
    """Most frames that are looked at at once."""


PRESETS = {
    "fast": SegmentConfig(steps=200, side=320, rounds=1),
    "balanced": SegmentConfig(),
    "quality": SegmentConfig(steps=600, rounds=3, samples=8192),
}
"""The presets that are ours; ``paper`` is in ``paper.py``."""


class _Found(NamedTuple):
    masks: Tensor
    """``(T, L, h, w)``, sum over L is 1."""
    fitted: Fitted
    notes: Mapping[str, str]


NOTHING = Fitted(0, 0.0, {}, "steps")
"""Of a classifier where there was nothing to learn."""


def decompose(
    frames: Tensor,
    flow: Flow,
    *,
    preset: str = "balanced",
    steps: int = 0,
    seed: int = 0,
    layers: int = 2,
    reference: Tensor | None = None,
    reference_frame: int = -1,
    mask: Tensor | None = None,
    mask_frame: int = 0,
    device: torch.device | str = "cpu",
    weights_folders: tuple[Path, ...] = (),
    checkpoint: Checkpoint | None = None,
    on_step: OnStep | None = None,
) -> Layers:
    """Find the objects of a shot: what moves by itself, or what a mask shows.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more.
        flow: of the same clip.
        preset: ``fast``, ``balanced``, ``quality`` or ``paper``.
        steps: of the optimisation, at most; 0 takes the preset's.
        seed: the same seed gives the same layers (on a CPU, to the bit).
        layers: how many, the background included. Two put all objects together; more give the largest ones a layer
            each. With a mask there are two.
        reference, reference_frame: none is taken.
        mask: ``(H, W)`` or ``(1, H, W)``, the object in frame ``mask_frame``; or ``(T, H, W)``, of which frames may be
            empty: the objects follow those that are given. Pictures of a mask will do.
        mask_frame: which frame a single mask belongs to.
        device: where the classifier learns.
        weights_folders: where the preset ``paper`` looks for VGG16 weights, besides torch's cache.
        checkpoint: where to keep what is found on the way, to go on from when the work was cut off.
        on_step: told after every step; stops the work by raising.

    Returns:
        Layers of the model ``segment``: the field ``masks`` ``(T, L, h, w)``, the background first, sum 1; and
        ``before`` and ``after`` ``(T, 3, h, w)``, where the background behind objects is seen (``behind.trace``).

    Raises:
        ShapeError: frames, flow and mask do not belong together.
        InputError: an unknown preset, a reference, an empty mask, or a setting out of range.
    """
    frames = check_frames(frames, at_least=2, smallest_side=SMALLEST_SIDE)
    check_flow(flow, len(frames))
    if reference is not None:
        raise InputError("reference: the task segment takes none; unlink it, or choose the task relight")
    if preset != "paper" and preset not in PRESETS:
        raise InputError(f"preset: there is no '{preset}'; known: {', '.join([*PRESETS, 'paper'])}")
    if steps < 0:
        raise InputError(f"steps: 0 for the preset's, or more, got {steps}")
    if not 2 <= layers <= 4:
        raise InputError(f"layers: 2 to 4, the background included, got {layers}")
    config = PRESETS.get(preset, PRESETS["balanced"])
    config = replace(config, steps=steps or config.steps)
    given = None if mask is None else masks_given(mask, mask_frame, frames)
    if given is not None and layers > 2:
        raise InputError(f"layers: with a mask there are 2, the object and the background, got {layers}; set it to 2")
    started = time.perf_counter()
    if preset == "paper":
        from . import paper

        if given is not None:
            raise InputError("mask: the preset 'paper' takes none; choose another preset, or unlink it")
        found = _Found(
            *paper.segment(
                frames,
                flow,
                layers=layers,
                steps=steps,
                seed=seed,
                device=device,
                weights_folders=weights_folders,
                checkpoint=checkpoint,
                on_step=on_step,
            )
        )
    else:
        found = _find(frames, flow, config, layers, seed, given, torch.device(device), checkpoint, on_step)

    def still_going(_: int, __: int, preview: Callable[[], Tensor] | None) -> None:
        if on_step is not None:
            on_step(1, 1, preview)

    before, after = trace(found.masks[:, 0], flow, frames=frames, on_step=still_going)
    info = found.fitted.info(preset=preset, flow=flow.method, seconds=time.perf_counter() - started)
    info |= found.notes
    fields = {"masks": found.masks, "before": before, "after": after}
    return Layers("segment", fields, frames, flow, seed, info)


def masks_given(mask: Tensor, mask_frame: int, frames: Tensor) -> dict[int, Tensor]:
    """The masks that a person gave, ``(H, W)`` each, by the frame they belong to.

    Raises:
        ShapeError, InputError: they do not belong to the frames, or are empty.
    """
    masks = as_mask(mask)
    count, height, width, _ = frames.shape
    wanted, proportions = width / height, masks.shape[2] / masks.shape[1]
    if abs(proportions / wanted - 1.0) > 0.02:
        raise ShapeError(
            f"mask: it is {masks.shape[2]}x{masks.shape[1]} pixels, the frames are {width}x{height}; it must show the "
            "whole frame, in any size of the same proportions"
        )
    if len(masks) == 1:
        if not 0 <= mask_frame < count:
            raise InputError(f"mask_frame: 0 to {count - 1} in this clip, got {mask_frame}")
        given = {mask_frame: masks[0]}
    elif len(masks) == count:
        given = dict(enumerate(masks))
    else:
        raise ShapeError(f"mask: one, or one for each of the {count} frames, got {len(masks)}; set count to 1")
    given = {index: one for index, one in given.items() if bool((one > 0.5).any())}
    if not given:
        raise InputError("mask: it is empty everywhere; paint the object white, or unlink it")
    return given


def masks_of_shot(given: Mapping[int, Tensor], shot: range) -> Tensor | None:
    """Of masks ``(H, W)`` by frame those of a shot, ``(n, H, W)`` and empty where there is none; None if all are."""
    own = {index - shot.start: mask for index, mask in given.items() if index in shot}
    if not own:
        return None
    empty = torch.zeros_like(next(iter(own.values())))
    return torch.stack([own.get(index, empty) for index in range(len(shot))])


def nothing(frames: Tensor, flow: Flow, *, preset: str, seed: int) -> Layers:
    """Layers, two of them, of a shot in which no mask shows anything: all is background."""
    masks = _all_background(frames, PRESETS.get(preset, PRESETS["balanced"]), 2)
    nowhere = masks.new_zeros(len(masks), 3, *masks.shape[2:])
    info = NOTHING.info(preset=preset, flow=flow.method, seconds=0.0)
    info["warning"] = "no mask shows anything here: the foreground is empty; give a mask of one of these frames"
    return Layers("segment", {"masks": masks, "before": nowhere, "after": nowhere}, frames, flow, seed, info)


def _find(
    frames: Tensor,
    flow: Flow,
    config: SegmentConfig,
    layers: int,
    seed: int,
    given: Mapping[int, Tensor] | None,
    device: torch.device,
    checkpoint: Checkpoint | None,
    on_step: OnStep | None,
) -> _Found:
    """Find the masks window by window; an object keeps the layer that it has where windows overlap."""
    spans = windows(len(frames), config.window, OVERLAP)
    if given is not None:
        small = working_copy(frames[:1], config.side)
        given = _shown(given, (small.shape[2], small.shape[3]))
    if len(spans) == 1:
        return _find_in_window(frames, flow, config, layers, seed, given, device, checkpoint, on_step)
    masks: Tensor | None = None
    found: dict[int, Window] = {}
    for number in _order(spans, given):
        span = spans[number]
        neighbours = [spans[other] for other in (number - 1, number + 1) if other in found]
        own = given and {index - span.start: mask for index, mask in given.items() if index in span}
        if given is not None and masks is not None and not own:
            own = {index: mask for other in neighbours for index, mask in _handed_over(masks, span, other).items()}
        kept = None if checkpoint is None else load_window(checkpoint, number)
        if kept is None:
            place = None if checkpoint is None else checkpoint.part(f"window_{number}")
            part = frames[span.start : span.stop]
            if given is not None and not own:
                kept = Window({"masks": _all_background(part, config, layers)}, {}, NOTHING)
            else:
                motion, told = flow.part(span.start, span.stop), share_of_steps(on_step, len(found), len(spans))
                one = _find_in_window(part, motion, config, layers, seed + number, own, device, place, told)
                kept = Window({"masks": one.masks}, {}, one.fitted)
            if checkpoint is not None and place is not None:
                save_window(checkpoint, number, kept)
                place.clear()
        own_masks = kept.fields["masks"]
        if masks is None:
            masks = large_empty(len(frames), *own_masks.shape[1:])
        elif given is None:
            own_masks = _in_order_of(masks, span, spans[number - 1], own_masks)
        _lay(masks, spans, number, own_masks, found)
        found[number] = kept._replace(fields={}, numbers={"shown": float(own_masks[:, 1].max())})
    assert masks is not None
    objects = int((masks[:, 1:].amax(dim=(0, 2, 3)) > 0.5).sum())
    notes = {"warning": _too_few(objects, guided=given is not None)} if objects < layers - 1 else {}
    lost = [span for number, span in enumerate(spans) if found[number].numbers["shown"] <= 0.5]
    if given is not None and objects > 0 and lost:
        where = ", ".join(f"{span.start} to {span.stop - 1}" for span in lost)
        notes = {"warning": f"the mask's object was lost in frames {where}; where it is there, give a mask of one more"}
    return _Found(masks, joined([found[number] for number in range(len(spans))]), {**_said(masks), **notes})


def _order(spans: Sequence[range], given: Mapping[int, Tensor] | None) -> list[int]:
    """In which order to visit windows: from those with masks outwards, or from the first on."""
    order = [0] if given is None else [n for n, span in enumerate(spans) if any(index in span for index in given)]
    for number in order:  # grows on the way
        order += [other for other in (number - 1, number + 1) if 0 <= other < len(spans) and other not in order]
    return order


def _handed_over(masks: Tensor, span: range, other: range) -> dict[int, Tensor]:
    """The object in the frame of those that two windows share which shows most of it, by its place in ``span``."""
    shared = range(max(span.start, other.start), min(span.stop, other.stop))
    best = max(shared, key=lambda index: float(masks[index, 1].sum()))
    return {best - span.start: masks[best, 1]} if bool((masks[best, 1] > 0.5).any()) else {}


def _in_order_of(masks: Tensor, span: range, other: range, own: Tensor) -> Tensor:
    """Masks of a window with its objects in the order that they have, in the frames it shares, in the other window."""
    shared = range(max(span.start, other.start), min(span.stop, other.stop))
    theirs = masks[shared.start : shared.stop, 1:]
    ours = own[shared.start - span.start : shared.stop - span.start, 1:]
    common = torch.einsum("tahw,tbhw->ab", theirs, ours)
    best = max(permutations(range(len(common))), key=lambda order: float(common[range(len(common)), order].sum()))
    return own[:, [0, *(1 + index for index in best)]]


def _lay(masks: Tensor, spans: Sequence[range], number: int, own: Tensor, done: Container[int]) -> None:
    """Put the masks of a window among those of all frames; it gives way to those that are there already."""
    span = spans[number]
    weight = torch.ones(len(span))
    if number - 1 in done:
        shared = spans[number - 1].stop - span.start
        weight[:shared] = torch.linspace(0.0, 1.0, shared + 2)[1:-1]
    if number + 1 in done:
        shared = span.stop - spans[number + 1].start
        weight[-shared:] = torch.linspace(1.0, 0.0, shared + 2)[1:-1]
    for index, mask, share in zip(span, own, weight.tolist(), strict=True):
        masks[index] = mask if share == 1.0 else masks[index].lerp(mask, share)


def _all_background(frames: Tensor, config: SegmentConfig, layers: int) -> Tensor:
    """Masks without any object."""
    masks = torch.zeros(len(frames), layers, *working_copy(frames[:1], config.side).shape[2:])
    masks[:, 0] = 1.0
    return masks


def _said(masks: Tensor) -> dict[str, str]:
    share = 100.0 * (1.0 - sum(float(mask.mean()) for mask in masks[:, 0]) / len(masks))
    return {"said": f"objects cover {share:.1f} % of the clip"}


def _find_in_window(
    frames: Tensor,
    flow: Flow,
    config: SegmentConfig,
    layers: int,
    seed: int,
    given: Mapping[int, Tensor] | None,
    device: torch.device,
    checkpoint: Checkpoint | None,
    on_step: OnStep | None,
) -> _Found:
    small = working_copy(frames, config.side)
    count, _, height, width = small.shape
    size = (height, width)
    shown = {} if given is None else _shown(given, size)
    steps_done, steps_total = 0, config.rounds * (config.steps + 3 * count) + 3 * count

    def told(_: int, __: int, preview: Callable[[], Tensor] | None) -> None:
        nonlocal steps_done
        steps_done += 1
        if on_step is not None:
            on_step(min(steps_done, steps_total), steps_total, preview)

    motion = _Motion(flow, layers - 1 if given is None else TRACKS, told)
    if given is None and motion.objects.shape[1] == 0:
        return _Found(_all_background(frames, config, layers), NOTHING, {"warning": _too_few(0)})
    fixed: dict[int, Tensor] = {}
    if given is None:
        labels = motion.labels(size)
    else:
        motion.gather({index: _fit_to(one, motion.flow.size) for index, one in given.items()})
        labels = motion.labels(size)
        for index, mask in shown.items():
            others = labels[index, 2:] * (1.0 - mask)
            fixed[index] = labels[index] = torch.cat((_two(mask)[:1] - others.sum(dim=0), mask[None], others))
    sight = _Sight(small, motion)
    for number in range(config.rounds):
        kept = None if checkpoint is None else checkpoint.load(f"round_{number}")
        if kept is not None:
            labels, fitted = kept[0]["labels"], Fitted(**json.loads(kept[1]["fitted"]))
            continue
        labels, fitted = _round(small, motion.flow, sight, labels, fixed, number, config, seed, device, told)
        if checkpoint is not None:
            checkpoint.save(f"round_{number}", {"labels": labels}, {"fitted": json.dumps(asdict(fitted))})
    del small, motion, sight
    if given is not None:  # what else moves belongs to the background
        labels = _two(labels[:, 1])
    labels = settle(labels, frames, on_step=told)
    labels = _without_faint(labels)
    number = labels.shape[1] - 1
    notes = {"warning": _too_few(number, guided=given is not None)} if number < layers - 1 else {}
    if number < layers - 1:
        labels = torch.cat((labels, labels.new_zeros(count, layers - 1 - number, height, width)), dim=1)
    return _Found(labels, fitted, {**_said(labels), **notes})


def _round(
    small: Tensor,
    flow: Flow,
    sight: _Sight,
    labels: Tensor,
    fixed: Mapping[int, Tensor],
    number: int,
    config: SegmentConfig,
    seed: int,
    device: torch.device,
    on_step: OnStep,
) -> tuple[Tensor, Fitted]:
    """Better masks ``(T, L, h, w)`` from the motion and the looks that the ones so far give the layers."""
    ways = _Ways(labels, flow)
    count, kinds, height, width = labels.shape
    # half precision holds logs of odds to a thousandth, in half the memory
    explained = torch.empty(count, kinds - 1, height, width, dtype=torch.half)
    for index in range(count):
        explained[index] = ways.explained(small, index)[0]
        on_step(0, 0, None)
    taught = sorted(fixed) if fixed and number == 0 else list(range(count))
    start = (seed + number) % 2**64
    classifier, fitted = _learn(sight, explained, labels, taught, fixed, config, start, device, on_step)
    evidence = torch.empty(labels.shape, dtype=torch.half)
    for index in range(count):
        evidence[index] = classifier(sight.of(index, explained[index]))
    return _sweep(small, ways, evidence, explained, fixed, config, on_step), fitted


def _shown(given: Mapping[int, Tensor], size: tuple[int, int]) -> dict[int, Tensor]:
    """Given masks at the working size ``(h, w)``, of the frames in which something is left of them."""
    masks = {index: _fit_to(one, size) for index, one in given.items()}
    masks = {index: mask for index, mask in masks.items() if bool((mask > 0.5).any())}
    if not masks:
        raise InputError(
            f"mask: what it shows is smaller than a pixel at the working size, {size[1]}x{size[0]}; paint the whole "
            "object white, or crop the clip around it"
        )
    return masks


def _without_faint(labels: Tensor) -> Tensor:
    """Masks ``(T, L, h, w)`` less the objects that nowhere have half of a pixel; the background takes their share."""
    clear = labels[:, 1:].amax(dim=(0, 2, 3)) > 0.5
    if bool(clear.all()):
        return labels
    objects = labels[:, 1:][:, clear]
    return torch.cat((1.0 - objects.sum(dim=1, keepdim=True), objects), dim=1)


def _too_few(number: int, guided: bool = False) -> str:
    """What a person is told where fewer objects were found than there are layers for them."""
    if guided:
        return "nothing of the mask's object could be held on to: the foreground is empty; give masks of more frames"
    if number == 0:
        return "nothing moves by itself against the camera's motion: the foreground is empty; give a mask"
    return f"only {number} moving object{'s' if number > 1 else ''} found: the layers after it are empty"


class _Motion:
    """What moves by itself, on the small grid of the flow."""

    def __init__(self, flow: Flow, wanted: int, on_step: OnStep) -> None:
        scale = MOTION_SIDE / max(flow.size)
        size = (max(2, round(flow.size[0] * scale)), max(2, round(flow.size[1] * scale))) if scale < 1.0 else flow.size
        self.flow = flow = resize_flow(flow, size)
        own = average_along(own_motion(flow, on_step), flow, SPAN)
        self.objects = moving_objects(own, flow, wanted, on_step)
        """``(T, K, h, w)``."""
        speed = own.norm(dim=1, keepdim=True)
        self.speed = (speed / speed.flatten(1).quantile(0.98, dim=1).clamp_min(0.1).view(-1, 1, 1, 1)).clamp_max(2.0)
        """Against the scene, as a share of the frame's fastest, ``(T, 1, h, w)``. Which object a pixel seems to be is
        kept from the classifier: it would repeat it instead of learning what the objects look like."""

    def gather(self, given: Mapping[int, Tensor]) -> None:
        """Put together what belongs to the object that masks show in some frames; what does not becomes a second one.

        Things that move are seen too large, as flow is smooth: a fifth inside the mask is enough. What is not seen in
        those frames may be the object, hidden there: what it looks like will decide.
        """
        belongs, other = (torch.zeros_like(self.flow.forward[:1, :1]).repeat(len(self.speed), 1, 1, 1) for _ in "ab")
        for track in self.objects.unbind(dim=1):
            seen = sum(float(track[index].sum()) for index in given)
            inside = sum(float((track[index] * mask).sum()) for index, mask in given.items())
            chosen = belongs if inside >= 0.2 * seen else other
            torch.maximum(chosen, track[:, None], out=chosen)
        self.objects = torch.cat((belongs, other), dim=1) if bool(other.any()) else belongs

    def labels(self, size: tuple[int, int]) -> Tensor:
        """Masks with the background first, ``(T, 1 + K, h, w)``, of ones and zeros."""
        lasting = average_along(self.objects, self.flow, SPAN)
        objects = F.interpolate(lasting, size=size, mode="bilinear", align_corners=False)
        best, number = objects.max(dim=1)
        number = torch.where(best > 0.5, number + 1, torch.zeros_like(number))
        return torch.stack([number == layer for layer in range(objects.shape[1] + 1)], dim=1).float()


class _Ways:
    """How each layer moves, also where it is covered: its motion in its middle, spread smoothly."""

    def __init__(self, labels: Tensor, flow: Flow) -> None:
        labels = F.interpolate(labels, size=flow.size, mode="area")
        self.forward = torch.stack([_spread_inside(flow.forward, mask[:-1]) for mask in labels.unbind(dim=1)], dim=1)
        """``(T-1, L, 2, h, w)``, like the flow's."""
        self.backward = torch.stack([_spread_inside(flow.backward, mask[1:]) for mask in labels.unbind(dim=1)], dim=1)

    def from_to(self, index: int, other: int, size: tuple[int, int]) -> Tensor:
        """Where the layers' pixels of a frame are in the one before or after it, ``(L, 2, H, W)``."""
        return resize_flow(self.forward[index] if other > index else self.backward[other], size)

    def explained(self, small: Tensor, index: int) -> Tensor:
        """How much better each object's motion explains the pixels than the background's, ``(1, L - 1, H, W)``.

        A log ratio of differences to the better one of the two neighbouring frames: what is hidden in one is mostly
        seen in the other.
        """
        size = (small.shape[2], small.shape[3])
        least: Tensor | None = None
        for other in (index - 1, index + 1):
            if not 0 <= other < len(small):
                continue
            ways = self.from_to(index, other, size)
            there = warp(small[other].expand(len(ways), -1, -1, -1), ways)
            differs = (there - small[index]).abs().mean(dim=1, keepdim=True)
            differs = F.avg_pool2d(differs, 3, 1, 1, count_include_pad=False)
            least = differs if least is None else torch.minimum(least, differs)
        assert least is not None
        least = least[:, 0] + NOISE
        return (least[:1] / least[1:]).log()[None].clamp(-2.0, 2.0)


def _spread_inside(vectors: Tensor, masks: Tensor) -> Tensor:
    """Motion ``(N, 2, h, w)`` of the middle of masks ``(N, h, w)``: at borders flow mixes both sides."""
    import cv2

    deep = np.stack([cv2.distanceTransform((mask > 0.5).numpy().astype(np.uint8), cv2.DIST_L2, 3) for mask in masks])
    weight = (torch.from_numpy(deep) / DEEP).clamp(0.0, 1.0).square()[:, None]
    weight = torch.maximum(weight, 0.02 * masks[:, None])
    filled = spread(vectors, weight)
    # what is hidden for a while, or has hardly entered, moves there as in the frames that see it; what grows does not
    seen = weight.sum(dim=(1, 2, 3)).numpy()
    before, after = np.maximum.accumulate(seen), np.maximum.accumulate(seen[::-1])[::-1]
    well = np.flatnonzero((seen > SLIVER * seen.max()) & (seen >= HIDDEN * np.minimum(before, after)))
    mean = ((vectors * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp_min(1e-6)).numpy()
    for index in np.setdiff1d(np.arange(len(masks)), well) if len(well) else ():
        step = [np.interp(index, well, mean[well, axis]) for axis in (0, 1)]
        filled[index] = torch.tensor(step, dtype=filled.dtype).view(2, 1, 1)
    return filled


class _Sight:
    """What the classifier sees of a pixel: its colour, those around it, their contrast, and how it moves."""

    def __init__(self, small: Tensor, motion: _Motion) -> None:
        self._small, self._speed = small, motion.speed
        # copies: a view of a seventh would keep the whole
        every = max(1, len(small) // 16)
        some = torch.cat([self._colours(index)[::7].clone() for index in range(0, len(small), every)])
        self._mean, self._deviation = some.mean(dim=0), some.std(dim=0).clamp_min(1e-4)

    def of(self, index: int, explained: Tensor) -> Tensor:
        """All pixels of a frame, ``(h * w, features)``, with what ``_Ways.explained`` says of it."""
        size = (self._small.shape[2], self._small.shape[3])
        speed = F.interpolate(self._speed[index : index + 1], size=size, mode="bilinear", align_corners=False)
        colours = (self._colours(index) - self._mean) / self._deviation
        return torch.cat((colours, speed[0].flatten(1).T, explained.float().flatten(1).T), dim=1)

    def _colours(self, index: int) -> Tensor:
        import cv2

        lab = cv2.cvtColor(self._small[index].movedim(0, -1).contiguous().numpy(), cv2.COLOR_RGB2LAB)
        seen = [lab]
        for side in (5, 15):
            around = cv2.blur(lab, (side, side))
            contrast = np.maximum(cv2.blur(lab[..., 0] ** 2, (side, side)) - around[..., 0] ** 2, 0.0)
            seen += [around, np.sqrt(contrast)[..., None]]
        return torch.from_numpy(np.concatenate(seen, axis=-1)).flatten(0, 1)


def _learn(
    sight: _Sight,
    explained: Tensor,
    labels: Tensor,
    taught: list[int],
    fixed: Mapping[int, Tensor],
    config: SegmentConfig,
    seed: int,
    device: torch.device,
    on_step: OnStep,
) -> tuple[Callable[[Tensor], Tensor], Fitted]:
    """Teach a classifier the labels of some frames; it gives log odds ``(L, h, w)`` from what ``sight`` shows."""
    _, kinds, height, width = labels.shape
    generator = torch.Generator().manual_seed(seed)
    seen, wanted, weights = [], [], []
    for index in taught:
        kind = labels[index].argmax(dim=0)
        # what a person gave counts as it is, and as much as everything that was found
        trust = torch.ones(height, width) if index in fixed else _certainty(kind)
        share = torch.bincount(kind.flatten(), minlength=kinds).clamp_min(1) / kind.numel()
        rarity = share[kind] ** (-0.5)
        # pixels drawn in proportion to trust and rarity
        summed = (trust * rarity).flatten().double().cumsum(dim=0)
        drawn = torch.rand(min(config.samples, kind.numel()), dtype=torch.float64, generator=generator) * summed[-1]
        chosen = torch.searchsorted(summed, drawn).clamp_max(kind.numel() - 1)
        seen.append(sight.of(index, explained[index])[chosen])
        wanted.append(kind.flatten()[chosen])
        balance = share[kind.flatten()[chosen]] ** (-0.5 if index in fixed else 0.5)
        weights.append(balance / balance.mean() * (len(taught) / len(fixed) if index in fixed else 1.0))
    x, y, w = torch.cat(seen).to(device), torch.cat(wanted).to(device), torch.cat(weights).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs as well
        hidden = 32
        net = nn.Sequential(
            nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, kinds)
        )
    net = net.to(device)

    def step(_: int) -> dict[str, Tensor]:
        chosen = torch.randint(len(x), (4096,), generator=generator).to(device)
        wrong = F.cross_entropy(net(x[chosen]), y[chosen], reduction="none")
        return {"labels": (w[chosen] * wrong).mean()}

    fitted = fit(
        step, net.parameters(), steps=config.steps, learning_rate=config.learning_rate, plateau=0.0, on_step=on_step
    )

    @torch.no_grad()
    def classify(pixels: Tensor) -> Tensor:
        odds = net(pixels.to(device)).cpu()
        odds = (odds - odds.amax(dim=1, keepdim=True)).clamp_min(-LOUDEST)
        return odds.T.reshape(kinds, height, width)

    return classify, fitted


def _certainty(kind: Tensor) -> Tensor:
    """How far labels ``(h, w)`` can be trusted, 0.1..1: least at the borders between them."""
    import cv2

    same = np.ones(kind.shape, np.uint8)
    for axis in (0, 1):
        differs = kind.diff(dim=axis).ne(0).numpy()
        part = same[:-1] if axis == 0 else same[:, :-1]
        part[differs] = 0
    if same.all():
        return torch.ones(kind.shape)
    return torch.from_numpy(cv2.distanceTransform(same, cv2.DIST_L2, 3) / CERTAIN).clamp(0.1, 1.0)


@torch.no_grad()
def _sweep(
    small: Tensor,
    ways: _Ways,
    evidence: Tensor,
    explained: Tensor,
    fixed: Mapping[int, Tensor],
    config: SegmentConfig,
    on_step: OnStep,
) -> Tensor:
    """Put evidence, neighbouring masks and edges together, forwards and backwards: masks ``(T, L, h, w)``.

    A given mask starts both ways; in between, the nearer one counts more. Without any, both ends start from evidence.
    """
    count = len(small)
    out = torch.zeros(evidence.shape)
    weight = torch.zeros(count, 1, 1, 1)
    size = (small.shape[2], small.shape[3])
    for order in (range(count), range(count - 1, -1, -1)):
        now: Tensor | None = None
        since = 0
        for index in order:
            since += 1
            if index in fixed:
                now, since = fixed[index], 0
            elif now is not None or not fixed:
                log_odds = config.appearance * evidence[index].float()
                log_odds[1:] += config.rebuilt * explained[index]
                if now is not None:
                    brought = warp(now[:, None], ways.from_to(index, index - order.step, size))[:, 0]
                    brought[0] = (1.0 - brought[1:].sum(dim=0)).clamp_min(0.0)
                    brought = brought / brought.sum(dim=0)
                    log_odds += config.neighbours * brought.clamp_min(DOUBT).log()
                now = _sharpened(_Edges(small[index]).follow(log_odds.softmax(dim=0)[1:]))
            if now is not None:
                part = 1e6 if index in fixed else 1.0 / since if fixed else 1.0
                out[index] += part * now
                weight[index] += part
            on_step(0, 0, partial(_overlay, small[index], now))
    return out.div_(weight)


def _overlay(picture: Tensor, masks: Tensor | None) -> Tensor:
    """The picture with its background dimmed."""
    kept = 1.0 if masks is None else 1.0 - 0.7 * masks[0]
    return (picture * kept).movedim(0, -1)


def _sharpened(objects: Tensor) -> Tensor:
    """Masks of the objects ``(L - 1, h, w)`` back towards 0 and 1, with the background first, sum 1."""
    objects = ((objects - 0.5) * SHARPEN + 0.5).clamp(0.0, 1.0)
    objects = objects / objects.sum(dim=0, keepdim=True).clamp_min(1.0)
    return torch.cat((1.0 - objects.sum(dim=0, keepdim=True), objects))


class _Edges:
    """The guided filter of a picture's colours (He, Sun and Tang, "Guided Image Filtering", 2013, section 3.3)."""

    def __init__(self, picture: Tensor) -> None:
        self._colour = picture.movedim(0, -1).contiguous().numpy()
        red, green, blue = np.moveaxis(self._colour, -1, 0)
        self._mean = self._average(self._colour)
        products = np.stack((red * red, red * green, red * blue, green * green, green * blue, blue * blue), axis=-1)
        mr, mg, mb = np.moveaxis(self._mean, -1, 0)
        means = np.stack((mr * mr, mr * mg, mr * mb, mg * mg, mg * mb, mb * mb), axis=-1)
        rr, rg, rb, gg, gb, bb = np.moveaxis(self._average(products) - means, -1, 0)
        rr, gg, bb = rr + FLAT, gg + FLAT, bb + FLAT
        # the inverse of the symmetric 3x3 covariance, by its cofactors
        inverse = np.stack(
            (
                gg * bb - gb * gb,
                gb * rb - rg * bb,
                rg * gb - gg * rb,
                rr * bb - rb * rb,
                rb * rg - rr * gb,
                rr * gg - rg * rg,
            ),
            axis=-1,
        )
        determinant = rr * inverse[..., 0] + rg * inverse[..., 1] + rb * inverse[..., 2]
        self._inverse = inverse / determinant[..., None]

    @staticmethod
    def _average(values: np.ndarray) -> np.ndarray:
        import cv2

        side = 2 * WINDOW + 1
        return np.asarray(cv2.blur(np.ascontiguousarray(values), (side, side))).reshape(values.shape)

    def follow(self, masks: Tensor) -> Tensor:
        """Masks ``(L, h, w)`` as locally linear functions of colour, where colour explains them; else as they are."""
        return torch.stack([torch.from_numpy(self._one(mask.numpy())) for mask in masks])

    def _one(self, mask: np.ndarray) -> np.ndarray:
        mean = self._average(mask)
        covariance = self._average(self._colour * mask[..., None]) - self._mean * mean[..., None]
        a, b, c, d, e, f = np.moveaxis(self._inverse, -1, 0)
        r, g, u = np.moveaxis(covariance, -1, 0)
        slope = np.stack((a * r + b * g + c * u, b * r + d * g + e * u, c * r + e * g + f * u), axis=-1)
        offset = mean - (slope * self._mean).sum(axis=-1)
        variance = np.maximum(self._average(mask * mask) - mean * mean, 0.0)
        clear = np.clip((slope * covariance).sum(axis=-1) / (variance + 1e-4), 0.0, 1.0)
        lines = self._average(np.concatenate((slope, offset[..., None], clear[..., None]), axis=-1))
        followed = (lines[..., :3] * self._colour).sum(axis=-1) + lines[..., 3]
        return np.asarray(mask + lines[..., 4] * (followed - mask), np.float32)


def _fit_to(mask: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(mask[None, None].float(), size=size, mode="area")[0, 0]


def _two(mask: Tensor) -> Tensor:
    return torch.stack((1.0 - mask, mask), dim=-3)
