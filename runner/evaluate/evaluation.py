"""A task over the clips of a data set: each is worked on as in ``vdp batch``, and measured against its truth.

The output folder is that of a batch. Beside the results of each clip lies ``figures.json``, with what it was made from,
so that nothing is measured twice; ``evaluation.json`` holds the figures of a call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean

from ..batch.inputs import digest, find_clip_node
from ..batch.manifest import Entry, explained
from ..batch.schedule import Batch
from ..graph.check import needed_nodes
from ..graph.types import Graph, GraphError, Link, Node, Specs
from ..terminal import Terminal
from .figures import LAYERS, SAVED, measure_case
from .layouts import Case

__all__ = ["EVALUATION", "Evaluation", "Row", "table"]

EVALUATION, FIGURES = "evaluation.json", "figures.json"
MASKS = "first_masks"
"""Folder of the masks that workflows are given which need one: the first frame's truth."""
READING = {"start": 0, "count": 0, "every_nth": 1, "max_side": 0, "timing": "constant"}
"""How a clip is read, by default."""


@dataclass
class Row:
    """What came of a clip."""

    name: str
    numbers: dict[str, float] = field(default_factory=dict)
    error: str = ""
    bad_input: bool = False
    seconds: float = 0.0
    device: str = ""
    folder: str = ""
    """Of its results, in the output folder."""


