"""Masks as people have them: what pictures select, and of how many objects.

What a picture says is decided once for a clip of masks:

1. **alpha**: where all that can be seen has one colour, the shape in the alpha is the mask. Else colours count as they
   look over black.
2. **ids**: levels or colours that come in areas, black among them, are ids, and every one but black is selected. Areas
   are told from soft or lossy borders by their edges: hardly any pixel there has a value that no area has. The id 255,
   which data sets draw around objects where nobody can tell, is no object: white beside small levels, and its colour in
   the map of VOC beside others of that map.
3. **colours** that are no ids, as lossy files have them, are selected where they are not nearly black.
4. **opacity**: other grey is opacity, selected above half of the clip's largest value.

The order of objects is that of their levels, or that of the colour map of PASCAL VOC, which DAVIS has too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_frames, check_mask
from ..errors import ShapeError
from ..store.lazy import computed

__all__ = ["are_pictures", "as_labels", "as_mask", "as_matte", "odd_masks"]

COLOURED = 0.05
"""Difference between channels above which a picture is coloured: more than what lossy video does to grey."""
BLACK = 0.5 / 65535
"""Value up to which a colour is black, by the 16 bits that ids are told apart by: decoders leave traces of rounding."""
NEARLY_BLACK = 1 / 8
"""Value below which lossy colours are black: half of the darkest of the first 64 of VOC's colour map."""
ODD = 0.1
"""Share of the pixels at edges that may have a value of no area in pictures of ids: thin objects do."""
MOST_IDS = 64
"""Most ids of one picture; a ramp that is so slow that its levels are areas has more."""
SOLID = 0.75
"""Least share of the pixels of ids that lie in areas, which noise does not, and of what is drawn around them that lies
beside them."""
VOID_WIDTH = 5
"""Pixels from an object within which what is drawn around it lies."""
SMALLEST_AREA = 5e-4
"""Share of a frame below which an area of a lossy colour is none."""
INVERTED_AREA, INVERTED_BORDER = 0.5, 0.75
"""Shares of the frame and of its border from which on what is selected is more likely a background."""


_VOIDS = tuple((red << 32 | green << 16 | blue) * 257 for red, green, blue in [(255, 255, 255), (224, 224, 192)])
"""The keys (see ``_keys``) of the id 255: as a level, and in VOC's map."""


class _Read(NamedTuple):
    """Pictures of masks, and what they hold."""

    pictures: Tensor
    """``(T, H, W, 3)``."""
    kind: str
    """``ids``, ``colours``, ``opacity``, or ``alpha``, whose values all channels then have."""


def as_mask(mask: Tensor, name: str = "mask") -> Tensor:
    """Return a mask, or pictures used as one, as ``(T, H, W)`` in 0..1.

    A MASK keeps its values, and so does alpha. Other pictures are selected (1) or not (0).

    Args:
        mask: ``(H, W)``, ``(T, H, W)`` or ``(T, 1, H, W)``; or pictures ``(T, H, W, 1, 3 or 4)``.
        name: what to call it in messages.

    Raises:
        ShapeError: another shape.
        InputError: NaN or infinity, or pictures of integers.
    """
    return _selected(_read(mask, name)) if are_pictures(mask, name) else check_mask(mask, name)


def _selected(read: _Read) -> Tensor:
    """The mask ``(T, H, W)`` of what was read."""
    pictures, kind = read
    if kind == "alpha":
        return _of_each(pictures, lambda frame: frame[..., 0])
    limit = {"ids": BLACK, "colours": NEARLY_BLACK}.get(kind)
    if limit is None:
        limit = 0.5 * max((float(frame.amax()) for frame in pictures if frame.numel()), default=0.0)
    # the strongest channel, so that a palette's blue counts as much as its yellow
    return _of_each(pictures, lambda frame: (frame.amax(dim=-1) > limit).float())


def as_matte(mask: Tensor, name: str = "mask") -> Tensor:
    """``as_mask`` where opacity counts: pictures of a soft matte keep their values.

    Grey pictures that get brighter than a half hold opacity as it is; coloured and darker ones are labels, and are cut.

    Args:
        mask, name: see ``as_mask``.

    Raises:
        ShapeError, InputError: see ``as_mask``.
    """
    if not are_pictures(mask, name):
        return check_mask(mask, name)
    pictures, kind = read = _read(mask, name)
    is_soft = kind == "alpha" or (not _is_coloured(pictures) and any(float(frame.amax()) > 0.5 for frame in pictures))
    return _of_each(pictures, lambda frame: frame.mean(dim=-1)) if is_soft else _selected(read)


