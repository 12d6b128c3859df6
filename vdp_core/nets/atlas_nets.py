"""The four networks of Layered Neural Atlases (Kasten, Ofri, Wang and Dekel, SIGGRAPH Asia 2021), of places alone.

Two mappings lead from a place (x, y, t) of the clip to one (u, v) in -1..1: those of the background and of the object.
One atlas has the colours of both, the object's in 0..1 along u and v, the background's in -1..0. Alpha says how much of
a place is the object's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PUBLISHED", "AtlasNets", "PlaceNet", "Shape", "coordinates"]


class Shape(NamedTuple):
    """How a network is built."""

    layers: int
    """Linear ones, the last one included."""
    width: int = 256
    frequencies: int = 0
    """Of the positional encoding; 0: places as they are."""
    skips: tuple[int, ...] = ()
    """Layers that see the encoded places again."""

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], inputs: int) -> Shape:
        """How the network was built whose weights these are.

        Args:
            weights: of ``PlaceNet``, by name; of others, any shape at all comes out.
            inputs: coordinates of a place.
        """
        sides = [value.shape[-1] for name, value in weights.items() if name.endswith(".weight") and value.ndim > 0]
        first = next((value for value in weights.values() if value.ndim > 0), torch.zeros(1))
        encoded, width = first.shape[-1], first.shape[0]
        skips = (number for number, side in enumerate(sides) if number > 0 and side != width)
        return cls(len(sides), width, 0 if encoded == inputs else encoded // (2 * inputs), tuple(skips))


PUBLISHED: Mapping[str, Shape] = {
    "background": Shape(4),
    "object": Shape(6),
    "texture": Shape(8, frequencies=10, skips=(4, 7)),
    "alpha": Shape(8, frequencies=5),
}
"""In all 1,217,152 parameters."""


class PlaceNet(nn.Module):
    """A multilayer perceptron of places, with ReLU between its layers and a tanh at the end.

    Places are encoded as ``sin(2^j pi x)`` and ``cos(2^j pi x)`` of each coordinate for ``j = 0 .. frequencies - 1``
    (Mildenhall et al., "NeRF", ECCV 2020, eq. 4). Parameters have the published names.
    """

    def __init__(self, inputs: int, outputs: int, shape: Shape) -> None:
        super().__init__()
        encoded = 2 * inputs * shape.frequencies or inputs
        ins = [
            encoded if number == 0 else shape.width + encoded * (number in shape.skips)
            for number in range(shape.layers)
        ]
        outs = [*[shape.width] * (shape.layers - 1), outputs]
        self.hidden = nn.ModuleList(nn.Linear(*sides) for sides in zip(ins, outs, strict=True))
        self._skips = shape.skips
        octaves = math.pi * 2.0 ** torch.arange(shape.frequencies, dtype=torch.float32, device="cpu")
        self.register_buffer("_octaves", octaves, persistent=False)
        self._octaves: Tensor

    def forward(self, places: Tensor) -> Tensor:
        """``(N, inputs)`` to ``(N, outputs)`` in -1..1."""
        encoded = places
        if len(self._octaves) > 0:
            angles = self._octaves[:, None] * places[:, None]
            encoded = torch.cat((angles.sin(), angles.cos()), dim=2).flatten(1)
        values = self.hidden[0](encoded)
        # as published, no gradient reaches the places through a skip
        again = encoded.detach()
        for number, layer in enumerate(self.hidden[1:], 1):
            values = F.relu(values, inplace=True)
            values = layer(torch.cat((values, again), dim=1) if number in self._skips else values)
        return torch.tanh(values)


class AtlasNets(nn.Module):
    """The four networks; layer 0 is the background, layer 1 the object."""

    def __init__(self, shapes: Mapping[str, Shape] = PUBLISHED) -> None:
        super().__init__()
        self.mappings = nn.ModuleList(PlaceNet(3, 2, shapes[name]) for name in ("background", "object"))
        self.atlas = PlaceNet(2, 3, shapes["texture"])
        self.alpha = PlaceNet(3, 1, shapes["alpha"])

    def mapping(self, layer: int, places: Tensor) -> Tensor:
        """Where places ``(N, 3)`` of ``coordinates`` lie in the layer's half of the atlas, ``(N, 2)`` in -1..1."""
        found: Tensor = self.mappings[layer](places)
        return found

    def colours(self, layer: int, uv: Tensor) -> Tensor:
        """Colours ``(N, 3)`` in 0..1 of a layer at places ``(N, 2)`` in -1..1 of its half."""
        half = 0.5 if layer == 1 else -0.5
        return 0.5 * (self.atlas(0.5 * uv + half) + 1.0)

    def forward(self, places: Tensor) -> Tensor:
        """Colours ``(N, 3)`` in 0..1 that are rebuilt of the clip at places ``(N, 3)``."""
        background, front = (self.colours(layer, self.mapping(layer, places)) for layer in (0, 1))
        return torch.lerp(background, front, self.opacity(places)[:, None])

    def opacity(self, places: Tensor) -> Tensor:
        """How much of places ``(N, 3)`` is the object's, ``(N,)`` in 0.001..0.991, as published."""
        return 0.495 * (self.alpha(places)[:, 0] + 1.0) + 0.001


def coordinates(points: Tensor, size: tuple[int, int], count: int) -> Tensor:
    """What the networks take for points ``(..., 3)``: x and y in pixels of frames of ``size`` = (H, W), t in frames.

    As published, -1 is the first of each, and 1 what would come after the longer side's last pixel and the last frame.
    """
    half = 0.5 * max(size)
    x, y, t = points.unbind(dim=-1)
    return torch.stack((x / half, y / half, t / (0.5 * count)), dim=-1) - 1.0
