from __future__ import annotations

import os

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.layers import LoadLayers, SaveLayers
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, MediaError
from comfyui_vdp.vdp_core.tasks import relight
from comfyui_vdp.vdp_core.types import Layers


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    """Input and output folders of this test's own."""
    monkeypatch.setattr(host.headless, "output_folder", tmp_path / "out")
    monkeypatch.setattr(host.headless, "input_folder", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def layers(synthetic) -> Layers:
    frames, flow = synthetic.pan(3, 32, 48)
    return relight.decompose((frames * 51).round() / 255, flow, preset="fast", steps=3)


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    assert list(SaveLayers.INPUT_TYPES()["required"]) == ["layers", "filename_prefix", "with_frames"]
    assert list(LoadLayers.INPUT_TYPES()["required"]) == ["path"]
    assert list(LoadLayers.INPUT_TYPES()["optional"]) == ["frames"]
    for node in (SaveLayers, LoadLayers):
        assert all(spec[1]["tooltip"] for family in node.INPUT_TYPES().values() for spec in family.values())
    assert SaveLayers.OUTPUT_NODE
    assert len(LoadLayers.OUTPUT_TOOLTIPS) == len(LoadLayers.RETURN_TYPES)


def test_there_and_back(layers, output):
    shown = SaveLayers().save(layers, "sub/take", True)
    assert shown == {"ui": {"vdp_outputs": ["sub/take_00001.safetensors"]}, "result": ()}
    assert LoadLayers.VALIDATE_INPUTS("sub/take_00001.safetensors") is True
    (found,) = LoadLayers().load("sub/take_00001.safetensors")
    assert torch.equal(found.frames, layers.frames)
    assert torch.equal(found.fields["log_gain"], layers.fields["log_gain"])
    assert torch.equal(relight.apply(found, denoise=0.0), relight.apply(layers, denoise=0.0))


def test_no_file_is_written_over(layers, output):
    names = [SaveLayers().save(layers, "take", False)["ui"]["vdp_outputs"][0] for _ in range(2)]
    assert names == ["take_00001.safetensors", "take_00002.safetensors"]
    assert sorted(path.name for path in output.iterdir()) == names


def test_without_frames_they_are_linked_again(layers):
    SaveLayers().save(layers, "bare", False)
    with pytest.raises(LayersFileError, match="link the source frames too"):
        LoadLayers().load("bare_00001.safetensors")
    (found,) = LoadLayers().load("bare_00001.safetensors", layers.frames)
    assert torch.equal(found.frames, layers.frames)


def test_it_runs_under_inference_mode(layers):
    with torch.inference_mode():
        SaveLayers().save(layers, "take", True)
        (found,) = LoadLayers().load("take_00001.safetensors")
    assert len(found) == 3


@pytest.mark.parametrize("prefix", ["../take", "/tmp/take", ""])
def test_results_stay_in_the_output_folder(layers, prefix):
    with pytest.raises(InputError, match="filename_prefix"):
        SaveLayers().save(layers, prefix, True)


def test_a_missing_file_is_told_before_anything_runs(output):
    assert "there is no layers file" in LoadLayers.VALIDATE_INPUTS("none.safetensors")
    assert "path is empty" in LoadLayers.VALIDATE_INPUTS("  ")
    assert LoadLayers.VALIDATE_INPUTS() is True  # linked
    with pytest.raises(MediaError, match="no such layers file"):
        LoadLayers().load("none.safetensors")


def test_another_file_under_the_name_is_noticed(layers, output):
    SaveLayers().save(layers, "take", False)
    path = "take_00001.safetensors"
    before = LoadLayers.IS_CHANGED(path)
    assert LoadLayers.IS_CHANGED(path) == before
    os.utime(output / path, ns=(1, 1))
    assert LoadLayers.IS_CHANGED(path) != before
