"""Where frames go: video files, through PyAV, and sequences of PNG or EXR. Used through ``video.write_clip``."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MediaError, VDPError
from ..store.files import Place, placed
from . import exr, ycbcr
from .container import ffmpeg
from .formats import Format
from .info import RATE_KEY, SIZE_KEY, Array
from .pictures import SOUND_NAME
from .sound import interleaved

if TYPE_CHECKING:
    import av
    from torch import Tensor

__all__ = [
    "SOUND_LAYOUTS",
    "Piece",
    "check_encoder",
    "whole",
    "write_pictures",
    "write_video",
]

SOUND_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""FFmpeg's names of channel layouts, by number of channels."""
_Finish = Callable[[Iterable["av.Packet"]], "list[av.Packet]"]


@dataclass(frozen=True, eq=False)
class Piece:
    """A few frames ready to encode."""

    frames: Array
    """``(n, H, W, 3)`` in 0..1."""
    alpha: Array | None
    """``(n, H, W)`` in 0..1."""


def check_encoder(codec: str) -> None:
    """Refuse a codec that cannot be written here.

    Raises:
        MediaError: the encoder is missing.
    """
    import av

    try:
        av.codec.Codec(codec, "w")
    except ValueError as error:
        raise MediaError(
            f"{codec}: this PyAV was built without the encoder; pip install av, or choose another format"
        ) from error


@contextmanager
def whole(path_without_suffix: Path, suffix: str, *, is_numbered: bool) -> Iterator[Place]:
    """Hand out a hidden sibling to write to, which gets its name when the block ends well and goes when it fails.

    Args:
        path_without_suffix: where to.
        suffix: of the file; empty for a folder.
        is_numbered: the name gets the first number that nothing has; else a file that has it is replaced.

    Raises:
        MediaError: the target is a folder that is taken, or writing failed.
    """
    import av

    folder, name = path_without_suffix.parent, path_without_suffix.name
    target = folder / (name + suffix)
    if not is_numbered and target.is_dir() and any(target.iterdir()):
        raise MediaError(f"{target}: the folder is there already; choose another name or remove it")
    try:
        with placed(folder, name, suffix, is_numbered=is_numbered) as place:
            yield place
    except BaseException as error:
        if isinstance(error, VDPError) or not isinstance(error, (OSError, av.error.FFmpegError)):
            raise
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise MediaError(f"{target}: cannot be written, {reason}") from error


def write_pictures(
    folder: Path,
    pieces: Iterable[Piece],
    rate: Fraction,
    sound: tuple[Tensor, int] | None,
    tags: Mapping[str, str],
    kind: str,
) -> None:
    """Write a folder of numbered pictures, with the sound beside them.

    Args:
        folder: to fill; it is there.
        pieces: frames in 0..1, a few at a time.
        rate: noted in the first picture.
        sound: samples ``(channels, N)`` and their rate.
        tags: noted in the first picture.
        kind: png or exr.

    Raises:
        OSError: the folder cannot be written to.
    """
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image, PngImagePlugin

    notes = PngImagePlugin.PngInfo()
    for key, value in {**tags, RATE_KEY: str(rate)}.items():
        notes.add_text(key, value)

    def save(index: int, frame: Array, matte: Array | None) -> None:
        if kind == "exr":
            channels = exr.layer("", frame, matte)
            exr.write(folder / f"{index:05d}.exr", channels, rate, tags if index == 0 else {})
            return
        picture = frame if matte is None else np.dstack([frame, matte])
        file = folder / f"{index:05d}.png"
        # Level 4 is a third of the time of Pillow's default for a few percent of size.
        Image.fromarray(np.rint(picture * 255.0).astype(np.uint8)).save(
            file, compress_level=4, pnginfo=notes if index == 0 else None
        )

    folder.mkdir()
    done = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for piece in pieces:
            mattes = [None] * len(piece.frames) if piece.alpha is None else list(piece.alpha)
            list(pool.map(save, range(done, done + len(piece.frames)), piece.frames, mattes))
            done += len(piece.frames)
    if sound is not None:
        _write_wav(folder / SOUND_NAME, sound, done / rate)


