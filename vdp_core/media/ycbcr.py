"""Colour of video pixels: planar YCbCr to RGB and back, at any bit depth, in float.

Why not swscale, which PyAV would do this with: measured on flat colour patches its fast 8-bit path is off by up to
3/255, and above 8 bits limited range it takes white for 255 * 256 instead of 65535 both ways, so that white comes back
as 0.996. The formulas here are exact to rounding, keep what lies between two 8-bit steps, and cost about the same.

Equations: ITU-R BT.709-6 section 3 and ITU-T H.273 section 8.3. Values are display-referred; nothing here touches the
transfer curve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .info import Array

__all__ = ["MATRICES", "average_over_areas", "decode_matrix", "encode_matrix", "planes_to_rgb", "rgb_to_planes"]

MATRICES: dict[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470 BG, the same as BT.601
    6: (0.299, 0.114),  # BT.601
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),  # BT.2020 constant luminance, treated as the one before
}
"""(Kr, Kb), the weights of red and blue in luma, by H.273 code of the matrix coefficients."""


def _ranges(bits: int, full: bool) -> tuple[float, float, float, float]:
    """Black, luma span, neutral chroma and chroma span, in code values (H.273 equations 20 to 37)."""
    step = 2.0 ** (bits - 8)
    if full:
        return 0.0, 2.0**bits - 1.0, 128.0 * step, 2.0**bits - 1.0
    return 16.0 * step, 219.0 * step, 128.0 * step, 224.0 * step


def decode_matrix(matrix: int, *, bits: int, full: bool) -> Array:
    """Code values ``(Y, Cb, Cr, 1)`` to RGB in 0..1, as a ``(3, 4)`` matrix.

    Args:
        matrix: a key of MATRICES.
        bits: bit depth of the code values.
        full: full range rather than limited.
    """
    kr, kb = MATRICES[matrix]
    kg = 1.0 - kr - kb
    black, luma, neutral, chroma = _ranges(bits, full)
    # Y in 0..1 and Cb, Cr in -0.5..0.5 to RGB
    turn = np.array(
        [
            [1.0, 0.0, 2.0 * (1.0 - kr)],
            [1.0, -2.0 * kb * (1.0 - kb) / kg, -2.0 * kr * (1.0 - kr) / kg],
            [1.0, 2.0 * (1.0 - kb), 0.0],
        ]
    ) / np.array([luma, chroma, chroma])
    offset = -turn @ np.array([black, neutral, neutral])
    return np.column_stack([turn, offset]).astype(np.float32)


def encode_matrix(matrix: int, *, bits: int, full: bool) -> Array:
    """RGB in 0..1 ``(R, G, B, 1)`` to code values, as a ``(3, 4)`` matrix; the inverse of decode_matrix."""
    decode = decode_matrix(matrix, bits=bits, full=full).astype(np.float64)
    turn = np.linalg.inv(decode[:, :3])
    return np.column_stack([turn, -turn @ decode[:, 3]]).astype(np.float32)


def average_over_areas(picture: NDArray[Any], width: int, height: int) -> Array:
    """Shrink ``(H, W)`` or ``(H, W, C)`` to the size, each pixel the mean of the area it covers, as float32."""
    import cv2

    picture = picture.astype(np.float32)  # first, because the mean of integers lies between them
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _read_at(plane: Array, x: tuple[float, float], y: tuple[float, float], size: tuple[int, int]) -> Array:
    """Read a plane at ``(x[0] * X + x[1], y[0] * Y + y[1])`` for each (X, Y) of ``size``, edges repeated."""
    import cv2

    places = np.array([[x[0], 0.0, x[1]], [0.0, y[0], y[1]]], np.float32)
    linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(plane, places, size, flags=linear, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _resize_chroma(plane: Array, width: int, height: int, *, luma: tuple[int, int], left: bool) -> Array:
    """Read a chroma plane on a ``width`` x ``height`` grid laid over the luma picture.

    Vertically a chroma sample sits between the luma rows it covers; horizontally on the first of its columns
    (``left``, as MPEG-2 and later do) or between them (JPEG). 4:4:4 planes coincide with luma.

    Args:
        plane: ``(h, w)``.
        width, height: of the answer.
        luma: (width, height) of the luma plane.
        left: the horizontal siting.
    """
    rows, columns = plane.shape
    across, down = round(luma[0] / columns), round(luma[1] / rows)  # luma samples per chroma sample; odd sizes round
    shift = (across - 1) / (2 * across) if left else 0.0  # how far left of its cell's centre a sample sits
    if width <= columns and height <= rows:
        if shift:
            plane = _read_at(plane, (1.0, shift), (1.0, 0.0), (columns, rows))
        return average_over_areas(plane, width, height)
    # Grid position X is luma position (X + 0.5) * luma / width - 0.5, and that divided by across for chroma.
    scale_x, scale_y = luma[0] / (width * across), luma[1] / (height * down)
    return _read_at(plane, (scale_x, 0.5 * scale_x - 0.5 + shift), (scale_y, 0.5 * scale_y - 0.5), (width, height))


def planes_to_rgb(
    luma: NDArray[Any],
    blue: NDArray[Any],
    red: NDArray[Any],
    *,
    decode: Array,
    left: bool,
    out: Array,
) -> None:
    """Fill ``out`` ``(h, w, 3)`` with RGB in 0..1 from Y, Cb and Cr planes; a smaller ``out`` is averaged over areas.

    Args:
        luma, blue, red: code values ``(H, W)`` and subsampled, any integer type.
        decode: what decode_matrix gives.
        left: whether chroma is sited on the first of its columns (see H.273 figure 2).
        out: float32, C-contiguous, written in place.
    """
    import cv2

    height, width = out.shape[:2]
    size = (luma.shape[1], luma.shape[0])
    y = average_over_areas(luma, width, height)
    cb, cr = (_resize_chroma(plane.astype(np.float32), width, height, luma=size, left=left) for plane in (blue, red))
    cv2.transform(cv2.merge([y, cb, cr]), decode, dst=out)
    np.clip(out, 0.0, 1.0, out=out)


def rgb_to_planes(rgb: Array, *, encode: Array, bits: int, subsampled: bool) -> list[NDArray[np.unsignedinteger]]:
    """Y, Cb and Cr code values of a picture; 4:2:0 where ``subsampled`` (sited left, the H.264 default), else 4:4:4.

    Args:
        rgb: ``(H, W, 3)`` float32 in 0..1; odd sizes give chroma planes rounded up.
        encode: what encode_matrix gives.
        bits: bit depth; 8 gives uint8, more uint16.
        subsampled: halve the chroma planes both ways.
    """
    import cv2

    planes = list(cv2.split(cv2.transform(rgb, encode)))
    if subsampled:
        across = np.array([0.25, 0.5, 0.25], np.float32)  # a tent around the even column the sample sits on
        down = np.array([0.5, 0.5], np.float32)
        for index in (1, 2):
            smooth = cv2.sepFilter2D(planes[index], -1, across, down, anchor=(1, 0), borderType=cv2.BORDER_REPLICATE)
            planes[index] = smooth[::2, ::2]
    kind = np.uint8 if bits == 8 else np.uint16
    return [np.clip(np.rint(plane), 0, 2**bits - 1).astype(kind) for plane in planes]
