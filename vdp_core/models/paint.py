"""Layers painted over each other."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.colour import as_is, regrade, to_display, to_linear
from ..image.matting import bounding_box
from ..store.transfer import send
from ..types import Edit, Layers
from .base import Look
from .plate import matte_of, picture_of, shade_of

__all__ = ["paint", "untouched"]


def untouched(layers: Layers, start: int, stop: int, look: Look, device: torch.device | str = "cpu") -> Tensor:
    """The source as the layers give it back, without edits or replaced pictures: ``(stop - start, H, W, 3)``."""
    layers = replace(layers, edits={}, pictures={})
    return torch.stack([paint(layers, index, look, False, torch.device(device))[0] for index in range(start, stop)])


def paint(layers: Layers, index: int, look: Look, linear_light: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """One frame with everything done to it, ``(H, W, 3)``, and what of it is objects, ``(H, W)``.

    Args:
        layers: masks, edits and replaced pictures.
        index: which frame.
        look: of their model.
        linear_light: mix in light instead of display values.
        device: where to compute.
    """
    frame = send(layers.frames[index], device).contiguous()
    matte = matte_of(layers, index, frame)
    count = len(matte.masks)
    edits = [layers.edits.get(layer, Edit()) for layer in range(count)]
    revealing = [
        layer
        for layer in range(1, count)
        if edits[layer].visibility < 1.0 or edits[layer].offset != (0.0, 0.0) or f"mask_{layer}" in layers.pictures
    ]
    shade = shade_of(layers, index, (len(frame), frame.shape[1]), device)
    cast = layers.edits.get(count, Edit())
    changed = shade is not None and (cast.visibility < 1.0 or cast.offset != (0.0, 0.0))
    seen_through = bool(revealing) or edits[0].offset != (0.0, 0.0) or changed
    whole = seen_through and "colour_0" not in layers.pictures
    own = look(layers, index, frame, matte, whole=whole, linear_light=linear_light)
    out = picture_of(layers, "colour_0", index, device)
    out = own.background if out is None else out.clone()
    light, display = (to_linear, to_display) if linear_light else (as_is, as_is)
    out = regrade(out, edits[0], linear_light)
    if edits[0].offset != (0.0, 0.0):
        out = _shift(out, edits[0].offset)
    if shade is not None and (seen_through or "colour_0" in layers.pictures):
        out = out * _moved_shade(shade, cast)
    shown = torch.zeros_like(matte.masks[0])
    for layer in range(1, count):
        change = edits[layer]
        opacity = picture_of(layers, f"mask_{layer}", index, device)
        if opacity is None:
            opacity = matte.masks[layer]
        if change.visibility <= 0.0 or not bool(opacity.any()):
            continue
        part = bounding_box(opacity)
        opacity = opacity[part]
        if layer < count - 1:  # what the layers in front of it leave
            opacity = opacity / (1.0 - matte.masks[layer + 1 :, part[0], part[1]].sum(dim=0)).clamp_min(1e-6)
        opacity = opacity.clamp(0.0, 1.0) * change.visibility
        colour = picture_of(layers, f"colour_{layer}", index, device)
        colour = own.objects(layer, part) if colour is None else colour[part]
        colour = regrade(colour, replace(change, visibility=1.0), linear_light)
        colour = light(colour) * opacity[..., None]
        # what is premultiplied moves without colours from beyond its border coming in
        place, crop = _places(part, change.offset, (len(out), out.shape[1]))
        colour, opacity = (_subpixel(values, change.offset)[crop] for values in (colour, opacity[..., None]))
        out[place] = display(torch.addcmul(colour, light(out[place]), 1.0 - opacity))
        shown[place] += opacity[..., 0] * (1.0 - shown[place])
    return out.clamp_(0.0, 1.0), shown


def _moved_shade(shade: Tensor, cast: Edit) -> Tensor:
    """A shadow ``(H, W, 3)`` as an edit has it: fainter, and elsewhere."""
    size = (shade.shape[0], shade.shape[1])
    place, crop = _places((slice(0, size[0]), slice(0, size[1])), cast.offset, size)
    out = torch.ones_like(shade)
    out[place] += _subpixel((shade - 1.0) * cast.visibility, cast.offset)[crop]
    return out


def _shift(picture: Tensor, offset: tuple[float, float]) -> Tensor:
    """Move ``(H, W, C)`` by (dx, dy) pixels, bilinearly; the borders are repeated."""
    for axis, by in ((1, offset[0]), (0, offset[1])):
        source = torch.arange(picture.shape[axis], device=picture.device) - math.floor(by)
        whole, next_one = (
            picture.index_select(axis, (source - more).clamp_(0, picture.shape[axis] - 1)) for more in (0, 1)
        )
        picture = whole.lerp_(next_one, by % 1.0)
    return picture


def _subpixel(picture: Tensor, offset: tuple[float, float]) -> Tensor:
    """Move ``(h, w, C)`` by what (dx, dy) has beyond whole pixels, bilinearly: it grows by a row and a column."""
    for pad, by in (((0, 0, 0, 1), offset[0]), ((0, 0, 0, 0, 0, 1), offset[1])):
        if by % 1.0 > 0.0:
            before = (*pad[:-2], *pad[:-3:-1])
            picture = F.pad(picture, pad).lerp_(F.pad(picture, before), by % 1.0)
    return picture


def _places(
    part: tuple[slice, slice], offset: tuple[float, float], size: tuple[int, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a part of a picture of some size comes to lie when it is moved ``_subpixel``, and what of it is inside."""
    places, crops = [], []
    for side, by, limit in zip(part, (offset[1], offset[0]), size, strict=True):
        start, stop = side.start + math.floor(by), side.stop + math.ceil(by)
        first, last = min(max(start, 0), limit), max(min(stop, limit), 0)
        places.append(slice(first, max(first, last)))
        crops.append(slice(first - start, max(first, last) - start))
    return tuple(places), tuple(crops)
