"""The task matte: anything cut out with soft borders, from a rough mask."""

from __future__ import annotations

from ..base import Preset, Task, later
from ..inputs import MASK, MASK_FRAME
from .config import PRESETS

__all__ = ["TASK"]

TASK = Task(
    name="matte",
    model="segment",
    says="what a rough mask shows, cut out with soft borders and its own colours, for SplitLayers and Composite",
    aliases=(
        "matting",
        "alpha matte",
        "soft mask",
        "hair",
        "fur",
        "trimap",
        "refine mask",
        "rotoscope anything",
        "despill",
    ),
    measured="mattes",
    inputs=(MASK, MASK_FRAME),
    presets={name: Preset(config) for name, config in PRESETS.items()},
    lengths=lambda given: {"L": 2},
    prepare=later(__package__, ".task:prepare"),
    find=later(__package__, ".task:find"),
    finish=later(__package__, ".task:finish"),
)
