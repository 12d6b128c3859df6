"""Mask R-CNN (He et al., ICCV 2017) as torchvision has it, with weights of a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from ..errors import WeightsError
from .weights import named_weights, read_weights

__all__ = ["find_detector", "load_detector"]

FILES = ("maskrcnn_resnet50_fpn_v2*", "maskrcnn_resnet50_fpn*")
"""File names of weights without suffix, the best first."""
ADDRESS = "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth"


def find_detector(name: str, folders: Iterable[str | Path]) -> Path:
    """The weights that a person names; see ``weights.named_weights``.

    Raises:
        WeightsError: there is no such file; says where to get one.
    """
    return named_weights(name, FILES, folders, source=f"{Path(ADDRESS).name} from {ADDRESS} (177 MB)")


def load_detector(path: str | Path) -> nn.Module:
    """Build torchvision's ``maskrcnn_resnet50_fpn_v2`` or ``maskrcnn_resnet50_fpn`` with the weights of a file.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
    """
    from torchvision.models import detection

    table = read_weights(path)
    # the second version has two more layers before the heads
    second = "rpn.head.conv.1.0.weight" in table
    name = "maskrcnn_resnet50_fpn_v2" if second else "maskrcnn_resnet50_fpn"
    net: nn.Module = getattr(detection, name)(weights=None, weights_backbone=None)
    try:
        net.load_state_dict(table)
    except RuntimeError as error:
        raise WeightsError(f"{path}: not the weights of torchvision's Mask R-CNN; give another file") from error
    if not second:  # whose weights torchvision made, and uses, without it
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    return net.eval().requires_grad_(False)
