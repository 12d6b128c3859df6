"""Figures without a reference, on small pictures worked by hand."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "no_reference.py"
    spec = spec_from_file_location("no_reference", path)
    assert spec is not None and spec.loader is not None
    sys.modules["no_reference"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def grey(levels: Tensor) -> Tensor:
    """A clip of one frame ``(1, H, W, 3)``, from levels of 255."""
    return levels[None, ..., None].expand(-1, -1, -1, 3) / 255.0


def chequered(low: float, high: float, *, blocks: int = 4, size: int = 8) -> Tensor:
    """Levels of squares that are dark and bright by turns."""
    place = torch.arange(blocks * 8) // size
    return torch.where((place[:, None] + place) % 2 == 0, low, high)


def test_all_sides_of_blocks_are_seen_from_three_levels_on(figures: ModuleType) -> None:
    assert figures.blocks(grey(chequered(10.0, 13.0))) == 1.0
    assert figures.blocks(grey(chequered(10.0, 12.0))) == 0.0  # not above 2 levels
    assert figures.blocks(grey(torch.full((32, 32), 10.0))) == 0.0


def test_half_of_the_sides_of_blocks(figures: ModuleType) -> None:
    stripes = torch.where(torch.arange(32) // 8 % 2 == 0, 10.0, 20.0).expand(32, 32)
    assert figures.blocks(grey(stripes)) == 0.5  # those between columns, none between rows


def test_colour_alone_makes_blocks_visible(figures: ModuleType) -> None:
    levels = grey(torch.full((32, 32), 10.0)).clone()
    levels[..., 2] = chequered(10.0, 20.0) / 255.0
    assert figures.blocks(levels) == 1.0


def test_edges_of_the_scene_are_no_blocks(figures: ModuleType) -> None:
    ramp = 4.0 * torch.arange(64.0).expand(32, 64)
    assert figures.blocks(grey(ramp)) == 0.0
    inside = torch.where((torch.arange(40) + 4) // 8 % 2 == 0, 10.0, 20.0).expand(40, 40)
    assert figures.blocks(grey(inside)) == 0.0  # edges through the middles of blocks
    everywhere = torch.where(torch.arange(40) // 4 % 2 == 0, 10.0, 20.0).expand(40, 40)
    assert figures.blocks(grey(everywhere)) == 0.0


def test_a_soft_step_is_seen_as_well(figures: ModuleType) -> None:
    """As loop filters leave it: over two pixels."""
    row = torch.tensor([10.0] * 7 + [12.0, 14.0] + [16.0] * 14 + [14.0, 12.0] + [10.0] * 7)
    # two of the three sides between columns, none between rows
    assert figures.blocks(grey(row.expand(32, 32))) == pytest.approx(0.5 * 2 / 3)


def test_shares_of_white_and_black(figures: ModuleType) -> None:
    levels = torch.tensor([[[255.0, 0.0, 0.0], [254.0, 9.0, 9.0]], [[253.0, 253.0, 253.0], [1.0, 1.0, 0.0]]])
    frames = levels[None] / 255.0
    assert figures.burnt(frames) == 0.5
    assert figures.crushed(frames) == 0.25


def test_saturation_is_weighted_by_value(figures: ModuleType) -> None:
    frames = torch.tensor([[[[0.6, 0.3, 0.3], [0.2, 0.2, 0.2]]]])
    assert figures.saturation(frames) == pytest.approx(0.3 / 0.8)
    assert figures.saturation(0.5 * frames) == pytest.approx(0.3 / 0.8)  # a gain keeps it
    assert figures.saturation(frames - 0.1) == pytest.approx(0.3 / 0.6)  # an offset does not
    assert figures.saturation(torch.zeros(1, 2, 2, 3)) == 0.0


def test_neon_is_bright_and_pure(figures: ModuleType) -> None:
    frames = torch.tensor([[[[0.1, 0.3, 1.0], [0.2, 0.3, 1.0], [0.0, 0.1, 0.3], [0.4, 0.4, 0.04]]]])
    assert figures.neon(frames) == 0.5


def test_colour_in_what_was_black(figures: ModuleType) -> None:
    source = torch.zeros(1, 8, 16, 3)
    source[:, :, 8:] = 0.5
    lifted = source.clone()
    lifted[:, ::2, :8, 2] = 40.0 / 255.0  # every other row is blue: 20 levels in the mean
    lifted[:, :, 8:, 0] = 1.0
    black = figures.black_blocks(source)
    assert black.tolist() == [[[True, False]]]
    assert figures.colour_in_black(source, black) == 0.0
    assert figures.colour_in_black(lifted, black) == pytest.approx(20.0)
    assert figures.colour_in_black(lifted, black & False) == 0.0


def test_noise_is_that_of_flat_parts(figures: ModuleType) -> None:
    place = torch.arange(64)
    levels = torch.full((64, 64), 100.0)
    levels[:, 48:] = torch.rand(64, 16, generator=torch.Generator().manual_seed(0)) * 200.0
    noisy = levels + torch.where((place[:, None] + place) % 2 == 0, 3.0, -3.0)
    flat = figures.flat_parts(grey(noisy))
    assert flat[0, :, :5].all() and not flat[0, :, 6:].any()
    assert figures.noise(grey(levels), flat) == pytest.approx(0.0, abs=1e-4)
    assert figures.noise(grey(noisy), flat) == pytest.approx(6.0, rel=1e-4)  # (3 + 3 + 3 + 3) / 2
    white = grey(torch.full((64, 64), 255.0))
    assert not figures.flat_parts(white).any() and figures.noise(white, figures.flat_parts(white)) == 0.0


def test_white_noise_has_its_deviation(figures: ModuleType) -> None:
    drawn = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    frames = grey(100.0 + 2.0 * drawn)
    assert figures.noise(frames, torch.ones(1, 8, 8, dtype=torch.bool)) == pytest.approx(2.0, rel=0.05)


def test_bands_end_at_steps_between_runs(figures: ModuleType) -> None:
    row = torch.tensor([10.0] * 5 + [12.0] * 5)
    # 9 neighbours in a row less 3 at either side; between columns all are one value
    assert figures.bands(grey(row.expand(10, 10))) == pytest.approx(0.5 * 1 / 3)
    assert figures.bands(grey(torch.tensor([10.0] * 5 + [11.0] * 5).expand(10, 10))) == 0.0  # one level is not seen
    assert figures.bands(grey(torch.tensor([10.0] * 3 + [12.0] * 7).expand(10, 10))) == 0.0  # no run
    assert figures.bands(grey(torch.arange(0.0, 20.0, 2.0).expand(10, 10))) == 0.0  # a ramp


def test_flicker_is_not_a_fade(figures: ModuleType) -> None:
    means = torch.tensor([10.0, 12.0, 14.0, 18.0])
    frames = (means / 255.0).view(4, 1, 1, 1).expand(4, 8, 8, 3)
    assert figures.flicker(frames) == pytest.approx(1.0, rel=1e-4)  # 0 and 2
    assert figures.flicker(frames[:2]) == 0.0
