"""What of edits is seen in a frame, were nothing in front: of an edited texture, or of edited frames.

An edited frame shows the layers that are seen in it. Along their borders, where it shows a mixture, an edit of a layer
is what was painted beside, where the layer is alone: what was painted up to the border of an object leaves no outline
on what is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.matting import Matte, bounding_box
from ..image.mips import Mips
from ..image.morphology import box_sum, dilate
from ..image.resize import resize
from ..image.sample import rescaled, sample_points
from ..models.atlas import PAINTED, charts_from, taps_along, to_frame
from ..models.plate import matte_of
from ..store.transfer import send
from .changes import changed
from .follow import Atlas, Box, Reach, around, cells, falling, shape, steadied, within

__all__ = ["TOUCHED", "EditedFrame", "EditedFrames", "EditedTexture", "Sight", "colours_of"]

ALONE_POWER = 8
"""Exponent on a mask; the power is the weight of a pixel for what was painted on that layer alone."""
ALONE = 0.95
"""Share of a layer from which on a pixel begins to be its alone."""
DEEP = 2
"""Pixels from where a layer begins to be alone to where what was painted there is certainly the layer's."""
CLEAR = 4.0
"""One over the share of the pixels beside that is painted, from which on a layer's border is painted too."""
SPREAD, LEAST_SPREAD = 3, 2
"""Half of the pixels, of a frame with a long side of 512 and at least, by which what was painted on a layer goes on
below what is in front of it."""
HARDLY = 1e-4
"""Weight below which nothing is known of what was painted."""
TOUCHED = 1.0 / 512
"""Opacity below which a pixel stays as it is."""
TRUST = 0.1
"""What unpainted shares of a pixel weigh against painted ones, where what is left over goes to these."""
SEEN = (0.5, 0.9)
"""Share of a layer up to which an edited frame says next to nothing of what is on it, and from which on it does."""
KEPT = 3
"""Edited frames that are kept prepared; two are looked at at a time."""
NOTHING = 1e-8
"""Weight of nothing at all."""
APART = 1e-3
"""Weight, beside that of the nearest edited frame, of one that is further away."""
OFF = (0.25, 1.0)
"""Pixels by which a mapping's inverse may be off: from where on it is unsure, and where it says nothing."""
SCALED = (8.0, 16.0)
"""The same for how many times larger or smaller a pixel gets."""
FILL = 0.5
"""Grey of a texture where nothing was seen."""


class Sight(NamedTuple):
    """What of an edit of a layer would be seen in a part of a frame, were nothing in front of it."""

    part: Box
    colours: Tensor
    """``(3, h, w)``, multiplied with ``alpha``."""
    alpha: Tensor
    """``(h, w)``."""
    sure: Tensor
    """``(h, w)`` in 0..1."""


