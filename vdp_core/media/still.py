"""What the header of a still says, and refusals in our words; each kind of still has a reader beside this."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from .pixels import UPRIGHT, Colours, Orientation
from .tone import USUAL_PEAK

__all__ = ["EXIF_TURNS", "Header", "Pages", "Reader", "check_size", "damaged", "decoded_by_opencv", "reading"]

_MOST_SIDE = 65_535  # of a JPEG; a small file that says more is damaged, and would take gigabytes
_MOST_BYTES = 2**31  # the largest that can be decoded, stored plainly, have less
EXIF_TURNS = {
    2: Orientation(False, True, False),
    3: Orientation(False, True, True),
    4: Orientation(False, False, True),
    5: Orientation(True, False, False),
    6: Orientation(True, True, False),
    7: Orientation(True, True, True),
    8: Orientation(True, False, True),
}
"""How the values of the tag Orientation (274) of EXIF and TIFF turn a picture; 1 leaves it."""


@dataclass(frozen=True)
class Header:
    """What a still says about itself, read without decoding its pixels where its kind allows."""

    stored: tuple[int, int]
    """Width and height before it is turned."""
    has_alpha: bool
    bits: int
    square: tuple[int, int] | None = None
    """Width and height in square pixels; None: those that are stored are square."""
    turn: Orientation = UPRIGHT
    profile: bytes | None = None
    """The ICC profile of its colours, None for sRGB."""
    is_linear: bool = False
    """Whether values are scene light, 1 = white, rather than sRGB."""
    colours: Colours | None = None
    """What code points say that its colours are, None for sRGB."""
    peak: float = USUAL_PEAK
    """cd/m2 of its brightest light, where it is PQ."""
    is_usual: bool = False
    """Whether OpenCV decodes it, which is quickest."""
    pages: int = 1
    rate: str = ""
    """Frames a second of the sequence that it is part of, where it says so, as a number or a fraction."""
    notes: tuple[str, ...] = ()
    """What is odd about it."""
    done: tuple[str, ...] = ()
    """What is done to it that one may not expect."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as shown."""
        size = self.square or self.stored
        return size[::-1] if self.turn.transposed else size


Pages = Callable[[int], NDArray[Any]]
"""Decodes a page to ``(H, W, C)``, not turned yet: grey, grey and alpha, RGB or RGBA with straight alpha; as uint8,
uint16, or float32 with 1 = white."""


@dataclass(frozen=True)
class Reader:
    """How one kind of still is read; what is wrong with a file is a MediaError."""

    look: Callable[[Path], Header]
    pages: Callable[[Path, Header], AbstractContextManager[Pages]]


def damaged(file: Path) -> MediaError:
    """The refusal of a file that no reader makes a picture of."""
    return MediaError(f"{file}: is not a picture that can be read, or is damaged")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Say what goes wrong inside the block in our words.

    Raises:
        MediaError: the file is empty, too large, damaged or cannot be read.
    """
    from PIL import Image

    try:
        size = file.stat().st_size
        if size == 0:  # also what the system makes up when it is read, and may never end
            raise damaged(file)
        if size > _MOST_BYTES:
            raise MediaError(f"{file}: is larger than {_MOST_BYTES >> 20} MiB, too large for a picture")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about tags that are odd and sizes that are checked here
            yield
    except Image.DecompressionBombError as error:
        raise _too_large(file) from error
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        if error.strerror:
            raise MediaError(f"{file}: cannot be read ({error.strerror})") from error
        raise damaged(file) from error
    except (ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, RuntimeError, struct.error) as error:
        raise damaged(file) from error


def decoded_by_opencv(file: Path) -> NDArray[Any]:
    """What OpenCV makes of a file, as it has it: ``(H, W)``, BGR or BGRA.

    Raises:
        MediaError: it cannot be read.
    """
    import cv2

    with reading(file):
        content = np.fromfile(file, np.uint8)  # OpenCV itself cannot open every file name on Windows
    loud = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # what OpenCV prints about a damaged picture is said below, with its name
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except cv2.error as error:
        raise MediaError(f"{file}: is not a picture that can be read ({error.err})") from error
    finally:
        cv2.utils.logging.setLogLevel(loud)
    if pixels is None:
        raise damaged(file)
    return pixels


def check_size(file: Path, width: int, height: int) -> None:
    """Refuse what is too large to be decoded, as Pillow does.

    Raises:
        MediaError: more pixels than twice Pillow's own limit, a side above _MOST_SIDE, or none.
    """
    from PIL import Image

    if width < 1 or height < 1:
        raise damaged(file)
    if max(width, height) > _MOST_SIDE:
        raise MediaError(
            f"{file}: says it is {width}x{height} pixels, a side of more than {_MOST_SIDE}; "
            "make it smaller, or repair it"
        )
    if Image.MAX_IMAGE_PIXELS and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise _too_large(file)


def _too_large(file: Path) -> MediaError:
    from PIL import Image

    return MediaError(
        f"{file}: says it is larger than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels; "
        "make it smaller, or repair it"
    )
