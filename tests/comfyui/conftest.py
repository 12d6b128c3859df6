"""A real ComfyUI, started once on the CPU with this pack and no other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comfyui_vdp.runner.graph.specs import local_specs

ROOT = Path(__file__).parents[2]
START = 300.0  # seconds; the first import of everything ComfyUI needs is slow on small machines
WAIT = 300.0  # seconds that a graph may take

Graph = dict[str, dict[str, Any]]


@dataclass
class ComfyUI:
    url: str
    folder: Path
    log: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as response:
            return json.load(response)

    def post(self, path: str, body: object) -> Any:
        """The answer, also where it is a refusal."""
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text) if text else None


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    source = os.environ.get("COMFYUI_PATH")
    if not source:
        pytest.skip("COMFYUI_PATH is not set: give a ComfyUI checkout to run the tests inside ComfyUI")
    folder = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "input", "output", "models", "user", "temp"):
        (folder / name).mkdir()
    (folder / "custom_nodes" / "vdp-nodes").symlink_to(ROOT, target_is_directory=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    options = ["--cpu", "--disable-auto-launch", "--listen", "127.0.0.1", "--port", str(port)]
    running = ComfyUI(f"http://127.0.0.1:{port}", folder, folder / "log.txt")
    with running.log.open("w") as log:
        process = subprocess.Popen(
            [python, "main.py", *options, "--base-directory", str(folder)], cwd=source, stdout=log, stderr=log
        )
        try:
            _wait_for(running, process)
            yield running
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(running: ComfyUI, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        try:
            running.get("/system_stats")
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"ComfyUI did not start:\n{running.log.read_text()[-4000:]}")


class Queue:
    """Runs graphs in API format; inputs that are left out have their defaults."""

    def __init__(self, comfyui: ComfyUI) -> None:
        self._comfyui = comfyui
        self.ran_before: set[str] = set()
        """The nodes that ran before the one that ``refused`` something last, or were taken from the cache."""
        self._defaults = {
            name: {
                key: entry.options.get("default", (entry.choices or [None])[0])
                for key, entry in spec.inputs.items()
                if entry.required and entry.is_widget
            }
            for name, spec in local_specs().items()
        }

    def __call__(self, graph: Graph) -> Any:
        """The entry of the history; fails where a node failed."""
        entry = self.history(self.post(graph)["prompt_id"])
        failed = dict(entry["status"]["messages"]).get("execution_error", {})
        assert entry["status"]["status_str"] == "success", failed.get("exception_message")
        return entry

    def post(self, graph: Graph) -> Any:
        """Queue a graph that the server must not refuse."""
        answer = self._send(graph)
        assert "prompt_id" in answer and not answer["node_errors"], answer
        return answer

    def _send(self, graph: Graph) -> Any:
        whole = {
            key: {**node, "inputs": {**self._defaults.get(node["class_type"], {}), **node["inputs"]}}
            for key, node in graph.items()
        }
        return self._comfyui.post("/prompt", {"prompt": whole, "client_id": uuid.uuid4().hex})

    def history(self, prompt: str) -> Any:
        end = time.monotonic() + WAIT
        while prompt not in (history := self._comfyui.get(f"/history/{prompt}")):
            assert time.monotonic() < end
            time.sleep(0.1)
        return history[prompt]

    def ran(self, graph: Graph) -> set[str]:
        """Run a graph; the nodes that were not taken from the cache."""
        messages = dict(self(graph)["status"]["messages"])
        return set(graph) - set(messages["execution_cached"]["nodes"])

    def refused(self, graph: Graph) -> tuple[str, str, str]:
        """Where a graph is refused, before it runs or while it does: the node, what kind of error, what is said."""
        answer = self._send(graph)
        for key, errors in answer["node_errors"].items():
            for error in errors["errors"]:
                return key, error["type"], f"{error['message']}: {error['details']}"
        failed = dict(self.history(answer["prompt_id"])["status"]["messages"])["execution_error"]
        self.ran_before = set(failed["executed"])
        return failed["node_id"], failed["exception_type"].rpartition(".")[2], failed["exception_message"].strip()

    def file(self, entry: Any, node: str) -> Path:
        """What a node of core saved."""
        (saved,) = entry["outputs"][node]["images"]
        return Path(self._comfyui.folder / saved["type"] / saved["subfolder"] / saved["filename"])


@pytest.fixture(scope="session")
def queue(comfyui: ComfyUI) -> Queue:
    return Queue(comfyui)
