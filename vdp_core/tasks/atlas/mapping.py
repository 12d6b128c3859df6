"""The mapping of a layer: where each pixel of each frame lies in the layer's texture."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...image.inpaint import inpaint
from ...image.knots import bending, spread, straightened, sums_around, through
from ...image.morphology import box_mean, dilate
from ...image.sample import sample
from ...image.splat import Splat
from ...models.atlas import route, to_frame, to_texture
from ...motion.dis import search_with
from ...motion.planar import robust_fit
from ...motion.warp import pixel_grid
from ...store.scratch import large_empty
from .textures import KNOWN

__all__ = ["HARDLY", "Registration", "Seam", "Start", "start"]

REWEIGHTINGS = 8
SPEED = 1.0
"""Pixels by which a vector may differ from a common motion without counting less."""
LITTLE = 1e-3
"""Weight of nothing beside that of pixels that are known."""
SCALED, ANEW = 2.0, 1.6
"""How many times larger or smaller pixels may get in a chart, and where a frame comes into it again."""
APART = 32
"""Pixels between charts."""
EDGE, ALONG = 4, 0.1
"""How wide, in pixels, edges of layers are, and how much flow is worth there."""
BEYOND = 0.11
"""What the mapping around a layer counts for, beside that of the layer, in its common motion."""
HARDLY = 0.1
"""Share of what is seen of a layer at the most, of which motion is no better known than that it goes on as before."""
LARGEST = 2**24
"""Most pixels of the texture so far of a chart."""
NOISE = 4e-4
"""Squared difference of colours that tells nothing of where a pixel should have been read."""
HELD = 1e-2
"""Inverse of the square, in pixels, of how far knots may go that nothing tells of."""
SURE = 100.0
"""Inverse of the square of how surely a knot must be known, across its edges too, to tell half of how it bends."""
NEAR = 3
"""Knots to either side that bend alike."""
STRAIGHT, STRAIGHTENED = 0.01, 0.02
"""Squared bending of mappings of which nothing is known, in pixels, and its weight beside those that it is known of."""
PLIANT = 6.0
"""How many times more than they were found to bend they may; down: stiffer, and more of the truth is lost."""
FOLDED = 0.1
"""Area of the texture, of a pixel of a frame, below which a mapping has no slope."""


class Registration:
    """Moves a mapping so that what it rebuilds lies on the frame: dense inverse search, spread onto the knots."""

    def __init__(self, finest: int) -> None:
        """``finest``: how often the size is halved at the finest scale that is searched at."""
        self._search = search_with(finest=finest, patch=8, stride=4, smoothness=8.0, refinements=5)

    def __call__(
        self,
        knots: Tensor,
        frame: Tensor,
        share: Tensor,
        rebuilt: Callable[[Tensor], tuple[Tensor, Tensor]],
        size: tuple[int, int],
        little: float,
    ) -> Tensor:
        """Return the knots ``(2, h', w')`` of a mapping, corrected.

        Args:
            knots: places (x, y) in the texture.
            frame: ``(3, h, w)``.
            share: ``(h, w)``, of the layer in each pixel.
            rebuilt: gives colours ``(3, h, w)`` at places, and where they are known; elsewhere nothing is corrected.
            size: (h, w) of the knots that corrections are spread onto; fewer of them bridge larger gaps.
            little: how many pixels correct nothing; see ``told_by``.
        """
        places = through(knots, (share.shape[0], share.shape[1]))
        colours, known = rebuilt(places)
        shown = share * known
        rebuilt_frame = torch.lerp(frame, colours, shown)
        vectors = torch.from_numpy(self._search(_grey(frame), _grey(rebuilt_frame))).movedim(-1, 0).to(frame)
        across, down = torch.gradient(places, dim=(2, 1))
        moved = across * vectors[0] + down * vectors[1]
        # a knot that is off stretches the mapping around it, and must not drive itself further
        most = SCALED * vectors.square().sum(dim=0).sqrt()
        moved = moved * (most / moved.square().sum(dim=0).sqrt().clamp_min(1e-6)).clamp_max(1.0)
        correction = told_by(shown, little) * spread(moved, shown.square(), size)
        found = knots + F.interpolate(correction[None], size=knots.shape[1:], mode="bilinear", align_corners=True)[0]
        told = sums_around(_told(rebuilt_frame, across, down) * (shown / NOISE), (knots.shape[1], knots.shape[2]))
        return _steadied(found, told)


def _told(picture: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """What changes of colour tell of where pixels lie, ``(3, h, w)``: squared slopes xx, xy and yy in the texture.

    Args:
        picture: ``(3, h, w)``.
        across, down: ``(2, h, w)``, slopes of the mapping.
    """
    below, right = torch.gradient(picture, dim=(1, 2))
    area = across[0] * down[1] - across[1] * down[0]
    area = torch.where(area.abs() < FOLDED, FOLDED, area)
    x, y = (right * down[1] - below * across[1]) / area, (below * across[0] - right * down[0]) / area
    return torch.stack((x.square(), x * y, y.square())).mean(dim=1)


def _steadied(knots: Tensor, told: Tensor) -> Tensor:
    """Knots that bend, where nothing tells how, as little as those around them that are known.

    How stiff a mapping is follows from how much it bends where it is known in all directions: a wall does not, and
    what pictures leave open along edges and on plain ground follows from the rest; water does.
    """
    half = 0.5 * (told[0] + told[2])
    least = half - ((0.5 * (told[0] - told[2])).square() + told[1].square()).sqrt()
    sure = least.clamp_min(0.0) / (least.clamp_min(0.0) + SURE)
    bends, known = box_mean(torch.stack((sure * bending(knots), sure))[None], NEAR)[0]
    allowed = PLIANT * (bends + STRAIGHTENED * STRAIGHT) / (known + STRAIGHTENED)
    return straightened(knots, told + HELD * told.new_tensor([1.0, 0.0, 1.0]).view(3, 1, 1), 1.0 / allowed)


class Seam(NamedTuple):
    """A frame that is mapped into a second chart too."""

    frame: int
    chart: int
    """The second one."""
    knots: Tensor
    """``(2, h', w')``, its mapping into that."""


class Start(NamedTuple):
    """The mapping of a layer to begin with."""

    knots: Tensor
    """``(T, 2, h', w')``, places (x, y), of each frame in its chart; charts lie below each other."""
    charts: Tensor
    """``(T,)``, the number of the chart of each frame."""
    seams: list[Seam]
    """One for each chart but the first, from which all others can be reached through them."""
    rows: Tensor
    """``(W, 2)``, between which y each chart lies."""


def start(
    frame_of: Callable[[int], Tensor],
    shares: Tensor,
    motion_of: Callable[[int, int], tuple[Tensor, Tensor]],
    size: tuple[int, int],
    device: torch.device,
    on_frame: Callable[[int], None],
) -> Start:
    """The mapping of a layer to begin with, in pixels from the frame that shows most of it.

    From that frame outwards, each frame is mapped as its neighbour is, along the flow between them. Where the flow is
    not believed, the layer's common motion (affine, found robustly) leads on. Each frame is then registered to the
    texture that the frames before it have made, so that errors do not add up.

    A texture goes as far as the camera does. Where a frame's pixels would get more than ``SCALED`` times larger or
    smaller in it, the frame goes on in another chart: one that there is already and that its neighbour is seen in, or
    a new one, which begins as its neighbour is.

    Args:
        frame_of: gives frame ``(3, h, w)`` by its number.
        shares: ``(T, h, w)``, of the layer.
        motion_of: gives the motion from a frame to its neighbour, ``(2, h, w)``, and how far it can be believed,
            ``(h, w)``, by their numbers.
        size: (h', w') of the knots.
        device: where to compute.
        on_frame: told after every frame.
    """
    count, height, width = shares.shape
    middle = max(range(count), key=lambda t: float(shares[t].mean()) * (1.0 - abs(2 * t + 1 - count) / (2 * count)))
    order = [middle, *(t for far in range(1, count) for t in (middle - far, middle + far) if 0 <= t < count)]
    grid = pixel_grid(height, width, device=device)
    as_it_is = _affine_knots(grid, torch.ones_like(grid[0]), grid, size)
    register = Registration(finest=1)
    knots, charts = large_empty(count, 2, *size), torch.zeros(count, dtype=torch.long)
    textures, seams = [SoFar((height, width), device)], list[Seam]()
    little, deep = (HARDLY * float(part.sum()) for part in (shares[middle], _deep(shares[middle])))
    speeds = {-1: torch.zeros(2, 1, 1, device=device), 1: torch.zeros(2, 1, 1, device=device)}

    def into_another(t: int) -> tuple[int, Tensor]:
        """A chart in which a frame, which is mapped already, is about as large, and its knots there."""
        frame, share, own = frame_of(t), shares[t].to(device), int(charts[t])
        pairs = [(int(charts[seam.frame]), seam.chart) for seam in seams]
        for number, texture in enumerate(textures):
            if number != own:
                there = knots[t].to(device).flatten(1)
                for place, back in route(pairs, own, number) or []:
                    both = knots[seams[place].frame].to(device), seams[place].knots
                    here, other = (through(one, (height, width)) for one in (both[::-1] if back else both))
                    there = to_texture(other, to_frame(here, there.T)[0]).T
                places = through(there.view_as(as_it_is), (height, width))
                if _is_near(places, share, ANEW) and texture.shows(places, share):
                    return number, there.view_as(as_it_is)
        seams.append(Seam(t, len(textures), as_it_is))
        textures.append(SoFar((height, width), device))
        textures[-1].lay(frame, grid, share)
        return len(textures) - 1, as_it_is

    for done, t in enumerate(order):
        frame, share = frame_of(t), shares[t].to(device)
        chart, found = 0, as_it_is
        if t != middle:
            s = t + 1 if t < middle else t - 1
            vectors, sure = motion_of(t, s)
            seen, speed = sure * _deep(share), speeds[t - s]
            chart, before = int(charts[s]), knots[s].to(device)
            found = _led(before, speed, shares[s].to(device), vectors, seen, grid, deep)
            places = through(found, (height, width))
            if not (_is_near(places, share, SCALED) and textures[chart].has_room(places, share)):
                # motion that tears apart what a frame shows is no reason for another chart
                alone = _led(as_it_is, speed, shares[s].to(device), vectors, seen, grid, deep)
                if _is_near(through(alone, (height, width)), share, ANEW):
                    chart, before = into_another(s)
                    found = _led(before, speed, shares[s].to(device), vectors, seen, grid, deep)
            found = register(found, frame, share, textures[chart].at, _fewer(size), little)
            speeds[t - s] = _speed(found - before, share, speed, little)
        textures[chart].lay(frame, through(found, (height, width)), share)
        knots[t], charts[t] = found.cpu(), chart
        on_frame(done + 1)
    return _below_each_other(knots, charts, seams, textures)


class SoFar:
    """The texture that some frames have made; it grows as far as they go."""

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        """Of frames of a size (h, w): to begin with there is room for one on either side."""
        self._room = torch.tensor([size[1], size[0]])
        self._corner = -self._room
        self._splat = Splat((3 * size[0], 3 * size[1]), 3, device)
        self.low, self.high = torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)
        """(x, y) of the first pixel that anything was laid at, and beyond the last one."""

    def has_room(self, places: Tensor, share: Tensor) -> bool:
        """Whether what a frame shows, ``share``, can be laid at its places; makes room where there is too little.

        A texture does not grow beyond ``LARGEST``.
        """
        seen = places[:, share > LITTLE].flatten(1)
        if seen.shape[1] == 0:
            return True
        low, high = seen.amin(dim=1).floor().long().cpu(), seen.amax(dim=1).ceil().long().cpu() + 2
        before, after = self._corner - low, high - self._corner - self._room_now
        before, after = (torch.where(lack > 0, lack + self._room, 0) for lack in (before, after))
        if int((self._room_now + before + after).prod()) > LARGEST:
            return False
        if bool((before + after).any()):
            self._splat = self._splat.grown(before.tolist(), after.tolist())
            self._corner = self._corner - before
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        return True

    @property
    def _room_now(self) -> Tensor:
        return torch.tensor(self._splat.size[::-1])

    def lay(self, frame: Tensor, places: Tensor, share: Tensor) -> None:
        """See ``Splat.lay``; beyond the largest texture nothing is laid."""
        self.has_room(places, share)
        self._splat.lay(frame, self._placed(places), share)

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Colours ``(3, h, w)`` at places ``(2, h, w)``, and where they are known."""
        sums = sample(self._splat.sums[None], self._placed(places).movedim(0, -1)[None])[0]
        return sums[:3] / sums[3:].clamp_min(1e-6), sums[3] > KNOWN

    def shows(self, places: Tensor, share: Tensor) -> bool:
        """Whether most of what a frame shows, ``share``, is known at its places."""
        return float((share * self.at(places)[1]).sum()) > 0.5 * float(share.sum())

    def _placed(self, places: Tensor) -> Tensor:
        return places - self._corner.to(places).view(2, 1, 1)


