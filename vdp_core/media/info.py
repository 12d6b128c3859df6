"""What is said about a source, and what to take from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MediaError

__all__ = [
    "RATE_KEY",
    "SIZE_KEY",
    "ClipInfo",
    "Notes",
    "Plan",
    "beyond_the_end",
    "check_unchanged",
    "is_sensible",
    "sensible_rate",
    "stamp",
]

Array = NDArray[np.float32]
Paint = Callable[[Array, "Array | None"], None]
"""Fills a frame ``(h, w, 3)`` and, if given, its alpha ``(h, w)``, in 0..1."""
_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # where no log is set up, Python would print what the node's line says anyway
PICTURE_RATE = Fraction(24)
"""The rate of a clip that does not say its own."""
LEAST_FPS, MOST_FPS = Fraction(1, 1000), 1000
RATE_KEY, SIZE_KEY = "vdp_fps", "vdp_size"
"""Tags of ours: the rate of a PNG sequence, the size of a clip before it was padded to sides that its codec takes."""


@dataclass(frozen=True)
class ClipInfo:
    """What a source says about itself, read from its header and first frame."""

    path: Path
    width: int
    """Pixels, after rotation."""
    height: int
    fps: Fraction
    """The rate at which frames are counted: the source's own, or the one that variable ones are laid on."""
    frame_count: int | None
    """As the header has it or by counting packets, None where neither can tell; a header may be wrong."""
    has_audio: bool
    has_alpha: bool
    """Whether the pixels can hold alpha."""
    bit_depth: int


@dataclass(frozen=True)
class Plan:
    """Which frames to take from a source, and how large."""

    start: int
    step: int
    limit: int
    """Most frames to take, 0 for all."""
    count: int
    """Frames that should come; a guess where ``ClipInfo.frame_count`` is None."""
    size: tuple[int, int]
    """(height, width) of the frames that come out."""


def beyond_the_end(path: Path, start: int, total: int) -> InputError:
    """The refusal of a start that a source of ``total`` frames does not have."""
    frames = "1 frame" if total == 1 else f"{total} frames"
    return InputError(f"start: {start} is beyond the end, {path.name} holds {frames} (0 to {total - 1})")


def stamp(path: Path) -> tuple[int, int]:
    """The size and time of a file, which change when it does.

    Raises:
        MediaError: it is gone, or cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read any more ({error.strerror})") from error
    return found.st_size, found.st_mtime_ns


def check_unchanged(path: Path, before: tuple[int, int]) -> None:
    """Refuse a file that is not as ``stamp`` saw it before.

    Raises:
        MediaError: it is another, or gone.
    """
    if stamp(path) != before:
        raise MediaError(f"{path}: was changed while it was being read; run again when it is complete")


class Notes(list[str]):
    """What is odd about a source, and what was done to it, each thing once; the log has it too."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.done: list[str] = []
        """What was done that a person may not expect, and is nothing to worry about."""
        self._path = path

    def add(self, note: str) -> None:
        """Note something odd."""
        if note not in self:
            self.append(note)
            _log.warning("%s: %s", self._path, note)

    def do(self, note: str) -> None:
        """Note what was done."""
        if note not in self.done:
            self.done.append(note)
            _log.info("%s: %s", self._path, note)


def is_sensible(rate: Fraction) -> bool:
    """Whether a clip can be played and saved at a rate."""
    return LEAST_FPS <= rate <= MOST_FPS


def sensible_rate(notes: Notes, *rates: Fraction) -> Fraction:
    """The first of the rates a file says at which a clip can be played and saved; 0 says none."""
    for rate in rates:
        if is_sensible(rate):
            return rate
    said = f"a rate of {float(rates[0]):.4g} frames a second" if rates[0] else "no rate"
    notes.add(f"says {said}, so it is taken as {PICTURE_RATE}; set fps where it is saved")
    return PICTURE_RATE
