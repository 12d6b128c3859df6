"""A small network that mends motion: it starts from two flows, and compares features where they lead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import einops
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..image.sample import sample

__all__ = ["CHANNELS", "STARTS", "FlowRefiner", "convex_upsample", "gap_of"]

CHANNELS = 4
"""Of a frame as the network reads it."""
STARTS = 2
"""Motions that it starts from."""
QUARTER, EIGHTH, STATE, LAST = 32, 64, 64, 48
UPDATES = 3
RADII = (2, 3, 3)
"""How far it searches around the flow it has, in pixels of an eighth, a 16th and a 32nd of the size."""
LAST_RADIUS = 2  # at a quarter
SHARPNESS = 4.0  # the largest correlation


class FlowRefiner(nn.Module):
    """Motion refined from two starts, at an eighth and then at a quarter of the size.

    As in PWC-Net (Sun et al., CVPR 2018) the features of the other frame are warped by the flow so far and correlated
    with those of this one nearby; as in RAFT (Teed and Deng, ECCV 2020) the same update is made several times, carries
    a state, and ends in convex upsampling. It begins, pixel by pixel, with the start whose features agree more. What is
    found is blended with the starts, as they are finer where they are right.
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
        self.match = nn.ModuleList((nn.Conv2d(QUARTER, QUARTER // 2, 1), nn.Conv2d(EIGHTH, EIGHTH // 2, 1)))
        of_starts = 4 * STARTS  # their correlation, their gap, and how they differ from the flow
        self.begin = nn.Conv2d(EIGHTH, STATE, 1)
        found = sum((2 * radius + 1) ** 2 for radius in RADII)
        self.update = nn.Sequential(
            nn.Conv2d(found + STATE + EIGHTH + of_starts, 96, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(96, STATE, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(STATE, STATE, 3, padding=2, dilation=2),
        )
        self.step = nn.Conv2d(STATE, 2, 3, padding=1)
        self.brought = nn.Conv2d(STATE, 32, 1)
        self.finish = nn.Sequential(
            nn.Conv2d((2 * LAST_RADIUS + 1) ** 2 + of_starts + 32 + QUARTER, LAST, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(LAST, LAST, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.last = nn.Conv2d(LAST, 2 + STARTS + 1, 3, padding=1)
        self.weights = nn.Conv2d(LAST, 9 * 16, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for layer in (self.step, self.last):
            nn.init.normal_(layer.weight, std=1e-3)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Features of frames ``(n, CHANNELS, h, w)``, sides multiples of 32: at a quarter and at an eighth."""
        quarter = self.quarter(frames)
        return quarter, self.eighth(quarter)

    def forward(self, starts: Tensor, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Refine motion of n pairs of frames: forward in the first n of 2 n rows, backward in the rest.

        Args:
            starts: ``(2 n, 2 STARTS, h, w)`` in pixels, one after the other.
            features: what ``encode`` made of the frames that each row starts from.

        Returns:
            The flow ``(2 n, 2, h, w)``; the logit of the probability that a vector is right to a pixel
            ``(2 n, 1, h, w)``; and for training the flows on the way, ``(2 n, 2, h / 8, w / 8)`` of each update and one
            ``(2 n, 2, h, w)`` that is not blended with the starts, all in pixels of (h, w).
        """
        size = starts.shape[-2:]
        quarter, eighth = features
        fine, coarse = F.avg_pool2d(starts, 4) / 4.0, F.avg_pool2d(starts, 8) / 8.0
        gaps = torch.cat([torch.log1p(4.0 * gap_of(start)) for start in fine.chunk(STARTS, dim=1)], dim=1)
        ours = _directions(self.match[1](eighth))
        pyramid = [(ours, _swapped(ours))]
        for _ in RADII[1:]:
            pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
        first, second = coarse.chunk(STARTS, dim=1)
        agree = torch.cat([_correlation(*pyramid[0], start, 0) for start in (first, second)], dim=1)
        flow = torch.where(agree[:, :1] < agree[:, 1:], second, first)
        told = torch.cat((agree, F.avg_pool2d(gaps, 2)), dim=1)
        state = torch.tanh(self.begin(eighth))
        context = F.relu(eighth)
        flows = []
        for _ in range(UPDATES):
            flow = flow.detach()
            found = [
                F.interpolate(
                    _correlation(*level, F.avg_pool2d(flow, 2**index) / 2.0**index, radius), scale_factor=2.0**index
                )
                for index, (level, radius) in enumerate(zip(pyramid, RADII, strict=True))
            ]
            apart = coarse - flow.repeat(1, STARTS, 1, 1)
            state = torch.tanh(state + self.update(torch.cat((*found, state, context, told, apart), dim=1)))
            flow = flow + self.step(state).float()
            flows.append(8.0 * flow)
        flow = 2.0 * F.interpolate(flow.detach(), scale_factor=2.0, mode="bilinear", align_corners=False)
        brought = F.interpolate(self.brought(state), scale_factor=2.0, mode="bilinear", align_corners=False)
        ours = _directions(self.match[0](quarter))
        theirs = _swapped(ours)
        seen = torch.cat(
            (
                _correlation(ours, theirs, flow, LAST_RADIUS),
                *(_correlation(ours, theirs, start, 0) for start in fine.chunk(STARTS, dim=1)),
                gaps,
                fine - flow.repeat(1, STARTS, 1, 1),
                brought,
                F.relu(quarter),
            ),
            dim=1,
        )
        hidden = self.finish(seen)
        last = self.last(hidden).float()
        own = convex_upsample(4.0 * (flow + last[:, :2]), self.weights(hidden), 4)
        flows.append(own)
        logits = F.interpolate(last[:, 2:], size=size, mode="bilinear", align_corners=False)
        shares = torch.cat((torch.zeros_like(logits[:, :1]), logits[:, :STARTS]), dim=1).softmax(dim=1)
        blended = own * shares[:, :1]
        for start, share in zip(starts.chunk(STARTS, dim=1), shares[:, 1:].split(1, dim=1), strict=True):
            blended = blended + share * start
        return blended, logits[:, STARTS:], flows


def gap_of(flow: Tensor) -> Tensor:
    """How far from home flow ``(2 n, 2, h, w)`` and then the flow back lead, ``(2 n, 1, h, w)`` in pixels."""
    back = sample(_swapped(flow), _led(flow))
    return ((flow + back).square().sum(dim=1, keepdim=True) + 1e-6).sqrt()


def _swapped(rows: Tensor) -> Tensor:
    """What belongs to the other frame of each pair."""
    return rows.roll(len(rows) // 2, 0)


def _led(flow: Tensor) -> Tensor:
    """Where flow ``(n, 2, h, w)`` leads, ``(n, h, w, 2)``."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)
    return torch.stack((flow[:, 0] + x, flow[:, 1] + y[:, None]), dim=-1)


def _directions(features: Tensor) -> Tensor:
    """Features less their mean over the picture, of one length: correlations are cosines, whatever the contrast."""
    features = features.float()
    return F.normalize(features - features.mean(dim=(2, 3), keepdim=True), dim=1) * SHARPNESS**0.5


def _correlation(ours: Tensor, theirs: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Scalar products of features ``(n, C, h, w)`` with those where the flow leads, ``radius`` pixels around.

    Returns:
        ``(n, (2 radius + 1) ** 2, h, w)``.
    """
    # places in half precision would be off by half a pixel
    warped = F.pad(sample(theirs.float(), _led(flow)), (radius,) * 4)
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
    shares = weights.float().view(count, 9, 1, factor**2, height, width).softmax(dim=1)
    around = F.pad(flow.float(), (1, 1, 1, 1), mode=border)
    mean = torch.zeros_like(shares[:, 0]).repeat(1, 2, 1, 1, 1)
    for share, neighbour in zip(shares.unbind(dim=1), _windows(around, 3), strict=True):
        mean = mean + share * neighbour[:, :, None]
    return einops.rearrange(mean, "n c (y x) h w -> n c (h y) (w x)", y=factor)
