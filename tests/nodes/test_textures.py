"""AtlasTexture, and what goes with it to other programs and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_set import run
from torch import Tensor

from comfyui_vdp.nodes import NODE_CLASS_MAPPINGS, host
from comfyui_vdp.nodes.textures import AtlasTexture
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.image.sample import sample
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models import MODELS
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.store.lazy import LazyFrames
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Layers

COUNT, HEIGHT, WIDTH = 6, 64, 96


@pytest.fixture(scope="module")
def clip(synthetic: Any) -> Any:
    return synthetic.layered(COUNT, HEIGHT, WIDTH, objects=1)


@pytest.fixture(scope="module")
def layers(clip: Any) -> Layers:
    return decompose("atlas", clip.frames, clip.flow, preset="fast", mask=clip.masks[:, 1] > 0.5)


@pytest.fixture(autouse=True)
def said(tmp_path: Path) -> Iterator[list[str]]:
    lines: list[str] = []
    with host.running(host.Headless("cpu", tmp_path / "out", None, tmp_path / "temp", say=lines.append)):
        yield lines


def test_a_texture_and_what_it_is_laid_onto_come_as_pictures(layers: Layers, said: list[str]) -> None:
    texture, seen, checker, mapping, light = AtlasTexture().show(layers, 1)
    height, width = layers.assets["texture_1"].shape[1:]
    assert texture.shape == (1, height, width, 3)
    assert seen.shape == (1, height, width)
    assert 0.0 < seen.mean() < 1.0
    assert said == [f"layer 1: a texture of {width}x{height}, {100 * float(seen.mean()):.1f} % of it seen"]
    for frames in (checker, mapping, light):
        assert isinstance(frames, LazyFrames)
        assert frames.shape == (COUNT, HEIGHT, WIDTH, 3)


def test_a_layer_that_is_not_there_is_refused_before_work(layers: Layers) -> None:
    with pytest.raises(InputError, match="there is no layer 2; these layers have 0 the background, 1 object 1"):
        AtlasTexture.foresee(layers=MODELS["atlas"].stand_in(layers.frames, {"L": 2}), layer=2)
    with pytest.raises(InputError, match="of the model 'segment', AtlasTexture needs 'atlas'"):
        AtlasTexture.foresee(layers=MODELS["segment"].stand_in(layers.frames, {"L": 2}), layer=0)


# Composite and ReplaceLayer


def test_composite_gives_back_what_textures_rebuild(layers: Layers, clip: Any) -> None:
    frames, covered, _ = run("Composite", layers=layers)
    assert torch.equal(frames, reconstruct(layers))
    assert psnr(frames, clip.frames) > 30.0
    assert (covered - clip.masks[:, 1:].sum(dim=1)).abs().mean() < 0.03


def test_an_object_that_is_taken_out_leaves_the_texture_of_the_background(layers: Layers) -> None:
    frames, covered, _ = run("Composite", layers=layers, visibility=0.0)
    assert torch.equal(frames, run("SplitLayers", layers=layers, layer=0)[0])
    assert covered.eq(0.0).all()


def test_a_replaced_layer_is_shown_split_and_saved(layers: Layers, tmp_path: Path) -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).expand(1, HEIGHT, WIDTH, 3)
    half = torch.zeros(1, HEIGHT, WIDTH)
    half[..., : WIDTH // 2] = 1.0
    (replaced,) = run("ReplaceLayer", layers=layers, layer=1, frames=red, mask=half)
    frames, covered, _ = run("Composite", layers=replaced)
    assert torch.equal(frames[..., : WIDTH // 2, :], red.expand(COUNT, -1, -1, -1)[..., : WIDTH // 2, :])
    assert torch.equal(covered, half.expand(COUNT, -1, -1))
    colours, mask = run("SplitLayers", layers=replaced, layer=1)
    assert torch.equal(colours, red.expand_as(colours))
    assert torch.equal(mask, half.expand_as(mask))
    loaded = load_layers(save_layers(replaced, tmp_path / "replaced"))
    assert psnr(run("Composite", layers=loaded)[0], frames) > 60.0


# To other programs and back


def back(frames: Tensor, name: str, format: str) -> Tensor:
    """Frames as they come back from files of the pack's own nodes."""
    (saved,) = NODE_CLASS_MAPPINGS["SaveFrames"]().save(frames, filename_prefix=name, format=format)["ui"][
        "vdp_outputs"
    ]
    return run("LoadFrames", path=str(host.output_folder() / saved))[0]


@pytest.mark.parametrize(("format", "least"), [("exr", 55.0), ("png", 40.0)])
def test_what_was_saved_and_read_back_rebuilds_the_clip(layers: Layers, format: str, least: float) -> None:
    """By the formula alone: light times the sum of masks times textures, read where mappings say."""
    total = torch.zeros(COUNT, HEIGHT, WIDTH, 3)
    for number in range(2):
        texture, _, _, mapping, light = run("AtlasTexture", layers=layers, layer=number)
        texture = back(texture, "texture", format)
        places = back(mapping, "mapping", "exr")[..., :2] * torch.tensor([texture.shape[2], texture.shape[1]]) - 0.5
        mask = back(run("SplitLayers", layers=layers, layer=number)[1], "mask", format)[..., :1]
        colours = sample(texture.movedim(-1, 1).expand(COUNT, -1, -1, -1), places).movedim(1, -1)
        total += mask * colours * (back(light, "light", "exr") - 0.5).exp()
    assert psnr(total, reconstruct(layers)) > least


def test_textures_and_mappings_come_back_from_numpy_as_they_were(layers: Layers) -> None:
    saving = NODE_CLASS_MAPPINGS["SaveLayers"]()
    (saved,) = saving.save(layers, "layers", with_frames=True, format="npz")["ui"]["vdp_outputs"]
    path = host.output_folder() / saved
    with np.load(path) as file:
        arrays = dict(file)
    assert np.array_equal(arrays["asset.texture_1"], layers.assets["texture_1"].numpy())
    assert np.array_equal(arrays["field.mapping"], layers.fields["mapping"].numpy())
    arrays["asset.texture_0"][:3] = 0.25  # painted grey
    np.savez(path, **arrays)
    (loaded,) = run("LoadLayers", path=str(path))
    assert run("AtlasTexture", layers=loaded, layer=0)[0].unique().tolist() == [0.25, 0.5]
    assert torch.equal(loaded.fields["mapping"], layers.fields["mapping"])


@pytest.mark.parametrize(("format", "apart"), [("exr", 2.5e-4), ("png", 0.51 / 255)])
def test_a_mapping_comes_back_to_a_fraction_of_a_pixel(layers: Layers, format: str, apart: float) -> None:
    mapping = run("AtlasTexture", layers=layers, layer=0)[3]
    assert (back(mapping, "mapping", format) - mapping).abs().max() < apart
