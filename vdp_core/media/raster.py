"""Stills of 8 and 16 bits: PNG, JPEG, WebP, BMP through OpenCV, which keeps 16 bits; others through Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from . import icc
from .info import RATE_KEY
from .pixels import UNSAID, UPRIGHT, Colours
from .primaries import WIDE
from .still import EXIF_TURNS, Header, Pages, Reader, check_size, damaged, decoded_by_opencv, reading
from .tone import HLG, PQ, USUAL_PEAK, sensible_peak

__all__ = ["READER", "chunks", "decoded_by_pillow", "delays_of", "is_animated_png", "unit"]

_PNG = b"\x89PNG\r\n\x1a\n"
_DECODED_BY_OPENCV = ("PNG", "JPEG", "MPO", "WEBP", "BMP")
_HEAD = 2**12  # bytes; what is said of a picture lies there
_TAIL = 2**16  # bytes; EXIF is small
_ANIMATED = ("WEBP", "AVIF")
_PLUGINS = {"HEIC": ("pillow_heif", "pillow-heif"), "JPEG XL": ("pillow_jxl", "pillow-jxl-plugin")}
"""What reads these kinds where it is installed: a module, and the package it comes in."""


def unit(values: NDArray[Any]) -> NDArray[np.float32]:
    """Values as float32 with 1 = white."""
    if values.dtype.kind == "u":
        return np.divide(values, np.float32(np.iinfo(values.dtype).max), dtype=np.float32)
    return values.astype(np.float32, copy=False)


def decoded_by_pillow(picture: Any, profile: bytes | None) -> NDArray[Any]:
    """A picture of Pillow's as ``(H, W, C)``: grey, grey and alpha, RGB or RGBA. Inks are converted by ``profile``."""
    if picture.mode == "CMYK":
        return icc.inks_to_rgb(np.asarray(picture), profile)
    if picture.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.applyTransform(picture, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    elif picture.mode.startswith("I;16"):
        return np.asarray(picture)[..., None].astype(np.uint16)
    else:
        plain = {"1": "L", "La": "LA", "P": "RGB", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}
        wanted = "RGBA" if _has_alpha(picture) and picture.mode == "P" else plain.get(picture.mode, picture.mode)
        if wanted not in ("L", "LA", "RGB", "RGBA"):
            raise ValueError(f"colours of the kind {picture.mode}")
        picture = picture.convert(wanted)
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _has_alpha(picture: Any) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A picture of Pillow's, of which only the header is read."""
    from PIL import Image

    with file.open("rb") as stream:
        _have_reader(file, stream.read(64))
        stream.seek(0)
        with Image.open(stream) as picture:
            yield picture


def _have_reader(file: Path, head: bytes) -> None:
    """Refuse kinds of still that Pillow cannot read here, by what they need."""
    from PIL import features

    kind = _kind(head)
    if kind in _PLUGINS:
        module, package = _PLUGINS[kind]
        try:
            plugin = import_module(module)
        except ImportError as error:
            raise MediaError(f"{file}: is {kind}, which needs another package; pip install {package}") from error
        if kind == "HEIC":
            plugin.register_heif_opener()
    elif kind == "AVIF" and not features.check("avif"):
        raise MediaError(f"{file}: is AVIF, which needs Pillow 11.3 or newer; pip install -U pillow")


def _kind(head: bytes) -> str:
    """The kinds of still that not every Pillow knows."""
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "JPEG XL"
    if head[4:8] == b"ftyp":
        return "AVIF" if b"avi" in head[8:40] else "HEIC"
    return ""


def _look(file: Path) -> Header:
    with reading(file), _opened(file) as picture:
        check_size(file, *picture.size)
        bits = 16 if picture.mode.startswith("I") else 8
        exif = _exif(picture)
        picture.fp.seek(0)
        head = picture.fp.read(_HEAD)
        colours, peak = _of_boxes(head)
        if picture.format == "PNG":
            colours, peak = _of_chunks(picture.fp)
            bits = max(8, head[24])
            exif = exif if "exif" in picture.info else _late_exif(picture.fp) or exif
        space = "CMYK" if picture.mode == "CMYK" else "GRAY" if picture.mode in ("1", "L", "LA", "I;16", "I") else "RGB"
        profile, notes = icc.usable(picture.info.get("icc_profile"), space)
        if colours is not None and picture.format == "PNG":
            profile = None  # code points come first, by its standard; in the others the profile does
        elif profile is not None:
            colours = None
        pages = getattr(picture, "n_frames", 1) if picture.format in _ANIMATED else 1
        rate = str(picture.info.get(RATE_KEY, ""))
        return Header(
            stored=picture.size,
            has_alpha=_has_alpha(picture),
            bits=bits,
            turn=EXIF_TURNS.get(exif.get(0x0112, 1), UPRIGHT),
            profile=None if space == "CMYK" else profile,  # applied where inks become light
            is_usual=picture.format in _DECODED_BY_OPENCV and space != "CMYK" and pages == 1,
            colours=colours,
            peak=peak,
            pages=pages,
            rate=rate,
            notes=notes,
        )


def _exif(picture: Any) -> Any:
    from PIL import Image

    # That of PNG decodes all pixels, to find what comes after them.
    return Image.Image.getexif(picture)


def _of_boxes(head: bytes) -> tuple[Colours | None, float]:
    """Colours told by code points in AVIF and HEIC (ISO/IEC 14496-12), and the peak of their light."""
    if (at := head.find(b"colrnclx")) < 0:
        return None, USUAL_PEAK
    primaries, transfer = struct.unpack_from(">HH", head.ljust(at + 12, b"\0"), at + 8)
    content, display = head.find(b"clli"), head.find(b"mdcv")
    said = (
        struct.unpack_from(">H", head.ljust(content + 6, b"\0"), content + 4)[0] if content > 0 else 0,
        struct.unpack_from(">I", head.ljust(display + 24, b"\0"), display + 20)[0] / 10_000 if display > 0 else 0,
    )
    return _told(primaries, transfer), sensible_peak(*said)


def _of_chunks(stream: BinaryIO) -> tuple[Colours | None, float]:
    """Colours told by code points in PNG (third edition, 11.3.2.6 to 8), and the peak of their light."""
    found: dict[bytes, bytes] = {}
    for name, length in chunks(stream):
        if name == b"IDAT":
            break
        if name in (b"cICP", b"cLLI", b"mDCV"):
            found[name] = stream.read(min(length, 24)).ljust(24, b"\0")
    if b"cICP" not in found:
        return None, USUAL_PEAK
    content, display = found.get(b"cLLI", bytes(24)), found.get(b"mDCV", bytes(24))
    said = struct.unpack_from(">I", content)[0] / 10_000, struct.unpack_from(">I", display, 16)[0] / 10_000
    return _told(*found[b"cICP"][:2]), sensible_peak(*said)


def _told(code: int, transfer: int) -> Colours | None:
    """Colours of code points, None where they are near enough to sRGB."""
    is_other = transfer in (PQ, HLG) or code in WIDE
    return Colours(code, transfer, UNSAID) if is_other else None


def chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and length of the chunks of a PNG; the stream stands at the content of each."""
    stream.seek(len(_PNG))
    while len(head := stream.read(8)) == 8:
        length, start = int.from_bytes(head[:4], "big"), stream.tell()
        yield head[4:], length
        stream.seek(start + length + 4)


def _late_exif(stream: BinaryIO) -> Any:
    """EXIF that lies after the pixels of a PNG, or None; it is looked for at the end, as the pixels are many chunks."""
    from PIL import Image

    stream.seek(max(len(_PNG), stream.seek(0, io.SEEK_END) - _TAIL))
    tail = stream.read()
    at = tail.rfind(b"eXIf")
    if at < 4:
        return None
    end = at + 4 + int.from_bytes(tail[at - 4 : at], "big")
    if zlib.crc32(tail[at:end]) != int.from_bytes(tail[end : end + 4], "big"):
        return None
    exif = Image.Exif()
    exif.load(tail[at + 4 : end])
    return exif


def is_animated_png(file: Path) -> bool:
    """Whether a PNG says, before its pixels, that more pictures follow.

    Raises:
        MediaError: the file is empty, or a pipe or the like, and is not opened; or it cannot be read.
    """
    with reading(file), file.open("rb") as stream:
        if stream.read(len(_PNG)) != _PNG:
            return False
        for name, length in chunks(stream):
            if name == b"acTL":
                return length >= 4 and int.from_bytes(stream.read(4), "big") > 1
            if name == b"IDAT":
                break
    return False


def delays_of(file: Path, pages: int) -> list[int]:
    """For how many ms each picture of an animation is shown, 0 where it does not say."""
    with reading(file), _opened(file) as picture:
        delays = []
        for page in range(pages):
            picture.seek(page)
            picture.load()
            delays.append(round(picture.info.get("duration", 0)))
        return delays


@contextmanager
def _pages(file: Path, header: Header) -> Iterator[Pages]:
    if header.is_usual:
        yield lambda _: _decoded(file, header.has_alpha)
        return
    with ExitStack() as stack:
        with reading(file):
            picture = stack.enter_context(_opened(file))

        def read(page: int) -> NDArray[Any]:
            with reading(file):
                if header.pages > 1:
                    picture.seek(page)
                picture.load()
                if picture.format == "JPEG" and "adobe" not in picture.info:
                    # Pillow takes inks for inverted, as Adobe writes them, who leaves a mark
                    inks = 255 - np.asarray(picture)
                    return icc.inks_to_rgb(inks, picture.info.get("icc_profile"))
                return decoded_by_pillow(picture, picture.info.get("icc_profile"))

        yield read


READER = Reader(_look, _pages)


def _decoded(file: Path, has_alpha: bool) -> NDArray[Any]:
    import cv2

    pixels = decoded_by_opencv(file)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise damaged(file)
    if pixels.ndim == 2:
        return _keyed(file, pixels) if has_alpha else pixels[..., None]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _keyed(file: Path, grey: NDArray[Any]) -> NDArray[Any]:
    """Grey and alpha of a PNG that has one shade of ``(H, W)`` as transparent, which OpenCV passes over."""
    with reading(file), file.open("rb") as stream:
        bits = stream.read(len(_PNG) + 17)[-1]
        name = next(name for name, _ in chunks(stream) if name in (b"tRNS", b"IDAT"))
        shade = int.from_bytes(stream.read(2), "big") if name == b"tRNS" else -1
    top = np.iinfo(grey.dtype).max
    alpha = np.where(grey == shade * (top // (2**bits - 1)), 0, top).astype(grey.dtype)
    return np.dstack((grey, alpha))
