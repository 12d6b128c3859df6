"""The alpha of a clip, through the nodes and into files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.decompose import VDPOptimize
from comfyui_vdp.nodes.edit import Dehaze, Relight
from comfyui_vdp.nodes.flow import RAFTFlow
from comfyui_vdp.nodes.layers import Composite, LoadLayers, ReplaceLayer, SaveLayers, SplitLayers
from comfyui_vdp.nodes.video import LoadFrames, SaveFrames
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media.formats import FORMATS

FILE = Path(__file__).parents[1] / "files" / "object_with_alpha.webm"
KEPT = [name for name, form in FORMATS.items() if form.holds_alpha]
LOST = [name for name in FORMATS if name not in KEPT]
EDIT = {"visibility": 1.0, "gain": 0.5, "saturation": 1.0, "offset_x": 0.0, "offset_y": 0.0}
PLAIN: dict[str, Any] = {"layer": "objects", **EDIT, "linear_light": False, "premultiplied": False}


@pytest.fixture(autouse=True)
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(host.headless, "output_folder", tmp_path / "out")
    monkeypatch.setattr(host.headless, "say", lines.append)
    return lines


@pytest.fixture(scope="module")
def loaded() -> tuple[torch.Tensor, torch.Tensor]:
    return LoadFrames().load(str(FILE), count=4)[:2]


@pytest.fixture(scope="module")
def layers(loaded: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
    """What each task finds."""
    (flow,) = RAFTFlow().estimate(loaded[0], model="dis")
    settings = {"preset": "fast", "steps": 2, "layers": 2, "seed": 0}
    tasks = ("relight", "dehaze", "segment")
    return {task: VDPOptimize().optimize(loaded[0], flow, task=task, **settings)[0] for task in tasks}


def edited(layers: dict[str, Any], node: str) -> torch.Tensor:
    match node:
        case "Relight":
            (frames,) = Relight().relight(layers["relight"], 1.0, 0.0, 1.0, 0.0, 0.0)
        case "Dehaze":
            (frames,) = Dehaze().dehaze(layers["dehaze"], 1.0, 0.1, 0.0, 0.0)
        case "Composite":
            frames = Composite().composite(**PLAIN, layers=layers["segment"])[0]
        case _:
            frames = SplitLayers().split(layers["segment"], 0)[0]
    return frames


def alpha_in(saved: dict[str, Any], tmp_path: Path) -> torch.Tensor:
    return video.read_clip(tmp_path / "out" / saved["ui"]["vdp_outputs"][0]).alpha


@pytest.mark.parametrize("node", ["Relight", "Dehaze", "Composite", "SplitLayers"])
def test_edited_frames_keep_it(loaded: Any, layers: dict[str, Any], node: str, tmp_path: Path) -> None:
    frames, alpha = edited(layers, node), loaded[1]
    assert frames.shape == (*alpha.shape, 3)
    assert abs(float(alpha.mean()) - 0.07) < 0.001
    saved = SaveFrames().save(frames, format="png")
    assert (alpha_in(saved, tmp_path) - alpha).abs().max() < 1 / 255


@pytest.mark.parametrize("name", KEPT)
def test_every_format_that_can_holds_it(loaded: Any, tmp_path: Path, said: list[str], name: str) -> None:
    found = alpha_in(SaveFrames().save(loaded[0], format=name), tmp_path)
    assert abs(float(found.mean()) - 0.07) < 0.002
    assert "alpha" not in said[-1]


@pytest.mark.parametrize("name", LOST)
def test_a_format_that_cannot_hold_it_is_said(loaded: Any, tmp_path: Path, said: list[str], name: str) -> None:
    found = alpha_in(SaveFrames().save(loaded[0], format=name), tmp_path)
    assert bool((found == 1.0).all())
    assert f"warning: the clip's alpha is left out, as {name} holds none" in said[-1]
    with pytest.raises(InputError, match=f"alpha: {name} holds no alpha; choose"):
        SaveFrames().save(loaded[0], format=name, alpha=loaded[1])


def test_alpha_that_is_linked_goes_first(loaded: Any, tmp_path: Path) -> None:
    half = torch.full(loaded[1].shape, 0.5)
    found = alpha_in(SaveFrames().save(loaded[0], format="png", alpha=half), tmp_path)
    assert (found - 0.5).abs().max() < 1 / 255
    found = alpha_in(SaveFrames().save(loaded[0], format="png", alpha=torch.ones(1, 1, 1).expand(half.shape)), tmp_path)
    assert bool((found == 1.0).all())


def test_opaque_clips_have_none_and_nothing_is_said(tmp_path: Path, said: list[str]) -> None:
    frames = torch.rand(2, 16, 16, 3)
    path = video.write_clip(tmp_path / "opaque", frames, fps=24, format="png", alpha=torch.ones(2, 16, 16))
    SaveFrames().save(LoadFrames().load(str(path))[0], format="mp4")
    assert "alpha" not in " ".join(said)
    assert host.alpha_of(frames) is None


def test_a_background_fills_what_was_transparent(layers: dict[str, Any], tmp_path: Path) -> None:
    still = torch.rand(1, 8, 8, 3)
    (replaced,) = ReplaceLayer().replace(layers["segment"], 0, still)
    made = (
        Composite().composite(**PLAIN, layers=layers["segment"], background=still),
        Composite().composite(**PLAIN, layers=replaced),
    )
    for frames, *_ in made:
        assert bool((alpha_in(SaveFrames().save(frames, format="png"), tmp_path) == 1.0).all())


def test_frames_with_a_mask_keep_it(loaded: Any) -> None:
    frames, _, made = Composite().composite(**PLAIN, frames=loaded[0], mask=torch.ones(loaded[1].shape))
    assert torch.equal(host.alpha_of(frames), loaded[1])
    assert made.alpha is not None


@pytest.mark.parametrize("with_frames", [True, False])
def test_layers_of_a_file_keep_it(loaded: Any, layers: dict[str, Any], tmp_path: Path, with_frames: bool) -> None:
    saved = SaveLayers().save(layers["relight"], "layers", with_frames)
    path = tmp_path / "out" / saved["ui"]["vdp_outputs"][0]
    (again,) = LoadLayers().load(str(path), None if with_frames else loaded[0])
    assert (again.alpha - loaded[1]).abs().max() < 1 / 255
    assert host.alpha_of(edited({"relight": again}, "Relight")) is again.alpha


def test_frames_of_four_channels_carry_it_too(loaded: Any) -> None:
    """As JoinImageWithAlpha gives them."""
    joined = torch.cat((loaded[0], loaded[1][..., None]), dim=-1)
    assert torch.equal(host.alpha_of(joined), loaded[1])
    (flow,) = RAFTFlow().estimate(joined, model="dis")
    settings = {"preset": "fast", "steps": 2, "layers": 2, "seed": 0}
    (found,) = VDPOptimize().optimize(joined, flow, task="relight", **settings)
    assert torch.equal(found.alpha, loaded[1])
    assert found.frames.shape[-1] == 3
