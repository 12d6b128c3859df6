"""Flicker of every kind, with known truth.

Whatever flickers is one change of colour for each frame, ``Change``; what is steady is no flicker, so the mean over
time of all its parts is 0. A kind has a scene besides: what belongs to the truth, such as grain, dirt or dusk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import itemgetter

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..errors import InputError
from ..image.colour import LUMA

__all__ = ["KINDS", "Change", "Kind", "changed", "flicker"]


@dataclass(frozen=True)
class Change:
    """What becomes of colours x: ``exp(gain) * s ** exp(gamma) + offset``.

    s is x with its distance from grey times ``exp(saturation)``. Each part is ``(T, 1 or H, 1 or W, 1 or 3)``; the
    default of 0 changes nothing.
    """

    gain: Tensor | None = None
    gamma: Tensor | None = None
    offset: Tensor | None = None
    saturation: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Change:
        """A change with the function of each part that there is."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Change(**{name: function(part) for name, part in parts.items() if part is not None})


@dataclass(frozen=True)
class Extent:
    """Size of a clip, and the random numbers that a change of it is made of."""

    count: int
    height: int
    width: int
    generator: Generator

    def white(self, channels: int = 1) -> Tensor:
        """A value for each frame, ``(T, 1, 1, channels)``, of unit deviation, each frame by itself."""
        return torch.randn(self.count, 1, 1, channels, generator=self.generator)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def smooth(self, count: int, channels: int = 1, knots: tuple[int, int] = (3, 4)) -> Tensor:
        """Fields of low frequency, ``(count, H, W, channels)``, of unit deviation, each by itself."""
        values = torch.randn(count, channels, *knots, generator=self.generator)
        size = self.height, self.width
        field = F.interpolate(values, size=size, mode="bicubic", align_corners=True).movedim(1, -1)
        return field / field.square().mean().sqrt()

    def blob(self) -> Tensor:
        """1 in a place of the frame, fading to 0 around it, ``(1, H, W, 1)``."""
        y = torch.linspace(-0.5, 0.5, self.height)[:, None] - self.uniform(-0.3, 0.3)
        x = torch.linspace(-0.5, 0.5, self.width)[None, :] - self.uniform(-0.3, 0.3)
        return torch.exp(-(y.square() + x.square()) / (2 * 0.18**2))[None, ..., None]

    def times(self) -> Tensor:
        """Number of each frame, ``(T, 1, 1, 1)``."""
        return torch.arange(float(self.count)).view(-1, 1, 1, 1)


def changed(frames: Tensor, change: Change) -> Tensor:
    """Frames ``(T, H, W, 3)`` in 0..1 after a change, clamped to 0..1."""
    out = torch.empty_like(frames)
    grey = frames.new_tensor(LUMA)
    for index, frame in enumerate(frames):
        now = change.map(itemgetter(index))
        if now.saturation is not None:
            frame = torch.lerp((frame @ grey)[..., None], frame, now.saturation.exp()).clamp_min(0.0)
        if now.gamma is not None:
            frame = frame.pow(now.gamma.exp())
        if now.gain is not None:
            frame = frame * now.gain.exp()
        if now.offset is not None:
            frame = frame + now.offset
        out[index] = frame.clamp(0.0, 1.0)
    return out


# what flickers, for a strength of about the deviation of the log gain


def _mixed(of: Extent, strength: float) -> Change:
    """Gain, gamma, cast and a gain of low frequency, for each frame by itself."""
    gain = 0.7 * of.white() + 0.2 * of.white(3) + 0.35 * of.smooth(of.count)
    return Change(gain=strength * gain, gamma=0.35 * strength * of.white())


def _bands(of: Extent, strength: float) -> Change:
    """Mains seen through a rolling shutter: waves along the rows that move by a steady beat, a little coloured."""
    rows = torch.linspace(0.0, of.uniform(1.5, 4.0), of.height).view(1, -1, 1, 1)
    waves = torch.sin(2 * math.pi * (rows + of.uniform(0.1, 0.4) * of.times() + of.uniform(0.0, 1.0)))
    colour = 1.0 + 0.2 * torch.randn(3, generator=of.generator)
    return Change(gain=strength * waves * colour)


def _lamps(of: Extent, strength: float) -> Change:
    """Lamps at a high frame rate: periods of few frames, in two parts of the frame on two phases of the mains."""
    share = torch.sigmoid(2.0 * of.smooth(1))
    beat = of.uniform(0.2, 0.45) * of.times() + of.uniform(0.0, 1.0)
    one, other = torch.sin(2 * math.pi * beat), torch.sin(2 * math.pi * (beat + 1 / 3))
    return Change(gain=strength * (share * one + (1.0 - share) * other))


def _seams(of: Extent, strength: float, length: int = 16) -> Change:
    """Steps of gain, gamma and cast every ``length`` frames."""
    chunk = torch.arange(of.count) // length
    parts = Extent(int(chunk[-1]) + 1, of.height, of.width, of.generator)
    gain, gamma = parts.white() + 0.5 * parts.white(3), 0.5 * parts.white()
    return Change(gain=strength * gain[chunk], gamma=strength * gamma[chunk])


def _lamp(of: Extent, strength: float) -> Change:
    """A part of the frame flickers."""
    return Change(gain=strength * of.blob() * of.white())


def _exposure(of: Extent, strength: float) -> Change:
    """Another exposure in each frame."""
    return Change(gain=strength * of.white())


