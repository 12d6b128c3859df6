"""Long shots in overlapping windows: where they lie, and their fields put together without a seam."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..store.checkpoint import Checkpoint
from ..types import OnStep
from .fit import Fitted

__all__ = [
    "OVERLAP",
    "Window",
    "Work",
    "blended",
    "fit_windows",
    "joined",
    "load_window",
    "save_window",
    "share_of_steps",
    "windows",
]

OVERLAP = 24
"""Frames that neighbouring windows share: a second of film, over which one gives way to the other."""


class Window(NamedTuple):
    """What was found in a window."""

    fields: Mapping[str, Tensor]
    """Of its frames, each ``(n, ...)`` on the CPU."""
    numbers: Mapping[str, float]
    """Of the window as a whole."""
    fitted: Fitted


Work = Callable[[int, Checkpoint | None, OnStep], Window]
"""Fits a window: its number, where the fit keeps its state, whom to tell."""


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
    return [range(first, end + overlap) for first, end in pairwise(edges)]


def blended(spans: Sequence[range], parts: Sequence[Tensor], *, level_of: int | None = None) -> Tensor:
    """Fields ``(n, ...)`` of windows, in order, as one of all frames; each gives way to the next across the overlap.

    Args:
        spans: the windows.
        parts: their fields.
        level_of: for fields that each window knows but for a constant: the window whose level holds, to which the
            others are shifted so that neighbours agree on the mean of what they share.
    """
    shifts = [0.0] * len(parts)
    if level_of is not None:
        apart = []
        for (one, values), (other, others) in pairwise(zip(spans, parts, strict=True)):
            shared = one.stop - other.start
            apart.append(float(values[-shared:].mean() - others[:shared].mean()))
        shifts = [0.0, *accumulate(apart)]
        shifts = [shift - shifts[level_of] for shift in shifts]
    out = parts[0].new_empty(spans[-1].stop, *parts[0].shape[1:])
    done = 0
    for window, part, shift in zip(spans, parts, shifts, strict=True):
        values = part + shift
        shared = done - window.start
        if shared > 0:
            share = torch.linspace(0.0, 1.0, shared + 2, device=values.device)[1:-1]
            out[window.start : done].lerp_(values[:shared], share.view(-1, *[1] * (values.ndim - 1)))
        out[max(done, window.start) : window.stop] = values[max(shared, 0) :]
        done = window.stop
    return out


def fit_windows(
    spans: Sequence[range],
    work: Work,
    *,
    steps: int,
    checkpoint: Checkpoint | None = None,
    on_step: OnStep | None = None,
) -> list[Window]:
    """Fit windows one after the other, each by itself.

    Windows that are held to the one before them drift: errors at the end of one are handed on to the next and grow
    (rendered clip of five windows: steps from frame to frame twice as large as with one window; fitted by themselves
    and faded over, as small).

    Args:
        spans: the windows.
        work: what fits one.
        steps: that a window takes at most, for ``on_step``.
        checkpoint: where finished windows are kept.
        on_step: told after every step.
    """
    found = []
    for number in range(len(spans)):
        kept = None if checkpoint is None else load_window(checkpoint, number)
        if kept is None:
            place = None if checkpoint is None else checkpoint.part(f"window_{number}")
            kept = work(number, place, share_of_steps(on_step, number, len(spans), steps))
            if checkpoint is not None and place is not None:
                save_window(checkpoint, number, kept)
                place.clear()
        found.append(kept)
    return found


def joined(windows: Sequence[Window]) -> Fitted:
    """How the fits of windows went as a whole."""
    fits = [window.fitted for window in windows]
    names = dict.fromkeys(name for fitted in fits for name in fitted.terms)
    known = {name: [fitted.terms[name] for fitted in fits if name in fitted.terms] for name in names}
    terms = {name: sum(values) / len(values) for name, values in known.items()}
    stopped = "plateau" if all(fitted.stopped == "plateau" for fitted in fits) else "steps"
    return Fitted(sum(fitted.steps for fitted in fits), sum(fitted.seconds for fitted in fits), terms, stopped)


def share_of_steps(on_step: OnStep | None, number: int, count: int, steps: int = 0) -> OnStep:
    """Tell the steps of one of several parts as a share of all.

    Args:
        on_step: whom to tell.
        number: of the part, from 0 on.
        count: of the parts.
        steps: that each takes at most; 0 goes by what the part itself says.
    """

    def told(done: int, total: int, preview: Callable[[], Tensor] | None) -> None:
        if on_step is not None:
            each = steps or total
            on_step(number * each + done, count * each, preview)

    return told


def save_window(checkpoint: Checkpoint, number: int, window: Window) -> None:
    """Keep what was found in a window."""
    notes = {"numbers": json.dumps(dict(window.numbers)), "fitted": json.dumps(asdict(window.fitted))}
    checkpoint.save(f"window_{number}", window.fields, notes)


def load_window(checkpoint: Checkpoint, number: int) -> Window | None:
    """What was found in a window, if it is kept."""
    kept = checkpoint.load(f"window_{number}")
    if kept is None:
        return None
    fields, notes = kept
    return Window(fields, json.loads(notes["numbers"]), Fitted(**json.loads(notes["fitted"])))