def _is_near(places: Tensor, share: Tensor, most: float) -> bool:
    """Whether pixels get at most so many times larger or smaller at their places, along any direction."""
    seen = share > 0.5
    if not bool(seen.any()):
        return True
    down, across = torch.gradient(places, dim=(1, 2))
    slopes = torch.stack((across[:, seen], down[:, seen]), dim=1).median(dim=2).values
    stretch = torch.linalg.svdvals(slopes.cpu())
    return float(stretch[0]) <= most and float(stretch[1]) >= 1.0 / most


def _below_each_other(knots: Tensor, charts: Tensor, seams: list[Seam], textures: list[SoFar]) -> Start:
    """The charts apart; the first stays where it is."""
    left, bottom = textures[0].low[0], textures[0].high[1]
    moved, rows = [torch.zeros(2, 1, 1)], [torch.stack((textures[0].low[1], bottom))]
    for texture in textures[1:]:
        corner = torch.stack((left, bottom + APART))
        moved.append((corner - texture.low).view(2, 1, 1))
        bottom = corner[1] + (texture.high - texture.low)[1]
        rows.append(torch.stack((corner[1], bottom)))
    for t, chart in enumerate(charts.tolist()):
        knots[t] += moved[chart]
    seams = [one._replace(knots=one.knots.cpu() + moved[one.chart]) for one in seams]
    between = torch.tensor([-0.5 * APART, 0.5 * APART])
    return Start(knots, charts, seams, torch.stack(rows) + between)


