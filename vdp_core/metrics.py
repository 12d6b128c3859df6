"""How good a clip is: against a reference (PSNR, SSIM), along the motion (warping error), and how good masks are.

Masks as regions have IoU and boundary F (the J and F of DAVIS), mattes MAD, MSE and dtSSD, and in ``published`` what
papers on video matting print. All figures are taken in one walk over a few frames at a time, so memory does not grow
with the length of the clip, and each frame of a clip that is computed when it is looked at is made once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .checks import check_flow, check_frames, check_mask
from .errors import InputError, ShapeError
from .image.resize import resize
from .image.selection import are_pictures, as_matte
from .motion.warp import resize_flow, warp
from .types import Flow, OnStep

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MAX_PSNR",
    "Figures",
    "boundary_f",
    "connectivity_error",
    "dtssd",
    "figures",
    "foreground_mse",
    "gradient_error",
    "iou",
    "mad",
    "measure",
    "mse",
    "psnr",
    "published",
    "ssim",
    "warping_error",
]

MAX_PSNR = 100.0
"""dB given to identical frames, whose PSNR is infinite: keeps means and JSON files finite."""
BOUNDARY_TOLERANCE = 0.008
"""How far apart two boundaries may be and still match, as a part of the image's diagonal: that of DAVIS."""
GRADIENT_SIGMA, GRADIENT_SMALLEST = 1.4, 1e-2
"""Of the Gaussian that gradients are taken with, in pixels, and where it is cut off."""
CONNECTED_STEP, CONNECTED_TOLERANCE = 0.1, 0.15
"""Levels at which mattes are cut for their connectivity, and how much less connected than opaque a pixel may be."""
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
    return fmean(_over(_psnr, *_same_shape(pred, ref)))


def _psnr(pred: Tensor, ref: Tensor) -> list[float]:
    errors = (pred - ref).square().flatten(1).mean(dim=1).tolist()
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
    return fmean(_over(_ssim, *_same_shape(pred, ref, smallest_side=_SSIM_WINDOW)))


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
    return _over_visible(_over(_differences, frames, flow.backward, flow.backward_occlusion, pairs=True))


def _differences(frames: Tensor, backward: Tensor, occluded: Tensor) -> list[tuple[float, float]]:
    """Sum of the differences between each frame and the one before brought along the flow, and how many count."""
    size = frames.shape[1:3]
    pairs = len(frames) - 1
    clip = frames.movedim(-1, 1)
    backward = resize_flow(backward[:pairs].to(clip), (size[0], size[1]))
    visible = 1.0 - resize(occluded[:pairs].to(clip)[:, None], (size[0], size[1]))
    difference = (clip[1:] - warp(clip[:-1], backward)).abs()
    sums = (difference * visible).sum(dim=(1, 2, 3), dtype=torch.float64)
    counts = visible.sum(dim=(1, 2, 3), dtype=torch.float64) * difference.shape[1]
    return list(zip(sums.tolist(), counts.tolist(), strict=True))


def _over_visible(differences: Sequence[tuple[float, float]]) -> float:
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
    return fmean(_over(_iou, *_same_masks(mask, ref)))


def _iou(mask: Tensor, ref: Tensor) -> list[float]:
    inside, wanted = (mask > 0.5).flatten(1), (ref > 0.5).flatten(1)
    both, either = (inside & wanted).sum(dim=1), (inside | wanted).sum(dim=1)
    return torch.where(either > 0, both / either.clamp_min(1), 1.0).tolist()


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
    return fmean(_over(_boundary_f, *_same_masks(mask, ref)))


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
    return fmean(_over(_mad, *_same_masks(matte, ref)))


def _mad(matte: Tensor, ref: Tensor) -> list[float]:
    return (matte - ref).abs().flatten(1).mean(dim=1).tolist()


