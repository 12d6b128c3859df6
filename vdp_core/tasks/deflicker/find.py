"""Changes of colour fitted to followed points.

All frames are fitted at once to those around them as they look by now, sweep after sweep: block Jacobi steps on the
energy of ``task.py``, in closed form for each frame and channel. How large the parameters of each group are is learnt
from the clip on the way (MacKay, "Bayesian interpolation", Neural Computation 1992, eq. 4.9), so that what a clip does
not have is not looked for in its noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Set
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...image.resize import resize
from ...models.colour import EPSILON, heights, logs, sliced
from ...optim.progress import Progress
from .basis import LEVELS, Basis, hats
from .partners import Partners
from .trend import NO_STEPS, Steps, find_steps, kept_of

__all__ = ["Change", "Clip", "fit_change"]

AT_ONCE = 16  # frames whose functions are held at a time
ALIKE = 20.0
"""Pixels that err together: what is wrong with a point is wrong with those beside it."""
FIRST = {"curve": 0.3, "cells": 0.1, "places": 0.2, "rows": 0.2, "saturation": 0.05}
"""Deviation of the parameters of each group, before it is learnt."""
LEAST = 1e-4
"""Deviation of parameters of a group that a clip does not have."""
MOST = {"curve": 0.5, "cells": 0.25, "places": 0.3, "rows": 0.3, "saturation": 0.05}
"""The most that deviations become."""
FREE = 2
"""Sweeps before anything is learnt from residuals, which are of flicker to begin with."""
WIDEST = 0.1
"""Least residual, in value, that counts half in the first sweep; in the next it is half of that, and so on, so that
what is far apart is brought together before it is judged."""
SHARPEST = 0.004  # the same in the end, where a clip is free of noise
BLACK, WHITE = 0.01, 0.98
"""Values beyond these have lost what was there."""
HELD = 0.3
"""Part of what usually changes from frame to frame, below which a frame is the one before once more."""
REACH = 0.15  # in log gain, over which the slope of a change is taken


class Clip(NamedTuple):
    """Small copies of a window, and where their points are seen."""

    frames: Tensor
    """``(T, 3, h, w)`` in 0..1."""
    guide: Tensor | None
    """The steady original, the same, or None."""
    partners: Partners
    basis: Basis


class Change(NamedTuple):
    """The change that brings all frames to one appearance, as parameters ``(T, 3, P)``."""

    flicker: Tensor
    """The part that is flicker."""
    kept: Tensor
    """The part that is real."""
    steps: Steps
    error: float
    """Usual difference, in value, between points that should look alike by now."""
    held: float
    """Share of the frames that show the one before once more."""


class _Sums(NamedTuple):
    """Sums over the partners of the pixels that are read."""

    weight: Tensor
    """``(T, 1, N)``."""
    levels: Tensor
    """Residuals times the functions of value, ``(T, 3, LEVELS, N)``."""
    chroma: Tensor
    """Residuals times the distance from grey, ``(T, 3, N)``."""
    usual: float
    """Deviation of the residuals, in value."""


def fit_change(clip: Clip, sweeps: int, frames: float, groups: Set[str], stay: bool, on_step: Progress) -> Change:
    """Fit a window.

    Args:
        clip: the window.
        sweeps: how often every frame is fitted to those around it.
        frames: length from which on a change is real.
        groups: those of the basis that may be used.
        stay: whether a jump that happens once is real.
        on_step: told after every sweep.
    """
    basis, device = clip.basis, clip.frames.device
    own = logs(clip.frames)
    change = torch.zeros_like(own)
    parameters = torch.zeros(len(own), 3, basis.count, device=device)
    kept, steps, usual = parameters, NO_STEPS, 0.0
    deviations = {name: FIRST[name] if name in groups else LEAST for name in basis.groups}
    precision = torch.ones(basis.count, dtype=torch.double, device=device)
    for sweep in range(sweeps):
        for name, span in basis.groups.items():
            precision[span] = deviations[name] ** -2
        noisy = sweep >= FREE
        sums = _compared(
            clip, own, change, _stretch(basis, parameters, own) if noisy else None, max(usual, WIDEST * 0.5**sweep)
        )
        usual = sums.usual
        # in values, not in logs: a pixel weighs as what is seen of it
        light = basis.read((own + change).exp_().square_()) / (ALIKE * usual**2)
        factors = _factors(basis, clip.frames, sums.weight * light, precision)
        right = basis.products(sums.levels * light[:, :, None], sums.chroma * light)
        right -= precision.float() * (parameters - kept)
        parameters = parameters + torch.cholesky_solve(right[..., None], factors)[..., 0]
        parameters -= parameters.mean(dim=0)
        change = sliced(**basis.knots(parameters), frames=clip.frames)
        steps = find_steps(_series(basis, parameters), frames, stay=stay)
        kept = kept_of(parameters, basis.groups, frames, steps)
        if noisy:
            deviations = _learnt(basis, parameters - kept, factors, precision, groups)
        on_step(sweep + 1, sweeps, partial(_preview, own, change))
    moved = (own + change).diff(dim=0).abs().flatten(1).mean(dim=1)
    held = (moved < HELD * moved.quantile(0.8)).float().mean()
    return Change(parameters - kept, kept, steps, usual, float(held))


def _preview(own: Tensor, change: Tensor) -> Tensor:
    middle = len(own) // 2
    return ((own[middle] + change[middle]).exp() - EPSILON).clamp(0.0, 1.0).movedim(0, -1)


def _compared(clip: Clip, own: Tensor, change: Tensor, stretch: Tensor | None, scale: float) -> _Sums:
    """Compare frames with those around them.

    A residual is assigned to the value halfway between a pixel and its partner. At the pixel's own value, the noise of
    the two would make contrast look too high in every frame, the more the faster things move.

    Args:
        clip: the window.
        own: logs of its frames.
        change: of them, by now.
        stretch: how much further apart values lie for it, at the pixels that are read; None: take the own value.
        scale: residual, in value, whose weight is a half (of the Cauchy loss).
    """
    basis = clip.basis
    inside = (clip.frames / BLACK).clamp(0.0, 1.0) * ((1.0 - clip.frames) / (1.0 - WHITE)).clamp(0.0, 1.0)
    steady = own + change if clip.guide is None else own + change - logs(clip.guide)
    seen_as = torch.cat((steady, inside.amin(dim=1, keepdim=True)), dim=1)
    ours_as, values, lit = basis.read(seen_as), basis.read(own), basis.read(own + change)
    chroma_of_own = values - values.mean(dim=1, keepdim=True)
    weight, chroma = torch.zeros_like(values[:, :1]), torch.zeros_like(values)
    levels = values.new_zeros(len(own), 3, LEVELS, values.shape[-1])
    sizes: list[Tensor] = []
    for ours, theirs, seen in clip.partners.of(seen_as):
        theirs, mine = basis.read(theirs), ours_as[ours]
        apart = theirs[:, :3] - mine[:, :3]
        error = (lit[ours].exp() * apart.expm1()).square_().mean(dim=1, keepdim=True)
        share = basis.read(seen) * theirs[:, 3:] * mine[:, 3:]
        sizes.append(error[share > 0.5][::3])
        share = share / (1.0 + error / scale**2)
        place = values[ours]
        if stretch is not None:
            level = (share * apart).sum(dim=-1, keepdim=True) / share.sum(dim=-1, keepdim=True).clamp_min(1e-6)
            place = place + 0.5 * (apart - level) / stretch[ours]
        weighted = share * apart
        of_value = hats(heights(place.exp() - EPSILON, LEVELS), LEVELS)
        levels[ours] += weighted[:, :, None] * of_value.movedim(-1, 2)
        chroma[ours] += weighted * chroma_of_own[ours]
        weight[ours] += share
    found = torch.cat(sizes)
    usual = 1.48 * math.sqrt(float(found.median())) if len(found) else SHARPEST
    return _Sums(weight, levels, chroma, max(usual, SHARPEST))


def _stretch(basis: Basis, parameters: Tensor, own: Tensor) -> Tensor:
    """How much further apart a change brings logs of values, at the pixels that are read, ``(T, 3, N)``."""
    knots = basis.knots(parameters)
    saturation = knots["saturation"]
    knots["saturation"] = torch.zeros_like(saturation)
    above, below = (sliced(**knots, frames=(own + step).exp_().sub_(EPSILON)) for step in (REACH, -REACH))
    slope = basis.read(above - below) / (2.0 * REACH) + (2.0 / 3.0) * saturation[..., None]
    return (1.0 + slope).clamp_(0.5, 2.0)


def _stretches(count: int) -> Iterator[slice]:
    return (slice(first, first + AT_ONCE) for first in range(0, count, AT_ONCE))


def _factors(basis: Basis, frames: Tensor, weights: Tensor, precision: Tensor) -> Tensor:
    """Cholesky factors of the normal equations of each frame and channel, ``(T, 3, P, P)``."""
    made = []
    for part in _stretches(len(frames)):
        functions = basis.functions(basis.read(frames[part]))
        matrix = (functions * weights[part][..., None]).transpose(-1, -2) @ functions
        made.append(torch.linalg.cholesky(matrix.double() + torch.diag(precision)).float())
    return torch.cat(made)


def _learnt(basis: Basis, flicker: Tensor, factors: Tensor, precision: Tensor, groups: Set[str]) -> dict[str, float]:
    """The deviation of the parameters of each group: their energy over how many of them the clip determines."""
    spread = torch.cat(
        [torch.cholesky_inverse(factors[part].double()).diagonal(dim1=-2, dim2=-1) for part in _stretches(len(factors))]
    )
    known = (1.0 - spread * precision).clamp_(0.0, 1.0)
    learnt = {}
    for name, span in basis.groups.items():
        energy = float(flicker[..., span].double().square().sum())
        deviation = math.sqrt(energy / max(float(known[..., span].sum()), 1e-6))
        learnt[name] = min(max(deviation, LEAST), MOST[name]) if name in groups else LEAST
    return learnt


def _series(basis: Basis, parameters: Tensor) -> Tensor:
    """Log gains over time, ``(T, G, Q)``, of the channels' dark and bright, in Q places."""
    grid = basis.knots(parameters)["grid"].flatten(0, 1)
    return resize(grid, (3, 4), mode="area")[:, 2::3].reshape(len(parameters), -1, 12)
