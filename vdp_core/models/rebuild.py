"""Layers put together again."""

from __future__ import annotations

import torch
from torch import Tensor

from ..store.scratch import large_empty
from ..types import Layers
from . import model_of

__all__ = ["reconstruct"]


@torch.no_grad()
def reconstruct(layers: Layers) -> Tensor:
    """Return the input as the composition model gives it back, ``(T, H, W, 3)``.

    Raises:
        InputError: layers of an unknown model.
    """
    model = model_of(layers)
    out = large_empty(*layers.frames.shape)
    for index in range(len(layers)):
        frame = layers.frames[index : index + 1]
        out[index] = model.rebuild(layers, index, index + 1, model.compose(layers, index, index + 1, frame))[0]
    return out
