"""Where points of a frame lie in the texture of a layer and in other frames, through the mappings of an atlas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.knots import through
from ..image.matting import bounding_box
from ..image.morphology import dilate
from ..image.sample import rescaled, sample_points
from ..models.atlas import PAINTED, blur_of, chart_of, mapping_of, to_chart, to_texture
from ..motion.planar import robust_fit
from ..store.transfer import send
from ..types import Layers

__all__ = ["Atlas", "Box", "Reach", "around", "cells", "falling", "shape", "steadied", "within"]

Box = tuple[slice, slice]
"""Rows and columns."""

POINTS, FINE = 4, 8
"""Places between two knots of a mapping at which edits are followed, and at which mappings are known."""
STRETCHED = (4.0, 8.0)
"""How much longer pixels get one way than the other: from where on a mapping is unsure, and where it says nothing."""
STRAINED = (0.12, 0.24)
"""Change of a mapping from pixel to pixel, against the motion that most of it has in common, up to which it is
followed, and from which on it counts as astray."""
REWEIGHTINGS = 4
LITTLE = 1e-4
"""Weight of a point that is not to be trusted."""
BLURRED = 0.5
"""Pixels of a texture from which on a blur is seen."""
KNOWN = 0.1
"""Weight of a place of a texture from which on its mapping is sure."""


class Atlas:
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
        """Where a frame lies in a layer's texture, ``(2, h, w)``, at the size ``fine``."""
        return mapping_of(self.layers, number, index, self.device, self.fine)

    def on(self, mapping: Tensor, points: Tensor) -> Tensor:
        """Where points ``(2, ...)`` of a frame lie in the texture."""
        found = to_texture(mapping, rescaled(points.flatten(1).T, self.size, self.fine))
        return found.T.unflatten(1, points.shape[1:])

    def carried(self, number: int, places: Tensor, here: int, there: int) -> Tensor:
        """Where places ``(2, ...)`` of the chart of a layer's texture that a frame lies in are in that of another."""
        charts = chart_of(self.layers, number, here), chart_of(self.layers, number, there)
        return self.across(number, places, charts)

    def across(self, number: int, places: Tensor, charts: tuple[int, int]) -> Tensor:
        """Where places ``(2, ...)`` of one chart of a layer's texture are in another."""
        found, _ = to_chart(self.layers, number, places.flatten(1).T, charts, self.fine)
        return found.T.unflatten(1, places.shape[1:])

    def in_chart(self, number: int, chart: int, places: Tensor) -> Tensor:
        """Whether places ``(2, ...)`` lie in a chart of a layer's texture, ``(...)`` bool."""
        rows = self.layers.assets.get(f"rows_{number}")
        if rows is None:
            return torch.ones_like(places[0], dtype=torch.bool)
        top, bottom = (rows[chart] * self.textures[number].shape[1]).tolist()
        return (places[1] >= top) & (places[1] < bottom)

    def light(self, index: int, points: Tensor) -> Tensor:
        """Logarithms of the light ``(3, ...)`` at points ``(2, ...)`` of a frame."""
        return self._at(send(self.layers.fields["light"][index], self.device), points)

    def ways(self, number: int, index: int, points: Tensor) -> Tensor | None:
        """How far a layer's texture moves under points ``(2, ...)`` of a frame while the shutter is open, in its
        pixels, ``(2, ...)``; None where that is hardly at all."""
        blur = blur_of(self.layers, number, index, self.device)
        if blur is None or float(blur.abs().max()) < BLURRED:
            return None
        return self._at(blur, points)

    def blurred(self, box: Box, number: int, index: int) -> Box:
        """A box with the points around it that see something of it while the shutter is open."""
        blur = blur_of(self.layers, number, index, self.device)
        margin = 0 if blur is None else math.ceil(0.5 * float(blur.abs().max()) / self.apart)
        rows, columns = (slice(max(0, side.start - margin), side.stop + margin) for side in box)
        return within((rows, columns), (self.points.shape[1], self.points.shape[2]))

    def _at(self, knots: Tensor, points: Tensor) -> Tensor:
        read = sample_points(through(knots, self.fine), rescaled(points.flatten(1).T, self.size, self.fine))
        return read.unflatten(1, points.shape[1:])

    def known(self, number: int, mapping: Tensor, points: Tensor) -> Tensor:
        """How far what points ``(2, h, w)`` of a frame show of a layer is known, ``(h, w)`` in 0..1."""
        corner = points.new_tensor(self.size[::-1]).view(2, 1, 1) - 1.0
        places = self.on(mapping, torch.minimum(points.clamp_min(0.0), corner))
        weight = sample_points(self.textures[number][3:], places.flatten(1).T)[0]
        return (weight / KNOWN).clamp(max=1.0).view(places.shape[1:])

    def part(self, box: Box) -> Box:
        """The pixels between the points of a box."""
        return (
            slice(box[0].start * self.apart, min(self.size[0], (box[0].stop - 1) * self.apart)),
            slice(box[1].start * self.apart, min(self.size[1], (box[1].stop - 1) * self.apart)),
        )

    def lifted(self, values: Tensor, box: Box) -> Tensor:
        """What is known at the points of a box, ``(C, h, w)``, in the pixels between them."""
        part = self.part(box)
        whole = through(values, ((values.shape[1] - 1) * self.apart, (values.shape[2] - 1) * self.apart))
        return whole[:, : part[0].stop - part[0].start, : part[1].stop - part[1].start]


