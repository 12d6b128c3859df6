"""A clip whose flashes and stripes are lowered until it passes: measured, mended where it fails, and reported.

Where there are too many flashes in a second, light is drawn towards its mean over a second, and stripes towards the
mean around them, by a share that bisection finds. Only the light's mean over windows is changed, and windows are as
large as will do, so that no picture of other frames shines through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..checks import check_frames
from ..image.colour import to_display, to_linear
from ..image.morphology import box_mean, box_sum, dilate, erode
from ..image.plot import Curve, plot
from ..image.resize import resize
from ..store.lazy import computed
from ..store.transfer import send
from ..types import OnStep
from .flashes import AREA, MOST_FLASHES, STRICT, STRIPES_LAST, Meter, light_in_cells, luminance, stripes

__all__ = ["Safety", "make_safe"]

RADII = (128, 32, 8, 0)
"""Of the windows over which light is averaged, in cells; the first that will do is taken."""
AROUND = 32
"""Radius of the windows to whose mean stripes are drawn, and how far off dark parts of what flashes are looked for."""
GAP = 2
"""Radius of gaps that are closed in what flashes, in cells."""
MOST_GAIN = 4.0
"""That brightens what is dark; what it does not bring is laid over as a veil."""
LONGEST = 4.0
"""Seconds that get one strength."""
FADE = 0.25
"""Seconds before and after a stretch in which the strength grows and falls."""
HALVINGS = 6
"""Of the interval that holds the least strength."""
STRIPE_RATE = 8.0
"""How often stripes are looked for, in a second."""


@dataclass(frozen=True)
class Safety:
    """What ``make_safe`` gives."""

    frames: Tensor
    """``(T, H, W, 3)``: the given ones where they pass; else frames that need no change are equal to the bit."""
    report: dict[str, Any]
    """Fit for JSON."""
    chart: Tensor
    """``(1, h, w, 3)``: luminance and flashes in a second over time, with what fails shaded."""


@dataclass(frozen=True)
class _Stretch:
    """Frames ``start`` to ``stop`` that fail, and where in them, ``(h, w)`` of booleans."""

    start: int
    stop: int
    mask: Tensor

    def joined(self, other: _Stretch) -> _Stretch:
        return _Stretch(self.start, max(self.stop, other.stop), self.mask | other.mask)


@dataclass(frozen=True)
class _Mending:
    """What is done to the frames around a stretch, ``start`` to ``stop``."""

    stretch: _Stretch
    start: int
    stop: int
    mask: Tensor
    """Where, ``(h, w)`` in 0..1."""
    radius: int = 0
    """Of the windows over which light is averaged; 0 for that of each cell."""
    strength: float = 1.0

    def strength_at(self, index: int) -> float:
        """The strength in a frame: it grows from 0 before the stretch, and falls to 0 after it."""
        to_begin, past_end = self.stretch.start - index, index - self.stretch.stop + 1
        if to_begin > 0:
            return self.strength * (1.0 - to_begin / (self.stretch.start - self.start + 1))
        return self.strength * (1.0 - max(past_end, 0) / (self.stop - self.stretch.stop + 1))


@dataclass(frozen=True)
class _Measured:
    """What was found in a clip, a value a frame, and the stretches that fail."""

    luminance: list[float]
    flashes: list[float]
    red_flashes: list[float]
    striped: list[float]
    flashing: list[_Stretch]
    patterned: list[_Stretch]

    @property
    def passes(self) -> bool:
        return not self.flashing and not self.patterned

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {
            "passes": self.passes,
            "flashes_per_second": max(self.flashes),
            "red_flashes_per_second": max(self.red_flashes),
            "striped_area": round(max(self.striped), 3),
            "flashing_frames": [[part.start, part.stop - 1] for part in self.flashing],
            "striped_frames": [[part.start, part.stop - 1] for part in self.patterned],
        }


@torch.no_grad()
def make_safe(
    frames: Tensor, fps: float, *, device: torch.device | str = "cpu", on_step: OnStep | None = None
) -> Safety:
    """Measure a clip's flashes and stripes (see ``flashes``), and lower what fails just enough to pass.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        fps: frames a second.
        device: where to compute.
        on_step: told after each frame that is measured, and each that is made now; stops the work by raising.

    Raises:
        InputError, ShapeError: frames, or a rate, that are none.
    """
    frames = check_frames(frames)
    Meter(fps)  # refuses the rate before long work
    clip = _Clip(light_in_cells(frames, device=device, on_step=on_step), fps, device)
    found = clip.measured()
    for stretch in found.patterned:
        clip.without_stripes(stretch)
    clip.without_flashes((clip.measured() if clip.plain else found).flashing)
    left = clip.measured() if clip.plain or clip.calm else found
    report = {
        "frames": len(frames),
        "fps": fps,
        "before": found.told(),
        "after": left.told(),
        "lowered": [
            {"frames": [part.start, part.stop - 1], "what": what, "strength": round(part.strength, 3)}
            for what, parts in (("stripes", clip.plain), ("flashes", clip.calm))
            for part in parts
        ],
    }
    chart = _chart(found, left, fps)
    if not clip.plain and not clip.calm:
        return Safety(frames, report, chart)

    def made(start: int) -> Iterator[Tensor]:
        for index in range(start, len(frames)):
            yield clip.frame(frames[index], index)[None]

    return Safety(computed(made, tuple(frames.shape), on_step=on_step), report, chart)


class _Clip:
    """The light of a clip in cells, and what is done to it."""

    def __init__(self, cells: Tensor, fps: float, device: torch.device | str) -> None:
        self._cells, self._fps, self._device = cells, fps, device
        self.plain: list[_Mending] = []
        """Of stripes."""
        self.calm: list[_Mending] = []
        """Of flashes, after that."""

    def light(self, index: int) -> Tensor:
        """Light of a frame as it is, ``(3, h, w)``."""
        return self._cells[index].to(self._device).float()

    def plainer(self, index: int) -> Tensor:
        """Light of a frame without stripes."""
        light, mending = self.light(index), _of(self.plain, index)
        return light if mending is None else _lowered(light, mending, self._around(light), index)

    def calmer(self, index: int) -> Tensor:
        """Light of a frame without stripes and flashes."""
        light, mending = self.plainer(index), _of(self.calm, index)
        return light if mending is None else _lowered(light, mending, self._over_time(mending, index), index)

    def frame(self, frame: Tensor, index: int) -> Tensor:
        """A mended frame ``(H, W, 3)`` at native size."""
        stripes_here, flashes_here = _of(self.plain, index), _of(self.calm, index)
        if stripes_here is None and flashes_here is None:
            return frame
        shown = send(frame, self._device).movedim(-1, 0)
        light = to_linear(shown)
        is_changed = torch.zeros_like(light[:1], dtype=torch.bool)
        if stripes_here is not None:
            light = _lowered(light, stripes_here, self._around(light), index)
            is_changed |= _at(stripes_here.mask, light) > 0.0
        if flashes_here is not None:
            light = _lowered(light, flashes_here, self._over_time(flashes_here, index), index)
            is_changed |= _at(flashes_here.mask, light) > 0.0
        return torch.where(is_changed, to_display(light).clamp(0.0, 1.0), shown).movedim(0, -1)

    def measured(self) -> _Measured:
        """What there is now."""
        found = _Measured([], [], [], [], [], [])
        striped: list[_Stretch] = []
        meter, count = Meter(self._fps), len(self._cells)
        every = max(1, round(self._fps / STRIPE_RATE))
        for index in range(count):
            light = self.calmer(index)
            meter.add(light)
            grey = luminance(light)
            found.luminance.append(float(grey.mean()))
            found.flashes.append(meter.general.flashes)
            found.red_flashes.append(meter.red.flashes)
            if not meter.passes:
                failing = _Stretch(meter.span.start, meter.span.stop, meter.too_many)
                _add(found.flashing, failing, LONGEST * self._fps)
            if index % every == 0:
                marks = stripes(grey)
                area = float(marks.float().mean())
                if area > AREA:
                    _add(striped, _Stretch(index, min(index + every, count), marks), math.inf)
            found.striped.append(area)
        found.patterned.extend(part for part in striped if part.stop - part.start > STRIPES_LAST * self._fps)
        return found

    def without_stripes(self, stretch: _Stretch) -> None:
        """Add what leaves no stripes in a stretch, with the least strength."""
        frames = range(stretch.start, stretch.stop, max(1, round(self._fps / STRIPE_RATE)))

        def passes(trial: _Mending) -> bool | None:
            for index in frames:
                light = self.light(index)
                marks = stripes(luminance(_lowered(light, trial, self._around(light), index)), STRICT)
                if float(marks.float().mean()) > AREA:
                    return None
            return True

        mask = box_mean(stretch.mask.float(), 2)
        self.plain.append(_least(_Mending(stretch, stretch.start, stretch.stop, mask), passes)[0])

    def without_flashes(self, stretches: Sequence[_Stretch]) -> None:
        """Add what leaves no more flashes than are allowed, as smooth as will do and with the least strength."""
        meter, position, fade = Meter(self._fps), 0, round(FADE * self._fps)
        for number, stretch in enumerate(stretches):
            end = stretches[number + 1].start if number + 1 < len(stretches) else len(self._cells)
            start, stop = max(position, stretch.start - fade), max(stretch.stop, min(stretch.stop + fade, end))
            for index in range(position, start):
                meter.add(self.plainer(index))
            mask = self._flashing(stretch)
            for radius in RADII:
                mending = _Mending(stretch, start, stop, mask, radius)
                passes = self._trial(mending, meter)
                if passes(mending) is not None:
                    break
            mending, after = _least(mending, passes)
            self.calm.append(mending)
            meter, position = after or meter, stop

    def _trial(self, mending: _Mending, before: Meter) -> Callable[[_Mending], Meter | None]:
        """What tells whether a mending of some strength passes: the meter at its end, or None."""
        lights = [self._over_time(mending, index) for index in range(mending.start, mending.stop)]

        def passes(trial: _Mending) -> Meter | None:
            after = before.copy()
            for index, light in enumerate(lights, trial.start):
                after.add(_lowered(self.plainer(index), trial, light, index), STRICT)
                if not after.passes:
                    return None
            return after

        return passes

    def _flashing(self, stretch: _Stretch) -> Tensor:
        """Where a stretch flashes, ``(h, w)``, with what is dark there and so flashes less, of its light as much."""
        total = torch.zeros_like(stretch.mask, dtype=torch.float32)
        change = total.clone()
        before = luminance(self.plainer(max(0, stretch.start - 1)))
        for index in range(stretch.start, stretch.stop):
            light = luminance(self.plainer(index))
            total += light
            change += (light - before).abs()
            before = light
        share = change / total.clamp_min(1e-6)
        alike = share >= 0.5 * share[stretch.mask].median()
        near = erode(dilate(stretch.mask, AROUND), AROUND)
        return erode(dilate(stretch.mask | (near & alike), GAP), GAP).float()

    def _around(self, light: Tensor) -> _Lights:
        """Light ``(3, H, W)``, and the mean of it around each place."""
        cells = resize(light[None], (self._cells.shape[2], self._cells.shape[3]), mode="area")[0]
        return light, box_mean(cells, AROUND)

    def _over_time(self, mending: _Mending, index: int) -> _Lights:
        """Light of a frame and its mean over the second around it, averaged over the windows of a mending."""
        half = max(1, round(self._fps / 2.0))
        first, last = max(0, index - half), min(len(self._cells), index + half + 1)
        weights = torch.hann_window(2 * half + 3, periodic=False)[1:-1][first - index + half : last - index + half]
        mean = torch.zeros_like(self._cells[0], dtype=torch.float32, device=self._device)
        for other, weight in zip(range(first, last), (weights / weights.sum()).tolist(), strict=True):
            mean += weight * self.plainer(other)
        lights = torch.stack((self.plainer(index), mean))
        if mending.radius > 0:
            counted = box_sum(mending.mask, mending.radius).clamp_min(1e-6)
            lights = box_sum(lights * mending.mask, mending.radius) / counted
        here, there = lights.clamp_(0.0, 1.0).half()  # those of a whole stretch are kept
        return here, there


_Lights = tuple[Tensor, Tensor]
"""Light as it is, and what it is drawn towards, each ``(3, h, w)`` of any size."""


def _lowered(light: Tensor, mending: _Mending, lights: _Lights, index: int) -> Tensor:
    """Light ``(3, H, W)`` of a frame, so changed that the mean ``now`` of its part becomes what is wanted."""
    now, towards = (_at(part.float(), light) for part in lights)
    wanted = torch.lerp(now, towards, mending.strength_at(index))
    gain = (wanted / now.clamp_min(1e-6)).clamp_max(MOST_GAIN)
    veil = (1.0 - wanted) / (1.0 - gain * now).clamp_min(1e-6)  # 1: none
    changed = 1.0 - (1.0 - (light * gain).clamp_max(1.0)) * veil.clamp_max(1.0)
    return torch.lerp(light, changed, _at(mending.mask, light))


def _least(mending: _Mending, passes: Callable[[_Mending], Any]) -> tuple[_Mending, Any]:
    """A mending with about the least strength that passes, and what ``passes`` says of it."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if passes(replace(mending, strength=middle)) is not None else (middle, high)
    mending = replace(mending, strength=high)
    return mending, passes(mending)


