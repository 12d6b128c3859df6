"""Runs that are ended from outside: nothing is left of them, and nothing half is ever taken for whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import programs
import pytest
from processes import ended_at, states_of

from comfyui_vdp.runner.cli import main
from comfyui_vdp.vdp_core.media import clip as video

WORKFLOWS = Path(__file__).parents[2] / "workflows"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def relight(clip: Path, output: Path) -> list[str]:
    settings = (f"Clip.path={clip}", "Flow.model=dis", "Optimize.preset=fast", "Optimize.steps=20")
    pairs = [part for setting in settings for part in ("--set", setting)]
    return ["run", str(WORKFLOWS / "relight.json"), "--output-dir", str(output), "--device", "cpu", "--quiet", *pairs]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def follow(tmp_path: Path) -> dict[str, Any]:
    """How runs are followed; with a temporary folder of this test's own."""
    (tmp_path / "temp").mkdir()
    environment = {"TMPDIR": str(tmp_path / "temp")}
    return {"within": tmp_path, "folder": tmp_path / "told", "environment": environment}


@pytest.mark.parametrize(("number", "every"), [(signal.SIGTERM, 1), (signal.SIGHUP, 5)])
def test_a_signal_in_any_state_leaves_nothing(
    clip: Callable[..., Path], follow: dict[str, Any], tmp_path: Path, number: signal.Signals, every: int
) -> None:
    path = clip(6)
    states = states_of(main, relight(path, tmp_path / "out"), **follow)
    # A file that marks who writes is taken away last; one that stays, the next run takes away.
    states = [state for state in states if not (state.startswith("os.remove") and state.endswith(".lock"))]
    assert len(states) > 10
    for index, state in enumerate(states[::every]):
        (tmp_path / str(index)).mkdir()
        out = tmp_path / str(index) / "out"
        run = ended_at(state, number, main, relight(path, out), **follow)
        assert (state, run.code) == (state, 130)
        assert run.err.splitlines()[-1] == "vdp: interrupted"
        left = files_in(out) if out.exists() else []
        assert left in ([], ["relit_00001.mp4"]), state  # which may have been finished the moment before
        named = [Path(made).name for made in json.loads(run.out)["outputs"]] if run.out else []
        assert named in ([], left)  # which may have been said, too
        assert all(len(video.read_clip(out / name).frames) == 6 for name in left)
        assert names_in(tmp_path / "temp") == [], state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "library"),
    [(signal.SIGTERM, "av.frame"), (signal.SIGINT, "cv2"), (signal.SIGINT, "torch._C"), (signal.SIGTERM, "torch.nn")],
)
def test_a_signal_while_libraries_are_loaded_is_not_lost(
    clip: Callable[..., Path], tmp_path: Path, number: signal.Signals, library: str
) -> None:
    # From where the command takes signals itself; until then they end Python in its own way.
    program = (
        "import os, sys\n"
        "from comfyui_vdp.runner import cli\n"
        "def hook(event, given):\n"
        f"    if event == 'import' and given[0] == {library!r} and not sent:\n"
        "        sent.append(True)\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "sent, real = [], cli.vdp.main\n"
        "cli.vdp.main = lambda *given, **named: (sys.addaudithook(hook), real(*given, **named))[1]\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, *relight(clip(6), tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (130, "vdp: interrupted")


def test_what_nohup_ignores_stays_ignored(clip: Callable[..., Path], follow: dict[str, Any], tmp_path: Path) -> None:
    arguments = relight(clip(6), tmp_path / "out")
    run = ended_at("step Flow", signal.SIGHUP, programs.ignoring_hangups, arguments, **follow)
    assert (run.code, run.out.splitlines()[-1]) == (0, "still ignored")
    assert files_in(tmp_path / "out") == ["relit_00001.mp4"]


@pytest.mark.parametrize("state", ["open .relit.#.partial.mp#", "os.link relit_#.mp#", "os.rmdir .vdp.#.partial"])
def test_a_kill_leaves_nothing_that_looks_whole_and_the_next_run_tidies_up(
    clip: Callable[..., Path], follow: dict[str, Any], tmp_path: Path, state: str
) -> None:
    """Killed when the file was written, had reached the disk, and had its name."""
    path, out = clip(24), tmp_path / "out"
    assert ended_at(state, signal.SIGKILL, main, relight(path, out), **follow).code == -signal.SIGKILL
    assert any(name.startswith(".") for name in (*files_in(out), *names_in(tmp_path / "temp")))
    before = [name for name in files_in(out) if not name.startswith(".")]
    assert before == (["relit_00001.mp4"] if state.startswith("os.rmdir") else [])
    assert all(len(video.read_clip(out / name).frames) == 24 for name in before)
    states_of(main, relight(path, out), **follow)
    assert len(files_in(out)) == len(before) + 1
    assert not any(name.startswith(".") for name in files_in(out))
    assert names_in(tmp_path / "temp") == []
