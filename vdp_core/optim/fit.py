"""The one optimisation loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ..errors import FitError, InputError
from ..store.journal import NO_JOURNAL, Journal
from ..types import OnStep

__all__ = ["Fitted", "fit"]

Terms = Mapping[str, Tensor]
_log = logging.getLogger(__name__)
PLATEAU_STEPS = 40  # steps whose mean loss is compared with that of the steps before them
READ_EVERY = 10  # steps between two looks at the loss
SAVE_EVERY = 20.0  # seconds between two entries in the journal
SAVE_SHARE = 0.01  # of the time that these may take


@dataclass(frozen=True)
class Fitted:
    """How an optimisation went."""

    steps: int
    seconds: float
    terms: Mapping[str, float]
    """The weighted loss terms of the last step."""
    stopped: str
    """``plateau``, or ``steps`` when they were used up."""

    def info(self, *, preset: str, flow: str, seconds: float) -> dict[str, str]:
        """What layers say about how they were found: with which preset and method of flow, in how long in all."""
        return {
            "preset": preset,
            "steps": str(self.steps),
            "stopped": self.stopped,
            "seconds": f"{seconds:.1f}",
            "flow": flow,
            **{f"loss_{name}": f"{value:.5g}" for name, value in self.terms.items()},
        }


def fit(
    step: Callable[[int], Terms],
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
    *,
    steps: int,
    learning_rate: float,
    schedule: Callable[[float], float] | None = None,
    plateau: float = 1e-3,
    clip: float = 0.0,
    ema: float = 0.0,
    preview: Callable[[], Tensor] | None = None,
    on_step: OnStep | None = None,
    journal: Journal = NO_JOURNAL,
    generators: Sequence[Generator] = (),
    buffers: Iterable[Tensor] = (),
) -> Fitted:
    """Minimise the sum of the terms with Adam (Kingma and Ba, 2015).

    Stops early once the loss is on a plateau: over the last 40 steps its mean fell by less than ``plateau`` of that of
    the 40 before. Nothing but the loss is looked at, so no ground truth is needed. It is read every tenth step only,
    as a GPU would stand still while it is read; so a fit goes on for up to nine steps after it has come to a plateau.

    With a journal, work that was cut off goes on from what was last kept, and ends (on a CPU, to the bit) as if it had
    not been. The end itself is not kept here: the caller keeps what it makes of it.

    Args:
        step: gives the weighted terms, each a scalar, of step ``i``.
        parameters: what is optimised; leaf tensors that require gradients, or groups of them as ``torch.optim`` takes
            them, ``{"params": [...], "lr": 0.01}``.
        steps: the most steps.
        learning_rate: Adam's, before the schedule, of parameters whose group has no ``lr``.
        schedule: factor on the rates at a progress from 0 to 1; None lets them fall evenly to a fiftieth.
        plateau: relative fall of the loss below which to stop; 0 never stops early.
        clip: greatest norm of the gradient of all parameters, which is scaled down to it; 0 leaves it.
        ema: decay of an exponential moving average over the steps (Polyak and Juditsky, 1992), which the parameters
            are set to at the end; 0 takes them as the last step left them. The first ``1 / (1 - ema)`` steps count
            alike, so that the start has no more weight than any other.
        preview: gives a picture of the present state.
        on_step: told after every step; stops the work by raising.
        journal: of this fit alone; written about every 20 seconds, under the name ``fit``.
        generators: which ``step`` draws from.
        buffers: what else ``step`` changes in place, such as running statistics.

    Raises:
        InputError: fewer than one step.
        FitError: the loss is no longer finite, which is seen at most ten steps later.
    """
    if steps < 1:
        raise InputError(f"steps: at least 1 needed, got {steps}")
    schedule = schedule or _evenly_down
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    rates = [group["lr"] for group in optimiser.param_groups]
    moved: list[Tensor] = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    averages = [parameter.detach().clone() for parameter in moved] if ema > 0.0 else []
    keeper = _Keeper(journal, steps, moved, optimiser, generators, [*averages, *buffers])
    losses, before = keeper.restored()
    unread: list[Tensor] = []  # losses that are still on the device only
    stopped = "steps"
    started = time.perf_counter()
    for index in range(len(losses), steps):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(index / steps)
        terms = step(index)
        total = torch.stack(tuple(terms.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        if clip > 0.0:
            nn.utils.clip_grad_norm_(moved, clip)
        optimiser.step()
        if ema > 0.0:
            for average, parameter in zip(averages, moved, strict=True):
                average.lerp_(parameter.detach(), max(1.0 - ema, 1.0 / (index + 1)))
        unread.append(total.detach())
        done = index + 1
        if done % READ_EVERY == 0:
            losses += _read(unread, done)
            if plateau > 0.0 and any(_on_plateau(losses[: done - later], plateau) for later in range(READ_EVERY)):
                stopped = "plateau"
        if on_step is not None:
            on_step(steps if stopped == "plateau" else done, steps, preview)
        if stopped == "plateau":
            break
        if done < steps and keeper.is_due():
            losses += _read(unread, done)
            keeper.keep(losses, before + time.perf_counter() - started)
    losses += _read(unread, steps)
    values = {name: float(term.detach()) for name, term in terms.items()}
    if ema > 0.0:
        with torch.no_grad():
            for average, parameter in zip(averages, moved, strict=True):
                parameter.copy_(average)
    return Fitted(len(losses), before + time.perf_counter() - started, values, stopped)


def _read(unread: list[Tensor], done: int) -> list[float]:
    """Take the losses of the last of ``done`` steps from the device, which waits for it.

    Raises:
        FitError: one of them is not finite.
    """
    losses: list[float] = torch.stack(unread).tolist() if unread else []
    unread.clear()
    for step, loss in enumerate(losses, done - len(losses) + 1):
        if not math.isfinite(loss):
            raise FitError(f"the optimisation diverged at step {step}; try another seed or preset")
    return losses


def _evenly_down(progress: float) -> float:
    return 1.0 - 0.98 * progress


def _on_plateau(losses: list[float], least_fall: float) -> bool:
    if len(losses) < 2 * PLATEAU_STEPS:
        return False
    before = sum(losses[-2 * PLATEAU_STEPS : -PLATEAU_STEPS]) / PLATEAU_STEPS
    now = sum(losses[-PLATEAU_STEPS:]) / PLATEAU_STEPS
    return before - now < least_fall * abs(before)


class _Keeper:
    """Keeps the state of a fit in a journal, and brings it back."""

    def __init__(
        self,
        journal: Journal,
        steps: int,
        parameters: Sequence[Tensor],
        optimiser: torch.optim.Adam,
        generators: Sequence[Generator],
        buffers: Sequence[Tensor],
    ) -> None:
        self._journal, self._optimiser, self._generators = journal, optimiser, generators
        self._parameters = parameters
        self._places = {f"parameter.{index}": parameter for index, parameter in enumerate(parameters)}
        self._places |= {f"buffer.{index}": buffer for index, buffer in enumerate(buffers)}
        shapes = {name: [str(place.dtype), *place.shape] for name, place in self._places.items()}
        # a generator's state is of one kind of device: work that falls back to the CPU begins anew
        self._kind = [steps, shapes, [generator.device.type for generator in generators]]
        self._due = time.monotonic() + SAVE_EVERY

    def is_due(self) -> bool:
        """Whether the last time is long enough ago."""
        return self._journal.folder is not None and time.monotonic() >= self._due

    def keep(self, losses: list[float], seconds: float) -> None:
        """Write the state after the steps of these losses."""
        began = time.monotonic()
        tensors = {**self._places, "losses": torch.tensor(losses, dtype=torch.float64)}
        for index, generator in enumerate(self._generators):
            tensors[f"generator.{index}"] = generator.get_state()
        for index, parameter in enumerate(self._parameters):
            state = self._optimiser.state.get(parameter, {})
            tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
        self._journal.save("fit", tensors, {"kind": self._kind, "seconds": seconds})
        ended = time.monotonic()
        self._due = ended + max(SAVE_EVERY, (ended - began) / SAVE_SHARE)

    @torch.no_grad()
    def restored(self) -> tuple[list[float], float]:
        """Bring back what was kept: the losses up to there, and the seconds it had taken."""
        kept = self._journal.load("fit")
        if kept is None:
            return [], 0.0
        tensors, notes = kept
        if notes.get("kind") != self._kind:
            _log.warning("what %s keeps is of another fit and left aside", self._journal.folder)
            return [], 0.0
        for name, place in self._places.items():
            place.copy_(tensors[name])
        for index, generator in enumerate(self._generators):
            generator.set_state(tensors[f"generator.{index}"])
        for name, value in tensors.items():
            family, _, rest = name.partition(".")
            if family == "adam":
                number, _, what = rest.partition(".")
                parameter = self._parameters[int(number)]
                # Adam counts its steps on the CPU; its averages lie in memory as the parameter does, for equal bits
                own = value if what == "step" else torch.empty_like(parameter).copy_(value)
                self._optimiser.state[parameter][what] = own
        return tensors["losses"].tolist(), notes["seconds"]
