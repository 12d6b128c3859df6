"""Where frames come from: video files, through PyAV, and pictures, through OpenCV. Used through ``video``."""

from __future__ import annotations

import glob
import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from . import ycbcr
from .errors import InputError, MediaError

if TYPE_CHECKING:
    import av

__all__ = [
    "RATE_KEY",
    "SIZE_KEY",
    "SOUND_NAME",
    "ClipInfo",
    "PictureFiles",
    "Plan",
    "VideoFile",
    "files_of",
    "find_matches",
    "open_source",
    "plan",
    "stamp",
]

Array = NDArray[np.float32]
Paint = Callable[[Array, "Array | None"], None]
"""Fills a frame ``(h, w, 3)`` and, if given, its alpha ``(h, w)``, in 0..1."""

_log = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
PICTURE_RATE = Fraction(24)
"""The rate of a clip that does not say its own."""
LEAST_FPS, MOST_FPS = Fraction(1, 1000), 1000
RATE_KEY, SIZE_KEY = "vdp_fps", "vdp_size"
"""Tags of ours: the rate of a PNG sequence, the size of a clip before it was padded to even sides."""
SOUND_NAME = "audio.wav"
"""The sound of a folder of pictures."""

_MOST_SAMPLES = 768_000  # a second; no recorder takes more
_MOST_CHANNELS = 8  # more cannot be saved
_MOST_PICTURE_BYTES = 2**31  # the largest that can be decoded, stored plainly, have less
_SEEK_FROM = 120  # frames; below, decoding up to the start is quicker than seeking
_INDEX_UP_TO = 2**30  # bytes; files without a frame count are read through to count up to here
# In these one packet is one shown frame, which makes the packets' times an index of frames. VP8 can have packets that
# show nothing, MPEG-4 in AVI packets that hold two.
_INDEXED_CODECS = ("h264", "hevc", "vp9", "av1", "prores", "mjpeg", "dnxhd", "ffv1", "gif", "png", "rawvideo")


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
    """As the header has it or by counting packets, None where neither can tell; a header may be wrong."""
    has_audio: bool
    has_alpha: bool
    """Whether the pixels can hold alpha."""
    bit_depth: int


@dataclass(frozen=True)
class Plan:
    """Which frames to take from a source, and how large."""

    start: int
    step: int
    limit: int
    """Most frames to take, 0 for all."""
    count: int
    """Frames that should come; a guess where ``ClipInfo.frame_count`` is None."""
    size: tuple[int, int]
    """(height, width) of the frames that come out."""


def plan(
    source: str | Path, start: int, count: int, every_nth: int, max_side: int
) -> tuple[VideoFile | PictureFiles, Plan]:
    """Open a source and work out what read_clip's arguments take from it; raises what read_clip does."""
    for name, value, least in (
        ("start", start, 0),
        ("count", count, 0),
        ("every_nth", every_nth, 1),
        ("max_side", max_side, 0),
    ):
        if value < least:
            raise InputError(f"{name}: expected {least} or more, got {value}")
    reader = open_source(source)
    info = reader.info
    if info.frame_count is not None and start >= info.frame_count:
        raise _beyond_the_end(info.path, start, info.frame_count)
    expected = max(1, math.ceil((reader.likely_count - start) / every_nth))
    expected = min(expected, count) if count else expected
    scale = min(1.0, max_side / max(info.width, info.height)) if max_side else 1.0
    size = (max(1, round(info.height * scale)), max(1, round(info.width * scale)))
    return reader, Plan(start, every_nth, count, expected, size)


def _beyond_the_end(path: Path, start: int, total: int) -> InputError:
    frames = "1 frame" if total == 1 else f"{total} frames"
    return InputError(f"start: {start} is beyond the end, {path.name} holds {frames} (0 to {total - 1})")


