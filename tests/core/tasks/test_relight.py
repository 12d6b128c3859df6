from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.degrade import darken
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, ShapeError
from comfyui_vdp.vdp_core.metrics import psnr, ssim, warping_error
from comfyui_vdp.vdp_core.models import light, render
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks import TASKS, task_of
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Flow, Layers

COUNT = 8


@dataclass(frozen=True)
class Case:
    """A clip whose truth is known, darkened and taken apart."""

    clean: torch.Tensor
    motion: Flow
    dark: torch.Tensor
    flow: Flow
    layers: Layers


@pytest.fixture(scope="module")
def pan(synthetic) -> Case:
    clean, flow = synthetic.pan(COUNT)
    dark, _ = darken(clean, seed=0)
    return Case(clean, flow, dark, flow, decompose("relight", dark, flow, preset="fast"))


@pytest.fixture(scope="module")
def real(filmed) -> dict[str, Case]:
    cases = {}
    for name in ("bikes", "carphone_pristine"):
        clip = filmed(name)
        dark, _ = darken(clip.frames, seed=0)
        flow = estimate_flow(dark, model="dis")
        layers = decompose("relight", dark, flow, preset="fast")
        cases[name] = Case(clip.frames, clip.flow, dark, flow, layers)
    return cases


def quick(case: Case, **settings: object) -> Layers:
    """A few steps: enough where the result need not be good."""
    return decompose("relight", case.dark, case.flow, preset="fast", steps=3, **settings)


# how good it is


def test_a_dark_clip_is_relit(pan, synthetic):
    lit, gamma = light.apply(pan.layers), synthetic.mid_grey(pan.dark)
    assert psnr(lit, pan.clean) > psnr(gamma, pan.clean) + 8
    assert psnr(lit, pan.clean) > 27
    assert ssim(lit, pan.clean) > 0.95
    assert warping_error(lit, pan.motion) < 0.4 * warping_error(gamma, pan.motion)


@pytest.mark.parametrize(("name", "gain"), [("bikes", 5.0), ("carphone_pristine", 7.0)])
def test_real_clips_are_relit(real, synthetic, name, gain):
    case = real[name]
    lit, gamma = light.apply(case.layers), synthetic.mid_grey(case.dark)
    ours, theirs = (psnr(synthetic.exposed_like(frames, case.clean), case.clean) for frames in (lit, gamma))
    assert ours > theirs + gain
    assert ssim(lit, case.clean) > ssim(gamma, case.clean) + 0.13
    assert warping_error(lit, case.motion) < 0.5 * warping_error(gamma, case.motion)


@pytest.mark.parametrize("name", ["bikes", "carphone_pristine"])
def test_real_clips_follow_a_graded_still(real, name):
    case = real[name]
    layers = decompose("relight", case.dark, case.flow, preset="fast", reference=case.clean[8:9])
    assert layers.info["reference_frame"] == "8"
    assert psnr(light.apply(layers), case.clean) > 30


def test_the_still_may_have_another_size_and_colour(pan, synthetic):
    tint = torch.tensor([1.15, 1.0, 0.8])
    wanted = pan.clean * tint * 0.8
    still = torch.nn.functional.interpolate(wanted[5:6].movedim(-1, 1), scale_factor=0.5, mode="area").movedim(1, -1)
    layers = decompose("relight", pan.dark, pan.flow, preset="fast", reference=still, reference_frame=5)
    assert psnr(light.apply(layers), wanted) > 28
    red, green, blue = layers.fields["colour"][0].flatten().tolist()
    assert red > green > blue


def test_a_lamp_that_dims_is_made_up_for(pan):
    lamp = torch.linspace(1.0, 0.4, COUNT).view(-1, 1, 1, 1)
    lit = light.apply(decompose("relight", pan.clean.pow(1.6) * 0.4 * lamp, pan.flow, preset="fast"))
    brightness = lit.mean(dim=(1, 2, 3))
    assert brightness.std() / brightness.mean() < 0.15 * lamp.std() / lamp.mean()


def test_a_cut_is_no_change_of_light(synthetic):
    clean = torch.cat((synthetic.pan(5, seed=0)[0], synthetic.pan(5, seed=1, motion=(-1.2, 0.9))[0] * 0.7))
    dark, _ = darken(clean, seed=2)
    flow = estimate_flow(dark, model="dis")
    assert flow.backward_occlusion[4].eq(1).all()
    lit = light.apply(decompose("relight", dark, flow, preset="fast"))
    gamma = synthetic.mid_grey(dark)
    for part in (slice(0, 5), slice(5, 10)):
        ours, theirs = (psnr(synthetic.exposed_like(x[part], clean[part]), clean[part]) for x in (lit, gamma))
        assert ours > theirs + 3


