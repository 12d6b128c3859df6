"""What each prior brings: our preset, the same with one prior off at a time, and the published method.

    python benchmarks/ablation.py --task relight|dehaze|segment [--data FOLDER] [--clips NAME ...] [--seeds 0]
        [--frames 24] [--width 320] [--preset balanced] [--paper-steps 60]

A prior is a field of the task's settings whose comment begins with "Weight of"; off is a weight of 0. What works before
and after the optimisation is left out in turn too. Figures are means over clips and seeds; the change beside each is
against the preset as it is. The preset ``paper`` runs for as many steps as asked, its schedule shortened to them: the
published number takes an hour or more on a CPU.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import torch
import torch.nn.functional as F
from baselines import best_gain_and_gamma
from clips import clip_paths, discs, load, synthetic
from torch import Tensor

from comfyui_vdp.vdp_core.degrade import darken, haze, hazy_depth
from comfyui_vdp.vdp_core.errors import FitError
from comfyui_vdp.vdp_core.image.matting import native_masks
from comfyui_vdp.vdp_core.image.selection import as_mask
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.metrics import boundary_f, iou, psnr, warping_error
from comfyui_vdp.vdp_core.models import haze as haze_model
from comfyui_vdp.vdp_core.models import light
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.base import Preset
from comfyui_vdp.vdp_core.tasks.driver import decompose as optimised
from comfyui_vdp.vdp_core.types import Flow, Layers

Score = tuple[float, ...]


@dataclass(frozen=True)
class Case:
    """One clip to decompose."""

    name: str
    frames: Tensor
    flow: Flow
    score: Callable[[Layers], Score]
    """How good what was found is."""


@dataclass(frozen=True)
class Study:
    """What is measured of a task."""

    figures: tuple[str, ...]
    cases: Callable[[argparse.Namespace], Iterator[Case]]
    beforehand: dict[str, Callable[[Case], Case]] = field(default_factory=dict)
    """What works before the optimisation: the clip without it, by name."""
    afterwards: dict[str, Callable[[Layers], Layers]] = field(default_factory=dict)
    """What works after the optimisation: the layers without it, by name."""
    idle: tuple[str, ...] = ()
    """Weights that do nothing here."""


def clean_clips(options: argparse.Namespace) -> Iterator[tuple[str, Tensor]]:
    paths = clip_paths(options.data)
    for name in options.clips or paths:
        yield name, load(paths[name], frames=options.frames, width=options.width)


def without_lifted_flow(case: Case) -> Case:
    return replace(case, flow=estimate_flow(case.frames, model="dis", lift_dark=False))


# relight


def dark_clips(options: argparse.Namespace) -> Iterator[Case]:
    """Dark copies with known truth, as in benchmarks/relight.py."""
    for name, clean in clean_clips(options):
        motion = estimate_flow(clean, model="dis")
        for seed in options.seeds:
            dark, _ = darken(clean, seed=seed)

            def score(layers: Layers, clean: Tensor = clean, motion: Flow = motion) -> Score:
                made = light.apply(layers)
                return psnr(made, clean), psnr(best_gain_and_gamma(made, clean), clean), warping_error(made, motion)

            yield Case(f"{name}, seed {seed}", dark, estimate_flow(dark, model="dis"), score)


def without_tone(layers: Layers) -> Layers:
    """With the light undone, but neither gamma nor gain."""
    colour, gamma = layers.fields["colour"], layers.fields["gamma"]
    neutral = {"colour": torch.zeros_like(colour), "gamma": torch.ones_like(gamma)}
    return replace(layers, fields={**layers.fields, **neutral, "log_gain": layers.fields["log_gain"] / gamma})


def without_noise_removal(layers: Layers) -> Layers:
    return replace(layers, fields={**layers.fields, "noise": torch.zeros_like(layers.fields["noise"])})


# dehaze


def hazy_clips(options: argparse.Namespace) -> Iterator[Case]:
    """Hazy copies with known truth: a depth ramp and a smooth field that drifts, under a slightly blue airlight.

    Then the same with two discs of another clip in front, nearer than what they hide.
    """
    clips = dict(clean_clips(options))
    before = list(clips.values())[-1]
    for (name, clean), seed in product(clips.items(), options.seeds):
        depth = hazy_depth(*clean.shape[:3], seed=seed)
        for kind, scene, far in (("smooth", clean, depth), ("objects", *discs(clean, before, depth, seed=seed))):
            hazy, through = haze(scene, far, airlight=(0.78, 0.82, 0.86))
            motion = estimate_flow(scene, model="dis")
            yield Case(
                f"{name}, {kind}, seed {seed}",
                hazy,
                estimate_flow(hazy, model="dis"),
                partial(against_haze, clean=scene, through=through, motion=motion),
            )
        before = clean


def against_haze(layers: Layers, *, clean: Tensor, through: Tensor, motion: Flow) -> Score:
    field = layers.fields["transmission"]
    found = F.interpolate(field, size=clean.shape[1:3], mode="bilinear", align_corners=False)
    made = haze_model.apply(layers)
    return psnr(made, clean), float((found[:, 0] - through).abs().mean()), warping_error(made, motion)


# segment


def moving_objects(options: argparse.Namespace) -> Iterator[Case]:
    """DAVIS clips with drawn masks, where there is a data folder, and rendered clips of two objects, one a seed."""
    paths = clip_paths(options.data)
    for name in ("blackswan", "bmx-trees"):
        if name in paths and name in (options.clips or paths):
            frames = load(paths[name], frames=options.frames, width=options.width)
            drawn = as_mask(read_clip(options.data / f"{name}_mask", count=options.frames).frames)
            truth = F.interpolate(drawn[:, None], size=frames.shape[1:3], mode="area")[:, 0]
            yield Case(name, frames, estimate_flow(frames, model="dis"), foreground_against(truth))
    if not options.clips:
        for seed in options.seeds:
            height = options.width * 9 // 16
            clip = synthetic().layered(options.frames, height, options.width, objects=2, seed=seed)
            flow = estimate_flow(clip.frames, model="dis")
            yield Case(f"rendered, seed {seed}", clip.frames, flow, foreground_against(1.0 - clip.masks[:, 0]))


def foreground_against(truth: Tensor) -> Callable[[Layers], Score]:
    def score(layers: Layers) -> Score:
        found = torch.cat([1.0 - native_masks(layers, i, i + 1)[:, 0] for i in range(len(layers))])
        return iou(found, truth), boundary_f(found, truth)

    return score


# all tasks

STUDIES = {
    "relight": Study(
        ("PSNR", "PSNR fitted", "warping error"),
        dark_clips,
        {"flow of a lifted copy": without_lifted_flow},
        {"natural brightness and contrast": without_tone, "noise removal": without_noise_removal},
        idle=("reference",),  # no still is given
    ),
    "dehaze": Study(
        ("PSNR", "error of t", "warping error"),
        hazy_clips,
        afterwards={"noise removal": without_noise_removal},
    ),
    "segment": Study(("IoU", "boundary F"), moving_objects),
}


def priors(settings: object) -> dict[str, str]:
    """The weights among a task's settings, and what their comments say of them."""
    declared = ast.parse(inspect.getsource(type(settings))).body[0]
    assert isinstance(declared, ast.ClassDef)
    found: dict[str, str] = {}
    for entry, comment in pairwise(declared.body):
        if not (isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name)):
            continue
        text = ast.unparse(comment).strip("\"'") if isinstance(comment, ast.Expr) else ""
        name = entry.target.id
        if text.startswith("Weight of ") and getattr(settings, name):
            found[name] = text.removeprefix("Weight of ").split(";")[0].rstrip(".")
    return found


