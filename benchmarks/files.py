"""What comes of odd files: each is made, read, saved as mp4 and read again, and a row of a table says how it went.

    python benchmarks/files.py [--assets FOLDER ...] > docs/FILES.md

A clip of its own, 4 s of grey at 25 fps with a white frame and a beep of 40 ms at 1, 2 and 3 s, goes through PyAV into
every container and codec that its FFmpeg can write. Files of other people (``--assets``, such as the test assets of
androidx/media and of torchcodec) have no truth that is known here; of those the table shows what was said.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from comfyui_vdp.vdp_core.errors import VDPError
from comfyui_vdp.vdp_core.media import clip as video

RATE, SECONDS, SOUND_RATE = 25, 4, 48_000
COUNT = RATE * SECONDS
SIZE = 160, 96
SUFFIXES = ("mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "flv", "ogv", "mxf", "wmv", "gif", "3gp", "m4v", "apng")


@dataclass(frozen=True)
class Kind:
    """A file to make, and what is right for it."""

    container: str
    codec: str
    pixels: str = "yuv420p"
    sound: str = ""
    odd: str = ""
    options: dict[str, str] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    """What the stream says: attributes of its codec context."""
    size: tuple[int, int] = SIZE
    shown: tuple[int, int] | None = None
    """Its size in square pixels and upright, where that is another."""
    times: Callable[[int], int | None] = lambda index: index * 1000 // RATE
    """When a frame is shown, in ms; None leaves it out."""
    matrix: tuple[int, int, int, int] | None = None
    """Of the display, for mp4 and mov."""
    fields: bool = False
    alpha: bool = False


HLG = {"color_trc": 18, "color_primaries": 9, "colorspace": 9, "color_range": 1}
PQ = {**HLG, "color_trc": 16}
X265 = {"x265-params": "log-level=none"}
WOVEN = {"flags": "+ilme+ildct"}


def wide(ratio: Fraction) -> dict[str, Any]:
    return {"sample_aspect_ratio": ratio}


def uneven(index: int) -> int | None:
    """Recorded when something moved: every second frame of the second and third second is not there."""
    return None if RATE < index < 3 * RATE and index % 2 and index % RATE else index * 1000 // RATE


KINDS = [
    Kind("mp4", "libx264", sound="aac"),
    Kind("mp4", "libx264", sound="aac", odd="variable rate", times=uneven),
    Kind("mp4", "libx264", sound="aac", odd="pixels 4:3", said=wide(Fraction(4, 3)), shown=(213, 96)),
    Kind("mp4", "libx264", sound="aac", odd="turned right", matrix=(0, 1, -1, 0), shown=(96, 160)),
    Kind("mp4", "libx264", sound="aac", odd="mirrored", matrix=(-1, 0, 0, 1)),
    Kind(
        "mp4",
        "libx264",
        sound="aac",
        odd="turned left, pixels 4:3",
        said=wide(Fraction(4, 3)),
        matrix=(0, -1, 1, 0),
        shown=(96, 213),
    ),
    Kind("mp4", "libx264", sound="aac", odd="interlaced (MBAFF)", options=WOVEN, fields=True),
    Kind("mp4", "libx264", sound="aac", odd="fragments", options={"movflags": "frag_keyframe+delay_moov"}),
    Kind("mp4", "libx264", "yuv444p", "aac", odd="4:4:4"),
    Kind("mp4", "libx264", "yuv422p10le", "aac", odd="4:2:2, 10 bit"),
    Kind("mp4", "libx264", "yuvj420p", "aac", odd="full range"),
    Kind("mp4", "libx265", "yuv420p10le", "aac", odd="HLG", options=X265, said=HLG),
    Kind("mp4", "libx265", "yuv420p10le", "aac", odd="PQ", options=X265, said=PQ),
    Kind("mp4", "libx265", "yuv420p12le", "aac", odd="12 bit", options=X265),
    Kind("mp4", "libsvtav1", "yuv420p10le", "aac", odd="PQ", said=PQ),
    Kind("mp4", "libvpx-vp9", sound="libopus"),
    Kind("mp4", "mpeg4", sound="aac"),
    Kind("mov", "libx264", sound="pcm_s16le"),
    Kind("mov", "prores_ks", "yuv422p10le", "pcm_s24le"),
    Kind("mov", "prores_ks", "yuv422p10le", "pcm_s24le", "HLG", said=HLG),
    Kind("mov", "prores_ks", "yuv422p10le", "pcm_s24le", "interlaced", options=WOVEN, fields=True),
    Kind("mov", "prores_ks", "yuva444p10le", "pcm_s24le", "alpha", alpha=True),
    Kind("mov", "qtrle", "argb", "pcm_s16le", "alpha", alpha=True),
    Kind("mov", "png", "rgba", "pcm_s16le", "alpha", alpha=True),
    Kind("mov", "dnxhd", "yuv422p10le", "pcm_s16le", "DNxHR HQX", options={"profile": "dnxhr_hqx"}, size=(256, 144)),
    Kind("mov", "cfhd", "gbrap12le", "pcm_s16le", "alpha", alpha=True),
    Kind("mov", "v210", "yuv422p10le", "pcm_s16le"),
    Kind("mov", "rawvideo", "uyvy422", "pcm_s16le"),
    Kind("mkv", "libx264", sound="libopus"),
    Kind("mkv", "libx264", sound="flac", odd="variable rate", times=uneven),
    Kind("mkv", "libx264", sound="flac", odd="pixels 2:3", said=wide(Fraction(2, 3)), shown=(160, 144)),
    Kind("mkv", "libx265", "yuv420p10le", "libopus", odd="PQ", options=X265, said=PQ),
    Kind("mkv", "ffv1", "yuv422p10le", "flac"),
    Kind("mkv", "ffv1", "yuva444p16le", "flac", "alpha, 16 bit", alpha=True),
    Kind("mkv", "ffv1", "gray16le", "flac", "grey, 16 bit"),
    Kind("mkv", "mjpeg", "yuvj422p", "pcm_s16le"),
    Kind("webm", "libvpx", sound="libopus"),
    Kind("webm", "libvpx", sound="libopus", odd="variable rate", times=uneven),
    Kind("webm", "libvpx", "yuva420p", "libopus", "alpha", {"auto-alt-ref": "0"}, alpha=True),
    Kind("webm", "libvpx-vp9", sound="libopus"),
    Kind("webm", "libvpx-vp9", "yuva420p", "libopus", "alpha", {"auto-alt-ref": "0"}, alpha=True),
    Kind("webm", "libsvtav1", sound="libopus"),
    Kind("avi", "mpeg4", sound="libmp3lame"),
    Kind("avi", "mpeg4", sound="libmp3lame", odd="pixels 4:3", said=wide(Fraction(4, 3)), shown=(213, 96)),
    Kind("avi", "mpeg4", sound="libmp3lame", odd="interlaced", options=WOVEN, fields=True),
    Kind("avi", "mjpeg", "yuvj420p", "pcm_s16le"),
    Kind("avi", "mjpeg", "yuvj420p", "pcm_s16le", "null frames", times=uneven),
    Kind("avi", "mpeg4", sound="libmp3lame", odd="null frames, B-frames", options={"bf": "2"}, times=uneven),
    Kind("avi", "libx264", sound="libmp3lame", odd="null frames, B-frames", times=uneven),
    Kind("avi", "huffyuv", "yuv422p", "pcm_s16le"),
    Kind("avi", "utvideo", "gbrap", "pcm_s16le", "alpha", alpha=True),
    Kind("avi", "rawvideo", "bgr24", "pcm_s16le"),
    Kind("avi", "dvvideo", "yuv420p", "pcm_s16le", "DV, pixels 16:15", size=(720, 576), shown=(768, 576)),
    Kind("ts", "libx264", sound="aac"),
    Kind("ts", "libx264", sound="aac", odd="begins at 1000 s", times=lambda index: 1_000_000 + index * 1000 // RATE),
    Kind("ts", "mpeg2video", sound="mp2", odd="interlaced", options={**WOVEN, "b": "4M"}, fields=True),
    Kind("ts", "libx265", sound="ac3", options=X265),
    Kind(
        "mpg",
        "mpeg2video",
        sound="mp2",
        odd="DVD, pixels 64:45",
        options={"b": "6M"},
        said=wide(Fraction(64, 45)),
        size=(720, 576),
        shown=(1024, 576),
    ),
    Kind("mpg", "mpeg1video", sound="mp2"),
    Kind("flv", "libx264", sound="aac"),
    Kind("flv", "flv", sound="libmp3lame", odd="Sorenson"),
    Kind("ogv", "libvpx", sound="flac", odd="VP8"),
    Kind("mxf", "mpeg2video", "yuv422p", "pcm_s16le", "interlaced", {**WOVEN, "b": "20M"}, fields=True),
    Kind("mxf", "dnxhd", "yuv422p", "pcm_s16le", "DNxHR SQ", {"profile": "dnxhr_sq"}, size=(256, 144)),
    Kind("wmv", "wmv2", sound="wmav2"),
    Kind("wmv", "msmpeg4", sound="wmav2", odd="variable rate", times=uneven),
    Kind("gif", "gif", "rgb8"),
    Kind("apng", "apng", "rgba", odd="alpha", alpha=True),
    Kind("3gp", "mpeg4", sound="aac"),
]


HEAD = """# Files that were tried