class Reach:
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

    def box(self, places: Tensor, inside: Tensor | None = None) -> Box | None:
        """The points, of all those whose places are ``(2, h, w)``, that surround what is reached; None where nothing
        is. Where it is given, only those count that are ``inside``, ``(h, w)``."""
        column, row = self._number(places)
        near = self._cells[row, column] if inside is None else self._cells[row, column] & inside
        if not bool(near.any()):
            return None
        return within(bounding_box(near, 1), (near.shape[0], near.shape[1]))

    def _number(self, places: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self._cells.shape
        column, row = ((places + 0.5) / self._cell).floor().long()
        return column.clamp(0, width - 1), row.clamp(0, height - 1)


def cells(alpha: Tensor, side: int) -> Tensor:
    """The middles ``(2, N)``, in pixels, of the square cells of ``(H, W)`` that are not empty."""
    filled = F.max_pool2d(alpha[None, None], side, ceil_mode=True)[0, 0] > 0.0
    return (filled.nonzero().flip(-1).T + 0.5) * side - 0.5


def within(box: Box, size: tuple[int, int]) -> Box:
    """What of a box lies in ``size`` = (H, W)."""
    return slice(box[0].start, min(box[0].stop, size[0])), slice(box[1].start, min(box[1].stop, size[1]))


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box around several."""
    rows, columns = zip(*boxes, strict=True)
    return (
        slice(min(side.start for side in rows), max(side.stop for side in rows)),
        slice(min(side.start for side in columns), max(side.stop for side in columns)),
    )


def steadied(there: Tensor, here: Tensor, apart: int, sure: Tensor) -> tuple[Tensor, Tensor]:
    """Where points ``here`` lead to, ``there``, both ``(2, h, w)``; as most of them do where they all differ.

    What bends does so smoothly. Water and leaves lead a mapping astray, and what is painted on them keeps its shape.

    Args:
        there, here: in pixels.
        apart: how far points are from each other.
        sure: ``(h, w)``, how far each counts.

    Returns:
        Where they lead to, and how far, 0..1, that is what they lead to themselves.
    """
    basis = torch.cat((here, torch.ones_like(here[:1]))).flatten(1).T.double()
    basis[:, :2] -= basis[:, :2].mean(dim=0)
    target = there.flatten(1).T.double()
    weight = sure.flatten().double() + LITTLE
    common = basis @ robust_fit(basis, target, weight, reweightings=REWEIGHTINGS, least=1.0)
    astray = there - common.T.view_as(there).to(there)
    down, across = torch.gradient(astray, spacing=float(apart), dim=(1, 2))
    strain = (down.square().sum(dim=0) + across.square().sum(dim=0)).sqrt().median()
    followed = falling(strain, *STRAINED)
    return there - astray * (1.0 - followed), followed


def shape(places: Tensor, apart: int) -> tuple[Tensor, Tensor, Tensor]:
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
    return larger, smaller, (area > 0.0) * falling(larger / smaller.clamp_min(1e-6), *STRETCHED)


def falling(values: Tensor, low: float, high: float) -> Tensor:
    """1 up to ``low``, 0 from ``high`` on."""
    return ((high - values) / (high - low)).clamp(0.0, 1.0)
