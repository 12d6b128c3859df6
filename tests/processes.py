"""Processes that tests start and end, each forked from one that has loaded what takes seconds to load.

A run is followed through its states: what it does to files, and each piece of work that it tells of. The states of one
run are those of the next, so that it can be ended at any of them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from comfyui_vdp.runner.batch import pools

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
# The first step of an optimiser imports dynamo, which takes as long as torch itself.
_context.set_forkserver_preload(["av", "cv2", "torch", "torch._dynamo", "comfyui_vdp.runner.run.execute"])

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.link": 1, "os.mkdir": 0, "os.remove": 0, "os.rename": 1, "os.rmdir": 0}
"""What Python tells its audit hooks of a change to files, and which of the arguments names the file."""


class Started:
    """A process that computes ``function(*arguments)``, of a module that can be imported, and ends with its answer.

    Args:
        folder: where stdout and stderr go, as files of these names.
        environment: in addition to the one of the tests.
    """

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("stdout", "stderr"):
            (folder / name).unlink(missing_ok=True)
        self.folder = folder
        given = (function, arguments, str(Path.cwd()), dict(environment or {}), str(folder))
        self._process: BaseProcess = _context.Process(target=_child, args=given)  # type: ignore[attr-defined]
        self._process.start()
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; of a process that was killed by a signal, its number below zero; None while it runs."""
        return self._process.exitcode

    @property
    def out(self) -> str:
        return self._told("stdout")

    @property
    def err(self) -> str:
        return self._told("stderr")

    def _told(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def send(self, number: int) -> None:
        assert self.pid is not None
        os.kill(self.pid, number)

    def wait(self, seconds: float = 120.0) -> int | None:
        """The exit code, or None where it still runs after so many seconds."""
        self._process.join(seconds)
        return self.code

    def end(self) -> int:
        """Kill it where it still runs; gives the exit code."""
        self._process.kill()
        self._process.join()
        assert self.code is not None
        return self.code


def _child(function: Callable[..., Any], arguments: Any, cwd: str, environment: dict[str, str], folder: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.update(environment)
    tempfile.tempdir = environment.get("TMPDIR")
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    code = function(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


# States


def states_of(function: Callable[..., Any], *arguments: Any, within: Path, folder: Path, **more: Any) -> list[str]:
    """Each kind of state of a run that is left alone, in the order in which they first come; it has to answer 0.

    Args:
        within: changes to files inside this folder are states; names are given without their numbers.
        folder: where stdout, stderr and the list of states go.
    """
    told = folder / "states.json"
    run = Started(_followed, function, arguments, within, ("", 0, 0), told, folder=folder, **more)
    assert run.wait() == 0, run.err
    return list(dict.fromkeys(json.loads(told.read_text())))


def ended_at(
    state: str,
    number: int,
    function: Callable[..., Any],
    *arguments: Any,
    within: Path,
    folder: Path,
    nth: int = 1,
    **more: Any,
) -> Started:
    """A run that sends itself a signal just before it comes to a state for the nth time; it has ended."""
    run = Started(_followed, function, arguments, within, (state, nth, number), None, folder=folder, **more)
    run.wait()
    return run


def _followed(
    function: Callable[..., Any], arguments: Any, within: Path, end: tuple[str, int, int], told: Path | None
) -> Any:
    from comfyui_vdp.runner import terminal

    states: list[str] = []

    def reach(name: str) -> None:
        states.append(name)
        if (name, states.count(name)) == end[:2]:
            os.kill(os.getpid(), end[2])

    def hook(event: str, given: tuple[Any, ...]) -> None:
        path = _changed(event, given)
        if path is not None and within in path.parents:
            reach(f"{event} {re.sub(r'[0-9a-f]{8,}|[0-9]+', '#', path.name)}")

    progress = terminal.Terminal.progress

    @contextmanager
    def telling(self: Any, total: int, label: str) -> Iterator[Callable[..., None]]:
        with progress(self, total, label) as on_step:

            def on_step_too(done: int, *rest: Any) -> None:
                reach(f"step {label}")
                on_step(done, *rest)

            yield on_step_too

    terminal.Terminal.progress = telling  # type: ignore[method-assign]
    sys.addaudithook(hook)
    code = function(*arguments)
    if told is not None:
        told.write_text(json.dumps(states))
    return code


def _changed(event: str, given: tuple[Any, ...]) -> Path | None:
    """The file that is about to change, as an audit event tells it."""
    if event == "open":
        name, _, flags = given
        if not flags & WRITING:
            return None
    elif event in CHANGES:
        name = given[CHANGES[event]]
    else:
        return None
    return Path(os.fsdecode(name)).absolute() if isinstance(name, str | bytes | os.PathLike) else None


class HerePool:
    """Works in the test's own process, which spares it the start of another."""

    slots = 1

    def __init__(self) -> None:
        self.waiting: deque[pools.Task] = deque()

    def submit(self, task: pools.Task) -> None:
        self.waiting.append(task)

    def wait(self, tell: pools.Tell) -> tuple[pools.Task, Any]:
        task = self.waiting.popleft()
        return task, task.function(task.job, tell)

    def close(self) -> None:
        pass
