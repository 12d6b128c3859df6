"""Training of the matting network on data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from comfyui_vdp.runner import cli
from comfyui_vdp.training import composites, matte_stages
from comfyui_vdp.training.matting_net import TrainedMatting
from comfyui_vdp.vdp_core.errors import InputError, WeightsError
from comfyui_vdp.vdp_core.nets.matting_weights import load_matting

SMALL = matte_stages.with_settings(1, frames=2, size=64)


def picture(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip and a still of a disc, two backgrounds, and a picture and a clip of segments."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    y, x = np.mgrid[:64, :96]
    for number in range(4):
        disc = ((np.hypot(x - 30 - 8 * number, y - 32) < 18) * 255).astype(np.uint8)
        red = np.dstack([np.full_like(disc, 220), np.full_like(disc, 40), np.full_like(disc, 30)])
        picture(root / "fg" / "fgr" / "clip" / f"{number}.png", red)
        picture(root / "fg" / "pha" / "clip" / f"{number}.png", disc)
        picture(
            root / "bg" / "clip" / f"{number}.png",
            np.kron(rng.integers(0, 255, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8),
        )
        for place in ("seg/images", "seg/masks"):
            array = red if place.endswith("images") else disc
            picture(root / "clips" / place[4:] / "a" / f"{number}.png", array)
    picture(root / "fg" / "fgr" / "still.png", red)
    picture(root / "fg" / "pha" / "still.png", disc)
    picture(root / "bg" / "still.png", np.full((50, 70, 3), 90, np.uint8))
    picture(root / "seg" / "images" / "a.png", red)
    picture(root / "seg" / "masks" / "a.png", disc)
    return root


def sources(data: Path) -> dict[str, list[composites.Source]]:
    return {
        "foregrounds": composites.read_foregrounds(data / "fg"),
        "backgrounds": composites.read_backgrounds(data / "bg"),
        "pictures": composites.read_segments(data / "seg"),
        "clips": composites.read_segments(data / "clips"),
    }


# What it learns from


def test_a_composite_is_its_foreground_over_its_background(data: Path) -> None:
    given = sources(data)
    first, again = (
        composites.composite(
            given["foregrounds"], given["backgrounds"], np.random.default_rng(3), frames=5, size=(48, 80)
        )
        for _ in range(2)
    )
    assert first.frames.shape == first.foreground.shape == (5, 3, 48, 80) and first.matte.shape == (5, 1, 48, 80)
    assert torch.equal(first.frames, again.frames) and torch.equal(first.matte, again.matte)
    inside = (first.matte == 1.0).expand_as(first.frames)
    assert inside.any() and torch.equal(first.frames[inside], first.foreground[inside])
    for part in (first.frames, first.foreground, first.matte):
        assert float(part.min()) >= 0.0 and float(part.max()) <= 1.0


def test_colours_of_foregrounds_have_no_rim(data: Path) -> None:
    given = sources(data)
    for seed in range(5):
        sample = composites.composite(
            given["foregrounds"], given["backgrounds"], np.random.default_rng(seed), frames=2, size=(48, 48)
        )
        red = sample.foreground[:, 0:1] - sample.foreground[:, 1:2]
        border = (sample.matte > 0.1) & (sample.matte < 0.9)
        core = sample.matte > 0.99
        if border.any() and core.any():
            assert float(red[border].mean()) == pytest.approx(float(red[core].mean()), abs=0.1)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_times_stay_inside_a_clip(length: int) -> None:
    for seed in range(50):
        times = composites._times(length, np.random.default_rng(seed), 9)
        assert len(times) == 9 and times.min() >= 0 and times.max() < length
        assert np.abs(np.diff(times)).max() <= 2


def test_segments_are_masks(data: Path) -> None:
    frames, mask = composites.segments(sources(data)["clips"], np.random.default_rng(1), frames=3, size=(48, 48))
    assert frames.shape == (3, 3, 48, 48) and mask.shape == (3, 1, 48, 48)
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_folders_that_hold_nothing_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        composites.read_backgrounds(tmp_path / "gone")
    with pytest.raises(InputError, match="holds no backgrounds; give videos"):
        composites.read_backgrounds(tmp_path)
    with pytest.raises(InputError, match="has no folders images and masks"):
        composites.read_segments(data / "bg")
    picture(tmp_path / "fgr" / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "pha").mkdir()
    with pytest.raises(InputError, match=r"a\.png: nothing in .*pha is called a"):
        composites.read_foregrounds(tmp_path)
    with pytest.raises(InputError, match="has no alpha"):
        composites.read_foregrounds(data / "bg")
    opaque = composites.read_backgrounds(data / "bg")
    with pytest.raises(InputError, match="has no alpha"):
        composites.composite(opaque, opaque, np.random.default_rng(0), frames=1, size=(32, 32))


# The network


def test_what_is_trained_is_folded_to_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = TrainedMatting()
    assert len(net.normalised) == 54  # as the published network has them
    frames = torch.rand(2, 3, 40, 64)
    with torch.no_grad():
        net.net(frames, ratio=0.5)  # statistics
        net.eval()
        wanted = net.net(frames, ratio=0.5)
    matte_stages._write(net, tmp_path / "trained.safetensors", tmp_path / "weights.safetensors")
    found = load_matting(tmp_path / "weights.safetensors")(frames, ratio=0.5)
    for one, other in zip(wanted[:2], found[:2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    again = TrainedMatting.of_file(tmp_path / "trained.safetensors").eval()
    with torch.no_grad():
        assert torch.equal(again.net(frames, ratio=0.5)[1], wanted[1])
    bare = TrainedMatting.of_file(tmp_path / "weights.safetensors")
    assert not bare.normalised


def test_the_backbone_of_torchvision_and_other_files(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_large(weights=None)
    torch.save(model.state_dict(), tmp_path / "mobilenet_v3_large-1.pth")
    net = TrainedMatting.of_file(tmp_path / "mobilenet_v3_large-1.pth").eval()
    frames = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        normed = (frames - net.net.backbone.mean) / net.net.backbone.deviation
        torch.testing.assert_close(net.net.backbone(frames)[2], model.eval().features[:7](normed))
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not that of a matting network"):
        TrainedMatting.of_file(tmp_path / "other.pth")


# Stages


def test_training_that_is_cut_off_resumes_to_the_same_loss(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off: Callable[..., Any]
) -> None:
    monkeypatch.setattr(matte_stages, "find_weights", lambda names, folders: None)

    def train(folder: Path, told) -> Path:
        return matte_stages.train_stage(folder, 1, **sources(data), stage=SMALL, steps=4, tell=told)

    lines, rest, tell = cut_off(train)
    second = load_file(rest)
    assert {"alpha", "pyramid", "steady", "foreground", "steady_foreground", "segments"} <= lines[0].keys()

    # the next stages begin where the first ended, and bring in the refiner
    with pytest.raises(InputError, match="train stage 2 first"):
        matte_stages.train_stage(tmp_path / "cut", 3, **sources(data))
    third = matte_stages.with_settings(3, frames=1, size=64)
    begin = tmp_path / "cut" / "stage1" / "trained.safetensors"
    done = matte_stages.train_stage(
        tmp_path / "cut", 3, **sources(data), stage=third, steps=1, weights=begin, tell=tell
    )
    moved = load_file(done)["refiner.conv.6.weight"]
    assert not torch.equal(moved, second["refiner.conv.6.weight"]) and "high_alpha" in lines[-1]
    load_matting(done)


@pytest.mark.slow
def test_it_learns(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matte_stages, "find_weights", lambda names, folders: None)
    lines: list[dict[str, float]] = []
    stage = matte_stages.with_settings(1, frames=3, size=64)
    given = sources(data) | {"clips": []}
    matte_stages.train_stage(
        tmp_path, 1, **given, stage=stage, steps=60, tell=lambda line: lines.append(json.loads(line))
    )
    told = [line for line in lines if "alpha" in line]
    assert sum(line["alpha"] for line in told[-3:]) < 0.7 * sum(line["alpha"] for line in told[:3])


def test_stages_are_the_published_ones() -> None:
    assert [(one.frames, one.epochs, one.rest) for one in matte_stages.STAGES.values()] == [
        (15, 20, 2e-4),
        (50, 2, 1e-4),
        (40, 1, 1e-5),
        (40, 5, 5e-5),
    ]
    net = TrainedMatting()
    rates = {group["lr"]: sum(part.numel() for part in group["params"]) for group in net.groups(1e-4, 0.0, 2e-4)}
    assert rates[1e-4] == sum(part.numel() for part in net.net.backbone.parameters())
    assert set(rates) == {1e-4, 2e-4}


def test_from_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "matte", str(tmp_path / "t"), "--foregrounds", str(data / "fg")]
    assert cli.main(arguments) == 2
    arguments += ["--backgrounds", str(data / "bg"), "--size", "64", "--frames", "1", "--steps", "1"]
    assert cli.main(arguments) == 0
    load_matting(json.loads(capsys.readouterr().out.splitlines()[-1])["weights"])
    assert cli.main([*arguments, "--stage", "3"]) == 1
    assert "train stage 2 first" in capsys.readouterr().err
