"""Clips in and out: probe, decode, encode, with the frames of a clip in memory once at most.

A source is a video file, a folder of pictures, or a glob. A clip comes out as sRGB float frames, an alpha matte, the
sound that belongs to the frames taken, and an exact rate. Decoding and encoding are PyAV's and OpenCV's.

Conventions:
- every stored frame counts as one frame, in the order it is shown; a clip of variable rate gets its average rate, so
  that picture and sound end together;
- colour follows the stream's matrix and range; without tags, BT.709 from 1280x720 up and BT.601 below;
- high dynamic range (PQ, HLG) is not tone-mapped: its values are taken as they are.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import ycbcr
from .errors import InputError, MediaError, ShapeError, VDPError, check_frames, check_mask

if TYPE_CHECKING:
    import av

__all__ = [
    "FORMATS",
    "Clip",
    "ClipInfo",
    "exact_rate",
    "fingerprint",
    "iter_frames",
    "probe",
    "read_clip",
    "write_clip",
]

OnStep = Callable[[int, int, "Callable[[], Tensor] | None"], None]
Array = NDArray[np.float32]

_log = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
PICTURE_RATE = Fraction(24)
"""The rate of a folder of pictures that does not say its own."""
_RATE_KEY, _SIZE_KEY = "vdp_fps", "vdp_size"  # tags of ours: the rate of a PNG sequence, the size before padding
_SOUND_NAME = "audio.wav"
_CHUNK = 8  # frames converted at a time when writing
_SEEK_FROM = 120  # frames; below, decoding up to the start is quicker than indexing the file
# One packet is one shown frame in these, which makes the packets' times an index of frames.
_INDEXED_CODECS = {"h264", "hevc", "vp9", "av1", "prores", "mjpeg", "dnxhd", "ffv1"}


@dataclass(frozen=True)
class ClipInfo:
    """What a source says about itself, read from its header and first frame."""

    path: Path
    width: int
    """Pixels, after rotation."""
    height: int
    fps: Fraction
    """Average rate."""
    frame_count: int | None
    """As the header has it, None where it does not say; a header may be wrong."""
    has_audio: bool
    has_alpha: bool
    """Whether the pixels can hold alpha."""
    bit_depth: int


@dataclass(frozen=True, eq=False)
class Clip:
    """Decoded frames with what belongs to them."""

    frames: Tensor
    """``(T, H, W, 3)`` float32 in 0..1, sRGB."""
    alpha: Tensor
    """``(T, H, W)`` float32, 1 = opaque; a broadcast view of a single 1 when the source has no alpha."""
    audio: dict[str, Any] | None
    """``{"waveform": (1, C, N) float32, "sample_rate": int}`` beginning with the first frame, or None when silent."""
    fps: Fraction
    """Rate of the frames taken: the source's divided by every_nth."""


def exact_rate(fps: float | Fraction) -> Fraction:
    """A rate as an exact fraction; 23.976, 29.97, 59.94 and the like become 24000/1001, 30000/1001, 60000/1001.

    Raises:
        InputError: not a number above 0 and at most 1000.
    """
    if not 0 < fps <= 1000:  # refuses NaN too
        raise InputError(f"fps: expected a rate above 0 and at most 1000 frames a second, got {fps}")
    if isinstance(fps, Fraction):
        return fps
    ntsc = Fraction(math.ceil(fps) * 1000, 1001)
    if abs(fps / ntsc - 1) < 2e-4:
        return ntsc
    rate = Fraction(fps).limit_denominator(1001)
    return rate if rate else Fraction(fps).limit_denominator(1_000_000)


def probe(path: str | Path) -> ClipInfo:
    """What a video file, a folder of pictures or a glob holds.

    Raises:
        MediaError: missing, unreadable, empty, or nothing that can be decoded.
    """
    return _open_source(path).info


