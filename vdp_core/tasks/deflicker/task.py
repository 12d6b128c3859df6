"""Deflicker: a change of colour for each frame, found where the same points of the scene are seen in other frames."""

from __future__ import annotations

import torch

from ...image.resize import working_copy
from ...optim.fit import Fitted
from ...types import Shot
from ..base import Found, Given, Work
from .basis import Basis
from .config import DeflickerConfig
from .find import fit
from .partners import Partners

__all__ = ["find"]


@torch.no_grad()
def find(shot: Shot, given: Given, config: DeflickerConfig, work: Work) -> Found:
    assert shot.flow is not None
    small = working_copy(shot.frames, config.side, work.device)
    basis = Basis(small.shape[2], small.shape[3], config.stride)
    partners = Partners(shot.flow, (small.shape[2], small.shape[3]), work.device)
    found = fit(small, partners, basis, config, given["fps"], work.progress)
    fields = {name: part.cpu() for name, part in basis.knots(found.parameters - found.kept).items()}
    fields["kept"] = basis.knots(found.kept)["grid"].mean(dim=(2, 3, 4)).cpu()
    return Found(fields, Fitted(config.sweeps, 0.0, {}, "steps"), {})
