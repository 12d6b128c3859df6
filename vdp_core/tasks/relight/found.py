"""The result of finding the light, the same for each preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ...optim.fit import Fitted

__all__ = ["Light"]


class Light(NamedTuple):
    """The light of a clip, as one of the presets found it."""

    log_gain: Tensor
    """log A, ``(T, 1, h, w)``, on the CPU."""
    gamma: float
    colour: tuple[float, float, float]
    """Log gain of red, green and blue for the whole clip."""
    fitted: Fitted
    notes: Mapping[str, str]
    """Further information for a person."""
