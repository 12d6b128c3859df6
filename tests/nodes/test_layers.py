from __future__ import annotations

import os

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.layers import Composite, LoadLayers, ReplaceLayer, SaveLayers, SplitLayers
from comfyui_vdp.vdp_core.edit import composite as composite_module
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, MediaError
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models import light
from comfyui_vdp.vdp_core.motion import background as behind
from comfyui_vdp.vdp_core.store import lazy as frames_module
from comfyui_vdp.vdp_core.store.lazy import LazyFrames
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Edit, Layers


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    """Input and output folders of this test's own."""
    monkeypatch.setattr(host.headless, "output_folder", tmp_path / "out")
    monkeypatch.setattr(host.headless, "input_folder", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def layers(synthetic) -> Layers:
    frames, flow = synthetic.pan(3, 32, 48)
    return decompose("relight", (frames * 51).round() / 255, flow, preset="fast", steps=3)


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    assert list(SaveLayers.INPUT_TYPES()["required"]) == ["layers", "filename_prefix", "with_frames"]
    assert list(LoadLayers.INPUT_TYPES()["required"]) == ["path"]
    assert list(LoadLayers.INPUT_TYPES()["optional"]) == ["frames"]
    assert list(SplitLayers.INPUT_TYPES()["required"]) == ["layers", "layer"]
    assert list(ReplaceLayer.INPUT_TYPES()["required"]) == ["layers", "layer", "frames"]
    assert list(ReplaceLayer.INPUT_TYPES()["optional"]) == ["mask"]
    assert list(Composite.INPUT_TYPES()["required"]) == [
        "layer",
        "visibility",
        "gain",
        "saturation",
        "offset_x",
        "offset_y",
        "linear_light",
        "premultiplied",
    ]
    assert list(Composite.INPUT_TYPES()["optional"]) == ["layers", "frames", "mask", "background", "background_colour"]
    for node in (SaveLayers, LoadLayers, SplitLayers, ReplaceLayer, Composite):
        inputs = node.INPUT_TYPES()
        options = [spec[1] for family in ("required", "optional") for spec in inputs.get(family, {}).values()]
        assert all(option["tooltip"] for option in options)
    assert SaveLayers.OUTPUT_NODE
    for node in (LoadLayers, SplitLayers, ReplaceLayer, Composite):
        assert len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)


def test_there_and_back(layers, output):
    shown = SaveLayers().save(layers, "sub/take", True)
    assert shown == {"ui": {"vdp_outputs": ["sub/take_00001.safetensors"]}, "result": ()}
    assert LoadLayers.VALIDATE_INPUTS("sub/take_00001.safetensors") is True
    (found,) = LoadLayers().load("sub/take_00001.safetensors")
    assert torch.equal(found.frames, layers.frames)
    assert torch.equal(found.fields["log_gain"], layers.fields["log_gain"])
    assert torch.equal(light.apply(found, denoise=0.0), light.apply(layers, denoise=0.0))


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


# layers as pictures

NEUTRAL = {
    "layer": "objects",
    "visibility": 1.0,
    "gain": 0.0,
    "saturation": 1.0,
    "offset_x": 0.0,
    "offset_y": 0.0,
    "linear_light": False,
    "premultiplied": False,
}


@pytest.fixture(scope="module")
def objects(synthetic) -> Layers:
    clip = synthetic.layered(4, 64, 96, objects=1, seed=1)
    before, after = behind.track_background(clip.masks[:, 0], clip.flow)
    return Layers("segment", {"masks": clip.masks, "before": before, "after": after}, clip.frames, clip.flow)


def test_untouched_layers_give_the_clip_back(objects):
    with torch.inference_mode():
        frames, mask, layers = Composite().composite(**NEUTRAL, layers=objects)
    assert psnr(frames, objects.frames) > 40
    assert mask.shape == (4, 64, 96)
    assert layers.edits == {}


def test_long_clips_are_not_computed_for_the_line_on_the_node(objects, monkeypatch):
    monkeypatch.setattr(frames_module, "fits_in_memory", lambda size: False)
    painted = []
    paint = composite_module.paint
    monkeypatch.setattr(composite_module, "paint", lambda *given: painted.append(given[1]) or paint(*given))
    frames, mask, _ = Composite().composite(**NEUTRAL, layers=objects)
    assert isinstance(frames, LazyFrames) and isinstance(mask, LazyFrames)
    assert painted == []
    assert frames[1:2].shape[0] == 1
    assert set(painted) <= {0, 1}


def test_a_second_composite_edits_another_layer(objects):
    dimmed = Composite().composite(**{**NEUTRAL, "layer": "background", "visibility": 0.5}, layers=objects)[2]
    frames, mask, both = Composite().composite(**{**NEUTRAL, "layer": "1", "visibility": 0.0}, layers=dimmed)
    assert both.edits == {0: Edit(visibility=0.5), 1: Edit(visibility=0.0)}
    assert not bool(mask.any())
    assert_close(frames, 0.5 * SplitLayers().split(objects, 0)[0], atol=1e-5, rtol=0)


