"""A task done on a clip: everything checked first, then shot by shot, and the layers of the whole."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import check_flow, check_frames
from ..errors import InputError, ShapeError
from ..optim.progress import Progress
from ..store.journal import NO_JOURNAL, Journal
from ..types import Flow, Layers, OnStep, Shot
from . import TASKS, task_of
from .base import Given, Preset, Task, Work
from .inputs import INPUTS

__all__ = ["check_inputs", "decompose"]


def decompose(
    name: str,
    frames: Tensor,
    flow: Flow | None = None,
    *,
    preset: str = "balanced",
    steps: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    weights_folders: tuple[Path, ...] = (),
    journal: Journal = NO_JOURNAL,
    on_step: OnStep | None = None,
    **given: Any,
) -> Layers:
    """Take a clip apart, each shot by itself, as ``flow.cuts`` has them; the layers are those of the whole clip.

    Args:
        name: of the task.
        frames: ``(T, H, W, 3)`` in 0..1.
        flow: of the same clip; None only for tasks that need none.
        preset: one of the task's.
        steps: of the optimisation, at most; 0 takes the preset's.
        seed: the same seed gives the same layers, on a CPU to the bit.
        device: where to optimise.
        weights_folders: where networks look for pretrained weights, besides torch's cache.
        journal: where to keep what is found on the way, to go on from when the work was cut off.
        on_step: told after every step; stops the work by raising.
        given: inputs of the task by name, see ``inputs``; what is not given is as its default says.

    Returns:
        Layers of the task's model, with the fields that the model declares.

    Raises:
        InputError, ShapeError: something cannot be used; before any work.
        FitError: the optimisation diverged.
    """
    task = task_of(name)
    frames, checked, config = check_inputs(name, frames, preset=preset, steps=steps, **given)
    spans = _shots(task, flow, len(frames))
    way = task.presets[preset]

    started = time.perf_counter()
    *phases, finishing = Progress(on_step).phases(*[1] * len(spans), 0 if task.finish is None else len(spans) / 8)
    found = []
    for number, (span, progress) in enumerate(zip(spans, phases, strict=True)):
        motion = None if flow is None else flow.part(span.start, span.stop)
        shot = Shot(frames[span.start : span.stop], motion, span)
        own = {one.name: one.of_shot(checked[one.name], span) for one in task.inputs}
        place = journal if len(spans) == 1 else journal.part(f"shot_{number}")
        work = Work(seed, torch.device(device), tuple(weights_folders), place, progress)
        found.append((way.find or task.find)(shot, own, config, work))
    whole = found[0] if len(found) == 1 else task.join(found, spans, checked)
    method = "none" if flow is None else flow.method
    info = whole.fitted.info(preset=preset, flow=method, seconds=time.perf_counter() - started)
    layers = Layers(task.model, whole.fields, frames, flow, seed, {**info, **whole.notes}, assets=whole.assets)
    return layers if task.finish is None else task.finish(layers, torch.device(device), finishing)


def check_inputs(name: str, frames: Tensor, *, preset: str, steps: int, **given: Any) -> tuple[Tensor, Given, Any]:
    """Look at everything but the flow, which takes a while to be found.

    Args:
        name, frames, preset, steps, given: see ``decompose``.

    Returns:
        The frames, the inputs of the task as it takes them, and the config of the preset.

    Raises:
        InputError, ShapeError: something cannot be used.
    """
    task = task_of(name)
    frames = check_frames(frames, at_least=task.least_frames, smallest_side=task.least_side)
    given = {one.name: one.default for one in INPUTS} | given
    _refuse_others(f"the task {name}", task.inputs, given)
    if preset not in task.presets:
        raise InputError(f"preset: there is no '{preset}'; known: {', '.join(task.presets)}")
    if steps < 0:
        raise InputError(f"steps: 0 for the preset's, or more, got {steps}")
    way = task.presets[preset]
    config = replace(way.config, steps=steps or way.config.steps)  # type: ignore[type-var]  # a dataclass
    checked: Given = {one.name: one.check(given, frames) for one in task.inputs}
    _refuse_without(preset, way, checked)
    return frames, task.prepare(frames, checked, config), config


def _shots(task: Task, flow: Flow | None, count: int) -> list[range]:
    """The frames of each shot of a clip of ``count`` frames; refuses a flow that the task cannot work with."""
    if flow is None:
        if task.needs_flow:
            raise InputError(f"flow: the task {task.name} needs the motion of the clip; link RAFTFlow's output")
        return [range(count)]
    check_flow(flow, count)
    for shot in flow.shots:
        if len(shot) < task.least_frames:
            raise ShapeError(
                f"flow: its shot at frame {shot.start} has {len(shot)} frame{'s' * (len(shot) != 1)}, the task "
                f"{task.name} needs {task.least_frames}; leave that cut out"
            )
    return flow.shots


def _refuse_others(what: str, taken: tuple[object, ...], given: Given) -> None:
    """Refuse what was linked to inputs that the task does not take; widgets always have a value."""
    for one in INPUTS:
        if one not in taken and "default" not in one.options and given[one.name] is not None:
            takers = [task.name for task in TASKS.values() if one in task.inputs]
            raise InputError(f"{one.name}: {what} takes none; unlink it, or choose the task {' or '.join(takers)}")
    if unknown := set(given) - {one.name for one in INPUTS}:
        raise InputError(f"{min(unknown)}: no task takes such an input; known: {', '.join(one.name for one in INPUTS)}")


def _refuse_without(preset: str, way: Preset, checked: Given) -> None:
    for one in way.without:
        if "default" not in one.options and checked[one.name] is not None:
            raise InputError(f"{one.name}: the preset '{preset}' takes none; choose another preset, or unlink it")
