from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from clips import plain_motion
from torch.testing import assert_close

from comfyui_vdp.vdp_core.degrade import haze, hazy_depth
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, ShapeError
from comfyui_vdp.vdp_core.image.guided import joint_upsample
from comfyui_vdp.vdp_core.metrics import psnr, warping_error
from comfyui_vdp.vdp_core.models import haze as haze_model
from comfyui_vdp.vdp_core.models import render
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.optim.grids import centres, read_grid, within
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Flow, Layers

COUNT = 8
AIR = (0.78, 0.82, 0.88)


@dataclass(frozen=True)
class Case:
    """A clip whose truth is known, made hazy and taken apart."""

    clean: torch.Tensor
    motion: Flow
    hazy: torch.Tensor
    through: torch.Tensor
    flow: Flow
    layers: Layers


def scene(synthetic, count: int = COUNT, height: int = 96, width: int = 160) -> tuple[torch.Tensor, Flow]:
    """The panning scene with black somewhere in every part, as natural pictures have it."""
    frames, flow = synthetic.pan(count, height, width)
    return ((frames - 0.2) / 0.8).clamp_min(0.0), flow


@pytest.fixture(scope="module")
def pan(synthetic) -> Case:
    clean, flow = scene(synthetic)
    hazy, through = haze(clean, hazy_depth(*clean.shape[:3], seed=0), airlight=AIR)
    return Case(clean, flow, hazy, through, flow, decompose("dehaze", hazy, flow, preset="fast"))


@pytest.fixture(scope="module")
def real(filmed) -> dict[str, Case]:
    cases = {}
    for name in ("bigbuckbunny", "carphone_pristine"):
        clip = filmed(name)
        hazy, through = haze(clip.frames, hazy_depth(*clip.frames.shape[:3], seed=1), airlight=AIR)
        flow = estimate_flow(hazy, model="dis")
        layers = decompose("dehaze", hazy, flow, preset="fast")
        cases[name] = Case(clip.frames, clip.flow, hazy, through, flow, layers)
    return cases


def quick(case: Case, **settings: object) -> Layers:
    """A few steps: enough where the result need not be good."""
    return decompose("dehaze", case.hazy, case.flow, preset="fast", steps=3, **settings)


# how good it is


def test_haze_is_taken_off(pan):
    clear = haze_model.apply(pan.layers)
    assert psnr(clear, pan.clean) > psnr(pan.hazy, pan.clean) + 10
    assert warping_error(clear, pan.motion) < 1.3 * warping_error(pan.clean, pan.motion) + 0.002
    air = pan.layers.fields["airlight"].mean(dim=0).flatten()
    assert_close(air, torch.tensor(AIR), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["bigbuckbunny", "carphone_pristine"])
def test_real_clips_are_dehazed(real, name):
    case = real[name]
    clear = haze_model.apply(case.layers)
    assert psnr(clear, case.clean) > psnr(case.hazy, case.clean) + 9
    # the haze of these twelve frames changes twice as fast as that of the benchmark, which asks for 1.3
    motion = plain_motion(case.clean)
    assert warping_error(clear, motion) < 1.6 * warping_error(case.clean, motion)


def test_a_bright_scene_in_dense_haze_is_not_made_worse(real):
    """It looks as a dark scene in denser haze does, and must not be taken for one."""
    bright = 1.0 - 0.45 * (1.0 - real["bigbuckbunny"].clean)
    hazy, _ = haze(bright, hazy_depth(*bright.shape[:3], seed=1), beta=2.0, airlight=(0.95, 0.95, 0.95))
    layers = decompose("dehaze", hazy, estimate_flow(hazy, model="dis"), preset="fast")
    assert psnr(haze_model.apply(layers), bright) > psnr(hazy, bright) - 0.5


@pytest.mark.parametrize("name", ["bigbuckbunny", "carphone_pristine"])
def test_a_clear_clip_is_left_alone_and_told_so(real, name):
    case = real[name]
    layers = decompose("dehaze", case.clean, case.motion, preset="fast")
    assert psnr(haze_model.apply(layers, denoise=0.0), case.clean) > 30
    assert "hardly any haze" in layers.info["warning"]


