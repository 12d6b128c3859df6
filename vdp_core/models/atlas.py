"""Atlas: ``x = light * sum_i m_i texture_i(map_i(x, y))``; layer 0 is the background, the others are in front of it.

A texture shows all that was ever seen of a layer; the mapping of a frame says where in it each pixel lies. Where one
picture cannot show a layer at a scale that fits all frames, its texture holds several, charts, apart from each other.
At a seam, a frame is mapped into two charts, so that a place in one leads to its place in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import LayersFileError
from ..image.knots import through
from ..image.matting import Matte
from ..image.sample import averaged, sample_points
from ..store.transfer import send
from ..types import Layers
from .base import Colours, Field, Model
from .masks import check_masks, check_pictures, layer_names, share_of
from .paint import untouched
from .plate import matte_of, picture_of

__all__ = [
    "BLUR",
    "LIGHT",
    "MODEL",
    "PAINTED",
    "blur_of",
    "chart_of",
    "charts_from",
    "colours_of",
    "compose",
    "light_of",
    "look",
    "mapping_of",
    "read_mapping",
    "rebuild",
    "route",
    "split",
    "taps_along",
    "texture_at",
    "to_chart",
    "to_frame",
    "to_texture",
]

LIGHT = (4, 7)
"""Knots (h, w) of the light of a frame."""
BLUR = (4, 7)
"""Knots (h, w) of the motion blur of a layer in a frame."""
MOST_TAPS = 6
"""Most places that are read along a motion blur."""

PAINTED = "painted"
"""The picture ``(T, H, W, 3)`` of layers that holds the clip with what was painted into it."""

STARTS = 150
"""Pixels, about, from which Newton's method starts; with more it takes longer and finds no more."""
NEWTON_STEPS = 12
FLAT = 1e-3
"""Area of the texture, of a pixel of a frame, below which a mapping counts as flat."""
CHUNK = 16384


def light_of(light: Tensor, size: tuple[int, int]) -> Tensor:
    """The light ``(3, H, W)`` of a frame, of logarithms at its knots ``(3, h, w)``."""
    return through(light, size).exp_()


def taps_along(places: Tensor, ways: Tensor) -> Tensor:
    """Taps ``(K, 2, h, w)`` along the ways that a texture moves under pixels while the shutter is open.

    Args:
        places: ``(2, h, w)``, (x, y) in pixels of the texture, in the middle of that time.
        ways: ``(2, h, w)`` in the same, or ``(2, h', w')`` at its knots.
    """
    longest = float(ways.square().sum(dim=0).max().sqrt())
    count = min(MOST_TAPS, 1 + int(0.5 * longest + 0.5))
    if count == 1:
        return places[None]
    if ways.shape != places.shape:
        ways = through(ways, (places.shape[1], places.shape[2]))
    return torch.stack([places + ((k + 0.5) / count - 0.5) * ways for k in range(count)])


def blur_of(layers: Layers, number: int, index: int, device: torch.device) -> Tensor | None:
    """How far a layer's texture moves under a frame while the shutter is open; None where that was not found.

    ``(2, h', w')`` in pixels of the texture, at its knots.
    """
    if "blur" not in layers.fields:
        return None
    texture, blur = layers.assets[f"texture_{number}"], send(layers.fields["blur"][index, number], device)
    return blur * _extent(texture, blur)


def mapping_of(
    layers: Layers, number: int, index: int, device: torch.device, size: tuple[int, int] | None = None
) -> Tensor:
    """Where each pixel of a frame lies in a layer's texture, ``(2, H, W)``: (x, y) in pixels of the texture.

    ``size`` (h, w) gives it for a copy of the frame of that size, ``(2, h, w)``.
    """
    texture = layers.assets[f"texture_{number}"]
    size = size or (layers.frames.shape[1], layers.frames.shape[2])
    return _in_pixels(send(layers.fields["mapping"][index, number], device), texture, size)


def _in_pixels(knots: Tensor, texture: Tensor, size: tuple[int, int]) -> Tensor:
    mapping = through(knots, size)
    return mapping * _extent(texture, mapping) - 0.5


def _extent(texture: Tensor, like: Tensor) -> Tensor:
    """Width and height of a texture, ``(2, 1, 1)``."""
    return like.new_tensor([texture.shape[2], texture.shape[1]]).view(2, 1, 1)


def texture_at(layers: Layers, number: int, index: int, device: torch.device) -> Tensor:
    """What a layer's texture shows in each pixel of a frame, without its light: colours and weight, ``(4, H, W)``."""
    texture = send(layers.assets[f"texture_{number}"], device).float()
    places, blur = mapping_of(layers, number, index, device), blur_of(layers, number, index, device)
    return averaged(texture, places[None] if blur is None else taps_along(places, blur))


def charts_from(layers: Layers, number: int, index: int) -> list[int]:
    """The charts of a layer's texture that places of a frame can be followed to, its own first."""
    own = chart_of(layers, number, index)
    if f"joined_{number}" not in layers.assets:
        return [own]
    pairs = _pairs(layers, number)
    others = sorted({chart for pair in pairs for chart in pair} - {own})
    return [own, *(other for other in others if route(pairs, own, other) is not None)]


