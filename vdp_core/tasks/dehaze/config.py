"""What the presets of dehaze set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "DehazeConfig"]


@dataclass(frozen=True)
class DehazeConfig:
    """The settings of a preset."""

    steps: int = 400
    """The first half finds the airlight, the second half objects in front of the haze."""
    side: int = 200
    """Long side of the copy that points are followed on; up: finer, slower."""
    grid: int = 12
    """Samples of log t along the long side; up: haze may vary faster over the frame."""
    points: int = 15_000
    """Correspondences drawn in each step."""
    learning_rate: float = 0.04
    """Of the first half."""
    objects_learning_rate: float = 0.16
    """Of the second half, which has further to go where near things hid the haze behind them."""
    correspondence: float = 100.0
    """Weight of correspondences keeping their clear colour; up: haze follows each change, errors of the flow too."""
    dark_channel: float = 1.0
    """Weight of the dark channel, a quantile loss; down: haze may be left in."""
    quantile: float = 0.1
    """Quantile of that loss: share of blocks whose bound may exceed log t; up: t falls on bright surfaces."""
    smoothness: float = 1.0
    """Weight of second-order smoothness in space and time; up: broader haze, but a less certain airlight."""
    sparsity: float = 0.4
    """Weight of sparsity: few objects differ from the haze around them; up: fewer objects."""
    edge_aware_smoothness: float = 30.0
    """Weight of edge-aware smoothness (first order): haze changes at edges only; up: fewer and larger objects."""
    airlight_prior: float = 3.0
    """Weight of the airlight's difference to the brightest haze; it decides only where nothing moves in the haze."""
    airlight_smoothness: float = 30.0
    """Weight of the airlight's squared change in time; down: it follows the time of day, and the exposure too."""
    robust_scale: float = 0.002
    """Scale of the Charbonnier loss of correspondences, in colour; larger residuals count as errors of the flow."""
    window: int = 240
    """Most frames of a window; one window may have an overlap more, where that saves a second."""


PRESETS = {
    "fast": DehazeConfig(steps=240, side=160, points=10_000, objects_learning_rate=0.08),
    "balanced": DehazeConfig(),
    "quality": DehazeConfig(steps=1000, side=256, grid=16, points=40_000),
}
"""The presets that are ours; ``paper`` is in ``paper.py``."""
