"""When frames are shown: whether they come at a constant rate, and where they lie on one if they do not."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .info import LEAST_FPS, MOST_FPS, Notes

__all__ = [
    "Timeline",
    "average_rate",
    "constant_rate",
    "laid",
    "lay",
    "lie_evenly",
    "nominal_rate",
    "timed",
]

_WHOLE = (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)
_USUAL = (*map(Fraction, _WHOLE), Fraction(25, 2), *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)))
_ALIKE = 0.15  # by which intervals of one rate differ
_PAUSE = 10  # times the most common interval; what is longer says nothing of a rate
_GAPS = 1.6  # times the average rate; up to here the most common interval tells the rate, and longer ones are gaps
_MOST_COUNTED = 120  # frames a second; clocks that count faster count no frames
_SLOW = 30  # frames a second; up to here a grid on which all times lie is taken, as those of animated pictures
_CLOSE = 0.25  # frames; pulldown keeps film as near to its own rate
_STRAY = 1.25  # frames that a single one may be early or late without a place of its own
_MOST_FOLD = 100  # frames on a grid for each recorded one; more is a jump of the clock
_LONGEST_LAST = 10  # seconds that a last frame is shown for; what says more is taken for an error


@dataclass(frozen=True)
class Timeline:
    """Recorded frames on a grid of constant rate, each shown until the place of the next."""

    times: Sequence[int]
    """When each recorded frame is shown, in stream time, ascending."""
    slots: Sequence[int]
    """The place of each on the grid, never falling; of those at one place the last is shown."""
    rate: Fraction
    count: int
    """Frames on the grid."""

    def shown_at(self, slot: int) -> int:
        """Which recorded frame is shown at a place."""
        return bisect_right(self.slots, slot) - 1

    def slot_of(self, time: int) -> int:
        """The place of the frame that is shown at a time."""
        return self.slots[max(0, bisect_right(self.times, time) - 1)]

    @property
    def jumps(self) -> bool:
        """Whether the clock leaves the frames so far behind that it must have been set anew."""
        return self.count > _MOST_FOLD * len(self.times)

    def told(self) -> str:
        """A line on what was done, empty where each frame is there once."""
        used = len(set(self.slots))
        repeated, left_out = self.count - used, len(self.slots) - used
        if not repeated and not left_out:
            return ""
        parts = [f"{repeated} repeated"] * (repeated > 0) + [f"{left_out} left out"] * (left_out > 0)
        return f"variable rate: {len(self.slots)} frames laid on {float(self.rate):.6g} fps, {', '.join(parts)}"


def timed(
    times: Sequence[int],
    unit: Fraction,
    said: Fraction,
    last: int,
    timing: str,
    notes: Notes,
    *,
    last_counts: bool = False,
) -> tuple[Fraction, Timeline | None]:
    """The rate of a clip, and the places of its frames on it where its own varies and is made constant.

    Args:
        times: when each frame is shown, ascending.
        unit: of the times, in seconds.
        said: the rate that the file says.
        last: how long the last frame is shown.
        timing: one of TIMINGS.
        notes: told what was done.
        last_counts: a last frame that is shown longer than others makes the rate vary too: somebody set its delay,
            where other files hold a guess.
    """
    if not 0 < last * unit <= _LONGEST_LAST:
        last = max(1, int(np.median(np.diff(times)))) if len(times) > 1 else 1
    rate = constant_rate([*times, times[-1] + last] if last_counts else times, unit, said)
    if rate is not None:
        return rate, None
    line = laid(times, unit, _playable(nominal_rate(times, unit, said, last)), last)
    if line.jumps:
        notes.add("holds times that jump too far to be followed; each frame is taken once")
        return said, None
    if timing != "constant":
        return _playable(average_rate(times, unit, last)), None
    if told := line.told():
        notes.do(told)
    return line.rate, line


def _playable(rate: Fraction) -> Fraction:
    return min(max(rate, LEAST_FPS), Fraction(MOST_FPS))


def laid(times: Sequence[int], unit: Fraction, rate: Fraction, last: int) -> Timeline:
    """Frames laid on a rate, the last one shown for ``last``."""
    slots = lay(times, unit, rate)
    return Timeline(times, slots, rate, slots[-1] + max(1, round(last * unit * rate)))


def lay(times: Sequence[int], unit: Fraction, rate: Fraction) -> list[int]:
    """The place of each frame at a rate: counted on for as long as that is within half a frame of its time.

    One frame that is off by itself is left where it is counted. From where they stay off, which a gap or a crowd makes
    them, places follow the times. So a clip that jitters keeps its frames, and no other drifts from its sound.

    Args:
        times: ascending.
        unit: of the times, in seconds.
        rate: frames a second.
    """
    off = _off(times, unit, rate).tolist()
    slots: list[int] = []
    shift = 0
    for index, now in enumerate(off):
        now -= shift
        is_alone = index + 1 == len(off) or abs(off[index + 1] - shift) <= 0.5
        if abs(now) > (_STRAY if is_alone else 0.5):
            shift += round(now)
        slots.append(max(slots[-1] if slots else 0, index + shift))
        shift = slots[-1] - index
    return slots


def _off(times: Sequence[int], unit: Fraction, rate: Fraction) -> NDArray[np.float64]:
    """By how many frames each is late when they are counted at a rate."""
    return (np.asarray(times, np.float64) - times[0]) * float(unit * rate) - np.arange(len(times))


def lie_evenly(times: Sequence[int], unit: Fraction, rate: Fraction) -> bool:
    """Whether frames can simply be counted at a rate, which is theirs and no average of others."""
    if len(times) < 3 or np.abs(_off(times, unit, rate)).max() <= _CLOSE:
        return True
    gaps = _gaps(times)
    is_theirs = len(gaps) > 0 and abs(_most_common(gaps) * unit * rate - 1) < _ALIKE / 2
    return is_theirs and lay(times, unit, rate) == list(range(len(times)))


def constant_rate(times: Sequence[int], unit: Fraction, said: Fraction) -> Fraction | None:
    """The rate that frames have, None where it varies: the one that their file says, else that of their times."""
    if len(times) < 2 or times[-1] == times[0]:
        return said
    measured = (len(times) - 1) / ((times[-1] - times[0]) * unit)
    if not LEAST_FPS <= measured <= MOST_FPS:  # a clock that lies
        return said
    # of a file that says none, FFmpeg makes one up from rounded times, such as 989/33 for 30000/1001
    candidates = (_usual(said, within=1e-4), _usual(measured), _rounded(measured))
    return next((rate for rate in candidates if lie_evenly(times, unit, rate)), None)


def average_rate(times: Sequence[int], unit: Fraction, last: int) -> Fraction:
    """Frames through time, the last one being shown for ``last``."""
    return _rounded(len(times) / ((times[-1] - times[0] + last) * unit))


def nominal_rate(times: Sequence[int], unit: Fraction, said: Fraction, last: int) -> Fraction:
    """The rate for a clip whose own varies.

    The one the file says, where its times count frames of that rate: AVI and Ogg. Else that of the most common
    interval, where the others are gaps in it: a recording at 30 frames a second that lost some. Else the slow grid that
    all times lie on, if there is one: a picture that is animated with delays. Else the average.
    """
    if unit * said == 1 and said <= _MOST_COUNTED:
        return said
    gaps = _gaps([*times, times[-1] + last])
    common = _most_common(gaps)
    going = gaps[gaps <= int(_PAUSE * common)]
    average = len(going) / (int(going.sum()) * unit)
    most = _usual(1 / (common * unit), within=0.05)
    if average <= most <= _GAPS * average:
        return most
    grid = 1 / (int(np.gcd.reduce(gaps)) * unit)
    return grid if grid <= _SLOW else _usual(average)


def _gaps(times: Sequence[int]) -> NDArray[np.int64]:
    shown = np.asarray(times, np.int64)
    gaps = shown[1:] - shown[:-1]
    return gaps[gaps > 0]


def _most_common(gaps: NDArray[np.int64]) -> Fraction:
    """The mean of the intervals around the most common one: clocks of milliseconds make several of one rate.

    Of two about as common it is the shorter one, at which no frame is lost.
    """
    ordered = np.sort(gaps)
    first = np.searchsorted(ordered, ordered * (1 - _ALIKE), "left")
    end = np.searchsorted(ordered, ordered * (1 + _ALIKE), "right")
    near = end - first
    shortest = int(np.argmax(2 * near >= near.max()))
    middle = shortest + int(np.argmax(near[shortest : end[shortest]]))
    return Fraction(int(ordered[first[middle] : end[middle]].sum()), int(near[middle]))


def _usual(rate: Fraction, within: float = 0.01) -> Fraction:
    """The usual rate that a measured one means, where there is one so near."""
    nearest = min(_USUAL, key=lambda usual: abs(usual / rate - 1))
    return nearest if abs(nearest / rate - 1) < within else _rounded(rate)


def _rounded(rate: Fraction) -> Fraction:
    """A rate that containers can hold."""
    return rate.limit_denominator(1001) or rate