def open_source(source: str | Path) -> VideoFile | PictureFiles:
    """Find out what a source is, and open it.

    Raises:
        MediaError: nothing there, or nothing that can be decoded.
    """
    text = str(source)
    if not text.strip():
        raise MediaError("path: is empty; give a video file, a folder of pictures or a glob such as frames/*.png")
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # such as a name too long, or a folder on the way that may not be entered
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    if is_folder:
        files = _pictures_in(path)
        if not files:
            raise MediaError(f"{path}: the folder holds no pictures ({', '.join(s[1:] for s in PICTURE_SUFFIXES)})")
        return PictureFiles(path, files)
    if is_file:
        return PictureFiles(path, [path]) if _is_picture(path) else VideoFile(path)
    if os.path.exists(path):  # noqa: PTH110 (which never raises)
        raise MediaError(f"{path}: is a device or a pipe, which cannot be read as a clip; give a file or a folder")
    if not glob.has_magic(text):
        raise MediaError(f"{path}: there is no such file or folder")
    matches = _natural(find_matches(text))
    if not matches:
        raise MediaError(f"{text}: no file matches this pattern")
    pictures = [file for file in matches if _is_picture(file)]
    if pictures:
        return PictureFiles(path, pictures)
    if len(matches) > 1:
        raise MediaError(f"{text}: matches {len(matches)} files that are no pictures; name one video")
    return VideoFile(matches[0])


def files_of(source: str | Path) -> list[Path]:
    """The files a source consists of, none where nothing is there."""
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError:  # such as a name too long
        return []
    if is_folder:
        sound = path / SOUND_NAME
        return [*_pictures_in(path), *([sound] if sound.is_file() else [])]
    return [path] if is_file else _natural(find_matches(str(source)))


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


def find_matches(pattern: str) -> Iterator[Path]:
    """Files that match a glob, in any order, as ``find_names`` does."""
    return (file for file in find_names(pattern) if file.is_file())


def find_names(pattern: str) -> Iterator[Path]:
    """Files and folders that match a glob, in any order.

    ``**`` goes down into folders, but not through links: they run in circles.

    Raises:
        MediaError: more than one ``**``, which would find the same files again and again.
    """
    parts = Path(pattern).parts
    deep = [place for place, part in enumerate(parts) if part == "**"]
    if len(deep) > 1:
        raise MediaError(f"{pattern}: holds ** more than once; one goes down into folders of any depth")
    if not deep:
        found: Iterable[str] = glob.iglob(pattern)  # noqa: PTH207 (takes absolute patterns)
    else:
        rest = str(Path(*parts[deep[0] + 1 :])) if parts[deep[0] + 1 :] else "*"
        tops = glob.iglob(str(Path(*parts[: deep[0]])))  # noqa: PTH207
        found = chain.from_iterable(_matches_below(top, rest) for top in tops)
    return map(Path, found)


def _matches_below(top: str, pattern: str) -> Iterator[str]:
    """What matches in a folder and all below it but the hidden ones."""
    for folder, inner, _ in os.walk(top):
        inner[:] = (name for name in inner if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in glob.iglob(pattern, root_dir=folder))  # noqa: PTH118, PTH207


def stamp(path: Path) -> tuple[int, int]:
    """The size and time of a file, which change when it does.

    Raises:
        MediaError: it is gone, or cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read any more ({error.strerror})") from error
    return found.st_size, found.st_mtime_ns


def _check_unchanged(path: Path, before: tuple[int, int]) -> None:
    if stamp(path) != before:
        raise MediaError(f"{path}: was changed while it was being read; run again when it is complete")


class _Notes(list[str]):
    """What is odd about a source, each thing once; the log has it too."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def add(self, note: str) -> None:
        if note not in self:
            self.append(note)
            _log.warning("%s: %s", self._path, note)


def _sensible_rate(notes: _Notes, *rates: Fraction | None) -> Fraction:
    """The first of the rates a file says at which a clip can be played and saved."""
    for rate in rates:
        if rate is not None and LEAST_FPS <= rate <= MOST_FPS:
            return rate
    said = f"a rate of {float(rates[0]):.4g} frames a second" if rates[0] else "no rate"
    notes.add(f"says {said}, so it is taken as {PICTURE_RATE}; set fps where it is saved")
    return PICTURE_RATE