def mse(matte: Tensor, ref: Tensor) -> float:
    """Mean squared difference of mattes in 0..1; papers on matting give it times 1000.

    Args:
        matte: ``(T, H, W)`` in 0..1.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    return fmean(_over(_mse, *_same_masks(matte, ref)))


def _mse(matte: Tensor, ref: Tensor) -> list[float]:
    return (matte - ref).square().flatten(1).mean(dim=1).tolist()


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
    return fmean(_over(_dtssd, matte, ref, pairs=True))


def _dtssd(matte: Tensor, ref: Tensor) -> list[float]:
    errors = matte - ref
    return (errors[1:] - errors[:-1]).square().flatten(1).mean(dim=1).sqrt().tolist()


def gradient_error(matte: Tensor, ref: Tensor, *, normalised: bool = True) -> float:
    """How differently two mattes rise and fall: squared differences of gradients, summed over a frame, by 1000.

    Gradients are lengths of the derivatives of a Gaussian, whose filters have a sum of squares of 1; beyond the border
    mattes go on as they are. The mean over frames. Rhemann et al., "A perceptually motivated online benchmark for image
    matting", CVPR 2009, section 4.2.

    Args:
        matte: ``(T, H, W)`` in 0..1.
        ref: the same shape.
        normalised: stretch each frame of both to 0..1 first, as is done for tables of small frames, not of large ones.

    Raises:
        ShapeError: the two differ in shape.
    """
    return fmean(_over(_stretched_gradients if normalised else _gradients, *_same_masks(matte, ref)))


def _stretched_gradients(matte: Tensor, ref: Tensor) -> list[float]:
    return _gradients(_stretched(matte), _stretched(ref))


def _stretched(mattes: Tensor) -> Tensor:
    low, high = mattes.amin(dim=(1, 2), keepdim=True), mattes.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > low, (mattes - low) / (high - low).clamp_min(1e-12), mattes)


def _gradients(matte: Tensor, ref: Tensor) -> list[float]:
    lengths = ([_gradient(frame.cpu().double().numpy()) for frame in mattes] for mattes in (matte, ref))
    return [float(((one - other) ** 2).sum()) / 1000.0 for one, other in zip(*lengths, strict=True)]


def _gradient(matte: np.ndarray) -> np.ndarray:
    """Length of the gradient of a matte ``(H, W)``."""
    import cv2
    import numpy as np

    sigma = GRADIENT_SIGMA
    reach = math.ceil(sigma * math.sqrt(-2.0 * math.log(math.sqrt(2.0 * math.pi) * sigma * GRADIENT_SMALLEST)))
    place = np.arange(-reach, reach + 1.0)
    gauss = np.exp(-(place**2) / (2.0 * sigma**2))
    slope = -place * gauss
    across = np.outer(gauss, slope)
    across /= np.sqrt((across**2).sum())
    parts = (cv2.filter2D(matte, -1, kernel, borderType=cv2.BORDER_REPLICATE) for kernel in (across, across.T))
    return np.hypot(*parts)


def connectivity_error(matte: Tensor, ref: Tensor) -> float:
    """How differently pixels of two mattes hang together with what is opaque in both, summed over a frame, by 1000.

    Rhemann et al., CVPR 2009, section 4.2: both are cut at levels ``CONNECTED_STEP`` apart; a pixel is connected up to
    the last level at which it lies in the largest 4-connected region that both have. What lies more than
    ``CONNECTED_TOLERANCE`` above that counts as loose. The mean over frames.

    Args:
        matte: ``(T, H, W)`` in 0..1.
        ref: the same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    return fmean(_over(_connectivity, *_same_masks(matte, ref)))


def _connectivity(matte: Tensor, ref: Tensor) -> list[float]:
    return [_frame_connectivity(*(one.cpu().numpy() for one in pair)) for pair in zip(matte, ref, strict=True)]


def _frame_connectivity(matte: np.ndarray, ref: np.ndarray) -> float:
    import cv2
    import numpy as np

    levels = np.arange(0.0, 1.0 + CONNECTED_STEP, CONNECTED_STEP)
    connected = np.full(ref.shape, -1.0)
    for below, level in pairwise(levels):
        both = ((ref >= level) & (matte >= level)).astype(np.uint8)
        _, labels, about, _ = cv2.connectedComponentsWithStats(both, connectivity=4)
        sizes = about[1:, cv2.CC_STAT_AREA]
        largest = labels == 1 + sizes.argmax() if len(sizes) else np.zeros(ref.shape, bool)
        connected[(connected < 0.0) & ~largest] = below
    connected[connected < 0.0] = 1.0
    loose = (one - connected for one in (matte, ref))
    first, second = (1.0 - more * (more >= CONNECTED_TOLERANCE) for more in loose)
    return float(np.abs(first - second).sum()) / 1000.0


def foreground_mse(pred: Tensor, ref: Tensor, ref_matte: Tensor) -> float:
    """Mean squared difference of foreground colours where the true matte is above 0.

    The mean over frames that have any.

    Args:
        pred: ``(T, H, W, 3)`` in 0..1, not multiplied with the matte.
        ref: the same shape.
        ref_matte: the true matte, ``(T, H, W)``.

    Returns:
        A number in 0..1; 0 where the matte is 0 everywhere.

    Raises:
        ShapeError: they differ in length or size.
    """
    pred, ref = _same_shape(pred, ref)
    ref_matte, _ = _same_masks(ref_matte, ref[..., 0])
    return _over_visible(_over(_foregrounds, pred, ref, ref_matte))


