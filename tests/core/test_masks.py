from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.image.selection import as_labels, as_mask, as_matte, odd_masks
from comfyui_vdp.vdp_core.media import clip as video

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


@pytest.mark.parametrize(
    ("first", "second", "around"),
    [((1, 1, 1), (2, 2, 2), (255, 255, 255)), ((128, 0, 0), (0, 128, 0), (224, 224, 192))],
    ids=["levels", "map of VOC"],
)
@pytest.mark.parametrize("width", [1, 2, 5])
def test_what_data_sets_draw_around_objects_is_none(first, second, around, width):
    """The id 255 of PASCAL VOC and others: nobody can tell there."""
    picture = torch.zeros(2, 60, 80, 3)
    wanted = torch.zeros(2, 60, 80)
    for number, colour, (top, bottom, left, right) in ((1, first, (15, 45, 8, 35)), (2, second, (10, 50, 45, 72))):
        picture[:, top - width : bottom + width, left - width : right + width] = torch.tensor(around) / 255
        picture[:, top:bottom, left:right] = torch.tensor(colour) / 255
        wanted[:, top:bottom, left:right] = number
    labels, count = as_labels(picture)
    assert count == 2
    assert_close(labels, wanted)
    assert_close(as_mask(picture), (wanted > 0).float())


def test_white_beside_levels_may_be_an_object():
    picture = torch.zeros(1, 60, 80, 3)
    picture[:, 10:50, 45:72] = 1 / 255
    picture[:, 15:45, 8:35] = 1.0
    assert as_labels(picture)[1] == 2


def test_thin_white_is_a_mask_on_any_dark_ground():
    for ground in (0, 1, 16):
        picture = torch.full((1, 60, 80, 3), ground / 255)
        picture[:, 20:22, 10:70] = 1.0
        for read in (as_mask, as_matte):
            assert_close((read(picture) > 0.5).float(), (picture[..., 0] == 1.0).float())


def test_white_that_shares_no_frame_with_levels_is_an_object():
    picture = torch.zeros(8, 60, 80, 3)
    picture[:3, 10:30, 10:30] = 1.0
    picture[3:, 10:30, 10:50] = 1 / 255
    labels, count = as_labels(picture)
    assert count == 2
    assert_close(labels[0, 20, 20], torch.tensor(2.0))


def test_wires_beside_a_shadow_stay():
    picture = torch.zeros(2, 60, 80, 3)
    picture[:, 40:55, 10:70] = 64 / 255
    picture[:, 10:12, 10:70] = picture[:, 10:35, 30:32] = 1.0
    assert_close(as_matte(picture)[:, 10, 20], torch.ones(2))


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


# Files as people have them

FILES = Path(__file__).parents[1] / "files"


def read(path: Path) -> torch.Tensor:
    """Pictures with the alpha that they have."""
    clip = video.read_clip(path)
    return torch.cat((clip.frames, clip.alpha[..., None]), dim=-1) if clip.has_alpha else clip.frames


@pytest.fixture(scope="module")
def reference() -> torch.Tensor:
    return as_mask(read(FILES / "mask_reference.png"))


@pytest.mark.parametrize("colour", ["white", "black"])
def test_a_shape_in_the_alpha_is_the_mask(reference, colour):
    pictures = read(FILES / f"mask_in_alpha_{colour}.png")
    assert_close(as_mask(pictures), reference)
    assert_close(as_matte(pictures), reference)
    assert odd_masks(pictures) == ["mask: the shape in its alpha is taken, as its colours say nothing"]


@pytest.mark.parametrize(("name", "count"), [("ids_1_2", 2), ("davis_palette_8", 8)])
def test_every_id_is_selected_and_an_object(name, count):
    path = FILES / f"mask_{name}.png"
    wanted = torch.from_numpy(np.array(Image.open(path)))[None].float()  # indices, not colours
    labels, objects = as_labels(read(path))
    assert objects == count
    assert_close(labels, wanted)
    assert_close(as_mask(read(path)), (wanted > 0).float())
    assert_close(as_matte(read(path)), (wanted > 0).float())


def test_a_mask_that_looks_inverted(reference):
    pictures = read(FILES / "mask_inverted.png")
    (said,) = odd_masks(pictures)
    assert "covers 93 % of the frame and most of its border" in said
    assert odd_masks(1.0 - reference) == [said]
    assert odd_masks(reference) == []
    assert odd_masks(torch.zeros(2, 4, 4)) == []


def saved(tmp_path: Path, picture: Image.Image, name: str = "mask.png", **more: object) -> torch.Tensor:
    picture.save(tmp_path / name, **more)
    return read(tmp_path / name)


def ellipse(size: tuple[int, int] = (96, 64), box: tuple[int, ...] = (20, 12, 60, 50), scale: int = 1) -> Image.Image:
    picture = Image.new("L", (size[0] * scale, size[1] * scale))
    ImageDraw.Draw(picture).ellipse([side * scale for side in box], fill=255)
    return picture


def shape_of(picture: Image.Image) -> torch.Tensor:
    return (torch.from_numpy(np.array(picture))[None] > 127).float()


def two_ids(first: object, second: object, mode: str = "L") -> Image.Image:
    picture = Image.new(mode, (96, 64))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((6, 6, 40, 50), fill=first)
    draw.rectangle((50, 20, 80, 60), fill=second)
    return picture


TWO = (torch.from_numpy(np.array(two_ids(1, 2)))[None]).float()


