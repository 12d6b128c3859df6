"""Keys of rendered green and blue screens whose alpha and colours are known.

    python benchmarks/green_screen.py --data FOLDER [--stills 01 lemur] [--screens green blue] [--side 432] [--frames 8]
        [--noise 0.01] [--subsampled] [--pictures FOLDER]

``FOLDER`` holds stills with true alpha (``mattes/stills/*/image.png`` and ``alpha.png``) and moving fur with it
(``mattes/moving/``). They move over a rendered screen: light that is uneven in place and slow in time, wrinkles, a
shadow on it, light of the screen that spills onto the object, noise, 8 bits, and colour at half the size where asked
for. Figures are over all frames: MAD by 1000, dtSSD by 100; PSNR of the composite over grey where the true alpha is
between 0.01 and 0.99, against the object without spill; and by how much green is above red and blue there and in the
object, more than in truth, in 1/255. Beside it is what a colour difference alone finds (1 - how much a pixel is of the
screen's colour against the true screen's).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from clips import write_picture
from matte_any import moved, picture
from torch import Tensor

from comfyui_vdp.vdp_core.edit.key_screen import key_screen
from comfyui_vdp.vdp_core.image.foreground import foreground_colours
from comfyui_vdp.vdp_core.metrics import dtssd, mad
from comfyui_vdp.vdp_core.models.masks import matte_and_colours

SCREENS = {"green": ((0.16, 0.62, 0.24), 1), "blue": ((0.12, 0.26, 0.66), 2)}
"""Colour in full light, and the channel it is keyed by."""


class Case(NamedTuple):
    name: str
    channel: int
    frames: Tensor
    alpha: Tensor
    colours: Tensor
    """Of the object without spill, times alpha."""
    screen: Tensor


def screen(colour: Tensor, size: tuple[int, int], count: int, seed: int) -> Tensor:
    """A lit, wrinkled screen ``(T, 3, H, W)``."""
    draw = torch.Generator().manual_seed(seed)
    height, width = size
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    coarse = F.interpolate(torch.randn(1, 1, 5, 7, generator=draw), size=size, mode="bicubic")[0, 0]
    noise = F.interpolate(torch.randn(1, 1, 12, 16, generator=draw), size=size, mode="bicubic")[0, 0]
    wrinkles = 0.05 * torch.sin(9.0 * x + 4.0 * y + 2.5 * noise) * torch.sigmoid(2.0 * coarse)
    turn = 2.0 * math.pi * float(torch.rand(1, generator=draw))
    frames = []
    for index in range(count):
        at = 0.3 * math.sin(0.12 * index)
        spot = torch.exp(-((x - 0.4 * math.cos(turn) - at).square() + (y - 0.4 * math.sin(turn)).square()) / 1.2)
        light = (0.62 + 0.45 * spot + 0.05 * coarse + wrinkles) * (1.0 + 0.03 * math.sin(0.3 * index))
        # what is lit more is paler
        frames.append(light * colour.view(3, 1, 1) + 0.05 * (light - 0.62).clamp_min(0.0))
    return torch.stack(frames).clamp(0.0, 1.0)


def case_of(
    name: str, both: Tensor, kind: str, seed: int, *, noise: float, subsampled: bool, spilt: float = 0.4
) -> Case:
    """Premultiplied colours and alpha ``(T, 4, H, W)`` over a screen."""
    colour, channel = SCREENS[kind]
    own, alpha = both[:, :3], both[:, 3:]
    count, _, height, width = own.shape
    behind = screen(torch.tensor(colour), (height, width), count, seed)
    # the object's shadow on the screen
    cast = torch.roll(alpha, (round(0.06 * height), round(0.1 * width)), dims=(2, 3))
    cast = F.avg_pool2d(F.pad(cast, (25,) * 4, mode="replicate"), 51, 1)
    behind = behind * (1.0 - 0.18 * cast)
    # light of the screen on the object: everywhere, and more at its border
    reach = 2 * round(0.02 * max(height, width)) + 1
    near = 1.0 - F.avg_pool2d(F.pad(alpha, (reach // 2,) * 4, mode="replicate"), reach, 1)
    tint = torch.tensor(colour).view(1, 3, 1, 1) / max(colour)
    lit = own + spilt * (0.12 + near) * (0.7 * own + 0.12 * alpha) * tint
    frames = (lit.minimum(alpha) + (1.0 - alpha) * behind).clamp(0.0, 1.0)
    frames = frames + noise * torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed))
    frames = (frames.clamp(0.0, 1.0) * 255.0).round() / 255.0
    frames = frames.movedim(1, -1).contiguous()
    if subsampled:
        frames = torch.stack([at_half_colour(frame) for frame in frames])
    return Case(name, channel, frames, alpha[:, 0], own.movedim(1, -1), behind.movedim(1, -1))


def at_half_colour(frame: Tensor) -> Tensor:
    """A frame as 4:2:0 video has it."""
    ycc = cv2.cvtColor((frame.numpy() * 255.0).round().astype(np.uint8), cv2.COLOR_RGB2YCrCb)
    size = (frame.shape[1], frame.shape[0])
    for plane in (1, 2):
        small = cv2.resize(ycc[..., plane], (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
        ycc[..., plane] = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB)).float() / 255.0


def cases(options: argparse.Namespace) -> Iterator[Case]:
    size = (options.side * 9 // 16, options.side)
    settings = {"noise": options.noise, "subsampled": options.subsampled}
    for number, still in enumerate(options.stills):
        folder = options.data / "mattes" / "stills" / still
        image, alpha = picture(folder / "image.png")[:3], picture(folder / "alpha.png")[:1]
        own = foreground_colours(image, alpha[0])[0]
        both = moved(torch.cat((own * alpha, alpha)), size, options.frames)
        for kind in options.screens:
            yield case_of(f"{still}, {kind}", both, kind, number, **settings)
    if options.moving:
        files = sorted((options.data / "mattes" / "moving").glob("*.png"))[: options.frames]
        both = torch.stack([picture(file) for file in files])
        both[:, :3] *= both[:, 3:]
        both = F.interpolate(both, size=size, mode="bilinear", antialias=True)
        for kind in options.screens:
            yield case_of(f"fur, {kind}", both, kind, 99, **settings)


def excess(colours: Tensor, channel: int) -> Tensor:
    """How far one channel is above the others."""
    others = torch.cat((colours[..., :channel], colours[..., channel + 1 :]), dim=-1)
    return (colours[..., channel] - others.amax(dim=-1)).clamp_min(0.0)


def figures(case: Case, alpha: Tensor, colours: Tensor | None) -> list[float]:
    found = [1e3 * mad(alpha, case.alpha), 1e2 * dtssd(alpha, case.alpha) if len(alpha) > 1 else math.nan]
    if colours is None:
        return [*found, math.nan, math.nan]
    over = alpha[..., None] * colours + (1.0 - alpha[..., None]) * 0.5
    true = case.colours + (1.0 - case.alpha[..., None]) * 0.5
    mixed = (case.alpha > 0.01) & (case.alpha < 0.99)
    psnr = -10.0 * math.log10(float((over - true)[mixed].square().mean()))
    spill = excess(alpha[..., None] * colours, case.channel) - excess(case.colours, case.channel)
    return [*found, psnr, 255.0 * float(spill[case.alpha > 0.01].clamp_min(0.0).mean())]


def difference(case: Case) -> Tensor:
    """Alpha of a colour difference against the true screen."""
    both = [
        (one[..., case.channel] - torch.cat((one[..., : case.channel], one[..., case.channel + 1 :]), -1).amax(-1))
        for one in (case.frames, case.screen)
    ]
    return (1.0 - both[0] / both[1]).clamp(0.0, 1.0)


def sheet(case: Case, alpha: Tensor, colours: Tensor, path: Path) -> None:
    """Two frames: the clip, both mattes, and the object over black, white and red."""
    rows = []
    for index in (0, len(alpha) - 1):
        own = alpha[index, ..., None]
        grey = [matte[index, ..., None].expand(-1, -1, 3) for matte in (case.alpha, alpha)]
        over = [own * colours[index] + (1.0 - own) * torch.tensor(c) for c in ((0.0,) * 3, (1.0,) * 3, (0.8, 0.0, 0.0))]
        rows.append(torch.cat((case.frames[index], *grey), dim=1))
        rows.append(torch.cat(over, dim=1))
    write_picture(path, torch.cat(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stills", nargs="*", default=["01", "05", "09", "12", "16", "20", "lemur"])
    parser.add_argument("--screens", nargs="+", default=list(SCREENS))
    parser.add_argument("--moving", action="store_true", help="moving fur too")
    parser.add_argument("--side", type=int, default=432)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--subsampled", action="store_true", help="colour at half the size")
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, list[list[float]]] = {}
    for case in cases(options):
        started = time.perf_counter()
        alpha, colours = matte_and_colours(key_screen(case.frames))
        seconds = (time.perf_counter() - started) / len(case.frames)
        found = {"key": figures(case, alpha, colours), "difference": figures(case, difference(case), None)}
        for method, numbers in found.items():
            table.setdefault(method, []).append(numbers)
            print(f"| {case.name} | {method} | {' | '.join(f'{n:.2f}' for n in numbers)} | {seconds:.2f} |", flush=True)
        if options.pictures is not None:
            options.pictures.mkdir(parents=True, exist_ok=True)
            sheet(case, alpha, colours, options.pictures / f"{case.name.replace(', ', '_')}.png")
    for method, rows in table.items():
        print(f"mean of {len(rows)}: {method}: " + " | ".join(f"{n:.2f}" for n in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
