"""Points and tracks as text: JSON, Nuke's Tracker and After Effects' keyframes.

In JSON and in the core (0, 0) is the centre of the first pixel. After Effects and Nuke count from the corner of the
frame, so that this centre is 0.5; Nuke's y points up, from the lower edge.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, MediaError
from ..store.files import numbered
from .points import Point, Tracks

__all__ = ["FORMATS", "parse_points", "parse_tracks", "read_points", "save_tracks", "tracks_text"]

MOST = 2**26
"""Bytes of a file that may hold points."""
HINT = 'give [{"frame": 0, "x": 12.5, "y": 80.0}, ...]'


def read_points(file: Path) -> str:
    """The points of a JSON file, or of tracks that ``save_tracks`` wrote, as JSON ``parse_points`` takes.

    Of a track that is where it is first seen.

    Raises:
        MediaError: the file cannot be read.
        InputError: it holds no points.
    """
    try:
        if file.stat().st_size > MOST:
            raise InputError(f"{file.name}: is of more than {MOST // 2**20} MB, which no list of points is")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name}: is not text; {HINT}") from error
    except OSError as error:
        raise MediaError(f"{file}: cannot be read, {error.strerror or error}") from error
    if not text.lstrip().startswith("["):
        tracks = parse_tracks(text, file.name)
        first = tracks.visible.int().argmax(dim=1).tolist()
        places = [track[frame].tolist() for track, frame in zip(tracks.xy, first, strict=True)]
        points = [Point(frame, x, y) for frame, (x, y) in zip(first, places, strict=True)]
    else:
        points = parse_points(text, file.name)
    return json.dumps([{"frame": point.frame, "x": point.x, "y": point.y} for point in points])


def parse_points(text: str, name: str = "points") -> list[Point]:
    """Points of JSON ``[{"frame": 0, "x": 12.5, "y": 80.0}, ...]``, in pixels, (0, 0) the centre of the first one.

    Args:
        text: JSON.
        name: what to call it in the message.

    Raises:
        InputError: it is anything else, or names no point.
    """
    given = _json(text, name)
    if not isinstance(given, list):
        raise InputError(f"{name}: a list of points needed, got {_kind(given)}; {HINT}")
    if not given:
        raise InputError(f"{name}: the list is empty; {HINT}")
    points = []
    for number, one in enumerate(given):
        what = f"{name}: point {number}"
        if not isinstance(one, dict):
            raise InputError(f"{what} is {_kind(one)}; {HINT}")
        if missing := [key for key in ("frame", "x", "y") if key not in one]:
            raise InputError(f"{what} has no {' and no '.join(missing)}; {HINT}")
        frame, x, y = (one[key] for key in ("frame", "x", "y"))
        if not _is_number(frame) or frame != int(frame) or frame < 0:
            raise InputError(f"{what}: frame must be a whole number from 0 on, got {_kind(frame)}")
        for key, value in (("x", x), ("y", y)):
            if not _is_number(value):
                raise InputError(f"{what}: {key} must be a number of pixels, got {_kind(value)}")
        points.append(Point(int(frame), float(x), float(y)))
    return points


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "nested too deep"
        raise InputError(f"{name}: is not JSON ({reason}); {HINT}") from error


def _kind(value: object) -> str:
    """A value of JSON in words."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value)[:40]


