"""Work that is put off: how a host looks after the frames of a long clip when they are made at last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

__all__ = ["Guard", "Walk", "guarded", "guarding"]

Walk = Callable[[int], Iterator[Tensor]]
"""Gives the frames from the one asked for on, in runs ``(n, ...)`` of any length; the same ones each time."""
Guard = Callable[[Walk, int], Walk]
"""``guard(walk, count)`` gives a walk through the same ``count`` frames, to be taken in place of ``walk``."""

_guard: ContextVar[Guard | None] = ContextVar("guard", default=None)


@contextmanager
def guarding(guard: Guard) -> Iterator[None]:
    """Put the walks of all long clips that are computed inside the block under ``guard``.

    The block may be left before the first frame is made: the guard stays with the walks.
    """
    token = _guard.set(guard)
    try:
        yield
    finally:
        _guard.reset(token)


def guarded(walk: Walk, count: int) -> Walk:
    """A walk through ``count`` frames, under the guard of the block around, if there is one."""
    guard = _guard.get()
    return walk if guard is None else guard(walk, count)
