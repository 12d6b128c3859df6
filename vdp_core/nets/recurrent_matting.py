"""The recurrent network of Robust Video Matting (Lin et al., WACV 2022), written from its published description.

Batch normalisation is folded into the convolution before it (see ``matting_weights``), so that every layer is a
convolution and what follows it. Names are those of the published weights.

Its refiner is used the way this project does everything: the network works on a small copy, where it finds a line
``value = slope * colour + offset`` for each sample and value; native size is the line, interpolated, at each pixel's
own colour (He and Sun, "Fast Guided Filter", 2015; Wu et al., "Fast End-to-End Trainable Guided Filter", CVPR 2018).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BACKBONES", "REFINERS", "RecurrentMatting", "State", "auto_ratio", "drawn", "shrunk"]

REFINERS = ("deep", "fast")
SIDE = 512
"""Long side that frames are brought to where no ratio is given."""
RADIUS = 1  # of the guided filter's windows
FAST_EPS = 1e-5  # regularisation of the fast guided filter

State = tuple[Tensor, Tensor, Tensor, Tensor]
"""What the network remembers: ``(1, C, h, w)`` at a half, a quarter, an eighth and a 16th of the small size."""


class Widths(NamedTuple):
    """Channels of a backbone and of what follows it."""

    skips: tuple[int, int, int]
    """Of its features at a half, a quarter and an eighth."""
    deep: int
    """Of its features at a 16th,"""
    bottleneck: int
    """which are brought to so many."""
    decoded: tuple[int, int, int, int]
    """Of the decoder at an eighth, a quarter, a half and the whole."""


BACKBONES = {
    "mobilenetv3": Widths((16, 24, 40), 960, 128, (80, 40, 32, 16)),
    "resnet50": Widths((64, 256, 512), 2048, 256, (128, 64, 32, 16)),
}


def auto_ratio(height: int, width: int) -> float:
    """The ratio that brings the long side to at most ``SIDE``, as published."""
    return min(SIDE / max(height, width), 1.0)


def shrunk(frames: Tensor, ratio: float) -> Tensor:
    """Frames ``(T, 3, H, W)`` at ``ratio`` of their size, rounded down; bilinear, without antialiasing, as published.

    Samples lie ``1 / ratio`` apart, also where the sides are no multiples of that.
    """
    if ratio == 1.0:
        return frames
    return F.interpolate(frames, scale_factor=ratio, mode="bilinear", align_corners=False, recompute_scale_factor=False)


class RecurrentMatting(nn.Module):
    """The network: mattes and foregrounds of people, frame after frame.

    Args:
        backbone: one of ``BACKBONES``.
    """

    def __init__(self, backbone: str = "mobilenetv3") -> None:
        super().__init__()
        widths = BACKBONES[backbone]
        self.backbone = MobileNet() if backbone == "mobilenetv3" else ResNet()
        self.aspp = Pooling(widths.deep, widths.bottleneck)
        self.decoder = Decoder(widths)
        self.project_mat = _named(conv=nn.Conv2d(widths.decoded[-1], 4, 1))
        self.refiner = DeepGuidedFilter(widths.decoded[-1])

    def find(self, small: Tensor, state: State | None = None, *, refiner: str | None) -> tuple[Tensor, State]:
        """Find the lines of some frames that follow each other.

        Args:
            small: ``(T, 3, h, w)`` in 0..1, see ``shrunk``.
            state: what the frames before left, at the same size; None to begin with.
            refiner: ``deep``, the published network's own, or ``fast``, which has no weights; None where the frames are
                at their own size.

        Returns:
            What ``drawn`` takes, ``(T, 8, h, w)``, without a refiner ``(T, 4, h, w)``; and the state.
        """
        first, second, third, deep = self.backbone(small)
        hidden, state = self.decoder(small, (first, second, third), self.aspp(deep), state)
        values = self.project_mat(hidden)
        if refiner is None:
            return torch.cat((values[:, :3] + small, values[:, 3:]), dim=1), state
        guide = _with_mean(small)
        with torch.autocast(small.device.type, enabled=False):  # variances are small differences of large numbers
            values, hidden = values.float(), hidden.float()
            lines = self.refiner(guide, values, hidden) if refiner == "deep" else fast_lines(guide, values)
        lines[:, :3] += 1.0  # what was found is the foreground less the frame
        return lines, state

    def forward(
        self, frames: Tensor, state: State | None = None, *, ratio: float = 1.0, refiner: str = "deep"
    ) -> tuple[Tensor, Tensor, State]:
        """Foregrounds ``(T, 3, H, W)``, mattes ``(T, 1, H, W)``, both in 0..1, and the state.

        Args:
            frames: ``(T, 3, H, W)`` in 0..1.
            state: what the frames before left, at the same size and ratio; None to begin with.
            ratio: of the small copy's size to the frames', up to 1.
            refiner: see ``find``.
        """
        lines, state = self.find(shrunk(frames, ratio), state, refiner=None if ratio == 1.0 else refiner)
        foregrounds, mattes = drawn(lines, frames)
        return foregrounds, mattes, state


def _with_mean(frames: Tensor) -> Tensor:
    """Red, green, blue and their mean."""
    return torch.cat((frames, frames.mean(dim=1, keepdim=True)), dim=1)


def drawn(lines: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Foregrounds ``(T, 3, H, W)`` and mattes ``(T, 1, H, W)`` in 0..1 of the lines of frames ``(T, 3, H, W)``.

    Args:
        lines: slopes, then offsets, of the foreground along each colour and of the matte along the mean of the colours,
            ``(T, 8, h, w)``; or the values themselves, ``(T, 4, H, W)``.
        frames: in 0..1.
    """
    if lines.shape[1] == 4:
        values = lines.clamp(0.0, 1.0)
    elif lines.device.type == "cpu" and not lines.requires_grad:
        made = [_along(*pair) for pair in zip(lines, frames, strict=True)]
        values = (made[0][None] if len(made) == 1 else torch.stack(made)).movedim(-1, 1)
    else:
        lines = F.interpolate(lines, size=frames.shape[-2:], mode="bilinear", align_corners=False)
        values = torch.addcmul(lines[:, 4:], lines[:, :4], _with_mean(frames)).clamp(0.0, 1.0)
    return values[:, :3], values[:, 3:]


