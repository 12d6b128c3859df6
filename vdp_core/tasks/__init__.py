"""The tasks: each finds the fields and scalars of one composition model."""

from __future__ import annotations

from types import ModuleType

from ..errors import InputError
from . import dehaze, relight, segment

__all__ = ["TASKS", "task"]

TASKS: dict[str, ModuleType] = {"relight": relight, "dehaze": dehaze, "segment": segment}


def task(name: str) -> ModuleType:
    """Return the module of a task: ``decompose``, ``compose``, ``rebuild`` and ``apply``.

    Raises:
        InputError: there is no such task.
    """
    if name not in TASKS:
        raise InputError(f"task: there is no '{name}'; known: {', '.join(TASKS)}")
    return TASKS[name]
