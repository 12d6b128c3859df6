"""High dynamic range brought to what the frames here are: BT.709 colours, white at 1.

FFmpeg's own way, zscale and tonemap, is not in the builds that PyAV ships. The steps, each from a standard:

1. PQ (ITU-R BT.2100-2 table 4, the same as SMPTE ST 2084) gives light in cd/m2. HLG (table 5) gives light of the scene,
   which its OOTF turns into that of a display of 1000 cd/m2, where its exponent is 1.2.
2. The curve of ITU-R BT.2390-8 section 5.4.1 (the EETF) brings the peak of the source down to 203 cd/m2, HDR's
   reference white (ITU-R BT.2408-4), and leaves what is darker than about 90 cd/m2 as it is. It is applied to the
   largest of red, green and blue, and all three are scaled by what it did, so that hues stay.
3. The primaries become BT.709's. A colour that these cannot make moves towards grey of its luminance until they can.
4. The inverse of BT.1886, exponent 1/2.4, as for other display-referred video.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import primaries
from .info import Array

__all__ = ["HLG", "PQ", "USUAL_PEAK", "ToneMap", "peak_of", "sensible_peak"]

PQ, HLG = 16, 18
"""Codes of the transfer characteristics in ITU-T H.273."""
WHITE = 203.0
"""cd/m2 that become 1."""
USUAL_PEAK = 1000.0
"""cd/m2 of a source that does not say its peak, and of the display that HLG is turned into light for."""
_MOST = 10_000.0  # cd/m2, PQ's own peak
_STEPS = 2**16


def _pq_to_light(signal: NDArray[Any]) -> NDArray[Any]:
    power = np.power(signal, 32 / 2523)
    return _MOST * np.power(np.maximum(power - 0.8359375, 0.0) / (18.8515625 - 18.6875 * power), 8192 / 1305)


def _light_to_pq(light: NDArray[Any]) -> NDArray[Any]:
    power = np.power(light / _MOST, 1305 / 8192)
    return np.power((0.8359375 + 18.8515625 * power) / (1.0 + 18.6875 * power), 2523 / 32)


def _hlg_to_scene(signal: NDArray[Any]) -> NDArray[Any]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3.0, (np.exp((signal - c) / a) + b) / 12.0)


def _rolled_off(light: NDArray[Any], peak: float) -> NDArray[Any]:
    """The EETF of BT.2390 from black and ``peak`` to black and WHITE, in cd/m2."""
    most = float(_light_to_pq(np.array(peak)))
    white = float(_light_to_pq(np.array(WHITE))) / most
    knee = 1.5 * white - 0.5
    signal = np.minimum(_light_to_pq(light) / most, 1.0)
    if white >= 1.0:
        return _pq_to_light(signal * most)
    t = (signal - knee) / (1.0 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1.0 - knee) + (-2 * t**3 + 3 * t**2) * white
    return _pq_to_light(np.where(signal < knee, signal, spline) * most)


@dataclass(frozen=True)
class ToneMap:
    """What turns the signal of one stream into SDR."""

    transfer: int
    """PQ or HLG."""
    primaries: int
    """H.273 code; what is not known here is taken as BT.2020's, as both are made for."""
    peak: float
    """cd/m2 of the brightest that the source holds, at least WHITE."""
    _light: Array = field(init=False, repr=False, compare=False)
    _scale: Array = field(init=False, repr=False, compare=False)
    _turn: Array = field(init=False, repr=False, compare=False)
    _luma: Array = field(init=False, repr=False, compare=False)
    _grey: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        chromaticities = primaries.BY_CODE.get(self.primaries, primaries.BY_CODE[9])
        signal = np.linspace(0.0, 1.0, _STEPS)
        light = _pq_to_light(signal) if self.transfer == PQ else _hlg_to_scene(signal)
        # By the fourth root, because the eye and PQ are finer in the dark.
        nits = np.maximum(signal**4 * _MOST, 1e-6)
        turn = primaries.to_srgb(chromaticities)
        for name, value in (
            ("_light", light),
            ("_scale", _rolled_off(nits, self.peak) / (nits * WHITE)),
            ("_turn", np.eye(3) if turn is None else turn),
            ("_luma", primaries.to_xyz(chromaticities)[0][1:2]),
            ("_grey", primaries.to_xyz(primaries.BT709)[0][1:2]),
        ):
            object.__setattr__(self, name, value.astype(np.float32))

    def __str__(self) -> str:
        return "HLG" if self.transfer == HLG else f"PQ up to {self.peak:.0f} cd/m2"

    @property
    def done(self) -> str:
        """What is to be said of a clip that it is applied to."""
        return f"high dynamic range ({self}) tone-mapped to SDR"

    def apply(self, rgb: Array) -> None:
        """Turn ``(H, W, 3)`` of the signal in 0..1 into SDR in 0..1, in place."""
        import cv2

        light = self._light[np.rint(rgb * (_STEPS - 1)).astype(np.uint16)]
        if self.transfer == HLG:
            scene = np.maximum(cv2.transform(light, self._luma), 1e-9)
            light *= (USUAL_PEAK * cv2.pow(scene, 0.2))[..., None]
        at = np.rint(np.sqrt(np.sqrt(np.minimum(_largest(light) / _MOST, 1.0))) * (_STEPS - 1)).astype(np.uint16)
        light *= self._scale[at][..., None]
        light = np.asarray(cv2.transform(light, self._turn), np.float32)
        grey = np.clip(cv2.transform(light, self._grey), 0.0, 1.0)
        # How far a colour may be from grey, and how far its farthest is: to below 0 or above 1.
        low, high = grey + _largest(-light), _largest(light) - grey
        keep = np.minimum(grey / np.maximum(low, grey + 1e-9), (1.0 - grey) / np.maximum(high, 1.0 - grey + 1e-9))
        light -= grey[..., None]
        light *= keep[..., None]
        light += grey[..., None]
        cv2.pow(np.clip(light, 0.0, 1.0), 1.0 / 2.4, dst=rgb)


def _largest(rgb: Array) -> Array:
    return np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def peak_of(side_data: Any) -> float:
    """The brightest light in cd/m2, by what a frame says of the content, else of the display that it was made on.

    Args:
        side_data: of a decoded frame.
    """
    said = []
    content = side_data.get("CONTENT_LIGHT_LEVEL")
    if content is not None:
        said.append(float(np.frombuffer(bytes(content), np.uint32)[0]))
    display = side_data.get("MASTERING_DISPLAY_METADATA")
    if display is not None:
        # ten ratios: the primaries' six, the white's two, the least light and the most; then whether each is there
        numbers = np.frombuffer(bytes(display), np.int32)
        if numbers[21] and numbers[19]:
            said.append(float(numbers[18] / numbers[19]))
    return sensible_peak(*said)


def sensible_peak(*said: float) -> float:
    """The first of what a source says in cd/m2 that is more than nothing, from WHITE to PQ's own peak."""
    return min(max(next((light for light in said if light > 0.0), USUAL_PEAK), WHITE), _MOST)
