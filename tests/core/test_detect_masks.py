from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import detection

from comfyui_vdp.vdp_core.edit.detect_masks import detect_masks
from comfyui_vdp.vdp_core.errors import InputError, ShapeError, WeightsError
from comfyui_vdp.vdp_core.nets.coco import ANYTHING, CLASSES
from comfyui_vdp.vdp_core.nets.detector import find_detector, load_detector

PERSON, DOG = 1, 18


def seen(pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    """What a detector would say: a person in the left half, surely; a dog in the top half, hardly; soft masks."""
    (picture,) = pictures
    assert picture.shape == (3, 40, 48)
    masks = torch.zeros(2, 1, 40, 48)
    masks[0, 0, :, :24] = 0.9
    masks[1, 0, :20] = 0.7
    return [{"labels": torch.tensor([PERSON, DOG]), "scores": torch.tensor([0.9, 0.4]), "masks": masks}]


def test_masks_are_those_of_the_class_that_are_sure_enough() -> None:
    clip = torch.rand(3, 40, 48, 3)
    (person, frames), (dog, none) = (detect_masks(clip, seen, class_name=name) for name in ("person", "dog"))
    assert frames == 3
    assert torch.equal(person[:, :, :24], torch.full((3, 40, 24), 0.9))
    assert float(person[:, :, 24:].max()) == 0.0
    assert none == 0
    assert float(dog.max()) == 0.0
    unsure, _ = detect_masks(clip, seen, class_name="dog", score=0.4)
    assert torch.equal(unsure[:, :20], torch.full((3, 20, 48), 0.7))


def test_anything_is_the_union_of_all() -> None:
    masks, _ = detect_masks(torch.rand(1, 40, 48, 3), seen, class_name=ANYTHING, score=0.0)
    assert float(masks[0, 0, 0]) == pytest.approx(0.9)
    assert float(masks[0, 0, 40]) == pytest.approx(0.7)
    assert float(masks[0, 30, 40]) == 0.0


def test_every_second_frame_is_looked_at_and_told() -> None:
    told = []
    masks, frames = detect_masks(
        torch.rand(5, 40, 48, 3), seen, every=2, on_step=lambda done, total, _: told.append((done, total))
    )
    assert (masks.amax(dim=(1, 2)) > 0.0).tolist() == [True, False, True, False, True]
    assert frames == 3
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"class_name": "unicorn"}, "there is no 'unicorn'; known: anything, person, bicycle"),
        ({"score": 1.5}, "score: 0 to 1 needed"),
        ({"every": 0}, "every: 1 frame or more"),
    ],
)
def test_what_cannot_be_used_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        detect_masks(torch.rand(1, 40, 48, 3), seen, **settings)


def test_frames_of_no_clip_are_refused() -> None:
    with pytest.raises(ShapeError):
        detect_masks(torch.rand(40, 48, 3), seen)


def test_classes_are_numbered_as_torchvision_numbers_them() -> None:
    names = detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert {number: name for number, name in enumerate(names) if name not in ("__background__", "N/A")} == CLASSES
    assert len(CLASSES) == 80


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_either_version_is_read_from_a_file_and_sees_what_torchvision_s_does(tmp_path: Path, name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = getattr(detection, name)(weights=None, weights_backbone=None).eval()
    torch.save(net.state_dict(), tmp_path / f"{name}_coco-test.pth")
    loaded = load_detector(find_detector("auto", [tmp_path]))
    assert not loaded.training
    own, theirs = net.state_dict(), loaded.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)
    masks, _ = detect_masks(torch.rand(1, 32, 48, 3), loaded, score=0.0)
    assert masks.shape == (1, 32, 48)
    assert 0.0 <= float(masks.min()) <= float(masks.max()) <= 1.0


def test_the_second_version_is_taken_first(tmp_path: Path) -> None:
    for name in ("maskrcnn_resnet50_fpn_coco-a.pth", "maskrcnn_resnet50_fpn_v2_coco-b.pth"):
        (tmp_path / name).touch()
    assert find_detector("auto", [tmp_path]).name == "maskrcnn_resnet50_fpn_v2_coco-b.pth"
    assert find_detector("maskrcnn_resnet50_fpn_coco-a", [tmp_path]).name == "maskrcnn_resnet50_fpn_coco-a.pth"


def test_without_weights_a_sentence_says_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match=r"no weights are found; get maskrcnn_resnet50_fpn_v2_coco.* from https://"):
        find_detector("auto", [tmp_path])
    with pytest.raises(WeightsError, match="there is no 'mine'"):
        find_detector("mine", [tmp_path])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "maskrcnn_resnet50_fpn.pth")
    with pytest.raises(WeightsError, match="not the weights of torchvision's Mask R-CNN"):
        load_detector(tmp_path / "maskrcnn_resnet50_fpn.pth")
