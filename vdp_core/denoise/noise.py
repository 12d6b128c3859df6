"""The noise level of a clip."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ..store.transfer import send
from ..types import Layers
from .blocks import BLOCK, brightness_of, dct_basis, split, to_opponent

__all__ = ["ROUNDING", "Noise", "estimate_noise", "high_frequency_energy_of"]

COLOUR_SHARE = 0.7
"""Least deviation of the noise in colour, as a share of that in brightness: files that store colour at half size keep
noise only in its low frequencies, where it cannot be told from picture. Grey clips have no colour to lose."""
NEGLIGIBLE = 0.4 / 255  # below this deviation, noise cannot be seen
ROUNDING = 1.0 / (255 * math.sqrt(12.0))
"""The deviation that rounding to 8 bits has; where haze leaves blocks flat, rounding hides itself from estimates."""

Number = float | Tensor


@dataclass(frozen=True)
class Noise:
    """Gaussian noise whose variance grows with brightness: ``variance = offset + slope * brightness``.

    One pair of numbers for each opponent channel, in the units of frames in 0..1; sensor noise has a slope. Those of a
    single frame are scalars on its device, so that nobody has to wait for them.
    """

    offset: tuple[Number, Number, Number]
    slope: tuple[Number, Number, Number]
    high_frequency_energy: float = 1.0
    """Mean high-frequency energy of the clip; a frame with more energy is noisier."""

    @classmethod
    def of(cls, layers: Layers, frame: int) -> Noise:
        """The noise of a frame of the source, as it was estimated when the layers were found."""
        a, b, c, d, e, f, high_frequency_energy = layers.fields["noise"][frame].flatten().tolist()
        return cls((a, b, c), (d, e, f), high_frequency_energy)

    def field(self, count: int) -> Tensor:
        """What layers keep of it, the same for ``count`` frames: ``(count, 7, 1, 1)``."""
        return (
            torch.tensor((*self.offset, *self.slope, self.high_frequency_energy))
            .view(1, -1, 1, 1)
            .repeat(count, 1, 1, 1)
        )

    def negligible(self, gain: float = 1.0) -> bool:
        """Whether there is nothing to remove, at any brightness, from frames whose contrast is to grow by ``gain``."""
        return all(gain * math.sqrt(a + b) < NEGLIGIBLE for a, b in zip(self.offset, self.slope, strict=True))

    def scaled(self, factor: Number) -> Noise:
        """Return noise of ``factor`` times the variance."""
        offset, slope = ([factor * value for value in values] for values in (self.offset, self.slope))
        return replace(self, offset=(offset[0], offset[1], offset[2]), slope=(slope[0], slope[1], slope[2]))

    def less(self, variance: float) -> Noise:
        """Return noise whose variance is by so much smaller, or zero."""
        offset = [max(float(value) - variance, 0.0) for value in self.offset]
        return replace(self, offset=(offset[0], offset[1], offset[2]))

    def variance(self, brightness: Tensor) -> Tensor:
        """Return the variances ``(N, 3, ...)`` at a brightness ``(N, 1, ...)``."""
        level = brightness.clamp_min(0.0)
        return torch.cat([offset + slope * level for offset, slope in zip(self.offset, self.slope, strict=True)], dim=1)


def estimate_noise(frames: Tensor, *, samples: int = 12, device: torch.device | str = "cpu") -> Noise:
    """Estimate the noise of a clip from the highest frequencies of its flattest blocks.

    At each brightness the quietest twentieth of the 8x8 blocks holds hardly anything but noise there, also in clips
    that are textured all over. Follows the idea of Ponomarenko et al., "An automatic approach to lossy compression of
    AVIRIS images", 2007. Rounding to 8 bits is the least that is found.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        samples: number of frames looked at, evenly spread.
        device: where to compute.
    """
    if min(frames.shape[1:3]) < BLOCK:
        return Noise((ROUNDING**2,) * 3, (0.0,) * 3)
    some = torch.linspace(0, len(frames) - 1, min(samples, len(frames))).round().long().tolist()
    levels, deviations = zip(
        *(_noise_levels(to_opponent(send(frames[index : index + 1], device).float())) for index in some), strict=True
    )
    level, deviation = torch.cat(levels), torch.cat(deviations, dim=1)
    order = level.argsort()
    bins = [part for part in order.tensor_split(8) if len(part) > 0]
    brightness = torch.stack([level[part].mean() for part in bins])
    # the root mean square of n normal values lies below 1 - 1.645 / sqrt(2 n) one time in twenty
    lowest = 1.0 - 1.645 / math.sqrt(2 * len(_high(level.device)))
    variance = torch.stack([(deviation[:, part].quantile(0.05, dim=1) / lowest).square() for part in bins])
    variance = torch.maximum(variance, variance[:, :1] * COLOUR_SHARE**2).clamp_min(ROUNDING**2)
    pairs = [_line(brightness, variance[:, channel]) for channel in range(3)]
    energies = [float(_lower_half_energy(of_frame[0])) for of_frame in deviations]
    high_frequency_energy = max(sum(energies) / len(some), 1e-12)
    return Noise(
        (pairs[0][0], pairs[1][0], pairs[2][0]), (pairs[0][1], pairs[1][1], pairs[2][1]), high_frequency_energy
    )


@cache
@torch.inference_mode(False)
def _high(device: torch.device) -> Tensor:
    """Numbers of those of the 64 DCT coefficients of a block that count as high frequencies."""
    frequency = torch.arange(BLOCK, device=device)
    return (frequency[:, None] + frequency[None, :] > BLOCK).flatten().nonzero()[:, 0]


def _noise_levels(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Of the 8x8 blocks of opponent pictures ``(1, C, H, W)``: brightness ``(n,)``, deviation of the high frequencies
    ``(C, n)``."""
    height, width = (side // BLOCK * BLOCK for side in pictures.shape[-2:])
    blocks = split(pictures[..., :height, :width]) @ dct_basis(pictures.device).T
    high = blocks[0].index_select(-1, _high(blocks.device))
    return brightness_of(blocks)[0].flatten(), high.square().mean(-1).sqrt().flatten(1)


def high_frequency_energy_of(noisy: Tensor) -> Tensor:
    """Mean high-frequency energy of an opponent picture ``(1, 3, H, W)``, in brightness, a scalar on its device; 1
    where it has no blocks."""
    if min(noisy.shape[-2:]) < BLOCK:
        return noisy.new_ones((), dtype=torch.float64)
    return _lower_half_energy(_noise_levels(noisy[:, :1])[1][0])


def _lower_half_energy(deviation: Tensor) -> Tensor:
    """Mean energy of the quieter half of the blocks ``(n,)``."""
    energy = deviation.square().sort().values
    return energy[: (len(energy) + 1) // 2].mean().double()


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Least-squares offset and slope, neither of them below zero."""
    squares = (x - x.mean()).square().sum()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / squares) if squares > 0 else 0.0
    offset = float(y.mean()) - slope * float(x.mean())
    if slope < 0.0:
        return float(y.mean()), 0.0
    if offset < 0.0:
        return 0.0, float((x * y).sum() / x.square().sum())
    return offset, slope