def _fewer(size: tuple[int, int]) -> tuple[int, int]:
    return max(4, size[0] // 2), max(4, size[1] // 2)


def _inside(there: Tensor, height: int, width: int) -> Tensor:
    x, y = there.unbind(dim=-1)
    return (x >= 0.0) & (x <= width - 1) & (y >= 0.0) & (y <= height - 1)


def _led(
    before: Tensor, speed: Tensor, share: Tensor, vectors: Tensor, sure: Tensor, grid: Tensor, little: float
) -> Tensor:
    """Knots of a frame along its motion to one that is mapped; where that is not known, as most go on.

    Args:
        before: knots of the mapped frame.
        speed: ``(2, 1, 1)``, by which knots went on so far: what hardly any motion is known of, goes on like that.
        share: ``(h, w)``, the layer's there.
        vectors: ``(2, h, w)``, motion to it.
        sure: ``(h, w)``, how far each counts.
        grid: ``(2, h, w)``, the pixels.
        little: how many pixels know no more than the speed does.
    """
    height, width = share.shape
    size = (before.shape[1], before.shape[2])
    there = (grid + vectors).movedim(0, -1)[None]
    read = sample(torch.cat((through(before, (height, width)), share[None]))[None], there)[0]
    # the neighbour's mapping by and large: how it bends is found anew, and else would add up
    at_large = _affine_knots(through(before, (height, width)), share.clamp_min(BEYOND), grid, size)
    ahead = at_large + speed
    places, weight = read[:2], sure * (read[2] > 0.5) * _inside(there[0], height, width)
    told = told_by(weight, little)
    rest = places - through(ahead, (height, width))
    base = ahead + _affine_knots(rest, weight, grid, size, little * float(1.0 - told))
    rest = spread(places - through(base, (height, width)), weight.square(), size, little=LITTLE)
    known = spread(weight[None], torch.ones_like(weight), size, little=LITTLE)
    return base + told * inpaint(rest[None], known[None].square().clamp_min(1e-6))[0]


def _deep(share: Tensor) -> Tensor:
    """What is seen of a layer ``(h, w)``, more where that is well inside: along edges flow is often a neighbour's."""
    inside = 1.0 - dilate(1.0 - share[None, None], EDGE)[0, 0]
    return (share > 0.5) * (ALONG + (1.0 - ALONG) * inside)


def told_by(weight: Tensor, little: float) -> Tensor:
    """How far pixels of a weight are believed, 0..1: what is left of a layer that goes out of sight moves, by the flow,
    as what hides it does."""
    return 1.0 - (little / weight.sum().clamp_min(1e-6)).square().clamp_max(1.0)


def _speed(change: Tensor, share: Tensor, before: Tensor, little: float) -> Tensor:
    """By how much knots went on where the layer is seen, ``(2, 1, 1)``; as before, where it hardly is."""
    height, width = share.shape
    sums = (through(change, (height, width)) * share).sum(dim=(1, 2), keepdim=True)
    enough = 2.0 * little
    return (sums + enough * before) / (share.sum() + enough)


def _affine_knots(places: Tensor, weight: Tensor, grid: Tensor, size: tuple[int, int], little: float = 0.0) -> Tensor:
    """Knots of the affine mapping that fits places best, with weights that fall with the distance (Geman-McClure).

    ``little``: as many pixels say that there is none, places are 0.
    """
    height, width = weight.shape
    known = (weight > 0.1).flatten().nonzero()[:, 0]
    every = max(1, len(known) // 6000)
    known = known[::every]
    scale = 1.0 / max(height, width)
    middle = grid.flatten(1)[:, known].mean(dim=1, keepdim=True) if len(known) else torch.zeros_like(grid[:, :1, 0])
    here = torch.cat(
        ((grid.flatten(1)[:, known] - middle) * scale, torch.ones_like(grid[:1].flatten(1)[:, known]))
    ).T.double()
    there = places.flatten(1)[:, known].T.double()
    sure = weight.flatten()[known].double()
    found = robust_fit(here, there, sure, reweightings=REWEIGHTINGS, least=SPEED**2, little=little / every)
    rows = torch.linspace(-0.5, height - 0.5, size[0], dtype=torch.double, device=grid.device)
    columns = torch.linspace(-0.5, width - 0.5, size[1], dtype=torch.double, device=grid.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    whole = torch.stack(((x - middle[0]) * scale, (y - middle[1]) * scale, torch.ones_like(x)), dim=-1) @ found
    return whole.movedim(-1, 0).to(places.dtype)


def _grey(picture: Tensor) -> np.ndarray:
    return (picture.mean(dim=0) * 255.0).round().clamp(0.0, 255.0).byte().cpu().numpy()
