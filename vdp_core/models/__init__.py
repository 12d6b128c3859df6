"""The composition models: each puts a clip together from small fields and its source frames, and takes it apart."""

from __future__ import annotations

from ..errors import InputError
from ..types import Layers
from . import atlas, colour, haze, light, masks
from .base import Field, Look, Model

__all__ = ["MODELS", "Field", "Model", "look_of", "model_of"]

MODELS: dict[str, Model] = {
    model.name: model for model in (light.MODEL, haze.MODEL, masks.MODEL, atlas.MODEL, colour.MODEL)
}


def model_of(layers: Layers) -> Model:
    """Return the model of layers.

    Raises:
        InputError: there is none of that name.
    """
    if layers.model not in MODELS:
        raise InputError(f"layers: there is no model '{layers.model}'; known: {', '.join(MODELS)}")
    return MODELS[layers.model]


def look_of(layers: Layers, what: str) -> Look:
    """Return what gives the colours of layers, for putting them together with edits.

    Args:
        what: needs it: a node's name.

    Raises:
        InputError: the layers are of a model without it.
    """
    look = model_of(layers).look
    if look is None:
        able = " or ".join(f"'{model.name}'" for model in MODELS.values() if model.look is not None)
        raise InputError(f"layers: they are of the model '{layers.model}', {what} needs {able}")
    return look
