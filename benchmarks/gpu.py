"""What only a GPU can show, in under six minutes: seconds, memory and idleness of tasks and nodes, RAFT, and the tests.

    python benchmarks/gpu.py [--seconds 330] [--out gpu.json]

Runs where torch, torchvision, numpy, OpenCV, einops and psutil are, without PyAV, natsort, safetensors and network: 100
frames of 1080p are rendered, and "all in" is motion, optimisation and the frames that come of it, in memory, with
nothing decoded or encoded. Everything is as a person meets it the first time, but for the start of CUDA, which is a row
of its own. Each part is a process with a limit of time, forked, where that can be, once the libraries are loaded: what
fails or hangs leaves the others alone, and parts of less worth come later and are left out when time is short.

Writes a JSON file, prints a table for docs/BENCHMARKS.md, and the JSON again as the last line. Ends with 1 unless
relight, dehaze, segment and flow each gave a row on the device, with 2 where only the tests failed or could not run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
TASKS = {"relight": "Relight", "dehaze": "Dehaze", "segment": "Composite"}
"""The node that shows what a task found."""
WANTED = (*TASKS, "flow")
"""Parts without which the run has failed."""
TIMED = (*WANTED, "atlas")
"""Parts whose rows the table has one by one."""
ATLAS_FRAMES, ATLAS_SIZE = 70, (432, 768)
"""The longest clip, and its size (H, W), that Layered Neural Atlases takes, in ten hours."""
CPU_FRAMES = 8
PROFILED_FRAMES, PROFILED_STEPS = 16, 100
RAFT_FRAMES, RAFT_SIDE = 33, 512
POLL = 0.1  # seconds between two looks at how busy the GPU is
NO_FORK = "Cannot re-initialize CUDA in forked subprocess"
"""What torch says where loading some library has asked CUDA something: then each part loads them anew."""
LEAST_SECONDS = 5.0  # it is not worth to start a part for less


def load_pack() -> None:
    """Make the pack ``comfyui_vdp``, whose folder may have any name and need not be installed."""
    place = ROOT / "__init__.py"
    spec = importlib.util.spec_from_file_location("comfyui_vdp", place, submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    sys.modules["comfyui_vdp"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    for module in ("tasks.driver", "motion.flow", "edit.composite", "models.light"):  # so that no part has to
        importlib.import_module(f"comfyui_vdp.vdp_core.{module}")
    for library in ("cv2", "torchvision.models.optical_flow"):
        importlib.import_module(library)


@dataclass
class Run:
    """What a part is told, and where it tells what it found."""

    device: str
    frames: int
    size: tuple[int, int]
    """(H, W)."""
    steps: int
    updates: int
    folder: Path
    """Of its own, empty."""
    file: Path
    said: list[str] = field(default_factory=list)

    def tell(self, **row: Any) -> None:
        """Add a row, at once: the part may not live to see its end."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    @contextmanager
    def measured(self, part: str, what: str, *, device: str | None = None, frames: int | None = None) -> Iterator[dict]:
        """A row of the seconds that the block takes, and of what the GPU does meanwhile."""
        device = device or self.device
        height, width = self.size
        row: dict[str, Any] = {"part": part, "what": what, "asked_for": device, "device": device}
        row |= {"frames": frames or self.frames, "size": f"{width}x{height}"}
        is_cuda = torch.device(device).type == "cuda"
        if is_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.said.clear()
        with busy_share(is_cuda) as share:
            began = time.perf_counter()
            yield row
            if is_cuda:
                torch.cuda.synchronize()
            row["seconds"] = time.perf_counter() - began
        row |= {"gpu_works": share(), "peak_bytes": torch.cuda.max_memory_allocated() if is_cuda else None}
        row["said"] = list(self.said)
        if any("so it ran on the CPU" in line for line in self.said):
            row["device"] = "cpu"
        self.tell(**row)

    def node(self, name: str, **inputs: Any) -> tuple[Any, ...]:
        """What a node gives; widgets that are not named have their defaults."""
        from comfyui_vdp.nodes import NODE_CLASS_MAPPINGS

        kind = NODE_CLASS_MAPPINGS[name]
        widgets = {one: spec for group in kind.INPUT_TYPES().values() for one, spec in group.items()}
        known = {one: spec[1]["default"] for one, spec in widgets.items() if len(spec) > 1 and "default" in spec[1]}
        made = getattr(kind(), kind.FUNCTION)(**{**known, **inputs})
        return made["result"] if isinstance(made, dict) else made


