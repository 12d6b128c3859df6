"""OpenEXR in and out: scene light in half floats, one layer or many.

Source: OpenEXR's technical introduction and "Standard Attributes" (openexr.com).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import MediaError
from ..image.colour import to_linear
from . import primaries
from .info import Array
from .pixels import in_square_pixels
from .still import Header, Pages, Reader, check_size, reading

__all__ = ["MAGIC", "READER", "layer", "library", "texts", "write"]

MAGIC = b"v/1\x01"
_MOST_VALUES = 2**30  # 4 GiB of them: 130 channels of 3840x2160
_CHANNELS = {"r": "R", "red": "R", "g": "G", "green": "G", "b": "B", "blue": "B", "a": "A", "alpha": "A", "y": "Y"}
_WHOLE = ("combined", "beauty", "rgba", "rgb", "composite")
"""What programs call the layer that is the finished picture, where it has a name."""


@dataclass(frozen=True)
class _Layer:
    """Channels that are one picture."""

    part: int
    name: str
    channels: Mapping[str, str]
    """R, G, B, A, Y, or a channel of another meaning, to its full name."""

    @property
    def has_colour(self) -> bool:
        return {"R", "G", "B"} <= self.channels.keys()


def library(file: Path) -> Any:
    """The module OpenEXR.

    Raises:
        MediaError: it is not installed, which a file needs.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise MediaError(f"{file}: is OpenEXR, which needs another package; pip install OpenEXR") from error
    return OpenEXR


def _file(file: Path, *, header_only: bool) -> Any:
    return library(file).File(str(file), separate_channels=True, header_only=header_only)


def _layers(opened: Any) -> list[_Layer]:
    """The layers of all parts, in the order of the file."""
    found: dict[tuple[int, str], dict[str, str]] = {}
    for index, part in enumerate(opened.parts):
        for channel in part.header["channels"]:
            prefix, _, last = channel.name.rpartition(".")
            name = ".".join(filter(None, (part.name() if len(opened.parts) > 1 else "", prefix)))
            kind = _CHANNELS.get(last.lower(), last)
            found.setdefault((index, name), {}).setdefault(kind, channel.name)
    return [_Layer(part, name, channels) for (part, name), channels in found.items()]


def _chosen(layers: list[_Layer]) -> _Layer:
    """The finished picture: colours without a layer's name, of a name that says so, or the first; else grey."""
    coloured = [layer for layer in layers if layer.has_colour]
    named = [layer for layer in coloured if layer.name.lower().split(".")[-1] in _WHOLE]
    plain = [layer for layer in coloured if not layer.name]
    grey = [layer for layer in layers if "Y" in layer.channels]
    return (plain or named or coloured or grey or layers)[0]


def _window(header: Any, name: str) -> tuple[int, int, int, int]:
    """Left, top, width and height of a window."""
    (left, top), (right, bottom) = (corner.tolist() for corner in header[name])
    return left, top, right - left + 1, bottom - top + 1


def _look(file: Path) -> Header:
    with reading(file):
        opened = _file(file, header_only=True)
        layers = _layers(opened)
        if not layers:
            raise MediaError(f"{file}: is an OpenEXR file without channels")
        taken = _chosen(layers)
        header = opened.parts[taken.part].header
        values = 0
        for part in opened.parts:  # all are decoded
            width, height = _window(part.header, "dataWindow")[2:]
            check_size(file, width, height)
            values += width * height * len(part.header["channels"])
        if values > _MOST_VALUES:
            raise MediaError(f"{file}: holds {values / 1e6:.0f} million values; write fewer channels into one file")
        if "deep" in str(header["type"]):
            raise MediaError(f"{file}: is a deep OpenEXR file, which cannot be read; flatten it")
        size = _window(header, "displayWindow")[2:]
        check_size(file, *size)
        _primaries(header)
        ratio = Fraction(float(header.get("pixelAspectRatio", 1.0))).limit_denominator(1000)
        squared = in_square_pixels(size, ratio)
        check_size(file, *squared.size)
        rate = header.get("framesPerSecond", "")
        return Header(
            stored=size,
            has_alpha="A" in taken.channels,
            bits=32,
            is_linear=True,
            rate=str(rate) if isinstance(rate, Fraction) else "",
            square=squared.size,
            notes=(*_odd(taken), *filter(None, [squared.note])),
            done=(*_left_aside(layers, taken), *filter(None, [squared.done])),
        )


def _left_aside(layers: list[_Layer], taken: _Layer) -> tuple[str, ...]:
    """What is taken of a file that holds more."""
    others = [layer.name or "without a name" for layer in layers if layer is not taken]
    loose = [name for name in taken.channels if len(name) > 1 or name not in "RGBAY"]
    done = []
    if others:
        done.append(f"{f'layer {taken.name}' if taken.name else 'the picture'} taken, and not {', '.join(others)}")
    if loose and _shows(taken):
        done.append(f"channels left aside: {', '.join(loose)}")
    return tuple(done)


