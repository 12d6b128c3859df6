from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor
from torch.testing import assert_close

from comfyui_vdp.vdp_core.degrade import KINDS, Change, changed, flicker
from comfyui_vdp.vdp_core.degrade.flicker import Extent
from comfyui_vdp.vdp_core.errors import InputError

SIZE = (24, 36, 64)


def extent(count: int = 24, seed: int = 0) -> Extent:
    return Extent(count, *SIZE[1:], Generator().manual_seed(seed))


def of_frames(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def frames(synthetic) -> Tensor:
    clip, _ = synthetic.pan(*SIZE)
    return (clip * 255.0).round() / 255.0


def test_gain_and_gamma_by_hand():
    grey = torch.full((2, 2, 2, 3), 0.25)
    change = Change(gain=of_frames(0.0, math.log(1.5)), gamma=of_frames(math.log(0.5), 0.0))
    assert_close(changed(grey, change)[:, 0, 0, 0], torch.tensor([0.5, 0.375]))


def test_saturation_and_offset_by_hand():
    red = torch.tensor([0.6, 0.1, 0.1]).expand(1, 2, 2, 3)  # its luma is 0.2063
    one = changed(red, Change(saturation=of_frames(-1e9)))
    assert_close(one, torch.full_like(one, 0.2063))
    assert_close(changed(red, Change(offset=of_frames(0.5)))[0, 0, 0], torch.tensor([1.0, 0.6, 0.6]))


def test_no_change_is_none(frames):
    assert torch.equal(changed(frames, Change()), frames)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_truth_of_8_bits_and_its_seed_repeats_it(frames, kind):
    kept = frames.clone()
    (flickering, truth), again, other = (flicker(frames, kind, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(frames, kept)
    assert torch.equal(flickering, again[0])
    assert torch.equal(truth, again[1])
    assert not torch.equal(flickering, other[0])
    for made in (flickering, truth):
        assert made.shape == frames.shape
        assert 0.0 <= made.min() <= made.max() <= 1.0
        assert_close(made * 255, (made * 255).round(), atol=1e-4, rtol=0)
    assert float((flickering - truth).abs().mean()) > 2e-3


@pytest.mark.parametrize("kind", KINDS)
def test_without_strength_nothing_flickers(frames, kind):
    flickering, truth = flicker(frames, kind, seed=0, strength=0.0)
    assert torch.equal(flickering, truth)


@pytest.mark.parametrize("kind", ["mixed", "bands", "seams", "lamp", "high-speed"])
def test_what_does_not_flicker_is_the_truth_of_what_only_does(frames, kind):
    assert_close(flicker(frames, kind, seed=0)[1], frames, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["bands", "lamp", "high-speed"])
def test_the_mean_over_time_of_the_log_gain_is_nothing(kind):
    grey = torch.full((*SIZE, 3), 0.4)
    flickering, truth = flicker(grey, kind, seed=1)
    ratio = (flickering / truth).log()
    assert float(ratio.mean(dim=0).abs().max()) < 2e-3  # of rounding
    assert float(ratio.std()) > 0.02


def test_the_strength_is_the_deviation_of_the_log_gain():
    grey = torch.full((400, 4, 4, 3), 0.4)
    flickering, truth = flicker(grey, "time-lapse", seed=0, strength=0.1)
    ratio = (flickering / truth).log()[:200]  # of the brighter half, where rounding is small
    assert float(ratio.std()) == pytest.approx(0.1, rel=0.1)


def test_bands_move_along_the_rows_by_a_steady_beat():
    gain = KINDS["bands"].change(extent(), 1.0).gain
    assert gain is not None
    assert gain.shape == (24, 36, 1, 3)
    # a wave sampled evenly in time: next + last is the same share of what is between them, in every row
    waves = gain[..., 0].flatten(1)
    share = (waves[2:] + waves[:-2]) / waves[1:-1]
    sure = waves[1:-1].abs() > 0.2
    assert_close(share[sure], share[sure].mean().expand(int(sure.sum())), atol=2e-3, rtol=0)


def test_seams_are_steps_every_16_frames():
    change = KINDS["seams"].change(extent(40), 0.1)
    for part in (change.gain, change.gamma):
        assert part is not None
        steps = part.diff(dim=0).abs().amax(dim=(1, 2, 3))
        assert (steps > 0).nonzero().flatten().tolist() == [15, 31]


def test_a_lamp_leaves_the_far_end_alone(frames):
    flickering, truth = flicker(frames, "lamp", seed=0)
    apart = (flickering - truth).abs().mean(dim=(0, 3))
    assert float(apart.min()) < 0.1 * float(apart.max())


def test_the_published_field_is_constant_over_2_to_12_frames_and_has_its_deviation():
    change = KINDS["published"].change(extent(200), 0.1)
    assert change.offset is not None
    assert float(change.offset.square().mean().sqrt()) == pytest.approx(0.1, rel=0.1)
    starts = change.offset.diff(dim=0).abs().amax(dim=(1, 2, 3)).nonzero().flatten() + 1
    lengths = torch.diff(torch.cat((torch.zeros(1), starts)))
    assert 2 <= lengths.min() <= lengths.max() <= 12
    assert float(change.offset.diff(dim=1).abs().max()) < 0.1  # smooth


def test_grain_and_dirt_of_a_film_belong_to_the_truth():
    grey = torch.full((8, 90, 160, 3), 0.5)
    _, truth = flicker(grey, "film", seed=0)
    assert float((truth - 0.5).flatten().quantile(0.8) - (truth - 0.5).flatten().quantile(0.2)) == pytest.approx(
        2 * 0.8416 * 0.02, rel=0.15
    )
    specks = ((truth - 0.5).abs() > 0.3).flatten(1).any(dim=1)
    assert bool(specks.all())


def test_a_cartoon_is_flat_and_held_for_two_or_three(frames):
    flickering, truth = flicker(frames, "cartoon", seed=0)
    assert_close(truth * 5.0, (truth * 5.0).round(), atol=1e-3, rtol=0)
    new = truth.diff(dim=0).abs().flatten(1).amax(dim=1) > 0
    starts = [0, *(index + 1 for index in range(len(new)) if new[index])]
    assert {after - before for before, after in pairwise(starts)} <= {2, 3}
    held = ~new
    assert bool((flickering.diff(dim=0).abs().flatten(1).amax(dim=1) > 0)[held].all())


def test_dusk_falls_and_a_lamp_goes_on_once():
    grey = torch.full((*SIZE, 3), 0.4)
    means = flicker(grey, "sunset", seed=0, strength=0.0)[1].mean(dim=(1, 2))
    assert bool((means.diff(dim=0) <= 0).all())
    assert float(means[-1, 0] / means[0, 0]) == pytest.approx(math.exp(-0.9), abs=0.01)
    assert means[-1, 2] < means[-1, 0]
    lit = flicker(grey, "lamp switched on", seed=0, strength=0.0)[1].mean(dim=(1, 2, 3))
    steps = (lit.diff() != 0).nonzero().flatten()
    assert len(steps) == 1
    assert SIZE[0] / 3 - 1 <= int(steps) <= 2 * SIZE[0] / 3
    assert lit[-1] > lit[0] + 0.02


def test_an_unknown_kind_is_refused_with_those_there_are(frames):
    with pytest.raises(InputError, match=r"expected one of mixed, bands, .*got 'strobe'"):
        flicker(frames, "strobe", seed=0)
