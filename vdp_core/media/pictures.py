"""Pictures as frames: a sequence of stills, or the pages of one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache, partial
from itertools import accumulate, groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from . import exr, icc, light, other, raster, tiff, ycbcr
from .container import audio_stream, check_track, opened
from .info import PICTURE_RATE, Array, ClipInfo, Notes, Paint, Plan, check_unchanged, sensible_rate, stamp
from .pixels import Colours
from .sound import read_sound
from .still import Header, Pages, Reader, reading
from .timeline import average_rate, timed
from .tone import HLG, PQ, USUAL_PEAK, ToneMap

__all__ = ["SOUND_NAME", "PictureFiles", "is_picture"]

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".exr", ".hdr", ".heic", ".heif", ".jxl"),
    *other.SUFFIXES,
)
SOUND_NAME = "audio.wav"
"""The sound of a folder of pictures."""
_MS = Fraction(1, 1000)
_NO_DELAY, _SHORTEST = 100, 10
"""What browsers take for a delay of _SHORTEST ms or less."""


def is_picture(path: Path) -> bool:
    """Whether a file is a still, by its name."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def _reader(file: Path) -> Reader:
    """What reads a file, by its first bytes, which never lie as names do."""
    with reading(file), file.open("rb") as stream:
        head = stream.read(16)
    if head.startswith(tiff.MAGIC):
        return tiff.READER
    if head.startswith(exr.MAGIC):
        return exr.READER
    if head.startswith(light.RADIANCE_MAGIC):
        return light.RADIANCE
    return other.READER if file.suffix.lower() in other.SUFFIXES else raster.READER


class PictureFiles:
    """A sequence of picture files, or the pages of one; of several files with pages, the first page of each."""

    def __init__(self, path: Path, files: Sequence[Path], timing: str = "constant", sound_track: int = 0) -> None:
        """Look at all of them.

        Args:
            path: the folder, the pattern, or the file.
            files: in the order that they are shown.
            timing: one of TIMINGS, for an animation.
            sound_track: as in ``read_clip``.
        """
        self.notes = Notes(path)
        self._stamps = {file: stamp(file) for file in files}
        self._readers = {file: _reader(file) for file in files}
        self._headers = {file: self._readers[file].look(file) for file in files}
        first = self._headers[files[0]]
        self._peak = max(header.peak for header in self._headers.values())
        for header in self._headers.values():
            self._note(header)
        noted = re.fullmatch(r"[1-9]\d{0,8}(/[1-9]\d{0,8})?", first.rate)
        fps = sensible_rate(self.notes, Fraction(noted[0])) if noted else PICTURE_RATE
        self._frames = [(file, 0) for file in files]
        if len(files) > 1:
            if lacking := _lacking(files):
                self.notes.add(lacking)
            if any(header.pages > 1 for header in self._headers.values()):
                self.notes.add("holds pictures of several pages, of which the first is taken; name one file for all")
        elif first.pages > 1:
            fps, pages = self._timed(files[0], fps, timing)
            self._frames = [(files[0], page) for page in pages]
        self._rolls_off = False
        self.info = ClipInfo(
            path=path,
            width=first.size[0],
            height=first.size[1],
            fps=fps,
            frame_count=len(self._frames),
            has_audio=_has_sound(path, sound_track),
            has_alpha=any(header.has_alpha for header in self._headers.values()),
            bit_depth=first.bits,
        )

    def _timed(self, file: Path, fps: Fraction, timing: str) -> tuple[Fraction, Sequence[int]]:
        """The rate of a file of several pages, and which of them is shown at each place."""
        pages = self._headers[file].pages
        if self._readers[file] is not raster.READER:  # which holds pages without times
            return fps, range(pages)
        delays = [delay if delay > _SHORTEST else _NO_DELAY for delay in raster.delays_of(file, pages)]
        times = list(accumulate(delays[:-1], initial=0))
        average = average_rate(times, _MS, delays[-1])
        fps, line = timed(times, _MS, average, delays[-1], timing, self.notes, last_counts=True)
        return fps, range(pages) if line is None else [line.shown_at(place) for place in range(line.count)]

    def _note(self, header: Header) -> None:
        for note in header.notes:
            self.notes.add(note)
        for note in header.done:
            self.notes.do(note)
        if header.profile is not None:
            self.notes.do("colours converted from their profile to sRGB")
        if header.colours is not None:
            tone = self._tone(header.colours)
            self.notes.do(
                f"colours converted from {'BT.2020' if header.colours.primaries == 9 else 'P3'} to sRGB"
                if tone is None
                else tone.done
            )

    def _tone(self, colours: Colours) -> ToneMap | None:
        """What brings pictures to SDR, all by the brightest, so that they are shown by one curve."""
        if colours.transfer not in (PQ, HLG):
            return None
        return _tone_map(colours.transfer, colours.primaries, self._peak if colours.transfer == PQ else USUAL_PEAK)

    @property
    def likely_count(self) -> int:
        return len(self._frames)

    def count_frames(self) -> int:
        """How many frames there are."""
        return len(self._frames)

    def walk(self, plan: Plan) -> Iterator[tuple[float, Paint]]:
        """The pictures to take: the time of each in seconds, and what decodes it before the next is asked for."""
        chosen = self._frames[plan.start :: plan.step]
        chosen = chosen[: plan.limit] if plan.limit else chosen
        # every header first: a clip of a thousand pictures should not fail at the last
        for file, _ in chosen:
            size = self._headers[file].size
            if size != (self.info.width, self.info.height):
                raise MediaError(
                    f"{file}: is {size[0]}x{size[1]} pixels, {self._frames[0][0].name} is "
                    f"{self.info.width}x{self.info.height}; all pictures of a clip must have one size"
                )
        self._rolls_off = self._rolls_off or self._finds_light_above_white(chosen)
        index = 0
        for file, frames in groupby(chosen, itemgetter(0)):
            with self._readers[file].pages(file, self._headers[file]) as pages:
                for _, page in frames:
                    yield (
                        float((plan.start + index * plan.step) / self.info.fps),
                        partial(self._paint, file, pages, page),
                    )
                    index += 1

    def _finds_light_above_white(self, chosen: Sequence[tuple[Path, int]]) -> bool:
        """Whether any picture holds some, so that all are shown by one curve."""
        for file in dict.fromkeys(file for file, _ in chosen):
            if self._headers[file].is_linear:
                with self._readers[file].pages(file, self._headers[file]) as pages:
                    pixels = pages(0)
                if pixels[..., : 1 if pixels.shape[2] < 3 else 3].max() > light.WHITE:
                    self.notes.do(f"light above white (first in {file.name}) rolled off from {light.ROLL_OFF_FROM} up")
                    return True
        return False

    def _paint(self, file: Path, pages: Pages, page: int, frame: Array, alpha: Array | None) -> None:
        header = self._headers[file]
        pixels = pages(page)
        check_unchanged(file, self._stamps[file])
        if pixels.shape[1::-1] != header.stored:
            raise MediaError(f"{file}: holds other pixels than its header says; repair it")
        pixels = header.turn.apply(pixels)
        depth = 1 if pixels.shape[2] < 3 else 3
        matte = None if alpha is None or pixels.shape[2] == depth else pixels[..., -1]
        _lay(self._displayed(file, header, pixels[..., :depth]), frame)
        if alpha is not None and matte is not None:
            _lay(np.clip(np.nan_to_num(matte), 0.0, 1.0) if matte.dtype == np.float32 else matte, alpha)
        elif alpha is not None:
            alpha.fill(1.0)

    def _displayed(self, file: Path, header: Header, colour: NDArray[Any]) -> NDArray[Any]:
        """Colours as sRGB, of any type that Pages knows."""
        if header.is_linear:
            return light.shown(colour, self._rolls_off)
        if colour.dtype == np.float32:
            if not np.isfinite(colour).all() or colour.max() > light.WHITE:
                self.notes.add(
                    f"holds values above 1 or none at all (first in {file.name}), which are taken as 1 and 0"
                )
            colour = np.clip(np.nan_to_num(colour, nan=0.0), 0.0, 1.0)
        if header.colours is not None:
            rgb = np.array(np.broadcast_to(raster.unit(colour), (*colour.shape[:2], 3)))
            tone = self._tone(header.colours)
            if tone is None:
                return light.from_primaries(rgb, header.colours.primaries)
            tone.apply(rgb)
            return rgb
        if header.profile is None:
            return colour
        convert = icc.conversion(header.profile, "GRAY" if colour.shape[2] == 1 else "RGB")
        return colour if convert is None else convert(colour)

    def sound(self, begin: float, seconds: float) -> dict[str, Any] | None:
        return read_sound(self.info.path / SOUND_NAME, begin, seconds, self.notes) if self.info.has_audio else None


