"""Colour that changes from frame to frame: what is applied, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.models.colour import EPSILON, MODEL, apply, compose, curves, rebuild
from comfyui_vdp.vdp_core.store import lazy
from comfyui_vdp.vdp_core.types import Flow, Layers

LOG2 = math.log(2.0)


def layers_of(frames: Tensor, **fields: Tensor) -> Layers:
    """Layers whose change is 0 but for the fields that are given."""
    count = len(frames)
    plain = {
        "grid": torch.zeros(count, 3, 4, 1, 1),
        "rows": torch.zeros(count, 3, 2),
        "saturation": torch.zeros(count, 3),
        "kept": torch.zeros(count, 3),
    }
    return Layers("colour", {**plain, **fields}, frames)


def constant(*gains: float) -> Tensor:
    """A grid of one log gain a frame."""
    return torch.tensor(gains).view(-1, 1, 1, 1, 1).expand(-1, 3, 4, 1, 1).clone()


def flat(*values: float, size: tuple[int, int] = (6, 8)) -> Tensor:
    """Frames of one grey each."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, *size, 3).clone()


def half(value: float) -> float:
    """A value whose sum with EPSILON was halved."""
    return 0.5 * (value + EPSILON) - EPSILON


def textured(count: int = 3, height: int = 12, width: int = 16) -> Tensor:
    return 0.1 + 0.7 * torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def rich() -> Layers:
    """Every part of a change at once."""
    generator = torch.Generator().manual_seed(2)
    grid = 0.2 * torch.randn(3, 3, 1, 1, 1, generator=generator)
    fields = {
        "grid": grid + 0.04 * torch.randn(3, 3, 8, 3, 4, generator=generator),
        "rows": 0.1 * torch.randn(3, 3, 5, generator=generator),
        "saturation": 0.1 * torch.randn(3, 3, generator=generator),
        "kept": 0.1 * torch.randn(3, 3, generator=generator),
    }
    return layers_of(textured(), **fields)


def test_a_frame_of_half_the_light_becomes_right() -> None:
    frames = flat(0.4, half(0.4), 0.4)
    made = apply(layers_of(frames, grid=constant(0.0, LOG2, 0.0)))
    torch.testing.assert_close(made, flat(0.4, 0.4, 0.4))


def test_grey_stays_grey() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 6, 8, 1, generator=generator).expand(-1, -1, -1, 3)
    grid = 0.3 * torch.randn(2, 1, 4, 2, 3, generator=generator).expand(-1, 3, -1, -1, -1)
    made = apply(layers_of(frames, grid=grid, saturation=torch.full((2, 3), 0.4)))
    assert not torch.equal(made, frames)
    torch.testing.assert_close(made, made[..., :1].expand_as(made))


def test_a_gain_of_dark_values_leaves_bright_ones() -> None:
    grid = torch.zeros(1, 3, 3, 1, 1)
    grid[:, :, 0] = 1.0  # knots at 0, 1/4 and 1
    frames = flat(0.0).repeat(1, 1, 1, 1)
    frames[0, :, 4:] = 0.25
    made = apply(layers_of(frames, grid=grid))
    torch.testing.assert_close(made[0, :, :4], torch.full((6, 4, 3), EPSILON * (math.e - 1.0)))
    torch.testing.assert_close(made[0, :, 4:], frames[0, :, 4:])


def test_rows_change_along_the_height_alone() -> None:
    rows = torch.tensor([0.0, -LOG2]).view(1, 1, 2).expand(1, 3, 2)
    made = apply(layers_of(flat(0.4), rows=rows))
    assert torch.equal(made[0, :, :1].expand(-1, 8, -1), made[0])
    torch.testing.assert_close(made[0, 0], flat(0.4)[0, 0])
    torch.testing.assert_close(made[0, -1], torch.full((8, 3), half(0.4)))


def test_saturation_is_the_distance_from_grey() -> None:
    frames = torch.tensor([0.2, 0.4, 0.8]).expand(1, 4, 4, 3).clone()
    made = apply(layers_of(frames, saturation=torch.full((1, 3), -1.0)))
    own = (frames[0, 0, 0] + EPSILON).log()
    torch.testing.assert_close(made[0, 0, 0], (own.mean().exp() - EPSILON).expand(3))


