"""Mattes of anything: on composites whose alpha and colours are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.image.foreground import foreground_colours
from comfyui_vdp.vdp_core.image.laplacian import MattingLaplacian
from comfyui_vdp.vdp_core.image.resize import resize
from comfyui_vdp.vdp_core.metrics import iou, mad
from comfyui_vdp.vdp_core.models.masks import matte_and_colours
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.store.memo import MEMO
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.tasks.matte import carry

COUNT, HEIGHT, WIDTH = 6, 72, 112
BLUE, RED = torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.8, 0.3, 0.1])


def texture(seed: int, height: int, width: int) -> torch.Tensor:
    """Smooth noise ``(height, width, 1)`` around 0."""
    noise = torch.randn(1, 1, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return resize(noise, (height, width), mode="bicubic")[0, 0, :, :, None]


def disc(softness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A clip of a textured disc that moves over a textured ground, two pixels a frame, and its alpha."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    ground = BLUE + 0.08 * texture(0, HEIGHT, WIDTH)
    own = RED + 0.08 * texture(1, HEIGHT, 2 * WIDTH)
    frames, alphas = [], []
    for index in range(COUNT):
        distance = ((x - 42 - 2 * index).square() + (y - 36).square()).float().sqrt()
        alpha = ((20.0 - distance) / softness + 0.5).clamp(0.0, 1.0)
        front = own[:, 40 - 2 * index : 40 - 2 * index + WIDTH]
        frames.append(alpha[..., None] * front + (1.0 - alpha[..., None]) * ground)
        alphas.append(alpha)
    return torch.stack(frames).clamp(0.0, 1.0), torch.stack(alphas)


def test_a_half_covered_edge_of_known_colours_is_half():
    picture = torch.cat((BLUE[:, None].expand(3, 4), 0.5 * (BLUE + RED)[:, None], RED[:, None].expand(3, 4)), dim=1)
    picture = picture[:, None].expand(3, 5, 9).contiguous()
    target = torch.tensor([0.0] * 3 + [0.3] * 3 + [1.0] * 3).expand(1, 1, 5, 9)
    weight = torch.tensor([100.0] * 3 + [0.0] * 3 + [100.0] * 3).expand(1, 1, 5, 9)
    alpha = MattingLaplacian(picture[None], eps=1e-7).solve(target, weight, steps=200, tolerance=1e-7)
    assert_close(alpha[0, 0, :, 4], torch.full((5,), 0.5), atol=5e-3, rtol=0.0)
    front, behind = foreground_colours(picture, alpha[0, 0])
    assert_close(front[:, :, 4:], RED[:, None, None].expand(3, 5, 5), atol=0.01, rtol=0.0)
    assert_close(behind[:, :, :5], BLUE[:, None, None].expand(3, 5, 5), atol=0.01, rtol=0.0)


def test_the_laplacian_leaves_nothing_of_lines_along_colour_and_is_symmetric():
    picture = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    laplacian = MattingLaplacian(picture, eps=1e-9)
    line = (picture * torch.tensor([0.2, -0.5, 0.4]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True) + 0.3
    assert float(laplacian(line).abs().max()) < 1e-3
    one, other = torch.rand(2, 1, 1, 12, 16, generator=torch.Generator().manual_seed(1)).unbind()
    assert_close((one * laplacian(other)).sum(), (other * laplacian(one)).sum(), rtol=1e-3, atol=1e-4)
    assert float((one * laplacian(one)).sum()) > 0.0


@pytest.mark.parametrize("rough", ["exact", "box"])
def test_a_hard_object_is_found_in_all_frames(rough):
    frames, alpha = disc(1.0)
    mask = (alpha[:1] > 0.5).float()
    if rough == "box":
        mask = torch.zeros_like(mask)
        mask[:, 18:54, 24:60] = 1.0
    layers = decompose("matte", frames, estimate_flow(frames, model="dis"), mask=mask)
    matte, _ = matte_and_colours(layers)
    assert matte.shape == alpha.shape
    assert iou(matte, alpha) > 0.95


def test_a_soft_object_has_its_alpha_and_its_own_colours():
    frames, alpha = disc(4.0)
    layers = decompose("matte", frames, estimate_flow(frames, model="dis"), mask=(alpha[3:4] > 0.5), mask_frame=3)
    matte, colours = matte_and_colours(layers)
    assert mad(matte, alpha) < 0.012
    mixed = (alpha > 0.2) & (alpha < 0.8) & (matte > 0.1)
    # red, although the frames are half blue there
    assert float((colours[mixed] - RED).abs().mean()) < 0.12
    assert float((frames[mixed] - RED).abs().mean()) > 0.2


def test_native_size_is_finer_than_the_working_one():
    frames, alpha = disc(1.0)
    large = resize(frames.movedim(-1, 1), (4 * HEIGHT, 4 * WIDTH), mode="bicubic").movedim(1, -1).clamp(0.0, 1.0)
    wanted = resize(alpha[:, None], (4 * HEIGHT, 4 * WIDTH), mode="bicubic")[:, 0].clamp(0.0, 1.0)
    layers = decompose("matte", large, estimate_flow(large, model="dis"), preset="fast", mask=wanted[:1] > 0.5)
    matte, _ = matte_and_colours(layers)
    assert layers.fields["masks"].shape[3] == 320
    assert matte.shape == wanted.shape
    assert iou(matte, wanted) > 0.95


def test_what_cannot_be_used_is_refused_before_any_work():
    frames, alpha = disc(1.0)
    flow = estimate_flow(frames, model="dis")
    with pytest.raises(InputError, match="mask: the task matte needs one"):
        decompose("matte", frames, flow)
    with pytest.raises(InputError, match="mask: it is empty everywhere"):
        decompose("matte", frames, flow, mask=torch.zeros(1, HEIGHT, WIDTH))
    with pytest.raises(ShapeError, match="it must show the whole frame"):
        decompose("matte", frames, flow, mask=torch.ones(1, HEIGHT, HEIGHT))
    with pytest.raises(InputError, match="flow: the task matte needs the motion"):
        decompose("matte", frames, mask=alpha[:1])


def test_a_shot_without_a_mask_is_empty_and_says_so():
    frames, alpha = disc(1.0)
    twice = torch.cat((frames, frames.flip(2)))
    flow = replace(estimate_flow(twice, model="dis"), cuts=(COUNT,))
    layers = decompose("matte", twice, flow, preset="fast", mask=alpha[:1])
    matte, _ = matte_and_colours(layers)
    assert float(matte[COUNT:].max()) == 0.0
    assert layers.info["warning"].startswith("shot 2: no mask shows anything here")


def test_a_correction_changes_nothing_before_the_mask_before_it_and_makes_nothing_else_anew(monkeypatch):
    frames, alpha = disc(2.0)
    flow = estimate_flow(frames, model="dis")
    made = []
    plain = carry.carried
    monkeypatch.setattr(carry, "carried", lambda *given: made.append(given[2]) or plain(*given))

    def found(*places: int) -> torch.Tensor:
        masks = torch.zeros_like(alpha)
        for place in places:
            # the second is wrong
            masks[place] = (alpha[place].roll(40, dims=1) if place == 2 else alpha[place]) > 0.5
        made.clear()
        return matte_and_colours(decompose("matte", frames, flow, mask=masks))[0].clone()

    MEMO.clear()
    before = found(0, 1, 2, 5)
    after = found(0, 1, 2, 4, 5)
    # but for the stretch from frame 2 to 5 all is what it was
    assert torch.equal(after[:2], before[:2])
    assert not torch.equal(after[3:5], before[3:5])
    assert mad(after[3:5], alpha[3:5]) < mad(before[3:5], alpha[3:5])
    assert set(made) <= {2, 3, 4, 5}
    MEMO.clear()
    assert torch.equal(found(0, 1, 2, 4, 5), after)