_tone_map = lru_cache(maxsize=4)(ToneMap)  # its tables take longer than a small picture


def _has_sound(path: Path, track: int) -> bool:
    """Whether there is sound beside the pictures of a folder.

    Raises:
        InputError: there are not as many tracks.
    """
    file = path / SOUND_NAME
    if not path.is_dir() or not file.is_file():
        check_track(path, track, 0)
        return False
    with opened(file) as container:
        return audio_stream(container, file, track) is not None


def _lay(values: NDArray[Any], out: Array) -> None:
    """Write colours or alpha into their place as 0..1, averaged over areas where that is smaller."""
    top = np.float32(np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1.0)
    if values.shape[:2] != out.shape[:2]:
        values = ycbcr.average_over_areas(values, out.shape[1], out.shape[0])
        values = values[..., None] if values.ndim < out.ndim else values
    np.divide(values, top, out=out, dtype=np.float32)


def _lacking(files: Sequence[Path]) -> str:
    """What to say of files that are numbered one by one, but for some numbers that are not there; else nothing."""
    found = [re.fullmatch(r"(.*?)(\d+)", file.stem) for file in files]
    named = [(file.parent, match[1], int(match[2])) for file, match in zip(files, found, strict=True) if match]
    if len(named) < len(files) or len({name[:2] for name in named}) > 1:
        return ""
    numbers = sorted(number for *_, number in named)
    gaps = [(before + 1, after - before - 1) for before, after in pairwise(numbers) if after - before > 1]
    if not gaps or 2 * len(gaps) > len(numbers) - 1:
        return ""
    count, whole = sum(length for _, length in gaps), f"{numbers[0]} to {numbers[-1]}"
    return f"lacks {count} of the numbers from {whole}, the first of them {gaps[0][0]}; frames follow on"
