"""A task that is declared, and nothing else changed, is in the node, the file and everything else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comfyui_vdp.nodes.decompose import VDPOptimize
from comfyui_vdp.nodes.layers import LoadLayers, SaveLayers, SplitLayers
from comfyui_vdp.runner.graph.check import check
from comfyui_vdp.runner.graph.read import read
from comfyui_vdp.runner.graph.specs import local_specs
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, ShapeError
from comfyui_vdp.vdp_core.models import MODELS, Field, Model
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.optim.fit import Fitted
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.base import Found, Given, Input, Preset, Published, Task, Work
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.tasks.inputs import INPUTS, LAYERS
from comfyui_vdp.vdp_core.types import Flow, Layers, Shot

# x = mean + difference: the mean picture of the clip is an asset, the brightness of each frame a field


def compose(layers: Layers, start: int, stop: int, frames: Tensor) -> Tensor:
    return frames - layers.fields["level"][start:stop, :, None, None]


def rebuild(layers: Layers, start: int, stop: int, composed: Tensor) -> Tensor:
    return composed + layers.fields["level"][start:stop, :, None, None]


def split(layers: Layers, number: int, index: int, frame: Tensor) -> tuple[Tensor, Tensor]:
    return layers.assets["picture"].float().to(frame.device), torch.ones(frame.shape[:2])


def find(shot: Shot, given: Given, config: Published, work: Work) -> Found:
    work.progress(1, 1)
    level = shot.frames.mean(dim=(1, 2, 3)).view(-1, 1)
    assets = {"picture": shot.frames.mean(dim=0).half(), "part_0": torch.arange(3)}
    return Found({"level": level}, Fitted(1, 0.0, {}, "steps"), {"said": f"{given['layers']} layers"}, assets)


MODEL = Model(
    name="toy",
    fields=(
        Field("level", (1,), low=0.0, high=1.0),
        Field("picture", ("H", "W", 3), per="once"),
        Field("part", (3,), per="layer", optional=True),
    ),
    compose=compose,
    rebuild=rebuild,
    split=split,
    layer_names=lambda layers: ("the mean picture",),
)
PICTURE = Input("picture", "IMAGE", {"tooltip": "A picture."}, check=lambda given, frames: given["picture"])
TASK = Task(
    name="toy",
    model="toy",
    says="the mean picture, for nobody",
    aliases=("average",),
    presets={"balanced": Preset(Published()), "silly": Preset(Published(), without=(PICTURE,))},
    find=find,
    inputs=(LAYERS, PICTURE),
    needs_flow=False,
    least_frames=1,
    least_side=1,
)
FRAMES = torch.rand(3, 8, 10, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "toy", TASK)
    monkeypatch.setitem(MODELS, "toy", MODEL)
    for module in ("comfyui_vdp.vdp_core.tasks.driver", "comfyui_vdp.nodes.decompose"):
        monkeypatch.setattr(f"{module}.INPUTS", (*INPUTS, PICTURE))


def test_the_node_offers_it_and_needs_no_flow() -> None:
    inputs = VDPOptimize.INPUT_TYPES()
    assert inputs["required"]["task"][0][-1] == "toy"
    assert "toy: the mean picture, for nobody." in inputs["required"]["task"][1]["tooltip"]
    assert "silly" in inputs["required"]["preset"][0]
    assert inputs["optional"]["picture"] == ("IMAGE", {"tooltip": "(toy) A picture."})
    takers = ", ".join(name for name, task in TASKS.items() if LAYERS in task.inputs)
    assert takers.endswith(", toy")
    assert inputs["required"]["layers"][1]["tooltip"].startswith(f"({takers}) How many")
    movers = ", ".join(name for name, task in TASKS.items() if task.needs_flow)
    assert "toy" not in movers
    assert inputs["optional"]["flow"][1]["tooltip"].startswith(f"({movers}) ")
    (layers,) = VDPOptimize().optimize(FRAMES, task="toy", preset="balanced", steps=0, seed=3, layers=3)
    assert layers.info["said"] == "3 layers"
    assert layers.info["flow"] == "none"
    assert layers.seed == 3
    assert torch.equal(layers.fields["level"].flatten(), FRAMES.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(reconstruct(layers), FRAMES)


def test_what_it_does_not_take_is_refused() -> None:
    with pytest.raises(InputError, match="reference: the task toy takes none; unlink it, or choose the task relight"):
        decompose("toy", FRAMES, reference=FRAMES[:1])
    with pytest.raises(InputError, match="picture: the preset 'silly' takes none"):
        decompose("toy", FRAMES, preset="silly", picture=FRAMES)
    with pytest.raises(InputError, match="preset: there is no 'fast'; known: balanced, silly"):
        decompose("toy", FRAMES, preset="fast")
    with pytest.raises(InputError, match="hat: no task takes such an input; known: layers, reference, "):
        decompose("toy", FRAMES, hat=1)
    with pytest.raises(ShapeError, match="its shot at frame 2 has 1 frame, the task relight needs 2"):
        flow = Flow(*(torch.zeros(2, 2, 16, 16),) * 2, *(torch.zeros(2, 16, 16),) * 2, (16, 16), cuts=(2,))
        decompose("relight", torch.rand(3, 16, 16, 3), flow)
    with pytest.raises(InputError, match="flow: the task relight needs the motion of the clip; link RAFTFlow's output"):
        decompose("relight", torch.rand(2, 16, 16, 3))


def test_its_file_holds_assets_of_any_shape_and_type(tmp_path, monkeypatch) -> None:
    from comfyui_vdp.nodes import host
    from comfyui_vdp.vdp_core.models.file import load_layers, save_layers

    layers = decompose("toy", FRAMES)
    layers = Layers(**{**vars(layers), "assets": {**layers.assets, "part_1": torch.arange(3, dtype=torch.uint8)}})
    path = save_layers(layers, tmp_path / "toy.safetensors")
    found = load_layers(path)
    assert {name: (asset.dtype, tuple(asset.shape)) for name, asset in found.assets.items()} == {
        "picture": (torch.float16, (8, 10, 3)),
        "part_0": (torch.int64, (3,)),
        "part_1": (torch.uint8, (3,)),
    }
    assert all(torch.equal(asset, layers.assets[name]) for name, asset in found.assets.items())
    monkeypatch.setattr(host.headless, "output_folder", tmp_path)
    monkeypatch.setattr(host.headless, "input_folder", tmp_path)
    name = SaveLayers().save(found, "take", True)["ui"]["vdp_outputs"][0]
    (again,) = LoadLayers().load(name)
    colours, mask = SplitLayers().split(again, 0)
    assert torch.equal(colours[0], layers.assets["picture"].float())
    assert bool((mask == 1.0).all())
    with pytest.raises(InputError, match="there is no layer 1; these layers have 0 the mean picture"):
        SplitLayers().split(again, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fields": {}}, r"no 'level' \(T, 1\); save them again"),
        ({"fields": {"level": torch.ones(3, 2)}}, r"no 'level' \(T, 1\), but one of \(3, 2\)"),
        ({"fields": {"level": torch.full((3, 1), 1.5)}}, "a 'level' of 1.5, 0 to 1 needed"),
        ({"assets": {}}, r"no 'picture' \(H, W, 3\)"),
        ({"assets": {"picture": torch.ones(8, 10, 4)}}, r"no 'picture' \(H, W, 3\), but one of \(8, 10, 4\)"),
        (
            {"assets": {"picture": torch.ones(8, 10, 3), "part_5": torch.ones(2)}},
            r"no 'part_5' \(3\), but one of \(2,\)",
        ),
    ],
)
def test_what_it_declares_is_checked(changes, words) -> None:
    layers = decompose("toy", FRAMES)
    layers = Layers(**{**vars(layers), "assets": {"picture": layers.assets["picture"]}, **changes})
    with pytest.raises(LayersFileError, match=words):
        MODELS["toy"].check(layers)


def test_a_flow_that_a_task_needs_is_missed_before_anything_runs() -> None:
    assert VDPOptimize.VALIDATE_INPUTS("toy", {"frames": "IMAGE"}) is True
    assert VDPOptimize.VALIDATE_INPUTS("relight", {"frames": "IMAGE", "flow": "VDP_FLOW"}) is True
    assert "the task relight needs the motion" in VDPOptimize.VALIDATE_INPUTS("relight", {"frames": "IMAGE"})
    assert VDPOptimize.VALIDATE_INPUTS(None, {"task": "COMBO", "mask": "IMAGE", "flow": "*"}) is True
    wrong = VDPOptimize.VALIDATE_INPUTS("toy", {"frames": "MASK"})
    assert wrong == "frames: takes IMAGE, but is linked to MASK"
    graph = {
        "1": {"class_type": "LoadFrames", "inputs": {"path": "a.mp4"}},
        "2": {"class_type": "VDPOptimize", "inputs": {"frames": ["1", 0], "task": "relight"}},
        "3": {"class_type": "SaveLayers", "inputs": {"layers": ["2", 0]}},
    }
    specs = local_specs()
    missing = [line for line in check(read(graph, specs), specs) if "flow" in line]
    assert missing == ["Optimize (VDP) (VDPOptimize): flow (VDP_FLOW) is missing"]
