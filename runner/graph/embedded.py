"""The workflow inside a picture, a video or a sound, where ComfyUI and this pack keep it when they save.

Savers write two texts of JSON: ``prompt``, the graph as it ran, and ``workflow``, the editor's. They stand in the text
of a PNG or an OpenEXR file, in EXIF of other pictures (``prompt:{...}`` in any of its texts), and in the tags of videos
and sounds; some savers put both into one text, such as a comment.
"""

from __future__ import annotations

import json
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["embedded_workflow", "is_media"]

MOST_BYTES = 2**26  # of one text
PNG = b"\x89PNG\r\n\x1a\n"
STARTS = (
    *(PNG, b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"v/1\x01"),  # pictures; RIFF is also AVI and WAVE
    *(b"\x1aE\xdf\xa3", b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"FLV", b"0&\xb2u", b"FORM"),  # videos and sounds
)
BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")  # at four, in mp4, mov, AVIF
NAMES = ("prompt", "workflow")


def is_media(start: bytes) -> bool:
    """Whether a file that begins so is a picture, a video or a sound."""
    return start.startswith(STARTS) or start[4:8] in BOXES


def embedded_workflow(path: Path) -> dict[str, Any]:
    """The workflow in a file that is_media knows: a request as ComfyUI's ``/prompt`` takes it, or the editor's format.

    The graph that ran comes first: it is what made the file, with every value as it was.

    Raises:
        ValueError: there is none.
    """
    found: dict[str, Any] = {}
    for name, value in _named(_texts(path)):
        fits = isinstance(value, dict) and (_is_prompt(value) if name == "prompt" else "nodes" in value)
        if fits:
            found.setdefault(name, value)
    if "prompt" not in found:
        if "workflow" in found:
            return dict(found["workflow"])
        raise ValueError("no workflow is in it: it was saved without one, or something has removed it since")
    workflow = found.get("workflow")
    return {"prompt": found["prompt"], "extra_data": {"extra_pnginfo": workflow and {"workflow": workflow}}}


def _is_prompt(value: dict[str, Any]) -> bool:
    return bool(value) and all(isinstance(node, dict) and "class_type" in node for node in value.values())


def _named(texts: Iterator[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """What may be a ``prompt`` or a ``workflow``, parsed."""
    for key, text in texts:
        name = key.lower()
        prefix = re.match(r"\s*(prompt|workflow)\s*:", text, re.IGNORECASE)
        if name in NAMES:
            yield name, _parsed(text)
        elif prefix is not None:
            yield prefix[1].lower(), _parsed(text[prefix.end() :])
        elif text.lstrip().startswith("{"):
            both = _parsed(text)
            if isinstance(both, dict):
                yield from ((name, _parsed(both.get(name))) for name in NAMES)


def _parsed(value: Any) -> Any:
    """JSON, which some savers pack into JSON again; None where it is none."""
    for _ in range(3):
        if not isinstance(value, str):
            break
        try:
            value = json.loads(value.strip().rstrip("\0"))
        except (ValueError, RecursionError):
            return None
    return value


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        if file.read(len(PNG)) == PNG:
            yield from _png_texts(file)
            return
    found = list(_picture_texts(path))
    yield from found or _exr_texts(path) or _container_texts(path)


def _png_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The texts of a PNG, wherever they stand in it; no pixel is decoded."""
    from ...vdp_core.media.raster import chunks

    for kind, length in chunks(file):
        # comf is ComfyUI's own, in animated ones
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf") or length > MOST_BYTES:
            continue
        content = file.read(length)
        if kind == b"eXIf":
            yield from _exif_texts(b"Exif\0\0" + content)
            continue
        key, _, rest = content.partition(b"\0")
        packed = kind == b"zTXt"
        if kind == b"zTXt":
            rest = rest[1:]
        elif kind == b"iTXt":
            packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        try:
            text = zlib.decompressobj().decompress(rest, MOST_BYTES) if packed else rest
        except zlib.error:
            continue
        yield key.decode("latin-1"), _decoded(text)


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _exif_texts(exif: bytes) -> Iterator[tuple[str, str]]:
    from PIL import ExifTags, Image

    table = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is damaged, which is left out
            table.load(exif)
            values = [*table.values(), *table.get_ifd(ExifTags.IFD.Exif).values()]
    except Exception:
        return
    for value in values:
        if isinstance(value, bytes):  # a comment by a person, which names its alphabet first
            code, value = value[:8], value[8:]
            value = value.decode("utf-16" if code.startswith(b"UNICODE") else "utf-8", "ignore")
        if isinstance(value, str):
            yield "", value


def _picture_texts(path: Path) -> Iterator[tuple[str, str]]:
    """The texts of a picture that is no PNG; none where the file is no picture."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size: no pixel is decoded
            with Image.open(path) as image:
                info = dict(image.info)
                exif = info.pop("exif", None) or image.getexif().tobytes()
    except Exception:
        return
    yield from _exif_texts(exif)
    for key, value in info.items():
        if isinstance(value, (str, bytes)):
            yield str(key), value if isinstance(value, str) else _decoded(value)


def _exr_texts(path: Path) -> list[tuple[str, str]]:
    """The text attributes of an OpenEXR file; none where it is no such file."""
    from ...vdp_core.errors import MediaError
    from ...vdp_core.media import exr

    with path.open("rb") as file:
        if file.read(len(exr.MAGIC)) != exr.MAGIC:
            return []
    try:
        return list(exr.texts(path).items())
    except MediaError:
        return []


def _container_texts(path: Path) -> Iterator[tuple[str, str]]:
    """The tags of a video or a sound, and of its streams; none where the file cannot be read."""
    from ...vdp_core.errors import MediaError
    from ...vdp_core.media.container import opened

    try:
        with opened(path) as container:
            tags = [container.metadata, *(stream.metadata for stream in container.streams)]
            yield from [(str(key), str(value)) for table in tags for key, value in table.items()]
    except MediaError:
        return
