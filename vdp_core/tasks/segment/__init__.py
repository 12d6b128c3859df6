"""The task segment: layers, the background and what moves in front of it."""

from __future__ import annotations

from ..base import Preset, Published, Task, later
from ..inputs import LAYERS, MASK, MASK_FRAME
from .config import PRESETS

__all__ = ["TASK"]

TASK = Task(
    name="segment",
    model="segment",
    says="layers, the background and what moves in front of it, for SplitLayers and Composite",
    aliases=(
        "segment",
        "layers",
        "unsupervised segmentation",
        "moving objects",
        "foreground",
        "background removal",
        "remove background",
        "remove object",
        "cut out",
        "matte",
        "rotoscope",
    ),
    measured="regions",
    inputs=(LAYERS, MASK, MASK_FRAME),
    presets={name: Preset(config) for name, config in PRESETS.items()}
    | {"paper": Preset(Published(), later(__package__, ".task:find_as_published"), without=(MASK,))},
    lengths=lambda given: {"L": given.get("layers")},
    prepare=later(__package__, ".task:prepare"),
    find=later(__package__, ".task:find"),
)
