"""Work on the host's device, which goes on elsewhere where memory runs out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic

from .comfy import OnStep, T, comfy_module, ignore_step, say, warned
from .devices import device, is_out_of_memory, let_go, make_room
from .reporting import fitting, interruptible, progress, shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...vdp_core.store.guard import Walk

__all__ = ["Computed", "compute"]

_log = logging.getLogger(__name__)


SHOWN_AFTER = 2.0  # seconds that frames of a long clip are made before that is shown: mostly a few are looked at


@dataclass(frozen=True)
class Computed(Generic[T]):
    """What ``compute`` gives."""

    result: T
    device: torch.device
    """Where it was computed in the end."""
    seconds: float
    warning: str = ""
    """What went otherwise than asked for, else empty."""
    is_later: bool = False
    """Whether frames of a long clip are yet to be made, by the nodes that look at them."""

    def with_warning(self, text: str, *others: str) -> str:
        """A status line: the warning and others, the text, time and device."""
        when = "made when they are needed" if self.is_later else f"{self.seconds:.1f} s"
        return warned(f"{text}, {when} on {self.device}", self.warning, *others)


class _Places:
    """Where work is tried: on the host's device, there again without the host's models, and on the CPU."""

    def __init__(self, label: str, cure: str) -> None:
        import torch

        self.place = self._first = device()
        self._label, self._cure = label, cure
        # a second try on the same device makes sense only where there is something that can be unloaded
        self._others = [self.place] if comfy_module("comfy.model_management") else []
        self._others.append(torch.device("cpu"))

    def can_take_over(self, error: RuntimeError) -> bool:
        """Whether the work may go on in another place after this error."""
        return self.place.type != "cpu" and is_out_of_memory(error)

    def move_on(self) -> None:
        """Go to the next place. Not inside an ``except``: what the error's traceback holds must be gone."""
        let_go()
        _log.warning("%s ran out of memory on %s; trying again", self._label, self.place)
        self.place = self._others.pop(0)

    @property
    def warning(self) -> str:
        if self.place == self._first:
            return ""
        return (
            f"{self._label} ran out of memory on {self._first}, so it ran on the CPU; {self._cure} to stay on the GPU"
        )


class _Later:
    """Guards the frames of a long clip, which other nodes have made, after the one that computes them has answered.

    There too room is made, a full GPU gives way to the CPU, a person can cancel, and progress is shown.
    """

    def __init__(
        self, label: str, work: Callable[[torch.device, OnStep], object], places: _Places, memory: int
    ) -> None:
        self._label, self._work, self._places, self._memory = label, work, places, memory
        self.walks: list[Walk] = []

    def __call__(self, walk: Walk, count: int) -> Walk:
        """See ``Guard``."""
        self.walks.append(walk)
        return partial(self._frames, len(self.walks) - 1, count)

    def _frames(self, number: int, count: int, start: int) -> Iterator[Tensor]:
        """The frames of one of the walks from ``start`` on, wherever there is memory for them."""
        index, seconds = start, 0.0
        on_step: OnStep = ignore_step
        make_room(self._places.place, self._memory)
        walk = self.walks[number]
        runs = walk(index)
        with ExitStack() as bar:
            while index < count:
                began = time.perf_counter()
                try:
                    with interruptible():
                        run = next(runs, None)
                except RuntimeError as error:
                    if self.walks[number] is walk and not self._places.can_take_over(error):
                        raise
                else:
                    if run is None:
                        return
                    seconds += time.perf_counter() - began
                    if seconds >= SHOWN_AFTER and on_step is ignore_step:
                        on_step = bar.enter_context(shown(count, self._label))
                    index += len(run)
                    on_step(index, count, None)
                    if index == count:  # not after the loop: nobody asks for a frame past the last
                        bar.close()
                        if start == 0:
                            say(f"{self._label}: {count} frames made, {seconds:.1f} s on {self._places.place}")
                    yield run
                    del run  # it may be large, and the next is about to be made
                    continue
                if self.walks[number] is walk:  # no other walk has moved on meanwhile
                    self._move_on()
                walk = self.walks[number]
                runs = walk(index)

    def _move_on(self) -> None:
        """Have the frames that are still to be made come from the next place."""
        from ...vdp_core.store.guard import guarding

        self._places.move_on()
        if self._places.warning:
            say(f"warning: {self._places.warning}")
        again: list[Walk] = []

        def collect(walk: Walk, count: int) -> Walk:
            again.append(walk)
            return walk

        with guarding(collect):
            self._work(self._places.place, ignore_step)
        self.walks[:] = again


def compute(
    label: str,
    total: int,
    work: Callable[[torch.device, OnStep], T],
    *,
    memory: int,
    gradients: bool = False,
    previews: bool = True,
    cure: str = "use smaller frames or fewer",
) -> Computed[T]:
    """Run ``work(device, on_step)`` on the host's device, with room made for it.

    Out of memory on a GPU, the host's models are unloaded and the work is done again; if that is not enough, once more
    on the CPU, with a warning. What ``work`` allocated is let go in between. The same holds for frames of a long clip
    that ``work`` leaves to be made when they are needed: those that the GPU has no room for are made on the CPU.

    Args:
        label: what to call the work.
        total: how many steps it has, if they can be told beforehand.
        work: may run more than once, and again later.
        memory: about how many bytes of the GPU's it needs; the host unloads other models to make room.
        gradients: whether the work needs them, see ``fitting``.
        previews: whether to show the pictures it gives on the way.
        cure: what a person can do so that the GPU has memory enough.
    """
    from ...vdp_core.store.guard import guarding

    started = time.perf_counter()
    places = _Places(label, cure)
    make_room(places.place, memory)
    bar = fitting if gradients else partial(progress, previews=previews)
    while True:
        later = _Later(label, work, places, memory)
        try:
            with bar(total, label) as on_step, guarding(later):
                result = work(places.place, on_step)
            break
        except RuntimeError as error:
            if not places.can_take_over(error):
                raise
        places.move_on()
    seconds = time.perf_counter() - started
    return Computed(result, places.place, seconds, places.warning, is_later=bool(later.walks))
