"""The task dehaze: haze, fog or smoke and its colour."""

from __future__ import annotations

from ..base import Preset, Published, Task, later
from .config import PRESETS

__all__ = ["TASK"]

TASK = Task(
    name="dehaze",
    model="dehaze",
    says="haze, fog or smoke and its colour, for Dehaze",
    aliases=("dehaze", "haze", "fog", "smoke", "defog"),
    presets={name: Preset(config) for name, config in PRESETS.items()}
    | {"paper": Preset(Published(), later(__package__, ".task:find_as_published"))},
    find=later(__package__, ".task:find"),
)
