"""Small masks upsampled to native size along the picture's edges, and the colours of layers in mixed pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..store.scratch import large_empty
from ..store.transfer import send
from ..types import Layers, OnStep
from .guided import fit_lines, follow
from .inpaint import inpaint
from .morphology import box_mean, box_sum, dilate
from .resize import resize
from .sample import places_of, rescaled, sample_points

__all__ = [
    "Matte",
    "align_masks",
    "bounding_box",
    "native_masks",
    "object_colours",
    "pixels_of",
    "sample_of",
    "smooth_colours",
    "upsample_masks",
]

GUIDED_RADIUS = 3
"""Of the guided filter's windows, in samples of the small masks."""
GUIDED_EPS = 5e-5
"""Regularisation of the guided filter: colour variance below which it follows no edge; up: softer, calmer masks."""
RESIDUAL_VARIANCE = 1e-2
"""Variance of a mask that colour leaves unexplained at which a window counts a quarter; up: softer edges in texture."""
BORDER_WEIGHT = 0.3
"""Weight of pixels beside a border in the fits; down: masks move further to where the picture has its edges."""
EXPLAINED_RANGE = (0.4, 0.8)
"""Share of a mask's variance that colour explains: up to the first the mask is kept, from the second colour decides."""
ALIGN_ROUNDS = 4
"""Rounds of ``align_masks``; each moves a border by up to one sample: masks that are off by one need four or more."""
ALIGN_BORDER_WEIGHT = 0.05
"""``BORDER_WEIGHT`` inside ``align_masks``."""
CLIPPED = 0.1
"""Distance from 0 or 1 within which a mask counts as 0 or 1; it removes the filter's softness."""
MIXED = 0.01
"""Least share of a second layer in a mixed pixel."""
ALONE_POWER = 8
"""Exponent on a mask; the power is the weight of a pixel for the colour of that layer alone."""
TRUST = 0.2
"""Squared share of a layer in a pixel at which half of what the smooth colours leave over goes into its colour; down:
finer colours in the borders, up: fewer fringes where the mask or what is behind is wrong."""


@dataclass(frozen=True)
class Matte:
    """The masks of one frame at native size."""

    masks: Tensor
    """``(L, H, W)``, sum 1."""
    coarse: Tensor
    """``(3, h, w)``: the frame at the size of the small masks."""
    mixed: Tensor
    """``(N,)``: the pixels, counted along rows, that may show more than one layer; all others show exactly one."""


def native_masks(layers: Layers, start: int, stop: int, device: torch.device | str = "cpu") -> Tensor:
    """Masks of some frames at native size, ``(n, L, H, W)``, sum over L is 1.

    Exactly 0 or 1 away from borders; along them as fine as the picture's own edges.

    Args:
        layers: of the model segment.
        start, stop: which frames.
        device: where to compute.
    """
    mattes = [
        upsample_masks(send(layers.fields["masks"][index], device), send(layers.frames[index], device))
        for index in range(start, stop)
    ]
    return torch.stack([matte.masks for matte in mattes])


@torch.no_grad()
def align_masks(masks: Tensor, frames: Tensor, *, rounds: int = ALIGN_ROUNDS, on_step: OnStep | None = None) -> Tensor:
    """Move the borders of small masks to where the pictures have their edges; once, when masks have been found.

    ``upsample_masks`` at the masks' own size, several times over, each time with little weight on what is beside a
    border. Where colours do not tell the layers apart the masks stay.

    Args:
        masks: ``(T, L, h, w)``, sum over L is 1.
        frames: ``(T, H, W, 3)`` in 0..1, of any size.
        rounds: how often.
        on_step: told after every frame; stops the work by raising.

    Returns:
        ``(T, L, h, w)``, sum over L is 1.
    """
    out = large_empty(*masks.shape, dtype=masks.dtype, device=masks.device)
    for index, frame in enumerate(frames):
        moved = masks[index]
        coarse = resize(send(frame, masks.device).movedim(-1, 0)[None], (masks.shape[2], masks.shape[3]))
        for _ in range(rounds):
            moved = upsample_masks(moved, coarse[0].movedim(0, -1), border=ALIGN_BORDER_WEIGHT).masks
        out[index] = moved
        if on_step is not None:
            on_step(index + 1, len(frames), None)
    return out


