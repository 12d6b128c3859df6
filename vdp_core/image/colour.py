"""Display values, light, and a person's grade."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ..errors import InputError
from ..types import Edit

__all__ = ["as_is", "colour_of", "luma", "regrade", "to_display", "to_lab", "to_linear"]

DISPLAY_GAMMA = 2.2  # what sRGB amounts to; turns stops of scene light into display values
LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709


def colour_of(text: str, name: str = "colour") -> Tensor:
    """A colour ``(3,)`` in 0..1 that a person wrote: ``#78ff9b``, or ``120, 255, 155`` in 0..255.

    Raises:
        InputError: it is none of that.
    """
    digits = text.strip().removeprefix("#")
    numbers = [part.strip() for part in text.split(",")]
    if re.fullmatch(r"[0-9a-fA-F]{6}", digits):
        values = [int(digits[place : place + 2], 16) for place in (0, 2, 4)]
    elif len(numbers) == 3 and all(re.fullmatch(r"[0-9]{1,3}", part) and int(part) < 256 for part in numbers):
        values = [int(part) for part in numbers]
    else:
        raise InputError(f"{name}: '{text[:40]}' is no colour; write it as #78ff9b or 120, 255, 155")
    return torch.tensor(values) / 255.0


def regrade(colour: Tensor, change: Edit, linear_light: bool) -> Tensor:
    """Colours ``(..., 3)``, display values in 0..1, with gain, saturation and, as fading to black, visibility.

    In linear light gain is that of light, exactly; what comes out may lie above 1.
    """
    if linear_light and replace(change, offset=(0.0, 0.0)) != Edit():
        return to_display(regrade(to_linear(colour), replace(change, gain=DISPLAY_GAMMA * change.gain), False))
    factor = 2.0 ** (change.gain / DISPLAY_GAMMA) * change.visibility
    if factor != 1.0:
        colour = colour * factor
    if change.saturation != 1.0:
        grey = luma(colour)
        colour = grey + (colour - grey) * change.saturation
    return colour


def luma(colour: Tensor) -> Tensor:
    """Luma of colours ``(..., 3)``, ``(..., 1)``, by the weights of Rec. 709."""
    return (colour * _luma(colour.device)).sum(dim=-1, keepdim=True)


@cache
@torch.inference_mode(False)
def _luma(device: torch.device) -> Tensor:
    return torch.tensor(LUMA, device=device)


def to_linear(values: Tensor) -> Tensor:
    """Display values of sRGB (IEC 61966-2-1) to light."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055).pow(2.4))


def to_display(light: Tensor) -> Tensor:
    """Light to display values of sRGB (IEC 61966-2-1)."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0).pow(1.0 / 2.4) - 0.055)


def to_lab(pictures: Tensor) -> Tensor:
    """Display values ``(N, 3, H, W)`` of sRGB to CIE 1976 L*a*b*, L in 0..100, of the white D65 (ISO/CIE 11664-4)."""
    red, green, blue = to_linear(pictures).unbind(dim=1)
    # rows of the matrix of IEC 61966-2-1, over the white
    shares = [
        torch.add(a * red, green, alpha=b).add_(blue, alpha=c)
        for a, b, c in (
            (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
            (0.212671, 0.715160, 0.072169),
            (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
        )
    ]
    x, y, z = (
        torch.where(share > 216.0 / 24389.0, share.clamp_min(1e-6).pow(1.0 / 3.0), share * (841.0 / 108.0) + 4.0 / 29.0)
        for share in shares
    )
    return torch.stack((116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)), dim=1)


def as_is(values: Tensor) -> Tensor:
    """Display values where nothing is mixed in light: the values themselves."""
    return values
