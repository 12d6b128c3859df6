"""Layers read from a checkpoint of Layered Neural Atlases, as its authors' code (MIT) writes one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ..checks import check_frames
from ..errors import LayersFileError, MediaError, ShapeError, WeightsError
from ..nets.atlas_nets import AtlasNets, Shape
from ..nets.weights import read_networks
from ..types import Layers, OnStep
from .neural_atlas import fields_of

__all__ = ["is_checkpoint", "load_checkpoint"]

CONFIG = "config.json"
NETWORKS = {
    "background": "model_F_mapping2_state_dict",
    "object": "model_F_mapping1_state_dict",
    "texture": "F_atlas_state_dict",
    "alpha": "model_F_alpha_state_dict",
}
SETTINGS = (
    ("resx", 2, 2**14),
    ("resy", 2, 2**14),
    ("maximum_number_of_frames", 1, 2**20),
    ("uv_mapping_scale", 0.01, 1),
)
"""What of the config is needed, and within which bounds it makes sense."""


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint: none of ``models.file``, and its config lies beside it."""
    return path.suffix != ".safetensors" and (path.parent / CONFIG).is_file()


def load_checkpoint(
    checkpoint: Path,
    frames: Tensor | None,
    alpha: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> Layers:
    """Layers of the model atlas that show what the networks of a checkpoint do, as the preset ``paper`` gives them.

    Args:
        checkpoint: the file, with its config beside it.
        frames: those that it was fitted to, ``(T, H, W, 3)``.
        alpha: of those frames, ``(T, H, W)``; None where they are opaque.
        device: where to compute.
        on_step: told on the way; stops the work by raising.

    Raises:
        LayersFileError: the checkpoint or its config is damaged, or of other networks.
        MediaError: the config cannot be read.
        ShapeError: no frames, or more than it was fitted to, or of other proportions.
    """
    size, most, uv_scale = _settings(checkpoint.parent / CONFIG)
    nets = _networks(checkpoint).to(device)
    if frames is None:
        raise ShapeError(f"frames: {checkpoint} holds none; link the clip that it was fitted to")
    frames = check_frames(frames)
    count, height, width, _ = frames.shape
    if count > most:
        raise ShapeError(f"frames: {checkpoint} was fitted to at most {most}, got {count}; set count to {most}")
    fields, assets = fields_of(nets, size, count, (height, width), uv_scale=uv_scale, device=device, on_step=on_step)
    return Layers("atlas", fields, frames, info={"preset": "paper"}, assets=assets, alpha=alpha)


def _settings(path: Path) -> tuple[tuple[int, int], int, float]:
    """The size (h, w) and the greatest number of frames that networks were fitted to, and the scale of the atlas."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:
        raise LayersFileError(f"{path}: no JSON ({error}); give the one that the checkpoint came with") from error
    values = []
    for name, least, most in SETTINGS:
        value = config.get(name) if isinstance(config, dict) else None
        if not isinstance(value, int | float) or not least <= value <= most:
            raise LayersFileError(
                f"{path}: '{name}' must be a number from {least} to {most}, not {value!r:.50}; give the config that "
                "the checkpoint came with"
            )
        values.append(value)
    width, height, count, scale = values
    return (int(height), int(width)), int(count), float(scale)


def _networks(path: Path) -> AtlasNets:
    try:
        weights = read_networks(path, NETWORKS.values())
    except WeightsError as error:
        raise LayersFileError(str(error)) from error
    shapes = {name: Shape.of(weights[key], 2 if name == "texture" else 3) for name, key in NETWORKS.items()}
    try:
        with torch.device("meta"):
            nets = AtlasNets(shapes)
        for net, name in zip((*nets.mappings, nets.atlas, nets.alpha), NETWORKS, strict=True):
            net.load_state_dict(weights[NETWORKS[name]], assign=True)
    except (RuntimeError, ValueError) as error:
        raise LayersFileError(f"{path}: its weights do not fit the networks of Layered Neural Atlases") from error
    nets = nets.float()
    if not all(bool(values.isfinite().all()) for values in (*nets.parameters(), *nets.buffers())):
        raise LayersFileError(f"{path}: its weights hold NaN or infinite values; give another checkpoint")
    return nets
