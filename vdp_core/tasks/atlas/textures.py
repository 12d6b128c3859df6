"""Textures of layers, solved from the frames through the mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...image.inpaint import inpaint
from ...image.sample import sample
from ...image.splat import Splat

__all__ = ["KNOWN", "Look", "Texture", "solve"]

KNOWN = 0.3
"""Weight of what was laid on a pixel of a texture from which on it is known."""
HARDLY = 0.05
"""Weight of nothing, beside that of pixels, in a step of the least squares."""


class Look(NamedTuple):
    """What a frame shows of a layer."""

    colours: Tensor
    """``(3, h, w)``."""
    places: Tensor
    """``(2, h, w)``, (x, y) in pixels of the texture."""
    share: Tensor
    """``(h, w)`` in 0..1, how much of each pixel is the layer's."""


@dataclass
class Texture:
    """Colours of a layer, and how often each was seen."""

    values: Tensor
    """``(4, H, W)``: colours, and the weight of what was laid there."""
    origin: Tensor
    """(x, y) of the outer corner of its first pixel, among the places that mappings lead to."""
    finer: float
    """How many of its pixels there are along a unit of those places."""

    def placed(self, places: Tensor) -> Tensor:
        """Places ``(..., 2, h, w)`` that mappings lead to, in pixels of the texture."""
        return (places + 0.5 - self.origin.to(places).view(2, 1, 1)) * self.finer - 0.5

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Colours ``(3, h, w)`` at places ``(2, h, w)`` in pixels of it, and where they are known, ``(h, w)`` bool."""
        read = sample(self.values[None], places.movedim(0, -1)[None])[0]
        return read[:3], read[3] > KNOWN


def solve(looks: Callable[[], Iterable[Look]], size: tuple[int, int], sharpening: int, device: torch.device) -> Tensor:
    """The texture that gives back best what frames show of a layer, ``(4, H, W)``: colours, and the weight laid there.

    The weighted mean of what lies on each pixel, filled in from around where nothing does; then steps of simultaneous
    iterative reconstruction (Gilbert, 1972): what is left over is laid down in the same way. They sharpen what the mean
    of pixels that lie beside each other blurs.

    Args:
        looks: gives what each frame shows, once for each step.
        size: (H, W) of the texture.
        sharpening: how many steps.
        device: where it is.
    """
    first = Splat(size, 3, device)
    for look in looks():
        first.lay(look.colours, look.places, look.share)
    sums = first.sums
    seen = sums[3:]
    colours = inpaint((sums[:3] / seen.clamp_min(1e-6))[None], (seen / (seen + 0.1)).clamp_min(1e-8)[None])[0]
    for _ in range(sharpening):
        rest = Splat(size, 3, device)
        for look in looks():
            shown = sample(colours[None], look.places.movedim(0, -1)[None])[0]
            rest.lay(look.colours - shown, look.places, look.share)
        sums = rest.sums
        colours = colours + sums[:3] / (sums[3:] + HARDLY)
    return torch.cat((colours.clamp(0.0, 1.0), seen))
