"""The sound that belongs to frames."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import MediaError
from ..store.scratch import let_go, mapped
from .container import MOST_CHANNELS, audio_stream, opened, packets
from .info import Array, Notes

if TYPE_CHECKING:
    import av

__all__ = ["interleaved", "read_sound"]

_IN_MEMORY = 2**26  # bytes; three minutes of stereo at 48 kHz
_KEEP_PADDING = 1 << 29  # AV_CODEC_FLAG2_SKIP_MANUAL


def _form_of(frame: av.AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate


def read_sound(path: Path, begin: float, seconds: float, notes: Notes, track: int = 0) -> dict[str, Any] | None:
    """Sound from ``begin`` on (seconds on the container's clock), at most ``seconds`` of it, in its own rate.

    Sound that sets in after ``begin`` is preceded by silence, so that it stays in step with the picture. What is longer
    than a few minutes lies in a temporary file, from which the waveform is paged in where it is looked at.

    Args:
        path: the file.
        begin: seconds.
        seconds: the length of the picture.
        notes: told what is odd.
        track: which sound to take, from 1; 0 for the default one.

    Returns:
        ``{"waveform": (1, C, N) float32, "sample_rate": int}``, None where there is no sound.

    Raises:
        InputError: there is no such track.
        MediaError: it cannot be read, or the folder for temporary files has no room for it.
    """
    import av

    with opened(path) as container, SpooledTemporaryFile(_IN_MEMORY, prefix="vdp-") as laid:
        stream = audio_stream(container, path, track)
        if stream is None:
            return None
        rate = stream.sample_rate
        if "matroska" in container.format.name and _says_all_is_padding(path, track):
            stream.codec_context.flags2 |= _KEEP_PADDING
        # Interleaved, as PyAV reads beyond the end of a frame of eight or more planes.
        to_float = av.AudioResampler(format="flt")
        form: tuple[str, int, int] | None = None
        length, at, end, ahead = round(seconds * rate), None, 0, 0
        damaged: list[float] = []
        if begin > 30.0:  # ten seconds of run-up: codecs need some, and seeking in sound is coarse
            with suppress(av.error.FFmpegError):  # then it is read from the beginning
                container.seek(int((begin - 10.0) * 1_000_000))
        for packet in packets(container, stream):
            try:
                decoded = packet.decode()
                for frame in decoded:
                    form = form or _form_of(frame)
                    if _form_of(frame) != form or form[1] > MOST_CHANNELS:
                        raise ValueError("its form changes on the way")
                heard = [part for frame in decoded for part in to_float.resample(frame)]
            except (av.error.FFmpegError, ValueError):
                damaged.append(float((packet.pts or 0) * packet.time_base))
                continue
            for frame in heard:
                samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
                place = at if frame.time is None else round((frame.time - begin) * rate) + ahead
                if at is not None and place is not None and place < at - rate:  # a clock set anew: files were joined
                    ahead += at - place
                    place = at
                # Time stamps jitter by less than this; what is off by more is a gap or a jump.
                if at is None or (place is not None and abs(place - at) > rate // 30):
                    at = place or 0
                first, last = max(at, 0), min(at + len(samples), length)
                if last > first:
                    _lay(path, laid, first, samples[first - at : last - at])
                    end = max(end, last)
                at += len(samples)
            if at is not None and at >= length:
                break
        if damaged:
            notes.add(f"its sound is damaged at {damaged[0]:.1f} s and silent where it cannot be decoded")
        if form is None or end == 0:
            return None
        return {"waveform": _waveform(path, laid, end, form[1]), "sample_rate": rate}


def _says_all_is_padding(path: Path, track: int) -> bool:
    """Whether packet after packet is said to be but for a few samples padding, which only the last can be.

    FFmpeg 5 wrote that into copies of what browsers record.
    """
    import av

    with opened(path) as container, suppress(av.error.FFmpegError, ValueError):
        stream, short = audio_stream(container, path, track), 0
        for packet in islice(packets(container, stream), 1, 5):
            heard = sum(frame.samples for frame in packet.decode())
            short += 0 < heard < packet.duration * packet.time_base * stream.sample_rate / 2
        return short > 2
    return False


def _lay(path: Path, laid: SpooledTemporaryFile[bytes], first: int, samples: NDArray[Any]) -> None:
    """Write samples ``(n, C)`` to their place."""
    size = samples.shape[1] * samples.itemsize
    if (first + len(samples)) * size > _IN_MEMORY:
        laid.rollover()  # before it is filled up to a place that may be far
    try:
        laid.seek(first * size)
        laid.write(np.ascontiguousarray(samples).data)
    except (OSError, ValueError, OverflowError) as error:
        raise _no_room(path, (first + len(samples)) * size) from error


def _waveform(path: Path, laid: SpooledTemporaryFile[bytes], length: int, channels: int) -> Tensor:
    """``(1, C, N)`` of what was laid, which stays interleaved where it stays in its file."""
    size = length * channels * 4
    with torch.inference_mode(False):
        if size <= _IN_MEMORY:
            laid.seek(0)
            samples = torch.frombuffer(bytearray(laid.read()), dtype=torch.float32)
            return samples.view(length, channels).T.contiguous()[None]
        try:
            return mapped(laid.fileno(), size, torch.float32).view(length, channels).T[None]
        except (OSError, ValueError, OverflowError) as error:
            raise _no_room(path, size) from error


def _no_room(path: Path, size: int) -> MediaError:
    return MediaError(
        f"{path}: its sound needs {size / 2**30:.1f} GiB of temporary space, which is not there; take fewer frames "
        "(count), set TMPDIR to a larger disk, or repair its times"
    )


def interleaved(wave: Tensor, start: int, end: int) -> Array:
    """Samples ``(n, C)`` of a waveform ``(C, N)``, float32 in -1..1.

    Some readers hand on whole numbers where the codec has them; the middle of their range is silence.
    """
    part = wave[:, start:end].detach().cpu()
    if not part.is_floating_point():
        whole = torch.iinfo(part.dtype)
        part = (part.double() - (whole.max + whole.min + 1) / 2) / ((whole.max - whole.min + 1) / 2)
    samples = np.ascontiguousarray(part.float().clamp(-1.0, 1.0).T.numpy())
    let_go(wave)
    return samples
