"""The ``vdp`` command. Exit codes: 0 done, 1 graph or input wrong, 2 wrong usage, 3 failed, 130 interrupted."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .graph.types import Graph, GraphError, InputSpec, NodeSpec, RunResult, Specs, in_line
from .terminal import Terminal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["main"]

WORKFLOWS = Path(__file__).parent.parent / "workflows"
WRONG, USAGE, FAILED, INTERRUPTED = 1, 2, 3, 130

OUTPUT_DIR = click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("output"),
    show_default=True,
    help="Where results are written.",
)
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
QUIET = click.option("--quiet", is_flag=True, help="No progress on stderr.")
SEED = click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Set every seed of the graph.")
SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NODE.INPUT=VALUE",
    help="Change an input; NODE is an id, a title, or a class name where unique.",
)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vdp-nodes", prog_name="vdp")
def vdp() -> None:
    """Take a video apart into layers, change the parts, put it back together."""


def _prepare(workflow: Path, specs: Specs, settings: Sequence[str], seed: int | None = None) -> Graph:
    from .graph.read import load
    from .graph.set import set_seeds, set_value

    graph = load(workflow, specs)
    if seed is not None:
        set_seeds(graph, specs, seed)
    for setting in settings:
        set_value(graph, specs, setting)
    return graph


def _refuse(problems: list[str]) -> None:
    if problems:
        raise GraphError("\n".join(map(in_line, problems)))


def _refuse_failed(for_bad_input: list[bool], total: int, where: str) -> None:
    """Fail where clips did, each for bad input or not; a file says why."""
    from .run.execute import NodeFailed

    if for_bad_input:
        message = f"{len(for_bad_input)} of {total} clips failed; {where} says why"
        raise GraphError(message) if all(for_bad_input) else NodeFailed(message)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphError(f"the output folder {folder} cannot be made: {error.strerror or error}") from error


@vdp.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@SET
@OUTPUT_DIR
@DEVICE
@SEED
@click.option("--resume", is_flag=True, help="Keep what long work has found so far, and go on from it after a kill.")
@click.option("--server", metavar="URL", help="Run on this ComfyUI instead of here; paths are the server's.")
@QUIET
def run(
    workflow: Path,
    settings: tuple[str, ...],
    output_dir: Path,
    device: str,
    seed: int | None,
    resume: bool,
    server: str | None,
    quiet: bool,
) -> None:
    """Run a workflow (editor's or API format); the last line on stdout is JSON with the files it made."""
    terminal = Terminal(quiet=quiet)
    start = time.monotonic()
    if server is None:
        result = _run_here(workflow, settings, output_dir, device, seed, resume, terminal)
    elif device != "auto" or resume:
        raise click.UsageError(f"--{'resume' if resume else 'device'} has no effect with --server: the server decides")
    else:
        result = _run_there(server, workflow, settings, output_dir, seed, terminal)
    seconds = round(time.monotonic() - start, 3)
    click.echo(json.dumps({**result.numbers, "outputs": result.outputs, "seconds": seconds, "device": result.device}))


def _run_here(
    workflow: Path,
    settings: Sequence[str],
    output_dir: Path,
    device: str,
    seed: int | None,
    resume: bool,
    terminal: Terminal,
) -> RunResult:
    from .graph.check import check, check_files
    from .graph.specs import local_specs

    specs = local_specs()
    graph = _prepare(workflow, specs, settings, seed)
    _refuse(check(graph, specs))

    from .run import execute

    with _headless(device, terminal, output_dir) as host:
        host.device()
        _refuse(check_files(graph, specs))
        _make_folder(output_dir)

        def on_node(node: object) -> None:
            terminal.title = str(node)

        kept = output_dir / execute.RESUME_FOLDER if resume else None
        return execute.run(graph, specs, on_node=on_node, resume=kept)


def _run_there(
    url: str, workflow: Path, settings: Sequence[str], output_dir: Path, seed: int | None, terminal: Terminal
) -> RunResult:
    from .run import server

    specs = server.fetch_specs(url)
    graph = _prepare(workflow, specs, settings, seed)
    # The server checks the rest itself; a link that leads nowhere by mistake it would never see.
    _refuse([f"{node}: {name}: {why}" for node in graph.nodes.values() for name, why in node.damaged.items()])
    _make_folder(output_dir)
    return server.run(url, graph, output_dir, terminal.progress)


@contextmanager
def _headless(device: str, terminal: Terminal, output_dir: Path = Path("output")) -> Iterator[Any]:
    """The nodes' host with these settings."""
    from ..nodes import host
    from ..vdp_core.store.files import scratch

    _load_libraries()
    with scratch() as temp_folder:
        settings = host.Headless(
            device=device,
            output_folder=output_dir,
            temp_folder=temp_folder,
            progress=terminal.progress,
            say=terminal.say,
        )
        with host.running(settings):
            yield host


@vdp.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@OUTPUT_DIR
@SET
@DEVICE
@SEED
@click.option("--ray", metavar="ADDRESS", help="Work on this Ray cluster; 'local' starts one on this machine.")
@click.option(
    "--shard",
    type=click.IntRange(min=0),
    default=0,
    metavar="FRAMES",
    help="Work on longer clips in parts of about so many frames, which are put together.",
)
@QUIET
def batch(
    workflow: Path,
    inputs: tuple[str, ...],
    output_dir: Path,
    settings: tuple[str, ...],
    device: str,
    seed: int | None,
    ray: str | None,
    shard: int,
    quiet: bool,
) -> None:
    """Run a workflow over many clips; what is done already and has not changed is not done again.

    An INPUT is a video, a folder of pictures or a glob; each clip's results go into a folder of its own. The last line
    on stdout is JSON; manifest.jsonl and report.html in the output folder say what came of each clip.
    """
    from .batch.manifest import MANIFEST, REPORT
    from .batch.report import summary_table
    from .batch.schedule import Batch
    from .graph.check import check as check_graph
    from .graph.specs import local_specs

    terminal, start, specs = Terminal(quiet=quiet), time.monotonic(), local_specs()
    graph = _prepare(workflow, specs, settings, seed)
    _refuse(check_graph(graph, specs))
    _make_folder(output_dir)
    with _headless(device, terminal, output_dir) as host:
        if ray is None:
            host.device()
        job = Batch(graph, specs, output_dir, terminal, device=device, ray=ray, shard=shard)
        entries = job.run(inputs)
    terminal.say(summary_table(entries))
    failed = [entry for entry in entries if entry.state == "failed"]
    summary = {
        "done": len(entries) - len(failed),
        "failed": len(failed),
        "computed": job.computed,
        "manifest": str((output_dir / MANIFEST).resolve()),
        "report": str((output_dir / REPORT).resolve()),
        "seconds": round(time.monotonic() - start, 3),
    }
    click.echo(json.dumps(summary))
    _refuse_failed([entry.bad_input for entry in failed], len(entries), str(summary["report"]))


@vdp.command()
@click.argument("task")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--workflow", type=click.Path(path_type=Path), help="Instead of workflows/TASK.json.")
@click.option("--split", default="", metavar="NAME", help="Only clips of this list or folder, such as val or Test.")
@click.option("--clip", "names", multiple=True, metavar="NAME", help="Only this clip; may be given several times.")
@OUTPUT_DIR
@SET
@DEVICE
@SEED
@QUIET
def evaluate(
    task: str,
    folder: Path,
    workflow: Path | None,
    split: str,
    names: tuple[str, ...],
    output_dir: Path,
    settings: tuple[str, ...],
    device: str,
    seed: int | None,
    quiet: bool,
) -> None:
    """Run a task on the clips of a data set and measure the results against the truth.

    FOLDER holds clips and truths in a published layout: SDSD, REVIDE, DAVIS, VideoMatte. What is measured already is
    not measured anew. Prints a table, and JSON as the last line; evaluation.json in the output folder has all figures.
    """
    from ..vdp_core.tasks import task_of
    from .evaluate.evaluation import EVALUATION, Evaluation, table
    from .evaluate.layouts import find_cases
    from .graph.check import check as check_graph
    from .graph.specs import local_specs

    terminal, start, specs = Terminal(quiet=quiet), time.monotonic(), local_specs()
    measured = task_of(task).measured
    cases = find_cases(folder, measured, split=split, names=names)
    graph = _prepare(workflow or WORKFLOWS / f"{task}.json", specs, settings, seed)
    _refuse(check_graph(graph, specs))
    _make_folder(output_dir)
    with _headless(device, terminal, output_dir) as host:
        host.device()
        with_layers = any(case.airlight for case in cases)
        job = Evaluation(graph, specs, measured, output_dir, terminal, device=device, with_layers=with_layers)
        rows = job.run(cases)
    click.echo(table(rows))
    failed = [row for row in rows if row.error]
    summary = {
        "mean": job.means(rows),
        "clips": len(rows),
        "failed": len(failed),
        "computed": job.computed,
        "evaluation": str((output_dir / EVALUATION).resolve()),
        "seconds": round(time.monotonic() - start, 3),
    }
    click.echo(json.dumps(summary))
    _refuse_failed([row.bad_input for row in failed], len(rows), str(summary["evaluation"]))


@vdp.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@SET
def check(workflow: Path, settings: tuple[str, ...]) -> None:
    """Say what is wrong with a workflow without running it, one line each.

    Input files that are not there are mentioned on stderr, but are no fault of the workflow.
    """
    from .graph.check import check as check_graph
    from .graph.check import check_files
    from .graph.specs import local_specs

    specs = local_specs()
    graph = _prepare(workflow, specs, settings)
    problems = check_graph(graph, specs)
    for problem in problems:
        click.echo(in_line(problem))
    if problems:
        raise GraphError(f"{workflow}: {len(problems)} problem{'s' * (len(problems) > 1)}")
    for problem in check_files(graph, specs):
        click.echo(f"before it can run here: {in_line(problem)}", err=True)
    click.echo(f"{workflow}: {len(graph.nodes)} nodes, nothing wrong")


@vdp.command()
@click.argument("name", required=False)
def nodes(name: str | None) -> None:
    """List the nodes, or one node's inputs, types and defaults."""
    from ..nodes import NODE_CLASS_MAPPINGS
    from .graph.specs import local_specs

    specs = {key: spec for key, spec in local_specs().items() if key in NODE_CLASS_MAPPINGS}
    if name is not None and name not in specs:
        raise GraphError(f"no node {name!r}; there are {', '.join(specs)}")
    for spec in specs.values() if name is None else [specs[name]]:
        click.echo(_described(spec, in_full=name is not None))


def _described(spec: NodeSpec, *, in_full: bool) -> str:
    outputs = [
        kind if label == kind else f"{label} {kind}"
        for label, kind in zip(spec.output_names, spec.output_types, strict=False)
    ]
    lines = [f"{spec.name} ({spec.category}) -> {', '.join(outputs) or 'files'}"]
    if in_full and spec.description:
        lines.append(spec.description)
    lines.extend(_described_input(entry, in_full=in_full) for entry in spec.inputs.values())
    return "\n".join([*lines, ""])


def _described_input(entry: InputSpec, *, in_full: bool) -> str:
    parts = [f"  {entry.name} {entry.type}"]
    if entry.choices is not None:
        parts.append(f"one of {', '.join(map(str, entry.choices))}")
    if "default" in entry.options:
        parts.append(f"default {entry.options['default']!r}")
    if "min" in entry.options and "max" in entry.options:
        parts.append(f"{entry.options['min']} to {entry.options['max']}")
    if not entry.required:
        parts.append("optional")
    line = ", ".join(parts)
    return f"{line}\n      {entry.options['tooltip']}" if in_full and "tooltip" in entry.options else line


@vdp.group()
def train() -> None:
    """Train the networks that ship with the pack."""


@train.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--pairs", type=click.IntRange(1), default=6000, show_default=True, help="Rendered in all.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that render.")
@click.option("--steps", type=click.IntRange(0), default=20000, show_default=True, help="In all.")
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Pairs a step.")
@click.option("--half", is_flag=True, help="Compute in bfloat16.")
@click.option("--export", type=click.Path(path_type=Path), help="Write the weights here in the end.")
@DEVICE
def flow(
    folder: Path, pairs: int, workers: int, steps: int, batch: int, half: bool, export: Path | None, device: str
) -> None:
    """Train the flow network on rendered motion; FOLDER keeps it all, and a later call goes on from there."""
    import torch

    from ..training import flow as training

    training.render_pairs(folder, pairs, workers=workers)
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    training.train(folder, steps, batch=batch, half=half, device=place, tell=click.echo)
    if export is not None:
        training.export(folder, export)


PATH = click.Path(path_type=Path)


@train.command()
@click.argument("folder", type=PATH)
@click.option("--clip", metavar="PATH", help="The clip to fit the network to.")
@click.option("--corrected", type=PATH, help="Mattes of some of its frames, such as 0012.png.")
@click.option("--ratio", type=click.FloatRange(0.0, 1.0), default=0.0, help="Clip: downsample_ratio; 0: automatic.")
@click.option(
    "--refiner", type=click.Choice(["deep", "fast"]), default="deep", show_default=True, help="Clip: as used."
)
@click.option("--foregrounds", type=PATH, help="With folders fgr and pha, or clips and stills with alpha.")
@click.option("--backgrounds", type=PATH, help="Clips and stills.")
@click.option("--segments", type=PATH, help="People: folders images and masks, or COCO's JSON.")
@click.option("--video-segments", type=PATH, help="The same of clips, or YouTube-VIS's JSON.")
@click.option("--stage", type=click.IntRange(1, 4), default=1, show_default=True, help="Of the published four.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Data sets: composites of a step.")
@click.option("--size", type=click.IntRange(64), help="Data sets: largest side of what it sees, instead of 512.")
@click.option("--half", is_flag=True, help="Data sets: compute in bfloat16.")
@click.option("--weights", help="To begin with, as in MatteVideo.")
@click.option("--frames", type=click.IntRange(1), help="Most frames of a step; clip: 6, data sets: those of the stage.")
@click.option("--steps", type=click.IntRange(1), help="In all; clip: 200, data sets: the epochs of the stage.")
@DEVICE
def matte(
    folder: Path,
    clip: str | None,
    corrected: Path | None,
    ratio: float,
    refiner: str,
    foregrounds: Path | None,
    backgrounds: Path | None,
    segments: Path | None,
    video_segments: Path | None,
    stage: int,
    batch: int,
    size: int | None,
    half: bool,
    weights: str | None,
    frames: int | None,
    steps: int | None,
    device: str,
) -> None:
    """Train the network of MatteVideo: on one clip, or on data sets.

    With --clip and --corrected it is fitted to the clip, from a few frames whose mattes you corrected, which are named
    by their frames, counted from 0. With --foregrounds and --backgrounds a stage of its published training is done.
    FOLDER keeps it all, and a later call goes on from there; FOLDER/weights.safetensors is for MatteVideo.
    """
    from ..nodes.matte import WEIGHTS
    from ..training import composites, matte_stages
    from ..training import matte as fitting
    from ..vdp_core.media.clip import read_clip
    from ..vdp_core.nets.matting_weights import find_matting

    on_clip, on_sets = clip is not None and corrected is not None, foregrounds is not None and backgrounds is not None
    if on_clip == on_sets:
        raise click.UsageError("give --clip and --corrected, or --foregrounds and --backgrounds")
    terminal = Terminal()
    with _headless(device, terminal) as host:
        found = None
        if weights is not None or on_clip:
            found = find_matting(weights or "auto", host.weights_folders(WEIGHTS))
        if clip is not None and corrected is not None and found is not None:
            with host.progress(1, "reading the clip") as on_step:
                pictures = read_clip(host.input_path(clip), on_step=on_step).frames
            done = fitting.fine_tune(
                pictures,
                fitting.read_corrected(corrected, pictures),
                found,
                folder,
                steps=steps or 200,
                window=frames or 6,
                ratio=ratio,
                refiner=refiner,
                device=host.device(),
                tell=terminal.say,
            )
        else:
            assert foregrounds is not None and backgrounds is not None
            done = matte_stages.train_stage(
                folder,
                stage,
                foregrounds=composites.read_foregrounds(foregrounds),
                backgrounds=composites.read_backgrounds(backgrounds),
                pictures=composites.read_segments(segments) if segments is not None else (),
                clips=composites.read_segments(video_segments) if video_segments is not None else (),
                weights=found,
                stage=matte_stages.with_settings(stage, frames=frames or 0, size=size or 0),
                steps=steps or 0,
                batch=batch,
                half=half,
                device=host.device(),
                tell=terminal.say,
            )
    click.echo(json.dumps({"weights": str(done.resolve())}))


@vdp.command()
@OUTPUT_DIR
@DEVICE
@QUIET
def demo(output_dir: Path, device: str, quiet: bool) -> None:
    """Relight a real clip whose true light is known, and print the figures before and after."""
    from .demo import run_demo

    terminal = Terminal(quiet=quiet)
    with _headless(device, terminal, output_dir) as host:
        host.device()
        _make_folder(output_dir)
        click.echo(json.dumps(run_demo(output_dir, terminal.progress)))


@vdp.command()
@click.argument("pred")
@click.argument("ref")
@click.option("--mask", metavar="PATH", help="The predicted mask or matte: a clip, white as selected, or labels.")
@click.option("--reference-mask", "--ref-mask", "ref_mask", metavar="PATH", help="The true one.")
@click.option("--matte", "is_matte", is_flag=True, help="Figures of mattes as papers print them, in their units.")
@QUIET
def measure(pred: str, ref: str, mask: str | None, ref_mask: str | None, is_matte: bool, quiet: bool) -> None:
    """Compare a clip with its reference and print the figures as JSON.

    They are PSNR, SSIM and warping error; for masks also IoU, boundary F, MAD, MSE and dtSSD. With --matte they are MAD
    and MSE times 1000, Grad, Conn and dtSSD times 100. The mattes are then the two clips themselves, or, if both have
    one, their alpha, or --mask and --reference-mask; the colours of the last two give the MSE of the foreground too.
    """
    from ..vdp_core import metrics
    from ..vdp_core.media import clip as video

    with _headless("cpu", Terminal(quiet=quiet)) as host:

        def frames(path: str) -> Tensor:
            with host.progress(1, f"reading {path}") as on_step:
                clip = video.read_clip(host.input_path(path), on_step=on_step)
            if clip.notes:
                host.say(f"warning: {path}: {'; '.join(clip.notes)}")
            return host.with_alpha(clip.frames, clip.alpha if clip.has_alpha else None)

        clips = frames(pred), frames(ref)
        masks = [None if path is None else host.given_mask(frames(path)) for path in (mask, ref_mask)]
        if not is_matte:
            found = metrics.measure(*clips, mask=masks[0], ref_mask=masks[1])
        else:
            metrics.check_given(True, False, mask is not None, ref_mask is not None)
            matte, true_matte = masks if mask is not None else [host.alpha_of(clip) for clip in clips]
            if matte is None or true_matte is None:
                found = metrics.published(*clips).numbers
            else:
                found = metrics.published(matte, true_matte, clips[0], clips[1]).numbers
    click.echo(json.dumps(found))


# Ends of a run


def _load_libraries() -> None:
    """Import what is slow to import while signals wait, where the system can have them wait.

    An interruption in the middle of it may be swallowed by code in C that calls Python back, and then the run goes on.
    """
    block = getattr(signal, "pthread_sigmask", None)
    before = block and block(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        for name in ("av", "cv2", "torch"):
            import_module(name)
    finally:
        if block:
            block(signal.SIG_SETMASK, before)


def _interrupt(signal_number: int, frame: object) -> None:
    """End like Ctrl-C, so that half-written files are cleared away."""
    raise KeyboardInterrupt


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # SIGHUP comes when the terminal is closed; nohup has it ignored, and so it stays.
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that Python did not set, it cannot set again
                signal.signal(number, handler)


def _complain(text: str) -> None:
    """Say what is wrong, line by line; names in it come from files, and must not command the terminal."""
    lines = [in_line(line) for line in text.split("\n")]
    click.echo("\n".join(lines) if len(lines) > 1 else f"vdp: {lines[0]}", err=True)


def _exit_code(command: Callable[[], Any]) -> int:
    from .run.execute import NodeFailed

    try:
        with _terminated_like_interrupted():
            command()
    except click.exceptions.Exit as request:  # --help and --version
        return request.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted")
        return INTERRUPTED
    except GraphError as error:
        _complain(str(error))
        return WRONG
    except NodeFailed as error:
        if error.unforeseen:
            traceback.print_exception(error.__cause__)
        _complain(str(error))
        return WRONG if error.bad_input else FAILED
    except Exception as error:
        return _other_failure(error)
    return 0


def _other_failure(error: Exception) -> int:
    from ..vdp_core.errors import VDPError
    from .run.server import Interrupted, ServerFailed

    if isinstance(error, Interrupted):
        _complain(str(error))
        return INTERRUPTED
    if isinstance(error, VDPError):
        _complain(str(error))
        return WRONG
    if isinstance(error, ServerFailed):
        _complain(str(error))
        return FAILED
    if not isinstance(error, OSError):  # which says what the system lacks
        traceback.print_exception(error)  # a defect to report; what is foreseen needs only its sentence
    _complain(f"{type(error).__name__}: {error}")
    return FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``vdp`` command and return its exit code."""
    # Threads that spin while they wait take the cores from whom they wait for, where others are at work. Read by OpenMP
    # when torch is loaded, here and in the workers of a batch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return _exit_code(lambda: vdp.main(arguments, prog_name="vdp", standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
