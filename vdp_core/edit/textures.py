"""What an atlas holds, as pictures: textures, and checkerboards, mappings and light in the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..image.checkerboard import SQUARES, checkerboard
from ..image.knots import through
from ..image.morphology import dilate
from ..models.atlas import MODEL as ATLAS
from ..models.atlas import light_of, mapping_of
from ..models.masks import share_of
from ..models.plate import matte_of
from ..store.lazy import LazyFrames, later
from ..store.transfer import send
from ..types import Layers

__all__ = ["check_texture", "checker", "light_picture", "mapping_picture", "texture_picture"]

FILL = 0.5
"""Grey of a texture where nothing was seen."""
HARDLY = 0.05
"""Weight of what was seen of a pixel of a texture below which its colour is not shown."""
GAPS = 2
"""Pixels of a texture between two that were laid down; what lies there was seen from further away."""
SHOWN = 0.5
"""Share of a pixel from which on it says how fine a mapping is."""


def check_texture(layers: Layers, number: int | None) -> None:
    """Refuse layers of another model, and a number that no layer has; None where it is not known yet.

    Raises:
        InputError: either.
    """
    ATLAS.require(layers, "AtlasTexture")
    if number is not None and layers.fields:
        ATLAS.check_layer(layers, number)


def texture_picture(layers: Layers, number: int) -> tuple[Tensor, Tensor]:
    """A layer's texture ``(1, H', W', 3)`` in 0..1, grey where nothing was seen, and where it was, ``(1, H', W')``.

    Raises:
        InputError: see ``check_texture``.
    """
    check_texture(layers, number)
    texture = layers.assets[f"texture_{number}"].float()
    seen = texture[3:].clamp(0.0, 1.0)
    # closed: most of what is left out between pixels that lie apart
    seen = 1.0 - dilate(1.0 - dilate(seen, GAPS), GAPS)
    picture = torch.where(seen > HARDLY, texture[:3].clamp(0.0, 1.0), FILL)
    return picture.movedim(0, -1)[None].contiguous(), seen


def checker(layers: Layers, number: int, *, device: torch.device | str = "cpu") -> LazyFrames:
    """The clip ``(T, H, W, 3)`` in 0..1 with a checkerboard, laid through the mapping, in place of a layer's texture.

    Where a mapping is right, squares stay on what they lie on. Each 4th line is marked: orange
    across, blue down.

    Raises:
        InputError: see ``check_texture``.
    """
    check_texture(layers, number)
    place = torch.device(device)
    # in pixels of the texture, from whose corner squares are counted
    side = layers.frames.shape[2] / SQUARES * _fineness(layers, number)

    def made(index: int) -> Tensor:
        frame = send(layers.frames[index], place).contiguous()
        board = checkerboard((mapping_of(layers, number, index, place) + 0.5) / side, number)
        light = light_of(send(layers.fields["light"][index], place), (frame.shape[0], frame.shape[1]))
        share = share_of(layers, number, index, matte_of(layers, index, frame))
        return frame.lerp((board * light).clamp(0.0, 1.0).movedim(0, -1), share[..., None])

    return _clip(layers, made)


def mapping_picture(layers: Layers, number: int, *, device: torch.device | str = "cpu") -> LazyFrames:
    """Where each pixel lies in a layer's texture, ``(T, H, W, 3)``: across in red, down in green, blue is 0.

    0 is the left or upper edge of the texture, 1 the right or lower one; what lies beyond is on the edge.

    Raises:
        InputError: see ``check_texture``.
    """
    check_texture(layers, number)
    size = (layers.frames.shape[1], layers.frames.shape[2])

    def made(index: int) -> Tensor:
        across, down = through(send(layers.fields["mapping"][index, number], device), size).clamp(0.0, 1.0)
        return torch.stack((across, down, torch.zeros_like(across)), dim=-1)

    return _clip(layers, made)


def light_picture(layers: Layers, *, device: torch.device | str = "cpu") -> LazyFrames:
    """The light of each frame, ``(T, H, W, 3)``: 0.5 plus its natural logarithm, so that grey leaves textures alone.

    Raises:
        InputError: see ``check_texture``.
    """
    check_texture(layers, None)
    size = (layers.frames.shape[1], layers.frames.shape[2])

    def made(index: int) -> Tensor:
        light = through(send(layers.fields["light"][index], device), size)
        return (0.5 + light).clamp(0.0, 1.0).movedim(0, -1)

    return _clip(layers, made)


def _clip(layers: Layers, made: Callable[[int], Tensor]) -> LazyFrames:
    """Frames ``(H, W, 3)`` by their number, made when they are looked at: few look at any of them."""

    @torch.no_grad()
    def walk(start: int) -> Iterator[Tensor]:
        for index in range(start, len(layers)):
            yield made(index)[None]

    return later(walk, tuple(layers.frames.shape))


def _fineness(layers: Layers, number: int) -> float:
    """How many pixels of a layer's texture lie along one of the frame, in the median."""
    count, _, _, rows, columns = layers.fields["mapping"].shape
    seen = [t for t in range(count) if bool((layers.fields["masks"][t, number] > SHOWN).any())]
    if not seen:
        return 1.0
    height, width = layers.assets[f"texture_{number}"].shape[1:]
    size = layers.fields["mapping"].new_tensor([width, height]).view(2, 1, 1)
    areas = torch.empty(len(seen), rows - 1, columns - 1)
    for area, t in zip(areas, seen, strict=True):
        places = layers.fields["mapping"][t, number] * size
        across = places.diff(dim=2)[:, :-1] * ((columns - 1) / layers.frames.shape[2])
        down = places.diff(dim=1)[..., :-1] * ((rows - 1) / layers.frames.shape[1])
        torch.abs(across[0] * down[1] - across[1] * down[0], out=area)
    return max(float(areas.median()) ** 0.5, 1e-3)
