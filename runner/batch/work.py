"""What a worker of a batch does: one clip, or one part of a long clip, or the parts put together.

Every function here takes a job and ``tell``, catches what a clip can do wrong, and leaves its files in a new folder
that the batch moves into place: a worker may die at any moment.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..graph.types import Graph, GraphError, Link, Node, Specs
from .pools import Tell

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = [
    "PICTURE",
    "Job",
    "Joining",
    "Outcome",
    "Range",
    "cut_clip",
    "join_parts",
    "part_of",
    "run_clip",
    "run_part",
    "saved_by",
]

PICTURE = "before_after.jpg"
"""A frame before and after, side by side, in the folder of every clip that leaves pictures."""
OUTCOME = "outcome.json"
"""What came of a part, beside the folder of its files."""
PICTURE_SIDE = 360  # pixels of the long side of either half
TELL_EVERY = 0.5  # seconds
CUTS_SIDE = 320  # pixels of the copy that cuts are looked for on
NEAR = 8  # a part may end one part in so many earlier or later, where a cut is

Range = tuple[int, int]
"""First frame and number of frames, counted in frames taken."""


@dataclass(frozen=True)
class Job:
    """A clip to be run through a graph, which holds its path."""

    graph: Graph
    clip: str
    """Id of the node that reads it."""
    device: str
    room: Path
    """An existing folder to work in."""
    resume: Path
    """A folder to keep in what long work has found, for the next call."""
    shard: int = 0
    """cut_clip: about how many frames a part has."""
    keep: Path | None = None
    """run_part: where to keep the part, so that a later call finds it."""


@dataclass(frozen=True)
class Joining:
    """Parts of a clip to be put together: the job for the whole, the range of each part, and its outcome."""

    job: Job
    ranges: Sequence[Range]
    parts: Sequence[Outcome]


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    folder: Path | None = None
    """Holds the outputs; None where it failed."""
    outputs: list[str] = field(default_factory=list)
    """Files and folders of pictures, relative to ``folder``."""
    numbers: dict[str, float | None] = field(default_factory=dict)
    device: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    """What the nodes said on the way."""
    error: str = ""
    """One sentence, where it failed."""
    bad_input: bool = False
    """Whether it failed because of what it was given, or of where it is to be written."""
    trace: str = ""
    """Where nobody foresaw the error."""


def _caught(work: Callable[[], Outcome]) -> Outcome:
    from ...vdp_core.errors import VDPError
    from ..run.execute import NodeFailed

    started = time.monotonic()
    try:
        done = work()
    except (GraphError, VDPError) as error:
        return Outcome(error=str(error), bad_input=True)
    except NodeFailed as error:
        trace = "".join(traceback.format_exception(error.__cause__)) if error.unforeseen else ""
        return Outcome(error=str(error), bad_input=error.bad_input, trace=trace)
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())
    return replace(done, seconds=round(time.monotonic() - started, 3))


class _Notes(logging.Handler):
    """Collects what the core logs."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.append(record.getMessage())


@contextmanager
def _working(job: Job, tell: Tell, notes: list[str]) -> Iterator[tuple[Path, Callable[[Node], None]]]:
    """Make the nodes work for ``job``: yields the new output folder, and what is to be told each node that begins."""
    from ...nodes import host

    title, last = "", 0.0

    def on_node(node: Node) -> None:
        nonlocal title
        title = node.title

    @contextmanager
    def progress(total: int, label: str) -> Iterator[host.OnStep]:
        def on_step(done: int, total: int, preview: object = None) -> None:
            nonlocal last
            if time.monotonic() - last >= TELL_EVERY:
                last = time.monotonic()
                tell(f"{title}: {done}/{total}")

        tell(title)
        yield on_step

    attempt = Path(tempfile.mkdtemp(dir=job.room))
    folder, temp = attempt / "out", attempt / "temp"
    folder.mkdir()
    log, listener = logging.getLogger(__package__.rsplit(".", 2)[0]), _Notes(notes)
    settings = host.Headless(
        device=job.device, output_folder=folder, temp_folder=temp, progress=progress, say=notes.append
    )
    log.addHandler(listener)
    try:
        with host.running(settings):
            yield folder, on_node
        shutil.rmtree(temp, ignore_errors=True)
    except BaseException:
        shutil.rmtree(attempt, ignore_errors=True)
        raise
    finally:
        log.removeHandler(listener)


