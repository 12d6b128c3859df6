"""How far work of several phases is, as one count of steps."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from fractions import Fraction
from itertools import accumulate

from torch import Tensor

from ..types import OnStep

__all__ = ["Progress"]


class Progress:
    """Tells a host how far work is: steps of one total, which never go back.

    The total is that of the first phase that tells, divided by its share of the whole: two phases of equal weight, of 5
    steps each, are told as 1 to 10 of 10. It is an ``OnStep`` itself, for parts that have no phases.
    """

    def __init__(self, on_step: OnStep | None) -> None:
        """Take whom to tell, or None; it may stop the work by raising."""
        self._on_step = on_step
        self._whole, self._start, self._share = self, Fraction(0), Fraction(1)
        self._done = self._total = 0

    def phases(self, *weights: float) -> list[Progress]:
        """Split what is told here into phases that follow each other, by the share that each has of the whole.

        A phase of weight 0 moves nothing on, but lets the host stop the work.
        """
        shares = [self._share * Fraction(weight) / Fraction(sum(weights)) for weight in weights]
        phases = []
        for share, end in zip(shares, accumulate(shares), strict=True):
            phase = copy(self)
            phase._start, phase._share = self._start + end - share, share
            phases.append(phase)
        return phases

    def __call__(self, done: int, total: int, preview: Callable[[], Tensor] | None = None) -> None:
        """Tell that ``done`` of ``total`` steps of this phase are done."""
        whole = self._whole
        if whole._on_step is None:
            return
        if whole._total == 0 and self._share > 0:
            whole._total = round(total / self._share)
        at = self._start + self._share * Fraction(done, total)
        whole._done = max(whole._done, int(at * whole._total), int(at > 0))
        whole._on_step(whole._done, whole._total or total, preview)
