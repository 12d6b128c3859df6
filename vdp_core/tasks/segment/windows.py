"""Masks of long shots, window by window, from those with given masks outwards."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import permutations

import torch
from torch import Tensor

from ...image.resize import working_copy
from ...optim.windows import OVERLAP, Window, joined, load_window, save_window, share_of_steps, windows
from ...store.checkpoint import Checkpoint
from ...store.scratch import large_empty, need_room
from ...types import Flow, OnStep
from .config import SegmentConfig
from .find import NOTHING, Found, all_background, coverage, find_in_window, shown_masks, too_few

__all__ = ["find_masks"]


def find_masks(
    frames: Tensor,
    flow: Flow,
    config: SegmentConfig,
    layers: int,
    seed: int,
    given: Mapping[int, Tensor] | None,
    device: torch.device,
    checkpoint: Checkpoint | None,
    on_step: OnStep | None,
) -> Found:
    """Find the masks window by window; an object keeps the layer that it has where windows overlap."""
    spans = windows(len(frames), config.window, OVERLAP)
    small = working_copy(frames[:1], config.side)
    # a mask for each layer, and, as trace has them, two flows and two places with their distance
    need_room(4 * len(frames) * small[0, 0].numel() * (layers + 2 * 2 + 2 * 3))
    if given is not None:
        given = shown_masks(given, (small.shape[2], small.shape[3]))
    if len(spans) == 1:
        return find_in_window(frames, flow, config, layers, seed, given, device, checkpoint, on_step)
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
                kept = Window({"masks": all_background(part, config, layers)}, {}, NOTHING)
            else:
                motion, told = flow.part(span.start, span.stop), share_of_steps(on_step, len(found), len(spans))
                one = find_in_window(part, motion, config, layers, seed + number, own, device, place, told)
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
    notes = {"warning": too_few(objects, guided=given is not None)} if objects < layers - 1 else {}
    lost = [span for number, span in enumerate(spans) if found[number].numbers["shown"] <= 0.5]
    if given is not None and objects > 0 and lost:
        where = ", ".join(f"{span.start} to {span.stop - 1}" for span in lost)
        notes = {"warning": f"the mask's object was lost in frames {where}; where it is there, give a mask of one more"}
    return Found(masks, joined([found[number] for number in range(len(spans))]), {**coverage(masks), **notes})


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
