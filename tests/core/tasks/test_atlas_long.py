"""The atlas of clips in which the camera goes far, comes near, and of which much does not fit in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from comfyui_vdp.vdp_core.edit.atlas import edit_frames, edit_texture
from comfyui_vdp.vdp_core.edit.points import Point, draw, follow
from comfyui_vdp.vdp_core.edit.textures import checker
from comfyui_vdp.vdp_core.errors import LayersFileError
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models import MODELS
from comfyui_vdp.vdp_core.models import atlas as model
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.optim.fit import Fitted
from comfyui_vdp.vdp_core.store import lazy, scratch
from comfyui_vdp.vdp_core.store.lazy import LazyFrames
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.atlas.mapping import SoFar
from comfyui_vdp.vdp_core.tasks.atlas.task import join
from comfyui_vdp.vdp_core.tasks.base import Found
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.tasks.segment import windows
from comfyui_vdp.vdp_core.types import Layers

HEIGHT, WIDTH = 64, 96
CPU = torch.device("cpu")


def errors(layers: Layers, follow: object, pairs: list[tuple[int, int]]) -> Tensor:
    """How far off, in pixels, points of one frame of the background come out in another, where both show them."""
    points = torch.stack(torch.meshgrid(torch.arange(4.0, WIDTH, 9), torch.arange(4.0, HEIGHT, 9), indexing="xy"), -1)
    points, found = points.reshape(-1, 2), []
    for here, there in pairs:
        truth = follow(points, here, there)
        seen = (truth > 1).all(dim=1) & (truth[:, 0] < WIDTH - 2) & (truth[:, 1] < HEIGHT - 2)
        one, other = (model.mapping_of(layers, 0, index, CPU) for index in (here, there))
        charts = model.chart_of(layers, 0, here), model.chart_of(layers, 0, there)
        places, _ = model.to_chart(layers, 0, model.to_texture(one, points[seen]), charts)
        found.append((model.to_frame(other, places)[0] - truth[seen]).norm(dim=1))
    return torch.cat(found)


def test_a_camera_that_goes_several_frames_far(synthetic):
    """Farther than there is room for to begin with, on both sides: one texture has it all."""
    clip = synthetic.layered(60, HEIGHT, WIDTH, objects=0, pan=(6.0, 1.0))
    layers = decompose("atlas", clip.frames, clip.flow, preset="fast", steps=5)
    assert "chart" not in layers.fields
    height, width = layers.assets["texture_0"].shape[1:]
    assert WIDTH + 59 * 6 <= width <= WIDTH + 59 * 6 + 20
    assert HEIGHT + 59 <= height <= HEIGHT + 59 + 20
    assert psnr(reconstruct(layers), clip.frames) > 40.0
    pairs = [(t, t + gap) for gap in (1, 7) for t in range(0, 52, 3)] + [(t + 12, t) for t in range(0, 48, 3)]
    assert errors(layers, lambda *way: clip.follow(0, *way), pairs).max() < 0.5


COUNT = 23
NEAREST = COUNT // 2


@pytest.fixture(scope="module")
def clip(synthetic):
    """A camera that comes nearer to what it sees by a factor of three, and goes back."""
    return synthetic.layered(NEAREST + 1, HEIGHT, WIDTH, objects=0, pan=(0.3, 0.1), zoom=1.105)


def time_of(index: int) -> int:
    """Which frame of the clip is shown."""
    return min(index, COUNT - 1 - index)


@pytest.fixture(scope="module")
def layers(clip) -> Layers:
    order = [time_of(index) for index in range(COUNT)]
    there, back = clip.flow.forward, clip.flow.backward
    hidden, again = clip.flow.forward_occlusion, clip.flow.backward_occlusion
    flow = replace(
        clip.flow,
        forward=torch.cat((there, back.flip(0))),
        backward=torch.cat((back, there.flip(0))),
        forward_occlusion=torch.cat((hidden, again.flip(0))),
        backward_occlusion=torch.cat((again, hidden.flip(0))),
        forward_confidence=torch.ones(COUNT - 1, HEIGHT, WIDTH),
        backward_confidence=torch.ones(COUNT - 1, HEIGHT, WIDTH),
    )
    found = decompose("atlas", clip.frames[order], flow, preset="fast", steps=5)
    MODELS["atlas"].check(found)
    return found


def test_a_camera_that_comes_near_has_charts_which_it_shares_when_it_goes_back(clip, layers):
    charts = layers.fields["chart"][:, 0]
    assert charts[NEAREST] == 0
    assert charts[0] == charts[-1] == 1
    assert charts.unique().tolist() == [0, 1]
    assert charts.diff().count_nonzero() == 2
    assert psnr(reconstruct(layers), layers.frames) > 40.0
    pairs = [(0, COUNT - 1), (0, NEAREST), (NEAREST, 0), (NEAREST, COUNT - 1), (COUNT - 1, NEAREST - 2), (3, 9)]
    off = errors(layers, lambda points, *way: clip.follow(0, points, *map(time_of, way)), pairs)
    assert off.mean() < 0.3
    assert off.max() < 1.5


def test_points_are_followed_through_seams(clip, layers):
    points = torch.tensor([(30.0, 30.0), (50.0, 35.0), (60.0, 28.0)])
    tracks = follow(layers, [Point(0, *point) for point in points.tolist()])
    beyond = int((layers.fields["chart"][:, 0] == 0).nonzero()[0])
    for index in (beyond, beyond + 1, COUNT - 1):
        truth = clip.follow(0, points, 0, time_of(index))
        assert (tracks.xy[:, index] - truth).norm(dim=1).max() < 0.5


RED = torch.tensor([0.9, 0.1, 0.1])


def disc(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Paint in the scene, in the middle of what the nearest frame shows."""
    return RED, (5.0 - torch.hypot(x - 49.0, y - 32.0)).clamp(0, 1)


