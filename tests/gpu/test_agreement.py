"""A GPU gives what the CPU gives, for every task and every node that computes.

``VDP_TEST_GPU=cpu pytest tests/gpu`` compares the CPU with itself, which shows on any machine that the tests run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from golden_set import SHOWN_BY, WORSENED, darker, needed, run
from plain_matting import trained
from torch import Tensor
from torchvision.models import detection, optical_flow

from comfyui_vdp.nodes import NODE_CLASS_MAPPINGS as NODES
from comfyui_vdp.nodes import host
from comfyui_vdp.vdp_core.motion import flow as flow_module
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.types import Flow, Layers

GPU = os.environ.get("VDP_TEST_GPU", "cuda")
pytestmark = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(GPU == "cuda" and not torch.cuda.is_available(), reason="torch finds no CUDA device")

ROUNDING = 1e-3
"""Mean absolute difference of pictures in 0..1 that sums in another order may make."""
REPEATED = 2e-3
"""The same of a whole fit whose sums come in any order: half a level of 8 bits. dehaze differs by up to 1.0e-3 on an
H100, relight and segment by less than 1e-5."""
DRAWS = 5e-3
"""The same where a fit draws its samples on the device: another seed changes results by 2 to 4 thousandths."""
OF_FILES = {"LoadFrames", "SaveFrames", "LoadFlow", "SaveFlow", "LoadLayers", "SaveLayers", "LoadPoints", "SaveTracks"}
"""Nodes that compute nothing."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Folders of this test's own, with random weights of RAFT, whose random motion is no cut."""
    settings = host.Headless(output_folder=tmp_path / "out", temp_folder=tmp_path / "temp", say=lambda text: None)
    monkeypatch.setattr(host, "headless", settings)
    monkeypatch.setattr(host, "weights_folders", lambda kind="optical_flow": [tmp_path])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(flow_module, "is_cut", lambda before, *_: torch.zeros(len(before), dtype=torch.bool))
    torch.manual_seed(0)
    torch.save(optical_flow.raft_small(weights=None).state_dict(), tmp_path / "raft_small_test.pth")
    torch.save(trained("mobilenetv3").state_dict(), tmp_path / "rvm_mobilenetv3.pth")


def on(device: str, node: str, **inputs: Any) -> Any:
    """What a node gives that is told to compute there."""
    host.headless.device = device
    return run(node, **inputs)


def detector_weights() -> str:
    """A file of random weights of the detector, which sees nothing surely."""
    path = host.weights_folders()[0] / "maskrcnn_resnet50_fpn.pth"
    torch.save(detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict(), path)
    return str(path)


@cache
def clip() -> Tensor:
    return synthetic.layered(8, 144, 160, objects=1).frames


def on_green() -> Tensor:
    rendered = synthetic.layered(4, 144, 160, objects=1)
    return rendered.frames.lerp(torch.tensor([0.2, 0.6, 0.25]), rendered.masks[:, 0, ..., None])


@cache
def flow_of(task: str) -> Flow:
    found: Flow = run("RAFTFlow", frames=WORSENED[task](clip()), model="dis")[0]
    return found


@cache
def layers_of(task: str) -> Layers:
    """Layers of a task that both devices are given."""
    frames = WORSENED[task](clip())
    found: Layers = run("VDPOptimize", frames=frames, flow=flow_of(task), task=task, preset="fast", steps=40)[0]
    return found


def gap(one: Any, other: Any) -> float:
    """The largest mean absolute difference of tensors that belong together, of flow relative to its length."""
    if isinstance(one, Tensor):
        assert one.shape == other.shape
        assert one.device == other.device
        return float((one.float() - other.float()).abs().mean())
    if isinstance(one, Flow):
        pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Flow)]
        length = float(one.forward.abs().mean()) + 1.0
        return max(gap(*pair) for pair in pairs if isinstance(pair[0], Tensor)) / length
    if isinstance(one, Layers):
        return max(gap(field, other.fields[name]) for name, field in one.fields.items())
    if isinstance(one, float):
        return abs(one - other) / max(abs(one), 1.0)
    assert one == other
    return 0.0


