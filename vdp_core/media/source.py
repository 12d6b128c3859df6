"""Where frames come from: video files, through PyAV, and stills. Used through ``video``."""

from __future__ import annotations

import fnmatch
import glob
import math
import os
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from pathlib import Path

from ..errors import InputError, MediaError
from ..image.resize import size_within
from .formats import TIMINGS
from .info import Plan, beyond_the_end
from .pictures import PICTURE_SUFFIXES, SOUND_NAME, PictureFiles, is_picture
from .raster import is_animated_png
from .video_file import VideoFile

__all__ = ["clips_and_stills", "files_of", "find_matches", "find_names", "is_clip", "is_pattern", "open_source", "plan"]

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".mpg", ".mpeg", ".mpe"),
    *(".ts", ".mts", ".m2ts", ".ogv", ".3gp", ".3g2", ".mxf", ".dv"),
)
"""Of files that are taken for videos where nobody named them, whatever the machine's own table of types holds."""

_NUMBER = re.compile(r"%0?(\d*)d|#+")
"""What stands for the number of a frame in a name, as printf and as other programs have it."""
_DECIMAL = re.compile(r"(|.*?[_ =]|.*?\w-)(-?\d+)(?:\.(\d+))?")
"""A name that ends in a number: what lies before it, its whole part and its fraction."""


def plan(
    source: str | Path,
    start: int,
    count: int,
    every_nth: int,
    max_side: int,
    *,
    timing: str = "constant",
    sound_track: int = 0,
) -> tuple[VideoFile | PictureFiles, Plan]:
    """Open a source and work out what read_clip's arguments take from it; raises what read_clip does."""
    for name, value, least in (
        ("start", start, 0),
        ("count", count, 0),
        ("every_nth", every_nth, 1),
        ("max_side", max_side, 0),
        ("sound_track", sound_track, 0),
    ):
        if value < least:
            raise InputError(f"{name}: expected {least} or more, got {value}")
    if timing not in TIMINGS:
        raise InputError(f"timing: expected one of {', '.join(TIMINGS)}, got '{timing}'")
    reader = open_source(source, timing=timing, sound_track=sound_track)
    info = reader.info
    if info.frame_count is not None and start >= info.frame_count:
        raise beyond_the_end(info.path, start, info.frame_count)
    expected = max(1, math.ceil((reader.likely_count - start) / every_nth))
    expected = min(expected, count) if count else expected
    return reader, Plan(start, every_nth, count, expected, size_within(info.height, info.width, max_side))


def open_source(source: str | Path, *, timing: str = "constant", sound_track: int = 0) -> VideoFile | PictureFiles:
    """Find out what a source is, and open it, see read_clip.

    Raises:
        MediaError: nothing there, or nothing that can be decoded.
    """
    text = str(source)
    if not text.strip():
        raise MediaError("path: is empty; give a video file, a folder of pictures or a pattern such as frames/*.png")
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # such as a name too long, or a folder on the way that may not be entered
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    if is_folder:
        files = _pictures_in(path)
        if not files:
            raise MediaError(f"{path}: the folder holds no pictures ({', '.join(s[1:] for s in PICTURE_SUFFIXES)})")
        return PictureFiles(path, files, timing, sound_track)
    if is_file:
        if is_picture(path) and not is_animated_png(path):
            return PictureFiles(path, [path], timing, sound_track)
        return VideoFile(path, timing, sound_track)
    if os.path.exists(path):  # noqa: PTH110 (which never raises)
        raise MediaError(f"{path}: is a device or a pipe, which cannot be read as a clip; give a file or a folder")
    if path.is_symlink():
        raise _leads_nowhere(path)
    if not is_pattern(text):
        raise MediaError(f"{path}: there is no such file or folder")
    matches = _natural_order(find_matches(text))
    if not matches:
        raise MediaError(f"{text}: no file matches this pattern")
    pictures = [file for file in matches if is_picture(file)]
    if pictures:
        return PictureFiles(path, pictures, timing, sound_track)
    if len(matches) > 1:
        raise MediaError(f"{text}: matches {len(matches)} files that are no pictures; name one video")
    return VideoFile(matches[0], timing, sound_track)


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

    ordered = natsorted(files, key=str, alg=ns.PATH | ns.IGNORECASE)
    numbers = _decimals(ordered)
    return [file for _, file in sorted(zip(numbers, ordered, strict=True), key=itemgetter(0))] if numbers else ordered


def _decimals(files: list[Path]) -> list[Decimal]:
    """The numbers that files are named by, such as times in seconds; none where a dot parts two whole numbers.

    It does so where nothing but the second number changes (a name and a frame), where the second one ends in 0 in names
    of several lengths (1.9, 1.10), and in versions, of which there are letters right before or more dots.
    """
    found = [_DECIMAL.fullmatch(file.stem if file.suffix else file.name) for file in files]
    names = [match.groups() for match in found if match]
    if len(names) < len(files) or len({(file.parent, name[0]) for file, name in zip(files, names, strict=True)}) > 1:
        return []
    fractions = [fraction for _, _, fraction in names if fraction is not None]
    if names and names[0][0] and len({whole for _, whole, _ in names}) == 1:
        return []
    if len({len(fraction) for fraction in fractions}) > 1 and any(f.endswith("0") and len(f) > 1 for f in fractions):
        return []
    return [Decimal(f"{whole}.{fraction or 0}") for _, whole, fraction in names]


