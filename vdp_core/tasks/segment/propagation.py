"""Masks propagated from frame to frame, forwards and backwards, and combined with evidence and edges."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ...image.guided import fit_lines, follow
from ...image.morphology import box_mean
from ...motion.warp import warp
from ...types import OnStep
from .config import SegmentConfig
from .layer_flow import LayerFlows

__all__ = ["propagate"]

WINDOW = 8
"""Radius of the guided filter's windows."""
FLAT = 1e-4
"""Variance of colour below which the guided filter sees no edge."""
SHARPEN = 2.0
"""Slope that brings masks back towards 0 and 1 after the guided filter has softened them."""
DOUBT = 0.1
"""Least value of a propagated mask, so that evidence can overrule it."""


@torch.no_grad()
def propagate(
    small: Tensor,
    ways: LayerFlows,
    evidence: Tensor,
    explained: Tensor,
    fixed: Mapping[int, Tensor],
    config: SegmentConfig,
    on_step: OnStep,
) -> Tensor:
    """Put evidence, neighbouring masks and edges together, forwards and backwards: masks ``(T, L, h, w)``.

    A given mask starts both ways; in between, the nearer one counts more. Without any, both ends start from evidence.
    """
    count = len(small)
    out = torch.zeros(evidence.shape, device=small.device)
    weight = [0.0] * count
    size = (small.shape[2], small.shape[3])
    steps = iter(range(1, 2 * count + 1))
    for order in (range(count), range(count - 1, -1, -1)):
        now: Tensor | None = None
        since = 0
        for index in order:
            since += 1
            if index in fixed:
                now, since = fixed[index], 0
            elif now is not None or not fixed:
                log_odds = config.appearance * evidence[index].float()
                log_odds[1:] += config.rebuilt * explained[index]
                if now is not None:
                    brought = warp(now[:, None], ways.from_to(index, index - order.step, size))[:, 0]
                    brought[0] = (1.0 - brought[1:].sum(dim=0)).clamp_min(0.0)
                    brought = brought / brought.sum(dim=0)
                    log_odds += config.neighbours * brought.clamp_min(DOUBT).log()
                now = _sharpened(_along_edges(log_odds.softmax(dim=0)[1:], small[index]))
            if now is not None:
                part = 1e6 if index in fixed else 1.0 / since if fixed else 1.0
                out[index] += part * now
                weight[index] += part
            on_step(next(steps), 2 * count, partial(_overlay, small[index], now))
    return out.div_(torch.tensor(weight, device=out.device).view(-1, 1, 1, 1))


def _overlay(picture: Tensor, masks: Tensor | None) -> Tensor:
    """The picture with its background dimmed."""
    kept = 1.0 if masks is None else 1.0 - 0.7 * masks[0]
    return (picture * kept).movedim(0, -1)


def _sharpened(objects: Tensor) -> Tensor:
    """Masks of the objects ``(L - 1, h, w)`` back towards 0 and 1, with the background first, sum 1."""
    objects = ((objects - 0.5) * SHARPEN + 0.5).clamp(0.0, 1.0)
    objects = objects / objects.sum(dim=0, keepdim=True).clamp_min(1.0)
    return torch.cat((1.0 - objects.sum(dim=0, keepdim=True), objects))


def _along_edges(objects: Tensor, picture: Tensor) -> Tensor:
    """Masks ``(L - 1, h, w)`` as locally linear functions of colour, where colour explains them; else as they are."""
    guide, masks = picture[None], objects[None]
    lines = fit_lines(guide, masks, radius=WINDOW, eps=FLAT)
    clear = (lines.explained / (lines.variance + 1e-4)).clamp(0.0, 1.0)
    averaged = box_mean(torch.cat((lines.coefficients, clear[:, :, None]), dim=2), WINDOW)
    followed = follow(averaged[:, :, :-1], guide)
    return masks.lerp(followed, averaged[:, :, -1])[0]
