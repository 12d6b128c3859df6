"""What the presets of deflicker set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "DeflickerConfig"]


@dataclass(frozen=True)
class DeflickerConfig:
    """The settings of a preset."""

    steps: int = 8
    """Sweeps: how often every frame is fitted to those around it."""
    side: int = 112
    """Long side of the copy that points are compared on; up: finer, slower."""
    stride: int = 4
    """One of so many pixels of a row of it fits the change; down: steadier, slower."""
    window: int = 240
    """Most frames of a window; one window may have an overlap more, where that saves a second."""


PRESETS = {
    "fast": DeflickerConfig(steps=6, side=80),
    "balanced": DeflickerConfig(),
    "quality": DeflickerConfig(steps=12, side=160),
}
"""The presets that are ours."""
