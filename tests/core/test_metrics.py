from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core import metrics
from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.metrics import (
    MAX_PSNR,
    boundary_f,
    connectivity_error,
    dtssd,
    figures,
    foreground_mse,
    gradient_error,
    iou,
    mad,
    measure,
    mse,
    psnr,
    published,
    ssim,
    warping_error,
)
from comfyui_vdp.vdp_core.store import lazy
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


def test_an_occlusion_of_two_fifths_counts_three_fifths():
    frames, flow = pan(2)
    frames = frames * 0.5
    frames[1] += 0.1
    frames[1, :8] += 0.4  # a third of the rows differs by 0.5, the others by 0.1
    hidden = flow.backward_occlusion.clone()
    hidden[:, :8, :-1] = 0.4
    soft = Flow(flow.forward, flow.backward, flow.forward_occlusion, hidden, (24, 32), "dis")
    weights = {0.5: 8 * 31 * 0.6, 0.1: 16 * 31}
    expected = sum(size * weight for size, weight in weights.items()) / sum(weights.values())
    assert warping_error(frames, soft) == pytest.approx(expected, abs=1e-6)


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


def disc(height: int, width: int, x: float, y: float, radius: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (((columns - x) ** 2 + (rows - y) ** 2) < radius**2).float()


def test_boundary_f_by_hand():
    # diagonal 50: the tolerance is 0.4, rounded up to one pixel
    mask, ref = torch.zeros(1, 30, 40), torch.zeros(1, 30, 40)
    ref[:, :, 20:] = 1.0
    mask[:, :, 21:] = 1.0
    assert boundary_f(mask, ref) == 1.0  # a straight edge one pixel off
    mask[:, :, :] = 0.0
    mask[:, :, 22:] = 1.0
    assert boundary_f(mask, ref) == 0.0  # two pixels off
    # the upper half of the edge agrees, the lower lies five pixels off; a step of six pixels joins them
    mask[:, :15, 20:], mask[:, 15:, :] = 1.0, 0.0
    mask[:, 15:, 25:] = 1.0
    # The mask's boundary: column 19 in rows 0-14, columns 20-24 in row 14, column 24 in rows 15-29; 15 + 5 + 15 pixels.
    # Near the reference's column 19: the 15 in it and column 20 in row 14, so 16 of 35 and 16 of its 30 (rows 0-15).
    precision, recall = 16 / 35, 16 / 30
    assert boundary_f(mask, ref) == pytest.approx(2 * precision * recall / (precision + recall))


def test_boundary_f_without_boundaries():
    some, none, all_of_it = disc(30, 40, 20, 15, 6)[None], torch.zeros(1, 30, 40), torch.ones(1, 30, 40)
    assert boundary_f(none, none) == boundary_f(some, some) == boundary_f(all_of_it, none) == 1.0
    assert boundary_f(some, none) == boundary_f(none, some) == 0.0


def boundary_f_as_davis_has_it(mask: torch.Tensor, ref: torch.Tensor) -> float:
    """Boundaries dilated by a disc, as the benchmark does."""
    morphology = pytest.importorskip("skimage.morphology")
    disk = morphology.disk(math.ceil(0.008 * math.hypot(*mask.shape)))
    found, wanted = (metrics._boundary(region > 0.5).numpy() for region in (mask, ref))
    precision = (found & morphology.dilation(wanted, disk)).sum() / found.sum()
    recall = (wanted & morphology.dilation(found, disk)).sum() / wanted.sum()
    return float(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("seed", range(4))
def test_boundary_f_agrees_with_dilated_boundaries(seed):
    def blob(seed: int) -> torch.Tensor:
        return torch.nn.functional.interpolate(noise(1, 1, 7, 9, seed=seed), size=(150, 201), mode="bicubic")[0, 0]

    mask = blob(seed)
    ref = mask + 0.15 * blob(seed + 10)
    assert 0.2 < boundary_f(mask[None], ref[None]) < 0.98
    assert boundary_f(mask[None], ref[None]) == pytest.approx(boundary_f_as_davis_has_it(mask, ref), abs=1e-6)


def test_errors_of_mattes_by_hand():
    ref = torch.zeros(3, 4, 4)
    matte = ref.clone()
    matte[0], matte[1, :2] = 0.5, 1.0
    assert mad(matte, ref) == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert mse(matte, ref) == pytest.approx((0.25 + 0.5 + 0) / 3)
    # changes of the error: half the pixels by 0.5, half by -0.5; then half by -1
    assert dtssd(matte, ref) == pytest.approx((0.5 + 0.5**0.5) / 2)
    assert mad(ref, ref) == mse(ref, ref) == dtssd(ref, ref) == 0.0
    assert dtssd(0.3 + 0.5 * noise(1, 4, 4).expand(3, 4, 4), ref) == pytest.approx(0.0, abs=1e-7)
    with pytest.raises(ShapeError, match="needs at least two"):
        dtssd(ref[:1], ref[:1])


def test_figures_of_each_frame_lead_to_those_of_the_clip():
    clip, flow = pan(4)
    bent = (clip + 0.2 * noise(*clip.shape, seed=3)).clamp(0, 1)
    mask, ref = noise(4, 24, 32), noise(4, 24, 32, seed=1)
    ref[2] = mask[2]
    numbers, per_frame = figures(bent, clip, mask, ref, flow)
    assert numbers == measure(bent, clip, mask, ref, flow)
    assert set(per_frame) == set(numbers)
    pairs = {"warping_error", "reference_warping_error", "dtssd"}
    assert {name: len(values) for name, values in per_frame.items()} == {
        name: 3 if name in pairs else 4 for name in numbers
    }
    assert per_frame["iou"][2] == per_frame["boundary_f"][2] == 1.0
    for name, measured in {"psnr": psnr(bent, clip), "ssim": ssim(bent, clip), "iou": iou(mask, ref)}.items():
        assert numbers[name] == pytest.approx(measured)
        assert sum(per_frame[name]) / 4 == pytest.approx(measured)
    one_by_one = [psnr(a[None], b[None]) for a, b in zip(bent, clip, strict=True)]
    assert per_frame["psnr"] == pytest.approx(one_by_one)


def test_frames_that_are_computed_are_made_once_for_all_figures(monkeypatch):
    """Also where few of them are kept, and those of a mask that comes with them."""
    clip, flow = pan(9)
    with_mask = torch.cat((clip, clip[..., :1]), dim=-1)
    made: list[int] = []

    def walk(start):
        for index in range(start, len(clip)):
            made.append(index)
            yield with_mask[index : index + 1]

    monkeypatch.setattr(lazy, "AT_ONCE", with_mask[:2].nbytes)
    monkeypatch.setattr(lazy, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(metrics, "_PIXELS_AT_ONCE", 2 * clip[0, ..., 0].numel())
    frames, mask = lazy.computed_with_mask(
        lambda start: ((run[0, ..., :3], run[0, ..., 3]) for run in walk(start)), tuple(clip.shape)
    )
    ref = clip.flip(1)
    found = figures(frames, ref, mask, ref[..., 0], flow)
    assert made == list(range(9))
    assert (frames._made, mask._made) == (None, None)
    assert found.numbers == pytest.approx(measure(clip, ref, clip[..., 0], ref[..., 0], flow))


def test_masks_may_be_pictures():
    frames, _ = pan()
    ref = torch.zeros(3, 24, 32)
    ref[:, :12] = 1.0
    labels = ref[..., None].expand(-1, -1, -1, 3) / 255
    found = measure(frames, mask=labels, ref_mask=ref)
    assert (found["iou"], found["boundary_f"], found["mad"]) == (1.0, 1.0, 0.0)
    soft = 0.9 * ref[..., None].expand(-1, -1, -1, 3)
    assert measure(frames, mask=soft, ref_mask=ref)["mad"] == pytest.approx(0.05)


def test_measure_gives_what_its_inputs_allow():
    frames, flow = pan()
    mask = torch.ones(3, 24, 32)
    of_masks = {"iou", "boundary_f", "mad", "mse", "dtssd"}
    assert set(measure(frames, frames, mask, mask, flow)) == {
        *of_masks,
        "psnr",
        "ssim",
        "warping_error",
        "reference_warping_error",
    }
    assert set(measure(frames, flow=flow)) == {"warping_error"}
    assert set(measure(frames, mask=mask, ref_mask=mask)) == of_masks
    assert set(measure(frames[:1], mask=mask[:1], ref_mask=mask[:1])) == of_masks - {"dtssd"}
    assert set(measure(frames[:1], frames[:1])) == {"psnr", "ssim"}
    assert set(measure(noise(2, 5, 5, 3), noise(2, 5, 5, 3))) == {"psnr"}


def test_measure_estimates_the_motion_of_the_reference():
    frames, _ = pan(3, 48, 64)
    found = measure(frames.flip(0), frames)
    assert found["reference_warping_error"] < found["warping_error"]


@pytest.mark.parametrize("count", [1, 3])
def test_progress_ends_where_it_said(count):
    frames, _ = pan(count, 24, 32)
    told = []
    figures(frames, frames, on_step=lambda done, total, _: told.append((done, total)))
    assert told[-1][0] == told[-1][1]


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
    for measured in (boundary_f, mad, mse, dtssd):
        with pytest.raises(ShapeError, match="give as many"):
            measured(torch.ones(2, 8, 8), torch.ones(3, 8, 8))
    with pytest.raises(ShapeError, match="at least one"):
        iou(torch.ones(0, 8, 8), torch.ones(0, 8, 8))
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


# As papers on video matting print them


def gaussian_filter() -> torch.Tensor:
    """The filter along x of sigma 1.4, 9x9, whose squares add up to 1, written element by element."""
    kernel = torch.empty(9, 9, dtype=torch.float64)
    for row in range(9):
        for column in range(9):
            y, x = row - 4, column - 4
            gauss = math.exp(-(y**2) / (2 * 1.4**2)) / (1.4 * math.sqrt(2 * math.pi))
            slope = -x * math.exp(-(x**2) / (2 * 1.4**2)) / (1.4**3 * math.sqrt(2 * math.pi))
            kernel[row, column] = gauss * slope
    return kernel / kernel.square().sum().sqrt()


def test_gradient_error_of_one_bright_pixel_is_that_of_the_filter():
    """Gradients along x and y are the filter, mirrored, and its transpose: 1 + 1 of squares, by 1000."""
    matte, ref = torch.zeros(1, 31, 31), torch.zeros(1, 31, 31)
    matte[0, 15, 15] = 1.0
    assert gradient_error(matte, ref, normalised=False) == pytest.approx(2e-3)
    assert gradient_error(matte, ref) == pytest.approx(2e-3)
    assert gradient_error(ref, matte) == pytest.approx(2e-3)


def test_gradient_error_of_a_step_by_hand():
    """Across a vertical step the response at a column is the sum of the filter's columns beyond the step."""
    matte, ref = torch.zeros(1, 30, 40), torch.zeros(1, 30, 40)
    matte[..., 20:] = 0.5
    columns = gaussian_filter().sum(dim=0)
    # a pixel d columns left of the step has the filter's columns from d on over the bright side
    responses = [0.5 * float(columns[4 + d :].sum()) for d in range(-4, 5)]
    expected = 30 * sum(response**2 for response in responses) / 1000
    assert gradient_error(matte, ref, normalised=False) == pytest.approx(expected)
    assert gradient_error(matte, ref) == pytest.approx(4 * expected)  # stretched, the step is twice as high


def test_gradients_of_mattes_that_differ_by_a_constant_agree():
    ref = 0.5 * noise(2, 20, 20)
    assert gradient_error(ref + 0.3, ref, normalised=False) == pytest.approx(0.0, abs=1e-9)


def test_connectivity_error_by_hand():
    """Two opaque blocks in both mattes; the smaller hangs together with the larger in the reference only."""
    ref = torch.zeros(1, 12, 12)
    ref[0, 4:6, :9] = 1.0  # 18 pixels in one piece
    matte = ref.clone()
    matte[0, :, 6] = 0.0  # 12 pixels, a gap of 2, and 4 pixels
    # Levels above 0 hold the 12 pixels: the others are connected up to level 0 only. In the reference they are 1 above
    # it, so not connected at all (phi 0); in the matte so are the 4, and the gap lies at its level (phi 1).
    assert connectivity_error(matte, ref) == pytest.approx(2e-3)


def test_what_is_slightly_above_its_level_counts_as_connected():
    ref = torch.full((1, 4, 5), 0.6)
    assert connectivity_error(ref + 0.1, ref) == pytest.approx(0.0, abs=1e-9)  # 0.7 is 0.1 above the common level 0.6
    # 0.85 is 0.25 above it, more than 0.15: 20 pixels of phi 0.75 against 1
    assert connectivity_error(ref + 0.25, ref) == pytest.approx(20 * 0.25 / 1000, abs=1e-6)


def test_foreground_counts_where_the_true_matte_is_above_0():
    ref, matte = torch.zeros(3, 8, 8, 3), torch.zeros(3, 8, 8)
    pred = ref + 0.5
    matte[0, :2] = 0.01
    pred[0, :2] = 0.1  # 0.01
    matte[1] = 1.0
    pred[1, ..., 0], pred[1, ..., 1:] = 0.6, 0.0  # 0.36 in one of three channels
    assert foreground_mse(pred, ref, matte) == pytest.approx((0.01 + 0.12) / 2)  # the last frame has no foreground


def test_published_figures_are_in_the_papers_units():
    ref = torch.zeros(3, 20, 20)
    ref[:, 5:15, 5:15] = 1.0
    matte = ref.clone()
    matte[1] = (ref[1] - 0.2).clamp_min(0.0)
    found = published(matte, ref)
    assert found.numbers["mad"] == pytest.approx(1e3 * 0.2 * 100 / 400 / 3)
    assert found.numbers["mse"] == pytest.approx(1e3 * 0.04 * 100 / 400 / 3)
    change = 1e2 * math.sqrt(0.04 * 100 / 400)
    assert found.per_frame["dtssd"] == pytest.approx([0.0, change, change])
    assert found.numbers["dtssd"] == pytest.approx(2 * change / 3)
    assert found.numbers["grad_hr"] == pytest.approx(gradient_error(matte, ref, normalised=False))
    assert found.numbers["grad"] == pytest.approx(0.0, abs=1e-9)  # stretched, both are the same
    assert found.numbers["conn"] == pytest.approx(connectivity_error(matte, ref))
    assert "foreground_mse" not in found.numbers


def test_published_figures_of_equal_mattes_are_0():
    matte, clip = noise(3, 20, 20), noise(3, 20, 20, 3)
    numbers = published(matte, matte, clip, clip).numbers
    assert set(numbers) == {"mad", "mse", "grad", "grad_hr", "conn", "dtssd", "foreground_mse"}
    assert all(value == 0.0 for value in numbers.values())


def test_published_figures_do_not_depend_on_how_many_frames_are_held_at_once(monkeypatch):
    matte, ref, clip = noise(5, 20, 20), noise(5, 20, 20, seed=1), noise(5, 20, 20, 3)
    whole = published(matte, ref, clip, 1.0 - clip)
    monkeypatch.setattr(metrics, "_PIXELS_AT_ONCE", 800)
    assert published(matte, ref, clip, 1.0 - clip).numbers == pytest.approx(whole.numbers)


def test_mattes_of_other_sizes_are_refused():
    with pytest.raises(ShapeError, match="resize them"):
        published(noise(2, 20, 20), noise(2, 20, 21))
    with pytest.raises(ShapeError, match="resize them"):
        published(noise(2, 20, 20), noise(2, 20, 20), noise(2, 20, 24, 3), noise(2, 20, 24, 3))