@pytest.mark.parametrize("edited", [0, NEAREST])
def test_an_edited_frame_is_seen_in_all_charts(clip, layers, edited):
    order = [time_of(index) for index in range(COUNT)]
    truth = clip.painted(disc, 0)[order]
    made = edit_frames(layers, [edited], truth[edited : edited + 1])[0]
    for index in (0, 4, NEAREST, COUNT - 1):
        inside = (truth[index] - layers.frames[index]).abs().amax(dim=-1) > 0.01
        assert inside.any()
        assert (made[index] - truth[index])[inside].square().mean() < 10**-2.5
        assert torch.equal(made[index][~_near(inside)], layers.frames[index][~_near(inside)])


def _near(inside: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(inside[None].float(), 9, 1, 4)[0] > 0


@pytest.mark.parametrize("painted", [0, NEAREST])
def test_an_edit_of_a_texture_is_seen_in_all_charts(clip, layers, painted):
    middle = clip.follow(0, torch.tensor([[48.5, 32.0]]), NEAREST, time_of(painted))
    place = model.to_texture(model.mapping_of(layers, 0, painted, CPU), middle)[0]
    height, width = layers.assets["texture_0"].shape[1:]
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    alpha = (torch.hypot(x - place[0], y - place[1]) < 4.0).float()
    made = edit_texture(layers, 0, RED.expand(1, height, width, 3), alpha[None])[0]
    for index in (0, NEAREST, COUNT - 1):
        there = clip.follow(0, middle, time_of(painted), time_of(index))[0].round().long()
        assert (made[index, there[1], there[0]] - RED).abs().max() < 0.05  # in the frame's light
        changed = (made[index] != layers.frames[index]).any(dim=-1).nonzero().float().mean(dim=0)
        assert (changed.flip(0) - there).norm() < 4.0


def test_charts_of_several_shots_keep_apart(layers):
    """Places of one shot lead nowhere in the other."""
    own = {name: layers.fields[name] for name in layers.fields}
    found = Found(own, Fitted(0, 0.0, {}, "none"), {}, layers.assets)
    whole = join([found, found], [range(COUNT), range(COUNT, 2 * COUNT)], {})
    both = Layers("atlas", whole.fields, layers.frames.repeat(2, 1, 1, 1), assets=whole.assets)
    MODELS["atlas"].check(both)
    assert both.fields["chart"][:, 0].unique().tolist() == [0, 1, 2, 3]
    assert model.charts_from(both, 0, COUNT) == [3, 2]
    points = torch.tensor([[40.0, 30.0]])
    for first in (0, COUNT):
        alone, mapped = (
            model.to_texture(model.mapping_of(one, 0, index, CPU), points)
            for one, index in ((layers, 0), (both, first))
        )
        before, _ = model.to_chart(layers, 0, alone, (1, 0))
        after, _ = model.to_chart(both, 0, mapped, tuple(2 * (first > 0) + chart for chart in (1, 0)))
        shift = torch.tensor([[0.0, layers.assets["texture_0"].shape[1] * (first > 0)]])
        assert_close(after, before + shift, atol=2e-2, rtol=0)
    stays, _ = model.to_chart(both, 0, mapped, (3, 0))
    assert torch.equal(stays, mapped)


def test_charts_are_saved(layers, tmp_path):
    loaded = load_layers(save_layers(layers, tmp_path / "atlas.safetensors"))
    assert torch.equal(loaded.fields["chart"], layers.fields["chart"])
    for name in ("rows_0", "seam_0", "joined_0"):
        assert torch.equal(loaded.assets[name], layers.assets[name])


@pytest.mark.parametrize(
    "changed", [{"rows_0": torch.tensor([[0.0, 1.0]])}, {"joined_0": torch.tensor([[0, 2]])}, {"seam_0": None}]
)
def test_charts_that_are_not_whole_are_refused(layers, changed):
    assets = {name: value for name, value in {**layers.assets, **changed}.items() if value is not None}
    with pytest.raises(LayersFileError, match="the charts of layer 0, and the seams between them, are not whole"):
        MODELS["atlas"].check(replace(layers, assets=assets))


def test_seams_lead_from_chart_to_chart():
    pairs = [(0, 1), (1, 2), (0, 3), (5, 6)]
    assert model.route(pairs, 2, 3) == [(1, True), (0, True), (2, False)]
    assert model.route(pairs, 3, 3) == []
    assert model.route(pairs, 0, 6) is None


def test_places_go_through_a_seam():
    """A frame of 8x6 pixels lies at (10, 4) of a texture of 40x20, and, twice as large, at (20, 6)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 4), torch.linspace(0, 1, 5), indexing="ij")
    corners = torch.stack((8 * x, 6 * y))
    size, once, twice = (torch.tensor(pair).view(2, 1, 1) for pair in ([40.0, 20.0], [10.0, 4.0], [20.0, 6.0]))
    seam = torch.stack(((once + corners) / size, (twice + 2 * corners) / size))
    layers = Layers(
        "atlas",
        {},
        torch.zeros(1, 6, 8, 3),
        assets={"texture_0": torch.zeros(4, 20, 40), "seam_0": seam[None], "joined_0": torch.tensor([[0, 1]])},
    )
    places = torch.tensor([[9.5, 3.5], [11.5, 5.5]])  # the outer corner of the frame, and two pixels further
    found, slopes = model.to_chart(layers, 0, places, (0, 1))
    assert_close(found, torch.tensor([[19.5, 5.5], [23.5, 9.5]]))
    assert_close(slopes, 2.0 * torch.eye(2).expand(2, 2, 2), atol=5e-3, rtol=0)
    assert_close(model.to_chart(layers, 0, found, (1, 0))[0], places)


def test_a_texture_grows_as_far_as_frames_go():
    texture = SoFar((4, 6), CPU)
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    here, whole = torch.stack((x, y)), torch.ones(4, 6)
    far = torch.tensor([-40.0, 25.0]).view(2, 1, 1)
    texture.lay(torch.full((3, 4, 6), 0.25), here, whole)
    texture.lay(torch.full((3, 4, 6), 0.75), here + far, whole)
    for places, value in ((here, 0.25), (here + far, 0.75)):
        colours, known = texture.at(places)
        assert known.all()
        assert_close(colours, torch.full((3, 4, 6), value))
    assert not texture.at(here + 0.5 * far)[1].any()
    assert not texture.has_room(here * 1e6, whole)


def test_fields_of_a_long_clip_lie_in_files(synthetic, monkeypatch):
    frames, flow = synthetic.pan(4, 48, 64)
    plain = decompose("atlas", frames, flow, preset="fast", steps=2)
    monkeypatch.setattr(scratch, "fits_in_memory", lambda size: False)
    found = decompose("atlas", frames, flow, preset="fast", steps=2)
    for name in ("masks", "mapping"):
        assert found.fields[name].untyped_storage().data_ptr() in scratch._mapped
        assert torch.equal(found.fields[name], plain.fields[name])


WINDOW, SHARED = 12, 4


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that is made while it looks on, but for files and what was there before."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self._given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (list, tuple)) else (made,):
            if isinstance(tensor, Tensor) and not isinstance(tensor, LazyFrames):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self._given and storage.data_ptr() not in scratch._mapped:
                    self.bytes = max(self.bytes, storage.nbytes())
        return made


class Counted:
    """Gives frames of a clip, and knows how many of them are held at a time, at most."""

    def __init__(self, frames: Tensor) -> None:
        self._frames = frames
        self._held, self.most = 0, 0

    def frame(self, index: int) -> Tensor:
        copy = self._frames[index].numpy().copy()
        self._held += 1
        self.most = max(self.most, self._held)
        weakref.finalize(copy, self._drop)
        return torch.from_numpy(copy)

    def _drop(self) -> None:
        self._held -= 1


@pytest.fixture
def little_memory(monkeypatch) -> None:
    """Nothing that lasts fits in memory, and masks are found in short windows."""
    for module in (scratch, lazy):
        monkeypatch.setattr(module, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(lazy, "AT_ONCE", 0)
    monkeypatch.setattr(windows, "WINDOW_OVERLAP", SHARED)
    preset = TASKS["atlas"].presets["fast"]
    config = replace(preset.config, rounds=1, masks=replace(preset.config.masks, window=WINDOW, samples=64))
    monkeypatch.setitem(TASKS["atlas"].presets, "fast", replace(preset, config=config))


def test_what_is_held_at_a_time_does_not_grow_with_the_clip(synthetic, little_memory):
    """One window of masks, and three."""
    clip, found = synthetic.layered(28, 48, 64, objects=1, pan=(0.0, 0.0)), []
    for count in (12, 28):
        assert (count - SHARED) % (WINDOW - SHARED) == 0
        source = Counted(clip.frames)
        frames = LazyFrames.of(source, (count, *clip.frames.shape[1:]))
        with Largest([clip.frames, *clip.flow.tensors().values()]) as largest:
            layers = decompose("atlas", frames, clip.flow.part(0, count), preset="fast", steps=5)
            tracks = follow(layers, [Point(0, 20.0, 20.0), Point(5, 40.0, 30.0)])
            edited = frames[3].clone()
            edited[20:30, 20:30] = RED
            for made in (edit_frames(layers, [3], edited[None])[0], checker(layers, 0), draw(frames, tracks)):
                assert isinstance(made, LazyFrames)
                assert made[count - 1].shape == edited.shape
        found.append((source.most, largest.bytes))
    (few, small), (many, large) = found
    assert many == few
    assert large == small
