from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import ShapeError
from comfyui_vdp.vdp_core.image.inpaint import inpaint
from comfyui_vdp.vdp_core.motion.background import track_background
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.types import Flow

PAN = torch.tensor([1.5, 0.4]).view(1, 2, 1, 1)


@pytest.fixture(scope="module")
def clip(synthetic):
    return synthetic.layered(16, 72, 128, objects=1, seed=4)


def drift(before, after, covered):
    """How far the places found are from the true ones under a pan, of the pixels ``covered``, in pixels."""
    off = [(field[:, :2] - sign * PAN * field[:, 2:]).norm(dim=1) for field, sign in ((before, 1), (after, -1))]
    seen = [(field[:, 2] > 0) & covered for field in (before, after)]
    return torch.cat([error[chosen] for error, chosen in zip(off, seen, strict=True)])


def test_what_is_known_stays_and_the_rest_is_filled_smoothly():
    values = torch.linspace(0, 1, 16).view(1, 1, 1, 16).expand(1, 1, 12, 16).clone()
    weight = torch.ones(1, 1, 12, 16)
    weight[..., 3:8, 5:11] = 0
    filled = inpaint(torch.where(weight > 0, values, 7.0), weight)
    assert torch.equal(filled[weight > 0], values[weight > 0])
    assert_close(filled, values, atol=0.15, rtol=0)


def test_a_constant_is_spread_over_any_size():
    for size in ((1, 1), (1, 7), (5, 3), (9, 16)):
        weight = torch.zeros(1, 1, *size)
        weight[..., 0, 0] = 1
        assert_close(inpaint(torch.full((1, 2, *size), 0.3), weight), torch.full((1, 2, *size), 0.3))
    assert torch.equal(inpaint(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)), torch.zeros(1, 1, 4, 4))


def test_it_finds_where_the_background_is_seen(clip):
    background = clip.masks[:, 0]
    before, after = track_background(background, clip.flow)
    assert before.shape == after.shape == (16, 3, 72, 128)
    covered = background < 0.99
    assert float(drift(before, after, covered).max()) < 0.01
    # nothing to look for where the background is seen anyway
    far = torch.nn.functional.max_pool2d(covered.float()[:, None], 7, 1, 3)[:, 0] == 0
    assert not bool(before[:, 2][far].any())
    # of the frames that see a place, the nearest one
    for index, row, column in covered.nonzero()[::97].tolist():
        away = int(after[index, 2, row, column])
        for closer in range(1, away):
            x, y = (torch.tensor([column, row]) - closer * PAN.flatten()).round().long().tolist()
            assert float(background[index + closer, max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4].min()) < 0.999


def test_estimated_flow_does(clip):
    flow = estimate_flow(clip.frames, model="dis")
    before, after = track_background(clip.masks[:, 0], flow)
    assert float(drift(before, after, clip.masks[:, 0] < 0.99).mean()) < 0.5


def test_what_frames_show_corrects_the_flow(clip):
    wrong = Flow(
        clip.flow.forward + 0.2,
        clip.flow.backward - 0.1,
        clip.flow.forward_occlusion,
        clip.flow.backward_occlusion,
        (72, 128),
    )
    covered = clip.masks[:, 0] < 0.99
    plain, corrected = (
        float(drift(*track_background(clip.masks[:, 0], wrong, frames=frames), covered).mean())
        for frames in (None, clip.frames)
    )
    assert plain > 0.5
    assert corrected < 0.3 * plain


def test_a_picture_that_is_brighter_on_one_side_corrects_the_flow_as_well(clip):
    # the two sides of the picture are no neighbours
    wrong = replace(clip.flow, forward=clip.flow.forward + 0.2, backward=clip.flow.backward - 0.1)
    ramp = (torch.arange(128) + PAN[0, 0] * torch.arange(16).view(-1, 1)) / 150  # of the scene, not of the picture
    frames = 0.2 * clip.frames + 0.8 * ramp.clamp(0, 1).view(16, 1, 128, 1)
    covered = clip.masks[:, 0] < 0.99
    assert float(drift(*track_background(clip.masks[:, 0], wrong, frames=frames), covered).mean()) < 0.15


@pytest.mark.parametrize("flat", [[0], [7], [15], range(16)])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_frames_correct_nothing(clip, flat, level):
    frames = clip.frames.clone()
    frames[list(flat)] = level
    before, after = track_background(clip.masks[:, 0], clip.flow, frames=frames)
    assert bool(before.isfinite().all()) and bool(after.isfinite().all())
    assert float(drift(before, after, clip.masks[:, 0] < 0.99).mean()) < 0.1


def test_first_frames_look_ahead_and_last_ones_back(clip):
    before, after = track_background(clip.masks[:, 0], clip.flow)
    assert not bool(before[0].any())
    assert not bool(after[-1].any())
    assert bool(after[0, 2].any()) and bool(before[-1, 2].any())


def test_flow_of_another_size_is_scaled(clip):
    small = torch.nn.functional.interpolate(clip.masks, size=(36, 64), mode="area")[:, 0]
    before, _ = track_background(small, clip.flow)
    off = (before[:, :2] - 0.5 * PAN * before[:, 2:]).norm(dim=1)[(before[:, 2] > 0) & (small < 0.99)]
    assert before.shape == (16, 3, 36, 64)
    assert len(off) > 100
    assert float(off.max()) < 0.1


def test_what_never_moves_is_never_uncovered():
    background = torch.ones(4, 32, 48)
    background[:, 10:20, 10:30] = 0
    still, none = torch.zeros(3, 2, 32, 48), torch.zeros(3, 32, 48)
    before, after = track_background(background, Flow(still, still, none, none, (32, 48)))
    assert not bool(before.any()) and not bool(after.any())


def test_nothing_is_followed_across_a_cut(clip):
    flow = clip.flow
    hidden = flow.forward_occlusion.clone()
    hidden[7] = 1.0
    before, after = track_background(
        clip.masks[:, 0], Flow(flow.forward, flow.backward, hidden, flow.backward_occlusion, (72, 128))
    )
    for index in range(16):
        assert float(after[index, 2].max()) <= (7 - index if index <= 7 else 15 - index)
        assert float(before[index, 2].max()) <= (index if index <= 7 else index - 8)


def test_a_clip_that_is_covered_whole_has_nothing_behind():
    flow = Flow(*torch.zeros(2, 2, 2, 16, 16), *torch.zeros(2, 2, 16, 16), (16, 16))
    before, after = track_background(torch.zeros(3, 16, 16), flow)
    assert not bool(before.any()) and not bool(after.any())


def test_a_person_can_stop_it(clip):
    def stop(done, total, preview):
        assert (done, total, preview) == (1, 31, None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track_background(clip.masks[:, 0], clip.flow, on_step=stop)


def test_what_does_not_belong_together_is_refused(clip):
    with pytest.raises(ShapeError, match=r"background masks \(T, h, w\), got \(16, 2, 72, 128\)"):
        track_background(clip.masks, clip.flow)
    with pytest.raises(ShapeError, match="holds 15 frame pairs, a clip of 9 frames has 8"):
        track_background(clip.masks[:9, 0], clip.flow)
