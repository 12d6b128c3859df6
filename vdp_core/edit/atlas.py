"""Edits of one picture carried through a clip: of a layer's texture, or of one or several frames.

A pixel q of frame t shows of layer i the place ``u = M_ti(q)`` of its texture. An edited texture is read there. An edit
of frame s is read at the point p of s that shows the same place, ``M_si(p) = u``: from the edited frame itself, so that
it never goes through the texture. With e the colours that are read, multiplied with their opacity a, l the light and m
the masks, what came in as x goes out as ::

    x'_t(q) = x_t(q) + sum_i m_ti(q) (k_i e_i - a_i c_i),    k_i = l_t(q) / l_s(p), for a texture l_t(q)

where c is what layer i shows in q: x itself where it is alone; where several meet, what its texture shows and its share
of what textures leave over of x. So an edit hides behind whatever is in front, its borders are those of the layer, and
nothing of what it replaces shines through.

An edited frame shows the layers that are seen in it. Along their borders, where it shows a mixture, an edit of a layer
is what was painted beside, where the layer is alone: what was painted up to the border of an object leaves no outline
on what is behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_frames, check_mask
from ..errors import InputError, ShapeError
from ..image.knots import through
from ..image.matting import Matte, bounding_box
from ..image.mips import Mips
from ..image.morphology import box_sum, dilate
from ..image.resize import resize
from ..image.sample import rescaled, sample_points
from ..models.atlas import MODEL, PAINTED, mapping_of, to_frame, to_texture
from ..models.plate import matte_of
from ..motion.planar import robust_weight
from ..store.lazy import computed_with_mask
from ..store.transfer import send
from ..types import Layers, OnStep
from .changes import changed

__all__ = ["check_numbers", "edit_frames", "edit_texture"]

POINTS, FINE = 4, 8
"""Places between two knots of a mapping at which edits are followed, and at which mappings are known."""
ALONE_POWER = 8
"""Exponent on a mask; the power is the weight of a pixel for what was painted on that layer alone."""
SPREAD = 2
"""Pixels, of a frame with a long side of 512, that what was painted goes on for, twice, along a layer's borders."""
HARDLY = 1e-4
"""Weight below which nothing is known of what was painted."""
TOUCHED = 1.0 / 512
"""Opacity below which a pixel stays as it is."""
UNSEEN = 0.5 / 255
"""Change of a colour below which a pixel stays as it is."""
TRUST = 0.1
"""What unpainted shares of a pixel weigh against painted ones, where what is left over goes to these."""
SEEN = 0.2
"""Share of a layer from which on an edited frame says what is on it."""
APART = 1e-3
"""Weight, beside that of the nearest edited frame, of one that is further away."""
OFF = (0.25, 1.0)
"""Pixels by which a mapping's inverse may be off: from where on it is unsure, and where it says nothing."""
STRETCHED, SCALED = (4.0, 8.0), (8.0, 16.0)
"""The same for how much longer pixels get one way than the other, and for how many times larger or smaller."""
STRAINED = (0.12, 0.24)
"""Change of a mapping from pixel to pixel, against the motion that most of it has in common, up to which it is
followed, and from which on it counts as astray."""
REWEIGHTINGS = 4
KNOWN = 0.3
"""Weight of a place of a texture from which on its mapping is sure."""


def edit_texture(
    layers: Layers,
    number: int,
    picture: Tensor,
    alpha: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor, Layers]:
    """The clip with another texture on one of its layers.

    Args:
        layers: of the model atlas.
        number: of the layer.
        picture: ``(1, H', W', 3)`` in 0..1, of any size: it covers the texture.
        alpha: ``(1, H', W')``, 1 = the edit; None: what differs from the texture.
        device: where to compute.
        on_step: told after every frame; stops the work by raising.

    Returns:
        Frames ``(T, H, W, 3)``, and how sure the place of what was painted is, ``(T, H, W)`` in 0..1, 1 where nothing
        was, both on the CPU and, of a long clip, computed when they are looked at; and the layers with this edit.

    Raises:
        InputError, ShapeError: something cannot be used.
    """
    MODEL.require(layers, "EditAtlas")
    MODEL.check_layer(layers, number)
    picture, alpha = _checked(picture, alpha)
    if len(picture) != 1:
        raise ShapeError(f"picture: got {len(picture)}, a layer has one texture; give one picture")
    place = torch.device(device)
    atlas = _Atlas(layers, place)
    return _carried(atlas, _Texture(atlas, number, picture, alpha), {}, on_step)


