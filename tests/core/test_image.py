"""The toolbox of pictures, held against kornia and against small cases worked by hand."""

from __future__ import annotations

import kornia
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from comfyui_vdp.vdp_core.image.colour import to_display, to_lab, to_linear
from comfyui_vdp.vdp_core.image.guided import fit_lines, follow
from comfyui_vdp.vdp_core.image.morphology import box_mean, box_sum, dilate, distance_inside, erode
from comfyui_vdp.vdp_core.image.resize import resize, size_within, upsample, working_copy
from comfyui_vdp.vdp_core.image.sample import places_of, rescaled, sample, sample_points


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def places(height: int, width: int) -> torch.Tensor:
    return places_of(torch.arange(height * width), width).view(height, width, 2)


# one convention: pixel centres are whole numbers


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_at_their_centres_pixels_are_read_as_they_are(mode):
    picture = noise(2, 3, 5, 7)
    assert_close(sample(picture, places(5, 7).expand(2, -1, -1, -1), mode=mode), picture)


def test_between_pixels_and_beyond_the_border():
    picture = torch.tensor([[[0.0, 1.0, 4.0]]])
    at = torch.tensor([[0.5, 0.0], [1.25, 0.0], [-3.0, 0.0], [9.0, 2.0]])
    assert_close(sample_points(picture, at), torch.tensor([[0.5, 1.75, 0.0, 4.0]]))


def test_reading_is_what_kornia_reads():
    picture, where = noise(1, 2, 6, 9), noise(1, 4, 5, 2, seed=1) * 8.0
    theirs = kornia.geometry.transform.remap(
        picture.expand(1, -1, -1, -1), where[..., 0], where[..., 1], padding_mode="border", align_corners=True
    )
    assert_close(sample(picture, where), theirs)


def test_a_picture_of_one_pixel_is_that_pixel_everywhere():
    assert sample_points(torch.full((1, 1, 1), 0.3), torch.tensor([[0.0, 0.0], [5.0, -2.0]])).tolist() == [
        [pytest.approx(0.3)] * 2
    ]


@pytest.mark.parametrize("size", [(12, 20), (9, 13)])
def test_resizing_is_reading_at_rescaled_places(size):
    picture = noise(1, 2, 5, 7)
    read = sample(picture, rescaled(places(*size), size, (5, 7))[None])
    assert_close(resize(picture, size), read)


def test_pictures_of_any_size_cover_the_same_area():
    # pixel 0 of 2 covers pixels 0 and 1 of 4: its centre is between theirs
    assert rescaled(torch.tensor([[0.0, 0.0]]), (2, 2), (4, 4)).tolist() == [[0.5, 0.5]]
    assert rescaled(torch.tensor([[0.5, 0.5]]), (4, 4), (2, 2)).tolist() == [[0.0, 0.0]]


def test_outer_knots_lie_on_the_outer_pixels():
    ramp = torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]])
    assert_close(upsample(ramp, (1, 7))[0, 0, 0, [0, -1]], torch.tensor([0.0, 3.0]))


# sizes


def test_the_same_size_gives_the_picture_itself():
    picture = noise(1, 1, 4, 6)
    assert all(resize(picture, (4, 6), mode=mode) is picture for mode in ("bilinear", "bicubic", "area", "nearest"))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area"])
def test_shrinking_averages(mode):
    checks = (places(24, 24).sum(dim=-1) % 2)[None, None]
    assert_close(resize(checks, (6, 6), mode=mode), torch.full((1, 1, 6, 6), 0.5), atol=0.02, rtol=0)


def test_nearest_takes_the_pixel_whose_area_holds_the_centre():
    assert resize(torch.arange(5.0).view(1, 1, 1, 5), (1, 3), mode="nearest").flatten().tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("size", "side", "least", "copy"),
    [
        ((360, 640), 160, 1, (90, 160)),
        ((640, 361), 160, 1, (160, 90)),
        ((90, 160), 160, 1, (90, 160)),
        ((3, 900), 30, 1, (1, 30)),
        ((3, 900), 30, 16, (16, 30)),
        ((3, 20), 30, 16, (3, 20)),
        ((360, 640), 0, 1, (360, 640)),
    ],
)
def test_a_copy_keeps_its_shape_within_a_side(size, side, least, copy):
    assert size_within(*size, side, least=least) == copy


def test_a_working_copy_is_where_it_is_wanted():
    copy = working_copy(noise(2, 8, 16, 3), 4, "meta")
    assert copy.shape == (2, 3, 2, 4)
    assert copy.device.type == "meta"


# windows


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 7, 8])
def test_sums_and_means_over_windows(radius):
    values = noise(2, 3, 12, 19)
    side = 2 * radius + 1
    kernel = torch.ones(1, 1, side, side)
    wanted = F.conv2d(values.flatten(0, 1)[:, None], kernel, padding=radius).view_as(values)
    assert_close(box_sum(values, radius), wanted)
    assert_close(box_mean(values, radius), F.avg_pool2d(values, side, 1, radius, count_include_pad=False))


