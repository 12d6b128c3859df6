"""Dehaze: ``x = t J + (1 - t) L``, with a transmission t that varies over the frame and an airlight L that may drift.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) finds t and J with two networks, which
reconstruction alone does not identify: that is the preset ``paper``. The other presets hold log t as a small grid for
every few frames and L as a few colours, and find them by what identifies them: the same point of the scene, followed
along the flow, moves in a straight line towards L as haze thickens; somewhere near, the clear scene is almost black in
one channel; and no clear colour is darker than black or brighter than white. J needs no network: it follows from x, t
and L, at native size.
"""

from __future__ import annotations

from ...denoise.noise import estimate_noise
from ...image.resize import working_copy
from ...types import Shot
from ..base import Found, Given, Published, Work
from . import paper
from .clip import HazyClip
from .config import PRESETS, DehazeConfig
from .find import Haze, fit_haze

__all__ = ["find", "find_as_published"]


def find(shot: Shot, given: Given, config: DehazeConfig, work: Work) -> Found:
    """Find the haze of a shot.

    Returns:
        The fields ``transmission`` ``(T, 1, h, w)`` in 0..1 and ``airlight`` ``(T, 3, 1, 1)`` in 0..1, and the
        ``noise`` of the shot.
    """
    assert shot.flow is not None
    return _found(shot, fit_haze(shot.frames, shot.flow, config, work.seed, work.device, work.journal, work.progress))


def find_as_published(shot: Shot, given: Given, config: Published, work: Work) -> Found:
    """Find the haze of a shot with the published networks and losses; see ``paper``."""
    assert shot.flow is not None
    waiting, fitting = work.progress.phases(0, 1)
    # the paper takes its airlight from elsewhere too
    quick = PRESETS["fast"]
    clip = HazyClip(working_copy(shot.frames, quick.side).to(work.device), shot.flow, quick, work.seed)
    clip.fit_smooth(quick.steps // 2, waiting, work.journal)
    haze = paper.dehaze(
        shot.frames,
        shot.flow,
        airlight=clip.airlight()[:, :, 0, 0].cpu(),
        steps=config.steps,
        seed=work.seed,
        device=work.device,
        weights_folders=work.weights_folders,
        journal=work.journal,
        on_step=fitting,
    )
    return _found(shot, haze)


def _found(shot: Shot, haze: Haze) -> Found:
    colour = ", ".join(f"{value:.2f}" for value in haze.airlight.mean(dim=0).flatten().tolist())
    said = f"airlight ({colour}), transmission {float(haze.transmission.mean()):.2f} on average"
    fields = {
        "transmission": haze.transmission,
        "airlight": haze.airlight,
        "noise": estimate_noise(shot.frames).field(len(shot.frames)),
    }
    return Found(fields, haze.fitted, {"said": said, **haze.notes})
