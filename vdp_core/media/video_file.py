"""Video files as frames, through PyAV."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MediaError
from .container import audio_stream, exact, opened, packets, tag, video_stream
from .info import (
    LEAST_SIDE,
    SIZE_KEY,
    ClipInfo,
    Notes,
    Paint,
    Plan,
    beyond_the_end,
    check_unchanged,
    sensible_rate,
    stamp,
)
from .interlace import deinterlaced
from .pixels import Colours, Look, look_of
from .sound import read_sound

if TYPE_CHECKING:
    import av

__all__ = ["VideoFile"]

_SEEK_FROM = 120  # frames; below, decoding up to the start is quicker than seeking
_INDEX_UP_TO = 2**30  # bytes; files without a frame count are read through to count up to here
# In these one packet is one shown frame, which makes the packets' times an index of frames. VP8 can have packets that
# show nothing, MPEG-4 in AVI packets that hold two.
_INDEXED_CODECS = ("h264", "hevc", "vp9", "av1", "prores", "mjpeg", "dnxhd", "ffv1", "gif", "png", "rawvideo")


@dataclass(frozen=True)
class _Header:
    """What a file and its first frame say of a video."""

    codec: str
    alpha_decoder: str | None
    """Another decoder than FFmpeg's own, where that would pass over alpha."""
    time_base: Fraction
    rate: Fraction
    count: int | None
    """Frames, where the container tells."""
    seconds: float
    size: tuple[int, int]
    """Width and height of frames as they are stored."""
    look: Look
    has_alpha: bool
    has_audio: bool
    bit_depth: int


def _read_header(container: Any, path: Path, notes: Notes) -> _Header:
    """Read what an open file says of itself, and decode its first frame.

    Raises:
        MediaError: there is no video, or no frame that can be decoded.
    """
    stream = video_stream(container, path)
    alpha_decoder = _alpha_decoder(stream)
    noted = re.fullmatch(r"(\d+)x(\d+)", tag(container.metadata, SIZE_KEY))
    rate = sensible_rate(notes, *map(exact, (stream.average_rate, stream.guessed_rate, stream.base_rate)))
    colours = Colours.of(stream.codec_context)
    try:
        first = next(_decoded(container, stream, alpha_decoder), None)
    except _DamagedError as error:
        raise MediaError(f"{path}: the video is damaged or cannot be decoded ({error})") from error
    if first is None:
        raise MediaError(f"{path}: holds no frame that can be decoded")
    size = crop = first.width, first.height
    if noted and all(map(_is_padded, size, map(int, noted.groups()))):
        crop = int(noted[1]), int(noted[2])
    components = first.format.components
    return _Header(
        codec=stream.codec_context.name,
        alpha_decoder=alpha_decoder,
        time_base=exact(stream.time_base),
        rate=_tidy_rate(rate),
        count=stream.frames if stream.frames > 0 else None,
        seconds=container.duration / 1_000_000 if container.duration else 0.0,
        size=size,
        look=look_of(path, stream, first, colours, crop, notes),
        has_alpha=alpha_decoder is not None or any(part.is_alpha for part in components),
        has_audio=audio_stream(container) is not None,
        bit_depth=max(part.bits for part in components),
    )


def _decoded(container: Any, stream: Any, alpha_decoder: str | None) -> Iterator[av.VideoFrame]:
    """Frames from where the container stands."""
    import av

    context = stream.codec_context
    if alpha_decoder is not None:
        context = av.CodecContext.create(alpha_decoder, "r")
    else:
        stream.thread_type = "AUTO"
    try:
        for packet in container.demux(stream):
            yield from context.decode(packet if packet.size else None)
    except (av.error.FFmpegError, ValueError) as error:  # PyAV has no names for some formats
        raise _DamagedError(getattr(error, "strerror", None) or error) from error


