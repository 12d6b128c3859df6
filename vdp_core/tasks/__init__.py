"""The tasks: each finds the fields of one composition model, shot by shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from ...vdp_core.checks import check_flow, check_frames
from ...vdp_core.errors import InputError
from ...vdp_core.optim.windows import share_of_steps
from ...vdp_core.store.checkpoint import Checkpoint
from ...vdp_core.store.scratch import large_empty
from ...vdp_core.tasks.dehaze import task as dehaze
from ...vdp_core.tasks.relight import task as relight
from ...vdp_core.tasks.segment import task as segment
from ...vdp_core.types import Flow, Layers, OnStep

__all__ = ["TASKS", "decompose", "task"]

TASKS: dict[str, ModuleType] = {"relight": relight, "dehaze": dehaze, "segment": segment}


def task(name: str) -> ModuleType:
    """Return the module of a task: ``decompose``, ``compose``, ``rebuild`` and ``apply``.

    Raises:
        InputError: there is no such task.
    """
    if name not in TASKS:
        raise InputError(f"task: there is no '{name}'; known: {', '.join(TASKS)}")
    return TASKS[name]


def decompose(
    name: str,
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
    """Take a clip apart, each shot by itself, as ``flow.cuts`` has them; the layers are those of the whole clip.

    A reference belongs to the shot of its frame, and lends its gamma and colour to the others. A mask belongs to the
    shots in which it shows something; in the others there is nothing in front.

    Args:
        name: of the task.
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more.
        flow: of the same clip.
        preset, steps, seed, layers, reference, reference_frame, mask, mask_frame, device, weights_folders, checkpoint:
            see the task's own ``decompose``.
        on_step: told after every step; stops the work by raising.

    Raises:
        InputError, ShapeError: see the task's own ``decompose``.
    """
    model = task(name)
    shots = flow.shots if isinstance(flow, Flow) else []
    settings = {
        "preset": preset,
        "steps": steps,
        "seed": seed,
        "layers": layers,
        "device": device,
        "weights_folders": weights_folders,
    }
    if len(shots) < 2:
        return model.decompose(
            frames,
            flow,
            reference=reference,
            reference_frame=reference_frame,
            mask=mask,
            mask_frame=mask_frame,
            checkpoint=checkpoint,
            on_step=on_step,
            **settings,
        )
    frames = check_frames(frames, at_least=2)
    check_flow(flow, len(frames))
    graded: int | None = None
    if not -1 <= reference_frame < len(frames):
        raise InputError(
            f"reference_frame: -1 to look for it, or 0 to {len(frames) - 1} in this clip, got {reference_frame}"
        )
    if name == "relight" and reference is not None:
        reference, reference_frame = relight.check_reference(reference, reference_frame, frames)
        graded = next(number for number, shot in enumerate(shots) if reference_frame in shot)
    given = None
    if name == "segment" and mask is not None:
        given = segment.masks_given(mask, mask_frame, frames)
    found: list[Layers] = []
    for number, shot in enumerate(shots):
        own: dict[str, object] = {"reference": reference, "mask": mask}  # refused by tasks that take none
        if name == "relight":
            own["reference"] = reference if number == graded else None
            own["reference_frame"] = reference_frame - shot.start if number == graded else -1
        part, motion = frames[shot.start : shot.stop], flow.part(shot.start, shot.stop)
        if given is not None:
            own["mask"] = segment.masks_of_shot(given, shot)
            if own["mask"] is None:
                found.append(segment.nothing(part, motion, preset=preset, seed=seed))
                continue
        found.append(
            model.decompose(
                part,
                motion,
                checkpoint=None if checkpoint is None else checkpoint.part(f"shot_{number}"),
                on_step=share_of_steps(on_step, number, len(shots)),
                **settings,
                **own,
            )
        )
    if graded is not None:
        found = [relight.graded_like(part, found[graded]) for part in found]
    whole = _joined(found, frames, flow, seed)
    return whole if graded is None else replace(whole, info={**whole.info, "reference_frame": str(reference_frame)})


def _joined(parts: Sequence[Layers], frames: Tensor, flow: Flow, seed: int) -> Layers:
    """The layers of a clip from those of its shots."""
    fields = {}
    for name, field in parts[0].fields.items():
        fields[name] = whole = large_empty(len(frames), *field.shape[1:], dtype=field.dtype)
        torch.cat([part.fields[name] for part in parts], out=whole)
    info = dict(parts[0].info)
    info["steps"] = str(sum(int(part.info["steps"]) for part in parts))
    info["seconds"] = f"{sum(float(part.info['seconds']) for part in parts):.1f}"
    info["said"] = "; ".join([f"{len(parts)} shots", *dict.fromkeys(_numbered(parts, "said"))])
    warnings = list(dict.fromkeys(_numbered(parts, "warning")))
    info.pop("warning", None)
    if warnings:
        info["warning"] = "; ".join(warnings)
    for name in [name for name in info if name.startswith("loss_")]:
        losses = [float(part.info[name]) for part in parts if name in part.info]
        info[name] = f"{sum(losses) / len(losses):.5g}"
    return replace(parts[0], fields=fields, frames=frames, flow=flow, seed=seed, info=info)


def _numbered(parts: Sequence[Layers], key: str) -> list[str]:
    """What shots have to say, by their number; nothing where they have nothing to say."""
    return [f"shot {number}: {part.info[key]}" for number, part in enumerate(parts, 1) if part.info.get(key)]
