from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core import errors
from comfyui_vdp.vdp_core.checks import check_flow, check_frames, check_mask
from comfyui_vdp.vdp_core.errors import InputError, ShapeError, VDPError
from comfyui_vdp.vdp_core.types import Flow

NAN = float("nan")


def flow(pairs: int) -> Flow:
    vectors, hidden = torch.zeros(pairs, 2, 4, 6), torch.zeros(pairs, 4, 6)
    return Flow(vectors, vectors, hidden, hidden, (4, 6))


def test_good_frames_are_not_copied():
    frames = torch.rand(2, 4, 6, 3)
    assert check_frames(frames).data_ptr() == frames.data_ptr()


def test_grey_is_repeated_and_alpha_dropped():
    frames = torch.rand(2, 4, 6, 4)
    assert_close(check_frames(frames), frames[..., :3])
    assert_close(check_frames(frames[..., :1]), frames[..., :1].repeat(1, 1, 1, 3))


def test_values_outside_are_clamped_and_halves_become_floats():
    checked = check_frames(torch.tensor([-1.0, 0.25, 3.0], dtype=torch.float16).view(1, 1, 1, 3))
    assert checked.dtype == torch.float32
    assert checked.flatten().tolist() == [0.0, 0.25, 1.0]


def one_bad_value(value: float) -> torch.Tensor:
    frames = torch.rand(3, 4, 6, 3)
    frames[1, 2, 3, 0] = value
    return frames


@pytest.mark.parametrize(
    ("frames", "settings", "error", "words"),
    [
        ([1.0], {}, ShapeError, "clip: expected a tensor of shape .* got list"),
        (torch.rand(4, 6, 3), {}, ShapeError, r"expected shape \(T, H, W, 3\), got \(4, 6, 3\)"),
        (torch.rand(1, 4, 6, 0), {}, ShapeError, "expected shape"),
        (torch.rand(1, 4, 6, 2), {}, ShapeError, "1, 3 or 4 channels"),
        (torch.rand(1, 3, 4, 6), {}, ShapeError, "1, 3 or 4 channels"),
        (torch.rand(0, 4, 6, 3), {}, ShapeError, "got 0 frames, at least 1 are needed"),
        (torch.rand(1, 4, 6, 3), {"at_least": 2}, ShapeError, "got 1 frame, motion needs at least two frames"),
        (torch.rand(1, 4, 6, 3), {"smallest_side": 16}, ShapeError, "6x4 pixels, at least 16x16 needed"),
        (torch.rand(1, 0, 6, 3), {}, ShapeError, "6x0 pixels, at least 1x1"),
        (torch.zeros(1, 4, 6, 3, dtype=torch.uint8), {}, InputError, "torch.uint8; divide by the type's maximum"),
        (one_bad_value(NAN), {}, InputError, "clip: frame 1 holds NaN or infinite"),
        (one_bad_value(float("inf")), {}, InputError, "frame 1 holds NaN or infinite"),
        (one_bad_value(float("-inf")), {}, InputError, "frame 1 holds NaN or infinite"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(frames, settings, error, words):
    with pytest.raises(error, match=words):
        check_frames(frames, "clip", **settings)


def test_masks_of_other_ranks_are_understood():
    mask = torch.rand(4, 6)
    assert_close(check_mask(mask, "mask"), mask[None])
    assert_close(check_mask(mask[None, None], "mask"), mask[None])
    assert check_mask(mask * 4 - 2, "mask").aminmax() == (0.0, 1.0)
    assert len(check_mask(mask[None], "mask", count=5, size=(4, 6))) == 1


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (None, ShapeError, "matte: expected a mask tensor of shape .* got NoneType"),
        (torch.rand(5, 4, 6, 3), ShapeError, r"expected shape \(T, H, W\)"),
        (torch.rand(2, 4, 6), ShapeError, "got 2 masks for 5 frames; give one mask or one per frame"),
        (torch.rand(5, 6, 4), ShapeError, "masks are 4x6 pixels, the frames are 6x4; resize them"),
        (torch.full((5, 4, 6), NAN), InputError, "matte: holds NaN"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(mask, error, words):
    with pytest.raises(error, match=words):
        check_mask(mask, "matte", count=5, size=(4, 6))


def test_flow_belongs_to_its_clip():
    check_flow(flow(2), 3)
    with pytest.raises(
        ShapeError, match="holds 2 frame pairs, a clip of 5 frames has 4; estimate the flow on the same"
    ):
        check_flow(flow(2), 5)
    with pytest.raises(ShapeError, match="expected a VDP_FLOW, got Tensor"):
        check_flow(torch.zeros(2, 2, 4, 6), 3)


def test_everything_raised_on_purpose_has_one_base():
    raised = [
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert len(raised) >= 6
    assert all(issubclass(error, VDPError) for error in raised)
    assert issubclass(ShapeError, ValueError)
    assert issubclass(errors.MediaError, OSError)
