"""The matting network as it is trained: with batch normalisation, and with a head for the segmentation pass.

In use each normalisation is folded into the convolution before it (``nets.matting_weights``). A training that begins
with weights that are folded already goes on without; any other has the normalisations that the network was published
with. What a training leaves is folded.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ..vdp_core.errors import WeightsError
from ..vdp_core.nets.matting_weights import BACKBONE_EPS, EPS
from ..vdp_core.nets.recurrent_matting import BACKBONES, RecurrentMatting
from ..vdp_core.nets.weights import read_weights

__all__ = ["TrainedMatting"]

NORMALISED = re.compile(
    r"backbone\.(?!.*\.fc[12]$).*|aspp\.aspp1\.0|decoder\.decode[0-3]\.conv\.\d|refiner\.conv\.[03]"
)
"""Names of the convolutions that a normalisation follows."""


HEADS = ("classifier", "fc")
"""Of torchvision's networks, what follows the backbone."""


class TrainedMatting(nn.Module):
    """The network, and the layer that finds segments of people in its features.

    Args:
        backbone: one of ``nets.recurrent_matting.BACKBONES``.
        normalised: whether batch normalisations follow its convolutions.
    """

    def __init__(self, backbone: str = "mobilenetv3", *, normalised: bool = True) -> None:
        super().__init__()
        self.net = RecurrentMatting(backbone)
        self.project_seg = nn.ModuleDict({"conv": nn.Conv2d(BACKBONES[backbone].decoded[-1], 1, 1)})
        self.normalised: dict[str, nn.Sequential] = {}
        for name, conv in list(self.net.named_modules()) if normalised else ():
            if isinstance(conv, nn.Conv2d) and NORMALISED.fullmatch(name):
                parent, _, own = name.rpartition(".")
                is_mobile = backbone == "mobilenetv3" and name.startswith("backbone.")
                conv.bias = None
                norm = nn.BatchNorm2d(conv.out_channels, eps=BACKBONE_EPS if is_mobile else EPS)
                self.normalised[name] = nn.Sequential(conv, norm)
                self.net.get_submodule(parent)._modules[own] = self.normalised[name]

    @classmethod
    def of_file(cls, path: Path) -> TrainedMatting:
        """The network with the weights of a file: of this one, of its backbone alone as torchvision has it, or folded.

        Raises:
            WeightsError: the file cannot be read, or is of another network.
        """
        try:
            table = {name.removeprefix("module."): value for name, value in read_weights(path).items()}
            if "features.0.0.weight" in table or "layer1.0.conv1.weight" in table:  # torchvision's
                table = {f"backbone.{name}": value for name, value in table.items() if name.split(".")[0] not in HEADS}
            is_normalised = any(name.endswith(".running_mean") for name in table)
            made = cls("resnet50" if "backbone.conv1.weight" in table else "mobilenetv3", normalised=is_normalised)
            own = made.published()
            odd = [name for name, value in table.items() if name not in own or own[name].shape != value.shape]
            if odd or not any(name.startswith("backbone.") for name in table):
                raise WeightsError(
                    f"{path}: its '{min(odd, default='')}' is not that of a matting network; give another file"
                )
        except (KeyError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{path}: not the weights of a matting network; give another file") from error
        with torch.no_grad():
            for name, value in table.items():
                own[name].copy_(value)
        return made

    def segments(self, frames: Tensor) -> Tensor:
        """Logits ``(T, 1, h, w)`` of people in frames ``(T, 3, h, w)`` that follow each other."""
        first, second, third, deep = self.net.backbone(frames)
        hidden, _ = self.net.decoder(frames, (first, second, third), self.net.aspp(deep), None)
        logits: Tensor = self.project_seg["conv"](hidden)
        return logits

    def published(self) -> dict[str, Tensor]:
        """The weights themselves, under the names that published files have."""
        table = {}
        for name, value in {**self.net.state_dict(), **self.project_seg.state_dict(prefix="project_seg.")}.items():
            head, _, last = name.rpartition(".")
            module, _, place = head.rpartition(".")
            if module in self.normalised:
                head = module if place == "0" else _after(module)
            table[f"{head}.{last}"] = value
        return table

    def groups(self, backbone: float, refiner: float, rest: float) -> list[dict[str, object]]:
        """What is trained at which rate; at a rate of 0 nothing is."""
        rates = {"backbone": backbone, "refiner": refiner}
        groups: dict[float, list[Tensor]] = {}
        for name, parameter in [*self.net.named_parameters(), *self.project_seg.named_parameters()]:
            groups.setdefault(rates.get(name.split(".")[0], rest), []).append(parameter)
        return [{"params": parameters, "lr": rate} for rate, parameters in groups.items() if rate > 0.0]


def _after(conv: str) -> str:
    """The normalisation after a convolution: ``bn2`` follows ``conv2``, and number 4 number 3."""
    head, _, last = conv.rpartition(".")
    return f"{head}.{int(last) + 1}" if last.isdecimal() else f"{head}.{last.replace('conv', 'bn')}"
