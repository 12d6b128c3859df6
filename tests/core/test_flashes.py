"""Rendered flashes and stripes, whose verdicts are worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit.flash_safety import Safety, make_safe
from comfyui_vdp.vdp_core.edit.flashes import Meter, light_in_cells, stripes
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.image.colour import to_display
from comfyui_vdp.vdp_core.store.lazy import LazyFrames

FPS = 24
WHITE, BLACK, RED = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0)


def light(*values: float) -> tuple[float, ...]:
    """Display values of light."""
    return tuple(to_display(torch.tensor(values)).tolist())


def blinking(
    rate: float,
    share: float = 1.0,
    *,
    on: tuple[float, ...] = WHITE,
    off: tuple[float, ...] = BLACK,
    seconds: float = 2.0,
    fps: int = FPS,
) -> Tensor:
    """The left ``share`` of 40x64 grey pixels goes on and off ``rate`` times a second."""
    frames = torch.full((round(seconds * fps), 40, 64, 3), 0.5)
    for index, frame in enumerate(frames):
        frame[:, : round(64 * share)] = torch.tensor(on if math.floor(2 * rate * index / fps) % 2 else off)
    return frames


def flashes(frames: Tensor, fps: float = FPS) -> tuple[float, float]:
    """The most general and red flashes in a second."""
    meter, most = Meter(fps), (0.0, 0.0)
    for cells in light_in_cells(frames):
        meter.add(cells.float())
        most = max(most[0], meter.general.flashes), max(most[1], meter.red.flashes)
    return most


def assert_mended(safety: Safety, frames: Tensor, fps: float = FPS) -> None:
    """What was saved in 8 bits passes, and says so."""
    assert not safety.report["before"]["passes"]
    assert safety.report["after"]["passes"]
    assert safety.frames.shape == frames.shape
    again = make_safe((safety.frames * 255.0).round() / 255.0, fps)
    assert again.report["before"]["passes"]


@pytest.mark.parametrize("fps", [24, 25, 30, 60])
@pytest.mark.parametrize("rate", [1, 2, 3, 4, 5, 7, 10])
def test_as_many_flashes_are_counted_as_there_are_in_a_second(rate, fps):
    assert flashes(blinking(rate, fps=fps), fps) == (rate, 0.0)


def test_the_second_is_any_second():
    burst = torch.cat((blinking(1, seconds=1.0), blinking(6, seconds=0.5), blinking(0.1, seconds=1.5)))
    found = flashes(burst)[0]  # 5 turns in the half second, and that before it, and that after it
    assert found == 3.5


@pytest.mark.parametrize(("share", "counts"), [(0.1, False), (0.25, False), (0.3, True), (0.6, True), (1.0, True)])
def test_a_quarter_of_the_frame_may_flash(share, counts):
    assert flashes(blinking(5, share))[0] == 5.0 * counts


@pytest.mark.parametrize(
    ("dark", "bright", "counts"),
    [(0.2, 0.29, False), (0.2, 0.31, True), (0.0, 1.0, True), (0.79, 0.9, True), (0.81, 1.0, False)],
)
def test_a_flash_is_a_tenth_of_white_with_a_dark_end_below_four_fifths(dark, bright, counts):
    found = flashes(blinking(5, on=light(bright, bright, bright), off=light(dark, dark, dark)))
    assert found == (5.0 * counts, 0.0)


@pytest.mark.parametrize(
    ("on", "off", "general", "red"),
    [
        (RED, BLACK, True, True),
        (RED, (0.0, 0.0, 1.0), True, True),
        (light(0.3, 0.0, 0.0), light(0.0, 0.09, 0.0), False, True),  # equally bright
        (light(0.3, 0.08, 0.0), light(0.05, 0.13, 0.05), False, False),  # R / (R + G + B) = 0.79
        (light(0.055, 0.0, 0.0), BLACK, False, False),  # (R - G - B) 320 = 17.6
        (light(0.07, 0.0, 0.0), BLACK, False, True),  # 22.4
        (WHITE, BLACK, True, False),
    ],
)
def test_red_flashes_are_those_of_saturated_red(on, off, general, red):
    assert flashes(blinking(5, on=on, off=off)) == (5.0 * general, 5.0 * red)


def test_a_pattern_that_reverses_flashes_where_it_is():
    y, x = torch.meshgrid(torch.arange(40) // 10, torch.arange(64) // 8, indexing="ij")
    board = ((x + y) % 2).float()
    frames = torch.stack([board if math.floor(10 * index / FPS) % 2 else 1.0 - board for index in range(2 * FPS)])
    frames[:, :, 26:] = 0.5  # 40 % of the frame, of which half goes each way at once
    assert flashes(frames[..., None].repeat(1, 1, 1, 3))[0] == 5.0


def test_what_moves_does_not_flash(synthetic):
    clip, _ = synthetic.pan(48, 90, 160, motion=(6.0, 2.0))
    cells = light_in_cells(clip)
    meter = Meter(FPS)
    for frame in cells:
        meter.add(frame.float())
    swings = (cells[:, 1].diff(dim=0).sign().diff(dim=0).abs() > 1).sum(dim=0)
    assert float((swings > 6).float().mean()) > 0.25  # most pixels brighten and darken all the time
    assert meter.general.flashes == 0.0


def test_finer_patterns_than_a_tenth_of_a_degree_are_none():
    board = (torch.arange(512)[:, None] + torch.arange(512)) % 2
    frames = torch.stack([board if index % 2 else 1 - board for index in range(FPS)]).float()
    assert flashes(frames[..., None].expand(-1, -1, -1, 3)) == (0.0, 0.0)


@pytest.mark.parametrize(("rate", "share"), [(1, 1.0), (2, 1.0), (3, 1.0), (10, 0.1), (10, 0.25)])
@pytest.mark.parametrize("on", [WHITE, RED])
def test_a_clip_that_passes_comes_back_as_it_is(rate, share, on):
    frames = blinking(rate, share, on=on)
    safety = make_safe(frames, FPS)
    assert safety.report["before"] == safety.report["after"]
    assert safety.report["after"]["passes"]
    assert safety.report["lowered"] == []
    assert torch.equal(safety.frames, frames)


@pytest.mark.parametrize(("rate", "share"), [(4, 1.0), (6, 0.3), (8, 0.6), (10, 1.0)])
@pytest.mark.parametrize("on", [WHITE, RED])
def test_a_clip_that_fails_is_lowered_until_it_passes(rate, share, on):
    frames = blinking(rate, share, on=on)
    safety = make_safe(frames, FPS)
    assert_mended(safety, frames)
    steady = math.ceil(64 * share) + 4
    assert torch.equal(safety.frames[:, :, steady:], frames[:, :, steady:])


def test_no_more_is_taken_than_needed():
    """Light that swings by 0.2 may swing by 0.1: half of it is taken, and a little more."""
    safety = make_safe(blinking(5, on=light(0.4, 0.4, 0.4), off=light(0.2, 0.2, 0.2)), FPS)
    (lowered,) = safety.report["lowered"]
    assert 0.5 < lowered["strength"] < 0.6


def test_only_the_frames_around_the_flashes_change():
    frames = torch.cat((torch.full((24, 40, 64, 3), 0.5), blinking(6), torch.full((24, 40, 64, 3), 0.5)))
    safety = make_safe(frames, FPS)
    assert_mended(safety, frames)
    assert torch.equal(safety.frames[:16], frames[:16])
    assert torch.equal(safety.frames[-12:], frames[-12:])
    assert float((safety.frames - frames)[24:72].abs().mean()) > 0.2


def test_a_strobe_over_a_scene_leaves_the_scene(synthetic):
    clip, _ = synthetic.pan(48, 72, 128)
    strength = torch.tensor([1.4 if math.floor(10 * index / FPS) % 2 else 0.5 for index in range(48)])
    strobe = (clip * strength.view(-1, 1, 1, 1)).clamp(0.0, 1.0)
    safety = make_safe(strobe, FPS)
    assert_mended(safety, strobe)
    flickering, left = (_change(part, clip) for part in (strobe, safety.frames))
    assert left < 0.5 * flickering


def _change(frames: Tensor, clip: Tensor) -> float:
    """How differently from a clip frames change from one to the next."""
    return float((frames.diff(dim=0) - clip.diff(dim=0)).abs().mean())


@pytest.mark.parametrize(("pairs", "found"), [(3, 0.0), (5, 0.0), (6, 1.0), (12, 1.0), (40, 1.0)])
def test_more_than_five_pairs_of_stripes_are_found(pairs, found):
    wave = torch.sin(2 * math.pi * pairs * (torch.arange(256) + 0.5) / 256)
    bars = (0.5 + 0.4 * wave.sign()).expand(144, 256)
    assert float(stripes(bars).float().mean()) == found
    assert float(stripes(bars.T).float().mean()) == found


def test_stripes_are_found_where_they_are_bright_and_of_contrast():
    wave = torch.sin(2 * math.pi * 20 * torch.arange(256) / 256).expand(144, 256)
    for mean, swing, found in ((0.5, 0.4, True), (0.5, 0.04, False), (0.5, 0.06, True), (0.1, 0.08, False)):
        assert bool(stripes(mean + swing * wave.sign()).any()) == found
    half = 0.5 + 0.4 * wave.sign() * (torch.arange(256) < 128)
    assert float(stripes(half).float().mean()) == pytest.approx(0.5, abs=0.07)


def test_a_scene_has_no_stripes(synthetic):
    clip, _ = synthetic.pan(1, 144, 256)
    assert not bool(stripes(clip[0, ..., 1]).any())


@pytest.mark.parametrize(("seconds", "fails"), [(0.4, False), (1.0, True)])
def test_stripes_that_last_half_a_second_are_lowered(seconds, fails):
    plain = torch.full((2 * FPS, 72, 128, 3), 0.5)
    last = 12 + round(seconds * FPS)
    plain[12:last] = (torch.arange(128) // 4 % 2).float()[:, None] * 0.8
    safety = make_safe(plain, FPS)
    if not fails:
        assert safety.report["after"]["passes"]
        assert torch.equal(safety.frames, plain)
        return
    assert_mended(safety, plain)
    assert [part["what"] for part in safety.report["lowered"]] == ["stripes"]
    assert torch.equal(safety.frames[:11], plain[:11])
    assert bool((safety.frames[20, 36].diff(dim=0).abs() > 0.02).any())  # some are left


def test_the_report_is_json_and_the_chart_a_picture():
    frames = blinking(5)
    safety = make_safe(frames, FPS)
    report = json.loads(json.dumps(safety.report))
    assert report["before"]["flashes_per_second"] == 5.0
    assert report["before"]["flashing_frames"] == [[3, 46]]  # the first and the last turn
    assert report["after"]["flashes_per_second"] <= 3.0
    assert report["frames"] == 48
    assert safety.chart.shape == (1, 480, 960, 3)
    assert 0.0 <= safety.chart.min() <= safety.chart.max() <= 1.0


def test_long_clips_are_mended_when_they_are_looked_at(monkeypatch):
    from comfyui_vdp.vdp_core.store import lazy

    frames = blinking(5)
    now = make_safe(frames, FPS).frames
    monkeypatch.setattr(lazy, "fits_in_memory", lambda _: False)
    later = make_safe(frames, FPS).frames
    assert isinstance(later, LazyFrames)
    assert_close(later[30:32], now[30:32], atol=0, rtol=0)


def test_one_frame_passes_and_a_rate_of_nothing_is_refused():
    frames = torch.rand(1, 5, 7, 3)
    assert torch.equal(make_safe(frames, FPS).frames, frames)
    with pytest.raises(InputError, match="fps: above 0 needed, got 0; link the rate of the clip"):
        make_safe(frames, 0.0)


def test_swings_that_are_allowed_are_left_alone_before_those_that_are_not():
    """Ten swings a second of 0.095, which only mended frames have to keep below, and then of 1."""
    low = blinking(10, on=light(0.395, 0.395, 0.395), off=light(0.3, 0.3, 0.3))
    frames = torch.cat((low, blinking(10)))
    safety = make_safe(frames, FPS)
    assert_mended(safety, frames)
    assert torch.equal(safety.frames[:40], frames[:40])
    assert all(part["strength"] < 0.95 for part in safety.report["lowered"])
