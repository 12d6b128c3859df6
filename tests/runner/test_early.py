"""What a graph refuses before anything of it takes long."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from comfyui_vdp.nodes.decompose import VDPOptimize
from comfyui_vdp.nodes.flow import RAFTFlow
from comfyui_vdp.nodes.layers import Composite, ReplaceLayer
from comfyui_vdp.nodes.measure import MeasureVideo
from comfyui_vdp.nodes.video import SaveFrames
from comfyui_vdp.runner.cli import main
from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.models import MODELS

WORKFLOWS = Path(__file__).parents[2] / "workflows"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    frames = torch.rand(6, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture at all")
    see_through = torch.zeros(6, 32, 48)
    see_through[:, 8:16, 8:16] = 1.0
    return {
        "clip": video.write_clip(tmp_path / "clip", frames, fps=25),
        "short": video.write_clip(tmp_path / "short", frames[:3], fps=25),
        "alpha": video.write_clip(tmp_path / "alpha", frames, fps=25, format="png", alpha=see_through),
        "broken": broken,
    }


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """What a run says that is refused before any motion is estimated."""

    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("long work had begun")

    monkeypatch.setattr(RAFTFlow, "estimate", too_late)
    monkeypatch.setattr(VDPOptimize, "optimize", too_late)

    def run(workflow: Path, *settings: str) -> str:
        pairs = [part for setting in settings for part in ("--set", setting)]
        arguments = ["run", str(workflow), "--output-dir", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
        assert main([*arguments, *pairs]) == 1
        return capsys.readouterr().err.strip()

    return run


@pytest.mark.parametrize(
    ("workflow", "settings", "said"),
    [
        ("replace_background", ["Background.path={broken}"], "Background .* is not a picture that can be read"),
        (
            "replace_background",
            ["Background.path={short}", "Background.count=0"],
            "Composite .*: background: got 3 frames for a clip of 6; give one still",
        ),
        ("segment_from_mask", ["Mask.path={broken}"], "Mask .* is not a picture that can be read"),
        (
            "segment_from_mask",
            ["Mask.path={short}", "Mask.count=0"],
            "mask: one, or one for each of the 6",
        ),
        ("relight_to_reference", ["Reference.path={short}", "Reference.count=2"], "reference: one graded still"),
        ("relight", ["Clip.count=1"], "Flow .*: got 1 frame, motion needs at least two"),
        ("relight", ["Result.filename_prefix=../a"], "outside the output folder"),
    ],
)
def test_shipped_workflows(
    refused: Callable[..., str], files: dict[str, Path], workflow: str, settings: list[str], said: str
) -> None:
    given = [setting.format(**files) for setting in settings]
    text = refused(WORKFLOWS / f"{workflow}.json", f"Clip.path={files['clip']}", *given)
    assert re.search(said, text), text
    assert "\n" not in text


def load(path: Path, count: int = 0) -> dict[str, Any]:
    inputs = {"path": str(path), "start": 0, "count": count, "every_nth": 1, "max_side": 0}
    return {"class_type": "LoadFrames", "inputs": inputs}


def relight_graph(clip: Path, **saver: Any) -> dict[str, Any]:
    return {
        "1": load(clip),
        "2": {
            "class_type": "RAFTFlow",
            "inputs": {"frames": ["1", 0], "model": "dis", "updates": 12, "max_side": 0, "lift_dark": False},
        },
        "3": {
            "class_type": "VDPOptimize",
            "inputs": {
                "frames": ["1", 0],
                "flow": ["2", 0],
                "task": "relight",
                "preset": "fast",
                "steps": 5,
                "layers": 2,
                "seed": 0,
            },
        },
        "4": {
            "class_type": "Relight",
            "inputs": {"layers": ["3", 0], "strength": 1, "exposure": 0, "gamma": 1, "warmth": 0, "denoise": 0},
        },
        "5": {
            "class_type": "SaveFrames",
            "inputs": {"frames": ["4", 0], "filename_prefix": "a", "format": "mp4", "fps": 24, "quality": 80, **saver},
        },
    }


def test_alpha_that_is_linked_to_a_format_without(refused: Callable[..., str], files: dict[str, Path], tmp_path: Path):
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(relight_graph(files["alpha"], alpha=["1", 1])))
    assert "SaveFrames" in (said := refused(graph))
    assert "alpha: mp4 holds no alpha; choose webm, prores4444" in said


def test_alpha_of_another_length(refused: Callable[..., str], files: dict[str, Path], tmp_path: Path):
    nodes = relight_graph(files["clip"], alpha=["6", 1], format="webm")
    nodes["6"] = load(files["alpha"], count=3)
    (tmp_path / "graph.json").write_text(json.dumps(nodes))
    assert "alpha: got 3 masks for 6 frames" in refused(tmp_path / "graph.json")


def test_layers_of_another_model(refused: Callable[..., str], files: dict[str, Path], tmp_path: Path):
    nodes = relight_graph(files["clip"])
    nodes["3"]["inputs"]["task"] = "segment"
    (tmp_path / "graph.json").write_text(json.dumps(nodes))
    assert "the model 'segment', Relight needs 'relight'" in refused(tmp_path / "graph.json")


def test_a_reference_to_measure_by_of_another_length(
    refused: Callable[..., str], files: dict[str, Path], tmp_path: Path
):
    nodes = relight_graph(files["clip"])
    nodes["6"] = load(files["short"])
    nodes["7"] = {
        "class_type": "MeasureVideo",
        "inputs": {"frames": ["4", 0], "reference": ["6", 0], "filename_prefix": "m"},
    }
    (tmp_path / "graph.json").write_text(json.dumps(nodes))
    assert "frames: got 6 of 48x32 pixels, the reference has 3" in refused(tmp_path / "graph.json")


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (
            {"class_type": "SplitLayers", "inputs": {"layers": ["3", 0], "layer": 3}},
            "SplitLayers.*: layer: there is no layer 3; these layers have 0 the background, 1 object 1, 2 object 2",
        ),
        (
            {"class_type": "ReplaceLayer", "inputs": {"layers": ["3", 0], "layer": 3, "frames": ["1", 0]}},
            "ReplaceLayer.*: layer: there is no layer '3'; these layers have a background .0. and objects 1 to 2",
        ),
        (
            {
                "class_type": "ReplaceLayer",
                "inputs": {"layers": ["3", 0], "layer": 0, "frames": ["1", 0], "mask": ["1", 1]},
            },
            "ReplaceLayer.*: mask: the background .layer 0. takes none",
        ),
        (
            {
                "class_type": "ReplaceLayer",
                "inputs": {"layers": ["3", 0], "layer": 1, "frames": ["1", 0], "mask": ["6", 1]},
            },
            "ReplaceLayer.*: mask: got 3 masks for 6 frames",
        ),
    ],
)
def test_layers_that_will_not_be_there(
    refused: Callable[..., str], files: dict[str, Path], tmp_path: Path, node: dict[str, Any], said: str
) -> None:
    nodes = relight_graph(files["clip"])
    nodes["3"]["inputs"] |= {"task": "segment", "layers": 3}
    nodes["4"], nodes["6"] = node, load(files["alpha"], count=3)
    if node["class_type"] == "ReplaceLayer":
        edit = {"layer": "objects", "visibility": 1, "gain": 0, "saturation": 1, "offset_x": 0, "offset_y": 0}
        composite = {"layers": ["4", 0], **edit, "linear_light": False, "premultiplied": False}
        nodes["7"] = {"class_type": "Composite", "inputs": composite}
        nodes["5"]["inputs"]["frames"] = ["7", 0]
    (tmp_path / "graph.json").write_text(json.dumps(nodes))
    assert re.search(said, text := refused(tmp_path / "graph.json")), text


@pytest.mark.parametrize("shape", [(6, 32, 48), (6, 1, 32, 48), (1, 32, 48), (6, 32, 48, 1), (6, 32, 48, 3)])
def test_masks_of_every_shape_pass(shape: tuple[int, ...]) -> None:
    layers = MODELS["segment"].stand_in(torch.empty(6, 32, 48, 3, device="meta"), {"L": 2})
    mask = torch.zeros(shape)
    ReplaceLayer.foresee(layers=layers, layer=1, frames=torch.zeros(1, 32, 48, 3), mask=mask)
    Composite.foresee(frames=layers.frames, mask=mask, layer="objects", premultiplied=False)
    MeasureVideo.foresee(frames=layers.frames, mask=mask, reference_mask=torch.zeros(shape[0], 32, 48))


def test_masks_to_measure_of_another_length(refused: Callable[..., str], files: dict[str, Path], tmp_path: Path):
    nodes = relight_graph(files["clip"])
    nodes["3"]["inputs"]["task"] = "segment"
    nodes["4"] = {"class_type": "SplitLayers", "inputs": {"layers": ["3", 0], "layer": 1}}
    nodes["6"] = load(files["alpha"], count=3)
    measured = {"frames": ["4", 0], "mask": ["4", 1], "reference_mask": ["6", 1], "filename_prefix": "m"}
    nodes["7"] = {"class_type": "MeasureVideo", "inputs": measured}
    (tmp_path / "graph.json").write_text(json.dumps(nodes))
    assert "mask: got 6 masks, the reference has 3; give as many" in refused(tmp_path / "graph.json")


# ComfyUI asks check_lazy_status


@pytest.mark.parametrize(
    ("node", "lazy", "others"),
    [
        (SaveFrames, ["frames"], {"format": "mp4", "alpha": torch.ones(1, 8, 8)}),
        (Composite, ["layers"], {"background": torch.zeros(1, 8, 8, 3), "premultiplied": False}),
        (VDPOptimize, ["flow"], {"frames": torch.zeros(2, 32, 32, 3), "task": "relight", "layers": 2}),
        (ReplaceLayer, ["layers"], {"layer": 1, "frames": torch.zeros(2, 8, 8, 3)}),
        (MeasureVideo, ["frames", "mask", "flow"], {"reference_mask": torch.zeros(1, 8, 8)}),
    ],
)
def test_what_takes_long_is_made_last(node: Any, lazy: list[str], others: dict[str, Any]) -> None:
    assert node().check_lazy_status(**others, **dict.fromkeys(lazy)) == lazy
    specs = {**node.INPUT_TYPES()["required"], **node.INPUT_TYPES().get("optional", {})}
    assert [name for name, spec in specs.items() if spec[1].get("lazy")] == lazy


def test_what_comfyui_has_made_is_refused_before_the_rest() -> None:
    alpha = torch.zeros(3, 8, 8)
    with pytest.raises(InputError, match="mp4 holds no alpha"):
        SaveFrames().check_lazy_status(frames=None, alpha=alpha, format="mp4")
    assert SaveFrames().check_lazy_status(frames=None, alpha=alpha, format="webm") == ["frames"]
    with pytest.raises(ShapeError, match="mask: one, or one for each of the 4"):
        VDPOptimize().check_lazy_status(
            frames=torch.rand(4, 32, 32, 3), flow=None, mask=torch.ones(3, 32, 32), task="segment", layers=2
        )
    assert SaveFrames().check_lazy_status(frames=torch.rand(1, 8, 8, 3), alpha=alpha, format="mp4") == []


class Queue:
    """What a node finds of ComfyUI while it runs: the prompt, and which node it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, prompt: dict[str, Any]) -> None:
        self.node_id, self.prompt_id = "", "p"
        self.prompt_queue = SimpleNamespace(currently_running={0: (0, "p", prompt, {}, ["7"])})
        server = SimpleNamespace(PromptServer=SimpleNamespace(instance=self))
        modules = {
            "comfy.model_management": SimpleNamespace(),
            "server": server,
            "comfy_execution.utils": SimpleNamespace(get_executing_context=lambda: self),
        }
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)


