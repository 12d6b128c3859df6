"""Dehaze: ``x = t J + (1 - t) L``, with a transmission t that varies over the frame and an airlight L that may drift.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) finds t and J with two networks, which
reconstruction alone does not identify: that is the preset ``paper``. The other presets hold log t as a small grid for
every few frames and L as a few colours, and find them by what identifies them: the same point of the scene, followed
along the flow, moves in a straight line towards L as haze thickens; somewhere near, the clear scene is almost black in
one channel; and no clear colour is darker than black or brighter than white. J needs no network: it follows from x, t
and L, at native size.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...checks import check_flow, check_frames
from ...denoise.noise import estimate_noise
from ...errors import InputError
from ...image.resize import working_copy
from ...optim.progress import Progress
from ...store.journal import NO_JOURNAL, Journal
from ...types import Flow, Layers, OnStep
from .clip import HazyClip
from .config import PRESETS
from .find import Found, fit_haze

__all__ = ["decompose"]

SMALLEST_SIDE = 16


def decompose(
    frames: Tensor,
    flow: Flow,
    *,
    preset: str = "balanced",
    steps: int = 0,
    seed: int = 0,
    layers: int = 2,
    reference: Tensor | None = None,
    reference_frame: int = -1,
    mask: Tensor | None = None,
    mask_frame: int = 0,
    device: torch.device | str = "cpu",
    weights_folders: tuple[Path, ...] = (),
    journal: Journal = NO_JOURNAL,
    on_step: OnStep | None = None,
) -> Layers:
    """Find the haze of a shot.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more.
        flow: of the same clip.
        preset: ``fast``, ``balanced``, ``quality`` or ``paper``.
        steps: of the optimisation, at most; 0 takes the preset's.
        seed: the same seed gives the same layers (on a CPU, to the bit).
        layers: not used; the tasks are called alike.
        reference, reference_frame, mask, mask_frame: none is taken.
        device: where to optimise.
        weights_folders: where the preset ``paper`` looks for VGG16 weights, besides torch's cache.
        journal: where to keep what is found on the way, to go on from when the work was cut off.
        on_step: told after every step; stops the work by raising.

    Returns:
        Layers of the model ``dehaze``: the fields ``transmission`` ``(T, 1, h, w)`` in 0..1 and ``airlight``
        ``(T, 3, 1, 1)`` in 0..1; the noise that ``estimate_noise`` found is kept beside them.

    Raises:
        ShapeError: frames and flow do not belong together.
        InputError: an unknown preset, a reference or a mask, or a setting out of range.
    """
    frames = check_frames(frames, at_least=2, smallest_side=SMALLEST_SIDE)
    check_flow(flow, len(frames))
    if reference is not None:
        raise InputError("reference: the task dehaze takes none; unlink it, or choose the task relight")
    if mask is not None:
        raise InputError("mask: the task dehaze takes none; unlink it, or choose the task segment")
    if preset != "paper" and preset not in PRESETS:
        raise InputError(f"preset: there is no '{preset}'; known: {', '.join([*PRESETS, 'paper'])}")
    if steps < 0:
        raise InputError(f"steps: 0 for the preset's, or more, got {steps}")
    started = time.perf_counter()
    noise = estimate_noise(frames)
    if preset == "paper":
        from . import paper

        waiting, fitting = Progress(on_step).phases(0, 1)
        # the paper takes its airlight from elsewhere too
        config = PRESETS["fast"]
        clip = HazyClip(working_copy(frames, config.side).to(device), flow, config, seed)
        clip.fit_smooth(config.steps // 2, waiting, journal)
        given = clip.airlight()[:, :, 0, 0].cpu()
        published = paper.dehaze(
            frames,
            flow,
            airlight=given,
            steps=steps,
            seed=seed,
            device=device,
            weights_folders=weights_folders,
            journal=journal,
            on_step=fitting,
        )
        found = Found(*published)
    else:
        config = PRESETS[preset]
        config = replace(config, steps=steps or config.steps)
        found = fit_haze(frames, flow, config, seed, torch.device(device), journal, Progress(on_step))
    colour = ", ".join(f"{value:.2f}" for value in found.airlight.mean(dim=0).flatten().tolist())
    info = {
        "said": f"airlight ({colour}), transmission {float(found.transmission.mean()):.2f} on average",
        **found.fitted.info(preset=preset, flow=flow.method, seconds=time.perf_counter() - started),
        **found.notes,
    }
    fields = {"transmission": found.transmission, "airlight": found.airlight, "noise": noise.field(len(frames))}
    return Layers("dehaze", fields, frames, flow, seed, info)