def test_a_layer_goes_out_and_back(objects):
    with torch.inference_mode():
        frames, mask = SplitLayers().split(objects, 1)
        (layers,) = ReplaceLayer().replace(objects, 1, 1.0 - frames, mask)
        shown = Composite().composite(**NEUTRAL, layers=layers)[0]
    inside, outside = objects.fields["masks"][:, 1] > 0.999, mask == 0.0
    assert float((shown - (1.0 - objects.frames))[inside].abs().mean()) < 0.02
    assert_close(shown[outside], objects.frames[outside], atol=0.05, rtol=0)


def test_frames_with_a_mask_or_a_picture_of_one(objects):
    mask = (objects.fields["masks"][:, 1] > 0.5).float()
    still = torch.zeros(1, 20, 20, 3)
    for given in (mask, mask[..., None].expand(-1, -1, -1, 3)):
        frames, shown, layers = Composite().composite(**NEUTRAL, frames=objects.frames, mask=given, background=still)
        assert torch.equal(shown, mask)
        assert_close(frames, objects.frames * mask[..., None])
        assert layers.model == "segment"


def test_what_does_not_go_together_is_told(objects):
    frames, mask = objects.frames, objects.fields["masks"][:, 1]
    compose = Composite().composite
    with pytest.raises(InputError, match="link layers, or both frames and mask"):
        compose(**NEUTRAL, frames=frames)
    with pytest.raises(InputError, match="link layers, or both frames and mask"):
        compose(**NEUTRAL, mask=mask)
    with pytest.raises(InputError, match="frames or a mask are linked too"):
        compose(**NEUTRAL, layers=objects, mask=mask)
    with pytest.raises(InputError, match="premultiplied: layers keep straight colours"):
        compose(**{**NEUTRAL, "premultiplied": True}, layers=objects)
    with pytest.raises(InputError, match=r"no layer '2'; these layers have a background \(0\) and only object 1"):
        compose(**{**NEUTRAL, "layer": "2"}, layers=objects)
    with pytest.raises(InputError, match="got 3 frames for a clip of 4"):
        compose(**NEUTRAL, layers=objects, background=frames[:3])
    with pytest.raises(InputError, match="there is no layer 3; these layers have 0 the background, 1 object 1"):
        SplitLayers().split(objects, 3)


def test_other_layers_have_no_pictures(layers):
    with pytest.raises(InputError, match="of the model 'relight', Composite needs 'segment' or 'atlas'"):
        Composite().composite(**NEUTRAL, layers=layers)
    with pytest.raises(InputError, match="which has no layers to split"):
        SplitLayers().split(layers, 0)
    with pytest.raises(InputError, match="ReplaceLayer needs 'segment' or 'atlas'"):
        ReplaceLayer().replace(layers, 1, layers.frames)


def test_dehaze_layers_split_into_the_clear_picture_and_the_haze(synthetic):
    clip = synthetic.layered(2, 64, 96, objects=1)
    transmission, airlight = torch.full((2, 1, 64, 96), 0.6), torch.tensor([0.8, 0.85, 0.9]).view(1, 3, 1, 1)
    hazy = 0.6 * clip.frames + 0.4 * airlight.view(3)
    fields = {"transmission": transmission, "airlight": airlight.expand(2, -1, -1, -1).clone()}
    layers = Layers("dehaze", {**fields, "noise": torch.zeros(2, 7, 1, 1)}, hazy, clip.flow)
    clear, through = SplitLayers().split(layers, 0)
    haze, share = SplitLayers().split(layers, 1)
    assert_close(through[..., None] * clear + share[..., None] * haze, hazy, atol=1e-3, rtol=0)
    assert_close(clear, clip.frames, atol=1e-2, rtol=0)
    with pytest.raises(InputError, match="there is no layer 2; these layers have 0 the clear picture, 1 the haze"):
        SplitLayers().split(layers, 2)


def test_one_colour_will_do_as_a_background():
    frames, mask = torch.zeros(2, 8, 12, 3), torch.zeros(2, 8, 12)
    frames[:, 2:6], mask[:, 2:6] = 0.5, 1.0
    for colour in ("#78ff9b", "120, 255, 155"):
        shown, *_ = Composite().composite(**NEUTRAL, frames=frames, mask=mask, background_colour=colour)
        assert torch.allclose(shown[:, 2:6], frames[:, 2:6])
        assert (shown[:, :2] - torch.tensor([120, 255, 155]) / 255).abs().max() < 1e-5


def test_a_colour_is_refused_beside_a_background_or_where_it_is_none():
    given = {"frames": torch.zeros(2, 8, 12, 3), "mask": torch.zeros(2, 8, 12)}
    with pytest.raises(InputError, match="background_colour: a background is linked too"):
        Composite.foresee(**given, background=torch.zeros(1, 8, 12, 3), background_colour="#000000")
    for text in ("green", "#12345", "1, 2", "256, 0, 0"):
        with pytest.raises(InputError, match=f"background_colour: '{text}' is no colour; write it as #78ff9b"):
            Composite.foresee(**given, background_colour=text)
