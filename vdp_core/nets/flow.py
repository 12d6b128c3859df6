"""A small network that mends motion: it starts from any flow, and compares features where that flow leads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import einops
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..image.sample import sample

__all__ = ["CHANNELS", "FlowRefiner", "convex_upsample"]

CHANNELS = 4
"""Of a frame as the network reads it."""
QUARTER, EIGHTH, STATE = 32, 64, 64
UPDATES = 3
RADII = (2, 3, 3)
"""How far it searches around the flow it has, in pixels of an eighth, a 16th and a 32nd of the size."""
LAST_RADIUS = 2  # at a quarter
SHARPNESS = 4.0  # the largest correlation


class FlowRefiner(nn.Module):
    """Motion refined from a start, at an eighth and then at a quarter of the size.

    As in PWC-Net (Sun et al., CVPR 2018) the features of the other frame are warped by the flow so far and correlated
    with those of this one nearby; as in RAFT (Teed and Deng, ECCV 2020) the same update is made several times, carries
    a state, and ends in convex upsampling. What is found is blended with the start, pixel by pixel, as the start is
    finer where it is right.
    """

    def __init__(self) -> None:
        super().__init__()
        self.quarter = nn.Sequential(
            nn.Conv2d(CHANNELS, 16, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, QUARTER, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(QUARTER, QUARTER, 3, padding=1),
        )
        self.eighth = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(QUARTER, EIGHTH, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(EIGHTH, EIGHTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(EIGHTH, EIGHTH, 3, padding=1),
        )
        found = sum((2 * radius + 1) ** 2 for radius in RADII)
        self.match = nn.ModuleList((nn.Conv2d(QUARTER, QUARTER // 2, 1), nn.Conv2d(EIGHTH, EIGHTH // 2, 1)))
        self.begin = nn.Conv2d(EIGHTH, STATE, 1)
        self.update = nn.Sequential(
            nn.Conv2d(found + STATE + EIGHTH + 3, 96, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(96, STATE, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(STATE, STATE, 3, padding=2, dilation=2),
        )
        self.step = nn.Conv2d(STATE, 2, 3, padding=1)
        self.brought = nn.Conv2d(STATE, 32, 1)
        self.finish = nn.Sequential(
            nn.Conv2d((2 * LAST_RADIUS + 1) ** 2 + 1 + 3 + 32 + QUARTER, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.last = nn.Conv2d(64, 2 + 1 + 1, 3, padding=1)
        self.weights = nn.Conv2d(64, 9 * 16, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for layer in (self.step, self.last):
            nn.init.normal_(layer.weight, std=1e-3)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Features of frames ``(n, CHANNELS, h, w)``, sides multiples of 32: at a quarter and at an eighth."""
        quarter = self.quarter(frames)
        return quarter, self.eighth(quarter)

    def forward(
        self, start: Tensor, gap: Tensor, here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Refine motion.

        Args:
            start: ``(n, 2, h, w)`` in pixels, from the frames here to those there.
            gap: ``(n, 1, h, w)``: how far from home the start and then the start back lead, in pixels.
            here, there: what ``encode`` made of the frames.

        Returns:
            The flow ``(n, 2, h, w)``; the logit of the probability that a vector is right to a pixel
            ``(n, 1, h, w)``; and for training the flows on the way, ``(n, 2, h / 8, w / 8)`` of each update and one
            ``(n, 2, h, w)`` that is not blended with the start, all in pixels of (h, w).
        """
        size = start.shape[-2:]
        gap = torch.log1p(gap)
        flow = F.avg_pool2d(start, 8) / 8.0
        begin, far = flow, F.avg_pool2d(gap, 8)
        pyramid = [(_directions(self.match[1](here[1])), _directions(self.match[1](there[1])))]
        for _ in RADII[1:]:
            ours, theirs = pyramid[-1]
            pyramid.append((F.avg_pool2d(ours, 2), F.avg_pool2d(theirs, 2)))
        state = torch.tanh(self.begin(here[1]))
        context = F.relu(here[1])
        flows = []
        for _ in range(UPDATES):
            flow = flow.detach()
            found = [
                F.interpolate(
                    _correlation(ours, theirs, F.avg_pool2d(flow, 2**level) / 2.0**level, radius),
                    scale_factor=2.0**level,
                )
                for level, ((ours, theirs), radius) in enumerate(zip(pyramid, RADII, strict=True))
            ]
            state = torch.tanh(state + self.update(torch.cat((*found, state, context, begin - flow, far), dim=1)))
            flow = flow + self.step(state).float()
            flows.append(8.0 * flow)
        flow = 2.0 * F.interpolate(flow.detach(), scale_factor=2.0, mode="bilinear", align_corners=False)
        begin, far = F.avg_pool2d(start, 4) / 4.0, F.avg_pool2d(gap, 4)
        brought = F.interpolate(self.brought(state), scale_factor=2.0, mode="bilinear", align_corners=False)
        ours, theirs = _directions(self.match[0](here[0])), _directions(self.match[0](there[0]))
        seen = torch.cat(
            (
                _correlation(ours, theirs, flow, LAST_RADIUS),
                _correlation(ours, theirs, begin, 0),
                begin - flow,
                far,
                brought,
                F.relu(here[0]),
            ),
            dim=1,
        )
        hidden = self.finish(seen)
        last = self.last(hidden).float()
        fine = convex_upsample(4.0 * (flow + last[:, :2]), self.weights(hidden), 4)
        flows.append(fine)
        keep, confidence = F.interpolate(last[:, 2:], size=size, mode="bilinear", align_corners=False).split(1, dim=1)
        return torch.lerp(fine, start, torch.sigmoid(keep)), confidence, flows


def _directions(features: Tensor) -> Tensor:
    """Features less their mean over the picture, of one length: correlations are cosines, whatever the contrast."""
    features = features.float()
    return F.normalize(features - features.mean(dim=(2, 3), keepdim=True), dim=1) * SHARPNESS**0.5


def _correlation(ours: Tensor, theirs: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Scalar products of features ``(n, C, h, w)`` with those where the flow leads, ``radius`` pixels around.

    Returns:
        ``(n, (2 radius + 1) ** 2, h, w)``.
    """
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)
    place = torch.stack((flow[:, 0] + x, flow[:, 1] + y[:, None]), dim=-1)
    # places in half precision would be off by half a pixel
    warped = F.pad(sample(theirs.float(), place), (radius,) * 4)
    return _Correlation.apply(ours.float(), warped, 2 * radius + 1)


