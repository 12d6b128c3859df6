"""Textures of layers, solved from the frames through the mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...image.inpaint import inpaint
from ...image.sample import sample
from ...image.splat import Splat

__all__ = ["KNOWN", "Canvas", "Look", "Texture", "solve"]

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


class Canvas(NamedTuple):
    """Where a texture lies among the places that mappings lead to."""

    size: tuple[int, int]
    """(H, W) in pixels."""
    origin: Tensor
    """(x, y) of the outer corner of its first pixel."""
    finer: float
    """How many of its pixels there are along a unit of those places."""

    def placed(self, places: Tensor) -> Tensor:
        """Places ``(..., 2, h, w)`` that mappings lead to, in pixels of the texture."""
        return (places + 0.5 - self.origin.to(places).view(2, 1, 1)) * self.finer - 0.5

    def relative(self, places: Tensor) -> Tensor:
        """The same as shares of the texture's width and height."""
        return (self.placed(places) + 0.5) / places.new_tensor(self.size[::-1]).view(2, 1, 1)


class Texture(NamedTuple):
    """Colours of a layer, and how often each was seen."""

    canvas: Canvas
    values: Tensor
    """``(4, H, W)``: colours, and the weight of what was laid there."""

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Colours ``(3, h, w)`` at places ``(2, h, w)`` in pixels of it, and where they are known, ``(h, w)`` bool."""
        read = sample(self.values[None], places.movedim(0, -1)[None])[0]
        return read[:3], read[3] > KNOWN


Looks = Callable[[], Iterable[tuple[int, Look]]]


def solve(looks: Looks, canvases: Mapping[int, Canvas], sharpening: int, device: torch.device) -> dict[int, Texture]:
    """The textures that give back best what frames show of layers.

    The weighted mean of what lies on each pixel, filled in from around where nothing does; then steps of simultaneous
    iterative reconstruction (Gilbert, 1972): what is left over is laid down in the same way. They sharpen what the mean
    of pixels that lie beside each other blurs.

    Args:
        looks: gives what each frame shows of each layer, by the layer's number, once for each step.
        canvases: of the textures, by the number of the layer.
        sharpening: how many steps.
        device: where they are.
    """
    sums = _laid(looks, canvases, device, lambda _, look: look.colours)
    seen = {number: laid[3:] for number, laid in sums.items()}
    colours = {number: _filled(laid) for number, laid in sums.items()}
    for _ in range(sharpening):
        rest = _laid(looks, canvases, device, lambda number, look: look.colours - _shown(colours[number], look))
        for number, laid in rest.items():
            colours[number] = colours[number] + laid[:3] / (laid[3:] + HARDLY)
    return {
        number: Texture(canvas, torch.cat((colours[number].clamp(0.0, 1.0), seen[number])))
        for number, canvas in canvases.items()
    }


def _laid(
    looks: Looks, canvases: Mapping[int, Canvas], device: torch.device, colours_of: Callable[[int, Look], Tensor]
) -> dict[int, Tensor]:
    """What all frames lay on each canvas, ``(4, H, W)``: sums of colours and of weights."""
    splats = {number: Splat(canvas.size, 3, device) for number, canvas in canvases.items()}
    for number, look in looks():
        splats[number].lay(colours_of(number, look), look.places, look.share)
    return {number: splat.sums for number, splat in splats.items()}


def _filled(sums: Tensor) -> Tensor:
    seen = sums[3:]
    return inpaint((sums[:3] / seen.clamp_min(1e-6))[None], (seen / (seen + 0.1)).clamp_min(1e-8)[None])[0]


def _shown(colours: Tensor, look: Look) -> Tensor:
    return sample(colours[None], look.places.movedim(0, -1)[None])[0]
