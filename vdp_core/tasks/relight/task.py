"""Relight: ``x_out = A * x_in ** gamma`` with a smooth light map A that may vary over the frame and drift in time.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) optimises
``log x_in = (1/gamma) (log(1/A) + log x_out)`` with two networks, which reconstruction alone does not identify: that
is the preset ``paper``. The other presets hold log A as a small grid for every frame and find it by what identifies
it: the same point of the scene, followed along the flow, keeps its colour, so what changes is the light; light is
smooth in the frame and in time; and a picture is well exposed on the whole, or looks like the graded still given.
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
from ...optim.progress import Progress
from ...store.journal import NO_JOURNAL, Journal
from ...types import Flow, Layers, OnStep
from .config import PRESETS
from .find import fit_light
from .reference import check_reference

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
    """Find the light of a shot.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more.
        flow: of the same clip.
        preset: ``fast``, ``balanced``, ``quality`` or ``paper``.
        steps: of the optimisation, at most; 0 takes the preset's.
        seed: the same seed gives the same layers (on a CPU, to the bit).
        layers: not used; the tasks are called alike.
        reference: one frame of the clip as it should look, ``(1, H, W, 3)`` or of the same shape in another size.
        reference_frame: which frame it shows; -1 looks for it.
        mask, mask_frame: none is taken.
        device: where to optimise.
        weights_folders: where the preset ``paper`` looks for VGG16 weights, besides torch's cache.
        journal: where to keep what is found on the way, to go on from when the work was cut off.
        on_step: told after every step; stops the work by raising.

    Returns:
        Layers of the model ``relight``: the fields ``log_gain`` ``(T, 1, h, w)``, which is log A, ``colour``
        ``(T, 3, 1, 1)``, which is added to it for red, green and blue, and ``gamma`` ``(T, 1, 1, 1)``, both the same
        in the whole clip; the noise that ``estimate_noise`` found is kept beside them.

    Raises:
        ShapeError: frames, flow and reference do not belong together.
        InputError: an unknown preset, a mask, or a setting out of range.
    """
    frames = check_frames(frames, at_least=2, smallest_side=SMALLEST_SIDE)
    check_flow(flow, len(frames))
    if mask is not None:
        raise InputError("mask: the task relight takes none; unlink it, or choose the task segment")
    if preset != "paper" and preset not in PRESETS:
        raise InputError(f"preset: there is no '{preset}'; known: {', '.join([*PRESETS, 'paper'])}")
    if steps < 0:
        raise InputError(f"steps: 0 for the preset's, or more, got {steps}")
    if not -1 <= reference_frame < len(frames):
        raise InputError(
            f"reference_frame: -1 to look for it, or 0 to {len(frames) - 1} in this clip, got {reference_frame}"
        )
    if reference is not None:
        reference, reference_frame = check_reference(reference, reference_frame, frames)
    started = time.perf_counter()
    noise = estimate_noise(frames)
    if preset == "paper":
        from . import paper

        if reference is not None:
            raise InputError("reference: the preset 'paper' takes none; choose another preset, or unlink it")
        found = paper.relight(
            frames,
            flow,
            steps=steps,
            seed=seed,
            device=device,
            weights_folders=weights_folders,
            journal=journal,
            on_step=on_step,
        )
    else:
        config = PRESETS[preset]
        config = replace(config, steps=steps or config.steps)
        found = fit_light(
            frames, flow, config, seed, reference, reference_frame, torch.device(device), journal, Progress(on_step)
        )
    count = len(frames)
    fields = {
        "log_gain": found.log_gain,
        "colour": torch.tensor(found.colour).view(1, 3, 1, 1).repeat(count, 1, 1, 1),
        "gamma": torch.full((count, 1, 1, 1), found.gamma),
        "noise": noise.field(count),
    }
    info = {
        "said": f"gamma {found.gamma:.2f}",
        **found.fitted.info(preset=preset, flow=flow.method, seconds=time.perf_counter() - started),
        **found.notes,
    }
    return Layers("relight", fields, frames, flow, seed, info)


def graded_like(layers: Layers, other: Layers) -> Layers:
    """Return layers with the gamma and the colour of another shot's; the light that was found stays."""
    count = len(layers)
    gamma, colour = (other.fields[name][:1] for name in ("gamma", "colour"))
    fields = {
        **layers.fields,
        "log_gain": layers.fields["log_gain"] * (gamma / layers.fields["gamma"]),
        "gamma": gamma.repeat(count, 1, 1, 1),
        "colour": colour.repeat(count, 1, 1, 1),
    }
    return replace(layers, fields=fields)
