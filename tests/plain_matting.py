"""The recurrent matting network written plainly: torchvision's backbones, every normalisation a layer of its own.

It has the published weights' names, so that its state dict is one of the official files; ours is compared with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf

State = tuple[Tensor | None, ...]


class Mobile(MobileNetV3):
    def __init__(self) -> None:
        super().__init__(*_mobilenet_v3_conf("mobilenet_v3_large", dilated=True))
        del self.classifier

    def forward(self, x: Tensor) -> list[Tensor]:
        mean, std = (x.new_tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        x, taps = (x - mean) / std, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            taps += [x] if index in (1, 3, 6, 16) else []
        return taps


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        net = resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(net, name))

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.relu(self.bn1(self.conv1(x)))
        second = self.layer1(self.maxpool(first))
        third = self.layer2(second)
        return [first, second, third, self.layer4(self.layer3(third))]


def normalised(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class Aspp(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.aspp1 = nn.Sequential(*normalised(inputs, outputs, 1))
        pooled = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.aspp2 = nn.Sequential(nn.AdaptiveAvgPool2d(1), pooled, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.aspp1(x) * self.aspp2(x)


class Gru(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.ih = nn.Sequential(nn.Conv2d(2 * channels, 2 * channels, 3, padding=1), nn.Sigmoid())
        self.hh = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor, h: Tensor | None) -> Tensor:
        h = torch.zeros_like(x) if h is None else h
        r, z = self.ih(torch.cat([x, h], dim=1)).split(self.channels, dim=1)
        c = self.hh(torch.cat([x, r * h], dim=1))
        return (1 - z) * h + z * c


class Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, deepest: bool = False) -> None:
        super().__init__()
        if not deepest:
            self.conv = nn.Sequential(*normalised(inputs, outputs, 3))
        self.gru = Gru(outputs // 2)

    def forward(self, x: Tensor, f: Tensor | None, s: Tensor | None, h: Tensor | None) -> tuple[Tensor, Tensor]:
        if f is not None and s is not None:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.conv(torch.cat([x[:, :, : f.shape[2], : f.shape[3]], f, s], dim=1))
        a, b = x.chunk(2, dim=1)
        h = self.gru(b, h)
        return torch.cat([a, h], dim=1), h


class Last(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*normalised(inputs, outputs, 3), *normalised(outputs, outputs, 3))


class Projection(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, outputs, 1)


class Refiner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.box_filter = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.conv = nn.Sequential(*normalised(24, 16, 1), *normalised(16, 16, 1), nn.Conv2d(16, 4, 1))


class PlainMatting(nn.Module):
    """One frame at a time: ``(1, 3, H, W)`` and the states, to foreground, alpha and states."""

    def __init__(self, backbone: str = "mobilenetv3") -> None:
        super().__init__()
        is_mobile = backbone == "mobilenetv3"
        self.backbone: nn.Module = Mobile() if is_mobile else Residual()
        deep, bottom = (960, 128) if is_mobile else (2048, 256)
        skips = (16, 24, 40) if is_mobile else (64, 256, 512)
        outs = (80, 40, 32, 16) if is_mobile else (128, 64, 32, 16)
        self.aspp = Aspp(deep, bottom)
        self.decoder = nn.ModuleDict(
            {
                "decode4": Stage(0, bottom, deepest=True),
                "decode3": Stage(bottom + skips[2] + 3, outs[0]),
                "decode2": Stage(outs[0] + skips[1] + 3, outs[1]),
                "decode1": Stage(outs[1] + skips[0] + 3, outs[2]),
                "decode0": Last(outs[2] + 3, outs[3]),
            }
        )
        self.project_mat, self.project_seg = Projection(4), Projection(1)
        self.refiner = Refiner()

    def forward(
        self, src: Tensor, states: State = (None,) * 4, ratio: float = 1.0, fast: bool = False
    ) -> tuple[Tensor, Tensor, State]:
        sm = src
        if ratio != 1:
            how = {"mode": "bilinear", "align_corners": False, "recompute_scale_factor": False}
            sm = F.interpolate(src, scale_factor=ratio, **how)
        f1, f2, f3, f4 = self.backbone(sm)
        s1 = F.avg_pool2d(sm, 2, 2, ceil_mode=True, count_include_pad=False)
        s2 = F.avg_pool2d(s1, 2, 2, ceil_mode=True, count_include_pad=False)
        s3 = F.avg_pool2d(s2, 2, 2, ceil_mode=True, count_include_pad=False)
        r1, r2, r3, r4 = states
        x, r4 = self.decoder["decode4"](self.aspp(f4), None, None, r4)
        x, r3 = self.decoder["decode3"](x, f3, s3, r3)
        x, r2 = self.decoder["decode2"](x, f2, s2, r2)
        x, r1 = self.decoder["decode1"](x, f1, s1, r1)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[:, :, : sm.shape[2], : sm.shape[3]]
        hid = self.decoder["decode0"].conv(torch.cat([x, sm], dim=1))
        out = self.project_mat.conv(hid)
        if ratio != 1:
            out = self.refine(src, sm, out, hid, fast)
        return (out[:, :3] + src).clamp(0, 1), out[:, 3:].clamp(0, 1), (r1, r2, r3, r4)

    def refine(self, src: Tensor, sm: Tensor, y: Tensor, hid: Tensor, fast: bool) -> Tensor:
        x, xf = (torch.cat([v, v.mean(1, keepdim=True)], dim=1) for v in (sm, src))

        def box(v: Tensor) -> Tensor:
            return (
                F.conv2d(v, v.new_full((4, 1, 3, 3), 1 / 9), padding=1, groups=4)
                if fast
                else self.refiner.box_filter(v)
            )

        mx, my = box(x), box(y)
        cov, var = box(x * y) - mx * my, box(x * x) - mx * mx
        a = cov / (var + 1e-5) if fast else self.refiner.conv(torch.cat([cov, var, hid], dim=1))
        b = my - a * mx
        a, b = (F.interpolate(v, size=src.shape[2:], mode="bilinear", align_corners=False) for v in (a, b))
        return a * xf + b


def trained(backbone: str, seed: int = 0) -> PlainMatting:
    """The network with random weights under which signals keep their size, as in one that is trained."""
    torch.manual_seed(seed)
    net = PlainMatting(backbone)
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            scale = 0.2 if name.endswith("bn3") else 1.0  # sums of residuals would grow
            nn.init.uniform_(module.weight, 0.7 * scale, 1.3 * scale)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.3, 0.6)
    for last in (net.project_mat.conv, net.refiner.conv[-1]):
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=0.3)
        nn.init.constant_(last.bias, 0.4)
    nn.init.uniform_(net.refiner.box_filter.weight, 0.05, 0.17)  # about a mean, as trained ones are
    return net.eval()
