from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from comfyui_vdp.nodes.detect import DetectMasks
from comfyui_vdp.vdp_core.errors import InputError, WeightsError
from comfyui_vdp.vdp_core.nets import detector


class Bright(nn.Module):
    """Sees a person where it is bright."""

    def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        return [
            {
                "labels": torch.tensor([1]),
                "scores": torch.tensor([0.8]),
                "masks": (picture.mean(dim=0) > 0.5).float()[None, None],
            }
            for picture in pictures
        ]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "maskrcnn_resnet50_fpn_v2.pth"
    path.touch()
    monkeypatch.setattr(detector, "load_detector", lambda path: Bright())
    return path


def clip() -> Tensor:
    frames = torch.zeros(4, 40, 48, 3)
    frames[:, 10:30, 10:20] = 1.0
    return frames


def test_widgets_keep_their_order() -> None:
    inputs = DetectMasks.INPUT_TYPES()
    assert list(inputs["required"]) == ["frames", "class_name", "score", "every", "weights"]
    assert inputs["required"]["class_name"][0][:2] == ["anything", "person"]


def test_it_gives_a_mask_a_frame_and_says_where_it_found_any(said: list[str], weights: Path) -> None:
    (mask,) = DetectMasks().detect(clip(), "person", every=2, weights=str(weights))
    assert mask.shape == (4, 40, 48)
    assert torch.equal(mask[0], clip()[0, ..., 0])
    assert float(mask[1].max()) == 0.0
    assert "detect: maskrcnn_resnet50_fpn_v2.pth, person in 2 of 2 frames" in said[-1]
    (mask,) = DetectMasks().detect(clip(), "dog", weights=str(weights))
    assert float(mask.max()) == 0.0
    assert "dog in 0 of 4 frames" in said[-1]


def test_what_it_foresees_is_what_it_gives(said: list[str], weights: Path) -> None:
    (foreseen,) = DetectMasks.foresee(frames=torch.empty(4, 40, 48, 3, device="meta"), weights=str(weights))
    assert foreseen is not None
    assert foreseen.shape == (4, 40, 48)
    with pytest.raises(InputError, match="every"):
        DetectMasks.foresee(every=0, weights=str(weights))


def test_missing_weights_are_said_before_any_work(said: list[str]) -> None:
    verdict = DetectMasks.VALIDATE_INPUTS(weights="auto")
    assert isinstance(verdict, str)
    assert "no weights are found" in verdict
    assert DetectMasks.IS_CHANGED(weights="auto") == ""
    with pytest.raises(WeightsError, match="put it into"):
        DetectMasks.foresee(weights="auto")
    assert DetectMasks.VALIDATE_INPUTS() is True  # linked