class PictureFiles:
    """A sequence of picture files, or one picture."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.notes = _Notes(path)
        self._stamps = {file: stamp(file) for file in files}
        self._files = files
        _picture_size(files[0])  # which refuses what is too large to be decoded
        first = _read_picture(files[0])
        self.info = ClipInfo(
            path=path,
            width=first.shape[1],
            height=first.shape[0],
            fps=self._rate(),
            frame_count=len(files),
            has_audio=path.is_dir() and (path / SOUND_NAME).is_file(),
            has_alpha=any(_picture_has_alpha(file) for file in files),
            bit_depth=first.dtype.itemsize * 8,
        )

    def _rate(self) -> Fraction:
        """What write_clip noted in the first picture, else PICTURE_RATE."""
        with _picture_header(self._files[0]) as picture:
            text = picture.info.get(RATE_KEY, "")
        noted = re.fullmatch(r"[1-9]\d{0,8}(/[1-9]\d{0,8})?", str(text))
        return _sensible_rate(self.notes, Fraction(noted[0])) if noted else PICTURE_RATE

    @property
    def likely_count(self) -> int:
        return len(self._files)

    def count_frames(self) -> int:
        """How many pictures there are."""
        return len(self._files)

    def walk(self, plan: Plan) -> Iterator[tuple[float, Paint]]:
        """The pictures to take: the time of each in seconds, and what decodes it."""
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
            yield float((plan.start + index * plan.step) / self.info.fps), partial(self._paint, file)

    def _paint(self, picture: Path, frame: Array, alpha: Array | None) -> None:
        pixels = _read_picture(picture)
        _check_unchanged(picture, self._stamps[picture])
        top = np.float32(np.iinfo(pixels.dtype).max)
        if pixels.shape[:2] != frame.shape[:2]:
            pixels = ycbcr.average_over_areas(pixels, frame.shape[1], frame.shape[0])
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        np.divide(pixels[..., 2::-1] if pixels.shape[2] >= 3 else pixels, top, out=frame, dtype=np.float32)
        if alpha is not None:
            if pixels.shape[2] == 4:
                np.divide(pixels[..., 3], top, out=alpha, dtype=np.float32)
            else:
                alpha.fill(1.0)

    def sound(self, begin: float, seconds: float) -> dict[str, Any] | None:
        return _read_sound(self.info.path / SOUND_NAME, begin, seconds, self.notes) if self.info.has_audio else None


@contextmanager
def _picture_header(file: Path) -> Iterator[Any]:
    """A picture of which only the header is read, with all that is wrong with it in our words."""
    import struct

    from PIL import Image

    try:
        size = file.stat().st_size
        if size == 0:  # also what the system makes up when it is read, and may never end
            raise MediaError(f"{file}: is not a picture that can be read, or is damaged")
        if size > _MOST_PICTURE_BYTES:
            raise MediaError(f"{file}: is larger than {_MOST_PICTURE_BYTES >> 20} MiB, too large for a picture")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                yield picture
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"{file}: says it is larger than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels; "
            "make it smaller, or repair it"
        ) from error
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        if error.strerror:
            raise MediaError(f"{file}: cannot be read ({error.strerror})") from error
        raise MediaError(f"{file}: is not a picture that can be read, or is damaged") from error
    except (ValueError, SyntaxError, LookupError, TypeError, OverflowError, struct.error) as error:
        raise MediaError(f"{file}: is not a picture that can be read, or is damaged") from error


def _picture_size(file: Path) -> tuple[int, int]:
    """(width, height) as shown, from the header alone."""
    with _picture_header(file) as picture:
        turned = file.suffix.lower() in (".jpg", ".jpeg") and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return picture.size[::-1] if turned else picture.size


def _picture_has_alpha(file: Path) -> bool:
    with _picture_header(file) as picture:
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
    loud = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # what OpenCV prints about a damaged picture is said below, with its name
    try:
        pixels = cv2.imdecode(content, flags) if content.size else None
    except cv2.error as error:
        raise MediaError(f"{file}: is not a picture that can be read ({error.err})") from error
    finally:
        cv2.utils.logging.setLogLevel(loud)
    if pixels is None:
        raise MediaError(f"{file}: is not a picture that can be read, or is damaged")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"{file}: holds {pixels.dtype} values; pictures of 8 or 16 bits a channel can be read")
    return pixels


class VideoFile:
    """A video file: opened once to see its first frame, and again each time it is walked through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = stamp(path)
        self.notes = _Notes(path)
        self._is_repaired = False
        with self._opened() as container:
            stream = _video_stream(container, path)
            codec = stream.codec_context.name
            self._decoder = _alpha_decoder(stream)
            self._codec = codec
            rate = _tidy_rate(_sensible_rate(self.notes, stream.average_rate, stream.guessed_rate, stream.base_rate))
            announced = stream.frames if stream.frames > 0 else None
            seconds = container.duration / 1_000_000 if container.duration else 0.0
            sizes = re.fullmatch(r"(\d+)x(\d+)", _tag(container.metadata, SIZE_KEY))
            has_audio = _audio_stream(container) is not None
            transfer = stream.codec_context.color_trc
            self._time_base = stream.time_base
            try:
                first = next(self._decoded(container, stream), None)
            except _DamagedError as error:
                raise MediaError(f"{path}: the video is damaged or cannot be decoded ({error})") from error
        if first is None:
            raise MediaError(f"{path}: holds no frame that can be decoded")
        self._turn = _orientation(first)
        self._stored = width, height = first.width, first.height
        # write_clip pads odd sizes to even ones for H.264 and notes the size before; only that one row or column is cut
        self._crop = (width, height)
        if sizes:
            noted = (int(sizes[1]), int(sizes[2]))
            if noted[0] in (width, width - 1) and noted[1] in (height, height - 1):
                self._crop = noted
        width, height = self._crop
        self.likely_count = announced or math.ceil(seconds * rate)
        if announced is None and path.stat().st_size <= _INDEX_UP_TO:
            self.likely_count = len(self._times)
            if codec in _INDEXED_CODECS:
                announced, rate = self.likely_count, self._measured_rate(rate)
        components = first.format.components
        self.info = ClipInfo(
            path=path,
            width=height if self._turn.transposed else width,
            height=width if self._turn.transposed else height,
            fps=rate,
            frame_count=announced,
            has_audio=has_audio,
            has_alpha=self._decoder is not None or any(part.is_alpha for part in components),
            bit_depth=max(part.bits for part in components),
        )
        if transfer in (16, 18):
            self.notes.add("is high dynamic range (PQ or HLG); its values are taken as they are")

    def _decoded(self, container: Any, stream: Any) -> Iterator[av.VideoFrame]:
        """Frames from where the container stands."""
        import av

        context = stream.codec_context
        if self._decoder is not None:
            context = av.CodecContext.create(self._decoder, "r")
        else:
            stream.thread_type = "AUTO"
        try:
            for packet in container.demux(stream):
                yield from context.decode(packet if packet.size else None)
        except (av.error.FFmpegError, ValueError) as error:  # PyAV has no names for some formats
            raise _DamagedError(getattr(error, "strerror", None) or error) from error

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, if it is still the one that was looked at first."""
        _check_unchanged(self._path, self._stamp)
        with _opened(self._path) as container:
            yield container

    @cached_property
    def _times(self) -> list[int | None]:
        """When each packet is shown, in stream time, in file order; read without decoding."""
        with self._opened() as container:
            stream = _video_stream(container, self._path)
            return [packet.pts for packet in _packets(container, stream) if packet.size and not packet.is_discard]

    def count_frames(self) -> int:
        """How many frames there are, by its packets where they tell, else by its header."""
        return len(self._times) if self._codec in _INDEXED_CODECS else self.likely_count

    def _measured_rate(self, nominal: Fraction) -> Fraction:
        """The average rate by the packets' times where it is another than the header's, which such files may have."""
        times = [time for time in self._times if time is not None]
        if len(times) < 2 or max(times) == min(times):
            return nominal
        measured = (len(times) - 1) / ((max(times) - min(times)) * self._time_base)
        return nominal if abs(measured / nominal - 1) < 0.01 else measured.limit_denominator(1001)

    def _from(self, start: int) -> Iterator[av.VideoFrame]:
        """Frames from the ``start``-th on, by the nearest way that is sure to be exact."""
        import av

        if start >= _SEEK_FROM and self._codec in _INDEXED_CODECS:
            times = self._times
            known = sorted(time for time in times if time is not None)
            if len(known) == len(times) == len(set(known)) and start < len(known):
                target = known[start]
                with self._opened() as container:
                    stream = _video_stream(container, self._path)
                    with suppress(av.error.FFmpegError):  # what cannot be sought in is read from the beginning
                        container.seek(target, stream=stream)
                    frames = self._decoded(container, stream)
                    landed = next(frames, None)
                    # Some files land after the target; those are decoded from the beginning.
                    if landed is not None and landed.pts is not None and landed.pts <= target:
                        yield from (f for f in chain([landed], frames) if f.pts is None or f.pts >= target)
                        return
        with self._opened() as container:
            seen = 0
            for frame in self._decoded(container, _video_stream(container, self._path)):
                seen += 1
                if seen > start:
                    yield frame
        if seen <= start:
            raise _beyond_the_end(self._path, start, seen)

    def walk(self, plan: Plan) -> Iterator[tuple[float, Paint]]:
        """The frames to take: the time of each in seconds, and what converts it."""
        taken = index = 0
        try:
            for index, frame in enumerate(self._from(plan.start)):
                if index % plan.step:
                    continue
                if (frame.width, frame.height) != self._stored:
                    index -= 1
                    raise _DamagedError(f"its size changes to {frame.width}x{frame.height}")
                if frame.is_corrupt and not self._is_repaired:
                    self._is_repaired = True
                    place = plan.start + index
                    self.notes.add(f"is damaged at frame {place}, and taken as the decoder repaired it")
                time = plan.start / self.info.fps if frame.pts is None else frame.pts * self._time_base
                yield float(time), partial(self._paint, frame)
                taken += 1
                if taken == plan.limit:
                    break
        except _DamagedError as error:
            _check_unchanged(self._path, self._stamp)
            raise MediaError(self._damage(plan, index, taken, error)) from error
        _check_unchanged(self._path, self._stamp)

    def _damage(self, plan: Plan, index: int, taken: int, error: Exception) -> str:
        """What to say when no more frames can be decoded, and what to do."""
        if not taken:
            return (
                f"{self._path}: cannot be decoded from frame {plan.start} on ({error}); set another start, or repair it"
            )
        return (
            f"{self._path}: is damaged after {plan.start + index + 1} frames ({error}); "
            f"set count to {taken} to read what lies before, or repair the file"
        )

    def _paint(self, picture: av.VideoFrame, frame: Array, alpha: Array | None) -> None:
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
        if not self.info.has_audio:
            return None
        _check_unchanged(self._path, self._stamp)
        return _read_sound(self._path, begin, seconds, self.notes)


class _DamagedError(Exception):
    """No further frame can be decoded; the text says why."""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A container open for reading, with failure to open it in our words."""
    import av

    if stamp(path)[0] == 0:  # also what the system makes up when it is read, and may never end
        raise MediaError(f"{path}: the file is empty")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise MediaError(f"{path}: cannot be read (permission denied)") from error
        reason = getattr(error, "strerror", None) or error
        with path.open("rb") as file:
            if file.read(8)[4:] == b"ftyp":
                reason = "its index is missing or damaged, as where a recording or a copy broke off"
        raise MediaError(f"{path}: is not a video that can be read, or is damaged ({reason})") from error
    with container:
        yield container


