"""Points followed through a clip, along the mappings of an atlas.

A point belongs to the layer it lies on; the mapping of its frame leads it into that layer's texture, and the mappings
of all others lead it from there to where they have it. So a point is followed across any time at once, and through
where it is hidden. Mappings are smooth: a limb moves in ways that they miss. So around each place that they lead to,
what the frame shows is compared with what the point's own frame shows around it, and of all paths through the clip the
best is taken. Energy of a path of displacements d_t, in pixels of a copy whose long side is at most SIDE::

    E(d) = sum_t u_t(d_t) + far(d_t) + STEADY |d_t - d_(t-1)|^2,    d = 0 in the point's own frame
    u = (1 - r) / 2 + e / 2 (e + v),  at most HIDDEN;    far = STAY |d|^2 / (1 + STAY |d|^2 / FAR)

r is the correlation of the two patches, e their mean squared difference, and v the variance in the point's own; pixels
of the patch count as they lie near and on the layer; light is taken off. The minimum is found exactly, over all whole
displacements (dynamic programming: Amini, Weymouth and Jain, TPAMI 1990). A point is seen where its layer has at least
the share SEEN of the pixel. That u be small, too, helps nothing: where points are hidden masks know it, and where they
turn or blur they look unlike themselves.

Masks may be wrong where little of a layer is seen. So each layer that a point may lie on is tried, and it is the one on
which it is found again best: by the mean over time of ``share / (1 + e' / UNLIKE)``, e' the squared difference of the
colours right there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..image.resize import resize, size_within
from ..image.sample import rescaled, sample, sample_points
from ..models import atlas
from ..models.plate import matte_of
from ..store.lazy import computed
from ..store.scratch import large_empty
from ..store.transfer import send
from ..types import Layers, OnStep

__all__ = ["Point", "Tracks", "best_paths", "check_points", "draw", "follow"]

SIDE = 512
PATCH, SPREAD = 6, 3.0
"""Radius of the patches that are compared, and the standard deviation of the weights in them."""
SEARCH = 12
"""How far around each place is searched, in pixels of the copy."""
NOISE = 0.02
"""Standard deviation; patches of less contrast tell nothing by correlation."""
STAY, FAR, STEADY = 1e-3, 0.3, 0.05
HIDDEN = 0.6
SEEN = 0.3
BESIDE = 0.1
"""Weight of what lies on other layers: masks are not sure, and miss parts of thin limbs."""
KNOWN = 0.3
"""Weight of a texture's pixel from which on a point may lie on it."""
NARROW, UNLIKE = 1.0, 0.03
"""What tells one layer from another: the standard deviation of the weights around a point, in pixels, and the squared
difference of colours that halves what a place counts."""
BETTER, MORE = 1.5, 0.02
"""How many times, and by how much, a point must be found again better on another layer than on that of its mask."""
CLOSE = 2
"""So near to an object a point is on it, in pixels of a copy of SIDE: people mark limbs, masks miss their borders."""
TURNED = (0.5, 2.0)
"""How far a patch may shrink and stretch along its way; beyond, the mapping folds."""
TOGETHER = 16384
"""Points, times frames, whose paths are found at a time."""


@dataclass(frozen=True)
class Point:
    """A point of one frame; (0, 0) is the centre of the first pixel."""

    frame: int
    x: float
    y: float


@dataclass(frozen=True, eq=False)
class Tracks:
    """Where points are in every frame of a clip."""

    xy: Tensor
    """``(N, T, 2)``, (x, y) in pixels; also where a point is hidden or outside."""
    visible: Tensor
    """``(N, T)`` bool."""
    size: tuple[int, int]
    """(H, W) of the frames."""


def check_points(points: Sequence[Point], count: int) -> None:
    """Refuse points of frames that a clip of ``count`` frames does not have.

    Raises:
        InputError: naming the first.
    """
    for number, point in enumerate(points):
        if point.frame >= count:
            raise InputError(
                f"points: point {number} is of frame {point.frame}, the clip has {count}, counted from 0; "
                "take more frames (LoadFrames' count) or another point"
            )


