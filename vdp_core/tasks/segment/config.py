"""What the presets of segment set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "SegmentConfig"]


@dataclass(frozen=True)
class SegmentConfig:
    """The settings of a preset."""

    steps: int = 300
    """Of the classifier, each time."""
    side: int = 512
    """Long side of the masks; up: finer, slower."""
    rounds: int = 2
    """Rounds in which the classifier learns from the masks and the masks are found with it."""
    samples: int = 4096
    """Pixels a frame that the classifier learns from."""
    learning_rate: float = 5e-3
    appearance: float = 1.0
    """Weight of the classifier; up: masks follow colour and motion, down: they follow the neighbouring frames."""
    warping: float = 6.0
    """Weight of the warp evidence: which layer's flow rebuilds a pixel; up: borders follow motion."""
    propagation: float = 1.0
    """Weight of the masks of neighbouring frames; down: every frame decides for itself."""
    window: int = 160
    """Most frames of a window; one window may have an overlap more, where that saves a second."""


PRESETS = {
    "fast": SegmentConfig(steps=200, side=320, rounds=1),
    "balanced": SegmentConfig(),
    "quality": SegmentConfig(steps=600, rounds=3, samples=8192),
}
"""The presets that are ours; ``paper`` is in ``paper.py``."""
