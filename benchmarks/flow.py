"""Motion by ours and by others, where it is known.

    python benchmarks/flow.py [--data FOLDER] [--pairs 40] [--only rendered tracks ...] [--methods dis ...]
        [--weights FOLDER]

Rendered: pairs of 512x288 with exact motion, by what happens to their light (``training.render``; textures are frames
of clips that nothing was trained on). Endpoint error in pixels over what both frames see, its mean over the pairs and
its geometric mean, in which a few pairs whose motion nothing finds weigh less. Tracks: ``--data`` holds joints of
animals marked by hand (BADJA: ``tracks/``, ``davis/frames/``); each is followed by chaining the motion from its first
mark, and the share within 1, 2, 4, 8 and 16 pixels at 256x256 is averaged. Clips: of real pairs there is no truth, but
the picture must agree with its neighbour brought along, and the way there and back lead home. Time: both directions of
a pair of 512x288, the median. Peers are OpenCV's, with opencv-contrib more of them, and RAFT where its weights are
found. Middlebury, KITTI and Sintel cannot be had without a download from their own sites.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from clips import clip_paths
from torch import Tensor

from comfyui_vdp.training.render import KINDS, render
from comfyui_vdp.vdp_core.image.sample import sample_points
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.motion.estimator import with_confidence, with_occlusion
from comfyui_vdp.vdp_core.motion.flow import MODELS, estimate_flow
from comfyui_vdp.vdp_core.motion.raft import RAFT_FILES
from comfyui_vdp.vdp_core.motion.refined import FILES as REFINER_FILES
from comfyui_vdp.vdp_core.motion.warp import warp
from comfyui_vdp.vdp_core.nets.weights import find_weights
from comfyui_vdp.vdp_core.types import Flow

SIZE = (288, 512)
FIRST = 10**9
"""Numbers of rendered pairs, far from those that are trained on."""
THRESHOLDS = (1, 2, 4, 8, 16)

Method = Callable[[Tensor], Flow]


def ours(model: str, weights: tuple[Path, ...]) -> Method:
    return lambda frames: estimate_flow(frames, model=model, shots=False, weights_folders=weights)


def classic(between: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Method:
    """A method of OpenCV's on the luminance, as people call it."""

    def run(frames: Tensor) -> Flow:
        height, width = frames.shape[1:3]
        scale = min(1.0, 512 / max(height, width))
        size = (round(width * scale), round(height * scale))
        pictures = [(cv2.resize(frame.numpy(), size, interpolation=cv2.INTER_AREA) * 255).round() for frame in frames]
        grey = [cv2.cvtColor(picture.astype(np.uint8), cv2.COLOR_RGB2GRAY) for picture in pictures]
        pairs = list(pairwise(grey))
        ways = [
            torch.from_numpy(np.stack([between(a, b) for a, b in order])).movedim(-1, 1).float()
            for order in (pairs, [pair[::-1] for pair in pairs])
        ]
        seen = torch.from_numpy(np.stack(grey))[:, None] / 255.0
        motion = with_confidence(with_occlusion(*ways), seen[:-1], seen[1:])
        return Flow(**motion._asdict(), source_size=(height, width))

    return run


def methods(wanted: list[str] | None, weights: tuple[Path, ...]) -> dict[str, Method]:
    files = {**RAFT_FILES, "dis_refined": REFINER_FILES}
    every: dict[str, Method] = {
        model: ours(model, weights)
        for model in MODELS
        if model != "auto" and (model not in files or find_weights(files[model], weights) is not None)
    }
    presets = ("ULTRAFAST", "FAST", "MEDIUM")
    for preset in presets:
        search = cv2.DISOpticalFlow.create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset}"))
        every[f"OpenCV DIS {preset.lower()}"] = classic(lambda a, b, search=search: search.calc(a, b, None))
    every["OpenCV Farneback"] = classic(lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0))
    if hasattr(cv2, "optflow"):
        deep, tvl1, rlof = (
            cv2.optflow.createOptFlow_DeepFlow(),
            cv2.optflow.DualTVL1OpticalFlow_create(),
            cv2.optflow.createOptFlow_DenseRLOF(),
        )
        every["DeepFlow"] = classic(lambda a, b: deep.calc(a, b, None))
        every["TV-L1"] = classic(lambda a, b: tvl1.calc(a, b, None))
        every["dense RLOF"] = classic(
            lambda a, b: rlof.calc(cv2.cvtColor(a, cv2.COLOR_GRAY2BGR), cv2.cvtColor(b, cv2.COLOR_GRAY2BGR), None)
        )
    return {name: method for name, method in every.items() if wanted is None or name in wanted}


