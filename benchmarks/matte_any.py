"""Mattes of anything from one mask, on composites whose alpha and colours are known.

    python benchmarks/matte_any.py --data FOLDER [--stills 01 lemur] [--clips hike bus] [--masks exact polygon small]
        [--side 432] [--frames 24] [--preset balanced] [--pymatting] [--pictures FOLDER]

``FOLDER`` holds stills with true alpha (``mattes/stills/*/image.png`` and ``alpha.png``), frames of moving fur with it
(``mattes/moving/``), and clips to put them over (``davis/frames/``). A still is shifted, turned and scaled over the
clip. The task is given the mask of the first frame: its alpha above 0.5 exactly; a polygon of 12 corners around that;
or that as a picture 32 times smaller. Figures are over all frames: MAD by 1000, dtSSD by 100, and, over grey, PSNR of
the composite where the true alpha is between 0.01 and 0.99. Peers: the task segment with the same mask; pymatting's
closed form (where it is installed) with a band of ten pixels around the *true* mask of every frame.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from clips import write_picture
from torch import Tensor

from comfyui_vdp.vdp_core.image.foreground import foreground_colours
from comfyui_vdp.vdp_core.image.matting import native_masks
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.metrics import dtssd, mad
from comfyui_vdp.vdp_core.models.masks import matte_and_colours
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks.driver import decompose

BAND = 10
NEW_BACKGROUND = 0.5


class Case(NamedTuple):
    name: str
    frames: Tensor
    alpha: Tensor
    colours: Tensor


def picture(path: Path) -> Tensor:
    """``(C, H, W)`` in 0..1."""
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    read = read[..., None] if read.ndim == 2 else read[..., [2, 1, 0, 3][: read.shape[2]]]
    return torch.from_numpy(read.copy()).movedim(-1, 0).float() / 255.0


def background(data: Path, clip: str, side: int, count: int) -> Tensor:
    frames = read_clip(data / "davis" / "frames" / clip, count=count, max_side=side).frames
    return frames[..., :3].movedim(-1, 1)


def moved(still: Tensor, size: tuple[int, int], count: int) -> Tensor:
    """A picture shifted, turned and scaled, ``(T, C, H, W)``; its alpha is 0 beyond it."""
    height, width = size
    scale = 0.85 * min(height / still.shape[1], width / still.shape[2])
    small = F.interpolate(still[None], scale_factor=scale, mode="bilinear", antialias=True)[0]
    out = []
    for index in range(count):
        time = index / max(count - 1, 1)
        angle, grown = math.radians(8.0 * math.sin(3.0 * time)), 1.0 + 0.12 * time
        shift = (width * (0.06 - 0.12 * time), height * 0.03 * math.sin(5.0 * time))
        turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / grown
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place = torch.stack((x - width / 2 - shift[0], y - height / 2 - shift[1]), dim=-1).float() @ turn.T
        place = 2.0 * place / torch.tensor([small.shape[2], small.shape[1]])
        out.append(F.grid_sample(small[None], place[None], align_corners=False, padding_mode="zeros", mode="bicubic"))
    return torch.cat(out).clamp(0.0, 1.0)


def still_case(data: Path, still: str, clip: str, side: int, count: int) -> Case:
    folder = data / "mattes" / "stills" / still
    image, alpha = picture(folder / "image.png")[:3], picture(folder / "alpha.png")[:1]
    colours = foreground_colours(image, alpha[0])[0]
    behind = background(data, clip, side, count)
    both = moved(torch.cat((colours * alpha, alpha)), (behind.shape[2], behind.shape[3]), len(behind))
    return composite(f"{still} over {clip}", both[:, :3], both[:, 3:], behind)


def moving_case(data: Path, clip: str, side: int, count: int) -> Case:
    behind = background(data, clip, side, count)
    files = sorted((data / "mattes" / "moving").glob("*.png"))[: len(behind)]
    both = torch.stack([picture(file) for file in files])
    both[:, :3] *= both[:, 3:]
    both = F.interpolate(both, size=(behind.shape[2], behind.shape[3]), mode="bilinear", antialias=True)
    return composite(f"fur over {clip}", both[:, :3], both[:, 3:], behind[: len(both)])


def composite(name: str, premultiplied: Tensor, alpha: Tensor, behind: Tensor) -> Case:
    frames = (premultiplied + (1.0 - alpha) * behind).clamp(0.0, 1.0)
    frames = (frames * 255.0).round() / 255.0
    return Case(name, frames.movedim(1, -1).contiguous(), alpha[:, 0], premultiplied.movedim(1, -1))


def rough(alpha: Tensor, kind: str) -> Tensor:
    """The mask that a person gives of the first frame, ``(1, h, w)``."""
    hard = (alpha > 0.5).float()
    if kind == "exact":
        return hard[None]
    if kind == "small":
        size = [max(2, round(side / 32)) for side in hard.shape]
        return F.interpolate(hard[None, None], size=size, mode="area")[0]
    contours, _ = cv2.findContours(hard.byte().numpy(), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)[:, 0]
    corners = contour[np.linspace(0, len(contour), 12, endpoint=False).astype(int)]
    drawn = np.zeros(hard.shape, np.uint8)
    cv2.fillPoly(drawn, [corners.astype(np.int32)], 1)
    return torch.from_numpy(drawn).float()[None]


def in_band(case: Case, alpha: Tensor, colours: Tensor) -> float:
    """PSNR of the composite over grey where the true alpha is mixed."""
    found = alpha[..., None] * colours + (1.0 - alpha[..., None]) * NEW_BACKGROUND
    true = case.colours + (1.0 - case.alpha[..., None]) * NEW_BACKGROUND
    mixed = (case.alpha > 0.01) & (case.alpha < 0.99)
    return -10.0 * math.log10(float((found - true)[mixed].square().mean()))


def with_pymatting(case: Case) -> Tensor:
    """Closed form with a band around the true mask."""
    from pymatting import estimate_alpha_cf

    out = []
    for frame, alpha in zip(case.frames, case.alpha, strict=True):
        hard = (alpha > 0.5).byte().numpy()
        kernel = np.ones((2 * BAND + 1, 2 * BAND + 1), np.uint8)
        trimap = np.where(cv2.erode(hard, kernel) > 0, 1.0, np.where(cv2.dilate(hard, kernel) > 0, 0.5, 0.0))
        out.append(torch.from_numpy(estimate_alpha_cf(frame.double().numpy(), trimap)).float())
    return torch.stack(out)


def sheet(case: Case, alpha: Tensor, colours: Tensor, path: Path) -> None:
    """Three frames: the clip, both mattes, and the object over black, white and green."""
    rows = []
    for index in (0, len(alpha) // 2, len(alpha) - 1):
        own = alpha[index, ..., None]
        grey = [matte[index, ..., None].expand(-1, -1, 3) for matte in (case.alpha, alpha)]
        colour = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.8, 0.2))
        over = [own * colours[index] + (1.0 - own) * torch.tensor(one) for one in colour]
        rows.append(torch.cat((case.frames[index], *grey, *over), dim=1))
    write_picture(path, torch.cat(rows))


def cases(options: argparse.Namespace) -> Iterator[Case]:
    for still, clip in zip(options.stills, cycle(options.clips)):
        yield still_case(options.data, still, clip, options.side, options.frames)
    if options.moving:
        yield moving_case(options.data, options.clips[0], options.side, options.frames)


def row(case: Case, mask: str, method: str, alpha: Tensor, colours: Tensor | None, seconds: float) -> list[float]:
    psnr = math.nan if colours is None else in_band(case, alpha, colours)
    found = [1e3 * mad(alpha, case.alpha), 1e2 * dtssd(alpha, case.alpha), psnr]
    numbers = " | ".join(f"{number:.2f}" for number in found)
    print(f"| {case.name} | {mask} | {method} | {numbers} | {seconds:.0f} |", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stills", nargs="*", default=["01", "05", "09", "12", "16", "20", "lemur"])
    parser.add_argument("--clips", nargs="+", default=["hike", "bus", "elephant"], help="taken in turn")
    parser.add_argument("--moving", action="store_true", help="moving fur too")
    parser.add_argument("--masks", nargs="*", default=["exact", "polygon", "small"])
    parser.add_argument("--side", type=int, default=432)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--segment", action="store_true", help="the task segment too")
    parser.add_argument("--pymatting", action="store_true", help="pymatting's closed form too")
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, str], list[list[float]]] = {}
    for case in cases(options):
        flow = estimate_flow(case.frames, model="dis")
        if options.pymatting:
            started = time.perf_counter()
            alpha = with_pymatting(case)
            numbers = row(case, "true", "pymatting", alpha, None, time.perf_counter() - started)
            found.setdefault(("true", "pymatting"), []).append(numbers)
        for kind in options.masks:
            mask = rough(case.alpha[0], kind)
            for task in ["segment"] * options.segment + ["matte"]:
                started = time.perf_counter()
                layers = decompose(task, case.frames, flow, preset=options.preset, mask=mask)
                seconds = time.perf_counter() - started
                if task == "segment":
                    alpha, colours = native_masks(layers, 0, len(layers))[:, 1], None
                else:
                    alpha, colours = matte_and_colours(layers)
                    if options.pictures is not None:
                        options.pictures.mkdir(parents=True, exist_ok=True)
                        sheet(case, alpha, colours, options.pictures / f"{case.name.replace(' ', '_')}_{kind}.png")
                numbers = row(case, kind, task, alpha, colours, seconds)
                found.setdefault((kind, task), []).append(numbers)
    for (kind, task), table in found.items():
        print(f"mean of {len(table)}: {kind}, {task}: " + " | ".join(f"{n:.2f}" for n in np.mean(table, axis=0)))


if __name__ == "__main__":
    main()
