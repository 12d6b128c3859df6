"""What a decoder gives, as pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import ycbcr
from .info import Array

if TYPE_CHECKING:
    import av

__all__ = ["UPRIGHT", "Orientation", "is_full_range", "orientation_of", "paint_frame", "pixels_of", "plain_format"]


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned to stand upright: swap its axes, then mirror."""

    transposed: bool
    mirror_x: bool
    mirror_y: bool

    def apply(self, picture: Array) -> Array:
        picture = picture.swapaxes(0, 1) if self.transposed else picture
        return picture[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


UPRIGHT = Orientation(False, False, False)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Read the display matrix: a stored point (p, q) is shown at (a p + c q, b p + d q); quarter turns and mirrors."""
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5]
    if abs(int(a)) + abs(int(d)) >= abs(int(b)) + abs(int(c)):
        return Orientation(False, bool(a < 0), bool(d < 0))
    return Orientation(True, bool(c < 0), bool(b < 0))


def pixels_of(frame: av.VideoFrame, plane: int, channels: int, kind: type[np.unsignedinteger]) -> NDArray[Any]:
    """A plane as an array, without copying: ``(h, w)`` or ``(h, w, channels)``."""
    part = frame.planes[plane]
    rows = np.frombuffer(memoryview(part), kind).reshape(part.height, -1)[:, : part.width * channels]
    return rows if channels == 1 else rows.reshape(part.height, part.width, channels)


def paint_frame(frame: av.VideoFrame, crop: tuple[int, int], codec: str, out: Array, alpha: Array | None) -> None:
    """Fill ``out`` ``(h, w, 3)`` and, if given, ``alpha`` ``(h, w)`` from a decoded frame.

    Args:
        frame: any pixel format.
        crop: (width, height) to keep, from the top left.
        codec: the stream's, which says where its chroma sits.
        out, alpha: float32 in 0..1, smaller than the frame for averaging over areas.
    """
    full = is_full_range(frame)
    frame, family = plain_format(frame)
    parts = frame.format.components
    bits = max(part.bits for part in parts)
    kind: type[np.unsignedinteger] = np.uint16 if bits > 8 else np.uint8
    width, height = crop
    matte: NDArray[Any] | None = None
    if family == "rgb":
        pixels = pixels_of(frame, 0, len(parts), kind)[:height, :width]
        colour, matte = pixels[..., :3], pixels[..., 3] if len(parts) == 4 else None
        if colour.shape[:2] != out.shape[:2]:
            colour = ycbcr.average_over_areas(colour, out.shape[1], out.shape[0])
        np.divide(colour, np.float32(2**bits - 1), out=out, dtype=np.float32)
    else:
        matrix = frame.colorspace
        if matrix not in ycbcr.MATRICES:
            matrix = 1 if frame.height >= 720 or frame.width >= 1280 else 6
        decode = ycbcr.decode_matrix(matrix, bits=bits, full=full)
        planes = [pixels_of(frame, part.plane, 1, kind) for part in parts]
        luma = planes[0][:height, :width]
        if family == "yuv":
            # MJPEG sits its chroma between columns, all later codecs on the left one.
            ycbcr.planes_to_rgb(luma, planes[1], planes[2], decode=decode, left=codec != "mjpeg", out=out)
            matte = planes[3][:height, :width] if len(planes) == 4 else None
        else:
            grey = ycbcr.average_over_areas(luma, out.shape[1], out.shape[0])
            neutral = decode[0, 3] + decode[0, 2] * 2 ** (bits - 1)
            np.clip(grey[..., None] * decode[0, 0] + neutral, 0.0, 1.0, out=out)
    if alpha is None:
        return
    if matte is None:
        alpha.fill(1.0)
        return
    if matte.shape != alpha.shape:
        matte = ycbcr.average_over_areas(matte, alpha.shape[1], alpha.shape[0])
    np.divide(matte, np.float32(2**bits - 1), out=alpha, dtype=np.float32)


def is_full_range(frame: av.VideoFrame) -> bool:
    """Whether values of a frame go from black 0 to white at the type's most, rather than from 16 to 235 of 8 bits."""
    if frame.color_range in (1, 2):
        return frame.color_range == 2
    # Grey that says nothing is full range: swscale, by which nearly all of it is made, knows no other.
    return frame.format.name.startswith(("yuvj", "gray", "mono"))


def plain_format(frame: av.VideoFrame) -> tuple[av.VideoFrame, str]:
    """The frame with its samples one per plane (yuv, grey) or interleaved (rgb), little end first, and which it is.

    Only packing changes, never colour: YCbCr stays what it is until ycbcr turns it, see there for why.
    """
    form = frame.format
    parts = form.components
    bits = max(part.bits for part in parts)
    alpha = any(part.is_alpha for part in parts)
    name = form.name.replace("yuvj", "yuv")
    if form.is_rgb or form.has_palette or (len(parts) == 2 and alpha):
        wanted = ("rgba" if alpha else "rgb") + (("64le" if alpha else "48le") if bits > 8 else ("" if alpha else "24"))
        family = "rgb"
    elif len(parts) <= 2:
        wanted = f"gray{bits}le" if bits > 8 else "gray"
        family = "grey"
    else:
        across, down = 8 // form.chroma_width(8), 8 // form.chroma_height(8)
        layout = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}
        wanted = f"yuv{'a' if alpha else ''}{layout[across, down]}p{f'{bits}le' if bits > 8 else ''}"
        family = "yuv"
    return (frame if name == wanted else frame.reformat(format=wanted)), family
