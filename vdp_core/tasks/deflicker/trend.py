"""What of a change of colour is real, such as a sunset or a lamp that is switched on, and what is flicker.

Real is what goes slowly, and what jumps once, in a part of the frame, and stays. Parameters of a clip are series over
time. Their part in a space of slow functions is kept as far as it is stronger than it would be if they were noise
(James and Stein, "Estimation with quadratic loss", 1961), so that of a clip that only flickers nothing is kept but the
mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["NO_STEPS", "Steps", "find_steps", "kept_of"]

LEVEL = 0.01
"""Deviation, in log gain, of changes that are found where there are none."""
FEWEST = 16
"""Frames of the shortest series in which jumps are looked for: with fewer, a line and jumps add up to anything."""
LARGE = 0.4
"""Part of the largest jump from which another one counts beside it."""
LOCAL = 0.15
"""Part of the energy of a jump that differs over the frame, from which it is one of the scene."""
DIMENSIONS = 4  # of the series in which jumps are looked for


class Steps(NamedTuple):
    """The frames before which a series jumps."""

    stay: tuple[int, ...]
    """Those that are real."""
    go: tuple[int, ...]


NO_STEPS = Steps((), ())


def _slow(count: int, frames: float, stay: tuple[int, ...] = (), device: torch.device | None = None) -> Tensor:
    """Orthonormal functions of time, ``(T, K)``, in double, the first constant.

    A line, waves of periods of at least so many ``frames``, and steps before the frames ``stay``.
    """
    time = torch.arange(count, dtype=torch.double, device=device)
    waves = min(int(2.0 * count / max(frames, 1.0)), count // 4)
    columns = [torch.ones_like(time), time - time.mean()]
    columns += [torch.cos(math.pi * number * (time + 0.5) / count) for number in range(1, waves + 1)]
    columns += [(time >= step).double() for step in stay]
    return _orthonormal(columns)


def _orthonormal(columns: list[Tensor]) -> Tensor:
    made: list[Tensor] = []
    for column in columns:
        size = column.norm()
        for other in (*made, *made):  # twice, against rounding
            column = column - other * (other @ column)
        if column.norm() > 1e-3 * size:
            made.append(column / column.norm())
    return torch.stack(made, dim=1)


def find_steps(series: Tensor, frames: float, *, stay: bool) -> Steps:
    """Find where a series ``(T, G, Q)`` of log gains in Q places jumps, if jumps explain what slow functions do not.

    Jumps are added one by one where they explain most, as long as the Bayesian information criterion (Schwarz, 1978)
    asks for more. A jump is real where it differs over the frame, as that of a lamp does and that of a camera's
    exposure does not, where no other is within so many ``frames``, and where jumps are not as far apart as each other,
    as the pieces are from which generated clips are made.
    """
    count = len(series)
    if count < FEWEST:
        return NO_STEPS
    centred = (series - series.mean(dim=0)).flatten(1).double()
    left, sizes, right = torch.linalg.svd(centred, full_matrices=False)
    most = left[:, :DIMENSIONS] * sizes[:DIMENSIONS] / math.sqrt(centred.shape[1])
    noise = LEVEL**2 * count

    def criterion(rest: Tensor, functions: int) -> float:
        fit = ((rest.square().sum(dim=0) + noise) / count).log().sum() * count
        return float(fit) + functions * most.shape[1] * math.log(count)

    def rest_of(functions: Tensor) -> Tensor:
        return most - functions @ (functions.T @ most)

    waves = _slow(count, frames, device=series.device)
    best = criterion(rest_of(waves), waves.shape[1])
    jumps = torch.tril(torch.ones(count, count, dtype=torch.double, device=series.device))[:, 2:-1]
    steps: list[int] = []
    found: list[int] = []
    functions = waves
    while len(steps) < min(count // 3, jumps.shape[1]):
        apart = jumps - functions @ (functions.T @ jumps)
        power = apart.square().sum(dim=0)
        gain = (apart.T @ rest_of(functions)).square().sum(dim=1) / power.clamp_min(1e-9)
        gain[power < 0.3] = 0.0
        place = int(gain.argmax())
        functions = torch.cat((functions, (apart[:, place] / power[place].sqrt())[:, None]), dim=1)
        steps.append(place + 2)
        # a jump has a place besides its height
        reached = criterion(rest_of(functions), functions.shape[1]) + len(steps) * 2.0 * math.log(count)
        if reached < best:
            best, found = reached, sorted(steps)
        elif len(steps) > len(found) + 3:
            break
    if not found:
        return NO_STEPS
    functions = torch.cat((waves, jumps[:, [step - 2 for step in found]]), dim=1)
    heights = torch.linalg.lstsq(functions, most).solution[waves.shape[1] :]
    over_frame = (heights @ right[: heights.shape[1]]).unflatten(1, series.shape[1:])
    local = over_frame.var(dim=2, correction=0).mean(dim=1) / over_frame.square().mean(dim=(1, 2)).clamp_min(1e-12)
    sizes = heights.norm(dim=1)
    large = [step for step, size in zip(found, sizes, strict=True) if size > LARGE * sizes.max()]
    real: tuple[int, ...] = ()
    if stay and not (_regular(found) or _regular(large)):
        edges = [-math.inf, *large, math.inf]
        near = [
            min(right - left for left, right in pairwise(edges[number : number + 3])) for number in range(len(large))
        ]
        real = tuple(
            step
            for step, distance in zip(large, near, strict=True)
            if distance >= frames and local[found.index(step)] > LOCAL
        )
    return Steps(real, tuple(step for step in found if step not in real))


def _regular(steps: list[int]) -> bool:
    """Whether two steps or more are all as far apart, the first no farther from the beginning."""
    lengths = [after - before for before, after in pairwise(steps)]
    if not lengths or max(lengths) - min(lengths) > 2:
        return False
    return abs(steps[0] - lengths[0]) <= 1 or (len(lengths) > 1 and steps[0] <= lengths[0] + 1)


def kept_of(parameters: Tensor, groups: Mapping[str, slice], frames: float, steps: Steps) -> Tensor:
    """What of parameters ``(T, C, P)`` is real, the same shape; its mean over time is theirs."""
    count = len(parameters)
    functions = _slow(count, frames, steps.stay, parameters.device)
    time = torch.arange(count, device=parameters.device)
    jumps = [(time >= step).double() for step in steps.go]
    line = _slow(count, math.inf, steps.stay, parameters.device)  # waves and jumps could stand in for each other
    kept = torch.empty_like(parameters)
    for span in groups.values():
        values = parameters[..., span].double().flatten(1)
        if jumps:
            own = torch.stack([jump - jump.mean() for jump in jumps], dim=1)
            heights = torch.linalg.lstsq(torch.cat((line, own), dim=1), values).solution[line.shape[1] :]
            values = values - own @ heights
        parts = functions.T @ values
        rest = values - functions @ parts
        level = rest.square().sum() / max(count - functions.shape[1] - len(jumps), 1)
        share = (1.0 - level / parts.square().sum(dim=1).clamp_min(1e-30)).clamp_min(0.0)
        share[0] = 1.0
        kept[..., span] = (functions @ (share[:, None] * parts)).to(kept).unflatten(1, kept[..., span].shape[1:])
    return kept
