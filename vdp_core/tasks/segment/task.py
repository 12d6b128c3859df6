"""Segment: ``x = sum_i m_i c_i`` with masks that sum to one; layer 0 is the background, the others are what moves.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) finds masks and colours with networks
whose losses are satisfied before the masks mean anything: that is the preset ``paper``. The other presets let motion
speak first. What moves alike against the scene, and lasts, is an object (``motion.py``), or it is what a person's mask
shows. Then, in turn: each layer's motion is spread over the frame, and says which layer rebuilds a pixel best from the
neighbouring frames; a small classifier learns what the layers look like; and both, the masks of the neighbouring frames
and the edges of the picture are put together frame by frame, forwards and backwards through the clip. Colours are the
frames' own, so colour cannot settle before the masks do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...checks import as_mask, check_flow, check_frames
from ...errors import InputError, ShapeError
from ...motion.background import trace
from ...store.checkpoint import Checkpoint
from ...types import Flow, Layers, OnStep
from .config import PRESETS
from .find import NOTHING, Found, all_background
from .windows import find_masks

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
    checkpoint: Checkpoint | None = None,
    on_step: OnStep | None = None,
) -> Layers:
    """Find the objects of a shot: what moves by itself, or what a mask shows.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more.
        flow: of the same clip.
        preset: ``fast``, ``balanced``, ``quality`` or ``paper``.
        steps: of the optimisation, at most; 0 takes the preset's.
        seed: the same seed gives the same layers (on a CPU, to the bit).
        layers: how many, the background included. Two put all objects together; more give the largest ones a layer
            each. With a mask there are two.
        reference, reference_frame: none is taken.
        mask: ``(H, W)`` or ``(1, H, W)``, the object in frame ``mask_frame``; or ``(T, H, W)``, of which frames may be
            empty: the objects follow those that are given. Pictures of a mask will do.
        mask_frame: which frame a single mask belongs to.
        device: where the classifier learns.
        weights_folders: where the preset ``paper`` looks for VGG16 weights, besides torch's cache.
        checkpoint: where to keep what is found on the way, to go on from when the work was cut off.
        on_step: told after every step; stops the work by raising.

    Returns:
        Layers of the model ``segment``: the field ``masks`` ``(T, L, h, w)``, the background first, sum 1; and
        ``before`` and ``after`` ``(T, 3, h, w)``, where the background behind objects is seen (``behind.trace``).

    Raises:
        ShapeError: frames, flow and mask do not belong together.
        InputError: an unknown preset, a reference, an empty mask, or a setting out of range.
    """
    frames = check_frames(frames, at_least=2, smallest_side=SMALLEST_SIDE)
    check_flow(flow, len(frames))
    if reference is not None:
        raise InputError("reference: the task segment takes none; unlink it, or choose the task relight")
    if preset != "paper" and preset not in PRESETS:
        raise InputError(f"preset: there is no '{preset}'; known: {', '.join([*PRESETS, 'paper'])}")
    if steps < 0:
        raise InputError(f"steps: 0 for the preset's, or more, got {steps}")
    if not 2 <= layers <= 4:
        raise InputError(f"layers: 2 to 4, the background included, got {layers}")
    config = PRESETS.get(preset, PRESETS["balanced"])
    config = replace(config, steps=steps or config.steps)
    given = None if mask is None else masks_given(mask, mask_frame, frames)
    if given is not None and layers > 2:
        raise InputError(f"layers: with a mask there are 2, the object and the background, got {layers}; set it to 2")
    started = time.perf_counter()
    if preset == "paper":
        from . import paper

        if given is not None:
            raise InputError("mask: the preset 'paper' takes none; choose another preset, or unlink it")
        found = Found(
            *paper.segment(
                frames,
                flow,
                layers=layers,
                steps=steps,
                seed=seed,
                device=device,
                weights_folders=weights_folders,
                checkpoint=checkpoint,
                on_step=on_step,
            )
        )
    else:
        found = find_masks(frames, flow, config, layers, seed, given, torch.device(device), checkpoint, on_step)

    def still_going(_: int, __: int, preview: Callable[[], Tensor] | None) -> None:
        if on_step is not None:
            on_step(1, 1, preview)

    before, after = trace(found.masks[:, 0], flow, frames=frames, device=device, on_step=still_going)
    info = found.fitted.info(preset=preset, flow=flow.method, seconds=time.perf_counter() - started)
    info |= found.notes
    fields = {"masks": found.masks, "before": before, "after": after}
    return Layers("segment", fields, frames, flow, seed, info)


def masks_given(mask: Tensor, mask_frame: int, frames: Tensor) -> dict[int, Tensor]:
    """The masks that a person gave, ``(H, W)`` each, by the frame they belong to.

    Raises:
        ShapeError, InputError: they do not belong to the frames, or are empty.
    """
    masks = as_mask(mask)
    count, height, width, _ = frames.shape
    wanted, proportions = width / height, masks.shape[2] / masks.shape[1]
    if abs(proportions / wanted - 1.0) > 0.02:
        raise ShapeError(
            f"mask: it is {masks.shape[2]}x{masks.shape[1]} pixels, the frames are {width}x{height}; it must show the "
            "whole frame, in any size of the same proportions"
        )
    if len(masks) == 1:
        if not 0 <= mask_frame < count:
            raise InputError(f"mask_frame: 0 to {count - 1} in this clip, got {mask_frame}")
        given = {mask_frame: masks[0]}
    elif len(masks) == count:
        given = dict(enumerate(masks))
    else:
        raise ShapeError(f"mask: one, or one for each of the {count} frames, got {len(masks)}; set count to 1")
    given = {index: one for index, one in given.items() if bool((one > 0.5).any())}
    if not given:
        raise InputError("mask: it is empty everywhere; paint the object white, or unlink it")
    return given


def masks_of_shot(given: Mapping[int, Tensor], shot: range) -> Tensor | None:
    """Of masks ``(H, W)`` by frame those of a shot, ``(n, H, W)`` and empty where there is none; None if all are."""
    own = {index - shot.start: mask for index, mask in given.items() if index in shot}
    if not own:
        return None
    empty = torch.zeros_like(next(iter(own.values())))
    return torch.stack([own.get(index, empty) for index in range(len(shot))])


def nothing(frames: Tensor, flow: Flow, *, preset: str, seed: int) -> Layers:
    """Layers, two of them, of a shot in which no mask shows anything: all is background."""
    masks = all_background(frames, PRESETS.get(preset, PRESETS["balanced"]), 2)
    nowhere = masks.new_zeros(len(masks), 3, *masks.shape[2:])
    info = NOTHING.info(preset=preset, flow=flow.method, seconds=0.0)
    info["warning"] = "no mask shows anything here: the foreground is empty; give a mask of one of these frames"
    return Layers("segment", {"masks": masks, "before": nowhere, "after": nowhere}, frames, flow, seed, info)
