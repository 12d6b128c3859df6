"""The sound that belongs to frames."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import MediaError
from .container import MOST_CHANNELS, audio_stream, opened, packets
from .info import Array, Notes

if TYPE_CHECKING:
    import av

__all__ = ["read_sound"]


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


def read_sound(path: Path, begin: float, seconds: float, notes: Notes) -> dict[str, Any] | None:
    """Sound from ``begin`` on (seconds on the container's clock), at most ``seconds`` of it, in its own rate.

    Sound that sets in after ``begin`` is preceded by silence, so that it stays in step with the picture.
    """
    import av

    with opened(path) as container:
        stream = audio_stream(container)
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