@pytest.mark.parametrize(
    ("picture", "more"),
    [
        (lambda: ellipse().convert("1"), {}),
        (lambda: ellipse().point(lambda value: value // 255), {}),
        (lambda: ellipse().point(lambda value: value // 2), {}),
        (lambda: Image.fromarray(np.array(ellipse()).astype(np.uint16) * 257), {}),
        (lambda: Image.fromarray(np.array(ellipse()).astype(np.uint16) // 255), {}),
        (lambda: ellipse(), {"name": "mask.jpg", "quality": 40}),
        (lambda: ellipse(), {"name": "mask.jpg", "quality": 90}),
        (lambda: ellipse(box=(24, 16, 64, 48)).convert("RGB"), {"name": "mask.jpg", "quality": 60}),
        (lambda: Image.merge("LA", (Image.new("L", (96, 64), 255), ellipse())), {}),
        (lambda: Image.merge("LA", (ellipse(), Image.new("L", (96, 64), 255))), {}),
    ],
    ids=[
        "1 bit", "0 and 1", "half grey", "16 bits", "16 bits, 0 and 1", "poor jpeg", "good jpeg",
        "colour jpeg", "alpha of grey", "opaque grey and alpha",
    ],
)  # fmt: skip
def test_one_object_however_it_was_saved(tmp_path, picture, more):
    pictures = saved(tmp_path, picture(), **more)
    wanted = shape_of(ellipse(box=(24, 16, 64, 48)) if picture().mode == "RGB" else ellipse())
    assert float((as_mask(pictures) - wanted).abs().mean()) < 0.006  # of pixels, all at the border
    assert as_labels(pictures)[1] == 1


@pytest.mark.parametrize(
    ("first", "second", "mode"),
    [
        (1, 2, "L"),
        (3, 200, "L"),
        (127, 255, "L"),
        ((128, 0, 0), (0, 128, 0), "RGB"),
        ((64, 0, 0), (192, 0, 0), "RGB"),
        ((255, 0, 0), (0, 255, 0), "RGB"),
        (1, 2, "I;16"),
        (20000, 60000, "I;16"),
    ],
)
def test_two_objects_however_they_were_saved(tmp_path, first, second, mode):
    pictures = saved(tmp_path, two_ids(first, second, mode))
    labels, count = as_labels(pictures)
    assert count == 2
    assert_close(labels, TWO)
    assert_close(as_mask(pictures), (TWO > 0).float())


@pytest.mark.parametrize("quality", [60, 90])
def test_two_coloured_objects_in_a_lossy_file(tmp_path, quality):
    pictures = saved(tmp_path, two_ids((128, 0, 0), (0, 0, 128), "RGB"), "mask.jpg", quality=quality, subsampling=0)
    labels, count = as_labels(pictures)
    assert count == 2
    assert float((labels != TWO).float().mean()) < 0.03
    assert float((as_mask(pictures) != (TWO > 0)).float().mean()) < 0.03


@pytest.mark.parametrize("kind", ["feathered", "smooth edge"])
def test_soft_borders_are_opacity(tmp_path, kind):
    smooth = ellipse(scale=4).resize((96, 64), Image.Resampling.BOX)
    soft = smooth if kind == "smooth edge" else ellipse().filter(ImageFilter.GaussianBlur(6))
    pictures = saved(tmp_path, soft)
    assert_close(as_mask(pictures), shape_of(soft))
    assert_close(as_matte(pictures)[0], torch.from_numpy(np.array(soft)) / 255.0)
    assert as_labels(pictures)[1] == 1


def test_noise_around_black_and_white_selects_nothing_else():
    shape = shape_of(ellipse())
    noise = 8.0 / 255.0 * torch.rand(shape.shape, generator=torch.Generator().manual_seed(0))
    pictures = (shape + noise - 4.0 / 255.0).clamp(0.0, 1.0)[..., None].expand(-1, -1, -1, 3)
    assert_close(as_mask(pictures), shape)


def test_colours_that_say_something_go_before_alpha():
    """White on black, with corners that cannot be seen: what is white there is not selected."""
    pictures = torch.zeros(1, 8, 8, 4)
    pictures[..., 3] = 1.0
    pictures[:, 2:5, 2:5, :3] = 1.0
    pictures[:, 6:, 6:] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    wanted = torch.zeros(1, 8, 8)
    wanted[:, 2:5, 2:5] = 1.0
    assert_close(as_mask(pictures), wanted)
    assert odd_masks(pictures) == []


def test_ids_of_32_bits(tmp_path):
    numbers = np.zeros((12, 16), np.uint32)
    numbers[2:8, 2:7], numbers[4:10, 9:15] = 1, 2
    tifffile.imwrite(tmp_path / "a.tif", numbers)
    labels, objects = as_labels(video.read_clip(tmp_path / "a.tif").frames)
    assert objects == 2
    assert_close(labels[0], torch.from_numpy(numbers.astype(np.float32)))


def test_ids_are_the_same_objects_in_every_frame():
    """An object that is not in the first frame does not change the numbers of the others."""
    ids = torch.zeros(2, 16, 16)
    ids[0, 2:6, 2:6], ids[1, 2:6, 2:6], ids[1, 9:14, 9:14] = 2, 2, 1
    labels, count = as_labels((ids / 255.0)[..., None].expand(-1, -1, -1, 3))
    assert count == 2
    assert_close(labels, ids)
