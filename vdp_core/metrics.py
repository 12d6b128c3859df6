"""How good a clip is: against a reference (PSNR, SSIM), along the motion (warping error), and masks (IoU).

Everything runs over a few frames at a time, so memory does not grow with the length of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError, ShapeError, check_flow, check_frames, check_mask
from .types import Flow
from .warp import resize_flow, warp

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MAX_PSNR", "iou", "measure", "psnr", "ssim", "warping_error"]

MAX_PSNR = 100.0
"""dB given to identical frames, whose PSNR is infinite: keeps means and JSON files finite."""

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
    pred, ref = _same_shape(pred, ref)
    total = 0.0
    for a, b in _chunks(pred, ref):
        for error in (a - b).square().flatten(1).mean(dim=1).tolist():
            total += min(MAX_PSNR, -10.0 * math.log10(error)) if error > 0.0 else MAX_PSNR
    return total / len(pred)


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
    pred, ref = _same_shape(pred, ref, smallest_side=_SSIM_WINDOW)
    return sum(_frame_ssim(a.cpu().numpy(), b.cpu().numpy()) for a, b in zip(pred, ref, strict=True)) / len(pred)


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
    height, width = frames.shape[1:3]
    total, weight = 0.0, 0.0
    step = _frames_at_once(height, width)
    for start in range(0, len(flow), step):
        pair = slice(start, min(start + step, len(flow)))
        clip = frames[start : pair.stop + 1].movedim(-1, 1)
        backward = resize_flow(flow.backward[pair].to(clip), (height, width))
        hidden = flow.backward_occlusion[pair].to(clip)[:, None]
        if hidden.shape[-2:] != (height, width):
            hidden = F.interpolate(hidden, size=(height, width), mode="bilinear", align_corners=False)
        visible = 1.0 - hidden
        difference = (clip[1:] - warp(clip[:-1], backward)).abs()
        total += float((difference * visible).sum(dtype=torch.float64))
        weight += float(visible.sum(dtype=torch.float64)) * difference.shape[1]
    return total / weight if weight > 0.0 else 0.0


def iou(mask: Tensor, ref: Tensor) -> float:
    """Intersection over union of masks cut at 0.5, the mean over frames; two empty masks agree (1).

    Args:
        mask: ``(T, H, W)`` in 0..1.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    ref = check_mask(ref, "reference mask")
    mask = check_mask(mask, "mask", size=(ref.shape[1], ref.shape[2]))
    if len(mask) != len(ref):
        raise ShapeError(f"mask: got {len(mask)} masks, the reference has {len(ref)}; give as many")
    total = 0.0
    for a, b in _chunks(mask, ref):
        inside, wanted = (a > 0.5).flatten(1), (b > 0.5).flatten(1)
        both, either = (inside & wanted).sum(dim=1), (inside | wanted).sum(dim=1)
        total += float(torch.where(either > 0, both / either.clamp_min(1), 1.0).sum())
    return total / len(ref)


def measure(
    pred: Tensor,
    ref: Tensor | None = None,
    mask: Tensor | None = None,
    ref_mask: Tensor | None = None,
    flow: Flow | None = None,
) -> dict[str, float]:
    """Return every figure that the inputs allow.

    Args:
        pred: the clip, ``(T, H, W, 3)`` in 0..1.
        ref: what it should be, the same shape: gives ``psnr`` and ``ssim`` (from 7x7 pixels).
        mask: a found mask ``(T, H, W)``; with ``ref_mask`` gives ``iou``.
        ref_mask: the true mask.
        flow: motion of the clip: gives ``warping_error``, and with a reference ``reference_warping_error``, the floor
            that true motion and true change leave. Without it, the motion of the reference is estimated (DIS), where
            there are two frames of it.

    Returns:
        Finite numbers by name: ``psnr``, ``ssim``, ``warping_error``, ``reference_warping_error``, ``iou``.

    Raises:
        InputError: nothing to compare the clip with.
        ShapeError: the inputs differ in length or size, or a mask comes alone.
    """
    pred = check_frames(pred)
    if ref is None and flow is None and mask is None and ref_mask is None:
        raise InputError("nothing to measure against; give a reference, a flow, or a mask and its reference mask")
    if (mask is None) != (ref_mask is None):
        missing, given = ("mask", "reference mask") if mask is None else ("reference mask", "mask")
        raise ShapeError(f"{missing}: none was given; IoU compares it with the {given}, so give both or neither")
    if flow is not None:
        check_flow(flow, len(pred))
    if ref is not None:
        pred, ref = _same_shape(pred, ref)

    numbers: dict[str, float] = {}
    if mask is not None and ref_mask is not None:
        numbers["iou"] = iou(mask, ref_mask)
    if ref is not None:
        numbers["psnr"] = psnr(pred, ref)
        if min(pred.shape[1:3]) >= _SSIM_WINDOW:
            numbers["ssim"] = ssim(pred, ref)
        if flow is None:
            flow = _motion(ref)
    if flow is not None:
        numbers["warping_error"] = warping_error(pred, flow)
        if ref is not None:
            numbers["reference_warping_error"] = warping_error(ref, flow)
    return numbers


def _motion(frames: Tensor) -> Flow | None:
    from .flow import SMALLEST_SIDE, estimate_flow

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


def _frames_at_once(height: int, width: int) -> int:
    return max(1, _PIXELS_AT_ONCE // (height * width))


def _chunks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    step = _frames_at_once(a.shape[1], a.shape[2])
    for start in range(0, len(a), step):
        yield a[start : start + step], b[start : start + step]