@pytest.mark.parametrize(("name", "alike"), [("bikes", 33.0), ("carphone_pristine", 36.0)])
def test_a_bright_clean_clip_is_left_alone(real, name, alike):
    case = real[name]
    lit = light.apply(decompose("relight", case.clean, case.motion, preset="fast"))
    assert psnr(lit, case.clean) > alike
    assert lit.mean() == pytest.approx(float(case.clean.mean()), rel=0.05)
    assert warping_error(lit, case.motion) < 1.1 * warping_error(case.clean, case.motion)


def test_exposure_is_natural(pan):
    assert 0.35 < light.apply(pan.layers).mean() < 0.45


def ends() -> tuple[torch.Tensor, torch.Tensor]:
    """Black and white of a clip that is whole."""
    return torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)


def test_what_the_signal_does_not_hold_stays_dark_and_grey():
    held = light.Held.of(torch.zeros(1, 7, 1, 1), torch.full((1, 1, 1, 1), 2.0 / 255), *ends())
    source = torch.tensor([[0.6, 0.4, 0.8], [6.0, 4.0, 8.0], [60.0, 40.0, 80.0]])[None, None] / 255
    gain = torch.full_like(source[..., :1], 2.0).log()
    lit = held.within(2.0 * source, gain, torch.ones(1, 1, 1, 1))
    lifted = (lit.mean(dim=-1) / source.mean(dim=-1))[0, 0]
    assert_close(lifted, torch.tensor([1.0, 1.4, 1.9]), atol=0.03, rtol=0)
    saturation = ((lit.amax(dim=-1) - lit.amin(dim=-1)) / lit.amax(dim=-1))[0, 0]
    assert_close(saturation[[0, 2]], torch.tensor([0.5, 0.5]), atol=0.01, rtol=0)  # not lifted; all signal
    assert saturation[1] < 0.497


@pytest.mark.parametrize("gain", [0.5, 1.0, 3.0, 8.0])
def test_nothing_burns_out_and_lamps_keep_their_colour(gain):
    held = light.Held.of(torch.zeros(1, 7, 1, 1), torch.zeros(1, 1, 1, 1), *ends())
    lamp = torch.tensor([1.0, 0.6, 0.2])
    source = torch.linspace(0.1, 1.0, 10).view(1, 1, -1, 1) * lamp
    lit = held.within(gain * source, torch.full_like(source[..., :1], gain).log(), torch.ones(1, 1, 1, 1))
    assert_close(lit / lit[..., :1], source / source[..., :1], atol=2e-2, rtol=0)
    brightest = lit[0, 0, :, 0]
    assert brightest.diff().min() > 0.0
    assert_close(brightest[-1], torch.tensor(min(gain, 1.0)), atol=1e-4, rtol=0)


def test_what_was_taken_off_every_value_is_put_back(real):
    case = real["carphone_pristine"]
    dark = (case.clean - 0.3).clamp_min(0.0)
    layers = decompose("relight", dark, case.flow, preset="fast")
    assert 0.05 < layers.fields["black"][0].item() < 0.35
    assert decompose("relight", case.clean, case.flow, preset="fast", steps=3).fields["black"].max() < 0.01


def test_neutral_takes_off_the_colour_of_the_light(pan):
    lamp = torch.tensor([1.0, 0.8, 0.6])
    layers = decompose("relight", pan.clean * lamp, pan.flow, preset="fast", steps=3)
    warm, plain = (light.apply(layers, neutral=value, denoise=0.0).mean(dim=(0, 1, 2)) for value in (0.0, 1.0))
    assert plain[2] / plain[0] > 1.3 * warm[2] / warm[0]


def test_black_stays_black(synthetic):
    flow = synthetic.pan(3, 32, 48)[1]
    layers = decompose("relight", torch.zeros(3, 32, 48, 3), flow, preset="fast", steps=3)
    assert light.apply(layers).max() == 0.0


# what is in the layers


