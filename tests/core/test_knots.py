"""Splines through knots, vectors spread onto them, and pixels laid down in another picture."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.image.knots import bending, fitted, spread, straightened, sums_around, through
from comfyui_vdp.vdp_core.image.splat import Splat


def plane(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """``3 + 2 x - 5 y`` at places between the edges of a picture, 0..1."""
    return 3.0 + 2.0 * columns[None] - 5.0 * rows[:, None]


@pytest.mark.parametrize("size", [(24, 40), (7, 11), (1, 1)])
def test_what_is_linear_in_place_comes_out_exactly_at_any_size(size):
    knots = plane(torch.linspace(0, 1, 4), torch.linspace(0, 1, 6))
    rows, columns = ((torch.arange(side) + 0.5) / side for side in size)
    assert_close(through(knots, size), plane(rows, columns))


def test_a_spline_goes_through_its_knots():
    knots = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    # knots lie on the edges of the picture: the second one a quarter of its side in, between pixels 99 and 100
    fine = through(knots, (400, 400))
    assert_close(fine[:, 99:101, 99:101].mean(dim=(1, 2)), knots[:, 1, 1], atol=2e-3, rtol=0)
    assert_close(fine[:, 199:201, 299:301].mean(dim=(1, 2)), knots[:, 2, 3], atol=2e-3, rtol=0)


def test_knots_take_the_mean_of_what_is_around_them():
    vectors = torch.tensor([[[1.0, 1.0, 5.0, 5.0]]])
    weight = torch.ones(1, 4)
    # pixels' centres lie at 1/8, 3/8, 5/8 and 7/8 between the two knots
    found = spread(vectors, weight, (2, 2), little=0.0)
    left = (1.0 * (7 / 8 + 5 / 8) + 5.0 * (3 / 8 + 1 / 8)) / 2.0
    assert_close(found[0, 0], torch.tensor([left, 6.0 - left]))


def test_a_knot_with_nothing_around_it_gets_nothing():
    vectors, weight = torch.ones(2, 8, 8), torch.zeros(8, 8)
    weight[:, :2] = 1.0
    found = spread(vectors, weight, (3, 5), little=0.5)
    assert found[:, :, 3:].eq(0.0).all()
    assert (found[:, :, 0] > 0.5).all()


def test_the_nearest_spline_is_the_one_that_values_came_from():
    knots = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0))
    values = through(knots, (36, 49))
    weight = torch.rand(3, 36, 49, generator=torch.Generator().manual_seed(1))
    assert_close(fitted(values, weight, (4, 7), little=1e-6), knots, atol=1e-4, rtol=0)


def test_knots_that_nothing_tells_of_stay():
    weight = torch.zeros(1, 40, 40)
    weight[:, :, :8] = 1.0
    found = fitted(torch.ones(1, 40, 40), weight, (4, 6), little=1e-4)
    # beyond a cell and the one that its spline reaches into
    assert found[0, :, 4:].abs().max() < 1e-6
    assert_close(through(found, (40, 40))[:, :, :8], torch.ones(1, 40, 8), atol=1e-3, rtol=0)


def test_a_pixel_is_shared_between_the_four_around_its_place():
    splat = Splat((3, 4), 1)
    splat.lay(torch.tensor([[[8.0]]]), torch.tensor([[[1.25]], [[0.5]]]), torch.tensor([[0.5]]))
    shares = torch.zeros(3, 4)
    shares[:2, 1:3] = 0.5 * torch.tensor([[0.75, 0.25], [0.75, 0.25]]) * 0.5
    assert_close(splat.sums, torch.stack((8.0 * shares, shares)))


def test_what_lies_outside_or_weighs_nothing_is_not_laid():
    splat = Splat((3, 4), 2)
    places = torch.tensor([[[-0.1, 3.5, 1.0, 1.0]], [[1.0, 1.0, 2.5, 1.0]]])
    splat.lay(torch.ones(2, 1, 4), places, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    assert splat.sums.eq(0.0).all()


def test_sums_around_knots_count_each_pixel_once():
    values = torch.rand(2, 11, 17, generator=torch.Generator().manual_seed(0))
    assert_close(sums_around(values, (4, 6)).sum(dim=(1, 2)), values.sum(dim=(1, 2)))


def test_how_much_knots_bend():
    """x squared has second differences of 2 across; x y has a twist of 1, which counts twice."""
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    assert_close(bending(torch.stack((3.0 + 2.0 * x - 5.0 * y, y))), torch.zeros(6, 7))
    assert_close(bending(torch.stack((x.square(), y)))[:, 1:-1], torch.full((6, 5), 4.0))
    assert_close(bending(torch.stack((x * y, y)))[1:-1, 1:-1], torch.full((4, 5), 2.0))


def bumpy() -> tuple[torch.Tensor, torch.Tensor]:
    """Knots along a plane, and the same with noise."""
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(12.0), indexing="ij")
    flat = torch.stack((5.0 * x + y, 4.0 * y - x))
    return flat, flat + 0.1 * torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(0))


def test_knots_of_which_little_is_known_lie_straight():
    flat, rough = bumpy()
    little = torch.tensor([1e-2, 0.0, 1e-2]).view(3, 1, 1).expand(3, 9, 12)
    found = straightened(rough, little, torch.full((9, 12), 1e4))
    assert bending(found).sum() < 1e-2 * bending(rough).sum()
    assert (found - flat).abs().mean() < 0.5 * (rough - flat).abs().mean()


def test_knots_that_are_known_stay_and_those_between_follow():
    _, rough = bumpy()
    told = torch.tensor([1e6, 0.0, 1e6]).view(3, 1, 1).repeat(1, 9, 12)
    assert_close(straightened(rough, told, torch.ones(9, 12)), rough, atol=1e-4, rtol=0)
    flat, off = bumpy()[0], bumpy()[0].clone()
    off[:, 4, 5] += 1.0
    told[:, 4, 5] *= 1e-9
    assert_close(straightened(off, told, torch.ones(9, 12)), flat, atol=5e-3, rtol=0)


def test_a_knot_stays_only_along_what_is_known_of_it():
    """A vertical edge tells across, not down."""
    flat, off = bumpy()[0], bumpy()[0].clone()
    off[:, 4, 5] += 1.0
    told = torch.tensor([1e6, 0.0, 1e6]).view(3, 1, 1).repeat(1, 9, 12)
    told[2, 4, 5] = 1e-3
    found = straightened(off, told, torch.ones(9, 12))
    assert_close(found[0], off[0], atol=1e-3, rtol=0)
    assert_close(found[1], flat[1], atol=5e-3, rtol=0)


def test_straightening_turns_with_what_is_known():
    """Known along a diagonal alone: what is off across it goes, what is off along it stays."""
    flat = bumpy()[0]
    told = torch.tensor([1e6, 0.0, 1e6]).view(3, 1, 1).repeat(1, 9, 12)
    told[:, 4, 5] = torch.tensor([5e5, 5e5, 5e5])
    for way, stays in (((1.0, 1.0), 1.0), ((1.0, -1.0), 0.0)):
        off = flat.clone()
        off[:, 4, 5] += torch.tensor(way)
        left = (straightened(off, told, torch.ones(9, 12)) - flat)[:, 4, 5]
        assert_close(left, stays * torch.tensor(way), atol=5e-3, rtol=0)
