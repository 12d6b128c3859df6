"""Interlaced video: a frame is woven of two half pictures, of every second line each, taken at two times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .info import Notes

if TYPE_CHECKING:
    import av

__all__ = ["deinterlaced"]


def deinterlaced(frames: Iterable[av.VideoFrame], notes: Notes) -> Iterator[av.VideoFrame]:
    """Frames of which those that are flagged as interlaced show their first half picture's time, by FFmpeg's bwdif.

    One frame comes out for each that goes in, and frames that are not flagged stay as they are. What a frame becomes
    hangs on the one before and the one behind it: where frames are read from the middle, begin one earlier.

    Args:
        frames: in the order they are shown, all of them.
        notes: told when the first such frame comes.
    """
    before: av.VideoFrame | None = None
    filtering: _Deinterlacer | None = None
    try:
        for frame in frames:
            if filtering is not None and not filtering.takes(frame):
                yield from filtering.end()
                before = filtering = None
            if filtering is None and frame.interlaced_frame:
                notes.do("interlaced, deinterlaced to one frame for each")
                filtering = _Deinterlacer(frame, before)
            if filtering is None:
                yield frame
            else:
                yield from filtering.next(frame)
            before = frame
    except Exception:
        if filtering is not None:  # what was held back is shown before it is said that no more can be read
            yield from filtering.end()
        raise
    if filtering is not None:
        yield from filtering.end()


class _Deinterlacer:
    """The filter, which holds one frame back, as it needs the one behind it."""

    def __init__(self, frame: av.VideoFrame, before: av.VideoFrame | None) -> None:
        import av

        self._shape = _shape(frame)
        self._graph = av.filter.Graph()
        unit = Fraction(1, 1000)  # any would do: frames get their own times back
        source = self._graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=unit)
        bwdif = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()
        self._said: deque[tuple[int | None, int, int]] = deque()
        self._passed_over = 0
        if before is not None and _shape(before) == self._shape:
            self._passed_over = 1  # it was shown already
            self._push(before)

    def takes(self, frame: av.VideoFrame) -> bool:
        return _shape(frame) == self._shape

    def next(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        self._push(frame)
        yield from self._ready()

    def end(self) -> Iterator[av.VideoFrame]:
        self._graph.push(None)
        yield from self._ready()

    def _push(self, frame: av.VideoFrame) -> None:
        """Frames go in without what they say of their colours, by which libavfilter would convert them."""
        said = frame.colorspace, frame.color_range
        self._said.append((frame.pts, *said))
        frame.colorspace, frame.color_range = 2, 0
        self._graph.push(frame)
        frame.colorspace, frame.color_range = said

    def _ready(self) -> Iterator[av.VideoFrame]:
        import av

        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                frame: Any = self._graph.pull()
                frame.pts, frame.colorspace, frame.color_range = self._said.popleft()
                if self._passed_over:
                    self._passed_over -= 1
                else:
                    yield frame


def _shape(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
