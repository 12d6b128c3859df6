"""TIFF in all its ways: the tags and the meaning of samples are read here, libtiff (through Pillow) unpacks them.

Pillow knows few of TIFF's pixel layouts, and OpenCV misreads planes, alpha and white-is-zero. Both go through libtiff,
whose codecs give bytes whatever the samples are. So each page is handed to it as a small TIFF of its own, that says its
rows are grey of 8 bits; bytes become samples here. Only codecs that know of pixels (JPEG, fax) and colours
that are no light (YCbCr, CIELAB) are left to Pillow as they are.

Source: TIFF 6.0; Adobe TIFF Technical Notes 1 to 3 (predictors of floating point, tiles); BigTIFF.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from . import icc, raster
from .pixels import UPRIGHT
from .still import EXIF_TURNS, Header, Pages, Reader, check_size, damaged, reading

__all__ = ["MAGIC", "READER"]

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_BYTES = 2**31  # of a page when it is unpacked
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}
_BYTE_CODECS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, Deflate, PackBits, old Deflate, LZMA, Zstandard
_PIXEL_CODECS = (2, 3, 4, 7)  # fax, JPEG
_CODECS = {
    6: "old JPEG",
    34661: "JBIG",
    34712: "JPEG 2000",
    34676: "LogLuv",
    34677: "LogLuv",
    34887: "LERC",
    50001: "WebP",
}
_COLOUR_NAMES = {4: "a mask", 9: "ICC Lab", 10: "ITU Lab", 32803: "raw camera data", 32844: "LogLuv", 32845: "LogLuv"}
_FORMS = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q"}
"""How whole numbers and bytes are stored, by the type of a tag."""
_TAGS = (
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(338, 339, 347, 530, 34675),
)
"""Those that are read: TIFF 6.0, and the ICC profile."""
_MOST_TAGS = 4096
_MOST_TIMES = 16  # that pages may share what a tag holds, such as a profile, taken all together
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_PREMULTIPLIED, _STRAIGHT = 1, 2


@dataclass(frozen=True)
class _Page:
    """The tags of a page."""

    tags: Mapping[int, tuple[Any, ...] | bytes]
    order: str
    """Of bytes within a sample: ``<`` or ``>``."""

    def values(self, tag: int, *default: int) -> tuple[int, ...]:
        return tuple(self.tags.get(tag, default))

    def value(self, tag: int, default: int = 0) -> int:
        return self.values(tag, default)[0]

    def data(self, tag: int) -> bytes | None:
        found = self.tags.get(tag)
        return found if isinstance(found, bytes) else None

    @property
    def size(self) -> tuple[int, int]:
        return self.value(256), self.value(257)

    @property
    def samples(self) -> int:
        return self.value(277, 1)

    @property
    def bits(self) -> int:
        return self.value(258, 1)

    @property
    def kind(self) -> int:
        """Unsigned, signed or floating point."""
        return self.value(339, _UNSIGNED)

    @property
    def colour(self) -> int:
        return self.value(262, _BLACK_IS_ZERO)

    @property
    def codec(self) -> int:
        return self.value(259, 1)

    @property
    def is_left_to_pillow(self) -> bool:
        return self.codec in _PIXEL_CODECS or self.colour in (_YCBCR, _CIELAB)

    @property
    def alpha(self) -> tuple[int, int] | None:
        """Place of alpha among the samples, and whether colours are multiplied with it."""
        first = _COLOURS.get(self.colour, 3)
        if self.samples <= first:
            return None
        # Without the tag, one sample more is alpha, as other readers have it; of samples that mean nothing, none is.
        extra = self.values(338, *([_STRAIGHT] if self.samples == first + 1 else []))
        return next(((first + i, x) for i, x in enumerate(extra) if x in (_PREMULTIPLIED, _STRAIGHT)), None)

    @property
    def tile(self) -> tuple[int, int] | None:
        """Width and height of tiles, None for strips."""
        return (self.value(322), self.value(323)) if 322 in self.tags else None


def _directories(stream: BinaryIO) -> Iterator[tuple[int, _Page]]:
    """Offset and tags of each page that is no smaller copy of another and no mask."""
    seen: set[int] = set()
    _, _, offset = _layout(stream)
    left = _MOST_TIMES * stream.seek(0, io.SEEK_END)
    while offset and offset not in seen:
        seen.add(offset)
        page, following = _directory(stream, offset)
        left -= sum(map(len, page.tags.values()))
        if left < 0:
            raise ValueError("tags that hold more than the file")
        if not page.value(254) & 0b101 and page.value(255) != 2:
            yield offset, page
        offset = following


def _layout(stream: BinaryIO) -> tuple[str, bool, int]:
    """The order of bytes, whether it is BigTIFF, and the offset of the first page."""
    stream.seek(0)
    head = stream.read(16)
    order, is_big = "<" if head[:2] == b"II" else ">", b"+" in head[2:4]
    return order, is_big, *struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", head, 8 if is_big else 4)


def _directory(stream: BinaryIO, offset: int) -> tuple[_Page, int]:
    """The tags at an offset, and the offset of the next page, 0 after the last."""
    order, is_big, _ = _layout(stream)
    counts, entry, places = ("Q", "HHQ", "Q") if is_big else ("H", "HHI", "I")
    wide = struct.calcsize(places)

    def unpack(form: str) -> tuple[Any, ...]:
        return struct.unpack(order + form, stream.read(struct.calcsize(order + form)))

    stream.seek(offset)
    (count,) = unpack(counts)
    raw = [(*unpack(entry), stream.read(wide)) for _ in range(min(count, _MOST_TAGS))]
    (following,) = unpack(places)
    tags: dict[int, tuple[Any, ...] | bytes] = {}
    end = stream.seek(0, io.SEEK_END)
    for tag, form, number, value in raw:
        letter = _FORMS.get(form)
        size = number * struct.calcsize(order + letter) if letter else 0
        if letter is None or tag not in _TAGS or size > end:
            continue
        if size > wide:
            stream.seek(struct.unpack(order + places, value)[0])
            value = stream.read(size)
        if len(value) >= size > 0:
            tags[tag] = value[:size] if letter == "B" else struct.unpack(f"{order}{number}{letter}", value[:size])
    return _Page(tags, order), following


def _look(file: Path) -> Header:
    """The header of the first page, and how many there are."""
    with reading(file), file.open("rb") as stream:
        pages = [page for _, page in _directories(stream)]
        if not pages:
            raise damaged(file)
        first = pages[0]
        for page in pages:
            check_size(file, *page.size)
            _check_kind(file, page)
        notes = []
        if any(page.size != first.size for page in pages):
            notes.append(f"holds {len(pages)} pages of different sizes, of which the first is taken")
            pages = pages[:1]
        if any(page.samples > _COLOURS.get(page.colour, 3) and page.alpha is None for page in pages):
            notes.append("holds a channel that is neither colour nor alpha, which is left aside")
        space = {_CMYK: "CMYK", _WHITE_IS_ZERO: "GRAY", _BLACK_IS_ZERO: "GRAY"}.get(first.colour, "RGB")
        profile, said = icc.usable(None if first.colour == _CIELAB else first.data(34675), space)
        return Header(
            stored=first.size,
            has_alpha=any(page.alpha is not None for page in pages),
            bits=max(8, *(page.bits for page in pages)),
            turn=EXIF_TURNS.get(first.value(274, 1), UPRIGHT),
            profile=None if space == "CMYK" else profile,  # where inks become light
            pages=len(pages),
            notes=(*notes, *said),
        )


def _check_kind(file: Path, page: _Page) -> None:
    """Refuse what no reader here understands, by its name."""
    bits, kind = page.bits, page.kind
    words = ""
    if page.codec not in (*_BYTE_CODECS, *_PIXEL_CODECS):
        words = f"compressed by {_CODECS.get(page.codec, f'codec {page.codec}')}"
    elif page.colour not in (*_COLOURS, _YCBCR, _CIELAB):
        words = f"colour as {_COLOUR_NAMES.get(page.colour, f'kind {page.colour}')}"
    elif page.is_left_to_pillow:
        words = f"{bits} bits a channel in YCbCr, CIELAB or JPEG" if bits > 8 else ""
    elif len(set(page.values(258, 1))) > 1:
        words = "channels of different depths"
    elif page.colour == _PALETTE and (kind != _UNSIGNED or bits > 16):
        words = f"a palette of {bits} bits"
    elif bits not in {_UNSIGNED: (*range(1, 17), 32, 64), _SIGNED: (8, 16, 32), _FLOAT: (16, 32, 64)}.get(kind, ()):
        names = {_UNSIGNED: "whole", _SIGNED: "signed", _FLOAT: "floating-point"}
        words = f"{names.get(kind, 'other')} numbers of {bits} bits"
    elif page.value(317, 1) not in (1, 2, 3) or (page.value(317, 1) != 1 and bits not in (8, 16, 32, 64)):
        words = f"predictor {page.value(317)} of {bits} bits"
    if words:
        raise MediaError(f"{file}: is a TIFF of a kind that cannot be read ({words}); save it as RGB with LZW or none")


@contextmanager
def _pages(file: Path, header: Header) -> Iterator[Pages]:
    with reading(file):
        stream = file.open("rb")
    with stream:
        with reading(file):
            offsets = [offset for offset, _ in _directories(stream)]

        def read(index: int) -> NDArray[Any]:
            with reading(file):
                page = _directory(stream, offsets[index])[0]
                check_size(file, *page.size)
                _check_kind(file, page)
                return _left_to_pillow(stream, page) if page.is_left_to_pillow else _light(_samples(stream, page), page)

        yield read


READER = Reader(_look, _pages)


def _samples(stream: BinaryIO, page: _Page) -> NDArray[Any]:
    """Samples ``(H, W, S)`` as they are stored, in the machine's order of bytes."""
    width, height = page.size
    if not 0 < page.samples * width * height * page.bits <= 8 * _MOST_BYTES:
        raise MediaError(
            f"{stream.name}: says it is larger than {_MOST_BYTES >> 20} MiB; make it smaller, or repair it"
        )
    planes = page.samples if page.value(284, 1) == 2 else 1
    return np.concatenate([_plane(stream, page, plane, page.samples // planes) for plane in range(planes)], axis=2)


def _plane(stream: BinaryIO, page: _Page, plane: int, samples: int) -> NDArray[Any]:
    """What lies together in a strip or tile: all samples ``(H, W, S)``, or one of them."""
    width, height = page.size
    across, down = page.tile or (width, min(page.value(278, height), height) or height)
    if across < 1 or down < 1:
        raise ValueError("no tile")
    columns, rows = -(-width // across), -(-height // down)
    row_bytes = -(-across * samples * page.bits // 8)
    if columns * row_bytes * rows * down > 2 * _MOST_BYTES:
        raise ValueError("tiles far larger than the page")
    first = plane * columns * rows
    segments = _segments(stream, page, first, columns * rows)
    # Whole tiles, so that those at the border are not cut before their predictor is undone.
    shape = (columns * row_bytes, rows * down if page.tile else height)
    layout = {322: row_bytes, 323: down} if page.tile else {278: down}
    small = {256: shape[0], 257: shape[1], 258: 8, 259: page.codec, 262: 1, 266: page.value(266, 1), 277: 1, **layout}
    unpacked = np.asarray(_opened(_small_tiff({tag: [value] for tag, value in small.items()}, segments)))
    if unpacked.shape != shape[::-1]:
        raise ValueError("other size than announced")
    packed = np.ascontiguousarray(unpacked).reshape(-1, columns, row_bytes)
    values = _undone(packed, page, across, samples)
    return values.reshape(len(packed), columns * across, samples)[:height, :width]


def _segments(stream: BinaryIO, page: _Page, first: int, count: int) -> list[bytes]:
    """The strips or tiles of a plane, as they are packed."""
    offsets = page.values(324) or page.values(273)
    sizes = page.values(325) or page.values(279)
    end = stream.seek(0, io.SEEK_END)
    if not sizes and len(offsets) == 1:  # some old writers leave them out
        sizes = (end - offsets[0],)
    offsets, sizes = offsets[first : first + count], sizes[first : first + count]
    if len(offsets) != count or len(sizes) != count or sum(sizes) > end:
        raise ValueError("strips or tiles are missing")
    segments = []
    for offset, size in zip(offsets, sizes, strict=True):
        if not 0 < size <= end - offset:
            raise ValueError("a strip or tile lies outside of the file")
        stream.seek(offset)
        segments.append(stream.read(size))
    return segments


def _small_tiff(tags: dict[int, Sequence[int] | bytes], segments: list[bytes]) -> bytes:
    """A TIFF of one page with these tags and strips or tiles."""
    starts = np.cumsum([8, *map(len, segments)]).tolist()
    places, sizes = (324, 325) if 322 in tags else (273, 279)
    tags = {**tags, places: starts[:-1], sizes: list(map(len, segments))}
    directory_at = starts[-1] + starts[-1] % 2
    body = b"".join(segments).ljust(directory_at - 8, b"\0")
    values_at = directory_at + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, value in sorted(tags.items()):
        form, data = (7, value) if isinstance(value, bytes) else (4, struct.pack(f"<{len(value)}I", *value))
        count = len(value)
        if len(data) > 4:
            place = struct.pack("<I", values_at + len(values))
            values += data + b"\0" * (len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, form, count) + place
    directory = struct.pack("<H", len(tags)) + entries + bytes(4) + values
    return b"II*\0" + struct.pack("<I", directory_at) + body + directory


def _opened(content: bytes) -> Any:
    """A picture of Pillow's, past its check of sizes: those of bytes are no sizes."""
    from PIL import TiffImagePlugin

    picture = TiffImagePlugin.TiffImageFile(io.BytesIO(content))
    picture.load()
    return picture


def _undone(packed: NDArray[np.uint8], page: _Page, across: int, samples: int) -> NDArray[Any]:
    """Bytes ``(H, N, B)`` of rows of N tiles as numbers ``(H, N, across * samples)``, their predictor undone."""
    bits, (height, columns, _) = page.bits, packed.shape
    letter = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}[page.kind]
    if bits not in (8, 16, 32, 64):
        numbers = np.empty((height, columns, across * samples), np.uint16)
        for row in range(height):  # one by one, as every bit takes a byte on the way
            loose = np.unpackbits(packed[row], axis=1)[:, : across * samples * bits].reshape(columns, -1, bits)
            whole = np.zeros((*loose.shape[:2], 16), np.uint8)
            whole[..., -bits:] = loose
            numbers[row] = np.packbits(whole, axis=2).view(">u2")[..., 0]
        return numbers
    predictor = page.value(317, 1)
    if predictor == 3:
        steps = packed.reshape(height, columns, -1, samples)
        by_weight = np.cumsum(steps, axis=2, dtype=np.uint8).reshape(height, columns, bits // 8, -1)
        floats = np.ascontiguousarray(by_weight.swapaxes(2, 3)).view(f">{letter}{bits // 8}")[..., 0]
        return floats.astype(floats.dtype.newbyteorder("="))
    plain = packed.view(f"{page.order}{'u' if predictor == 2 else letter}{bits // 8}")
    plain = plain.astype(plain.dtype.newbyteorder("="), copy=False)
    if predictor == 2:
        steps = plain.reshape(height, columns, across, samples)
        plain = np.cumsum(steps, axis=2, dtype=plain.dtype).reshape(plain.shape)
    return plain.view(f"{letter}{bits // 8}")


def _light(samples: NDArray[Any], page: _Page) -> NDArray[Any]:
    """Samples ``(H, W, S)`` as Pages gives them."""
    first = _COLOURS[page.colour]
    if samples.shape[2] < first:
        raise ValueError("too few channels")
    alpha = page.alpha
    matte = None if alpha is None else _scaled(samples[..., alpha[0], None], page)
    colour = samples[..., :first]
    colour = _looked_up(colour[..., 0], page) if page.colour == _PALETTE else _scaled(colour, page)
    if page.colour == _WHITE_IS_ZERO:
        top = np.iinfo(colour.dtype).max if colour.dtype.kind == "u" else np.float32(1.0)
        colour = top - colour
    elif page.colour == _CMYK:
        top = np.iinfo(colour.dtype).max if colour.dtype.kind == "u" else 1
        inks = np.rint(np.clip(colour / top, 0, 1) * 255).astype(np.uint8)
        colour = icc.inks_to_rgb(inks, page.data(34675))
    if matte is None or alpha is None:
        return colour
    if alpha[1] == _PREMULTIPLIED:
        colour, matte = raster.unit(colour), raster.unit(matte)
        colour = np.minimum(np.divide(colour, matte, out=np.zeros_like(colour), where=matte > 0), 1.0)
    elif colour.dtype != matte.dtype:
        colour, matte = raster.unit(colour), raster.unit(matte)
    return np.concatenate([colour, matte], axis=2)


def _scaled(samples: NDArray[Any], page: _Page) -> NDArray[Any]:
    """Whole numbers of 8 and 16 bits as they are, others as float32 with 1 = white."""
    if page.kind == _FLOAT:
        return samples.astype(np.float32)
    if page.bits == 32 and samples.max() < 2**16:  # no light, which would be black, but numbers of objects
        return np.maximum(samples, 0).astype(np.uint16)
    if page.kind == _SIGNED:
        return np.maximum(samples / np.float64(2 ** (page.bits - 1) - 1), 0).astype(np.float32)
    if page.bits in (8, 16):
        return samples
    return (samples / np.float64(2**page.bits - 1)).astype(np.float32)


def _looked_up(numbers: NDArray[Any], page: _Page) -> NDArray[np.float32]:
    """Colours ``(H, W, 3)`` of a palette."""
    palette = np.array(page.values(320), np.float32).reshape(3, -1).T
    if palette.max() < 256:  # some writers note 8 bits where 16 are meant
        palette *= 257
    return np.asarray(palette[numbers] / np.float32(65535))


def _left_to_pillow(stream: BinaryIO, page: _Page) -> NDArray[Any]:
    tags: dict[int, Sequence[int] | bytes] = {}
    for tag in (256, 257, 258, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 338, 347, 530):
        if tag in page.tags:
            tags[tag] = page.tags[tag]
    count = len(page.values(324) or page.values(273))
    return raster.decoded_by_pillow(_opened(_small_tiff(tags, _segments(stream, page, 0, count))), page.data(34675))
