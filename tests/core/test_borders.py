"""What in a clip's frames is no picture of the scene."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from comfyui_vdp.vdp_core.image.borders import scene_area

COUNT, HEIGHT, WIDTH = 8, 60, 100


def panning(step: int = 2) -> torch.Tensor:
    """Blocks of random colours that move by ``step`` pixels a frame, ``(T, 3, h, w)``."""
    blocks = torch.rand(1, 3, 15, 40, generator=torch.Generator().manual_seed(0)) * 0.7 + 0.2
    wide = F.interpolate(blocks, scale_factor=4, mode="nearest")[0]
    return torch.stack([wide[:, :, index * step : index * step + WIDTH] for index in range(COUNT)])


@pytest.mark.parametrize("step", [0, 2])
def test_all_of_a_plain_clip_is_the_scene(step):
    assert scene_area(panning(step)).all()


def test_a_clip_that_is_black_or_of_one_colour_counts_as_a_whole():
    assert scene_area(torch.zeros(COUNT, 3, HEIGHT, WIDTH)).all()
    assert scene_area(torch.full((COUNT, 3, HEIGHT, WIDTH), 0.7)).all()


def test_black_bars_are_found_to_the_pixel():
    clip = panning()
    clip[..., :30] = clip[..., 75:] = 0.02
    clip[:, :, :7] = 0.06
    wanted = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    wanted[7:, 30:75] = True
    assert torch.equal(scene_area(clip), wanted)


def test_a_sky_of_one_colour_is_no_bar():
    clip = panning()
    clip[:, :, :20] = 0.8
    assert scene_area(clip).all()


def test_a_logo_that_stays_is_found_where_it_is():
    clip = panning()
    clip[:, :, 5:9, 84:92] = torch.tensor([1.0, 0.1, 0.1])[:, None, None]
    clip[:, :, 6:8, 86:90] = 1.0
    out = ~scene_area(clip)
    assert out[5:9, 84:92].float().mean() > 0.9
    out[2:12, 81:95] = False
    assert not out.any()


def test_a_scene_that_stands_still_is_no_logo():
    clip = panning(0)
    clip[:, :, 20:24, :] = panning(3)[:, :, 20:24, :]
    assert scene_area(clip).all()