class EditedTexture:
    """An edited texture."""

    def __init__(self, atlas: Atlas, number: int, picture: Tensor, alpha: Tensor | None) -> None:
        self._atlas, self._number = atlas, number
        colours = send(picture[0], atlas.device).movedim(-1, 0)
        texture = atlas.textures[number][:3]
        self._size = (texture.shape[1], texture.shape[2])
        if alpha is None:
            colours = resize(colours[None], self._size, mode="bicubic")[0].clamp(0.0, 1.0)
            original = _as_shown(colours, atlas.textures[number])
            opacity = changed(colours, [original])
            colours = (colours - (1.0 - opacity) * original) * (opacity > 0.0)
        else:
            opacity = send(alpha[0], atlas.device)
            colours = colours * opacity
        self._own = (opacity.shape[0], opacity.shape[1])
        self._mips = Mips(torch.cat((colours, opacity[None])))
        cell = 2.0 * atlas.apart
        side = max(1, int(cell * min(own / there for own, there in zip(self._own, self._size, strict=True))))
        self._reach = Reach(self._size, cell, rescaled(cells(opacity, side).T, self._own, self._size).T)

    def __call__(self, index: int) -> list[tuple[int, Sight]]:
        atlas, number = self._atlas, self._number
        mapping = atlas.mapping(number, index)
        own, *others = charts_from(atlas.layers, number, index)
        places = atlas.on(mapping, atlas.points)
        ways = [places, *(atlas.across(number, places, (own, other)) for other in others)]
        within = [atlas.in_chart(number, chart, way) for chart, way in zip((own, *others), ways, strict=True)]
        boxes = [self._reach.box(way, inside) for way, inside in zip(ways, within, strict=True)]
        found = [box for box in boxes if box is not None]
        if not found:
            return []
        box = atlas.blurred(around(found), number, index)
        seen = [
            self._seen(index, mapping, way, inside, box)
            for way, inside, there in zip(ways, within, boxes, strict=True)
            if there is not None
        ]
        return [(number, reduce(_behind, seen))]

    def _seen(self, index: int, mapping: Tensor, places: Tensor, inside: Tensor, box: Box) -> Sight:
        """What is seen at places ``(2, h, w)`` of one chart, where they are inside it."""
        atlas = self._atlas
        points = atlas.points[:, box[0], box[1]]
        here, _ = steadied(places[:, box[0], box[1]], points, atlas.apart, torch.ones_like(points[0]))
        read_at = rescaled(here.movedim(0, -1), self._size, self._own).movedim(-1, 0)
        larger, _, sure = shape(here, atlas.apart)
        apart = larger * max(own / there for own, there in zip(self._own, self._size, strict=True))
        sure = sure * atlas.known(self._number, mapping, points)
        light = atlas.light(index, points)
        shown = inside[box].to(sure)
        ways = atlas.ways(self._number, index, points)
        if ways is not None:
            scale = [own / there for own, there in zip(self._own, self._size, strict=True)]
            ways = ways * ways.new_tensor(scale[::-1]).view(2, 1, 1)
        lifted = atlas.lifted(torch.cat((read_at, apart[None], torch.stack((sure, shown)), light)), box)
        read = _blurred(self._mips.at, lifted[:2], lifted[2], None if ways is None else atlas.lifted(ways, box))
        read = read * lifted[4].clamp(0.0, 1.0)
        sure = lifted[3].clamp(0.0, 1.0)
        return Sight(atlas.part(box), read[:3] * lifted[5:].exp(), read[3], sure)


def _blurred(at: Callable[[Tensor, Tensor], Tensor], places: Tensor, apart: Tensor, ways: Tensor | None) -> Tensor:
    """The mean of what is read along ways, ``(2, h, w)`` as places are."""
    if ways is None:
        return at(places, apart)
    taps = taps_along(places, ways)
    return torch.stack([at(tap, apart) for tap in taps]).mean(dim=0)


def _behind(front: Sight, back: Sight) -> Sight:
    """What was painted in one chart over what was in another."""
    left = (1.0 - front.alpha) * back.alpha
    alpha = front.alpha + left
    sure = (front.alpha * front.sure + left * back.sure) / alpha.clamp_min(HARDLY)
    colours = front.colours + (1.0 - front.alpha) * back.colours
    return Sight(front.part, colours, alpha, torch.where(alpha > 0.0, sure, front.sure))


def _as_shown(picture: Tensor, texture: Tensor) -> Tensor:
    """The texture ``(3, H, W)`` as a person was shown it: with grey, as much as the picture has of it, where little of
    it was seen."""
    colours, seen = texture[:3], texture[3]
    apart = colours - FILL
    share = ((picture - FILL) * apart).sum(dim=0) / apart.square().sum(dim=0).clamp_min(HARDLY)
    return torch.where(seen >= 1.0, colours, FILL + share.clamp(0.0, 1.0) * apart)


