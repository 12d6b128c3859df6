"""Mask R-CNN (He et al., ICCV 2017) as torchvision has it: its classes, and weights of a file."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from ..errors import WeightsError
from .weights import find_weights, hub_folder, read_weights

__all__ = ["ANYTHING", "CLASSES", "find_detector", "load_detector"]

ANYTHING = "anything"
_NAMES = """
-, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -,
-, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, dining table, -, -, toilet, -,
tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, -, book, clock,
vase, scissors, teddy bear, hair drier, toothbrush
"""
CLASSES = {number: name for number, name in enumerate(_NAMES.replace("\n", " ").strip().split(", ")) if name != "-"}
"""The things that it knows, by their number in COCO (Lin et al., ECCV 2014), which leaves some out."""
FILES = ("maskrcnn_resnet50_fpn_v2*", "maskrcnn_resnet50_fpn*")
"""File names of weights without suffix, the best first."""
ADDRESS = "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth"


def find_detector(name: str, folders: Iterable[str | Path]) -> Path:
    """The weights that a person names.

    Args:
        name: ``auto`` for the first of ``FILES`` that is found; a file's name, with its suffix or without, in the
            folders or in torch's hub cache; or a path.
        folders: where to look before torch's hub cache.

    Raises:
        WeightsError: there is no such file; says where to get one.
    """
    folders, name = list(folders), name.strip().strip("\"'")
    path = Path(name).expanduser() if name and "\0" not in name else Path()
    if name not in ("", "auto") and path.is_file():
        return path
    patterns = FILES if name in ("", "auto") else [f"{glob.escape(name)}*"]
    found = find_weights(patterns, folders) if len(path.parts) <= 1 else None
    if found is not None:
        return found
    what = "no weights are found" if name in ("", "auto") else f"there is no '{name}'"
    places = " or ".join(map(str, [*folders, hub_folder()]))
    raise WeightsError(
        f"weights: {what}; get {Path(ADDRESS).name} from {ADDRESS} (177 MB) and put it into {places}, or give the path "
        "of a file"
    )


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
    return net.eval().requires_grad_(False)
