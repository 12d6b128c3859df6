"""Masks: ``x = sum_i m_i c_i`` with masks that sum to one; layer 0 is the background, the others are in front of it.

Where an object's shadow s was found, the background is ``s B``: s multiplies the light B that it has by itself. The
shadow is a layer too, the last one, between the background and the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ..errors import LayersFileError
from ..image.colour import as_is, to_display, to_linear
from ..image.matting import Matte, object_colours, smooth_colours
from ..image.resize import resize
from ..types import Layers
from .base import Colours, Field, Model
from .paint import untouched
from .plate import background_of, clean_plate_of, matte_of, picture_of, shade_of

__all__ = [
    "MODEL",
    "check_masks",
    "check_pictures",
    "compose",
    "layer_names",
    "look",
    "matte_and_colours",
    "of_matte",
    "rebuild",
    "share_of",
    "split",
]


def check_masks(layers: Layers) -> None:
    """Refuse masks that do not add up, or that are of fewer than a background and an object.

    Raises:
        LayersFileError: so they are.
    """
    masks = layers.fields["masks"]
    if masks.shape[1] < 2:
        raise LayersFileError("the layers hold no masks of a background and an object; save them again")
    if any(float((shares.sum(dim=0) - 1.0).abs().max()) > 1e-2 for shares in masks):
        raise LayersFileError("the masks of the layers do not add up to 1; save them again")


def _invariant(layers: Layers) -> None:
    """Refuse masks that do not add up, paths that lead nowhere, and pictures and edits of layers that are not there.

    Raises:
        LayersFileError: what is missing or impossible.
    """
    check_masks(layers)
    for name in ("before", "after"):
        field = layers.fields.get(name)
        if field is None:
            continue
        for index, away in enumerate(field[:, 2]):
            room = index if name == "before" else len(field) - 1 - index
            if not bool(((away >= 0.0) & (away <= room) & (away == away.round())).all()):
                raise LayersFileError(f"the layers' '{name}' points to frames that are not there; save them again")
    check_pictures(layers)


def check_pictures(layers: Layers) -> None:
    """Refuse pictures and edits of layers that are not there.

    Raises:
        LayersFileError: there are some.
    """
    masks = layers.fields["masks"]
    count, height, width, _ = layers.frames.shape
    for name, picture in layers.pictures.items():
        kind, _, which = name.partition("_")
        known = kind in ("colour", "mask") and which.isdecimal() and int(which) < masks.shape[1]
        known = known or (name == "matte" and masks.shape[1] == 2)
        shape = (height, width, 3) if kind == "colour" else (height, width)
        if not known or name == "mask_0" or tuple(picture.shape[1:]) != shape or len(picture) not in (1, count):
            raise LayersFileError(f"the layers' picture '{name}' is {tuple(picture.shape)}; save them again")
    if any(not 0 <= number < len(layer_names(layers)) for number in layers.edits):
        raise LayersFileError("the layers hold an edit of a layer that is not there; save them again")


def of_matte(
    frames: Tensor,
    masks: Tensor,
    matte: Tensor,
    *,
    colours: Tensor | None = None,
    background: Tensor | None = None,
    info: Mapping[str, str],
) -> Layers:
    """Layers of a background and one object whose finished mask is known.

    Args:
        frames: the clip, ``(T, H, W, 3)``.
        masks: small ones, ``(T, 2, h, w)``.
        matte: ``(T or 1, H, W)``, used as it is.
        colours: of the object, ``(T, H, W, 3)``; None takes the frames', freed from their background in mixed pixels.
        background: ``(T or 1, H, W, 3)``; None takes the frames', filled behind the object.
        info: how they were made.
    """
    given = {"matte": matte, "colour_1": colours, "colour_0": background}
    pictures = {name: picture for name, picture in given.items() if picture is not None}
    return Layers(MODEL.name, {"masks": masks}, frames, None, 0, info, pictures=pictures)


def matte_and_colours(layers: Layers) -> tuple[Tensor, Tensor]:
    """The matte ``(T, H, W)`` and the object's colours ``(T, H, W, 3)`` that ``of_matte`` was given."""
    return layers.pictures["matte"], layers.pictures["colour_1"]


def compose(layers: Layers, start: int, stop: int, frames: Tensor) -> Tensor:
    """``sum_i m_i c_i`` for frames ``start`` to ``stop``, ``(n, H, W, 3)``: the layers painted over each other."""
    return untouched(layers, start, stop, look, frames.device)


def rebuild(layers: Layers, start: int, stop: int, composed: Tensor) -> Tensor:
    """The source from what ``compose`` gives: the same, as nothing was changed."""
    return composed