def as_labels(mask: Tensor, name: str = "mask") -> tuple[Tensor, int]:
    """Return the objects of a mask: labels ``(T, H, W)``, 0 being the background, and how many objects there are.

    With one object the labels are its mask as ``as_mask`` has it.

    Raises:
        ShapeError, InputError: see ``as_mask``.
    """
    if not are_pictures(mask, name):
        return check_mask(mask, name), 1
    pictures, kind = read = _read(mask, name)
    palette = _palette(pictures, kind) if kind in ("ids", "colours") else None
    if palette is not None and len(palette) > 1:
        return _of_each(pictures, partial(_nearest, palette)), len(palette)
    return _selected(read), 1


def odd_masks(mask: Tensor, name: str = "mask") -> list[str]:
    """What a person should know of a mask that can be used, one phrase each.

    Raises:
        ShapeError, InputError: see ``as_mask``.
    """
    read = _read(mask, name) if are_pictures(mask, name) else None
    notes = []
    if read is not None and read.kind == "alpha":
        notes.append(f"{name}: the shape in its alpha is taken, as its colours say nothing")
    areas, borders = [], []
    for one in check_mask(mask, name) if read is None else _selected(read):
        if one.numel() and bool((one > 0.5).any()):
            chosen = (one > 0.5).float()
            areas.append(float(chosen.mean()))
            edge = torch.cat((chosen[0], chosen[-1], chosen[1:-1, 0], chosen[1:-1, -1]))
            borders.append(float(edge.mean()))
    if areas:
        area, border = (sum(shares) / len(shares) for shares in (areas, borders))
        if area > INVERTED_AREA and border > INVERTED_BORDER:
            notes.append(
                f"{name}: it covers {100 * area:.0f} % of the frame and most of its border; if that is the background, "
                "the mask is the wrong way round: invert it"
            )
    return notes


def _read(mask: Tensor, name: str) -> _Read:
    """Find out what pictures ``(T, H, W, 1, 3 or 4)`` hold."""
    pictures = check_frames(mask, name)
    if mask.shape[-1] == 4:
        alpha = mask[..., 3].float().clamp(0.0, 1.0)
        if any(bool((one < 0.5).any()) for one in alpha):
            if _has_one_colour(pictures, alpha):
                return _Read(alpha[..., None].expand(-1, -1, -1, 3), "alpha")
            pictures = pictures * alpha[..., None]
    pictures = _without_void(pictures)
    if _holds_ids(pictures):
        return _Read(pictures, "ids")
    return _Read(pictures, "colours" if _is_coloured(pictures) else "opacity")


def _without_void(pictures: Tensor) -> Tensor:
    """Pictures with the id 255 made black, where it is none of an object; see the head of this file."""
    ids = solid = void = beside = 0
    has_black, levels, map_colours = False, True, True
    for frame in pictures:
        keys = _keys(frame)
        is_void = _is_void(keys)
        of_ids = ~is_void & (keys != 0)
        void, ids = void + int(is_void.sum()), ids + int(of_ids.sum())
        has_black |= bool((keys == 0).any())
        levels &= not bool((keys == _VOIDS[1]).any())
        map_colours &= not bool((keys == _VOIDS[0]).any())
        if of_ids.any():
            values = torch.tensor([_colour(key) for key in keys[of_ids].unique().tolist()]) * 255.0
            levels &= bool((values == values[:, :1]).all() and (values <= MOST_IDS).all())
            map_colours &= bool((values % 64.0 == 0.0).all())
            solid += int((of_ids & _in_areas(keys)).sum())
            near = F.max_pool2d(of_ids[None].float(), 2 * VOID_WIDTH + 1, 1, VOID_WIDTH)[0] > 0.0
            beside += int((is_void & near).sum())
        if not (levels or map_colours):
            return pictures
    if not (has_black and 0 < void < ids and solid >= SOLID * ids and beside >= SOLID * void):
        return pictures

    def blackened(start: int) -> Iterator[Tensor]:
        for frame in pictures[start:]:
            yield (frame * ~_is_void(_keys(frame))[..., None])[None]

    return computed(blackened, tuple(pictures.shape))


def _is_void(keys: Tensor) -> Tensor:
    return (keys == _VOIDS[0]) | (keys == _VOIDS[1])


def _has_one_colour(pictures: Tensor, alpha: Tensor) -> bool:
    """Whether all that can be seen has the same colour."""
    lowest, highest = torch.full((3,), 2.0), torch.full((3,), -1.0)
    for frame, opacity in zip(pictures, alpha, strict=True):
        seen = frame[opacity > 0.5]
        if len(seen):
            lowest = torch.minimum(lowest, seen.amin(dim=0))
            highest = torch.maximum(highest, seen.amax(dim=0))
    return bool((highest - lowest <= COLOURED).all())