def test_inside_means_are_kornias():
    values = noise(1, 2, 20, 24)
    inner = (..., slice(3, -3), slice(3, -3))
    assert_close(box_mean(values, 3)[inner], kornia.filters.box_blur(values, 7)[inner])


def test_weights_say_what_counts():
    values, weights = torch.tensor([[1.0, 5.0, 9.0]]), torch.tensor([[1.0, 0.0, 3.0]])
    assert box_mean(values, 1, weights).tolist() == [[1.0, 7.0, 9.0]]


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_dilation_is_kornias(radius):
    marks = (noise(1, 1, 20, 30) > 0.97).float()
    wanted = kornia.morphology.dilation(marks, torch.ones(2 * radius + 1, 2 * radius + 1))
    assert torch.equal(dilate(marks, radius), wanted)
    assert torch.equal(dilate(marks > 0, radius), wanted > 0)


def test_erosion_takes_nothing_off_at_the_picture_s_border():
    marks = torch.ones(5, 6, dtype=torch.bool)
    assert erode(marks, 2).all()
    marks[2, 3] = False
    assert erode(marks, 1).float().sum() == 30 - 9


def test_dilation_of_nothing():
    assert not dilate(torch.zeros(4, 4, dtype=torch.bool), 2).any()


# distances


def test_distances_by_hand():
    marks = torch.ones(5, 5, dtype=torch.bool)
    marks[0, 0] = False
    found = distance_inside(marks, 3)
    assert found[0, 0] == 0.0
    assert found[1, 1] == pytest.approx(2.0**0.5)
    assert found[2, 1] == pytest.approx(5.0**0.5)
    assert found[4, 4] == 3.0


def test_distances_are_opencvs_exact_ones():
    cv2 = pytest.importorskip("cv2")
    marks = noise(40, 50) > 0.05
    wanted = cv2.distanceTransform(marks.numpy().astype("uint8"), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert_close(distance_inside(marks, 6), torch.from_numpy(wanted).clamp(max=6.0))


def test_what_has_no_border_is_as_far_inside_as_it_goes():
    assert (distance_inside(torch.ones(2, 3, 4, dtype=torch.bool), 6) == 6.0).all()


# colours and the guided filter


def test_light_is_kornias():
    values = noise(1, 3, 8, 9)
    assert_close(to_linear(values), kornia.color.rgb_to_linear_rgb(values))
    assert_close(to_display(values), kornia.color.linear_rgb_to_rgb(values))


def test_lab_is_kornias_but_for_digits_of_the_white():
    values = noise(1, 3, 8, 9)
    assert_close(to_lab(values), kornia.color.rgb_to_lab(values), atol=0.05, rtol=0)
    black_and_white = to_lab(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2))
    assert_close(black_and_white[0, :, 0].T, torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]]), atol=0.01, rtol=0)


@pytest.mark.parametrize("kinds", [1, 3])
def test_the_guided_filter_is_kornias_away_from_the_border(kinds):
    guide, field = noise(1, kinds, 40, 50), noise(1, 2, 40, 50, seed=1)
    lines = fit_lines(guide, field, radius=3, eps=0.01)
    ours = follow(box_mean(lines.coefficients, 3), guide)
    inner = (..., slice(8, -8), slice(8, -8))
    assert_close(ours[inner], kornia.filters.guided_blur(guide, field, 7, 0.01)[inner], atol=1e-4, rtol=0)


def test_lines_explain_what_is_linear_in_the_colours_and_nothing_else():
    guide = noise(1, 3, 20, 20)
    linear = (guide * torch.tensor([0.5, -0.2, 0.3]).view(3, 1, 1)).sum(dim=1, keepdim=True) + 0.1
    lines = fit_lines(guide, torch.cat((linear, noise(1, 1, 20, 20, seed=2)), dim=1), radius=4, eps=1e-6)
    share = (lines.explained / lines.variance).mean(dim=(0, 2, 3))
    assert share[0] > 0.999
    assert share[1] < 0.2
    wanted = torch.tensor([0.5, -0.2, 0.3, 0.1])
    assert_close(lines.coefficients[0, 0].mean(dim=(1, 2)), wanted, atol=1e-3, rtol=0)


def test_pixels_without_weight_take_no_part_in_the_fits():
    guide, weights = noise(1, 1, 9, 9), torch.ones(1, 1, 9, 9)
    field = 2.0 * guide
    field[0, 0, 4, 4], weights[0, 0, 4, 4] = 50.0, 0.0
    lines = fit_lines(guide, field, radius=2, eps=0.0, weights=weights)
    assert_close(lines.coefficients[:, :, 0], torch.full((1, 1, 9, 9), 2.0), atol=1e-3, rtol=0)
