"""Layers as pictures: the background filled where objects cover it, layers taken out, put back, and painted over.

The masks of the model segment share out each pixel, ``x = sum_i m_i c_i`` with ``sum_i m_i = 1``. To paint layer over
layer, from the background up, layer i has the opacity ``a_i = m_i / sum_{j <= i} m_j`` (Porter and Duff, "Compositing
Digital Images", SIGGRAPH 1984): what lies in front of it no longer matters, so that layers can move and vanish.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .behind import BORDER, COVERED, spread
from .errors import InputError, LayersFileError, ShapeError, check_frames, check_mask
from .frames import computed_with_mask
from .matting import (
    MIXED,
    Matte,
    box,
    object_colours,
    pixels_of,
    places,
    refine,
    sample,
    sample_of,
    shrink,
    smooth_colours,
    widen,
)
from .types import Edit, Layers, OnStep

__all__ = [
    "add_background",
    "check_segment",
    "composite",
    "cut_out",
    "edit",
    "layer_numbers",
    "plate",
    "replace_layer",
    "split_layer",
    "untouched",
]

LAYER_NAMES = ("objects", "background", "1", "2", "3")
"""What a person can name: all objects, the background, or one object."""
MASK_SIDE = 512
"""Long side of the small masks that are made of a given one."""
DISPLAY_GAMMA = 2.2  # what sRGB amounts to; turns stops of scene light into display values
LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709
BLACK = 1.0 / 255.0


def composite(
    layers: Layers,
    *,
    linear_light: bool = False,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Put layers together, with their edits and replaced pictures.

    Args:
        layers: of the model segment.
        linear_light: mix in light instead of display values: soft borders and motion blur then look as filmed, and
            gain is that of scene light, exactly.
        device: where to compute.
        on_step: told after every frame; stops the work by raising.

    Returns:
        Frames ``(T, H, W, 3)`` in 0..1, and ``(T, H, W)`` how far objects cover each pixel as shown, on the CPU; of a
        long clip, they are computed when they are looked at.

    Raises:
        InputError: layers of another model.
    """
    _need_segment(layers, "Composite")

    @torch.no_grad()
    def painted(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(start, len(layers)):
            yield _paint(layers, index, linear_light, torch.device(device))

    return computed_with_mask(painted, layers.frames.shape, on_step=on_step)


def untouched(layers: Layers, start: int, stop: int, device: torch.device | str = "cpu") -> Tensor:
    """The source as the layers give it back, without edits or replaced pictures: ``(stop - start, H, W, 3)``."""
    layers = replace(layers, edits={}, pictures={})
    return torch.stack([_paint(layers, index, False, torch.device(device))[0] for index in range(start, stop)])


@torch.no_grad()
def plate(layers: Layers, start: int, stop: int, device: torch.device | str = "cpu") -> Tensor:
    """The background without objects, ``(stop - start, H, W, 3)`` at native size.

    The source where it shows the background; else what ``before`` and ``after`` say earlier and later frames saw there,
    blended by how far away they are; and where no frame saw it, colours spread from around.
    """
    _need_segment(layers, "plate")
    chunk = []
    for index in range(start, stop):
        frame = layers.frames[index].to(device).contiguous()
        chunk.append(_background(layers, index, frame, _matte(layers, index, frame), whole=True))
    return torch.stack(chunk)


def _paint(layers: Layers, index: int, linear_light: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """One frame with everything done to it, ``(H, W, 3)``, and what of it is objects, ``(H, W)``."""
    frame = layers.frames[index].to(device).contiguous()
    matte = _matte(layers, index, frame)
    count = len(matte.masks)
    edits = [layers.edits.get(layer, Edit()) for layer in range(count)]
    hidden = [
        layer
        for layer in range(1, count)
        if edits[layer].visibility < 1.0 or edits[layer].offset != (0.0, 0.0) or f"mask_{layer}" in layers.pictures
    ]
    seen_through = bool(hidden) or edits[0].offset != (0.0, 0.0)
    own = _background(layers, index, frame, matte, whole=seen_through and "colour_0" not in layers.pictures)
    behind = own.view(-1, 3)[matte.mixed].T
    out = _picture(layers, "colour_0", index, device)
    out = own if out is None else out.clone()
    light, display = (to_linear, to_display) if linear_light else (_as_is, _as_is)
    # of objects that are taken out nothing more is needed
    if any(edits[layer].visibility > 0.0 for layer in range(1, count)):
        picture = frame.view(-1, 3)[matte.mixed].T
        colours = display(object_colours(light(picture), replace(matte, coarse=light(matte.coarse)), light(behind)))
    out = _regrade(out, edits[0], linear_light)
    if edits[0].offset != (0.0, 0.0):
        out = _slide(out, edits[0].offset)
    shown = torch.zeros_like(matte.masks[0])
    for layer in range(1, count):
        change = edits[layer]
        opacity = _picture(layers, f"mask_{layer}", index, device)
        if opacity is None:
            opacity = matte.masks[layer]
        if change.visibility <= 0.0 or not bool(opacity.any()):
            continue
        part = box(opacity)
        opacity = opacity[part]
        if layer < count - 1:  # what the layers in front of it leave
            opacity = opacity / (1.0 - matte.masks[layer + 1 :, part[0], part[1]].sum(dim=0)).clamp_min(1e-6)
        opacity = opacity.clamp(0.0, 1.0) * change.visibility
        colour = _picture(layers, f"colour_{layer}", index, device)
        colour = _own_colours(frame, matte.mixed, colours[layer - 1], part) if colour is None else colour[part]
        colour = _regrade(colour, replace(change, visibility=1.0), linear_light)
        colour = light(colour) * opacity[..., None]
        # what is premultiplied moves without colours from beyond its border coming in
        place, crop = _places(part, change.offset, (len(out), out.shape[1]))
        colour, opacity = (_finely(values, change.offset)[crop] for values in (colour, opacity[..., None]))
        out[place] = display(torch.addcmul(colour, light(out[place]), 1.0 - opacity))
        shown[place] += opacity[..., 0] * (1.0 - shown[place])
    return out.clamp_(0.0, 1.0), shown


def _own_colours(frame: Tensor, mixed: Tensor, colours: Tensor, part: tuple[slice, slice]) -> Tensor:
    """A part of the frame with a layer's own colours ``(3, N)`` in the mixed pixels."""
    rows, columns = part
    out = frame[part].clone()
    row, column = torch.div(mixed, frame.shape[1], rounding_mode="floor"), mixed % frame.shape[1]
    inside = (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)
    place = (row[inside] - rows.start) * out.shape[1] + (column[inside] - columns.start)
    out.view(-1, 3).index_copy_(0, place, colours[:, inside].T)
    return out


def _matte(layers: Layers, index: int, frame: Tensor) -> Matte:
    """The masks of a frame at native size; a mask that came with the frames (``cut_out``) is one already."""
    masks = layers.fields["masks"][index].to(frame.device)
    given = _picture(layers, "matte", index, frame.device)
    if given is None:
        return refine(masks, frame)
    mixed = ((given > MIXED) & (given < 1.0 - MIXED)).flatten().nonzero()[:, 0]
    coarse = shrink(frame.movedim(-1, 0)[None], (masks.shape[1], masks.shape[2]))[0]
    return Matte(torch.stack((1.0 - given, given)), coarse, mixed)


def _background(layers: Layers, index: int, frame: Tensor, matte: Matte, *, whole: bool) -> Tensor:
    """The frame with its background where objects are: in all pixels, or, if not ``whole``, in the mixed ones."""
    size, small = (frame.shape[0], frame.shape[1]), (matte.coarse.shape[1], matte.coarse.shape[2])
    out = frame.clone()
    if whole:
        covered = (shrink(matte.masks[None, :1], small) < COVERED).float()
        pixels = pixels_of(widen(covered, BORDER)[0, 0], size)
    else:
        pixels = matte.mixed
    if len(pixels) == 0:
        return out
    place = places(pixels, size[1])
    lies = sample_of(place, size, small)
    colours = _read_behind(layers, index, place, lies, size)
    never = colours[:, 0].isnan().nonzero()[:, 0]
    if len(never) > 0:
        unknown = pixels[never]
        smooth = _spread_behind(matte.coarse, colours, lies) if whole else smooth_colours(matte, slice(0, 1))
        # beside a border the frame itself is a better guess than what is spread, but not good enough to be spread
        own = matte.masks[0].view(-1)[unknown, None] >= COVERED
        guess = torch.where(own, frame.view(-1, 3)[unknown], sample(smooth[0], place[never], size).T)
        colours.index_copy_(0, never, guess)
    out.view(-1, 3).index_copy_(0, pixels, colours)
    return out


def _spread_behind(coarse: Tensor, colours: Tensor, lies: Tensor) -> Tensor:
    """The background at the small size ``(1, 3, h, w)``, smooth where it is not known.

    Args:
        coarse: ``(3, h, w)``, the frame: known in samples that no pixel lies in.
        colours: ``(N, 3)`` of the pixels that fill all the other samples, NaN where unknown.
        lies: ``(N,)``, the sample each lies in.
    """
    known = (~colours[:, :1].isnan()).to(colours.dtype)
    sums = colours.new_zeros(coarse[0].numel(), 5)
    sums.index_add_(0, lies, torch.cat((colours.nan_to_num(), known, torch.ones_like(known)), dim=1))
    total, found, count = sums.T.unflatten(1, coarse.shape[1:]).split((3, 1, 1))
    picture = torch.where(count > 0.0, total / found.clamp_min(1.0), coarse)
    weight = torch.where(count > 0.0, found / count.clamp_min(1.0), 1.0)
    return spread(picture[None], weight[None])


def _read_behind(layers: Layers, index: int, place: Tensor, lies: Tensor, size: tuple[int, int]) -> Tensor:
    """Colours ``(N, 3)`` of the background at places, from the frames that saw it; NaN where none did.

    ``lies`` ``(N,)`` are the samples the places lie in: they say which frames to look into.
    """
    total = torch.zeros(len(place), 4, device=place.device)
    for name, sign in (("before", -1), ("after", 1)):
        if name not in layers.fields:
            continue
        field = layers.fields[name][index].to(place.device)
        # (a sort of short integers takes an eighth of the time that one of floats takes)
        distance, order = field[2].take(lies).short().sort()
        nowhere = int((distance == 0).sum())
        distance, order = distance[nowhere:], order[nowhere:]
        here, start = place.index_select(0, order), 0
        colours = torch.ones(len(order), 4, device=place.device)
        for away, count in zip(
            *(part.tolist() for part in distance.unique_consecutive(return_counts=True)), strict=True
        ):
            some = here[start : start + count]
            source = layers.frames[index + sign * away].to(place.device)
            colours[start : start + count, :3] = _read(source, some + _offsets(field, away, some, size))
            start += count
        total.index_add_(0, order, colours.div_(distance.float().square()[:, None]))
    # (no weight: 0 / 0, which is NaN)
    return total[:, :3] / total[:, 3:]


def _offsets(field: Tensor, away: int, place: Tensor, size: tuple[int, int]) -> Tensor:
    """From a small field (dx, dy, distance) to places (x, y) at one distance: offsets ``(N, 2)`` in native pixels.

    Neighbouring samples may point to other frames, so only those that point to the same one are interpolated.
    """
    same = (field[2] == away).to(field.dtype)
    down, right = size[0] / field.shape[1], size[1] / field.shape[2]
    rows, columns = box(same, 1)
    field, same = field[:2, rows, columns], same[rows, columns]
    inside = place - place.new_tensor([columns.start * right, rows.start * down])
    area = (same.shape[0] * down, same.shape[1] * right)
    sampled = sample(torch.cat((field * same, same[None])), inside, area).T
    return sampled[:, :2] / sampled[:, 2:] * place.new_tensor([right, down])


def _read(frame: Tensor, where: Tensor) -> Tensor:
    """Read ``(H, W, 3)`` at (x, y) ``(N, 2)``, bicubically, within 0..1; ``(N, 3)``."""
    height, width, _ = frame.shape
    scale = where.new_tensor([2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)])
    where = (where * scale - 1.0)[None, None]
    read = F.grid_sample(frame.movedim(-1, 0)[None], where, mode="bicubic", padding_mode="border", align_corners=True)
    return read[0, :, 0].T.clamp(0.0, 1.0)


def _picture(layers: Layers, name: str, index: int, device: torch.device) -> Tensor | None:
    """A replaced picture's frame, if there is one; a still stands for every frame."""
    pictures = layers.pictures.get(name)
    return None if pictures is None else pictures[index if len(pictures) > 1 else 0].to(device)


def _regrade(colour: Tensor, change: Edit, linear_light: bool) -> Tensor:
    """Gain, saturation and, as fading to black, visibility."""
    if linear_light and replace(change, offset=(0.0, 0.0)) != Edit():
        return to_display(_regrade(to_linear(colour), replace(change, gain=DISPLAY_GAMMA * change.gain), False))
    factor = 2.0 ** (change.gain / DISPLAY_GAMMA) * change.visibility
    if factor != 1.0:
        colour = colour * factor
    if change.saturation != 1.0:
        grey = (colour * colour.new_tensor(LUMA)).sum(dim=-1, keepdim=True)
        colour = grey + (colour - grey) * change.saturation
    return colour


def _slide(picture: Tensor, offset: tuple[float, float]) -> Tensor:
    """Move ``(H, W, C)`` by (dx, dy) pixels, bilinearly; the borders are repeated."""
    for axis, by in ((1, offset[0]), (0, offset[1])):
        source = torch.arange(picture.shape[axis], device=picture.device) - math.floor(by)
        whole, next_one = (
            picture.index_select(axis, (source - more).clamp_(0, picture.shape[axis] - 1)) for more in (0, 1)
        )
        picture = whole.lerp_(next_one, by % 1.0)
    return picture


def _finely(picture: Tensor, offset: tuple[float, float]) -> Tensor:
    """Move ``(h, w, C)`` by what (dx, dy) has beyond whole pixels, bilinearly: it grows by a row and a column."""
    for pad, by in (((0, 0, 0, 1), offset[0]), ((0, 0, 0, 0, 0, 1), offset[1])):
        if by % 1.0 > 0.0:
            before = (*pad[:-2], *pad[:-3:-1])
            picture = F.pad(picture, pad).lerp_(F.pad(picture, before), by % 1.0)
    return picture


def _places(
    part: tuple[slice, slice], offset: tuple[float, float], size: tuple[int, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a part of a picture of some size comes to lie when it is moved ``_finely``, and what of it is inside."""
    places, crops = [], []
    for side, by, limit in zip(part, (offset[1], offset[0]), size, strict=True):
        start, stop = side.start + math.floor(by), side.stop + math.ceil(by)
        first, last = min(max(start, 0), limit), max(min(stop, limit), 0)
        places.append(slice(first, max(first, last)))
        crops.append(slice(first - start, max(first, last) - start))
    return tuple(places), tuple(crops)


def to_linear(values: Tensor) -> Tensor:
    """Display values of sRGB (IEC 61966-2-1) to light."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055).pow(2.4))


def to_display(light: Tensor) -> Tensor:
    """Light to display values of sRGB (IEC 61966-2-1)."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0).pow(1.0 / 2.4) - 0.055)


def _as_is(values: Tensor) -> Tensor:
    return values


def _need_segment(layers: Layers, what: str) -> None:
    if layers.model != "segment":
        raise InputError(
            f"layers: they are of the model '{layers.model}', {what} needs those of VDPOptimize's task segment"
        )


def layer_numbers(layers: Layers, name: str) -> tuple[int, ...]:
    """The numbers of the layers that a person named: ``objects`` (all of them), ``background``, or one object's.

    Raises:
        InputError: there is no such layer.
    """
    count = layers.fields["masks"].shape[1]
    if name == "objects":
        return tuple(range(1, count))
    if name == "background":
        return (0,)
    if not name.isdecimal() or not 0 <= int(name) < count:
        last = "only object 1" if count == 2 else f"objects 1 to {count - 1}"
        raise InputError(f"layer: there is no layer '{name}'; these layers have a background (0) and {last}")
    return (int(name),)


def edit(layers: Layers, name: str, change: Edit) -> Layers:
    """Return layers with one more edit to those named (see ``layer_numbers``), on top of what was done before.

    Raises:
        InputError: layers of another model, no such layer, or a value out of range.
    """
    _need_segment(layers, "Composite")
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
    """Return layers with another background behind the objects.

    Args:
        layers: of the model segment.
        background: ``(1, H', W', 3)``, a still, or as many frames as the clip, of any size: scaled to cover the frame,
            what stands out on two sides is cut off.

    Raises:
        InputError, ShapeError: it cannot be used.
    """
    _need_segment(layers, "Composite")
    background = check_frames(background, "background")
    if len(background) not in (1, len(layers)):
        raise ShapeError(
            f"background: got {len(background)} frames for a clip of {len(layers)}; give one still, or as many frames "
            "as the clip has (LoadFrames' count)"
        )
    return replace(
        layers,
        pictures={**layers.pictures, "colour_0": _cover(background, (layers.frames.shape[1], layers.frames.shape[2]))},
    )


def _cover(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut out the middle of ``(N, H', W', 3)`` in the shape of (H, W), and scale it to that."""
    height, width = size
    if pictures.shape[1:3] == (height, width):
        return pictures
    scale = max(height / pictures.shape[1], width / pictures.shape[2])
    rows, columns = (max(1, round(side / scale)) for side in size)
    top, left = (pictures.shape[1] - rows) // 2, (pictures.shape[2] - columns) // 2
    out = pictures.new_empty(len(pictures), height, width, 3)
    for index, picture in enumerate(pictures[:, top : top + rows, left : left + columns]):
        scaled = F.interpolate(
            picture.movedim(-1, 0)[None], size=size, mode="bicubic", align_corners=False, antialias=True
        )
        out[index] = scaled[0].movedim(0, -1).clamp(0.0, 1.0)
    return out


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
    scale = min(1.0, MASK_SIDE / max(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    object_mask = shrink(mask[:, None], small).clamp(0.0, 1.0).expand(count, -1, -1, -1)
    fields = {"masks": torch.cat((1.0 - object_mask, object_mask), dim=1)}
    pictures = {"matte": mask}
    if premultiplied:
        pictures["colour_1"] = (frames / mask[..., None].clamp_min(1e-3)).clamp_(0.0, 1.0)
    elif _is_black_outside(frames, mask):
        pictures["colour_1"] = frames
    if "colour_1" in pictures:
        pictures["colour_0"] = torch.zeros(1, height, width, 3)
    return Layers("segment", fields, frames, None, 0, {"preset": "mask"}, pictures=pictures)


def _is_black_outside(frames: Tensor, mask: Tensor) -> bool:
    """Whether there is an outside, and nothing but black in it."""
    outside = False
    for index, frame in enumerate(frames):
        chosen = mask[index if len(mask) > 1 else 0] <= 0.0
        outside = outside or bool(chosen.any())
        if float((frame.amax(dim=-1) * chosen).amax()) > BLACK:
            return False
    return outside


def replace_layer(layers: Layers, number: int, frames: Tensor, mask: Tensor | None = None) -> Layers:
    """Return layers with other colours, and if given another mask, for one layer.

    Args:
        layers: of the model segment.
        number: of the layer, 0 for the background.
        frames: ``(T or 1, H, W, 3)``, straight colours (not multiplied with the mask), of the clip's size; for the
            background any size, see ``add_background``.
        mask: ``(T or 1, H, W)``; not for the background, which is wherever no object is.

    Raises:
        InputError, ShapeError: another model, no such layer, or pictures that cannot be used.
    """
    _need_segment(layers, "ReplaceLayer")
    (number,) = layer_numbers(layers, str(number))
    if number == 0:
        if mask is not None:
            raise InputError("mask: the background (layer 0) takes none, it is wherever no object is; unlink it")
        return add_background(layers, frames)
    count, height, width, _ = layers.frames.shape
    frames = check_frames(frames)
    if len(frames) not in (1, count) or tuple(frames.shape[1:3]) != (height, width):
        raise ShapeError(
            f"frames: got {len(frames)} of {frames.shape[2]}x{frames.shape[1]} pixels, the layer has {count} of "
            f"{width}x{height}; give as many of that size, or one still"
        )
    pictures = {**layers.pictures, f"colour_{number}": frames}
    if mask is not None:
        pictures[f"mask_{number}"] = check_mask(mask, "mask", count=count, size=(height, width))
    return replace(layers, pictures=pictures)


def split_layer(
    layers: Layers, number: int, *, device: torch.device | str = "cpu", on_step: OnStep | None = None
) -> tuple[Tensor, Tensor]:
    """One layer as pictures: straight colours ``(T, H, W, 3)`` and mask ``(T, H, W)``, on the CPU.

    Of a long clip, they are computed when they are looked at. As it was found or replaced; edits, which are for
    ``composite``, are not in it. Of segment layers, 0 is the whole background, filled where objects cover it, with the
    mask of where it is seen; objects' colours go on smoothly beyond their borders, so that scaling or blurring brings
    in nothing else. Of dehaze layers, 0 is the clear picture with the transmission as its mask, and 1 the airlight with
    the rest.

    Raises:
        InputError: layers of another model, or no such layer.
    """
    if layers.model == "dehaze":
        return _split_haze(layers, number, device, on_step)
    if layers.model != "segment":
        raise InputError(f"layers: of the model '{layers.model}', which has no layers to split; segment and dehaze do")
    (number,) = layer_numbers(layers, str(number))

    @torch.no_grad()
    def split(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(start, len(layers)):
            yield _layer(layers, number, index, device)

    return computed_with_mask(split, layers.frames.shape, on_step=on_step)


def _layer(layers: Layers, number: int, index: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """A layer's colours ``(H, W, 3)`` and mask ``(H, W)`` in one frame."""
    frame = layers.frames[index].to(device).contiguous()
    matte = _matte(layers, index, frame)
    given = [_picture(layers, f"mask_{other}", index, frame.device) for other in range(1, len(matte.masks))]
    shares = [own if one is None else one for own, one in zip(matte.masks[1:], given, strict=True)]
    mask = shares[number - 1] if number > 0 else (1.0 - torch.stack(shares).sum(dim=0)).clamp(0.0, 1.0)
    colour = _picture(layers, f"colour_{number}", index, frame.device)
    if colour is None and number == 0:
        colour = _background(layers, index, frame, matte, whole=True)
    elif colour is None:
        colour = _extended(layers, index, frame, matte, number)
    return colour, mask


def _extended(layers: Layers, index: int, frame: Tensor, matte: Matte, number: int) -> Tensor:
    """An object's colours in one frame, smooth where it is not."""
    smooth = F.interpolate(
        smooth_colours(matte, slice(number, number + 1)), size=frame.shape[:2], mode="bilinear", align_corners=False
    )[0].movedim(0, -1)
    colour = torch.where(matte.masks[number, ..., None] > 0.5, frame, smooth)
    behind = _background(layers, index, frame, matte, whole=False).view(-1, 3)[matte.mixed].T
    share = matte.masks[number].view(-1)[matte.mixed]
    found = object_colours(frame.view(-1, 3)[matte.mixed].T, matte, behind)[number - 1]
    colour.view(-1, 3)[matte.mixed] = torch.where(share > 0.0, found, colour.view(-1, 3)[matte.mixed].T).T
    return colour


def _split_haze(
    layers: Layers, number: int, device: torch.device | str, on_step: OnStep | None
) -> tuple[Tensor, Tensor]:
    from .tasks import dehaze

    if number not in (0, 1):
        raise InputError(f"layer: there is no layer {number}; dehaze layers have 0, the clear picture, and 1, the haze")

    @torch.no_grad()
    def split(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(start, len(layers)):
            frame = layers.frames[index : index + 1].to(device)
            transmission = dehaze.transmission(layers, index, index + 1, frame)[0, ..., 0]
            if number == 0:
                yield dehaze.compose(layers, index, index + 1, frame)[0].clamp(0.0, 1.0), transmission
            else:
                airlight = layers.fields["airlight"][index, :, 0, 0].to(device)
                yield airlight.expand(frame.shape[1:]), 1.0 - transmission

    return computed_with_mask(split, layers.frames.shape, on_step=on_step)


def check_segment(layers: Layers) -> None:
    """Refuse segment layers, read from a file, that lack something the model needs.

    Raises:
        LayersFileError: what is missing or impossible.
    """
    masks = layers.fields.get("masks")
    if masks is None or masks.shape[1] < 2:
        raise LayersFileError("the layers hold no masks (T, L, h, w) of a background and an object; save them again")
    if float((masks.sum(dim=1) - 1.0).abs().max()) > 1e-2 or float(masks.min()) < -1e-3:
        raise LayersFileError("the masks of the layers do not add up to 1; save them again")
    for name in ("before", "after"):
        field = layers.fields.get(name)
        if field is None:
            continue
        if field.shape[1] != 3 or field.shape[2:] != masks.shape[2:]:
            raise LayersFileError(f"the layers' '{name}' is {tuple(field.shape)}, (T, 3, h, w) needed; save them again")
        number = torch.arange(len(field)).view(-1, 1, 1)
        room = number if name == "before" else len(field) - 1 - number
        away = field[:, 2]
        if not bool(((away >= 0.0) & (away <= room) & (away == away.round())).all()):
            raise LayersFileError(f"the layers' '{name}' points to frames that are not there; save them again")
    count, height, width, _ = layers.frames.shape
    for name, picture in layers.pictures.items():
        kind, _, which = name.partition("_")
        known = kind in ("colour", "mask") and which.isdecimal() and int(which) < masks.shape[1]
        known = known or (name == "matte" and masks.shape[1] == 2)
        shape = (height, width, 3) if kind == "colour" else (height, width)
        if not known or name == "mask_0" or tuple(picture.shape[1:]) != shape or len(picture) not in (1, count):
            raise LayersFileError(f"the layers' picture '{name}' is {tuple(picture.shape)}; save them again")
    if any(not 0 <= number < masks.shape[1] for number in layers.edits):
        raise LayersFileError("the layers hold an edit of a layer that is not there; save them again")