def rendered(chosen: dict[str, Method], pairs: int, textures: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean endpoint error by method and kind, and how well confidence says what is right."""
    found: dict[str, dict[str, float]] = {name: {} for name in chosen}
    for place, kind in enumerate(KINDS):
        errors: dict[str, list[float]] = {name: [] for name in chosen}
        trust: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in chosen}
        for number in range(pairs):
            pair = render(FIRST + 1000 * place + number, textures, size=SIZE, kind=kind)
            frames, seen = torch.from_numpy(pair.frames), torch.from_numpy(pair.visible) > 0.5
            truth = torch.from_numpy(pair.flow)
            for name, method in chosen.items():
                flow = method(frames)
                got = torch.cat((flow.forward, flow.backward))
                error = (got - truth).norm(dim=1)[seen]
                errors[name].append(float(error.mean()))
                weight = torch.cat((flow.forward_confidence, flow.backward_confidence))[seen]
                trust[name].append((weight[::97], error[::97] < 1.0))
        for name in chosen:
            found[name][kind] = float(np.mean(errors[name]))
            found[name][f"{kind}, geometric mean"] = float(np.exp(np.mean(np.log(errors[name]))))
            weight, right = (torch.cat(parts) for parts in zip(*trust[name], strict=True))
            found[name][f"{kind}, auc of confidence"] = area_under_curve(weight, right)
        print(kind, {name: round(found[name][kind], 3) for name in chosen}, flush=True)
    return found


def area_under_curve(score: Tensor, right: Tensor) -> float:
    """The probability that of a right and a wrong vector the right one has the higher score."""
    ranks = torch.empty(len(score), dtype=torch.double)
    ranks[score.argsort()] = torch.arange(len(score), dtype=torch.double)
    good = int(right.sum())
    if good in (0, len(score)):
        return float("nan")
    return float((ranks[right].sum() - good * (good - 1) / 2) / (good * (len(score) - good)))


def tracks(chosen: dict[str, Method], data: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {name: {} for name in chosen}
    for path in sorted((data / "tracks").glob("*.json")):
        marked = json.loads(path.read_text())
        frames = read_clip(data / "davis" / "frames" / path.stem).frames
        marks = [mark for mark in marked["tracks"] if mark["frame"] < len(frames)]
        for name, method in chosen.items():
            found[name][path.stem] = share_near(method(frames), marks, marked["size"])
        print(path.stem, {name: round(found[name][path.stem], 3) for name in chosen}, flush=True)
    return found


def share_near(flow: Flow, marks: list[dict], size: list[int]) -> float:
    """The share of joints near their marks, each followed from the first frame in which it is marked."""
    scale = torch.tensor([flow.size[1] / size[0], flow.size[0] / size[1]])
    to_square = torch.tensor([256.0 / flow.size[1], 256.0 / flow.size[0]])
    distances = []
    for joint in range(len(marks[0]["xy"])):
        shown = [mark for mark in marks if mark["visible"][joint]]
        if len(shown) < 2:
            continue
        at = {mark["frame"]: (torch.tensor(mark["xy"][joint]) + 0.5) * scale - 0.5 for mark in shown}
        place = at[shown[0]["frame"]][None]
        for frame in range(shown[0]["frame"], shown[-1]["frame"]):
            place = place + sample_points(flow.forward[frame], place).T
            if frame + 1 in at:
                distances.append(float(((place[0] - at[frame + 1]) * to_square).norm()))
    return float(np.mean([np.mean(np.array(distances) < threshold) for threshold in THRESHOLDS]))


def clips(chosen: dict[str, Method], data: Path | None) -> dict[str, dict[str, float]]:
    """How unlike a neighbour brought along is, in 255ths, where both are seen; and what share is not."""
    found: dict[str, dict[str, float]] = {name: {} for name in chosen}
    for clip, path in clip_paths(data).items():
        frames = read_clip(path, count=12, max_side=512).frames
        for name, method in chosen.items():
            flow = method(frames)
            brought = warp(frames[1:].movedim(-1, 1), flow.forward)
            unlike = (brought - frames[:-1].movedim(-1, 1)).abs().mean(dim=1)
            seen = 1.0 - flow.forward_occlusion
            found[name][clip] = 255.0 * float((unlike * seen).sum() / seen.sum())
            found[name][f"{clip}, % occluded"] = 100.0 * float(flow.forward_occlusion.mean())
        print(clip, {name: round(found[name][clip], 2) for name in chosen}, flush=True)
    return found


def times(chosen: dict[str, Method], textures: list[np.ndarray]) -> dict[str, dict[str, float]]:
    frames = torch.from_numpy(np.concatenate([render(FIRST + n, textures, size=SIZE).frames for n in range(5)]))
    found = {}
    for name, method in chosen.items():
        method(frames[:2])
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            method(frames)
            seconds.append((time.perf_counter() - begun) / (len(frames) - 1))
        found[name] = {"seconds a pair": float(np.median(seconds))}
        print(name, found[name], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pairs", type=int, default=40, help="rendered ones of each kind")
    parts = ("rendered", "tracks", "clips", "times")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--weights", nargs="+", type=Path, default=[], help="folders with weights of networks")
    options = parser.parse_args()
    chosen = methods(options.methods, tuple(options.weights))
    every = clip_paths(None)
    textures = [
        frame.numpy() for name in ("bikes", "carphone") for frame in read_clip(every[name], count=60).frames[::12]
    ]
    table: dict[str, dict[str, float]] = {name: {} for name in chosen}
    for part in options.only:
        if part == "tracks" and options.data is None:
            continue
        found = {
            "rendered": lambda: rendered(chosen, options.pairs, textures),
            "tracks": lambda: tracks(chosen, options.data),
            "clips": lambda: clips(chosen, options.data),
            "times": lambda: times(chosen, textures),
        }[part]()
        for name, values in found.items():
            table[name] |= values
    heads = list(dict.fromkeys(key for values in table.values() for key in values))
    print(f"| | {' | '.join(table)} |\n|---|{'---|' * len(table)}")
    for head in heads:
        print(f"| {head} | {' | '.join(f'{values[head]:.3f}' for values in table.values())} |")


if __name__ == "__main__":
    main()
