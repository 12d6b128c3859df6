"""A real ComfyUI, started once on the CPU with this pack and no other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
START = 300.0  # seconds; the first import of everything ComfyUI needs is slow on small machines


@dataclass
class ComfyUI:
    url: str
    folder: Path
    log: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as response:
            return json.load(response)


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