def _of(mendings: Sequence[_Mending], index: int) -> _Mending | None:
    return next((mending for mending in mendings if mending.start <= index < mending.stop), None)


def _at(picture: Tensor, like: Tensor) -> Tensor:
    """A picture ``(h, w)`` or ``(3, h, w)`` at the size of another, ``(3, H, W)``."""
    whole = picture if picture.ndim == 3 else picture[None]
    return resize(whole[None], (like.shape[1], like.shape[2]))[0]


def _add(stretches: list[_Stretch], new: _Stretch, longest: float) -> None:
    """Join a stretch to the last one where they touch; one that would be too long is followed by another."""
    if not stretches or new.start > stretches[-1].stop:
        stretches.append(new)
    elif new.stop <= stretches[-1].stop or new.stop - stretches[-1].start <= longest:
        stretches[-1] = stretches[-1].joined(new)
    else:
        stretches.append(_Stretch(stretches[-1].stop, new.stop, new.mask))


def _chart(before: _Measured, after: _Measured, fps: float) -> Tensor:
    grey, blue, red = (150, 150, 150), (40, 90, 200), (200, 60, 50)
    failing = [(part.start, part.stop - 1) for part in (*before.flashing, *before.patterned)]
    top = max(10.0, *before.flashes, *before.red_flashes)
    light = plot(
        "mean luminance",
        [Curve(before.luminance, grey, "before"), Curve(after.luminance, blue, "after")],
        fps=fps,
        span=(0.0, 1.0),
        marks=failing,
    )
    flashes = plot(
        "flashes in a second",
        [
            Curve(before.flashes, grey, "before"),
            Curve(before.red_flashes, red, "red, before"),
            Curve([max(pair) for pair in zip(after.flashes, after.red_flashes, strict=True)], blue, "after"),
        ],
        fps=fps,
        span=(0.0, top),
        marks=failing,
        limit=MOST_FLASHES,
    )
    return torch.cat((light, flashes))[None]
