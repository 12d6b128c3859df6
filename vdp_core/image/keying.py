"""Alpha and colours in front of a screen of one colour, green, blue or any other, whose light may be uneven.

A picture is ``alpha F + (1 - alpha) P``. The screen P is nearly known: it has one hue everywhere, and its light is
smooth but for wrinkles and shadows. So it is found first: as it is where it is seen, filled in where it is not. Then
alpha is the share at which a pixel lies between P and the colours of the object that are near; the matting Laplacian
smooths that along the picture's own edges. What F has of the screen's hue is light that the screen threw.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .foreground import foreground_colours
from .inpaint import inpaint
from .laplacian import solve_band
from .matting import bounding_box
from .morphology import box_mean, dilate, distance_inside
from .resize import resize, size_within

__all__ = ["find_colour", "find_plate", "key_picture", "share_of_hue"]

SECTOR = 3.0**-0.5
"""Cotangent of the angle to either side of the screen's hue up to which a colour has something of it: 60 degrees."""
LEAST_SHARE = 0.12
"""Share of its light that a pixel has of the screen's hue, from which on it may be the screen."""
LEAST_AREA = 0.01
"""Share of the clip that the screen fills at least."""
ALIKE = 0.04
"""Standard deviation of the screen's colour over its brightness."""
SATURATED = (0.6, 0.85)
"""Saturation of a pixel over the screen's: up to the first it is not the screen, from the second it may be."""
DIM = (0.2, 0.4)
"""By how much a pixel is darker than the screen's smooth light: up to the first it may be the screen, as in a shadow or
wrinkle, from the second it is not; down: dark objects of the screen's hue stay, and so do shadows."""
STEADY = 0.15
"""Deviation from the smooth light at which a pixel counts a quarter in it."""
PLATE_SIDE = 512
"""Long side of the copy that the screen is found on."""
PLATE_RADIUS = 0.01
"""Of the windows that the screen is averaged over, as a share of the long side; down: finer wrinkles, more of the
object's edges."""
ROUNDS = 4
"""How often the screen is found anew without what does not fit it."""
SURE = 0.6
"""How far a pixel fits the screen from which on it is nothing else."""
NEAR, FAR = 0.03, 0.05
"""Distances from the screen, as shares of the long side, that say how far a colour may have of its hue."""
SPILL = (0.05, 0.15, 0.6)
"""Share of the screen's hue that the object alone may have: beside the screen, and more at both distances from it."""
FULL = 0.97
"""Share between the screen and the object's colours from which on a pixel is the object alone."""
LEAN, HOLD = 1.0, 10.0
"""Weights of the share found from colours, and of what is sure."""
EPS = 1e-4
"""Variance of a window's colours below which alpha is flat there: that of noise."""
STEPS = 60
OWN_HUE = (0.35, 0.7)
"""Share of the screen's hue in the object's own colour: up to the first it is thrown light, from the second its own."""
LEAST = 1.0 / 255.0
"""Alpha below which, and above one less which, it is 0, or 1."""
BESIDE = 24
"""Pixels around the object that its colours are found with."""


def share_of_hue(pictures: Tensor, colour: Tensor) -> Tensor:
    """How much of a colour's hue is in ``(..., 3, H, W)``, in units of the values: ``(..., H, W)``; less than 0: none.

    Chroma along the hue, less ``SECTOR`` times that across it. Grey has 0; of green and grey mixed, the green's share.

    Args:
        pictures: in 0..1.
        colour: ``(3,)``, not grey.
    """
    axis = colour - colour.mean()
    axis = axis / axis.norm().clamp_min(1e-6)
    chroma = pictures - pictures.mean(dim=-3, keepdim=True)
    along = (chroma * axis.view(3, 1, 1)).sum(dim=-3)
    across = (chroma.square().sum(dim=-3) - along.square()).clamp_min(0.0).sqrt()
    return along - SECTOR * across


