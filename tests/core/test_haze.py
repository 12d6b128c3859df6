from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.denoise.noise import Noise
from comfyui_vdp.vdp_core.tasks.dehaze.priors import (
    block_extremes,
    followed_colours,
    initial_airlight,
    transmission_bounds,
)

AIR = torch.tensor([0.8, 0.7, 0.9])


def grey(values: torch.Tensor) -> torch.Tensor:
    """``(T, h, w)`` as frames ``(T, 3, h, w)``."""
    return values[:, None].expand(-1, 3, -1, -1).contiguous()


# followed colours


@pytest.mark.parametrize("count", [2, 5, 20])
def test_points_keep_their_colour_both_ways(synthetic, count):
    frames, flow = synthetic.pan(count, 32, 48)
    points = followed_colours(frames.movedim(-1, 1), flow)
    assert len(points) > 1000
    earlier = points.first[:, 2] < points.second[:, 2]
    assert 0.4 < earlier.float().mean() < 0.6
    assert (points.before - points.after).abs().mean() < 0.01
    assert points.second.abs().max() <= 1.0


def test_places_are_where_the_flow_leads(synthetic):
    frames, flow = synthetic.pan(5, 32, 48, motion=(2.0, 1.0))
    points = followed_colours(frames.movedim(-1, 1), flow, spans=(1, 4))
    moved = (points.second - points.first) * torch.tensor([48, 32, 5]) / 2
    assert_close(moved[:, :2], -moved[:, 2:] * torch.tensor([2.0, 1.0]), atol=1e-3, rtol=0)
    assert set(moved[:, 2].round().int().tolist()) == {-4, -1, 1, 4}


def test_colours_lie_on_lines_through_the_airlight(synthetic):
    clean, flow = synthetic.pan(6, 32, 48)
    through = torch.linspace(0.8, 0.4, 6).view(6, 1, 1, 1)
    points = followed_colours((clean * through + AIR * (1 - through)).movedim(-1, 1), flow)
    share = through.flatten()[((points.second[:, 2] + 1) * 3.0).long()]
    share = (share / through.flatten()[((points.first[:, 2] + 1) * 3.0).long()])[:, None]
    assert (points.after - AIR - share * (points.before - AIR)).abs().mean() < 0.005


def test_at_most_as_many_points_as_asked_for_and_the_seed_chooses(synthetic):
    frames, flow = synthetic.pan(5, 32, 48)
    first, again, other = (followed_colours(frames.movedim(-1, 1), flow, limit=500, seed=seed) for seed in (1, 1, 2))
    assert 100 < len(first) <= 500
    assert torch.equal(first.first, again.first)
    assert not torch.equal(first.first[:50], other.first[:50])


# extremes of blocks


def test_extremes_by_hand():
    frames = torch.full((4, 3, 20, 30), 0.5)
    frames[0, 1, 3, 4] = 0.1  # one value of the 400 of its block lies below the hundredth
    frames[:, 2, 10:12, 20:23] = 0.2
    frames[:, 0, :10, 10:20] = 0.9
    blocks = block_extremes(frames, block=10, length=4)
    assert blocks.low.shape == (6, 3)
    assert_close(blocks.low[0], torch.full((3,), 0.5))
    assert_close(blocks.low[5], torch.tensor([0.5, 0.5, 0.2]))
    assert_close(blocks.high[1], torch.tensor([0.9, 0.5, 0.5]))
    assert_close(blocks.places[0], torch.tensor([2 * 5 / 30 - 1, 2 * 5 / 20 - 1, 0.0]))


@pytest.mark.parametrize("size", [(2, 16, 16), (7, 33, 17), (5, 4, 90)])
def test_blocks_of_any_clip(size):
    blocks = block_extremes(grey(torch.rand(size)))
    assert len(blocks.places) == math.ceil(size[0] / 2) * max(1, size[1] // 10) * max(1, size[2] // min(10, size[1]))
    assert blocks.places.abs().max() <= 1.0
    assert bool((blocks.low <= blocks.high).all())


def test_extremes_are_freed_from_noise():
    generator = torch.Generator().manual_seed(0)
    sigma = 0.01
    # flat blocks, and blocks half of which is dark
    clean = torch.full((8, 3, 40, 60), 0.6)
    clean[:, :, :20, ::10] = clean[:, :, :20, 1::10] = 0.3
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
    noise = Noise((sigma**2,) * 3, (0.0,) * 3)
    raw, freed, wanted = (block_extremes(frames, one) for frames, one in ((noisy, None), (noisy, noise), (clean, None)))
    for name in ("low", "high"):
        off, less = ((getattr(one, name) - getattr(wanted, name)).mean().abs() for one in (raw, freed))
        assert off > 2.0 * sigma
        assert less < 0.65 * off
    assert_close(block_extremes(clean, noise.scaled(0.0)).low, wanted.low)


@pytest.mark.parametrize("brighter", [1.0, 1.21, 0.81])
def test_the_airlight_has_the_densest_haze_s_colour_and_half_the_logarithm_of_what_is_bright(brighter):
    frames = torch.zeros(4, 3, 40, 40)
    frames[:, :, ::2] = brighter * AIR.mean()
    frames[:, :, :10, :10] = AIR.view(3, 1, 1)
    assert_close(initial_airlight(block_extremes(frames)), AIR * brighter**0.5)


# what the blocks say of t


def test_black_and_white_give_the_transmission():
    black, white = torch.zeros(3), torch.ones(3)
    for t in (0.9, 0.3):
        values = [t * colour + (1 - t) * AIR for colour in (black, white)]
        picture = torch.cat([value.view(1, 3, 1, 1).expand(1, 3, 20, 10) for value in values], dim=3)
        dark, bright = transmission_bounds(block_extremes(picture, block=20), AIR)
        assert_close(dark.exp(), torch.tensor([t]), atol=1e-5, rtol=0)
        assert_close(bright.exp(), torch.tensor([t]), atol=1e-5, rtol=0)


def test_no_clear_colour_lies_outside_at_that_transmission(synthetic):
    clean, _ = synthetic.pan(2, 20, 20)
    frames = (0.5 * clean + 0.5 * AIR).movedim(-1, 1)
    dark, bright = transmission_bounds(block_extremes(frames, share=0.0), AIR)
    assert 0.3 < float(dark.exp().max()) <= 0.5 + 1e-6
    assert float(bright.exp().max()) <= 0.5 + 1e-6


def test_the_airlight_itself_is_no_more_than_thick_haze():
    dark, bright = transmission_bounds(block_extremes(AIR.view(1, 3, 1, 1).expand(2, 3, 16, 16)), AIR)
    assert dark.isfinite().all()
    assert bright.isfinite().all()
    assert dark.max() < math.log(0.05)
