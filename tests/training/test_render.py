"""Rendered pairs of frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from comfyui_vdp.training.render import KINDS, render
from comfyui_vdp.vdp_core.motion.warp import warp

SIZE = (96, 128)


@pytest.fixture(scope="module")
def textures() -> list[np.ndarray]:
    """Smooth random pictures."""
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.random((4, 3, 30, 40), dtype=np.float32))
    large = torch.nn.functional.interpolate(small, size=(240, 320), mode="bicubic", align_corners=False)
    return list(large.clamp(0.0, 1.0).movedim(1, -1).contiguous().numpy())


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 6, 11])
def test_the_motion_brings_one_frame_onto_the_other(textures, number):
    pair = render(number, textures, size=SIZE, kind="clean")
    frames = torch.from_numpy(pair.frames).movedim(-1, 1)
    brought = warp(frames.flip(0), torch.from_numpy(pair.flow))
    unlike = (brought - frames).abs().mean(dim=1)[torch.from_numpy(pair.visible) > 0.5]
    still = (frames[0] - frames[1]).abs().mean()
    # where a texture is as fine as the pixels, what is read between them differs
    assert unlike.mean() < 0.25 * still


@pytest.mark.parametrize("number", range(6))
def test_there_and_back_leads_home_where_both_frames_see(textures, number):
    pair = render(number, textures, size=SIZE)
    forward, backward = torch.from_numpy(pair.flow).split(1)
    gap = (forward + warp(backward, forward)).norm(dim=1)[0]
    assert float(gap[torch.from_numpy(pair.visible[0]) > 0.5].median()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_8_bits_and_follows_from_its_number(textures, kind):
    first, again = (render(7, textures, size=SIZE, kind=kind) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(first.frames * 255.0, np.rint(first.frames * 255.0))
    assert 0.0 <= first.frames.min() <= first.frames.max() <= 1.0


def test_what_happens_to_the_light_changes_no_motion(textures):
    motions = [render(3, textures, size=SIZE, kind=kind).flow for kind in KINDS]
    assert all(np.array_equal(motion, motions[0]) for motion in motions)
