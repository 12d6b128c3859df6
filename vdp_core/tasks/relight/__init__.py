"""The task relight: light that drifts or is missing."""

from __future__ import annotations

from ..base import Preset, Published, Task, later
from ..inputs import REFERENCE, REFERENCE_FRAME
from .config import PRESETS

__all__ = ["TASK"]

TASK = Task(
    name="relight",
    model="relight",
    says="light that drifts or is missing, for Relight",
    aliases=("relight", "low light", "dark", "brighten", "darken", "relighting"),
    inputs=(REFERENCE, REFERENCE_FRAME),
    presets={name: Preset(config) for name, config in PRESETS.items()}
    | {"paper": Preset(Published(), later(__package__, ".task:find_as_published"), without=(REFERENCE,))},
    prepare=later(__package__, ".task:prepare"),
    find=later(__package__, ".task:find"),
    join=later(__package__, ".task:join"),
)
