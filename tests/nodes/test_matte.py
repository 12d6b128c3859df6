from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from plain_matting import trained

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.layers import Composite
from comfyui_vdp.nodes.matte import KeyScreen, MatteVideo
from comfyui_vdp.vdp_core.errors import InputError, WeightsError
from comfyui_vdp.vdp_core.types import Layers


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "rvm_mobilenetv3.pth"
    torch.save(trained("mobilenetv3").state_dict(), path)
    return path


def frames(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 48, 64, 3, generator=torch.Generator().manual_seed(0))


def test_widgets_keep_their_order() -> None:
    inputs = MatteVideo.INPUT_TYPES()
    assert list(inputs["required"]) == ["frames", "weights", "downsample_ratio", "refiner", "chunk"]
    assert list(inputs["optional"]) == ["warm_up"]
    assert inputs["optional"]["warm_up"][1]["default"] == 0
    assert len(MatteVideo.RETURN_TYPES) == len(MatteVideo.RETURN_NAMES) == len(MatteVideo.OUTPUT_TOOLTIPS)


def test_mask_foreground_and_layers_belong_together(said: list[str], weights: Path) -> None:
    alpha = torch.rand(4, 48, 64)
    mask, foreground, layers = MatteVideo().find(host.with_alpha(frames(), alpha), str(weights))
    assert mask.shape == (4, 48, 64)
    assert foreground.shape == (4, 48, 64, 3)
    assert torch.equal(host.alpha_of(foreground), mask)
    assert torch.equal(layers.alpha, alpha)
    assert layers.model == "segment"
    assert "matte: rvm_mobilenetv3.pth, 4 frames of 64x48 at ratio 1" in said[-1]


def test_what_it_foresees_is_what_it_gives(said: list[str], weights: Path) -> None:
    stand_in = torch.empty(4, 48, 64, 3, device="meta")
    foreseen = MatteVideo.foresee(frames=stand_in, weights=str(weights), downsample_ratio=0.0, refiner="deep", chunk=4)
    made = MatteVideo().find(frames(), str(weights))
    assert [one.shape for one in foreseen[:2]] == [one.shape for one in made[:2]]
    assert isinstance(foreseen[2], Layers)
    Composite.foresee(layers=foreseen[2], layer="1")
    with pytest.raises(InputError, match="there is no layer '2'"):
        Composite.foresee(layers=foreseen[2], layer="2")


def test_missing_weights_are_said_before_any_work(said: list[str], tmp_path: Path) -> None:
    for weights in ("auto", "rvm_resnet50", str(tmp_path / "none.pth")):
        verdict = MatteVideo.VALIDATE_INPUTS(weights=weights)
        assert isinstance(verdict, str)
        assert "GPL-3.0" in verdict
        assert MatteVideo.IS_CHANGED(weights=weights) == ""
        with pytest.raises(WeightsError, match=r"GPL-3\.0"):
            MatteVideo.foresee(weights=weights)
    assert MatteVideo.VALIDATE_INPUTS() is True  # linked


def test_settings_are_refused_before_any_work(said: list[str], weights: Path) -> None:
    with pytest.raises(InputError, match="16 a side are needed"):
        MatteVideo.foresee(frames=frames(), weights=str(weights), downsample_ratio=0.1)


def test_other_weights_run_it_again(said: list[str], weights: Path) -> None:
    before = MatteVideo.IS_CHANGED(weights=str(weights))
    assert before == MatteVideo.IS_CHANGED(weights=str(weights))
    weights.write_bytes(weights.read_bytes() + b" ")
    assert MatteVideo.IS_CHANGED(weights=str(weights)) != before


def test_in_comfyui_weights_lie_in_a_folder_of_their_own(
    said: list[str], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = weights.parent / "models" / "video_matting"
    folder.mkdir(parents=True)
    moved = weights.rename(folder / weights.name)
    paths = SimpleNamespace(models_dir=str(folder.parent), folder_names_and_paths={})
    monkeypatch.setitem(sys.modules, "comfy.model_management", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    assert host.weights_folders("video_matting") == [folder]
    assert MatteVideo.VALIDATE_INPUTS(weights="auto") is True
    assert str(moved) in MatteVideo.IS_CHANGED(weights="rvm_mobilenetv3")


def on_green(count: int = 3) -> torch.Tensor:
    clip = torch.tensor([0.2, 0.6, 0.25]).repeat(count, 48, 64, 1)
    clip[:, 12:36, 20:44] = torch.tensor([0.7, 0.5, 0.4])
    return clip


def test_key_gives_mask_foreground_and_layers_that_belong_together(said: list[str]) -> None:
    assert list(KeyScreen.INPUT_TYPES()["required"]) == ["frames", "screen"]
    assert len(KeyScreen.RETURN_TYPES) == len(KeyScreen.RETURN_NAMES) == len(KeyScreen.OUTPUT_TOOLTIPS)
    alpha = torch.rand(3, 48, 64)
    mask, foreground, layers = KeyScreen().key(host.with_alpha(on_green(), alpha))
    assert mask.shape == (3, 48, 64)
    assert foreground.shape == (3, 48, 64, 3)
    assert torch.equal(host.alpha_of(foreground), mask)
    assert torch.equal(layers.alpha, alpha)
    assert "key: screen #339940, 3 frames of 64x48" in said[-1]
    foreseen = KeyScreen.foresee(frames=torch.empty(3, 48, 64, 3, device="meta"), screen="auto")
    assert [one.shape for one in foreseen[:2]] == [mask.shape, foreground.shape]
    Composite.foresee(layers=foreseen[2], layer="1")


def test_what_is_no_screen_is_said_before_any_work(said: list[str]) -> None:
    assert KeyScreen.VALIDATE_INPUTS(screen="auto") is True
    assert KeyScreen.VALIDATE_INPUTS() is True  # linked
    for screen in ("greenish", "#808080"):
        assert isinstance(KeyScreen.VALIDATE_INPUTS(screen=screen), str)
        with pytest.raises(InputError, match="screen: "):
            KeyScreen.foresee(screen=screen)
