"""The task matte: anything cut out with soft borders, from a rough mask."""

from __future__ import annotations

from ..base import Given, Preset, Task, later
from ..inputs import MASK, MASK_FRAME, WITH_SHADOW
from .config import PRESETS

__all__ = ["TASK"]


def _lengths(given: Given) -> dict[str, int | None]:
    """Of the masks, and of the shadow where one is wanted; none where it cannot be told yet."""
    with_shadow = given.get("with_shadow", False)
    return {"L": None} if with_shadow is None else {"L": 2, "shadow": 1} if with_shadow else {"L": 2}


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
        "shadow",
        "reflection",
        "omnimatte",
    ),
    measured="mattes",
    inputs=(MASK, MASK_FRAME, WITH_SHADOW),
    presets={name: Preset(config) for name, config in PRESETS.items()},
    lengths=_lengths,
    prepare=later(__package__, ".task:prepare"),
    find=later(__package__, ".task:find"),
    finish=later(__package__, ".task:finish"),
)