def _leads_nowhere(link: Path) -> MediaError:
    return MediaError(f"{link}: is a link to {os.readlink(link)}, where nothing is; mend the link or remove it")  # noqa: PTH115


def _is_usable(file: Path) -> bool:
    """Whether a name of a folder is a file.

    Raises:
        MediaError: it is a picture's, and a link that leads nowhere, so that a frame would be missing.
    """
    if file.is_file():
        return True
    if is_picture(file) and file.is_symlink() and not os.path.exists(file):  # noqa: PTH110 (which never raises)
        raise _leads_nowhere(file)
    return False


def is_clip(path: Path) -> bool:
    """Whether something that lies in a data set is a clip: a video by its name, or a folder of pictures."""
    if path.is_dir():
        return any(is_picture(file) for file in path.iterdir() if not file.name.startswith("."))
    return path.suffix.lower() in VIDEO_SUFFIXES


def clips_and_stills(folder: Path) -> list[Path]:
    """What lies in a folder of a data set, each by itself: clips, and single pictures, in natural order."""
    inside = (path for path in folder.iterdir() if not path.name.startswith("."))
    return _natural_order(path for path in inside if is_clip(path) or (path.is_file() and is_picture(path)))


def _pictures_in(folder: Path) -> list[Path]:
    """Pictures of a folder in natural order, without hidden files (macOS leaves ``._name`` twins)."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise MediaError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return _natural_order(f for f in entries if f.name[0] != "." and is_picture(f) and _is_usable(f))


def find_matches(pattern: str) -> Iterator[Path]:
    """Files that match a pattern, in any order, as ``find_names`` does.

    Raises:
        MediaError: as ``find_names``; also a picture's name that is a link which leads nowhere.
    """
    return (file for file in find_names(pattern) if _is_usable(file))


def is_pattern(text: str) -> bool:
    """Whether a path that is no file's stands for several: a glob, or a name with the number of a frame left open."""
    return glob.has_magic(text) or bool(_NUMBER.search(Path(text).name))


def _numbered(pattern: Path) -> tuple[Path, re.Pattern[str]]:
    """A name such as ``frame_%04d.png`` or ``frame_####.png`` as a glob, and what its matches must look like."""
    is_glob = "*" in pattern.name or "?" in pattern.name  # else brackets are the name's own
    wide, exact, end = "", "", 0
    for number in [*_NUMBER.finditer(pattern.name), None]:
        text = pattern.name[end : number.start() if number else None]
        wide += text if is_glob else glob.escape(text)
        exact += fnmatch.translate(text).removesuffix("\\Z").removesuffix("\\z") if is_glob else re.escape(text)
        if number:
            digits = len(number[0]) if number[0][0] == "#" else int(number[1] or 1)
            wide, exact, end = wide + "*", rf"{exact}-?\d{{{min(digits, 99)},}}", number.end()
    folder = Path(glob.escape(str(pattern.parent))) if pattern.parent.is_dir() else pattern.parent
    return folder / wide, re.compile(exact)


def find_names(pattern: str) -> Iterator[Path]:
    """Files and folders that match a glob, or a name with a number such as ``%04d`` or ``####``, in any order.

    ``**`` goes down into folders, but not through links: they run in circles.

    Raises:
        MediaError: more than one ``**``, which would find the same files again and again.
    """
    path, name = Path(pattern), None
    if _NUMBER.search(path.name):
        path, name = _numbered(path)
    parts = path.parts
    deep = [place for place, part in enumerate(parts) if part == "**"]
    if len(deep) > 1:
        raise MediaError(f"{pattern}: holds ** more than once; one goes down into folders of any depth")
    if not deep:
        found: Iterable[str] = glob.iglob(str(path))  # noqa: PTH207 (takes absolute patterns)
    else:
        rest = str(Path(*parts[deep[0] + 1 :])) if parts[deep[0] + 1 :] else "*"
        tops = glob.iglob(str(Path(*parts[: deep[0]])))  # noqa: PTH207
        found = chain.from_iterable(_matches_below(top, rest) for top in tops)
    return (file for file in map(Path, found) if name is None or name.fullmatch(file.name))


def _matches_below(top: str, pattern: str) -> Iterator[str]:
    """What matches in a folder and all below it but the hidden ones."""
    for folder, inner, _ in os.walk(top):
        inner[:] = (name for name in inner if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in glob.iglob(pattern, root_dir=folder))  # noqa: PTH118, PTH207
