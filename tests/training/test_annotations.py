"""Files of annotations as COCO and YouTube-VIS have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_vdp.training import composites
from comfyui_vdp.training.annotations import _lengths, mask_of, read_outlined
from comfyui_vdp.vdp_core.errors import InputError

SQUARE = [[2, 1, 6, 1, 6, 5, 2, 5]]
"""Columns 2 to 5, rows 1 to 4."""
PEOPLE = [{"id": 1, "name": "person"}, {"id": 7, "name": "kite"}]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def picture(path: Path, level: int = 90, size: tuple[int, int] = (8, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)


def square() -> np.ndarray:
    mask = np.zeros((8, 12), bool)
    mask[1:5, 2:6] = True
    return mask


def test_polygons_cover_the_pixels_that_are_half_inside() -> None:
    assert np.array_equal(mask_of([SQUARE], (8, 12)), square())
    shifted = (np.array(SQUARE) + 0.25).tolist()
    assert np.array_equal(mask_of([shifted], (8, 12)), square())
    assert mask_of([[[0, 0, 12, 0, 12, 8, 0, 8]]], (8, 12)).all()
    assert not mask_of([], (8, 12)).any()


def test_several_parts_are_one_mask() -> None:
    two = mask_of([[*SQUARE, [8, 0, 9, 0, 9, 1, 8, 1]], [[0, 7, 1, 7, 1, 8, 0, 8]]], (8, 12))
    assert two[0, 8] and two[7, 0] and np.count_nonzero(two) == 18


def test_run_lengths_go_down_the_columns() -> None:
    wanted = [[False, True, False, False], [True, False, False, True]]
    assert mask_of([{"size": [2, 4], "counts": [1, 2, 4, 1]}], (2, 4)).tolist() == wanted
    # 1, 2, 4, and 1 as its difference to 2: -1, all five bits of which are set
    assert mask_of([{"size": [2, 4], "counts": "124O"}], (2, 4)).tolist() == wanted


def test_strings_of_run_lengths() -> None:
    assert _lengths("") == []
    assert _lengths("0?") == [0, 15]
    assert _lengths("`0X1") == [16, 40]  # 16 has the bit of a sign, so that another digit follows; 40 is 8 + 32
    assert _lengths("56O5N") == [5, 6, -1, 11, -3]


@pytest.mark.parametrize(
    "outline",
    [
        {"counts": [1, 2]},
        {"counts": "1"},
        {"counts": [-1, 9]},
        {"counts": ["a"]},
        {},
        [[1, 2, 3]],
        [[1, 1, 2, 2]],
        [["x"] * 6],
    ],
)
def test_what_is_no_outline_is_refused(outline: Any) -> None:
    with pytest.raises(InputError, match=r"run lengths do not cover a picture of 4x2 pixels|a polygon is not three"):
        mask_of([outline], (2, 4))


@pytest.mark.parametrize("folder", ["train2017", "images", "annotations", "."])
def test_pictures_of_people(tmp_path: Path, folder: str) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / folder / name)
    images = [{"id": n, "file_name": f"{name}.png", "height": 8, "width": 12} for n, name in enumerate("abc")]
    runs = {"size": [8, 12], "counts": [88, 8]}
    annotations = [
        {"image_id": 0, "category_id": 1, "segmentation": SQUARE},
        {"image_id": 0, "category_id": 1, "segmentation": runs},
        {"image_id": 1, "category_id": 7, "segmentation": SQUARE},
    ]
    content = {"images": images, "annotations": annotations, "categories": PEOPLE}
    path = write(tmp_path / "annotations" / "instances_train2017.json", content)
    (found,) = read_outlined(path)  # a kite is no person, and c has nothing
    assert found.files == (tmp_path / folder / "a.png",)
    wanted = square()
    wanted[:, 11] = True
    assert np.array_equal(found.mask(0), wanted)
    content["categories"] = [{"id": 7, "name": "kite"}]
    assert len(read_outlined(write(path, content))) == 2


def test_clips_of_people_become_segments(tmp_path: Path) -> None:
    names = [f"bus/{number:05}.png" for number in (0, 5, 10)]
    for number, name in enumerate(names):
        picture(tmp_path / "JPEGImages" / name, level=60 * number, size=(16, 24))
    picture(tmp_path / "JPEGImages" / "bus" / "00003.png", level=255)  # not annotated
    content = {
        "videos": [{"id": 3, "file_names": names, "height": 8, "width": 12}],
        "annotations": [{"video_id": 3, "category_id": 1, "segmentations": [SQUARE, None, SQUARE]}],
        "categories": PEOPLE,
    }
    (source,) = composites.read_segments(write(tmp_path / "instances.json", content))
    assert source.outlined is not None and source.path == tmp_path / "JPEGImages" / "bus"
    assert [int(source.outlined.mask(index).sum()) for index in range(3)] == [16, 0, 16]
    frames, masks = composites._read_outlined(source.outlined, np.array([2, 1, 0]), 512)
    assert frames.mean(dim=(1, 2, 3)).mul(255).round().tolist() == [120, 60, 0]
    assert masks.shape == (3, 1, 16, 24) and masks.sum(dim=(1, 2, 3)).tolist() == [64, 0, 64]
    frames, masks = composites.segments([source], np.random.default_rng(1), frames=4, size=(16, 16))
    assert frames.shape == (4, 3, 16, 16) and set(masks.unique().tolist()) <= {0.0, 1.0}
    assert torch.isfinite(frames).all()


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', '{"images": [], "annotations": [{"image_id": 1}]}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"a\.json: is no file of annotations as COCO or YouTube-VIS have them"):
        read_outlined(write(tmp_path / "a.json", content))


def test_files_that_outline_nobody_or_pictures_that_are_missing_are_refused(tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": "gone.png", "height": 8, "width": 12}]
    content: dict[str, Any] = {"images": images, "annotations": [], "categories": PEOPLE}
    with pytest.raises(InputError, match=r"a\.json: outlines nothing called person"):
        read_outlined(write(tmp_path / "a.json", content))
    content["annotations"] = [{"image_id": 0, "category_id": 1, "segmentation": [[1, 1]]}]
    with pytest.raises(InputError, match=r"gone\.png: there is no such picture"):
        read_outlined(write(tmp_path / "a.json", content))
    picture(tmp_path / "gone.png")
    (found,) = read_outlined(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"gone\.png: a polygon is not three or more places"):
        found.mask(0)


def test_run_lengths_of_another_size_are_refused():
    with pytest.raises(InputError, match="do not cover a picture of 4x6"):
        mask_of([{"size": [4, 6], "counts": [3, 21]}], (6, 4))
    with pytest.raises(InputError, match="a polygon is not three or more places"):
        mask_of([None], (6, 4))
