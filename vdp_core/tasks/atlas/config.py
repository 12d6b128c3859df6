"""What the presets of atlas set."""

from __future__ import annotations

from dataclasses import dataclass

from ..segment.config import PRESETS as MASKS
from ..segment.config import SegmentConfig

__all__ = ["PRESETS", "AtlasConfig", "PublishedAtlas"]


@dataclass(frozen=True)
class AtlasConfig:
    """The settings of a preset."""

    steps: int = 0
    """Of the masks' classifier, each time; 0 takes what ``masks`` says."""
    masks: SegmentConfig = MASKS["balanced"]
    """How masks are found."""
    side: int = 512
    """Long side of the frames that mappings are found on; up: finer, slower."""
    knots: int = 96
    """Of a mapping, along the long side; up: follows small motion, such as that of water, better."""
    rounds: int = 5
    """Rounds in which textures and mappings are found in turn."""
    sharpening: int = 3
    """Steps of the textures' least squares after the weighted mean; up: sharper."""
    finer: float = 1.5
    """Pixels of a texture along one of the frames; up: keeps fine detail that frames show between their pixels."""
    window: int | None = None


@dataclass(frozen=True)
class PublishedAtlas:
    """The settings of the preset ``paper``: the published ones, but for the masks."""

    steps: int = 0
    """0 takes the published number; fewer shorten the whole schedule."""
    masks: SegmentConfig = MASKS["balanced"]
    """How rough masks are found to begin with."""
    side: int = 768
    """Long side of the frames that the networks are fitted to."""
    samples: int = 10_000
    """Points a step, at most as many as a frame has pixels."""
    window: int | None = None


PRESETS = {
    "fast": AtlasConfig(masks=MASKS["fast"], side=320, knots=40, rounds=2, sharpening=1, finer=1.0),
    "balanced": AtlasConfig(),
    "quality": AtlasConfig(masks=MASKS["quality"], side=768, knots=128, rounds=7, sharpening=5),
}