@dataclass
class _Anchors:
    """What is known of N points in their own frames."""

    point: list[int]
    """Numbers of the points; one that may lie on several layers is there as often, the likeliest first."""
    layer: Tensor
    """``(N,)`` numbers."""
    place: Tensor
    """``(N, 2)`` in the layer's texture."""
    along: Tensor
    """``(N, 2, 2)``: how the place changes with the point."""
    chart: Tensor
    """``(N,)``, of that texture, in which the place lies."""
    patch: Tensor
    """``(N, 3, k, k)``, without light."""
    weight: Tensor
    """``(N, 1, k, k)``, sum 1."""


@torch.no_grad()
def follow(
    layers: Layers, points: Sequence[Point], *, device: torch.device | str = "cpu", on_step: OnStep | None = None
) -> Tracks:
    """Follow points of any frames through the clip; see above.

    Of the layers' flow only its cuts count: a point is seen in its own shot alone.

    Args:
        layers: of the model atlas.
        points: one or more.
        device: where to compute.
        on_step: told after each frame, may stop the work by raising.

    Raises:
        InputError: layers of another model, or a point of a frame that the clip does not have.
    """
    atlas.MODEL.require(layers, "TrackPoints")
    check_points(points, len(layers))
    device = torch.device(device)
    count, height, width, _ = layers.frames.shape
    size, small = (height, width), size_within(height, width, SIDE)
    anchors = _anchors(layers, points, small, device)
    reach, ways = 2 * SEARCH + 1, len(anchors.layer)
    # half precision is plenty for what lies in 0..1, of which a long clip has much
    costs, shares, likes = (large_empty(ways, count, reach, reach, dtype=torch.float16) for _ in range(3))
    led, turned = torch.empty(ways, count, 2), torch.empty(ways, count, 2, 2)
    for index in range(count):
        frame = send(layers.frames[index], device).contiguous()
        colours, masks = _unlit(layers, index, frame, small), _masks(layers, index, frame, small)
        for number in anchors.layer.unique().tolist():
            chosen = (anchors.layer == number).nonzero()[:, 0]
            mapping = atlas.mapping_of(layers, number, index, device)
            there, warp = _led(mapping, *_in_chart(layers, number, index, anchors, chosen))
            shown = torch.cat((colours, masks[number : number + 1]))
            found = _searched(shown, rescaled(there, size, small), warp, anchors.patch[chosen], anchors.weight[chosen])
            chosen = chosen.cpu()
            kept = (part.half().cpu() for part in found)
            costs[chosen, index], shares[chosen, index], likes[chosen, index] = kept
            led[chosen, index], turned[chosen, index] = there.cpu(), warp.cpu()
        if on_step is not None:
            on_step(index + 1, count, None)
    frames_of = torch.tensor([points[number].frame for number in anchors.point])
    together = max(1, TOGETHER // count)
    parts = zip(costs.split(together), frames_of.split(together), strict=True)
    moved = torch.cat([best_paths(*some) for some in parts])
    best = _best(anchors, _read_at(likes, moved).float().mean(dim=1))
    moved, led, turned, shares = moved[best], led[best], turned[best], shares[best]
    numbers, own = torch.arange(len(points)), torch.tensor([point.frame for point in points])
    scale = torch.tensor([width / small[1], height / small[0]])
    xy = led + (turned @ moved[..., None])[..., 0] * scale
    xy[numbers, own] = torch.tensor([[point.x, point.y] for point in points])
    inside = ((xy >= -0.5) & (xy <= torch.tensor([width - 0.5, height - 0.5]))).all(dim=-1)
    visible = inside & (_read_at(shares, moved) >= SEEN)
    visible[numbers, own] = inside[numbers, own]
    for shot in layers.shots:
        visible[:, shot.start : shot.stop] &= torch.tensor([point.frame in shot for point in points])[:, None]
    return Tracks(xy, visible, size)


def _unlit(layers: Layers, index: int, frame: Tensor, size: tuple[int, int]) -> Tensor:
    """A frame ``(H, W, 3)`` at a size, without the light that changes over the clip, ``(3, h, w)``."""
    light = atlas.light_of(send(layers.fields["light"][index], frame.device), size)
    return resize(frame.movedim(-1, 0)[None], size)[0] / light


def _masks(layers: Layers, index: int, frame: Tensor, size: tuple[int, int]) -> Tensor:
    """The mattes of a frame at a size, ``(L, h, w)``."""
    return resize(matte_of(layers, index, frame).masks[None], size)[0]


def _square(radius: int, device: torch.device) -> Tensor:
    """Offsets (x, y) up to a radius, ``(2 radius + 1, 2 radius + 1, 2)``."""
    side = torch.arange(-radius, radius + 1.0, device=device)
    y, x = torch.meshgrid(side, side, indexing="ij")
    return torch.stack((x, y), dim=-1)


def _near(deviation: float, device: torch.device) -> Tensor:
    """Weights of a patch by how near to its middle they are."""
    return torch.exp(-_square(PATCH, device).square().sum(dim=-1) / (2.0 * deviation**2))


def _anchors(layers: Layers, points: Sequence[Point], small: tuple[int, int], device: torch.device) -> _Anchors:
    size = (layers.frames.shape[1], layers.frames.shape[2])
    offsets = _square(PATCH, device)
    near = _near(SPREAD, device)
    close = max(1, round(CLOSE * max(small) / SIDE))
    count = layers.fields["masks"].shape[1]
    seen = [send(layers.assets[f"texture_{layer}"][3:], device).float() for layer in range(count)]
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in points]
    for index, numbers in groupby(sorted(range(len(points)), key=lambda n: points[n].frame), lambda n: points[n].frame):
        frame = send(layers.frames[index], device).contiguous()
        shown, masks = _unlit(layers, index, frame, small), _masks(layers, index, frame, small)
        mappings = [atlas.mapping_of(layers, number, index, device) for number in range(len(masks))]
        for n in numbers:
            xy = torch.tensor([[points[n].x, points[n].y]], device=device)
            around = rescaled(xy, size, small)[0] + offsets
            patch, shares = sample(shown[None], around[None])[0], sample(masks[None], around[None])[0]
            inner = slice(PATCH - close, PATCH + close + 1)
            objects = shares[1:, inner, inner].amax(dim=(1, 2))
            likely = int(objects.argmax()) + 1 if len(objects) and float(objects.amax()) > 0.5 else 0
            for layer in (likely, *(other for other in range(count) if other != likely)):
                place, along = atlas.read_mapping(mappings[layer], xy)
                if layer != likely and float(sample_points(seen[layer], place)) <= KNOWN:
                    continue
                weight = near * (shares[layer] + BESIDE)
                chart = torch.tensor(atlas.chart_of(layers, layer, index), device=device)
                own = torch.tensor(layer, device=device)
                found[n].append((own, place[0], along[0], chart, patch, weight[None] / weight.sum()))
    point = [n for n, ways in enumerate(found) for _ in ways]
    return _Anchors(point, *(torch.stack(part) for part in zip(*(way for ways in found for way in ways), strict=True)))


