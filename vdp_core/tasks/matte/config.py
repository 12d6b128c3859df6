"""What the presets of matte set."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "MatteConfig"]


@dataclass(frozen=True)
class MatteConfig:
    """The settings of a preset."""

    steps: int = 60
    """Most steps of a solve for alpha."""
    side: int = 512
    """Long side of the copy that the mask is carried on; up: finer, slower."""
    sweeps: int = 1
    """How often the clip is gone through again, each time the other way, with what was found so far."""
    shadow_side: int = 192
    """Long side of the shadow; up: sharper, slower."""
    window: None = None


PRESETS = {
    "fast": MatteConfig(steps=40, side=320, sweeps=0, shadow_side=128),
    "balanced": MatteConfig(),
    "quality": MatteConfig(steps=100, side=768, sweeps=2, shadow_side=256),
}
"""The presets; the task has no published way."""
