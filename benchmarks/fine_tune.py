"""What the matting network learns from three corrected frames of a clip, on the others.

    python benchmarks/fine_tune.py --data FOLDER --weights FILE [--steps 60] [--pictures FOLDER]

``FOLDER`` holds frames of moving fur with exact alpha (``mattes/moving/``), which are put over a clip, and a clip of a
person with masks that a person drew (``davis/frames/hike``, ``davis/masks/hike``). Of 24 frames of each, numbers 4, 12
and 20 are given with their truth. MAD times 1000 and J are over the other 21.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from comfyui_vdp.training.matte import fine_tune
from comfyui_vdp.vdp_core.edit.matte_video import matte_video
from comfyui_vdp.vdp_core.media.clip import read_clip, write_clip
from comfyui_vdp.vdp_core.metrics import iou, mad
from comfyui_vdp.vdp_core.models.masks import matte_and_colours

CORRECTED = (4, 12, 20)
FRAMES = 24


def fur(data: Path) -> tuple[Tensor, Tensor]:
    clip = read_clip(data / "mattes" / "moving", count=FRAMES, max_side=384)
    ground = read_clip(data / "davis" / "frames" / "hike", count=FRAMES, max_side=700).frames[:]
    height, width = clip.frames.shape[1:3]
    alpha = clip.alpha[:]
    return clip.frames[:] * alpha[..., None] + ground[:, :height, :width] * (1.0 - alpha[..., None]), alpha


def person(data: Path) -> tuple[Tensor, Tensor]:
    clips = [
        read_clip(data / "davis" / kind / "hike", count=FRAMES, every_nth=2, max_side=320).frames[:]
        for kind in ("frames", "masks")
    ]
    return clips[0], clips[1].mean(dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    others = [number for number in range(FRAMES) if number not in CORRECTED]
    print(f"{'clip':8} {'weights':9} {'MAD':>8} {'J':>7} {'seconds':>8}")
    for name, make in (("fur", fur), ("person", person)):
        frames, truth = make(given.data)
        corrected = {number: truth[number] for number in CORRECTED}
        with tempfile.TemporaryDirectory() as folder:
            started, weights = time.perf_counter(), given.weights
            for label in ("published", "fitted"):
                if label == "fitted":
                    weights = fine_tune(
                        frames, corrected, weights, Path(folder), steps=given.steps, tell=lambda line: None
                    )
                seconds = time.perf_counter() - started if label == "fitted" else 0.0
                matte = matte_and_colours(matte_video(frames, weights, chunk=4))[0][:]
                figures = 1e3 * mad(matte[others], truth[others]), iou(matte[others], truth[others])
                print(f"{name:8} {label:9} {figures[0]:8.2f} {figures[1]:7.3f} {seconds:8.1f}", flush=True)
                if given.pictures is not None:
                    shown = torch.cat((frames, matte[..., None].expand_as(frames)), dim=2)
                    write_clip(given.pictures / f"{name}_{label}", shown, fps=12, quality=90)


if __name__ == "__main__":
    main()