def read_clip(
    source: str | Path,
    *,
    start: int = 0,
    count: int = 0,
    every_nth: int = 1,
    max_side: int = 0,
    on_step: OnStep | None = None,
) -> Clip:
    """Read a clip into memory, once: frames are decoded straight into the answer.

    Args:
        source: a video file, a folder of pictures (in natural order), or a glob.
        start: frames to leave out at the beginning.
        count: most frames to take, 0 for all.
        every_nth: take one frame of this many.
        max_side: largest width or height, 0 for as it is; larger frames are averaged over areas while decoding.
        on_step: told after each frame, may stop the work by raising.

    Raises:
        MediaError: see probe; also damaged in the middle, or pictures of different sizes.
        InputError: numbers out of range, a start beyond the end, more frames than memory holds.
    """
    reader, plan = _plan(source, start, count, every_nth, max_side)
    height, width = plan.size
    expected = plan.count
    _check_memory(reader.info, plan)
    # NumPy's resize grows or cuts in place, which keeps one copy of the clip when the header was wrong.
    frames = np.empty((expected, height, width, 3), np.float32)
    alpha = np.empty((expected, height, width), np.float32) if reader.info.has_alpha else None
    done, began = 0, 0.0
    for done, (time, picture) in enumerate(reader.walk(plan), start=1):
        if done == 1:
            began = time
        if done > len(frames):
            grown = len(frames) + max(len(frames) // 8, _CHUNK)
            frames.resize((grown, height, width, 3), refcheck=False)
            if alpha is not None:
                alpha.resize((grown, height, width), refcheck=False)
        reader.paint(picture, frames[done - 1], None if alpha is None else alpha[done - 1])
        if on_step is not None:
            shown = frames[done - 1]
            on_step(done, max(done, expected), lambda shown=shown: torch.from_numpy(shown))
            del shown
    frames.resize((done, height, width, 3), refcheck=False)
    if alpha is not None:
        alpha.resize((done, height, width), refcheck=False)
    if plan.count_is_sure and done < expected:
        _log.warning("%s: announces more frames than it holds, %d of %d were read", source, done, expected)
    rate = reader.info.fps / every_nth
    return Clip(
        frames=torch.from_numpy(frames),
        alpha=torch.ones(1, 1, 1).expand(done, height, width) if alpha is None else torch.from_numpy(alpha),
        audio=reader.sound(began, float(done / rate)),
        fps=rate,
    )


def iter_frames(
    source: str | Path,
    *,
    start: int = 0,
    count: int = 0,
    every_nth: int = 1,
    max_side: int = 0,
    chunk: int = 16,
    with_alpha: bool = False,
) -> Iterator[Tensor]:
    """The frames read_clip would give, ``chunk`` at a time, for clips that do not fit in memory.

    Args:
        source, start, count, every_nth, max_side: see read_clip.
        chunk: most frames in one piece.
        with_alpha: add alpha as a fourth channel.

    Yields:
        ``(n, H, W, 3)`` or, with alpha, ``(n, H, W, 4)`` float32 in 0..1; each piece is the caller's to keep.

    Raises:
        MediaError, InputError: see read_clip; raised when the first piece is asked for.
    """
    if chunk < 1:
        raise InputError(f"chunk: expected at least 1 frame, got {chunk}")
    reader, plan = _plan(source, start, count, every_nth, max_side)
    pictures = reader.walk(plan)
    while True:
        piece = np.empty((chunk, *plan.size, 3), np.float32)
        matte = np.ones((chunk, *plan.size), np.float32) if with_alpha else None
        filled = 0
        for _, picture in pictures:
            reader.paint(picture, piece[filled], None if matte is None else matte[filled])
            filled += 1
            if filled == chunk:
                break
        if filled:
            frames = torch.from_numpy(piece[:filled])
            yield frames if matte is None else torch.cat([frames, torch.from_numpy(matte[:filled, ..., None])], -1)
        if filled < chunk:
            return


def fingerprint(source: str | Path) -> str:
    """A text that changes when the files of a source do: their names, sizes and times, nothing of their content."""
    path = Path(source)
    if path.is_dir():
        files = _pictures_in(path)
        files += [path / _SOUND_NAME] if (path / _SOUND_NAME).is_file() else []
    elif path.is_file():
        files = [path]
    else:
        files = _matches(str(source))
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Which frames to take, and how large."""

    start: int
    step: int
    limit: int
    """Most frames to take, 0 for all."""
    count: int
    """Frames that will come, by what the source says."""
    count_is_sure: bool
    size: tuple[int, int]
    """(height, width) of the frames that come out."""


def _plan(
    source: str | Path, start: int, count: int, every_nth: int, max_side: int
) -> tuple[_Video | _Pictures, _Plan]:
    for name, value, least in (
        ("start", start, 0),
        ("count", count, 0),
        ("every_nth", every_nth, 1),
        ("max_side", max_side, 0),
    ):
        if value < least:
            raise InputError(f"{name}: expected {least} or more, got {value}")
    reader = _open_source(source)
    info = reader.info
    total = info.frame_count
    if total is None and not count:
        total = reader.count_frames()
    if total is not None and start >= total:
        raise _beyond_the_end(info.path, start, total)
    expected = count if total is None else math.ceil((total - start) / every_nth)
    expected = min(expected, count) if count else expected
    scale = min(1.0, max_side / max(info.width, info.height)) if max_side else 1.0
    size = (max(1, round(info.height * scale)), max(1, round(info.width * scale)))
    return reader, _Plan(start, every_nth, count, expected, total is not None, size)


def _beyond_the_end(path: Path, start: int, total: int) -> InputError:
    frames = "1 frame" if total == 1 else f"{total} frames"
    return InputError(f"start: {start} is beyond the end, {path.name} holds {frames} (0 to {total - 1})")


def _check_memory(info: ClipInfo, plan: _Plan) -> None:
    """Refuse a clip that will not fit, before decoding it."""
    import psutil

    height, width = plan.size
    need = plan.count * height * width * (16 if info.has_alpha else 12)
    free = psutil.virtual_memory().available
    if need > free:
        raise InputError(
            f"{info.path.name}: {plan.count} frames of {width}x{height} need {need / 2**30:.1f} GiB of memory and "
            f"{free / 2**30:.1f} GiB are free; take fewer frames (count, every_nth) or smaller ones (max_side)"
        )


def _open_source(source: str | Path) -> _Video | _Pictures:
    """Find out what a source is, and open it.

    Raises:
        MediaError: nothing there, or nothing that can be decoded.
    """
    text = str(source)
    if not text.strip():
        raise MediaError("path: is empty; give a video file, a folder of pictures or a glob such as frames/*.png")
    path = Path(source)
    if path.is_dir():
        files = _pictures_in(path)
        if not files:
            raise MediaError(f"{path}: the folder holds no pictures ({', '.join(s[1:] for s in PICTURE_SUFFIXES)})")
        return _Pictures(path, files)
    if path.is_file():
        return _Pictures(path, [path]) if _is_picture(path) else _Video(path)
    if not glob.has_magic(text):
        raise MediaError(f"{path}: there is no such file or folder")
    matches = _matches(text)
    if not matches:
        raise MediaError(f"{text}: no file matches this pattern")
    pictures = [file for file in matches if _is_picture(file)]
    if pictures:
        return _Pictures(path, pictures)
    if len(matches) > 1:
        raise MediaError(f"{text}: matches {len(matches)} files that are no pictures; name one video")
    return _Video(matches[0])


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _natural(files: Iterable[Path]) -> list[Path]:
    from natsort import natsorted, ns

    return natsorted(files, key=str, alg=ns.PATH | ns.IGNORECASE)


def _pictures_in(folder: Path) -> list[Path]:
    """Pictures of a folder in natural order, without hidden files (macOS leaves ``._name`` twins)."""
    try:
        return _natural(f for f in folder.iterdir() if _is_picture(f) and f.is_file() and f.name[0] != ".")
    except OSError as error:
        raise MediaError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def _matches(pattern: str) -> list[Path]:
    """Files that match a glob, in natural order."""
    return _natural(file for name in glob.glob(pattern, recursive=True) if (file := Path(name)).is_file())  # noqa: PTH207


class _Pictures:
    """A sequence of picture files, or one picture."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self._files = files
        first = _read_picture(files[0])
        self._folder = files[0].parent
        self.info = ClipInfo(
            path=path,
            width=first.shape[1],
            height=first.shape[0],
            fps=self._rate(),
            frame_count=len(files),
            has_audio=path.is_dir() and (path / _SOUND_NAME).is_file(),
            has_alpha=any(_picture_has_alpha(file) for file in files),
            bit_depth=first.dtype.itemsize * 8,
        )

    def _rate(self) -> Fraction:
        """What write_clip noted in the first picture, else PICTURE_RATE."""
        from PIL import Image

        with Image.open(self._files[0]) as picture:
            text = picture.info.get(_RATE_KEY, "")
        return Fraction(text) if re.fullmatch(r"[1-9]\d*(/[1-9]\d*)?", str(text)) else PICTURE_RATE

    def count_frames(self) -> int:
        return len(self._files)

    def walk(self, plan: _Plan) -> Iterator[tuple[float, Path]]:
        chosen = self._files[plan.start :: plan.step]
        chosen = chosen[: plan.limit] if plan.limit else chosen
        for file in chosen:  # every header first: a clip of a thousand pictures should not fail at the last
            size = _picture_size(file)
            if size != (self.info.width, self.info.height):
                raise MediaError(
                    f"{file}: is {size[0]}x{size[1]} pixels, {self._files[0].name} is "
                    f"{self.info.width}x{self.info.height}; all pictures of a clip must have one size"
                )
        for index, file in enumerate(chosen):
            yield float((plan.start + index * plan.step) / self.info.fps), file

    def paint(self, picture: Path, frame: Array, alpha: Array | None) -> None:
        pixels = _read_picture(picture)
        scale = np.float32(1.0 / np.iinfo(pixels.dtype).max)
        if pixels.shape[:2] != frame.shape[:2]:
            import cv2

            pixels = cv2.resize(
                pixels.astype(np.float32), (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_AREA
            )
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        np.divide(pixels[..., 2::-1] if pixels.shape[2] >= 3 else pixels, 1 / scale, out=frame, dtype=np.float32)
        if alpha is not None:
            if pixels.shape[2] == 4:
                np.divide(pixels[..., 3], 1 / scale, out=alpha, dtype=np.float32)
            else:
                alpha.fill(1.0)

    def sound(self, begin: float, seconds: float) -> dict[str, Any] | None:
        return _read_sound(self.info.path / _SOUND_NAME, begin, seconds) if self.info.has_audio else None


def _open_picture_header(file: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        raise MediaError(f"{file}: is not a picture that can be read, or is damaged") from error
    except OSError as error:
        raise MediaError(f"{file}: cannot be read ({error.strerror or error})") from error


def _picture_size(file: Path) -> tuple[int, int]:
    """(width, height) as shown, from the header alone."""
    with _open_picture_header(file) as picture:
        turned = file.suffix.lower() in (".jpg", ".jpeg") and picture.getexif().get(0x0112, 1) >= 5
        return picture.size[::-1] if turned else picture.size


def _picture_has_alpha(file: Path) -> bool:
    with _open_picture_header(file) as picture:
        return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def _read_picture(file: Path) -> NDArray[Any]:
    """Decode a picture to ``(H, W)``, ``(H, W, 3)`` BGR or ``(H, W, 4)`` BGRA, uint8 or uint16."""
    import cv2

    # JPEG is the format of cameras, whose rotation flag OpenCV applies unless asked for unchanged pixels.
    upright = file.suffix.lower() in (".jpg", ".jpeg")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if upright else cv2.IMREAD_UNCHANGED
    try:
        content = np.fromfile(file, np.uint8)  # OpenCV itself cannot open every file name on Windows
    except OSError as error:
        raise MediaError(f"{file}: cannot be read ({error.strerror})") from error
    try:
        pixels = cv2.imdecode(content, flags) if content.size else None
    except cv2.error as error:
        raise MediaError(f"{file}: is not a picture that can be read ({error.err})") from error
    if pixels is None:
        raise MediaError(f"{file}: is not a picture that can be read, or is damaged")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"{file}: holds {pixels.dtype} values; pictures of 8 or 16 bits a channel can be read")
    return pixels


class _Video:
    """A video file: opened once to see its first frame, and again each time it is walked through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opened(path) as container:
            stream = _video_stream(container, path)
            codec = stream.codec_context.name
            self._decoder = _alpha_decoder(stream)
            self._codec = codec
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            announced = stream.frames or None
            sizes = re.fullmatch(r"(\d+)x(\d+)", _tag(container.metadata, _SIZE_KEY))
            has_audio = _audio_stream(container) is not None
            self._time_base = stream.time_base
            first = next(self._decoded(container, stream), None)
        if first is None:
            raise MediaError(f"{path}: holds no frame that can be decoded")
        self._turn = _orientation(first)
        width, height = first.width, first.height
        # write_clip pads odd sizes to even ones for H.264 and notes the size before; only that one row or column is cut
        self._crop = (width, height)
        if sizes:
            noted = (int(sizes[1]), int(sizes[2]))
            if noted[0] in (width, width - 1) and noted[1] in (height, height - 1):
                self._crop = noted
        width, height = self._crop
        components = first.format.components
        self.info = ClipInfo(
            path=path,
            width=height if self._turn.transposed else width,
            height=width if self._turn.transposed else height,
            fps=_tidy_rate(rate),
            frame_count=announced,
            has_audio=has_audio,
            has_alpha=self._decoder is not None or any(part.is_alpha for part in components),
            bit_depth=max(part.bits for part in components),
        )
        if first.color_trc in (16, 18):
            _log.warning("%s: is high dynamic range (PQ or HLG); its values are taken as they are", path)

    def _decoded(self, container: Any, stream: Any) -> Iterator[av.VideoFrame]:
        """Frames from where the container stands, with errors in our words."""
        import av

        context = stream.codec_context
        if self._decoder is not None:
            context = av.CodecContext.create(self._decoder, "r")
        else:
            stream.thread_type = "AUTO"
        got = 0
        try:
            for packet in container.demux(stream):
                for frame in context.decode(packet if packet.size else None):
                    got += 1
                    yield frame
        except av.error.FFmpegError as error:
            if got == 0:
                raise MediaError(f"{self._path}: the video cannot be decoded ({error.strerror})") from error
            raise MediaError(
                f"{self._path}: is damaged after {got} frames ({error.strerror}); "
                "read what lies before with count, or repair the file"
            ) from error

    def _times(self) -> list[int | None]:
        """When each packet is shown, in stream time, in file order; read without decoding."""
        with _opened(self._path) as container:
            stream = _video_stream(container, self._path)
            return [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]

    def count_frames(self) -> int:
        """Frames by counting packets; VP8 may hold packets that show nothing, so this is an upper bound."""
        return len(self._times())

    def _from(self, start: int) -> Iterator[av.VideoFrame]:
        """Frames from the ``start``-th on, by the nearest way that is sure to be exact."""
        if start >= _SEEK_FROM and self._codec in _INDEXED_CODECS:
            times = self._times()
            known = sorted(time for time in times if time is not None)
            if len(known) == len(times) == len(set(known)) and start < len(known):
                target = known[start]
                with _opened(self._path) as container:
                    stream = _video_stream(container, self._path)
                    container.seek(target, stream=stream)
                    frames = self._decoded(container, stream)
                    landed = next(frames, None)
                    # Some files land after the target; those are decoded from the beginning.
                    if landed is not None and landed.pts is not None and landed.pts <= target:
                        yield from (f for f in chain([landed], frames) if f.pts is None or f.pts >= target)
                        return
        with _opened(self._path) as container:
            seen = 0
            for frame in self._decoded(container, _video_stream(container, self._path)):
                seen += 1
                if seen > start:
                    yield frame
        if seen <= start:
            raise _beyond_the_end(self._path, start, seen)

    def walk(self, plan: _Plan) -> Iterator[tuple[float, av.VideoFrame]]:
        taken = 0
        for index, frame in enumerate(self._from(plan.start)):
            if index % plan.step:
                continue
            time = plan.start / self.info.fps if frame.pts is None else frame.pts * self._time_base
            yield float(time), frame
            taken += 1
            if taken == plan.limit:
                return

    def paint(self, picture: av.VideoFrame, frame: Array, alpha: Array | None) -> None:
        if self._turn == _UPRIGHT:
            _paint_frame(picture, self._crop, self._codec, frame, alpha)
            return
        size = frame.shape[1::-1] if self._turn.transposed else frame.shape[:2]
        lying = np.empty((*size, 3), np.float32)
        matte = None if alpha is None else np.empty(size, np.float32)
        _paint_frame(picture, self._crop, self._codec, lying, matte)
        frame[:] = self._turn.apply(lying)
        if alpha is not None and matte is not None:
            alpha[:] = self._turn.apply(matte)

    def sound(self, begin: float, seconds: float) -> dict[str, Any] | None:
        return _read_sound(self._path, begin, seconds) if self.info.has_audio else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A container open for reading, with failure to open it in our words."""
    import av

    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        if isinstance(error, PermissionError):
            raise MediaError(f"{path}: cannot be read (permission denied)") from error
        what = "is empty" if path.is_file() and path.stat().st_size == 0 else "is not a video that can be read"
        raise MediaError(f"{path}: {what}, or is damaged ({error.strerror})") from error
    with container:
        yield container


def _video_stream(container: Any, path: Path) -> Any:
    """The first video stream that is not a cover picture."""
    attached = 0x400  # AV_DISPOSITION_ATTACHED_PIC
    for stream in container.streams.video:
        if not int(stream.disposition) & attached:
            if stream.codec_context is None:
                raise MediaError(f"{path}: no decoder for its video is at hand; convert it to H.264 or ProRes")
            return stream
    raise MediaError(f"{path}: holds no video stream")


def _audio_stream(container: Any) -> Any:
    """The first audio stream that can be decoded, or None (phones add spatial tracks that cannot)."""
    return next((s for s in container.streams.audio if s.codec_context is not None and s.sample_rate), None)


def _alpha_decoder(stream: Any) -> str | None:
    """VP8 and VP9 keep alpha as a second stream inside, which FFmpeg's own decoders pass over and libvpx's read."""
    if stream.codec_context.name in ("vp8", "vp9") and _tag(stream.metadata, "alpha_mode") == "1":
        return {"vp8": "libvpx", "vp9": "libvpx-vp9"}[stream.codec_context.name]
    return None


def _tag(metadata: Mapping[str, str], key: str) -> str:
    """A tag whatever its case: Matroska writes them in capitals."""
    return next((value for name, value in metadata.items() if name.lower() == key), "")


def _tidy_rate(rate: Fraction | None) -> Fraction:
    """The stream's rate, made exact again where the container rounded an NTSC rate (2997/100)."""
    if not rate:
        return PICTURE_RATE
    ntsc = Fraction(math.ceil(rate) * 1000, 1001)
    return ntsc if abs(rate / ntsc - 1) < 1e-5 else Fraction(rate)


@dataclass(frozen=True)
class _Orientation:
    """How a stored picture is turned to stand upright: swap its axes, then mirror."""

    transposed: bool
    mirror_x: bool
    mirror_y: bool

    def apply(self, picture: Array) -> Array:
        picture = picture.swapaxes(0, 1) if self.transposed else picture
        return picture[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


_UPRIGHT = _Orientation(False, False, False)


def _orientation(frame: av.VideoFrame) -> _Orientation:
    """Read the display matrix: a stored point (p, q) is shown at (a p + c q, b p + d q); quarter turns and mirrors."""
    side = next((s for s in frame.side_data if getattr(s, "name", "") == "DISPLAYMATRIX"), None)
    if side is None:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(frame.side_data[side]), np.int32)[:5]
    if abs(int(a)) + abs(int(d)) >= abs(int(b)) + abs(int(c)):
        return _Orientation(False, bool(a < 0), bool(d < 0))
    return _Orientation(True, bool(c < 0), bool(b < 0))


def _pixels(frame: av.VideoFrame, plane: int, channels: int, kind: type[np.unsignedinteger]) -> NDArray[Any]:
    """A plane as an array, without copying: ``(h, w)`` or ``(h, w, channels)``."""
    part = frame.planes[plane]
    rows = np.frombuffer(part, kind).reshape(part.height, -1)[:, : part.width * channels]
    return rows if channels == 1 else rows.reshape(part.height, part.width, channels)


def _paint_frame(frame: av.VideoFrame, crop: tuple[int, int], codec: str, out: Array, alpha: Array | None) -> None:
    """Fill ``out`` ``(h, w, 3)`` and, if given, ``alpha`` ``(h, w)`` from a decoded frame.

    Args:
        frame: any pixel format.
        crop: (width, height) to keep, from the top left.
        codec: the stream's, for what it means by untagged grey.
        out, alpha: float32 in 0..1, smaller than the frame for averaging over areas.
    """
    import cv2

    frame, family = _plain_format(frame)
    parts = frame.format.components
    bits = max(part.bits for part in parts)
    kind: type[np.unsignedinteger] = np.uint16 if bits > 8 else np.uint8
    width, height = crop
    matte: NDArray[Any] | None = None
    if family == "rgb":
        pixels = _pixels(frame, 0, len(parts), kind)[:height, :width]
        colour, matte = pixels[..., :3], pixels[..., 3] if len(parts) == 4 else None
        if colour.shape[:2] != out.shape[:2]:
            colour = cv2.resize(colour.astype(np.float32), out.shape[1::-1], interpolation=cv2.INTER_AREA)
        np.divide(colour, np.float32(2**bits - 1), out=out, dtype=np.float32)
    else:
        matrix = frame.colorspace
        if matrix not in ycbcr.MATRICES:
            matrix = 1 if frame.height >= 720 or frame.width >= 1280 else 6
        full = _is_full_range(frame, family, codec)
        decode = ycbcr.decode_matrix(matrix, bits=bits, full=full)
        planes = [_pixels(frame, part.plane, 1, kind) for part in parts]
        luma = planes[0][:height, :width]
        if family == "yuv":
            # MJPEG sits its chroma between columns, all later codecs on the left one.
            ycbcr.planes_to_rgb(luma, planes[1], planes[2], decode=decode, left=codec != "mjpeg", out=out)
            matte = planes[3][:height, :width] if len(planes) == 4 else None
        else:
            grey = luma.astype(np.float32) * decode[0, 0] + (decode[0, 3] + decode[0, 2] * 2 ** (bits - 1))
            grey = cv2.resize(grey, out.shape[1::-1], interpolation=cv2.INTER_AREA)
            np.clip(grey[..., None], 0.0, 1.0, out=out)
    if alpha is None:
        return
    if matte is None:
        alpha.fill(1.0)
        return
    if matte.shape != alpha.shape:
        matte = cv2.resize(matte.astype(np.float32), alpha.shape[1::-1], interpolation=cv2.INTER_AREA)
    np.divide(matte, np.float32(2**bits - 1), out=alpha, dtype=np.float32)


def _is_full_range(frame: av.VideoFrame, family: str, codec: str) -> bool:
    if frame.color_range in (1, 2):
        return frame.color_range == 2
    if frame.format.name.startswith("yuvj"):
        return True
    # Untagged grey is limited in codecs that were made for YCbCr, and full in picture formats.
    return family == "grey" and codec not in ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video")


def _plain_format(frame: av.VideoFrame) -> tuple[av.VideoFrame, str]:
    """The frame with its samples one per plane (yuv, grey) or interleaved (rgb), little end first, and which it is.

    Only packing changes, never colour: YCbCr stays what it is until ycbcr turns it, see there for why.
    """
    form = frame.format
    parts = form.components
    bits = max(part.bits for part in parts)
    alpha = any(part.is_alpha for part in parts)
    name = form.name.replace("yuvj", "yuv")
    if form.is_rgb or form.has_palette:
        wanted = ("rgba" if alpha else "rgb") + (("64le" if alpha else "48le") if bits > 8 else ("" if alpha else "24"))
        family = "rgb"
    elif len(parts) <= 2:
        depth = f"{bits}le" if bits > 8 else ""
        wanted = f"ya{depth}" if alpha and bits > 8 else "yuva444p" if alpha else f"gray{depth}"
        family = "yuv" if alpha else "grey"
    else:
        across, down = 8 // form.chroma_width(8), 8 // form.chroma_height(8)
        layout = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}
        wanted = f"yuv{'a' if alpha else ''}{layout[across, down]}p{f'{bits}le' if bits > 8 else ''}"
        family = "yuv"
    return (frame if name == wanted else frame.reformat(format=wanted)), family


def _read_sound(path: Path, begin: float, seconds: float) -> dict[str, Any] | None:
    """Sound from ``begin`` on (seconds on the container's clock), at most ``seconds`` of it, in its own rate.

    Sound that sets in after ``begin`` is preceded by silence, so that it stays in step with the picture.
    """
    import av

    with _opened(path) as container:
        stream = _audio_stream(container)
        if stream is None:
            return None
        rate = stream.sample_rate
        if begin > 30.0:  # ten seconds of run-up: codecs need some, and seeking in sound is coarse
            container.seek(int((begin - 10.0) * 1_000_000))
        to_float = av.AudioResampler(format="fltp")
        wave: Array | None = None
        length, at, end = round(seconds * rate), None, 0
        try:
            for decoded in container.decode(stream):
                for frame in to_float.resample(decoded):
                    samples = frame.to_ndarray()
                    stamp = at if decoded.time is None else round((decoded.time - begin) * rate)
                    # Time stamps jitter by less than this; what is off by more is a gap or a jump.
                    if at is None or (stamp is not None and abs(stamp - at) > rate // 10):
                        at = stamp or 0
                    if wave is None:
                        wave = np.zeros((samples.shape[0], length), np.float32)
                    first, last = max(at, 0), min(at + samples.shape[1], length)
                    if last > first:
                        wave[:, first:last] = samples[: wave.shape[0], first - at : last - at]
                        end = max(end, last)
                    at += samples.shape[1]
                if at is not None and at >= length:
                    break
        except av.error.FFmpegError as error:
            raise MediaError(f"{path}: its sound is damaged ({error.strerror}); repair or remove it") from error
    if wave is None or end == 0:
        return None
    return {"waveform": torch.from_numpy(np.ascontiguousarray(wave[None, :, :end])), "sample_rate": rate}


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Format:
    """How one output format is made."""

    suffix: str
    codec: str = ""
    pixels: str = ""
    pixels_with_alpha: str = ""
    sound: str = ""
    bits: int = 8
    subsampled: bool = False
    even: bool = False
    """Whether sizes must be even."""


_FORMATS: dict[str, _Format] = {
    "mp4": _Format(".mp4", "libx264", "yuv420p", "", "aac", subsampled=True, even=True),
    "webm": _Format(".webm", "libvpx-vp9", "yuv420p", "yuva420p", "libopus", subsampled=True),
    "prores4444": _Format(".mov", "prores_ks", "yuv444p10le", "yuva444p10le", "pcm_s24le", bits=10),
    "png": _Format(""),
}
FORMATS: tuple[str, ...] = tuple(_FORMATS)
"""What write_clip can write."""

_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def write_clip(
    path_without_suffix: Path,
    frames: Tensor | Iterable[Tensor],
    *,
    fps: float | Fraction,
    format: str = "mp4",
    quality: int = 80,
    alpha: Tensor | None = None,
    audio: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    total: int | None = None,
    on_step: OnStep | None = None,
) -> Path:
    """Write a clip, whole or not at all.

    ``mp4`` is H.264 with AAC sound; ``webm`` VP9, with alpha if given, and Opus; ``prores4444`` a ProRes 4444 .mov,
    with alpha if given, and 24-bit PCM; ``png`` a folder of 00000.png, 00001.png, ... of 8 bits, RGBA if alpha is
    given, with the sound beside them as audio.wav. Colour is converted by and tagged as BT.709, limited range.

    H.264 needs even sizes: an odd clip gets its last column or row twice, and a tag with its own size, by which
    read_clip cuts it back. Nothing is ever resampled.

    Args:
        path_without_suffix: where to; folders on the way are made. A file of that name is replaced, a folder is not.
        frames: ``(T, H, W, 3)`` in 0..1, or an iterable of such chunks, so that a long clip need not be in memory.
            A fourth channel is alpha.
        fps: the rate, see exact_rate.
        format: one of FORMATS.
        quality: 1 (smallest file) to 100 (closest picture) for mp4 and webm; 80 is visually near lossless.
        alpha: ``(T, H, W)``, 1 = opaque; one mask for all frames will do. A matte of nothing but ones is left out.
        audio: ``{"waveform": (1, C, N), "sample_rate": int}`` or None; cut where the frames end.
        metadata: tags of the file; in a PNG sequence text of the first picture.
        total: frames that an iterable will give, for on_step.
        on_step: told after each chunk, may stop the work by raising.

    Returns:
        The file, or the folder of the PNG sequence.

    Raises:
        InputError: a value out of range, NaN, or alpha for mp4, which holds none.
        ShapeError: no frames, or frames and alpha that do not belong together.
        MediaError: it cannot be written: a full disk, a folder that is read-only or taken, a missing encoder.
    """
    if format not in _FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, got '{format}'")
    if not 1 <= quality <= 100:
        raise InputError(f"quality: expected 1 to 100, got {quality}")
    spec = _FORMATS[format]
    rate = exact_rate(fps)
    sound = None if audio is None else _check_sound(audio)
    if isinstance(frames, Tensor):
        total = len(frames) if frames.ndim else 0
    pieces = _pieces(frames, alpha)
    first = next(pieces, None)
    if first is None:
        raise ShapeError("frames: got no frames to write")
    if first.alpha is not None and format == "mp4":
        raise InputError("alpha: mp4 holds no alpha; choose webm, prores4444 or png, or leave alpha unconnected")
    target = path_without_suffix.with_name(path_without_suffix.name + spec.suffix)
    told = _told(chain([first], pieces), total, on_step)
    tags = dict(metadata or {})
    with _whole(target) as partial:
        if format == "png":
            _write_pictures(partial, told, rate, sound, tags)
        else:
            _write_video(partial, told, spec, rate, quality, sound, tags)
    return target


@dataclass(frozen=True, eq=False)
class _Piece:
    """A few frames ready to encode."""

    frames: Array
    """``(n, H, W, 3)`` in 0..1."""
    alpha: Array | None
    """``(n, H, W)`` in 0..1."""


def _pieces(frames: Tensor | Iterable[Tensor], alpha: Tensor | None) -> Iterator[_Piece]:
    """Cut a clip into pieces of _CHUNK frames, checked and as float32, without copying the whole of it."""
    chunks: Iterable[Tensor]
    if isinstance(frames, Tensor):
        check_frames(frames[:1])  # the shape, before the first piece is asked for
        if frames.dtype.is_floating_point:
            _check_finite(frames, 0)
        chunks = (frames,)
    else:
        chunks = frames
    matte: Tensor | None = None
    done, size = 0, (0, 0)
    for chunk in chunks:
        count = len(frames) if isinstance(frames, Tensor) else None
        if done == 0 and alpha is not None:
            matte = check_mask(alpha, "alpha", count=count, size=(chunk.shape[1], chunk.shape[2]))
            matte = None if bool((matte == 1.0).all()) else matte
        for part in chunk.split(_CHUNK):
            if not isinstance(frames, Tensor):
                check_frames(part[:1])
                _check_finite(part, done)
            colour = check_frames(part).detach().cpu().numpy()
            if done and colour.shape[1:3] != size:
                raise ShapeError(
                    f"frames: frame {done} is {colour.shape[2]}x{colour.shape[1]} pixels, those before are "
                    f"{size[1]}x{size[0]}; all frames of a clip must have one size"
                )
            size = colour.shape[1:3]
            see_through = part[..., 3] if part.shape[-1] == 4 and alpha is None else None
            if matte is not None:
                if len(matte) not in (1, count or len(matte)) or done + len(part) > len(matte) > 1:
                    raise ShapeError(f"alpha: got {len(matte)} masks for more frames; give one mask or one per frame")
                see_through = matte[done : done + len(part)] if len(matte) > 1 else matte.expand(len(part), -1, -1)
            yield _Piece(
                np.ascontiguousarray(colour),
                None if see_through is None else see_through.detach().float().clamp(0.0, 1.0).cpu().numpy(),
            )
            done += len(part)


def _check_finite(frames: Tensor, before: int) -> None:
    for index, frame in enumerate(frames):
        if not all(math.isfinite(float(value)) for value in frame.aminmax()):
            raise InputError(f"frames: frame {before + index} holds NaN or infinite values")


def _check_sound(audio: Mapping[str, Any]) -> tuple[Array, int] | None:
    """Samples ``(C, N)`` and rate of an AUDIO dict, or None when it holds no sample."""
    wave, rate = audio["waveform"], int(audio["sample_rate"])
    if not isinstance(wave, Tensor) or wave.ndim != 3 or wave.shape[0] < 1:
        raise ShapeError(f"audio: expected a waveform of shape (1, C, N), got {getattr(wave, 'shape', type(wave))}")
    if wave.shape[1] not in _LAYOUTS:
        raise InputError(f"audio: expected 1 to {max(_LAYOUTS)} channels, got {wave.shape[1]}")
    if rate < 1:
        raise InputError(f"audio: expected a sample rate above 0, got {rate}")
    if wave.shape[2] == 0:
        return None
    samples = wave[0].detach().float().cpu()
    if not bool(samples.isfinite().all()):
        raise InputError("audio: the waveform holds NaN or infinite values")
    return np.ascontiguousarray(samples.clamp(-1.0, 1.0).numpy()), rate


def _told(pieces: Iterable[_Piece], total: int | None, on_step: OnStep | None) -> Iterator[_Piece]:
    """Pass pieces on, and tell on_step when each has been dealt with."""
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece.frames)
        if on_step is not None:
            on_step(done, max(done, total or 0), lambda last=piece.frames[-1]: torch.from_numpy(last))


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Hand out a hidden sibling to write to, which becomes ``target`` when the block ends well and goes when it fails.

    Raises:
        MediaError: the target is a folder that is taken, or writing failed.
    """
    import av

    if target.is_dir() and any(target.iterdir()):
        raise MediaError(f"{target}: the folder is there already; choose another name or remove it")
    partial = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if partial.is_dir() and target.is_dir():
            target.rmdir()
        partial.replace(target)
    except BaseException as error:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
        if isinstance(error, VDPError) or not isinstance(error, (OSError, av.error.FFmpegError)):
            raise
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise MediaError(f"{target}: cannot be written, {reason}") from error


def _write_pictures(
    folder: Path, pieces: Iterable[_Piece], rate: Fraction, sound: tuple[Array, int] | None, tags: Mapping[str, str]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image, PngImagePlugin

    notes = PngImagePlugin.PngInfo()
    for key, value in {**tags, _RATE_KEY: str(rate)}.items():
        notes.add_text(key, value)

    def save(index: int, frame: Array, matte: Array | None) -> None:
        picture = frame if matte is None else np.dstack([frame, matte])
        file = folder / f"{index:05d}.png"
        # Level 4 is a third of the time of Pillow's default for a few percent of size.
        Image.fromarray(np.rint(picture * 255.0).astype(np.uint8)).save(
            file, compress_level=4, pnginfo=notes if index == 0 else None
        )

    folder.mkdir()
    done = 0
    with ThreadPoolExecutor(min(_CHUNK, os.cpu_count() or 1)) as pool:
        for piece in pieces:
            mattes = [None] * len(piece.frames) if piece.alpha is None else list(piece.alpha)
            list(pool.map(save, range(done, done + len(piece.frames)), piece.frames, mattes))
            done += len(piece.frames)
    if sound is not None:
        _write_wav(folder / _SOUND_NAME, sound, done / rate)


def _write_wav(path: Path, sound: tuple[Array, int], seconds: Fraction) -> None:
    import av

    container = av.open(str(path), "w")
    try:
        track = _SoundTrack(container, "pcm_s24le", sound)
        track.up_to(seconds)
        track.finish()
        container.close()
    except BaseException:
        _abandon(container)
        raise


def _abandon(container: Any) -> None:
    """Close a container whose file is about to be removed; that it cannot be finished is known already."""
    import av

    with suppress(av.error.FFmpegError, OSError, ValueError):
        container.close()


class _SoundTrack:
    """A sound stream that is encoded as far as the picture has come, so that both lie interleaved in the file."""

    def __init__(self, container: Any, codec: str, sound: tuple[Array, int]) -> None:
        self._container = container
        self._wave, self._rate = sound
        self._layout = _LAYOUTS[self._wave.shape[0]]
        self._at = 0
        self._stream = container.add_stream(codec, rate=_sound_rate(codec, self._rate), layout=self._layout)
        if codec in ("aac", "libopus"):
            self._stream.bit_rate = 96_000 * max(2, self._wave.shape[0])

    def up_to(self, seconds: Fraction) -> None:
        import av

        until = min(round(seconds * self._rate), self._wave.shape[1])
        if until <= self._at:
            return
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(self._wave[:, self._at : until]), format="fltp", layout=self._layout
        )
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._at
        self._container.mux(self._stream.encode(frame))
        self._at = until

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))


def _sound_rate(codec: str, rate: int) -> int:
    """The rate itself where the codec takes it, else 48 kHz (PyAV resamples)."""
    if codec == "libopus":
        return rate if rate in (8_000, 12_000, 16_000, 24_000, 48_000) else 48_000
    if codec == "aac":
        known = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
        return rate if rate in known else 48_000
    return rate


def _write_video(
    path: Path,
    pieces: Iterable[_Piece],
    spec: _Format,
    rate: Fraction,
    quality: int,
    sound: tuple[Array, int] | None,
    tags: Mapping[str, str],
) -> None:
    import av

    # Without use_metadata_tags, mp4 and mov keep only the tags they know; faststart lets players begin while loading.
    muxer = {"movflags": "+faststart+use_metadata_tags"} if spec.suffix != ".webm" else {}
    container = av.open(str(path), "w", options=muxer)
    encode = ycbcr.encode_matrix(1, bits=spec.bits, full=False)
    done = 0
    stream: Any = None
    track: _SoundTrack | None = None
    try:
        for piece in pieces:
            height, width = piece.frames.shape[1:3]
            if stream is None:
                padded = (width + width % 2, height + height % 2) if spec.even else (width, height)
                noted = {_SIZE_KEY: f"{width}x{height}"} if padded != (width, height) else {}
                container.metadata.update({**tags, **noted})
                pixels = spec.pixels if piece.alpha is None else spec.pixels_with_alpha
                stream = _video_output(container, spec, pixels, padded, rate, quality)
                if sound is not None:
                    track = _SoundTrack(container, spec.sound, sound)
            for index in range(len(piece.frames)):
                matte = None if piece.alpha is None else piece.alpha[index]
                frame = _encoded_frame(piece.frames[index], matte, spec, pixels, padded, encode)
                frame.pts, frame.time_base = done, 1 / rate
                container.mux(stream.encode(frame))
                done += 1
            if track is not None:
                track.up_to(done / rate)
        container.mux(stream.encode(None))
        if track is not None:
            track.finish()
        container.close()
    except BaseException:
        _abandon(container)
        raise


def _video_output(
    container: Any, spec: _Format, pixels: str, size: tuple[int, int], rate: Fraction, quality: int
) -> Any:
    import av

    options = {
        # 80 gives CRF 18, 1 gives 50.6: x264's scale halves the bit rate every six steps
        "libx264": {"crf": f"{51 - 33 * quality / 80:.2f}", "preset": "medium"},
        # 80 gives CRF 23; a bit rate of zero makes it constant quality
        "libvpx-vp9": {
            "crf": str(round(63 - quality / 2)),
            "b": "0",
            "deadline": "good",
            "cpu-used": "4",
            "row-mt": "1",
        },
        "prores_ks": {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
    }[spec.codec]
    if pixels == "yuva420p":
        options["auto-alt-ref"] = "0"  # libvpx cannot hold back frames of which the alpha is a second stream
    try:
        stream = container.add_stream(spec.codec, rate=rate, options=options)
    except (ValueError, av.error.FFmpegError) as error:
        raise MediaError(f"{spec.codec}: this PyAV was built without the encoder; pip install av") from error
    stream.width, stream.height = size
    stream.pix_fmt = pixels
    context = stream.codec_context
    context.time_base = 1 / rate
    context.thread_type = "AUTO"
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = 1  # limited
    return stream


def _encoded_frame(
    rgb: Array, alpha: Array | None, spec: _Format, pixels: str, size: tuple[int, int], encode: Array
) -> av.VideoFrame:
    """A picture as a frame of ``size``, its last row and column repeated where that is larger."""
    import av

    height, width = rgb.shape[:2]
    if (width, height) != size:
        rgb = np.pad(rgb, ((0, size[1] - height), (0, size[0] - width), (0, 0)), "edge")
    planes = ycbcr.rgb_to_planes(rgb, encode=encode, bits=spec.bits, subsampled=spec.subsampled)
    if alpha is not None:
        top = 2**spec.bits - 1
        planes.append(np.rint(alpha * top).astype(planes[0].dtype))
    frame = av.VideoFrame(size[0], size[1], pixels)
    for part, plane in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(part, plane.dtype).reshape(part.height, -1)
        rows[:, : part.width] = plane
    frame.colorspace, frame.color_range = 1, 1
    return frame