def _is_coloured(pictures: Tensor) -> bool:
    return any(
        float((frame.amax(dim=-1) - frame.amin(dim=-1)).amax()) > COLOURED for frame in pictures if frame.numel()
    )


def _keys(frame: Tensor) -> Tensor:
    """A whole number ``(H, W)`` for each colour of ``(H, W, 3)``, as fine as 16 bits; black is 0."""
    red, green, blue = (frame * 65535.0).round().long().unbind(dim=-1)
    return (red << 32) | (green << 16) | blue


def _colour(key: int) -> tuple[float, float, float]:
    """The inverse of ``_keys``."""
    return ((key >> 32) / 65535.0, (key >> 16 & 65535) / 65535.0, (key & 65535) / 65535.0)


def _in_areas(keys: Tensor) -> Tensor:
    """Where all eight neighbours of a pixel are like it, ``(H, W)``; those beyond the border are."""
    height, width = keys.shape
    rows, columns = torch.arange(-1, height + 1).clamp(0, height - 1), torch.arange(-1, width + 1).clamp(0, width - 1)
    padded = keys[rows][:, columns]
    inside = torch.ones_like(keys, dtype=torch.bool)
    for down in range(3):
        for right in range(3):
            inside &= padded[down : down + height, right : right + width] == keys
    return inside


def _holds_ids(pictures: Tensor) -> bool:
    """Whether values come in areas, black among them; see the head of this file."""
    has_black = has_edges = False
    for frame in pictures:
        if not frame.numel():
            return False
        keys = _keys(frame)
        inside = _in_areas(keys)
        edges = keys[~inside]
        if len(edges) == 0:
            continue
        areas = keys[inside].unique()
        if len(areas) > MOST_IDS or float((~torch.isin(edges, areas)).float().mean()) > ODD:
            return False
        has_edges, has_black = True, has_black or bool((areas == 0).any())
    return has_edges and has_black


def _palette(pictures: Tensor, kind: str) -> Tensor:
    """The colours of the objects ``(K, 3)`` in order, black left out."""
    steps, least = (65535, 0.0) if kind == "ids" else (4, SMALLEST_AREA)  # lossy: the steps of VOC's first 64 colours
    found: set[int] = set()
    for frame in pictures:
        keys = _keys((frame * steps).round() / steps)
        areas, counts = keys[_in_areas(keys)].unique(return_counts=True)
        found |= set(areas[counts >= least * keys.numel()].tolist())
    colours = [_colour(key) for key in sorted(found - {0})]  # grey is in order
    if any(len(set(colour)) > 1 for colour in colours):
        colours.sort(key=_voc_number)
    return torch.tensor(colours).view(-1, 3)


def _voc_number(colour: tuple[float, float, float]) -> int:
    """The number that a colour has in the map of VOC, which spreads the bits of a number over the channels."""
    red, green, blue = (round(value * 255.0) for value in colour)
    bits = ((red >> (7 - j) & 1) | (green >> (7 - j) & 1) << 1 | (blue >> (7 - j) & 1) << 2 for j in range(8))
    return sum(three << 3 * j for j, three in enumerate(bits))


def _nearest(palette: Tensor, frame: Tensor) -> Tensor:
    """The number of the nearest colour of a palette, from 1 on, for each pixel ``(H, W)``; 0 is black."""
    best, number = frame.abs().sum(dim=-1), torch.zeros(frame.shape[:2])
    for index, colour in enumerate(palette, 1):
        away = (frame - colour).abs().sum(dim=-1)
        number[away < best] = float(index)
        best = torch.minimum(best, away)
    return number


def _of_each(pictures: Tensor, mask_of: Callable[[Tensor], Tensor]) -> Tensor:
    """A mask ``(H, W)`` of each picture ``(H, W, 3)``, as they are needed where there are many."""

    def masks(start: int) -> Iterator[Tensor]:
        return (mask_of(pictures[index])[None] for index in range(start, len(pictures)))

    return computed(masks, tuple(pictures.shape[:3]))


def are_pictures(mask: object, name: str = "mask") -> bool:
    """Whether what is linked as a mask is pictures ``(T, H, W, 1, 3 or 4)``, of which channels come last.

    Raises:
        ShapeError: it has four dimensions, and is neither pictures nor ``(T, 1, H, W)``.
    """
    if not isinstance(mask, Tensor):
        return False
    if mask.ndim == 4 and mask.shape[-1] in (1, 3, 4):
        return True
    if mask.ndim == 4 and mask.shape[1] != 1:
        raise ShapeError(f"{name}: expected (T, H, W), or pictures (T, H, W, 3), got {tuple(mask.shape)}")
    return False
