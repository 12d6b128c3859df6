"""Long clips: whether windows show, and what memory and time grow to.

    python benchmarks/long.py --data FOLDER --seams [--workflows relight dehaze atlas]
    python benchmarks/long.py --data FOLDER --lengths 600 3000 [--size 1280 720] [--workflows relight dehaze atlas]
        [--settings Optimize.preset=fast Optimize.steps=20] [--free 2]

Blackswan goes back and forth, its light, haze or flicker with it, so that frames a cycle apart are equal; segment,
atlas and matte get it as it is. ``--seams`` compares the error of frames over which one window gives way to the next
with that of the same frames of the cycle inside windows; flicker is how much the error changes from a frame to the
next. The atlas has windows for its masks alone, and its error is that of the clip as textures rebuild it.
``--lengths`` runs the workflows on files of that many frames, each in a process of its own: memory is the most that is
not backed by a file, files are the temporary ones that it holds at most (Linux only). What a clip needs stays in memory
where there is plenty, and so grows with it; ``--free`` shows what grows where there is not.
"""

from __future__ import annotations

import argparse
import math
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import torch
import torch.nn.functional as F
from clips import clip_paths
from torch import Tensor

from comfyui_vdp.vdp_core.media.clip import read_clip, write_clip
from comfyui_vdp.vdp_core.models import colour as colour_model
from comfyui_vdp.vdp_core.models import haze as haze_model
from comfyui_vdp.vdp_core.models import light as light_model
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.optim.windows import WINDOW_OVERLAP, windows
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.driver import decompose

TASK_OF = {"relight": "dark", "dehaze": "hazy", "deflicker": "flickering"}
KIND_OF = {**TASK_OF, "segment": "plain", "atlas": "plain", "matte": "plain"}
MADE = {
    "relight": partial(light_model.apply, denoise=0.0),
    "dehaze": partial(haze_model.apply, denoise=0.0),
    "deflicker": colour_model.apply,
    "atlas": reconstruct,
}
CYCLES = 7
AIRLIGHT = (0.8, 0.82, 0.85)


