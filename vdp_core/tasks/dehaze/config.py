"""What the presets of dehaze set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "DehazeConfig"]


@dataclass(frozen=True)
class DehazeConfig:
    """What a preset sets."""

    steps: int = 400
    """The first half finds the airlight, the second half objects in front of the haze."""
    side: int = 200
    """Long side of the copy that points are followed on; up: finer, slower."""
    grid: int = 12
    """Samples of log t along the long side; up: haze may vary faster over the frame."""
    points: int = 15_000
    """Followed points looked at in a step."""
    learning_rate: float = 0.04
    same_scene: float = 100.0
    """Weight of the same point keeping its clear colour; up: haze follows what changes, errors of the flow too."""
    black: float = 1.0
    """Weight of something near being almost black; down: haze may be left in."""
    tolerance: float = 0.1
    """Share of the blocks that may lie deeper in haze than log t says; up: t follows bright surfaces down."""
    smooth: float = 1.0
    """Weight of evenness over the frame and in time; up: broader haze, but the airlight is found less well."""
    objects: float = 0.1
    """Weight of objects having the haze of what is around them; up: fewer stand out."""
    outline: float = 10.0
    """Weight of haze changing only at edges of the picture; up: fewer and larger objects."""
    expected: float = 3.0
    """Weight of the airlight being the brightest haze; it decides only where nothing moves in the haze."""
    drift: float = 30.0
    """Weight of the airlight staying as it is; down: it follows the time of day, and changes of exposure too."""
    mistaken: float = 0.002
    """Change of a colour beyond which the flow is rather wrong than the haze another."""
    window: int = 240
    """Most frames that are fitted at once."""


PRESETS = {
    "fast": DehazeConfig(steps=240, side=160, points=10_000),
    "balanced": DehazeConfig(),
    "quality": DehazeConfig(steps=1000, side=256, grid=16, points=40_000),
}
"""The presets that are ours; ``paper`` is in ``paper.py``."""