def test_the_layers_say_how_they_were_made(pan):
    layers = pan.layers
    assert (layers.model, layers.seed, len(layers)) == ("relight", 0, COUNT)
    assert layers.frames.data_ptr() == pan.dark.data_ptr()
    assert layers.flow is pan.flow
    assert layers.fields["log_gain"].shape == (COUNT, 1, 9, 15)
    assert layers.fields["log_gain"].requires_grad is False
    assert layers.info["preset"] == "fast"
    assert 0 < int(layers.info["steps"]) <= TASKS["relight"].presets["fast"].config.steps
    assert layers.info["stopped"] in ("plateau", "steps")
    assert float(layers.info["loss_correspondence"]) < 0.2
    light.MODEL.check(layers)


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (16, 120), (90, 31)])
def test_any_size_and_two_frames(synthetic, size):
    frames, flow = synthetic.pan(2, *size)
    layers = decompose("relight", frames * 0.2, flow, preset="fast", steps=3)
    lit = light.apply(layers)
    assert lit.shape == frames.shape
    assert lit.mean() > 1.5 * (frames * 0.2).mean()


@pytest.mark.parametrize("with_still", [False, True])
def test_the_same_seed_gives_the_same_layers(pan, with_still):
    settings = {"reference": pan.clean[2:3], "reference_frame": 2} if with_still else {}
    first, again, other = (quick(pan, seed=seed, **settings) for seed in (4, 4, 5))
    assert torch.equal(first.fields["log_gain"], again.fields["log_gain"])
    assert all(torch.equal(field, again.fields[name]) for name, field in first.fields.items())
    assert not torch.equal(first.fields["log_gain"], other.fields["log_gain"])


def test_random_numbers_of_others_are_left_alone(pan):
    before = torch.random.get_rng_state()
    quick(pan)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_given_is_changed(pan):
    dark, still = pan.dark.clone(), pan.clean[2:3].clone()
    vectors = pan.flow.forward.clone()
    light.apply(quick(pan, reference=still))
    assert torch.equal(pan.dark, dark)
    assert torch.equal(still, pan.clean[2:3])
    assert torch.equal(pan.flow.forward, vectors)


# steps and interruption


class Stop(BaseException):
    """What a host raises to interrupt."""


def test_every_step_is_told_with_a_picture(pan):
    told = []
    quick(pan, on_step=lambda done, total, preview: told.append((done, total, preview())))
    assert [entry[:2] for entry in told] == [(1, 3), (2, 3), (3, 3)]
    picture = told[-1][2]
    assert picture.shape == (77, 128, 3)
    assert picture.isfinite().all()
    assert not picture.requires_grad
    assert picture.mean() > 1.5 * pan.dark.mean()


def test_previews_do_not_change_the_result(pan):
    watched = quick(pan, reference=pan.clean[1:2], on_step=lambda done, total, preview: preview())
    assert torch.equal(watched.fields["log_gain"], quick(pan, reference=pan.clean[1:2]).fields["log_gain"])


def test_an_interruption_comes_through(pan):
    def stop(done: int, *_: object) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        quick(pan, on_step=stop)
    layers = quick(pan)
    with pytest.raises(Stop):
        light.apply(layers, on_step=lambda *_: stop(2))
    assert torch.equal(light.apply(layers), light.apply(quick(pan)))


def test_applying_tells_its_steps(pan, monkeypatch):
    monkeypatch.setattr(render, "PIXELS_AT_ONCE", 3 * 96 * 160)
    told = []
    lit = light.apply(pan.layers, on_step=lambda done, total, preview: told.append((done, total, preview())))
    assert [entry[:2] for entry in told] == [(3, 8), (6, 8), (8, 8)]
    assert torch.equal(told[-1][2], lit[-1])


# the sliders


@pytest.mark.parametrize("at_once", [1, 3 * 96 * 160, 10**9])
@pytest.mark.parametrize("denoise", [0.0, 0.7])
def test_the_number_of_frames_at_once_changes_nothing(pan, monkeypatch, at_once, denoise):
    plain = light.apply(pan.layers, denoise=denoise)
    monkeypatch.setattr(render, "PIXELS_AT_ONCE", at_once)
    assert_close(light.apply(pan.layers, denoise=denoise), plain, atol=1e-6, rtol=0)


def test_strength_0_without_noise_removal_is_the_input(pan):
    assert torch.equal(light.apply(pan.layers, strength=0.0, denoise=0.0), pan.dark)


