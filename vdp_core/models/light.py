"""Light: ``x_out = A * x_in ** gamma`` with a smooth light map A that may vary over the frame and drift in time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..denoise.noise import check_noise
from ..denoise.temporal import clean_frames, is_noisy, less_noisy
from ..errors import InputError, LayersFileError
from ..image.colour import DISPLAY_GAMMA
from ..image.guided import lift
from ..store.lazy import computed
from ..types import Layers, OnStep

__all__ = ["apply", "check", "compose", "rebuild"]

PIXELS_AT_ONCE = 2**20


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
    log_gain += frames.new_tensor([0.2 * warmth, 0.0, -0.2 * warmth]) + exposure * math.log(2.0) / DISPLAY_GAMMA
    return frames.pow(power / gamma).mul_(log_gain.div_(gamma).exp_())


def rebuild(layers: Layers, start: int, stop: int, relit: Tensor) -> Tensor:
    """The inverse of ``compose`` as found: ``x = (x_out / A) ** (1 / gamma)``, the source from the relit frames."""
    log_gain, power = _model(layers, start, stop, layers.frames[start:stop].to(relit.device))
    return relit.mul(log_gain.neg_().exp_()).pow_(1.0 / power)


def _model(layers: Layers, start: int, stop: int, guide: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log A with the colour, ``(n, H, W, 3)`` at native size, and gamma, ``(n, 1, 1, 1)``, both at a strength."""
    field, colour, gamma = (
        layers.fields[name][start:stop].to(guide.device) for name in ("log_gain", "colour", "gamma")
    )
    log_gain = (lift(field, guide) + colour).movedim(1, -1)
    # a strength above 1 could turn a small gamma negative
    return log_gain.mul_(strength), (1.0 + strength * (gamma - 1.0)).clamp_min(0.05)


def check(layers: Layers) -> None:
    """Refuse layers, read from a file, that lack something the model needs.

    Raises:
        LayersFileError: which field is missing or impossible.
    """
    for name, channels in (("log_gain", 1), ("colour", 3), ("gamma", 1)):
        field = layers.fields.get(name)
        whole = name == "log_gain" or (field is not None and tuple(field.shape[2:]) == (1, 1))
        if field is None or field.shape[1] != channels or not whole:
            size = "h, w" if name == "log_gain" else "1, 1"
            raise LayersFileError(f"the layers hold no '{name}' (T, {channels}, {size}); save them again")
    least = float(layers.fields["gamma"].min())
    if not least > 0.0:
        raise LayersFileError(f"the layers hold a gamma of {least}, above 0 needed; save them again")
    check_noise(layers)


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
    if layers.model != "relight":
        raise InputError(f"layers: they are of the model '{layers.model}', Relight needs 'relight'")
    if not gamma > 0.0:
        raise InputError(f"gamma: above 0 needed, got {gamma}")
    if not 0.0 <= denoise <= 1.0:
        raise InputError(f"denoise: 0 to 1 needed, got {denoise}")

    def relit(start: int) -> Iterator[Tensor]:
        return _relit_frames(
            layers, start, denoise, device, strength=strength, exposure=exposure, gamma=gamma, warmth=warmth
        )

    return computed(relit, tuple(layers.frames.shape), on_step=on_step)


@torch.no_grad()
def _relit_frames(
    layers: Layers, start: int, denoise: float, device: torch.device | str, **settings: float
) -> Iterator[Tensor]:
    """The frames from ``start`` on, a few at a time, on the CPU."""
    count, height, width, _ = layers.frames.shape
    clean = clean_frames(layers, start=start, device=device) if denoise > 0.0 and is_noisy(layers) else None
    chunk = max(1, PIXELS_AT_ONCE // (height * width))
    for first in range(start, count, chunk):
        stop = min(first + chunk, count)
        # (no name for the frames: it would keep them while the next are made)
        composed = compose(layers, first, stop, less_noisy(layers, first, stop, clean, denoise, device), **settings)
        yield composed.clamp_(0.0, 1.0).cpu()
