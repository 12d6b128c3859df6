"""Light: ``x_out = A * x_in ** gamma`` with a smooth light map A that may vary over the frame and drift in time."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from ..errors import InputError
from ..image.colour import DISPLAY_GAMMA
from ..image.guided import joint_upsample
from ..store.transfer import send
from ..types import Layers, OnStep
from .base import Field, Model
from .render import NOISE, applied

__all__ = ["MODEL", "apply", "compose", "rebuild"]


def compose(
    layers: Layers,
    start: int,
    stop: int,
    frames: Tensor,
    *,
    strength: float = 1.0,
    exposure: float = 0.0,
    gamma: float = 1.0,
    warmth: float = 0.0,
) -> Tensor:
    """``A * x ** gamma`` for frames ``start`` to ``stop`` of the layers, not clamped.

    Everything a person can set is part of the same closed form: one exponential and one power a value.

    Args:
        layers: of the model relight.
        start, stop: which frames' light.
        frames: ``(stop - start, H, W, 3)``, the source or a denoised copy.
        strength, exposure, gamma, warmth: see ``apply``.

    Returns:
        ``(stop - start, H, W, 3)``.
    """
    log_gain, power = _model(layers, start, stop, frames, strength)
    # gamma acts on what was found; exposure and warmth are light's, and the same at every gamma
    red_to_blue = torch.linspace(0.2 * warmth, -0.2 * warmth, 3, device=frames.device)
    light = red_to_blue + exposure * math.log(2.0) / DISPLAY_GAMMA
    return frames.pow(power / gamma).mul_(log_gain.div_(gamma).add_(light).exp_())


def rebuild(layers: Layers, start: int, stop: int, relit: Tensor) -> Tensor:
    """The inverse of ``compose`` as found: ``x = (x_out / A) ** (1 / gamma)``, the source from the relit frames."""
    log_gain, power = _model(layers, start, stop, send(layers.frames[start:stop], relit.device))
    return relit.mul(log_gain.neg_().exp_()).pow_(1.0 / power)


def _model(layers: Layers, start: int, stop: int, guide: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log A with the colour, ``(n, H, W, 3)`` at native size, and gamma, ``(n, 1, 1, 1)``, both at a strength."""
    field, colour, gamma = (
        send(layers.fields[name][start:stop], guide.device) for name in ("log_gain", "colour", "gamma")
    )
    log_gain = (joint_upsample(field, guide) + colour).movedim(1, -1)
    # a strength above 1 could turn a small gamma negative
    return log_gain.mul_(strength), (1.0 + strength * (gamma - 1.0)).clamp_min(0.05)


def apply(
    layers: Layers,
    *,
    strength: float = 1.0,
    exposure: float = 0.0,
    gamma: float = 1.0,
    warmth: float = 0.0,
    denoise: float = 1.0,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> Tensor:
    """Relight the clip of the layers at native size, a few frames at a time.

    Args:
        layers: what ``decompose`` found.
        strength: 0 leaves the frames alone, 1 applies what was found; in between light and gamma go in even steps.
        exposure: in stops of scene light, brighter above 0.
        gamma: above 1 lifts the middle, below 1 lowers it.
        warmth: above 0 more red and less blue, below 0 the other way; 1 is about a fifth.
        denoise: 0 keeps the noise, 1 takes it out. The first use takes a while, then it is kept with the layers.
        device: where to compute.
        on_step: told after every few frames; stops the work by raising.

    Returns:
        ``(T, H, W, 3)`` float32 in 0..1, on the CPU; of a long clip, frames are computed when they are looked at.

    Raises:
        InputError: layers of another model, or a setting out of range.
    """
    MODEL.require(layers, "Relight")
    if not gamma > 0.0:
        raise InputError(f"gamma: above 0 needed, got {gamma}")
    edit = partial(compose, strength=strength, exposure=exposure, gamma=gamma, warmth=warmth)
    return applied(layers, edit, denoise=denoise, device=device, on_step=on_step)


MODEL = Model(
    name="relight",
    fields=(
        Field("log_gain", (1, "h", "w")),
        Field("colour", (3, 1, 1)),
        Field("gamma", (1, 1, 1), low=0.0, above=True),
        NOISE,
    ),
    compose=compose,
    rebuild=rebuild,
)