def upsample_masks(masks: Tensor, frame: Tensor, *, border: float = BORDER_WEIGHT) -> Matte:
    """Bring the masks of a frame to its size.

    Guided filter with a colour guide (He, Sun and Tang, "Guided Image Filtering", TPAMI 2013, eqs. 19 and 20): in every
    small window a mask is a linear function of colour, ``a . colour + b``. As in the fast guided filter (He and Sun,
    2015) a and b are found at the small size and applied to the colours of the native one; here only where a window
    holds a border, as they give 0 or 1 everywhere else. Windows are averaged by how well they fit, not evenly, which
    keeps borders sharp in texture.

    Args:
        masks: ``(L, h, w)``, sum 1.
        frame: ``(H, W, 3)`` in 0..1.
        border: weight of pixels beside a border.
    """
    count, small_height, small_width = masks.shape
    height, width, _ = frame.shape
    coarse = resize(frame.movedim(-1, 0)[None], (small_height, small_width))
    # a mask that is hardly off 0 or 1 is 0 or 1
    sharp = ((masks - CLIPPED) / (1.0 - 2.0 * CLIPPED)).clamp(0.0, 1.0)
    sharp = sharp / sharp.sum(dim=0, keepdim=True).clamp_min(1e-6)
    largest = masks.max(dim=0).indices
    # a window's fit reaches its radius, and the mean over windows as far again
    beside = dilate((sharp.amax(dim=0) < 1.0 - 1e-6).float()[None, None], 1)
    beside = torch.maximum(beside, _changes(largest))
    alone = torch.stack([largest == layer for layer in range(count)]).to(frame.dtype)
    out = resize(alone[None], (height, width), mode="nearest")[0]
    mixed = pixels_of(dilate(beside, 2 * GUIDED_RADIUS)[0, 0], (height, width))
    if len(mixed) == 0:
        return Matte(out, coarse[0], mixed)
    # of the objects alone: the background is what they leave, since all sums are linear
    fields = torch.cat((sharp.new_zeros(4 * (count - 1), small_height, small_width), sharp[1:], sharp[:1]))
    part = bounding_box(beside[0, 0], 4 * GUIDED_RADIUS)
    counts = 1.0 - (1.0 - border) * beside[..., part[0], part[1]]
    lines, explained_variance = _guided_lines(coarse[..., part[0], part[1]], sharp[None, 1:, part[0], part[1]], counts)
    fields[:-count, part[0], part[1]], fields[-1, part[0], part[1]] = lines[0].flatten(0, 1), explained_variance[0, 0]
    place = rescaled(places_of(mixed, width), (height, width), (small_height, small_width))
    read = sample_points(fields, place)
    line, own, explained_variance = (
        read[: 4 * (count - 1)].unflatten(0, (count - 1, 4)),
        read[4 * (count - 1) : -1],
        read[-1],
    )
    colour = frame.reshape(-1, 3).index_select(0, mixed).T
    followed = follow(line[None], colour[None])[0]
    # where colour does not tell the layers apart, the small mask itself is the better guess
    objects = own.lerp(
        followed,
        ((explained_variance - EXPLAINED_RANGE[0]) / (EXPLAINED_RANGE[1] - EXPLAINED_RANGE[0])).clamp(0.0, 1.0),
    )
    values = torch.cat((1.0 - objects.sum(dim=0, keepdim=True), objects))
    values = ((values - CLIPPED) / (1.0 - 2.0 * CLIPPED)).clamp_(0.0, 1.0)
    values /= values.sum(dim=0, keepdim=True).clamp_min_(1e-6)
    out.view(count, -1)[:, mixed] = values
    # what came out as one layer's alone is not mixed
    return Matte(out, coarse[0], mixed[values.amax(dim=0) < 1.0 - MIXED])


