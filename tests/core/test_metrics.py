from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core import metrics
from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.metrics import MAX_PSNR, iou, measure, psnr, ssim, warping_error
from comfyui_vdp.vdp_core.types import Flow


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pan(count: int = 3, height: int = 24, width: int = 32) -> tuple[torch.Tensor, Flow]:
    """A clip whose content moves one pixel left a frame, and its exact flow."""
    wide = noise(height, width + count, 3)
    frames = torch.stack([wide[:, i : i + width] for i in range(count)])
    forward = torch.zeros(count - 1, 2, height, width)
    forward[:, 0] = -1.0
    hidden = torch.zeros(count - 1, height, width)
    hidden_back = hidden.clone()
    hidden[..., 0], hidden_back[..., -1] = 1.0, 1.0
    return frames, Flow(forward, -forward, hidden, hidden_back, (height, width), "dis")


def test_psnr_by_hand():
    ref = torch.full((2, 4, 4, 3), 0.5)
    pred = ref.clone()
    pred[0] += 0.1  # 20 dB
    pred[1] += 0.01  # 40 dB
    assert psnr(pred, ref) == pytest.approx(30.0, abs=1e-3)


def test_identical_frames_have_finite_figures():
    frames = noise(2, 9, 9, 3)
    assert psnr(frames, frames) == MAX_PSNR
    assert ssim(frames, frames) == pytest.approx(1.0)


def test_ssim_agrees_with_scikit_image():
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    ref = torch.nn.functional.interpolate(noise(3, 3, 9, 12), size=(41, 53), mode="bicubic").clamp(0, 1)
    ref = ref.movedim(1, -1).contiguous()
    pred = (ref + 0.1 * (noise(*ref.shape, seed=1) - 0.5)).clamp(0, 1)
    expected = sum(
        structural_similarity(a.numpy(), b.numpy(), data_range=1, channel_axis=-1)
        for a, b in zip(pred, ref, strict=True)
    )
    assert ssim(pred, ref) == pytest.approx(expected / 3, abs=1e-4)


def test_figures_do_not_depend_on_how_many_frames_are_held_at_once(monkeypatch):
    pred, ref = noise(5, 16, 16, 3), noise(5, 16, 16, 3, seed=1)
    clip, flow = pan(5)
    whole = psnr(pred, ref), ssim(pred, ref), warping_error(clip.flip(0), flow)
    monkeypatch.setattr(metrics, "_PIXELS_AT_ONCE", 600)
    assert (psnr(pred, ref), ssim(pred, ref), warping_error(clip.flip(0), flow)) == pytest.approx(whole)


def test_warping_error_is_zero_along_the_true_motion():
    frames, flow = pan()
    assert warping_error(frames, flow) == pytest.approx(0.0, abs=1e-6)


def test_warping_error_by_hand():
    frames, flow = pan(2)
    frames = frames * 0.5
    frames[1] += 0.25
    assert warping_error(frames, flow) == pytest.approx(0.25, abs=1e-6)


def test_hidden_pixels_do_not_count():
    frames, flow = pan(2)
    frames[1, :, -1] = 0.0
    assert warping_error(frames, flow) == pytest.approx(0.0, abs=1e-6)
    all_hidden = Flow(flow.forward, flow.backward, torch.ones(1, 24, 32), torch.ones(1, 24, 32), (24, 32))
    assert warping_error(noise(2, 24, 32, 3), all_hidden) == 0.0


def test_a_smaller_flow_is_resized():
    frames, flow = pan(2)
    large = frames.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert warping_error(large[:, :, 4:-4], _crop(flow)) < 0.05 < warping_error(large[:, :, 4:-4], _still(flow))


def _crop(flow: Flow) -> Flow:
    fields = (flow.forward, flow.backward, flow.forward_occlusion, flow.backward_occlusion)
    return Flow(*(field[..., 2:-2] for field in fields), (48, 56))


def _still(flow: Flow) -> Flow:
    cropped = _crop(flow)
    still = torch.zeros_like(cropped.forward)
    return Flow(still, still, cropped.forward_occlusion, cropped.backward_occlusion, (48, 56))


def test_iou_by_hand():
    mask, ref = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    mask[0, :2], ref[0, 1:3] = 1.0, 1.0  # 4 of 12
    mask[1, 0] = 0.4  # cut at a half: empty, as the reference
    mask[2], ref[2] = 1.0, 0.9
    assert iou(mask, ref) == pytest.approx((1 / 3 + 1 + 1) / 3)


def test_measure_gives_what_its_inputs_allow():
    frames, flow = pan()
    mask = torch.ones(3, 24, 32)
    assert set(measure(frames, frames, mask, mask, flow)) == {
        "iou",
        "psnr",
        "ssim",
        "warping_error",
        "reference_warping_error",
    }
    assert set(measure(frames, flow=flow)) == {"warping_error"}
    assert set(measure(frames, mask=mask, ref_mask=mask)) == {"iou"}
    assert set(measure(frames[:1], frames[:1])) == {"psnr", "ssim"}
    assert set(measure(noise(2, 5, 5, 3), noise(2, 5, 5, 3))) == {"psnr"}


def test_measure_estimates_the_motion_of_the_reference():
    frames, _ = pan(3, 48, 64)
    found = measure(frames.flip(0), frames)
    assert found["reference_warping_error"] < found["warping_error"]


def test_inputs_that_do_not_belong_together_are_refused():
    frames, flow = pan()
    with pytest.raises(ShapeError, match="one size and length"):
        measure(frames, frames[:2])
    with pytest.raises(ShapeError, match="one size and length"):
        psnr(frames, frames[:, :-1])
    with pytest.raises(ShapeError, match="same frames"):
        measure(frames[:2], flow=flow)
    with pytest.raises(ShapeError, match="both or neither"):
        measure(frames, mask=torch.ones(3, 24, 32))
    with pytest.raises(ShapeError, match="resize them"):
        iou(torch.ones(3, 8, 8), torch.ones(3, 24, 32))
    with pytest.raises(ShapeError, match="give as many"):
        iou(torch.ones(1, 8, 8), torch.ones(3, 8, 8))
    with pytest.raises(ShapeError, match="7x7"):
        ssim(noise(1, 5, 9, 3), noise(1, 5, 9, 3))
    with pytest.raises(InputError, match="nothing to measure"):
        measure(frames)
    with pytest.raises(InputError, match="reference: frame 1 holds NaN"):
        broken = frames.clone()
        broken[1, 0, 0] = float("nan")
        measure(frames, broken)


def test_inputs_stay_as_they_are():
    frames, flow = pan()
    before = frames.clone()
    measure(frames, frames * 0.5, flow=flow)
    assert_close(frames, before, rtol=0, atol=0)
