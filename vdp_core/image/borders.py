"""What in a clip's frames is no picture of the scene: bars at the sides, and what lies still on top, such as a logo."""

from __future__ import annotations

import torch
from torch import Tensor

from .morphology import dilate

__all__ = ["scene_area"]

BLACK = 0.1  # most that a bar has, of what bright places have: a white or grey one could not be told from the sky
BRIGHT = 0.9  # of the pixels are no brighter than a bright place
EDGE = 0.1  # difference of neighbours that is an edge
STILL = 0.3  # of that: an edge that changes less over the whole clip has not moved
MOVES = 0.9  # share of the edges that have to move before those that do not stand out
SEEN = 8  # frames at least, in which what moves has moved
AROUND = 2  # pixels around a still edge that belong to what has it
LEAST = 0.2  # of the frame has to be left, or all of it counts


def scene_area(frames: Tensor) -> Tensor:
    """Return where the frames show the scene, ``(h, w)``, True or False.

    Bars are rows and columns, from the sides inwards, that are black in all of the clip. What lies on top is edges
    that stay where they are while nearly all others move. Where nothing moves, or next to nothing would be left, all of
    it is taken for the scene. Few frames do not tell what lies on top.

    Args:
        frames: a working copy ``(T, 3, h, w)`` in 0..1.
    """
    highest = frames.amax(dim=0).amax(dim=0)
    bright = highest.flatten().sort().values[int(BRIGHT * (highest.numel() - 1))]
    area = torch.ones_like(highest, dtype=torch.bool)
    for dim in (0, 1):
        black = highest.amax(dim=1 - dim) < BLACK * bright  # each row or column
        first, last = (int(side.long().cumprod(dim=0).sum()) for side in (black, black.flip(0)))
        area.narrow(dim, 0, first).zero_()
        area.narrow(dim, len(black) - last, last).zero_()
    still, count = torch.zeros_like(area), 0
    for dim in (0, 1):
        steps = frames.diff(dim=2 + dim)
        is_edge = (steps[0].abs().amax(dim=0) > EDGE) & area.narrow(dim, 0, area.shape[dim] - 1)
        change = (steps.amax(dim=0) - steps.amin(dim=0)).amax(dim=0)
        still.narrow(dim, 0, area.shape[dim] - 1).logical_or_(is_edge & (change < STILL * EDGE))
        count += int(is_edge.sum())
    if len(frames) >= SEEN and 0 < int(still.sum()) < (1.0 - MOVES) * count:
        area &= ~dilate(still, AROUND)
    return area if area.float().mean() >= LEAST else torch.ones_like(area)
