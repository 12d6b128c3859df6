"""Seconds and memory: the whole relight workflow on 24 frames of 854x480, and Relight alone at 1080p.

    python benchmarks/speed.py [--data FOLDER]

Each measurement runs in a process of its own. Memory of the workflow is the process's peak; extra memory of Relight is
its peak over what the process held before, less the frames it returns.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def workflow(data: Path | None) -> None:
    """``vdp run workflows/relight.json`` on a dark copy."""
    from clips import clip_paths, load

    from comfyui_vdp.vdp_core.degrade import darken
    from comfyui_vdp.vdp_core.video import write_clip

    paths = clip_paths(data)
    dark, _ = darken(load(paths.get("blackswan", paths["bunny"]), frames=24, width=854), seed=0)
    graph = Path(__file__).parent.parent / "workflows" / "relight.json"
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "dark", dark, fps=24, quality=95)
        command = ["run", str(graph), "--set", f"Clip.path={clip}", "--output-dir", folder, "--device", "cpu"]
        started = time.perf_counter()
        main = "import sys; from comfyui_vdp.runner.cli import main; sys.exit(main())"
        subprocess.run([sys.executable, "-c", main, *command], check=True, capture_output=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * PEAK_UNIT / 1e9
    print(f"relight.json, 24 frames of {dark.shape[2]}x{dark.shape[1]}: {seconds:.1f} s in all, peak {peak:.2f} GB")


def apply_only(count: int) -> None:
    """Relight at 1080p with layers made up, noise removal off; prints one line."""
    import psutil
    import torch

    from comfyui_vdp.vdp_core.tasks import relight
    from comfyui_vdp.vdp_core.types import Layers

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
    made = relight.apply(layers, denoise=0.0)
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
    workflow(options.data)
    for count in (10, 40, 80):
        subprocess.run([sys.executable, __file__, "--apply", str(count)], check=True)


if __name__ == "__main__":
    main()
