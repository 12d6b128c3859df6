"""What the presets of relight set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "RelightConfig"]


@dataclass(frozen=True)
class RelightConfig:
    """The settings of a preset."""

    steps: int = 250
    side: int = 160
    """Long side of the copy that points are followed on; up: finer, slower."""
    grid: int = 15
    """Samples of the light map along the long side; up: light may vary faster over the frame."""
    points: int = 30_000
    """Correspondences drawn in each step."""
    learning_rate: float = 0.03
    correspondence: float = 1.0
    """Weight of correspondences keeping their colour along the flow; up: more of a change counts as light."""
    spatial_smoothness: float = 1.0
    """Weight of second-order smoothness over the frame; up: broader light, but small shadows stay in the picture."""
    temporal_smoothness: float = 1.0
    """Weight of second-order smoothness in time of the light's shape; up: it changes more slowly."""
    l2_prior: float = 1e-3
    """Weight of the squared log light; it decides only where nothing else does, as with a still camera and light."""
    reference: float = 4.0
    """Weight of the difference to the reference, if one is given."""
    steadiness: float = 0.5
    """Weight of the change in time of the light's shape, if a reference is given, in which light is what it was where
    nothing is known of it; up: what light does fast is lost. Without a reference it costs up to 3.5 dB (dog, drifting
    light), with one it gains: clips in strong light 0.4 to 1.4 dB on the mean and 0.7 to 2 at their ends (four clips),
    drifting light -0.1 to +0.4 and 1.2 to 1.4 (three), with 0.3; 1 gives up to 0.7 more and takes up to 2.4."""
    robust_scale: float = 0.05
    """Scale of the Charbonnier loss of correspondences, in log brightness; larger residuals count as errors."""
    window: int = 240
    """Most frames of a window; one window may have an overlap more, where that saves a second."""


PRESETS = {
    "fast": RelightConfig(steps=120, side=128, points=15_000),
    "balanced": RelightConfig(),
    "quality": RelightConfig(steps=600, side=256, grid=20, points=60_000),
}
"""The presets that are ours; ``paper`` is in ``paper.py``."""
