"""Video files as frames, through PyAV."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MediaError
from .container import audio_stream, decodable_sounds, exact, opened, packets, tag, video_stream
from .formats import LEAST_SIDE
from .info import (
    SIZE_KEY,
    ClipInfo,
    Notes,
    Paint,
    Plan,
    beyond_the_end,
    check_unchanged,
    is_sensible,
    sensible_rate,
    stamp,
)
from .interlace import deinterlaced
from .pixels import Colours, Look, look_of
from .sound import read_sound
from .timeline import Timeline, lie_evenly, timed

if TYPE_CHECKING:
    import av

__all__ = ["VideoFile"]

_SEEK_FROM = 120  # frames; below, decoding up to the start is quicker than seeking
_INDEX_UP_TO = 2**33  # bytes; files whose header does not tell the times of frames are read through up to here
# In these one packet is one shown frame, or says that it is none, which makes the packets' times an index of frames.
# MPEG-4 in AVI can have packets that hold two.
_INDEXED_CODECS = (
    *("h264", "hevc", "vp8", "vp9", "av1", "theora"),
    *("prores", "mjpeg", "dnxhd", "ffv1", "gif", "png", "rawvideo"),
)
_DELAYED_BY_GUESS = ("h264", "hevc")  # AVI does not tell when frames are shown, and FFmpeg takes these for reordered
_VP8_SHOWN = 0x10  # RFC 6386, section 9.1; other packets show nothing
_HELD = 3  # frames; a last one that is shown for as long is repeated, as its sound goes on
_DELAYS = ("gif", "apng")  # codecs of animated pictures, which say for each how long it is shown


@dataclass(frozen=True)
class _Times:
    """When frames are shown, by the packets of a file."""

    shown: Sequence[int]
    """In stream time, ascending; of files that do not tell it for each packet, as many numbers as there are packets."""
    last: int
    """How long the last one is shown, as the file says."""
    is_steady: bool
    """Whether the file tells, and by a clock that does not run backwards."""
    has_repeats: bool
    """Whether there are packets of nothing, at which the frame before is shown once more."""


@dataclass(frozen=True)
class _Header:
    """What a file and its first frame say of a video."""

    codec: str
    alpha_decoder: str | None
    """Another decoder than FFmpeg's own, where that would pass over alpha."""
    time_base: Fraction
    rate: Fraction
    count: int | None
    """Frames in the file's index; None where it has none, or not of all frames."""
    is_even: bool
    """Whether the index tells that they come at ``rate``, and the last is not shown for longer."""
    begin: int | None
    """When the first frame that can be decoded is shown, in stream time."""
    is_unordered: bool
    """Whether frames are stored in another order than they are shown, in a container that tells only the first."""
    seconds: float
    size: tuple[int, int]
    """Width and height of frames as they are stored."""
    look: Look
    has_alpha: bool
    bit_depth: int


def _read_header(container: Any, path: Path, notes: Notes) -> _Header:
    """Read what an open file says of itself, and decode its first frame.

    Raises:
        MediaError: there is no video, or no frame that can be decoded.
    """
    stream = video_stream(container, path)
    alpha_decoder = _alpha_decoder(stream)
    index = _index(stream)
    noted = re.fullmatch(r"(\d+)x(\d+)", tag(container.metadata, SIZE_KEY))
    said = [exact(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate)]
    colours = Colours.of(stream.codec_context)
    frames = _decoded(container, stream, alpha_decoder)
    try:
        first = next(frames, None)
        if first is not None and not any(map(is_sensible, said)):  # FFmpeg tells none of two frames
            second = next(frames, first)
            lasts = ((second.pts or 0) - (first.pts or 0)) * exact(stream.time_base)
            said += [1 / lasts] if lasts > 0 else []
    except _DamagedError as error:
        raise MediaError(f"{path}: the video is damaged or cannot be decoded ({error})") from error
    if first is None:
        raise MediaError(f"{path}: holds no frame that can be decoded")
    rate = _tidy_rate(sensible_rate(notes, *said))
    size = crop = first.width, first.height
    if noted and all(map(_is_padded, size, map(int, noted.groups()))):
        crop = int(noted[1]), int(noted[2])
    components = first.format.components
    is_avi = container.format.name == "avi"
    reorders = stream.codec_context.has_b_frames or (is_avi and stream.codec_context.name in _DELAYED_BY_GUESS)
    is_unordered = reorders and (is_avi or container.format.name == "mxf")
    return _Header(
        codec=stream.codec_context.name,
        alpha_decoder=alpha_decoder,
        time_base=exact(stream.time_base),
        rate=rate,
        count=len(index) or None,
        is_even=bool(index)
        and (stream.duration or 0) * exact(stream.time_base) * rate < len(index) + _HELD
        and lie_evenly(index, exact(stream.time_base), rate),
        begin=stream.start_time if is_avi and is_unordered else first.pts,
        is_unordered=is_unordered,
        seconds=container.duration / 1_000_000 if container.duration else 0.0,
        size=size,
        look=look_of(path, stream, first, colours, crop, notes),
        has_alpha=alpha_decoder is not None or any(part.is_alpha for part in components),
        bit_depth=max(part.bits for part in components),
    )


