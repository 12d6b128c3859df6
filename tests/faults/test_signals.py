"""Runs that are ended from outside: nothing is left of them, and nothing half is ever taken for whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyui_vdp.vdp_core.media import clip as video

WORKFLOWS = Path(__file__).parents[2] / "workflows"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def relight(clip: Path, output: str = "out") -> list[str]:
    settings = (f"Clip.path={clip}", "Flow.model=dis", "Optimize.preset=fast", "Optimize.steps=20")
    pairs = [part for setting in settings for part in ("--set", setting)]
    return ["run", str(WORKFLOWS / "relight.json"), "--output-dir", output, "--device", "cpu", "--quiet", *pairs]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test's own."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def outlived() -> Any:
    """Signals that come when the run is over already end nothing."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def ended(
    vdp: Callable[..., Any], arguments: list[str], number: signal.Signals, after: float
) -> tuple[int, str, str, float]:
    """Run, and send a signal after some seconds."""
    timer = threading.Timer(after, os.kill, (os.getpid(), number))
    timer.start()
    began = time.monotonic()
    try:
        return (*vdp(*arguments), time.monotonic() - began)
    finally:
        timer.cancel()
        timer.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "moments", [pytest.param(range(3), id="3"), pytest.param(range(3, 23), id="20", marks=pytest.mark.slow)]
)
def test_a_signal_at_any_moment_leaves_nothing(
    vdp: Callable[..., Any],
    clip: Callable[..., Path],
    temp: Path,
    outlived: None,
    tmp_path: Path,
    number: signal.Signals,
    moments: range,
) -> None:
    path = clip(6)
    vdp(*relight(path, "warm"))  # loads the libraries
    began = time.monotonic()
    assert vdp(*relight(path, "whole"))[0] == 0
    whole = time.monotonic() - began
    seen = set()
    for moment in moments:
        out = tmp_path / f"out{moment}"
        code, said, err, _ = ended(vdp, relight(path, str(out)), number, random.Random(moment).uniform(0.0, whole))
        seen.add(code)
        if code == 0:  # it was quicker
            (made,) = json.loads(said.splitlines()[-1])["outputs"]
            assert len(video.read_clip(made).frames) == 6
        else:
            assert code == 130
            assert err.splitlines()[-1] == "vdp: interrupted"
            left = files_in(out) if out.exists() else []
            assert left in ([], ["relit_00001.mp4"])  # which may have been finished the moment before
            named = [Path(path).name for path in json.loads(said)["outputs"]] if said else []
            assert named in ([], left)  # which may have been said, too
            assert all(len(video.read_clip(out / name).frames) == 6 for name in left)
        assert files_in(temp) == []
    assert 130 in seen


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_libraries_are_loaded_is_not_lost(
    clip: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    path = clip(600)
    out = tmp_path / "out"
    # From where the command takes signals itself; until then they end Python in its own way.
    program = (
        "import sys\n"
        "from comfyui_vdp.runner import cli\n"
        "real = cli._load_libraries\n"
        "cli._load_libraries = lambda: (print('loading', flush=True), real())\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    for moment in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *relight(path, str(out))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        time.sleep(random.Random(moment).uniform(0.0, 2.0))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err.splitlines()[-1]) == (130, "vdp: interrupted")


def test_what_nohup_ignores_stays_ignored(vdp: Callable[..., Any], clip: Callable[..., Path], outlived: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code, _, _, _ = ended(vdp, relight(clip(6)), signal.SIGHUP, 0.3)
    assert code == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.slow
def test_a_kill_leaves_nothing_that_looks_whole_and_the_next_run_tidies_up(
    clip: Callable[..., Path], tmp_path: Path
) -> None:
    path, temp, out = clip(24), tmp_path / "temp", tmp_path / "out"
    temp.mkdir()
    command = [sys.executable, "-m", "comfyui_vdp.runner.cli", *relight(path, str(out))]
    environment = {**os.environ, "TMPDIR": str(temp), "OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    killed = False
    while not killed:  # in the very moment in which there is a half-written file
        process = start()
        while process.poll() is None and not killed:
            if any(".partial" in name for name in (files_in(out) if out.exists() else [])):
                process.kill()
                killed = True
        process.communicate()
        killed = killed and process.returncode == -signal.SIGKILL
        if not killed:
            for name in files_in(out):
                (out / name).unlink()
    before = [name for name in files_in(out) if not name.startswith(".")]  # it may have been renamed just then
    assert all(len(video.read_clip(out / name).frames) == 24 for name in before)
    process = start()
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert len(files_in(out)) == len(before) + 1
    assert not any(name.startswith(".") for name in files_in(out))
    assert files_in(temp) == []