def run_clip(job: Job, tell: Tell) -> Outcome:
    """Run the graph, and take a picture of before and after."""

    def work() -> Outcome:
        from ...nodes import host
        from ..graph.check import check_files
        from ..graph.specs import local_specs
        from ..run import execute

        notes: list[str] = []
        specs = local_specs()
        with _working(job, tell, notes) as (folder, on_node):
            host.device()
            if problems := check_files(job.graph, specs):
                raise GraphError("; ".join(problems))
            found = execute.run(job.graph, specs, on_node=on_node, resume=job.resume)
            outputs = [Path(path).relative_to(folder.resolve()).as_posix() for path in found.outputs]
            _take_picture(job, folder, outputs)
        return Outcome(folder, outputs, found.numbers, found.device, notes=notes)

    return _caught(work)


def _take_picture(job: Job, folder: Path, outputs: Sequence[str]) -> None:
    """Write PICTURE, of the middle frame, if the clip came out as pictures."""
    from PIL import Image

    from ...vdp_core.errors import VDPError
    from ...vdp_core.media import clip as video

    main = next((node for node in job.graph.nodes.values() if node.title == "Result"), None)
    prefix = str(main.inputs.get("filename_prefix", "")) if main else ""
    clip = job.graph.nodes[job.clip].inputs
    for output in sorted(outputs, key=lambda path: not path.startswith(prefix)):
        if output.endswith((".json", ".safetensors")):
            continue
        with suppress(VDPError):  # the clip is done; a picture of it is an extra
            middle = (video.probe(folder / output).frame_count or 1) // 2
            first = _integer_of(clip, "start") + middle * _integer_of(clip, "every_nth", 1)
            before = _thumbnail(clip["path"], first, **_reading(clip))
            after = _thumbnail(folder / output, middle)
            pair = Image.new("RGB", (before.width + 4 + after.width, max(before.height, after.height)))
            pair.paste(before, (0, 0))
            pair.paste(after, (before.width + 4, 0))
            pair.save(folder / PICTURE, quality=85)
            return


def _thumbnail(source: str | Path, index: int, **reading: Any) -> Image:
    from PIL import Image

    from ...nodes import host
    from ...vdp_core.media import clip as video

    clip = video.read_clip(host.input_path(str(source)), start=index, count=1, max_side=PICTURE_SIDE, **reading)
    shown = clip.frames[0] * clip.alpha[0, ..., None]
    return Image.fromarray(shown.mul(255.0).round().byte().numpy())


def _integer_of(inputs: dict[str, Any], name: str, default: int = 0) -> int:
    value = inputs.get(name, default)
    return default if isinstance(value, Link) else int(value)


def _reading(inputs: dict[str, Any]) -> dict[str, Any]:
    """How frames of the clip are timed, and which sound is taken."""
    timing = inputs.get("timing", "constant")
    return {
        "timing": "constant" if isinstance(timing, Link) else timing,
        "sound_track": _integer_of(inputs, "sound_track"),
    }


# Long clips: cut into parts, each of which leaves exact pictures, and put together again


def saved_by(graph: Graph, needed: Sequence[str]) -> list[str]:
    """The ids of the nodes whose pictures are put together."""
    return [key for key in needed if graph.nodes[key].class_type == "SaveFrames"]


def part_of(job: Job, needed: Sequence[str], ranges: Sequence[Range], index: int, keep: Path) -> Job:
    """The job for one of the ranges: it leaves exact pictures, without sound, whatever the graph asks for.

    They are kept in a sub-folder of ``keep`` for the next call, should this one not live to put them together.
    """
    from ...vdp_core.media.formats import FORMATS

    start, count = ranges[index]
    clip, nodes = job.graph.nodes[job.clip], dict(job.graph.nodes)
    first = _integer_of(clip.inputs, "start") + start * _integer_of(clip.inputs, "every_nth", 1)
    if index == len(ranges) - 1 and not _integer_of(clip.inputs, "count"):
        count = 0  # all that are left: a header may announce fewer than there are
    nodes[job.clip] = replace(clip, inputs={**clip.inputs, "start": first, "count": count})
    for key in saved_by(job.graph, needed):
        inputs = {name: value for name, value in nodes[key].inputs.items() if name != "audio"}
        exact = "exr" if FORMATS[inputs["format"]].bits > 8 else "png"
        inputs |= {"format": exact, "filename_prefix": _part_prefix(nodes[key])}
        nodes[key] = replace(nodes[key], inputs=inputs)
    return replace(job, graph=Graph(nodes), keep=keep / f"{first}-{count}")


