"""Dehazing hazy copies of clips whose haze is known: ours, baselines and an oracle, side by side.

    python benchmarks/dehaze.py [--data FOLDER] [--kinds smooth ...] [--seeds 0 1 2] [--frames 24] [--paper]
    python benchmarks/dehaze.py --data FOLDER --davis --kinds range bars still clear --seeds 0 [--sheet FOLDER]

A copy is ``t x + (1 - t) L``, ``t = exp(-beta depth)``, rounded to 8 bits. Smooth: the depth is a ramp and a smooth
field that drifts, with every beta and airlight. Noisy: the same with Gaussian noise. Edges: discs that move, cut from
another clip, are in front of the ramp, at their own depth. Then what must not be harmed: rooms with bright walls in
dense haze, bright clips in dense haze, and clear clips. Range: each clip in five hazes from thin to dense, their
airlights grey, white, bluish, warm and of dusk, by turns standing still in the frame and drifting. Bars: one of these
between black bars. Lifted: one of these over a scene without anything dark. Still: a window that pans over a real pair.
``--sheet`` writes pictures of real clips.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from baselines import clahe, dark_channel, true_haze
from clips import clip_paths, discs, load, write_picture
from peers import HAZE, load_peers
from torch import Tensor

from comfyui_vdp.vdp_core.degrade import haze, hazy_depth
from comfyui_vdp.vdp_core.image.resize import resize
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.metrics import psnr, ssim, warping_error
from comfyui_vdp.vdp_core.models import haze as haze_model
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks.driver import decompose

BETAS = (0.8, 1.4, 2.0)
AIRLIGHTS = ((0.8, 0.8, 0.8), (0.95, 0.95, 0.95), (0.75, 0.8, 0.9))
NOISE = 0.01
RANGE = (0.6, 1.0, 1.4, 1.8, 2.2)
RANGE_AIRLIGHTS = ((0.8, 0.8, 0.8), (0.95, 0.95, 0.95), (0.75, 0.8, 0.9), (0.92, 0.84, 0.7), (0.6, 0.6, 0.62))
BAR = 0.3  # of the width, on each side: an upright picture of 9:16 in a frame of 16:9
BLACK = 4 / 255  # of the bars
REAL = ("fog_path.mp4", "fog_venice")
METHODS = ("hazy input", "CLAHE", "dark channel", "ours", "paper", "oracle")


class Case(NamedTuple):
    """A clip, and a hazy copy of it."""

    kind: str
    name: str
    clean: Tensor
    hazy: Tensor
    through: Tensor
    airlight: tuple[float, float, float]


def cases(clips: dict[str, Tensor], seeds: list[int], kinds: list[str]) -> Iterator[Case]:
    """Every kind asked for, of every clip."""
    names = list(clips)
    for index, (name, clean) in enumerate(clips.items()):
        shape = clean.shape[:3]
        for seed, (number, (beta, airlight)) in product(seeds, enumerate(product(BETAS, AIRLIGHTS))):
            depth = hazy_depth(*shape, seed=100 * seed + number)
            if "smooth" in kinds:
                yield Case("smooth", name, clean, *haze(clean, depth, beta=beta, airlight=airlight), airlight)
            if number not in (0, 4, 8):  # each beta and each airlight once
                continue
            if "noisy" in kinds:
                noisy = haze(clean, depth, beta=beta, airlight=airlight, noise=NOISE, seed=seed)
                yield Case("noisy", name, clean, *noisy, airlight)
            if "edges" in kinds:
                scene, with_discs = discs(clean, clips[names[index - 1]], depth, seed=seed)
                yield Case("edges", name, scene, *haze(scene, with_discs, beta=beta, airlight=airlight), airlight)
            if "room" in kinds:
                scene = room(clean)
                yield Case("room", name, scene, *haze(scene, depth, beta=2.0, airlight=airlight), airlight)
            if "bright" in kinds:
                scene = 1.0 - 0.45 * (1.0 - clean)
                yield Case("bright", name, scene, *haze(scene, depth, beta=2.0, airlight=airlight), airlight)
        if kinds_of_range := {"range", "bars", "lifted"} & set(kinds):
            yield from hazes(index, name, clean, kinds_of_range)
        if "clear" in kinds:
            yield Case("clear", name, clean, clean, torch.ones(shape), AIRLIGHTS[0])


def hazes(index: int, name: str, clean: Tensor, kinds: set[str]) -> Iterator[Case]:
    """The five hazes of a clip, from thin to dense; the third of them also with bars, and over a lifted scene."""
    shape = clean.shape[:3]
    for number, beta in enumerate(RANGE):
        turn = number + index
        airlight = RANGE_AIRLIGHTS[turn % 5]
        depth = hazy_depth(*shape, seed=1000 + 10 * index + number)
        if turn % 2 == 1:  # stands still in the frame
            depth = depth[:1].expand(shape).contiguous()
        hazy, through = haze(clean, depth, beta=beta, airlight=airlight)
        if "range" in kinds:
            yield Case("range", name, clean, hazy, through, airlight)
        if "bars" in kinds and number == 2:
            yield Case("bars", name, barred(clean), barred(hazy), through, airlight)
        if "lifted" in kinds and number == 2:
            lifted = 1.0 - 0.8 * (1.0 - clean)
            yield Case("lifted", name, lifted, *haze(lifted, depth, beta=beta, airlight=airlight), airlight)


def barred(clip: Tensor) -> Tensor:
    """The clip with black bars at its sides."""
    clip, width = clip.clone(), round(BAR * clip.shape[2])
    clip[:, :, :width] = clip[:, :, clip.shape[2] - width :] = BLACK
    return clip


def panned_still(data: Path, count: int, width: int) -> Case:
    """A window that pans over a real hazy still and the same view without haze (O-HAZE)."""
    clear, hazy = (read_clip(str(data / "real" / "ohaze" / f"27_{name}.jpg")).frames[0] for name in ("GT", "hazy"))
    across = int(0.7 * hazy.shape[1])
    down = across * 9 // 16
    top = (hazy.shape[0] - down) // 2
    steps = [round(index / max(1, count - 1) * (hazy.shape[1] - across)) for index in range(count)]

    def pan(still: Tensor) -> Tensor:
        windows = torch.stack([still[top : top + down, left : left + across] for left in steps])
        return resize(windows.movedim(-1, 1), (round(width * 9 / 16), width), mode="area").movedim(1, -1).contiguous()

    shown = pan(hazy)
    return Case("still", "O-HAZE 27", pan(clear), shown, torch.ones(shown.shape[:3]), RANGE_AIRLIGHTS[0])


def write_sheets(folder: Path, data: Path, *, frames: int, width: int, preset: str) -> None:
    """Real clips, first and last frame: as they are, by the dark channel prior, and by ours, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = {name: load(str(data / "real" / name), frames=frames, width=width) for name in REAL}
    clips["ohaze"] = panned_still(data, frames, width).hazy
    for name, clip in clips.items():
        flow = estimate_flow(clip, model="dis")
        ours = haze_model.apply(decompose("dehaze", clip, flow, preset=preset))
        rows = [torch.cat([clip[at], dark_channel(clip[at, None])[0], ours[at]], dim=1) for at in (0, -1)]
        path = folder / f"{Path(name).stem}.png"
        write_picture(path, torch.cat(rows))
        print(path, file=sys.stderr)


