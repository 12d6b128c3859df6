"""The filter of Blind Video Deflickering (Lei et al., CVPR 2023): colours of an atlas, everything else of the frame.

What is known of the published network does not say in which order skips are concatenated; here the skip comes first.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .padding import padded

__all__ = ["FilterNet"]

WIDTHS = (32, 64, 128, 256, 512)
"""Published channels, from the frame's size to a sixteenth of it."""
FAINT = 0.1
"""How much of anything but the frame is in the first answer, beside what torch would put there."""


class FilterNet(nn.Module):
    """A U-Net of a frame and what the atlas rebuilds of it, whose skip connections are concatenated.

    As published: 3x3 convolutions in pairs without biases, ReLU, no normalisation, four max-poolings, bilinear
    upsampling followed by a convolution; 8,628,768 parameters. Sizes are padded to multiples of 32 and cropped again,
    where the original resized what it had padded. To begin with it gives the frame with faint noise, so that what it
    has to learn is what differs.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        sides = list(pairwise(widths))
        self.down = nn.ModuleList(_pair(inputs, outputs) for inputs, outputs in [(6, widths[0]), *sides])
        self.up = nn.ModuleList(_layer(deep, fine) for fine, deep in reversed(sides))
        self.merge = nn.ModuleList(_pair(2 * fine, fine) for fine, _ in reversed(sides))
        self.head = nn.Conv2d(widths[0], 3, 3, padding=1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # without normalisation torch's own first values fade away on the way through ReLUs (He et al., 2015)
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self._pass_on()

    @torch.no_grad()
    def _pass_on(self) -> None:
        """Have both pictures go through the layers of the frame's size as they are, and the frame come out."""
        passed = [*self.down[0].modules(), *self.merge[-1].modules()]
        for conv in (module for module in passed if isinstance(module, nn.Conv2d)):
            conv.weight[:6] = 0.0
            conv.weight[:6, :6, 1, 1] = torch.eye(6)
        self.head.weight *= FAINT
        self.head.weight[:, :6] = 0.0
        self.head.weight[:, :3, 1, 1] = torch.eye(3)

    def forward(self, frames: Tensor, atlas: Tensor) -> Tensor:
        """``(N, 3, h, w)`` in 0..1, twice, to ``(N, 3, h, w)`` of about 0..1; any size."""
        features, crop = padded(torch.cat((frames, atlas), dim=1))
        skips = []
        for number, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if number > 0 else features)
            skips.append(features)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = up(F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False))
            features = merge(torch.cat((skips.pop(), features), dim=1))
        found: Tensor = self.head(features)[crop]
        return found


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_layer(inputs, outputs), *_layer(outputs, outputs))


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.ReLU(inplace=True))