Made by `python benchmarks/files.py > docs/FILES.md` with PyAV {pyav} (libavcodec {libavcodec}).

Each is 4 s long, 25 frames a second, with a white frame and a beep at 1, 2 and 3 s. *In step*: how far, in frames, a
flash is from its time and its beep, when loaded, and when saved as mp4 and loaded again. *Right*: size, length, alpha,
sound, and all of it within one frame; `-` where this FFmpeg cannot write the file.
"""


@dataclass(frozen=True)
class Row:
    name: str
    codec: str
    odd: str
    came: str = ""
    step: str = ""
    said: str = ""
    right: str = ""

    def __str__(self) -> str:
        cells = (self.name, self.codec, self.odd, self.came, self.step, self.said, self.right)
        return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def pictures(kind: Kind) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames that are there, and when they are shown in ms: grey, white at each full second."""
    width, height = kind.size
    flag = av.filter.Graph()
    entry = flag.add_buffer(width=width, height=height, format=av.VideoFormat(kind.pixels), time_base=Fraction(1, 1000))
    order, out = flag.add("setfield", "tff"), flag.add("buffersink")
    entry.link_to(order)
    order.link_to(out)
    flag.configure()
    for index in range(COUNT):
        time = kind.times(index)
        if time is None:
            continue
        picture = np.full((height, width, 4), 255 if index % RATE == 0 and index else 60, np.uint8)
        picture[..., 3] = 255
        if kind.alpha:
            picture[:, : width // 2, 3] = 128
        frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format=kind.pixels)
        frame.pts, frame.time_base = time, Fraction(1, 1000)
        if kind.fields:
            flag.push(frame)
            frame = flag.pull()
            frame.pts, frame.time_base = time, Fraction(1, 1000)
        for name in ("colorspace", "color_range"):
            if name in kind.said:
                setattr(frame, name, kind.said[name])
        yield time, frame