class Evaluation:
    """A graph over the clips of a data set.

    Args:
        graph: passes ``graph.check``; the paths of its clip and of the first mask do not matter.
        specs: what its nodes are.
        measured: see ``Task.measured``.
        folder: the output folder, which exists.
        device: as of ``vdp run``.
        with_layers: keep layers too, for what is measured in them.

    Raises:
        GraphError: the graph does not save what is measured, or cannot take clips.
    """

    def __init__(
        self,
        graph: Graph,
        specs: Specs,
        measured: str,
        folder: Path,
        terminal: Terminal,
        *,
        device: str = "auto",
        with_layers: bool = False,
    ) -> None:
        self._specs, self._measured, self._folder, self._terminal = specs, measured, folder.resolve(), terminal
        self._device = device
        self._graph = _saving(graph, specs, SAVED[measured])
        if with_layers:
            self._graph = _with_layers(self._graph)
        self._clip, _ = find_clip_node(self._graph)
        needed = needed_nodes(self._graph, specs)
        masks = [self._graph.nodes[key] for key in needed if self._graph.nodes[key].title == "Mask"]
        self._mask = masks[0] if masks and measured in ("regions", "mattes") else None
        self._reading = {name: self._clip.inputs.get(name, value) for name, value in READING.items()}
        for name, value in self._reading.items():
            if isinstance(value, Link):
                raise GraphError(
                    f"{self._clip}: {name} comes from another node; the truth is read alike, so set a value"
                )
        self.computed = 0
        """How many clips were measured by this call."""

    def run(self, cases: Sequence[Case]) -> list[Row]:
        """Do what is missing or changed, and write ``evaluation.json``; a row for each case.

        Raises:
            GraphError, MediaError: the output folder cannot be used.
        """
        rows = {case.name: Row(case.name, error=case.wrong, bad_input=True) for case in cases if case.wrong}
        for row in rows.values():
            self._terminal.say(f"{row.name}: {row.error}")
        # results are those of one graph: where each clip has a mask of its own, each has a graph of its own
        able = [case for case in cases if not case.wrong]
        for some in [able] if self._mask is None else [[case] for case in able]:
            for case, entry in zip(some, self._worked_on(some, rows), strict=True):
                rows[case.name] = self._measured_row(case, entry)
            self._write(rows, cases)
        return self._write(rows, cases)

    def _worked_on(self, cases: Sequence[Case], rows: Mapping[str, Row]) -> list[Entry]:
        from ...vdp_core.errors import VDPError

        if not cases:
            return []
        try:
            graph = self._graph if self._mask is None else self._with_mask(self._mask, cases[0])
            batch = Batch(graph, self._specs, self._folder, self._terminal, device=self._device)
            return batch.run([str(case.clip) for case in cases])
        except (VDPError, GraphError) as error:
            if self._mask is None:
                raise
            return [Entry(str(cases[0].clip), "", state="failed", error=str(error), bad_input=True)]

    def _with_mask(self, node: Node, case: Case) -> Graph:
        """The graph with the truth of the clip's first frame as its mask, cut at a half where it is a matte."""
        from PIL import Image

        from ...vdp_core.image.selection import as_mask, as_matte
        from ...vdp_core.media.clip import read_clip
        from ...vdp_core.store.files import beside

        first = read_clip(case.truth, **{**self._reading, "count": 1}).frames
        mask = (as_matte if self._measured == "mattes" else as_mask)(first, "truth")[0] > 0.5
        path = self._folder / MASKS / f"{digest(case.name)[:16]}.png"
        with explained(path):
            path.parent.mkdir(exist_ok=True)
            with beside(path) as partial:
                Image.fromarray(mask.byte().mul(255).numpy()).save(partial, format="PNG")
        inputs = {**node.inputs, "path": str(path)}
        return Graph({**self._graph.nodes, node.id: replace(node, inputs=inputs)}, self._graph.workflow)

    def _measured_row(self, case: Case, entry: Entry) -> Row:
        from ...vdp_core.errors import VDPError
        from ...vdp_core.media.clip import fingerprint
        from ...vdp_core.store.files import beside

        row = Row(case.name, seconds=entry.seconds, device=entry.device, folder=entry.folder)
        if entry.state != "done":
            return replace(row, error=entry.error, bad_input=entry.bad_input)
        kept = self._folder / entry.folder / FIGURES
        try:
            truths = [fingerprint(path) for path in (case.truth, case.foreground, case.airlight) if path is not None]
            made_from = digest(entry.made_from, truths, self._measured)
            row.numbers = _kept(kept, made_from)
            if not row.numbers:
                with self._terminal.progress(1, f"measuring {case.name}"):
                    row.numbers = measure_case(self._measured, case, self._found(entry), self._reading)
                self.computed += 1
                with explained(kept), beside(kept) as partial:
                    partial.write_text(json.dumps({"made_from": made_from, "numbers": row.numbers}, indent=2) + "\n")
        except VDPError as error:
            self._terminal.say(f"{case.name}: {error}")
            return replace(row, error=str(error), bad_input=True)
        return row

    def _found(self, entry: Entry) -> dict[str, Path]:
        """What a clip's results hold, by the title of the node that saved it."""
        paths = [self._folder / output["path"] for output in entry.outputs]
        titles = (*SAVED[self._measured], LAYERS)
        return {title: path for title in titles for path in paths if path.name.startswith(_prefix(title))}

    def _write(self, rows: Mapping[str, Row], cases: Sequence[Case]) -> list[Row]:
        from ...vdp_core.store.files import beside

        ordered = [rows[case.name] for case in cases if case.name in rows]
        path = self._folder / EVALUATION
        text = json.dumps({"mean": self.means(ordered), "clips": [asdict(row) for row in ordered]}, indent=2)
        with explained(path), beside(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        return ordered

    @staticmethod
    def means(rows: Sequence[Row]) -> dict[str, float]:
        """Means over the clips that were measured, by name."""
        names = dict.fromkeys(name for row in rows for name in row.numbers)
        return {name: fmean(row.numbers[name] for row in rows if name in row.numbers) for name in names}


def _saving(graph: Graph, specs: Specs, titles: Sequence[str]) -> Graph:
    """A graph that saves what the nodes of these titles get, as exact pictures, and nothing else.

    Raises:
        GraphError: there is no node of the first title.
    """
    nodes = {}
    for key, node in graph.nodes.items():
        spec = specs.get(node.class_type)
        if spec is None or not spec.is_output:
            nodes[key] = node
        elif node.class_type == "SaveFrames" and node.title in titles:
            inputs = {name: value for name, value in node.inputs.items() if name != "audio"}
            nodes[key] = replace(node, inputs={**inputs, "format": "png", "filename_prefix": _prefix(node.title)})
    if not any(node.title == titles[0] and node.class_type == "SaveFrames" for node in nodes.values()):
        raise GraphError(f"the workflow has no SaveFrames titled {titles[0]}, which is what is measured; title one so")
    return Graph(nodes, graph.workflow)


def _with_layers(graph: Graph) -> Graph:
    """A graph that saves the layers that are found, too."""
    nodes = dict(graph.nodes)
    for node in graph.nodes.values():
        if node.class_type == "VDPOptimize":
            inputs = {"layers": Link(node.id, 0), "filename_prefix": _prefix(LAYERS), "with_frames": False}
            key = f"{node.id}_layers"
            nodes[key] = Node(key, "SaveLayers", LAYERS, {**inputs, "format": "safetensors"})
    return Graph(nodes, graph.workflow)


def _prefix(title: str) -> str:
    return f"measured_{title.casefold()}"


def _kept(path: Path, made_from: str) -> dict[str, float]:
    """Figures that an earlier call left, where they were made from the same; else none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found["numbers"]) if found["made_from"] == made_from else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def table(rows: Sequence[Row]) -> str:
    """A line for each clip, with its figures or what went wrong, and one for the means."""
    means = Evaluation.means(rows)
    lines = [["", *means], *([row.name, *(_shown(row.numbers.get(name)) for name in means)] for row in rows)]
    if means:
        lines.append(["mean", *map(_shown, means.values())])
    wide = [max(len(line[column]) for line in lines) for column in range(len(means) + 1)]
    texts = [
        "  ".join([line[0].ljust(wide[0]), *(part.rjust(wide[1 + i]) for i, part in enumerate(line[1:]))])
        for line in lines
    ]
    errors = {row.name: row.error for row in rows if row.error}
    return "\n".join([*texts, *(f"{name}: {error}" for name, error in errors.items())])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
