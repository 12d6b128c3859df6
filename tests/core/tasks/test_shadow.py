"""Shadows: found on clips whose shadow is known, and what layers do with them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit.composite import clean_plate, composite
from comfyui_vdp.vdp_core.edit.layers import add_background, edit, layer_numbers, replace_layer, split_layer
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.image.resize import resize
from comfyui_vdp.vdp_core.models import MODELS
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.models.masks import of_matte
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.motion.warp import occlusion
from comfyui_vdp.vdp_core.optim.progress import Progress
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.tasks.matte.shadow import cast_shadow
from comfyui_vdp.vdp_core.types import Edit, Flow, Layers

COUNT, HEIGHT, WIDTH = 12, 72, 112
TINT = torch.tensor([0.45, 0.5, 0.6])


def filmed(*, speed: int = 4, strength: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A square that goes to the right over a textured ground, with a soft shadow below it.

    Returns:
        Frames, alpha, what the shadow multiplies the ground with ``(T, H, W, 3)``, and the ground ``(H, W, 3)``.
    """
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    noise = torch.randn(1, 3, HEIGHT // 4, WIDTH // 4, generator=torch.Generator().manual_seed(0))
    ground = (0.6 + 0.06 * resize(noise, (HEIGHT, WIDTH), mode="bicubic")[0].movedim(0, -1)).clamp(0.2, 0.95)
    frames, alphas, shades = [], [], []
    for index in range(COUNT):
        left = 20 + speed * index
        alpha = ((x >= left) & (x < left + 16) & (y >= 16) & (y < 36)).float()
        distance = (((x - left - 12) / 14.0).square() + ((y - 42) / 9.0).square()).sqrt()
        depth = strength * ((1.3 - distance) / 0.6).clamp(0.0, 1.0)
        shade = 1.0 - depth[..., None] * (1.0 - TINT)
        own = torch.stack((0.8 - 0.01 * (y % 7), 0.3 + 0.0 * y, 0.1 + 0.02 * ((x - left) % 5)), dim=-1)
        frames.append(torch.where(alpha[..., None] > 0.5, own, shade * ground))
        alphas.append(alpha)
        shades.append(shade)
    return torch.stack(frames), torch.stack(alphas), torch.stack(shades), ground


def exact_flow(alpha: Tensor, speed: int) -> Flow:
    """The motion of the square; the ground stands still."""
    motion = torch.stack((speed * alpha, torch.zeros_like(alpha)), dim=1)
    forward, backward = motion[:-1], -motion[1:]
    hidden = occlusion(forward, backward), occlusion(backward, forward)
    return Flow(forward, backward, *hidden, (HEIGHT, WIDTH))


def found(frames: Tensor, alpha: Tensor, flow: Flow) -> Tensor:
    shadow = cast_shadow(frames, alpha, flow, WIDTH, torch.device("cpu"), Progress(None))
    return shadow.movedim(1, -1)


def psnr(one: Tensor, other: Tensor) -> float:
    return -10.0 * math.log10(float((one - other).square().mean()))


def test_a_soft_shadow_is_found_with_its_tint():
    frames, alpha, shade, _ = filmed()
    shadow = found(frames, alpha, exact_flow(alpha, 4))
    inside = (shade.amin(dim=-1) < 0.95) & (alpha == 0.0)
    assert psnr(0.6 * shadow[inside], 0.6 * shade[inside]) > 34.0
    deep = (shade.amin(dim=-1) < 0.46) & (alpha == 0.0)
    assert_close(shadow[deep].mean(dim=0), TINT, atol=0.03, rtol=0.0)
    away = (shade.amin(dim=-1) > 0.999) & (alpha == 0.0)
    assert float((shadow[away] - 1.0).abs().mean()) < 0.01


def test_without_a_shadow_nothing_is_found():
    frames, alpha, _, _ = filmed(strength=0.0)
    assert float((found(frames, alpha, exact_flow(alpha, 4)) - 1.0).abs().max()) < 0.02


def test_what_stands_still_shows_no_shadow_of_its_own():
    # nothing tells it from a dark ground
    frames, alpha, _, _ = filmed(speed=0)
    assert_close(found(frames, alpha, exact_flow(alpha, 0)), torch.ones(COUNT, HEIGHT, WIDTH, 3), atol=1e-3, rtol=0.0)


def test_a_frame_that_is_darker_as_a_whole_is_no_shadow():
    frames, alpha, shade, _ = filmed()
    flow = exact_flow(alpha, 4)
    frames[5] *= 0.7
    inside = (shade.amin(dim=-1) < 0.95) & (alpha == 0.0)
    shadow = found(frames, alpha, flow)
    assert psnr(0.6 * shadow[inside], 0.6 * shade[inside]) > 34.0


@pytest.fixture(scope="module")
def layers() -> Layers:
    """Layers with the exact alpha and shadow of a clip."""
    frames, alpha, shade, _ = filmed()
    masks = torch.stack((1.0 - alpha, alpha), dim=1)
    made = of_matte(frames, masks, alpha, colours=frames, info={})
    return replace(made, fields={**made.fields, "shadow": shade.movedim(-1, 1).contiguous()})


def test_untouched_layers_give_the_clip(layers):
    assert torch.equal(composite(layers)[0], layers.frames)


def test_the_object_takes_its_shadow_along_when_it_goes(layers):
    ground = filmed()[3]
    gone = composite(edit(layers, "objects", Edit(visibility=0.0)))[0]
    seen = layers.pictures["matte"] == 0.0
    assert_close(gone[seen], ground.expand(COUNT, -1, -1, -1)[seen], atol=1e-3, rtol=0.0)
    alone = composite(edit(layers, "2", Edit(visibility=0.0)))[0]
    assert_close(alone[seen], gone[seen], atol=1e-5, rtol=0.0)
    assert_close(alone[~seen], layers.frames[~seen])
    assert_close(clean_plate(layers, 3, 4)[0], gone[3], atol=1e-5, rtol=0.0)


def test_the_shadow_falls_on_another_background(layers):
    shade, alpha = filmed()[2], layers.pictures["matte"]
    placed = composite(add_background(layers, torch.full((1, 1, 1, 3), 0.6)))[0]
    assert_close(placed[alpha == 0.0], 0.6 * shade[alpha == 0.0], atol=1e-5, rtol=0.0)
    half = edit(add_background(layers, torch.full((1, 1, 1, 3), 0.6)), "2", Edit(visibility=0.5))
    assert_close(composite(half)[0][alpha == 0.0], 0.3 + 0.3 * shade[alpha == 0.0], atol=1e-5, rtol=0.0)


def test_the_shadow_moves_by_itself(layers):
    shade, alpha = filmed()[2], layers.pictures["matte"]
    moved = edit(add_background(layers, torch.full((1, 1, 1, 3), 0.6)), "2", Edit(offset=(3.0, -2.0)))
    expected = torch.ones_like(shade)
    expected[:, :-2, 3:] = shade[:, 2:, :-3]
    assert_close(composite(moved)[0][alpha == 0.0], 0.6 * expected[alpha == 0.0], atol=1e-5, rtol=0.0)


def test_the_shadow_is_a_layer_that_does_to_its_background_what_it_did(layers):
    colours, opacity = split_layer(layers, 2)
    plate = split_layer(layers, 0)[0]
    share = opacity[..., None]
    seen = layers.pictures["matte"] == 0.0
    assert_close((share * colours + (1.0 - share) * plate)[seen], layers.frames[seen], atol=1e-4, rtol=0.0)
    assert layer_numbers(layers, "objects") == (1, 2)
    with pytest.raises(InputError, match="and its shadow"):
        layer_numbers(layers, "3")
    with pytest.raises(InputError, match="2 is the shadow, which no frames can replace"):
        replace_layer(layers, 2, layers.frames)


def test_it_is_kept_in_files(layers, tmp_path):
    file = save_layers(layers, tmp_path / "shaded")
    read = load_layers(file)
    assert torch.equal(read.fields["shadow"], layers.fields["shadow"])
    MODELS[read.model].check(read)


def test_the_task_finds_it_where_it_is_wanted():
    frames, alpha, shade, _ = filmed()
    flow = estimate_flow(frames, model="dis")
    plain = decompose("matte", frames, flow, preset="fast", mask=alpha[:1])
    assert "shadow" not in plain.fields
    shaded = decompose("matte", frames, flow, preset="fast", mask=alpha[:1], with_shadow=True)
    assert torch.equal(shaded.fields["masks"], plain.fields["masks"])
    placed = composite(add_background(shaded, torch.full((1, 1, 1, 3), 0.6)))[0]
    inside = (shade.amin(dim=-1) < 0.95) & (alpha == 0.0)
    assert psnr(placed[inside], 0.6 * shade[inside]) > 30.0


def test_no_shadow_stays_where_the_object_has_left():
    # the square is seen in the first eight frames only; then the path goes on as it did
    frames, alpha, shade, ground = filmed(speed=6)
    gone = alpha.clone()
    frames[9:], gone[9:] = ground, 0.0
    shadow = found(frames, gone, exact_flow(gone, 6))
    assert float((shadow[11, :, :60] - 1.0).abs().max()) < 0.05
    assert psnr(0.6 * shadow[:8], 0.6 * shade[:8]) > 25.0


def test_edits_that_are_not_of_the_shadow_leave_the_background(layers):
    brighter = composite(edit(layers, "objects", Edit(gain=0.5)))[0]
    assert torch.equal(brighter[layers.pictures["matte"] == 0.0], layers.frames[layers.pictures["matte"] == 0.0])
    deep = replace(layers, fields={**layers.fields, "shadow": 0.01 * layers.fields["shadow"]})
    faint = composite(edit(deep, "1", Edit(visibility=0.99)))[0]
    away = filmed()[1].amax(dim=0) == 0.0
    assert_close(faint[:, away], layers.frames[:, away], atol=1e-5, rtol=0.0)