@pytest.mark.parametrize("name", ["bigbuckbunny", "carphone_pristine"])
def test_haze_behind_bars_is_found_as_without_them(real, name):
    case = real[name]
    wide = case.clean.shape[2]
    picture = slice(wide // 4, wide - wide // 4)
    barred = torch.zeros_like(case.hazy)
    barred[:, :, picture] = case.hazy[:, :, picture]
    layers = decompose("dehaze", barred, estimate_flow(barred, model="dis"), preset="fast")
    clear = haze_model.apply(layers)
    assert psnr(clear[:, :, picture], case.clean[:, :, picture]) > psnr(case.hazy, case.clean) + 7
    assert (clear - barred)[:, :, : wide // 4 - 2].abs().max() < 0.02


def test_haze_that_is_not_sure_is_taken_off_as_far_as_it_is(by_hand):
    # t is a half; doubt is 0.4 log 4 = 0.8 log 2, and leaves 1 - 0.8^2 of log t
    unsure = replace(by_hand, fields={**by_hand.fields, "confidence": torch.full((2, 1, 1, 1), 0.25)})
    wanted = (0.8 + (by_hand.frames - 0.8) * 2.0**0.36).clamp(0.0, 1.0)
    assert_close(haze_model.apply(unsure), wanted, atol=1e-5, rtol=0)
    assert_close(haze_model.rebuild(unsure, 0, 2, wanted), by_hand.frames, atol=1e-5, rtol=0)
    # 0.4 log 16 is more than log 2
    doubtful = replace(by_hand, fields={**by_hand.fields, "confidence": torch.full((2, 1, 1, 1), 1 / 16)})
    assert_close(haze_model.apply(doubtful), by_hand.frames, atol=1e-5, rtol=0)
    believed = (0.8 + (by_hand.frames - 0.8) * 2.0).clamp(0.0, 1.0)
    assert_close(haze_model.apply(unsure, believe=True), believed, atol=1e-5, rtol=0)


def test_far_colours_are_held_back_as_far_as_the_airlight_is_not_known(by_hand):
    error = torch.full((2, 1, 1, 1), 0.5)
    doubted = replace(by_hand, fields={**by_hand.fields, "chroma_error": error})
    clear = 0.8 + (by_hand.frames - 0.8) * 2.0
    grey = (clear * torch.tensor([0.2126, 0.7152, 0.0722])).sum(dim=-1, keepdim=True)
    # t is a half: an error of the airlight is one of 1 / t - 1 = 1 of the clear colour
    wanted = grey + (clear - grey) / (1 + 0.5**2)
    assert_close(haze_model.compose(doubted, 0, 2, by_hand.frames), wanted, atol=1e-5, rtol=0)
    assert_close(haze_model.rebuild(doubted, 0, 2, wanted), by_hand.frames, atol=1e-5, rtol=0)
    for strength in (0.0, -1.0):  # what is only made hazier keeps its colours
        settings = {"strength": strength, "denoise": 0.0}
        assert torch.equal(haze_model.apply(doubted, **settings), haze_model.apply(by_hand, **settings))


def test_layers_of_earlier_versions_show_what_they_showed(by_hand):
    """They have no confidence: it was in t. They doubt no colour."""
    assert not {"confidence", "chroma_error"} & set(by_hand.fields)
    assert torch.equal(haze_model.apply(by_hand), haze_model.apply(by_hand, believe=True))


@pytest.mark.parametrize("name", ["bigbuckbunny", "carphone_pristine"])
def test_a_clear_clip_is_taken_for_hazy_by_who_believes(real, name):
    case = real[name]
    layers = decompose("dehaze", case.clean, case.motion, preset="fast")
    auto, believed = (haze_model.apply(layers, denoise=0.0, believe=believe) for believe in (False, True))
    assert psnr(believed, case.clean) < psnr(auto, case.clean) - 3
    assert "believe" in layers.info["warning"]


def test_noise_in_far_haze_is_not_blown_up(pan):
    hazy, _ = haze(pan.clean, hazy_depth(*pan.clean.shape[:3], seed=0), airlight=AIR, noise=0.02)
    air = torch.tensor(AIR).view(1, 3, 1, 1).expand(COUNT, -1, -1, -1)
    layers = decompose("dehaze", hazy, pan.flow, preset="fast", steps=1)
    layers = replace(layers, fields={**layers.fields, "transmission": pan.through[:, None], "airlight": air})
    noisy, quiet = (haze_model.apply(layers, denoise=value, believe=True) for value in (0.0, 1.0))
    assert psnr(quiet, pan.clean) > psnr(noisy, pan.clean) + 2


def test_even_frames_stay_even():
    grey = torch.full((3, 32, 48, 3), 0.6)
    flow = estimate_flow(grey, model="dis")
    clear = haze_model.apply(decompose("dehaze", grey, flow, preset="fast"))
    assert_close(clear, clear[:1, :1, :1].expand_as(clear), atol=1 / 255, rtol=0)


# what is in the layers


def test_the_layers_say_how_they_were_made(pan):
    layers = pan.layers
    assert (layers.model, layers.seed, len(layers)) == ("dehaze", 0, COUNT)
    assert layers.frames.data_ptr() == pan.hazy.data_ptr()
    assert layers.flow is pan.flow
    assert layers.fields["transmission"].shape[:2] == (COUNT, 1)
    assert layers.assets["guide_eps"] == haze_model.UPSAMPLING_EPS
    assert 0.0 < layers.fields["transmission"].min() <= layers.fields["transmission"].max() <= 1.0
    assert layers.fields["airlight"].shape == (COUNT, 3, 1, 1)
    assert layers.fields["confidence"].shape == (COUNT, 1, 1, 1)
    assert layers.fields["confidence"].min() > 0.8
    assert not any(field.requires_grad for field in layers.fields.values())
    assert layers.info["preset"] == "fast"
    assert 0 < int(layers.info["steps"]) <= TASKS["dehaze"].presets["fast"].config.steps
    assert "airlight (0." in layers.info["said"]
    assert "warning" not in layers.info
    haze_model.MODEL.check(layers)


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (16, 120), (90, 31), (16, 640), (1000, 17)])
def test_any_size_and_two_frames(synthetic, size):
    clean, flow = scene(synthetic, 2, *size)
    hazy, _ = haze(clean, hazy_depth(2, *size, seed=0))
    clear = haze_model.apply(decompose("dehaze", hazy, flow, preset="fast"))
    assert psnr(clear, clean) > psnr(hazy, clean) + 1.5


