"""What an atlas holds, as pictures: textures, checkerboards, mappings and light."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit import textures
from comfyui_vdp.vdp_core.edit.textures import checker, light_picture, mapping_picture, texture_picture
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.image import checkerboard
from comfyui_vdp.vdp_core.models import MODELS
from comfyui_vdp.vdp_core.store.lazy import LazyFrames
from comfyui_vdp.vdp_core.types import Layers

COUNT, HEIGHT, WIDTH = 4, 32, 64
DARK, LIGHT = checkerboard.BOARDS[0]
SIDE = WIDTH // checkerboard.SQUARES
"""Of a square, in pixels."""


@pytest.fixture
def layers() -> Layers:
    """Each pixel lies on the pixel of the texture at the same place; an object covers the right half."""
    frames = torch.rand(COUNT, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(COUNT, 2, HEIGHT, WIDTH)
    masks[:, 0, :, : WIDTH // 2] = 1.0
    masks[:, 1] = 1.0 - masks[:, 0]
    y, x = torch.meshgrid(torch.linspace(0.0, 1.0, 5), torch.linspace(0.0, 1.0, 9), indexing="ij")
    mapping = torch.stack((x, y)).expand(COUNT, 2, 2, 5, 9).clone()
    fields = {"masks": masks, "mapping": mapping, "light": torch.zeros(COUNT, 3, 4, 7)}
    texture = torch.cat((frames[0].movedim(-1, 0), torch.ones(1, HEIGHT, WIDTH)))
    found = Layers("atlas", fields, frames, assets={"texture_0": texture, "texture_1": texture.clone()})
    MODELS["atlas"].check(found)
    return found


def test_a_texture_is_grey_where_nothing_was_seen(layers):
    texture = layers.assets["texture_0"]
    texture[3, 20:] = 0.0
    texture[3, 5, 7] = 0.0  # between pixels that were laid down
    picture, seen = texture_picture(layers, 0)
    assert picture.shape == (1, HEIGHT, WIDTH, 3) and seen.shape == (1, HEIGHT, WIDTH)
    assert torch.equal(picture[0, :20], layers.frames[0, :20])
    assert seen[0, :20].eq(1.0).all()
    assert picture[0, 20:].eq(0.5).all()
    assert seen[0, 20:].eq(0.0).all()


def test_a_checkerboard_takes_the_place_of_a_layer_alone(layers):
    made = checker(layers, 0)
    assert made.shape == layers.frames.shape
    half = WIDTH // 2
    assert torch.equal(made[:, :, half:], layers.frames[:, :, half:])
    # no marked line is near the squares 1 to 3, counted from the corner
    squares = made[0, SIDE : 3 * SIDE, SIDE : 3 * SIDE]
    y, x = torch.meshgrid(torch.arange(2 * SIDE) // SIDE, torch.arange(2 * SIDE) // SIDE, indexing="ij")
    expected = torch.where(((x + y) % 2 == 0)[..., None], torch.tensor(LIGHT), torch.tensor(DARK))
    assert_close(squares, expected)


def test_every_fourth_line_is_marked(layers):
    """Of a line of 0.16 squares, a pixel of a quarter on either side of it shows 0.08 / 0.25."""
    row = checker(layers, 0)[0, SIDE + 1]
    at, share = 4 * SIDE, 0.5 * checkerboard.LINE * SIDE
    for place, square in ((at - 1, LIGHT), (at, DARK)):
        expected = torch.lerp(torch.tensor(square), torch.tensor(checkerboard.ACROSS), share)
        assert_close(row[place], expected, atol=1e-5, rtol=0)


def test_squares_too_small_to_be_seen_are_even(layers):
    """In one frame a pixel covers two squares each way: dark and light in equal shares."""
    far = layers.fields["mapping"].clone()
    far[3] *= 2.0 * SIDE
    made = checker(replace(layers, fields={**layers.fields, "mapping": far}), 0)
    inner = made[3, 4 : HEIGHT - 4 : 2, 4 : WIDTH // 2 - 4]
    lines = checkerboard.LINE / checkerboard.MARKED
    grey = 0.5 * (torch.tensor(DARK) + torch.tensor(LIGHT))
    mean = grey.lerp(torch.tensor(checkerboard.ACROSS), lines).lerp(torch.tensor(checkerboard.DOWN), lines)
    assert_close(inner.mean(dim=(0, 1)), mean, atol=0.02, rtol=0)
    assert inner.std(dim=(0, 1)).max() < 0.05


def test_squares_are_as_large_whatever_the_size_of_the_texture(layers):
    finer = {**layers.assets, "texture_0": torch.ones(4, 3 * HEIGHT, 3 * WIDTH)}
    assert_close(checker(replace(layers, assets=finer), 0)[:2], checker(layers, 0)[:2], atol=1e-4, rtol=0)


def test_a_mapping_is_across_in_red_and_down_in_green(layers):
    made = mapping_picture(layers, 1)[2]
    assert_close(made[..., 0], ((torch.arange(WIDTH) + 0.5) / WIDTH).expand(HEIGHT, WIDTH))
    assert_close(made[..., 1], ((torch.arange(HEIGHT) + 0.5) / HEIGHT)[:, None].expand(HEIGHT, WIDTH))
    assert made[..., 2].eq(0.0).all()


def test_light_is_grey_plus_its_logarithm(layers):
    layers.fields["light"][1] = 0.25
    made = light_picture(layers)
    assert made[0].eq(0.5).all()
    assert_close(made[1], torch.full((HEIGHT, WIDTH, 3), 0.75))


def test_the_checkerboard_has_the_light_of_the_frame(layers):
    layers.fields["light"][1] = -0.3
    made = checker(layers, 0)
    assert_close(made[1, :, : WIDTH // 2], made[0, :, : WIDTH // 2] * torch.tensor(-0.3).exp())


def test_clips_are_made_when_they_are_looked_at(layers, monkeypatch):
    asked = []
    plain = textures.mapping_of
    monkeypatch.setattr(textures, "mapping_of", lambda *given: asked.append(given[2]) or plain(*given))
    made = checker(layers, 0)
    assert isinstance(made, LazyFrames)
    assert asked == []
    made[1]
    assert 3 not in asked


def test_a_layer_that_is_never_seen_is_all_grey(layers):
    layers.fields["masks"][:, 0], layers.fields["masks"][:, 1] = 1.0, 0.0
    never = replace(layers, assets={**layers.assets, "texture_1": torch.zeros(4, 1, 1)})
    picture, seen = texture_picture(never, 1)
    assert picture.flatten().tolist() == [0.5, 0.5, 0.5]
    assert seen.item() == 0.0
    assert torch.equal(checker(never, 1)[0], never.frames[0])


@pytest.mark.parametrize("make", [texture_picture, checker, mapping_picture])
def test_what_is_no_layer_of_an_atlas_is_refused(layers, make):
    with pytest.raises(InputError, match="there is no layer 2; these layers have 0 the background, 1 object 1"):
        make(layers, 2)
    with pytest.raises(InputError, match="of the model 'segment', AtlasTexture needs 'atlas'"):
        make(replace(layers, model="segment"), 0)