def room(clip: Tensor) -> Tensor:
    """Bright walls and a floor, faintly shaded and textured, and an ellipse that sways and shows the clip."""
    count, height, width, _ = clip.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    grain = torch.randn(1, 1, height // 4, width // 4, generator=torch.Generator().manual_seed(0))
    grain = F.interpolate(grain, size=(height, width), mode="bicubic", align_corners=False)[0, 0]
    wall = (0.84 + 0.06 * x * y - 0.05 * y + 0.012 * grain)[..., None] * torch.tensor([1.0, 0.98, 0.94])
    wall = wall - 0.25 * (y > 0.55)[..., None] * torch.tensor([0.6, 0.8, 1.0])
    frames = []
    for index in range(count):
        across = (x - 0.3 * math.sin(index / 8)) / 0.38
        inside = (across.square() + ((y - 0.25) / 0.65).square() < 1.0)[..., None]
        frames.append(torch.where(inside, clip[index], wall))
    return torch.stack(frames).clamp(0.0, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with blackswan.mp4 and bmx-trees/")
    parser.add_argument("--clips", nargs="+", help="only these")
    usual = ["smooth", "noisy", "edges", "room", "bright", "clear"]
    parser.add_argument("--davis", action="store_true", help="also the clips of davis/frames/ in that folder")
    parser.add_argument("--kinds", nargs="+", choices=[*usual, "range", "bars", "lifted", "still"], default=usual)
    parser.add_argument("--sheet", type=Path, help="write pictures of real clips there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--paper", action="store_true", help="also the preset paper, for --paper-steps steps")
    parser.add_argument("--paper-steps", type=int, default=200)
    parser.add_argument("--peers", type=Path, help="folder with repositories of published networks, see peers.py")
    options = parser.parse_args()

    peers = load_peers(HAZE, options.peers)
    if options.sheet is not None:
        sizes = {"frames": options.frames, "width": options.width}
        write_sheets(options.sheet, options.data, **sizes, preset=options.preset)
    paths = clip_paths(options.data, davis=options.davis)
    clips = {
        name: load(paths[name], frames=options.frames, width=options.width) for name in options.clips or list(paths)
    }
    rows: dict[tuple[str, str, str], list[tuple[float, ...]]] = {}
    spent: list[float] = []
    still = [panned_still(options.data, options.frames, options.width)] if "still" in options.kinds else []
    for case in chain(still, cases(clips, options.seeds, options.kinds)):
        motion = estimate_flow(case.clean, model="dis", lift_dark=False)
        started = time.perf_counter()
        flow = estimate_flow(case.hazy, model="dis")
        layers = decompose("dehaze", case.hazy, flow, preset=options.preset)
        made = {"hazy input": case.hazy, "ours": haze_model.apply(layers)}
        spent.append(time.perf_counter() - started)
        if case.kind != "clear":
            made["CLAHE"] = clahe(case.hazy)
        if case.kind not in ("clear", "still", "bars"):
            made["oracle"] = true_haze(case.hazy, case.through, case.airlight)
        made["dark channel"] = dark_channel(case.hazy)
        made |= {name: peer(case.hazy) for name, peer in peers.items()}
        if options.paper:
            paper = decompose("dehaze", case.hazy, flow, preset="paper", steps=options.paper_steps)
            made["paper"] = haze_model.apply(paper)
        floor = warping_error(case.clean, motion)
        for method, frames in made.items():
            figures = (psnr(frames, case.clean), ssim(frames, case.clean), warping_error(frames, motion) / floor)
            rows.setdefault((case.kind, case.name, method), []).append(figures)
        told = ", ".join(f"{name} {psnr(frames, case.clean):.2f}" for name, frames in made.items())
        print(f"{case.kind}, {case.name}, airlight {case.airlight}: {told}", file=sys.stderr)

    means = {key: tuple(map(statistics.fmean, zip(*values, strict=True))) for key, values in rows.items()}
    print("| haze | clip | method | PSNR | SSIM | warping error, of the truth's |\n|---|---|---|---|---|---|")
    for kind in options.kinds:
        for name in [*clips, *(case.name for case in still), "**mean**"]:
            for method in (*METHODS, *peers):
                found = [
                    means[key] for key in means if key[0] == kind and key[2] == method and name in (key[1], "**mean**")
                ]
                if found:
                    quality, alike, flicker = map(statistics.fmean, zip(*found, strict=True))
                    print(f"| {kind} | {name} | {method} | {quality:.2f} | {alike:.3f} | {flicker:.2f} |")
    print()
    for kind in options.kinds:
        for base in ("dark channel", "hazy input"):
            gains = [
                one[0] - other[0]
                for name in [*clips, *(case.name for case in still)]
                for one, other in zip(rows.get((kind, name, "ours"), []), rows.get((kind, name, base), []), strict=True)
            ]
            print(f"{kind}: ours over {base} {statistics.fmean(gains):+.2f} dB on the mean, {min(gains):+.2f} at worst")
    print(f"{statistics.fmean(spent):.1f} s a clip of {options.frames} frames of width {options.width}, flow included")


if __name__ == "__main__":
    main()
