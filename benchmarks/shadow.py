"""Shadows that go with an object, on composites whose shadow is known.

    python benchmarks/shadow.py --data FOLDER [--side 320] [--frames 24] [--preset balanced] [--pictures FOLDER]

``FOLDER`` holds stills with true alpha (``mattes/stills/*/image.png`` and ``alpha.png``) and clips to put them over
(``davis/frames/``). A still goes across the clip, and the ground below it shows its shadow: its alpha upside down,
sheared, blurred and tinted. The task matte gets the exact mask of the first frame. Figures are PSNR in dB where the
shadow takes more than a tenth of its strength and the object is not: of the object with its shadow over grey, of the
clip without them, and each time what it is when no shadow is looked for; then over grey where there is no shadow.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from clips import write_picture
from matte_any import background, picture
from torch import Tensor

from comfyui_vdp.vdp_core.edit.composite import composite
from comfyui_vdp.vdp_core.edit.layers import add_background, edit
from comfyui_vdp.vdp_core.image.foreground import foreground_colours
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Edit

GREY = 0.6


class Setting(NamedTuple):
    still: str
    clip: str
    says: str = ""
    softness: float = 5.0
    """Deviation of the blur, in pixels."""
    strength: tuple[float, float, float] = (0.55, 0.52, 0.45)
    travel: float = 0.5
    """How far the object goes, over the frame's width."""


SETTINGS = (
    Setting("01", "hike"),
    Setting("lemur", "bus"),
    Setting("09", "dog", "goes 0.15 of the width", travel=0.15),
    Setting("05", "car-turn", "hard: blurred by 2 pixels", softness=2.0),
    Setting("12", "elephant"),
    Setting("16", "boat", "faint: takes a quarter", strength=(0.25, 0.25, 0.25)),
    Setting("20", "lucia", "none", strength=(0.0, 0.0, 0.0)),
)


class Case(NamedTuple):
    frames: Tensor
    alpha: Tensor
    front: Tensor
    """The object's colours times alpha."""
    behind: Tensor
    shade: Tensor
    depth: Tensor
    """How much of the shadow's strength is where, ``(T, H, W)``."""


def made(data: Path, setting: Setting, side: int, count: int) -> Case:
    folder = data / "mattes" / "stills" / setting.still
    image, alpha = picture(folder / "image.png")[:3], picture(folder / "alpha.png")[:1]
    colours = foreground_colours(image, alpha[0])[0]
    behind = background(data, setting.clip, side, count)
    height, width = behind.shape[2:]
    scale = 0.5 * min(height / image.shape[1], width / image.shape[2])
    still = torch.cat((colours * alpha, alpha))[None]
    small = F.interpolate(still, scale_factor=scale, mode="bilinear", antialias=True)
    size = torch.tensor([small.shape[3], small.shape[2]])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    fronts, depths = [], []
    for index in range(len(behind)):
        part = index / max(len(behind) - 1, 1)
        angle = math.radians(4.0 * math.sin(3.0 * part))
        turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        shift = (width * setting.travel * (0.5 - part), height * 0.05 * (math.sin(4.0 * part) - 1.0))
        place = torch.stack((x - width / 2 - shift[0], y - height / 2 - shift[1]), dim=-1).float()
        fronts.append(read(small, 2.0 * (place @ turn.T) / size, mode="bicubic"))
        below = place[..., 1] - 0.5 * size[1] + 6.0
        ground = torch.stack((place[..., 0] - 0.8 * below, 0.5 * size[1] - below / 0.6), dim=-1)
        depths.append(read(small[:, 3:], 2.0 * ground / size, mode="bilinear"))
    both = torch.cat(fronts).clamp(0.0, 1.0)
    depth = blurred(torch.cat(depths).clamp(0.0, 1.0)[:, 0], setting.softness)
    shade = 1.0 - depth[:, None] * torch.tensor(setting.strength).view(1, 3, 1, 1)
    frames = ((both[:, :3] + (1.0 - both[:, 3:]) * shade * behind).clamp(0.0, 1.0) * 255.0).round() / 255.0
    last = [part.movedim(1, -1).contiguous() for part in (frames, both[:, :3], behind, shade)]
    return Case(last[0], both[:, 3], last[1], last[2], last[3], depth)


def read(still: Tensor, where: Tensor, *, mode: str) -> Tensor:
    return F.grid_sample(still, where[None], mode=mode, padding_mode="zeros", align_corners=False)


def blurred(depths: Tensor, softness: float) -> Tensor:
    return torch.from_numpy(np.stack([cv2.GaussianBlur(depth.numpy(), (0, 0), softness) for depth in depths]))


def psnr(one: Tensor, other: Tensor, where: Tensor) -> float:
    return -10.0 * math.log10(max(float((one - other)[where].square().mean()), 1e-10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| case | over grey: without, with | taken out: without, with | over grey, elsewhere |")
    print("|---|---|---|---|")
    table = []
    for setting in SETTINGS:
        case = made(options.data, setting, options.side, options.frames)
        flow = estimate_flow(case.frames, model="dis")
        mask, grey = (case.alpha[:1] > 0.5).float(), torch.full((1, 1, 1, 3), GREY)
        shown = []
        for with_shadow in (False, True):
            layers = decompose("matte", case.frames, flow, preset=options.preset, mask=mask, with_shadow=with_shadow)
            placed, gone = add_background(layers, grey), edit(layers, "objects", Edit(visibility=0.0))
            shown.append([composite(one)[0] for one in (placed, gone)])
        truth = case.front + (1.0 - case.alpha[..., None]) * case.shade * GREY
        inside = (case.depth > 0.1) & (case.alpha < 0.01)
        elsewhere = (case.depth < 0.01) & (case.alpha < 0.01)
        over = [psnr(placed, truth, inside) for placed, _ in shown]
        out = [psnr(gone, case.behind, inside) for _, gone in shown]
        table.append([*over, *out, psnr(shown[1][0], truth, elsewhere)])
        name = f"{setting.still} over {setting.clip}{setting.says and f' ({setting.says})'}"
        pairs = f"{over[0]:.1f}, {over[1]:.1f} | {out[0]:.1f}, {out[1]:.1f} | {table[-1][-1]:.1f}"
        print(f"| {name} | {pairs} |", flush=True)
        if options.pictures is not None:
            options.pictures.mkdir(parents=True, exist_ok=True)
            rows = [
                torch.cat((case.frames[index], shown[1][1][index], shown[1][0][index], truth[index]), dim=1)
                for index in (0, len(flow) // 2, len(flow))
            ]
            write_picture(options.pictures / f"{setting.still}_{setting.clip}.png", torch.cat(rows))
    mean = np.mean(table[:-1], axis=0)  # (of those with a shadow)
    print(f"| mean with a shadow | {mean[0]:.1f}, {mean[1]:.1f} | {mean[2]:.1f}, {mean[3]:.1f} | {mean[4]:.1f} |")


if __name__ == "__main__":
    main()
