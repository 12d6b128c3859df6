"""Priors that identify the light where reconstruction alone does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...image.morphology import box_mean
from ...motion.trajectories import follow
from ...motion.warp import pixel_grid, resize_flow, warp
from ...types import Flow

__all__ = ["Correspondences", "black_level", "brightest", "corresponding_light", "likeness", "natural_tone"]

NATURAL_MEAN = 0.40
NATURAL_CONTRAST = 0.52
"""Mean of well-exposed display-referred pictures, and their deviation over their mean: about the middle of what
photographs and film show. How bright to go is the person's choice; this is where it starts."""
BLACK = 2.5 / 255  # and less is black, however a file was made
NEAR_BLACK = 22.5 / 255
STEEP = 2.0
"""Density of values near black, of that of evenly spread ones, at which half of what is black is taken for dark scene.
Copies of 16 clips with 0.3 taken off have 0.4 to 1.8, and those that are as dark by a power of 3 1.2 to 4.7."""
FEW = 0.02  # black share of the frame that says half as much as all of it would
MOST_BLACK = 0.25
WHITE_MARGIN = 1.05  # the working copy averages
DIMMEST = 0.012
"""Brightness at which noise and rounding to 8 bits make half of what a ratio of two pixels says."""


@dataclass(frozen=True)
class Correspondences:
    """Points of the scene seen in two frames: where, and how much brighter the second saw them.

    Places are (x, y, t) in -1..1, from the first to the last pixel centre and frame: ``(N, 3)``.
    """

    first: Tensor
    second: Tensor
    log_ratio: Tensor
    """``(N,)``: log of the second brightness over the first."""
    weight: Tensor
    """``(N,)`` in 0..1."""

    def __len__(self) -> int:
        return len(self.weight)


@torch.no_grad()
def corresponding_light(
    frames: Tensor, flow: Flow, *, spans: tuple[int, ...] = (1, 2, 4, 8, 16), limit: int = 1_500_000, seed: int = 0
) -> Correspondences:
    """Follow the flow over several distances in time and compare the brightness of the same points of the scene.

    A surface keeps its colour, so a difference in brightness is a difference in light. Long spans keep errors from
    adding up over the clip. Points count less where they are dim or the flow is doubtful, and not at all where they
    were occluded on the way or changed colour.

    Args:
        frames: the working copy ``(T, 3, h, w)``.
        flow: of the same clip, any size.
        spans: distances in frames, rising.
        limit: the most points; a random choice is made above it.
        seed: of that choice.
    """
    count, _, height, width = frames.shape
    flow = resize_flow(flow, (height, width))
    masks = flow.forward_occlusion.to(frames.device), flow.forward_confidence.to(frames.device)
    generator = torch.Generator(frames.device).manual_seed(seed)
    spans = tuple(span for span in spans if span < count)
    share = limit / (len(spans) * count * height * width)
    grid = pixel_grid(height, width, device=frames.device)
    steps = torch.tensor([2.0 / (width - 1), 2.0 / (height - 1), 2.0 / max(count - 1, 1)], device=frames.device)
    found: list[tuple[Tensor, ...]] = []
    for start, span, path, seen in follow(flow.forward.to(frames.device), *masks, spans):
        before = frames[start : start + len(path)]
        after = warp(frames[start + span : start + span + len(path)], path)
        weight, log_ratio = _compare(before, after)
        weight = weight * seen
        chosen = weight > 0.02
        if share < 1.0:
            chosen &= torch.rand(chosen.shape, generator=generator, device=frames.device) < share
        index, y, x = chosen.nonzero(as_tuple=True)
        first = torch.stack((x, y, index + start), dim=-1) * steps - 1.0
        moved = (grid + path)[index, :, y, x]
        second = torch.cat((moved, (index + start + span)[:, None]), dim=-1) * steps - 1.0
        found.append((first, second, log_ratio[chosen], weight[chosen]))
    empty = (frames.new_zeros(0, 3), frames.new_zeros(0, 3), frames.new_zeros(0), frames.new_zeros(0))
    return (
        Correspondences(*(torch.cat(parts) for parts in zip(*found, strict=True))) if found else Correspondences(*empty)
    )