def edit_frames(
    layers: Layers,
    numbers: Sequence[int],
    pictures: Tensor,
    alpha: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor, Layers]:
    """The clip with what was painted into some of its frames.

    Args:
        layers: of the model atlas.
        numbers: of the frames, counted from 0.
        pictures: ``(N, H', W', 3)`` in 0..1, a frame each, of any size: they cover the frame.
        alpha: ``(N, H', W')``, 1 = the edit; None: what differs from the frame by more than noise.
        device, on_step: see ``edit_texture``.

    Returns:
        See ``edit_texture``. Between two edited frames, what is seen goes over from one to the other.

    Raises:
        InputError, ShapeError: something cannot be used.
    """
    MODEL.require(layers, "EditFrame")
    pictures, alpha = _checked(pictures, alpha)
    check_numbers(numbers, len(pictures), len(layers))
    place = torch.device(device)
    atlas = _Atlas(layers, place)
    edits = [
        _Frame(atlas, index, pictures[which], None if alpha is None else alpha[which if len(alpha) > 1 else 0])
        for which, index in enumerate(numbers)
    ]
    return _carried(atlas, _Frames(atlas, edits), {edit.index: edit.painted for edit in edits}, on_step)


def check_numbers(numbers: Sequence[int], pictures: int, count: int) -> None:
    """Refuse numbers of edited frames that the clip does not have, or that are not as many as there are pictures.

    Raises:
        InputError: so they are.
    """
    if len(numbers) != pictures:
        raise InputError(
            f"frames: {len(numbers)} number{'s' * (len(numbers) != 1)} for {pictures} "
            f"picture{'s' * (pictures != 1)}; give the number of each edited frame, such as 0, 20, 39"
        )
    for number in numbers:
        if not 0 <= number < count:
            raise InputError(f"frame: there is no frame {number}; the clip has {count}, 0 to {count - 1}")
    if len(set(numbers)) < len(numbers):
        raise InputError("frames: one of the numbers is there twice; give each edited frame once")


def _checked(pictures: Tensor, alpha: Tensor | None) -> tuple[Tensor, Tensor | None]:
    pictures = check_frames(pictures, "picture")
    size = (pictures.shape[1], pictures.shape[2])
    return pictures, None if alpha is None else check_mask(alpha, "mask", count=len(pictures), size=size)


class _Sight(NamedTuple):
    """What of an edit of a layer would be seen in a part of a frame, were nothing in front of it."""

    part: tuple[slice, slice]
    colours: Tensor
    """``(3, h, w)``, multiplied with ``alpha``."""
    alpha: Tensor
    """``(h, w)``."""
    sure: Tensor
    """``(h, w)`` in 0..1."""


Edits = Callable[[int], "list[tuple[int, _Sight]]"]
"""What is seen of edits in a frame, by the number of the layer."""


