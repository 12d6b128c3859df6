"""Real clips, whose truth nobody knows: a sheet of pictures of each, and figures that can say no.

    python benchmarks/real.py --data FOLDER --out FOLDER [--clips NAME ...] [--tasks relight ...] [--frames 12]
        [--side 1024] [--width 360] [--preset balanced]

``--data`` holds ``real/``, ``old_film.mp4``, ``blackswan.mp4``, ``bmx-trees/`` and ``davis/frames/``. Relight, dehaze
and segment run on all of them, deflicker on those that flicker: what needs nothing is to be left alone. Three dark
copies went through H.264 (CRF 35): one by a drifting light, one with its black level taken off, one with a lamp. Of a
hazy still there is a window that pans over it.

``OUT/NAME.png`` has two rows for each task, input above result: first, middle and last frame, and a square of the
middle one, a pixel for a pixel, where the result changed most of what is dark (for dehaze: far). In segment's result
the background is dimmed. Clips wider or higher than ``--side`` are reduced by a whole number: blocks keep their grid.

The figures are those of ``no_reference.py``, input -> result. At the end stands what is over its bar.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import no_reference as figures
import numpy as np
import torch
import torch.nn.functional as F
from clips import clip_paths, write_picture
from dehaze import panned_still
from segment import objects
from torch import Tensor

from comfyui_vdp.vdp_core.degrade import darken
from comfyui_vdp.vdp_core.media.clip import probe, read_clip, write_clip
from comfyui_vdp.vdp_core.models import colour, haze, light
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Layers

DARK = dict.fromkeys(("dark_room.mp4", "night_walker.mp4"), ("relight", "dehaze", "segment"))
HAZY = dict.fromkeys(("fog_path.mp4", "fog_venice"), ("dehaze", "relight", "segment"))
FLICKERING = ("flicker_film", "flicker_timelapse.mp4", "flicker_processed/processed", "../old_film.mp4")
FLICKERS = dict.fromkeys(FLICKERING, ("deflicker", "relight", "dehaze", "segment"))
STILL = "O-HAZE 27, panned"
COPIES = {"dark, CRF 35": "dog", "no black, CRF 35": "hike", "lamp, CRF 35": "bus"}
"""Dark copies, and the clips that they are of."""
QUALITY = 39  # of write_clip: CRF 35
DRIFT = 40  # frames in which light becomes another
OFFSET = 0.06  # taken off as black level
APPLY: dict[str, Callable[[Layers], Tensor]] = {"relight": light.apply, "dehaze": haze.apply, "deflicker": colour.apply}

SHARES = ("blocks", "bands", "burnt", "crushed", "neon")
"""Figures shown in percent."""
PLAIN = ("saturation", "colour in black", "noise", "flicker", "brightness")
SATURATION, SATURATED = 1.2, 0.5
"""Most of a result's saturation, over the source's, and of itself; the second is for haze, under which little is left:
of 16 clear clips the most saturated has 0.50."""
MORE = 0.005
"""By how much the visible share of blocks, of bands, and of what is clipped or neon may grow."""
MORE_NOISE, MORE_COLOUR = 0.5, 4.0
"""Levels by which noise in flat parts may grow beyond what brightness does, and colour in what was black."""


class Clip(NamedTuple):
    """A clip, and what is to be done with it."""

    name: str
    frames: Tensor
    tasks: tuple[str, ...]


class Row(NamedTuple):
    """What one task made of a clip: figures of input and result, by name."""

    clip: str
    task: str
    before: dict[str, float]
    after: dict[str, float]
    seconds: float

    def faults(self) -> list[str]:
        """What is over its bar."""
        before, after = self.before, self.after
        found = [
            name
            for name, room in {**dict.fromkeys(SHARES, MORE), "colour in black": MORE_COLOUR}.items()
            if after[name] > before[name] + room
        ]
        brighter = max(1.0, after["brightness"] / max(before["brightness"], 1e-3))
        if after["noise"] > brighter * before["noise"] + MORE_NOISE:
            found.append("noise")
        most = SATURATION * before["saturation"] + 0.01
        if after["saturation"] > (max(most, SATURATED) if self.task == "dehaze" else most):
            found.append("saturation")
        if self.task == "deflicker" and after["flicker"] > before["flicker"]:
            found.append("flicker")
        return found


# clips


def clips(data: Path, names: list[str] | None, *, frames: int, side: int) -> Iterator[Clip]:
    """All clips, or those of some names."""
    real = {Path(place).stem: (data / "real" / place, tasks) for place, tasks in (DARK | HAZY | FLICKERS).items()}
    clean = {name: Path(path) for name, path in clip_paths(data, davis=True).items() if str(data) in path}
    real |= {name: (path, ("segment", "relight", "dehaze")) for name, path in clean.items()}
    for name in names or [*list(real)[:4], STILL, *COPIES, *list(real)[4:]]:
        if name == STILL:
            yield Clip(name, panned_still(data, frames, 960).hazy, ("dehaze", "relight"))
        elif name in COPIES:
            dark = encoded(name, read(clean[COPIES[name]], max(frames, DRIFT), side), frames)
            yield Clip(name, dark, ("relight", "dehaze", "segment"))
        else:
            path, tasks = real[name]
            yield Clip(name, read(path, frames, side), tasks)


def read(path: Path, frames: int, side: int) -> Tensor:
    """The first frames ``(T, H, W, 3)``, reduced by a whole number where they are too large."""
    info = probe(path)
    by = -(-max(info.width, info.height) // side)
    clip = read_clip(path, count=frames).frames
    if by == 1:
        return clip
    return torch.cat([F.avg_pool2d(frame.movedim(-1, 0)[None], by).movedim(1, -1) for frame in clip])


def encoded(kind: str, clean: Tensor, count: int) -> Tensor:
    """A dark copy of the first frames that went through H.264, in 8 bits."""
    dark = darken(clean, seed=0, noise=0.004)[0][:count]
    if kind.startswith("no black"):
        dark = (dark - OFFSET).clamp_min(0.0)
    if kind.startswith("lamp"):
        height, width = dark.shape[1:3]
        y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
        away = torch.hypot(x - 0.7 * width, y - 0.25 * height) / height
        glow = torch.exp(-away / 0.12) + (away < 0.03)
        dark = 1.0 - (1.0 - 0.5 * dark) * (1.0 - glow[..., None] * torch.tensor([0.95, 0.62, 0.25])).clamp_min(0.0)
    with tempfile.TemporaryDirectory() as folder:
        return read_clip(write_clip(Path(folder) / "dark", dark, fps=25, quality=QUALITY)).frames


# results


def result(task: str, frames: Tensor, layers: Layers) -> Tensor:
    """What a person gets, in 8 bits; of segment the objects over their dimmed background."""
    if task in APPLY:
        return (APPLY[task](layers) * 255.0).round() / 255.0
    mask = objects(layers)[..., None]
    return frames * (0.3 + 0.7 * mask)


def measured(frames: Tensor, black: Tensor, flat: Tensor) -> dict[str, float]:
    """All figures of a clip; ``black`` and ``flat`` are blocks of its source."""
    return {
        "blocks": figures.blocks(frames),
        "bands": figures.bands(frames),
        "burnt": figures.burnt(frames),
        "crushed": figures.crushed(frames),
        "saturation": figures.saturation(frames),
        "neon": figures.neon(frames),
        "colour in black": figures.colour_in_black(frames, black),
        "noise": figures.noise(frames, flat),
        "flicker": figures.flicker(frames),
        "brightness": float(frames.mean()),
    }


# sheets


def rows(task: str, before: Tensor, after: Tensor, long_side: int) -> Tensor:
    """Input above result, ``(H, W, 3)``."""
    height, width = (round(long_side * side / max(before.shape[1:3])) for side in before.shape[1:3])
    middle = len(before) // 2
    side = min(height, *before.shape[1:3])
    top, left = changed_most(task, before[middle], after[middle], side)
    made = []
    for label, clip in (("input", before), (task, after)):
        shown = clip[[0, middle, len(clip) - 1]].movedim(-1, 1)
        shown = F.interpolate(shown, size=(height, width), mode="area").movedim(1, -1)
        square = clip[middle, top : top + side, left : left + side]
        square = F.pad(square.movedim(-1, 0), (0, height - side, 0, height - side)).movedim(0, -1)
        made.append(written(torch.cat([*shown, square], dim=1), label))
    return torch.cat(made)


def changed_most(task: str, before: Tensor, after: Tensor, side: int) -> tuple[int, int]:
    """Top and left of the square of a frame ``(H, W, 3)`` in which what is dark, or far, changed most."""
    change = (after - before).abs().mean(dim=-1)
    dark = (-before.mean(dim=-1) / 0.1).exp()
    # haze is bright and has little colour
    far = before.amin(dim=-1).square()
    weighed = change * {"relight": dark, "dehaze": far}.get(task, torch.ones_like(change))
    sums = F.avg_pool2d(weighed[None, None], side, stride=4)[0, 0]
    place = int(sums.argmax())
    return place // sums.shape[1] * 4, place % sums.shape[1] * 4


def written(picture: Tensor, label: str) -> Tensor:
    levels: np.ndarray = (picture * 255.0).round().byte().numpy().copy()
    for colour_of_text, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(levels, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour_of_text, thick, cv2.LINE_AA)
    return torch.from_numpy(levels).float() / 255.0


def head() -> str:
    names = [*(f"{name} (%)" for name in SHARES), *PLAIN, "over its bar", "s"]
    return "| clip | task | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 2) + "|"


def line(row: Row) -> str:
    cells = [f"{100 * row.before[name]:.2f} -> {100 * row.after[name]:.2f}" for name in SHARES]
    cells += [f"{row.before[name]:.2f} -> {row.after[name]:.2f}" for name in PLAIN]
    return f"| {row.clip} | {row.task} | {' | '.join(cells)} | {', '.join(row.faults())} | {row.seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for sheets")
    parser.add_argument("--clips", nargs="+", help="only these")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--side", type=int, default=1024, help="most of a side that is worked at")
    parser.add_argument("--width", type=int, default=360, help="of a frame's long side on a sheet")
    parser.add_argument("--preset", default="balanced")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    print(head(), flush=True)
    found = []
    for clip in clips(options.data, options.clips, frames=options.frames, side=options.side):
        flow = estimate_flow(clip.frames, model="dis")
        black, flat = figures.black_blocks(clip.frames), figures.flat_parts(clip.frames)
        before = measured(clip.frames, black, flat)
        sheet = []
        for task in clip.tasks:
            if options.tasks and task not in options.tasks:
                continue
            started = time.perf_counter()
            layers = decompose(task, clip.frames, flow, preset=options.preset)
            after = result(task, clip.frames, layers)
            seconds = time.perf_counter() - started
            sheet.append(rows(task, clip.frames, after, options.width))
            if task in APPLY:
                found.append(Row(clip.name, task, before, measured(after, black, flat), seconds))
                print(line(found[-1]), flush=True)
            print(f"{clip.name}, {task}: {seconds:.0f} s {dict(layers.info)}", file=sys.stderr, flush=True)
        if sheet:
            write_picture(options.out / f"{clip.name.replace(' ', '_').replace(',', '')}.png", torch.cat(sheet))
    over = [f"{row.clip}, {row.task}: {', '.join(row.faults())}" for row in found if row.faults()]
    print(f"\n{len(found) - len(over)} of {len(found)} results are within all bars" + (":" if over else "."))
    print("\n".join(f"- {one}" for one in over))


if __name__ == "__main__":
    main()
