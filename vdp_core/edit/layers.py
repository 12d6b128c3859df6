"""Layers changed: edited, replaced, taken out, and made of a given mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..checks import check_frames, check_mask
from ..errors import InputError, ShapeError
from ..image.resize import resize, size_within
from ..models import look_of, model_of
from ..models.masks import layer_names, of_matte
from ..store.lazy import computed, computed_with_mask
from ..store.scratch import large_empty
from ..store.transfer import send
from ..types import Edit, Layers, OnStep

__all__ = [
    "add_background",
    "check_background",
    "check_picture",
    "check_replaced",
    "cut_out",
    "edit",
    "layer_numbers",
    "replace_layer",
    "split_layer",
]

MASK_SIDE = 512
"""Long side of the small masks that are made of a given one."""
BLACK_LEVEL = 1.0 / 255.0


def layer_numbers(layers: Layers, name: str) -> tuple[int, ...]:
    """The numbers of the layers that a person named: ``objects`` (all, and their shadow), ``background``, or one's.

    Raises:
        InputError: there is no such layer.
    """
    objects, count = layers.fields["masks"].shape[1], len(layer_names(layers))
    if name == "objects":
        return tuple(range(1, count))
    if name == "background":
        return (0,)
    if not name.isdecimal() or not 0 <= int(name) < count:
        last = "only object 1" if objects == 2 else f"objects 1 to {objects - 1}"
        shadow = "" if count == objects else f", and its shadow ({objects})"
        raise InputError(f"layer: there is no layer '{name}'; these layers have a background (0) and {last}{shadow}")
    return (int(name),)


def edit(layers: Layers, name: str, change: Edit) -> Layers:
    """Return layers with one more edit to those named (see ``layer_numbers``), on top of what was done before.

    Raises:
        InputError: layers of another model, no such layer, or a value out of range.
    """
    look_of(layers, "Composite")
    if not 0.0 <= change.visibility <= 1.0:
        raise InputError(f"visibility: 0 to 1 needed, got {change.visibility}")
    if not 0.0 <= change.saturation < math.inf:
        raise InputError(f"saturation: 0 or more needed, got {change.saturation}")
    for setting, value in (("gain", change.gain), ("offset", change.offset[0]), ("offset", change.offset[1])):
        if not math.isfinite(value):
            raise InputError(f"{setting}: a number needed, got {value}")
    edits = dict(layers.edits)
    for number in layer_numbers(layers, name):
        edits[number] = edits.get(number, Edit()).then(change)
        if edits[number] == Edit():
            del edits[number]
    return replace(layers, edits=edits)


def add_background(layers: Layers, background: Tensor) -> Layers:
    """Return layers with another background behind the objects; what was transparent shows it, too.

    Args:
        layers: of a model with a look: segment, atlas.
        background: ``(1, H', W', 3)``, a still, or as many frames as the clip, of any size: scaled to cover the frame,
            what stands out on two sides is cut off.

    Raises:
        InputError, ShapeError: it cannot be used.
    """
    look_of(layers, "Composite")
    background = check_background(background, len(layers))
    return replace(
        layers,
        pictures={**layers.pictures, "colour_0": _cover(background, (layers.frames.shape[1], layers.frames.shape[2]))},
        alpha=None,
    )


def check_background(background: object, count: int | None) -> Tensor:
    """Return a background for a clip of ``count`` frames, None where that is not known yet.

    Raises:
        InputError, ShapeError: it cannot be used.
    """
    background = check_frames(background, "background")
    if count is not None and len(background) not in (1, count):
        raise ShapeError(
            f"background: got {len(background)} frames for a clip of {count}; give one still, or as many frames "
            "as the clip has (LoadFrames' count)"
        )
    return background


def check_picture(frames: Tensor, clip: Tensor) -> None:
    """Refuse frames that cannot take the place of an object in a clip, by their number and size.

    Raises:
        ShapeError: neither one still nor as many as the clip has, or of another size.
    """
    count, height, width = clip.shape[:3]
    if len(frames) not in (1, count) or tuple(frames.shape[1:3]) != (height, width):
        raise ShapeError(
            f"frames: got {len(frames)} of {frames.shape[2]}x{frames.shape[1]} pixels, the layer has {count} of "
            f"{width}x{height}; give as many of that size, or one still"
        )


def _cover(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut out the middle of ``(N, H', W', 3)`` in the shape of (H, W), and scale it to that."""
    height, width = size
    if pictures.shape[1:3] == (height, width):
        return pictures
    scale = max(height / pictures.shape[1], width / pictures.shape[2])
    rows, columns = (max(1, round(side / scale)) for side in size)
    top, left = (pictures.shape[1] - rows) // 2, (pictures.shape[2] - columns) // 2

    def covering(start: int) -> Iterator[Tensor]:
        for index in range(start, len(pictures)):
            part = pictures[index, top : top + rows, left : left + columns].movedim(-1, 0)[None]
            yield resize(part, size, mode="bicubic").movedim(1, -1).clamp(0.0, 1.0)

    return computed(covering, (len(pictures), height, width, 3))