class EditedFrame:
    """An edited frame: what was painted on each of the layers that are seen in it."""

    def __init__(self, atlas: Atlas, index: int, picture: Tensor, alpha: Tensor | None) -> None:
        self._atlas, self._index = atlas, index
        self.painted: Tensor
        """``(4, H, W)``: colours, multiplied with the opacity, and that."""
        base, source = atlas.base(index), atlas.source(index)
        colours = send(picture, atlas.device).movedim(-1, 0)
        if alpha is None:
            colours = resize(colours[None], atlas.size, mode="bicubic")[0].clamp(0.0, 1.0)
            opacity = changed(colours, [source, base] if PAINTED in atlas.layers.pictures else [source])
            # a faint difference is laid over what is there, a strong one takes its place
            colours = (colours - (1.0 - opacity) * base) * (opacity > 0.0)
            self.painted = torch.cat((colours, opacity[None]))
        else:
            opacity = send(alpha, atlas.device)
            whole = torch.cat((colours * opacity, opacity[None]))
            self.painted = resize(whole[None], atlas.size, mode="bicubic")[0].clamp(0.0, 1.0)
            opacity = self.painted[3]
        masks = send(atlas.layers.fields["masks"][index], atlas.device)
        self._seen = 1.0 - dilate(1.0 - ((masks - SEEN[0]) / (SEEN[1] - SEEN[0])).clamp(0.0, 1.0), 1)
        self._layers: dict[int, _Painted] = {}
        if not bool(opacity.any()):
            return
        spread = max(LEAST_SPREAD, round(SPREAD * max(atlas.size) / 512))
        rows, columns = part = within(bounding_box(opacity, 2 * spread), atlas.size)
        matte = matte_of(atlas.layers, index, source.movedim(0, -1).contiguous())
        shown, shares = colours_of(atlas, index, base, matte, part), matte.masks[:, rows, columns]
        own = _divided(self.painted[:, rows, columns], base[:, rows, columns], shown, shares, spread)
        for number, painted in enumerate(own):
            if bool((painted[3] > TOUCHED).any()):
                self._layers[number] = _Painted(atlas, number, index, painted, (rows.start, columns.start))

    @property
    def numbers(self) -> Collection[int]:
        """The layers that were painted on."""
        return self._layers.keys()

    def box(self, number: int, index: int, places: Tensor) -> Box | None:
        """See ``Reach``; of what was painted on a layer, of the places of another frame."""
        if number not in self._layers:
            return None
        box = self._layers[number].reach.box(self._atlas.carried(number, places, index, self._index))
        return None if box is None else self._atlas.blurred(box, number, index)

    def seen(self, number: int, index: int, places: Tensor, box: Box) -> tuple[Sight, Tensor]:
        """What is seen of it in another frame, between the points of a box, and how far this frame shows the layer
        there, ``(h, w)`` in 0..1."""
        atlas = self._atlas
        here = atlas.points[:, box[0], box[1]]
        places = atlas.carried(number, places, index, self._index)
        mapping, places = atlas.mapping(number, self._index), places[:, box[0], box[1]]
        point, off = to_frame(mapping, places.flatten(1).T)
        there = rescaled(point, atlas.fine, atlas.size).T.view_as(here)
        ways = atlas.ways(number, index, here)
        if ways is not None:
            end = to_frame(mapping, (places + ways).flatten(1).T)[0]
            ways = rescaled(end, atlas.fine, atlas.size).T.view_as(here) - there
        found = falling(off.view(here.shape[1:]) * (atlas.size[1] / atlas.fine[1]), *OFF)
        there, followed = steadied(there, here, atlas.apart, found)
        light = atlas.light(index, here) - atlas.light(self._index, there)
        larger, smaller, sure = shape(there, atlas.apart)
        sure = sure * falling(torch.maximum(larger, 1.0 / smaller.clamp_min(1e-6)), *SCALED)
        sure = sure * torch.lerp(found.mean(), found, followed)
        sure = sure * atlas.known(number, atlas.mapping(number, index), here)
        inside = ((there >= -0.5) & (there <= there.new_tensor(atlas.size[::-1]).view(2, 1, 1) - 0.5)).all(dim=0)
        small = (self._seen.shape[1], self._seen.shape[2])
        seen = sample_points(self._seen[number][None], rescaled(there.flatten(1).T, atlas.size, small)).view_as(off)
        known = torch.stack((larger, sure, seen.view_as(sure) * inside))
        lifted = atlas.lifted(torch.cat((there, known, light)), box)
        part = atlas.part(box)
        sure, seen = lifted[3:5].clamp(0.0, 1.0)
        if number in self._layers:
            along = None if ways is None else atlas.lifted(ways, box)
            read = _blurred(self._layers[number].at, lifted[:2], lifted[2], along)
            read[:3] *= lifted[5:].exp()
        else:
            read = lifted.new_zeros(4, *lifted.shape[1:])
        return Sight(part, read[:3], read[3], sure), seen


