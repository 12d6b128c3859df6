"""Training of the matting network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from comfyui_vdp.runner import cli
from comfyui_vdp.training import matte as training
from comfyui_vdp.vdp_core.edit.matte_video import matte_video
from comfyui_vdp.vdp_core.errors import InputError, MediaError, VDPError
from comfyui_vdp.vdp_core.media.clip import write_clip
from comfyui_vdp.vdp_core.models.masks import matte_and_colours
from comfyui_vdp.vdp_core.nets.matting_weights import load_matting
from comfyui_vdp.vdp_core.nets.recurrent_matting import RecurrentMatting

SIZE = (64, 96)


def rendered(count: int) -> tuple[Tensor, Tensor]:
    """A red disc with a soft border that moves over a grey pattern, and its matte."""
    generator = torch.Generator().manual_seed(0)
    ground = torch.rand(1, 1, 9, 13, generator=generator)
    ground = torch.nn.functional.interpolate(ground, size=SIZE, mode="bicubic").clamp(0.0, 1.0)[0].movedim(0, -1)
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    centres = torch.linspace(24.0, 72.0, count)
    matte = torch.stack([(16.0 - torch.hypot(x - centre, y - 32.0)).div(4.0).clamp(0.0, 1.0) for centre in centres])
    frames = matte[..., None] * torch.tensor([0.9, 0.2, 0.1]) + (1.0 - matte[..., None]) * ground
    return frames, matte


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that has learnt nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    training.save_weights(RecurrentMatting(), path)
    return path


def error(frames: Tensor, truth: Tensor, weights: Path, frames_of: list[int]) -> float:
    found = matte_and_colours(matte_video(frames, weights))[0]
    return float((found[:] - truth)[frames_of].abs().mean())


@pytest.mark.slow
def test_a_few_corrected_frames_improve_the_others(weights: Path, tmp_path: Path) -> None:
    frames, truth = rendered(12)
    corrected = {number: truth[number] for number in (1, 5, 10)}
    others = [number for number in range(12) if number not in corrected]
    done = training.fine_tune(frames, corrected, weights, tmp_path, steps=60, rate=1e-3, window=3, tell=lambda _: None)
    before, after = (error(frames, truth, path, others) for path in (weights, done))
    nearest = [min(corrected, key=lambda number: abs(number - other)) for other in others]
    copied = float((truth[nearest] - truth[others]).abs().mean())
    assert after < 0.2 * before and after < 0.2 * copied


def test_training_that_is_cut_off_goes_on_to_the_same_weights(
    weights: Path, tmp_path: Path, cut_off: Callable[..., Any]
) -> None:
    frames, truth = rendered(6)
    corrected = {number: truth[number] for number in (1, 4)}

    def train(folder: Path, told) -> Path:
        return training.fine_tune(frames, corrected, weights, folder, steps=4, window=2, tell=told)

    lines, rest, tell = cut_off(train)
    lines.clear()
    assert train(tmp_path / "cut", tell) == rest and lines[0]["step"] == 4 and len(lines) == 1
    with pytest.raises(InputError, match="holds a training whose steps is 4, not 5"):
        training.fine_tune(frames, corrected, weights, tmp_path / "cut", steps=5, window=2)


def test_a_small_copy_is_refined_while_it_learns(weights: Path, tmp_path: Path) -> None:
    frames, truth = rendered(3)
    before = load_matting(weights).state_dict()
    done = training.fine_tune(frames, {2: truth[2]}, weights, tmp_path, steps=1, ratio=0.5, tell=lambda _: None)
    after = load_matting(done).state_dict()
    assert not torch.equal(before["refiner.conv.6.weight"], after["refiner.conv.6.weight"])


def test_a_matte_corrected_further_is_another_training(weights: Path, tmp_path: Path) -> None:
    frames, truth = rendered(3)
    training.fine_tune(frames, {2: truth[2]}, weights, tmp_path, steps=1, tell=lambda _: None)
    with pytest.raises(InputError, match="holds a training whose corrected is"):
        training.fine_tune(frames, {2: 1.0 - truth[2]}, weights, tmp_path, steps=1, tell=lambda _: None)
    with pytest.raises(InputError, match="holds a training whose clip is"):
        training.fine_tune(1.0 - frames, {2: truth[2]}, weights, tmp_path, steps=1, tell=lambda _: None)


def test_losses() -> None:
    truth = torch.zeros(2, 1, 32, 32)
    assert all(float(term) == 0.0 for term in training.matte_losses(truth, truth, steady=[1]).values())
    # a constant difference has no details, and does not change
    terms = training.matte_losses(truth + 0.25, truth, steady=[1])
    assert float(terms["alpha"]) == 0.25 and float(terms["pyramid"]) == pytest.approx(0.0, abs=1e-6)
    assert float(terms["steady"]) == 0.0
    terms = training.matte_losses(truth + torch.tensor([0.0, 0.5]).view(2, 1, 1, 1), truth, steady=[1])
    assert float(terms["steady"]) == 5 * 0.25
    assert "steady" not in training.matte_losses(truth, truth, steady=[])


def test_corrected_mattes_are_named_by_their_frames(tmp_path: Path) -> None:
    frames, truth = rendered(6)
    for name, number in (("shot2_0004.png", 4), ("0001.png", 1)):
        Image.fromarray((truth[number].numpy() * 255).round().astype(np.uint8)).save(tmp_path / name)
    found = training.read_corrected(tmp_path, frames)
    assert list(found) == [1, 4]
    torch.testing.assert_close(found[4], truth[4], atol=0.5 / 255 + 1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("matte.png", SIZE, "matte.png: its name has no number"),
        ("0006.png", SIZE, "0006.png: the clip has no frame 6; its last is 5, the first is 0"),
        ("0002.png", (8, 8), "0002.png: is 8x8 pixels, the clip 96x64"),
        ("note.txt", SIZE, "holds no pictures"),
    ],
)
def test_mattes_that_belong_to_no_frame_are_refused(
    tmp_path: Path, name: str, size: tuple[int, int], words: str
) -> None:
    if name.endswith(".png"):
        Image.fromarray(np.full(size, 255, np.uint8)).save(tmp_path / name)
    with pytest.raises((InputError, MediaError), match=words):
        training.read_corrected(tmp_path, rendered(6)[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"window": 0}, "window: 1 frame or more"), ({"ratio": 0.1}, "downsample_ratio"), ({"refiner": "x"}, "refiner")],
)
def test_settings_that_cannot_be_used_are_refused(weights: Path, tmp_path: Path, settings, words: str) -> None:
    frames, truth = rendered(2)
    with pytest.raises(VDPError, match=words):
        training.fine_tune(frames, {0: truth[0]}, weights, tmp_path / "t", **settings)
    assert not (tmp_path / "t").exists()


def test_from_the_command_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, truth = rendered(3)
    clip = write_clip(tmp_path / "clip", frames, fps=24)
    (tmp_path / "fixed").mkdir()
    Image.fromarray((truth[1].numpy() * 255).round().astype(np.uint8)).save(tmp_path / "fixed" / "1.png")
    arguments = ["train", "matte", str(tmp_path / "t"), "--clip", str(clip), "--corrected", str(tmp_path / "fixed")]
    assert cli.main([*arguments, "--weights", str(weights), "--steps", "1"]) == 0
    load_matting(json.loads(capsys.readouterr().out.splitlines()[-1])["weights"])
    assert cli.main([*arguments, "--weights", "none.pth"]) == 1
    assert "licence GPL-3.0" in capsys.readouterr().err
    assert cli.main(arguments[:3]) == 2