def look(layers: Layers, index: int, frame: Tensor, matte: Matte, *, whole: bool, linear_light: bool) -> Colours:
    """The frame's own colours, and in mixed pixels what each layer has of them; see ``base.Look``."""
    background = background_of(layers, index, frame, matte, whole=whole)
    shade = shade_of(layers, index, (frame.shape[0], frame.shape[1]), frame.device) if whole else None
    seen = background if shade is None else background * shade
    picture, behind = (whose.view(-1, 3)[matte.mixed].T for whose in (frame, seen))
    light, display = (to_linear, to_display) if linear_light else (as_is, as_is)

    @cache  # of objects that are taken out nothing is needed
    def mixed() -> Tensor:
        return display(object_colours(light(picture), replace(matte, coarse=light(matte.coarse)), light(behind)))

    def objects(number: int, part: tuple[slice, slice]) -> Tensor:
        return _own_colours(frame, matte.mixed, mixed()[number - 1], part)

    return Colours(background, objects)


def _own_colours(frame: Tensor, mixed: Tensor, colours: Tensor, part: tuple[slice, slice]) -> Tensor:
    """A part of the frame with a layer's own colours ``(3, N)`` in the mixed pixels."""
    rows, columns = part
    out = frame[part].clone()
    row, column = torch.div(mixed, frame.shape[1], rounding_mode="floor"), mixed % frame.shape[1]
    inside = (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)
    place = (row[inside] - rows.start) * out.shape[1] + (column[inside] - columns.start)
    out.view(-1, 3).index_copy_(0, place, colours[:, inside].T)
    return out


def split(layers: Layers, number: int, index: int, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Layer 0 is the whole background, with the mask of where it is seen, then come objects, then the shadow, as a
    picture that does to the background what the shadow does; see ``base.Split``.

    As they were found or replaced; edits are for painting, and not in it. Objects' colours go on smoothly beyond their
    borders, so that scaling or blurring brings in nothing else.
    """
    matte = matte_of(layers, index, frame)
    if number == len(matte.masks):
        return _shadow(layers, index, frame, matte)
    mask = share_of(layers, number, index, matte)
    colour = picture_of(layers, f"colour_{number}", index, frame.device)
    if colour is None and number == 0:
        colour = clean_plate_of(layers, index, frame, matte)
    elif colour is None:
        colour = _extended(layers, index, frame, matte, number)
    return colour, mask


def _shadow(layers: Layers, index: int, frame: Tensor, matte: Matte) -> tuple[Tensor, Tensor]:
    """The shadow as colours ``(H, W, 3)`` and opacity ``(H, W)``: black, but for its tint, and for what brightens."""
    shade = shade_of(layers, index, (frame.shape[0], frame.shape[1]), frame.device)
    assert shade is not None
    opacity = torch.maximum(1.0 - shade.amin(dim=-1), shade.amax(dim=-1) - 1.0).clamp(0.0, 1.0)
    behind = picture_of(layers, "colour_0", index, frame.device)
    if behind is None:
        behind = clean_plate_of(layers, index, frame, matte)
    share = opacity[..., None]
    return (behind * (shade - 1.0 + share) / share.clamp_min(1e-6)).clamp_(0.0, 1.0), opacity


def share_of(layers: Layers, number: int, index: int, matte: Matte) -> Tensor:
    """The mask ``(H, W)`` of a layer in a frame, found or replaced; the background has what objects leave."""
    given = [picture_of(layers, f"mask_{other}", index, matte.masks.device) for other in range(1, len(matte.masks))]
    shares = [own if one is None else one for own, one in zip(matte.masks[1:], given, strict=True)]
    return shares[number - 1] if number > 0 else (1.0 - torch.stack(shares).sum(dim=0)).clamp(0.0, 1.0)


def _extended(layers: Layers, index: int, frame: Tensor, matte: Matte, number: int) -> Tensor:
    """An object's colours in one frame, smooth where it is not."""
    smooth = smooth_colours(matte, slice(number, number + 1))
    smooth = resize(smooth, (frame.shape[0], frame.shape[1]))[0].movedim(0, -1)
    colour = torch.where(matte.masks[number, ..., None] > 0.5, frame, smooth)
    behind = background_of(layers, index, frame, matte, whole=False).view(-1, 3)[matte.mixed].T
    share = matte.masks[number].view(-1)[matte.mixed]
    found = object_colours(frame.view(-1, 3)[matte.mixed].T, matte, behind)[number - 1]
    colour.view(-1, 3)[matte.mixed] = torch.where(share > 0.0, found, colour.view(-1, 3)[matte.mixed].T).T
    return colour


def layer_names(layers: Layers) -> tuple[str, ...]:
    """The background, the objects by their number, and the shadow where there is one."""
    objects = [f"object {number}" for number in range(1, layers.fields["masks"].shape[1])]
    return ("the background", *objects, *(["the shadow"] if "shadow" in layers.fields else []))


MODEL = Model(
    name="segment",
    fields=(
        Field("masks", ("L", "h", "w"), low=-1e-3),
        Field("before", (3, "h", "w"), optional=True),
        Field("after", (3, "h", "w"), optional=True),
        Field("shadow", (3, "h'", "w'"), low=0.0, optional=True),
    ),
    compose=compose,
    rebuild=rebuild,
    split=split,
    layer_names=layer_names,
    look=look,
    invariant=_invariant,
)