def _filter(of: Extent, strength: float) -> Change:
    """A filter that works on each frame by itself: gain, contrast about middle grey, and saturation vary."""
    contrast = strength * of.white()
    middle = 0.5 * (1.0 - contrast.exp())
    return Change(gain=contrast + 0.5 * strength * of.white(), offset=middle, saturation=strength * of.white())


def _published(of: Extent, strength: float) -> Change:
    """I + F: a smooth field in each channel, constant over 2 to 12 frames (Lei et al., CVPR 2023)."""
    lengths: list[int] = []
    while sum(lengths) < of.count:
        lengths.append(int(torch.randint(2, 13, (), generator=of.generator)))
    windows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[: of.count]
    return Change(offset=strength * of.smooth(len(lengths), channels=3)[windows])


# what belongs to the truth


def _as_it_is(frames: Tensor, of: Extent) -> Tensor:
    return frames


def _film(frames: Tensor, of: Extent) -> Tensor:
    """Grain, specks of dirt in each frame, and a scratch that wanders."""
    grain = 0.02 * torch.randn(of.count, of.height, of.width, 1, generator=of.generator)
    film = (frames + grain).clamp(0.0, 1.0)
    y, x = torch.meshgrid(torch.arange(float(of.height)), torch.arange(float(of.width)), indexing="ij")
    unit = of.width / 480.0  # pixels
    scratch = of.uniform(0.2, 0.8) * of.width + torch.cumsum(unit * of.white().flatten(), dim=0)
    for index, frame in enumerate(film):
        frame += 0.15 * torch.exp(-((x - scratch[index]) / unit).square())[..., None]
        for _ in range(int(torch.randint(1, 5, (), generator=of.generator))):
            across = torch.hypot(x - of.uniform(0.0, of.width), (y - of.uniform(0.0, of.height)) * of.uniform(0.5, 2.0))
            cover = (unit * of.uniform(1.0, 4.0) + 0.5 - across).clamp(0.0, 1.0)
            frame.lerp_(torch.tensor(round(of.uniform(0.0, 1.0))).float(), cover[..., None])
    return film.clamp_(0.0, 1.0)


def _cartoon(frames: Tensor, of: Extent) -> Tensor:
    """Flat colours, six to a channel, and frames held for two or three."""
    import cv2

    drawn: list[Tensor] = []
    while len(drawn) < of.count:
        picture = (frames[len(drawn)] * 255.0).round().byte().numpy()
        flat = torch.from_numpy(cv2.medianBlur(picture, 9)).float() / 255.0
        held = int(torch.randint(2, 4, (), generator=of.generator))
        drawn += [(flat * 5.0).round() / 5.0] * held
    return torch.stack(drawn[: of.count])


def _styled(frames: Tensor, of: Extent) -> Tensor:
    """The filter as it is in the mean; the frames themselves are the steady original."""
    steady = torch.ones(of.count, 1, 1, 1)
    return changed(frames, Change(gamma=0.15 * steady, saturation=0.25 * steady))


def _dusk(frames: Tensor, of: Extent) -> Tensor:
    """The light falls evenly to a third of itself, and blue faster than red."""
    falling = -torch.linspace(0.0, 1.0, of.count).view(-1, 1, 1, 1)
    return changed(frames, Change(gain=falling * torch.tensor([0.9, 1.1, 1.3])))


def _switched_on(frames: Tensor, of: Extent) -> Tensor:
    """A lamp lights a part of the frame from somewhere in the middle third on."""
    on = (of.times() >= of.uniform(1 / 3, 2 / 3) * of.count).float()
    return changed(frames, Change(gain=0.8 * of.blob() * on))


@dataclass(frozen=True)
class Kind:
    """A kind of flicker."""

    change: Callable[[Extent, float], Change]
    strength: float
    """What it is where nothing else is said."""
    scene: Callable[[Tensor, Extent], Tensor] = _as_it_is
    """What becomes of clean frames before; it belongs to the truth."""


KINDS = {
    "mixed": Kind(_mixed, 0.25),
    "bands": Kind(_bands, 0.14),
    "seams": Kind(_seams, 0.08),
    "lamp": Kind(_lamp, 0.25),
    "film": Kind(_mixed, 0.25, _film),
    "cartoon": Kind(_mixed, 0.25, _cartoon),
    "time-lapse": Kind(_exposure, 0.25, _dusk),
    "processed": Kind(_filter, 0.15, _styled),
    "high-speed": Kind(_lamps, 0.2),
    "published": Kind(_published, 0.1),
    "sunset": Kind(_mixed, 0.25, _dusk),
    "lamp switched on": Kind(_mixed, 0.25, _switched_on),
}


def flicker(frames: Tensor, kind: str, *, seed: int, strength: float | None = None) -> tuple[Tensor, Tensor]:
    """Return frames that flicker, and the truth, both rounded to 8 bits.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1. Of the kind "processed" they are the steady original.
        kind: one of ``KINDS``.
        seed: of the scene and of the flicker.
        strength: about the deviation of the flicker, in log gain or, of the kind "published", in value; 0 gives the
            truth twice. That of the kind where it is None.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    found, (count, height, width) = KINDS[kind], frames.shape[:3]
    truth = found.scene(frames, Extent(count, height, width, torch.Generator().manual_seed(seed + 1000)))
    of = Extent(count, height, width, torch.Generator().manual_seed(seed))
    change = found.change(of, found.strength if strength is None else strength)
    centred = change.map(lambda part: part - part.mean(dim=0))
    return _rounded(changed(truth, centred)), _rounded(truth)


def _rounded(frames: Tensor) -> Tensor:
    return (frames * 255.0).round_().div_(255.0)
