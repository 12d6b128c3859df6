"""How good a clip is: against a reference (PSNR, SSIM), along the motion (warping error), and how good masks are.

Masks as regions have IoU and boundary F (the J and F of DAVIS), mattes MAD, MSE and dtSSD. Everything runs over a few
frames at a time, so memory does not grow with the length of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .checks import as_matte, check_flow, check_frames, check_mask
from .errors import InputError, ShapeError
from .image.resize import resize
from .motion.warp import resize_flow, warp
from .types import Flow, OnStep

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MAX_PSNR",
    "Figures",
    "boundary_f",
    "dtssd",
    "figures",
    "iou",
    "mad",
    "measure",
    "mse",
    "psnr",
    "ssim",
    "warping_error",
]

MAX_PSNR = 100.0
"""dB given to identical frames, whose PSNR is infinite: keeps means and JSON files finite."""
BOUNDARY_TOLERANCE = 0.008
"""How far apart two boundaries may be and still match, as a part of the image's diagonal: that of DAVIS."""
_SSIM_WINDOW = 7
_PIXELS_AT_ONCE = 2_000_000


def psnr(pred: Tensor, ref: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the mean over frames of ``-10 log10(mean squared difference)``.

    A frame counts at most ``MAX_PSNR`` dB.

    Args:
        pred: ``(T, H, W, 3)`` in 0..1.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    return fmean(_psnr(*_same_shape(pred, ref)))


def _psnr(pred: Tensor, ref: Tensor) -> list[float]:
    errors = (error for a, b in _chunks(pred, ref) for error in (a - b).square().flatten(1).mean(dim=1).tolist())
    return [min(MAX_PSNR, -10.0 * math.log10(error)) if error > 0.0 else MAX_PSNR for error in errors]


def ssim(pred: Tensor, ref: Tensor) -> float:
    """Structural similarity, the mean over frames, channels and windows.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004, eq. 13, with
    K1 = 0.01 and K2 = 0.03; the windows are uniform, 7x7, wholly inside the frame, with sample covariances: the numbers
    agree with scikit-image's ``structural_similarity(..., data_range=1, channel_axis=-1)``.

    Args:
        pred: ``(T, H, W, 3)`` in 0..1, at least 7x7 pixels.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape, or are smaller than the window.
    """
    return fmean(_ssim(*_same_shape(pred, ref, smallest_side=_SSIM_WINDOW)))


def _ssim(pred: Tensor, ref: Tensor) -> list[float]:
    return [_frame_ssim(a.cpu().numpy(), b.cpu().numpy()) for a, b in zip(pred, ref, strict=True)]


def _frame_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean SSIM of two pictures ``(H, W, C)``."""
    import cv2

    border = _SSIM_WINDOW // 2

    def mean(x: np.ndarray) -> np.ndarray:
        whole = cv2.boxFilter(x, cv2.CV_64F, (_SSIM_WINDOW, _SSIM_WINDOW))
        return whole[border:-border, border:-border]

    count = _SSIM_WINDOW**2
    sample = count / (count - 1)
    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = mean(a), mean(b)
    var_a = sample * (mean(a * a) - mean_a * mean_a)
    var_b = sample * (mean(b * b) - mean_b * mean_b)
    cov = sample * (mean(a * b) - mean_a * mean_b)
    ssim = ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(ssim.mean())


def warping_error(frames: Tensor, flow: Flow) -> float:
    """Flicker along the motion: mean ``|frame[i+1] - frame[i] brought along the flow|`` over visible pixels.

    Lai et al., "Learning blind video temporal consistency", ECCV 2018, eq. 7, with absolute instead of squared
    differences, so that it reads in the units of the frames.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, at least two frames.
        flow: motion of the same clip (or of its reference); resized to the frames where it is smaller.

    Returns:
        A number in 0..1; 0 where no pixel is visible in two frames.

    Raises:
        ShapeError: the flow is of a clip of another length.
    """
    frames = check_frames(frames, at_least=2)
    check_flow(flow, len(frames))
    return _over_visible(_differences(frames, flow))


def _differences(frames: Tensor, flow: Flow) -> list[tuple[float, float]]:
    """Sum of the differences between each frame and the one before brought along the flow, and how many count."""
    height, width = frames.shape[1:3]
    found: list[tuple[float, float]] = []
    step = _frames_at_once(height, width)
    for start in range(0, len(flow), step):
        pair = slice(start, min(start + step, len(flow)))
        clip = frames[start : pair.stop + 1].movedim(-1, 1)
        backward = resize_flow(flow.backward[pair].to(clip), (height, width))
        visible = 1.0 - resize(flow.backward_occlusion[pair].to(clip)[:, None], (height, width))
        difference = (clip[1:] - warp(clip[:-1], backward)).abs()
        sums = (difference * visible).sum(dim=(1, 2, 3), dtype=torch.float64)
        counts = visible.sum(dim=(1, 2, 3), dtype=torch.float64) * difference.shape[1]
        found.extend(zip(sums.tolist(), counts.tolist(), strict=True))
    return found


def _over_visible(differences: list[tuple[float, float]]) -> float:
    count = sum(count for _, count in differences)
    return sum(total for total, _ in differences) / count if count > 0.0 else 0.0


def iou(mask: Tensor, ref: Tensor) -> float:
    """Intersection over union of masks cut at 0.5, the mean over frames: the J of DAVIS.

    Perazzi et al., "A benchmark dataset and evaluation methodology for video object segmentation", CVPR 2016, section
    4. As there, two empty masks agree (1). All frames count; DAVIS's own means leave out the first and the last.

    Args:
        mask: ``(T, H, W)`` in 0..1.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    return fmean(_iou(*_same_masks(mask, ref)))


def _iou(mask: Tensor, ref: Tensor) -> list[float]:
    found: list[float] = []
    for a, b in _chunks(mask, ref):
        inside, wanted = (a > 0.5).flatten(1), (b > 0.5).flatten(1)
        both, either = (inside & wanted).sum(dim=1), (inside | wanted).sum(dim=1)
        found.extend(torch.where(either > 0, both / either.clamp_min(1), 1.0).tolist())
    return found


def boundary_f(mask: Tensor, ref: Tensor) -> float:
    """How well the outlines of masks cut at 0.5 agree, the mean over frames: the F of DAVIS.

    F is ``2 P R / (P + R)``: P the share of the mask's boundary that lies within ``BOUNDARY_TOLERANCE`` of the image's
    diagonal (rounded up to pixels) from the reference's, R the share of the reference's that lies so near the mask's.
    Perazzi et al., CVPR 2016, section 4. Two masks without a boundary agree (1), one without does not (0).

    Args:
        mask: ``(T, H, W)`` in 0..1.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    return fmean(_boundary_f(*_same_masks(mask, ref)))


def _boundary_f(mask: Tensor, ref: Tensor) -> list[float]:
    reach = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*mask.shape[1:]))
    return [
        _frame_boundary_f(_boundary(a > 0.5).cpu().numpy(), _boundary(b > 0.5).cpu().numpy(), reach)
        for a, b in zip(mask, ref, strict=True)
    ]


def _boundary(region: Tensor) -> Tensor:
    """Pixels whose right, lower or lower right neighbour is on the other side; ``(H, W)`` of booleans."""
    boundary = torch.zeros_like(region)
    boundary[:, :-1] |= region[:, :-1] != region[:, 1:]
    boundary[:-1] |= region[:-1] != region[1:]
    boundary[:-1, :-1] |= region[:-1, :-1] != region[1:, 1:]
    return boundary


def _frame_boundary_f(found: np.ndarray, wanted: np.ndarray, reach: int) -> float:
    import cv2

    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())

    def share_near(boundary: np.ndarray, other: np.ndarray) -> float:
        distance = cv2.distanceTransform((~other).astype("uint8"), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return float((distance[boundary] <= reach + 1e-3).mean())  # the next distance is far more than that away

    precision, recall = share_near(found, wanted), share_near(wanted, found)
    return 2.0 * precision * recall / (precision + recall) if precision + recall > 0.0 else 0.0


def mad(matte: Tensor, ref: Tensor) -> float:
    """Mean absolute difference of mattes, ``mean |matte - ref|`` in 0..1; papers on matting give it times 1000.

    Args:
        matte: ``(T, H, W)`` in 0..1.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    return fmean(_mad(*_same_masks(matte, ref)))


def _mad(matte: Tensor, ref: Tensor) -> list[float]:
    return [error for a, b in _chunks(matte, ref) for error in (a - b).abs().flatten(1).mean(dim=1).tolist()]


def mse(matte: Tensor, ref: Tensor) -> float:
    """Mean squared difference of mattes in 0..1; papers on matting give it times 1000.

    Args:
        matte: ``(T, H, W)`` in 0..1.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    return fmean(_mse(*_same_masks(matte, ref)))


def _mse(matte: Tensor, ref: Tensor) -> list[float]:
    return [error for a, b in _chunks(matte, ref) for error in (a - b).square().flatten(1).mean(dim=1).tolist()]


def dtssd(matte: Tensor, ref: Tensor) -> float:
    """How differently two mattes change from frame to frame, 0 for mattes that flicker alike.

    The mean over neighbouring frames of ``sqrt(mean (d matte / dt - d ref / dt)^2)``: Erofeev et al., "Perceptually
    motivated benchmark for video matting", BMVC 2015. In 0..2; papers on matting give it times 100.

    Args:
        matte: ``(T, H, W)`` in 0..1, two frames or more.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape, or there is one frame.
    """
    matte, ref = _same_masks(matte, ref)
    if len(matte) < 2:
        raise ShapeError("mask: got 1 mask, change from frame to frame needs at least two")
    return fmean(_dtssd(matte, ref))


def _dtssd(matte: Tensor, ref: Tensor) -> list[float]:
    errors = (a - b for a, b in zip(matte, ref, strict=True))
    before = next(errors)
    found = []
    for error in errors:
        found.append(math.sqrt(float((error - before).square().mean())))
        before = error
    return found


class Figures(NamedTuple):
    """What was measured."""

    numbers: dict[str, float]
    """One finite number for the clip, by name."""
    per_frame: dict[str, list[float]]
    """The same by frame; for ``warping_error``, ``reference_warping_error`` and ``dtssd`` by pair of frames."""


def figures(
    pred: Tensor,
    ref: Tensor | None = None,
    mask: Tensor | None = None,
    ref_mask: Tensor | None = None,
    flow: Flow | None = None,
    *,
    on_step: OnStep | None = None,
) -> Figures:
    """Return every figure that the inputs allow, for the clip and for each frame.

    Args:
        pred: the clip, ``(T, H, W, 3)`` in 0..1.
        ref: what it should be, the same shape: gives ``psnr`` and ``ssim`` (from 7x7 pixels).
        mask: a found mask ``(T, H, W)``, or pictures of one (see ``masks.as_matte``); with ``ref_mask`` gives ``iou``,
            ``boundary_f``, ``mad``, ``mse`` and, from two frames on, ``dtssd``.
        ref_mask: the true mask.
        flow: motion of the clip: gives ``warping_error``, and with a reference ``reference_warping_error``, the floor
            that true motion and true change leave. Without it, the motion of the reference is estimated (DIS), where
            there are two frames of it.
        on_step: told after every figure, counted in frames; stops the work by raising.

    Raises:
        InputError: nothing to compare the clip with.
        ShapeError: the inputs differ in length or size, or a mask comes alone.
    """
    pred = check_frames(pred, at_least=1 if flow is None else 2)
    if ref is None and flow is None and mask is None and ref_mask is None:
        raise InputError("nothing to measure against; give a reference, a flow, or a mask and its reference mask")
    if (mask is None) != (ref_mask is None):
        missing, given = ("mask", "reference mask") if mask is None else ("reference mask", "mask")
        raise ShapeError(f"{missing}: none was given; it is compared with the {given}, so give both or neither")
    if flow is not None:
        check_flow(flow, len(pred))
    if ref is not None:
        pred, ref = _same_shape(pred, ref)

    jobs: dict[str, Callable[[], list[float]]] = {}
    if mask is not None and ref_mask is not None:
        masks = _same_masks(as_matte(mask), as_matte(ref_mask, "reference mask"))
        jobs |= {
            name: partial(job, *masks)
            for name, job in (("iou", _iou), ("boundary_f", _boundary_f), ("mad", _mad), ("mse", _mse))
        }
        if len(masks[0]) > 1:
            jobs["dtssd"] = partial(_dtssd, *masks)
    if ref is not None:
        jobs["psnr"] = partial(_psnr, pred, ref)
        if min(pred.shape[1:3]) >= _SSIM_WINDOW:
            jobs["ssim"] = partial(_ssim, pred, ref)
    if ref is not None and flow is None:
        flow = _motion(ref)
    along = {
        name: clip
        for name, clip in (("warping_error", pred), ("reference_warping_error", ref))
        if flow is not None and clip is not None
    }
    total, done = (len(jobs) + len(along)) * len(pred), 0

    def told() -> None:
        nonlocal done
        done += len(pred)
        if on_step is not None:
            on_step(done, total, None)

    per_frame: dict[str, list[float]] = {}
    for name, job in jobs.items():
        per_frame[name] = job()
        told()
    numbers = {name: fmean(values) for name, values in per_frame.items()}
    if flow is not None:
        for name, clip in along.items():
            differences = _differences(clip, flow)
            numbers[name] = _over_visible(differences)
            per_frame[name] = [_over_visible([pair]) for pair in differences]
            told()
    return Figures(numbers, per_frame)


def measure(
    pred: Tensor,
    ref: Tensor | None = None,
    mask: Tensor | None = None,
    ref_mask: Tensor | None = None,
    flow: Flow | None = None,
) -> dict[str, float]:
    """Return the numbers of ``figures``, which has the arguments: one for the clip, by name."""
    return figures(pred, ref, mask, ref_mask, flow).numbers


def _motion(frames: Tensor) -> Flow | None:
    from .motion.flow import SMALLEST_SIDE, estimate_flow

    if len(frames) < 2 or min(frames.shape[1:3]) < SMALLEST_SIDE:
        return None
    return estimate_flow(frames, model="dis", lift_dark=False)


def _same_shape(pred: Tensor, ref: Tensor, *, smallest_side: int = 1) -> tuple[Tensor, Tensor]:
    pred = check_frames(pred, smallest_side=smallest_side)
    ref = check_frames(ref, "reference", smallest_side=smallest_side)
    if pred.shape != ref.shape:
        (t, h, w, _), (t2, h2, w2, _) = pred.shape, ref.shape
        raise ShapeError(
            f"frames: got {t} of {w}x{h} pixels, the reference has {t2} of {w2}x{h2}; "
            "measure clips of one size and length"
        )
    return pred, ref.to(pred.device)


def _same_masks(mask: Tensor, ref: Tensor) -> tuple[Tensor, Tensor]:
    ref = check_mask(ref, "reference mask")
    if len(ref) == 0:
        raise ShapeError("reference mask: got none, at least one frame is needed")
    mask = check_mask(mask, "mask", size=(ref.shape[1], ref.shape[2]))
    if len(mask) != len(ref):
        raise ShapeError(f"mask: got {len(mask)} masks, the reference has {len(ref)}; give as many")
    return mask, ref.to(mask.device)


def _frames_at_once(height: int, width: int) -> int:
    return max(1, _PIXELS_AT_ONCE // (height * width))


def _chunks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    step = _frames_at_once(a.shape[1], a.shape[2])
    for start in range(0, len(a), step):
        yield a[start : start + step], b[start : start + step]
