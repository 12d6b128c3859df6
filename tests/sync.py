"""A clip in which picture and sound can be compared: a flash and a beep at each full second."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from comfyui_vdp.vdp_core.media.clip import Clip

LASTS = 0.1  # seconds of a flash and of a beep
RATE = 48_000


def is_on(seconds: float) -> bool:
    return 0.9 < seconds < 3.9 and (seconds + 1e-6) % 1 < LASTS


def write_sync_clip(
    path: Path,
    times: Sequence[int],
    *,
    unit: Fraction = Fraction(1, 1000),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    sound: str | None = "aac",
    options: dict[str, str] | None = None,
    late: float = 0.0,
) -> Path:
    """Write 64x48 frames that are shown at ``times``, both picture and sound ``late`` seconds on the file's clock."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=round(1 / unit) if unit > Fraction(1, 1000) else 30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        stream.codec_context.time_base = unit
        heard = None if sound is None else container.add_stream(sound, rate=RATE, layout="stereo")
        if heard is not None and not sound.startswith("pcm"):
            heard.bit_rate = 128_000
        begin = round(late / unit)
        written = 0

        def sing(until: float) -> None:
            nonlocal written
            while heard is not None and written < round(until * RATE):
                at = (written + np.arange(960)) / RATE
                wave = np.where((at > 0.9) & (at < 3.9) & (at % 1 < LASTS), np.sin(2 * np.pi * 1000 * at), 0.0)
                samples = np.repeat((wave * 16_000).astype(np.int16), 2)[None]
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = written + round(late * RATE)
                container.mux(heard.encode(frame))
                written += 960

        for time in times:
            seconds = float(time * unit)
            picture = np.full((48, 64, 3), 255 if is_on(seconds) else 80, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = time + begin, unit
            container.mux(stream.encode(frame))
            sing(seconds)
        container.mux(stream.encode(None))
        sing(float(times[-1] * unit) + 0.1)
        if heard is not None:
            container.mux(heard.encode(None))
    return path


def flashes(clip: Clip) -> list[float]:
    """When the picture turns white, in seconds."""
    level = clip.frames.mean(dim=(1, 2, 3))
    return [index / float(clip.fps) for index in range(1, len(level)) if level[index] > 0.7 >= level[index - 1]]


def beeps(clip: Clip) -> list[float]:
    """When the sound sets in, in seconds."""
    assert clip.audio is not None
    rate = clip.audio["sample_rate"]
    loud = (clip.audio["waveform"][0].abs().amax(dim=0) > 0.15).nonzero().flatten()
    begins = torch.cat((loud[:1], loud[1:][loud[1:] - loud[:-1] > rate // 2]))
    return (begins / rate).tolist()