def versions(study: Study, task: str, case: Case, options: argparse.Namespace) -> Iterator[tuple[str, Score, float]]:
    """Name, figures and seconds a step of each version."""

    def decompose(preset: str, steps: int = 0, case: Case = case) -> tuple[Layers | None, float]:
        started = time.perf_counter()
        try:
            layers = optimised(task, case.frames, case.flow, preset=preset, steps=steps)
        except FitError:
            return None, 0.0
        return layers, (time.perf_counter() - started) / max(1, int(layers.info["steps"]))

    def judged(layers: Layers | None) -> Score:
        return (math.nan,) * len(study.figures) if layers is None else case.score(layers)

    whole, seconds = decompose(options.preset)
    yield options.preset, judged(whole), seconds
    presets = TASKS[task].presets
    settings = presets[options.preset].config
    for name, meaning in priors(settings).items():
        if name in study.idle:
            continue
        presets["ablated"] = Preset(replace(settings, **{name: 0.0}))
        layers, seconds = decompose("ablated")
        yield f"without `{name}`: {meaning}", judged(layers), seconds
    for name, prepare in study.beforehand.items():
        layers, seconds = decompose(options.preset, case=prepare(case))
        yield f"without {name}", judged(layers), seconds
    for name, change in study.afterwards.items():
        yield f"without {name}", judged(None if whole is None else change(whole)), 0.0
    if options.paper_steps > 0:
        layers, seconds = decompose("paper", options.paper_steps)
        yield f"paper, {options.paper_steps} steps", judged(layers), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(STUDIES), required=True)
    parser.add_argument("--data", type=Path, help="folder with blackswan.mp4, bmx-trees/ and their masks")
    parser.add_argument("--clips", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--paper-steps", type=int, default=60, help="0 leaves the preset paper out")
    options = parser.parse_args()

    study = STUDIES[options.task]
    scores: dict[str, list[Score]] = {}
    seconds: dict[str, list[float]] = {}
    for case in study.cases(options):
        for version, score, spent in versions(study, options.task, case, options):
            scores.setdefault(version, []).append(score)
            seconds.setdefault(version, []).append(spent)
        print(f"{case.name}: done", file=sys.stderr)

    means = {version: tuple(map(statistics.fmean, zip(*rows, strict=True))) for version, rows in scores.items()}
    print(f"| version | {' | '.join(study.figures)} |\n|---|{'---|' * len(study.figures)}")
    for version, values in means.items():
        cells = [f"{value:.4g}" for value in values]
        if version != options.preset:
            changes = (value - whole for value, whole in zip(values, means[options.preset], strict=True))
            cells = [f"{cell} ({change:+.2g})" for cell, change in zip(cells, changes, strict=True)]
        print(f"| {version} | {' | '.join(cells)} |")
    for version in means:
        if version == options.preset or version.startswith("paper"):
            print(f"{version}: {statistics.fmean(seconds[version]):.2f} s a step")


if __name__ == "__main__":
    main()