def _along(lines: Tensor, frame: Tensor) -> Tensor:
    """Values ``(H, W, 4)`` in 0..1 of the lines ``(8, h, w)`` of a frame ``(3, H, W)``, on the CPU.

    OpenCV interpolates pixels of four channels ten times as fast as torch does.
    """
    import cv2
    import numpy as np

    size = (frame.shape[2], frame.shape[1])
    slopes, offsets = (np.ascontiguousarray(part.permute(1, 2, 0).numpy()) for part in (lines[:4], lines[4:]))
    with_mean = np.vstack((np.eye(3), np.full((1, 3), 1.0 / 3.0))).astype(np.float32)
    guide = cv2.transform(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()), with_mean)
    slope, offset = (torch.from_numpy(cv2.resize(part, size)) for part in (slopes, offsets))
    return offset.addcmul_(slope, torch.from_numpy(guide)).clamp_(0.0, 1.0)


# Parts


def _named(**layers: nn.Module) -> nn.Sequential:
    """Layers in turn, under names; an underscore before a number is no part of it."""
    made = nn.Sequential()
    for name, layer in layers.items():
        made.add_module(name.removeprefix("_"), layer)
    return made


def _conv(
    inputs: int, outputs: int, size: int = 3, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    padding = (size - 1) // 2 * dilation
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, groups=groups)


