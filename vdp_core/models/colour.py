"""Colour that changes from frame to frame: ``log(x_out + e) = log(x + e) + C(x, place, t)``, e being ``EPSILON``.

C of a channel is read off a small bilateral grid for each frame, over the place and the value of the channel itself
(Chen, Paris and Durand, "Real-time edge-aware image processing with the bilateral grid", 2007), and has besides a curve
along the rows, as rolling shutters see mains, and a part that grows with how far the channel is from grey. What the
published networks find is no change of colour, but a small picture for each frame, ``residual``, which is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_proportions
from ..errors import InputError, ShapeError
from ..image.colour import DISPLAY_GAMMA, LUMA
from ..image.plot import Curve, plot
from ..image.resize import resize, size_within, upsample
from ..image.selection import are_pictures, as_mask, as_matte
from ..store.transfer import send
from ..types import Layers, OnStep
from .base import Field, Model
from .render import applied

__all__ = ["EPSILON", "MODEL", "apply", "check_settings", "compose", "curves", "heights", "logs", "rebuild", "sliced"]

EPSILON = 0.02
"""What is added to values before the logarithm: about where noise and 8 bits drown a ratio, so that black can move."""
FINE = 3  # samples that a knot of the grid becomes before it is read linearly, so that no crease is seen
BURNT = 0.94, 0.995
"""From where to where the least channel of a pixel counts as burnt out: its colour is lost, so that a change of cast
would paint it."""
INVERSE_STEPS = 20  # of the fixed point that undoes the change; it shrinks the error to a third or less each time
MEASURED_SIDE = 128
"""Long side of the copy of a frame on which regions are measured and curves are drawn."""
MOST_STRENGTH = 1.5
MOST_SMOOTHING = 60.0  # seconds


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
        change = sliced(*_parts(layers, start, stop, frames.device), pixels)
    else:
        flat = send(region[start:stop], frames.device)[..., None, None].expand_as(pixels)
        change = _neutral_where_burnt(flat, pixels)
    if shift is not None:
        change = change + send(shift[start:stop], frames.device)[..., None, None]
    # x + (x + e) (exp(C) - 1): where C is 0, x to the bit
    made = frames + (pixels + EPSILON).mul_(change.mul(strength).expm1_()).movedim(1, -1)
    if "residual" in layers.fields:
        made += strength * _residual(layers, start, stop, made)
    return made


def rebuild(layers: Layers, start: int, stop: int, changed: Tensor) -> Tensor:
    """The inverse of ``compose`` as found, by fixed-point iteration: ``log(x + e) = log(x_out + e) - C(x)``."""
    parts = _parts(layers, start, stop, changed.device)
    if "residual" in layers.fields:
        changed = changed - _residual(layers, start, stop, changed)
    wanted = changed.movedim(-1, 1)
    pixels = wanted
    for _ in range(INVERSE_STEPS):
        pixels = (wanted + EPSILON).mul_(sliced(*parts, pixels).neg_().exp_()).sub_(EPSILON)
    return pixels.movedim(1, -1)


def _residual(layers: Layers, start: int, stop: int, frames: Tensor) -> Tensor:
    """What is added to frames ``(n, H, W, 3)``, of their size."""
    small = send(layers.fields["residual"][start:stop], frames.device).float()
    return resize(small, (frames.shape[1], frames.shape[2])).movedim(1, -1)


def _parts(layers: Layers, start: int, stop: int, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Grid, rows and saturation of some frames."""
    grid, rows, saturation = (send(layers.fields[name][start:stop], device) for name in ("grid", "rows", "saturation"))
    return grid, rows, saturation


