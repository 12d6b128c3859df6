from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, MediaError, ShapeError
from comfyui_vdp.vdp_core.models import light
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.types import Edit, Layers

COUNT, HEIGHT, WIDTH = 4, 32, 48


@pytest.fixture(scope="module")
def layers(synthetic) -> Layers:
    """Layers with light that varies, and frames of whole 255ths."""
    frames, flow = synthetic.pan(COUNT, HEIGHT, WIDTH)
    field = torch.randn(COUNT, 1, 5, 8, generator=torch.Generator().manual_seed(0)) * 0.4
    frames = (frames * 255).round() / 255
    fields = {
        "log_gain": field,
        "colour": torch.tensor([0.3, 0.25, 0.2]).view(1, 3, 1, 1).repeat(COUNT, 1, 1, 1),
        "gamma": torch.full((COUNT, 1, 1, 1), 0.62),
        "noise": torch.full((COUNT, 7, 1, 1), 1e-4),
    }
    return Layers("relight", fields, frames, replace(flow, cuts=(2,)), 7, {"preset": "fast"})


@pytest.fixture
def saved(layers, tmp_path) -> Path:
    return save_layers(layers, tmp_path / "clip.safetensors")


# put together again


def test_reconstruct_leaves_the_layers_alone(layers):
    frames, field = layers.frames.clone(), layers.fields["log_gain"].clone()
    reconstruct(layers)
    assert torch.equal(layers.frames, frames)
    assert torch.equal(layers.fields["log_gain"], field)


def test_an_unknown_model_is_refused(layers):
    with pytest.raises(InputError, match="no model 'fog'; known: relight"):
        reconstruct(replace(layers, model="fog"))


# there and back


def test_a_file_brings_everything_back(layers, saved):
    found = load_layers(saved)
    assert torch.equal(found.frames, layers.frames)
    assert all(torch.equal(field, layers.fields[name]) for name, field in found.fields.items())
    assert set(found.fields) == set(layers.fields)
    assert found.shots == [range(2), range(2, COUNT)]
    assert (found.model, found.seed, found.info["preset"]) == ("relight", 7, "fast")
    assert {"torch", "vdp"} <= set(found.info)
    assert found.flow is not None
    assert (found.flow.method, found.flow.source_size) == ("exact", (HEIGHT, WIDTH))
    for name in ("forward", "backward", "forward_occlusion", "backward_occlusion"):
        assert getattr(found.flow, name).dtype == torch.float32
        assert_close(getattr(found.flow, name), getattr(layers.flow, name), atol=1e-3, rtol=1e-3)
    assert torch.equal(light.apply(found, denoise=0.0), light.apply(layers, denoise=0.0))


def test_frames_of_8_bits_are_kept_in_8_and_finer_ones_in_16(layers, saved, tmp_path):
    assert load_file(saved)["frames"].dtype == torch.uint8
    fine = replace(layers, frames=layers.frames * 0.999)
    path = save_layers(fine, tmp_path / "fine.safetensors")
    assert load_file(path)["frames"].dtype == torch.uint16
    assert_close(load_layers(path).frames, fine.frames, atol=0.51 / 65535, rtol=0)


def test_layers_without_a_flow(layers, tmp_path):
    assert load_layers(save_layers(replace(layers, flow=None), tmp_path / "a.safetensors")).flow is None


def test_without_frames_the_file_is_small_and_needs_them_again(layers, saved, tmp_path):
    bare = save_layers(layers, tmp_path / "bare.safetensors", with_frames=False)
    assert bare.stat().st_size < saved.stat().st_size - layers.frames.numel() + 1000
    with pytest.raises(LayersFileError, match="saved without their frames; link the source frames too"):
        load_layers(bare)
    assert torch.equal(load_layers(bare, layers.frames).frames, layers.frames)


def test_given_frames_come_before_those_of_the_file(layers, saved):
    other = 1 - layers.frames
    assert torch.equal(load_layers(saved, other).frames, other)