def cycle(data: Path, kind: str, width: int, height: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each frame ``(H, W, 3)`` of a cycle: the truth, and the same dark, hazy, flickering or plain, in 8 bits."""
    clip = read_clip(clip_paths(data)["blackswan"]).frames
    y, x = torch.meshgrid(torch.linspace(-1.0, 1.0, height), torch.linspace(-1.0, 1.0, width), indexing="ij")
    length = 2 * len(clip) - 2
    generator = torch.Generator().manual_seed(0)
    gains, gammas = (spread * torch.randn(length, 3, generator=generator) for spread in (0.15, 0.1))
    for index in range(length):
        frame = clip[min(index, length - index)].movedim(-1, 0)[None]
        frame = F.interpolate(frame, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
        truth = frame[0].movedim(0, -1).clamp(0.0, 1.0)
        phase = 2.0 * math.pi * index / length
        if kind == "dark":
            light = 0.35 + 0.1 * math.sin(phase) + 0.1 * math.cos(phase) * x + 0.05 * y
            shown = light[..., None] * truth.pow(1.6)
        elif kind == "plain":
            shown = truth
        elif kind == "flickering":
            shown = (gains - gains.mean(dim=0))[index].exp() * truth ** (gammas - gammas.mean(dim=0))[index].exp()
        else:
            through = torch.exp(-(0.8 - 0.4 * y + 0.2 * torch.sin(2.0 * x + phase)))[..., None]
            shown = through * truth + (1.0 - through) * torch.tensor(AIRLIGHT)
        yield truth, (shown.clamp(0.0, 1.0) * 255.0).round() / 255.0


def seams(data: Path, task: str) -> str:
    """A row of the table: errors across windows over errors inside, and the same of flicker."""
    truth, shown = (torch.stack(part) for part in zip(*cycle(data, KIND_OF[task], 320, 180), strict=True))
    length = len(truth)
    shown = shown.repeat(CYCLES, 1, 1, 1)
    layers = decompose(task, shown, estimate_flow(shown, model="dis", shots=False))
    wrong = MADE[task](layers).sub_(truth.repeat(CYCLES, 1, 1, 1))
    errors = wrong.abs().mean(dim=(1, 2, 3))
    flicker = torch.stack([(after - before).abs().mean() for before, after in pairwise(wrong)])
    config = TASKS[task].presets["balanced"].config
    spans = windows(len(shown), (config.masks if task == "atlas" else config).window, WINDOW_OVERLAP)
    across = {index for one, other in pairwise(spans) for index in range(other.start - 1, one.stop)}
    ratios = [apart(values, across, length) for values in (errors, flicker)]
    return f"| {task} | {len(spans)} | {errors.mean():.4f} | {ratios[0]:.3f} | {flicker.mean():.5f} | {ratios[1]:.3f} |"


def apart(values: Tensor, across: set[int], length: int) -> float:
    """The mean of the frames that lie across windows over that of the same frames of the cycle inside them."""
    ours, others = [], []
    for index in sorted(across):
        same = [other for other in range(index % length, len(values), length) if other not in across]
        if index < len(values) and same:
            ours.append(float(values[index]))
            others.append(float(values[same].mean()))
    return sum(ours) / sum(others)


def repeated(data: Path, kind: str, count: int, width: int, height: int, folder: Path) -> Path:
    """A file of ``count`` frames: the cycle encoded once, its packets repeated."""
    import av

    once = folder / f"{kind}.mp4"
    if not once.exists():
        frames = (shown[None] for _, shown in cycle(data, kind, width, height))
        write_clip(once.with_suffix(""), frames, fps=25, format="mp4", quality=85)
    out = folder / f"{kind}_{count}.mp4"
    with av.open(str(once)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        copy = target.add_stream_from_template(stream)
        for index in range(count):
            turn, packet = divmod(index, len(packets))
            again = av.Packet(bytes(packets[packet]))
            later = turn * len(packets) * packets[packet].duration
            again.pts, again.dts = packets[packet].pts + later, packets[packet].dts + later
            again.duration, again.time_base = packets[packet].duration, stream.time_base
            again.is_keyframe, again.stream = packets[packet].is_keyframe, copy
            target.mux(again)
    return out


def run(
    workflow: str, settings: list[str], clip: Path, folder: Path, free: float | None
) -> tuple[float, float, float, float]:
    """Run a workflow in a process of its own, as if so many GB of memory were free.

    Returns:
        Seconds, seconds of processor, the most anonymous memory, and the most temporary files, in GB.
    """
    graph = Path(__file__).parent.parent / "workflows" / f"{workflow}.json"
    arguments = ["run", str(graph), "--output-dir", str(folder / "out"), "--quiet", "--device", "cpu"]
    arguments += [part for setting in (f"Clip.path={clip}", *settings) for part in ("--set", setting)]
    program = "import sys; from comfyui_vdp.runner.cli import main; sys.exit(main())"
    if free is not None:
        budget = "import comfyui_vdp.vdp_core.store.budget as budget"
        program = f"{budget}; budget.memory_free = lambda: {round(free * 1e9)}; {program}"
    started, before = time.perf_counter(), processor_seconds()
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL)
    memory = files = 0.0
    while process.poll() is None:
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        memory = max(memory, int(found[1]) * 1024 / 1e9 if found else 0.0)
        files = max(files, temporary_bytes(process.pid) / 1e9)
        time.sleep(0.1)
    if process.returncode != 0:
        raise SystemExit(f"{workflow}.json ended with {process.returncode}")
    return time.perf_counter() - started, processor_seconds() - before, memory, files


def temporary_bytes(process: int) -> int:
    """Bytes of the nameless files that a process has open or mapped."""
    place, sizes = f"{Path(tempfile.gettempdir()).resolve()}/", {}
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            span, _, _, _, inode, *name = line.split(maxsplit=5)
            if name and name[0].startswith(place) and name[0].endswith("(deleted)"):
                first, end = (int(edge, 16) for edge in span.split("-"))
                sizes[inode] = sizes.get(inode, 0) + end - first
    with suppress(OSError):
        for opened in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                if (name := str(opened.readlink())).startswith(place) and name.endswith("(deleted)"):
                    found = opened.stat()
                    sizes[str(found.st_ino)] = found.st_blocks * 512
    return sum(sizes.values())


def processor_seconds() -> float:
    """What the processes that this one waited for took of the processors, all threads together."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with blackswan.mp4")
    parser.add_argument("--seams", action="store_true", help="errors across windows against errors inside")
    parser.add_argument("--lengths", type=int, nargs="+", default=[], help="frames of each file")
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 720], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--workflows", nargs="+", choices=list(KIND_OF), default=list(TASK_OF))
    parser.add_argument("--settings", nargs="+", default=[], help="what to --set")
    parser.add_argument("--free", type=float, metavar="GB", help="take so much memory to be free")
    options = parser.parse_args()
    if options.seams:
        print("| task | windows | error | across / inside | flicker | across / inside |\n|---|---|---|---|---|---|")
        for task in [name for name in options.workflows if name in MADE]:
            print(seams(options.data, task), flush=True)
    width, height = options.size
    if options.lengths:
        print("\n| workflow | frames | seconds | seconds a frame | of processor | memory (GB) | files (GB) |")
        print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workflow, count in product(options.workflows, options.lengths):
            clip = repeated(options.data, KIND_OF[workflow], count, width, height, folder)
            seconds, processor, memory, files = run(workflow, options.settings, clip, folder, options.free)
            rates = f"{seconds / count:.3f} | {processor / count:.3f}"
            print(f"| {workflow} | {count} | {seconds:.0f} | {rates} | {memory:.2f} | {files:.1f} |", flush=True)


if __name__ == "__main__":
    main()
