"""Masks of people that a data set gives as outlines: files of annotations as COCO and YouTube-VIS have them.

COCO's file lists ``images`` and ``annotations`` with a ``segmentation`` each, YouTube-VIS's ``videos`` and annotations
with one for each frame in ``segmentations``, or null. A segmentation is polygons, ``[[x, y, x, y, ...], ...]`` in
pixels, the first of which goes from 0 to 1; or ``{"size": [h, w], "counts": ...}``, run lengths of 0 and 1 by turns
down the columns, as a list, or as a string of differences (Lin et al., "Microsoft COCO", ECCV 2014, and its tools).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..vdp_core.errors import InputError

__all__ = ["Outlined", "mask_of", "read_outlined"]

PERSON = "person"
"""Name of the category that counts, where a file has it; else all do."""
PICTURES = ("images", "JPEGImages", "frames")
FINER = 4
"""Polygons are drawn so many times as large; pixels that are half inside count."""


@dataclass(frozen=True)
class Outlined:
    """A picture, or the frames of a clip, and what is outlined in each."""

    files: tuple[Path, ...]
    segmentations: tuple[tuple[Any, ...], ...]
    """Of each frame, as the file has them."""
    size: tuple[int, int]
    """(h, w) that they are meant for."""

    def mask(self, index: int) -> np.ndarray:
        """All that is outlined in a frame, ``(h, w)``, False or True.

        Raises:
            InputError: an outline cannot be used.
        """
        try:
            return mask_of(self.segmentations[index], self.size)
        except InputError as error:
            raise InputError(f"{self.files[index]}: {error}") from None


def read_outlined(path: Path) -> list[Outlined]:
    """The pictures or clips of a file of annotations that have something outlined; people, where it knows them.

    Pictures are looked for beside the file and one folder above, in ``images``, ``JPEGImages``, ``frames`` and in
    the folder that the end of the file's name says, such as ``train2017`` of ``instances_train2017.json``.

    Raises:
        InputError: it is no such file, nothing is outlined in it, or a picture is missing.
    """
    try:
        file = json.loads(path.read_text(encoding="utf-8"))
        kinds = {kind["id"] for kind in file.get("categories", ()) if kind["name"].casefold() == PERSON}
        chosen = [one for one in file["annotations"] if not kinds or one["category_id"] in kinds]
        found = _clips(file["videos"], chosen) if "videos" in file else _pictures(file["images"], chosen)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is no file of annotations as COCO or YouTube-VIS have them") from None
    if not found:
        raise InputError(f"{path}: outlines nothing{f' called {PERSON}' if kinds else ''}")
    folder = _folder_of(path, found[0].files[0])
    placed = [Outlined(tuple(folder / file for file in one.files), one.segmentations, one.size) for one in found]
    missing = next((file for one in placed for file in one.files if not file.is_file()), None)
    if missing is not None:
        raise InputError(f"{missing}: there is no such picture, but {path} outlines it; give it, or take it out there")
    return placed


def _pictures(images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> list[Outlined]:
    by_image: dict[Any, list[Any]] = {}
    for one in annotations:
        by_image.setdefault(one["image_id"], []).append(one["segmentation"])
    return [
        Outlined((Path(one["file_name"]),), (tuple(by_image[one["id"]]),), (int(one["height"]), int(one["width"])))
        for one in images
        if one["id"] in by_image
    ]


def _clips(videos: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> list[Outlined]:
    by_video: dict[Any, list[Any]] = {}
    for one in annotations:
        by_video.setdefault(one["video_id"], []).append(one["segmentations"])
    found = []
    for one in videos:
        if one["id"] in by_video:
            files = tuple(map(Path, one["file_names"]))
            frames = zip(*by_video[one["id"]], strict=True)
            shapes = tuple(tuple(shape for shape in frame if shape is not None) for frame in frames)
            if len(shapes) != len(files):
                raise ValueError
            found.append(Outlined(files, shapes, (int(one["height"]), int(one["width"]))))
    return found


def _folder_of(path: Path, picture: Path) -> Path:
    """The folder that names of pictures begin in; where none holds the first, that of the file."""
    roots = (path.parent, path.parent.parent)
    names = (path.stem.rpartition("_")[2], *PICTURES)
    folders = [*roots, *(root / name for root in roots for name in names)]
    return next((folder for folder in folders if (folder / picture).is_file()), path.parent)


def mask_of(segmentations: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    """What any of some segmentations covers, ``(h, w)``, False or True.

    Args:
        segmentations: polygons or run lengths.
        size: (h, w).

    Raises:
        InputError: one is neither, or is of another size.
    """
    mask = np.zeros(size, bool)
    for one in segmentations:
        if isinstance(one, Mapping):
            mask |= _from_runs(one, size)
        else:
            mask |= _from_polygons(one, size)
    return mask


def _from_polygons(polygons: Any, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image, ImageDraw

    height, width = size
    canvas = Image.new("1", (FINER * width, FINER * height))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons if isinstance(polygons, list) else [polygons]:
        try:
            places = np.asarray(polygon, float).reshape(-1, 2)
        except (TypeError, ValueError):
            places = np.empty((0, 2))
        if len(places) < 3:
            raise InputError("a polygon is not three or more places, written as x, y, x, y, ...")
        # a pixel of the canvas is drawn where its middle is named
        draw.polygon([(x, y) for x, y in FINER * places - 0.5], fill=1)
    covered = np.asarray(canvas).reshape(height, FINER, width, FINER).mean(axis=(1, 3))
    return covered >= 0.5


def _from_runs(runs: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    counts = runs.get("counts")
    lengths = _lengths(counts) if isinstance(counts, str) else counts if isinstance(counts, list) else []
    fits = list(runs.get("size", size)) == list(size)
    if not fits or not all(isinstance(one, int) and one >= 0 for one in lengths) or sum(lengths) != size[0] * size[1]:
        raise InputError(f"run lengths do not cover a picture of {size[1]}x{size[0]} pixels")
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return values.reshape(size[1], size[0]).T


def _lengths(text: str) -> list[int]:
    """Run lengths from a string: numbers in digits of 5 bits, the lowest first.

    A character less 48 is a digit, plus 32 where another follows; 16 of a last digit is the sign. From the fourth
    number on, a number is the difference to the one two before.
    """
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        digit = ord(character) - 48
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return lengths
