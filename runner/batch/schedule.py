"""``vdp batch``: one graph over many clips, each in a folder of its own; what is done already is not done again.

The folder holds ``manifest.jsonl``, a line for each clip; it is written anew beside itself and renamed whenever a clip
is done, so that it is whole at any moment. Results are made in ``.vdp-batch`` and moved into place when they are
complete. Only batches themselves write here, one at a time; workers write into rooms they are given.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..graph.check import check_files, needed_nodes
from ..graph.types import Graph, GraphError, Specs
from ..terminal import Terminal
from .inputs import check_parts, clips_of, content, digest, find_clip_node, hash_workflow
from .manifest import REPORT, STATE, Entry, Manifest, explained, locked
from .place import is_complete, put_back, put_in_place
from .pools import Died, LocalPool, Pool, RayPool, Task
from .report import write_report
from .work import Job, Joining, Outcome, cut_clip, join_parts, part_of, run_clip, run_part

__all__ = ["Batch"]

Steps = Generator[list[Task], list[Any], None]


def _is_as_seen(entry: Entry) -> bool:
    from ...vdp_core.errors import MediaError
    from ...vdp_core.media.clip import fingerprint

    try:
        return fingerprint(entry.input) == entry.seen
    except (MediaError, OSError):
        return False


@dataclass(eq=False)
class _Flight:
    """A clip that is being worked on, and the answers it waits for."""

    steps: Steps
    tasks: list[Task] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)


class Batch:
    """One graph over many clips.

    Args:
        graph: passes ``graph.check``; the path of its clip does not matter.
        specs: what its nodes are.
        folder: the output folder, which exists.
        device: as of ``vdp run``.
        ray: address of a Ray cluster, ``local`` for one on this machine, None for none.
        shard: clips of more frames are worked on in parts of about so many; 0 for none.

    Raises:
        GraphError: the graph cannot take clips, or cannot be worked on in parts.
    """

    def __init__(
        self,
        graph: Graph,
        specs: Specs,
        folder: Path,
        terminal: Terminal,
        *,
        device: str = "auto",
        ray: str | None = None,
        shard: int = 0,
    ) -> None:
        self._graph, self._specs, self._folder, self._terminal = graph, specs, folder.resolve(), terminal
        self._device, self._ray, self._shard = device, ray, shard
        self._clip, remark = find_clip_node(graph)
        if remark:
            terminal.say(remark)
        self._needed = needed_nodes(graph, specs)
        if self._clip.id not in self._needed:
            raise GraphError(f"{self._clip} leads to no output, so there is nothing to do with the clips")
        if shard:
            check_parts(graph, specs, self._clip, self._needed)
        own = f"{self._clip}: "  # its path is still to come
        if problems := [problem for problem in check_files(graph, specs) if not problem.startswith(own)]:
            raise GraphError("\n".join(problems))
        self._workflow_hash = hash_workflow(graph, specs, self._clip, self._needed)
        self.computed = 0
        """How many clips were done by this call."""

    def run(self, inputs: Sequence[str]) -> list[Entry]:
        """Do what is missing or changed, and write the report; the entries of these inputs, in their order.

        Raises:
            GraphError: the folder cannot be locked, or Ray cannot be had.
            MediaError: the folder cannot be written to.
        """
        from ...vdp_core.store.files import scratch

        state = self._folder / STATE
        self._parts, self._resume = state / "parts", state / "resume"
        with ExitStack() as ending:
            with locked(self._folder), explained(state):
                put_back(state, self._folder)
                self._room = ending.enter_context(scratch(state))
            self._manifest = Manifest(self._folder, self._room)
            with self._manifest.shared():
                entries = self._manifest.claim(clips_of(inputs), self._workflow_hash)
            self._pool: Pool | None = None
            try:
                self._work_through(entries)
            finally:
                if self._pool is not None:
                    self._pool.close()
                self._leave(entries)
            return entries

    def _leave(self, entries: Sequence[Entry]) -> None:
        """Let go of these entries, write the report, and remove what was kept of work that nobody wants any more."""
        with self._manifest.shared():
            for entry in entries:
                entry.by = ""
            with explained(self._folder / REPORT):
                write_report(self._folder / REPORT, self._manifest.entries)
            unfinished = {self._key(entry) for entry in self._manifest.entries if entry.state != "done"}
            for parts in self._parts.iterdir() if self._parts.is_dir() else ():
                if parts.name not in unfinished:
                    shutil.rmtree(parts, ignore_errors=True)
            with suppress(OSError):  # not there, or not empty
                self._parts.rmdir()
            if not unfinished:
                shutil.rmtree(self._resume, ignore_errors=True)

    # One after another, or as many at a time as the pool takes

    def _work_through(self, entries: Sequence[Entry]) -> None:
        waiting = iter(entries)
        owners: dict[Task, tuple[_Flight, int]] = {}
        flights: list[_Flight] = []
        finished = 0

        def advance(flight: _Flight, answers: list[Any] | None) -> None:
            nonlocal finished
            try:
                flight.tasks = flight.steps.send(answers)  # type: ignore[arg-type]  # None begins
            except StopIteration:
                finished += 1
                flights.remove(flight)
                show(finished, "")
                return
            flight.answers = {}
            for index, task in enumerate(flight.tasks):
                submit(task, flight, index)

        def submit(task: Task, flight: _Flight, index: int) -> None:
            owners[task] = (flight, index)
            self._pool_at_hand().submit(task)

        with self._terminal.overall(len(entries), "clips") as show:
            while True:
                while len(owners) < (self._pool.slots if self._pool else 1) and (entry := next(waiting, None)):
                    flights.append(_Flight(self._steps(entry)))
                    advance(flights[-1], None)
                if not owners:
                    return
                task, answer = self._pool_at_hand().wait(lambda text: show(finished, text))
                flight, index = owners.pop(task)
                if isinstance(answer, Died) and task.tries == 0:
                    submit(replace(task, tries=1), flight, index)
                    continue
                if isinstance(answer, Died):
                    answer = Outcome(error=f"the process that worked on it died twice, the second time {answer.how}")
                flight.answers[index] = answer
                if len(flight.answers) == len(flight.tasks):
                    advance(flight, [flight.answers[place] for place in range(len(flight.tasks))])

    def _pool_at_hand(self) -> Pool:
        if self._pool is None:
            self._pool = LocalPool() if self._ray is None else RayPool(self._ray, self._device)
        return self._pool

    def _steps(self, entry: Entry) -> Steps:
        """Work on one clip: yields the tasks that can be done side by side, takes their answers."""
        from ...vdp_core.errors import MediaError

        try:
            made_from, seen = self._made_from(entry)
        except (MediaError, OSError) as error:
            reason = (
                str(error) if isinstance(error, MediaError) else f"{entry.input}: cannot be read ({error.strerror})"
            )
            self._settle(entry, Outcome(error=reason, bad_input=True))
            return
        unchanged = entry.state == "done" and entry.made_from == made_from and is_complete(entry, self._folder)
        entry.made_from, entry.seen = made_from, seen
        if unchanged:
            return
        with self._manifest.shared():  # so that other batches know whose parts are kept
            self._manifest.own(entry)
            entry.state = "waiting"
        node = replace(self._clip, inputs={**self._clip.inputs, "path": entry.input})
        graph = Graph({**self._graph.nodes, node.id: node}, self._graph.workflow)
        job = Job(graph, node.id, self._device, self._room, self._resume, self._shard)
        outcome = yield from self._in_parts(entry, job) if self._shard else self._whole(entry, job)
        self._settle(entry, outcome)

    def _whole(self, entry: Entry, job: Job) -> Generator[list[Task], list[Any], Outcome]:
        (outcome,) = yield [Task(entry.folder, run_clip, job)]
        return outcome

    def _in_parts(self, entry: Entry, job: Job) -> Generator[list[Task], list[Any], Outcome]:
        (ranges,) = yield [Task(entry.folder, cut_clip, job)]
        if isinstance(ranges, Outcome):
            return ranges
        if len(ranges) == 1:
            return (yield from self._whole(entry, job))
        kept = self._parts / self._key(entry)
        with explained(kept):
            kept.mkdir(parents=True, exist_ok=True)
        jobs = [part_of(job, self._needed, ranges, index, kept) for index in range(len(ranges))]
        parts = yield [
            Task(f"{entry.folder}, part {index} of {len(jobs)}", run_part, part) for index, part in enumerate(jobs, 1)
        ]
        for (first, count), part in zip(ranges, parts, strict=True):
            if part.error:
                return replace(part, error=f"frames {first} to {first + count - 1}: {part.error}")
        (outcome,) = yield [Task(entry.folder, join_parts, Joining(job, ranges, parts))]
        return outcome

    # One clip

    def _made_from(self, entry: Entry) -> tuple[dict[str, Any], str]:
        """What the results of a clip depend on, and by what a change of its files shows without reading them."""
        from ...vdp_core.media.clip import fingerprint
        from ...vdp_core.media.source import files_of
        from ...vdp_core.models.file import own_version

        seen = fingerprint(entry.input)
        clip = entry.made_from.get("clip") if seen == entry.seen else None
        clip = clip or content(files_of(entry.input))
        return {"clip": clip, "workflow": self._workflow_hash, "version": own_version(), "shard": self._shard}, seen

    @staticmethod
    def _key(entry: Entry) -> str:
        return digest(entry.input, entry.folder, entry.made_from)[:16]

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        """Move results into place, and note what came of a clip."""
        if not outcome.error and not _is_as_seen(entry):
            error = f"{entry.input}: changed while it was worked on; run the batch again once it stays as it is"
            outcome = Outcome(error=error, bad_input=True)
        with self._manifest.shared():
            self._manifest.own(entry)
            self._note(entry, outcome)

    def _note(self, entry: Entry, outcome: Outcome) -> None:
        entry.error, entry.bad_input, entry.notes = outcome.error, outcome.bad_input, outcome.notes
        entry.numbers, entry.seconds, entry.device = outcome.numbers, outcome.seconds, outcome.device
        entry.outputs = []
        if outcome.folder is None:
            entry.state = "failed"
            self._terminal.say(f"{entry.folder}: {outcome.error}")
            if outcome.trace:
                self._terminal.say(outcome.trace)
        else:
            put_in_place(outcome, entry, self._manifest, self._folder / STATE)
            entry.state = "done"
            self.computed += 1
