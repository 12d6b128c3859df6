"""What a person changed in a picture: where it differs from the one that it was made of, above the noise of both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..image.morphology import box_mean, dilate, erode

__all__ = ["changed"]

RADIUS = 2
"""Of the windows in which differences are averaged: noise is told from paint by several pixels."""
ROUNDING = 0.5 / 255
"""Least deviation of noise: pictures are kept in 8 bits, and rounded more than once."""
MOST = 0.04
"""Greatest deviation of noise: whatever differs by more than a few times of it was painted, even all over."""
BINS = 8
"""Steps of contrast: compression leaves more noise where there is texture."""
QUIET = 0.4
"""Share of the windows of a step that is taken to be unchanged."""
LOOKED_AT = 100_000
"""Pixels, about, that the noise is estimated from."""
WINDOW = (2.0, 4.0)
"""Deviations at which the mean of a window begins to be an edit, and is one."""
PIXEL = (1.0, 2.5)
"""The same for the largest difference of a pixel, which keeps an edit to what was painted."""
CORE = 0.9
"""How sure pixels must be that an edit grows from."""


def changed(picture: Tensor, originals: Sequence[Tensor]) -> Tensor:
    """How far each pixel of a picture was edited, ``(H, W)`` in 0..1; 0 where it only differs by noise.

    The noise is estimated from the picture itself: it is what the quieter part of all places of one contrast differs
    by.

    Args:
        picture: ``(3, H, W)`` in 0..1.
        originals: ``(3, H, W)`` each; what looks like any of them was not edited.
    """
    difference = (picture - originals[0]).abs()
    for original in originals[1:]:
        other = (picture - original).abs()
        difference = torch.where(other.sum(dim=0) < difference.sum(dim=0), other, difference)
    window = box_mean(difference.square().mean(dim=0, keepdim=True), RADIUS).sqrt()[0]
    noise = _noise(window, originals[0].mean(dim=0, keepdim=True))
    pixel = _step(difference.amax(dim=0, keepdim=True) / noise, *PIXEL)
    # paint of the colour that was there leaves no holes
    sure = _step(window / noise, *WINDOW) * (1.0 - dilate(1.0 - dilate(pixel, 1), 1))[0]
    return sure * dilate(erode((sure > CORE)[None], 1), 1 + RADIUS)[0]


def _noise(window: Tensor, grey: Tensor) -> Tensor:
    """The deviation of noise in each pixel ``(H, W)``, from the differences of windows, by the contrast there."""
    contrast = (box_mean(grey.square(), RADIUS) - box_mean(grey, RADIUS).square()).clamp_min(0.0).sqrt()[0].flatten()
    every = max(1, contrast.numel() // LOOKED_AT)
    order = contrast[::every].argsort() * every
    steps = [places for places in order.tensor_split(BINS) if len(places) > 0]
    level = torch.stack([contrast[places].mean() for places in steps])
    quiet = [window.flatten()[places].kthvalue(1 + int(QUIET * (len(places) - 1))).values for places in steps]
    # where there is less contrast there is no more noise, whatever was painted there
    noise = torch.stack(quiet).flip(0).cummin(dim=0).values.flip(0).clamp(ROUNDING, MOST)
    above = torch.searchsorted(level, contrast).clamp(max=len(level) - 1)
    below = (above - 1).clamp_min(0)
    share = ((contrast - level[below]) / (level[above] - level[below]).clamp_min(1e-6)).clamp(0.0, 1.0)
    return noise[below].lerp(noise[above], share).view_as(window)


def _step(values: Tensor, low: float, high: float) -> Tensor:
    part = ((values - low) / (high - low)).clamp(0.0, 1.0)
    return part.square() * (3.0 - 2.0 * part)
