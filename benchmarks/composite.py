"""Layers put together again: untouched, an object taken out, another background behind; ours beside the usual ways.

    python benchmarks/composite.py [--data FOLDER] [--seeds 0 1 2 3] [--frames 40] [--pictures FOLDER] [--speed]

On rendered clips everything is known. Masks are the true ones, so that this measures what happens after masks have been
found: at the clip's size, as those of every clip up to 512 pixels, and where masks themselves are judged at half of it.
Flow is exact or estimated by DIS. With ``--data`` blackswan, whose masks are given at its own size, is put over plain
backgrounds; ``--pictures`` writes crops of that to be looked at.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from clips import synthetic, write_picture
from torch import Tensor

from comfyui_vdp.vdp_core.edit.composite import clean_plate, composite
from comfyui_vdp.vdp_core.edit.layers import add_background, edit
from comfyui_vdp.vdp_core.image.matting import align_masks, native_masks
from comfyui_vdp.vdp_core.image.selection import as_mask
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.motion import background as behind
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.store import lazy as frames_module
from comfyui_vdp.vdp_core.types import Edit, Flow, Layers

GREEN = torch.tensor([0.1, 0.8, 0.2])
HEIGHT, WIDTH = 135, 240  # small enough for objects to clear their own place in 40 frames
MASK_SIDE = 512


def psnr_in(found: Tensor, truth: Tensor, where: Tensor) -> float:
    return float(-10.0 * (found - truth)[where].square().mean().log10())


def traced(masks: Tensor, frames: Tensor, flow: Flow) -> Layers:
    before, after = behind.track_background(masks[:, 0], flow, frames=frames)
    return Layers("segment", {"masks": masks, "before": before, "after": after}, frames, flow)


def inpainted(frames: Tensor, covered: Tensor) -> Tensor:
    """OpenCV's inpainting (Telea, 2004), frame by frame."""
    import cv2
    import numpy as np

    out = []
    for frame, hole in zip(frames, covered, strict=True):
        picture = (frame.numpy() * 255.0).round().astype(np.uint8)
        out.append(torch.from_numpy(cv2.inpaint(picture, hole.numpy().astype(np.uint8), 5, cv2.INPAINT_TELEA)) / 255.0)
    return torch.stack(out)


def off_by_one(masks: Tensor) -> Tensor:
    """Masks ``(T, L, h, w)`` made hard, and their objects a pixel too large."""
    hard = F.one_hot(masks.argmax(dim=1), masks.shape[1]).movedim(-1, 1).float()
    objects = F.max_pool2d(hard[:, 1:], 3, 1, 1)
    objects = objects / objects.sum(dim=1, keepdim=True).clamp_min(1.0)
    return torch.cat((1.0 - objects.sum(dim=1, keepdim=True), objects), dim=1)