def run_part(job: Job, tell: Tell) -> Outcome:
    """Run a part, unless an earlier call has done so."""
    from ...vdp_core.store.files import remove

    assert job.keep is not None
    folder = job.keep / "out"
    with suppress(OSError, ValueError, TypeError):  # there is none, or what is there is damaged
        return Outcome(**{**json.loads((job.keep / OUTCOME).read_text(encoding="utf-8")), "folder": folder})
    outcome = run_clip(job, tell)
    if outcome.folder is None:
        return outcome
    attempt = outcome.folder.parent
    try:
        remove(job.keep)
        (attempt / OUTCOME).write_text(json.dumps(asdict(replace(outcome, folder=None))), encoding="utf-8")
        attempt.rename(job.keep)
    except OSError as error:
        return Outcome(error=f"{job.keep}: cannot be written ({error.strerror or error})", bad_input=True)
    return replace(outcome, folder=folder)


def cut_clip(job: Job, tell: Tell) -> list[Range] | Outcome:
    """Ranges of about ``job.shard`` frames at most, which meet at cuts where there are any nearby.

    A clip that is no longer than a part is one range. An outcome is a failure.
    """
    found: list[Range] = []

    def work() -> Outcome:
        from ...nodes import host
        from ...vdp_core.media.source import plan

        clip = job.graph.nodes[job.clip].inputs
        start, count, every = _integer_of(clip, "start"), _integer_of(clip, "count"), _integer_of(clip, "every_nth", 1)
        reader, wanted = plan(host.input_path(clip["path"]), start, count, every, 0, **_reading(clip))
        # by what is there, not by what is announced: a part must not begin behind the end
        total = max(1, min(wanted.count, -(-(reader.count_frames() - start) // every)))
        tell("looking for cuts")
        parts = max(1, -(-total // job.shard))
        edges = [0, *(_nearby_cut(job, round(total * part / parts)) for part in range(1, parts)), total]
        found.extend((first, end - first) for first, end in pairwise(edges))
        return Outcome()

    outcome = _caught(work)
    return outcome if outcome.error else found


def _nearby_cut(job: Job, edge: int) -> int:
    """The cut nearest to an edge between two parts, or the edge itself where there is none nearby."""
    from ...nodes import host
    from ...vdp_core.errors import InputError
    from ...vdp_core.media.clip import read_clip
    from ...vdp_core.motion.flow import find_cuts
    from ...vdp_core.motion.shots import SHORTEST

    clip, reach = job.graph.nodes[job.clip].inputs, job.shard // NEAR
    every, first = _integer_of(clip, "every_nth", 1), max(0, edge - reach - SHORTEST)
    around = read_clip(
        host.input_path(clip["path"]),
        start=_integer_of(clip, "start") + first * every,
        count=edge + reach + SHORTEST - first,
        every_nth=every,
        max_side=CUTS_SIDE,
        **_reading(clip),
    )
    with suppress(InputError):  # too few or too small to look for any
        cuts = [first + cut for cut in find_cuts(around.frames)]
        nearest = min(cuts, key=lambda cut: abs(cut - edge), default=edge)
        return nearest if abs(nearest - edge) <= reach else edge
    return edge


def join_parts(joining: Joining, tell: Tell) -> Outcome:
    """Write the pictures of all parts into the files that the graph asks for, with the sound of the source."""

    def work() -> Outcome:
        from ..graph.check import needed_nodes
        from ..graph.specs import local_specs

        job, parts = joining.job, joining.parts
        notes = [f"part {index}: {note}" for index, part in enumerate(parts, 1) for note in part.notes]
        specs = local_specs()
        with _working(job, tell, notes) as (folder, _):
            savers = saved_by(job.graph, needed_nodes(job.graph, specs))
            outputs = [_join(joining, job.graph.nodes[key], specs, tell) for key in savers]
            outputs += _left_by_parts(joining, folder)
            _take_picture(job, folder, outputs)
        return Outcome(folder, outputs, _mean_numbers(joining), parts[0].device, notes=notes)

    done = _caught(work)
    return replace(done, seconds=round(done.seconds + sum(part.seconds for part in joining.parts), 3))


def _join(joining: Joining, saver: Node, specs: Specs, tell: Tell) -> str:
    from ...nodes import host
    from ...vdp_core.media import clip as video
    from ...vdp_core.media.formats import FORMATS, alpha_left_out, check_holds_alpha
    from ..graph.read import to_api

    folders = [
        part.folder / path for part in joining.parts if part.folder for path in part.outputs if _is_by(path, saver)
    ]
    infos = [video.probe(folder) for folder in folders]
    with_alpha, form = any(info.has_alpha for info in infos), saver.inputs["format"]
    if with_alpha and not FORMATS[form].holds_alpha:
        if "alpha" in saver.inputs:
            check_holds_alpha(form)
        with_alpha = False
        host.say(f"warning: {alpha_left_out(form)}")
    total = sum(info.frame_count or 0 for info in infos)

    def frames() -> Iterator[Tensor]:
        for folder in folders:
            yield from video.iter_frames(folder, with_alpha=with_alpha)

    graph = joining.job.graph
    size = (infos[0].width, infos[0].height)
    typed = saver.inputs["filename_prefix"]
    prefix = host.fill_prefix(typed, prompt=to_api(graph), workflow=graph.workflow, size=size)
    path = video.write_clip(
        host.output_path(prefix),
        frames(),
        fps=infos[0].fps,
        format=form,
        quality=int(saver.inputs["quality"]),
        bitrate=float(saver.inputs.get("bitrate", 0.0)),
        audio=_sound(joining.job, total) if isinstance(saver.inputs.get("audio"), Link) else None,
        metadata=host.embed_metadata(to_api(graph), graph.workflow and {"workflow": graph.workflow}),
        total=total,
        numbered=True,
        on_step=lambda done, total, preview: tell(f"{saver.title}: {done}/{total}"),
    )
    return path.relative_to(host.output_folder()).as_posix()


def _part_prefix(saver: Node) -> str:
    """The name under which a part keeps what this node saves."""
    return f"saved_by_{saver.id.replace(':', '_')}"


def _is_by(path: str, saver: Node) -> bool:
    return path.rpartition("_")[0] == _part_prefix(saver)


def _sound(job: Job, frames: int) -> dict[str, Any] | None:
    """The sound that belongs to so many frames of the clip."""
    from ...nodes import host
    from ...vdp_core.media.source import plan

    clip = job.graph.nodes[job.clip].inputs
    every = _integer_of(clip, "every_nth", 1)
    reader, wanted = plan(host.input_path(clip["path"]), _integer_of(clip, "start"), 1, every, 0, **_reading(clip))
    began, _ = next(reader.walk(wanted))
    return reader.sound(began, float(frames * every / reader.info.fps))


def _left_by_parts(joining: Joining, folder: Path) -> list[str]:
    """Copy what no one can put together, such as layers, into folders by first frame; their paths."""
    copied = []
    savers = [node for node in joining.job.graph.nodes.values() if node.class_type == "SaveFrames"]
    for (first, _), part in zip(joining.ranges, joining.parts, strict=True):
        assert part.folder is not None
        for path in part.outputs:
            if not any(_is_by(path, saver) for saver in savers):
                copy = folder / f"from_frame_{first:06}" / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(part.folder / path, copy)
                copied.append(copy.relative_to(folder).as_posix())
    return copied


def _mean_numbers(joining: Joining) -> dict[str, float | None]:
    """Each number as the mean over all frames, each part's standing for its frames."""
    numbers: dict[str, float | None] = {}
    for name in joining.parts[0].numbers:
        pairs = [
            (part.numbers.get(name), count) for part, (_, count) in zip(joining.parts, joining.ranges, strict=True)
        ]
        known = [(number, count) for number, count in pairs if number is not None]
        total = sum(count for _, count in known)
        numbers[name] = sum(number * count for number, count in known) / total if len(known) == len(pairs) else None
    return numbers