def _write_wav(path: Path, sound: tuple[Tensor, int], seconds: Fraction) -> None:
    container = ffmpeg().open(str(path), "w")
    try:
        track = _SoundTrack(container, "pcm_s24le", sound)
        track.up_to(seconds)
        track.finish()
        container.close()
    except BaseException:
        _abandon(container, path)
        raise


def _abandon(container: Any, path: Path) -> None:
    """Close a container whose file is about to be removed; that it cannot be finished is known already.

    PyAV leaves a file open that it cannot finish; emptied, it takes no room on a disk that may be full.
    """
    import av

    with suppress(av.error.FFmpegError, OSError, ValueError):
        container.close()
    with suppress(OSError):
        os.truncate(path, 0)


class _SoundTrack:
    """A sound stream that is encoded as far as the picture has come, so that both lie interleaved in the file."""

    def __init__(self, container: Any, codec: str, sound: tuple[Tensor, int]) -> None:
        self._container = container
        self._wave, self._rate = sound
        self._layout = SOUND_LAYOUTS[self._wave.shape[0]]
        if codec == "aac" and self._layout == "6.1":
            self._layout = "6.1(back)"  # the seven that AAC has a number for; others FFmpeg reorders
        self._at = 0
        self._stream = container.add_stream(codec, rate=_sound_rate(codec, self._rate), layout=self._layout)
        if codec in ("aac", "libopus"):
            self._stream.bit_rate = 96_000 * max(2, self._wave.shape[0])

    def up_to(self, seconds: Fraction) -> None:
        import av

        until = min(round(seconds * self._rate), self._wave.shape[1])
        while self._at < until:
            end = min(self._at + self._rate, until)  # a second: an hour at once would be a gigabyte
            # Interleaved, as PyAV writes beyond the end of a frame of eight planes.
            samples = interleaved(self._wave, self._at, end).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=self._layout)
            frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._at
            self._container.mux(self._stream.encode(frame))
            self._at = end

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))


def _sound_rate(codec: str, rate: int) -> int:
    """The rate itself where the codec takes it, else 48 kHz (PyAV resamples)."""
    if codec == "libopus":
        return rate if rate in (8_000, 12_000, 16_000, 24_000, 48_000) else 48_000
    if codec == "aac":
        known = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
        return rate if rate in known else 48_000
    return rate


def write_video(
    path: Path,
    pieces: Iterable[Piece],
    spec: Format,
    rate: Fraction,
    quality: int,
    bitrate: float,
    sound: tuple[Tensor, int] | None,
    tags: Mapping[str, str],
) -> None:
    # Without use_metadata_tags, mp4 and mov keep only the tags they know; faststart lets players begin while loading.
    muxer = {"movflags": "+faststart+use_metadata_tags"} if spec.suffix != ".webm" else {}
    container = ffmpeg().open(str(path), "w", options=muxer)
    encode = ycbcr.encode_matrix(1, bits=spec.bits, full=False)
    done = 0
    stream: Any = None
    finish: _Finish = list
    track: _SoundTrack | None = None
    try:
        for piece in pieces:
            height, width = piece.frames.shape[1:3]
            if stream is None:
                padded = spec.padded(width), spec.padded(height)
                noted = {SIZE_KEY: f"{width}x{height}"} if padded != (width, height) else {}
                container.metadata.update({**tags, **noted})
                pixels = spec.pixels if piece.alpha is None else spec.pixels_with_alpha
                stream = _video_output(container, spec, pixels, padded, rate, quality, bitrate)
                finish = _finish(spec, stream, rate)
                if sound is not None:
                    track = _SoundTrack(container, spec.sound, sound)
            for index in range(len(piece.frames)):
                matte = None if piece.alpha is None else piece.alpha[index]
                frame = _encoded_frame(piece.frames[index], matte, spec, pixels, padded, encode)
                frame.pts, frame.time_base = done, 1 / rate
                container.mux(finish(stream.encode(frame)))
                done += 1
            if track is not None:
                track.up_to(done / rate)
        container.mux(finish(stream.encode(None)))
        if track is not None:
            track.finish()
        container.close()
    except BaseException:
        _abandon(container, path)
        raise


