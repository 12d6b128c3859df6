"""The composition models: each puts a clip together from small fields and its source frames, and takes it apart."""

from __future__ import annotations

from ..errors import InputError
from ..types import Layers
from . import atlas, haze, light, masks
from .base import Field, Model

__all__ = ["MODELS", "Field", "Model", "model_of"]

MODELS: dict[str, Model] = {model.name: model for model in (light.MODEL, haze.MODEL, masks.MODEL, atlas.MODEL)}


def model_of(layers: Layers) -> Model:
    """Return the model of layers.

    Raises:
        InputError: there is none of that name.
    """
    if layers.model not in MODELS:
        raise InputError(f"layers: there is no model '{layers.model}'; known: {', '.join(MODELS)}")
    return MODELS[layers.model]