class _Atlas:
    """The mappings of layers, on a device, at a grid of points that is finer than their knots."""

    def __init__(self, layers: Layers, device: torch.device) -> None:
        self.layers, self.device = layers, device
        self.size = height, width = layers.frames.shape[1], layers.frames.shape[2]
        knots = layers.fields["mapping"].shape[3:]
        self.fine = min(height, FINE * (knots[0] - 1)), min(width, FINE * (knots[1] - 1))
        self.apart = max(2, min(height // (POINTS * knots[0]), width // (POINTS * knots[1])))
        """Pixels from point to point; the first lie on the outer corner of the first pixel."""
        rows = torch.arange(math.ceil(height / self.apart) + 1, device=device) * self.apart - 0.5
        columns = torch.arange(math.ceil(width / self.apart) + 1, device=device) * self.apart - 0.5
        self.points = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1])
        """``(2, h, w)``, (x, y) in pixels of a frame."""
        self.textures = [
            send(layers.assets[f"texture_{number}"], device).float()
            for number in range(layers.fields["masks"].shape[1])
        ]

    def source(self, index: int) -> Tensor:
        """A frame of the clip, ``(3, H, W)``."""
        return send(self.layers.frames[index], self.device).movedim(-1, 0)

    def base(self, index: int) -> Tensor:
        """The same with the edits so far."""
        return send(self.layers.pictures.get(PAINTED, self.layers.frames)[index], self.device).movedim(-1, 0)

    def mapping(self, number: int, index: int) -> Tensor:
        return mapping_of(self.layers, number, index, self.device, self.fine)

    def on(self, mapping: Tensor, points: Tensor) -> Tensor:
        """Where points ``(2, ...)`` of a frame lie in the texture."""
        found = to_texture(mapping, rescaled(points.flatten(1).T, self.size, self.fine))
        return found.T.unflatten(1, points.shape[1:])

    def light(self, index: int, points: Tensor) -> Tensor:
        """Logarithms of the light ``(3, ...)`` at points ``(2, ...)`` of a frame."""
        light = through(send(self.layers.fields["light"][index], self.device), self.fine)
        read = sample_points(light, rescaled(points.flatten(1).T, self.size, self.fine))
        return read.unflatten(1, points.shape[1:])

    def weight(self, number: int, places: Tensor) -> Tensor:
        """How far places ``(2, h, w)`` of a texture are known, ``(h, w)`` in 0..1."""
        read = sample_points(self.textures[number][3:], places.flatten(1).T)[0]
        return (read / KNOWN).clamp(max=1.0).view(places.shape[1:])

    def part(self, box: tuple[slice, slice]) -> tuple[slice, slice]:
        """The pixels between the points of a box."""
        return (
            slice(box[0].start * self.apart, min(self.size[0], (box[0].stop - 1) * self.apart)),
            slice(box[1].start * self.apart, min(self.size[1], (box[1].stop - 1) * self.apart)),
        )

    def lifted(self, values: Tensor, box: tuple[slice, slice]) -> Tensor:
        """What is known at the points of a box, ``(C, h, w)``, in the pixels between them."""
        part = self.part(box)
        whole = through(values, ((values.shape[1] - 1) * self.apart, (values.shape[2] - 1) * self.apart))
        return whole[:, : part[0].stop - part[0].start, : part[1].stop - part[1].start]