class VideoFile:
    """A video file: opened once to see its first frame, and again each time it is walked through.

    Raises:
        MediaError: it cannot be read, or holds no frame that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = stamp(path)
        self.notes = Notes(path)
        self._is_repaired = False
        with self._opened() as container:
            self._header = header = _read_header(container, path, self.notes)
        self.likely_count, count, rate = self._counted()
        self.info = ClipInfo(
            path=path,
            width=header.look.size[0],
            height=header.look.size[1],
            fps=rate,
            frame_count=count,
            has_audio=header.has_audio,
            has_alpha=header.has_alpha,
            bit_depth=header.bit_depth,
        )

    def _counted(self) -> tuple[int, int | None, Fraction]:
        """How many frames there likely are, how many there are for sure (None: nobody knows), and their rate.

        Where the header does not tell, the packets are counted, if the file is not too large to be read through.
        """
        header = self._header
        if header.count is not None:
            return header.count, header.count, header.rate
        if self._path.stat().st_size > _INDEX_UP_TO:
            return math.ceil(header.seconds * header.rate), None, header.rate
        packets_seen = len(self._times)
        if header.codec not in _INDEXED_CODECS:
            return packets_seen, None, header.rate
        return packets_seen, packets_seen, self._measured_rate(header.rate)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, if it is still the one that was looked at first."""
        check_unchanged(self._path, self._stamp)
        with opened(self._path) as container:
            yield container

    @cached_property
    def _times(self) -> list[int | None]:
        """When each packet is shown, in stream time, in file order; read without decoding."""
        with self._opened() as container:
            stream = video_stream(container, self._path)
            return [packet.pts for packet in packets(container, stream) if packet.size and not packet.is_discard]

    def count_frames(self) -> int:
        """How many frames there are, by its packets where they tell, else by its header."""
        return len(self._times) if self._header.codec in _INDEXED_CODECS else self.likely_count

    def _measured_rate(self, nominal: Fraction) -> Fraction:
        """The average rate by the packets' times where it is another than the header's, which such files may have."""
        times = [time for time in self._times if time is not None]
        if len(times) < 2 or max(times) == min(times):
            return nominal
        measured = (len(times) - 1) / ((max(times) - min(times)) * self._header.time_base)
        return nominal if abs(measured / nominal - 1) < 0.01 else measured.limit_denominator(1001)

    def _from(self, start: int) -> Iterator[av.VideoFrame]:
        """Frames from the ``start``-th on, by the nearest way that is sure to be exact."""
        import av

        if start >= _SEEK_FROM and self._header.codec in _INDEXED_CODECS:
            times = self._times
            known = sorted(time for time in times if time is not None)
            if len(known) == len(times) == len(set(known)) and start < len(known):
                first, target = known[start - 1], known[start]  # what is deinterlaced needs the frame before
                with self._opened() as container:
                    stream = video_stream(container, self._path)
                    with suppress(av.error.FFmpegError):  # what cannot be sought in is read from the beginning
                        container.seek(first, stream=stream)
                    frames = _decoded(container, stream, self._header.alpha_decoder)
                    landed = next(frames, None)
                    # Some files land after the target; those are decoded from the beginning.
                    if landed is not None and landed.pts is not None and landed.pts <= first:
                        frames = deinterlaced(chain([landed], frames), self.notes)
                        yield from (f for f in frames if f.pts is None or f.pts >= target)
                        return
        with self._opened() as container:
            seen = 0
            stream = video_stream(container, self._path)
            for frame in deinterlaced(_decoded(container, stream, self._header.alpha_decoder), self.notes):
                seen += 1
                if seen > start:
                    yield frame
        if seen <= start:
            raise beyond_the_end(self._path, start, seen)

    def walk(self, plan: Plan) -> Iterator[tuple[float, Paint]]:
        """The frames to take: the time of each in seconds, and what converts it."""
        taken = index = 0
        try:
            for index, frame in enumerate(self._from(plan.start)):
                if index % plan.step:
                    continue
                if (frame.width, frame.height) != self._header.size:
                    index -= 1
                    raise _DamagedError(f"its size changes to {frame.width}x{frame.height}")
                if frame.is_corrupt and not self._is_repaired:
                    self._is_repaired = True
                    place = plan.start + index
                    self.notes.add(f"is damaged at frame {place}, and taken as the decoder repaired it")
                time = plan.start / self.info.fps if frame.pts is None else frame.pts * self._header.time_base
                yield float(time), partial(self._header.look.paint, frame)
                taken += 1
                if taken == plan.limit:
                    break
        except _DamagedError as error:
            check_unchanged(self._path, self._stamp)
            raise MediaError(self._damage(plan, index, taken, error)) from error
        check_unchanged(self._path, self._stamp)

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

    def sound(self, begin: float, seconds: float) -> dict[str, Any] | None:
        if not self.info.has_audio:
            return None
        check_unchanged(self._path, self._stamp)
        return read_sound(self._path, begin, seconds, self.notes)


class _DamagedError(Exception):
    """No further frame can be decoded; the text says why."""


def _alpha_decoder(stream: Any) -> str | None:
    """VP8 and VP9 keep alpha as a second stream inside, which FFmpeg's own decoders pass over and libvpx's read."""
    if stream.codec_context.name in ("vp8", "vp9") and tag(stream.metadata, "alpha_mode") == "1":
        return {"vp8": "libvpx", "vp9": "libvpx-vp9"}[stream.codec_context.name]
    return None


def _is_padded(stored: int, side: int) -> bool:
    """Whether ``write_clip`` makes ``stored`` of a side; a file that was resized since keeps the tag."""
    return 0 <= stored - side <= 1 or side < stored == LEAST_SIDE


def _tidy_rate(rate: Fraction) -> Fraction:
    """The stream's rate, made exact again where the container rounded an NTSC rate (2997/100)."""
    ntsc = Fraction(math.ceil(rate) * 1000, 1001)
    return ntsc if abs(rate / ntsc - 1) < 1e-5 else Fraction(rate)
