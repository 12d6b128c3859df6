"""Masks propagated from frame to frame, forwards and backwards, and combined with evidence and edges."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ...image.guided import fit_lines, follow
from ...image.morphology import box_mean, distance_inside
from ...image.resize import resize, size_within
from ...motion.warp import warp
from ...store.scratch import large_empty
from ...types import OnStep
from .config import SegmentConfig
from .layer_flow import LayerFlows

__all__ = ["propagate"]

GUIDED_RADIUS = 8
"""Radius of the guided filter's windows."""
GUIDED_EPS = 1e-4
"""Variance of colour below which the guided filter sees no edge."""
CONTRAST = 2.0
"""Slope that brings masks back towards 0 and 1 after the guided filter has softened them."""
PROPAGATED_FLOOR = 0.1
"""Least value of a propagated mask, so that evidence can overrule it."""
NEAR_SIDE = 96
"""Long side of the grid on which distances from objects are measured."""
REACH = 0.15
"""Distance from where an object has been found or carried, in diameters of it, to which it is free to grow."""
BEYOND = 12.0
"""Log odds against the object a diameter further."""
MOST_AGAINST = 8.0
CONFIRMED = (0.5, 0.8)
"""Share of where an object should be that must show it, for it to be nowhere else: not at all, and wholly."""


@torch.no_grad()
def propagate(
    small: Tensor,
    labels: Tensor,
    layer_flows: LayerFlows,
    appearance_evidence: Tensor,
    warp_evidence: Tensor,
    fixed: Mapping[int, Tensor],
    config: SegmentConfig,
    on_step: OnStep,
) -> Tensor:
    """Put evidence, neighbouring masks and edges together, forwards and backwards: masks ``(T, L, h, w)``.

    What is far from where ``labels`` ``(T, L, h, w)``, the masks so far, or the mask that the flow carries have an
    object is none of it, unless neither has any of it in that frame.

    A given mask starts both ways; in between, the nearer one counts more. Without any, both ends start from evidence.
    """
    count = len(small)
    out = large_empty(*appearance_evidence.shape, device=small.device).zero_()
    weight = [0.0] * count
    size = (small.shape[2], small.shape[3])
    near = _Near(labels)
    steps = iter(range(1, 2 * count + 1))
    for order in (range(count), range(count - 1, -1, -1)):
        masks: Tensor | None = None
        since = 0
        for index in order:
            since += 1
            if index in fixed:
                masks, since = fixed[index], 0
            elif masks is not None or not fixed:
                log_odds = config.appearance * appearance_evidence[index].float()
                log_odds[1:] += config.warping * warp_evidence[index]
                propagated, seen = None, log_odds.softmax(dim=0)[1:]
                if masks is not None:
                    propagated = warp(masks[:, None], layer_flows.from_to(index, index - order.step, size))[:, 0]
                    propagated[0] = (1.0 - propagated[1:].sum(dim=0)).clamp_min(0.0)
                    propagated = propagated / propagated.sum(dim=0)
                    log_odds += config.propagation * propagated.clamp_min(PROPAGATED_FLOOR).log()
                log_odds[1:] -= near.against(index, seen, propagated)
                masks = _sharpened(_along_edges(log_odds.softmax(dim=0)[1:], small[index]))
            if masks is not None:
                part = 1e6 if index in fixed else 1.0 / since if fixed else 1.0
                out[index] += part * masks
                weight[index] += part
            on_step(next(steps), 2 * count, partial(_overlay, small[index], masks))
    return out.div_(torch.tensor(weight, device=out.device).view(-1, 1, 1, 1))


class _Near:
    """How far from where they have been found objects may be."""

    def __init__(self, labels: Tensor) -> None:
        self._size = (labels.shape[2], labels.shape[3])
        self._grid = size_within(*self._size, NEAR_SIDE)
        self._limit = max(2, max(self._grid) // 4)
        self._found = torch.cat([self._small(one[None, 1:]) for one in labels])
        areas = self._found.sum(dim=(2, 3))
        # the diameter where it is seen well: of the upper quartile of the frames that show any of it
        self._diameter = areas.where(areas > 0.0, torch.nan).nanquantile(0.75, dim=0).nan_to_num(1.0).sqrt()

    def _small(self, objects: Tensor) -> Tensor:
        return resize(objects, self._grid, mode="area") > 0.25

    def against(self, index: int, seen: Tensor, carried: Tensor | None) -> Tensor:
        """Log odds against each object, ``(L - 1, h, w)``; ``carried`` ``(L, h, w)`` has the background first.

        An object of which evidence alone, ``seen`` ``(L - 1, h, w)``, shows little where it should be may be anywhere.
        """
        marks = self._found[index]
        if carried is not None:
            marks = marks | self._small(carried[None, 1:])[0]
        distance = distance_inside(~marks, self._limit) / self._diameter.clamp_min(1.0)[:, None, None]
        against = (BEYOND * (distance - REACH).clamp_min(0.0)).clamp_max(MOST_AGAINST)
        there = resize(seen[None], self._grid, mode="area")[0]
        share = (there * marks).sum(dim=(1, 2)) / marks.sum(dim=(1, 2)).clamp_min(1)
        first, last = CONFIRMED
        against = against * ((share - first) / (last - first)).clamp(0.0, 1.0)[:, None, None]
        return resize(against[None], self._size)[0]


def _overlay(picture: Tensor, masks: Tensor | None) -> Tensor:
    """The picture with its background dimmed."""
    kept = 1.0 if masks is None else 1.0 - 0.7 * masks[0]
    return (picture * kept).movedim(0, -1)


def _sharpened(objects: Tensor) -> Tensor:
    """Masks of the objects ``(L - 1, h, w)`` back towards 0 and 1, with the background first, sum 1."""
    objects = ((objects - 0.5) * CONTRAST + 0.5).clamp(0.0, 1.0)
    objects = objects / objects.sum(dim=0, keepdim=True).clamp_min(1.0)
    return torch.cat((1.0 - objects.sum(dim=0, keepdim=True), objects))


def _along_edges(objects: Tensor, picture: Tensor) -> Tensor:
    """Masks ``(L - 1, h, w)`` as locally linear functions of colour, where colour explains them; else as they are."""
    guide, masks = picture[None], objects[None]
    lines = fit_lines(guide, masks, radius=GUIDED_RADIUS, eps=GUIDED_EPS)
    clear = (lines.explained / (lines.variance + 1e-4)).clamp(0.0, 1.0)
    averaged = box_mean(torch.cat((lines.coefficients, clear[:, :, None]), dim=2), GUIDED_RADIUS)
    followed = follow(averaged[:, :, :-1], guide)
    return masks.lerp(followed, averaged[:, :, -1])[0]
