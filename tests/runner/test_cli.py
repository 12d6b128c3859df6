"""The command line contract: exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyui_vdp.runner import cli, terminal
from comfyui_vdp.runner.graph import specs as specs_module
from comfyui_vdp.runner.graph.types import Specs

Vdp = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vdp(
    specs: Specs, api_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Vdp:
    """Call the command on the throwaway nodes, in a folder that holds graph.json; gives code, stdout and stderr."""
    monkeypatch.setattr(specs_module, "local_specs", lambda: specs)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        (tmp_path / "graph.json").write_text(json.dumps(api_graph))
        code = cli.main(arguments)
        return (code, *capsys.readouterr())

    return call


def last_line(out: str) -> Any:
    return json.loads(out.strip().splitlines()[-1])


def test_run_ends_with_json(vdp: Vdp, tmp_path: Path) -> None:
    code, out, _ = vdp("run", "graph.json", "--output-dir", "out", "--set", "Clip.value=4", "--device", "cpu")
    assert code == 0
    result = last_line(out)
    assert result["outputs"] == [str(tmp_path / "out" / "report_00001.txt")]
    assert Path(result["outputs"][0]).read_text() == "16.0"
    assert (result["number"], result["loss"], result["device"]) == (16.0, None, "cpu")
    assert result["seconds"] >= 0


def test_a_setting_wins_over_the_seed_for_all(vdp: Vdp, node_log: list[str], api_graph: Any) -> None:
    assert vdp("run", "graph.json", "--seed", "5", "--set", "Clip.seed=6", "--quiet")[0] == 0


def test_results_are_never_overwritten(vdp: Vdp) -> None:
    first, second = (last_line(vdp("run", "graph.json", "--quiet")[1])["outputs"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "none.json"], 1, "vdp: the workflow none.json cannot be read: No such file"),
        (["run", "graph.json", "--set", "Clap.value=3"], 1, "vdp: no node 'Clap'; the graph has Clip (Number)"),
        (["run", "graph.json", "--set", "Clip.value=30"], 1, "vdp: Clip (Number): value must be a whole number from"),
        (["run", "graph.json", "--set", "Clip.name=missing.mp4"], 1, "vdp: Clip (Number): no file missing.mp4"),
        (["run", "graph.json", "--set", "Clip.name=bad input"], 1, "vdp: Clip (Number): value is bad; give another"),
        (["run", "graph.json", "--set", "Report.filename_prefix=../x"], 1, "outside the output folder"),
        (["run", "graph.json", "--output-dir", "graph.json"], 1, "the output folder graph.json cannot be made"),
        (["run", "graph.json", "--device", "tpu"], 2, "Invalid value for '--device'"),
        (["run", "graph.json", "--server", "x", "--device", "cpu"], 2, "--device has no effect with --server"),
        (["run", "graph.json", "--server", "127.0.0.1:9"], 1, "the server http://127.0.0.1:9 cannot be reached"),
        (["run"], 2, "Missing argument 'WORKFLOW'"),
        (["fly"], 2, "No such command 'fly'"),
        (["nodes", "Numbr"], 1, "no node 'Numbr'; there are"),
        (["run", "graph.json", "--set", "Clip.name=defect"], 3, "vdp: Clip (Number): ZeroDivisionError: by nought"),
    ],
)
def test_exit_codes(vdp: Vdp, arguments: list[str], code: int, sentence: str) -> None:
    found, out, err = vdp(*arguments)
    assert found == code
    assert sentence in err
    assert out == ""
    assert ("Traceback" in err) == (code == 3)
    if code == 1:
        assert len(err.strip().splitlines()) == 1


def test_a_broken_graph_runs_nothing(vdp: Vdp, api_graph: Any, node_log: list[str]) -> None:
    api_graph["3"]["inputs"]["number"] = ["2", 1]
    api_graph["1"]["inputs"]["value"] = 99
    code, _, err = vdp("run", "graph.json")
    assert code == 1
    assert len(err.strip().splitlines()) == 2
    assert node_log == []


def test_an_interruption_is_130(vdp: Vdp, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **more: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("comfyui_vdp.runner.run.execute.run", interrupt)
    before = signal.getsignal(signal.SIGTERM)
    code, out, err = vdp("run", "graph.json")
    assert (code, out, err.strip()) == (130, "", "vdp: interrupted")
    assert signal.getsignal(signal.SIGTERM) is before


def test_check(vdp: Vdp, api_graph: Any) -> None:
    assert vdp("check", "graph.json") == (0, "graph.json: 3 nodes, nothing wrong\n", "")
    code, out, err = vdp("check", "graph.json", "--set", "Clip.name=missing.mp4")
    assert (code, err) == (0, "before it can run here: Clip (Number): no file missing.mp4\n")
    api_graph["2"]["inputs"].pop("a")
    api_graph["1"]["inputs"]["value"] = 99
    code, out, err = vdp("check", "graph.json")
    assert code == 1
    assert out.splitlines() == [
        "Clip (Number): value must be a whole number from 0 to 10, got 99",
        "Add (node 2): a (NUMBER) is missing",
    ]
    assert err == "vdp: graph.json: 2 problems\n"


def test_help_and_version(vdp: Vdp) -> None:
    assert vdp("--help")[0] == 0
    code, out, _ = vdp("--version")
    assert code == 0 and out.startswith("vdp, version")
    assert vdp()[0] == 2


def test_the_command_line_starts_without_torch() -> None:
    program = "import sys; from comfyui_vdp.runner.cli import main; main(['nodes']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0


# Progress


def test_progress_in_a_log_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    shown = terminal.Terminal()
    shown.title = "Optimize (VDPOptimize)"
    with shown.progress(30, "relight") as on_step:
        for step in range(1, 31):
            now += 1.0
            on_step(step, 30, None)
    assert capsys.readouterr().err.splitlines() == [
        "Optimize (VDPOptimize): relight: 10/30 after 10 s, 20 s left",
        "Optimize (VDPOptimize): relight: 20/30 after 20 s, 10 s left",
        "Optimize (VDPOptimize): relight: 30/30 after 30 s",
    ]


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = terminal.Terminal(quiet=True)
    quiet.say("text")
    with quiet.progress(1, "work") as on_step:
        on_step(1, 1, None)
    assert capsys.readouterr() == ("", "")


def test_progress_at_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.Terminal().progress(2, "work") as on_step:
        on_step(1, 2, None)
        on_step(4, 4, None)  # the total may turn out larger
    assert "4/4" in capsys.readouterr().err


# Measuring


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folders of two 16x16 pictures: grey, the same a shade lighter, and one that is half white."""
    from PIL import Image

    for name, values in {"grey": (100, 100), "lighter": (110, 110), "half": (0, 255), "all": (255, 255)}.items():
        (tmp_path / name).mkdir()
        for index, value in enumerate(values):
            Image.new("RGB", (16, 16), (value,) * 3).save(tmp_path / name / f"{index:05}.png")
    return tmp_path