def test_strength_goes_in_even_steps_of_the_logarithm(pan):
    # (x)^(1/2 (1 + gamma)) A^(1/2) is the geometric mean of the ends
    one, half = (light.apply(pan.layers, strength=value, denoise=0.0) for value in (1.0, 0.5))
    seen = one < 1.0
    assert_close(half[seen], (one * pan.dark).sqrt()[seen], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("stops", [-2.0, 1.0])
def test_exposure_is_in_stops_of_scene_light(pan, stops, gamma):
    plain, exposed = (light.apply(pan.layers, exposure=value, gamma=gamma, denoise=0.0) for value in (0.0, stops))
    inside = (plain < 1.0) & (exposed < 1.0)
    assert inside.float().mean() > 0.3
    assert_close(exposed[inside], plain[inside] * 2 ** (stops / 2.2), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gamma_lifts_or_lowers_the_middle(pan, gamma):
    plain, changed = (light.apply(pan.layers, gamma=value, denoise=0.0) for value in (1.0, gamma))
    inside = plain < 1.0
    assert_close(changed[inside], plain[inside] ** (1 / gamma), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("warmth", "gamma"), [(-1.0, 1.0), (0.5, 1.0), (0.5, 2.0)])
def test_warmth_trades_red_for_blue(pan, warmth, gamma):
    plain, changed = (light.apply(pan.layers, warmth=value, gamma=gamma, denoise=0.0) for value in (0.0, warmth))
    inside = ((plain < 1.0) & (changed < 1.0)).all(dim=-1)
    ratio = torch.tensor([0.2 * warmth, 0.0, -0.2 * warmth]).exp()
    assert_close(changed[inside], plain[inside] * ratio, atol=1e-6, rtol=1e-4)


def test_noise_removal_goes_from_none_to_all(pan):
    none, half, full = (light.apply(pan.layers, strength=0.0, denoise=value) for value in (0.0, 0.5, 1.0))
    assert_close(half, (none + full) / 2, atol=1e-6, rtol=0)
    # strength 0 shows the dark frames, whose truth is the darkening without its noise
    truth, _ = darken(pan.clean, seed=0, noise=0.0)
    assert psnr(full, truth) > psnr(none, truth) + 5


# refusals


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"frames": torch.rand(1, 96, 160, 3)}, ShapeError, "got 1 frame, motion needs at least two frames"),
        ({"frames": torch.rand(5, 96, 160, 3)}, ShapeError, "holds 7 frame pairs, a clip of 5 frames has 4"),
        ({"frames": torch.rand(8, 1, 1, 3)}, ShapeError, "1x1 pixels, at least 16x16 needed"),
        ({"frames": torch.full((8, 96, 160, 3), float("nan"))}, InputError, "frame 0 holds NaN"),
        ({"flow": None}, InputError, "flow: the task relight needs the motion of the clip; link RAFTFlow"),
        ({"preset": "best"}, InputError, "no 'best'; known: fast, balanced, quality, paper"),
        ({"steps": -1}, InputError, "steps: 0 for the preset's, or more, got -1"),
        ({"reference": torch.rand(1, 160, 96, 3)}, ShapeError, "still is 96x160 pixels, the frames are 160x96"),
        ({"reference": torch.rand(2, 96, 160, 3)}, ShapeError, "one graded still is needed, got 2 frames"),
        ({"reference": torch.full((1, 96, 160, 3), float("inf"))}, InputError, "reference: frame 0 holds NaN or inf"),
        ({"reference": torch.rand(1, 96, 160, 3)}, InputError, "does not look like frame [0-7] of the clip"),
        ({"reference_frame": 8}, InputError, "0 to 7 in this clip, got 8"),
        ({"reference_frame": -2}, InputError, "-1 to look for it"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(pan, settings, error, words):
    def never(*_: object) -> None:
        raise AssertionError("work was started")

    with pytest.raises(error, match=words) as refused:
        decompose("relight", **{"frames": pan.dark, "flow": pan.flow, "on_step": never, **settings})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gamma": 0.0}, "gamma: above 0 needed, got 0.0"),
        ({"neutral": -0.1}, "neutral: 0 to 1 needed, got -0.1"),
        ({"denoise": 1.5}, "denoise: 0 to 1 needed, got 1.5"),
        ({"denoise": float("nan")}, "denoise: 0 to 1 needed"),
    ],
)
def test_settings_out_of_range_are_refused(pan, settings, words):
    with pytest.raises(InputError, match=words):
        light.apply(pan.layers, **settings)


def test_layers_of_another_model_are_refused(pan):
    with pytest.raises(InputError, match="of the model 'fog', Relight needs 'relight'"):
        light.apply(replace(pan.layers, model="fog"))
    with pytest.raises(InputError, match="no 'fog'; known: relight"):
        task_of("fog")


def test_layers_that_lack_something_are_refused(pan):
    for name in ("log_gain", "colour", "gamma", "noise"):
        left = {key: value for key, value in pan.layers.fields.items() if key != name}
        with pytest.raises(LayersFileError, match=f"no (usable )?'{name}'"):
            light.MODEL.check(replace(pan.layers, fields=left))
