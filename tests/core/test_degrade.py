from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.degrade import darken, drifting_field, haze, hazy_depth

SIZE = (6, 24, 40)


def test_the_model_by_hand():
    frames = torch.full((*SIZE, 3), 0.64)
    dark, light = darken(frames, seed=0, level=0.5, drift=0.0, gamma=0.5, noise=0.0)
    assert_close(light, torch.full(SIZE, 0.5))
    assert_close(dark, torch.full((*SIZE, 3), 102 / 255))  # 0.5 * 0.64 ** 0.5 = 0.4


def test_the_light_is_what_was_put_on(synthetic):
    frames, _ = synthetic.pan(*SIZE)
    dark, light = darken(frames, seed=1, gamma=1.6, noise=0.0)
    assert light.shape == SIZE
    assert_close(dark, (light[..., None] * frames.pow(1.6)).clamp(0, 1), atol=0.51 / 255, rtol=0)


def test_values_are_8_bit_and_the_source_is_left_alone(synthetic):
    frames, _ = synthetic.pan(*SIZE)
    kept = frames.clone()
    dark, _ = darken(frames, seed=0)
    assert torch.equal(frames, kept)
    assert_close(dark * 255, (dark * 255).round(), atol=1e-4, rtol=0)
    assert 0.0 <= dark.min() <= dark.max() <= 1.0


def test_the_noise_has_its_deviation():
    dark, _ = darken(torch.full((4, 64, 64, 3), 1.0), seed=0, level=0.5, drift=0.0, noise=0.03)
    assert float(dark.std()) == pytest.approx(0.03, rel=0.05)
    assert float(dark.mean()) == pytest.approx(0.5, abs=2e-3)


def test_the_seed_decides():
    frames = torch.full((*SIZE, 3), 0.5)
    first, again, other = (darken(frames, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_fields_are_smooth_and_drift():
    field = drifting_field(60, 60, 80, seed=0)
    assert field.shape == (60, 60, 80)
    assert 0.3 < field.std() < 1.5
    for dim in range(3):
        steps = field.diff(dim=dim).abs()
        assert 0.0 < steps.mean() < 0.15
        assert steps.max() < 0.6


def test_fields_pass_through_their_knots():
    knots = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5))
    field = drifting_field(2, 3, 4, seed=5, knots=(2, 3, 4))
    assert_close(field, knots)


def test_haze_by_hand():
    frames = torch.full((*SIZE, 3), 0.2)
    hazy, through = haze(frames, torch.full(SIZE, 0.5), beta=2 * math.log(2.0), airlight=(0.8, 0.6, 1.0))
    assert_close(through, torch.full(SIZE, 0.5))
    assert_close(hazy[0, 0, 0] * 255, torch.tensor([128.0, 102.0, 153.0]))  # 0.5, 0.4 and 0.6


def test_depth_falls_from_top_to_bottom_and_drifts():
    depth = hazy_depth(20, 40, 60, seed=0)
    assert depth.shape == (20, 40, 60)
    assert depth.min() >= 0.05
    assert depth[:, :5].mean() > depth[:, -5:].mean() + 0.4
    assert depth.diff(dim=0).abs().max() > 0.0


def test_haze_takes_noise_of_a_deviation_and_a_seed():
    frames = torch.full((4, 64, 64, 3), 0.5)
    depth = torch.zeros(4, 64, 64)
    first, again, other = (haze(frames, depth, noise=0.03, seed=seed)[0] for seed in (0, 0, 1))
    assert float(first.std()) == pytest.approx(0.03, rel=0.05)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
