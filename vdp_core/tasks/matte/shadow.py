"""The shadow that goes with an object, found by how it dims and tints the background that it passes over.

A place of the background is seen in several frames, ``x_j = S_j B``, by the light B that it has by itself and the
shadow S_j that lies on it then. The shadow moves with the object: in frame j, whose object is at o_j, its logarithm
is ``U(p - o_j)``. Within a window of frames U has the least ::

    E = sum_j sum_p w_j (log x_j(p_j) - U(p_j - o_j) - b(p))^2 + SMOOTH |grad U|^2 + sum_q k(q) U(q)^2
      + CARRIED |U - U of the window beside|^2

over U and over the light ``b = log B`` of each place p, which is at p_j in frame j; what the lens does to a part of the
frame, whatever it shows, is taken out first. So a place need not ever be seen without shadow: that the shadow slides
over it is enough. Weights w_j are those of noise and of what is off by parts of a pixel, robust; k grows with the
distance from the object, and is that of a sum of absolute values (``SPARSE``), more for what brightens (``BRIGHTER``),
so that what does not go with the object gets no shadow. An object that does not move against its background tells
nothing; it keeps the shadow of the window beside (``CARRIED``).
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...image.conjugate import conjugate_gradients
from ...image.morphology import dilate, distance_inside
from ...image.resize import resize, working_copy
from ...image.sample import sample
from ...motion.background import background_flow
from ...motion.planar import robust_fit
from ...motion.warp import pixel_grid, resize_flow, warp
from ...optim.progress import Progress
from ...store.scratch import large_empty
from ...types import Flow

__all__ = ["cast_shadow"]

WINDOW = 24
"""Frames that share a shadow; those of two windows that overlap by half are blended."""
STEPS, ROUNDS = 40, 3
"""Of conjugate gradients, and how often weights are found anew."""
DARK = 0.01
"""Added to values before their logarithm is taken."""
NOISE, OFF = 0.02, 0.3
"""Deviation of a logarithm, and of a place in pixels."""
OUTLIER = 3.0
"""Deviations from which on what is seen counts less and less."""
SMOOTH, NEAR, CARRIED = 400.0, 20.0, 80.0
"""Weights of the energy: of slopes, of the shadow's amount beside the object, and of the window beside."""
SPARSE, LITTLE = 0.3, 0.05
"""The amount at which the weight of all amounts is as said, and one below which it does not grow any more."""
BRIGHTER = 10.0
"""How much more what brightens costs than what dims."""
REACH = 0.5
"""Distance from the object, over the root of its area, at which the weight of the amount is four times that beside."""
HIDDEN = 0.02
"""Share of the weight of the amount that is left behind the object."""
BORDER = 2
"""Pixels beside the object that may show something of it."""
MIXED, OWN = 0.02, 0.9
"""Share of the object from which on a pixel is not the background's alone, and from which on it moves as the object."""
LENS_EVERY, LENS_NONE = 5, 1.0
"""Of so many places one tells what the lens does; and so many of the surest say that it does nothing."""
GOES_ON = 6
"""Frames beside those in which the object is not seen, whose motion says how it went on there."""
UNSEEN = 0.02
"""Amount of which half is taken for an error."""
MOST = 1e5
"""The largest weight of an amount."""


class Shade(NamedTuple):
    """A shadow in the object's coordinates, which are those of the first frame, moved with the object."""

    amount: Tensor
    """``(3, h, w)``, the logarithm of what light is multiplied with."""
    origin: Tensor
    """``(2,)``, the place (x, y) of the coordinates' origin in it."""


