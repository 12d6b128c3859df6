"""Objects found by motion, and from the first frame's mask; ours beside what a person has without this project.

    python benchmarks/segment.py [--data FOLDER] [--seeds 0 1 2] [--preset balanced] [--paper STEPS] [--pictures FOLDER]

``--data`` holds DAVIS's ``blackswan.mp4`` and ``bmx-trees/`` with their masks, and more clips of it, which ``--clips``
names, in ``davis/frames`` and ``davis/masks``; rendered clips need nothing. Flow is DIS
throughout. IoU is DAVIS's J, the mean over frames; boundary F its F. The classics get the same flow: the homography's
residual averaged along the flow and cut by Otsu's method, and the same with the best threshold of all, which nobody
knows. From a first mask: the mask carried along the flow.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from clips import synthetic
from torch import Tensor

from comfyui_vdp.vdp_core.image.matting import native_masks
from comfyui_vdp.vdp_core.image.selection import as_mask
from comfyui_vdp.vdp_core.media.clip import read_clip, write_clip
from comfyui_vdp.vdp_core.metrics import boundary_f, iou
from comfyui_vdp.vdp_core.motion.camera import residual_motion
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.motion.trajectories import average_along
from comfyui_vdp.vdp_core.motion.warp import warp
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Flow, Layers

TWO = {"blackswan": "blackswan.mp4", "bmx-trees": "bmx-trees"}


def real_clips(data: Path | None, names: list[str]) -> list[tuple[str, Tensor, Tensor]]:
    """Name, frames and true masks, of all clips or some."""
    if data is None:
        return []
    places = {name: (data / clip, data / f"{name}_mask") for name, clip in TWO.items()}
    places |= {
        path.name: (path, data / "davis" / "masks" / path.name) for path in (data / "davis" / "frames").glob("*")
    }
    chosen = {name: places[name] for name in sorted(places) if name in names or not names}
    return [(name, read_clip(clip).frames, as_mask(read_clip(mask).frames)) for name, (clip, mask) in chosen.items()]


def residual(flow: Flow) -> Tensor:
    """How fast each pixel moves against the homography, averaged along the flow, ``(T, h, w)``."""
    return average_along(residual_motion(flow).norm(dim=1, keepdim=True), flow, 4)[:, 0]


def otsu(speed: Tensor) -> Tensor:
    import cv2

    largest = float(np.quantile(speed.numpy(), 0.999))
    levels = (speed.clamp(0.0, largest) / largest * 255.0).byte().numpy()
    threshold, _ = cv2.threshold(levels.reshape(-1, 1), 0, 255, cv2.THRESH_OTSU)
    return (torch.from_numpy(levels) > threshold).float()


def best_threshold(speed: Tensor, truth: Tensor) -> Tensor:
    levels = np.quantile(speed.numpy(), np.linspace(0.5, 0.999, 40))
    return max(((speed > level).float() for level in levels), key=lambda mask: iou(to(mask, truth), truth))


def carried(first: Tensor, flow: Flow) -> Tensor:
    """The first mask along the flow."""
    masks = [F.interpolate(first[None, None], size=flow.size, mode="area")]
    for vectors in flow.backward:
        masks.append(warp(masks[-1], vectors[None]))
    return torch.cat(masks)[:, 0]


def to(masks: Tensor, truth: Tensor) -> Tensor:
    return F.interpolate(masks[:, None], size=truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]


def objects(layers: Layers) -> Tensor:
    """All objects' mask at native size, ``(T, H, W)``."""
    return torch.cat([1.0 - native_masks(layers, index, index + 1)[:, 0] for index in range(len(layers))])


def row(clip: str, method: str, mask: Tensor, truth: Tensor, seconds: float | None = None) -> None:
    mask = to(mask, truth)
    took = "" if seconds is None else f"{seconds:.0f}"
    print(f"| {clip} | {method} | {iou(mask, truth):.3f} | {boundary_f(mask, truth):.3f} | {took} |", flush=True)


def on_real_clip(name: str, frames: Tensor, truth: Tensor, options: argparse.Namespace) -> None:
    flow = estimate_flow(frames, model="dis")
    speed = residual(flow)
    row(name, "residual of the homography, Otsu", otsu(speed), truth)
    row(name, "the same, best threshold", best_threshold(speed, truth), truth)
    started = time.perf_counter()
    found = decompose("segment", frames, flow, preset=options.preset)
    row(name, "ours", objects(found), truth, time.perf_counter() - started)
    if options.paper:
        started = time.perf_counter()
        paper = decompose("segment", frames, flow, preset="paper", steps=options.paper)
        row(name, f"preset paper, {options.paper} steps", objects(paper), truth, time.perf_counter() - started)
    row(name, "first mask along the flow", carried(truth[0], flow), truth)
    started = time.perf_counter()
    guided = decompose("segment", frames, flow, preset=options.preset, mask=truth[0])
    row(name, "ours, first mask given", objects(guided), truth, time.perf_counter() - started)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for label, layers in (("motion", found), ("mask", guided)):
            seen = 0.3 + 0.7 * objects(layers)[..., None]
            write_clip(options.pictures / f"{name}_{label}", frames * seen, fps=24)


def on_rendered_clip(seed: int, crossing: bool, options: argparse.Namespace) -> None:
    clip = synthetic().layered(objects=2, crossing=crossing, seed=seed)
    flow = estimate_flow(clip.frames, model="dis")
    name = f"rendered {'crossing' if crossing else 'apart'} {seed}"
    truth = 1.0 - clip.masks[:, 0]
    if not crossing:
        row(name, "residual of the homography, Otsu", otsu(residual(flow)), truth)
        row(name, "ours, both objects", objects(decompose("segment", clip.frames, flow, preset=options.preset)), truth)
    layers = decompose("segment", clip.frames, flow, preset=options.preset, layers=3)
    masks = native_masks(layers, 0, len(layers))
    order = max(((1, 2), (2, 1)), key=lambda pair: sum(iou(masks[:, pair[i]], clip.masks[:, i + 1]) for i in range(2)))
    for number, layer in enumerate(order, 1):
        row(name, f"ours, three layers: object {number}", masks[:, layer], clip.masks[:, number])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with blackswan.mp4, bmx-trees/ and their masks")
    parser.add_argument("--clips", nargs="*", default=list(TWO), help="names of clips; none for all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--paper", type=int, default=0, help="also the preset paper, for so many steps")
    parser.add_argument("--pictures", type=Path, help="folder for clips to look at")
    options = parser.parse_args()
    print("| clip | method | IoU | boundary F | seconds |\n|---|---|---|---|---|")
    for name, frames, truth in real_clips(options.data, options.clips):
        on_real_clip(name, frames, truth, options)
    for seed in options.seeds:
        for crossing in (False, True):
            on_rendered_clip(seed, crossing, options)


if __name__ == "__main__":
    main()