def _index(stream: Any) -> list[int]:
    """When each frame to show is decoded, by the file's index; empty where it does not list all frames.

    Frames of a constant rate are decoded as evenly as they are shown, so that this tells it without reading the file.
    """
    entries = getattr(stream, "index_entries", ())  # from PyAV 16 on
    if len(entries) != stream.frames:
        return []
    return [entry.timestamp for entry in entries if not entry.is_discard]


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
            if packet.size or packet.dts is None:
                yield from context.decode(packet if packet.size else None)
    except (av.error.FFmpegError, ValueError, IndexError) as error:  # PyAV lacks names of formats, and late streams
        raise _DamagedError(getattr(error, "strerror", None) or error) from error


class VideoFile:
    """A video file: opened once to see its first frame, and again each time it is walked through.

    Raises:
        MediaError: it cannot be read, or holds no frame that can be decoded.
    """

    def __init__(self, path: Path, timing: str = "constant", sound_track: int = 0) -> None:
        """Open it.

        Args:
            path: the file.
            timing: one of TIMINGS.
            sound_track: which sound to take, from 1; 0 for the default one.
        """
        self._path = path
        self._stamp = stamp(path)
        self._sound_track = sound_track
        self.notes = Notes(path)
        self._is_repaired = False
        with self._opened() as container:
            self._header = header = _read_header(container, path, self.notes)
            sound = audio_stream(container, path, sound_track)
            if sound is not None and len(decodable_sounds(container)) > 1 and not sound_track:
                numbers = container.streams.audio
                self.notes.do(f"sound track {numbers.index(sound) + 1} of {len(numbers)} (sound_track takes another)")
        self._line: Timeline | None = None
        self.likely_count, count, rate = self._counted(timing)
        self.info = ClipInfo(
            path=path,
            width=header.look.size[0],
            height=header.look.size[1],
            fps=rate,
            frame_count=count,
            has_audio=sound is not None,
            has_alpha=header.has_alpha,
            bit_depth=header.bit_depth,
        )

    def _counted(self, timing: str) -> tuple[int, int | None, Fraction]:
        """How many frames there likely are, how many there are for sure (None: nobody knows), and their rate.

        Where the index does not tell, the packets are counted, if the file is not too large to be read through.
        """
        header = self._header
        if header.count is not None and header.is_even:
            return header.count, header.count, header.rate
        if header.count is None and self._path.stat().st_size > _INDEX_UP_TO:
            return math.ceil(header.seconds * header.rate), None, header.rate
        found = self._times
        count = len(found.shown)
        if header.count is not None and count < header.count:
            self.notes.add(f"announces more frames than it holds; {count} were read of {header.count}")
        sure = count if header.codec in _INDEXED_CODECS or found.has_repeats else header.count
        rate = header.rate
        if found.is_steady:
            rate, self._line = timed(
                found.shown,
                header.time_base,
                header.rate,
                found.last,
                timing,
                self.notes,
                last_counts=header.codec in _DELAYS or found.last * header.time_base * header.rate >= _HELD,
            )
        if self._line is not None:
            return self._line.count, self._line.count, rate
        if found.has_repeats:
            self._line = Timeline(found.shown, range(count), rate, count)
        return count, sure, rate

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, if it is still the one that was looked at first."""
        check_unchanged(self._path, self._stamp)
        with opened(self._path) as container:
            yield container

    @cached_property
    def _times(self) -> _Times:
        """When frames are shown, by the packets, which are read without decoding."""
        header = self._header
        shown: list[tuple[int, int]] = []
        has_repeats, is_steady, before = False, header.begin is not None, None
        with self._opened() as container:
            stream = video_stream(container, self._path)
            is_guessed = container.format.name == "avi" and header.is_unordered  # AVI counts frames as they are stored
            for packet in packets(container, stream):
                if packet.is_discard or (not packet.size and packet.pts is None):  # the last asks for what is left
                    continue
                if packet.size and header.codec == "vp8" and not memoryview(packet)[0] & _VP8_SHOWN:
                    continue
                has_repeats |= packet.size == 0
                is_steady &= packet.pts is not None and (None in (before, packet.dts) or before <= packet.dts)
                before = before if packet.dts is None else packet.dts
                time = packet.dts if is_guessed else packet.pts
                shown.append((time or 0, packet.duration or 0))
        if is_steady:
            # what comes before the first frame that can be decoded is never shown: files are cut between key frames
            shown = sorted(pair for pair in shown if pair[0] >= (header.begin or 0))
            if is_guessed:
                shown = _by_stored(shown, self._reordered_by())
        times = [time for time, _ in shown]
        return _Times(times, shown[-1][1] if shown else 0, is_steady and bool(times), has_repeats)

    def _reordered_by(self) -> int:
        """By how many packets frames come out of the decoder later than they are stored, to be put in order."""
        with self._opened() as container:
            stream = video_stream(container, self._path)
            stream.codec_context.thread_count = 1  # threads would delay them too
            for number, packet in enumerate(packets(container, stream)):
                if not packet.size or stream.codec_context.decode(packet):
                    return number
        return 0

    def count_frames(self) -> int:
        """How many frames there are, by its packets where they tell, else by its header."""
        if self._line is not None or self._header.codec not in _INDEXED_CODECS:
            return self.likely_count
        return len(self._times.shown)

    def _from(self, start: int) -> Iterator[av.VideoFrame]:
        """Frames from the ``start``-th on, by the nearest way that is sure to be exact."""
        if self._line is not None:
            yield from self._held(self._line, start)
            return
        times = self._known_times(start)
        if start < len(times):
            # from the one before on, which deinterlacing looks at
            yield from (f for f in self._before(times[start - 1]) if f.pts is None or f.pts >= times[start])
            return
        seen = 0
        for frame in self._all():
            seen += 1
            if seen > start:
                yield frame
        if seen <= start:
            raise beyond_the_end(self._path, start, seen)

    def _held(self, line: Timeline, start: int) -> Iterator[av.VideoFrame]:
        """Frames from the ``start``-th place of a grid on, each as often as there are places until the next."""
        first = line.shown_at(start)
        times = self._known_times(first)
        held: av.VideoFrame | None = None
        place = start
        for number, frame in enumerate(self._before(times[first - 1]) if times else self._all()):
            if self._header.is_unordered or frame.pts is None:
                slot = line.slots[min(number, len(line.slots) - 1)]
            else:
                slot = line.slot_of(frame.pts)
            while place < slot:
                yield frame if held is None else held
                place += 1
            held = frame
        while held is not None and place < line.count:
            yield held
            place += 1

    def _known_times(self, start: int) -> Sequence[int]:
        """When frames are shown, where one that late is found quicker by its time than by counting up to it."""
        if start < _SEEK_FROM or self._header.codec not in _INDEXED_CODECS or self._header.is_unordered:
            return ()
        times = self._times
        return times.shown if times.is_steady and len(times.shown) == len(set(times.shown)) else ()

    def _all(self) -> Iterator[av.VideoFrame]:
        with self._opened() as container:
            stream = video_stream(container, self._path)
            yield from deinterlaced(_decoded(container, stream, self._header.alpha_decoder), self.notes)

    def _before(self, target: int) -> Iterator[av.VideoFrame]:
        """Frames from some place before a time on, near it if the file can be sought in."""
        import av

        with self._opened() as container:
            stream = video_stream(container, self._path)
            with suppress(av.error.FFmpegError):  # what cannot be sought in is read from the beginning
                container.seek(target, stream=stream)
            frames = _decoded(container, stream, self._header.alpha_decoder)
            landed = next(frames, None)
            # Some files land after the target; those are decoded from the beginning.
            if landed is not None and landed.pts is not None and landed.pts <= target:
                yield from deinterlaced(chain([landed], frames), self.notes)
                return
        yield from self._all()

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
                yield self._time_of(frame, plan.start + index), partial(self._header.look.paint, frame)
                taken += 1
                if taken == plan.limit:
                    break
        except _DamagedError as error:
            check_unchanged(self._path, self._stamp)
            raise MediaError(self._damage(plan, index, taken, error)) from error
        check_unchanged(self._path, self._stamp)

    def _time_of(self, frame: av.VideoFrame, place: int) -> float:
        """When a frame is shown, in seconds."""
        if frame.pts is not None and self._line is None and not self._header.is_unordered:
            return float(frame.pts * self._header.time_base)
        return float((self._header.begin or 0) * self._header.time_base + place / self.info.fps)

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
        return read_sound(self._path, begin, seconds, self.notes, self._sound_track)


def _by_stored(stored: list[tuple[int, int]], delay: int) -> list[tuple[int, int]]:
    """When frames are shown, and for how long, by when those are stored that are put in order.

    An encoder stores a frame when the one is shown that came ``delay`` frames before. What the last ones wait for is
    not there any more; they follow one after the other.
    """
    if not 0 < delay < len(stored):
        return stored
    ahead = stored[delay][0] - stored[0][0]
    shown = [(time - ahead, duration) for time, duration in stored[delay:]]
    for _ in range(delay):
        time, duration = shown[-1]
        shown.append((time + max(duration, 1), duration))
    return shown


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
