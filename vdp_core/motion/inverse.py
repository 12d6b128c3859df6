"""Flow the other way round."""

from __future__ import annotations

import torch
from torch import Tensor

from ..image.inpaint import inpaint
from ..image.splat import Splat
from .warp import pixel_grid, warp

__all__ = ["inverse_flow"]

SEEN = 0.25  # of a pixel, covered by vectors: less comes from a neighbour at the rim of what is seen
SCALE = 0.02  # difference of colours, in 0..1, that makes a vector e times less likely
LEAST = 1e-4  # weight of a vector whose colours differ, so that it counts where there is no other


def inverse_flow(forward: Tensor, frames: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Find the motion back from the motion ahead: each vector, turned round, belongs to the place where it leads.

    Where several lead to one place, those count whose colours are the same at both ends (the importance of softmax
    splatting: Niklaus and Liu, CVPR 2020); without frames their mean is taken, and ``warp.occlusion`` marks it, as it
    leads back to neither. Where none leads, the pixel was not seen before; its vector is filled in from around.

    Args:
        forward: ``(N, 2, h, w)`` in pixels, read on the grid of the first frames.
        frames: the first and the second ones, ``(N, 3, h, w)`` each in 0..1.

    Returns:
        The motion back, ``(N, 2, h, w)`` on the grid of the second frames; and ``(N, h, w)``, 1 where none leads.
    """
    count, _, height, width = forward.shape
    weight = torch.ones_like(forward[:, :1])
    if frames is not None:
        first, second = frames
        differs = (first - warp(second, forward)).abs().mean(dim=1, keepdim=True)
        weight = (differs / -SCALE).exp() + LEAST
    values = torch.cat((forward * -weight, weight), dim=1)
    # a rim of one pixel around takes what lies half beyond the border
    places = pixel_grid(height, width, device=forward.device, dtype=forward.dtype) + forward + 1.0
    sums = forward.new_empty(count, 4, height, width)
    for index in range(count):
        splat = Splat((height + 2, width + 2), 3, forward.device, forward.dtype)
        splat.lay(values[index], places[index], torch.ones_like(weight[index, 0]))
        sums[index] = splat.sums[:, 1:-1, 1:-1]
    vectors, weights, covered = sums.split((2, 1, 1), dim=1)
    seen = (covered >= SEEN).to(forward.dtype)
    return inpaint(vectors / weights.clamp_min(torch.finfo(forward.dtype).tiny), seen), 1.0 - seen[:, 0]
