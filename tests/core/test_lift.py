from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import ShapeError
from comfyui_vdp.vdp_core.image.guided import GUIDED_FROM, joint_upsample
from comfyui_vdp.vdp_core.image.resize import upsample

FINE = (GUIDED_FROM // 2, GUIDED_FROM)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_coarse_grids_keep_their_corners():
    fields = noise(2, 3, 5, 8)
    for up in (upsample(fields, (60, 90)), joint_upsample(fields, noise(2, 60, 90, 3))):
        assert up.shape == (2, 3, 60, 90)
        assert_close(up[..., [0, 0, -1, -1], [0, -1, 0, -1]], fields[..., [0, 0, -1, -1], [0, -1, 0, -1]])


def test_coarse_grids_take_no_notice_of_the_picture():
    fields = noise(1, 1, 5, 8)
    assert torch.equal(joint_upsample(fields, noise(1, 60, 90, 3)), joint_upsample(fields, torch.zeros(1, 60, 90, 3)))


@pytest.mark.parametrize("small", [(5, 8), FINE, FINE[::-1]])
def test_even_fields_stay_even(small):
    frames = noise(1, 120, 200, 3)
    assert_close(
        joint_upsample(torch.full((1, 2, *small), -0.37), frames),
        torch.full((1, 2, 120, 200), -0.37),
        atol=1e-4,
        rtol=0,
    )


def test_edges_follow_the_picture():
    across = torch.arange(256.0).expand(192, 256)
    edge = 110 + 20 * torch.sin(torch.arange(192.0) / 20)
    truth = (across > edge[:, None]).float()[None, None]
    picture = (0.2 + 0.6 * truth).movedim(1, -1).expand(-1, -1, -1, 3)
    small = F.interpolate(truth, size=(48, 64), mode="area")
    guided = (joint_upsample(small, picture) - truth).abs()
    plain = (F.interpolate(small, size=(192, 256), mode="bilinear") - truth).abs()
    assert guided.mean() < 0.25 * plain.mean()
    assert guided.max() < 0.3 < plain.max()


def test_texture_without_an_edge_in_the_field_leaves_no_trace():
    ramp = torch.linspace(0, 1, GUIDED_FROM).expand(1, 1, *FINE)
    picture = 0.5 + 0.02 * torch.randn(1, 96, 192, 3, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(ramp, size=(96, 192), mode="bilinear")
    inner = (..., slice(16, -16), slice(16, -16))
    assert (joint_upsample(ramp, picture) - wanted)[inner].abs().max() < 0.02


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("size", [(96, 192), (100, 170)])
def test_slopes_go_on_up_to_the_outer_samples(size, radius):
    y, x = ((torch.arange(side) + 0.5) / side for side in FINE)
    plane = (2.0 * y[:, None] - 3.0 * x + 0.5)[None, None]
    picture = 0.5 + 0.1 * torch.sin(torch.arange(size[1]) / 7.0).expand(1, *size)[..., None].expand(-1, -1, -1, 3)
    # half a sample lies beyond the centres of the outer ones
    y, x = (
        ((torch.arange(side) + 0.5) / side).clamp(0.5 / small, 1.0 - 0.5 / small)
        for side, small in zip(size, FINE, strict=True)
    )
    wanted = 2.0 * y[:, None] - 3.0 * x + 0.5
    flat = joint_upsample(plane, torch.full((1, *size, 3), 0.5), radius=radius, continued=True)[0, 0]
    assert_close(flat, wanted, atol=1e-4, rtol=0)
    shown = joint_upsample(plane, picture, radius=radius, continued=True)[0, 0]
    assert (shown - wanted).abs().max() < 0.06


def test_frames_are_lifted_each_by_itself():
    fields, frames = noise(3, 1, *FINE), noise(3, 60, 100, 3)
    alone = torch.cat([joint_upsample(fields[i : i + 1], frames[i : i + 1]) for i in range(3)])
    assert_close(joint_upsample(fields, frames), alone)


@pytest.mark.parametrize("small", [(5, 8), FINE])
def test_nothing_given_is_changed(small):
    fields, frames = noise(1, 1, *small), noise(1, 60, 100, 3)
    kept = fields.clone(), frames.clone()
    joint_upsample(fields, frames).zero_()
    assert torch.equal(fields, kept[0])
    assert torch.equal(frames, kept[1])


def test_another_number_of_frames_is_refused():
    with pytest.raises(ShapeError, match="fields of 2 frames and 3 frames to guide"):
        joint_upsample(noise(2, 1, 5, 8), noise(3, 60, 90, 3))