def test_layers_are_saved_and_loaded(pan, tmp_path):
    layers = load_layers(save_layers(pan.layers, tmp_path / "haze.safetensors"))
    assert torch.equal(haze_model.apply(layers, denoise=0.0), haze_model.apply(pan.layers, denoise=0.0))


def test_the_same_seed_gives_the_same_layers(pan):
    first, again, other = (quick(pan, seed=seed) for seed in (4, 4, 5))
    for name in ("transmission", "airlight"):
        assert torch.equal(first.fields[name], again.fields[name])
    assert not torch.equal(first.fields["airlight"], other.fields["airlight"])


def test_random_numbers_of_others_are_left_alone(pan):
    before = torch.random.get_rng_state()
    quick(pan)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_given_is_changed(pan):
    kept, vectors = pan.hazy.clone(), pan.flow.forward.clone()
    haze_model.apply(quick(pan))
    assert torch.equal(pan.hazy, kept)
    assert torch.equal(pan.flow.forward, vectors)


def test_objects_in_front_of_the_haze_keep_their_outline(synthetic):
    clean, flow = scene(synthetic, 8)
    near = (torch.arange(160.0) - 80).abs().expand(8, 96, 160) < 30
    near = near & ((torch.arange(96.0) - 50).abs()[:, None] < 25)
    depth = torch.where(near, 0.1, hazy_depth(8, 96, 160, seed=3))
    hazy, through = haze(clean, depth, airlight=AIR)
    field = decompose("dehaze", hazy, flow, preset="fast").fields["transmission"]
    found = torch.nn.functional.interpolate(field, size=(96, 160), mode="bilinear")[:, 0]
    inside, ring = found[:, 35:65, 60:100], torch.cat((found[:, 20:70, 35:45], found[:, 20:70, 115:125]), dim=2)
    truth = (
        through[:, 35:65, 60:100].mean() - torch.cat((through[:, 20:70, 35:45], through[:, 20:70, 115:125]), 2).mean()
    )
    assert inside.mean() - ring.mean() > 0.6 * truth