@pytest.mark.parametrize("shape", [(COUNT - 1, HEIGHT, WIDTH, 3), (COUNT, HEIGHT, WIDTH + 2, 3)])
def test_frames_of_another_clip_are_refused(saved, shape):
    with pytest.raises(ShapeError, match=f"found on 4 frames of 48x32 pixels, these are {shape[0]} of {shape[2]}x32"):
        load_layers(saved, torch.rand(shape))


def test_a_file_takes_the_place_of_another_whole(layers, saved):
    save_layers(replace(layers, seed=8), saved)
    assert load_layers(saved).seed == 8
    assert [path.name for path in saved.parent.iterdir()] == ["clip.safetensors"]


def test_equal_layers_make_equal_files(layers, tmp_path):
    for number in range(8):
        layers = replace(layers, info={**layers.info, "seconds": f"{number}.0"})
        save_layers(layers, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_others_may_read_it_as_any_file(layers, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    written = save_layers(layers, tmp_path / "clip.safetensors")
    assert written.stat().st_mode == plain.stat().st_mode


def test_folders_are_made(layers, tmp_path):
    assert save_layers(layers, tmp_path / "a" / "b" / "clip.safetensors").is_file()


# what cannot be written


@pytest.mark.parametrize("kind", [OSError, SafetensorError])  # safetensors wraps a full disk in its own
def test_a_full_disk_leaves_what_was_there(layers, saved, monkeypatch, kind):
    def full(tensors: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise kind("No space left on device")

    monkeypatch.setattr(safetensors_torch, "save_file", full)
    before = saved.read_bytes()
    with pytest.raises(MediaError, match=r"clip.safetensors: the layers cannot be written .*No space left.*free space"):
        save_layers(replace(layers, seed=9), saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["clip.safetensors"]


def test_an_interruption_leaves_nothing(layers, tmp_path, monkeypatch):
    def interrupted(tensors: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors_torch, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_layers(layers, tmp_path / "clip.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(layers, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MediaError, match="choose another folder"):
        save_layers(layers, tmp_path / "file" / "clip.safetensors")


# what cannot be read


def damaged(path: Path, *, metadata: dict[str, str] | None = None, **changes: Any) -> Path:
    """Change the file: tensors by name with ``_`` for ``.`` (None takes one out), ``header_`` entries, metadata."""
    with safe_open(path, framework="pt") as file:
        kept = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(kept["vdp_layers"])
    for name, value in changes.items():
        if name.startswith("header_"):
            name = name.removeprefix("header_")
            header.pop(name) if value is None else header.update({name: value})
        else:
            name = name.replace("_", ".", 1) if name not in tensors else name
            tensors.pop(name) if value is None else tensors.update({name: value})
    save_file(tensors, path, metadata=metadata or {"vdp_layers": json.dumps(header)})
    return path


def test_the_helper_damages_nothing_by_itself(saved):
    assert len(load_layers(damaged(saved))) == COUNT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metadata": {"vdp_layers": "1"}}, "a damaged layers file"),
        ({"header_format": "1"}, "a damaged layers file"),
        ({"header_format": "4"}, "saved by a newer version .format 4, this one reads 1 to 3.; update the pack"),
        ({"header_format": 3}, "not a layers file"),
        ({"header_format": None}, "not a layers file; give one"),
        ({"metadata": {"vdp_layers": "{"}}, "a damaged layers file"),
        ({"metadata": {"vdp_layers": "[]"}}, "not a layers file; give one"),
        ({"metadata": {"vdp_layers": '"relight"'}}, "not a layers file; give one"),
        ({"header_model": None}, "a damaged layers file"),
        ({"header_model": "fog"}, "of the model 'fog'; known: relight.*; update the pack"),
        ({"field_gamma": torch.full((COUNT, 1, 1, 1), float("nan"))}, "field gamma holds NaN"),
        ({"field_gamma": torch.zeros(COUNT, 1, 1, 1)}, "a 'gamma' of 0, above 0 needed"),
        ({"field_gamma": torch.ones(COUNT, 1, 2, 2)}, "no 'gamma'"),
        ({"field_colour": None}, "no 'colour'"),
        ({"field_noise": torch.zeros(COUNT, 6, 1, 1)}, r"no 'noise' \(T, 7, 1, 1\), but one of \(4, 6, 1, 1\)"),
        ({"field_noise": -torch.ones(COUNT, 7, 1, 1)}, "a 'noise' of -1, 0 or more needed"),
        ({"header_info": []}, "a damaged layers file"),
        ({"header_seed": "first"}, "a damaged layers file"),
        ({"header_seed": float("inf")}, "a damaged layers file"),
        ({"header_frames": 4}, "a damaged layers file"),
        ({"header_frames": [9, 32, 48, 3]}, "a damaged layers file"),
        ({"header_flow": {"method": "dis"}}, "a damaged layers file"),
        ({"field_log_gain": None}, "no 'log_gain'"),
        ({"field_log_gain": torch.zeros(COUNT, 2, 5, 8)}, "no 'log_gain'"),
        ({"field_log_gain": torch.zeros(COUNT - 1, 1, 5, 8)}, r"field log_gain is \(3, 1, 5, 8\) for 4 frames"),
        ({"field_log_gain": torch.zeros(COUNT, 5, 8)}, "no 'log_gain'"),
        ({"field_log_gain": torch.zeros(COUNT, 1, 0, 8)}, "a damaged layers file"),
        ({"field_log_gain": torch.zeros(COUNT, 1, 5, 8).int()}, "a damaged layers file"),
        ({"field_log_gain": torch.full((COUNT, 1, 5, 8), float("nan"))}, "field log_gain holds NaN"),
        ({"frames": torch.zeros(COUNT, HEIGHT, WIDTH, 3)}, "a damaged layers file"),
        ({"frames": torch.zeros(COUNT, HEIGHT, WIDTH, dtype=torch.uint8)}, "a damaged layers file"),
        ({"frames": torch.zeros(COUNT, 0, WIDTH, 3, dtype=torch.uint8), "header_frames": [4, 0, 48, 3]}, "a damaged"),
        ({"flow_forward": None}, "a damaged layers file"),
        ({"flow_forward": torch.zeros(1, 2, HEIGHT, WIDTH)}, "flow"),
        ({"flow_backward": torch.full((COUNT - 1, 2, HEIGHT, WIDTH), float("inf"))}, "the flow holds NaN or infinite"),
    ],
)
def test_a_damaged_file_is_refused(saved, changes, words):
    with pytest.raises((LayersFileError, ShapeError), match=words) as refused:
        load_layers(damaged(saved, **changes))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [0, 4, 100, -1000])
def test_part_of_a_file_is_refused(saved, size):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:size])
    with pytest.raises(LayersFileError, match=r"not a whole .safetensors file .*; save the layers again"):
        load_layers(saved)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_changes_in_an_npz_is_loaded(layers, tmp_path, save):
    path = save_layers(layers, tmp_path / "clip", format="npz")
    assert path.name == "clip.npz"
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert np.array_equal(arrays["field.log_gain"], layers.fields["log_gain"].numpy())
    arrays["field.log_gain"] = arrays["field.log_gain"] + 0.25
    save(path, **arrays)
    loaded = load_layers(path)
    assert torch.equal(loaded.fields["log_gain"], layers.fields["log_gain"] + 0.25)
    plain = load_layers(save_layers(layers, tmp_path / "clip"))
    assert torch.equal(loaded.frames, plain.frames)
    assert torch.equal(loaded.flow.forward, plain.flow.forward)
    assert loaded.info == plain.info


@pytest.mark.parametrize("size", [4, 1000, -1000])
def test_part_of_an_npz_is_refused(layers, tmp_path, size):
    path = save_layers(layers, tmp_path / "clip", format="npz")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LayersFileError, match=r"a damaged layers file .*; save the layers again"):
        load_layers(path)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("vdp_layers", np.array("{"), "a damaged layers file"),
        ("vdp_layers", np.array("[]"), "not a layers file"),
        ("field.gamma", np.array([{}], object), "a damaged layers file"),
        ("field.gamma", np.array(["one"]), "a damaged layers file"),
        ("field.gamma", np.full((COUNT, 1, 1, 1), np.nan, np.float32), "field gamma holds NaN"),
    ],
)
def test_an_array_that_is_none_of_layers_is_refused(layers, tmp_path, name, array, words):
    path = save_layers(layers, tmp_path / "clip", format="npz")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, name: array})
    with pytest.raises(LayersFileError, match=words):
        load_layers(path)