def on_rendered(seed: int, frames: int, *, crossing: bool) -> dict[str, float]:
    """Figures of one clip."""
    clip = synthetic().layered(frames, HEIGHT, WIDTH, seed=seed, soft=2.0, crossing=crossing)
    small = F.interpolate(clip.masks, size=(HEIGHT // 2, WIDTH // 2), mode="area")
    covered, mixed = clip.masks[:, 0] < 0.5, (clip.masks[:, 0] > 0.02) & (clip.masks[:, 0] < 0.98)
    figures = {}
    for name, flow in (("exact flow", clip.flow), ("DIS", estimate_flow(clip.frames, model="dis"))):
        layers = traced(clip.masks, clip.frames, flow)
        seen = (layers.fields["before"][:, 2] > 0) | (layers.fields["after"][:, 2] > 0)
        empty = clean_plate(layers, 0, frames)
        figures |= {
            f"untouched, {name}": psnr_in(composite(layers)[0], clip.frames, torch.ones_like(covered)),
            f"removed, {name}": psnr_in(empty, clip.background, covered),
            f"removed, {name}, of what is ever seen": psnr_in(empty, clip.background, covered & seen),
            f"share ever seen, {name} (%)": 100.0 * float((covered & seen).sum() / covered.sum()),
        }
    figures["removed, inpainting of each frame"] = psnr_in(
        inpainted(clip.frames, clip.masks[:, 0] < 0.99), clip.background, covered
    )
    truth = clip.masks[:, 0, ..., None] * GREEN + (clip.masks[:, 1:, ..., None] * clip.colours[:, 1:]).sum(dim=1)
    over = composite(add_background(layers, GREEN.expand(1, 1, 1, 3)))[0]
    plain = F.interpolate(small, size=(HEIGHT, WIDTH), mode="bilinear")
    pasted = clip.masks[:, 0, ..., None] * GREEN + (1.0 - clip.masks[:, :1]).movedim(1, -1) * clip.frames
    figures["borders over green, ours"] = psnr_in(over, truth, mixed)
    figures["borders over green, pasted with the true mask"] = psnr_in(pasted, truth, mixed)
    some = slice(0, frames, 8)
    wrong = off_by_one(small)[some]
    chosen = Layers("segment", {"masks": small[some]}, clip.frames[some])
    settled = align_masks(wrong, chosen.frames)
    for name, masks in (
        ("ours", native_masks(chosen, 0, len(chosen))),
        ("bilinear", plain[some]),
        ("off by one, settled, ours", native_masks(replace(chosen, fields={"masks": settled}), 0, len(chosen))),
        ("off by one, bilinear", F.interpolate(wrong, size=(HEIGHT, WIDTH), mode="bilinear")),
    ):
        figures[f"mask error x 1000, {name}"] = 1000.0 * float((masks - clip.masks[some]).abs().mean())
    return figures


def blackswan(data: Path, frames: int) -> Layers:
    """Blackswan with its given masks."""
    clip = read_clip(data / "blackswan.mp4", count=frames).frames
    given = as_mask(read_clip(data / "blackswan_mask", count=frames).frames)
    scale = MASK_SIDE / max(clip.shape[1:3])
    size = (round(clip.shape[1] * scale), round(clip.shape[2] * scale))
    small = F.interpolate(given[:, None], size=size, mode="area")
    masks = align_masks(torch.cat((1.0 - small, small), dim=1), clip)
    return traced(masks, clip, estimate_flow(clip, model="dis"))


def write_crops(layers: Layers, folder: Path) -> None:
    """Borders of one frame over four backgrounds, three times as large, and the frame without the swan."""
    index = len(layers) // 2
    one = replace(
        layers,
        fields={name: field[index : index + 1] for name, field in layers.fields.items()},
        frames=layers.frames[index : index + 1],
    )
    backgrounds = (torch.ones(3), torch.full((3,), 0.5), torch.tensor([0.9, 0.2, 0.1]), torch.zeros(3))
    shown = [one.frames[0]]
    shown += [composite(add_background(_alone(one), colour.expand(1, 1, 1, 3)))[0][0] for colour in backgrounds]
    rows = []
    for top, left in ((55, 420), (230, 185), (255, 420), (340, 170)):
        crops = [picture[top : top + 90, left : left + 120] for picture in shown]
        rows.append(torch.cat(crops, dim=1))
    sheet = torch.cat(rows).repeat_interleave(3, dim=0).repeat_interleave(3, dim=1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (("borders", sheet), ("removed", clean_plate(layers, index, index + 1)[0])):
        write_picture(folder / f"{name}.png", picture)


def _alone(layers: Layers) -> Layers:
    """One frame's layers, with no other frames to look into."""
    return replace(layers, fields={"masks": layers.fields["masks"]}, flow=None)


def speed(layers: Layers, count: int = 6) -> dict[str, float]:
    """Seconds a frame at 1920x1080."""
    # else, where memory is short, frames would be left to be computed when they are looked at
    frames_module.fits_in_memory = lambda size: True
    big = F.interpolate(layers.frames.movedim(-1, 1), size=(1080, 1920), mode="bilinear").movedim(1, -1).contiguous()
    layers = replace(layers, frames=big)
    seconds = {}
    for name, made in (
        ("untouched", layers),
        ("object taken out", edit(layers, "1", Edit(visibility=0.0))),
        ("object moved", edit(layers, "1", Edit(offset=(40.0, -10.0)))),
        ("background dimmed", edit(layers, "background", Edit(visibility=0.3))),
        ("other background", add_background(layers, GREEN.expand(1, 1, 1, 3))),
    ):
        laps: list[float] = []
        start = time.perf_counter()

        def lap(done: int, total: int, preview: object, laps: list[float] = laps, start: float = start) -> None:
            laps.append(time.perf_counter() - start)
            if done >= count:
                raise StopIteration

        with suppress(StopIteration):
            composite(made, on_step=lap)
        seconds[name] = (laps[-1] - laps[0]) / (len(laps) - 1)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with blackswan.mp4 and blackswan_mask/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--pictures", type=Path, help="where to write crops of blackswan")
    parser.add_argument("--speed", action="store_true", help="also measure seconds a frame; needs --data")
    options = parser.parse_args()

    columns: dict[str, dict[str, float]] = {}
    for seed in options.seeds:
        columns[f"seed {seed}"] = on_rendered(seed, options.frames, crossing=False)
        print(f"seed {seed}: done", file=sys.stderr)
    names = list(columns)
    means = {row: statistics.fmean(columns[name][row] for name in names) for row in columns[names[0]]}
    columns["mean"] = means
    columns["crossing"] = on_rendered(options.seeds[0], options.frames, crossing=True)
    print("| PSNR in dB | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for row in means:
        print(f"| {row} | " + " | ".join(f"{column[row]:.2f}" for column in columns.values()) + " |")
    if options.data is not None:
        layers = blackswan(options.data, min(options.frames, 24))
        everywhere = torch.ones_like(layers.frames[..., 0], dtype=torch.bool)
        print(f"\nblackswan, untouched: {psnr_in(composite(layers)[0], layers.frames, everywhere):.2f} dB")
        if options.pictures is not None:
            write_crops(layers, options.pictures)
        if options.speed:
            for name, seconds in speed(layers).items():
                print(f"{name}: {seconds:.2f} s a frame of 1920x1080")


if __name__ == "__main__":
    main()
