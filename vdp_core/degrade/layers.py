"""Copies in bad light and in haze, with known truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["darken", "drifting_field", "haze", "hazy_depth"]


def drifting_field(
    count: int, height: int, width: int, *, seed: int, knots: tuple[int, int, int] = (4, 3, 4)
) -> Tensor:
    """A smooth random field that drifts in time, ``(count, height, width)``, of about unit deviation.

    Args:
        count, height, width: its size.
        seed: of the random numbers.
        knots: independent values along time, height and width; bicubic in between.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(knots, generator=generator)
    space = F.interpolate(values[None], size=(height, width), mode="bicubic", align_corners=True)[0]
    # time as the height of a picture that is one pixel a position wide
    columns = space.flatten(1)[None, None]
    field = F.interpolate(columns, size=(count, height * width), mode="bicubic", align_corners=True)
    return field[0, 0].view(count, height, width)


def darken(
    frames: Tensor, *, seed: int, level: float = 0.25, drift: float = 0.35, gamma: float = 1.6, noise: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Return ``A * x ** gamma + noise``, rounded to 8 bits, and A.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        seed: of light and noise.
        level: the middle of A.
        drift: deviation of log A over the frame and the clip.
        gamma: the power.
        noise: deviation of the Gaussian noise.

    Returns:
        The dark frames ``(T, H, W, 3)``, and A ``(T, H, W)``.
    """
    light = level * torch.exp(drift * drifting_field(*frames.shape[:3], seed=seed))
    generator = torch.Generator().manual_seed(seed + 1000)
    dark = torch.empty_like(frames)
    for index, frame in enumerate(frames):
        grain = noise * torch.randn(frame.shape, generator=generator)
        dark[index] = (light[index, ..., None] * frame.pow(gamma) + grain).clamp(0.0, 1.0)
    return dark.mul_(255.0).round_().div_(255.0), light


def hazy_depth(count: int, height: int, width: int, *, seed: int, drift: float = 0.15) -> Tensor:
    """Depth ``(count, height, width)`` of about 1 at the top to 0.25 at the bottom, and a smooth field that drifts.

    Args:
        count, height, width: its size.
        seed: of the field.
        drift: its deviation.
    """
    ramp = torch.linspace(1.0, 0.25, height)[:, None]
    return (ramp + drift * drifting_field(count, height, width, seed=seed)).clamp_min_(0.05)


def haze(
    frames: Tensor,
    depth: Tensor,
    *,
    beta: float = 1.4,
    airlight: tuple[float, float, float] = (0.8, 0.8, 0.8),
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return ``t x + (1 - t) L + noise`` with ``t = exp(-beta depth)``, rounded to 8 bits, and t.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        depth: ``(T, H, W)``.
        beta: how dense the haze is, per unit of depth.
        airlight: L.
        noise: deviation of the Gaussian noise.
        seed: of the noise.

    Returns:
        The hazy frames ``(T, H, W, 3)``, and t ``(T, H, W)``.
    """
    transmission = torch.exp(-beta * depth)
    generator = torch.Generator().manual_seed(seed + 1000)
    light = frames.new_tensor(airlight)
    hazy = torch.empty_like(frames)
    for index, frame in enumerate(frames):
        hazy[index] = torch.lerp(light.expand_as(frame), frame, transmission[index, ..., None])
        if noise > 0.0:
            hazy[index] += noise * torch.randn(frame.shape, generator=generator)
    return hazy.clamp_(0.0, 1.0).mul_(255.0).round_().div_(255.0), transmission
