"""The tasks: each finds the fields of a composition model. ``driver.decompose`` does one on a clip."""

from __future__ import annotations

from ..errors import InputError
from .atlas import TASK as ATLAS
from .base import Task
from .deflicker import TASK as DEFLICKER
from .dehaze import TASK as DEHAZE
from .matte import TASK as MATTE
from .relight import TASK as RELIGHT
from .segment import TASK as SEGMENT

__all__ = ["TASKS", "task_of"]

TASKS: dict[str, Task] = {task.name: task for task in (RELIGHT, DEHAZE, SEGMENT, ATLAS, DEFLICKER, MATTE)}


def task_of(name: str) -> Task:
    """Return a task.

    Raises:
        InputError: there is none of that name.
    """
    if name not in TASKS:
        raise InputError(f"task: there is no '{name}'; known: {', '.join(TASKS)}")
    return TASKS[name]