def cast_shadow(
    frames: Tensor, alpha: Tensor, flow: Flow, side: int, device: torch.device, progress: Progress
) -> Tensor:
    """Find the shadow, or bright reflection, that goes with the object of a shot.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        alpha: ``(T, h', w')`` in 0..1, the object's.
        flow: of the shot.
        side: long side of the shadow.
        device: where to compute.
        progress: told after every pair of frames and every window; stops the work by raising.

    Returns:
        ``(T, 3, h, w)`` on the CPU: what the light of the background is multiplied with, 1 where there is no shadow.
    """
    tracing, solving = progress.phases(1, 3)
    small = working_copy(frames, side, device)
    count, _, height, width = small.shape
    owner = large_empty(count, height, width, device=device)
    for index, one in enumerate(alpha):
        owner[index] = resize(one[None, None].to(device), (height, width))[0, 0]
    behind = large_empty(*owner.shape, device=device)
    torch.sub(1.0, owner, out=behind)
    ways = background_flow(behind, flow, frames=frames, device=device, on_step=tracing)
    path, against = _object_path(owner, flow, ways[0])
    starts = range(0, max(1, count - WINDOW // 2), WINDOW // 2)
    windows = [range(start, min(start + WINDOW, count)) for start in starts]
    told = [
        float((against[window.start : window.stop] - against[window.start]).norm(dim=1).max()) for window in windows
    ]
    best = told.index(max(told))
    out, share = large_empty(count, 3, height, width).zero_(), torch.zeros(count, 1, 1, 1)
    beside: dict[int, Shade | None] = {-1: None, 0: None, 1: None}
    # from where the object moves most outwards, each window with what the one before it found
    for done, number in enumerate(sorted(range(len(windows)), key=lambda one: abs(one - best)), 1):
        window, way = windows[number], (number > best) - (number < best)
        part = slice(window.start, window.stop)
        middle = len(window) // 2
        if not bool((owner[part] > OWN).any()):
            continue
        paths = _background_paths(ways, window.start + middle, window)
        found = _solve(small[part], owner[part], paths, path[part], middle, beside[way])
        beside = {**beside, way: found} if way != 0 else dict.fromkeys(beside, found)
        grid = pixel_grid(height, width, device=device)
        for index in window:
            near = min(index - window.start + 1, window.stop - index)
            out[index] += near * _read(found, (grid - path[index].view(2, 1, 1))[None])[0].cpu()
            share[index] += near
        home = window.start + middle
        solving(done, len(windows), partial(_preview, small[home], found, grid - path[home].view(2, 1, 1)))
    for index in range(count):
        amount = out[index].div_(share[index].clamp_min(1.0))
        # what hardly shows is more likely an error
        amount.mul_(amount.square() / (amount.square() + UNSEEN**2)).exp_()
    return out


def _preview(picture: Tensor, shade: Shade, places: Tensor) -> Tensor:
    """A picture without its shadow, which is read at places ``(2, h, w)``."""
    return (picture / _read(shade, places[None])[0].exp().clamp_min(0.1)).clamp(0.0, 1.0).movedim(0, -1)


def _object_path(alpha: Tensor, flow: Flow, behind: Tensor) -> tuple[Tensor, Tensor]:
    """Where an object has moved to since the first frame, and what of that is against its background, ``(T, 2)``.

    Args:
        alpha: ``(T, h, w)``, the object's.
        flow: of the same clip.
        behind: ``(T-1, 2, h, w)``, the motion of the background.
    """
    size = (alpha.shape[1], alpha.shape[2])
    # the object's own motion against its background, and that background's
    own, under = alpha.new_zeros(2, len(alpha), 2)
    known = []
    for index in range(len(flow)):
        found = []
        for vectors, owner, sign in (
            (flow.forward[index], alpha[index], 1.0),
            (flow.backward[index], alpha[index + 1], -1.0),
        ):
            inside = owner > OWN
            if bool(inside.any()):
                moved = resize_flow(vectors[None].to(alpha.device), size)[0]
                found.append(sign * moved[:, inside].median(dim=1).values)
        inside = alpha[index] > OWN
        seen = behind[index][:, inside] if bool(inside.any()) else behind[index].flatten(1)
        under[index + 1] = seen.mean(dim=1)
        if found:
            own[index + 1] = torch.stack(found).mean(dim=0) - under[index + 1]
            known.append(index + 1)
    unseen = sorted({*range(1, len(alpha))} - {*known})
    if known and unseen:  # then it goes on as it did when it was seen
        away = (torch.tensor(unseen)[:, None] - torch.tensor(known)).abs()
        nearest = torch.tensor(known)[away.topk(min(GOES_ON, len(known)), largest=False).indices]
        own[unseen] = own[nearest].median(dim=1).values
    steps = torch.stack((own + under, own))
    path, against = steps.cumsum(dim=1)
    return path, against


def _background_paths(ways: tuple[Tensor, Tensor], home: int, window: range) -> Tensor:
    """Where the background that a frame shows lies in the frames of a window, ``(n, 2, h, w)`` from its pixels."""
    out = torch.zeros(len(window), *ways[0].shape[1:], device=ways[0].device)
    for step, onward in ((1, ways[0]), (-1, ways[1])):
        index = home
        while index + step in window:
            pair = min(index, index + step)
            here = out[index - window.start][None]
            out[index + step - window.start] = (here + warp(onward[pair][None], here))[0]
            index += step
    return out


def _read(shade: Shade, places: Tensor) -> Tensor:
    """A shadow at places ``(n, 2, h, w)`` of the object's coordinates, ``(n, 3, h, w)``; 0 beyond what it covers."""
    return _lookup(shade.amount.expand(len(places), -1, -1, -1), places + shade.origin.view(1, 2, 1, 1))


def _lookup(pictures: Tensor, places: Tensor) -> Tensor:
    """Pictures ``(n, C, H, W)`` at places ``(n, 2, h, w)``, 0 beyond them."""
    return sample(pictures, places.movedim(1, -1), beyond="zeros")


def _solve(small: Tensor, alpha: Tensor, paths: Tensor, path: Tensor, middle: int, beside: Shade | None) -> Shade:
    """The shadow of a window of frames, the least of the energy at the head.

    Args:
        small: ``(n, 3, h, w)`` in 0..1.
        alpha: ``(n, h, w)``, the object's.
        paths: ``(n, 2, h, w)``, from the pixels of the frame ``middle`` to where they are in each frame.
        path: ``(n, 2)``, where the object is.
        middle: the frame whose pixels are the places.
        beside: the shadow of the window beside.
    """
    count, _, height, width = small.shape
    logs = small.add(DARK).log()
    places = pixel_grid(height, width, device=small.device) + paths
    seen, sure = _what_is_seen(small, logs, alpha, paths, places)
    low = (path.amin(dim=0) - path[middle]).floor()
    room = ((path.amax(dim=0) - path[middle]).ceil() - low).long().tolist()
    size = (height + room[1], width + room[0])
    # the canvas holds what any frame of the window sees: place q of frame j lies at q - path_j + origin
    origin = path[middle] + (path.amax(dim=0) - path[middle]).ceil()
    reads = places - path.view(-1, 2, 1, 1) + origin.view(1, 2, 1, 1)
    canvas = pixel_grid(*size, device=small.device) - origin.view(2, 1, 1)
    price = _price(_lookup(alpha[:, None], canvas + path.view(-1, 2, 1, 1))[:, 0].amax(dim=0))
    before, kept = small.new_zeros(3, *size), small.new_zeros(1, *size)
    if beside is not None:
        before = _read(beside, canvas[None])[0]
        covered = Shade(torch.ones_like(beside.amount[:1]), beside.origin)
        kept = CARRIED * _read(covered, canvas[None])[0]

    blank = small.new_zeros(1, 3, *size).requires_grad_()
    with torch.enable_grad():
        shown = _lookup(blank.expand(count, -1, -1, -1), reads)

    def spread(values: Tensor) -> Tensor:
        """The transpose of reading the canvas."""
        return torch.autograd.grad(shown, blank, values, retain_graph=True)[0][0]

    def unexplained(values: Tensor, weight: Tensor) -> Tensor:
        """What is left of values ``(n, 3, h, w)`` when each place has its best light."""
        return values - (weight * values).sum(dim=0) / weight.sum(dim=0).clamp_min(1e-6)

    amount, weight = before.clone(), sure[:, None]
    for turn in range(ROUNDS):
        mean = amount.mean(dim=0)
        costs = price * SPARSE / (mean.abs() + LITTLE) if turn > 0 or beside is not None else price
        costs = kept + costs * torch.where(mean > 0.0, BRIGHTER, 1.0)

        def curved(values: Tensor, weight: Tensor = weight, costs: Tensor = costs) -> Tensor:
            """The energy's matrix times values ``(3, H, W)``."""
            read = _lookup(values.expand(count, -1, -1, -1), reads)
            return spread(weight * unexplained(read, weight)) + SMOOTH * _bent(values) + costs * values

        diagonal = spread(weight.expand(-1, 3, -1, -1)) + costs + 4.0 * SMOOTH
        target = spread(weight * unexplained(seen, weight)) + kept * before
        amount = conjugate_gradients(curved, target, diagonal, dims=(1, 2), steps=STEPS, start=amount)
        left = unexplained(seen - _lookup(amount.expand(count, -1, -1, -1), reads), weight)
        off = left.square().mean(dim=1, keepdim=True) * sure[:, None]
        weight = sure[:, None] * (OUTLIER**2 / (OUTLIER**2 + off)).square()
    return Shade(amount, origin)


def _what_is_seen(small: Tensor, logs: Tensor, alpha: Tensor, paths: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """What each frame shows of the places, in logarithms ``(n, 3, h, w)``, and how far that counts ``(n, h, w)``."""
    height, width = small.shape[2:]
    inside = ((places >= 0.0) & (places <= places.new_tensor([width - 1, height - 1]).view(2, 1, 1))).all(dim=1)
    covered = warp(dilate((alpha > MIXED).float(), BORDER)[:, None], paths)[:, 0]
    seen = warp(logs, paths)
    visible = inside & (covered < MIXED)
    usual = seen.masked_fill(~visible[:, None], torch.nan).nanmedian(dim=0).values
    # (not the slope of each frame: the shadow's own border has one)
    slope = torch.stack(torch.gradient(usual.mean(dim=0), dim=(0, 1))).square().sum(dim=0).nan_to_num(1.0)
    sure = visible / (NOISE**2 + OFF**2 * slope + (DARK / seen.mean(dim=1).exp()).square())
    # what changes in all of a frame is no shadow: its median against what is usual
    for frame, shown in zip(seen, visible, strict=True):
        if bool(shown.any()):
            frame -= (frame - usual)[:, shown].median(dim=1).values.view(3, 1, 1)
    return seen - _lens(seen, sure * (warp(_away(alpha, 2.0)[:, None], paths)[:, 0] >= 1.0), places), sure


def _away(alpha: Tensor, most: float) -> Tensor:
    """Distance ``(n, h, w)`` from an object, over ``REACH`` times the root of its area, told up to about ``most``."""
    out = torch.zeros_like(alpha)
    for index, inside in enumerate(alpha > 0.5):
        reach = REACH * max(1.0, float(inside.sum())) ** 0.5
        out[index] = distance_inside(~inside, math.ceil(most * reach)) / reach
    return out


def _lens(seen: Tensor, sure: Tensor, places: Tensor) -> Tensor:
    """What darkens or tints a part of the frame, whatever it shows, ``(n, 3, h, w)``: lenses darken corners.

    A square function of the place in the frame, by robust least squares over what is seen of each place, freed of its
    mean. With an object that the camera follows it looks like a wide shadow.
    """
    height, width = seen.shape[2:]
    x, y = (places - places.new_tensor([width, height]).view(2, 1, 1) / 2).div(max(height, width)).unbind(dim=1)
    basis = torch.stack((x, y, x * x, x * y, y * y), dim=1)
    chosen = sure.sum(dim=0).flatten().nonzero()[::LENS_EVERY, 0]
    rows, shown, weight = (part.flatten(-2)[..., chosen] for part in (basis, seen, sure))

    def centred(values: Tensor) -> Tensor:
        mean = (weight[:, None] * values).sum(dim=0) / weight.sum(dim=0).clamp_min(1e-6)
        return (values - mean).movedim(1, -1).flatten(0, 1)

    rows, shown, weight = centred(rows), centred(shown), weight.flatten()
    if not bool((weight > 0.0).any()):
        return torch.zeros_like(seen)
    numbers = robust_fit(rows, shown, weight * NOISE**2, reweightings=4, least=NOISE**2, little=LENS_NONE)
    return torch.einsum("nkhw,kc->nchw", basis, numbers)


def _price(owned: Tensor) -> Tensor:
    """Weight ``(H, W)`` of the amount of shadow, by its distance from where the object is, ``(H, W)``."""
    away = _away(owned[None], 8.0)[0]
    # beside the object, where it hides what is behind, a shadow goes on as it is around
    hidden = dilate((owned > MIXED).float()[None, None], BORDER)[0, 0]
    return (NEAR * (1.0 + away.square()).square() * (1.0 - (1.0 - HIDDEN) * hidden)).clamp_max(MOST)


def _bent(values: Tensor) -> Tensor:
    """The matrix of squared differences of neighbours, times values ``(3, H, W)``."""
    out = torch.zeros_like(values)
    for dim in (1, 2):
        step, length = values.diff(dim=dim), values.shape[dim] - 1
        out.narrow(dim, 1, length).add_(step)
        out.narrow(dim, 0, length).sub_(step)
    return out
