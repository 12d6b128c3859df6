"""Clips in and out: probe, decode, encode, with the frames of a clip in memory, or in a temporary file, once at most.

A source is a video file, a folder of pictures, or a glob. A clip comes out as sRGB float frames, an alpha matte, the
sound that belongs to the frames taken, and an exact rate. Decoding and encoding are PyAV's and OpenCV's.

Conventions:
- a clip of variable rate is laid on a constant one by the times of its frames, some of which are repeated or left out,
  so that picture and sound stay within a frame of each other; frames are counted on that;
- colour follows the stream's matrix and range; without tags, BT.709 from 1280x720 up and BT.601 below;
- high dynamic range (PQ, HLG) is tone-mapped, see tone.py;
- pixels are square and frames whole: others are scaled and deinterlaced.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_frames, check_mask
from ..errors import InputError, MediaError, ShapeError
from ..store.budget import fits_in_memory
from ..store.lazy import LazyFrames
from ..store.scratch import Scratch, let_go
from ..types import OnStep
from . import encode as sinks
from .encode import Piece
from .formats import FORMATS, MOST_MEGABITS, check_holds_alpha
from .info import Array, ClipInfo, Paint, Plan, stamp
from .pictures import PictureFiles
from .source import files_of, open_source, plan
from .video_file import VideoFile

__all__ = [
    "FORMATS",
    "Clip",
    "exact_rate",
    "fingerprint",
    "iter_frames",
    "probe",
    "read_clip",
    "says_nothing",
    "write_clip",
]

_CHUNK = 8  # frames in hand at a time when writing,
_PIXELS = 2**22  # or fewer, where they are so large: encoding them takes a while, and nothing can stop it
_SAMPLES = 2**20  # of sound that are looked at in one go
_SKIP = 160  # frames that are decoded on the way to another rather than sought past: what was hidden is seen as far on


@dataclass(frozen=True, eq=False)
class Clip:
    """Decoded frames with what belongs to them."""

    frames: Tensor
    """``(T, H, W, 3)`` float32 in 0..1, sRGB."""
    alpha: Tensor
    """``(T, H, W)`` float32, 1 = opaque; a broadcast view of a single 1 when the source has no alpha."""
    audio: dict[str, Any] | None
    """``{"waveform": (1, C, N) float32, "sample_rate": int}`` beginning with the first frame, or None when silent."""
    fps: Fraction
    """Rate of the frames taken: the source's divided by every_nth."""
    has_alpha: bool = False
    """Whether the source has alpha."""
    notes: tuple[str, ...] = ()
    """What is odd about the source, such as frames that were lost or repaired."""
    done: tuple[str, ...] = ()
    """What was done to it that one may not expect, such as frames repeated to make the rate constant."""


def exact_rate(fps: float | Fraction) -> Fraction:
    """A rate as an exact fraction; 23.976, 29.97, 59.94 and the like become 24000/1001, 30000/1001, 60000/1001.

    Raises:
        InputError: not a number above 0 and at most 1000.
    """
    if not 0 < fps <= 1000:  # refuses NaN too
        raise InputError(f"fps: expected a rate above 0 and at most 1000 frames a second, got {fps}")
    if isinstance(fps, Fraction):
        return fps
    ntsc = Fraction(math.ceil(fps) * 1000, 1001)
    if abs(fps / ntsc - 1) < 2e-4:
        return ntsc
    rate = Fraction(fps).limit_denominator(1001)
    return rate if rate else max(Fraction(fps).limit_denominator(1_000_000), Fraction(1, 1_000_000))


def probe(path: str | Path) -> ClipInfo:
    """What a video file, a folder of pictures or a glob holds.

    Raises:
        MediaError: missing, unreadable, empty, or nothing that can be decoded.
    """
    return open_source(path).info


