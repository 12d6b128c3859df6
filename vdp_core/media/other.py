"""Kinds of still that FFmpeg reads best: DPX, and the plainer ones of 8 to 16 bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from .container import ffmpeg
from .info import Array
from .pixels import pixels_of, plain_format
from .still import Header, Pages, Reader, check_size, reading

__all__ = ["READER", "SUFFIXES"]

SUFFIXES = (".dpx", ".tga", ".ppm", ".pgm", ".pnm", ".sgi", ".jp2", ".j2k")
_DPX_HEADERS = 2048  # bytes of all, of which that of film, the last but one, may be missing
_DPX = {b"SDPX": ">", b"XPDS": "<"}
_LOGARITHMIC = (1, 3)  # SMPTE ST 268-1, table 5A: printing density, logarithmic
_PRINTED_WHITE, _PRINTED_BLACK = 685 / 1023, 95 / 1023


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    av = ffmpeg()
    try:
        with av.open(str(file)) as container:
            yield container
    except av.error.FFmpegError as error:
        raise ValueError(str(error)) from error


def _look(file: Path) -> Header:
    with reading(file):
        with _opened(file) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context is None or stream.format is None:
                raise ValueError("no picture")
            check_size(file, stream.width, stream.height)
            form, parts = stream.format.name, stream.format.components
            if form.startswith("xyz") or max(part.bits for part in parts) > 16 or _is_ycbcr(stream.format):
                raise MediaError(f"{file}: holds pixels of a kind that cannot be read ({form}); save it as RGB")
            header = Header(
                stored=(stream.width, stream.height),
                has_alpha=any(part.is_alpha for part in parts),
                bits=max(part.bits for part in parts),
            )
        return _of_film(file, header)


def _is_ycbcr(form: Any) -> bool:
    return not form.is_rgb and not form.has_palette and len(form.components) > 2


def _of_film(file: Path, header: Header) -> Header:
    """The header of a DPX file with what it says of its rate, and whether its values are densities of film."""
    with file.open("rb") as stream:
        head = stream.read(_DPX_HEADERS)
    order = _DPX.get(head[:4])
    if order is None or len(head) < _DPX_HEADERS:
        return header
    (pixels_at,) = struct.unpack_from(f"{order}I", head, 4)
    (rate,) = struct.unpack_from(f"{order}f", head, 1724) if pixels_at >= _DPX_HEADERS else (0.0,)
    is_density = head[801] in _LOGARITHMIC
    return replace(
        header,
        rate=f"{round(rate * 1000)}/1000" if 1 <= rate <= 1000 else "",
        is_linear=is_density,
        done=("densities of film turned into light as Cineon has it",) if is_density else (),
    )


@contextmanager
def _pages(file: Path, header: Header) -> Iterator[Pages]:
    def read(_: int) -> NDArray[Any]:
        with reading(file), _opened(file) as container:
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise ValueError("no picture")
            check_size(file, frame.width, frame.height)
            plain, family = plain_format(frame)
            if family == "yuv":
                raise ValueError("other pixels than the header says")
            channels = len(plain.format.components)
            deep = max(part.bits for part in plain.format.components) > 8
            pixels = pixels_of(plain, 0, channels, np.uint16 if deep else np.uint8)
            pixels = pixels[..., None] if channels == 1 else pixels
            if deep and family == "grey":  # which keeps its own depth, where RGB gets 16 bits
                top = 2 ** plain.format.components[0].bits - 1
                pixels = np.divide(pixels, np.float32(top), dtype=np.float32)
            return _light_of_film(pixels) if header.is_linear else pixels.copy()

    yield read


READER = Reader(_look, _pages)


def _light_of_film(density: NDArray[Any]) -> Array:
    """Printing densities to light, 1 = the white of 90 % (Cineon: 0.002 density a step of 10 bits, gamma 0.6)."""
    top = np.iinfo(density.dtype).max if density.dtype.kind == "u" else 1.0

    def light(share: Any) -> Any:
        return 10.0 ** ((share - _PRINTED_WHITE) * 1023 * 0.002 / 0.6)

    black = light(_PRINTED_BLACK)
    return ((light(density / np.float32(top)) - black) / (1.0 - black)).astype(np.float32)
