"""How to expose a clip whose light is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...image.resize import resize, upsample, working_copy
from ...models.light import Held
from .priors import natural_tone

__all__ = ["Tone", "cast_of", "sampled", "tone_of", "without_light"]

Tone = tuple[float, tuple[float, float, float]]
"""Gamma, and the log gains of red, green and blue."""

CAST = 4, 6
"""Parts of the frame that have a colour of light of their own."""
CAST_FRAMES = 25
CAST_POWER = 2.0  # down: less of the brightest, as of the lamp itself
NO_LIGHT = 0.02**CAST_POWER
"""Energy of what is too dark to have a colour."""


def tone_of(small: Tensor, grid: Tensor, held: Held, area: Tensor) -> Tone:
    """Gamma and neutral log gains that expose frames ``(n, 3, h, w)`` with log light ``(n, gh, gw)`` well.

    What counts is what the signal holds, in the part ``area``, ``(h, w)``, of the frame: where most of a scene is
    night, its lamps say how it is exposed.
    """
    weight = held.share(small.mean(dim=1)[..., None].clamp_min(1e-6))[..., 0] * area
    gamma, gain = natural_tone(without_light(small, grid).mean(dim=1), weight)
    return gamma, (gain, gain, gain)


def sampled(values: Tensor) -> Tensor:
    """Frames ``(T, ...)`` of a clip, evenly spread, of long ones 64 to 127; or what is known of these."""
    return values[:: max(1, len(values) // 64)]


def cast_of(frames: Tensor, side: int, device: torch.device, held: Held) -> Tensor:
    """Log colour of the light, ``(T, 3, *CAST)``, on the CPU: that of what is bright, in each part of the frame.

    Shades of grey (Finlayson and Trezzi, "Shades of Gray and Colour Constancy", 2004), in parts
    of the frame, over ``CAST_FRAMES`` frames. Its mean over the three is 0.
    """
    parts = []
    for start in range(0, len(frames), 64):
        small = working_copy(frames[start : start + 64], side, device) + held.black
        small = small * held.share(small.mean(dim=1)[..., None].clamp_min(1e-6)).movedim(-1, 1)
        parts.append(resize(small.pow(CAST_POWER), CAST, mode="area"))
    energy = torch.cat(parts)
    line = energy.flatten(1).T[:, None]
    radius = min(CAST_FRAMES // 2, len(frames) - 1)
    line = F.avg_pool1d(F.pad(line, (radius, radius), mode="replicate"), 2 * radius + 1, 1)
    colour = (line[:, 0].T.unflatten(1, energy.shape[1:]).clamp_min(0.0) + NO_LIGHT).log() / CAST_POWER
    return (colour - colour.mean(dim=1, keepdim=True)).cpu()


def without_light(small: Tensor, grid: Tensor) -> Tensor:
    """``x / light`` for ``(n, 3, h, w)`` and log light ``(n, gh, gw)``."""
    return small * torch.exp(-upsample(grid[:, None], (small.shape[2], small.shape[3])))