def find_colour(pictures: Tensor, near: Tensor) -> tuple[Tensor, float]:
    """The colour ``(3,)`` of a screen, and the share of the pixels that it fills.

    The mean of colours over their brightness that are alike, found from all that have something of a hue.

    Args:
        pictures: of the clip, ``(N, 3, h, w)`` in 0..1.
        near: ``(3,)``, the hue to look for.
    """
    light = pictures.sum(dim=1).clamp_min(1e-3)
    hue = (share_of_hue(pictures, near) / light - LEAST_SHARE).clamp_min(0.0)
    # (dark pixels have any hue)
    first = weight = hue * light.clamp_max(1.0)
    relative = pictures / light[:, None]
    for _ in range(12):
        if float(weight.sum()) <= 0.0:
            return near, 0.0
        centre = (relative * weight[:, None]).sum(dim=(0, 2, 3)) / weight.sum()
        distance = (relative - centre.view(3, 1, 1)).square().sum(dim=1) / ALIKE**2
        weight = first * torch.exp(-0.5 * distance)
    mean = (light * weight).sum() / weight.sum()
    return (centre * mean).clamp(0.0, 1.0), float((weight > 0.5 * first).logical_and(first > 0.0).float().mean())


def find_plate(picture: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """The screen alone ``(3, h, w)``, and how far each pixel may be it by its colour and brightness ``(h, w)``.

    Args:
        picture: ``(3, h, w)`` in 0..1.
        colour: of the screen, ``(3,)``.
    """
    light = picture.sum(dim=0)
    whole = float(share_of_hue(colour.view(3, 1, 1), colour) / colour.sum().clamp_min(1e-3))
    saturation = share_of_hue(picture, colour) / light.clamp_min(1e-3) / max(whole, 1e-3)
    may_be = _ramp(saturation, *SATURATED) * _ramp(light / colour.sum(), *DIM)
    may_be = may_be * (1.0 - _ramp(1.0 - light / _smooth_light(light, may_be).clamp_min(1e-3), *DIM))
    radius = max(2, round(PLATE_RADIUS * max(light.shape)))
    weight, plate = may_be, picture
    for _ in range(ROUNDS):
        around = box_mean(weight[None], radius)
        known = _ramp(around, 0.05, 0.3)
        if not bool(known.any()):  # the object fills the frame
            return colour.view(3, 1, 1).expand_as(picture), may_be
        mean = box_mean(picture * weight, radius) / around.clamp_min(1e-6)
        plate = inpaint(mean[None], known[None])[0]
        weight = may_be * _fits(picture - plate, weight)[0]
    return plate, may_be


@torch.no_grad()
def key_picture(picture: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha ``(H, W)`` and the object's own colours ``(3, H, W)``, black where there is nothing of it.

    Args:
        picture: ``(3, H, W)`` in 0..1.
        colour: of the screen, ``(3,)``.
    """
    size = (picture.shape[1], picture.shape[2])
    small = resize(picture[None], size_within(*size, PLATE_SIDE, least=2), mode="area")[0]
    found, may_be = find_plate(small, colour)
    spill = _spill_allowed(small, found, colour)
    plate, may_be, spill = resize(torch.cat((found, may_be[None], spill))[None], size)[0].split((3, 1, 2))

    fits, inverse = _fits(picture - plate, may_be[0])
    behind = may_be[0] * fits > SURE
    share = box_mean(_share(picture, plate, colour)[None], 1)[0]
    spill, away = spill
    alone = (1.0 - _ramp(share / spill, 0.7, 1.0)) * away
    # between the screen and what is alone near by: the further in, the surer that is unmixed (red and skin have less of
    # the screen's hue than grey, so that they hide some of it)
    across = inpaint(picture[None], (alone * away.square())[None, None])[0] - plate
    towards = (inverse @ across.flatten(1)).view_as(across)
    between = ((picture - plate) * towards).sum(dim=0) / (across * towards).sum(dim=0).clamp_min(1e-6)
    front = (alone > 0.5) & ~behind & ((between > FULL) | (away == 1.0))
    sure = front | behind
    target = torch.where(sure, front.to(between.dtype), between.clamp(0.0, 1.0))
    band = dilate((~sure).float()[None], 1)[0]
    alpha = solve_band(picture, target, LEAN + HOLD * sure.to(between.dtype), band, eps=EPS, steps=STEPS)
    alpha = ((alpha - LEAST) / (1.0 - 2.0 * LEAST)).clamp_(0.0, 1.0)

    colours = torch.zeros_like(picture)
    if bool(alpha.any()):
        rows, columns = bounding_box(alpha, BESIDE)
        part = (slice(rows.start, min(rows.stop, size[0])), slice(columns.start, min(columns.stop, size[1])))
        own = foreground_colours(picture[:, part[0], part[1]], alpha[part], plate[:, part[0], part[1]])[0]
        own = _without_spill(own, plate[:, part[0], part[1]], colour)
        colours[:, part[0], part[1]] = own * (alpha[part] > 0.0)
    return alpha, colours


def _ramp(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to ``low``, 1 from ``high`` on."""
    return ((values - low) / (high - low)).clamp(0.0, 1.0)


def _share(picture: Tensor, plate: Tensor, colour: Tensor) -> Tensor:
    """How much of the screen's hue a pixel has over what the screen has there, 0..1, ``(H, W)``."""
    return (share_of_hue(picture, colour) / share_of_hue(plate, colour).clamp_min(1e-3)).clamp(0.0, 1.0)


def _smooth_light(light: Tensor, weight: Tensor) -> Tensor:
    """The quadratic ``(h, w)`` that most of the light follows, by least squares weighed anew ten times."""
    height, width = light.shape
    y, x = (torch.linspace(-1.0, 1.0, side, device=light.device) for side in (height, width))
    terms = torch.stack([(y**a)[:, None] * x**b for a in range(3) for b in range(3 - a)]).flatten(1)
    own, smooth = weight, light
    ridge = 1e-3 * torch.eye(len(terms), device=light.device)
    for _ in range(10):
        weighted = terms * own.flatten()
        fit = torch.linalg.solve(weighted @ terms.T + ridge, weighted @ light.flatten())
        smooth = (fit @ terms).view(height, width)
        own = weight / (1.0 + ((light / smooth.clamp_min(1e-3) - 1.0) / STEADY).square()).square()
    return smooth


def _fits(left: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """How far what the screen leaves of a picture ``(3, H, W)`` is its noise, 0..1 ``(H, W)``; its inverse covariance.

    ``weight`` ``(H, W)`` says where noise is learnt.
    """
    some = left[:, weight > 0.5]
    least = torch.eye(3, device=left.device) / 255.0**2
    inverse = torch.linalg.inv(some @ some.T / max(some.shape[1], 1) + least)
    distance = ((inverse @ left.flatten(1)) * left.flatten(1)).sum(dim=0).view(weight.shape) / 3.0
    return 1.0 / (1.0 + (box_mean(distance[None], 1)[0] / 3.0).square()), inverse


def _spill_allowed(small: Tensor, plate: Tensor, colour: Tensor) -> Tensor:
    """``(2, h, w)``: the share of the screen's hue up to which a pixel is the object alone, and how far it is away.

    Beside the screen what has some of its hue is mixed with it; far from it, it is not.
    """
    share = _share(small, plate, colour)
    side = max(small.shape[1:])
    near, far = (
        distance_inside(share <= limit, reach) / reach
        for limit, reach in ((0.5, max(4, round(NEAR * side))), (0.7, max(8, round(FAR * side))))
    )
    return torch.stack((SPILL[0] + SPILL[1] * near + SPILL[2] * far, near))


def _without_spill(colours: Tensor, plate: Tensor, colour: Tensor) -> Tensor:
    """Colours ``(3, H, W)`` without the screen's light on them: it has the screen's colour.

    What has very much of the screen's hue has it by itself, and keeps it.
    """
    share = share_of_hue(colours, colour) / share_of_hue(plate, colour).clamp_min(1e-3)
    share = share.clamp(0.0, 1.0) * (1.0 - _ramp(share, *OWN_HUE))
    return (colours - share * plate).clamp_(0.0, 1.0)
