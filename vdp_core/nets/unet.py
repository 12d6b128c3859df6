"""The networks of Video Decomposition Prior: RGB-net reads the frame, alpha-net the flow as a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["UNet", "alpha_net", "rgb_net"]

WIDTHS = (64, 64, 96, 128, 128, 128, 128, 96)
"""Published channels: three on the way down, the bottleneck's two, three on the way up."""


class UNet(nn.Module):
    """A shallow U-Net whose skip connections add, with a sigmoid at the end.

    As published (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930; details from its re-implementation VideoDIP):
    3x3 convolutions in pairs, batch normalisation, leaky ReLU 0.2, three max-poolings, a 4x4 convolution at the bottom,
    bicubic upsampling.
    """

    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        first, second, third, deep, bottom, up3, up2, up1 = widths
        self.down = nn.ModuleList((_block(inputs, first), _block(first, second), _block(second, third)))
        self.bottom = nn.Sequential(
            _block(third, deep),
            nn.ZeroPad2d((1, 2, 1, 2)),
            nn.Conv2d(deep, bottom, 4),
            nn.BatchNorm2d(bottom),
            nn.LeakyReLU(0.2, inplace=True),
        )
        # what comes up is brought to the width of the skip before the two are added
        self.match = nn.ModuleList((nn.Conv2d(bottom, third, 1), nn.Conv2d(up3, second, 1), nn.Conv2d(up2, first, 1)))
        self.up = nn.ModuleList((_block(third, up3), _block(second, up2), _block(first, up1)))
        self.head = nn.Conv2d(up1, outputs, 3, padding=1, padding_mode="replicate")

    def forward(self, pictures: Tensor) -> Tensor:
        """``(N, inputs, h, w)`` in 0..1 to ``(N, outputs, h, w)`` in 0..1; any size from 8x8 on."""
        skips = []
        features = pictures
        for block in self.down:
            features = block(features)
            skips.append(features)
            features = F.max_pool2d(features, 2)
        features = self.bottom(features)
        for match, block in zip(self.match, self.up, strict=True):
            skip = skips.pop()
            features = F.interpolate(match(features), size=skip.shape[-2:], mode="bicubic", align_corners=False)
            features = block(features + skip)
        return torch.sigmoid(self.head(features))


def rgb_net(widths: tuple[int, ...] = WIDTHS) -> UNet:
    """The network that gives a layer's colours from the frame."""
    return UNet(3, 3, widths)


def alpha_net(widths: tuple[int, ...] = WIDTHS) -> UNet:
    """The network that gives an opacity, a transmission or a light map from the flow as a picture."""
    return UNet(3, 1, widths)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_layer(inputs, outputs), *_layer(outputs, outputs))


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate"),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2, inplace=True),
    )
