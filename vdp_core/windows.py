"""Long shots in overlapping windows: where they lie, and their fields put together without a seam."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor

from .checkpoint import Checkpoint
from .fit import Fitted
from .types import OnStep

__all__ = ["OVERLAP", "Known", "Window", "Work", "blended", "fit_windows", "joined", "known_of", "windows"]

OVERLAP = 24
"""Frames that neighbouring windows share: a second of film, over which one gives way to the other."""


class Known(NamedTuple):
    """What windows beside one have found already, where they overlap it."""

    frames: slice
    """Of the window."""
    values: Tensor
    """``(n, ...)``."""


class Window(NamedTuple):
    """What was found in a window."""

    fields: Mapping[str, Tensor]
    """Of its frames, each ``(n, ...)`` on the CPU."""
    numbers: Mapping[str, float]
    """Of the window as a whole."""
    fitted: Fitted


Work = Callable[[int, Mapping[str, Sequence[Known]], Checkpoint | None, OnStep], Window]
"""Fits a window: its number, what is known of its fields from others, where the fit keeps its state, whom to tell."""


def windows(count: int, length: int, overlap: int) -> list[range]:
    """Windows of about equal length that cover ``count`` frames, neighbours sharing ``overlap`` of them.

    Args:
        count: of the shot.
        length: most frames of a window; a little more is taken where that saves one.
        overlap: frames shared, less than half of ``length``.
    """
    if count <= length + overlap:
        return [range(count)]
    number = -(-(count - overlap) // (length - overlap))
    step = (count - overlap) / number
    edges = [round(index * step) for index in range(number + 1)]
    return [range(first, end + overlap) for first, end in itertools.pairwise(edges)]


def known_of(window: range, found: Sequence[tuple[range, Tensor]]) -> list[Known]:
    """What other windows, with fields ``(n, ...)`` of their frames, say of some of this one's."""
    known = []
    for other, values in found:
        first, end = max(window.start, other.start), min(window.stop, other.stop)
        if first < end:
            known.append(
                Known(slice(first - window.start, end - window.start), values[first - other.start : end - other.start])
            )
    return known


def blended(parts: Sequence[tuple[range, Tensor]]) -> Tensor:
    """Fields ``(n, ...)`` of windows, in order, as one of all frames; each gives way to the next across the overlap."""
    if len(parts) == 1:
        return parts[0][1]
    first = parts[0][1]
    out = first.new_empty(parts[-1][0].stop, *first.shape[1:])
    done = 0
    for window, values in parts:
        shared = done - window.start
        if shared > 0:
            share = torch.linspace(0.0, 1.0, shared + 2, device=values.device)[1:-1]
            share = share.view(-1, *[1] * (values.ndim - 1))
            out[window.start : done].lerp_(values[:shared], share)
        out[max(done, window.start) : window.stop] = values[max(shared, 0) :]
        done = window.stop
    return out


def fit_windows(
    spans: Sequence[range],
    work: Work,
    *,
    steps: int,
    first: int = 0,
    checkpoint: Checkpoint | None = None,
    on_step: OnStep | None = None,
) -> tuple[dict[str, Tensor], list[Window]]:
    """Fit windows one after the other, each knowing those before it, and put their fields together.

    Args:
        spans: the windows.
        work: what fits one.
        steps: that a window takes at most, for ``on_step``.
        first: the window to begin with; those after it follow, then those before it.
        checkpoint: where finished windows are kept.
        on_step: told after every step.

    Returns:
        The fields of all frames, and the windows in the order of the clip.
    """
    found: dict[int, Window] = {}
    for number in (*range(first, len(spans)), *range(first - 1, -1, -1)):
        kept = None if checkpoint is None else _kept(checkpoint, number)
        if kept is None:
            names = next(iter(found.values())).fields if found else ()
            known = {
                name: known_of(spans[number], [(spans[other], window.fields[name]) for other, window in found.items()])
                for name in names
            }
            place = None if checkpoint is None else checkpoint.part(f"window_{number}")
            kept = work(number, known, place, _share(on_step, len(found) * steps, len(spans) * steps))
            if checkpoint is not None and place is not None:
                _keep(checkpoint, number, kept)
                place.clear()
        found[number] = kept
    ordered = [found[number] for number in range(len(spans))]
    fields = {
        name: blended([(span, window.fields[name]) for span, window in zip(spans, ordered, strict=True)])
        for name in ordered[0].fields
    }
    return fields, ordered


def joined(windows: Sequence[Window]) -> Fitted:
    """How the fits of windows went as a whole."""
    fits = [window.fitted for window in windows]
    names = dict.fromkeys(name for fitted in fits for name in fitted.terms)
    terms = {name: sum(fitted.terms.get(name, 0.0) for fitted in fits) / len(fits) for name in names}
    stopped = "plateau" if all(fitted.stopped == "plateau" for fitted in fits) else "steps"
    return Fitted(sum(fitted.steps for fitted in fits), sum(fitted.seconds for fitted in fits), terms, stopped)


def _share(on_step: OnStep | None, done: int, total: int) -> OnStep:
    """Tell the steps of one window as a part of all."""

    def told(step: int, _: int, preview: Callable[[], Tensor] | None) -> None:
        if on_step is not None:
            on_step(done + step, total, preview)

    return told


def _keep(checkpoint: Checkpoint, number: int, window: Window) -> None:
    notes = {"numbers": json.dumps(dict(window.numbers)), "fitted": json.dumps(asdict(window.fitted))}
    checkpoint.save(f"window_{number}", window.fields, notes)


def _kept(checkpoint: Checkpoint, number: int) -> Window | None:
    kept = checkpoint.load(f"window_{number}")
    if kept is None:
        return None
    fields, notes = kept
    return Window(fields, json.loads(notes["numbers"]), Fitted(**json.loads(notes["fitted"])))
