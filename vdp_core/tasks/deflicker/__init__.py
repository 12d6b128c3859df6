"""The task deflicker: colour that changes from frame to frame."""

from __future__ import annotations

from ..base import Preset, Published, Task, later
from ..inputs import CAUSE, FPS, GUIDE, KEEP
from .config import PRESETS

__all__ = ["TASK"]

TASK = Task(
    name="deflicker",
    model="colour",
    says="brightness and colour that flicker, for Deflicker",
    aliases=(
        "deflicker",
        "flicker",
        "flickering",
        "pulsing",
        "time-lapse",
        "timelapse",
        "rolling bands",
        "mains hum",
        "exposure",
        "old film",
        "seams",
        "temporal consistency",
    ),
    inputs=(GUIDE, CAUSE, KEEP, FPS),
    presets={name: Preset(config) for name, config in PRESETS.items()}
    | {"paper": Preset(Published(), later(__package__, ".task:find_as_published"), without=(GUIDE,))},
    find=later(__package__, ".task:find"),
)
