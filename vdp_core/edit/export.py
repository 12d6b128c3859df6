"""Layers as pictures for other programs."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import InputError
from ..media import exr
from ..media.encode import whole
from ..models import model_of
from ..store.transfer import send
from ..types import Layers, OnStep

__all__ = ["write_exr"]


@torch.no_grad()
def write_exr(
    folder: Path, layers: Layers, *, device: torch.device | str = "cpu", on_step: OnStep | None = None
) -> Path:
    """Write layers as OpenEXR files 00000.exr, 00001.exr, ..., whole or not at all: all layers of a frame in one.

    R, G, B, and A where the clip has alpha, are the source frame; each layer has four channels under its name, such as
    ``object_1.R``. All are linear half floats, multiplied with alpha. The first layer is whole and opaque, so that the
    others over it make the frame: a shadow first, whose opacity is that for display values, then objects.

    Args:
        folder: to make; its name gets the first number that nothing has.
        layers: of a model that has any; edits are not applied.
        device: where to compute.
        on_step: told after each frame, may stop the work by raising.

    Returns:
        The folder.

    Raises:
        InputError: layers of a model without any.
        MediaError: they cannot be written.
    """
    model = model_of(layers)
    model.check_layer(layers, 0)
    if model.split is None or model.layer_names is None:
        raise InputError(f"layers: of the model '{layers.model}', which has no layers to write")
    exr.library(folder)
    names = [name.removeprefix("the ").replace(" ", "_") for name in model.layer_names(layers)]
    with whole(folder, "", is_numbered=True) as place:
        place.partial.mkdir()
        for index in range(len(layers)):
            frame = send(layers.frames[index], device).contiguous()
            opacity = None if layers.alpha is None else layers.alpha[index].cpu().numpy()
            channels = exr.layer("", frame.cpu().numpy(), opacity)
            for number, name in enumerate(names):
                colour, mask = model.split(layers, number, index, frame)
                covered = mask if number else torch.ones_like(mask)
                channels |= exr.layer(name, colour.cpu().contiguous().numpy(), covered.cpu().numpy())
            exr.write(place.partial / f"{index:05d}.exr", channels)
            if on_step is not None:
                on_step(index + 1, len(layers), frame.cpu)
    return place.target