class MobileNet(nn.Module):
    """MobileNetV3-Large (Howard et al., ICCV 2019), whose last blocks are dilated instead of strided."""

    BLOCKS = (
        # input, kernel, expanded, output, squeeze, activation, stride, dilation
        (16, 3, 16, 16, False, nn.ReLU, 1, 1),
        (16, 3, 64, 24, False, nn.ReLU, 2, 1),
        (24, 3, 72, 24, False, nn.ReLU, 1, 1),
        (24, 5, 72, 40, True, nn.ReLU, 2, 1),
        (40, 5, 120, 40, True, nn.ReLU, 1, 1),
        (40, 5, 120, 40, True, nn.ReLU, 1, 1),
        (40, 3, 240, 80, False, nn.Hardswish, 2, 1),
        (80, 3, 200, 80, False, nn.Hardswish, 1, 1),
        (80, 3, 184, 80, False, nn.Hardswish, 1, 1),
        (80, 3, 184, 80, False, nn.Hardswish, 1, 1),
        (80, 3, 480, 112, True, nn.Hardswish, 1, 1),
        (112, 3, 672, 112, True, nn.Hardswish, 1, 1),
        (112, 5, 672, 160, True, nn.Hardswish, 1, 2),
        (160, 5, 960, 160, True, nn.Hardswish, 1, 2),
        (160, 5, 960, 160, True, nn.Hardswish, 1, 2),
    )
    TAPS = (1, 3, 6, 16)
    """Layers whose output is read, at a half, a quarter, an eighth and a 16th."""
    MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(_conv(3, 16, stride=2), nn.Hardswish(inplace=True))
        last = nn.Sequential(_conv(160, 960, 1), nn.Hardswish(inplace=True))
        self.features = nn.Sequential(first, *(InvertedResidual(*block) for block in self.BLOCKS), last)
        self.register_buffer("mean", torch.tensor(self.MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(self.DEVIATION).view(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Features at a half, a quarter, an eighth and a 16th of ``(T, 3, h, w)``, sides rounded up."""
        features, taps = (frames - self.mean) / self.deviation, []
        for number, layer in enumerate(self.features):
            features = layer(features)
            if number in self.TAPS:
                taps.append(features)
        return taps


class InvertedResidual(nn.Module):
    """A block of MobileNetV3: expanded, filtered in each channel, weighed, brought back."""

    def __init__(
        self,
        inputs: int,
        size: int,
        expanded: int,
        outputs: int,
        squeezed: bool,
        activation: type[nn.ReLU] | type[nn.Hardswish],
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(nn.Sequential(_conv(inputs, expanded, 1), activation(inplace=True)))
        each = _conv(expanded, expanded, size, stride=stride, dilation=dilation, groups=expanded)
        layers.append(nn.Sequential(each, activation(inplace=True)))
        if squeezed:
            layers.append(SqueezeExcite(expanded))
        layers.append(nn.Sequential(_conv(expanded, outputs, 1)))
        self.block = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.block(features)
        return made.add_(features) if self.is_residual else made


class SqueezeExcite(nn.Module):
    """Weighs channels by what they are on the mean (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # a quarter, as a multiple of 8, not below nine tenths of it
        squeezed = max(8, int(channels / 4 + 4) // 8 * 8)
        squeezed += 8 * (squeezed < 0.9 * channels / 4)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        weight = F.hardsigmoid(self.fc2(F.relu_(self.fc1(features.mean(dim=(2, 3), keepdim=True)))))
        return features * weight


class ResNet(nn.Module):
    """ResNet-50 (He et al., CVPR 2016), whose last stage is dilated instead of strided."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 7, stride=2)
        self.layer1 = _stage(64, 64, 3)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, dilation=2)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Features at a half, a quarter, an eighth and a 16th of ``(T, 3, h, w)``, sides rounded up."""
        half = F.relu_(self.conv1(frames))
        quarter = self.layer1(F.max_pool2d(half, 3, stride=2, padding=1))
        eighth = self.layer2(quarter)
        return [half, quarter, eighth, self.layer4(self.layer3(eighth))]


def _stage(inputs: int, width: int, count: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    # the first block of a dilated stage is not dilated
    blocks = [Bottleneck(inputs, width, stride=stride, dilation=1)]
    blocks += [Bottleneck(4 * width, width, stride=1, dilation=dilation) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


class Bottleneck(nn.Module):
    """A block of ResNet-50, the stride on its middle convolution."""

    def __init__(self, inputs: int, width: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 1)
        self.conv2 = _conv(width, width, stride=stride, dilation=dilation)
        self.conv3 = _conv(width, 4 * width, 1)
        same = inputs == 4 * width
        self.downsample = None if same else nn.Sequential(_conv(inputs, 4 * width, 1, stride=stride))

    def forward(self, features: Tensor) -> Tensor:
        made = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(features)))))
        return F.relu_(made.add_(features if self.downsample is None else self.downsample(features)))


class Pooling(nn.Module):
    """LR-ASPP (Howard et al., ICCV 2019): features, weighed by what the whole frame is on the mean."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.aspp1 = nn.Sequential(_conv(inputs, outputs, 1), nn.ReLU(inplace=True))
        self.aspp2 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.aspp1(features)
        return made * self.aspp2(features)


class Decoder(nn.Module):
    """From the deepest features up to the small frames, with a memory at each scale but the last."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        eighth, quarter, half, whole = widths.decoded
        self.decode4 = Remembering(widths.bottleneck)
        self.decode3 = Upsampling(widths.bottleneck, widths.skips[2], eighth)
        self.decode2 = Upsampling(eighth, widths.skips[1], quarter)
        self.decode1 = Upsampling(quarter, widths.skips[0], half)
        self.decode0 = Output(half, whole)

    def forward(
        self, frames: Tensor, skips: tuple[Tensor, Tensor, Tensor], deep: Tensor, state: State | None
    ) -> tuple[Tensor, State]:
        """Features ``(T, C, h, w)`` of small frames ``(T, 3, h, w)``, and the state that they leave."""
        half = _pooled(frames)
        quarter = _pooled(half)
        eighth = _pooled(quarter)
        first, second, third, fourth = state or (None,) * 4
        made, fourth = self.decode4(deep, fourth)
        made, third = self.decode3(made, skips[2], eighth, third)
        made, second = self.decode2(made, skips[1], quarter, second)
        made, first = self.decode1(made, skips[0], half, first)
        return self.decode0(made, frames), (first, second, third, fourth)


def _pooled(frames: Tensor) -> Tensor:
    """Means of 2x2 pixels; at the border, of those that are there."""
    return F.avg_pool2d(frames, 2, ceil_mode=True, count_include_pad=False)


def _doubled(features: Tensor, like: Tensor) -> Tensor:
    """Features at twice their size, cut off on the right and below where ``like`` ends."""
    made = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
    return made[..., : like.shape[-2], : like.shape[-1]]


class Remembering(nn.Module):
    """Features of which the second half of the channels goes through a memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru = Memory(channels // 2)

    def forward(self, features: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        kept, remembered = features.chunk(2, dim=1)
        remembered, state = self.gru(remembered, state)
        return torch.cat((kept, remembered), dim=1), state


class Upsampling(Remembering):
    """Twice the size, with features and colours of that scale, and a memory."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__(outputs)
        self.conv = nn.Sequential(_conv(inputs + skip + 3, outputs), nn.ReLU(inplace=True))

    def forward(  # type: ignore[override]  # a memory with more before it
        self, features: Tensor, skip: Tensor, frames: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        features = self.conv(torch.cat((_doubled(features, skip), skip, frames), dim=1))
        return super().forward(features, state)


class Output(nn.Module):
    """The size of the small frames, without a memory."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _named(
            _0=_conv(inputs + 3, outputs),
            _1=nn.ReLU(inplace=True),
            _3=_conv(outputs, outputs),
            _4=nn.ReLU(inplace=True),
        )

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        made: Tensor = self.conv(torch.cat((_doubled(features, frames), frames), dim=1))
        return made


class Memory(nn.Module):
    """A convolutional gated recurrent unit (Ballas et al., ICLR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ih = nn.Sequential(_conv(2 * channels, 2 * channels), nn.Sigmoid())
        self.hh = nn.Sequential(_conv(2 * channels, channels), nn.Tanh())

    def forward(self, features: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features ``(T, C, h, w)``, one after the other; what they become, and the last of it."""
        made = []
        state = torch.zeros_like(features[:1]) if state is None else state
        for now in features.split(1):
            reset, update = self.ih(torch.cat((now, state), dim=1)).chunk(2, dim=1)
            found = self.hh(torch.cat((now, reset * state), dim=1))
            state = torch.lerp(state, found, update)
            made.append(state)
        return (made[0] if len(made) == 1 else torch.cat(made)), state


class DeepGuidedFilter(nn.Module):
    """A guided filter whose slopes a small network finds (Wu et al., CVPR 2018)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.box_filter = nn.Conv2d(4, 4, 3, padding=RADIUS, groups=4, bias=False)
        self.conv = _named(
            _0=_conv(8 + hidden, 16, 1),
            _1=nn.ReLU(inplace=True),
            _3=_conv(16, 16, 1),
            _4=nn.ReLU(inplace=True),
            _6=_conv(16, 4, 1),
        )

    def forward(self, guide: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
        """Lines ``(T, 8, h, w)`` of values along a guide, both ``(T, 4, h, w)``."""
        weight = self.box_filter.weight.repeat(4, 1, 1, 1)
        means = F.conv2d(_products(guide, values), weight, padding=RADIUS, groups=16)
        mean_guide, mean, covariance, variance = _moments(means)
        slope = self.conv(torch.cat((covariance, variance, hidden), dim=1))
        return torch.cat((slope, mean - slope * mean_guide), dim=1)


def fast_lines(guide: Tensor, values: Tensor) -> Tensor:
    """Lines ``(T, 8, h, w)`` of values along a guide, both ``(T, 4, h, w)``: He and Sun, "Fast Guided Filter", 2015.

    Means are over 3x3 samples; those beyond the border count as 0.
    """
    means = F.avg_pool2d(_products(guide, values), 2 * RADIUS + 1, stride=1, padding=RADIUS)
    mean_guide, mean, covariance, variance = _moments(means)
    slope = covariance / (variance + FAST_EPS)
    return torch.cat((slope, mean - slope * mean_guide), dim=1)


def _products(guide: Tensor, values: Tensor) -> Tensor:
    return torch.cat((guide, values, guide * values, guide * guide), dim=1)


def _moments(means: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean of the guide and of the values, their covariance, and the guide's variance."""
    mean_guide, mean, mixed, squared = means.chunk(4, dim=1)
    return mean_guide, mean, mixed - mean_guide * mean, squared - mean_guide * mean_guide