class _Correlation(torch.autograd.Function):
    """Scalar products of features with those in a window around; written out, as its gradient else takes most time."""

    @staticmethod
    def forward(ctx: Any, ours: Tensor, padded: Tensor, side: int) -> Tensor:
        ctx.save_for_backward(ours, padded)
        ctx.side = side
        return torch.stack([(ours * window).sum(dim=1) for window in _windows(padded, side)], dim=1)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None]:
        ours, padded = ctx.saved_tensors
        to_ours, to_padded = torch.zeros_like(ours), torch.zeros_like(padded)
        every = zip(_windows(padded, ctx.side), _windows(to_padded, ctx.side), given.split(1, dim=1), strict=True)
        for window, to_window, part in every:
            to_ours.addcmul_(window, part)
            to_window.addcmul_(ours, part)
        return to_ours, to_padded, None


def _windows(padded: Tensor, side: int) -> Iterator[Tensor]:
    height, width = (length - side + 1 for length in padded.shape[-2:])
    return (padded[..., dy : dy + height, dx : dx + width] for dy in range(side) for dx in range(side))


def convex_upsample(flow: Tensor, weights: Tensor, factor: int, *, border: str = "replicate") -> Tensor:
    """``factor`` times larger, each vector a weighted mean of its 3x3 coarse neighbours (RAFT, section 3.3).

    Args:
        flow: ``(N, 2, h, w)`` in pixels of the larger size.
        weights: ``(N, 9 factor^2, h, w)``, before softmax.
        factor: how many times larger.
        border: what lies beyond the picture, as ``F.pad`` names it; RAFT was trained with ``constant``, zeros.

    Returns:
        ``(N, 2, factor h, factor w)``.
    """
    count, _, height, width = flow.shape
    shares = weights.float().reshape(count, 1, 9, factor, factor, height, width).softmax(dim=2)
    around = F.unfold(F.pad(flow.float(), (1, 1, 1, 1), mode=border), kernel_size=3)
    mean = (shares * around.view(count, 2, 9, 1, 1, height, width)).sum(dim=2)
    return einops.rearrange(mean, "n c y x h w -> n c (h y) (w x)")
