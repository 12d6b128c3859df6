"""Changes of colour fitted to followed points, window by window."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...models.colour import EPSILON, heights, logs, sliced
from ...image.resize import resize
from ...optim.progress import Progress
from .basis import LEVELS, Basis, hats
from .config import DeflickerConfig
from .partners import Partners
from .trend import Steps, find_steps, kept_of

__all__ = ["Fit", "fit"]

AT_ONCE = 16  # frames whose functions are held at a time
ALIKE = 20.0
"""Pixels that err together: neighbours are wrong in the same way."""
FIRST = {"curve": 0.3, "cells": 0.1, "places": 0.2, "rows": 0.2, "saturation": 0.05}
"""Deviation of parameters, to begin with."""
LEAST = 1e-4  # deviation of parameters of a group that a clip does not have
WITHIN = 0.01, 0.98
"""Values beyond these have lost what was there."""


FREE = 2  # sweeps before deviations are learnt


class Fit(NamedTuple):
    """What was found in a window."""

    parameters: Tensor
    """``(T, 3, P)``: the whole change to one appearance."""
    kept: Tensor
    """The same: what of it stays, as it is real."""
    deviations: dict[str, float]
    steps: Steps
    error: float


def fit(small: Tensor, partners: Partners, basis: Basis, config: DeflickerConfig, rate: float, progress: Progress) -> Fit:
    count, device = len(small), small.device
    own = logs(small)
    valid = _valid(small)
    parameters = torch.zeros(count, 3, basis.count, device=device)
    kept = parameters.clone()
    deviations = dict(FIRST)
    steps = Steps((), ())
    scale = 0.05
    precision = torch.ones(basis.count, dtype=torch.double, device=device)
    for number in range(config.sweeps):
        for name, span in basis.groups.items():
            precision[span] = deviations[name] ** -2
        corrected = own + _change(basis, parameters, small)
        stretch = _stretch(basis, parameters, own)
        weight, levels, chroma, scale = _residuals(basis, own, corrected, stretch, valid, partners, scale, 0.5 if number >= FREE else 0.0)
        share = basis.read(corrected.exp().square()) / (ALIKE * scale**2)
        factors = _factors(basis, small, weight * share, precision)
        right = basis.products(levels * share[:, :, None], chroma * share) - precision.float() * (parameters - kept)
        parameters = parameters + torch.cholesky_solve(right[..., None], factors)[..., 0]
        parameters = parameters - parameters.mean(dim=0)
        progress(number + 1, config.sweeps, None)
        steps = find_steps(_series(basis, parameters), config.keep * rate)
        kept = kept_of(parameters, basis.groups, config.keep * rate, steps)
        if number < FREE:
            continue
        spread = _spread(factors)
        flicker = parameters - kept
        for name, span in basis.groups.items():
            energy = flicker[..., span].double().square().sum()
            known = (1.0 - spread[..., span] * precision[span]).clamp(0.0, 1.0).sum()
            deviations[name] = max(float((energy / known.clamp_min(1e-6)).sqrt()), LEAST) if energy > 0 else LEAST
        print(number, round(scale,4), {n: round(float(parameters[..., s].abs().max()),3) for n, s in basis.groups.items()}, {n: round(v, 4) for n, v in deviations.items()}, steps)
    return Fit(parameters, kept, deviations, steps, scale)


def _valid(frames: Tensor) -> Tensor:
    low, high = WITHIN
    inside = ((frames - 0.0) / low).clamp(0.0, 1.0) * ((1.0 - frames) / (1.0 - high)).clamp(0.0, 1.0)
    return inside


def _change(basis: Basis, parameters: Tensor, frames: Tensor) -> Tensor:
    return sliced(**basis.knots(parameters), frames=frames)


def _series(basis: Basis, parameters: Tensor) -> Tensor:
    """Log gains over time, ``(T, D)``, in a few places, of dark and of bright."""
    grid = basis.knots(parameters)["grid"].flatten(0, 1)
    return resize(grid, (3, 4), mode="area")[:, 2::3].reshape(len(parameters), -1)


def _stretch(basis: Basis, parameters: Tensor, own: Tensor) -> Tensor:
    """How much further apart values come to lie, as logs, at the pixels that are read."""
    knots = basis.knots(parameters)
    saturation = knots.pop("saturation")
    above, below = (
        sliced(**knots, saturation=torch.zeros_like(saturation), frames=(own + reach).exp_().sub_(EPSILON))
        for reach in (0.15, -0.15)
    )
    slope = basis.read(above - below) / 0.3 + (2.0 / 3.0) * saturation[..., None]
    return (1.0 + slope).clamp_(0.5, 2.0)


def _residuals(basis, own, corrected, stretch, valid, partners, scale, half):
    """Sums over partners: weights (n,1,N), residual times level functions (n,3,K,N), residual times chroma (n,3,N)."""
    count = len(own)
    both = torch.cat((corrected, valid.amin(dim=1, keepdim=True)), dim=1)
    ours_read = basis.read(both)
    own_read = basis.read(own)
    size = own_read.shape[-1]
    weight = own.new_zeros(count, 1, size)
    levels = own.new_zeros(count, 3, LEVELS, size)
    chroma = own.new_zeros(count, 3, size)
    sizes = []
    for ours, theirs, seen in partners.of(both):
        theirs, seen, mine = basis.read(theirs), basis.read(seen), ours_read[ours]
        apart = theirs[:, :3] - mine[:, :3]
        error = (theirs[:, :3].exp() - mine[:, :3].exp()).square().mean(dim=1, keepdim=True)
        share = seen * theirs[:, 3:] * mine[:, 3:]
        sizes.append(error.sqrt()[share > 0.5][::3])
        share = share / (1.0 + error / (2.0 * scale) ** 2)
        level = (share * apart).sum(dim=-1, keepdim=True) / share.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        middle = own_read[ours] + half * (apart - level) / stretch[ours]
        at = heights(middle.exp() - EPSILON, LEVELS)
        weighted = share * apart
        levels[ours] += weighted[:, :, None] * hats(at, LEVELS).movedim(-1, 2)
        chroma[ours] += weighted * (own_read[ours] - own_read[ours].mean(dim=1, keepdim=True))
        weight[ours] += share
    found = torch.cat(sizes)
    return weight, levels, chroma, max(1.48 * float(found.median()) if len(found) else scale, 0.004)


def _parts(count: int):
    return (slice(first, first + AT_ONCE) for first in range(0, count, AT_ONCE))


def _factors(basis: Basis, small: Tensor, weights: Tensor, precision: Tensor) -> Tensor:
    made = []
    for part in _parts(len(small)):
        functions = basis.functions(basis.read(small[part]))
        weighted = functions * weights[part][..., None]
        matrix = (weighted.transpose(-1, -2) @ functions).double() + torch.diag(precision)
        made.append(torch.linalg.cholesky(matrix).float())
    return torch.cat(made)


def _spread(factors: Tensor) -> Tensor:
    return torch.cat(
        [torch.cholesky_inverse(factors[part].double()).diagonal(dim1=-2, dim2=-1) for part in _parts(len(factors))]
    )
