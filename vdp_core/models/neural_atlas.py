"""Fields and assets of the model atlas, read off the networks of Layered Neural Atlases.

Masks are what alpha gives in every pixel, a mapping is what its network gives at knots a few pixels apart, a texture is
the layer's half of the atlas, painted where a layer is seen. Light is 1: the published model has none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..image.knots import through
from ..image.resize import resize
from ..image.splat import Splat
from ..nets.atlas_nets import AtlasNets, coordinates
from ..store.scratch import large_empty
from ..types import OnStep
from .atlas import LIGHT

__all__ = ["UV_SCALE", "evaluated", "fields_of"]

UV_SCALE = 0.8
"""Published length, along u, of half the longer side of a frame."""
KNOTS = 192
"""Of a mapping, along the long side, but no more than pixels: every fourth one at the published size."""
SEEN = 0.02
"""Share of a pixel from which on its colour must be in the texture; alpha is never less than 0.001."""
RIM = 1
"""Pixels around what is seen of a texture."""
FINER = 2.0
"""Pixels of a texture, at least, along one of those that the networks were fitted to: at the published size the atlas's
finest wave has 7.5 of them; down to 1, it is blurred as it is read."""
LARGEST = 2**26
"""Most pixels of a texture, of which there are four half precision numbers each."""
AT_ONCE = 2**16
"""Places that a network is asked about at a time."""


@torch.no_grad()
def fields_of(
    nets: AtlasNets,
    size: tuple[int, int],
    count: int,
    native: tuple[int, int],
    *,
    uv_scale: float = UV_SCALE,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The fields and assets of ``models.atlas`` that show what the networks do, on the CPU.

    Args:
        nets: on the device.
        size: (h, w) of the frames that they were fitted to, and of the masks.
        count: how many frames.
        native: (H, W) of the frames, which textures are as fine as.
        uv_scale: what half the longer side of a frame is long along u.
        device: where to compute.
        on_step: told after every frame and every texture; stops the work by raising.
    """
    grid = [max(2, round(side * min(1.0, KNOTS / max(size))) + 1) for side in size]
    # as `through` reads them: the outer ones on the edges
    rows, columns = (torch.linspace(-0.5, side - 0.5, number) for side, number in zip(size, grid, strict=True))
    knots, pixels = _points(rows, columns), _points(torch.arange(size[0]), torch.arange(size[1]))
    masks, mapping = large_empty(count, 2, *size), large_empty(count, 2, 2, *grid)
    for t in range(count):
        opaque = evaluated(nets.opacity, _at(pixels, t, size, count, device)).view(size)
        masks[t] = torch.stack((1.0 - opaque, opaque))
        for layer in (0, 1):
            uv = evaluated(partial(nets.mapping, layer), _at(knots, t, size, count, device))
            mapping[t, layer] = uv.T.view(2, *grid)
        if on_step is not None:
            on_step(t + 1, count + 2, None)
    assets = {}
    coarse, fine = (max(sides) / (2.0 * uv_scale) for sides in (size, native))
    fineness = coarse, max(fine, FINER * coarse)
    for layer in (0, 1):
        assets[f"texture_{layer}"] = _texture(nets, layer, mapping[:, layer], masks[:, layer], fineness, device)
        if on_step is not None:
            on_step(count + 1 + layer, count + 2, None)
    return {"masks": masks, "mapping": mapping, "light": torch.zeros(count, 3, *LIGHT)}, assets


def evaluated(net: Callable[[Tensor], Tensor], places: Tensor) -> Tensor:
    """What a network gives for any number of places, on the CPU."""
    return torch.cat([net(some).cpu() for some in places.split(AT_ONCE)])


def _points(rows: Tensor, columns: Tensor) -> Tensor:
    """Points (x, y), ``(N, 2)`` along rows, of a grid with these rows and columns."""
    y, x = torch.meshgrid(rows.float(), columns.float(), indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)


def _at(points: Tensor, t: int, size: tuple[int, int], count: int, device: torch.device | str) -> Tensor:
    times = torch.full_like(points[:, :1], float(t))
    return coordinates(torch.cat((points, times), dim=1).to(device), size, count)


def _texture(
    nets: AtlasNets,
    layer: int,
    mapping: Tensor,
    masks: Tensor,
    fineness: tuple[float, float],
    device: torch.device | str,
) -> Tensor:
    """The texture ``(4, H', W')`` of a layer; its mapping ``(T, 2, h', w')`` is brought from u and v to 0..1 of it.

    Args:
        masks: ``(T, h, w)``, of the layer.
        fineness: pixels along a unit of u, of the masks and of the texture.
    """
    size = (masks.shape[1], masks.shape[2])
    low, high = torch.full((2,), torch.inf), torch.full((2,), -torch.inf)
    for uv, mask in zip(mapping, masks, strict=True):
        seen = through(uv, size)[:, mask > SEEN]
        if seen.numel() > 0:
            low, high = torch.minimum(low, seen.amin(dim=1)), torch.maximum(high, seen.amax(dim=1))
    if not bool(low.isfinite().all()):
        mapping.zero_()
        return torch.zeros(4, 1, 1, dtype=torch.half)
    low, high = low - RIM / fineness[0], high + RIM / fineness[0]
    most = (LARGEST / float((high - low).prod())) ** 0.5
    coarse, fine = (((high - low) * min(pixels, most)).ceil().int().tolist()[::-1] for pixels in fineness)
    for uv in mapping:
        uv.sub_(low.view(2, 1, 1)).div_((high - low).view(2, 1, 1))

    laid = Splat(tuple(coarse), 1)
    corner = low.new_tensor(coarse[::-1]).view(2, 1, 1)
    for places, mask in zip(mapping, masks, strict=True):
        laid.lay(mask[None], through(places, size) * corner - 0.5, mask)

    shares = _points(*((torch.arange(side) + 0.5) / side for side in fine))
    uv = (low + shares * (high - low)).to(device)
    colours = evaluated(partial(nets.colours, layer), uv).T.view(3, *fine)
    return torch.cat((colours, resize(laid.sums[None, 1:], tuple(fine))[0])).half()