@contextmanager
def busy_share(is_cuda: bool) -> Iterator[Callable[[], float | None]]:
    """Ask the driver, over and over, for the share of the time in which kernels run; None where it cannot be asked."""
    shares: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(POLL):
            try:
                shares.append(torch.cuda.utilization() / 100.0)
            except Exception as error:  # no pynvml, or a driver that does not say: the profile still does
                print(f"the driver does not say how busy the GPU is: {error}", file=sys.stderr)
                return

    asking = threading.Thread(target=ask, daemon=True)
    if is_cuda:
        asking.start()
    try:
        yield lambda: sum(shares) / len(shares) if shares else None
    finally:
        over.set()


def rendered(task: str, count: int, height: int, width: int, device: str) -> Tensor:
    """A clip ``(T, H, W, 3)`` for a task, in 8 bits and on the CPU: a disc passes over a panned background."""
    generator = torch.Generator(device).manual_seed(0)

    def texture(rows: int, columns: int) -> Tensor:
        total = torch.zeros(1, 3, rows, columns, device=device)
        for knots in (8, 24, 72, 216):
            waves = torch.randn(1, 3, knots, 2 * knots, generator=generator, device=device)
            total += F.interpolate(waves, size=(rows, columns), mode="bicubic") * knots**-0.5
        return torch.sigmoid(3.0 * total)[0]

    behind, front = texture(height + count, width + 3 * count), texture(height, width)
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    frames = torch.empty(count, height, width, 3)
    for index in range(count):
        clean = behind[:, index : index + height, 3 * index : 3 * index + width]
        place = (0.25 + 0.5 * index / count) * width
        cover = (0.2 * height + 0.5 - torch.hypot(x - place, y - 0.55 * height)).clamp(0.0, 1.0)
        shown = clean.lerp(front.roll(round(place), dims=2), cover)
        if task == "relight":
            light = 0.2 * torch.exp(0.5 * torch.sin(3.0 * x / width + 0.1 * index) * torch.cos(2.0 * y / height))
            shown = light * shown**1.6 + 0.01 * torch.randn(shown.shape, generator=generator, device=device)
        elif task == "dehaze":
            through = torch.exp(-1.4 * (1.0 - 0.7 * y / height) * (1.0 + 0.2 * math.sin(0.1 * index)))
            shown = 0.85 + through * (shown - 0.85)
        frames[index] = shown.clamp(0.0, 1.0).mul(255.0).round().div(255.0).movedim(0, -1)
    return frames


def do_task(run: Run, task: str, *, device: str | None = None, frames: int | None = None) -> None:
    """A task from the clip to its frames, and the other nodes that show its layers."""
    device, frames = device or run.device, frames or run.frames
    where = {"device": device, "frames": frames}
    clip = rendered(task, frames, *run.size, run.device)
    shown = {"layer": "background", "visibility": 0.25} if task == "segment" else {}  # as in the workflows
    with run.measured(task, "RAFTFlow", **where) as first:
        (flow,) = run.node("RAFTFlow", frames=clip)
    with run.measured(task, f"VDPOptimize, {task}", **where) as second:
        (layers,) = run.node("VDPOptimize", frames=clip, flow=flow, task=task, steps=run.steps)
    with run.measured(task, TASKS[task], **where) as third:
        run.node(TASKS[task], layers=layers, **shown)
    run.tell(**all_in([first, second, third]))
    if task != "segment":
        with run.measured(task, f"{TASKS[task]} again", **where):
            run.node(TASKS[task], layers=layers)
        return
    with run.measured(task, "Composite, objects taken out", **where):
        run.node("Composite", layers=layers, layer="objects", visibility=0.0)
    with run.measured(task, "SplitLayers", **where):
        run.node("SplitLayers", layers=layers, layer=1)