def _compare(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence that two pictures of the same points show one colour, and the log ratio of brightness."""
    bright = torch.stack((before.mean(dim=1), after.mean(dim=1)))
    dim = bright.amin(dim=0)
    colour = before / (bright[0, :, None] + DIMMEST) - after / (bright[1, :, None] + DIMMEST)
    weight = (dim / (dim + DIMMEST)).square() * torch.exp(-colour.square().sum(dim=1) / 0.02)
    log_ratio = (bright + 1e-4).log().diff(dim=0)[0].clamp(-2.0, 2.0)
    return weight, log_ratio


def black_level(frames: Tensor, area: Tensor) -> float:
    """Return what was taken off every value of the clip, as far as what was cut off by it shows; 0 or more.

    Scenes get dark gradually, so that values grow denser towards black. What is taken off every value cuts them off
    where they are as dense as elsewhere: were they to thin out evenly below, a share p that is black and a density d
    above it would span ``2 p / d``. That counts the less the denser they are, and the fewer are black. Of copies of 16
    clips with 0.1, 0.2 and 0.3 taken off it finds 0.04, 0.08 and 0.14 in the mean, and of dark ones 0.01 or less.

    Args:
        frames: the working copy ``(T, 3, h, w)``.
        area: ``(h, w)``, where the frames show the scene.
    """
    values = frames.amax(dim=1)[:, area].flatten()
    black = float((values < BLACK).float().mean())
    if black == 0.0:
        return 0.0
    density = float(((values >= BLACK) & (values < NEAR_BLACK)).float().mean()) / (NEAR_BLACK - BLACK)
    bright = float(values.sort().values[int(0.98 * (len(values) - 1))])
    span = min(2.0 * black / max(density, 1e-3), MOST_BLACK)
    sure = black / (black + FEW) / (1.0 + (density * bright / STEEP) ** 2)
    return span * sure if bright >= NEAR_BLACK else 0.0


def brightest(frames: Tensor) -> float:
    """Return what next to nothing of frames ``(T, 3, h, w)`` is brighter than, in 0..1 and above 0."""
    values = frames.amax(dim=1).flatten().sort().values
    return min(max(WHITE_MARGIN * float(values[int(0.9995 * (len(values) - 1))]), BLACK), 1.0)


def natural_tone(values: Tensor, weight: Tensor | None = None) -> tuple[float, float]:
    """Return gamma and log gain for which ``exp(log_gain) * values ** gamma`` looks well exposed.

    Gamma brings the contrast, and the gain the mean, to those of natural pictures; the gain stops where more than two
    of a hundred values would burn out. Values that are bright already are left as they are: nothing gets darker.

    Args:
        values: some brightness values of the clip, any shape, in 0..1.
        weight: of the same shape, how much each of them counts; None: all alike.
    """
    # in double precision, so that the order of sums, which the number of threads decides, does not show
    values = values.flatten().cpu().double().clamp_min(0.0)
    weight = torch.ones_like(values) if weight is None else weight.flatten().cpu().double()
    seen = (values > 0.002) & (weight > 0.0)  # black borders and clipped shadows say nothing about exposure
    values, weight = values[seen], weight[seen]
    if len(values) == 0:
        return 1.0, 0.0
    values, order = values.sort()
    weight = weight[order] / weight.sum()

    def contrast(gamma: float) -> float:
        toned = values.pow(gamma)
        mean = (weight * toned).sum()
        return float((weight * (toned - mean).square()).sum().sqrt() / mean)

    low, high = 0.4, 1.1
    for _ in range(20):  # contrast rises with gamma
        middle = 0.5 * (low + high)
        low, high = (middle, high) if contrast(middle) < NATURAL_CONTRAST else (low, middle)
    mean = float((weight * values).sum())
    dark = min(max((NATURAL_MEAN - mean) / (0.5 * NATURAL_MEAN), 0.0), 1.0)  # 1 below half the natural mean
    gamma = (0.5 * (low + high)) ** dark
    toned = values.pow(gamma)
    bright = float(toned[int((weight.cumsum(dim=0) < 0.98).sum().clamp_max(len(toned) - 1))])
    gain = min(max(NATURAL_MEAN, mean) / float((weight * toned).sum()), max(0.98 / bright, 1.0))
    return gamma, math.log(gain)


def likeness(frames: Tensor, picture: Tensor) -> Tensor:
    """Return how much each frame shows the same view as ``picture``, ``(T,)``, whatever its exposure and grade.

    It is the correlation of local detail in logs: near 1 for the same frame, near 0 for another scene.

    Args:
        frames: the working copy ``(T, 3, h, w)``.
        picture: ``(3, h, w)``, of the same size.
    """

    def outline(pictures: Tensor) -> Tensor:
        logs = (pictures.mean(dim=1, keepdim=True) + DIMMEST).log()
        detail = logs - box_mean(logs, 7)
        return F.normalize(detail.flatten(1), dim=1)

    wanted = outline(picture[None])[0]
    return torch.stack([outline(frame[None])[0] @ wanted for frame in frames])
