"""What the presets of deflicker set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "DeflickerConfig"]


@dataclass(frozen=True)
class DeflickerConfig:
    """The settings of a preset."""

    steps: int = 0
    side: int = 112
    """Long side of the copy that points are compared on."""
    stride: int = 4
    """One of so many pixels of a row fits the changes."""
    sweeps: int = 8
    """How often every frame is fitted to those around it."""
    keep: float = 1.0
    window: int = 240


PRESETS = {
    "fast": DeflickerConfig(side=80, sweeps=6),
    "balanced": DeflickerConfig(),
    "quality": DeflickerConfig(side=160, sweeps=12),
}
