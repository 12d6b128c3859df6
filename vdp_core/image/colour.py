"""Display values, light, and a person's grade."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..types import Edit

__all__ = ["as_is", "regrade"]

DISPLAY_GAMMA = 2.2  # what sRGB amounts to; turns stops of scene light into display values
LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709


def regrade(colour: Tensor, change: Edit, linear_light: bool) -> Tensor:
    """Gain, saturation and, as fading to black, visibility."""
    if linear_light and replace(change, offset=(0.0, 0.0)) != Edit():
        return to_display(regrade(to_linear(colour), replace(change, gain=DISPLAY_GAMMA * change.gain), False))
    factor = 2.0 ** (change.gain / DISPLAY_GAMMA) * change.visibility
    if factor != 1.0:
        colour = colour * factor
    if change.saturation != 1.0:
        grey = (colour * colour.new_tensor(LUMA)).sum(dim=-1, keepdim=True)
        colour = grey + (colour - grey) * change.saturation
    return colour


def to_linear(values: Tensor) -> Tensor:
    """Display values of sRGB (IEC 61966-2-1) to light."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055).pow(2.4))


def to_display(light: Tensor) -> Tensor:
    """Light to display values of sRGB (IEC 61966-2-1)."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0).pow(1.0 / 2.4) - 0.055)


def as_is(values: Tensor) -> Tensor:
    return values
