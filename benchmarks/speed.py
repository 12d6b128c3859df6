"""Seconds and memory: the three tasks' workflows on 24 frames of 854x480, and Relight alone at 1080p.

    python benchmarks/speed.py [--data FOLDER]

Each measurement runs in a process of its own. Memory of a workflow is the process's peak; extra memory of Relight is
its peak over what the process held before, less the frames it returns.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def workflows(data: Path | None) -> None:
    """``vdp run`` on a dark copy of a clip, a hazy one and the clip itself."""
    from clips import clip_paths, load

    from comfyui_vdp.vdp_core.degrade import darken, haze, hazy_depth
    from comfyui_vdp.vdp_core.media.clip import write_clip

    paths = clip_paths(data)
    clean = load(paths.get("blackswan", paths["bunny"]), frames=24, width=854)
    hazy = haze(clean, hazy_depth(*clean.shape[:3], seed=0), beta=1.4, airlight=(0.8, 0.82, 0.85))[0]
    with tempfile.TemporaryDirectory() as folder:
        for task, frames in (("relight", darken(clean, seed=0)[0]), ("segment", clean), ("dehaze", hazy)):
            graph = Path(__file__).parent.parent / "workflows" / f"{task}.json"
            clip = write_clip(Path(folder) / task, frames, fps=24, quality=95)
            seconds, peak = run(["run", str(graph), "--set", f"Clip.path={clip}", "--output-dir", folder])
            size = f"{frames.shape[2]}x{frames.shape[1]}"
            print(f"{task}.json, 24 frames of {size}: {seconds:.1f} s in all, peak {peak:.2f} GB", flush=True)


def run(arguments: list[str]) -> tuple[float, float]:
    """Run ``vdp``: seconds, the start of the process included, and its peak memory in GB."""
    main = "import sys; from comfyui_vdp.runner.cli import main; sys.exit(main())"
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", main, *arguments, "--device", "cpu", "--quiet"], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"vdp {arguments[0]} ended with {status}")
    return time.perf_counter() - started, used.ru_maxrss * PEAK_UNIT / 1e9


def apply_only(count: int) -> None:
    """Relight at 1080p with layers made up, noise removal off; prints one line."""
    import psutil
    import torch

    from comfyui_vdp.vdp_core.models import light
    from comfyui_vdp.vdp_core.store import lazy as frames_module
    from comfyui_vdp.vdp_core.types import Layers

    frames_module.fits_in_memory = lambda size: True  # where memory is short, frames would be made when looked at
    frames = torch.rand(count, 1080, 1920, 3)
    fields = {
        "log_gain": torch.randn(count, 1, 8, 15),
        "colour": torch.full((count, 3, 1, 1), 0.6),
        "gamma": torch.full((count, 1, 1, 1), 0.6),
        "noise": torch.zeros(count, 7, 1, 1),
    }
    layers = Layers("relight", fields, frames)
    held = psutil.Process().memory_info().rss
    started = time.perf_counter()
    made = light.apply(layers, denoise=0.0)
    seconds = time.perf_counter() - started
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT - held - made.numel() * 4
    print(f"Relight, {count} frames of 1920x1080: {seconds / count:.3f} s a frame, {extra / 1e6:.0f} MB extra")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with blackswan.mp4")
    parser.add_argument("--apply", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.apply:
        apply_only(options.apply)
        return
    workflows(options.data)
    for count in (10, 40, 80):
        subprocess.run([sys.executable, __file__, "--apply", str(count)], check=True)


if __name__ == "__main__":
    main()