def _foregrounds(pred: Tensor, ref: Tensor, ref_matte: Tensor) -> list[tuple[float, float]]:
    """Mean of each frame, and whether it has one."""
    errors, inside = (pred - ref).square().mean(dim=-1), ref_matte > 0.0
    counts = inside.sum(dim=(1, 2))
    sums = (errors * inside).sum(dim=(1, 2), dtype=torch.float64)
    means = torch.where(counts > 0, sums / counts.clamp_min(1), 0.0)
    return list(zip(means.tolist(), (counts > 0).double().tolist(), strict=True))


def published(
    matte: Tensor,
    ref_matte: Tensor,
    foreground: Tensor | None = None,
    ref_foreground: Tensor | None = None,
    *,
    on_step: OnStep | None = None,
) -> Figures:
    """What papers on video matting print of a matte, in their units (Lin et al., "Robust High-Resolution Video Matting
    with Temporal Guidance", WACV 2022, section 5).

    ``mad`` and ``mse`` times 1000, ``grad`` and ``conn`` (see ``gradient_error``, ``connectivity_error``), ``dtssd``
    times 100, where the first frame counts as 0, and ``foreground_mse`` times 1000. ``grad_hr`` is ``grad`` of mattes
    that are not stretched to 0..1, as in tables of large frames; ``conn`` is printed of small frames only.

    Args:
        matte: ``(T, H, W)`` in 0..1, or pictures of it (see ``image.selection.as_matte``).
        ref_matte: the true one.
        foreground, ref_foreground: colours, ``(T, H, W, 3)``; None leaves ``foreground_mse`` out.
        on_step: told after every few frames; stops the work by raising.

    Raises:
        ShapeError: the inputs differ in length or size.
    """
    masks = _same_masks(as_matte(matte), as_matte(ref_matte, "reference mask"))
    scales = {"mad": 1e3, "mse": 1e3, "grad": 1.0, "grad_hr": 1.0, "conn": 1.0}
    measures = (_mad, _mse, _stretched_gradients, _gradients, _connectivity)
    jobs = [_Job(name, one, masks) for name, one in zip(scales, measures, strict=True)]
    changes = _Job("dtssd", _dtssd, masks, pairs=True)
    colours = None
    if foreground is not None and ref_foreground is not None:
        colours = _Job("foreground_mse", _foregrounds, (*_same_shape(foreground, ref_foreground), masks[1]))
        check_same_masks(masks[1], colours.clips[0][..., 0])
    _walk([*jobs, changes, *([colours] if colours else [])], on_step)
    per_frame = {job.name: [scales[job.name] * value for value in job.found] for job in jobs}
    per_frame["dtssd"] = [0.0, *(1e2 * value for value in changes.found)]
    numbers = {name: fmean(values) for name, values in per_frame.items()}
    if colours is not None:
        numbers[colours.name] = 1e3 * _over_visible(colours.found)
        per_frame[colours.name] = [1e3 * mean for mean, _ in colours.found]
    return Figures(numbers, per_frame)


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
        mask: a found mask ``(T, H, W)``, or pictures of one (see ``image.selection.as_matte``); with ``ref_mask``
            gives ``iou``, ``boundary_f``, ``mad``, ``mse`` and, from two frames on, ``dtssd``.
        ref_mask: the true mask.
        flow: motion of the clip: gives ``warping_error``, and with a reference ``reference_warping_error``, the floor
            that true motion and true change leave. Without it, the motion of the reference is estimated (DIS), where
            there are two frames of it.
        on_step: told after every few frames; stops the work by raising.

    Raises:
        InputError: nothing to compare the clip with.
        ShapeError: the inputs differ in length or size, or a mask comes alone.
    """
    pred = check_frames(pred, at_least=1 if flow is None else 2)
    check_given(ref is not None, flow is not None, mask is not None, ref_mask is not None)
    if flow is not None:
        check_flow(flow, len(pred))
    if ref is not None:
        pred, ref = _same_shape(pred, ref)

    jobs = []
    if mask is not None and ref_mask is not None:
        masks = _same_masks(as_matte(mask), as_matte(ref_mask, "reference mask"))
        alone = {"iou": _iou, "boundary_f": _boundary_f, "mad": _mad, "mse": _mse}
        jobs += [_Job(name, function, masks) for name, function in alone.items()]
        if len(masks[0]) > 1:
            jobs.append(_Job("dtssd", _dtssd, masks, pairs=True))
    if ref is not None:
        jobs.append(_Job("psnr", _psnr, (pred, ref)))
        if min(pred.shape[1:3]) >= _SSIM_WINDOW:
            jobs.append(_Job("ssim", _ssim, (pred, ref)))
        flow = _motion(ref) if flow is None else flow
    along = []
    if flow is not None:
        clips = [("warping_error", pred), *([] if ref is None else [("reference_warping_error", ref)])]
        motion = flow.backward, flow.backward_occlusion
        along = [_Job(name, _differences, (clip, *motion), pairs=True) for name, clip in clips]
    _walk([*jobs, *along], on_step)
    numbers = {job.name: fmean(job.found) for job in jobs}
    per_frame = {job.name: job.found for job in jobs}
    for job in along:
        numbers[job.name] = _over_visible(job.found)
        per_frame[job.name] = [_over_visible([pair]) for pair in job.found]
    return Figures(numbers, per_frame)


@dataclass
class _Job:
    """One figure, and what was found of it so far."""

    name: str
    measure: Callable[..., list[Any]]
    """Takes some frames of each clip; gives a value for each frame, or for each two neighbours among them."""
    clips: tuple[Tensor, ...]
    pairs: bool = False
    """Whether it is about neighbours: it is given the frame before as well."""
    found: list[Any] = field(default_factory=list)


def _walk(jobs: Sequence[_Job], on_step: OnStep | None = None) -> None:
    """Walk once through all the clips, side by side, and find all figures on the way."""
    clips = {id(clip): clip for job in jobs for clip in job.clips}
    frames = max((job.clips[0] for job in jobs), key=len)
    step = min(max(1, _PIXELS_AT_ONCE // math.prod(job.clips[0].shape[1:3])) for job in jobs)
    before = {key: clip[:0] for key, clip in clips.items()}
    for start in range(0, len(frames), step):
        runs = {key: clip[start : start + step] for key, clip in clips.items()}
        for job in jobs:
            keys = [id(clip) for clip in job.clips]
            if len(runs[keys[0]]) == 0:  # a clip that is shorter than others
                continue
            if job.pairs:
                job.found += job.measure(*(torch.cat((before[key], runs[key])) for key in keys))
            else:
                job.found += job.measure(*(runs[key] for key in keys))
        before = {key: run[-1:] for key, run in runs.items()}
        if on_step is not None:
            on_step(min(start + step, len(frames)), len(frames), None)


def _over(measure: Callable[..., list[Any]], *clips: Tensor, pairs: bool = False) -> list[Any]:
    """One figure of all frames, or of all pairs of neighbours."""
    job = _Job(measure.__name__, measure, clips, pairs)
    _walk([job])
    return job.found


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
    check_same_clips(pred, ref)
    return pred, ref.to(pred.device)


def check_same_clips(pred: Tensor, ref: Tensor) -> None:
    """Refuse clips ``(T, H, W, C)`` of different lengths or sizes.

    Raises:
        ShapeError: they differ.
    """
    (t, h, w), (t2, h2, w2) = pred.shape[:3], ref.shape[:3]
    if (t, h, w) != (t2, h2, w2):
        raise ShapeError(
            f"frames: got {t} of {w}x{h} pixels, the reference has {t2} of {w2}x{h2}; "
            "measure clips of one size and length"
        )


def check_same_masks(mask: Tensor, ref: Tensor) -> None:
    """Refuse masks, or pictures of them, of different lengths or sizes.

    Raises:
        ShapeError: they differ.
    """
    (t, h, w), (t2, h2, w2) = _extent(mask, "mask"), _extent(ref, "reference mask")
    if (h, w) != (h2, w2):
        raise ShapeError(f"mask: masks are {w}x{h} pixels, the reference's are {w2}x{h2}; resize them")
    if t != t2:
        raise ShapeError(f"mask: got {t} masks, the reference has {t2}; give as many")


def _extent(mask: Tensor, name: str) -> tuple[int, ...]:
    """Number, height and width of masks, or of pictures of them."""
    if are_pictures(mask, name):
        return tuple(mask.shape[:3])
    return tuple(check_mask(torch.empty(mask.shape, device="meta"), name).shape)  # values take long to look at


def check_given(reference: bool, flow: bool, mask: bool, ref_mask: bool) -> None:
    """Refuse to measure where what is given makes no figure.

    Raises:
        InputError: there is nothing to compare the clip with.
        ShapeError: a mask without its reference, or the other way round.
    """
    if not (reference or flow or mask or ref_mask):
        raise InputError("nothing to measure against; give a reference, a flow, or a mask and its reference mask")
    if mask != ref_mask:
        missing, given = ("reference mask", "mask") if mask else ("mask", "reference mask")
        raise ShapeError(f"{missing}: none was given; it is compared with the {given}, so give both or neither")


def _same_masks(mask: Tensor, ref: Tensor) -> tuple[Tensor, Tensor]:
    ref = check_mask(ref, "reference mask")
    if len(ref) == 0:
        raise ShapeError("reference mask: got none, at least one frame is needed")
    mask = check_mask(mask, "mask")
    check_same_masks(mask, ref)
    return mask, ref.to(mask.device)