def read_clip(
    source: str | Path,
    *,
    start: int = 0,
    count: int = 0,
    every_nth: int = 1,
    max_side: int = 0,
    timing: str = "constant",
    sound_track: int = 0,
    on_step: OnStep | None = None,
) -> Clip:
    """Read a clip: into memory where it fits, else into a temporary file, of which frames are read when looked at.

    All of it is decoded before this returns, so that damage shows now and not in the middle of work. Of a clip that is
    too long for the disk as well, the frames that the file lacks are decoded again when they are looked at.

    Args:
        source: a video file, a folder of pictures (in natural order), or a glob.
        start: frames to leave out at the beginning.
        count: most frames to take, 0 for all.
        every_nth: take one frame of this many.
        max_side: largest width or height, 0 for as it is; larger frames are averaged over areas while decoding.
        timing: what is made of a video of variable rate: ``constant``, frames repeated and left out by their times, or
            ``as recorded``, each frame once, at the average rate.
        sound_track: which sound of a video to take, from 1; 0 for the one that the file has as its default.
        on_step: told after each frame, may stop the work by raising.

    Raises:
        MediaError: see probe; also damaged in the middle, or pictures of different sizes.
        InputError: numbers out of range, or a start beyond the end.
    """
    reader, wanted = plan(source, start, count, every_nth, max_side, timing=timing, sound_track=sound_track)
    done, began = 0, 0.0
    kept = _Kept(reader, wanted)
    for time, paint in reader.walk(wanted):
        if done == 0:
            began = time
        picture = kept.take(paint)
        done += 1
        if on_step is not None:
            on_step(done, max(done, wanted.count), picture)
    if done == 0:
        raise MediaError(f"{source}: no frame from {start} on can be decoded")
    if reader.info.frame_count is not None and done < wanted.count:
        reader.notes.add(f"announces more frames than it holds; {done} were read of {wanted.count}")
    frames, alpha = kept.clip()
    rate = reader.info.fps / every_nth
    audio = reader.sound(began, float(done / rate))
    return Clip(
        frames=frames,
        alpha=torch.ones(1, 1, 1).expand(done, *wanted.size) if alpha is None else alpha,
        audio=audio,
        fps=rate,
        has_alpha=alpha is not None,
        notes=tuple(reader.notes),
        done=tuple(reader.notes.done),
    )


