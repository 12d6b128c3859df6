"""The one optimisation loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import FitError, InputError
from .types import OnStep

__all__ = ["Fitted", "fit"]

Terms = Mapping[str, Tensor]

WINDOW = 40  # steps whose mean loss is compared with that of the steps before them


@dataclass(frozen=True)
class Fitted:
    """How an optimisation went."""

    steps: int
    seconds: float
    terms: Mapping[str, float]
    """The weighted loss terms of the last step."""
    stopped: str
    """``plateau``, or ``steps`` when they were used up."""


def fit(
    step: Callable[[int], Terms],
    parameters: Iterable[Tensor],
    *,
    steps: int,
    learning_rate: float,
    schedule: Callable[[float], float] | None = None,
    plateau: float = 1e-3,
    preview: Callable[[], Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Fitted:
    """Minimise the sum of the terms with Adam (Kingma and Ba, 2015).

    Stops early once the loss is on a plateau: over the last 40 steps its mean fell by less than ``plateau`` of that of
    the 40 before. Nothing but the loss is looked at, so no ground truth is needed.

    Args:
        step: gives the weighted terms, each a scalar, of step ``i``.
        parameters: what is optimised; leaf tensors that require gradients.
        steps: the most steps.
        learning_rate: Adam's, before the schedule.
        schedule: factor on the rate at a progress from 0 to 1; None lets it fall evenly to a fiftieth.
        plateau: relative fall of the loss below which to stop; 0 never stops early.
        preview: gives a picture of the present state.
        on_step: told after every step; stops the work by raising.

    Raises:
        InputError: fewer than one step.
        FitError: the loss is no longer finite.
    """
    if steps < 1:
        raise InputError(f"steps: at least 1 needed, got {steps}")
    schedule = schedule or _evenly_down
    optimiser = torch.optim.Adam(list(parameters), lr=learning_rate)
    losses: list[float] = []
    values: dict[str, float] = {}
    stopped = "steps"
    started = time.perf_counter()
    for index in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * schedule(index / steps)
        terms = step(index)
        total = torch.stack(tuple(terms.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
        if losses[-1] != losses[-1] or abs(losses[-1]) == float("inf"):
            raise FitError(f"the optimisation diverged at step {index + 1}; try another seed or preset")
        values = {name: float(term.detach()) for name, term in terms.items()}
        if on_step is not None:
            on_step(index + 1, steps, preview)
        if plateau > 0.0 and _on_plateau(losses, plateau):
            stopped = "plateau"
            break
    return Fitted(len(losses), time.perf_counter() - started, values, stopped)


def _evenly_down(progress: float) -> float:
    return 1.0 - 0.98 * progress


def _on_plateau(losses: list[float], least_fall: float) -> bool:
    if len(losses) < 2 * WINDOW:
        return False
    before = sum(losses[-2 * WINDOW : -WINDOW]) / WINDOW
    now = sum(losses[-WINDOW:]) / WINDOW
    return before - now < least_fall * abs(before)
