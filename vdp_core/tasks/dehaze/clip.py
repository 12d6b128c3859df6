"""Measurements of a hazy clip, and the haze that is fitted to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...denoise.noise import Noise
from ...image.borders import scene_area
from ...image.resize import resize
from ...models.haze import MIN_TRANSMISSION
from ...optim.fit import Fitted, fit
from ...optim.grids import Pyramid, frame_sizes, read_grid, resized, smaller, within
from ...optim.losses import charbonnier, log_sum, smoothness
from ...store.journal import NO_JOURNAL, Journal
from ...types import Flow, OnStep
from .config import DehazeConfig
from .priors import block_extremes, evidence_of_haze, followed_colours, initial_airlight, transmission_bounds

__all__ = ["HazyClip"]

LEAST_CHANGE = 0.004  # of colours, about a level of 8 bits: less than it says nothing
FULL_GRID = 50  # of log t along the long side, at least: fine enough to follow the edges of the picture
CELL_WEIGHT = 0.5  # one over the number of cells of a block that hold its darkest values
OBJECT_SCALE, STEP_SCALE = 0.05, 0.02  # of log t: what counts as an object, and as a step at its outline
LARGE_OBJECT, LARGE_STEP = 0.2, 0.1  # of log t, from which on more of it costs less and less
EDGE_SCALE = 0.05  # difference of neighbouring colours that speaks for an edge in depth
FRAMES_AN_AIRLIGHT = 24  # of the airlight in time


class HazyClip:
    """The measurements of a clip, and the haze that is fitted to them."""

    def __init__(
        self,
        small: Tensor,
        flow: Flow,
        config: DehazeConfig,
        noise: Noise,
        seed: int,
        *,
        expected: Tensor | None = None,
    ) -> None:
        """Take the working copy ``(T, 3, h, w)``, and the noise it has; of a part of a shot, also the airlight that all
        of it expects."""
        self._small, self._config = small, config
        self._generator = torch.Generator(small.device).manual_seed(seed)
        height, width = small.shape[2:]
        cell = max(1, max(height, width) // FULL_GRID)
        self._size = (len(small), max(2, height // cell), max(2, width // cell))
        # places lie in the field of log t from here on: the smooth part's outer knots are at its outer samples
        area = scene_area(small)
        points = followed_colours(small, flow, seed=seed, area=area)
        first, second = (within(places, self._size) for places in (points.first, points.second))
        self.points = replace(points, first=first, second=second)
        self._blocks, self._cells = (
            replace(blocks, places=within(blocks.places, self._size))
            for blocks in (
                block_extremes(small, noise, area=area),
                block_extremes(small, noise, block=cell, area=area),
            )
        )
        self.blocks = len(self._blocks.low)
        count, few = len(small), max(2, len(small) // 4)
        fine, middle, coarse = frame_sizes(small, config.grid)
        moving = [(count, *fine), (few, *middle), (few, *coarse), (count, 2, 2)]
        still = [(1, *fine), (1, *middle), (1, 1, 1)]
        self._smooth = Pyramid([*moving, *still], small.device, level=math.log(0.5))
        self._objects = Pyramid([self._size, *(smaller(self._size, by) for by in (2, 5))], small.device)
        self._expected = (initial_airlight(self._blocks) if expected is None else expected).clamp(0.02, 0.98)
        self.airlight_curve = _AirlightCurve(self._expected, len(small))
        # how far neighbours may be expected to lie at one depth: less, the more their colours differ
        colours = resize(small, (self._size[1], self._size[2]), mode="area")
        self._edge_weights = [torch.exp(-colours.diff(dim=dim).square().sum(dim=1) / EDGE_SCALE**2) for dim in (2, 3)]

    def smooth(self) -> Tensor:
        """The smooth part of log t, ``(T, h, w)``."""
        return resized(self._smooth(), self._size)

    def log_t(self) -> Tensor:
        """Log t with the objects, ``(T, h, w)``."""
        return self.smooth() + self._objects()

    @torch.no_grad()
    def airlight(self) -> Tensor:
        """L of every frame, ``(T, 3, 1, 1)``."""
        return self.airlight_curve(torch.linspace(-1.0, 1.0, len(self._small), device=self._small.device))[
            :, :, None, None
        ]

    def fit_smooth(self, steps: int, on_step: OnStep | None = None, journal: Journal = NO_JOURNAL) -> Fitted:
        """Fit the smooth part and the airlight."""
        config, blocks = self._config, self._blocks

        def step(_: int) -> dict[str, Tensor]:
            grid, knots = self._smooth(), self.airlight_curve.values()
            log_t = read_grid(grid, blocks.places)
            # The airlight is left to the followed points: blocks would make it brighter, and all of the clip clearer.
            dark, bright = transmission_bounds(blocks, self.airlight_curve(blocks.places[:, 2]).detach())
            residual = log_t - dark
            quantile_loss = torch.where(residual > 0.0, config.quantile * residual, (config.quantile - 1.0) * residual)
            return {
                **self._common(grid, log_t, bright),
                "dark_channel": config.dark_channel * quantile_loss.mean(),
                "airlight_smoothness": config.airlight_smoothness * knots.diff(dim=0).square().sum(),
                "airlight_prior": config.airlight_prior * (knots - self._expected).square().mean(),
                "correspondence": config.correspondence * self._correspondence_loss(grid, self._some()).mean(),
            }

        parameters = [*self._smooth.parts, self.airlight_curve.parameter]
        return self._fit(step, parameters, config.learning_rate, steps, on_step, journal.part("smooth"))

    def fit_objects(self, steps: int, on_step: OnStep | None = None, journal: Journal = NO_JOURNAL) -> Fitted:
        """Fit the smooth part again, together with objects: regions with sharp outlines and less haze, or more."""
        config, blocks, cells = self._config, self._blocks, self._cells
        dark, bright = transmission_bounds(blocks, self.airlight_curve(blocks.places[:, 2]).detach())
        dark_cell, _ = transmission_bounds(cells, self.airlight_curve(cells.places[:, 2]).detach())
        cell_weight = CELL_WEIGHT / len(dark)

        def step(_: int) -> dict[str, Tensor]:
            grid, objects = self._smooth(), self._objects()
            total = resized(grid, self._size) + objects
            log_t, log_t_cell = read_grid(total, blocks.places), read_grid(total, cells.places)
            # Bounds lift objects out of the smooth haze; the smooth haze alone is drawn down to the bounds below it.
            above = F.relu(read_grid(grid, blocks.places) - dark).mean()
            below = F.relu(dark_cell - log_t_cell).sum() * cell_weight
            quantile_loss = config.quantile * above + (1.0 - config.quantile) * below
            steps_down, steps_right = (
                edge_weight * log_sum(charbonnier(objects.diff(dim=dim), STEP_SCALE), LARGE_STEP)
                for edge_weight, dim in zip(self._edge_weights, (1, 2), strict=True)
            )
            return {
                **self._common(grid, log_t, bright),
                "dark_channel": config.dark_channel * quantile_loss,
                "sparsity": config.sparsity * log_sum(charbonnier(objects, OBJECT_SCALE), LARGE_OBJECT).mean(),
                "edge_aware_smoothness": config.edge_aware_smoothness * (steps_down.mean() + steps_right.mean()),
                "correspondence": config.correspondence * self._correspondence_loss(total, self._some()).mean(),
            }

        parameters = [*self._smooth.parts, *self._objects.parts]
        return self._fit(step, parameters, config.objects_learning_rate, steps, on_step, journal.part("objects"))

    def explained_variance(self) -> float:
        """Share of the change of followed colours that the smooth haze and the airlight explain."""
        if len(self.points) == 0:
            return 0.0
        chosen = torch.arange(0, len(self.points), max(1, len(self.points) // 100_000), device=self._small.device)
        with torch.no_grad():
            change = self.points.after[chosen] - self.points.before[chosen]
            before_fit = charbonnier(change, self._config.robust_scale).mean()
            after_fit = self._correspondence_loss(self._smooth().clamp(max=0.0), chosen).mean()
            return float((before_fit - after_fit) / (before_fit + LEAST_CHANGE))

    def evidence(self) -> tuple[float, float, float]:
        """What tells the haze from a clear scene that is bright: see ``priors.evidence_of_haze``."""
        return evidence_of_haze(self._blocks, self.airlight().mean(dim=0).flatten())

    def _common(self, grid: Tensor, log_t: Tensor, bright: Tensor) -> dict[str, Tensor]:
        """The terms of both fits."""
        config = self._config
        beyond = F.relu(bright - log_t) + F.relu(log_t)
        return {
            "smoothness": config.smoothness * torch.stack([smoothness(grid, dim).mean() for dim in range(3)]).sum(),
            "range": (1.0 - config.quantile) * beyond.mean(),
        }

    def _some(self) -> Tensor:
        """Some of the followed points."""
        count = len(self.points)
        size = (min(self._config.points, count),)
        return torch.randint(max(count, 1), size, generator=self._generator, device=self._small.device)

    def _correspondence_loss(self, log_t: Tensor, chosen: Tensor) -> Tensor:
        """Charbonnier loss of the residuals of correspondences, ``(N, 3)``; a zero where there are none."""
        if len(chosen) == 0:
            return log_t.new_zeros(1, 3)
        first, second = self.points.first[chosen], self.points.second[chosen]
        thinner = torch.exp(read_grid(log_t, second) - read_grid(log_t, first))[:, None]
        wanted = self.airlight_curve(second[:, 2]) + thinner * (
            self.points.before[chosen] - self.airlight_curve(first[:, 2])
        )
        return charbonnier(self.points.after[chosen] - wanted, self._config.robust_scale)

    def _fit(
        self,
        step: Callable[[int], Mapping[str, Tensor]],
        parameters: list[Tensor],
        learning_rate: float,
        steps: int,
        on_step: OnStep | None,
        journal: Journal,
    ) -> Fitted:
        for parameter in (*self._smooth.parts, *self._objects.parts, self.airlight_curve.parameter):
            parameter.requires_grad_(any(parameter is one for one in parameters))
        return fit(
            step,
            parameters,
            steps=steps,
            learning_rate=learning_rate,
            preview=self._preview,
            on_step=on_step,
            journal=journal,
            generators=[self._generator],
        )

    @torch.no_grad()
    def _preview(self) -> Tensor:
        """The middle frame without haze, ``(h, w, 3)``."""
        count, _, height, width = self._small.shape
        middle = slice(count // 2, count // 2 + 1)
        t = resize(self.log_t()[middle, None], (height, width)).exp().clamp_min(MIN_TRANSMISSION)
        airlight = self.airlight()[middle]
        return ((self._small[middle] - airlight) / t + airlight)[0].movedim(0, -1).clamp(0.0, 1.0)


class _AirlightCurve:
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
