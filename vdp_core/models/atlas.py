"""Atlas: ``x = light * sum_i m_i texture_i(map_i(x, y))``; layer 0 is the background, the others are in front of it.

A texture shows all that was ever seen of a layer; the mapping of a frame says where in it each pixel lies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import LayersFileError
from ..image.knots import through
from ..image.sample import sample
from ..store.transfer import send
from ..types import Layers
from .base import Field, Model
from .masks import check_masks, layer_names
from .plate import matte_of

__all__ = ["LIGHT", "MODEL", "compose", "light_of", "rebuild", "split", "texture_at"]

LIGHT = (4, 7)
"""Knots (h, w) of the light of a frame."""


def light_of(light: Tensor, size: tuple[int, int]) -> Tensor:
    """The light ``(3, H, W)`` of a frame, of logarithms at its knots ``(3, h, w)``."""
    return through(light, size).exp_()


def texture_at(layers: Layers, number: int, index: int, device: torch.device) -> Tensor:
    """What a layer's texture shows in each pixel of a frame, without its light: colours and weight, ``(4, H, W)``."""
    texture = send(layers.assets[f"texture_{number}"], device).float()
    size = (layers.frames.shape[1], layers.frames.shape[2])
    mapping = through(send(layers.fields["mapping"][index, number], device), size)
    corner = mapping.new_tensor([texture.shape[2], texture.shape[1]]).view(2, 1, 1)
    return sample(texture[None], (mapping * corner - 0.5).movedim(0, -1)[None])[0]


def compose(layers: Layers, start: int, stop: int, frames: Tensor) -> Tensor:
    """What textures, mappings and light rebuild of frames ``start`` to ``stop``, ``(n, H, W, 3)`` in 0..1."""
    numbered = zip(range(start, stop), frames, strict=True)
    return torch.stack([_rebuilt(layers, index, frame) for index, frame in numbered])


def _rebuilt(layers: Layers, index: int, frame: Tensor) -> Tensor:
    masks = matte_of(layers, index, frame).masks
    colours = torch.zeros_like(frame).movedim(-1, 0)
    for number, mask in enumerate(masks):
        if bool(mask.any()):
            colours = colours + mask * texture_at(layers, number, index, frame.device)[:3]
    light = light_of(send(layers.fields["light"][index], frame.device), (frame.shape[0], frame.shape[1]))
    return (colours * light).clamp_(0.0, 1.0).movedim(0, -1)


def rebuild(layers: Layers, start: int, stop: int, composed: Tensor) -> Tensor:
    """The source as ``compose`` gives it."""
    return composed


def split(layers: Layers, number: int, index: int, frame: Tensor) -> tuple[Tensor, Tensor]:
    """A layer as its texture shows it, behind others too, and its mask; see ``base.Split``."""
    mask = matte_of(layers, index, frame).masks[number]
    light = light_of(send(layers.fields["light"][index], frame.device), (frame.shape[0], frame.shape[1]))
    colours = texture_at(layers, number, index, frame.device)[:3] * light
    return colours.clamp_(0.0, 1.0).movedim(0, -1), mask


def _invariant(layers: Layers) -> None:
    """Refuse masks that do not add up, and layers without a texture.

    Raises:
        LayersFileError: what is missing or impossible.
    """
    check_masks(layers)
    for number in range(layers.fields["masks"].shape[1]):
        if f"texture_{number}" not in layers.assets:
            raise LayersFileError(f"the layers hold no texture of layer {number}; save them again")


MODEL = Model(
    name="atlas",
    fields=(
        Field("masks", ("L", "h", "w"), low=-1e-3),
        Field("mapping", ("L", 2, "h'", "w'")),
        Field("light", (3, *LIGHT)),
        Field("texture", (4, None, None), per="layer", low=0.0),
    ),
    compose=compose,
    rebuild=rebuild,
    split=split,
    layer_names=layer_names,
    invariant=_invariant,
)
