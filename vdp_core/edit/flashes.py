"""Flashes and striped patterns that may set off seizures: how many there are, how large, and whether they are allowed.

The limits are those of ITU-R BT.1702-3 and of WCAG 2.2, success criterion 2.3.1, where white has 200 cd/m2:

- general flash: a pair of opposing changes of luminance by a tenth of white or more (20 cd/m2), where the darker of the
  two is below 0.8 (160 cd/m2);
- red flash: a pair of opposing changes of R - G - B (0 where negative) by more than 20 / 320, of which one end is a
  saturated red, R / (R + G + B) >= 0.8; R, G and B are light. It is the working definition of WCAG up to 2.1;
- more than three flashes within a second are too many, where they fill more than a quarter of the frame;
- stripes: more than five pairs of light and dark that fill more than a quarter of the frame for more than half a
  second, the light ones above 50 cd/m2 (Wilkins, Emmett and Harding, Epilepsia 2005).

All is measured in cells, means of the light over 1/256 of the long side, of the quarter of the frame that is worst:
finer patterns are not seen as flashes. It is no certified test.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..image.colour import LUMA, to_linear
from ..image.resize import resize, size_within
from ..store.scratch import large_empty
from ..store.transfer import send
from ..types import OnStep

__all__ = [
    "AREA",
    "MOST_FLASHES",
    "STANDARD",
    "STRICT",
    "STRIPES_LAST",
    "Limits",
    "Meter",
    "light_in_cells",
    "luminance",
    "stripes",
]

SIDE = 256  # cells along the long side: about a tenth of a degree each, where the frame fills a screen
AREA = 0.25
MOST_FLASHES = 3.0  # in a second; half a one more is the first half of the fourth
AT_ONCE = 24  # what turns within this part of a second turns at once
STRIPES = 5  # pairs
STRIPES_LAST = 0.5  # seconds
BLOCK = 32  # cells that are looked at together for stripes
LEAST_CYCLES = 3  # of the wave in a block: fewer are no stripes, but what any picture has
CONCENTRATION = 0.5  # share of a block's variance in one wave from which on it has stripes


@dataclass(frozen=True)
class Limits:
    """From which change on a transition counts, in light, 1 = white."""

    luminance: float = 0.1
    dark: float = 0.8
    red: float = 20.0 / 320.0 + 1e-6
    saturated: float = 0.8
    contrast: float = 0.1
    """Of stripes."""
    bright: float = 0.25
    """Of the light ones."""


STANDARD = Limits()
STRICT = Limits(luminance=0.09, red=18.0 / 320.0, contrast=0.09)
"""What mended clips keep: a tenth less, for the rounding and the compression of whoever saves them."""


class _Transitions:
    """Transitions of a quantity in each cell, and how many there were in the last second.

    They count where more than a quarter of the frame rises at once, or falls, or turns as it did before; and so does
    the next, which makes a pair of it. Else whatever moves through a cell would count.
    """

    def __init__(self, fps: float) -> None:
        self._second = math.ceil(fps - 1e-3)  # frames that lie less than a second apart
        self._at_once = max(1, round(fps / AT_ONCE))
        self._index = 0
        self._state: tuple[Tensor, ...] | None = None
        """Where it last turned to (-1, 0, 1), lowest and highest since, and whether these are marked."""
        self._recent: list[tuple[Tensor, Tensor]] = []
        """What rose and what fell in the last frames, and does not count yet."""
        self._before = torch.zeros(())
        """What turned when last as much did."""
        self._counted: dict[int, Tensor] = {}
        self._awaited = torch.zeros(())
        """Where the next turn counts."""
        self.count = torch.zeros(())

    def add(self, value: Tensor, marked: Tensor, least: float) -> None:
        """Go on to the next frame's values ``(h, w)``.

        A change by ``least`` is a transition where one of its ends is marked.
        """
        if self._state is None:
            still = torch.zeros_like(marked, dtype=torch.int8)
            self._state = still, value, value, marked, marked
            self.count, self._awaited, self._before = still.short(), still.bool(), still.bool()
        way, low, high, low_marked, high_marked = self._state
        rises = (way <= 0) & (value - low >= least) & (low_marked | marked)
        falls = (way >= 0) & (high - value >= least) & (high_marked | marked) & ~rises
        lower, higher = falls | (value <= low), rises | (value >= high)
        self._state = (
            way.masked_fill(rises, 1).masked_fill(falls, -1),
            torch.where(lower, value, low),
            torch.where(higher, value, high),
            torch.where(lower, marked, low_marked),
            torch.where(higher, marked, high_marked),
        )
        self._add(rises, falls)

    def _add(self, rises: Tensor, falls: Tensor) -> None:
        second = (rises | falls) & self._awaited
        self._awaited = self._awaited & ~second
        self._recent = [*self._recent, (rises & ~second, falls & ~second)][-self._at_once :]
        risen, fallen = (second & way for way in (rises, falls))
        for up, down in self._recent:
            risen, fallen = risen | up, fallen | down
        turned, counts = risen | fallen, second
        if _fills(turned):
            if _fills(risen) or _fills(fallen) or _fills(turned & self._before):
                counts, self._recent = turned, []
                self._awaited = self._awaited | (turned & ~second)
            self._before = turned
        self.count = self.count + counts.short()
        self._counted[self._index] = counts
        gone = self._counted.pop(self._index - self._second, None)
        if gone is not None:
            self.count = self.count - gone.short()
        self._index += 1

    def copy(self) -> _Transitions:
        """One that goes on by itself; no tensor is ever changed in place."""
        other = copy(self)
        other._counted = dict(self._counted)
        return other

    @property
    def span(self) -> range:
        """Frames from the first to the last of these turns."""
        there = [index for index, turned in self._counted.items() if bool(turned.any())]
        return range(min(there), max(there) + 1) if there else range(0)

    @property
    def flashes(self) -> float:
        """Of the quarter of the frame that has the most."""
        cells = self.count.numel()
        return float(self.count.flatten().kthvalue(cells - math.floor(AREA * cells)).values) / 2.0

    @property
    def too_many(self) -> Tensor:
        """Where there are more than allowed, ``(h, w)`` of booleans."""
        return self.count > 2 * MOST_FLASHES

    @property
    def passes(self) -> bool:
        return not _fills(self.too_many)


def _fills(marks: Tensor) -> bool:
    return float(marks.float().mean()) > AREA


class Meter:
    """Counts flashes, frame by frame."""

    def __init__(self, fps: float) -> None:
        """
        Args:
            fps: frames a second.

        Raises:
            InputError: a rate that is none.
        """
        if not 0.0 < fps < math.inf:
            raise InputError(f"fps: above 0 needed, got {fps:g}; link the rate of the clip")
        self.general = _Transitions(fps)
        self.red = _Transitions(fps)

    def add(self, cells: Tensor, limits: Limits = STANDARD) -> None:
        """Go on to the next frame, ``(3, h, w)`` of light."""
        light = luminance(cells)
        self.general.add(light, light < limits.dark, limits.luminance)
        red, total = cells[0], cells.sum(dim=0)
        is_saturated = (total > 0.0) & (red >= limits.saturated * total)
        self.red.add((2.0 * red - total).clamp_min(0.0), is_saturated, limits.red)

    @property
    def passes(self) -> bool:
        return self.general.passes and self.red.passes

    @property
    def span(self) -> range:
        """Frames from the first to the last turn of those that are too many."""
        spans = [part.span for part in (self.general, self.red) if not part.passes]
        return range(min(span.start for span in spans), max(span.stop for span in spans)) if spans else range(0)

    @property
    def too_many(self) -> Tensor:
        return self.general.too_many | self.red.too_many

    def copy(self) -> Meter:
        """One that goes on by itself."""
        other = copy(self)
        other.general, other.red = self.general.copy(), self.red.copy()
        return other


def luminance(cells: Tensor) -> Tensor:
    """Relative luminance ``(h, w)`` of light ``(3, h, w)``."""
    red, green, blue = (share * channel for share, channel in zip(LUMA, cells, strict=True))
    return red + green + blue


def light_in_cells(frames: Tensor, *, device: torch.device | str = "cpu", on_step: OnStep | None = None) -> Tensor:
    """Mean light of each cell of a clip ``(T, H, W, 3)``: ``(T, 3, h, w)`` float16, on the CPU, or in a file."""
    size = size_within(frames.shape[1], frames.shape[2], SIDE, least=2)
    cells = large_empty(len(frames), 3, *size, dtype=torch.float16)
    for index, frame in enumerate(frames):
        light = to_linear(send(frame, device).movedim(-1, 0)[None].float())
        cells[index] = resize(light, size, mode="area")[0]
        if on_step is not None:
            on_step(index + 1, len(frames), None)
    return cells


def stripes(light: Tensor, limits: Limits = STANDARD) -> Tensor:
    """Where a frame has more than five pairs of light and dark stripes, ``(h, w)`` of booleans, from its luminance.

    Straight or curved, in any direction: the frame is cut into overlapping blocks, at three scales, and a block has
    stripes where one wave makes up most of its variance. A pixel has, where most of the blocks do that it lies in.
    """
    found = torch.zeros_like(light, dtype=torch.bool)
    height, width = light.shape
    for side in (SIDE, SIDE // 2, SIDE // 4):
        size = size_within(height, width, side, least=2)
        marks = _striped(resize(light[None, None], size, mode="area")[0, 0], limits)
        if float(marks.float().mean()) > float(found.float().mean()):
            found = resize(marks[None, None].float(), (height, width), mode="nearest")[0, 0] > 0.5
        if float(found.float().mean()) > AREA:  # coarser blocks would say less well where
            break
    return found


def _striped(light: Tensor, limits: Limits) -> Tensor:
    """``stripes`` at one scale, of waves of 2 to 11 pixels."""
    height, width = light.shape
    nothing = torch.zeros_like(light, dtype=torch.bool)
    block = min(BLOCK, height, width) // 2 * 2
    if block < 8:
        return nothing
    rows, columns = (_starts(side, block).to(light.device) for side in (height, width))
    blocks = light.unfold(0, block, 1).unfold(1, block, 1)[rows][:, columns].flatten(0, 1)
    spread, mean = torch.std_mean(blocks, dim=(1, 2), correction=0)
    window = torch.hann_window(block, device=light.device)
    window = window[:, None] * window
    balanced = blocks - (blocks * window).sum(dim=(1, 2), keepdim=True) / window.sum()
    power = torch.fft.fft2(balanced * window).abs().square()
    cycles = torch.fft.fftfreq(block, d=1.0 / block, device=light.device)
    # a wave has its power in a bin and those beside it, and again in the mirror image
    near = 9.0 * F.avg_pool2d(F.pad(power[:, None], (1, 1, 1, 1), mode="circular"), 3, stride=1)[:, 0]
    near = near * (cycles[:, None].square() + cycles.square() >= LEAST_CYCLES**2)
    best, peak = near.flatten(1).max(dim=1)
    is_striped = 2.0 * best >= CONCENTRATION * power.sum(dim=(1, 2)).clamp_min(1e-12)
    is_striped &= (2.0 * spread >= limits.contrast) & (mean + spread >= limits.bright)
    votes, all_votes = torch.zeros_like(light), torch.zeros_like(light)
    waves = []
    for number, (top, left) in enumerate(torch.cartesian_prod(rows, columns).tolist()):
        place = slice(top, top + block), slice(left, left + block)
        all_votes[place] += 1.0
        if is_striped[number]:
            votes[place] += 1.0
            waves.append(_wave(power[number], int(peak[number]), cycles) / block)
    marks = 2.0 * votes > all_votes
    if not waves or not bool(marks.any()):
        return nothing
    there = [marks.any(dim=dim).nonzero().flatten() for dim in (1, 0)]
    extent = torch.stack([places[-1] - places[0] + 1 for places in there]).to(light)
    pairs = float((torch.stack(waves).abs().median(dim=0).values * extent).sum())
    return marks if round(pairs) > STRIPES else nothing


def _starts(side: int, block: int) -> Tensor:
    """Where blocks begin along a side: each overlaps the next by half or more, and the last ends with the side."""
    return torch.linspace(0, side - block, math.ceil(2 * (side - block) / block) + 1).long()


def _wave(power: Tensor, peak: int, cycles: Tensor) -> Tensor:
    """Cycles in a block of its strongest wave, down and across, from the bins around the peak."""
    side = len(cycles)
    near = torch.arange(-1, 2, device=power.device)
    weight = power[(peak // side + near) % side][:, (peak % side + near) % side]
    down = cycles[peak // side] + (weight.sum(dim=1) * near).sum() / weight.sum()
    right = cycles[peak % side] + (weight.sum(dim=0) * near).sum() / weight.sum()
    return torch.stack((down, right))