def _video_stream(container: Any, path: Path) -> Any:
    """The first video stream that is not a cover picture."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if Disposition.attached_pic not in stream.disposition:
            if stream.codec_context is None:
                raise MediaError(f"{path}: its video is damaged or of a kind without a decoder; convert it to H.264")
            return stream
    raise MediaError(f"{path}: holds no video stream")


def _audio_stream(container: Any) -> Any:
    """The first audio stream that can be decoded, or None (phones add spatial tracks that cannot)."""
    sounds = (s for s in container.streams.audio if s.codec_context is not None)
    return next((s for s in sounds if 0 < s.sample_rate <= _MOST_SAMPLES and s.channels <= _MOST_CHANNELS), None)


def _alpha_decoder(stream: Any) -> str | None:
    """VP8 and VP9 keep alpha as a second stream inside, which FFmpeg's own decoders pass over and libvpx's read."""
    if stream.codec_context.name in ("vp8", "vp9") and _tag(stream.metadata, "alpha_mode") == "1":
        return {"vp8": "libvpx", "vp9": "libvpx-vp9"}[stream.codec_context.name]
    return None


def _tag(metadata: Mapping[str, str], key: str) -> str:
    """A tag whatever its case: Matroska writes them in capitals."""
    return next((value for name, value in metadata.items() if name.lower() == key), "")


def _tidy_rate(rate: Fraction) -> Fraction:
    """The stream's rate, made exact again where the container rounded an NTSC rate (2997/100)."""
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
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5]
    if abs(int(a)) + abs(int(d)) >= abs(int(b)) + abs(int(c)):
        return _Orientation(False, bool(a < 0), bool(d < 0))
    return _Orientation(True, bool(c < 0), bool(b < 0))