def test_in_comfyui_what_waits_for_layers_looks_again_before_they_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = {"layer": "objects", "visibility": 1.0, "gain": 0.0, "saturation": 1.0, "offset_x": 0.0, "offset_y": 0.0}
    settings = {**edit, "linear_light": False, "premultiplied": False}
    optimize = {"task": "segment", "preset": "balanced", "steps": 0, "layers": 2, "seed": 0}
    queue = Queue(
        monkeypatch,
        {
            "clip": {"class_type": "LoadFrames", "inputs": {}},
            "flow": {"class_type": "RAFTFlow", "inputs": {"frames": ["clip", 0]}},
            "3": {"class_type": "VDPOptimize", "inputs": {"frames": ["clip", 0], "flow": ["flow", 0], **optimize}},
            "still": {"class_type": "LoadImage", "inputs": {}},
            "5": {
                "class_type": "Composite",
                "inputs": {"layers": ["3", 0], "background": ["still", 0], **settings},
                "_meta": {"title": "New place"},
            },
            "truth": {"class_type": "LoadFrames", "inputs": {}},
            "7": {"class_type": "MeasureVideo", "inputs": {"frames": ["5", 0], "reference": ["truth", 0]}},
            # what leads to no output does not run, and is not asked
            "8": {"class_type": "SplitLayers", "inputs": {"layers": ["3", 0], "layer": 3}},
            "9": {"class_type": "SomebodyElse", "inputs": {"a": ["10", 0]}},
            "10": {"class_type": "SomebodyElse", "inputs": {"a": ["9", 0]}},
        },
    )
    frames = torch.rand(4, 32, 48, 3)

    def asked(node: str, kind: Any, **given: Any) -> list[str]:
        queue.node_id = node
        return list(kind().check_lazy_status(**given))

    truth, background = torch.rand(4, 32, 48, 3), torch.rand(3, 32, 48, 3)
    assert asked("7", MeasureVideo, frames=None, reference=truth) == ["frames"]
    assert asked("5", Composite, layers=None, background=background, **settings) == ["layers"]
    with pytest.raises(ShapeError, match=r"^New place \(node 5\): background: got 3 frames for a clip of 4"):
        asked("3", VDPOptimize, frames=frames, flow=None, **optimize)

    background = torch.rand(1, 32, 48, 3)
    assert asked("5", Composite, layers=None, background=background, **settings) == ["layers"]
    assert asked("3", VDPOptimize, frames=frames, flow=None, **optimize) == ["flow"]
    truth = torch.rand(5, 32, 48, 3)
    assert asked("7", MeasureVideo, frames=None, reference=truth) == ["frames"]
    with pytest.raises(
        ShapeError, match=r"^MeasureVideo \(node 7\): frames: got 4 of 48x32 pixels, the reference has 5"
    ):
        asked("3", VDPOptimize, frames=frames, flow=None, **optimize)
    # another prompt knows nothing of it
    queue.prompt_queue.currently_running[0] = (0, "p", {**queue.prompt_queue.currently_running[0][2]}, {}, ["7"])
    assert asked("3", VDPOptimize, frames=frames, flow=None, **optimize) == ["flow"]