@needs_gpu
@pytest.mark.parametrize(
    ("task", "preset"),
    [(name, preset) for name, task in TASKS.items() for preset in ("fast", "paper") if preset in task.presets],
)
def test_a_task_finds_the_same(task: str, preset: str) -> None:
    frames = WORSENED[task](clip())
    settings = {"frames": frames, "flow": flow_of(task), "task": task, "preset": preset, **needed(task, frames)}
    shown = []
    for device in ("cpu", GPU):
        (layers,) = on(device, "VDPOptimize", **settings, steps=0 if preset == "fast" else 4)
        assert all(field.device.type == "cpu" for field in layers.fields.values())
        shown.append(on("cpu", SHOWN_BY[task], layers=layers)[0])
    assert gap(*shown) < DRAWS


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "DetectShots": lambda: {"frames": clip()},
    "DetectMasks": lambda: {"frames": clip()[:2], "score": 0.99, "weights": detector_weights()},
    "RAFTFlow": lambda: {"frames": clip(), "model": "raft_small", "updates": 4},
    "FlowToRGB": lambda: {"flow": flow_of("segment")},
    "Relight": lambda: {"layers": layers_of("relight"), "exposure": 0.5, "warmth": 0.3},
    "Dehaze": lambda: {"layers": layers_of("dehaze"), "airlight_tint": 0.3},
    "Deflicker": lambda: {"layers": layers_of("deflicker"), "pivot": 2, "region": clip()[:1, ..., 0]},
    "MatteVideo": lambda: {"frames": clip(), "downsample_ratio": 0.5, "warm_up": 2},
    "KeyScreen": lambda: {"frames": on_green()},
    "SplitLayers": lambda: {"layers": layers_of("segment"), "layer": 1},
    "ReplaceLayer": lambda: {"layers": layers_of("segment"), "layer": 1, "frames": 1.0 - clip()},
    "Composite": lambda: {"layers": layers_of("segment"), "gain": -0.5, "offset_x": 3.25, "background": clip()[:1]},
    "AtlasTexture": lambda: {"layers": layers_of("atlas"), "layer": 1},
    "EditAtlas": lambda: {"layers": layers_of("atlas"), "picture": clip()[:1], "layer": 0},
    "EditFrame": lambda: {"layers": layers_of("atlas"), "picture": 1.0 - clip()[:2], "frame": 0, "frames": "0 7"},
    "TrackPoints": lambda: {"layers": layers_of("atlas"), "points": '[{"frame": 0, "x": 40.5, "y": 60}]'},
    "FlashSafety": lambda: {"frames": torch.stack((clip(), 0.3 * clip()), dim=1).flatten(0, 1)},
    "MeasureVideo": lambda: {
        "frames": darker(clip()),
        "reference": clip(),
        "flow": flow_of("segment"),
        "mask": layers_of("segment").fields["masks"][:, 1],
        "reference_mask": layers_of("segment").fields["masks"][:, 1] ** 2,
    },
}


def test_every_node_is_compared() -> None:
    assert {*GIVEN, *OF_FILES, "VDPOptimize"} == set(NODES)


@needs_gpu
@pytest.mark.parametrize("node", GIVEN)
def test_a_node_gives_the_same(node: str) -> None:
    given = GIVEN[node]()
    ours, theirs = (on(device, node, **given) for device in ("cpu", GPU))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if not isinstance(one, str):  # a path, or figures as text
            assert gap(one, other) < ROUNDING


@needs_gpu
@pytest.mark.parametrize("task", TASKS)
def test_on_a_gpu_the_same_seed_gives_about_the_same_layers(task: str) -> None:
    frames = WORSENED[task](clip())
    settings = {"frames": frames, "flow": flow_of(task), "task": task, "preset": "balanced", **needed(task, frames)}
    first, again = (on(GPU, "VDPOptimize", **settings)[0] for _ in range(2))
    assert gap(*(on("cpu", SHOWN_BY[task], layers=layers)[0] for layers in (first, again))) < REPEATED
