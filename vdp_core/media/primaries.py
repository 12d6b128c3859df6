"""Which red, green, blue and white colours are mixed of, and what turns one set into another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BT709", "BY_CODE", "WIDE", "Chromaticities", "to_srgb", "to_xyz"]

Chromaticities = tuple[float, ...]
"""x and y of red, green, blue and white."""
_D65 = (0.3127, 0.3290)
BT709: Chromaticities = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65)
"""Those of BT.709, which are sRGB's."""
BY_CODE: dict[int, Chromaticities] = {
    1: BT709,
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),  # BT.2020
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),  # P3 of cinemas
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),  # P3 of displays
}
"""By code of ITU-T H.273."""
WIDE = tuple(code for code in BY_CODE if code != 1)
"""Codes of those that hold more colours than sRGB's."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_xyz(chromaticities: Chromaticities) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The matrix ``(3, 3)`` from linear RGB to CIE XYZ, and XYZ of white (SMPTE RP 177)."""
    x, y = np.array(chromaticities, np.float64).reshape(4, 2).T
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    white = columns[:, 3]
    return columns[:, :3] * np.linalg.solve(columns[:, :3], white), white


def to_srgb(chromaticities: Chromaticities) -> NDArray[np.float32] | None:
    """The matrix that takes light of some primaries to sRGB's, white to white (Bradford); None where they are sRGB's.

    Raises:
        ValueError: they span no colours.
    """
    try:
        (to_here, white), (srgb, d65) = to_xyz(chromaticities), to_xyz(BT709)
        adapted = np.linalg.solve(_BRADFORD, np.diag((_BRADFORD @ d65) / (_BRADFORD @ white)) @ _BRADFORD)
        turn = np.linalg.solve(srgb, adapted @ to_here)
    except (np.linalg.LinAlgError, FloatingPointError) as error:
        raise ValueError("primaries that span no colours") from error
    if not np.isfinite(turn).all():
        raise ValueError("primaries that span no colours")
    return None if np.abs(turn - np.eye(3)).max() < 1e-3 else turn.astype(np.float32)
