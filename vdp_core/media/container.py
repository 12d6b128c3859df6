"""Containers and their streams, opened so that what is wrong with them is said in our words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import InputError, MediaError
from .info import stamp

__all__ = [
    "MOST_CHANNELS",
    "audio_stream",
    "check_track",
    "decodable_sounds",
    "exact",
    "ffmpeg",
    "opened",
    "packets",
    "tag",
    "video_stream",
]

_MOST_SAMPLES = 768_000  # a second; no recorder takes more
MOST_CHANNELS = 8  # more cannot be saved


def ffmpeg() -> Any:
    """PyAV, with FFmpeg's log off, as it is unless somebody turns it on, such as torchvision.io up to 0.24.

    A decoder's threads would then wait for Python's lock to write to it, and whoever closes the decoder holds that lock
    and waits for its threads: for ever.
    """
    import av

    av.logging.set_level(None)
    return av


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A container open for reading, with failure to open it in our words."""
    av = ffmpeg()
    if stamp(path)[0] == 0:  # also what the system makes up when it is read, and may never end
        raise MediaError(f"{path}: the file is empty")
    # PyAV 19 bears text that is no UTF-8 by itself, and knows the argument no more.
    lenient: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        container = av.open(str(path), **lenient)
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


def video_stream(container: Any, path: Path) -> Any:
    """The default video stream, else the first, of those that are no cover pictures."""
    from av.stream import Disposition

    known = [stream for stream in container.streams.video if Disposition.attached_pic not in stream.disposition]
    if not known:
        raise MediaError(f"{path}: holds no video stream")
    stream = next((stream for stream in known if Disposition.default in stream.disposition), known[0])
    if stream.codec_context is None:
        raise MediaError(f"{path}: its video is damaged or of a kind without a decoder; convert it to H.264")
    return stream


def audio_stream(container: Any, path: Path, track: int = 0) -> Any:
    """A sound track by its number, from 1 on; 0 is the default one of those that can be decoded.

    Phones add spatial tracks that cannot.

    Returns:
        A stream, None where 0 finds none.

    Raises:
        InputError: there is no such track.
        MediaError: it cannot be decoded.
    """
    from av.stream import Disposition

    tracks = container.streams.audio
    check_track(path, track, len(tracks))
    if track:
        if not _is_decodable(tracks[track - 1]):
            raise MediaError(f"{path}: sound track {track} cannot be decoded; sound_track 0 takes one that can")
        return tracks[track - 1]
    known = decodable_sounds(container)
    return next((s for s in known if Disposition.default in s.disposition), known[0] if known else None)


def check_track(path: Path, track: int, held: int) -> None:
    """Refuse the number of a sound track that a source of ``held`` tracks does not have.

    Raises:
        InputError: it is larger.
    """
    if track > held:
        tracks = f"{held} sound track{'s' * (held != 1)}" if held else "no sound"
        raise InputError(
            f"sound_track: {track} is beyond the last, {path.name} holds {tracks}; 0 takes the default one"
        )


def decodable_sounds(container: Any) -> list[Any]:
    """The sound tracks that can be decoded and saved."""
    return [stream for stream in container.streams.audio if _is_decodable(stream)]


def _is_decodable(stream: Any) -> bool:
    return (
        stream.codec_context is not None
        and 0 < stream.sample_rate <= _MOST_SAMPLES
        and stream.channels <= MOST_CHANNELS
    )


def exact(ratio: Any) -> Fraction:
    """A rate or a unit of time as PyAV tells it; 0 where it tells none (None up to PyAV 18, 0/1 or n/0 since)."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio else Fraction(0)


def tag(metadata: Mapping[str, str], key: str) -> str:
    """A tag whatever its case: Matroska writes them in capitals."""
    return next((value for name, value in metadata.items() if name.lower() == key), "")


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream as far as they can be read."""
    import av

    # That a file ends early, its pictures tell; a stream that first turns up on the way, PyAV fails to find.
    with suppress(av.error.FFmpegError, IndexError):
        yield from container.demux(stream)
