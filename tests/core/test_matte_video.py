"""Mattes of whole clips, with random weights that see something everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from plain_matting import trained
from torch import Tensor, nn

from comfyui_vdp.vdp_core.edit import matte_video as module
from comfyui_vdp.vdp_core.edit.composite import composite
from comfyui_vdp.vdp_core.edit.layers import add_background, replace_layer, split_layer
from comfyui_vdp.vdp_core.edit.matte_video import matte_video
from comfyui_vdp.vdp_core.errors import InputError, ShapeError, WeightsError
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.models.masks import MODEL, matte_and_colours
from comfyui_vdp.vdp_core.nets.matting_weights import load_matting
from comfyui_vdp.vdp_core.store import lazy
from comfyui_vdp.vdp_core.types import Layers


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose mattes are 0 in some places, 1 in others, and between in the rest."""
    net = trained("mobilenetv3")
    for last in (net.project_mat.conv, net.refiner.conv[-1]):
        assert isinstance(last, nn.Conv2d)
        last.weight.data[3] *= 3.0
    path = tmp_path_factory.mktemp("weights") / "rvm_mobilenetv3.pth"
    torch.save(net.state_dict(), path)
    return path


def scene(count: int, seed: int = 0, height: int = 72, width: int = 96) -> Tensor:
    """A shot ``(T, H, W, 3)``: smooth colours that move right by a pixel a frame."""
    coarse = torch.rand(1, 3, 10, 20, generator=torch.Generator().manual_seed(seed))
    wide = nn.functional.interpolate(coarse, size=(height, 2 * width), mode="bicubic").clamp(0.0, 1.0)[0].movedim(0, -1)
    return torch.stack([wide[:, width - index : 2 * width - index] for index in range(count)])


@torch.no_grad()
def as_published(weights: Path, frames: Tensor, ratio: float, refiner: str = "deep") -> tuple[Tensor, Tensor]:
    """Mattes ``(T, H, W)`` and foregrounds ``(T, H, W, 3)`` of one shot, all frames in one call."""
    foregrounds, mattes, _ = load_matting(weights)(frames.movedim(-1, 1), ratio=ratio, refiner=refiner)
    return mattes[:, 0], foregrounds.movedim(1, -1)


@pytest.mark.parametrize(("ratio", "refiner"), [(1.0, "deep"), (0.5, "deep"), (0.5, "fast"), (0.37, "deep")])
@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_give_what_the_network_gives_at_once(weights: Path, ratio: float, refiner: str, chunk: int) -> None:
    frames = scene(6)
    layers = matte_video(frames, weights, ratio=ratio, refiner=refiner, chunk=chunk)
    matte, colours = matte_and_colours(layers)
    mattes, foregrounds = as_published(weights, frames, ratio, refiner)
    assert 0.1 < mattes.mean() < 0.9
    assert (matte - mattes).abs().max() < 1e-4
    assert ((colours - foregrounds) * mattes[..., None]).abs().max() < 1e-4
    assert not colours[matte == 0.0].any()


def test_outside_the_part_that_is_worked_on_there_is_nobody() -> None:
    """Lines that are above 0 in one sample only, also where a sample is no whole number of pixels."""
    generator = torch.Generator().manual_seed(0)
    for size, small in (((72, 96), (36, 48)), ((41, 53), (17, 22)), ((40, 60), (10, 20))):
        frames = torch.rand(1, *size, 3, generator=generator)
        lines = 0.2 * torch.randn(1, 8, *small, generator=generator)
        lines[:, 3], lines[:, 7] = 0.1, -0.5
        lines[:, 7, 4, 15] = 3.0
        ((colours, matte),) = module._pictures(frames, lines, torch.device("cpu"), 0)
        wanted = nn.functional.interpolate(lines[:, 3:4], size=size, mode="bilinear") * frames.mean(dim=-1)[:, None]
        wanted = (wanted + nn.functional.interpolate(lines[:, 7:], size=size, mode="bilinear")).clamp(0.0, 1.0)[0, 0]
        assert (matte - wanted).abs().max() < 1e-5
        assert (matte > 0.0).any()
        part, _ = module._somebody(lines[0], size)
        assert part[0].stop - part[0].start < size[0] or size == (41, 53)
        assert not colours[matte == 0.0].any()


