"""Long shots in overlapping windows: their frames, and their fields joined without a seam."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..store.journal import Journal, Kept
from .fit import Fitted
from .progress import Progress

__all__ = ["WINDOW_OVERLAP", "FitWindow", "Window", "blended", "combined_fit", "fit_windows", "windows"]

WINDOW_OVERLAP = 24
"""Frames that neighbouring windows share, a second of film; one window fades into the other over them."""


class Window(NamedTuple):
    """What was found in a window."""

    fields: Mapping[str, Tensor]
    """Of its frames, each ``(n, ...)`` on the CPU."""
    numbers: Mapping[str, float]
    """Of the window as a whole."""
    fitted: Fitted


FitWindow = Callable[[int, Mapping[int, Window], Journal, Progress], Window]
"""Fits a window: its number, what was found already, where the fit keeps its state, whom to tell."""


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
    """Fields ``(n, ...)`` of windows, in order, as one field of all frames; each fades into the next.

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
    work: FitWindow,
    *,
    order: Iterable[int] | None = None,
    hold: Callable[[int, Window], Window] | None = None,
    journal: Journal,
    progress: Progress,
) -> list[Window]:
    """Fit windows one after the other.

    A window may take up what was found in others, such as the state of a recurrent network. Fields that are held to
    those of the window before drift: errors at the end of one are handed on to the next and grow (rendered clip of five
    windows: steps from frame to frame twice as large as with one window; fitted by themselves and faded over, as
    small).

    Args:
        spans: the windows.
        work: what fits one.
        order: the windows' numbers as they are to be visited, each once; None goes from the first to the last.
        hold: given each window that was found, or that the journal has, in that order; what it gives is held in memory
            in its place. None holds all.
        journal: where finished windows are kept.
        progress: told after every step.

    Returns:
        What is held of the windows, the first window first.
    """
    held: dict[int, Window] = {}
    order = range(len(spans)) if order is None else order
    for number, phase in zip(order, progress.phases(*[1] * len(spans)), strict=True):
        fields, notes = journal.step(f"window_{number}", partial(_fit, work, number, held, phase))
        window = Window(fields, notes["numbers"], Fitted(**notes["fitted"]))
        held[number] = window if hold is None else hold(number, window)
    return [held[number] for number in range(len(spans))]


def _fit(work: FitWindow, number: int, held: Mapping[int, Window], progress: Progress, journal: Journal) -> Kept:
    fields, numbers, fitted = work(number, held, journal, progress)
    return fields, {"numbers": dict(numbers), "fitted": asdict(fitted)}


def combined_fit(windows: Sequence[Window]) -> Fitted:
    """How the fits of windows went as a whole."""
    fits = [window.fitted for window in windows]
    names = dict.fromkeys(name for fitted in fits for name in fitted.terms)
    known = {name: [fitted.terms[name] for fitted in fits if name in fitted.terms] for name in names}
    terms = {name: sum(values) / len(values) for name, values in known.items()}
    stopped = "plateau" if all(fitted.stopped == "plateau" for fitted in fits) else "steps"
    return Fitted(sum(fitted.steps for fitted in fits), sum(fitted.seconds for fitted in fits), terms, stopped)