def test_burnt_out_white_is_not_tinted() -> None:
    grid = torch.tensor([-0.3, 0.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 4, 1, 1).clone()
    white = apply(layers_of(flat(1.0), grid=grid))
    torch.testing.assert_close(white, white[..., :1].expand_as(white))
    grey = apply(layers_of(flat(0.5), grid=grid))
    assert float(grey[0, 0, 0, 0]) < 0.4
    torch.testing.assert_close(grey[..., 1:], flat(0.5)[..., 1:])


def test_strength_zero_gives_the_frames_to_the_bit(rich: Layers) -> None:
    assert torch.equal(apply(rich, strength=0.0), rich.frames)
    assert torch.equal(apply(rich, strength=0.0, pivot=1, smoothing=1.0, matte=torch.rand(3, 12, 16)), rich.frames)


def test_strength_is_a_power_of_the_gain() -> None:
    layers = layers_of(flat(0.2), grid=constant(LOG2))
    for strength in (0.5, 1.5):
        wanted = (0.2 + EPSILON) * 2.0**strength - EPSILON
        torch.testing.assert_close(apply(layers, strength=strength), flat(wanted))


def test_rebuild_inverts_compose(rich: Layers) -> None:
    made = compose(rich, 1, 3, rich.frames[1:3])
    assert float((made - rich.frames[1:3]).abs().max()) > 0.02
    torch.testing.assert_close(rebuild(rich, 1, 3, made), rich.frames[1:3], atol=1e-4, rtol=0.0)


def test_the_pivot_leaves_as_it_came_and_the_others_follow_it() -> None:
    frames = flat(0.4, half(0.4), 0.4)
    layers = layers_of(frames, grid=constant(-LOG2 / 3, 2 * LOG2 / 3, -LOG2 / 3))
    made = apply(layers, pivot=1)
    assert torch.equal(made[1], frames[1])
    torch.testing.assert_close(made, frames[1:2].expand_as(made))
    torch.testing.assert_close(apply(layers, pivot=0), flat(0.4, 0.4, 0.4))


def test_the_pivot_keeps_its_contrast_and_cast_but_not_what_flickers_in_a_part_of_it(rich: Layers) -> None:
    over_place = rich.fields["grid"].mean(dim=(3, 4), keepdim=True).expand_as(rich.fields["grid"])
    rows = torch.full_like(rich.fields["rows"], 0.2)
    evenly = replace(rich, fields={**rich.fields, "grid": over_place, "rows": rows})
    torch.testing.assert_close(apply(evenly, pivot=2)[2], rich.frames[2])
    lamp = torch.zeros(3, 3, 4, 1, 2)
    lamp[0, ..., 0], lamp[0, ..., 1] = 0.3, -0.3  # of mean 0 over the frame
    layers = layers_of(rich.frames, grid=lamp)
    assert torch.equal(apply(layers, pivot=0), apply(layers))


def test_a_region_is_measured_and_the_whole_frame_changed() -> None:
    frames = flat(0.3, 0.3)
    grid = torch.zeros(2, 3, 4, 1, 2)
    grid[1, ..., 0], grid[1, ..., 1] = 0.4, -0.2  # left and right
    layers = layers_of(frames, grid=grid)
    left = torch.zeros(1, 6, 8)
    left[..., 0] = 1.0
    gained = (0.3 + EPSILON) * math.exp(0.4) - EPSILON
    torch.testing.assert_close(apply(layers, region=left), flat(0.3, gained))
    large = left.repeat_interleave(5, dim=1).repeat_interleave(5, dim=2)
    torch.testing.assert_close(apply(layers, region=large), flat(0.3, gained))
    pictures = large[..., None].expand(-1, -1, -1, 3)
    torch.testing.assert_close(apply(layers, region=pictures), flat(0.3, gained))
    assert torch.equal(apply(layers, region=left, pivot=1)[1], frames[1])


def test_a_region_that_is_empty_in_a_frame_is_that_whole_frame_there() -> None:
    layers = layers_of(flat(0.3, 0.3), grid=constant(0.0, 0.4))
    region = torch.zeros(2, 6, 8)
    region[0, :3] = 1.0
    torch.testing.assert_close(apply(layers, region=region), apply(layers))
    assert bool(curves(layers, region=region).isfinite().all())


def test_a_matte_says_where() -> None:
    frames = flat(0.3)
    layers = layers_of(frames, grid=constant(LOG2))
    matte = torch.zeros(6, 8)
    matte[:, 2:4], matte[:, 4:] = 0.5, 1.0
    made, whole = apply(layers, matte=matte), apply(layers)
    assert torch.equal(made[:, :, :2], frames[:, :, :2])
    torch.testing.assert_close(made[:, :, 2:4], 0.5 * (frames + whole)[:, :, 2:4])
    assert torch.equal(made[:, :, 4:], whole[:, :, 4:])
    one_each = torch.stack((torch.zeros(6, 8), torch.ones(6, 8)))
    both = layers_of(flat(0.3, 0.3), grid=constant(LOG2, LOG2))
    torch.testing.assert_close(apply(both, matte=one_each)[:, 0, 0, 0], torch.tensor([0.3, float(whole[0, 0, 0, 0])]))


def test_smoothing_blends_what_is_real() -> None:
    """A lamp is switched on in the middle: it stays at once, or comes slowly."""
    count = 24
    light = torch.tensor([0.2] * 12 + [0.4] * 12)
    undone = -(light + EPSILON).log()  # would make all frames alike
    kept = (undone - undone.mean())[:, None].expand(-1, 3).clone()
    layers = layers_of(flat(*light.tolist()), kept=kept)
    assert torch.equal(apply(layers), layers.frames)
    made = apply(layers, smoothing=0.5, fps=24.0)[:, 0, 0, 0]
    assert bool((made[1:] >= made[:-1] - 1e-6).all())
    assert float((made[1:] - made[:-1]).max()) < 0.05
    assert abs(float(made[0]) - 0.2) < 0.01 and abs(float(made[-1]) - 0.4) < 0.01
    assert float((apply(layers, smoothing=60.0, fps=24.0) - 0.29).abs().max()) < 0.03
    cut = replace(layers, flow=still(count, cuts=(12,)))
    torch.testing.assert_close(apply(cut, smoothing=0.5, fps=24.0), layers.frames)


def still(count: int, cuts: tuple[int, ...]) -> Flow:
    vectors, masks = torch.zeros(count - 1, 2, 6, 8), torch.zeros(count - 1, 6, 8)
    return Flow(vectors, vectors, masks, masks, (6, 8), cuts=cuts)


def test_a_steady_slope_is_what_it_was_when_it_is_blended() -> None:
    kept = torch.linspace(-0.5, 0.5, 60)[:, None].expand(-1, 3).clone()
    layers = layers_of(flat(*[0.3] * 60), kept=kept)
    torch.testing.assert_close(apply(layers, smoothing=0.5, fps=24.0)[20:40], layers.frames[20:40])


def test_frames_of_a_long_clip_are_made_when_they_are_looked_at(rich: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"pivot": 1, "smoothing": 0.1, "matte": torch.rand(3, 12, 16)}
    whole = apply(rich, **settings)
    monkeypatch.setattr(lazy, "fits_in_memory", lambda size: False)
    long = apply(rich, **settings)
    assert isinstance(long, lazy.LazyFrames)
    assert torch.equal(long[1:], whole[1:])


def test_the_curves_are_a_picture_of_before_and_after(rich: Layers) -> None:
    made = curves(rich, fps=12.0)
    assert made.shape == (1, 480, 960, 3)
    assert 0.0 <= float(made.min()) <= float(made.max()) <= 1.0
    assert not torch.equal(made, curves(rich, fps=12.0, strength=0.5))
    left = torch.zeros(12, 16)
    left[:, :4] = 1.0
    assert not torch.equal(made, curves(rich, fps=12.0, region=left))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2])
