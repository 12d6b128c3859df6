from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from comfyui_vdp.vdp_core.image.matting import (
    align_masks,
    native_masks,
    object_colours,
    pixels_of,
    sample_of,
    upsample_masks,
)
from comfyui_vdp.vdp_core.image.sample import places_of, rescaled, sample_points
from comfyui_vdp.vdp_core.types import Layers

DARK, LIGHT = torch.tensor([0.1, 0.15, 0.2]), torch.tensor([0.8, 0.7, 0.6])


def edge(width: int = 128, at: float = 70.0, soft: float = 2.0) -> torch.Tensor:
    """Opacity ``(64, width)`` of an object to the right of a place."""
    return ((torch.arange(float(width)) - at) / soft + 0.5).clamp(0, 1).expand(64, width).clone()


def picture(opacity: torch.Tensor, seed: int = 0) -> torch.Tensor:
    grain = 0.02 * torch.rand(*opacity.shape, 3, generator=torch.Generator().manual_seed(seed))
    return DARK * (1 - opacity[..., None]) + LIGHT * opacity[..., None] + grain


def small(opacity: torch.Tensor, size=(32, 64)) -> torch.Tensor:
    shrunk = F.interpolate(opacity[None, None], size=size, mode="area")[0]
    return torch.cat((1 - shrunk, shrunk))


@pytest.fixture(scope="module")
def clip(synthetic):
    return synthetic.layered(2, 270, 480, objects=3, seed=3, soft=2.0)


def test_masks_of_the_layers_come_at_native_size(clip):
    masks = F.interpolate(clip.masks, size=(135, 240), mode="area")
    layers = Layers("segment", {"masks": masks}, clip.frames)
    native = native_masks(layers, 0, 2)
    assert native.shape == (2, 4, 270, 480)
    assert_close(native.sum(dim=1), torch.ones(2, 270, 480))
    assert float(native.min()) >= 0.0 and float(native.max()) <= 1.0
    plain = F.interpolate(masks, size=(270, 480), mode="bilinear")
    assert float((native - clip.masks).abs().mean()) < 0.6 * float((plain - clip.masks).abs().mean())
    assert torch.equal(native_masks(layers, 1, 2), native[1:])


def test_away_from_borders_they_are_exactly_0_or_1(clip):
    masks = F.interpolate(clip.masks[:1], size=(135, 240), mode="area")[0]
    native = upsample_masks(masks, clip.frames[0]).masks
    certain = clip.masks[0].amax(dim=0) > 0.999
    near = F.max_pool2d((~certain).float()[None, None], 33, 1, 16)[0, 0] > 0
    assert bool(((native == 0) | (native == 1))[:, ~near].all())


def test_borders_are_as_fine_as_the_picture(clip):
    opacity = edge()
    native = upsample_masks(small(opacity), picture(opacity)).masks[1]
    assert float((native - opacity).abs().max()) < 0.25
    assert float((native - opacity).abs().mean()) < 0.004


def test_a_coarse_mask_finds_a_thin_thing():
    opacity = torch.zeros(64, 128)
    opacity[:, 64:] = 1
    opacity[30:32, 56:64] = 1  # a hair, half a sample thick on the small grid
    native = upsample_masks(small(opacity, (16, 32)), picture(opacity)).masks[1]
    assert float(native[30:32, 58:64].mean()) > 0.5
    assert float(native[20:24, 50:60].mean()) < 0.05


def test_without_any_colour_the_small_mask_decides():
    masks = small(edge())
    native = upsample_masks(masks, torch.full((64, 128, 3), 0.5)).masks
    assert float((native[1] - edge(soft=5.0)).abs().max()) < 0.3
    assert float(native[1][:, 40:60].max()) == 0.0


def test_masks_settle_on_the_edges_of_the_picture():
    opacity, wrong = edge(), edge(at=73.0)
    frames = picture(opacity)[None]
    settled = align_masks(small(wrong)[None], frames)
    assert settled.shape == (1, 2, 32, 64)
    assert_close(settled.sum(dim=1), torch.ones(1, 32, 64))
    off = [float((masks - small(opacity)).abs().mean()) for masks in (small(wrong), settled[0])]
    assert off[1] < 0.3 * off[0]


def test_in_a_flat_picture_they_stay():
    masks = small(edge())[None]
    settled = align_masks(masks, torch.full((1, 64, 128, 3), 0.5))
    assert float((settled - masks).abs().mean()) < 0.01


def test_an_empty_object_stays_empty():
    masks = torch.stack((torch.ones(32, 64), torch.zeros(32, 64)))
    matte = upsample_masks(masks, picture(edge()))
    assert len(matte.mixed) == 0
    assert torch.equal(matte.masks[1], torch.zeros(64, 128))
    assert torch.equal(align_masks(masks[None], picture(edge())[None])[0], masks)


def test_settling_can_be_stopped():
    def stop(done, total, preview):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align_masks(small(edge())[None], picture(edge())[None], on_step=stop)


def test_objects_lose_the_colour_of_what_is_behind():
    opacity = edge(soft=8.0)
    frame = picture(opacity)
    matte = upsample_masks(small(opacity), frame)
    behind = DARK[:, None].expand(3, len(matte.mixed)) + 0.01
    colours = object_colours(frame.view(-1, 3)[matte.mixed].T, matte, behind)
    assert colours.shape == (1, 3, len(matte.mixed))
    share = opacity.flatten()[matte.mixed]
    wrong = (colours[0].T - LIGHT).abs().mean(dim=-1) * share
    kept = (frame.view(-1, 3)[matte.mixed] - LIGHT).abs().mean(dim=-1) * share
    assert float(wrong.mean()) < 0.25 * float(kept.mean())
    rebuilt = matte.masks[0].flatten()[matte.mixed] * behind + matte.masks[1].flatten()[matte.mixed] * colours[0]
    assert float((rebuilt - frame.view(-1, 3)[matte.mixed].T).abs().mean()) < 0.02


def test_reading_some_pixels_is_reading_all():
    fields = torch.rand(3, 5, 7)
    whole = F.interpolate(fields[None], size=(20, 28), mode="bilinear", align_corners=False)[0].flatten(1)
    pixels = torch.tensor([0, 27, 250, 559])
    assert_close(sample_points(fields, rescaled(places_of(pixels, 28), (20, 28), (5, 7))), whole[:, pixels])


def test_pixels_are_found_by_the_sample_they_lie_in():
    pixels = torch.arange(20 * 29)
    lies = sample_of(places_of(pixels, 29), (20, 29), (5, 7))
    wanted = [int((row + 0.5) * 5 / 20) * 7 + int((column + 0.5) * 7 / 29) for row in range(20) for column in range(29)]
    assert lies.tolist() == wanted
    marks = torch.zeros(5, 7)
    marks[1, 2], marks[3, 6] = 0.5, 1.0
    chosen = pixels_of(marks, (20, 29))
    assert chosen.tolist() == [pixel for pixel, sample in enumerate(wanted) if sample in (1 * 7 + 2, 3 * 7 + 6)]
    assert len(pixels_of(torch.zeros(5, 7), (20, 29))) == 0
