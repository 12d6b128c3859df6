"""Masks of long shots, window by window, from those with given masks outwards."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import permutations

import torch
from torch import Tensor

from ...image.resize import working_copy
from ...optim.progress import Progress
from ...optim.windows import WINDOW_OVERLAP, Window, combined_fit, fit_windows, windows
from ...store.journal import Journal
from ...store.scratch import large_empty
from ...types import Flow
from .config import SegmentConfig
from .find import NO_FIT, Masks, all_background, coverage, find_in_window, too_few

__all__ = ["find_masks"]


def find_masks(
    frames: Tensor,
    flow: Flow,
    config: SegmentConfig,
    layers: int,
    seed: int,
    given: Mapping[int, Tensor] | None,
    device: torch.device,
    journal: Journal,
    progress: Progress,
) -> Masks:
    """Find the masks window by window; an object keeps the layer that it has where windows overlap."""
    spans = windows(len(frames), config.window, WINDOW_OVERLAP)
    if len(spans) == 1:
        return find_in_window(frames, flow, config, layers, seed, given, device, journal, progress)
    masks = large_empty(len(frames), layers, *working_copy(frames[:1], config.side).shape[2:])
    done: set[int] = set()

    def work(number: int, found: Mapping[int, Window], journal: Journal, progress: Progress) -> Window:
        span = spans[number]
        own = given and {index - span.start: mask for index, mask in given.items() if index in span}
        if found and given is not None and not own:
            neighbours = [spans[other] for other in (number - 1, number + 1) if other in found]
            own = {index: mask for other in neighbours for index, mask in _handed_over(masks, span, other).items()}
        part, motion = frames[span.start : span.stop], flow.part(span.start, span.stop)
        if given is not None and not own:
            return Window({"masks": all_background(part, config, layers)}, {}, NO_FIT)
        one = find_in_window(part, motion, config, layers, seed + number, own, device, journal, progress)
        return Window({"masks": one.masks}, {}, one.fitted)

    def lay(number: int, window: Window) -> Window:
        own = window.fields["masks"]
        if done and given is None:
            own = _in_order_of(masks, spans[number], spans[number - 1], own)
        _blend_window(masks, spans, number, own, done)
        done.add(number)
        return Window({}, {"shown": float(own[:, 1:].max())}, window.fitted)

    found = fit_windows(spans, work, order=_order(spans, given), hold=lay, journal=journal, progress=progress)
    objects = int((masks[:, 1:].amax(dim=(0, 2, 3)) > 0.5).sum())
    notes = {"warning": too_few(objects, layers - 1 if given is not None else 0)} if objects < layers - 1 else {}
    lost = [span for number, span in enumerate(spans) if found[number].numbers["shown"] <= 0.5]
    if given is not None and objects > 0 and lost:
        where = ", ".join(f"{span.start} to {span.stop - 1}" for span in lost)
        notes = {"warning": f"the mask's object was lost in frames {where}; where it is there, give a mask of one more"}
    return Masks(masks, combined_fit(found), {**coverage(masks), **notes})


def _order(spans: Sequence[range], given: Mapping[int, Tensor] | None) -> list[int]:
    """In which order to visit windows: from those with masks outwards, or from the first on."""
    order = [0] if given is None else [n for n, span in enumerate(spans) if any(index in span for index in given)]
    for number in order:  # grows on the way
        order += [other for other in (number - 1, number + 1) if 0 <= other < len(spans) and other not in order]
    return order


def _shared(span: range, other: range) -> range:
    """The frames that two windows have in common."""
    return range(max(span.start, other.start), min(span.stop, other.stop))


def _handed_over(masks: Tensor, span: range, other: range) -> dict[int, Tensor]:
    """The objects in the frame of those that two windows share which shows most of them, by its place in ``span``."""
    shared = _shared(span, other)
    best = max(shared, key=lambda index: float(masks[index, 1:].sum()))
    return {best - span.start: masks[best, 1:]} if bool((masks[best, 1:] > 0.5).any()) else {}


def _in_order_of(masks: Tensor, span: range, other: range, own: Tensor) -> Tensor:
    """Masks of a window with its objects in the order that they have, in the frames it shares, in the other window."""
    shared = _shared(span, other)
    theirs = masks[shared.start : shared.stop, 1:]
    ours = own[shared.start - span.start : shared.stop - span.start, 1:]
    common = torch.einsum("tahw,tbhw->ab", theirs, ours)
    best = max(permutations(range(len(common))), key=lambda order: float(common[range(len(common)), order].sum()))
    return own[:, [0, *(1 + index for index in best)]]


def _blend_window(masks: Tensor, spans: Sequence[range], number: int, own: Tensor, done: Container[int]) -> None:
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