def _pixels(frame: av.VideoFrame, plane: int, channels: int, kind: type[np.unsignedinteger]) -> NDArray[Any]:
    """A plane as an array, without copying: ``(h, w)`` or ``(h, w, channels)``."""
    part = frame.planes[plane]
    rows = np.frombuffer(memoryview(part), kind).reshape(part.height, -1)[:, : part.width * channels]
    return rows if channels == 1 else rows.reshape(part.height, part.width, channels)


def _paint_frame(frame: av.VideoFrame, crop: tuple[int, int], codec: str, out: Array, alpha: Array | None) -> None:
    """Fill ``out`` ``(h, w, 3)`` and, if given, ``alpha`` ``(h, w)`` from a decoded frame.

    Args:
        frame: any pixel format.
        crop: (width, height) to keep, from the top left.
        codec: the stream's, which says where its chroma sits.
        out, alpha: float32 in 0..1, smaller than the frame for averaging over areas.
    """
    full = _is_full_range(frame)
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
            colour = ycbcr.average_over_areas(colour, out.shape[1], out.shape[0])
        np.divide(colour, np.float32(2**bits - 1), out=out, dtype=np.float32)
    else:
        matrix = frame.colorspace
        if matrix not in ycbcr.MATRICES:
            matrix = 1 if frame.height >= 720 or frame.width >= 1280 else 6
        decode = ycbcr.decode_matrix(matrix, bits=bits, full=full)
        planes = [_pixels(frame, part.plane, 1, kind) for part in parts]
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


