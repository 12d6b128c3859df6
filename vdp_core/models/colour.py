"""Colour that changes from frame to frame: ``log(x_out + e) = log(x + e) + C(x, place, t)``, e being ``EPSILON``.

C of a channel is read off a small bilateral grid for each frame, over the place and the value of the channel itself
(Chen, Paris and Durand, "Real-time edge-aware image processing with the bilateral grid", 2007), and has besides a curve
along the rows, as rolling shutters see mains, and a part that grows with how far the channel is from grey.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, ShapeError
from ..image.colour import LUMA
from ..image.resize import resize, upsample
from ..image.selection import as_matte
from ..store.lazy import computed
from ..store.transfer import send
from ..types import Layers, OnStep
from .base import Field, Model

__all__ = ["EPSILON", "MODEL", "apply", "compose", "heights", "logs", "rebuild", "sliced"]

EPSILON = 0.02
"""What is added to values before the logarithm: about where noise and 8 bits drown a ratio, so that black can move."""
FINE = 3  # samples that a knot of the grid becomes before it is read linearly, so that no crease is seen
BURNT = 0.94, 0.995
"""From where to where the least channel of a pixel counts as burnt out: its colour is lost, so that a change of cast
would paint it."""
INVERSE_STEPS = 20  # of the fixed point that undoes the change; it shrinks the error to a third or less each time


def logs(values: Tensor) -> Tensor:
    """``log(x + e)``."""
    return (values + EPSILON).log()


def heights(values: Tensor, levels: int) -> Tensor:
    """Where values lie between the knots of brightness, 0 at the first, ``levels - 1`` at the last.

    Knots are as far apart as the roots of their values, as shadows are what changes most.
    """
    return values.clamp(0.0, 1.0).sqrt_().mul_(levels - 1.0)


def sliced(grid: Tensor, rows: Tensor, saturation: Tensor, frames: Tensor) -> Tensor:
    """The change C of frames, ``(n, 3, H, W)``.

    Args:
        grid: ``(n, 3, K, h, w)``, its outer knots on the centres of the outer pixels, in brightness as ``heights``.
        rows: ``(n, 3, R)``, the outer ones on the outer rows.
        saturation: ``(n, 3)``.
        frames: ``(n, 3, H, W)`` in 0..1.
    """
    count, channels, levels, height, width = grid.shape
    size = frames.shape[2], frames.shape[3]
    knots = grid.reshape(-1, levels, height, width)
    if height > 1 or width > 1:
        knots = upsample(knots, (min(FINE * height, size[0]), min(FINE * width, size[1])))
    y, x = (torch.linspace(-1.0, 1.0, length, device=frames.device) for length in size)
    z = heights(frames, levels).mul_(2.0 / (levels - 1)).sub_(1.0).flatten(0, 1)
    places = torch.stack((x.expand_as(z), y[:, None].expand_as(z), z), dim=-1)[:, None]
    change = F.grid_sample(knots[:, None], places, padding_mode="border", align_corners=True)
    change = change[:, 0, 0].unflatten(0, (count, channels))
    change += upsample(rows[..., None], (size[0], 1))
    if bool((saturation != 0.0).any()):
        own = logs(frames)
        change += saturation[..., None, None] * (own - own.mean(dim=1, keepdim=True))
    return _neutral_where_burnt(change, frames)


def _neutral_where_burnt(change: Tensor, frames: Tensor) -> Tensor:
    low, high = BURNT
    burnt = ((frames.amin(dim=1, keepdim=True) - low) / (high - low)).clamp_(0.0, 1.0)
    return torch.lerp(change, change.mean(dim=1, keepdim=True), burnt)


def compose(
    layers: Layers,
    start: int,
    stop: int,
    frames: Tensor,
    *,
    strength: float = 1.0,
    shift: Tensor | None = None,
    region: Tensor | None = None,
) -> Tensor:
    """Frames ``start`` to ``stop`` of the layers with the change taken up, not clamped.

    Args:
        layers: of the model colour.
        start, stop: which frames' change.
        frames: ``(stop - start, H, W, 3)``.
        strength: 0 changes nothing, 1 as it was found.
        shift: ``(T, 3)`` or None, added to the change of each frame before it is weighed by the strength.
        region: ``(T, 3)`` or None: the change of every pixel instead of what was found at it.

    Returns:
        ``(stop - start, H, W, 3)``.
    """
    pixels = frames.movedim(-1, 1)
    if region is None:
        change = sliced(*(send(layers.fields[name][start:stop], frames.device) for name in _PARTS), pixels)
    else:
        flat = send(region[start:stop], frames.device)[..., None, None].expand_as(pixels)
        change = _neutral_where_burnt(flat, pixels)
    if shift is not None:
        change = change + send(shift[start:stop], frames.device)[..., None, None]
    # x + (x + e) (exp(C) - 1): where C is 0, x to the bit
    return frames + (pixels + EPSILON).mul_(change.mul(strength).expm1_()).movedim(1, -1)


def rebuild(layers: Layers, start: int, stop: int, changed: Tensor) -> Tensor:
    """The inverse of ``compose`` as found, by fixed-point iteration: ``log(x + e) = log(x_out + e) - C(x)``."""
    parts = [send(layers.fields[name][start:stop], changed.device) for name in _PARTS]
    wanted = changed.movedim(-1, 1)
    pixels = wanted
    for _ in range(INVERSE_STEPS):
        pixels = (wanted + EPSILON).mul_(sliced(*parts, pixels).neg_().exp_()).sub_(EPSILON)
    return pixels.movedim(1, -1)


_PARTS = ("grid", "rows", "saturation")

MODEL = Model(
    name="colour",
    fields=(
        Field("grid", (3, "K", "h", "w")),
        Field("rows", (3, "R")),
        Field("saturation", (3,)),
        Field("kept", (3,)),
    ),
    compose=compose,
    rebuild=rebuild,
)
