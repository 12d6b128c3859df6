"""Mattes of people: the network beside the same one written plainly, and what warming up brings.

    python benchmarks/matte.py --weights FILE --data FOLDER [--frames 12]

``FILE`` holds the network's published weights, ``FOLDER`` clips of people with masks in every frame, as DAVIS has
them: ``davis/frames/`` and ``davis/masks/``. The plain network (``tests/plain_matting.py``) has a layer for each
normalisation and torchvision's backbone; both see frames of 1920x1080 at ratio 0.25 in turn, in one process and one
thread. Beginnings are clips that start at every 20th frame. Their error is the mean absolute difference from the mask,
by 1000: masks are hard and drawn by people, so that even true mattes have some.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from plain_matting import PlainMatting

from comfyui_vdp.vdp_core.edit.matte_video import matte_video
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.metrics import published
from comfyui_vdp.vdp_core.models.masks import matte_and_colours
from comfyui_vdp.vdp_core.nets.matting_weights import BACKBONE_EPS, EPS, load_matting
from comfyui_vdp.vdp_core.nets.recurrent_matting import RecurrentMatting, State, auto_ratio, shrunk

PEOPLE = ("lucia", "hike", "breakdance-flare")
RATIO = 0.25
LENGTH, APART = 20, 20  # of beginnings, in frames
EARLY = 5


def plain_of(net: RecurrentMatting) -> PlainMatting:
    """The plain network that computes the same: normalisation that does nothing but add what was folded."""
    plain = PlainMatting("mobilenetv3" if "backbone.features.0.0.weight" in net.state_dict() else "resnet50").eval()
    own, given = plain.state_dict(), net.state_dict()
    for name in own:
        if name in given:
            own[name] = given[name]
        if name.endswith("running_mean"):
            head = name.removesuffix(".running_mean")
            before, _, last = head.rpartition(".")
            conv = f"{before}.{int(last) - 1}" if last.isdecimal() else f"{before}.{last.replace('bn', 'conv')}"
            eps = BACKBONE_EPS if head.startswith("backbone.features") else EPS
            own[name] = torch.zeros_like(own[name])
            own[f"{head}.running_var"] = torch.full_like(own[name], 1.0 - eps)
            own[f"{head}.weight"], own[f"{head}.bias"] = torch.ones_like(own[name]), given[f"{conv}.bias"]
    plain.load_state_dict(own)
    return plain


def speed(weights: Path, frames: Tensor) -> None:
    """Seconds a frame, of networks that take turns, and how far their results are apart."""
    net = load_matting(weights)
    plain, ours = plain_of(net), net.to(memory_format=torch.channels_last)
    clip = F.interpolate(frames.movedim(-1, 1), size=(1080, 1920), mode="bicubic", antialias=True).clamp(0.0, 1.0)
    ways: dict[str, Callable[[Tensor, State | None], tuple[Tensor | None, State]]] = {
        "plain": lambda frame, state: plain(frame, state or (None,) * 4, RATIO)[1:],
        "ours": lambda frame, state: ours(frame, state, ratio=RATIO)[1:],
        "ours, the small copy only": lambda frame, state: (
            None,
            ours.find(shrunk(frame, RATIO), state, refiner="deep")[1],
        ),
    }
    states: dict[str, State | None] = dict.fromkeys(ways)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    apart = 0.0
    with torch.inference_mode():
        for index in range(len(clip)):
            mattes = []
            for name, way in ways.items():
                started = time.perf_counter()
                matte, states[name] = way(clip[index : index + 1], states[name])
                seconds[name].append(time.perf_counter() - started)
                mattes.append(matte)
            apart = max(apart, float((mattes[0] - mattes[1]).abs().max()))
    for name, taken in seconds.items():
        print(f"| {name} | {1e3 * median(taken[2:]):.0f} | {median(seconds['plain'][2:]) / median(taken[2:]):.2f} |")
    print(f"mattes differ by at most {apart:.1e}", flush=True)
    started = time.perf_counter()
    matte_video(clip.movedim(1, -1).contiguous(), weights, ratio=RATIO)
    print(f"matte_video: {1e3 * (time.perf_counter() - started) / len(clip):.0f} ms a frame, cuts and all", flush=True)


def beginnings(weights: Path, data: Path) -> None:
    """Error by the place of a frame after its clip's beginning, with and without warming up."""
    errors: dict[int, list[list[float]]] = {0: [], 15: []}
    for name in PEOPLE:
        frames = read_clip(data / "davis" / "frames" / name).frames
        masks = (read_clip(data / "davis" / "masks" / name).frames[..., 0] > 0.5).float()
        ratio = auto_ratio(frames.shape[1], frames.shape[2])
        for start in range(0, len(frames) - LENGTH + 1, APART):
            part = slice(start, start + LENGTH)
            for warm_up, found in errors.items():
                layers = matte_video(frames[part], weights, ratio=ratio, warm_up=warm_up)
                found.append(published(matte_and_colours(layers)[0], masks[part]).per_frame["mad"])
    for warm_up, found in errors.items():
        table = torch.tensor(found)
        first, early, late = table[:, 0].mean(), table[:, 1:EARLY].mean(), table[:, 15:].mean()
        print(f"| {warm_up} | {first:.2f} | {early:.2f} | {table[:, EARLY:15].mean():.2f} | {late:.2f} |", flush=True)
    print(f"of {len(errors[0])} beginnings of {LENGTH} frames")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="the network's weights")
    parser.add_argument("--data", type=Path, required=True, help="folder with davis/frames/ and davis/masks/")
    parser.add_argument("--frames", type=int, default=12, help="of the speed test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    speed(options.weights, read_clip(options.data / "davis" / "frames" / PEOPLE[0], count=options.frames).frames)
    beginnings(options.weights, options.data)


if __name__ == "__main__":
    main()
