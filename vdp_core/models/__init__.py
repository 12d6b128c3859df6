"""The composition models: each puts a clip together from small fields and its source frames, and takes it apart again.

A model is found by a task of the same name (``tasks``), and kept in a file (``models.file``).
"""

from __future__ import annotations

from types import ModuleType

from ..errors import InputError
from . import haze, light, masks

__all__ = ["MODELS", "model"]

MODELS: dict[str, ModuleType] = {"relight": light, "dehaze": haze, "segment": masks}


def model(name: str) -> ModuleType:
    """Return a model.

    Raises:
        InputError: there is no such model.
    """
    if name not in MODELS:
        raise InputError(f"layers: there is no model '{name}'; known: {', '.join(MODELS)}")
    return MODELS[name]
