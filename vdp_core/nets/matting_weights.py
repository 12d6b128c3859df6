"""Weights of the recurrent matting network: where they are looked for, and how each published form is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from ..errors import WeightsError
from .recurrent_matting import BACKBONES, RecurrentMatting
from .weights import named_weights, read_weights

__all__ = ["FILES", "find_matting", "folded", "load_matting"]

FILES = ("rvm_mobilenetv3*", "rvm_resnet50*")
"""File names of weights without suffix, in the order they are looked for in each folder."""
ADDRESS = "https://github.com/PeterL1n/RobustVideoMatting/releases"
BACKBONE_EPS, EPS = 1e-3, 1e-5
"""Of batch normalisation: in MobileNetV3, and everywhere else."""


def find_matting(name: str, folders: Iterable[str | Path]) -> Path:
    """The weights that a person names; see ``weights.named_weights``.

    Raises:
        WeightsError: there is no such file; says where to get one.
    """
    return named_weights(name, FILES, folders, source=f"rvm_mobilenetv3.pth from {ADDRESS} (licence GPL-3.0)")


def load_matting(path: str | Path, *, refiner: str = "deep") -> RecurrentMatting:
    """Build the network with the weights of a file.

    Args:
        path: the authors' ``.pth`` or TorchScript, of either backbone; or a ``.safetensors`` whose normalisation is
            folded, in floats or in 8 bits with ``NAME.scale`` and ``NAME.min`` for each channel.
        refiner: the one that will be used: ``fast`` needs no weights.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
    """
    try:
        table = folded(read_weights(path))
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: not the weights of a matting network; give another file") from error
    kind = {"backbone.features.0.0.weight": "mobilenetv3", "backbone.conv1.weight": "resnet50"}
    backbone = next((name for key, name in kind.items() if key in table), None)
    if backbone is None:
        raise WeightsError(
            f"{path}: not the weights of a matting network ({' or '.join(BACKBONES)}); give another file"
        )
    net = RecurrentMatting(backbone).eval()
    own = net.state_dict()
    missing = {name for name in own if name not in table or table[name].shape != own[name].shape}
    if missing and all(name.startswith("refiner.") for name in missing) and refiner == "deep":
        raise WeightsError(f"{path}: holds no weights of the deep refiner; choose the refiner 'fast', or another file")
    missing = {name for name in missing if not name.startswith("refiner.")}
    if missing or not table.keys() <= own.keys():
        odd = min(missing or table.keys() - own.keys())
        raise WeightsError(f"{path}: its '{odd}' is not that of the network with {backbone}; give another file")
    net.load_state_dict(table, strict=False)
    return net.requires_grad_(False)


def folded(table: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in floats, with every batch normalisation folded into the convolution before it.

    Of ``y = gamma (conv(x) - mean) / sqrt(variance + eps) + beta`` with ``k = gamma / sqrt(variance + eps)``: the
    convolution's weight becomes ``k weight``, its bias ``beta - k mean``. What is for training only is left out.
    """
    table = {name.removeprefix("module."): value for name, value in table.items()}
    for name in [name for name in table if name.startswith("project_seg.") or name.endswith(".num_batches_tracked")]:
        del table[name]
    steps = [name for name in table if f"{name}.scale" in table and f"{name}.min" in table]
    for name in steps:
        table[name] = _from_steps(table[name], table.pop(f"{name}.scale"), table.pop(f"{name}.min"))
    is_mobile = "backbone.features.0.0.weight" in table
    for name in [name.removesuffix(".running_mean") for name in table if name.endswith(".running_mean")]:
        gamma, beta, mean, variance = (
            table.pop(f"{name}.{part}").double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        eps = BACKBONE_EPS if is_mobile and name.startswith("backbone.") else EPS
        scale = gamma / (variance + eps).sqrt()
        conv = _before(name)
        weight = table[f"{conv}.weight"].double()
        table[f"{conv}.weight"] = weight * scale.view(-1, 1, 1, 1)
        table[f"{conv}.bias"] = beta - mean * scale
    return {name: value.float() for name, value in table.items()}


def _before(name: str) -> str:
    """The convolution before a normalisation: ``bn2`` follows ``conv2``, and number 4 number 3."""
    head, _, last = name.rpartition(".")
    return f"{head}.{int(last) - 1}" if last.isdecimal() else f"{head}.{last.replace('bn', 'conv')}"


def _from_steps(steps: Tensor, scale: Tensor, least: Tensor) -> Tensor:
    """Values ``steps * scale + least``, each by its first index."""
    shape = (-1, *[1] * (steps.ndim - 1))
    return steps.double() * scale.double().view(shape) + least.double().view(shape)
