"""Scene light as it is shown: light of another set of primaries, light above white, and Radiance pictures of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import MediaError
from ..image.colour import to_display, to_linear
from . import primaries
from .info import Array
from .still import Header, Pages, Reader, check_size, decoded_by_opencv, reading

__all__ = ["RADIANCE", "RADIANCE_MAGIC", "ROLL_OFF_FROM", "WHITE", "from_primaries", "shown"]

ROLL_OFF_FROM = 0.8
"""Light of a channel above this is compressed, in a clip that holds light above white."""
WHITE = 1.0 + 1.0 / 256.0
"""Light that counts as above white: what is brighter than rounding makes it."""
RADIANCE_MAGIC = (b"#?RADIANCE", b"#?RGBE")


def shown(light: Array, rolls_off: bool) -> Array:
    """Light, 1 = white, as sRGB in 0..1.

    With ``rolls_off`` a channel x above k = ROLL_OFF_FROM becomes k + (1 - k) u / (1 + u), u = (x - k) / (1 - k): as
    steep as before at k, and white for endless light. It is Reinhard's curve (SIGGRAPH 2002, eq. 3), from k on.
    """
    light = np.maximum(light, 0.0)
    if rolls_off:
        over = np.clip(light - ROLL_OFF_FROM, 0.0, 1e30) / (1.0 - ROLL_OFF_FROM)  # a file may hold the largest floats
        light = np.minimum(light, ROLL_OFF_FROM) + (1.0 - ROLL_OFF_FROM) * over / (1.0 + over)
    return np.asarray(to_display(torch.from_numpy(np.minimum(light, 1.0).astype(np.float32))).numpy())


def from_primaries(colour: Array, code: int) -> Array:
    """``(H, W, 3)`` in 0..1 of other primaries (a code of ITU-T H.273), by sRGB's curve, as sRGB."""
    turn = primaries.to_srgb(primaries.BY_CODE[code])
    return colour if turn is None else shown(to_linear(torch.from_numpy(colour)).numpy() @ turn.T, False)


def _look_at_radiance(file: Path) -> Header:
    with reading(file), file.open("rb") as stream:
        found = re.search(rb"\n\n-Y (\d{1,7}) \+X (\d{1,7})\n", stream.read(2**16))
        if not found:
            raise MediaError(
                f"{file}: is a Radiance picture that is damaged, or whose rows are not stored from the top"
            )
        check_size(file, int(found[2]), int(found[1]))
        return Header((int(found[2]), int(found[1])), has_alpha=False, bits=32, is_linear=True)


@contextmanager
def _radiance(file: Path, header: Header) -> Iterator[Pages]:
    import cv2

    def read(_: int) -> NDArray[Any]:
        with reading(file):
            pixels = decoded_by_opencv(file)
            if pixels.dtype != np.float32 or pixels.ndim != 3:
                raise ValueError("damaged")
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    yield read


RADIANCE = Reader(_look_at_radiance, _radiance)
