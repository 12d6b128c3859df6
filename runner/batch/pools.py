"""Where the work of a batch is done: in a process of its own on this machine, or as tasks on a Ray cluster.

Never in the batch's own process: a decoder that crashes, or the system ending what takes too much memory, then costs
one clip and not the batch. Either way results are the same; to the last bit where the number of threads is, because
sums of floating point numbers depend on it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..graph.types import GraphError

__all__ = ["Died", "LocalPool", "Pool", "RayPool", "Task", "Tell"]

Tell = Callable[[str], None]
"""Told how far the work is, in words."""

THREADS = 4  # of a Ray task, unless OMP_NUM_THREADS says how many: a clip gains little from more, a second clip does
GRACE = 10.0  # seconds that work has to clear away what it began when it is interrupted


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of work: ``function(job, tell)``, of a module that every worker can import."""

    name: str
    """What to call it in front of a person."""
    function: Callable[[Any, Tell], Any]
    job: Any
    tries: int = 0
    """How often a worker has died of it before."""


@dataclass(frozen=True)
class Died:
    """The answer to a task whose worker died."""

    how: str


class Pool(Protocol):
    """What a batch asks for."""

    slots: int
    """How many tasks are worth having under way at a time."""

    def submit(self, task: Task) -> None:
        """Have a task done, at some time."""
        ...

    def wait(self, tell: Tell) -> tuple[Task, Any]:
        """Wait for any task that was submitted; its answer is what the function gave, or ``Died``."""
        ...

    def close(self) -> None:
        """End the workers and what they work on."""
        ...


# This machine


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _serve(connection: Any) -> None:
    """A worker: does what comes through the connection until that is closed."""
    from queue import SimpleQueue

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the batch too, which then ends this process
    signal.signal(signal.SIGTERM, _interrupt)
    tasks: SimpleQueue[tuple[Callable[[Any, Tell], Any], Any]] = SimpleQueue()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                tasks.put(connection.recv())
        os._exit(1)  # the batch is gone, however it ended: nobody would take the result

    threading.Thread(target=listen, daemon=True).start()
    with suppress(KeyboardInterrupt):
        while True:
            function, job = tasks.get()
            connection.send(("answer", function(job, lambda text: connection.send(("tell", text)))))


class LocalPool:
    """One worker process on this machine, started when it is needed and kept from task to task."""

    slots = 1

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()
        self._process: Any = None
        self._connection: Any = None

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def wait(self, tell: Tell) -> tuple[Task, Any]:
        from multiprocessing.connection import wait

        task = self._waiting.popleft()
        if self._process is None:
            self._start()
        try:
            self._connection.send((task.function, task.job))
        except OSError:  # it died while it had nothing to do
            return task, self._buried()
        while True:
            wait([self._connection, self._process.sentinel])
            try:
                kind, content = self._connection.recv() if self._connection.poll() else ("died", None)
            except (EOFError, OSError):
                kind, content = "died", None
            if kind == "tell":
                tell(f"{task.name}: {content}")
            elif kind == "answer":
                return task, content
            else:
                return task, self._buried()

    def _start(self) -> None:
        import multiprocessing

        # Spawned, as everywhere but on Linux by default: a fork of a process that has threads may hang.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _buried(self) -> Died:
        self._process.join()
        code = self._process.exitcode
        self.close()
        if code >= 0:
            return Died(f"with exit code {code}")
        name = signal.Signals(-code).name if -code in {int(known) for known in signal.Signals} else str(-code)
        return Died(
            f"of signal {name}, as the system sends when memory runs out" if name == "SIGKILL" else f"of {name}"
        )

    def close(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()
        self._process = None


# Ray


def _on_ray(function: Callable[[Any, Tell], Any], job: Any, threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return function(job, lambda text: None)


class RayPool:
    """Tasks on a Ray cluster: a GPU each where there are any and they may be used, else CPUs.

    Every machine of the cluster must have this package, and see clips and output folder under the same paths.

    Args:
        address: ``local`` starts a cluster on this machine for as long as the pool lives; else where one runs.
        device: as of ``vdp run``; ``cpu`` leaves GPUs alone.

    Raises:
        GraphError: Ray is not installed, the cluster cannot be reached or has nothing to compute on.
    """

    def __init__(self, address: str, device: str = "auto") -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
        try:
            import ray
        except ImportError as error:
            raise GraphError('--ray needs the package ray, which is missing; pip install "vdp-nodes[ray]"') from error
        import torch

        self._ray, self._temp = ray, ExitStack()
        self._running: dict[Any, Task] = {}
        try:
            self._connect(address)
            machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
            graphics = 0 if device == "cpu" else int(sum(machine.get("GPU", 0) for machine in machines))
            largest = int(max((machine.get("CPU", 0) for machine in machines), default=0))
            if not graphics and (device == "cuda" or not largest):
                raise GraphError(f"the Ray cluster {address} has no {'GPU' if device == 'cuda' else 'CPU'} to work on")
        except BaseException:
            self.close()
            raise
        wanted = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else min(THREADS, torch.get_num_threads())
        self._threads = max(1, min(wanted, largest))
        needs = {"num_gpus": 1, "num_cpus": 1} if graphics else {"num_cpus": self._threads}
        at_once = graphics or sum(int(machine.get("CPU", 0)) // self._threads for machine in machines)
        self.slots = 2 * at_once  # half of them in line, so that no worker waits for the batch
        # A worker that dies is tried again by the batch, which knows what was left lying about.
        self._remote = ray.remote(_on_ray).options(max_retries=0, **needs)

    def _connect(self, address: str) -> None:
        from urllib.parse import urlsplit

        from ...vdp_core.store.files import scratch

        local: dict[str, Any] = {}
        place = urlsplit(address if "//" in address else f"//{address}")
        if address == "local":
            # Sockets lie in it, whose paths must be short.
            temp = self._temp.enter_context(scratch(Path("/tmp") if os.name == "posix" else None))
            # Else Ray waits until a worker for each core has started, though a task here takes several cores.
            workers = {"prestart_worker_first_driver": False}
            local = {"include_dashboard": False, "_temp_dir": str(temp), "_system_config": workers}
        ours = signal.getsignal(signal.SIGTERM)
        try:
            if place.port:  # Ray itself tries for many minutes
                socket.create_connection((place.hostname, place.port), timeout=10).close()
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (OSError, ValueError, RuntimeError) as error:
            raise GraphError(f"no Ray cluster can be reached at {address}: {str(error).splitlines()[0]}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, ours)  # Ray puts a handler of its own in place, which just exits

    def submit(self, task: Task) -> None:
        self._running[self._remote.remote(task.function, task.job, self._threads)] = task

    def wait(self, tell: Tell) -> tuple[Task, Any]:
        done: list[Any] = []
        while not done:  # in turns, so that an interruption is noticed
            tell(f"{len(self._running)} under way")
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1.0)
        task = self._running.pop(done[0])
        try:
            return task, self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            return task, Died(f"({str(error).strip().splitlines()[0]})")

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.shutdown()
        self._temp.close()
