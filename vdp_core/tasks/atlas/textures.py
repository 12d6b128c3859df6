"""Textures of layers, solved from the frames through the mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...image.inpaint import inpaint
from ...image.sample import averaged
from ...image.splat import Splat
from ...models.atlas import taps_along

__all__ = ["KNOWN", "Canvas", "Look", "Texture", "solve"]

KNOWN = 0.3
"""Weight of what was laid on a pixel of a texture from which on it is known."""
HARDLY = 0.05
"""Weight of nothing, beside that of pixels, in a step of the least squares."""
TINY = 1e-20
"""Least square that is divided by."""


class Look(NamedTuple):
    """What a frame shows of a layer."""

    colours: Tensor
    """``(3, h, w)``."""
    taps: Tensor
    """``(K, 2, h, w)``, (x, y) in pixels of the texture, of which a pixel is the mean."""
    share: Tensor
    """``(h, w)`` in 0..1, how much of each pixel is the layer's."""

    def of(self, picture: Tensor) -> Tensor:
        """What the frame would show, ``(3, h, w)``, of a texture ``(3, H, W)``."""
        return averaged(picture, self.taps)


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

    def along(self, places: Tensor, blur: Tensor) -> Tensor:
        """Taps ``(K, 2, h, w)`` in pixels of the texture, see ``models.atlas.taps_along``.

        Args:
            places: ``(2, h, w)`` that mappings lead to.
            blur: ``(2, h', w')``, how far they move while the shutter is open.
        """
        return taps_along(self.placed(places), self.finer * blur)

    def relative(self, places: Tensor) -> Tensor:
        """The same as shares of the texture's width and height."""
        return (self.placed(places) + 0.5) / places.new_tensor(self.size[::-1]).view(2, 1, 1)

    def share_of(self, ways: Tensor) -> Tensor:
        """Ways ``(..., 2, h, w)`` from one place to another as shares of the same."""
        return ways * (self.finer / ways.new_tensor(self.size[::-1]).view(2, 1, 1))


class Texture(NamedTuple):
    """Colours of a layer, and how often each was seen."""

    canvas: Canvas
    values: Tensor
    """``(4, H, W)``: colours, and the weight of what was laid there."""

    def at(self, taps: Tensor) -> tuple[Tensor, Tensor]:
        """Colours ``(3, h, w)`` as the mean of taps ``(K, 2, h, w)`` in pixels of it, and where they are known."""
        read = averaged(self.values, taps)
        return read[:3], read[3] > KNOWN


Looks = Callable[[], Iterable[tuple[int, Look]]]


def solve(looks: Looks, canvases: Mapping[int, Canvas], sharpening: int, device: torch.device) -> dict[int, Texture]:
    """The textures that give back best what frames show of layers.

    The weighted mean of what lies on each pixel, filled in from around where nothing does; then steps of conjugate
    gradients on the least squares (Hestenes and Stiefel, 1952), each pixel of a texture scaled by what was laid on it.
    They sharpen what the mean of pixels that lie beside each other blurs.

    Args:
        looks: gives what each frame shows of each layer, by the layer's number, once for each step.
        canvases: of the textures, by the number of the layer.
        sharpening: how many steps.
        device: where they are.
    """
    sums = _laid(looks, canvases, device, lambda _, look: look.colours)
    seen = {number: laid[3:] for number, laid in sums.items()}
    colours = {number: _filled(laid) for number, laid in sums.items()}
    left = _laid(looks, canvases, device, lambda number, look: look.colours - look.of(colours[number]))
    rest = {number: laid[:3] for number, laid in left.items()}
    ways = {number: torch.zeros_like(laid) for number, laid in rest.items()}
    sizes = {number: torch.full((3, 1, 1), torch.inf, device=device) for number in rest}
    for _ in range(sharpening):
        for number, laid in rest.items():
            scaled = laid / (seen[number] + HARDLY)
            size = _products(laid, scaled)
            ways[number] = scaled + size / sizes[number].clamp_min(TINY) * ways[number]
            sizes[number] = size
        answers = _laid(looks, canvases, device, lambda number, look: look.of(ways[number]))
        for number, laid in answers.items():
            step = sizes[number] / _products(ways[number], laid[:3]).clamp_min(TINY)
            colours[number] = colours[number] + step * ways[number]
            rest[number] = rest[number] - step * laid[:3]
    return {
        number: Texture(canvas, torch.cat((colours[number].clamp(0.0, 1.0), seen[number])))
        for number, canvas in canvases.items()
    }


def _products(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(1, 2), keepdim=True)


def _laid(
    looks: Looks, canvases: Mapping[int, Canvas], device: torch.device, colours_of: Callable[[int, Look], Tensor]
) -> dict[int, Tensor]:
    """What all frames lay on each canvas, ``(4, H, W)``: sums of colours and of weights."""
    splats = {number: Splat(canvas.size, 3, device) for number, canvas in canvases.items()}
    for number, look in looks():
        colours = colours_of(number, look)
        for places in look.taps:
            splats[number].lay(colours, places, look.share / len(look.taps))
    return {number: splat.sums for number, splat in splats.items()}


def _filled(sums: Tensor) -> Tensor:
    seen = sums[3:]
    return inpaint((sums[:3] / seen.clamp_min(1e-6))[None], (seen / (seen + 0.1)).clamp_min(1e-8)[None])[0]