def _best(anchors: _Anchors, found: Tensor) -> Tensor:
    """Of the layers that each point may lie on, the one on which it is ``found`` again best; ``(N,)``."""
    best: dict[int, int] = {}
    for way, point in enumerate(anchors.point):
        best.setdefault(point, way)
        if found[way] > BETTER * found[best[point]] + MORE:
            best[point] = way
    return torch.tensor([best[point] for point in sorted(best)])


def _in_chart(layers: Layers, number: int, index: int, anchors: _Anchors, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Places of points on a layer in the chart of its texture that a frame lies in, and how they change with them."""
    place, along, own = anchors.place[chosen].clone(), anchors.along[chosen].clone(), anchors.chart[chosen]
    wanted = atlas.chart_of(layers, number, index)
    for chart in own.unique().tolist():
        of_it = own == chart
        place[of_it], slopes = atlas.to_chart(layers, number, place[of_it], (chart, wanted))
        along[of_it] = slopes @ along[of_it]
    return place, along


def _led(mapping: Tensor, places: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Where a mapping has places of its texture, ``(N, 2)``, and how offsets in the own frames turn, ``(N, 2, 2)``."""
    height, width = mapping.shape[1:]
    there, _ = atlas.to_frame(mapping, places)
    # where a place is far outside, how far tells nothing
    corner = there.new_tensor([width, height])
    there = torch.minimum(torch.maximum(there, -corner), 2.0 * corner)
    slopes = atlas.read_mapping(mapping, there)[1]
    eye = torch.eye(2, device=mapping.device)
    left, stretch, right = torch.linalg.svd(torch.linalg.solve(slopes + atlas.FLAT * eye, along).nan_to_num())
    return there, left @ torch.diag_embed(stretch.clamp(*TURNED)) @ right


def _searched(shown: Tensor, there: Tensor, turned: Tensor, patch: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """How unlike the points what lies around places is, how much of it is of their layer, and what of that has their
    colours, each ``(N, D, D)``.

    Args:
        shown: ``(4, h, w)``, colours and the layer's mask.
        there: ``(N, 2)``, in its pixels.
        turned: ``(N, 2, 2)``, from offsets in the points' own frames to offsets here.
        patch, weight: see ``_Anchors``.
    """
    count, radius = len(there), PATCH
    offsets = torch.einsum("nij,yxj->nyxi", turned, _square(SEARCH + radius, shown.device))
    where = there[:, None, None] + offsets
    read = sample(shown[None], where.flatten(0, 1)[None])[0].unflatten(1, (count, -1)).transpose(0, 1)
    colours, share = read[:, :3], read[:, 3, radius:-radius, radius:-radius]

    def mean(values: Tensor, kernel: Tensor) -> Tensor:
        """Weighted means ``(N, 3, D, D)`` around each displacement, of ``(N, 3, K, K)``."""
        kernel = kernel.expand(-1, 3, -1, -1).flatten(0, 1)[:, None]
        return F.conv2d(values.flatten(0, 1)[None], kernel, groups=len(kernel))[0].unflatten(0, (count, 3))

    squares = colours.square()
    first, square = mean(colours, weight), mean(squares, weight)
    product = mean(colours, weight * patch)
    own = (weight * patch).sum(dim=(2, 3))[..., None, None]
    own_square = (weight * patch.square()).sum(dim=(2, 3))[..., None, None]
    variance = (own_square - own.square()).sum(dim=1).clamp_min(0.0)
    other = (square - first.square()).sum(dim=1).clamp_min(0.0)
    alike = (product - own * first).sum(dim=1) / ((variance + NOISE**2) * (other + NOISE**2)).sqrt()
    error = (own_square - 2.0 * product + square).sum(dim=1).clamp_min(0.0)
    cost = (0.5 * (1.0 - alike) + 0.5 * error / (error + variance + NOISE**2)).clamp_max(HIDDEN)
    height, width = shown.shape[1:]
    middle = where[:, radius:-radius, radius:-radius]
    outside = ((middle < -0.5) | (middle > middle.new_tensor([width - 0.5, height - 0.5]))).any(dim=-1)
    narrow = _near(NARROW, shown.device)
    narrow = (narrow / narrow.sum()).expand(count, 1, -1, -1)
    error = (mean(squares, narrow) - 2.0 * mean(colours, narrow * patch)).sum(dim=1)
    error = (error + (narrow * patch.square()).sum(dim=(1, 2, 3))[:, None, None]).clamp_min(0.0)
    like = share / (1.0 + error / UNLIKE)
    return torch.where(outside, HIDDEN, cost), torch.where(outside, 0.0, share), torch.where(outside, 0.0, like)


def _far(device: torch.device) -> Tensor:
    """What a displacement costs, ``(D, D)``."""
    away = STAY * _square(SEARCH, device).square().sum(dim=-1)
    return away / (1.0 + away / FAR)


def best_paths(costs: Tensor, own: Tensor) -> Tensor:
    """The displacements ``(N, T, 2)`` of least energy, of costs ``(N, T, D, D)``; none in the own frames ``(N,)``."""
    count, length, side, _ = costs.shape
    step = torch.arange(side, dtype=torch.float32)
    steady = STEADY * (step[:, None] - step).square()
    numbers, far = torch.arange(count), _far(costs.device)
    fixed = torch.full((side, side), 1e3)
    fixed[SEARCH, SEARCH] = 0.0
    # in one piece: many small ones, in between others, hold on to memory around them
    best, came = torch.zeros(count, side, side), torch.empty(length, 2, count, side, side, dtype=torch.uint8)
    for index in range(length):
        # (the square of a distance is a sum over both axes, so that one is gone through after the other)
        along_x, from_x = (best[:, :, None, :] + steady).min(dim=-1)
        along_y, from_y = (along_x.transpose(1, 2)[:, :, None, :] + steady).min(dim=-1)
        came[index, 0], came[index, 1] = from_x, from_y.transpose(1, 2)
        here = (own == index)[:, None, None]
        best = along_y.transpose(1, 2) + torch.where(here, fixed, costs[:, index] + far)
    last = best.flatten(1).argmin(dim=1)
    x, y = last % side, torch.div(last, side, rounding_mode="floor")
    path = []
    for index in reversed(range(length)):
        from_x, from_y = came[index]
        path.append(torch.stack((x, y), dim=1))
        y = from_y[numbers, y, x].long()
        x = from_x[numbers, y, x].long()
    return torch.stack(path[::-1], dim=1).float() - SEARCH


def _read_at(values: Tensor, moved: Tensor) -> Tensor:
    """Values ``(N, T, D, D)`` at whole displacements ``(N, T, 2)``; ``(N, T)``."""
    x, y = (moved.long() + SEARCH).clamp(0, 2 * SEARCH).unbind(dim=-1)
    return values[torch.arange(values.shape[0])[:, None], torch.arange(values.shape[1]), y, x]


TRAIL = 12
"""Frames that a trail shows."""
DOT = 1.0 / 160.0
"""Radius of a dot, as a share of the frame's long side."""


def draw(
    frames: Tensor, tracks: Tracks, *, device: torch.device | str = "cpu", on_step: OnStep | None = None
) -> Tensor:
    """The clip with its points drawn, ``(T, H, W, 3)``: a dot in a colour of its own for each, with a fading trail.

    Where a point is hidden, its dot is a ring. Of a long clip, frames are drawn when they are looked at.

    Args:
        frames: ``(T, H, W, 3)``.
        tracks: of this clip.
        device: where to compute.
        on_step: told after each frame that is made now.
    """
    radius = max(2.0, DOT * max(tracks.size))
    hues = torch.arange(len(tracks.xy)) * 0.618034  # the golden ratio: neighbours differ
    colours = (
        (6.0 * (hues[:, None] + torch.tensor([0.0, 2.0 / 3.0, 1.0 / 3.0])).frac() - 3.0).abs().sub(1.0).clamp(0, 1)
    )

    def drawn(start: int) -> Iterator[Tensor]:
        for index in range(start, len(frames)):
            frame = send(frames[index], device).clone()
            for path, seen, colour in zip(tracks.xy, tracks.visible[:, index], colours, strict=True):
                _draw_point(frame, path[max(0, index - TRAIL) : index + 1], bool(seen), colour, radius)
            yield frame[None]

    return computed(drawn, tuple(frames.shape), on_step=on_step)


def _draw_point(frame: Tensor, path: Tensor, seen: bool, colour: Tensor, radius: float) -> None:
    """Draw the end of a path ``(n, 2)`` into a frame ``(H, W, 3)``, antialiased, and its trail if it is seen there."""
    end, trail = path[-1], path if seen else path[-1:]
    low, high = (trail.amin(dim=0) - radius - 1).floor().long(), (trail.amax(dim=0) + radius + 2).ceil().long()
    (left, top), (right, bottom) = low.clamp_min(0).tolist(), high.clamp_min(0).tolist()
    part = frame[top:bottom, left:right]
    if part.numel() == 0:
        return
    y, x = torch.meshgrid(*(torch.arange(side, device=frame.device) for side in part.shape[:2]), indexing="ij")
    here = torch.stack((x + left, y + top), dim=-1).float()
    away = (here - end.to(frame.device)).norm(dim=-1)
    cover = (radius + 0.5 - away).clamp(0.0, 1.0)
    if not seen:
        cover = cover - (0.6 * radius + 0.5 - away).clamp(0.0, 1.0)
    for age, (one, other) in enumerate(zip(trail[:-1].flip(0), trail[1:].flip(0), strict=True)):
        along, offset = (other - one).to(frame.device), here - one.to(frame.device)
        share = ((offset @ along) / along.square().sum().clamp_min(1e-6)).clamp(0.0, 1.0)
        line = (0.4 * radius + 0.5 - (offset - share[..., None] * along).norm(dim=-1)).clamp(0.0, 1.0)
        cover = torch.maximum(cover, line * (1.0 - (age + 1) / (TRAIL + 1)))
    part.lerp_(colour.to(frame), cover[..., None])
