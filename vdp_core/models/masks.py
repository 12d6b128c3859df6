"""Masks: ``x = sum_i m_i c_i`` with masks that sum to one; layer 0 is the background, the others are in front of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import LayersFileError
from ..types import Layers
from .paint import untouched

__all__ = ["check", "check_segment", "compose", "rebuild"]


def check_segment(layers: Layers) -> None:
    """Refuse segment layers, read from a file, that lack something the model needs.

    Raises:
        LayersFileError: what is missing or impossible.
    """
    masks = layers.fields.get("masks")
    if masks is None or masks.shape[1] < 2:
        raise LayersFileError("the layers hold no masks (T, L, h, w) of a background and an object; save them again")
    if float((masks.sum(dim=1) - 1.0).abs().max()) > 1e-2 or float(masks.min()) < -1e-3:
        raise LayersFileError("the masks of the layers do not add up to 1; save them again")
    for name in ("before", "after"):
        field = layers.fields.get(name)
        if field is None:
            continue
        if field.shape[1] != 3 or field.shape[2:] != masks.shape[2:]:
            raise LayersFileError(f"the layers' '{name}' is {tuple(field.shape)}, (T, 3, h, w) needed; save them again")
        number = torch.arange(len(field)).view(-1, 1, 1)
        room = number if name == "before" else len(field) - 1 - number
        away = field[:, 2]
        if not bool(((away >= 0.0) & (away <= room) & (away == away.round())).all()):
            raise LayersFileError(f"the layers' '{name}' points to frames that are not there; save them again")
    count, height, width, _ = layers.frames.shape
    for name, picture in layers.pictures.items():
        kind, _, which = name.partition("_")
        known = kind in ("colour", "mask") and which.isdecimal() and int(which) < masks.shape[1]
        known = known or (name == "matte" and masks.shape[1] == 2)
        shape = (height, width, 3) if kind == "colour" else (height, width)
        if not known or name == "mask_0" or tuple(picture.shape[1:]) != shape or len(picture) not in (1, count):
            raise LayersFileError(f"the layers' picture '{name}' is {tuple(picture.shape)}; save them again")
    if any(not 0 <= number < masks.shape[1] for number in layers.edits):
        raise LayersFileError("the layers hold an edit of a layer that is not there; save them again")


def compose(layers: Layers, start: int, stop: int, frames: Tensor) -> Tensor:
    """``sum_i m_i c_i`` for frames ``start`` to ``stop``, ``(n, H, W, 3)``: the layers painted over each other."""
    return untouched(layers, start, stop, frames.device)


def rebuild(layers: Layers, start: int, stop: int, composed: Tensor) -> Tensor:
    """The source from what ``compose`` gives: the same, as nothing was changed."""
    return composed


def check(layers: Layers) -> None:
    """Refuse layers, read from a file, that lack something the model needs.

    Raises:
        LayersFileError: which field is missing or impossible.
    """
    check_segment(layers)
