"""The nodes that paint into a clip: EditAtlas and EditFrame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.layers import LoadLayers, SaveLayers
from comfyui_vdp.nodes.paint import EditAtlas, EditFrame
from comfyui_vdp.nodes.video import LoadFrames
from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.store import lazy
from comfyui_vdp.vdp_core.store.lazy import LazyFrames
from comfyui_vdp.vdp_core.types import Layers

COUNT, HEIGHT, WIDTH = 6, 48, 80
RED = torch.tensor([0.9, 0.1, 0.1])
SQUARE = (slice(8, 20), slice(10, 30))


@pytest.fixture(autouse=True)
def said(tmp_path, monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(host.headless, "output_folder", tmp_path)
    monkeypatch.setattr(host.headless, "input_folder", tmp_path)
    monkeypatch.setattr(host.headless, "say", lines.append)
    return lines


@pytest.fixture(scope="module")
def layers(synthetic) -> Layers:
    """The true layers of a clip, whose frames 8 bits hold exactly."""
    found = synthetic.atlas(synthetic.layered(COUNT, HEIGHT, WIDTH, objects=1))
    return replace(found, frames=(found.frames * 255).round() / 255)


@pytest.fixture(scope="module")
def edited(layers) -> Tensor:
    """Its first frame with a red square."""
    frame = layers.frames[0].clone()
    frame[SQUARE] = RED
    return frame[None]


@pytest.fixture
def overlay() -> Tensor:
    """The red square alone."""
    alpha = torch.zeros(1, HEIGHT, WIDTH)
    alpha[0][SQUARE] = 1.0
    return alpha


def red(frames: Tensor) -> Tensor:
    """How many pixels of each frame are red."""
    return ((frames - RED).abs().amax(dim=-1) < 0.1).sum(dim=(1, 2))


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    assert list(EditAtlas.INPUT_TYPES()["required"]) == ["layers", "picture", "layer"]
    assert list(EditAtlas.INPUT_TYPES()["optional"]) == ["mask"]
    assert list(EditFrame.INPUT_TYPES()["required"]) == ["layers", "picture", "frame"]
    assert list(EditFrame.INPUT_TYPES()["optional"]) == ["mask", "frames"]
    for node in (EditAtlas, EditFrame):
        assert node.RETURN_TYPES == ("IMAGE", "VDP_LAYERS", "MASK")
        assert len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_NAMES) == 3


def test_an_edited_frame_a_picture_with_alpha_and_one_with_a_mask_do_the_same(layers, edited, overlay, said):
    whole = EditFrame().paint(layers, edited, 0)[0]
    assert red(whole).min() > 150
    assert said[-1].startswith("EditFrame: 6 frames of 80x48, ")
    plain = RED.expand(1, HEIGHT, WIDTH, 3)
    four = torch.cat((plain, overlay[..., None]), dim=-1)
    ways: list[tuple[Any, Any]] = [
        (host.with_alpha(plain.clone(), overlay), None),
        (four, None),
        (plain, overlay),
        (plain, overlay[..., None].expand(-1, -1, -1, 3)),
    ]
    first = EditFrame().paint(layers, *ways[0][:1], 0)[0]
    for picture, mask in ways:
        frames = EditFrame().paint(layers, picture, 0, mask)[0]
        assert torch.equal(frames, first)
    assert (first - whole).abs().max() < 0.1


def test_a_file_with_alpha_is_laid_over_and_an_opaque_one_is_compared(layers, edited, overlay, tmp_path):
    plain = RED.expand(1, HEIGHT, WIDTH, 3)
    over = video.write_clip(tmp_path / "over", plain, fps=1, format="png", alpha=overlay)
    first = EditFrame().paint(layers, LoadFrames().load(str(over))[0], 0)[0]
    opaque = host.with_alpha(edited.clone(), torch.ones(1, HEIGHT, WIDTH))
    assert torch.equal(EditFrame().paint(layers, opaque, 0)[0], EditFrame().paint(layers, edited, 0)[0])
    assert (first - EditFrame().paint(layers, edited, 0)[0]).abs().max() < 0.1


def test_the_empty_mask_of_a_loader_stands_for_none(layers, edited):
    empty = torch.zeros(1, 64, 64)
    frames = EditFrame().paint(layers, edited, 0, empty)[0]
    assert torch.equal(frames, EditFrame().paint(layers, edited, 0)[0])


def test_several_frames_are_named(layers, edited):
    last = layers.frames[-1:].clone()
    last[0][SQUARE] = 1.0 - RED
    both = torch.cat((edited, last))
    frames = EditFrame().paint(layers, both, 0, None, "0, 5")[0]
    assert torch.equal(frames, EditFrame().paint(layers, both, 3, frames="0 5")[0])
    assert red(frames)[0] > 200
    assert red(frames)[-1] == 0
    with pytest.raises(InputError, match="1 number for 2 pictures; give the number of each edited frame"):
        EditFrame().paint(layers, both, 0)
    with pytest.raises(InputError, match="'last' is no number of a frame; give such as 0, 20, 39"):
        EditFrame().paint(layers, both, 0, frames="0 last")


def test_a_texture_is_painted(layers, said):
    texture = layers.assets["texture_0"][:3].float().movedim(0, -1)[None].clone()
    texture[0, 12:24, 14:34] = RED
    frames, edited, confidence = EditAtlas().paint(layers, texture, 0)
    assert red(frames).min() > 150
    assert confidence.shape == frames.shape[:3]
    assert said[-1].startswith("EditAtlas: 6 frames of 80x48, ")
    assert torch.equal(EditFrame().paint(edited, layers.frames[:1], 0)[0], frames)


def test_edits_are_kept_in_files(layers, edited):
    frames, painted, _ = EditFrame().paint(layers, edited, 0)
    saved = SaveLayers().save(painted, "painted", True)["ui"]["vdp_outputs"][0]
    (loaded,) = LoadLayers().load(saved)
    again = EditFrame().paint(loaded, layers.frames[:1], 0)[0]
    assert (again - frames).abs().max() < 1e-4
    untouched = (frames == layers.frames).all(dim=-1)
    assert torch.equal(again[untouched], layers.frames[untouched])


def test_the_clip_keeps_its_alpha(layers, edited):
    alpha = torch.rand(COUNT, HEIGHT, WIDTH)
    frames, painted, _ = EditFrame().paint(replace(layers, alpha=alpha), edited, 0)
    assert torch.equal(host.alpha_of(frames), alpha)
    assert torch.equal(painted.alpha, alpha)


def test_long_clips_are_painted_when_they_are_looked_at(layers, edited, said, monkeypatch):
    wanted = EditFrame().paint(layers, edited, 0)[0]
    monkeypatch.setattr(lazy, "fits_in_memory", lambda size: False)
    frames, painted, confidence = EditFrame().paint(layers, edited, 0)
    assert isinstance(frames, LazyFrames)
    assert "made when they are needed" in said[-1]
    assert torch.equal(frames[4], wanted[4])
    assert confidence[4].shape == (HEIGHT, WIDTH)
    assert torch.equal(EditFrame().paint(painted, layers.frames[:1], 0)[0][4], wanted[4])


def test_what_cannot_be_used_is_refused_before_long_work(layers, edited):
    stand_in = replace(layers, fields={}, assets={})
    made = EditFrame.foresee(layers=stand_in, picture=edited, frame=0)
    assert made[0].shape == (COUNT, HEIGHT, WIDTH, 3)
    assert made[2].shape == (COUNT, HEIGHT, WIDTH)
    assert EditAtlas.foresee(picture=edited, layer=2) == (None, None, None)
    with pytest.raises(InputError, match="there is no frame 6, the clip has 0 to 5"):
        EditFrame.foresee(layers=stand_in, picture=edited, frame=6)
    with pytest.raises(InputError, match="2 numbers for 1 picture"):
        EditFrame.foresee(picture=edited, frame=0, frames="1 2")
    with pytest.raises(ShapeError, match="mask: masks are 8x8 pixels"):
        EditFrame.foresee(picture=edited, frame=0, mask=torch.ones(1, 8, 8))
    with pytest.raises(ShapeError, match="got 2 pictures, a layer has one texture"):
        EditAtlas.foresee(picture=torch.rand(2, 8, 8, 3), layer=0)
    with pytest.raises(InputError, match="there is no layer 2"):
        EditAtlas.foresee(layers=layers, picture=edited, layer=2)
    for node in (EditAtlas, EditFrame):
        with pytest.raises(InputError, match=f"of the model 'segment', {node.__name__} needs 'atlas'"):
            node.foresee(layers=replace(stand_in, model="segment"))
        assert node().check_lazy_status(layers=None, picture=edited) == ["layers"]
