"""What a decoder gives, as pixels that stand upright, are square and are SDR."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from . import icc, primaries, ycbcr
from .container import exact
from .info import Array, Notes
from .tone import HLG, PQ, USUAL_PEAK, ToneMap, peak_of

if TYPE_CHECKING:
    import av

__all__ = [
    "UNSAID",
    "UPRIGHT",
    "Colours",
    "Look",
    "Orientation",
    "in_square_pixels",
    "is_full_range",
    "look_of",
    "pixels_of",
    "plain_format",
]

UNSAID = 2
"""H.273 code of what is not said."""
_LEAST_STRETCH, _MOST_STRETCH = Fraction(101, 100), 8
_LEVEL = 0.02  # tangent of an angle that nobody sees
# These sit their chroma between columns, all others on the left one.
_CENTRED_CHROMA = ("mjpeg", "mpeg1video", "h263", "theora", "vp3", "vp4")


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


@dataclass(frozen=True)
class Look:
    """How the stored pictures of a stream are shown."""

    crop: tuple[int, int]
    """(width, height) to keep of what is stored, from the top left."""
    square: tuple[int, int]
    """(width, height) of the same in square pixels; neither is less than stored."""
    turn: Orientation
    left: bool
    """Whether chroma sits on the left one of the columns that it covers, rather than between them."""
    tone: ToneMap | None
    """What brings high dynamic range to SDR."""
    matrix: int = UNSAID
    """H.273 code of the matrix of frames that do not say theirs."""
    profile: bytes | None = None
    """The ICC profile of its colours, None for sRGB."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of what is shown."""
        width, height = self.square
        return (height, width) if self.turn.transposed else (width, height)

    def paint(self, frame: av.VideoFrame, out: Array, alpha: Array | None) -> None:
        """Fill ``out`` ``(h, w, 3)`` and, if given, ``alpha`` ``(h, w)`` from a decoded frame.

        Args:
            frame: any pixel format.
            out, alpha: float32 in 0..1; smaller than ``size`` for averaging over areas.
        """
        import cv2

        height, width = out.shape[1::-1] if self.turn.transposed else out.shape[:2]
        stored = min(height, self.crop[1]), min(width, self.crop[0])
        if self.turn == UPRIGHT and stored == (height, width):
            self._paint_as_stored(frame, out, alpha)
            return
        lying = np.empty((*stored, 3), np.float32)
        matte = None if alpha is None else np.empty(stored, np.float32)
        self._paint_as_stored(frame, lying, matte)
        for source, target in ((lying, out), (matte, alpha)):
            if source is not None and target is not None:
                if stored != (height, width):
                    source = np.clip(cv2.resize(source, (width, height), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
                target[:] = self.turn.apply(source)

    def _paint_as_stored(self, frame: av.VideoFrame, out: Array, alpha: Array | None) -> None:
        _paint_frame(frame, self, out, alpha)
        if self.tone is not None:
            self.tone.apply(out)
        if self.profile is not None and (convert := icc.conversion(self.profile, "RGB")) is not None:
            out[:] = convert(out)


@dataclass(frozen=True)
class Colours:
    """What a stream says of its colours, in codes of H.273."""

    primaries: int
    transfer: int
    matrix: int

    @classmethod
    def of(cls, context: Any) -> Colours:
        return cls(context.color_primaries, context.color_trc, context.colorspace)

    def __or__(self, other: Colours) -> Colours:
        """What is said here, and for what is not, what is said there."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Colours(*(there if here in (0, UNSAID) else here for here, there in pairs))


def look_of(
    path: Path, stream: Any, frame: av.VideoFrame, container: Colours, crop: tuple[int, int], notes: Notes
) -> Look:
    """How the pictures of a stream are shown, by what it and its first frame say; what is done to them goes to notes.

    A decoder's word on colours counts more than the container's, but some have none and wipe that out.

    Pixels that are less than 1 % from square are square: such ratios come of rounded sizes, nobody sees them, and
    resampling costs sharpness everywhere.

    Raises:
        MediaError: colours that cannot be read.
    """
    context = stream.codec_context
    side_data = _side_data(frame, context.name)
    if _is_dolby_vision_5(side_data):
        raise MediaError(
            f"{path}: is Dolby Vision of profile 5, whose colours no one but its own decoder can read; "
            "convert it to HDR10, HLG or SDR"
        )
    colours, tone = Colours.of(context) | container, None
    if colours.transfer in (PQ, HLG):
        peak = peak_of(side_data) if colours.transfer == PQ else USUAL_PEAK
        tone = ToneMap(colours.transfer, colours.primaries, peak)
        notes.do(tone.done)
        colours |= Colours(9, UNSAID, 9)  # BT.2020, which such video is made for
    elif colours.primaries in primaries.WIDE:
        notes.do("values of wide primaries (BT.2020 or P3) taken as they are")
    if colours.matrix not in (*ycbcr.MATRICES, 0, UNSAID) and not frame.format.is_rgb:
        notes.add(f"has a colour matrix that is not known here ({colours.matrix}), read as if it said none")
    square = in_square_pixels(crop, exact(stream.sample_aspect_ratio) or exact(context.sample_aspect_ratio))
    if square.note:
        notes.add(square.note)
    if square.done:
        notes.do(square.done)
    turn = _orientation(frame, side_data, notes)
    left = context.name not in _CENTRED_CHROMA
    profile, said = icc.usable(_profile(path) if context.name == "apng" else None, "RGB")
    for note in said:
        notes.add(note)
    return Look(crop, square.size, turn, left=left, tone=tone, matrix=colours.matrix, profile=profile)


def _profile(path: Path) -> bytes | None:
    """The ICC profile of an animated PNG, which _side_data cannot have."""
    from PIL import Image

    with suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError), Image.open(path) as picture:
        found = picture.info.get("icc_profile")
        return found if isinstance(found, bytes) else None
    return None


class Squared(NamedTuple):
    """A picture in square pixels."""

    size: tuple[int, int]
    """Width and height."""
    note: str = ""
    """What is odd about its pixels, if anything."""
    done: str = ""
    """What is done to them, if anything."""


def in_square_pixels(size: tuple[int, int], ratio: Fraction) -> Squared:
    """A stored (width, height) in square pixels: the shorter side of a pixel is what becomes more.

    Args:
        size: as it is stored.
        ratio: width of a pixel over its height; 0 where nobody says.
    """
    stretch = max(ratio, 1 / ratio) if ratio > 0 else Fraction(1)
    if stretch < _LEAST_STRETCH:
        return Squared(size)
    pixels = f"pixels of {ratio.numerator}:{ratio.denominator}"
    if stretch > _MOST_STRETCH:
        return Squared(size, f"says that it has {pixels}, which is taken for an error: they are read as square")
    width, height = size
    square = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
    if square == size:
        return Squared(size)
    return Squared(square, "", f"{pixels} scaled from {width}x{height} to {square[0]}x{square[1]} square ones")


def _side_data(frame: av.VideoFrame, codec: str) -> Mapping[Any, Any]:
    """What a frame has beside its pixels.

    PyAV frees the name of a PNG's colour profile twice, which ends the process, and up to version 18 raises at kinds
    that it has no name for, such as the EXIF of a JPEG.
    """
    if codec in ("png", "apng"):
        return {}
    try:
        return frame.side_data
    except ValueError:
        return {}


def _is_dolby_vision_5(side_data: Mapping[Any, Any]) -> bool:
    """Whether a frame has the profile without a base layer that others can show, by the header of its metadata."""
    found = side_data.get("DOVI_METADATA")
    if found is None:
        return False
    data = bytes(found)
    header = data[int(np.frombuffer(data, np.uint64, 1)[0]) :]
    return header[4] == 0 and header[10] == 1  # its RPU's profile and whether its base layer has the full range


def _orientation(frame: av.VideoFrame, side_data: Mapping[Any, Any], notes: Notes) -> Orientation:
    """Read the display matrix: a stored point (p, q) is shown at (a p + c q, b p + d q); quarter turns and mirrors."""
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is None:  # the angle alone is there where _side_data cannot be had
        return _QUARTER_TURNS[round(frame.rotation / 90) % 4]
    a, b, _, c, d = map(int, np.frombuffer(bytes(matrix), np.int32)[:5])
    along, across = abs(a) + abs(d), abs(b) + abs(c)
    if min(along, across) > max(along, across) * _LEVEL:
        notes.add("is turned by no quarter of a circle; it is read as if by the nearest one")
    if along >= across:
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


_QUARTER_TURNS = (
    UPRIGHT,
    Orientation(True, False, True),
    Orientation(False, True, True),
    Orientation(True, True, False),
)
"""By quarters against the clock."""


def pixels_of(frame: av.VideoFrame, plane: int, channels: int, kind: type[np.unsignedinteger]) -> NDArray[Any]:
    """A plane as an array, without copying: ``(h, w)`` or ``(h, w, channels)``."""
    part = frame.planes[plane]
    rows = np.frombuffer(memoryview(part), kind).reshape(part.height, -1)[:, : part.width * channels]
    return rows if channels == 1 else rows.reshape(part.height, part.width, channels)


def _paint_frame(frame: av.VideoFrame, look: Look, out: Array, alpha: Array | None) -> None:
    full = is_full_range(frame)
    frame, family = plain_format(frame)
    parts = frame.format.components
    bits = max(part.bits for part in parts)
    kind: type[np.unsignedinteger] = np.uint16 if bits > 8 else np.uint8
    width, height = look.crop
    matte: NDArray[Any] | None = None
    if family == "rgb":
        pixels = pixels_of(frame, 0, len(parts), kind)[:height, :width]
        colour, matte = pixels[..., :3], pixels[..., 3] if len(parts) == 4 else None
        if colour.shape[:2] != out.shape[:2]:
            colour = ycbcr.average_over_areas(colour, out.shape[1], out.shape[0])
        np.divide(colour, np.float32(2**bits - 1), out=out, dtype=np.float32)
    else:
        guess = 1 if frame.height >= 720 or frame.width >= 1280 else 6
        matrix = next(code for code in (frame.colorspace, look.matrix, guess) if code in ycbcr.MATRICES)
        decode = ycbcr.decode_matrix(matrix, bits=bits, full=full)
        planes = [pixels_of(frame, part.plane, 1, kind) for part in parts]
        luma = planes[0][:height, :width]
        if family == "yuv":
            across, down = frame.format.chroma_width(width), frame.format.chroma_height(height)
            blue, red = (plane[:down, :across] for plane in planes[1:3])
            ycbcr.planes_to_rgb(luma, blue, red, decode=decode, left=look.left, out=out)
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
    bits = min(max(part.bits for part in parts), 16)  # floats become whole numbers
    alpha = any(part.is_alpha for part in parts)
    name = form.name.replace("yuvj", "yuv")
    if form.is_rgb or form.has_palette or name.startswith("xyz") or (len(parts) == 2 and alpha):
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
