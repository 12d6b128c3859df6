"""Dehaze: ``x = t J + (1 - t) L``, with a transmission t that varies over the frame and an airlight L that may drift.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) finds t and J with two networks, which
reconstruction alone does not identify: that is the preset ``paper``. The other presets hold log t as a small grid for
every few frames and L as a few colours, and find them by what identifies them: the same point of the scene, followed
along the flow, moves in a straight line towards L as haze thickens; somewhere near, the clear scene is almost black in
one channel; and no clear colour is darker than black or brighter than white. J needs no network: it follows from x, t
and L, at native size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_flow, check_frames
from ..denoise.noise import estimate_noise
from ..errors import InputError
from ..image.resize import working_copy
from ..image.upsample import upsample
from ..models.haze import MIN_TRANSMISSION
from ..optim.fit import Fitted, fit
from ..optim.grids import Pyramid, read_grid, resized, smaller
from ..optim.losses import charbonnier, waviness
from ..optim.windows import OVERLAP, Window, blended, fit_windows, joined, windows
from ..store.checkpoint import Checkpoint
from ..types import Flow, Layers, OnStep
from .dehaze_priors import brightest_haze, extremes, followed_colours, least_transmission

__all__ = ["PRESETS", "DehazeConfig", "decompose"]

SMALLEST_SIDE = 16
MIDDLE = math.log(0.25)
"""Of t, its median over the clip, at least. A bright scene in haze looks just as a dark one in denser haze does, and
taking off too much does more harm: without this, bright clips in dense haze came out up to 5.6 dB below the hazy ones
themselves; with it, never more than 0.04 (30 clips)."""
LEAST_CHANGE = 0.004  # of colours, about a level of 8 bits: less than it says nothing
SAMPLES = 50  # of log t along the long side, at least: fine enough to be lifted along the edges of the picture
SHOWN = 0.5  # one over the number of cells of a block that hold its darkest values
EDGE = 0.05  # difference of neighbouring colours that speaks for an edge in depth
FRAMES_AN_AIRLIGHT = 24  # of the airlight in time


@dataclass(frozen=True)
class DehazeConfig:
    """What a preset sets."""

    steps: int = 400
    """The first half finds the airlight, the second half objects in front of the haze."""
    side: int = 200
    """Long side of the copy that points are followed on; up: finer, slower."""
    grid: int = 12
    """Samples of log t along the long side; up: haze may vary faster over the frame."""
    points: int = 15_000
    """Followed points looked at in a step."""
    learning_rate: float = 0.04
    same_scene: float = 100.0
    """Weight of the same point keeping its clear colour; up: haze follows what changes, errors of the flow too."""
    black: float = 1.0
    """Weight of something near being almost black; down: haze may be left in."""
    tolerance: float = 0.1
    """Share of the blocks that may lie deeper in haze than log t says; up: t follows bright surfaces down."""
    smooth: float = 1.0
    """Weight of evenness over the frame and in time; up: broader haze, but the airlight is found less well."""
    objects: float = 0.1
    """Weight of objects having the haze of what is around them; up: fewer stand out."""
    outline: float = 10.0
    """Weight of haze changing only at edges of the picture; up: fewer and larger objects."""
    expected: float = 3.0
    """Weight of the airlight being the brightest haze; it decides only where nothing moves in the haze."""
    drift: float = 30.0
    """Weight of the airlight staying as it is; down: it follows the time of day, and changes of exposure too."""
    mistaken: float = 0.002
    """Change of a colour beyond which the flow is rather wrong than the haze another."""
    window: int = 240
    """Most frames that are fitted at once."""


PRESETS = {
    "fast": DehazeConfig(steps=240, side=160, points=10_000),
    "balanced": DehazeConfig(),
    "quality": DehazeConfig(steps=1000, side=256, grid=16, points=40_000),
}
"""The presets that are ours; ``paper`` is in ``paper.py``."""


class _Haze(NamedTuple):
    """The haze of a clip, as one of the presets found it."""

    transmission: Tensor
    """``(T, 1, h, w)``, on the CPU."""
    airlight: Tensor
    """``(T, 3, 1, 1)``, on the CPU."""
    fitted: Fitted
    notes: Mapping[str, str]


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
    """Find the haze of a shot.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more.
        flow: of the same clip.
        preset: ``fast``, ``balanced``, ``quality`` or ``paper``.
        steps: of the optimisation, at most; 0 takes the preset's.
        seed: the same seed gives the same layers (on a CPU, to the bit).
        layers: not used; the tasks are called alike.
        reference, reference_frame, mask, mask_frame: none is taken.
        device: where to optimise.
        weights_folders: where the preset ``paper`` looks for VGG16 weights, besides torch's cache.
        checkpoint: where to keep what is found on the way, to go on from when the work was cut off.
        on_step: told after every step; stops the work by raising.

    Returns:
        Layers of the model ``dehaze``: the fields ``transmission`` ``(T, 1, h, w)`` in 0..1 and ``airlight``
        ``(T, 3, 1, 1)`` in 0..1; the noise that ``estimate_noise`` found is kept beside them.

    Raises:
        ShapeError: frames and flow do not belong together.
        InputError: an unknown preset, a reference or a mask, or a setting out of range.
    """
    frames = check_frames(frames, at_least=2, smallest_side=SMALLEST_SIDE)
    check_flow(flow, len(frames))
    if reference is not None:
        raise InputError("reference: the task dehaze takes none; unlink it, or choose the task relight")
    if mask is not None:
        raise InputError("mask: the task dehaze takes none; unlink it, or choose the task segment")
    if preset != "paper" and preset not in PRESETS:
        raise InputError(f"preset: there is no '{preset}'; known: {', '.join([*PRESETS, 'paper'])}")
    if steps < 0:
        raise InputError(f"steps: 0 for the preset's, or more, got {steps}")
    started = time.perf_counter()
    noise = estimate_noise(frames)
    if preset == "paper":
        from . import paper

        def waiting(*_: object) -> None:
            if on_step is not None:
                on_step(0, max(1, steps), None)

        # the paper takes its airlight from elsewhere too
        config = PRESETS["fast"]
        clip = _Clip(working_copy(frames, config.side).to(device), flow, config, seed)
        clip.fit_smooth(config.steps // 2, waiting, checkpoint)
        given = clip.airlight()[:, :, 0, 0].cpu()
        published = paper.dehaze(
            frames,
            flow,
            airlight=given,
            steps=steps,
            seed=seed,
            device=device,
            weights_folders=weights_folders,
            checkpoint=checkpoint,
            on_step=on_step,
        )
        found = _Haze(*published)
    else:
        config = PRESETS[preset]
        config = replace(config, steps=steps or config.steps)
        found = _fit_haze(frames, flow, config, seed, torch.device(device), checkpoint, on_step)
    colour = ", ".join(f"{value:.2f}" for value in found.airlight.mean(dim=0).flatten().tolist())
    info = {
        "said": f"airlight ({colour}), transmission {float(found.transmission.mean()):.2f} on average",
        **found.fitted.info(preset=preset, flow=flow.method, seconds=time.perf_counter() - started),
        **found.notes,
    }
    fields = {"transmission": found.transmission, "airlight": found.airlight, "noise": noise.field(len(frames))}
    return Layers("dehaze", fields, frames, flow, seed, info)


def _fit_haze(
    frames: Tensor,
    flow: Flow,
    config: DehazeConfig,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint | None,
    on_step: OnStep | None,
) -> _Haze:
    """Find the haze window by window; how far to believe in it, and how dense it may be, is one for the whole shot."""
    spans = windows(len(frames), config.window, OVERLAP)
    expected = None
    if len(spans) > 1:
        some = working_copy(frames[:: max(1, len(frames) // 64)], config.side)
        expected = brightest_haze(extremes(some)).to(device)

    def work(number: int, place: Checkpoint | None, told: OnStep) -> Window:
        span = spans[number]
        small = working_copy(frames[span.start : span.stop], config.side).to(device)
        clip = _Clip(small, flow.part(span.start, span.stop), config, seed + number, expected=expected)
        return _fit_window(clip, config, place, told)

    found = fit_windows(spans, work, steps=config.steps, checkpoint=checkpoint, on_step=on_step)
    mean = {
        name: sum(window.numbers[name] * len(span) for window, span in zip(found, spans, strict=True))
        / sum(map(len, spans))
        for name in found[0].numbers
    }
    credit = _credit(mean["explained"], mean["amount"], mean["misfit"])
    notes = {
        "points": f"{sum(window.numbers['points'] for window in found):.0f}",
        "explained": f"{mean['explained']:.2f}",
        "credit": f"{credit:.2f}",
    }
    if credit < 0.5:
        notes["warning"] = "hardly any haze to be seen, so hardly any is taken off"
    log_t, airlight = (blended(spans, [window.fields[name] for window in found]) for name in ("log_t", "airlight"))
    log_t = log_t + F.relu(MIDDLE - log_t.median())
    through = (credit * log_t.clamp(max=0.0)).exp()[:, None]
    return _Haze(through, airlight[:, :, None, None], joined(found), notes)


def _fit_window(clip: _Clip, config: DehazeConfig, checkpoint: Checkpoint | None, on_step: OnStep) -> Window:
    """Find the airlight with a smooth log t, then log t with objects in front of the haze, the airlight known."""
    steps = max(1, config.steps // 2)
    fitted = clip.fit_smooth(steps, on_step, checkpoint)
    with torch.no_grad():
        numbers = {
            "explained": clip.explained(),
            "misfit": fitted.terms["black"] / max(config.black, 1e-9),
            "amount": float(1.0 - clip.smooth().clamp(max=0.0).exp().mean()),
            "points": float(len(clip.points)),
        }
    if config.steps > steps:
        first = fitted

        def told(done: int, total: int, preview: Callable[[], Tensor] | None) -> None:
            on_step(first.steps + done, total, preview)

        again = clip.fit_objects(config.steps - steps, told, checkpoint)
        fitted = replace(again, steps=first.steps + again.steps, seconds=first.seconds + again.seconds)
    with torch.no_grad():
        fields = {"log_t": clip.log_t(), "airlight": clip.airlight()[:, :, 0, 0]}
        return Window({name: field.cpu() for name, field in fields.items()}, numbers, fitted)


class _Clip:
    """What the clip shows, and the haze that is fitted to it."""

    def __init__(
        self,
        small: Tensor,
        flow: Flow,
        config: DehazeConfig,
        seed: int,
        *,
        expected: Tensor | None = None,
    ) -> None:
        """Take the working copy ``(T, 3, h, w)``; of a part of a shot, also the airlight that all of it expects."""
        self._small, self._config = small, config
        self._generator = torch.Generator().manual_seed(seed)
        height, width = small.shape[2:]
        cell = max(1, max(height, width) // SAMPLES)
        self._size = (len(small), max(2, height // cell), max(2, width // cell))
        self.points = followed_colours(small, flow, seed=seed)
        self._blocks, self._cells = extremes(small), extremes(small, block=cell)
        self._smooth = _LogTransmission(small, config.grid)
        self._objects = Pyramid([self._size, *(smaller(self._size, by) for by in (2, 5))], small.device)
        self._expected = (brightest_haze(self._blocks) if expected is None else expected).clamp(0.02, 0.98)
        self.air = _Airlight(self._expected, len(small))
        # how far neighbours may be expected to lie at one depth: less, the more their colours differ
        colours = F.interpolate(small, size=self._size[1:], mode="area")
        self._alike = [torch.exp(-colours.diff(dim=dim).square().sum(dim=1) / EDGE**2) for dim in (2, 3)]

    def smooth(self) -> Tensor:
        """The smooth part of log t, ``(T, h, w)``."""
        return resized(self._smooth(), self._size)

    def log_t(self) -> Tensor:
        """Log t with the objects, ``(T, h, w)``."""
        return self.smooth() + self._objects()

    @torch.no_grad()
    def airlight(self) -> Tensor:
        """L of every frame, ``(T, 3, 1, 1)``."""
        return self.air(torch.linspace(-1.0, 1.0, len(self._small), device=self._small.device))[:, :, None, None]

    def fit_smooth(self, steps: int, on_step: OnStep, checkpoint: Checkpoint | None = None) -> Fitted:
        """Fit the smooth part and the airlight."""
        config, blocks = self._config, self._blocks

        def step(_: int) -> dict[str, Tensor]:
            grid, air = self._smooth(), self.air.values()
            log_t = read_grid(grid, blocks.places)
            # The airlight is left to the followed points: blocks would make it brighter, and all of the clip clearer.
            dark, bright = least_transmission(blocks, self.air(blocks.places[:, 2]).detach())
            above = log_t - dark
            frontier = torch.where(above > 0.0, config.tolerance * above, (config.tolerance - 1.0) * above)
            return {
                **self._common(grid, log_t, bright),
                "black": config.black * frontier.mean(),
                "drift": config.drift * air.diff(dim=0).square().sum(),
                "expected": config.expected * (air - self._expected).square().mean(),
                "same_scene": config.same_scene * self._changed(grid, self._some()).mean(),
            }

        place = None if checkpoint is None else checkpoint.part("smooth")
        return self._fit(step, [*self._smooth.parts, self.air.parameter], steps, on_step, place)

    def fit_objects(self, steps: int, on_step: OnStep, checkpoint: Checkpoint | None = None) -> Fitted:
        """Fit the smooth part again, and objects that have less haze in front of them or more, with sharp outlines."""
        config, blocks, cells = self._config, self._blocks, self._cells
        dark, bright = least_transmission(blocks, self.air(blocks.places[:, 2]).detach())
        dark_cell, _ = least_transmission(cells, self.air(cells.places[:, 2]).detach())
        shown = SHOWN / len(dark)

        def step(_: int) -> dict[str, Tensor]:
            grid, objects = self._smooth(), self._objects()
            total = resized(grid, self._size) + objects
            log_t, log_t_cell = read_grid(total, blocks.places), read_grid(total, cells.places)
            deeper = F.relu(dark_cell - log_t_cell).sum() * shown
            frontier = config.tolerance * F.relu(log_t - dark).mean() + (1.0 - config.tolerance) * deeper
            steps_down, steps_right = (
                alike * charbonnier(objects.diff(dim=dim), 0.02) for alike, dim in zip(self._alike, (1, 2), strict=True)
            )
            return {
                **self._common(grid, log_t, bright),
                "black": config.black * frontier,
                "objects": config.objects * charbonnier(objects, 0.05).mean(),
                "outline": config.outline * (steps_down.mean() + steps_right.mean()),
                "same_scene": config.same_scene * self._changed(total, self._some()).mean(),
            }

        place = None if checkpoint is None else checkpoint.part("objects")
        return self._fit(step, [*self._smooth.parts, *self._objects.parts], steps, on_step, place)

    def explained(self) -> float:
        """The share of the change of followed colours that is gone when the smooth haze and the airlight are known."""
        if len(self.points) == 0:
            return 0.0
        chosen = torch.arange(0, len(self.points), max(1, len(self.points) // 100_000), device=self._small.device)
        with torch.no_grad():
            change = self.points.after[chosen] - self.points.before[chosen]
            all_of_it = charbonnier(change, self._config.mistaken).mean()
            left = self._changed(self._smooth().clamp(max=0.0), chosen).mean()
            return float((all_of_it - left) / (all_of_it + LEAST_CHANGE))

    def _common(self, grid: Tensor, log_t: Tensor, bright: Tensor) -> dict[str, Tensor]:
        """The terms of both fits."""
        config = self._config
        beyond = F.relu(bright - log_t) + F.relu(log_t)
        return {
            "smooth": config.smooth * torch.stack([waviness(grid, dim).mean() for dim in range(3)]).sum(),
            "range": (1.0 - config.tolerance) * beyond.mean(),
        }

    def _some(self) -> Tensor:
        """Some of the followed points."""
        count = len(self.points)
        chosen = torch.randint(max(count, 1), (min(self._config.points, count),), generator=self._generator)
        return chosen.to(self._small.device)

    def _changed(self, log_t: Tensor, chosen: Tensor) -> Tensor:
        """By how much points came out otherwise than haze and airlight say, ``(N, 3)``; a zero where there are none."""
        if len(chosen) == 0:
            return log_t.new_zeros(1, 3)
        first, second = self.points.first[chosen], self.points.second[chosen]
        thinner = torch.exp(read_grid(log_t, second) - read_grid(log_t, first))[:, None]
        wanted = self.air(second[:, 2]) + thinner * (self.points.before[chosen] - self.air(first[:, 2]))
        return charbonnier(self.points.after[chosen] - wanted, self._config.mistaken)

    def _fit(
        self,
        step: Callable[[int], Mapping[str, Tensor]],
        parameters: list[Tensor],
        steps: int,
        on_step: OnStep,
        checkpoint: Checkpoint | None,
    ) -> Fitted:
        for parameter in (*self._smooth.parts, *self._objects.parts, self.air.parameter):
            parameter.requires_grad_(any(parameter is one for one in parameters))
        rate = self._config.learning_rate
        return fit(
            step,
            parameters,
            steps=steps,
            learning_rate=rate,
            preview=self._preview,
            on_step=on_step,
            checkpoint=checkpoint,
            generators=[self._generator],
        )

    @torch.no_grad()
    def _preview(self) -> Tensor:
        """The middle frame without haze, ``(h, w, 3)``."""
        count, _, height, width = self._small.shape
        middle = slice(count // 2, count // 2 + 1)
        through = upsample(self.log_t()[middle, None], (height, width)).exp().clamp_min(MIN_TRANSMISSION)
        when = self._small.new_tensor([2.0 * (count // 2) / (count - 1) - 1.0])
        light = self.air(when)[:, :, None, None]
        return ((self._small[middle] - light) / through + light)[0].movedim(0, -1).clamp(0.0, 1.0)


def _credit(explained: float, amount: float, misfit: float) -> float:
    """How far to believe that what was found is haze, 0 to 1: clear pictures are not black everywhere either.

    Either the haze explains how the colours of followed points change: over 15 hazy clips by 0.59 to 0.87, over five
    clear ones by -0.4 to 0.41. Or there is much of it and nearly every part of the clip fits it: clear clips seem to
    hold 0.07 to 0.10 of haze, or up to 0.44 with misfits of 0.1 and more where walls are bright.

    Args:
        explained: share of the change of followed colours that is gone when t and L are known.
        amount: mean of 1 - t.
        misfit: mean of the frontier's loss.
    """
    moving = _smoothstep(explained, 0.39, 0.49) * _smoothstep(amount, 0.10, 0.18)
    still = _smoothstep(amount, 0.15, 0.30) * (1.0 - _smoothstep(misfit, 0.07, 0.09))
    return max(moving, still)


def _smoothstep(value: float, low: float, high: float) -> float:
    """0 below ``low``, 1 above ``high``, smooth in between."""
    at = min(max((value - low) / (high - low), 0.0), 1.0)
    return at * at * (3.0 - 2.0 * at)


class _LogTransmission(Pyramid):
    """The smooth part of log t."""

    def __init__(self, small: Tensor, samples: int) -> None:
        """Take ``samples`` along the long side of the frames ``(T, 3, h, w)``."""
        count, _, height, width = small.shape
        short = max(3, round(samples * min(height, width) / max(height, width)))
        few = max(2, count // 4)
        grid, wide, broad = ((short, samples), (5, 8), (3, 4))
        if width < height:
            grid, wide, broad = grid[::-1], wide[::-1], broad[::-1]
        still = [(1, *grid), (1, *wide), (1, 1, 1)]
        super().__init__([(count, *grid), (few, *wide), (few, *broad), (count, 2, 2), *still], small.device)
        self.parts[-1].fill_(math.log(0.5))


class _Airlight:
    """A colour every few frames, kept within 0..1."""

    def __init__(self, start: Tensor, count: int) -> None:
        knots = 1 + count // FRAMES_AN_AIRLIGHT
        self.parameter = torch.logit(start).expand(knots, 3).clone()

    def values(self) -> Tensor:
        return torch.sigmoid(self.parameter)

    def __call__(self, when: Tensor) -> Tensor:
        """The colour ``(N, 3)`` at times ``(N,)`` in -1..1."""
        values = self.values()
        place = (when + 1.0) * (0.5 * (len(values) - 1))
        before = place.long().clamp(0, max(len(values) - 2, 0))
        after = (before + 1).clamp(max=len(values) - 1)
        # index_select, as the gradient of plain indexing is added up in any order
        earlier, later = (values.index_select(0, knot) for knot in (before, after))
        return torch.lerp(earlier, later, (place - before)[:, None])
