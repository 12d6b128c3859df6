"""The colours of what is in front and of what is behind, where a pixel shows both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .resize import resize

__all__ = ["foreground_colours"]

ROUNDS, COARSE_ROUNDS, COARSE = 2, 10, 32
"""Rounds at a size; and at sizes of up to so many pixels a side."""
SMOOTH = 1e-5
"""How much neighbours are alike where alpha is even; up: smoother colours."""
EDGE = 1.0
"""How much more they are alike for each unit that alpha differs by."""


@torch.no_grad()
def foreground_colours(picture: Tensor, alpha: Tensor, behind: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Colours F in front and B behind, such that ``alpha F + (1 - alpha) B`` comes close to the picture.

    Germer, Uelwer, Conrad and Harmeling, "Fast Multi-Level Foreground Estimation" (ICPR 2021), equation 3: in each
    pixel i least squares of that, and of the differences to its neighbours j, weighed by ``SMOOTH + EDGE |alpha_i -
    alpha_j|``; from coarse to fine, each size starting from the one before. Here all pixels of a round are solved at
    once.

    Args:
        picture: ``(3, H, W)`` in 0..1.
        alpha: ``(H, W)`` in 0..1.
        behind: B, ``(3, H, W)`` in 0..1, where it is known; None: found too.

    Returns:
        F and B, each ``(3, H, W)`` in 0..1.
    """
    size = (picture.shape[1], picture.shape[2])
    values = torch.cat((picture, alpha[None], *([] if behind is None else [behind])))
    levels = [size]
    while min(levels[-1]) > 2:
        levels.append(((levels[-1][0] + 1) // 2, (levels[-1][1] + 1) // 2))
    total = alpha.sum(), (1.0 - alpha).sum()
    front = ((picture * alpha).sum(dim=(1, 2)) / total[0].clamp_min(1e-6)).view(3, 1, 1)
    back = ((picture * (1.0 - alpha)).sum(dim=(1, 2)) / total[1].clamp_min(1e-6)).view(3, 1, 1)
    both = torch.cat((front, back))
    for level in reversed(levels):
        small = resize(values[None], level, mode="area")[0]
        both = resize(both[None], level, mode="nearest")[0] if both.shape[1] > 1 else both.expand(-1, *level)
        both = _solved(small[:3], small[3:4], small[4:], both, COARSE_ROUNDS if max(level) <= COARSE else ROUNDS)
    return both[:3], both[3:]


def _solved(picture: Tensor, alpha: Tensor, behind: Tensor, both: Tensor, rounds: int) -> Tensor:
    """F and B ``(6, h, w)`` of one size, after so many rounds from ``both`` on; ``behind`` is B, or of no channels."""
    around = [(0, 1), (2, 1), (1, 0), (1, 2)]
    height, width = alpha.shape[1:]

    def shifted(values: Tensor) -> Tensor:
        padded = F.pad(values[None], (1, 1, 1, 1), mode="replicate")[0]
        return torch.stack([padded[:, y : y + height, x : x + width] for y, x in around])

    weight = SMOOTH + EDGE * (shifted(alpha) - alpha).abs()
    total = weight.sum(dim=0)
    rest = 1.0 - alpha
    ff, bb, fb = alpha * alpha + total, rest * rest + total, alpha * rest
    determinant = ff * bb - fb * fb
    if len(behind) > 0:
        mixed = alpha * (picture - rest * behind)
        for _ in range(rounds):
            front = (weight * shifted(both[:3])).sum(dim=0).add_(mixed).div_(ff)
            both = torch.cat((front.clamp_(0.0, 1.0), behind))
        return both
    for _ in range(rounds):
        front, back = (weight * shifted(both)).sum(dim=0).split(3)
        front, back = front + alpha * picture, back + rest * picture
        both = torch.cat((bb * front - fb * back, ff * back - fb * front)).div_(determinant).clamp_(0.0, 1.0)
    return both
