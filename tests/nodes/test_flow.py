from __future__ import annotations

import re

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.flow import FlowToRGB, RAFTFlow
from comfyui_vdp.vdp_core.errors import ShapeError
from comfyui_vdp.vdp_core.motion.flow import MODELS


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
    for node in (RAFTFlow, FlowToRGB):
        assert all(spec[1]["tooltip"] for spec in node.INPUT_TYPES()["required"].values())
        assert len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES)


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