def apply(
    layers: Layers,
    *,
    strength: float = 1.0,
    pivot: int = -1,
    region: Tensor | None = None,
    matte: Tensor | None = None,
    smoothing: float = 0.0,
    fps: float = 24.0,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> Tensor:
    """Take the flicker out of the clip of the layers at native size, a few frames at a time.

    Args:
        layers: what ``decompose`` found.
        strength: 0 leaves the frames alone, to the bit, 1 takes out what was found; 0 to 1.5.
        pivot: number of the frame whose gain, contrast and cast all others get; -1: those of the mean over time. What
            flickers in a part of that frame only is taken out of it too.
        region: mask, or pictures of one, one or one a frame, of any size of the same proportions. The mean of the
            change in it, a gain for each channel, is made in the whole frame in place of what was found at each pixel;
            in frames in which it is empty, the mean over the frame.
        matte: the same, how far the change is made at each pixel.
        smoothing: seconds over which real changes are blended: a Gaussian as wide as a moving mean of that length; 0
            to 60.
        fps: frames a second, for ``smoothing``.
        device: where to compute.
        on_step: told after every few frames; stops the work by raising.

    Returns:
        ``(T, H, W, 3)`` float32 in 0..1, on the CPU; of a long clip, frames are computed when they are looked at.

    Raises:
        InputError: layers of another model, a setting out of range, or nothing is selected.
        ShapeError: a mask of other proportions or of another number.
    """
    edit = _edit(layers, strength, pivot, region, matte, smoothing, fps, device)
    return applied(layers, edit, denoise=0.0, device=device, on_step=on_step)


@torch.no_grad()
def curves(
    layers: Layers,
    *,
    strength: float = 1.0,
    pivot: int = -1,
    region: Tensor | None = None,
    matte: Tensor | None = None,
    smoothing: float = 0.0,
    fps: float = 24.0,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> Tensor:
    """Draw what ``apply`` does, of the region or else of the whole frame, ``(1, 480, 960, 3)`` in 0..1.

    Above, the mean brightness before and after; below, the gain of each channel in stops of scene light. Both are taken
    from small copies of the frames.

    Args:
        layers, strength, pivot, region, matte, smoothing, fps, device, on_step: see ``apply``.

    Raises:
        InputError, ShapeError: see ``apply``.
    """
    edit = _edit(layers, strength, pivot, region, matte, smoothing, fps, device)
    weight_of = _weights(layers, region, device)
    luma = torch.tensor(LUMA, device=device)
    before, after, gains = [], [], []
    for index, small in enumerate(_small(layers, device)):
        changed = edit(layers, index, index + 1, small).clamp_(0.0, 1.0)
        weights = weight_of(index)
        gain = _mean(logs(changed) - logs(small), weights)
        before.append(float(_mean(small, weights) @ luma))
        after.append(float(_mean(changed, weights) @ luma))
        gains.append((gain * (DISPLAY_GAMMA / math.log(2.0))).tolist())
        if on_step is not None:
            on_step(index + 1, len(layers), changed[0].clone)
    return _drawn(before, after, gains, fps)


def check_settings(
    layers: Layers,
    *,
    strength: float = 1.0,
    pivot: int = -1,
    region: Tensor | None = None,
    matte: Tensor | None = None,
    smoothing: float = 0.0,
    fps: float = 24.0,
) -> None:
    """Refuse what ``apply`` refuses, as far as it shows without the values of masks; layers may be stand-ins.

    Raises:
        InputError, ShapeError: see ``apply``.
    """
    MODEL.require(layers, "Deflicker")
    for name, value, most in (("strength", strength, MOST_STRENGTH), ("smoothing", smoothing, MOST_SMOOTHING)):
        if not 0.0 <= value <= most:  # which NaN is not
            raise InputError(f"{name}: 0 to {most:g} needed, got {value}")
    if not 0.0 < fps < math.inf:
        raise InputError(f"fps: above 0 needed, got {fps}")
    count, height, width, _ = layers.frames.shape
    if not -1 <= pivot < count:
        raise InputError(f"pivot: there is no frame {pivot}; 0 to {count - 1}, or -1 for none")
    for name, mask in (("region", region), ("matte", matte)):
        if mask is None:
            continue
        length, *size = mask.shape[:-1] if are_pictures(mask, name) else (1, *mask.shape)[-3:]
        if length not in (1, count):
            raise ShapeError(f"{name}: got {length} masks for {count} frames; give one mask or one per frame")
        check_proportions(f"{name}: it is", size, (height, width))


Edited = Callable[[Layers, int, int, Tensor], Tensor]
"""``compose`` with all settings, for frames ``(n, H, W, 3)`` of any size."""


@torch.no_grad()
def _edit(
    layers: Layers,
    strength: float,
    pivot: int,
    region: Tensor | None,
    matte: Tensor | None,
    smoothing: float,
    fps: float,
    device: torch.device | str,
) -> Edited:
    """``compose`` with what a person set, which is checked."""
    check_settings(layers, strength=strength, pivot=pivot, region=region, matte=matte, smoothing=smoothing, fps=fps)
    layers = _seen_from(layers, pivot)
    shift = None if smoothing == 0.0 else _blended(layers, smoothing * fps)
    gains = None if region is None else _gains(layers, _weights(layers, region, device), pivot, device)
    edit = partial(compose, strength=strength, shift=shift, region=gains)
    masks = None if matte is None else as_matte(matte, "matte")

    def edited(_: Layers, start: int, stop: int, frames: Tensor) -> Tensor:
        made = edit(layers, start, stop, frames)
        if masks is None:
            return made
        span = slice(0, 1) if len(masks) == 1 else slice(start, stop)
        shares = resize(send(masks[span], frames.device)[:, None], (frames.shape[1], frames.shape[2]))
        # (clamped first: what burns out would else be drawn towards more than white)
        return frames.lerp(made.clamp_(0.0, 1.0), shares.movedim(1, -1))

    return edited


def _seen_from(layers: Layers, pivot: int) -> Layers:
    """Layers less the change of the pivot that is the same all over its frame, which so keeps its look."""
    if pivot < 0:
        return layers
    grid, rows, saturation = _parts(layers, 0, len(layers), "cpu")
    own = grid[pivot : pivot + 1].mean(dim=(3, 4), keepdim=True)
    own = own + rows[pivot : pivot + 1].mean(dim=2)[..., None, None, None]
    fields = {**layers.fields, "grid": grid - own, "saturation": saturation - saturation[pivot : pivot + 1]}
    return replace(layers, fields=fields)


def _blended(layers: Layers, frames: float) -> Tensor:
    """What is added to the change, ``(T, 3)``, so that what is real is blended over so many frames of its shot."""
    kept = layers.fields["kept"].float().cpu()
    deviation = max(frames / math.sqrt(12.0), 1e-3)  # of a moving mean
    mean = torch.empty_like(kept)
    for shot in layers.shots:
        part = kept[shot.start : shot.stop].T[:, None]
        reach = min(math.ceil(3.0 * deviation), len(shot) - 1)
        weights = torch.arange(-reach, reach + 1.0).div_(deviation).square_().mul_(-0.5).exp_()[None, None]
        total = F.conv1d(torch.ones_like(part), weights, padding=reach)
        mean[shot.start : shot.stop] = (F.conv1d(part, weights, padding=reach) / total)[:, 0].T
    return kept - mean


def _gains(layers: Layers, weight_of: Callable[[int], Tensor | None], pivot: int, device: torch.device | str) -> Tensor:
    """The mean change in the region, ``(T, 3)``; that of the pivot is 0."""
    gains = torch.empty(len(layers), 3)
    for index, small in enumerate(_small(layers, device)):
        parts = _parts(layers, index, index + 1, device)
        gains[index] = _mean(sliced(*parts, small.movedim(-1, 1)).movedim(1, -1), weight_of(index)).cpu()
    return gains if pivot < 0 else gains - gains[pivot]


def _small(layers: Layers, device: torch.device | str) -> Iterator[Tensor]:
    """Small copies of all frames in turn, ``(1, h, w, 3)``."""
    size = size_within(layers.frames.shape[1], layers.frames.shape[2], MEASURED_SIDE)
    for frame in layers.frames:
        small = send(frame, device)[None].movedim(-1, 1).float()
        yield resize(small, size, mode="area").movedim(1, -1)


def _weights(layers: Layers, region: Tensor | None, device: torch.device | str) -> Callable[[int], Tensor | None]:
    """Gives weights of the pixels of a small copy, ``(1, h, w, 1)``, by the number of its frame; None: all alike."""
    if region is None:
        return lambda index: None
    masks = as_mask(region, "region")
    if not any(bool((mask > 0.0).any()) for mask in masks):
        raise InputError("region: nothing is selected; paint where the flicker is to be measured, or unlink it")
    size = size_within(layers.frames.shape[1], layers.frames.shape[2], MEASURED_SIDE)

    def weights(index: int) -> Tensor | None:
        mask = masks[0 if len(masks) == 1 else index]
        small = resize(send(mask, device)[None, None], size, mode="area")
        return small.movedim(1, -1) if bool((small > 0.0).any()) else None

    return weights


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of ``(1, h, w, 3)`` over the pixels, ``(3,)``."""
    if weights is None:
        return values.mean(dim=(0, 1, 2))
    return (values * weights).sum(dim=(0, 1, 2)) / weights.sum()


def _drawn(before: list[float], after: list[float], gains: list[list[float]], fps: float) -> Tensor:
    grey, black = (160, 160, 160), (20, 20, 20)
    low, high = min(*before, *after), max(*before, *after)
    room = max(0.1 * (high - low), 0.05 - 0.5 * (high - low))  # no less than a tenth in all, so that calm looks calm
    light = plot(
        "mean brightness",
        [Curve(before, grey, "before"), Curve(after, black, "after")],
        fps=fps,
        span=(low - room, high + room),
    )
    most = max(0.25, *(1.1 * abs(gain) for frame in gains for gain in frame))
    gain = plot(
        "gain, in stops",
        [
            Curve(list(values), colour, name)
            for name, colour, values in zip(
                ("red", "green", "blue"),
                ((200, 60, 50), (50, 150, 60), (40, 90, 200)),
                zip(*gains, strict=True),
                strict=True,
            )
        ],
        fps=fps,
        span=(-most, most),
        limit=0.0,
    )
    return torch.cat((light, gain))[None]


MODEL = Model(
    name="colour",
    fields=(
        Field("grid", (3, "K", "h", "w")),
        Field("rows", (3, "R")),
        Field("saturation", (3,)),
        Field("kept", (3,)),  # gain, as a log, that was found and is not made, as what it would undo is real
        Field("residual", (3, "rh", "rw"), optional=True),
    ),
    compose=compose,
    rebuild=rebuild,
)