def _odd(taken: _Layer) -> tuple[str, ...]:
    if _shows(taken):
        return ()
    return (f"holds no colours; its channel {next(iter(taken.channels.values()))} is taken as grey",)


def _shows(taken: _Layer) -> bool:
    """Whether a layer is a picture, and no depth or the like."""
    return taken.has_colour or "Y" in taken.channels


def _primaries(header: Any) -> Array | None:
    given = header.get("chromaticities")
    return None if given is None else primaries.to_srgb(tuple(map(float, given)))


@contextmanager
def _pages(file: Path, header: Header) -> Iterator[Pages]:
    def read(_: int) -> NDArray[Any]:
        with reading(file):
            opened = _file(file, header_only=False)
            if len(opened.parts) != len(_file(file, header_only=True).parts):
                raise ValueError("OpenEXR leaves out parts that are damaged")
            taken = _chosen(_layers(opened))
            part = opened.parts[taken.part]
            light = _light(part, taken)
            turn = _primaries(part.header)
            if turn is not None and light.shape[2] >= 3:
                light[..., :3] = light[..., :3] @ turn.T
            if "A" in taken.channels:  # colours are multiplied with alpha, but for glows, which have none
                alpha = np.clip(light[..., -1:], 0.0, 1.0)
                light[..., :-1] /= np.where(alpha > 0.0, alpha, 1.0)
                light[..., -1:] = alpha
            return _placed(light, part.header)

    yield read


READER = Reader(_look, _pages)


def _light(part: Any, taken: _Layer) -> Array:
    """The channels of a layer ``(H, W, C)``, infinite values as the largest of half floats, none as 0."""

    def plane(kind: str) -> Array:
        values = part.channels[taken.channels[kind]].pixels.astype(np.float32)
        return np.nan_to_num(values, nan=0.0, posinf=65504.0, neginf=0.0)

    grey = "Y" if "Y" in taken.channels else next(iter(taken.channels))
    names = (*("RGB" if taken.has_colour else (grey,)), *("A" if "A" in taken.channels else ""))
    return np.stack([plane(name) for name in names], axis=-1)


def _placed(light: Array, header: Any) -> Array:
    """The pixels that are stored, where they are in what is shown."""
    left, top, width, height = _window(header, "displayWindow")
    at_x, at_y, wide, high = _window(header, "dataWindow")
    if (left, top, width, height) == (at_x, at_y, wide, high):
        return light
    canvas = np.zeros((height, width, light.shape[2]), np.float32)
    x, y = max(at_x, left), max(at_y, top)
    right, bottom = min(at_x + wide, left + width), min(at_y + high, top + height)
    if x < right and y < bottom:
        canvas[y - top : bottom - top, x - left : right - left] = light[
            y - at_y : bottom - at_y, x - at_x : right - at_x
        ]
    return canvas


def texts(file: Path) -> dict[str, str]:
    """The text attributes of a file.

    Raises:
        MediaError: it is damaged.
    """
    with reading(file):
        header = _file(file, header_only=True).parts[0].header
        return {name: value for name, value in header.items() if isinstance(value, str)}


def layer(name: str, colour: Array, alpha: Array | None) -> dict[str, NDArray[np.float16]]:
    """A picture as channels of a file: scene light, multiplied with its alpha, as half floats.

    Args:
        name: of the layer, empty for the picture itself.
        colour: ``(H, W, 3)`` sRGB in 0..1, straight.
        alpha: ``(H, W)`` in 0..1, or None.
    """
    light = to_linear(torch.from_numpy(colour)).numpy()
    if alpha is not None:
        light = np.dstack([light * alpha[..., None], alpha])
    prefix = f"{name}." if name else ""
    return {
        f"{prefix}{letter}": np.ascontiguousarray(light[..., index], np.float16)
        for index, letter in enumerate("RGBA"[: light.shape[2]])
    }


def write(
    file: Path,
    channels: Mapping[str, NDArray[np.float16]],
    rate: Fraction | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a file of one part, ZIP-compressed.

    Args:
        channels: ``(H, W)`` each, by full name.
        rate: of the sequence, or None.
        tags: text attributes.

    Raises:
        OSError: it cannot be written.
    """
    openexr = library(file)
    header = {**(tags or {}), "compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    if rate is not None:
        header["framesPerSecond"] = rate
    try:
        openexr.File(header, dict(channels)).write(str(file))
    except RuntimeError as error:  # which ends in the system's words
        code = next((code for code in errno.errorcode if os.strerror(code) in str(error)), errno.EIO)
        raise OSError(code, os.strerror(code)) from error
