"""Composition and its inverse, on fields that no fit would find."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.models import haze, light
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.types import Layers

COUNT, HEIGHT, WIDTH = 3, 20, 28


def random_layers(model: str) -> Layers:
    """Layers of a model whose fields are random, at a size of their own."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(COUNT, *shape, generator=generator)

    frames = draw(HEIGHT, WIDTH, 3, low=0.05, high=0.95)
    if model == "relight":
        fields = {
            "log_gain": draw(1, 5, 7, low=-0.5, high=2.5),
            "colour": draw(3, 1, 1, low=-0.3, high=0.3),
            "gamma": draw(1, 1, 1, low=0.4, high=2.0),
        }
    else:
        fields = {"transmission": draw(1, 5, 7, low=0.2, high=1.0), "airlight": draw(3, 1, 1, low=0.6, high=1.0)}
    return Layers(model, {**fields, "noise": torch.zeros(COUNT, 7, 1, 1)}, frames)


@pytest.mark.parametrize(("name", "model"), [("relight", light), ("dehaze", haze)])
def test_rebuild_undoes_compose(name, model):
    layers = random_layers(name)
    composed = model.compose(layers, 0, COUNT, layers.frames)
    assert float((composed - layers.frames).abs().mean()) > 0.1
    assert_close(model.rebuild(layers, 0, COUNT, composed), layers.frames, atol=1e-5, rtol=0)
    assert_close(reconstruct(layers), layers.frames, atol=1e-5, rtol=0)


def test_rebuild_undoes_compose_where_the_signal_holds_little():
    layers = random_layers("relight")
    one = torch.ones(COUNT, 1, 1, 1)
    layers = replace(layers, fields={**layers.fields, "blocking": 0.01 * one, "black": 0.03 * one, "white": one})
    composed = light.compose(layers, 0, COUNT, layers.frames)
    assert_close(light.rebuild(layers, 0, COUNT, composed), layers.frames, atol=1e-3, rtol=0)


def test_black_comes_back_as_black():
    layers = random_layers("relight")
    one = torch.ones(COUNT, 1, 1, 1)
    frames = layers.frames.clone()
    frames[:, :4] = 0.0
    frames[:, 4:6, :, 0] = 0.0
    held = {"blocking": 0.01 * one, "black": 0.0 * one, "white": one}
    layers = replace(layers, frames=frames, fields={**layers.fields, **held})
    assert_close(light.rebuild(layers, 0, COUNT, light.compose(layers, 0, COUNT, frames)), frames, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("name", "model"), [("relight", light), ("dehaze", haze)])
def test_each_frame_has_its_own_fields(name, model):
    layers = random_layers(name)
    composed = model.compose(layers, 0, COUNT, layers.frames)
    for index in range(COUNT):
        alone = model.compose(layers, index, index + 1, layers.frames[index : index + 1])
        assert_close(alone, composed[index : index + 1])


def test_light_by_hand():
    """``A * x ** gamma``."""
    fields = {"log_gain": torch.full((1, 1, 2, 2), 0.7), "colour": torch.full((1, 3, 1, 1), -0.2)}
    fields |= {"gamma": torch.full((1, 1, 1, 1), 0.5), "noise": torch.zeros(1, 7, 1, 1)}
    frames = torch.full((1, 4, 4, 3), 0.25)
    composed = light.compose(Layers("relight", fields, frames), 0, 1, frames)
    assert_close(composed, torch.full((1, 4, 4, 3), 0.5 * math.exp(0.5)), atol=1e-5, rtol=0)


def test_haze_by_hand():
    """``(frame - (1 - t) * airlight) / t``."""
    fields = {"transmission": torch.full((1, 1, 2, 2), 0.5), "airlight": torch.full((1, 3, 1, 1), 0.8)}
    frames = torch.full((1, 4, 4, 3), 0.6)
    composed = haze.compose(Layers("dehaze", {**fields, "noise": torch.zeros(1, 7, 1, 1)}, frames), 0, 1, frames)
    assert_close(composed, torch.full((1, 4, 4, 3), 0.4), atol=1e-5, rtol=0)


def test_blocks_far_away_come_out_as_strong_as_they_were():
    """Where nothing is gained, nothing changes, to the bit."""
    place = torch.arange(64) // 8 % 2
    blocks = (place[:, None] + place) % 2 * 2.0 / 255.0
    frames = (0.6 + blocks)[None, ..., None].expand(1, -1, -1, 3).contiguous()
    through = torch.ones(1, 1, 64, 64)
    through[..., 32:] = 0.25
    fields = {"transmission": through, "airlight": torch.full((1, 3, 1, 1), 0.8)}
    layers = Layers("dehaze", {**fields, "noise": torch.zeros(1, 7, 1, 1)}, frames)
    kept, less = (haze.compose(layers, 0, 1, frames, blocking=blocking) for blocking in ((), (4.0 / 255,)))
    assert torch.equal(less[:, :, :24], kept[:, :, :24])
    deviation = [float(part[:, 16:48, 48:].std()) for part in (frames, kept, less)]
    assert deviation[1] == pytest.approx(4.0 * deviation[0], rel=1e-3)
    assert deviation[2] == pytest.approx(deviation[0], rel=0.15)
    assert float(less[:, :, 48:].mean()) == pytest.approx(float(kept[:, :, 48:].mean()), abs=1e-3)