def _guided_lines(guide: Tensor, masks: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Fit masks ``(N, L, h, w)`` to the colours of ``guide`` ``(N, 3, h, w)`` in windows; ``counts`` weighs pixels.

    Returns:
        Coefficients ``(N, L, 4, h, w)`` of red, green, blue and one, averaged over the windows that hold a pixel, and
        ``(N, 1, h, w)`` how much of the masks colour explains there, 0..1.
    """
    lines = fit_lines(guide, masks, radius=GUIDED_RADIUS, eps=GUIDED_EPS, weights=counts)
    # windows count by how much of the masks' variance their colours explain
    variance = lines.variance.sum(dim=1, keepdim=True)
    residual = (variance - lines.explained.sum(dim=1, keepdim=True)).clamp_min(0.0)
    weight = (residual + RESIDUAL_VARIANCE).square().reciprocal()
    averaged = box_mean(lines.coefficients, GUIDED_RADIUS, weight[:, :, None])
    explained_variance = 1.0 - box_sum(weight * residual, GUIDED_RADIUS) / box_sum(
        weight * variance, GUIDED_RADIUS
    ).clamp_min(1e-6)
    return averaged, explained_variance.clamp(0.0, 1.0)


def bounding_box(marks: Tensor, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around what is not 0 in ``(h, w)``, with a margin."""
    sides = [(marks != 0).any(dim=dim).int() for dim in (1, 0)]
    ends = torch.stack([end for side in sides for end in (side.argmax(), side.flip(0).argmax())]).tolist()
    top, left = (max(0, first - margin) for first in ends[::2])
    bottom, right = (length - last + margin for length, last in zip(marks.shape, ends[1::2], strict=True))
    return slice(top, bottom), slice(left, right)


def object_colours(picture: Tensor, matte: Matte, behind: Tensor) -> Tensor:
    """Colours of the objects in mixed pixels, such that masks times colours come close to the frame.

    As in blur fusion (Forte and Pitie, "Approximate Fast Foreground Colour Estimation", ICIP 2021, eqs. 5 to 7): smooth
    colours, spread from where a layer is alone, first; then what they leave over goes to the objects by their shares.
    The background takes part with the colour it has.

    Args:
        picture: ``(3, N)``, the frame in the mixed pixels.
        matte: of that frame.
        behind: ``(3, N)``, the background in the mixed pixels.

    Returns:
        ``(L - 1, 3, N)``, in 0..1.
    """
    size, pixels = (matte.masks.shape[1], matte.masks.shape[2]), matte.mixed
    shares = matte.masks.flatten(1)[:, pixels]
    smooth = smooth_colours(matte, slice(1, None))
    place = rescaled(places_of(pixels, size[1]), size, (smooth.shape[2], smooth.shape[3]))
    objects = sample_points(smooth.flatten(0, 1), place).unflatten(0, (len(shares) - 1, 3))
    residual = picture - shares[0] * behind - (shares[1:, None] * objects).sum(dim=0)
    # the last term is 0 where objects have the pixel to themselves: there they take all of it
    known = shares[1:].square().sum(dim=0) + TRUST * shares[0]
    return (objects + shares[1:, None] * (residual / known.clamp_min(1e-6))).clamp_(0.0, 1.0)


def smooth_colours(matte: Matte, layers: slice) -> Tensor:
    """Some layers' colours where they are alone, spread over the whole frame; ``(n, 3, h, w)`` at the small size."""
    alone = resize(matte.masks[layers, None], (matte.coarse.shape[1], matte.coarse.shape[2])).pow(ALONE_POWER)
    return inpaint(matte.coarse.expand(len(alone), -1, -1, -1), alone)


def sample_of(place: Tensor, size: tuple[int, int], small: tuple[int, int]) -> Tensor:
    """In which sample of a small picture (h, w), counted along rows, places ``(N, 2)`` of one of ``size`` lie."""
    x, y = (place + 0.5).unbind(dim=1)
    return (y * (small[0] / size[0])).long() * small[1] + (x * (small[1] / size[1])).long()


def pixels_of(marks: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels ``(N,)``, counted along rows, of a picture of ``size`` that lie in samples of ``(h, w)`` that are not
    0."""
    if not bool(marks.any()):
        return torch.zeros(0, dtype=torch.long, device=marks.device)
    lies, first = [], []
    for side, small, part in zip(size, marks.shape, bounding_box(marks), strict=True):
        index = ((torch.arange(side, device=marks.device) + 0.5) * (small / side)).long()
        lies.append(index[(index >= part.start) & (index < part.stop)])
        first.append((index < part.start).sum())
    row, column = marks.index_select(0, lies[0]).index_select(1, lies[1]).nonzero().unbind(dim=1)
    return (row + first[0]) * size[1] + (column + first[1])


def _changes(labels: Tensor) -> Tensor:
    """1 where a label ``(h, w)`` differs from one of its neighbours, ``(1, 1, h, w)``."""
    numbers = labels.float()[None, None]
    top = numbers.amax()
    return (dilate(numbers, 1) + dilate(top - numbers, 1) != top).float()