def _pairs(layers: Layers, number: int) -> list[tuple[int, int]]:
    return [(int(one), int(other)) for one, other in layers.assets[f"joined_{number}"]]


def chart_of(layers: Layers, number: int, index: int) -> int:
    """In which chart of a layer's texture a frame lies."""
    charts = layers.fields.get("chart")
    return 0 if charts is None else int(charts[index, number])


def route(pairs: Sequence[tuple[int, int]], start: int, stop: int) -> list[tuple[int, bool]] | None:
    """The seams, by their place among ``pairs`` of charts, that lead from one chart to another, the fewest.

    Each with whether it is passed from the second chart of the pair to the first. None where no seams lead there.
    """
    ways: dict[int, list[tuple[int, bool]]] = {start: []}
    for chart in (turn := [start]):  # grows on the way
        for place, pair in enumerate(pairs):
            for back, (here, there) in enumerate((pair, pair[::-1])):
                if here == chart and there not in ways:
                    ways[there] = [*ways[chart], (place, bool(back))]
                    turn.append(there)
    return ways.get(stop)


def to_chart(
    layers: Layers, number: int, places: Tensor, charts: tuple[int, int], size: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Where places of one chart of a layer's texture lie in another, both ``(N, 2)``, and how they change with them.

    Where no seams lead from one to the other, they stay.

    Args:
        layers: of this model.
        number: of the layer.
        places: (x, y) in pixels of the texture.
        charts: the one and the other.
        size: (h, w) of a copy of the frames that mappings are read at.

    Returns:
        The places, and their slopes ``(N, 2, 2)``, columns along x and along y.
    """
    eye = torch.eye(2, device=places.device)
    slopes = eye.expand(len(places), 2, 2)
    if charts[0] == charts[1]:
        return places, slopes
    texture = layers.assets[f"texture_{number}"]
    size = size or (layers.frames.shape[1], layers.frames.shape[2])
    pairs = _pairs(layers, number) if f"joined_{number}" in layers.assets else []
    for place, back in route(pairs, *charts) or []:
        seam = layers.assets[f"seam_{number}"][place].float()
        here, there = (_in_pixels(send(one, places.device), texture, size) for one in (seam.flip(0) if back else seam))
        points, _ = to_frame(here, places)
        before, (places, after) = read_mapping(here, points)[1], read_mapping(there, points)
        slopes = after @ torch.linalg.solve(before + FLAT * eye, slopes)
    return places, slopes.nan_to_num()


def to_texture(mapping: Tensor, points: Tensor) -> Tensor:
    """Where points of a frame lie in the texture, ``(N, 2)`` in its pixels; beyond the frame, as on its border.

    Args:
        mapping: ``(2, H, W)``, see ``mapping_of``.
        points: ``(N, 2)``, (x, y) in pixels of the frame.
    """
    return _read(_with_slopes(mapping), points)[0]


def read_mapping(mapping: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """``to_texture``, and how these places change with the points: ``(N, 2, 2)``, its columns along x and along y."""
    places, (across_x, across_y, down_x, down_y) = _read(_with_slopes(mapping), points)
    return places, torch.stack((across_x, down_x, across_y, down_y), dim=1).unflatten(1, (2, 2))


def to_frame(mapping: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of ``to_texture``: which points of a frame show places of the texture.

    Newton's method from the nearest of a few hundred pixels. Beyond the frame the mapping goes on as on its border.

    Args:
        mapping: ``(2, H, W)``, see ``mapping_of``.
        places: ``(N, 2)``, (x, y) in pixels of the texture.

    Returns:
        The points ``(N, 2)`` in pixels of the frame, and how far off each still is, ``(N,)`` in the same: above a
        fraction of a pixel the mapping folds there, and no point is right.
    """
    height, width = mapping.shape[1:]
    apart = max(1, round((height * width / STARTS) ** 0.5))
    rows = torch.arange(apart // 2, height, apart, device=mapping.device)
    columns = torch.arange(apart // 2, width, apart, device=mapping.device)
    starts = mapping[:, rows][:, :, columns].flatten(1).T
    nearest = torch.cat([torch.cdist(some, starts).argmin(dim=1) for some in places.split(CHUNK)])
    points = torch.stack((columns[nearest % len(columns)], rows[nearest // len(columns)]), dim=1).to(mapping)
    whole, step = _with_slopes(mapping), torch.zeros_like(points)
    for _ in range(NEWTON_STEPS):
        found, (across_x, across_y, down_x, down_y) = _read(whole, points)
        off_x, off_y = (places - found).unbind(dim=1)
        turned = across_x * down_y - across_y * down_x
        turned = torch.where(turned.abs() < FLAT, FLAT, turned)
        step = torch.stack((down_y * off_x - down_x * off_y, across_x * off_y - across_y * off_x), dim=1)
        step = (step / turned[:, None]).nan_to_num()
        points = points + step * (apart / step.norm(dim=1, keepdim=True).clamp_min(apart))
    return points, step.norm(dim=1)


def _with_slopes(mapping: Tensor) -> Tensor:
    """A mapping and how it changes from pixel to pixel, ``(6, H, W)``: both parts, both along x, both along y."""
    down, across = torch.gradient(mapping, dim=(1, 2))
    return torch.cat((mapping, across, down))


def _read(whole: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """A mapping at points ``(N, 2)``, and its slopes ``(4, N)``; beyond the frame, straight on from its border.

    ``whole``: see ``_with_slopes``.
    """
    height, width = whole.shape[1:]
    inside = torch.stack((points[:, 0].clamp(0, width - 1), points[:, 1].clamp(0, height - 1)), dim=1)
    values = sample_points(whole, inside)
    found, along = values[:2], values[2:]
    beyond = (points - inside).T
    return (found + along[:2] * beyond[0] + along[2:] * beyond[1]).T, along


def compose(layers: Layers, start: int, stop: int, frames: Tensor) -> Tensor:
    """What textures, mappings and light rebuild of frames ``start`` to ``stop``, ``(n, H, W, 3)`` in 0..1."""
    return untouched(layers, start, stop, look, frames.device)


def rebuild(layers: Layers, start: int, stop: int, composed: Tensor) -> Tensor:
    """The source as ``compose`` gives it."""
    return composed


def look(layers: Layers, index: int, frame: Tensor, matte: Matte, *, whole: bool, linear_light: bool) -> Colours:
    """What textures show, in the frame's light; see ``base.Look``."""

    def shown(number: int) -> Tensor:
        return _lit(layers, number, index, frame.device)

    return Colours(shown(0), lambda number, part: shown(number)[part])


def colours_of(layers: Layers, number: int, index: int, device: torch.device) -> Tensor:
    """A layer in a frame, ``(H, W, 3)``, as its texture shows it, behind others too, or as it was replaced."""
    colours = picture_of(layers, f"colour_{number}", index, device)
    return _lit(layers, number, index, device) if colours is None else colours


def _lit(layers: Layers, number: int, index: int, device: torch.device) -> Tensor:
    light = light_of(send(layers.fields["light"][index], device), (layers.frames.shape[1], layers.frames.shape[2]))
    colours = texture_at(layers, number, index, device)[:3] * light
    return colours.clamp_(0.0, 1.0).movedim(0, -1).contiguous()


def split(layers: Layers, number: int, index: int, frame: Tensor) -> tuple[Tensor, Tensor]:
    """A layer, see ``colours_of``, and its mask; see ``base.Split``."""
    matte = matte_of(layers, index, frame)
    return colours_of(layers, number, index, frame.device), share_of(layers, number, index, matte)


def _invariant(layers: Layers) -> None:
    """Refuse masks that do not add up, layers without a texture, and pictures and edits of layers that are not there.

    Raises:
        LayersFileError: what is missing or impossible.
    """
    check_masks(layers)
    for number in range(layers.fields["masks"].shape[1]):
        if f"texture_{number}" not in layers.assets:
            raise LayersFileError(f"the layers hold no texture of layer {number}; save them again")
        _check_charts(layers, number)
    painted = layers.pictures.get(PAINTED)
    if painted is not None and painted.shape != layers.frames.shape:
        raise LayersFileError(f"the layers' picture '{PAINTED}' is {tuple(painted.shape)}; save them again")
    check_pictures(replace(layers, pictures={name: one for name, one in layers.pictures.items() if name != PAINTED}))


def _check_charts(layers: Layers, number: int) -> None:
    rows, seam, joined = (layers.assets.get(f"{name}_{number}") for name in ("rows", "seam", "joined"))
    if rows is None and seam is None and joined is None:
        return
    fits = False
    if rows is not None and seam is not None and joined is not None and "chart" in layers.fields:
        numbers = torch.cat((layers.fields["chart"][:, number].flatten(), joined.flatten().float()))
        fits = len(seam) == len(joined) and float(numbers.min()) >= 0 and float(numbers.max()) < len(rows)
    if not fits:
        raise LayersFileError(
            f"the charts of layer {number}, and the seams between them, are not whole; save them again"
        )


MODEL = Model(
    name="atlas",
    fields=(
        Field("masks", ("L", "h", "w"), low=-1e-3),
        Field("mapping", ("L", 2, "h'", "w'")),
        Field("light", (3, *LIGHT)),
        Field("blur", ("L", 2, *BLUR), optional=True),
        Field("texture", (4, None, None), per="layer", low=0.0),
        Field("chart", ("L",), low=0.0, optional=True),
        Field("rows", (None, 2), per="layer", optional=True),
        Field("seam", (None, 2, 2, "h'", "w'"), per="layer", optional=True),
        Field("joined", (None, 2), per="layer", optional=True),
    ),
    compose=compose,
    rebuild=rebuild,
    split=split,
    layer_names=layer_names,
    look=look,
    invariant=_invariant,
)