def test_an_npz_that_is_not_as_large_as_it_says_is_refused(tmp_path):
    """A header claims a million million numbers; a hundred bytes follow."""
    path = tmp_path / "clip.npz"
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("field.gamma.npy", content.getvalue() + bytes(100))
    with pytest.raises(LayersFileError, match="a damaged layers file"):
        load_layers(path)


def test_garbage_is_refused(tmp_path):
    path = tmp_path / "clip.safetensors"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(LayersFileError, match=r"not a whole .safetensors file"):
        load_layers(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_weights_of_a_model_are_refused(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    save_file({"conv.weight": torch.zeros(3, 3)}, path, metadata=metadata)
    with pytest.raises(LayersFileError, match="not a layers file; give one that SaveLayers wrote"):
        load_layers(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(MediaError, match="no such layers file"):
            load_layers(path)


# edits and replaced pictures


@pytest.fixture
def edited(layers) -> Layers:
    """Layers of the model segment with an edit, a picture in 8 bits and a mask in 16."""
    shares = torch.rand(COUNT, 1, 8, 12, generator=torch.Generator().manual_seed(2))
    pictures = {"colour_1": layers.frames, "mask_1": torch.full((1, HEIGHT, WIDTH), 0.3)}
    edits = {0: Edit(visibility=0.5), 1: Edit(gain=-1.0, offset=(3.0, -0.5))}
    fields = {"masks": torch.cat((shares, 1 - shares), dim=1)}
    return Layers("segment", fields, layers.frames, layers.flow, edits=edits, pictures=pictures)


def test_edits_and_pictures_are_kept(edited, tmp_path):
    path = save_layers(edited, tmp_path / "clip.safetensors")
    found = load_layers(path)
    assert found.edits == edited.edits
    assert_close(found.pictures["colour_1"], edited.pictures["colour_1"])
    assert_close(found.pictures["mask_1"], edited.pictures["mask_1"], atol=0.51 / 65535, rtol=0)
    assert load_file(path)["picture.colour_1"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"header_edits": {"1": {}}}, "a damaged layers file"),
        ({"header_edits": {"first": {"visibility": 1, "gain": 0, "saturation": 1, "offset": [0, 0]}}}, "a damaged"),
        ({"header_edits": {"1": {"visibility": 1, "gain": 0, "saturation": 1, "offset": [0]}}}, "a damaged"),
        (
            {"header_edits": {"1": {"visibility": 1, "gain": float("nan"), "saturation": 1, "offset": [0, 0]}}},
            "an edit holds",
        ),
        (
            {"header_edits": {"5": {"visibility": 1, "gain": 0, "saturation": 1, "offset": [0, 0]}}},
            "edit of a layer that is not there",
        ),
        ({"picture.mask_1": torch.zeros(1, HEIGHT, WIDTH)}, "picture.mask_1 is"),
        ({"picture.colour_1": torch.zeros(COUNT, HEIGHT, WIDTH, dtype=torch.uint8)}, "picture.colour_1 is"),
        ({"picture.colour_1": torch.zeros(COUNT, 8, WIDTH, 3, dtype=torch.uint8)}, "picture 'colour_1'"),
    ],
)
def test_damaged_edits_and_pictures_are_refused(edited, tmp_path, changes, words):
    path = save_layers(edited, tmp_path / "clip.safetensors")
    with pytest.raises(LayersFileError, match=words):
        load_layers(damaged(path, **changes))
