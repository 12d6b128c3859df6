"""A batch of twelve clips, two of them broken, by the plain loop and on a Ray cluster of this machine.

    python benchmarks/batch.py --data FOLDER [--frames 72] [--width 480] [--rounds 3]

Through relight.json, each way in a process of its own, the start and the end of the cluster included; then once more,
when only the broken ones are left to try. The ways take turns, and the quietest round of each counts. Results are
compared byte by byte.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clips import clip_paths, load

from comfyui_vdp.vdp_core.media.clip import write_clip

DARKER = (0.3, 0.45)
WORKFLOW = Path(__file__).parent.parent / "workflows" / "relight.json"
PROGRAM = "import sys; from comfyui_vdp.runner.cli import main; sys.exit(main())"


def make_clips(data: Path, frames: int, width: int, folder: Path) -> list[str]:
    """Ten dark clips, one that is cut off and one that is no video."""
    made = []
    for name, path in clip_paths(data).items():
        clip = load(path, frames=frames, width=width)
        made += [write_clip(folder / f"{name}_{dark}", dark * clip, fps=24, quality=90) for dark in DARKER]
    cut, text = folder / "cut.mp4", folder / "text.mp4"
    cut.write_bytes(made[0].read_bytes()[:200])
    text.write_text("no video")
    return [str(path) for path in (*made, cut, text)]


def batch(clips: list[str], out: Path, *options: str) -> tuple[float, dict[str, Any]]:
    """Seconds that a batch took, and its summary."""
    started = time.perf_counter()
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "batch",
        str(WORKFLOW),
        *clips,
        "--output-dir",
        str(out),
        "--device",
        "cpu",
    ]
    done = subprocess.run([*command, "--quiet", *options], stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"vdp batch ended with {done.returncode}")
    return time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])


def results(out: Path) -> dict[Path, bytes]:
    files = (path for path in sorted(out.glob("[!.]*/**/[!.]*")) if path.is_file())
    return {path.relative_to(out): path.read_bytes() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with blackswan.mp4 and bmx-trees/")
    parser.add_argument("--frames", type=int, default=72)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ways = {"plain": (), "ray": ("--ray", "local")}
    quietest = dict.fromkeys(ways, math.inf)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(options.data, options.frames, options.width, folder)
        for number in range(1, options.rounds + 1):
            made = {}
            for way, more in ways.items():
                out = folder / f"{way}_{number}"
                for turn in ("first", "again"):
                    seconds, summary = batch(clips, out, *more)
                    counts = ", ".join(f"{summary[key]} {key}" for key in ("done", "failed", "computed"))
                    print(f"{way}, {turn}: {seconds:.1f} s, {counts}", flush=True)
                    if turn == "first":
                        quietest[way] = min(quietest[way], seconds)
                made[way] = results(out)
            print(f"{len(made['plain'])} files, equal: {made['plain'] == made['ray']}", flush=True)
    print(f"throughput with Ray: {quietest['plain'] / quietest['ray']:.3f} of the plain loop's")


if __name__ == "__main__":
    main()
