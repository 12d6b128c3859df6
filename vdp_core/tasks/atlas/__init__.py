"""The task atlas: each layer as one picture, and where every pixel of every frame lies in it."""

from __future__ import annotations

from ..base import Preset, Task, later
from ..inputs import LAYERS, MASK, MASK_FRAME
from .config import PRESETS, PublishedAtlas

__all__ = ["TASK"]

TASK = Task(
    name="atlas",
    model="atlas",
    says="one texture a layer, and where every pixel of the clip lies in it, for AtlasTexture, EditAtlas, EditFrame, "
    "TrackPoints, SplitLayers and Composite",
    aliases=(
        "atlas",
        "layered neural atlases",
        "texture",
        "mosaic",
        "panorama",
        "edit propagation",
        "tracking",
        "stabilise",
    ),
    measured="rebuilt",
    inputs=(LAYERS, MASK, MASK_FRAME),
    presets={name: Preset(config) for name, config in PRESETS.items()}
    | {"paper": Preset(PublishedAtlas(), later(__package__, ".paper:find"))},
    lengths=lambda given: {"L": given.get("layers")},
    prepare=later(__package__, ".task:prepare"),
    find=later(__package__, ".find:find"),
    join=later(__package__, ".task:join"),
)