def _finish(spec: Format, stream: Any, rate: Fraction) -> _Finish:
    """What is done to the packets of a stream before they are written."""
    import av

    if spec.marks:
        marks = av.bitstream.BitStreamFilterContext(spec.marks, in_stream=stream)
        return lambda packets: [marked for packet in packets for marked in marks.filter(packet)]
    if spec.lead is None:
        return list
    numbers = itertools.count(-spec.lead)

    def timed(packets: Iterable[av.Packet]) -> list[av.Packet]:
        timed = list(packets)
        for packet in timed:
            assert packet.time_base is not None
            packet.dts = round(next(numbers) / (rate * packet.time_base))
        return timed

    return timed


def _video_output(
    container: Any, spec: Format, pixels: str, size: tuple[int, int], rate: Fraction, quality: int, bitrate: float
) -> Any:
    options = {
        # 80 gives CRF 18, 1 gives 50.6: x264's scale halves the bit rate every six steps. No macroblock trees: with
        # AVX-512, x264 computes them differently from run to run at some widths, such as 854.
        "libx264": {"crf": f"{51 - 33 * quality / 80:.2f}", "preset": "medium", "mbtree": "0"},
        # 80 gives CRF 23; a bit rate of zero makes it constant quality
        "libvpx-vp9": {
            "crf": str(round(63 - quality / 2)),
            "b": "0",
            "deadline": "good",
            "cpu-used": "4",
            "row-mt": "1",
        },
        # x265's scale is x264's with 2 to 4 less for the same picture; without its threads over frames, which make
        # what it writes depend on how many processors there are
        "libx265": {
            "crf": f"{51 - 33 * quality / 80:.2f}",
            "preset": "medium",
            "x265-params": "log-level=error:frame-threads=1",
        },
        "prores_ks": {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
    }[spec.codec]
    if bitrate and "crf" in options:
        bits = round(bitrate * 1e6)
        del options["crf"]
        options |= {"b": str(bits), "maxrate": str(bits), "bufsize": str(bits)}
        if spec.codec == "libvpx-vp9":
            options["minrate"] = str(bits)  # else a single pass is off by up to four fifths in a few seconds
    if pixels == "yuva420p":
        options["auto-alt-ref"] = "0"  # libvpx cannot hold back frames of which the alpha is a second stream
    stream = container.add_stream(spec.codec, rate=rate, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = pixels
    context = stream.codec_context
    if spec.code:
        context.codec_tag = spec.code
    context.time_base = 1 / rate
    context.thread_type = "AUTO"
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = 1  # limited
    return stream


def _encoded_frame(
    rgb: Array, alpha: Array | None, spec: Format, pixels: str, size: tuple[int, int], encode: Array
) -> av.VideoFrame:
    """A picture as a frame of ``size``, its last row and column repeated where that is larger."""
    import av

    height, width = rgb.shape[:2]
    if (width, height) != size:
        rgb = np.pad(rgb, ((0, size[1] - height), (0, size[0] - width), (0, 0)), "edge")
    planes = ycbcr.rgb_to_planes(rgb, encode=encode, bits=spec.bits, subsampled=spec.subsampled)
    if alpha is not None:
        top = 2**spec.bits - 1
        planes.append(np.rint(alpha * top).astype(planes[0].dtype))
    frame = av.VideoFrame(size[0], size[1], pixels)
    for part, plane in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(memoryview(part), plane.dtype).reshape(part.height, -1)
        rows[:, : part.width] = plane
    frame.colorspace, frame.color_range = 1, 1
    return frame
