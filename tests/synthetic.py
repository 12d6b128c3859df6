"""Small clips whose truth is known: a picture given by a formula, so that any sub-pixel motion of it is exact."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from comfyui_vdp.vdp_core.types import Flow


def scene(x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """Colours in 0..1 at any places, ``(..., 3)``: waves of 6 to 60 pixels in all directions, of natural contrast."""
    generator = torch.Generator().manual_seed(seed)
    waves = 24
    length = 6.0 * 10.0 ** torch.rand(waves, generator=generator)
    angle = 2 * math.pi * torch.rand(waves, generator=generator)
    phase = 2 * math.pi * torch.rand(waves, generator=generator)
    # mostly grey, as real pictures are, and stronger the longer the wave
    colour = (1.0 + 0.4 * torch.randn(waves, 3, generator=generator)) * length[:, None].sqrt()
    along = x[..., None] * angle.cos() + y[..., None] * angle.sin()
    sum_of_waves = torch.sin(2 * math.pi * along / length + phase) @ colour
    return torch.sigmoid(1.6 * sum_of_waves / colour.square().sum(dim=0).sqrt() - 0.4)


def pan(
    count: int = 6,
    height: int = 96,
    width: int = 160,
    *,
    motion: tuple[float, float] = (1.7, 0.6),
    seed: int = 0,
) -> tuple[Tensor, Flow]:
    """A camera that moves evenly over the scene, and its exact flow.

    Args:
        count, height, width: of the clip.
        motion: (x, y) of the camera, in pixels a frame.
        seed: of the scene.

    Returns:
        Frames ``(count, height, width, 3)``, and their flow: ``-motion`` forward, hidden where it leaves the frame.
    """
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    dx, dy = motion
    frames = torch.stack([scene(x + index * dx, y + index * dy, seed=seed) for index in range(count)])

    def left(sign: float) -> Tensor:
        """1 where a pixel moved by ``sign * motion`` lies outside."""
        inside_x = (x + sign * dx >= 0) & (x + sign * dx <= width - 1)
        inside_y = (y + sign * dy >= 0) & (y + sign * dy <= height - 1)
        return (~(inside_x & inside_y)).float().expand(count - 1, height, width).clone()

    vectors = torch.tensor(motion).view(1, 2, 1, 1).expand(count - 1, 2, height, width)
    return frames, Flow(-vectors, vectors.clone(), left(-1.0), left(1.0), (height, width), "exact")


def mid_grey(dark: Tensor) -> Tensor:
    """What a person has without this project: one power for the clip that brings its mean to mid-grey."""
    return dark.pow(math.log(0.5) / math.log(float(dark.mean())))


def exposed_like(frames: Tensor, truth: Tensor) -> Tensor:
    """``a * frames ** b`` with the one a and b of the clip that come closest to the truth: takes exposure out of it."""
    values, wanted = frames[:, ::3, ::3].clamp_min(1e-4), truth[:, ::3, ::3]

    def gain(power: float) -> float:
        raised = values.pow(power)
        return float((raised * wanted).sum() / raised.square().sum())

    def error(power: float) -> float:
        return float(((values.pow(power) * gain(power)).clamp(0, 1) - wanted).square().mean())

    power = min(torch.linspace(0.4, 2.5, 43).tolist(), key=error)
    return (frames.clamp_min(1e-4).pow(power) * gain(power)).clamp(0, 1)