def test_curves_of_flat_and_single_frames_are_drawn(value: float, count: int) -> None:
    made = curves(layers_of(flat(*[value] * count)))
    assert bool(made.isfinite().all())
    assert apply(layers_of(flat(*[value] * count)), smoothing=2.0, pivot=0, region=torch.ones(6, 8)).shape[0] == count


def test_steps_are_told_and_may_stop_the_work(rich: Layers) -> None:
    told: list[tuple[int, int]] = []
    curves(rich, on_step=lambda done, total, preview: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]

    def stop(done: int, total: int, preview: object) -> None:
        raise KeyboardInterrupt

    for work in (apply, curves):
        with pytest.raises(KeyboardInterrupt):
            work(rich, on_step=stop)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"strength": 1.6}, InputError, "strength: 0 to 1.5 needed, got 1.6"),
        ({"strength": math.nan}, InputError, "strength: 0 to 1.5 needed, got nan"),
        ({"smoothing": -1.0}, InputError, "smoothing: 0 to 60 needed"),
        ({"fps": 0.0}, InputError, "fps: above 0 needed"),
        ({"pivot": 3}, InputError, "pivot: there is no frame 3; 0 to 2, or -1 for none"),
        ({"pivot": -2}, InputError, "pivot: there is no frame -2"),
        ({"region": torch.zeros(12, 16)}, InputError, "region: nothing is selected"),
        ({"region": torch.ones(12, 12)}, ShapeError, "region: it is 12x12 pixels, the frames are 16x12"),
        ({"region": torch.ones(2, 12, 16)}, ShapeError, "region: got 2 masks for 3 frames"),
        ({"matte": torch.ones(3, 16, 12)}, ShapeError, "matte: it is 12x16 pixels"),
        ({"matte": torch.full((12, 16), math.nan)}, InputError, "matte: holds NaN"),
    ],
)
def test_what_cannot_be_is_refused(rich: Layers, settings: Any, error: type[Exception], words: str) -> None:
    for work in (apply, curves):
        with pytest.raises(error, match=words):
            work(rich, **settings)


def test_layers_of_another_model_are_refused(rich: Layers) -> None:
    with pytest.raises(InputError, match="of the model 'fog', Deflicker needs 'colour'"):
        apply(replace(rich, model="fog"))
    MODEL.check(rich)
