"""The pack inside a real ComfyUI, driven as people drive it: ``vdp run --server``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_vdp.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_vdp.runner import cli
from comfyui_vdp.runner.graph.specs import local_specs, server_specs
from comfyui_vdp.vdp_core.media import clip as video

pytestmark = [pytest.mark.comfyui, pytest.mark.slow, pytest.mark.timeout(900)]

WORKFLOW = str(Path(__file__).parents[2] / "workflows" / "relight.json")
SMALL = ["--set", "Clip.path=clip.mp4", "--set", "Optimize.preset=fast", "--set", "Flow.model=dis"]


@pytest.fixture(scope="session")
def clip(comfyui: Any) -> Path:
    """Six dark frames in ComfyUI's input folder."""
    across = torch.linspace(0.0, 0.3, 96).expand(64, 96)
    frames = torch.stack([torch.roll(across, 2 * i, dims=1) for i in range(6)])[..., None].expand(-1, -1, -1, 3)
    return Path(video.write_clip(comfyui.folder / "input" / "clip", frames.contiguous(), fps=12))


@pytest.fixture
def vdp(
    comfyui: Any, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        where = ["--server", comfyui.url, "--output-dir", str(tmp_path / "out")]
        code = cli.main(["run", WORKFLOW, *where, *SMALL, *arguments])
        return (code, *capsys.readouterr())

    return call


def test_the_pack_loads_without_a_warning(comfyui: Any) -> None:
    log = comfyui.log.read_text().partition("Starting server")[0]  # other tests may have run since
    about_us = [line for line in log.splitlines() if "vdp" in line.lower()]
    assert len(about_us) == 1, about_us
    assert "seconds" in about_us[0] and "IMPORT FAILED" not in about_us[0]


def test_every_node_is_there_with_types_and_tooltips(comfyui: Any) -> None:
    info = comfyui.get("/object_info")
    there, here = server_specs(info), local_specs()
    for name in NODE_CLASS_MAPPINGS:
        assert there[name].inputs == here[name].inputs, name
        assert there[name].output_types == here[name].output_types, name
        assert info[name]["display_name"] == NODE_DISPLAY_NAME_MAPPINGS[name]
        assert info[name]["category"].startswith("VDP/")
        assert info[name]["description"]
        assert all(entry.options.get("tooltip") for entry in there[name].inputs.values()), name
        assert len(info[name].get("output_tooltips", [])) == len(there[name].output_types), name
        assert all(info[name].get("output_tooltips", [])), name


@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_the_shipped_workflow_yields_its_file(vdp: Callable[..., tuple[int, str, str]], kind: str) -> None:
    code, out, err = vdp("--set", f"Result.format={kind}", "--seed", "3")
    assert code == 0, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    (output,) = (Path(path) for path in result["outputs"])
    assert output.is_dir() if kind == "png" else output.suffix == ".mp4"
    frames = video.read_clip(output).frames
    assert frames.shape == (6, 64, 96, 3)
    assert frames.mean() > 0.15  # relit: the source's mean
    assert result["device"] == "cpu"


def test_pictures_become_masks_and_masks_pictures(
    comfyui: Any, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unions of types: SaveFrames takes a MASK, and MeasureVideo pictures as a mask."""
    graph = {
        "1": {"class_type": "LoadFrames", "inputs": {"path": "clip.mp4"}},
        "2": {"class_type": "SaveFrames", "inputs": {"frames": ["1", 1], "format": "png"}},
        "3": {
            "class_type": "MeasureVideo",
            "inputs": {"frames": ["1", 0], "mask": ["1", 0], "reference_mask": ["1", 1]},
        },
    }
    for node, name in (("1", "LoadFrames"), ("2", "SaveFrames"), ("3", "MeasureVideo")):
        defaults = {
            key: entry.options["default"]
            for key, entry in local_specs()[name].inputs.items()
            if entry.required and "default" in entry.options
        }
        graph[node]["inputs"] = defaults | graph[node]["inputs"]
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph))
    assert cli.main(["check", str(path)]) == 0
    capsys.readouterr()
    assert cli.main(["run", str(path), "--server", comfyui.url, "--output-dir", str(tmp_path / "out")]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0.0 < result["iou"] < 1.0
    assert all(isinstance(value, float) for name, value in result.items() if name in ("boundary_f", "mad", "mse"))
    (masks,) = (Path(output) for output in result["outputs"] if Path(output).is_dir())
    assert video.read_clip(masks).frames.eq(1.0).all()  # an opaque clip's alpha


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["Clip.path=nowhere.mp4"], "Clip (LoadFrames)"),
        (["Optimize.steps=-1"], "Optimize (VDPOptimize)"),
        (["Result.format=avi"], "Result (SaveFrames)"),
        (["Clip.count=1"], "motion needs at least two frames"),
        (["Result.filename_prefix=../x"], "Result (SaveFrames)"),
    ],
)
def test_bad_input_gets_its_sentence_at_the_right_node(
    vdp: Callable[..., tuple[int, str, str]], settings: list[str], sentence: str
) -> None:
    code, out, err = vdp(*(part for setting in settings for part in ("--set", setting)))
    assert (code, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err


def test_an_interrupt_stops_the_server_and_leaves_no_file(comfyui: Any, clip: Path, tmp_path: Path) -> None:
    before = sorted((comfyui.folder / "output").rglob("*"))
    arguments = ["run", WORKFLOW, "--server", comfyui.url, "--output-dir", str(tmp_path / "out"), *SMALL]
    slow = ["--set", "Optimize.preset=paper", "--set", "Optimize.steps=10000", "--set", "Optimize.seed=11"]
    program = "import sys; from comfyui_vdp.runner.cli import main; sys.exit(main(sys.argv[1:]))"
    client = subprocess.Popen([sys.executable, "-c", program, *arguments, *slow], stderr=subprocess.PIPE, text=True)
    until(lambda: bool(comfyui.get("/queue")["queue_running"]))
    time.sleep(2.0)  # some way into the work
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=120)
    assert client.returncode == 130, err
    until(lambda: not comfyui.get("/queue")["queue_running"])
    last = list(comfyui.get("/history").values())[-1]
    (stopped,) = (data for kind, data in last["status"]["messages"] if kind == "execution_interrupted")
    assert stopped["node_type"] == "VDPOptimize"
    assert sorted((comfyui.folder / "output").rglob("*")) == before
    assert cli.main([*arguments, "--seed", "12"]) == 0  # and the server is well


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
