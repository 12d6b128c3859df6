"""ICC profiles of stills: their colours to sRGB.

Profiles of three primaries and curves, and of grey, are computed here at any depth, where LittleCMS (through Pillow)
knows 8 bits only; it does the others: inks, and tables of measured colours.

Source: ICC.1:2022, sections 9 and 10; IEC 61966-2-1.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..image.colour import to_display
from .info import Array

__all__ = ["conversion", "inks_to_rgb", "usable"]

Conversion = Callable[[NDArray[Any]], NDArray[Any]]
"""Turns ``(H, W, 1)``, ``(H, W, 3)`` or inks ``(H, W, 4)`` of any type that ``Pages`` knows into sRGB, grey or RGB."""
_LEVELS = 65536
_PRIMARIES = np.array(  # of sRGB, adapted to D50, as columns of XYZ
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
_CURVES = to_display(torch.linspace(0, 1, _LEVELS, dtype=torch.float64)).float().numpy()
_PARAMETERS = {0: "g", 1: "gab", 2: "gabc", 3: "gabcd", 4: "gabcdef"}


def usable(profile: bytes | None, space: str) -> tuple[bytes | None, tuple[str, ...]]:
    """The profile where it has to be applied to colours of a space, else None, and what there is to say about it.

    Args:
        profile: as the file holds it.
        space: ``GRAY``, ``RGB`` or ``CMYK``.
    """
    if not profile:
        return None, ()
    try:
        return (None if conversion(profile, space) is None else profile), ()
    except _UnusableError:
        return None, ("holds a colour profile that is broken or made for other colours, which is left aside",)


def inks_to_rgb(inks: NDArray[np.uint8], profile: bytes | None) -> NDArray[np.uint8]:
    """Inks ``(H, W, 4)``, 255 = full, as RGB ``(H, W, 3)``; without a profile, as if each ink took its light alone."""
    try:
        convert = conversion(profile, "CMYK") if profile else None
    except _UnusableError:
        convert = None
    if convert is not None:
        return convert(inks)
    paper = 255 - inks.astype(np.uint16)
    return ((paper[..., :3] * paper[..., 3:] + 127) // 255).astype(np.uint8)


@lru_cache(maxsize=16)
def conversion(profile: bytes, space: str) -> Conversion | None:
    """What turns colours of a space into sRGB, None where they are sRGB already.

    Raises:
        _UnusableError: the profile is broken, or made for other colours.
    """
    try:
        of = profile[16:20].decode("ascii").strip()
        if profile[36:40] != b"acsp" or (of != space and (of, space) != ("RGB", "GRAY")):
            raise _UnusableError
        tags = _tags(profile)
        if of == "CMYK" or "A2B0" in tags:
            return _by_table(profile, of)
        convert = _by_curves(tags, of)
    except (ValueError, LookupError, ArithmeticError, struct.error, OSError, TypeError) as error:
        raise _UnusableError from error
    # Cameras tag sRGB too, rounded one way or another. What moves no colour by two steps of 8 bits is left as it is.
    steps = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    steps = steps[..., :1] if of == "GRAY" else steps
    return None if np.abs(convert(steps) * 255.0 - steps).max() < 2.0 else convert


def _tags(profile: bytes) -> dict[str, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > 100:
        raise ValueError("too many tags")
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * index) for index in range(count)]
    return {name.decode("latin-1"): profile[start : start + size] for name, start, size in entries}


def _by_curves(tags: dict[str, bytes], space: str) -> Conversion:
    names = "rgb" if space == "RGB" else "k"
    curves = np.stack([_curve(tags[f"{name}TRC"]) for name in names], axis=1).astype(np.float32)
    if space == "RGB":
        primaries = np.array([struct.unpack_from(">3i", tags[f"{name}XYZ"], 8) for name in names]).T / 65536.0
        turn = (np.linalg.inv(_PRIMARIES) @ primaries).astype(np.float32)
        if not np.isfinite(turn).all():
            raise ValueError("no colours")

    def convert(colours: NDArray[Any]) -> Array:
        import cv2

        places = _places(colours)
        if space == "RGB":
            light = np.stack([curves[places[..., i % places.shape[2]], i] for i in range(3)], axis=-1)
            light = cv2.transform(light, turn)
        else:
            light = curves[places[..., :1], 0]
        return np.asarray(_CURVES[np.rint(np.clip(light, 0, 1) * (_LEVELS - 1)).astype(np.uint16)])

    return convert


def _places(colours: NDArray[Any]) -> NDArray[np.uint16]:
    """Colours as places in a table of _LEVELS."""
    if colours.dtype == np.uint8:
        return colours.astype(np.uint16) * 257
    if colours.dtype == np.uint16:
        return colours
    return np.rint(np.clip(colours, 0, 1) * (_LEVELS - 1)).astype(np.uint16)


def _curve(data: bytes) -> NDArray[np.float64]:
    """The light of _LEVELS steps from black to white (ICC.1:2022, 10.6 and 10.18)."""
    x = np.linspace(0, 1, _LEVELS)
    if data[:4] == b"curv":
        (count,) = struct.unpack_from(">I", data, 8)
        if count == 0:
            return x
        points = np.frombuffer(data, ">u2", count, 12)
        return x ** (points[0] / 256.0) if count == 1 else np.interp(x, np.linspace(0, 1, count), points / 65535.0)
    if data[:4] != b"para":
        raise ValueError("no curve")
    letters = _PARAMETERS[struct.unpack_from(">H", data, 8)[0]]
    given = dict(zip(letters, np.frombuffer(data, ">i4", len(letters), 12) / 65536.0, strict=True))
    g, a, b = given["g"], given.get("a", 1.0), given.get("b", 0.0)
    if "d" in given:
        rise, offset, low, knee = given["c"], given.get("e", 0.0), given.get("f", 0.0), given["d"]
    else:
        rise, offset, knee = 0.0, given.get("c", 0.0), -b / a
        low = offset
    with np.errstate(all="ignore"):
        light = np.where(x >= knee, np.maximum(a * x + b, 0.0) ** g + offset, rise * x + low)
    if not np.isfinite(light).all():
        raise ValueError("a curve without end")
    return np.clip(light, 0.0, 1.0)


def _by_table(profile: bytes, space: str) -> Conversion:
    from PIL import Image, ImageCms

    mode = {"GRAY": "L"}.get(space, space)
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except ImageCms.PyCMSError as error:
        raise _UnusableError from error

    def convert(colours: NDArray[Any]) -> NDArray[np.uint8]:
        if colours.dtype != np.uint8:
            colours = ((_places(colours).astype(np.uint32) + 128) // 257).astype(np.uint8)
        if mode == "RGB" and colours.shape[2] == 1:
            colours = np.repeat(colours, 3, axis=2)
        picture = Image.fromarray(np.ascontiguousarray(colours if colours.shape[2] > 1 else colours[..., 0]), mode)
        return np.asarray(ImageCms.applyTransform(picture, transform))

    return convert


class _UnusableError(Exception):
    """The profile cannot be applied."""
