"""How far motion can be believed, and what takes its place where it cannot."""

from __future__ import annotations

import torch
from torch import Tensor

from ..image.inpaint import inpaint
from ..image.morphology import box_mean
from .warp import warp

__all__ = ["completed", "evidence", "log_odds"]

RADIUS = 3
"""Of the windows that texture and likeness are measured in, in pixels."""
NOTHING = 0.004
"""Contrast below which there is nothing but rounding, as a deviation."""
PLAIN = 3e-4
"""Gradient below which a picture is plain, a pixel."""
BELIEVED = 0.7
"""Confidence above which a vector stays as it is, and below which it is hardly a source for others."""
REST = 1e-3
"""Weight of rest beside the mean weight of what is believed."""
OFFSET, WEIGHTS = -0.84, (-1.67, -1.20, -0.81, 1.03)


def log_odds(forward: Tensor, backward: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Log odds that vectors are right to a pixel, of pixels that both frames see.

    A logistic regression on ``evidence``, fitted on dense inverse search of rendered motion (``training.render``).

    Args:
        forward: ``(N, 2, H, W)`` from the frames before to those after, in pixels.
        backward: ``(N, 2, H, W)``, the way back.
        before, after: ``(N, C, H, W)`` in 0..1.

    Returns:
        ``(N, H, W)``.
    """
    known = evidence(forward, backward, before, after)
    return OFFSET + (known * known.new_tensor(WEIGHTS)[:, None, None]).sum(dim=1)


def completed(vectors: Tensor, confidence: Tensor) -> Tensor:
    """Vectors filled in from around where they are not believed; where hardly any is, rest is the best guess.

    Args:
        vectors: ``(N, 2, H, W)`` in pixels.
        confidence: ``(N, H, W)`` in 0..1, of them.
    """
    sure = confidence[:, None]
    weight = ((sure - BELIEVED) / (1.0 - BELIEVED)).clamp_min(0.0).square() + 0.01 * sure.pow(4)
    filled = inpaint(vectors, weight.clamp_min(1e-8))
    known = weight.mean(dim=(2, 3), keepdim=True)
    return torch.lerp(filled * (known / (known + REST)), vectors, (sure / BELIEVED).clamp_max(1.0).square())


def evidence(forward: Tensor, backward: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """What speaks for and against vectors, ``(N, 4, H, W)``.

    How far from home the flow and then the flow back lead, in pixels, as a logarithm; how unlike the two frames are
    there, as a share of the contrast, whatever their brightness, as a logarithm; how plain the picture is, 0 to 1, in
    the direction that has least texture (the lesser eigenvalue of the structure tensor: Shi and Tomasi, "Good features
    to track", CVPR 1994); and the first once more where it is plain, as leading home says nothing there.

    The arguments are those of ``log_odds``.
    """
    gap = torch.log((forward + warp(backward, forward)).square().sum(dim=1).sqrt() + 0.1)
    ours, theirs = before.mean(dim=1, keepdim=True), warp(after, forward).mean(dim=1, keepdim=True)
    ours, theirs = (picture - box_mean(picture, RADIUS) for picture in (ours, theirs))
    contrast, unlike = (
        box_mean(values, RADIUS)[:, 0] for values in (ours.square() + theirs.square(), (ours - theirs).square())
    )
    across, down = torch.gradient(before.mean(dim=1), dim=(2, 1))
    xx, yy, xy = (box_mean(product[:, None], RADIUS)[:, 0] for product in (across**2, down**2, across * down))
    texture = 0.5 * (xx + yy - ((xx - yy).square() + 4.0 * xy.square()).sqrt())
    plain = PLAIN**2 / (texture.clamp_min(0.0) + PLAIN**2)
    likeness = 0.5 * torch.log((unlike + NOTHING**2) / (contrast + NOTHING**2))
    return torch.stack((gap, likeness, plain, plain * gap), dim=1)