def test_objects_at_the_sides_are_found_where_they_are(synthetic):
    height, width = 192, 320
    clean, flow = scene(synthetic, 8, height, width)
    x, y = torch.arange(float(width)), torch.arange(float(height))[:, None]
    near = (((x - 50).abs() < 28) | ((x - 270).abs() < 28)) & ((y - 96).abs() < 50)
    depth = torch.where(near.expand(8, -1, -1), 0.1, hazy_depth(8, height, width, seed=3))
    hazy, through = haze(clean, depth, airlight=AIR)
    layers = decompose("dehaze", hazy, flow, preset="fast")

    def middles(field: torch.Tensor) -> torch.Tensor:
        """The columns between the steepest rises and falls of each half of a field."""
        slope, place = field[:, 50:140].mean(dim=(0, 1)).diff(), torch.arange(width - 1) + 0.5
        outlines = []
        for half in (place < 160, place > 160):
            for steep in (slope[half].clamp_min(0) ** 2, slope[half].clamp_max(0) ** 2):
                outlines.append((steep * place[half]).sum() / steep.sum())
        return torch.stack(outlines).view(2, 2).mean(dim=1)

    found = haze_model.transmission(layers, 0, 8, hazy)[..., 0]
    assert_close(middles(through), torch.tensor([50.0, 270.0]), atol=0.5, rtol=0)
    # half a sample of the field is three columns
    assert (middles(found) - middles(through)).abs().max() < 1.5


def test_what_the_fit_reads_at_a_pixel_is_shown_there():
    columns = torch.arange(50.0).expand(1, 28, 50)
    frames = torch.full((1, 108, 192, 3), 0.5)
    how = {"radius": haze_model.UPSAMPLING_RADIUS, "eps": haze_model.UPSAMPLING_EPS, "continued": True}
    shown = joint_upsample(columns[None], frames, **how)[0, 0, 54]
    x = centres(torch.arange(192.0), 192)
    places = within(torch.stack((x, torch.zeros(192), torch.zeros(192)), dim=-1), (2, 28, 50))
    read = read_grid(columns.expand(2, -1, -1), places)
    inner = slice(32, -32)  # (the filter averages beyond the border)
    assert_close(shown[inner], read[inner], atol=0.02, rtol=0)


# steps and interruption


class Stop(BaseException):
    """What a host raises to interrupt."""


def test_every_step_is_told_with_a_picture(pan):
    told = []
    quick(pan, on_step=lambda done, total, preview: told.append((done, total, preview())))
    assert [entry[:2] for entry in told] == [(1, 3), (2, 3), (3, 3)]
    picture = told[-1][2]
    assert picture.shape == (96, 160, 3)
    assert not picture.requires_grad
    assert 0.0 <= picture.min() <= picture.max() <= 1.0


def test_an_interruption_comes_through(pan):
    def stop(done: int, *_: object) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        quick(pan, on_step=stop)


def test_applying_tells_its_steps(pan, monkeypatch):
    monkeypatch.setattr(render, "PIXELS_AT_ONCE", 3 * 96 * 160)
    told = []
    clear = haze_model.apply(pan.layers, on_step=lambda done, total, preview: told.append((done, total, preview())))
    assert [entry[:2] for entry in told] == [(3, 8), (6, 8), (8, 8)]
    assert torch.equal(told[-1][2], clear[-1])


# the sliders


@pytest.fixture(scope="module")
def by_hand() -> Layers:
    """Half of the light comes through a grey airlight of 0.8, everywhere."""
    frames = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.4
    fields = {"transmission": torch.full((2, 1, 4, 4), 0.5), "airlight": torch.full((2, 3, 1, 1), 0.8)}
    return Layers("dehaze", {**fields, "noise": torch.zeros(2, 7, 1, 1)}, frames)


@pytest.mark.parametrize(("strength", "factor"), [(1.0, 2.0), (0.5, 2.0**0.5), (0.0, 1.0), (-1.0, 0.5)])
def test_strength_takes_haze_off_or_puts_it_on(by_hand, strength, factor):
    wanted = (0.8 + (by_hand.frames - 0.8) * factor).clamp(0.0, 1.0)
    assert_close(haze_model.apply(by_hand, strength=strength), wanted, atol=1e-5, rtol=0)