def _is_number(value: object) -> bool:
    """Whether it is a number that a place in a clip can have."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def parse_tracks(text: str, name: str = "tracks") -> Tracks:
    """Tracks of what ``tracks_text`` gives, in any of its formats.

    Raises:
        InputError: it is anything else.
    """
    try:
        if text.lstrip().startswith("{"):
            return _of_json(_json(text, name))
        if "Keyframe Data" in text:
            return _of_after_effects(text)
        if "Tracker4" in text:
            return _of_nuke(text)
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: the tracks are damaged; save them again with SaveTracks") from error
    raise InputError(f"{name}: holds neither points nor tracks; {HINT}")


def tracks_text(tracks: Tracks, format: str = "json", *, fps: float = 24.0) -> str:
    """Tracks as text.

    Args:
        tracks: of one point or more.
        format: ``json``: ``{"tracks": [{"xy": [[x, y], ...], "visible": [true, ...]}, ...], "size": [W, H]}``, with an
            entry for every frame; ``nuke``: a Tracker node to paste; ``after effects``: keyframes of position and
            opacity for each point, to paste onto a layer. Frames count from 0.
        fps: of the clip; only After Effects asks for it.

    Raises:
        InputError: an unknown format or rate.
    """
    if format not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if not 0.0 < fps < math.inf:
        raise InputError(f"fps: a rate above 0 needed, got {fps}")
    return _WRITERS[format](tracks, fps)


def save_tracks(text: str, path: Path, *, format: str = "json", fps: float = 24.0) -> Path:
    """Write tracks to one file, whole or not at all, under the first number that nothing has.

    Args:
        text: tracks as JSON.
        path: where to, without number and suffix.
        format, fps: see ``tracks_text``.

    Raises:
        InputError: no tracks, or see ``tracks_text``.
        MediaError: it cannot be written.
    """
    written = tracks_text(parse_tracks(text), format, fps=fps)
    try:
        with numbered(path.parent, path.name, FORMATS[format]) as place:
            place.partial.write_text(written, encoding="utf-8")
    except OSError as error:
        raise MediaError(f"{path}: cannot be written, {error.strerror or error}") from error
    return place.target


def _listed(tracks: Tracks) -> Iterator[tuple[list[list[float]], list[bool]]]:
    """Each track's places, to a thousandth of a pixel, and where it is seen."""
    for xy, visible in zip(tracks.xy.double().tolist(), tracks.visible.tolist(), strict=True):
        yield [[round(x, 3), round(y, 3)] for x, y in xy], visible


def _to_json(tracks: Tracks, _: float) -> str:
    found = [{"xy": xy, "visible": visible} for xy, visible in _listed(tracks)]
    return json.dumps({"tracks": found, "size": [tracks.size[1], tracks.size[0]]})


def _made(xy: list[list[list[float]]], visible: list[list[bool]], size: tuple[int, int]) -> Tracks:
    places, seen = torch.tensor(xy, dtype=torch.float32), torch.tensor(visible, dtype=torch.bool)
    if places.ndim != 3 or places.shape[2] != 2 or places.shape[:2] != seen.shape or not bool(places.isfinite().all()):
        raise ValueError
    return Tracks(places, seen, size)


def _of_json(given: dict[str, Any]) -> Tracks:
    width, height = given["size"]
    return _made([t["xy"] for t in given["tracks"]], [t["visible"] for t in given["tracks"]], (int(height), int(width)))


def _to_after_effects(tracks: Tracks, fps: float) -> str:
    height, width = tracks.size
    head = [
        "Adobe After Effects 8.0 Keyframe Data",
        "",
        f"\tUnits Per Second\t{fps:.6g}",
        f"\tSource Width\t{width}",
        f"\tSource Height\t{height}",
        "\tSource Pixel Aspect Ratio\t1",
        "\tComp Pixel Aspect Ratio\t1",
        "",
    ]
    lines = []
    for xy, visible in _listed(tracks):
        lines += [*head, "Transform\tPosition", "\tFrame\tX pixels\tY pixels\tZ pixels\t"]
        lines += [f"\t{frame}\t{x + 0.5:.3f}\t{y + 0.5:.3f}\t0\t" for frame, (x, y) in enumerate(xy)]
        lines += ["", "Transform\tOpacity", "\tFrame\tpercent\t"]
        lines += [f"\t{frame}\t{100 * seen}\t" for frame, seen in enumerate(visible)]
        lines += ["", "", "End of Keyframe Data", ""]
    return "\r\n".join(lines)


