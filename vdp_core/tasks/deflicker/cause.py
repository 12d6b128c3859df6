"""Where flicker comes from: what each cause may look like, and which one a clip's flicker looks like."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .basis import Basis
from .find import Change

__all__ = ["GROUPS", "Verdict", "verdict"]

LOCAL = frozenset({"curve", "cells", "places"})
ALL = LOCAL | {"rows", "saturation"}
GROUPS = {
    "auto": ALL,
    "mains": LOCAL | {"rows"},
    "time-lapse": LOCAL,
    "film": LOCAL,
    "seams": frozenset({"curve", "cells", "saturation"}),
    "cartoon": LOCAL | {"saturation"},
    "processed": LOCAL | {"saturation"},
    "lamp": LOCAL,
}
"""Which groups of the basis flicker of a cause may have."""
NOTHING = 0.002
"""Deviation of the change, in log gain, below which there is no flicker to speak of."""
GREY = 0.01
"""Mean difference between channels, in value, up to which a clip is black and white."""


class Verdict(NamedTuple):
    """What flicker looks like."""

    cause: str
    """``none``, or one of the widget's."""
    share: float
    """Part of the flicker's energy that speaks for it."""


def verdict(change: Change, basis: Basis, frames: Tensor) -> Verdict:
    """Say what flicker looks like.

    Args:
        change: of a window.
        basis: of its parameters.
        frames: the small copies ``(T, 3, h, w)``.
    """
    knots = basis.knots(change.flicker)
    level = knots["grid"].mean(dim=(2, 3, 4), keepdim=True)
    curve = knots["grid"].mean(dim=(3, 4), keepdim=True) - level
    energy = {
        "time-lapse": float(level.square().mean()),
        "processed": float(curve.square().mean() + knots["saturation"].square().mean()),
        "lamp": float((knots["grid"] - level - curve).square().mean()),
        "mains": float((knots["rows"] - knots["rows"].mean(dim=2, keepdim=True)).square().mean()),
    }
    whole = sum(energy.values())
    if whole < NOTHING**2:
        return Verdict("none", 1.0)
    shares = {cause: part / whole for cause, part in energy.items()}
    if change.steps.go:
        shares["seams"] = _stepped(change)
    if float((frames.amax(dim=1) - frames.amin(dim=1)).mean()) < GREY:
        shares["film"] = shares["time-lapse"] + shares["lamp"] + shares["processed"]
    elif change.held > 0.3:
        shares["cartoon"] = 1.0 - 0.5 * abs(change.held - 0.6)
    cause = max(shares, key=lambda name: shares[name])
    return Verdict(cause, min(shares[cause], 1.0))


def _stepped(change: Change) -> float:
    """The part of flicker's energy that jumps and stays for a while."""
    values = change.flicker.flatten(1)
    edges = [0, *change.steps.go, len(values)]
    held = torch.cat(
        [values[first:end].mean(dim=0, keepdim=True).expand(end - first, -1) for first, end in pairwise(edges)]
    )
    return float(held.square().sum() / values.square().sum().clamp_min(1e-12))