def beeps() -> np.ndarray:
    time = np.arange(SECONDS * SOUND_RATE) / SOUND_RATE
    loud = (time % 1 < 0.04) & (time >= 1)
    return (0.5 * np.sin(2 * np.pi * 1000 * time) * loud * 32767).astype(np.int16)


def make(kind: Kind, folder: Path) -> Path:
    """Write the file.

    Raises:
        ValueError, OSError: this FFmpeg cannot.
    """
    path = folder / f"clip.{kind.container}"
    muxer = {key: value for key, value in kind.options.items() if key == "movflags"}
    options = {key: value for key, value in kind.options.items() if key not in muxer}
    with av.open(str(path), "w", options=muxer) as container:
        stream: Any = container.add_stream(kind.codec, rate=RATE, options=options)
        (stream.width, stream.height), stream.pix_fmt = kind.size, kind.pixels
        for name, value in kind.said.items():
            setattr(stream.codec_context, name, value)
        fine = kind.container in ("mp4", "mov", "mkv", "webm")  # others have times of whole frames
        stream.codec_context.time_base = Fraction(1, 1000) if fine else Fraction(1, RATE)
        sound: Any = container.add_stream(kind.sound, rate=SOUND_RATE, layout="mono") if kind.sound else None
        if sound is not None and not kind.sound.startswith(("pcm", "flac")):
            sound.bit_rate = 96_000
        began, done, wave = None, 0, beeps()
        for time, frame in pictures(kind):
            began = time if began is None else began
            container.mux(stream.encode(frame))
            until = min((time - began + 1000) * SOUND_RATE // 1000, len(wave))
            if sound is not None and until > done:
                samples = av.AudioFrame.from_ndarray(wave[None, done:until], "s16", "mono")
                samples.sample_rate, samples.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
                samples.pts, done = done + began * SOUND_RATE // 1000, until
                container.mux(sound.encode(samples))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    if kind.matrix is not None:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 44
        for place, value in zip((0, 1, 3, 4), kind.matrix, strict=True):
            data[at + 4 * place : at + 4 * place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
        path.write_bytes(data)
    return path


def onsets(loud: np.ndarray, apart: int) -> list[int]:
    """Where something begins that was not there for a while."""
    places = np.flatnonzero(loud)
    return [int(at) for index, at in enumerate(places) if index == 0 or at - places[index - 1] > apart]


def out_of_step(clip: video.Clip) -> float | None:
    """How far a flash is from where it belongs or from its beep at most, in frames; None where one is missing."""
    level = clip.frames.flatten(1).mean(1).numpy()
    rate = float(clip.fps)
    flashes = [at / rate for at in onsets(level > (level.min() + level.max()) / 2, 2)]
    if len(flashes) != SECONDS - 1:
        return None
    wrong = [abs(at - second) for second, at in enumerate(flashes, 1)]
    if clip.audio is not None:
        samples = clip.audio["sample_rate"]
        heard = [at / samples for at in onsets(np.abs(clip.audio["waveform"][0, 0].numpy()) > 0.1, samples // 2)]
        if len(heard) != len(flashes):
            return None
        wrong += [abs(a - b) for a, b in zip(flashes, heard, strict=True)]
    return round(max(wrong) * rate, 6)


def described(clip: video.Clip) -> str:
    count, height, width, _ = clip.frames.shape
    if clip.audio is None:
        sound = "no sound"
    else:
        sound = f"sound {clip.audio['waveform'].shape[-1] / clip.audio['sample_rate']:.2f} s"
    alpha = "" if bool((clip.alpha == 1).all()) else ", alpha"
    return f"{count} frames, {width}x{height}, {float(clip.fps):.5g} fps, {sound}{alpha}"


def tried(kind: Kind, folder: Path) -> Row:
    """Make a file, read it, save it as mp4, read that, and see what is right."""
    row = Row(kind.container, kind.codec, ", ".join(part for part in (kind.odd, kind.pixels, kind.sound) if part))
    try:
        path = make(kind, folder)
    except (ValueError, OSError, av.error.FFmpegError) as error:
        return Row(row.name, row.codec, row.odd, said=f"not made: {error}"[:100], right="-")
    try:
        clip = video.read_clip(path)
        saved = video.read_clip(video.write_clip(folder / "saved", clip.frames, fps=clip.fps, audio=clip.audio))
    except VDPError as error:
        return Row(row.name, row.codec, row.odd, said=str(error).replace(str(folder), ""), right="**no**")
    before, after = out_of_step(clip), out_of_step(saved)
    height, width = clip.frames.shape[1:3]
    seconds = len(clip.frames) / float(clip.fps)
    right = (
        (width, height) == (kind.shown or kind.size)
        and abs(seconds - SECONDS) < 0.1
        and (clip.audio is not None) == bool(kind.sound)
        and (clip.audio is None or abs(clip.audio["waveform"].shape[-1] / clip.audio["sample_rate"] - seconds) < 0.1)
        and all(step is not None and round(step, 2) <= 1 for step in (before, after))
        and bool((clip.alpha < 0.9).any()) == kind.alpha
    )
    step = ", ".join("-" if step is None else f"{step:.2f}" for step in (before, after))
    said = "; ".join((*clip.notes, *clip.done))
    return Row(row.name, row.codec, row.odd, described(clip), step, said, "yes" if right else "**no**")


def of_others(folders: Iterable[Path]) -> Iterator[Row]:
    """What comes of files whose truth is not known here."""
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower()[1:] in SUFFIXES):
            try:
                info = video.probe(path)
                clip = video.read_clip(path, count=150, max_side=256)
                came = f"{info.width}x{info.height}, {info.bit_depth} bit; {described(clip)}"
                said = "; ".join((*clip.notes, *clip.done))
            except VDPError as error:
                came, said = "refused", str(error).replace(f"{path}: ", "")
            if not said.endswith("holds no video stream"):
                yield Row(str(path.relative_to(folder.parent)), "", "", came, "", said, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, nargs="*", default=[], help="folders of files to read as well")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # notes are in the table
    torch.set_num_threads(1)
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    print(HEAD.format(pyav=av.__version__, libavcodec=libavcodec))
    head = ("container", "codec", "what is odd", "what came", "in step", "what was said", "right")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for kind in KINDS:
        folder = Path(tempfile.mkdtemp())
        try:
            print(tried(kind, folder), flush=True)
        finally:
            shutil.rmtree(folder)
    if arguments.assets:
        print("\n## Files of others (`--assets`)\n\nThe first 150 frames of each, at most 256 pixels wide.\n")
        print("| file | what came | what was said |\n|---|---|---|")
        for row in of_others(arguments.assets):
            print(f"| {row.name} | {row.came} | {row.said} |".replace("\n", " "), flush=True)


if __name__ == "__main__":
    sys.exit(main())