def test_strength_0_without_noise_removal_is_the_input(pan):
    assert_close(haze_model.apply(pan.layers, strength=0.0, denoise=0.0), pan.hazy, atol=1e-6, rtol=0)


def test_no_less_than_the_least_transmission_is_undone(by_hand):
    wanted = (0.8 + (by_hand.frames - 0.8) / 0.8).clamp(0.0, 1.0)
    assert_close(haze_model.apply(by_hand, min_transmission=0.8), wanted, atol=1e-5, rtol=0)


def test_a_warmer_airlight_leaves_a_cooler_scene(by_hand):
    air = 0.8 * torch.tensor([0.1, 0.0, -0.1]).exp()
    warm = haze_model.apply(by_hand, tint=1.0)
    assert_close(warm, (air + (by_hand.frames - air) / 0.5).clamp(0.0, 1.0), atol=1e-5, rtol=0)
    plain = haze_model.apply(by_hand)
    assert float(warm[..., 0].mean()) < float(plain[..., 0].mean()) - 0.05
    assert float(warm[..., 2].mean()) > float(plain[..., 2].mean()) + 0.05


@pytest.mark.parametrize("at_once", [1, 3 * 96 * 160])
def test_the_number_of_frames_at_once_changes_nothing(pan, monkeypatch, at_once):
    plain = haze_model.apply(pan.layers)
    monkeypatch.setattr(render, "PIXELS_AT_ONCE", at_once)
    assert_close(haze_model.apply(pan.layers), plain, atol=1e-6, rtol=0)


# refusals


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"frames": torch.rand(1, 96, 160, 3)}, ShapeError, "got 1 frame, motion needs at least two frames"),
        ({"frames": torch.rand(5, 96, 160, 3)}, ShapeError, "holds 7 frame pairs, a clip of 5 frames has 4"),
        ({"frames": torch.rand(8, 1, 1, 3)}, ShapeError, "1x1 pixels, at least 16x16 needed"),
        ({"flow": None}, InputError, "flow: the task dehaze needs the motion of the clip; link RAFTFlow"),
        ({"preset": "best"}, InputError, "no 'best'; known: fast, balanced, quality, paper"),
        ({"steps": -1}, InputError, "steps: 0 for the preset's, or more, got -1"),
        ({"reference": torch.rand(1, 96, 160, 3)}, InputError, "reference: the task dehaze takes none; unlink it"),
        ({"mask": torch.rand(1, 96, 160)}, InputError, "mask: the task dehaze takes none; unlink it"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(pan, settings, error, words):
    def never(*_: object) -> None:
        raise AssertionError("work was started")

    with pytest.raises(error, match=words) as refused:
        decompose("dehaze", **{"frames": pan.hazy, "flow": pan.flow, "on_step": never, **settings})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strength": 1.5}, "strength: -1 to 1 needed, got 1.5"),
        ({"min_transmission": -0.1}, "min_transmission: 0 to 1 needed, got -0.1"),
        ({"tint": float("nan")}, "tint: -1 to 1 needed"),
        ({"denoise": 2.0}, "denoise: 0 to 1 needed, got 2.0"),
    ],
)
def test_settings_out_of_range_are_refused(by_hand, settings, words):
    with pytest.raises(InputError, match=words):
        haze_model.apply(by_hand, **settings)


def test_layers_of_another_model_are_refused(by_hand):
    with pytest.raises(InputError, match="of the model 'relight', Dehaze needs 'dehaze'"):
        haze_model.apply(replace(by_hand, model="relight"))


def test_layers_that_lack_something_are_refused(by_hand):
    for name in by_hand.fields:
        left = {key: value for key, value in by_hand.fields.items() if key != name}
        with pytest.raises(LayersFileError, match=f"no (usable )?'{name}'"):
            haze_model.MODEL.check(replace(by_hand, fields=left))


def test_the_paper_preset_is_given_an_airlight(pan, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    told = []
    layers = decompose(
        "dehaze", pan.hazy, pan.flow, preset="paper", steps=2, on_step=lambda *state: told.append(state[:2])
    )
    haze_model.MODEL.check(layers)
    assert told[-1] == (2, 2)
    assert {done for done, _ in told} == {0, 1, 2}
    assert_close(layers.fields["airlight"].mean(dim=0).flatten(), torch.tensor(AIR), atol=0.02, rtol=0)