def _of_after_effects(text: str) -> Tracks:
    xy: list[list[list[float]]] = []
    visible: list[list[bool]] = []
    width = height = 0
    part = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith("Adobe After Effects"):
            xy.append([])
            visible.append([])
        elif words[:2] == ["Source", "Width"]:
            width = int(words[2])
        elif words[:2] == ["Source", "Height"]:
            height = int(words[2])
        elif words[:1] == ["Transform"]:
            part = words[1]
        elif line.startswith("\t") and words and words[0].isdecimal():
            if part == "Position":
                xy[-1].append([float(words[1]) - 0.5, float(words[2]) - 0.5])
            elif part == "Opacity":
                visible[-1].append(float(words[1]) > 0.0)
    # keyframes of other programs may have no opacity
    return _made(xy, [seen or [True] * len(way) for seen, way in zip(visible, xy, strict=True)], (height, width))


_COLUMNS = (
    *(("5 1 20", "enable e"), ("3 1 75", "name name"), ("2 1 58", "track_x track_x"), ("2 1 58", "track_y track_y")),
    *(("2 1 63", "offset_x offset_x"), ("2 1 63", "offset_y offset_y")),
    *(("4 1 27", f"{letter} {letter}") for letter in "TRS"),
    ("2 0 45", "error error"),
    *(("1 1 0", f"{key} {key}") for key in ("error_min", "error_max")),
    *(("1 1 0", f"{area}_{side} {area}_{side}") for area in ("pattern", "search") for side in "xyrt"),
    ("2 1 0", "key_track key_track"),
    *(("2 1 0", f"key_search_{side} key_search_{side}") for side in "xyrt"),
    *(("2 1 0", f"key_track_{side} key_track_{side}") for side in "xyrt"),
    *(("2 1 0", f"key_centre_offset_{axis} key_centre_offset_{axis}") for axis in "xy"),
)
"""The table of a Tracker4 node."""


def _curve(values: list[float]) -> str:
    return "{curve x0 " + " ".join(f"{value:.6g}" if value == int(value) else f"{value:.3f}" for value in values) + "}"


def _to_nuke(tracks: Tracks, _: float) -> str:
    height, width = tracks.size
    rows = []
    for number, (xy, visible) in enumerate(_listed(tracks), 1):
        x, y = _curve([x + 0.5 for x, _ in xy]), _curve([height - (y + 0.5) for _, y in xy])
        seen, zero = _curve([float(one) for one in visible]), "{curve x0 0}"
        rest = f"{zero} {zero} 1 0 0 {zero} 1 0 -32 -32 32 32 -22 -22 22 22 " + " ".join(["{}"] * 11)
        rows.append(f' {{ {seen} "track {number}" {x} {y} {rest} }}')
    columns = "\n".join(f"{{ {kind} {name} 1 }}" for kind, name in _COLUMNS)
    return (
        "Tracker4 {\n inputs 0\n"
        f" tracks {{ {{ 1 {len(_COLUMNS)} {len(rows)} }}\n{{ {columns} }}\n{{\n" + "\n".join(rows) + "\n} }\n"
        f' name Tracker1\n label "{width}x{height}"\n}}\n'
    )


def _of_nuke(text: str) -> Tracks:
    size = re.search(r'label "?(\d+)x(\d+)"?', text) or re.search(r'format "(\d+) (\d+) ', text)
    if size is None:
        raise InputError("tracks: Nuke counts y from below and this file does not tell the height; copy Root with it")
    width, height = int(size[1]), int(size[2])
    xy, visible = [], []
    for row in re.findall(r'\{ *(\{curve [^{}]*\}|1) +"[^"]*" +\{curve ([^{}]*)\} +\{curve ([^{}]*)\}', text):
        x, y = ([float(word) for word in part.split() if word[0] not in "xKLR"] for part in row[1:])
        xy.append([[across - 0.5, height - up - 0.5] for across, up in zip(x, y, strict=True)])
        seen = [float(word) > 0 for word in row[0].strip("{}").split()[1:] if word[0] not in "xKLR"]
        visible.append(seen if len(seen) == len(x) else [True] * len(x))
    return _made(xy, visible, (height, width))


_WRITERS: dict[str, Callable[[Tracks, float], str]] = {
    "json": _to_json,
    "nuke": _to_nuke,
    "after effects": _to_after_effects,
}
FORMATS = {"json": ".json", "nuke": ".nk", "after effects": ".txt"}
"""What tracks are written as, and the end of the file's name."""
