from __future__ import annotations

import re

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.flow import FlowToRGB, LoadFlow, RAFTFlow, SaveFlow
from comfyui_vdp.vdp_core.errors import ShapeError
from comfyui_vdp.vdp_core.motion.flow import MODELS
from comfyui_vdp.vdp_core.motion.flow_files import FORMATS


@pytest.fixture
def said(monkeypatch, tmp_path):
    """The status lines that were shown; no RAFT weights are at hand."""
    lines: list[str] = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(host.headless, "say", lines.append)
    return lines


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    inputs = RAFTFlow.INPUT_TYPES()["required"]
    assert list(inputs) == ["frames", "model", "updates", "max_side", "lift_dark"]
    assert inputs["model"][0] == list(MODELS)
    assert list(FlowToRGB.INPUT_TYPES()["required"]) == ["flow"]
    assert list(SaveFlow.INPUT_TYPES()["required"]) == ["flow", "filename_prefix", "format"]
    assert list(SaveFlow.INPUT_TYPES()["optional"]) == ["frames"]
    assert SaveFlow.INPUT_TYPES()["required"]["format"][0] == list(FORMATS)
    assert list(LoadFlow.INPUT_TYPES()["required"]) == ["path"]
    assert list(LoadFlow.INPUT_TYPES()["optional"]) == ["frames"]
    for node in (RAFTFlow, FlowToRGB, SaveFlow, LoadFlow):
        assert all(spec[1]["tooltip"] for spec in node.INPUT_TYPES()["required"].values())
        assert len(getattr(node, "OUTPUT_TOOLTIPS", ())) == len(node.RETURN_TYPES)


def test_flow_and_its_picture(said):
    frames = torch.rand(3, 24, 32, 3)
    (flow,) = RAFTFlow().estimate(frames, model="auto")
    assert len(flow) == 2
    (line,) = said
    assert re.fullmatch(r"flow: dis, 2 pairs at 32x24, \d+ % hidden, \d+\.\d s on cpu", line)
    (picture,) = FlowToRGB().show(flow)
    assert picture.shape == (3, 24, 32, 3)


def test_it_runs_under_inference_mode(said):
    with torch.inference_mode():
        (flow,) = RAFTFlow().estimate(torch.rand(3, 24, 32, 3))
        (picture,) = FlowToRGB().show(flow)
    assert picture.shape == (3, 24, 32, 3)


def test_a_single_frame_is_refused(said):
    with pytest.raises(ShapeError, match="at least two frames"):
        RAFTFlow().estimate(torch.rand(1, 24, 32, 3))


@pytest.fixture
def output(monkeypatch, tmp_path):
    """The output folder."""
    monkeypatch.setattr(host.headless, "output_folder", tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_saved_loads(said, output, format):
    frames = torch.rand(4, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    (flow,) = RAFTFlow().estimate(frames, model="dis", max_side=16, shots=False)
    answer = SaveFlow().save(flow, "sub/a", format, frames=frames)
    (saved,) = answer["ui"]["vdp_outputs"]
    assert saved.startswith("sub/a_00001")
    assert f"saved: {saved}, 3 pairs at 32x24, " in said[-1]
    assert ("the format holds" in said[-1]) == (format != "npz")
    (loaded,) = LoadFlow().load(str(output / saved), frames)
    assert loaded.size == loaded.source_size == (24, 32)
    assert re.search(r"loaded: dis, 3 pairs at 32x24$", said[-1])
    assert said[-1].startswith("loaded:") == (format == "npz")
    (again,) = SaveFlow().save(flow, "sub/a", format)["ui"]["vdp_outputs"]
    assert again.startswith("sub/a_00002")


def test_flow_of_another_clip_is_neither_saved_nor_loaded(said, output):
    (flow,) = RAFTFlow().estimate(torch.rand(4, 24, 32, 3), model="farneback", shots=False)
    assert flow.method == "farneback"
    with pytest.raises(ShapeError, match="holds 3 frame pairs, a clip of 5 frames has 4"):
        SaveFlow().save(flow, "a", frames=torch.rand(5, 24, 32, 3))
    with pytest.raises(ShapeError, match="holds 3 frame pairs"):
        SaveFlow.foresee(flow=flow, frames=torch.empty(5, 24, 32, 3, device="meta"))
    (saved,) = SaveFlow().save(flow, "a")["ui"]["vdp_outputs"]
    with pytest.raises(ShapeError, match="holds the motion of 4 frames, the clip has 5"):
        LoadFlow().load(str(output / saved), torch.rand(5, 24, 32, 3))


def test_a_path_is_looked_at_before_anything_runs(output, tmp_path):
    assert LoadFlow.VALIDATE_INPUTS(None) is True
    assert LoadFlow.VALIDATE_INPUTS(str(tmp_path)) is True
    assert "there is no flow file or folder" in str(LoadFlow.VALIDATE_INPUTS(str(tmp_path / "a.npz")))
    assert "path is empty" in str(LoadFlow.VALIDATE_INPUTS(" "))
    assert SaveFlow.VALIDATE_INPUTS("a/b") is True
    assert "outside the output folder" in str(SaveFlow.VALIDATE_INPUTS("../a"))


def test_a_changed_file_is_read_again(said, output):
    (flow,) = RAFTFlow().estimate(torch.rand(3, 24, 32, 3), model="dis", shots=False)
    (saved,) = SaveFlow().save(flow, "a", "flo")["ui"]["vdp_outputs"]
    before = LoadFlow.IS_CHANGED(str(output / saved))
    assert LoadFlow.IS_CHANGED(str(output / saved)) == before
    (output / saved / "flow.json").unlink()
    assert LoadFlow.IS_CHANGED(str(output / saved)) != before
