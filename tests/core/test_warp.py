from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.motion.warp import occlusion, pixel_grid, resize_flow, warp
from comfyui_vdp.vdp_core.types import Flow


def constant(dx: float, dy: float, height: int = 8, width: int = 8, count: int = 1) -> torch.Tensor:
    return torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).expand(count, 2, height, width).clone()


def test_pixel_grid_is_x_then_y():
    assert_close(pixel_grid(2, 3), torch.tensor([[[0.0, 1, 2], [0, 1, 2]], [[0, 0, 0], [1, 1, 1]]]))


def test_no_motion_changes_nothing():
    frames = torch.rand(2, 3, 7, 9)
    assert_close(warp(frames, torch.zeros(2, 2, 7, 9)), frames)


def test_one_pixel_right_and_one_down():
    frame = torch.rand(1, 3, 8, 6)
    assert_close(warp(frame, constant(1, 0, 8, 6))[..., :-1], frame[..., 1:])
    assert_close(warp(frame, constant(0, 1, 8, 6))[..., :-1, :], frame[..., 1:, :])


def test_half_a_pixel_is_the_mean_of_two():
    frame = torch.rand(1, 1, 8, 8)
    assert_close(warp(frame, constant(0.5, 0))[..., :-1], (frame[..., 1:] + frame[..., :-1]) / 2)


def test_outside_reads_the_border():
    frame = torch.rand(1, 1, 4, 4)
    assert_close(warp(frame, constant(100, 0, 4, 4)), frame[..., -1:].expand_as(frame))


def test_a_single_pixel_is_no_special_case():
    assert_close(warp(torch.full((1, 1, 1, 1), 0.3), constant(2, -1, 1, 1)), torch.full((1, 1, 1, 1), 0.3))


def test_gradients_reach_frames_and_flow():
    frames = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 5, 6, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    # away from the last row and column, where reading past the border has no derivative
    assert torch.autograd.gradcheck(lambda a, b: warp(a, b)[..., :-2, :-2], (frames, flow))


def test_small_flow_is_refused():
    with pytest.raises(ShapeError, match="resize_flow"):
        warp(torch.rand(1, 3, 8, 8), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ShapeError, match="one field per frame"):
        warp(torch.rand(3, 3, 8, 8), torch.zeros(1, 2, 8, 8))
    with pytest.raises(ShapeError, match=r"\(N, 2, H, W\)"):
        warp(torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8, 2))


@pytest.mark.parametrize(("top", "bottom"), [(0, 3), (3, 6), (6, 8)])
def test_some_rows_are_those_of_the_whole(top, bottom):
    frames, flow = torch.rand(2, 3, 8, 9), 4 * torch.randn(2, 2, 8, 9)
    assert_close(warp(frames, flow[:, :, top:bottom], top=top), warp(frames, flow)[:, :, top:bottom])


@pytest.mark.parametrize("top", [-1, 6])
def test_rows_that_are_not_there_are_refused(top):
    with pytest.raises(ShapeError, match=f"of 8 rows there are no 3 from row {top} on"):
        warp(torch.rand(1, 3, 8, 8), torch.zeros(1, 2, 3, 8), top=top)


def test_resize_scales_vectors_per_axis():
    bigger = resize_flow(constant(3, 2, 8, 8), (16, 24))
    assert_close(bigger, constant(9, 4, 16, 24))
    assert_close(resize_flow(bigger, (8, 8)), constant(3, 2, 8, 8))


def test_resize_of_a_flow_takes_everything_along():
    hidden = torch.zeros(2, 8, 8)
    hidden[:, :4] = 1
    flow = Flow(constant(1, 0, count=2), constant(-1, 0, count=2), hidden, 1 - hidden, (32, 32), "dis")
    bigger = resize_flow(flow, (16, 16))
    assert bigger.size == (16, 16)
    assert bigger.source_size == (32, 32)
    assert bigger.method == "dis"
    assert_close(bigger.forward, constant(2, 0, 16, 16, 2))
    assert_close(bigger.backward_occlusion, 1 - bigger.forward_occlusion)
    assert bigger.forward_occlusion[:, :6].eq(1).all()
    assert resize_flow(flow, (8, 8)) is flow


def test_resize_refuses_nonsense():
    with pytest.raises(InputError, match="at least 1x1"):
        resize_flow(constant(1, 1), (0, 8))
    with pytest.raises(ShapeError, match=r"\(N, 2, H, W\)"):
        resize_flow(torch.zeros(2, 8, 8), (4, 4))


def test_a_shift_hides_what_leaves_the_picture():
    hidden = occlusion(constant(3, 0), constant(-3, 0))
    assert hidden[0, :, :5].eq(0).all()
    assert hidden[0, :, 5:].eq(1).all()


def test_a_way_that_does_not_lead_home_is_hidden():
    forward, backward = constant(0, 0), constant(0, 0)
    backward[0, 0, 4, 4] = 2.0
    hidden = occlusion(forward, backward)
    assert hidden.sum() == 1
    assert hidden[0, 4, 4] == 1


def test_the_allowance_grows_with_the_motion():
    # |gap|^2 = 1 is more than 0.5, and less than 0.01 (20^2 + 19^2) + 0.5
    wide = 64
    assert occlusion(constant(1, 0, 8, wide), constant(0, 0, 8, wide))[..., :-30].eq(1).all()
    assert occlusion(constant(20, 0, 8, wide), constant(-19, 0, 8, wide))[..., :-30].eq(0).all()


def test_occlusion_wants_two_of_a_kind():
    with pytest.raises(ShapeError, match="one shape"):
        occlusion(constant(0, 0), constant(0, 0, 4, 4))
