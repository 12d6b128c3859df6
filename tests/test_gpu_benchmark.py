"""``benchmarks/gpu.py`` runs where there is little, and loses nothing to a part that fails."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("av", "natsort", "OpenEXR", "aiohttp") or name == "comfyui_vdp":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
"""
"""Read by Python before the program: the machine has neither these packages nor the pack installed."""


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    sys.modules["gpu_benchmark"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs_on_a_bare_machine(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    size = ["--device", "cpu", "--frames", "3", "--size", "96x64", "--steps", "2", "--updates", "1"]
    parts = ["machine", "relight", "dehaze", "segment", "flow", "raft"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *size, "--parts", *parts, "--out", tmp_path / "gpu.json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert json.loads((tmp_path / "gpu.json").read_text()) == found
    assert {part: went["ended"] for part, went in found["parts"].items()} == dict.fromkeys(parts, "in time")
    rows = {(row["part"], row.get("what")): row for row in found["rows"]}
    for task, node in (("relight", "Relight"), ("dehaze", "Dehaze"), ("segment", "Composite")):
        each = [rows[task, what]["seconds"] for what in ("RAFTFlow", f"VDPOptimize, {task}", node)]
        assert rows[task, "all in"]["seconds"] == pytest.approx(sum(each))
        assert any(line.startswith(f"| **{task}, all in** | ") for line in lines)
    assert rows["flow", "all in"]["frames"] == 3
    assert {"plain loop", "RAFTFlow"} <= {what for part, what in rows if part == "raft"}


def test_a_part_that_fails_or_hangs_leaves_the_others_alone(program, tmp_path, monkeypatch, capfd):
    def relight(run):
        run.tell(part="relight", what="before", asked_for="cpu", device="cpu", seconds=1.0, frames=1, peak_bytes=None)
        raise ValueError("no light")

    def segment(run):
        run.tell(part="segment", what="all in", asked_for="cpu", device="cpu", seconds=2.0, frames=4, peak_bytes=None)
        time.sleep(60.0)

    parts = {"relight": (relight, 60.0), "dehaze": (lambda run: os._exit(3), 60.0), "segment": (segment, 3.0)}
    monkeypatch.setattr(program, "PARTS", parts)
    monkeypatch.setattr(program, "load_pack", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(tmp_path / "gpu.json")])
    assert program.main() == 1
    said = capfd.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert {part: went["ended"] for part, went in found["parts"].items()} == {
        "relight": "by ValueError: no light",
        "dehaze": "with exit code 3",
        "segment": "cut off after 3 s",
    }
    assert [row["what"] for row in found["rows"]] == ["before", "all in"]
    assert "| **segment, all in** | 2.0 | 500 |" in said.out
    assert "no row of relight, dehaze, flow on cpu" in said.err


def test_where_cuda_cannot_be_forked_libraries_are_loaded_anew(program, tmp_path, monkeypatch, capsys):
    starts = []

    def do_part(name, run, limit, start):
        starts.append(f"{name} {start}")
        run.tell(part=name)
        return [], {"seconds": 0.0, "ended": "in time" if start == "spawn" else f"by RuntimeError: {program.NO_FORK}."}

    monkeypatch.setattr(program, "do_part", do_part)
    monkeypatch.setattr(program, "load_pack", lambda: None)
    parts = ["--parts", "machine", "flow"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(tmp_path / "gpu.json"), *parts])
    assert program.main() == 1
    assert starts == ["machine fork", "machine spawn", "flow spawn"]


def test_a_failing_test_is_told_and_the_others_run(program, tmp_path):
    tests = tmp_path / "test_some.py"
    marked = "@pytest.mark.gpu\ndef test_{}(): assert {}\n"
    tests.write_text("import pytest\n" + marked.format("one", "False") + marked.format("two", "True"))
    run = program.Run("cpu", 1, (8, 8), 0, 1, tmp_path, tmp_path / "rows")
    program.PARTS["tests"] = (lambda run: program.do_tests(run, [tests]), 60.0)
    rows, went = program.do_part("tests", run, 60.0)
    assert went["ended"] == "in time"
    outcomes = {row["test"].rpartition(":")[2]: row["outcome"] for row in rows if "test" in row}
    assert outcomes == {"test_one": "failed", "test_two": "passed"}
    assert rows[-1] == {"part": "tests", "code": 1}
    assert not program.all_passed(rows)
    assert program.table(rows, "cpu").startswith("`pytest -m gpu`: 1 passed, 1 failed.\n")
    assert program.all_passed([row for row in rows if row.get("outcome") == "passed"] + [{"part": "tests", "code": 0}])
    assert not program.all_passed([{"part": "tests", "code": 0}])


def test_what_the_gpu_does_is_added_up_once(program):
    """A kernel from 0 to 40, a copy over its end to 60, a pause, a kernel of 20: of 200 microseconds it works 80."""
    events = [
        {"cat": "kernel", "name": "add", "ts": 0.0, "dur": 40.0},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD", "ts": 30.0, "dur": 30.0},
        {"cat": "kernel", "name": "add", "ts": 100.0, "dur": 20.0},
        {"cat": "cuda_runtime", "name": "cudaStreamSynchronize", "ts": 60.0, "dur": 40.0},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 95.0, "dur": 5.0},
        {"name": "process_name"},
    ]
    found = program.summary(events, 200e-6)
    assert found["gpu_works"] == pytest.approx(0.4)
    assert (found["kernels"], found["waits"]) == (2, 1)
    assert found["copies_seconds"] == pytest.approx(30e-6)
    assert list(found["most_seconds"]) == ["add", "Memcpy HtoD"]


def test_work_that_went_to_the_cpu_is_no_row_of_the_gpu(program):
    row = {"device": "cuda", "seconds": 1.0, "gpu_works": 0.5, "peak_bytes": 10, "said": []}
    longer = {**row, "seconds": 3.0, "gpu_works": 0.9, "peak_bytes": 30}
    assert program.all_in([row, longer]) == {
        **row,
        "what": "all in",
        "seconds": 4.0,
        "gpu_works": pytest.approx(0.8),
        "peak_bytes": 30,
    }
    assert program.all_in([row, {**longer, "device": "cpu"}])["device"] == "cpu"