class _Reach:
    """Which places of a texture an edit reaches, in square cells."""

    def __init__(self, size: tuple[int, int], cell: float, places: Tensor) -> None:
        """Of a texture of ``size``: the cells around places ``(2, N)``."""
        self._cell = cell
        self._cells = torch.zeros(
            math.ceil(size[0] / cell) + 1, math.ceil(size[1] / cell) + 1, dtype=torch.bool, device=places.device
        )
        column, row = self._number(places)
        self._cells[row, column] = True
        self._cells = dilate(self._cells, 2)

    def box(self, places: Tensor) -> tuple[slice, slice] | None:
        """The points, of all those whose places are ``(2, h, w)``, that surround what is reached; None where nothing
        is."""
        column, row = self._number(places)
        near = self._cells[row, column]
        if not bool(near.any()):
            return None
        return _within(bounding_box(near, 1), (near.shape[0], near.shape[1]))

    def _number(self, places: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self._cells.shape
        column, row = ((places + 0.5) / self._cell).floor().long()
        return column.clamp(0, width - 1), row.clamp(0, height - 1)


def _cells(alpha: Tensor, side: int) -> Tensor:
    """The middles ``(2, N)``, in pixels, of the square cells of ``(H, W)`` that are not empty."""
    filled = F.max_pool2d(alpha[None, None], side, ceil_mode=True)[0, 0] > 0.0
    return (filled.nonzero().flip(-1).T + 0.5) * side - 0.5


class _Texture:
    """An edited texture."""

    def __init__(self, atlas: _Atlas, number: int, picture: Tensor, alpha: Tensor | None) -> None:
        self._atlas, self._number = atlas, number
        colours = send(picture[0], atlas.device).movedim(-1, 0)
        texture = atlas.textures[number][:3]
        self._size = (texture.shape[1], texture.shape[2])
        if alpha is None:
            colours = resize(colours[None], self._size, mode="bicubic")[0].clamp(0.0, 1.0)
            opacity = changed(colours, [texture])
            colours = (colours - (1.0 - opacity) * texture) * (opacity > 0.0)
        else:
            opacity = send(alpha[0], atlas.device)
            colours = colours * opacity
        self._own = (opacity.shape[0], opacity.shape[1])
        self._mips = Mips(torch.cat((colours, opacity[None])))
        cell = 2.0 * atlas.apart
        side = max(1, int(cell * min(own / there for own, there in zip(self._own, self._size, strict=True))))
        self._reach = _Reach(self._size, cell, rescaled(_cells(opacity, side).T, self._own, self._size).T)

    def __call__(self, index: int) -> list[tuple[int, _Sight]]:
        atlas = self._atlas
        places = atlas.on(atlas.mapping(self._number, index), atlas.points)
        box = self._reach.box(places)
        if box is None:
            return []
        here = places[:, box[0], box[1]]
        read_at = rescaled(here.movedim(0, -1), self._size, self._own).movedim(-1, 0)
        larger, _, sure = _shape(here, atlas.apart)
        apart = larger * max(own / there for own, there in zip(self._own, self._size, strict=True))
        sure = sure * atlas.weight(self._number, here)
        light = atlas.light(index, atlas.points[:, box[0], box[1]])
        lifted = atlas.lifted(torch.cat((read_at, apart[None], sure[None], light)), box)
        read = self._mips.at(lifted[:2], lifted[2])
        sure = lifted[3].clamp(0.0, 1.0)
        return [(self._number, _Sight(atlas.part(box), read[:3] * lifted[4:].exp(), read[3], sure))]


class _Frame:
    """An edited frame: what was painted on each of the layers that are seen in it."""

    def __init__(self, atlas: _Atlas, index: int, picture: Tensor, alpha: Tensor | None) -> None:
        self._atlas, self.index = atlas, index
        base, source = atlas.base(index), atlas.source(index)
        colours = resize(send(picture, atlas.device).movedim(-1, 0)[None], atlas.size, mode="bicubic")[0].clamp(
            0.0, 1.0
        )
        if alpha is None:
            opacity = changed(colours, [source, base] if PAINTED in atlas.layers.pictures else [source])
            # a faint difference is laid over what is there, a strong one takes its place
            colours = (colours - (1.0 - opacity) * base) * (opacity > 0.0)
        else:
            opacity = resize(send(alpha, atlas.device)[None, None], atlas.size)[0, 0].clamp(0.0, 1.0)
            colours = colours * opacity
        self.painted = torch.cat((colours, opacity[None]))
        """``(4, H, W)``: colours, multiplied with the opacity, and that."""
        masks = send(atlas.layers.fields["masks"][index], atlas.device)
        self._seen = dilate((masks / SEEN).clamp(max=1.0), 1)
        self._layers = {}
        if not bool(opacity.any()):
            return
        spread = max(1, round(SPREAD * max(atlas.size) / 512))
        rows, columns = part = _within(bounding_box(opacity, 2 * spread), atlas.size)
        matte = matte_of(atlas.layers, index, source.movedim(0, -1).contiguous())
        shown = _shown(atlas, index, base, matte, part, opacity[part] >= 0.0)
        own = _divided(
            self.painted[:, rows, columns], base[:, rows, columns], shown, matte.masks[:, rows, columns], spread
        )
        for number, painted in enumerate(own):
            if bool((painted[3] > TOUCHED).any()):
                self._layers[number] = _Painted(atlas, number, index, painted, (rows.start, columns.start))

    def box(self, number: int, places: Tensor) -> tuple[slice, slice] | None:
        """See ``_Reach``; of what was painted on a layer."""
        return self._layers[number].reach.box(places) if number in self._layers else None

    def seen(self, number: int, index: int, places: Tensor, box: tuple[slice, slice]) -> tuple[_Sight, Tensor]:
        """What is seen of it in another frame, between the points of a box, and how far this frame shows the layer
        there, ``(h, w)`` in 0..1."""
        atlas = self._atlas
        here = atlas.points[:, box[0], box[1]]
        found, off = to_frame(atlas.mapping(number, self.index), places[:, box[0], box[1]].flatten(1).T)
        there = rescaled(found, atlas.fine, atlas.size).T.view_as(here)
        there = _steadied(there, here, atlas.apart)
        light = atlas.light(index, here) - atlas.light(self.index, there)
        larger, smaller, sure = _shape(there, atlas.apart)
        sure = sure * _falling(torch.maximum(larger, 1.0 / smaller.clamp_min(1e-6)), *SCALED)
        sure = sure * _falling(off.view(here.shape[1:]) * (atlas.size[1] / atlas.fine[1]), *OFF)
        sure = sure * atlas.weight(number, places[:, box[0], box[1]])
        inside = ((there >= -0.5) & (there <= there.new_tensor(atlas.size[::-1]).view(2, 1, 1) - 0.5)).all(dim=0)
        small = (self._seen.shape[1], self._seen.shape[2])
        seen = sample_points(self._seen[number][None], rescaled(there.flatten(1).T, atlas.size, small)).view_as(off)
        known = torch.stack((larger, sure, seen.view_as(sure) * inside))
        lifted = atlas.lifted(torch.cat((there, known, light)), box)
        part = atlas.part(box)
        sure, seen = lifted[3:5].clamp(0.0, 1.0)
        if number in self._layers:
            read = self._layers[number].at(lifted[:2], lifted[2])
            read[:3] *= lifted[5:].exp()
        else:
            read = lifted.new_zeros(4, *lifted.shape[1:])
        return _Sight(part, read[:3], read[3], sure), seen


class _Painted:
    """What was painted on one layer in a frame."""

    def __init__(self, atlas: _Atlas, number: int, index: int, own: Tensor, corner: tuple[int, int]) -> None:
        """Of ``own`` ``(4, h, w)``, see ``_own``, which lies at the pixel (row, column) of the frame."""
        first = own.new_tensor(corner[::-1]).view(2, 1)
        cells = _cells(own[3], atlas.apart) + first
        places = atlas.on(atlas.mapping(number, index), cells)
        texture = atlas.textures[number]
        self.reach = _Reach((texture.shape[1], texture.shape[2]), 2.0 * atlas.apart, places)
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
        spread: pixels, twice, that borders reach.
    """
    own = []
    for share in shares:
        alone = (1.0 - dilate(1.0 - share[None], 1)[0]).pow(ALONE_POWER)
        sums = box_sum(box_sum(torch.cat((painted * alone, alone[None])), spread), spread)
        around = sums[:4] / sums[4].clamp_min(HARDLY)
        own.append(around.lerp(painted, alone / dilate(alone[None], 2 * spread)[0].clamp_min(HARDLY)))
    found = torch.stack(own)
    under = (1.0 - found[:, 3:]) * shown
    rest = painted[:3] + (1.0 - painted[3]) * base - (shares[:, None] * (found[:, :3] + under)).sum(dim=0)
    taking = shares * found[:, 3]
    given = taking / ((shares * taking).sum(dim=0) + TRUST * (1.0 - taking.sum(dim=0)).clamp_min(0.0)).clamp_min(HARDLY)
    found[:, :3] = (found[:, :3] + given[:, None] * rest + under).clamp(0.0, 1.0) - under
    return list(found * (found[:, 3:] > TOUCHED))


class _Frames:
    """Edited frames, of which in every other frame the nearest ones count."""

    def __init__(self, atlas: _Atlas, edits: Sequence[_Frame]) -> None:
        self._atlas, self._edits = atlas, sorted(edits, key=lambda edit: edit.index)

    def __call__(self, index: int) -> list[tuple[int, _Sight]]:
        atlas, nearest = self._atlas, self._nearest(index)
        sights = []
        for number in range(len(atlas.textures)):
            places = atlas.on(atlas.mapping(number, index), atlas.points)
            boxes = [box for _, edit in nearest if (box := edit.box(number, places)) is not None]
            if not boxes:
                continue
            box = _around(boxes)
            seen = [(weight, *edit.seen(number, index, places, box)) for weight, edit in nearest]
            sights.append((number, seen[0][1] if len(seen) == 1 else _blended(seen)))
        return sights

    def _nearest(self, index: int) -> list[tuple[float, _Frame]]:
        """The edited frames before and after, or the two nearest, with their weights."""
        edits = self._edits
        if len(edits) == 1:
            return [(1.0, edits[0])]
        first = max(0, min(len(edits) - 2, sum(edit.index < index for edit in edits) - 1))
        before, after = edits[first], edits[first + 1]
        late = min(1.0, max(0.0, (index - before.index) / (after.index - before.index)))
        late = min(1.0 - APART, max(APART, late * late * (3.0 - 2.0 * late)))
        return [(1.0 - late, before), (late, after)]


def _blended(seen: Sequence[tuple[float, _Sight, Tensor]]) -> _Sight:
    """What several edited frames show in one part, each where it has something to say, by their weights."""
    says = [weight * shown for weight, _, shown in seen]
    sure = sum(say * sight.sure for say, (_, sight, _) in zip(says, seen, strict=True))
    total = sure + HARDLY * HARDLY
    colours = sum(say * sight.sure * sight.colours for say, (_, sight, _) in zip(says, seen, strict=True)) / total
    alpha = sum(say * sight.sure * sight.alpha for say, (_, sight, _) in zip(says, seen, strict=True)) / total
    return _Sight(seen[0][1].part, colours, alpha, sure / (sum(says) + HARDLY * HARDLY))


def _within(box: tuple[slice, slice], size: tuple[int, int]) -> tuple[slice, slice]:
    return slice(box[0].start, min(box[0].stop, size[0])), slice(box[1].start, min(box[1].stop, size[1]))


def _around(boxes: Sequence[tuple[slice, slice]]) -> tuple[slice, slice]:
    rows, columns = zip(*boxes, strict=True)
    return (
        slice(min(side.start for side in rows), max(side.stop for side in rows)),
        slice(min(side.start for side in columns), max(side.stop for side in columns)),
    )


def _steadied(there: Tensor, here: Tensor, apart: int) -> Tensor:
    """Where points ``here`` lead to, ``there``, both ``(2, h, w)``; as most of them do where they all differ.

    What bends does so smoothly. Water and leaves lead a mapping astray, and what is painted on them keeps its shape.
    """
    basis = torch.cat((here, torch.ones_like(here[:1]))).flatten(1).T.double()
    basis[:, :2] -= basis[:, :2].mean(dim=0)
    target = there.flatten(1).T.double()
    weights = torch.ones_like(target[:, 0])
    common = target
    for _ in range(REWEIGHTINGS):
        weighted = basis * weights[:, None]
        common = basis @ torch.linalg.solve(weighted.T @ basis, weighted.T @ target)
        weights = robust_weight((common - target).square().sum(dim=1), 1.0)
    astray = there - common.T.view_as(there).to(there)
    down, across = torch.gradient(astray, spacing=float(apart), dim=(1, 2))
    strain = (down.square().sum(dim=0) + across.square().sum(dim=0)).sqrt().median()
    return there - astray * (1.0 - _falling(strain, *STRAINED))


def _shape(places: Tensor, apart: int) -> tuple[Tensor, Tensor, Tensor]:
    """How many times longer steps of a pixel get along their longest and shortest direction, ``(h, w)`` each, and how
    far that is to be trusted, 0 where the mapping folds.

    Args:
        places: ``(2, h, w)``, where points lead to.
        apart: how far these are from each other.
    """
    down, across = torch.gradient(places, spacing=float(apart), dim=(1, 2))
    mean = 0.5 * (across.square().sum(dim=0) + down.square().sum(dim=0))
    area = across[0] * down[1] - across[1] * down[0]
    area = area * area.median().sign()  # a texture may be mirrored as a whole
    larger = (mean + (mean.square() - area.square()).clamp_min(0.0).sqrt()).sqrt()
    smaller = area.abs() / larger.clamp_min(1e-6)
    return larger, smaller, (area > 0.0) * _falling(larger / smaller.clamp_min(1e-6), *STRETCHED)


def _falling(values: Tensor, low: float, high: float) -> Tensor:
    """1 up to ``low``, 0 from ``high`` on."""
    return ((high - values) / (high - low)).clamp(0.0, 1.0)


def _carried(
    atlas: _Atlas, edits: Edits, exact: Mapping[int, Tensor], on_step: OnStep | None
) -> tuple[Tensor, Tensor, Layers]:
    """The clip with edits; ``exact`` says what some of its frames were painted over with."""
    layers = atlas.layers

    @torch.no_grad()
    def frames(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(start, len(layers)):
            if index in exact:
                base, painted = atlas.base(index), exact[index]
                over = ((1.0 - painted[3]) * base + painted[:3]).clamp_(0.0, 1.0)
                out = torch.where(painted[3] > 0.0, over, base)
                yield out.movedim(0, -1).contiguous(), torch.ones_like(base[0])
            else:
                yield _painted(atlas, index, edits(index))

    made, sure = computed_with_mask(frames, tuple(layers.frames.shape), on_step=on_step)
    return made, sure, replace(layers, pictures={**layers.pictures, PAINTED: made})


def _painted(atlas: _Atlas, index: int, sights: list[tuple[int, _Sight]]) -> tuple[Tensor, Tensor]:
    """A frame with edits, ``(H, W, 3)``, and how sure their places are, ``(H, W)``."""
    base = atlas.base(index)
    out, certain = base.movedim(0, -1).clone(memory_format=torch.contiguous_format), torch.ones_like(base[0])
    if not sights:
        return out, certain
    matte = matte_of(atlas.layers, index, atlas.source(index).movedim(0, -1).contiguous())
    for number, sight in sights:
        share = matte.masks[number][sight.part]
        touched = (sight.alpha * sight.sure * share) > TOUCHED
        if not bool(touched.any()):
            continue
        shown = _shown(atlas, index, base, matte, sight.part, touched)[number]
        change = share * sight.sure * (sight.colours - sight.alpha.clamp(0.0, 1.0) * shown)
        region = out[sight.part].movedim(-1, 0)
        region += torch.where(touched & (change.abs().amax(dim=0) > UNSEEN), change, 0.0)
        certain[sight.part] -= share * (1.0 - sight.sure) * (sight.alpha > TOUCHED)
    return out.clamp_(0.0, 1.0), certain.clamp_(0.0, 1.0)


def _shown(atlas: _Atlas, index: int, base: Tensor, matte: Matte, part: tuple[slice, slice], wanted: Tensor) -> Tensor:
    """The colours ``(L, 3, h, w)`` of each layer in a part of a frame, for those of its pixels that are ``wanted``."""
    colours = base[:, part[0], part[1]].expand(len(matte.masks), -1, -1, -1).clone()
    width = base.shape[2]
    row, column = torch.div(matte.mixed, width, rounding_mode="floor"), matte.mixed % width
    inside = (row >= part[0].start) & (row < part[0].stop) & (column >= part[1].start) & (column < part[1].stop)
    row, column = row[inside], column[inside]
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
