"""Going on after a kill: what the nodes of a graph have found so far, kept in a hidden folder until all is done."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..graph.check import cast, constant
from ..graph.types import Graph, Link, Node, NodeSpec, Specs

if TYPE_CHECKING:
    from ...vdp_core.store.journal import Journal

__all__ = ["RESUME_FOLDER", "Kept", "identities"]

_log = logging.getLogger(__name__)

RESUME_FOLDER = ".vdp-resume"
"""Below the output folder."""
OUTPUTS = "outputs"
KEPT_FOR = 7 * 24 * 3600  # seconds, where the run that was cut off is never run again


def identities(graph: Graph, specs: Specs, order: Sequence[str], device: str) -> dict[str, str | None]:
    """A text for each node that changes when something does that its result depends on.

    That is the node, the graph above it, the files that are read there (as ``IS_CHANGED`` tells them apart), the kind
    of device, and the versions of the pack and of torch. None where a file's name is only known once the graph runs.

    Args:
        graph: one that passes ``graph.check``.
        specs: what its nodes are.
        order: the ids of its nodes, sources first.
        device: ``cpu`` or ``cuda``.
    """
    import torch

    from ...vdp_core.models.file import own_version

    around = [own_version(), torch.__version__, device]
    found: dict[str, str | None] = {}
    for key in order:
        node, spec = graph.nodes[key], specs[graph.nodes[key].class_type]
        sources = {name: value for name, value in node.inputs.items() if isinstance(value, Link)}
        files = _files(node, spec, graph, specs)
        if files is None or any(found[link.node] is None for link in sources.values()):
            found[key] = None
            continue
        inputs = {
            name: [found[value.node], value.slot] if isinstance(value, Link) else cast(spec.inputs[name], value)
            for name, value in node.inputs.items()
        }
        found[key] = _digest([*around, key, node.class_type, inputs, files])
    return found


def _files(node: Node, spec: NodeSpec, graph: Graph, specs: Specs) -> str | None:
    """What a node says of the files it reads, or None where it cannot tell yet which."""
    is_changed = getattr(spec.node_class, "IS_CHANGED", None)
    if is_changed is None:
        return ""
    wanted = inspect.getfullargspec(is_changed)
    constants = {}
    for name, value in node.inputs.items():
        value = constant(value, graph, specs)
        if isinstance(value, Link):
            if name in wanted.args:
                return None
        elif name in wanted.args or wanted.varkw is not None:
            constants[name] = cast(spec.inputs[name], value)
    return str(is_changed(**constants))


class Kept:
    """What is kept of one run: each node's in a folder of its own, and which outputs are there already.

    Use it in a ``with`` block, and ``clear`` it when all is done. A folder belongs to one process at a time; another
    one that does the same work at once goes on without.
    """

    def __init__(self, folder: Path | None, names: Mapping[str, str | None], output_folder: Path) -> None:
        """Take what ``identities`` gave as ``names``; nothing is kept without a folder."""
        self._folder, self._names, self._output_folder = folder, names, output_folder.resolve()
        self._run = "run-" + _digest(sorted(names.items()))
        self._open: dict[str, Journal] = {}
        self._locks = ExitStack()
        # one file for all outputs, so that their end is kept, and forgotten, all at once
        self._made: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Kept:
        kept = self._place(self._run).load(OUTPUTS)
        if kept is not None:
            self._made = kept[1]["made"]
        return self

    def __exit__(self, *_: object) -> None:
        self._locks.close()
        if self._folder is not None:
            with suppress(OSError):  # it is not there, or holds what another run keeps
                self._folder.rmdir()

    def journal(self, key: str) -> Journal:
        """Where this node may keep what it finds; it keeps nothing where it cannot."""
        return self._place(self._names.get(key))

    def _place(self, name: str | None) -> Journal:
        from ...vdp_core.store.journal import NO_JOURNAL, Journal

        if self._folder is None or name is None:
            return NO_JOURNAL
        if name not in self._open:
            place = self._folder / name
            self._open[name] = Journal(place) if self._claim(place) else NO_JOURNAL
            if self._open[name] is NO_JOURNAL:
                _log.warning("%s cannot be used, or another run does; this one keeps nothing there", place)
        return self._open[name]

    def _claim(self, place: Path) -> bool:
        """Hold the lock of a place until the end."""
        from ...vdp_core.store.files import held

        # twice: another run that ends may take the folder away just when it is to be used
        for _ in range(2):
            with suppress(OSError):  # a full or read-only disk
                place.parent.mkdir(parents=True, exist_ok=True)
            if self._locks.enter_context(held(place.with_name(f"{place.name}.lock"), wait=0.0)):
                return True
        return False

    def finished(self, key: str) -> Mapping[str, Any] | None:
        """What an output node showed (its ``ui``), if it was done before and its files are still as it left them."""
        made = self._made.get(key)
        if made is None or "ui" not in made or self._names.get(key) is None:
            return None
        return made["ui"] if made["files"] == self._state(made["ui"]) else None

    @contextmanager
    def making(self, key: str) -> Iterator[None]:
        """Run an output node inside the block; what it made before it was cut off is taken away first.

        That goes by the file's own number in the file system, so that nothing else is ever taken for it.
        """
        from ...vdp_core.store.files import remove, watching

        if self._names.get(key) is None or self._place(self._run).folder is None:
            yield
            return
        for name, stamp in self._made.pop(key, {}).get("named", []):
            path = self._output_folder / name
            if path.exists() and _stamp(path) == stamp:
                remove(path)
        named: list[tuple[str, list[int]]] = []

        def gets_its_name(partial: Path, target: Path) -> None:
            if target.resolve().is_relative_to(self._output_folder):
                named.append((target.resolve().relative_to(self._output_folder).as_posix(), _stamp(partial)))
                self._keep(key, {"named": named})

        with watching(gets_its_name):
            yield

    def finish(self, key: str, ui: Mapping[str, Any]) -> None:
        """Keep what an output node showed."""
        if self._names.get(key) is not None:
            self._keep(key, {**self._made.get(key, {}), "ui": dict(ui), "files": self._state(ui)})

    def _keep(self, key: str, made: dict[str, Any]) -> None:
        self._made[key] = made
        self._place(self._run).save(OUTPUTS, {}, {"made": self._made})

    def _state(self, ui: Mapping[str, Any]) -> list[list[Any]]:
        """Tells apart the states of the files that an output node named."""
        state = []
        for name in ui.get("vdp_outputs", ()):
            output = self._output_folder / name
            for file in sorted(output.rglob("*")) if output.is_dir() else [output]:
                state.append([str(file), _stamp(file) if file.exists() else None])
        return state

    def clear(self) -> None:
        """Remove what is kept of this run and of one before that it went on from, and what nobody wanted for a week."""
        from ...vdp_core.store.files import held
        from ...vdp_core.store.journal import Journal

        if self._folder is None or not self._folder.is_dir():
            return
        for name in {path.stem for path in self._folder.iterdir()} - set(self._open):
            with held(self._folder / f"{name}.lock", wait=0.0) as is_nobodys:
                # a node whose outputs were there did not run again, and its place was not opened
                if is_nobodys and (name in self._names.values() or _age(self._folder / name) > KEPT_FOR):
                    Journal(self._folder / name).clear()
        # the run's own last: until then a kill leaves all outputs known as done
        for name in sorted(self._open, key=lambda name: name == self._run):
            self._open[name].clear()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _stamp(path: Path) -> list[int]:
    """Tells a file or folder from any other, under whatever name, and from itself once it was changed."""
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns]


def _age(folder: Path) -> float:
    """Seconds since something in a folder was changed."""
    times = [path.stat().st_mtime for path in (folder, *folder.rglob("*")) if path.exists()]
    return time.time() - max(times, default=0.0)