class _Painted:
    """What was painted on one layer in a frame."""

    def __init__(self, atlas: Atlas, number: int, index: int, own: Tensor, corner: tuple[int, int]) -> None:
        """Of ``own`` ``(4, h, w)``, see ``_divided``, which lies at the pixel (row, column) of the frame."""
        first = own.new_tensor(corner[::-1]).view(2, 1)
        places = atlas.on(atlas.mapping(number, index), cells(own[3], atlas.apart) + first)
        texture = atlas.textures[number]
        self.reach = Reach((texture.shape[1], texture.shape[2]), 2.0 * atlas.apart, places)
        self._corner = first[..., None] - 1.0
        # nothing was painted beyond
        self._mips = Mips(F.pad(own, (1, 1, 1, 1)))

    def at(self, points: Tensor, apart: Tensor) -> Tensor:
        """``(4, h, w)`` at points ``(2, h, w)`` of the frame; see ``Mips``."""
        return self._mips.at(points - self._corner, apart)


def _divided(painted: Tensor, base: Tensor, shown: Tensor, shares: Tensor, spread: int) -> list[Tensor]:
    """What was painted on each layer of a picture, ``(4, h, w)`` each.

    Where layers share pixels, each has the opacity that was painted beside, where it is alone, and the colours from
    there; what these leave over of the picture goes to those that were painted on, by their shares.

    Args:
        painted: ``(4, h, w)``, colours multiplied with the last, opacity.
        base: ``(3, h, w)``, what was painted over.
        shown: ``(L, 3, h, w)``, what that shows of each layer.
        shares: ``(L, h, w)``, the masks.
        spread: half of the pixels by which it goes on below what is in front.
    """
    own = []
    for share in shares[:, None]:
        deep = (1.0 - dilate(1.0 - share, DEEP)).pow(ALONE_POWER)
        sums = box_sum(box_sum(torch.cat((painted * deep, deep)), spread), spread)
        beside = sums[:4] / sums[4].clamp_min(HARDLY)
        # on an object's very border, paint is the layer's if there is some beside
        bordering = painted * (beside[3] * CLEAR).clamp(max=1.0)
        outer = beside.lerp(bordering, ((share - ALONE) / (1.0 - ALONE)).clamp_min(0.0))
        own.append(outer.lerp(painted, deep / dilate(deep, 2 * spread).clamp_min(HARDLY)))
    found = torch.stack(own)
    under = (1.0 - found[:, 3:]) * shown
    rest = painted[:3] + (1.0 - painted[3]) * base - (shares[:, None] * (found[:, :3] + under)).sum(dim=0)
    taking = shares * found[:, 3]
    given = taking / ((shares * taking).sum(dim=0) + TRUST * (1.0 - taking.sum(dim=0)).clamp_min(0.0)).clamp_min(HARDLY)
    found[:, :3] = (found[:, :3] + given[:, None] * rest + under).clamp(0.0, 1.0) - under
    return list(found * (found[:, 3:] > TOUCHED))