class _Kept:
    """Frames as they are decoded: in arrays that grow as they need to, or, once those would be too large, in a file."""

    def __init__(self, reader: VideoFile | PictureFiles, wanted: Plan) -> None:
        self._reader, self._wanted, self._done = reader, wanted, 0
        self._has_alpha = reader.info.has_alpha
        self._frame_bytes = math.prod(wanted.size) * (16 if self._has_alpha else 12)
        self._file: Scratch | None = None
        if fits_in_memory(wanted.count * self._frame_bytes):
            self._frames, self._alpha = self._empty(wanted.count)
        else:
            self._frames, self._alpha = self._empty(0)
            self._file = self._scratch()

    def _empty(self, count: int) -> tuple[Array, Array | None]:
        """Frames ``(n, H, W, 3)`` and, if there is any, alpha ``(n, H, W)``."""
        alpha = np.empty((count, *self._wanted.size), np.float32) if self._has_alpha else None
        return np.empty((count, *self._wanted.size, 3), np.float32), alpha

    def _scratch(self) -> Scratch:
        # 8 bits would take half the room, but decoded colour lies between their steps: a dark clip loses 0.2 to 0.9 dB
        shape = (self._wanted.count, *self._wanted.size, 4 if self._has_alpha else 3)
        return Scratch(self._again, shape, dtype=torch.uint16, skip=_SKIP)

    def _again(self, first: int) -> Iterator[Tensor]:
        """Decode the frames from some place on once more."""
        start, left = self._wanted.start + first * self._wanted.step, self._done - first
        for _, paint in self._reader.walk(replace(self._wanted, start=start, limit=left)):
            yield self._painted(paint)[None]

    def _painted(self, paint: Paint) -> Tensor:
        """A frame ``(H, W, 3)``, or with alpha ``(H, W, 4)``."""
        frames, alpha = self._empty(1)
        paint(frames[0], None if alpha is None else alpha[0])
        return _joined(frames, alpha, 0)

    def take(self, paint: Paint) -> Callable[[], Tensor] | None:
        """Decode a frame; gives what makes a picture of it, which copies, as the arrays may move when they grow."""
        index = self._done
        self._done += 1
        if self._file is None and index == len(self._frames):
            self._grow(index + max(index // 8, _CHUNK))
        if self._file is None:
            paint(self._frames[index], None if self._alpha is None else self._alpha[index])
            return partial(_frame_preview, self._frames, index)
        if self._file.is_full:  # it is decoded again when it is looked at
            return None
        frame = self._painted(paint)
        self._file.lay(index, frame)
        return frame[..., :3].clone

    def _grow(self, length: int) -> None:
        """Make room for as many frames; what memory cannot hold goes to a file."""
        if fits_in_memory(length * self._frame_bytes):
            self._resize(length)
            return
        self._file = self._scratch()
        for index in range(len(self._frames)):
            self._file.lay(index, _joined(self._frames, self._alpha, index))
        self._frames, self._alpha = self._empty(0)

    def _resize(self, length: int) -> None:
        # NumPy's resize grows or cuts in place, which keeps one copy of the clip when the header was wrong.
        self._frames.resize((length, *self._wanted.size, 3), refcheck=False)
        if self._alpha is not None:
            self._alpha.resize((length, *self._wanted.size), refcheck=False)

    def clip(self) -> tuple[Tensor, Tensor | None]:
        """All frames, and alpha if there is any."""
        if self._file is None:
            self._resize(self._done)
            return torch.from_numpy(self._frames), None if self._alpha is None else torch.from_numpy(self._alpha)
        self._file.count = self._done
        frames = LazyFrames.of(self._file, (self._done, *self._wanted.size, 4 if self._has_alpha else 3))
        return (frames.cut(..., slice(0, 3)), frames.cut(..., 3)) if self._has_alpha else (frames, None)


def _joined(frames: Array, alpha: Array | None, index: int) -> Tensor:
    frame = torch.from_numpy(frames[index])
    return frame if alpha is None else torch.cat((frame, torch.from_numpy(alpha[index, ..., None])), dim=-1)


def _frame_preview(frames: Array, index: int) -> Tensor:
    return torch.from_numpy(frames[index].copy())


def iter_frames(
    source: str | Path,
    *,
    start: int = 0,
    count: int = 0,
    every_nth: int = 1,
    max_side: int = 0,
    chunk: int = 16,
    with_alpha: bool = False,
) -> Iterator[Tensor]:
    """The frames read_clip would give, ``chunk`` at a time, for clips that do not fit in memory.

    Args:
        source, start, count, every_nth, max_side: see read_clip.
        chunk: most frames in one piece.
        with_alpha: add alpha as a fourth channel.

    Yields:
        ``(n, H, W, 3)`` or, with alpha, ``(n, H, W, 4)`` float32 in 0..1; each piece is the caller's to keep.

    Raises:
        MediaError, InputError: see read_clip; raised when the first piece is asked for.
    """
    if chunk < 1:
        raise InputError(f"chunk: expected at least 1 frame, got {chunk}")
    reader, wanted = plan(source, start, count, every_nth, max_side)
    pictures = reader.walk(wanted)
    while True:
        piece = np.empty((chunk, *wanted.size, 3), np.float32)
        matte = np.ones((chunk, *wanted.size), np.float32) if with_alpha else None
        filled = 0
        for _, paint in pictures:
            paint(piece[filled], None if matte is None else matte[filled])
            filled += 1
            if filled == chunk:
                break
        if filled:
            frames = torch.from_numpy(piece[:filled])
            yield frames if matte is None else torch.cat([frames, torch.from_numpy(matte[:filled, ..., None])], -1)
        if filled < chunk:
            return


def fingerprint(source: str | Path) -> str:
    """A text that changes when the files of a source do: their names, sizes and times, nothing of their content."""
    digest = hashlib.sha256()
    for file in files_of(source):
        digest.update(os.fsencode(file) + repr(stamp(file)).encode())
    return digest.hexdigest()


def write_clip(
    path_without_suffix: Path,
    frames: Tensor | Iterable[Tensor],
    *,
    fps: float | Fraction,
    format: str = "mp4",
    quality: int = 80,
    bitrate: float = 0.0,
    alpha: Tensor | None = None,
    audio: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    total: int | None = None,
    numbered: bool = False,
    on_step: OnStep | None = None,
) -> Path:
    """Write a clip, whole or not at all.

    ``mp4`` is H.264 with AAC sound; ``webm`` VP9, with alpha if given, and Opus; ``prores4444`` a ProRes 4444 .mov,
    with alpha if given, and 24-bit PCM; ``png`` a folder of 00000.png, 00001.png, ... of 8 bits, RGBA if alpha is
    given, with the sound beside them as audio.wav; ``exr`` the same of OpenEXR files in linear half floats, multiplied
    with alpha; ``h265`` H.265 of 10 bits in an mp4, with AAC sound. Colour is converted by and tagged as BT.709,
    limited range.

    H.264 and H.265 need even sizes, H.265 here 64 pixels at least: another clip gets its last column or row again, and
    a tag with its own size, by which read_clip cuts it back. Nothing is ever resampled.

    Args:
        path_without_suffix: where to; folders on the way are made. A file of that name is replaced, a folder is not.
        frames: ``(T, H, W, 3)`` in 0..1, or an iterable of such chunks, so that a long clip need not be in memory.
            A fourth channel is alpha.
        fps: the rate, see exact_rate.
        format: one of FORMATS.
        quality: 1 (smallest file) to 100 (closest picture) for mp4, webm and h265; 80 is visually near lossless.
        bitrate: megabits a second that the picture of mp4, webm and h265 takes on the mean, whatever the quality; 0: as
            many as the quality needs. Sound comes on top.
        alpha: ``(T, H, W)``, 1 = opaque; one mask for all frames will do. A matte of nothing but ones is left out.
        audio: ``{"waveform": (1, C, N), "sample_rate": int}`` or None; cut where the frames end.
        metadata: tags of the file; in a PNG sequence text of the first picture.
        total: frames that an iterable will give, for on_step.
        numbered: add the first number to the name that nothing has, see ``store.files.numbered``; nothing is replaced.
        on_step: told after each chunk, may stop the work by raising.

    Returns:
        The file, or the folder of pictures.

    Raises:
        InputError: a value out of range, NaN, or alpha for mp4 or h265, which hold none.
        ShapeError: no frames, or frames and alpha that do not belong together.
        MediaError: it cannot be written: a full disk, a folder that is read-only or taken, a missing encoder.
    """
    if format not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, got '{format}'")
    if not 1 <= quality <= 100:
        raise InputError(f"quality: expected 1 to 100, got {quality}")
    if not 0.0 <= bitrate <= MOST_MEGABITS:
        raise InputError(f"bitrate: expected 0 to {MOST_MEGABITS} megabits a second, got {bitrate}")
    spec = FORMATS[format]
    rate = exact_rate(fps)
    sound = None if audio is None else _check_sound(audio)
    for codec in (spec.codec, spec.sound if sound else ""):
        if codec:
            sinks.check_encoder(codec)
    if isinstance(frames, Tensor):
        total = len(frames) if frames.ndim else 0
    pieces = _pieces(frames, alpha)
    first = next(pieces, None)
    if first is None:
        raise ShapeError("frames: got no frames to write")
    if first.alpha is not None:
        check_holds_alpha(format)
    reporting = _reporting(chain([first], pieces), total, on_step)
    tags = dict(metadata or {})
    with sinks.whole(path_without_suffix, spec.suffix, is_numbered=numbered) as place:
        if not spec.suffix:
            sinks.write_pictures(place.partial, reporting, rate, sound, tags, format)
        else:
            sinks.write_video(place.partial, reporting, spec, rate, quality, bitrate, sound, tags)
    return place.target


def _pieces(frames: Tensor | Iterable[Tensor], alpha: Tensor | None) -> Iterator[Piece]:
    """Cut a clip into pieces of _CHUNK frames, checked and as float32, without copying the whole of it."""
    count = len(frames) if isinstance(frames, Tensor) and frames.ndim else None
    mattes: Tensor | None = None
    done, size = 0, (0, 0)
    if isinstance(frames, LazyFrames):
        chunks: Iterable[Tensor] = frames.runs(_at_once(frames.shape[1], frames.shape[2]))
    else:
        chunks = (frames,) if isinstance(frames, Tensor) else frames
    for chunk in chunks:
        _check_chunk(chunk, done)
        if done and tuple(chunk.shape[1:3]) != size:
            raise ShapeError(
                f"frames: frame {done} is {chunk.shape[2]}x{chunk.shape[1]} pixels, those before are "
                f"{size[1]}x{size[0]}; all frames of a clip must have one size"
            )
        if done == 0 and alpha is not None:
            mattes = check_mask(alpha, "alpha", count=count, size=(chunk.shape[1], chunk.shape[2]))
            mattes = None if says_nothing(mattes) else mattes
        size = (chunk.shape[1], chunk.shape[2])
        for part in chunk.split(_at_once(*size)):
            matte = part[..., 3].float().clamp(0.0, 1.0) if part.shape[-1] == 4 and alpha is None else None
            if mattes is not None:
                if done + len(part) > len(mattes) > 1:
                    raise ShapeError(
                        f"alpha: got {len(mattes)} masks for more frames than that; give one mask or one per frame"
                    )
                matte = mattes[done : done + len(part)] if len(mattes) > 1 else mattes.expand(len(part), -1, -1)
            yield Piece(
                np.ascontiguousarray(check_frames(part).detach().cpu().numpy()),
                None if matte is None else matte.detach().cpu().numpy(),
            )
            done += len(part)


def _at_once(height: int, width: int) -> int:
    """How many frames to encode at a time."""
    return max(1, min(_CHUNK, _PIXELS // max(1, height * width)))


def says_nothing(mattes: Tensor) -> bool:
    """Whether a matte is nothing but ones."""
    return all(bool((matte == 1.0).all()) for matte in mattes)


def _check_chunk(chunk: Tensor, before: int) -> None:
    """Refuse what check_frames refuses, frames being numbered through the whole clip, and without a copy."""
    if not isinstance(chunk, Tensor) or chunk.ndim != 4 or len(chunk) == 0 or not chunk.is_floating_point():
        check_frames(chunk)  # which raises, and says why
    for index, frame in enumerate(chunk):
        if not all(math.isfinite(float(value)) for value in frame.aminmax()):
            raise InputError(f"frames: frame {before + index} holds NaN or infinite values")


def _check_sound(audio: Mapping[str, Any]) -> tuple[Tensor, int] | None:
    """Samples ``(C, N)`` and rate of an AUDIO dict, or None when it holds no sample."""
    if not isinstance(audio, Mapping) or not {"waveform", "sample_rate"} <= set(audio):
        raise InputError("audio: expected a dict with waveform and sample_rate")
    wave, rate = audio["waveform"], int(audio["sample_rate"])
    if not isinstance(wave, Tensor) or wave.ndim != 3 or wave.shape[0] < 1:
        raise ShapeError(f"audio: expected a waveform of shape (1, C, N), got {getattr(wave, 'shape', type(wave))}")
    if wave.shape[1] not in sinks.SOUND_LAYOUTS:
        raise InputError(f"audio: expected 1 to {max(sinks.SOUND_LAYOUTS)} channels, got {wave.shape[1]}")
    if rate < 1:
        raise InputError(f"audio: expected a sample rate above 0, got {rate}")
    if wave.shape[2] == 0:
        return None
    for part in wave[0].split(_SAMPLES, dim=1):
        if not bool(part.isfinite().all()):
            raise InputError("audio: the waveform holds NaN or infinite values")
        let_go(part)
    return wave[0], rate


def _reporting(pieces: Iterable[Piece], total: int | None, on_step: OnStep | None) -> Iterator[Piece]:
    """Pass pieces on, and tell on_step when each has been dealt with."""
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece.frames)
        if on_step is not None:
            on_step(done, max(done, total or 0), partial(_frame_preview, piece.frames, -1))