def test_the_network_forgets_at_a_cut(weights: Path) -> None:
    first, second = scene(7), scene(8, seed=5)
    matte, _ = matte_and_colours(matte_video(torch.cat((first, second)), weights, ratio=0.5))
    for part, shot in ((matte[:7], first), (matte[7:], second)):
        assert (part - as_published(weights, shot, 0.5)[0]).abs().max() < 1e-4


def test_warming_up_shows_the_beginning_backwards(weights: Path) -> None:
    frames = scene(8)
    matte, _ = matte_and_colours(matte_video(frames, weights, ratio=0.5, warm_up=3, chunk=2))
    wanted, _ = as_published(weights, torch.cat((frames[[3, 2, 1]], frames)), 0.5)
    assert (matte - wanted[3:]).abs().max() < 1e-4
    assert (matte[0] - as_published(weights, frames, 0.5)[0][0]).abs().max() > 1e-3
    alone, _ = matte_and_colours(matte_video(frames[:1], weights, ratio=0.5, warm_up=3))  # nothing to warm up with
    assert (alone - as_published(weights, frames[:1], 0.5)[0]).abs().max() < 1e-4


@pytest.fixture
def layers(weights: Path) -> Layers:
    return matte_video(scene(5), weights, ratio=0.5)


def test_a_composite_is_people_over_the_background(layers: Layers) -> None:
    matte, colours = matte_and_colours(layers)
    behind = torch.tensor([0.2, 0.9, 0.4]).view(1, 1, 1, 3)
    frames, shown = composite(add_background(layers, behind))
    share = matte[..., None]
    assert (frames - (share * colours + (1.0 - share) * behind)).abs().max() < 1e-5
    assert (shown - matte).abs().max() < 1e-5


def test_layers_are_taken_out_and_put_back(layers: Layers) -> None:
    MODEL.check(layers)
    matte, colours = matte_and_colours(layers)
    taken, mask = split_layer(layers, 1)
    assert torch.equal(taken, colours)
    assert torch.equal(mask, matte)
    put_back = replace_layer(layers, 1, 1.0 - taken, mask=mask)
    behind = torch.zeros(1, 1, 1, 3)
    shown, _ = composite(add_background(put_back, behind))
    assert (shown - matte[..., None] * (1.0 - colours)).abs().max() < 1e-5


def test_a_file_carries_them(layers: Layers, tmp_path: Path) -> None:
    loaded = load_layers(save_layers(layers, tmp_path / "people"))
    for one, other in zip(matte_and_colours(loaded), matte_and_colours(layers), strict=True):
        assert (one - other).abs().max() < 1e-5  # 16 bits
    assert loaded.info["refiner"] == "deep"


def test_long_clips_are_made_when_they_are_looked_at(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = scene(9)
    short = matte_and_colours(matte_video(frames, weights, ratio=0.5))
    monkeypatch.setattr(lazy, "fits_in_memory", lambda size: False)
    long = matte_and_colours(matte_video(frames, weights, ratio=0.5))
    assert all(isinstance(clip, lazy.LazyFrames) for clip in long)
    for index in (7, 2, 8, 0):  # in any order
        assert all(torch.equal(one[index], other[index]) for one, other in zip(long, short, strict=True))


def test_steps_are_told_and_may_stop_the_work(weights: Path) -> None:
    told: list[tuple[int, int]] = []
    matte_video(scene(6), weights, ratio=0.5, chunk=2, on_step=lambda done, total, _: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, preview: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        matte_video(scene(6), weights, on_step=stop)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"refiner": "none"}, "refiner: there is no 'none'; known: deep, fast"),
        ({"chunk": 0}, "chunk: 1 frame or more"),
        ({"warm_up": -1}, "warm_up: 0 frames or more"),
        ({"ratio": 1.5}, "downsample_ratio: 0 for automatic, up to 1"),
        ({"ratio": 0.1}, "downsample_ratio: 0.1 makes 9x7 pixels of 96x72, 16 a side are needed; set 0.23 or more"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(weights: Path, settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        matte_video(scene(2), weights, **settings)
    if "ratio" in settings and settings["ratio"] < 1.0:
        matte_video(scene(1), weights, ratio=0.23)  # what it says is true


def test_frames_and_files_that_cannot_be_used_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="at least 16x16 needed"):
        matte_video(torch.rand(2, 12, 40, 3), weights)
    with pytest.raises(WeightsError, match="no such file"):
        matte_video(scene(2), tmp_path / "none.pth")