class EditedFrames:
    """Edited frames, of which in every other frame the nearest ones count."""

    def __init__(self, atlas: Atlas, numbers: Sequence[int], edit_of: Callable[[int], EditedFrame]) -> None:
        """``edit_of`` prepares an edited frame by its number, when it is needed: there may be many."""
        self._atlas, self._numbers = atlas, sorted(numbers)
        self._painted: dict[int, set[int]] = {}

        @lru_cache(maxsize=KEPT)
        def prepared(index: int) -> EditedFrame:
            edit = edit_of(index)
            self._painted[index] = set(edit.numbers)
            return edit

        self._edit_of = prepared

    def exact(self, index: int) -> Tensor | None:
        """What a frame was painted over with itself, ``(4, H, W)``."""
        return self._edit_of(index).painted if index in self._numbers else None

    def painted(self) -> set[int]:
        """The layers that were painted on in any edited frame; prepares those that were not needed so far."""
        for index in self._numbers:
            if index not in self._painted:
                self._edit_of(index)
        return set().union(*self._painted.values())

    def __call__(self, index: int) -> list[tuple[int, Sight]]:
        atlas, nearest = self._atlas, self._nearest(index)
        sights = []
        for number in range(len(atlas.textures)):
            places = atlas.on(atlas.mapping(number, index), atlas.points)
            boxes = [box for _, edit in nearest if (box := edit.box(number, index, places)) is not None]
            if not boxes:
                continue
            box = around(boxes)
            seen = [(weight, *edit.seen(number, index, places, box)) for weight, edit in nearest]
            sights.append((number, seen[0][1] if len(seen) == 1 else _blended(seen)))
        return sights

    def _nearest(self, index: int) -> list[tuple[float, EditedFrame]]:
        """The edited frames before and after, or the two nearest, with their weights."""
        numbers = self._numbers
        if len(numbers) == 1:
            return [(1.0, self._edit_of(numbers[0]))]
        first = max(0, min(len(numbers) - 2, sum(number < index for number in numbers) - 1))
        before, after = numbers[first : first + 2]
        late = min(1.0, max(0.0, (index - before) / (after - before)))
        late = min(1.0 - APART, max(APART, late * late * (3.0 - 2.0 * late)))
        return [(1.0 - late, self._edit_of(before)), (late, self._edit_of(after))]


def _blended(seen: Sequence[tuple[float, Sight, Tensor]]) -> Sight:
    """What several edited frames show in one part, each where it has something to say, by their weights."""
    says = torch.stack([weight * shown.clamp_min(HARDLY) for weight, _, shown in seen])
    sure = says * torch.stack([sight.sure for _, sight, _ in seen])
    weights = sure / (sure.sum(dim=0) + NOTHING)
    colours = torch.stack([sight.colours for _, sight, _ in seen])
    alpha = torch.stack([sight.alpha for _, sight, _ in seen])
    return Sight(
        seen[0][1].part,
        (weights[:, None] * colours).sum(dim=0),
        (weights * alpha).sum(dim=0),
        sure.sum(dim=0) / (says.sum(dim=0) + NOTHING),
    )


def colours_of(
    atlas: Atlas, index: int, base: Tensor, matte: Matte, part: Box, *, wanted: Tensor | None = None
) -> Tensor:
    """The colours ``(L, 3, h, w)`` of each layer in a part of a frame.

    The frame's own, where a layer is alone; where several meet, what its texture shows, and its share of what all
    textures leave over of the frame.

    Args:
        atlas: the layers.
        index: of the frame.
        base: ``(3, H, W)``, the frame with the edits so far.
        matte: its masks.
        part: rows and columns.
        wanted: ``(h, w)``, the pixels in which it matters; None for all of them.
    """
    colours = base[:, part[0], part[1]].expand(len(matte.masks), -1, -1, -1).clone()
    width = base.shape[2]
    row, column = torch.div(matte.mixed, width, rounding_mode="floor"), matte.mixed % width
    inside = (row >= part[0].start) & (row < part[0].stop) & (column >= part[1].start) & (column < part[1].stop)
    row, column = row[inside], column[inside]
    if wanted is not None:
        inside = wanted[row - part[0].start, column - part[1].start]
        row, column = row[inside], column[inside]
    if len(row) == 0:
        return colours
    points = torch.stack((column, row)).to(base)
    light = atlas.light(index, points).exp()
    places = [atlas.on(atlas.mapping(number, index), points).T for number in range(len(atlas.textures))]
    textures = torch.stack(
        [sample_points(texture[:3], there) * light for texture, there in zip(atlas.textures, places, strict=True)]
    )
    shares = matte.masks[:, row, column]
    rest = base[:, row, column] - (shares[:, None] * textures).sum(dim=0)
    found = textures + shares[:, None] * (rest / shares.square().sum(dim=0))
    colours[:, :, row - part[0].start, column - part[1].start] = found.clamp(0.0, 1.0)
    return colours
