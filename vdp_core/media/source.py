"""Where frames come from: video files, through PyAV, and stills. Used through ``video``."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from ..errors import InputError, MediaError
from ..image.resize import size_within
from .info import Plan, beyond_the_end
from .pictures import PICTURE_SUFFIXES, SOUND_NAME, PictureFiles, is_picture
from .raster import is_animated_png
from .video_file import VideoFile

__all__ = ["files_of", "find_matches", "open_source", "plan"]


def plan(
    source: str | Path, start: int, count: int, every_nth: int, max_side: int
) -> tuple[VideoFile | PictureFiles, Plan]:
    """Open a source and work out what read_clip's arguments take from it; raises what read_clip does."""
    for name, value, least in (
        ("start", start, 0),
        ("count", count, 0),
        ("every_nth", every_nth, 1),
        ("max_side", max_side, 0),
    ):
        if value < least:
            raise InputError(f"{name}: expected {least} or more, got {value}")
    reader = open_source(source)
    info = reader.info
    if info.frame_count is not None and start >= info.frame_count:
        raise beyond_the_end(info.path, start, info.frame_count)
    expected = max(1, math.ceil((reader.likely_count - start) / every_nth))
    expected = min(expected, count) if count else expected
    return reader, Plan(start, every_nth, count, expected, size_within(info.height, info.width, max_side))


def open_source(source: str | Path) -> VideoFile | PictureFiles:
    """Find out what a source is, and open it.

    Raises:
        MediaError: nothing there, or nothing that can be decoded.
    """
    text = str(source)
    if not text.strip():
        raise MediaError("path: is empty; give a video file, a folder of pictures or a glob such as frames/*.png")
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # such as a name too long, or a folder on the way that may not be entered
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    if is_folder:
        files = _pictures_in(path)
        if not files:
            raise MediaError(f"{path}: the folder holds no pictures ({', '.join(s[1:] for s in PICTURE_SUFFIXES)})")
        return PictureFiles(path, files)
    if is_file:
        return PictureFiles(path, [path]) if is_picture(path) and not is_animated_png(path) else VideoFile(path)
    if os.path.exists(path):  # noqa: PTH110 (which never raises)
        raise MediaError(f"{path}: is a device or a pipe, which cannot be read as a clip; give a file or a folder")
    if not glob.has_magic(text):
        raise MediaError(f"{path}: there is no such file or folder")
    matches = _natural_order(find_matches(text))
    if not matches:
        raise MediaError(f"{text}: no file matches this pattern")
    pictures = [file for file in matches if is_picture(file)]
    if pictures:
        return PictureFiles(path, pictures)
    if len(matches) > 1:
        raise MediaError(f"{text}: matches {len(matches)} files that are no pictures; name one video")
    return VideoFile(matches[0])


def files_of(source: str | Path) -> list[Path]:
    """The files a source consists of, none where nothing is there."""
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError:  # such as a name too long
        return []
    if is_folder:
        sound = path / SOUND_NAME
        return [*_pictures_in(path), *([sound] if sound.is_file() else [])]
    return [path] if is_file else _natural_order(find_matches(str(source)))


def _natural_order(files: Iterable[Path]) -> list[Path]:
    from natsort import natsorted, ns

    return natsorted(files, key=str, alg=ns.PATH | ns.IGNORECASE)


def _pictures_in(folder: Path) -> list[Path]:
    """Pictures of a folder in natural order, without hidden files (macOS leaves ``._name`` twins)."""
    try:
        return _natural_order(f for f in folder.iterdir() if is_picture(f) and f.is_file() and f.name[0] != ".")
    except OSError as error:
        raise MediaError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def find_matches(pattern: str) -> Iterator[Path]:
    """Files that match a glob, in any order, as ``find_names`` does."""
    return (file for file in find_names(pattern) if file.is_file())


def find_names(pattern: str) -> Iterator[Path]:
    """Files and folders that match a glob, in any order.

    ``**`` goes down into folders, but not through links: they run in circles.

    Raises:
        MediaError: more than one ``**``, which would find the same files again and again.
    """
    parts = Path(pattern).parts
    deep = [place for place, part in enumerate(parts) if part == "**"]
    if len(deep) > 1:
        raise MediaError(f"{pattern}: holds ** more than once; one goes down into folders of any depth")
    if not deep:
        found: Iterable[str] = glob.iglob(pattern)  # noqa: PTH207 (takes absolute patterns)
    else:
        rest = str(Path(*parts[deep[0] + 1 :])) if parts[deep[0] + 1 :] else "*"
        tops = glob.iglob(str(Path(*parts[: deep[0]])))  # noqa: PTH207
        found = chain.from_iterable(_matches_below(top, rest) for top in tops)
    return map(Path, found)


def _matches_below(top: str, pattern: str) -> Iterator[str]:
    """What matches in a folder and all below it but the hidden ones."""
    for folder, inner, _ in os.walk(top):
        inner[:] = (name for name in inner if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in glob.iglob(pattern, root_dir=folder))  # noqa: PTH118, PTH207
