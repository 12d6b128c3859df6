"""Light: ``x_out = A * x_in ** gamma`` with a smooth light map A that may vary over the frame and drift in time.

A acts on display values, the same for red, green and blue but for one colour of the clip: display values are about a
power of light, so that a gain of one is a gain of the other, and ratios of colours, which are hue and saturation, stay
as they are. A gamma below 1 brings them together, as it does in a camera. What is done besides, in shadows and
highlights (``Held``), is one factor for all three, or less chroma.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoise.noise import ROUNDING
from ..errors import InputError
from ..image.colour import DISPLAY_GAMMA
from ..image.guided import joint_upsample
from ..store.transfer import send
from ..types import Layers, OnStep
from .base import Field, Model
from .render import NOISE, applied

__all__ = ["MODEL", "Held", "apply", "compose", "rebuild"]

DARKEST = 1e-6
HELD = "blocking", "black", "white"
"""Fields of what the signal holds, ``(T, 1, 1, 1)`` each."""
ROUNDED = 0.5 / 255
"""Deviation in the dark of what was rounded to 8 bits without noise."""
QUIETED = 0.15
"""Deviation of noise that noise removal leaves, as a share of what it was."""
FLOOR = 3.0
"""Deviations from the scene at which gain is held to its root."""
COLOUR_ERROR = 0.8
"""Chroma in shadows, as a share of brightness, beside which an error of it counts as much."""
SHOULDER, STRAIGHT = 2.0, 8.0
"""Power of the shoulder where there is much above white, and where there is hardly anything; down: bright places give
way earlier, and keep more of what is in them."""


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
    neutral: float = 0.0,
) -> Tensor:
    """Frames ``start`` to ``stop`` of the layers in their new light, not clamped.

    Args:
        layers: of the model relight.
        start, stop: which frames' light.
        frames: ``(stop - start, H, W, 3)``, the source or a denoised copy.
        strength, exposure, gamma, warmth, neutral: see ``apply``.

    Returns:
        ``(stop - start, H, W, 3)``.
    """
    lit = _at_strength(frames, lambda: _lit(layers, start, stop, frames), strength)
    # gamma acts on what was found; exposure and warmth are light's, and the same at every gamma
    red_to_blue = torch.linspace(0.2 * warmth, -0.2 * warmth, 3, device=frames.device)
    light = red_to_blue + exposure * math.log(2.0) / DISPLAY_GAMMA
    if neutral > 0.0 and "cast" in layers.fields:
        cast = joint_upsample(send(layers.fields["cast"][start:stop], frames.device), frames).movedim(1, -1)
        light = light - neutral * cast
    return lit.pow(1.0 / gamma).mul_(light.exp())


def _at_strength(frames: Tensor, lit: Callable[[], Tensor], strength: float) -> Tensor:
    """``frames^(1 - strength) lit^strength``, light and gamma in even steps."""
    if strength == 0.0:
        return frames
    if strength == 1.0:
        return lit()
    # beyond 1 the frames are divided by
    frames = frames if strength < 1.0 else frames.clamp_min(1.0 / 255.0)
    return frames.pow(1.0 - strength).mul_(lit().clamp_min_(0.0).pow_(strength))


def rebuild(layers: Layers, start: int, stop: int, relit: Tensor) -> Tensor:
    """The inverse of ``compose`` as found: the source from the relit frames."""
    log_gain, tint, power, held = _model(layers, start, stop, send(layers.frames[start:stop], relit.device))
    lit = relit if held is None else held.undone(relit, log_gain, power)
    # (black may come out a little below 0, which has no power)
    frames = lit.mul(log_gain.neg_().exp_()).div_(tint.exp()).clamp_min_(0.0).pow_(1.0 / power)
    return frames if held is None else frames.sub_(held.black)


def _lit(layers: Layers, start: int, stop: int, frames: Tensor) -> Tensor:
    log_gain, tint, power, held = _model(layers, start, stop, frames)
    if held is not None:
        frames = frames.add(held.black).clamp_min_(0.0)
    lit = frames.pow(power).mul_(tint.exp()).mul_(log_gain.exp())
    return lit if held is None else held.within(lit, log_gain, power)


def _model(layers: Layers, start: int, stop: int, guide: Tensor) -> tuple[Tensor, Tensor, Tensor, Held | None]:
    """Log A, ``(n, H, W, 1)`` at native size, and of the colour, ``(n, 1, 1, 3)``, whose mean is in the former; gamma,
    ``(n, 1, 1, 1)``; and what the signal holds."""

    def field(name: str) -> Tensor:
        return send(layers.fields[name][start:stop], guide.device)

    colour = field("colour").movedim(1, -1)
    mean = colour.mean(dim=-1, keepdim=True)
    log_gain = joint_upsample(field("log_gain"), guide).movedim(1, -1) + mean
    held = None
    if all(name in layers.fields for name in HELD):  # earlier versions saved none of them
        held = Held.of(*(field(name) for name in ("noise", *HELD)))
    return log_gain, colour - mean, field("gamma"), held


class Held(NamedTuple):
    """What the signal of some frames holds, ``(n, 1, 1, 1)`` each."""

    black: Tensor
    """What was taken off every value: the source of light 0 has minus that."""
    brightness: Tensor
    """Deviation of brightness from the scene in the dark, once noise is out."""
    colour: Tensor
    """The same, of a colour from grey."""
    white: Tensor
    """The brightest value of the clip, black put back."""

    @classmethod
    def of(cls, noise: Tensor, blocking: Tensor, black: Tensor, white: Tensor) -> Held:
        """From what layers keep of noise ``(n, 7, 1, 1)``, blocks, black and white ``(n, 1, 1, 1)``.

        Rounding hides what is between two values unless there is noise, which dithers it.
        """
        brightness, colour = (
            (QUIETED**2 * variance / 3.0 + (ROUNDED * ROUNDING**2 / variance).square() + blocking.square()).sqrt()
            for variance in (
                noise[:, part].amax(dim=1, keepdim=True).clamp_min(ROUNDING**2) for part in (slice(0, 1), slice(1, 3))
            )
        )
        return cls(black, brightness, colour, white)

    def within(self, lit: Tensor, log_gain: Tensor, power: Tensor) -> Tensor:
        """``A x^gamma``, ``(n, H, W, 3)``, with log A ``(n, H, W, 1)``: less where the signal holds nothing, and below
        white.

        Three factors, each the same for red, green and blue, so that none of them changes their ratios. Log gain is
        Wiener's share ``x^2 / (x^2 + floor^2)`` of itself. What colour has from grey is less by ``1 / (1 + error^2)``,
        the error that gain has added, of brightness. What is brighter than white is brought below it by a shoulder,
        so that the brightest of the clip comes out as 1, or darker.
        """
        red, green, blue = lit.split(1, dim=-1)  # reductions over three values in a row are slow
        grey = (red + green).add_(blue).div_(3.0)
        level = grey.clamp_min(DARKEST)
        limited, keep = self._limited(level, log_gain, power)
        lit = torch.lerp(grey, lit, keep).mul_(limited.div_(level))
        red, green, blue = lit.split(1, dim=-1)
        brightest = torch.maximum(torch.maximum(red, green), blue)
        return lit.mul_(_shoulder(brightest, self._white(log_gain, power)))

    def _white(self, log_gain: Tensor, power: Tensor) -> Tensor:
        """What the brightest of the clip comes out as, ``(n, H, W, 1)``."""
        return log_gain.exp().mul_(self.white.pow(power))

    def _limited(self, level: Tensor, log_gain: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        """Brightness as far as the gain is held, and the share of chroma that is."""
        log_level = level.log()
        log_own = (log_level - log_gain).div_(power)
        own = log_own.exp()
        share = self.share(own)
        limited = log_own.sub_(log_level).clamp_max_(0.0).mul_(1.0 - share).exp_().mul_(level)
        error = (limited / own - 1.0).clamp_min(0.0) * self.colour / own
        return limited, 1.0 / (1.0 + (COLOUR_ERROR * error).square())

    def share(self, own: Tensor) -> Tensor:
        """How much of a source of brightness ``own``, ``(n, h, w, 1)`` above 0, is signal: 0 to 1."""
        return 1.0 / (1.0 + (FLOOR * self.brightness / own).square())

    def undone(self, relit: Tensor, log_gain: Tensor, power: Tensor) -> Tensor:
        """The inverse of ``within``; the brightness by bisection, as it rises with the level."""
        lit = relit / _shoulder_undone(relit.amax(dim=-1, keepdim=True), self._white(log_gain, power))
        wanted = lit.mean(dim=-1, keepdim=True).clamp_min(DARKEST)
        low = wanted.log()
        high = low + log_gain.abs() + 8.0
        for _ in range(40):
            middle = 0.5 * (low + high)
            below = self._limited(middle.exp(), log_gain, power)[0] < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        level = (0.5 * (low + high)).exp()
        limited, keep = self._limited(level, log_gain, power)
        return torch.lerp(level, lit * (level / limited), 1.0 / keep)


def _shoulder(brightest: Tensor, white: Tensor) -> Tensor:
    """Factor ``(1 + m^p (1 - w^-p))^(-1/p)`` for the brightest channel m: 1 in the dark, and ``1 / w`` at white w.

    Reinhard's curve with a white point ("Photographic tone reproduction for digital images", 2002, eq. 4), which has a
    power p of 1. Here the middle is the straighter the less there is above 1. Where w is 1 or less, nothing changes.
    """
    white = white.clamp_min(1.0)
    power = _straightness(white)
    return (1.0 + brightest.clamp_min(0.0).pow(power) * (1.0 - white.pow(-power))).pow(-1.0 / power)


def _shoulder_undone(brightest: Tensor, white: Tensor) -> Tensor:
    """The factor of ``_shoulder`` from what came out."""
    white = white.clamp_min(1.0)
    power = _straightness(white)
    rest = 1.0 - brightest.clamp_min(0.0).pow(power) * (1.0 - white.pow(-power))
    return rest.clamp_min(DARKEST).pow(1.0 / power)


def _straightness(white: Tensor) -> Tensor:
    return SHOULDER + (STRAIGHT - SHOULDER) / white.square()


def apply(
    layers: Layers,
    *,
    strength: float = 1.0,
    exposure: float = 0.0,
    gamma: float = 1.0,
    warmth: float = 0.0,
    denoise: float = 1.0,
    neutral: float = 0.0,
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
        neutral: 0 keeps the colour that lamps give to what they shine on, 1 takes it off.
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
    if not 0.0 <= neutral <= 1.0:
        raise InputError(f"neutral: 0 to 1 needed, got {neutral}")
    edit = partial(compose, strength=strength, exposure=exposure, gamma=gamma, warmth=warmth, neutral=neutral)
    return applied(layers, edit, denoise=denoise, deblock=True, device=device, on_step=on_step)


MODEL = Model(
    name="relight",
    fields=(
        Field("log_gain", (1, "h", "w")),
        Field("colour", (3, 1, 1)),
        Field("gamma", (1, 1, 1), low=0.0, above=True),
        Field("blocking", (1, 1, 1), low=0.0, optional=True),
        Field("black", (1, 1, 1), low=0.0, optional=True),
        Field("white", (1, 1, 1), low=0.0, above=True, optional=True),
        Field("cast", (3, None, None), optional=True),
        NOISE,
    ),
    compose=compose,
    rebuild=rebuild,
)
