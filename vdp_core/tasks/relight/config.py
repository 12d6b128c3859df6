"""What the presets of relight set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "RelightConfig"]


@dataclass(frozen=True)
class RelightConfig:
    """What a preset sets."""

    steps: int = 250
    side: int = 160
    """Long side of the copy that points are followed on; up: finer, slower."""
    grid: int = 15
    """Samples of the light map along the long side; up: light may vary faster over the frame."""
    points: int = 30_000
    """Correspondences looked at in a step."""
    learning_rate: float = 0.03
    same_scene: float = 1.0
    """Weight of points of the scene keeping their colour along the motion; up: more of what changes counts as light."""
    smooth: float = 1.0
    """Weight of evenness over the frame; up: broader light, but small shadows stay in the picture."""
    steady: float = 1.0
    """Weight of evenness in time; up: its shape changes more slowly; as a whole it may flicker."""
    modest: float = 1e-3
    """Weight of light doing nothing; it decides only where nothing else does, such as a still camera's still light."""
    graded: float = 4.0
    """Weight of looking like the reference, where one is given."""
    mistaken: float = 0.05
    """Log brightness beyond which a correspondence is rather wrong than lit otherwise."""
    window: int = 240
    """Most frames that are fitted at once."""


PRESETS = {
    "fast": RelightConfig(steps=120, side=128, points=15_000),
    "balanced": RelightConfig(),
    "quality": RelightConfig(steps=600, side=256, grid=20, points=60_000),
}
"""The presets that are ours; ``paper`` is in ``paper.py``."""
