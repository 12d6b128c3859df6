from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.checks import as_mask, as_matte
from comfyui_vdp.vdp_core.errors import InputError, ShapeError

SHAPE = torch.zeros(3, 6, 8)
SHAPE[0, 1:4, 2:5] = 1.0
SHAPE[2, :, 4:] = 1.0  # the frame between is empty


def painted(*colour: float) -> torch.Tensor:
    return SHAPE[..., None] * torch.tensor(colour)


@pytest.mark.parametrize(
    "pictures",
    [
        painted(1.0, 1.0, 1.0),
        painted(1.0),
        painted(1 / 255, 1 / 255, 1 / 255),  # labels 0 and 1
        painted(128 / 255, 0.0, 0.0),  # a palette's first colour
        painted(0.0, 0.0, 0.9),
        painted(1.0, 1.0, 1.0, 1.0),
        0.04 + 0.9 * painted(1.0, 1.0, 1.0),  # lossy video
    ],
    ids=["white", "grey", "labels", "palette", "blue", "alpha", "video"],
)
@pytest.mark.parametrize("read", [as_mask, as_matte])
def test_pictures_of_all_kinds_show_one_mask(pictures, read):
    found = read(pictures)
    assert found.shape == SHAPE.shape
    assert_close((found > 0.5).float(), SHAPE)


def test_all_colours_of_a_palette_count():
    pictures = painted(0.5, 0.5, 0.5)
    pictures[2] = SHAPE[2, :, :, None] * torch.tensor([0.0, 0.5, 0.0])
    assert_close(as_mask(pictures), SHAPE)


def test_black_pictures_are_an_empty_mask():
    assert not as_mask(torch.zeros(2, 4, 4, 3)).any()
    assert not as_matte(torch.zeros(2, 4, 4, 3)).any()


def test_a_mask_keeps_its_values():
    soft = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    assert_close(as_mask(soft), soft)
    assert_close(as_mask(soft[0]), soft[:1])
    assert_close(as_mask(soft[:, None]), soft)
    assert_close(as_matte(soft), soft)


def test_a_soft_matte_is_cut_as_a_mask_and_kept_for_measuring():
    soft = SHAPE * 0.7 + 0.1
    pictures = soft[..., None].expand(-1, -1, -1, 3)
    assert_close(as_mask(pictures), SHAPE)
    assert_close(as_matte(pictures), soft)


@pytest.mark.parametrize("read", [as_mask, as_matte])
def test_what_is_no_mask_is_refused(read):
    broken = torch.zeros(2, 4, 4, 3)
    broken[1, 0, 0] = torch.nan
    with pytest.raises(InputError, match="object: frame 1 holds NaN"):
        read(broken, "object")
    with pytest.raises(InputError, match="object: holds NaN"):
        read(broken[..., 0], "object")
    with pytest.raises(InputError, match=r"object: .* divide by the type's maximum"):
        read(torch.ones(2, 4, 4, 3, dtype=torch.uint8), "object")
    with pytest.raises(ShapeError, match=r"object: expected .* got \(2, 5, 4, 7\)"):
        read(torch.zeros(2, 5, 4, 7), "object")
    with pytest.raises(ShapeError, match="object: expected a mask tensor"):
        read(None, "object")


def test_what_comes_in_stays_as_it_is():
    pictures = painted(0.3, 0.2, 0.1)
    before = pictures.clone()
    as_mask(pictures)
    as_matte(pictures)
    assert_close(pictures, before, rtol=0, atol=0)
