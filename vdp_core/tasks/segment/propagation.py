"""Masks carried from frame to frame, forwards and backwards, with evidence and edges put together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...motion.warp import warp
from ...types import OnStep
from .config import SegmentConfig
from .layer_flow import LayerFlows

__all__ = ["GuidedFilter", "propagate"]

WINDOW = 8
"""Radius of the guided filter's windows."""
FLAT = 1e-4
"""Variance of colour below which the guided filter sees no edge."""
SHARPEN = 2.0
"""Slope with which masks return to 0 and 1 after the guided filter has softened them."""
DOUBT = 0.1
"""How far masks from a neighbouring frame are kept from 0 and 1, so that evidence can overrule them."""


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
    out = torch.zeros(evidence.shape)
    weight = torch.zeros(count, 1, 1, 1)
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
                now = _sharpened(GuidedFilter(small[index]).follow(log_odds.softmax(dim=0)[1:]))
            if now is not None:
                part = 1e6 if index in fixed else 1.0 / since if fixed else 1.0
                out[index] += part * now
                weight[index] += part
            on_step(next(steps), 2 * count, partial(_overlay, small[index], now))
    return out.div_(weight)


def _overlay(picture: Tensor, masks: Tensor | None) -> Tensor:
    """The picture with its background dimmed."""
    kept = 1.0 if masks is None else 1.0 - 0.7 * masks[0]
    return (picture * kept).movedim(0, -1)


def _sharpened(objects: Tensor) -> Tensor:
    """Masks of the objects ``(L - 1, h, w)`` back towards 0 and 1, with the background first, sum 1."""
    objects = ((objects - 0.5) * SHARPEN + 0.5).clamp(0.0, 1.0)
    objects = objects / objects.sum(dim=0, keepdim=True).clamp_min(1.0)
    return torch.cat((1.0 - objects.sum(dim=0, keepdim=True), objects))


class GuidedFilter:
    """The guided filter of a picture's colours (He, Sun and Tang, "Guided Image Filtering", 2013, section 3.3)."""

    def __init__(self, picture: Tensor) -> None:
        self._colour = picture.movedim(0, -1).contiguous().numpy()
        red, green, blue = np.moveaxis(self._colour, -1, 0)
        self._mean = self._average(self._colour)
        products = np.stack((red * red, red * green, red * blue, green * green, green * blue, blue * blue), axis=-1)
        mr, mg, mb = np.moveaxis(self._mean, -1, 0)
        means = np.stack((mr * mr, mr * mg, mr * mb, mg * mg, mg * mb, mb * mb), axis=-1)
        rr, rg, rb, gg, gb, bb = np.moveaxis(self._average(products) - means, -1, 0)
        rr, gg, bb = rr + FLAT, gg + FLAT, bb + FLAT
        # the inverse of the symmetric 3x3 covariance, by its cofactors
        inverse = np.stack(
            (
                gg * bb - gb * gb,
                gb * rb - rg * bb,
                rg * gb - gg * rb,
                rr * bb - rb * rb,
                rb * rg - rr * gb,
                rr * gg - rg * rg,
            ),
            axis=-1,
        )
        determinant = rr * inverse[..., 0] + rg * inverse[..., 1] + rb * inverse[..., 2]
        self._inverse = inverse / determinant[..., None]

    @staticmethod
    def _average(values: np.ndarray) -> np.ndarray:
        import cv2

        side = 2 * WINDOW + 1
        return np.asarray(cv2.blur(np.ascontiguousarray(values), (side, side))).reshape(values.shape)

    def follow(self, masks: Tensor) -> Tensor:
        """Masks ``(L, h, w)`` as locally linear functions of colour, where colour explains them; else as they are."""
        return torch.stack([torch.from_numpy(self._one(mask.numpy())) for mask in masks])

    def _one(self, mask: np.ndarray) -> np.ndarray:
        mean = self._average(mask)
        covariance = self._average(self._colour * mask[..., None]) - self._mean * mean[..., None]
        a, b, c, d, e, f = np.moveaxis(self._inverse, -1, 0)
        r, g, u = np.moveaxis(covariance, -1, 0)
        slope = np.stack((a * r + b * g + c * u, b * r + d * g + e * u, c * r + e * g + f * u), axis=-1)
        offset = mean - (slope * self._mean).sum(axis=-1)
        variance = np.maximum(self._average(mask * mask) - mean * mean, 0.0)
        clear = np.clip((slope * covariance).sum(axis=-1) / (variance + 1e-4), 0.0, 1.0)
        lines = self._average(np.concatenate((slope, offset[..., None], clear[..., None]), axis=-1))
        followed = (lines[..., :3] * self._colour).sum(axis=-1) + lines[..., 3]
        return np.asarray(mask + lines[..., 4] * (followed - mask), np.float32)
