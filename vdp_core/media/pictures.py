"""Pictures as frames, through OpenCV."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from . import ycbcr
from .info import PICTURE_RATE, RATE_KEY, Array, ClipInfo, Notes, Paint, Plan, check_unchanged, sensible_rate, stamp
from .sound import read_sound

__all__ = ["SOUND_NAME", "PictureFiles", "is_picture", "picture_size"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SOUND_NAME = "audio.wav"
"""The sound of a folder of pictures."""
_MOST_PICTURE_BYTES = 2**31  # the largest that can be decoded, stored plainly, have less


def is_picture(path: Path) -> bool:
    """Whether a file is a still, by its name."""
    return path.suffix.lower() in PICTURE_SUFFIXES


class PictureFiles:
    """A sequence of picture files, or one picture."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.notes = Notes(path)
        self._stamps = {file: stamp(file) for file in files}
        self._files = files
        self._measured: set[Path] = set()
        picture_size(files[0])  # which refuses what is too large to be decoded
        first = _read_picture(files[0])
        self.info = ClipInfo(
            path=path,
            width=first.shape[1],
            height=first.shape[0],
            fps=self._rate(),
            frame_count=len(files),
            has_audio=path.is_dir() and (path / SOUND_NAME).is_file(),
            has_alpha=any(_picture_has_alpha(file) for file in files),
            bit_depth=first.dtype.itemsize * 8,
        )

    def _rate(self) -> Fraction:
        """What write_clip noted in the first picture, else PICTURE_RATE."""
        with _picture_header(self._files[0]) as picture:
            text = picture.info.get(RATE_KEY, "")
        noted = re.fullmatch(r"[1-9]\d{0,8}(/[1-9]\d{0,8})?", str(text))
        return sensible_rate(self.notes, Fraction(noted[0])) if noted else PICTURE_RATE

    @property
    def likely_count(self) -> int:
        return len(self._files)

    def count_frames(self) -> int:
        """How many pictures there are."""
        return len(self._files)

    def walk(self, plan: Plan) -> Iterator[tuple[float, Paint]]:
        """The pictures to take: the time of each in seconds, and what decodes it."""
        chosen = self._files[plan.start :: plan.step]
        chosen = chosen[: plan.limit] if plan.limit else chosen
        # every header first: a clip of a thousand pictures should not fail at the last
        for file in [file for file in chosen if file not in self._measured]:
            size = picture_size(file)
            self._measured.add(file)
            if size != (self.info.width, self.info.height):
                raise MediaError(
                    f"{file}: is {size[0]}x{size[1]} pixels, {self._files[0].name} is "
                    f"{self.info.width}x{self.info.height}; all pictures of a clip must have one size"
                )
        for index, file in enumerate(chosen):
            yield float((plan.start + index * plan.step) / self.info.fps), partial(self._paint, file)

    def _paint(self, picture: Path, frame: Array, alpha: Array | None) -> None:
        pixels = _read_picture(picture)
        check_unchanged(picture, self._stamps[picture])
        top = np.float32(np.iinfo(pixels.dtype).max)
        if pixels.shape[:2] != frame.shape[:2]:
            pixels = ycbcr.average_over_areas(pixels, frame.shape[1], frame.shape[0])
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        np.divide(pixels[..., 2::-1] if pixels.shape[2] >= 3 else pixels, top, out=frame, dtype=np.float32)
        if alpha is not None:
            if pixels.shape[2] == 4:
                np.divide(pixels[..., 3], top, out=alpha, dtype=np.float32)
            else:
                alpha.fill(1.0)

    def sound(self, begin: float, seconds: float) -> dict[str, Any] | None:
        return read_sound(self.info.path / SOUND_NAME, begin, seconds, self.notes) if self.info.has_audio else None


@contextmanager
def _picture_header(file: Path) -> Iterator[Any]:
    """A picture of which only the header is read, with all that is wrong with it in our words."""
    import struct

    from PIL import Image

    try:
        size = file.stat().st_size
        if size == 0:  # also what the system makes up when it is read, and may never end
            raise MediaError(f"{file}: is not a picture that can be read, or is damaged")
        if size > _MOST_PICTURE_BYTES:
            raise MediaError(f"{file}: is larger than {_MOST_PICTURE_BYTES >> 20} MiB, too large for a picture")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                yield picture
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"{file}: says it is larger than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels; "
            "make it smaller, or repair it"
        ) from error
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        if error.strerror:
            raise MediaError(f"{file}: cannot be read ({error.strerror})") from error
        raise MediaError(f"{file}: is not a picture that can be read, or is damaged") from error
    except (ValueError, SyntaxError, LookupError, TypeError, OverflowError, struct.error) as error:
        raise MediaError(f"{file}: is not a picture that can be read, or is damaged") from error


def picture_size(file: Path) -> tuple[int, int]:
    """(width, height) as shown, from the header alone."""
    with _picture_header(file) as picture:
        turned = file.suffix.lower() in (".jpg", ".jpeg") and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return picture.size[::-1] if turned else picture.size


def _picture_has_alpha(file: Path) -> bool:
    with _picture_header(file) as picture:
        return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def _read_picture(file: Path) -> NDArray[Any]:
    """Decode a picture to ``(H, W)``, ``(H, W, 3)`` BGR or ``(H, W, 4)`` BGRA, uint8 or uint16."""
    import cv2

    # JPEG is the format of cameras, whose rotation flag OpenCV applies unless asked for unchanged pixels.
    upright = file.suffix.lower() in (".jpg", ".jpeg")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if upright else cv2.IMREAD_UNCHANGED
    try:
        content = np.fromfile(file, np.uint8)  # OpenCV itself cannot open every file name on Windows
    except OSError as error:
        raise MediaError(f"{file}: cannot be read ({error.strerror})") from error
    loud = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # what OpenCV prints about a damaged picture is said below, with its name
    try:
        pixels = cv2.imdecode(content, flags) if content.size else None
    except cv2.error as error:
        raise MediaError(f"{file}: is not a picture that can be read ({error.err})") from error
    finally:
        cv2.utils.logging.setLogLevel(loud)
    if pixels is None:
        raise MediaError(f"{file}: is not a picture that can be read, or is damaged")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"{file}: holds {pixels.dtype} values; pictures of 8 or 16 bits a channel can be read")
    return pixels