def do_atlas(run: Run) -> None:
    """Textures and mappings of a clip as long and large as the published system takes."""
    run.size = (min(run.size[0], ATLAS_SIZE[0]), min(run.size[1], ATLAS_SIZE[1]))
    run.frames = min(run.frames, ATLAS_FRAMES)
    clip = rendered("atlas", run.frames, *run.size, run.device)
    with run.measured("atlas", "RAFTFlow") as first:
        (flow,) = run.node("RAFTFlow", frames=clip)
    with run.measured("atlas", "VDPOptimize, atlas") as second:
        run.node("VDPOptimize", frames=clip, flow=flow, task="atlas", steps=run.steps)
    run.tell(**all_in([first, second]))


def all_in(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of what was done in several steps; on the CPU where one of them had to go there."""
    seconds = sum(row["seconds"] for row in rows)
    works = [row["gpu_works"] for row in rows]
    return {
        **rows[0],
        "what": "all in",
        "device": "cpu" if any(row["device"] == "cpu" for row in rows) else rows[0]["device"],
        "seconds": seconds,
        "gpu_works": None if None in works else sum(row["gpu_works"] * row["seconds"] for row in rows) / seconds,
        "peak_bytes": None if rows[0]["peak_bytes"] is None else max(row["peak_bytes"] for row in rows),
        "said": [line for row in rows for line in row["said"]],
    }


def do_flow(run: Run, *, device: str | None = None, frames: int | None = None) -> None:
    """Motion by what ``auto`` takes, and its pictures."""
    where = {"device": device or run.device, "frames": frames or run.frames}
    clip = rendered("flow", where["frames"], *run.size, run.device)
    with run.measured("flow", "all in", **where):
        (flow,) = run.node("RAFTFlow", frames=clip)
    with run.measured("flow", "FlowToRGB", **where):
        run.node("FlowToRGB", flow=flow)
    with run.measured("flow", "DetectShots", **where):
        run.node("DetectShots", frames=clip)
    where["frames"] = min(where["frames"], CPU_FRAMES)
    some = slice(0, where["frames"])
    with run.measured("flow", "MeasureVideo", **where):
        run.node("MeasureVideo", frames=clip[some].sqrt(), reference=clip[some])


def do_raft(run: Run) -> None:
    """RAFT large with random weights, both directions, against torchvision's network called pair by pair.

    Ours begins with frames on the CPU and ends with occlusion; the loop has its frames on the device.
    """
    from torchvision.models import optical_flow

    from comfyui_vdp.vdp_core.motion.flow import estimate_flow, working_size
    from comfyui_vdp.vdp_core.motion.raft import padded

    height, width = padded(*working_size(*run.size, RAFT_SIDE))
    count = min(run.frames, RAFT_FRAMES)
    run.size = (height, width)
    clip = rendered("flow", count, height, width, run.device)
    torch.manual_seed(0)
    net = optical_flow.raft_large(weights=None).eval().to(run.device)
    torch.save(net.state_dict(), run.folder / "raft_large_random.pth")
    pictures = clip.movedim(-1, 1).to(run.device) * 2.0 - 1.0
    is_cuda = torch.device(run.device).type == "cuda"

    @torch.no_grad()
    def loop(pairs: int, half: bool) -> None:
        with torch.autocast(torch.device(run.device).type, dtype=torch.float16, enabled=half):
            for index in range(pairs):
                for one, other in ((index, index + 1), (index + 1, index)):
                    net(pictures[one, None], pictures[other, None], num_flow_updates=run.updates)[-1].cpu()

    def ours(pairs: int, half: bool) -> None:
        settings = {"model": "raft_large", "updates": run.updates, "max_side": 0, "shots": False, "lift_dark": False}
        place = {"device": run.device, "half": half, "weights_folders": [run.folder]}
        estimate_flow(clip[: pairs + 1], **settings, **place)

    for name, work in (("plain loop", loop), ("RAFTFlow", ours)):
        for half in (False, True)[: 1 + is_cuda]:
            if is_cuda:
                work(1, half)  # cuDNN chooses its kernels
            with run.measured("raft", f"{name}{', half precision' if half else ''}", frames=count):
                work(count - 1, half)


def do_cpu(run: Run) -> None:
    """Tasks and motion on the CPU of the same machine."""
    from comfyui_vdp.nodes import host

    host.headless.device = "cpu"
    count = min(run.frames, CPU_FRAMES)
    for task in TASKS:
        do_task(run, task, device="cpu", frames=count)
    do_flow(run, device="cpu", frames=count)


def do_profile(run: Run) -> None:
    """What the GPU does in short clips of the tasks, by torch's profiler, kernel by kernel."""
    from torch.profiler import ProfilerActivity, profile

    activity = getattr(ProfilerActivity, torch.device(run.device).type.upper())
    count = min(run.frames, PROFILED_FRAMES)
    for task in TASKS:
        clip = rendered(task, count, *run.size, run.device)
        (flow,) = run.node("RAFTFlow", frames=clip)
        layers: list[Any] = []

        def optimise(task: str = task, clip: Tensor = clip, flow: Any = flow, layers: list[Any] = layers) -> None:
            layers += run.node("VDPOptimize", frames=clip, flow=flow, task=task, steps=run.steps or PROFILED_STEPS)

        def show(task: str = task, layers: list[Any] = layers) -> None:
            run.node(TASKS[task], layers=layers[0])

        for what, work in ((f"VDPOptimize, {task}", optimise), (TASKS[task], show)):
            with profile(activities=[activity]) as kept:
                began = time.perf_counter()
                work()
                if torch.device(run.device).type == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - began
            trace = run.folder / "trace.json"
            kept.export_chrome_trace(str(trace))
            found = summary(json.loads(trace.read_text(encoding="utf-8"))["traceEvents"], seconds)
            run.tell(part="profile", what=what, device=run.device, frames=count, seconds=seconds, **found)


def summary(events: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Of a trace: the share of the time in which the GPU computes or copies, its kernels, waits, and what took most."""
    on_gpu = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    busy, until = 0.0, -math.inf
    for event in sorted(on_gpu, key=lambda event: float(event["ts"])):
        start, end = float(event["ts"]), float(event["ts"]) + float(event["dur"])
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    totals: dict[str, float] = {}
    for event in on_gpu:
        totals[event["name"][:100]] = totals.get(event["name"][:100], 0.0) + float(event["dur"]) / 1e6
    most = sorted(totals.items(), key=lambda pair: -pair[1])[:8]
    return {
        "gpu_works": busy / 1e6 / seconds,
        "kernels": sum(event["cat"] == "kernel" for event in on_gpu),
        "waits": sum("Synchronize" in event["name"] for event in events if event.get("cat") == "cuda_runtime"),
        "copies_seconds": sum(float(event["dur"]) for event in on_gpu if event["cat"] == "gpu_memcpy") / 1e6,
        "most_seconds": {name: round(value, 4) for name, value in most},
    }


def do_tests(run: Run, files: list[Path] | None = None) -> None:
    """The tests with the mark ``gpu``, in the files that have any: others may need what is not installed here."""
    import pytest

    class Outcomes:
        """Tells of each test as it ends."""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                self.pytest_collectreport(report)

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed or report.when != "collect":
                why = str(report.longrepr or "")[-2000:]
                run.tell(part="tests", test=report.nodeid, outcome=report.outcome, why=why)

    if files is None:
        files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    os.chdir(ROOT)
    if torch.device(run.device).type == "cpu":
        os.environ["VDP_TEST_GPU"] = "cpu"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # elsewhere there may be none
    options = ["-o", "addopts=--import-mode=importlib", "-m", "gpu", "-q", "--tb=short", "-p", "no:cacheprovider"]
    run.tell(part="tests", code=int(pytest.main([*options, *map(str, files)], plugins=[Outcomes()])))


def do_machine(run: Run) -> None:
    """What this is, and how long CUDA takes to start."""
    row: dict[str, Any] = {"part": "machine", "device": run.device, "name": platform.processor() or platform.machine()}
    row |= {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    row |= {name: sys.modules[name].__version__ for name in ("torchvision", "numpy", "cv2")}
    if torch.device(run.device).type == "cuda":
        began = time.perf_counter()
        torch.ones(64, 64, device=run.device).mm(torch.ones(64, 64, device=run.device)).sum().item()
        row |= {"start_seconds": time.perf_counter() - began, "cuda": torch.version.cuda}
        row |= {"name": torch.cuda.get_device_name(), "bytes": torch.cuda.get_device_properties(0).total_memory}
    run.tell(**row)


PARTS: dict[str, tuple[Callable[[Run], None], float]] = {
    "machine": (do_machine, 60.0),
    "relight": (lambda run: do_task(run, "relight"), 60.0),
    "dehaze": (lambda run: do_task(run, "dehaze"), 60.0),
    "segment": (lambda run: do_task(run, "segment"), 120.0),
    "flow": (do_flow, 40.0),
    "raft": (do_raft, 40.0),
    "tests": (do_tests, 150.0),
    "atlas": (do_atlas, 90.0),
    "cpu": (do_cpu, 120.0),
    "profile": (do_profile, 60.0),
}
"""Each part and the seconds that it may take, in the order of their worth."""


def in_child(name: str, run: Run) -> None:
    """A part, in a process of its own whose output goes to stderr."""
    os.dup2(2, 1)
    try:
        if "comfyui_vdp" not in sys.modules:
            load_pack()
        from comfyui_vdp.nodes import host

        settings = {"output_folder": run.folder, "temp_folder": run.folder, "say": run.said.append}
        with host.comfy.running(host.Headless(device=torch.device(run.device).type, **settings)):
            PARTS[name][0](run)
    except BaseException as error:
        traceback.print_exc()
        run.tell(part=name, error=f"{type(error).__name__}: {error}")


def do_part(name: str, run: Run, limit: float, start: str = "fork") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a part, and how it went; ``start`` says how its process starts."""
    began = time.perf_counter()
    child = multiprocessing.get_context(start).Process(target=in_child, args=(name, run))
    child.start()
    child.join(limit)
    ended = "in time" if child.exitcode == 0 else f"with exit code {child.exitcode}"
    if child.exitcode is None:
        child.kill()
        child.join()
        ended = f"cut off after {limit:.0f} s"
    rows = [json.loads(line) for line in run.file.read_text("utf-8").splitlines()] if run.file.exists() else []
    errors = [row["error"] for row in rows if "error" in row]
    went = {"seconds": time.perf_counter() - began, "ended": f"by {errors[0]}" if errors else ended}
    return [row for row in rows if "error" not in row], went


def table(rows: list[dict[str, Any]], device: str) -> str:
    """Rows for docs/BENCHMARKS.md: what took how long, on the device and beside it on the CPU."""
    lines = [f"{said}\n" for said in (machine_line(rows), tests_line(rows)) if said]
    lines += ["| what | s | ms a frame | GPU works | peak (GiB) | CPU, ms a frame |", "|---|---|---|---|---|---|"]
    timed = [row for row in rows if row["part"] in TIMED]
    of_cpu = {(row["part"], row["what"]): row for row in timed if row["asked_for"] == "cpu" != device}
    for row in (row for row in timed if row["asked_for"] == device):
        beside = of_cpu.get((row["part"], row["what"]))
        name = f"**{row['part']}, all in**" if row["what"] == "all in" else row["what"]
        name += f", on the {row['device']}" * (row["device"] != device)
        cells = [name, f"{row['seconds']:.1f}", f"{1000 * row['seconds'] / row['frames']:.0f}", percent(row)]
        cells.append("" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.1f}")
        cells.append("" if beside is None else f"{1000 * beside['seconds'] / beside['frames']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    speeds = [row for row in rows if row["part"] == "raft"]
    if speeds:
        lines += ["", "| RAFT, both directions | pairs a second | GPU works | peak (GiB) |", "|---|---|---|---|"]
        for row in speeds:
            peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.1f}"
            name = f"{row['what']}, {row['size']}"
            lines.append(f"| {name} | {(row['frames'] - 1) / row['seconds']:.1f} | {percent(row)} | {peak} |")
    profiled = [row for row in rows if row["part"] == "profile"]
    if profiled:
        lines += ["", "| profiled | s | GPU works | kernels a frame | waits a frame | copies (s) |"]
        lines.append("|---|---|---|---|---|---|")
        for row in profiled:
            counts = " | ".join(f"{row[name] / row['frames']:.0f}" for name in ("kernels", "waits"))
            lines.append(
                f"| {row['what']}, {row['frames']} frames | {row['seconds']:.1f} | {percent(row)} | {counts} | "
                f"{row['copies_seconds']:.2f} |"
            )
    return "\n".join(lines)


def machine_line(rows: list[dict[str, Any]]) -> str:
    """On what the figures were taken."""
    for row in rows:
        if row["part"] == "machine":
            starts = f", CUDA {row['cuda']}, which starts in {row['start_seconds']:.1f} s" if "cuda" in row else ""
            return f"{row['name']}, {row['cores']} cores (Python {row['python']}, torch {row['torch']}{starts})."
    return ""


def tests_line(rows: list[dict[str, Any]]) -> str:
    """How many tests ended in which way."""
    outcomes = [row["outcome"] for row in rows if "outcome" in row]
    counts = [f"{outcomes.count(one)} {one}" for one in ("passed", "failed", "skipped") if one in outcomes]
    return f"`pytest -m gpu`: {', '.join(counts)}." if counts else ""


def percent(row: dict[str, Any]) -> str:
    return "" if row.get("gpu_works") is None else f"{100 * row['gpu_works']:.0f} %"


def all_passed(rows: list[dict[str, Any]]) -> bool:
    """Whether tests ran to their end, none was skipped and none failed."""
    outcomes = [row["outcome"] for row in rows if "outcome" in row]
    return {"code": 0, "part": "tests"} in rows and {*outcomes} == {"passed"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu shows on any machine that this program runs")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--size", default="1920x1080", help="of the frames, as in %(default)s")
    parser.add_argument("--steps", type=int, default=0, help="of optimisations, at most; 0: the preset's")
    parser.add_argument("--updates", type=int, default=12, help="of RAFT")
    parser.add_argument("--seconds", type=float, default=330.0, help="in which it ends, with what it has by then")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    ends = time.perf_counter() + options.seconds
    width, height = map(int, options.size.split("x"))
    load_pack()
    rows: list[dict[str, Any]] = []
    parts: dict[str, Any] = {}
    start = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with tempfile.TemporaryDirectory() as folder:
        for name in (part for part in PARTS if part in options.parts):
            left = ends - time.perf_counter()
            if left < LEAST_SECONDS:
                parts[name] = {"seconds": 0.0, "ended": "left out, no time"}
                continue
            own = Path(folder) / name
            own.mkdir()
            settings = {"steps": options.steps, "updates": options.updates, "folder": own, "file": own / "rows"}
            run = Run(options.device, options.frames, (height, width), **settings)
            found, parts[name] = do_part(name, run, min(PARTS[name][1], left), start)
            if NO_FORK in parts[name]["ended"] and start == "fork":
                start = "spawn"
                run.file.unlink()
                found, parts[name] = do_part(name, run, min(PARTS[name][1], left), start)
            rows += found
            print(f"{name}: {parts[name]['seconds']:.1f} s, {parts[name]['ended']}", file=sys.stderr, flush=True)
            options.out.write_text(json.dumps({"parts": parts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(rows, options.device))
    print(json.dumps({"parts": parts, "rows": rows}))
    done = {row["part"] for row in rows if row.get("what") == "all in" and row["device"] == options.device}
    if missing := [part for part in WANTED if part not in done]:
        print(f"no row of {', '.join(missing)} on {options.device}", file=sys.stderr)
        return 1
    if "tests" in options.parts and not all_passed(rows):
        print(f"tests: {parts['tests']['ended']}, not all passed", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