def test_measure(vdp: Vdp, pictures: Path) -> None:
    code, out, err = vdp("measure", "lighter", "grey", "--mask", "half", "--ref-mask", "all", "--quiet")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["psnr"] == pytest.approx(28.13, abs=0.01)  # 20 log10(255 / 10)
    assert found["iou"] == 0.5  # the first picture's mask is empty, the second's whole
    assert found["mad"] == 0.5
    assert found["warping_error"] == pytest.approx(0.0, abs=1e-6)
    assert 0.9 < found["ssim"] < 1.0
    assert all(isinstance(value, float) for value in found.values())
    again = vdp("measure", "lighter", "grey", "--mask", "half", "--reference-mask", "all", "--quiet")
    assert json.loads(again[1]) == found


def test_measuring_mattes_in_the_units_of_papers(vdp: Vdp, pictures: Path) -> None:
    """The mask is empty in the first of two pictures, the true one is whole; colours differ by 10 of 255."""
    code, out, err = vdp("measure", "half", "all", "--matte", "--quiet")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert set(found) == {"mad", "mse", "grad", "grad_hr", "conn", "dtssd"}
    assert (found["mad"], found["mse"], found["dtssd"]) == (500.0, 500.0, 50.0)  # 0 and 100
    colours = vdp("measure", "lighter", "grey", "--mask", "half", "--ref-mask", "all", "--matte", "--quiet")
    with_colours = json.loads(colours[1])
    assert with_colours.pop("foreground_mse") == pytest.approx(1e3 * (10 / 255) ** 2, rel=1e-4)
    assert with_colours == found


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["grey", "none.mp4"], 1, "none.mp4"),
        (["grey"], 2, "Missing argument 'REF'"),
        (["grey", "grey", "--mask", "half"], 1, "reference mask: none was given"),
    ],
)
def test_measuring_what_cannot_be(vdp: Vdp, pictures: Path, arguments: list[str], code: int, sentence: str) -> None:
    found, out, err = vdp("measure", *arguments, "--quiet")
    assert (found, out) == (code, "")
    assert sentence in err
    assert "Traceback" not in err


def test_work_that_comes_to_its_end_again_and_again_says_so_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.Terminal().progress(1, "segment") as on_step:
        for _ in range(40):
            now += 3.0
            on_step(1, 1, None)
    assert capsys.readouterr().err.splitlines() == ["segment: 1/1 after 12 s"]
