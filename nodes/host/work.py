"""Work on the host's device, which goes on elsewhere where memory runs out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic

from .comfy import OnStep, T, comfy_module
from .devices import device, is_out_of_memory, let_go, make_room
from .reporting import fitting, progress

if TYPE_CHECKING:
    import torch

__all__ = ["Computed", "compute"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Computed(Generic[T]):
    """What ``compute`` gives."""

    result: T
    device: torch.device
    """Where it was computed in the end."""
    seconds: float
    warning: str = ""
    """What went otherwise than asked for, else empty."""

    def told(self, text: str) -> str:
        """A status line: the warning, the text, time and device."""
        line = f"{text}, {self.seconds:.1f} s on {self.device}"
        return f"warning: {self.warning}; {line}" if self.warning else line


def compute(
    label: str,
    total: int,
    work: Callable[[torch.device, OnStep], T],
    *,
    memory: int,
    gradients: bool = False,
    previews: bool = True,
) -> Computed[T]:
    """Run ``work(device, on_step)`` on the host's device, with room made for it, and tidy up behind it.

    Out of memory on a GPU, the host's models are unloaded and the work is done again; if that is not enough, once more
    on the CPU, with a warning. What ``work`` allocated is let go in between.

    Args:
        label: what to call the work.
        total: how many steps it has, if they can be told beforehand.
        work: may run more than once.
        memory: about how many bytes of the GPU's it needs; the host unloads other models to make room.
        gradients: whether the work needs them, see ``fitting``.
        previews: whether to show the pictures it gives on the way.
    """
    import torch

    started = time.perf_counter()
    place, warning = device(), ""
    make_room(place, memory)
    # a second try on the same device makes sense only where there is something that can be unloaded
    places = [place, place] if comfy_module("comfy.model_management") else [place]
    if place.type != "cpu":
        places.append(torch.device("cpu"))
    shown = fitting if gradients else partial(progress, previews=previews)
    try:
        for tries, place in enumerate(places, 1):
            try:
                with shown(total, label) as on_step:
                    result = work(place, on_step)
                break
            except RuntimeError as error:
                if place.type == "cpu" or tries == len(places) or not is_out_of_memory(error):
                    raise
            # out here the error is gone, and with it what its traceback held
            let_go(place, unload=True)
            warning = f"{label} ran out of memory on {place}"
            _log.warning("%s; trying again", warning)
    finally:
        let_go(places[0])
    if place.type == "cpu" and warning:
        warning += ", so it ran on the CPU; use smaller frames or fewer to stay on the GPU"
    else:
        warning = ""
    return Computed(result, place, time.perf_counter() - started, warning)