def _is_full_range(frame: av.VideoFrame) -> bool:
    if frame.color_range in (1, 2):
        return frame.color_range == 2
    # Grey that says nothing is full range: swscale, by which nearly all of it is made, knows no other.
    return frame.format.name.startswith(("yuvj", "gray", "mono"))


def _plain_format(frame: av.VideoFrame) -> tuple[av.VideoFrame, str]:
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


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream as far as they can be read."""
    import av

    with suppress(av.error.FFmpegError):  # that a file ends early, its pictures tell
        yield from container.demux(stream)


def _form_of(frame: av.AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate


def _silence(path: Path, channels: int, length: int, seconds: float) -> Array:
    try:
        return np.zeros((channels, length), np.float32)  # takes memory only where something is put
    except (MemoryError, ValueError) as error:
        raise MediaError(
            f"{path}: its frames take {seconds / 3600:.0f} hours by its header, too long for its sound; "
            "repair its times, or take fewer frames (count)"
        ) from error


def _read_sound(path: Path, begin: float, seconds: float, notes: _Notes) -> dict[str, Any] | None:
    """Sound from ``begin`` on (seconds on the container's clock), at most ``seconds`` of it, in its own rate.

    Sound that sets in after ``begin`` is preceded by silence, so that it stays in step with the picture.
    """
    import av

    with _opened(path) as container:
        stream = _audio_stream(container)
        if stream is None:
            return None
        rate = stream.sample_rate
        # Interleaved, as PyAV reads beyond the end of a frame of eight or more planes.
        to_float = av.AudioResampler(format="flt")
        wave: Array | None = None
        form: tuple[str, int, int] | None = None
        length, at, end = round(seconds * rate), None, 0
        damaged: list[float] = []
        if begin > 30.0:  # ten seconds of run-up: codecs need some, and seeking in sound is coarse
            with suppress(av.error.FFmpegError):  # then it is read from the beginning
                container.seek(int((begin - 10.0) * 1_000_000))
        for packet in _packets(container, stream):
            try:
                decoded = packet.decode()
                for frame in decoded:
                    form = form or _form_of(frame)
                    if _form_of(frame) != form or form[1] > _MOST_CHANNELS:
                        raise ValueError("its form changes on the way")
                heard = [part for frame in decoded for part in to_float.resample(frame)]
            except (av.error.FFmpegError, ValueError):
                damaged.append(float((packet.pts or 0) * packet.time_base))
                continue
            for frame in heard:
                samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T
                place = at if frame.time is None else round((frame.time - begin) * rate)
                # Time stamps jitter by less than this; what is off by more is a gap or a jump.
                if at is None or (place is not None and abs(place - at) > rate // 10):
                    at = place or 0
                if wave is None:
                    wave = _silence(path, samples.shape[0], length, seconds)
                first, last = max(at, 0), min(at + samples.shape[1], length)
                if last > first:
                    wave[:, first:last] = samples[:, first - at : last - at]
                    end = max(end, last)
                at += samples.shape[1]
            if at is not None and at >= length:
                break
        if damaged:
            notes.add(f"its sound is damaged at {damaged[0]:.1f} s and silent where it cannot be decoded")
    if wave is None or end == 0:
        return None
    return {"waveform": torch.from_numpy(np.ascontiguousarray(wave[None, :, :end])), "sample_rate": rate}