def cut_out(frames: Tensor, mask: Tensor, *, premultiplied: bool = False) -> Layers:
    """Make layers of frames and a given mask of what is in front.

    Args:
        frames: ``(T, H, W, 3)``.
        mask: ``(T, H, W)`` or one for all, 1 = in front; used as it is.
        premultiplied: the colours are already multiplied with the mask, over black.

    Returns:
        Layers of the model segment with one object. Colours of whole pictures are freed from their background in the
        soft borders; where the frames hold nothing but black outside the mask, colours are taken as they are.

    Raises:
        InputError, ShapeError: frames or mask cannot be used.
    """
    frames = check_frames(frames)
    count, height, width, _ = frames.shape
    mask = check_mask(mask, "mask", count=count, size=(height, width))
    small = size_within(height, width, MASK_SIDE)
    masks = large_empty(count, 2, *small)
    for index, one in enumerate(mask):  # a mask for all frames fills them all
        masks[index : None if len(mask) == 1 else index + 1, 1] = resize(one[None, None], small)[0, 0].clamp(0.0, 1.0)
    torch.sub(1.0, masks[:, 1], out=masks[:, 0])
    colours = None
    if premultiplied:
        colours = computed(partial(_straight, frames, mask), tuple(frames.shape))
    elif _is_black_outside(frames, mask):
        colours = frames
    black = None if colours is None else torch.zeros(1, height, width, 3)
    return of_matte(frames, masks, mask, colours=colours, background=black, info={"preset": "mask"})


def _straight(frames: Tensor, mask: Tensor, start: int) -> Iterator[Tensor]:
    """Frames ``(1, H, W, 3)`` from ``start`` on whose colours were multiplied with the mask, without that."""
    for index in range(start, len(frames)):
        share = mask[index if len(mask) > 1 else 0, ..., None]
        yield (frames[index] / share.clamp_min(1e-3)).clamp_(0.0, 1.0)[None]


def _is_black_outside(frames: Tensor, mask: Tensor) -> bool:
    """Whether there is an outside, and nothing but black in it."""
    outside = False
    for index, frame in enumerate(frames):
        chosen = mask[index if len(mask) > 1 else 0] <= 0.0
        outside = outside or bool(chosen.any())
        if float((frame.amax(dim=-1) * chosen).amax()) > BLACK_LEVEL:
            return False
    return outside


def replace_layer(layers: Layers, number: int, frames: Tensor, mask: Tensor | None = None) -> Layers:
    """Return layers with other colours, and if given another mask, for one layer.

    Args:
        layers: of a model with a look: segment, atlas.
        number: of the layer, 0 for the background.
        frames: ``(T or 1, H, W, 3)``, straight colours (not multiplied with the mask), of the clip's size; for the
            background any size, see ``add_background``.
        mask: ``(T or 1, H, W)``; not for the background, which is wherever no object is.

    Raises:
        InputError, ShapeError: another model, no such layer, or pictures that cannot be used.
    """
    look_of(layers, "ReplaceLayer")
    check_replaced(layers, number, has_mask=mask is not None)
    if number == 0:
        return add_background(layers, frames)
    count, height, width, _ = layers.frames.shape
    frames = check_frames(frames)
    check_picture(frames, layers.frames)
    pictures = {**layers.pictures, f"colour_{number}": frames}
    if mask is not None:
        pictures[f"mask_{number}"] = check_mask(mask, "mask", count=count, size=(height, width))
    return replace(layers, pictures=pictures)


def check_replaced(layers: Layers, number: int, *, has_mask: bool) -> None:
    """Refuse a number that no layer has, and a mask for the background.

    Raises:
        InputError: either.
    """
    layer_numbers(layers, str(number))
    if number == layers.fields["masks"].shape[1]:
        raise InputError(
            f"layer: {number} is the shadow, which no frames can replace; Composite moves it or takes it out"
        )
    if number == 0 and has_mask:
        raise InputError("mask: the background (layer 0) takes none, it is wherever no object is; unlink it")


def split_layer(
    layers: Layers, number: int, *, device: torch.device | str = "cpu", on_step: OnStep | None = None
) -> tuple[Tensor, Tensor]:
    """One layer as pictures: straight colours ``(T, H, W, 3)`` and mask ``(T, H, W)``, on the CPU.

    Of a long clip, they are computed when they are looked at. Which layers there are, the model says.

    Raises:
        InputError: layers of a model without any, or no such layer.
    """
    model = model_of(layers)
    split = model.split
    model.check_layer(layers, number)
    assert split is not None

    @torch.no_grad()
    def taken(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(start, len(layers)):
            yield split(layers, number, index, send(layers.frames[index], device).contiguous())

    return computed_with_mask(taken, layers.frames.shape, on_step=on_step)
