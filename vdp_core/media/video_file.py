"""Video files as frames, through PyAV."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MediaError
from .container import audio_stream, opened, packets, tag, video_stream
from .info import SIZE_KEY, Array, ClipInfo, Notes, Paint, Plan, beyond_the_end, check_unchanged, sensible_rate, stamp
from .pixels import UPRIGHT, orientation_of, paint_frame
from .sound import read_sound

if TYPE_CHECKING:
    import av

__all__ = ["VideoFile"]

_SEEK_FROM = 120  # frames; below, decoding up to the start is quicker than seeking
_INDEX_UP_TO = 2**30  # bytes; files without a frame count are read through to count up to here
# In these one packet is one shown frame, which makes the packets' times an index of frames. VP8 can have packets that
# show nothing, MPEG-4 in AVI packets that hold two.
_INDEXED_CODECS = ("h264", "hevc", "vp9", "av1", "prores", "mjpeg", "dnxhd", "ffv1", "gif", "png", "rawvideo")


class VideoFile:
    """A video file: opened once to see its first frame, and again each time it is walked through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = stamp(path)
        self.notes = Notes(path)
        self._is_repaired = False
        with self._opened() as container:
            stream = video_stream(container, path)
            codec = stream.codec_context.name
            self._decoder = _alpha_decoder(stream)
            self._codec = codec
            rate = _tidy_rate(sensible_rate(self.notes, stream.average_rate, stream.guessed_rate, stream.base_rate))
            announced = stream.frames if stream.frames > 0 else None
            seconds = container.duration / 1_000_000 if container.duration else 0.0
            sizes = re.fullmatch(r"(\d+)x(\d+)", tag(container.metadata, SIZE_KEY))
            has_audio = audio_stream(container) is not None
            transfer = stream.codec_context.color_trc
            self._time_base = stream.time_base
            try:
                first = next(self._decoded(container, stream), None)
            except _DamagedError as error:
                raise MediaError(f"{path}: the video is damaged or cannot be decoded ({error})") from error
        if first is None:
            raise MediaError(f"{path}: holds no frame that can be decoded")
        self._turn = orientation_of(first)
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
                    stream = video_stream(container, self._path)
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
            for frame in self._decoded(container, video_stream(container, self._path)):
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

    def _paint(self, picture: av.VideoFrame, frame: Array, alpha: Array | None) -> None:
        if self._turn == UPRIGHT:
            paint_frame(picture, self._crop, self._codec, frame, alpha)
            return
        size = frame.shape[1::-1] if self._turn.transposed else frame.shape[:2]
        lying = np.empty((*size, 3), np.float32)
        matte = None if alpha is None else np.empty(size, np.float32)
        paint_frame(picture, self._crop, self._codec, lying, matte)
        frame[:] = self._turn.apply(lying)
        if alpha is not None and matte is not None:
            alpha[:] = self._turn.apply(matte)

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


def _tidy_rate(rate: Fraction) -> Fraction:
    """The stream's rate, made exact again where the container rounded an NTSC rate (2997/100)."""
    ntsc = Fraction(math.ceil(rate) * 1000, 1001)
    return ntsc if abs(rate / ntsc - 1) < 1e-5 else Fraction(rate)
