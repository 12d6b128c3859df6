"""Motion between neighbouring frames: RAFT or DIS, on a lifted copy of dark frames, and motion as colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import einops
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError, WeightsError, check_frames
from .frames import computed, large_empty
from .shots import join_shots, small_copy
from .types import Flow, OnStep
from .warp import occlusion, pixel_grid, warp
from .weights import fetch_weights, find_weights, read_weights, to_torchvision_raft

if TYPE_CHECKING:
    import numpy as np
    from torchvision.models.optical_flow import RAFT

__all__ = ["MODELS", "SMALLEST_SIDE", "estimate_flow", "find_cuts", "flow_to_rgb"]

MODELS = ("auto", "raft_large", "raft_small", "dis")
SMALLEST_SIDE = 16
"""Fewest pixels of height and width that motion is estimated on."""
CUTS_SIDE = 160  # of the copy that only cuts are looked for on

RAFT_FILES = {
    "raft_large": ("raft_large_C_T_SKHT_V2*", "raft_large*", "raft-sintel*", "raft-things*"),
    "raft_small": ("raft_small*", "raft-small*"),
}
"""File names of weights without suffix, the best first: torchvision's, then the original authors'."""


class Motion(NamedTuple):
    """Motion of n pairs of frames and what is hidden: the four tensors of a ``Flow``."""

    forward: Tensor
    backward: Tensor
    forward_occlusion: Tensor
    backward_occlusion: Tensor


class Estimator(Protocol):
    """Motion between each frame and the one before; it remembers the last frame it was shown."""

    wants_colour: bool
    """Whether it reads RGB, ``(n, 3, h, w)``, or copies of the luminance, ``(n, C, h, w)``, the best one first."""

    def pairs_at_once(self, height: int, width: int) -> int:
        """Number of frames to show in one call."""

    def show(self, frames: Tensor) -> Motion:
        """Take the next frames ``(n, C, h, w)``; return the motion between each and its predecessor.

        The first frame of a clip has no predecessor: the first call returns one pair less than it got frames.
        """


def estimate_flow(
    frames: Tensor,
    *,
    model: str = "auto",
    updates: int = 12,
    max_side: int = 512,
    lift_dark: bool = True,
    shots: bool = True,
    device: torch.device | str | None = None,
    half: bool = False,
    weights_folders: Sequence[str | Path] = (),
    on_step: OnStep | None = None,
) -> Flow:
    """Estimate the motion between neighbouring frames, both ways, and what is hidden in the other frame.

    Cuts and dissolves between shots are found on the way. A pair of frames that show different scenes has no motion:
    its vectors are zero and all its pixels count as occluded.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more of 16x16 pixels or more.
        model: ``raft_large`` or ``raft_small`` (Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical
            Flow", ECCV 2020; weights are downloaded where none are found), ``dis`` (Kroeger et al., "Fast Optical Flow
            using Dense Inverse Search", ECCV 2016; needs no weights), or ``auto``: the first of the three that runs
            without a download.
        updates: refinements RAFT makes; more is slower and, up to about 20, finer.
        max_side: the long side motion is estimated at, in pixels; 0 for that of the frames. Smaller frames stay.
        lift_dark: equalise and denoise the copy that motion is estimated on.
        shots: look for cuts; without, the clip is taken for one shot and every pair of frames for neighbours.
        device: where RAFT runs; DIS runs on the CPU.
        half: run RAFT's networks in half precision, on a CUDA device.
        weights_folders: where RAFT weights are looked for before torch's hub cache.
        on_step: called as ``on_step(pairs done, pairs, preview)``; stops the work by raising.

    Returns:
        A ``Flow`` on the CPU, at the working size; ``method`` says which estimator ran, ``cuts`` where shots begin.

    Raises:
        InputError, ShapeError: the frames or a setting cannot be used.
        WeightsError: RAFT was asked for by name and its weights can be neither found, fetched nor read.
    """
    frames = check_frames(frames, at_least=2, smallest_side=SMALLEST_SIDE)
    if model not in MODELS:
        raise InputError(f"model: there is no '{model}'; known: {', '.join(MODELS)}")
    if updates < 1:
        raise InputError(f"updates: at least 1 needed, got {updates}")
    if max_side != 0 and max_side < SMALLEST_SIDE:
        raise InputError(f"max_side: at least {SMALLEST_SIDE}, or 0 for the size of the frames, got {max_side}")

    estimator, method = _estimator(model, updates, torch.device(device or "cpu"), half, weights_folders)
    lift = lift_dark and _is_dark(frames)

    pairs = len(frames) - 1
    height, width = working_size(frames.shape[1], frames.shape[2], max_side)
    vectors, masks = large_empty(2, pairs, 2, height, width), large_empty(2, pairs, height, width)
    whole = Motion(*vectors, *masks)

    done = 0
    last: Tensor | None = None
    copies: Tensor | None = None  # in one piece: many small ones, in between others, hold on to memory around them
    seen = 0
    jumps: list[int] = []
    with torch.no_grad():
        for batch, plain in _prepared(frames, (height, width), estimator, lift):
            motion = estimator.show(batch)
            run = batch if last is None else torch.cat((last, batch))
            last = batch[-1:]
            if shots:
                small = small_copy(plain)
                copies = small.new_empty(len(frames), *small.shape[1:]) if copies is None else copies
                copies[seen : seen + len(small)] = small
                seen += len(small)
                cut = is_cut(run[:-1, :1], run[1:, :1], motion)
                jumps += [done + 1 + index for index in cut.nonzero().flatten().tolist()]
                _part(motion, cut)
            count = len(motion.forward)
            for field, found in zip(whole, motion, strict=True):
                field[done : done + count] = found
            done += count
            if on_step is not None and count > 0:
                on_step(done, pairs, partial(_preview, motion.forward[-1:]))
        cuts = () if copies is None else join_shots(copies, jumps, _differ)
        _part(whole, torch.tensor([cut - 1 for cut in cuts], dtype=torch.long))
    return Flow(**whole._asdict(), source_size=(frames.shape[1], frames.shape[2]), method=method, cuts=cuts)


def _part(motion: Motion, pairs: Tensor) -> None:
    """Take the motion out of pairs of frames, by number or by mark: they are of different shots."""
    motion.forward[pairs], motion.backward[pairs] = 0.0, 0.0
    motion.forward_occlusion[pairs], motion.backward_occlusion[pairs] = 1.0, 1.0


def _differ(before: Tensor, after: Tensor) -> bool:
    """Whether two pictures ``(1, 1, h, w)`` show different scenes."""
    search = Dis()
    search.show(before)
    return bool(is_cut(before, after, search.show(after))[0])


def find_cuts(frames: Tensor, *, on_step: OnStep | None = None) -> tuple[int, ...]:
    """Find the first frame of every shot but the first, from the motion of a small copy.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more of 16x16 pixels or more.
        on_step: called as ``on_step(pairs done, pairs, None)``; stops the work by raising.

    Raises:
        InputError, ShapeError: the frames cannot be used.
    """

    def told(done: int, total: int, _: Callable[[], Tensor] | None) -> None:
        if on_step is not None:
            on_step(done, total, None)

    return estimate_flow(frames, model="dis", max_side=CUTS_SIDE, on_step=told).cuts


def working_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Return (h, w) with the long side at most ``max_side`` (0: unchanged) and no side below ``SMALLEST_SIDE``."""
    longest = max(height, width)
    if max_side == 0 or longest <= max_side:
        return height, width
    scale = max_side / longest
    return max(SMALLEST_SIDE, round(height * scale)), max(SMALLEST_SIDE, round(width * scale))


def _estimator(
    model: str, updates: int, device: torch.device, half: bool, folders: Sequence[str | Path]
) -> tuple[Estimator, str]:
    """Return the estimator and its name; ``auto`` takes what runs without a download."""
    for name in ("raft_large", "raft_small") if model == "auto" else (model,):
        if name == "dis":
            break
        path = find_weights(RAFT_FILES[name], folders)
        if path is None and model != "auto":
            path = fetch_weights(_raft_url(name), otherwise="choose the model 'dis', which needs none")
        if path is not None:
            return Raft(load_raft(name, path), updates=updates, device=device, half=half), name
    return Dis(), "dis"


def _is_dark(frames: Tensor) -> bool:
    """Whether the median luminance of the clip, read at every 8th pixel of some 16 frames, is below a quarter."""
    some = frames[:: max(1, len(frames) // 16), ::8, ::8]
    return float(some.mean(dim=-1).median()) < 0.25


def _prepared(
    frames: Tensor, size: tuple[int, int], estimator: Estimator, lift: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the frames as the estimator reads them, ``(n, C, h, w)`` in 0..1, in runs of the length it asks for.

    Beside them their luminance, ``(n, 1, h, w)``.
    """
    import cv2
    import numpy as np

    height, width = size
    step = estimator.pairs_at_once(height, width)
    for start in range(0, len(frames), step):
        run, plain = [], []
        for frame in frames[start : start + step]:
            picture = np.ascontiguousarray(frame.cpu().numpy())
            if picture.shape[:2] != size:
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
            plain.append(torch.from_numpy(grey).movedim(-1, 0))
            if not estimator.wants_colour:
                picture = grey
                if lift:
                    picture = np.concatenate((lifted(picture), lifted(picture, keep=0.4)), axis=-1)
            elif lift:
                picture = lifted(picture)
            run.append(torch.from_numpy(picture).movedim(-1, 0))
        yield torch.stack(run), torch.stack(plain)


def lifted(picture: np.ndarray, *, keep: float = 0.0) -> np.ndarray:
    """Return a denoised copy in which every region has about the same brightness and contrast, however dark it was.

    Smoothed a little against noise, in logs (where light multiplies it becomes an offset), less the local mean and over
    the local deviation: light that varies over the frame or drifts in time is gone, what reflects it stays.

    Args:
        picture: ``(h, w, C)`` float32 in 0..1.
        keep: part of the local mean that stays. Large motion is found by large shapes, which lose contrast without it;
            at 0 the light of a frame disturbs least.

    Returns:
        The same shape, float32 in 0..1, mid-grey on average.
    """
    import cv2
    import numpy as np

    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0).reshape(picture.shape)
    # Below 0.02 there is more noise than picture in 8 bits: the offset keeps the logarithm from blowing it up.
    logs = np.log(smooth + 0.02)
    brightness = logs.mean(axis=-1)
    mean = _local_mean(brightness)
    deviation = np.sqrt(_local_mean(np.square(brightness - mean)))
    # The constant in the divisor leaves flat regions flat.
    out = 0.5 + 0.2 * (logs - mean[..., None]) / (deviation + 0.2)[..., None]
    if keep > 0.0:
        out += keep * (mean - np.median(mean))[..., None]
    return np.clip(out, 0.0, 1.0)


def _local_mean(field: np.ndarray) -> np.ndarray:
    """Gaussian mean of ``(h, w)`` with a deviation of 1/32 of the long side, taken on a 64 pixel copy."""
    import cv2

    height, width = field.shape
    scale = 64.0 / max(height, width)
    small = cv2.resize(
        field, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), 2.0), (width, height), interpolation=cv2.INTER_LINEAR)


def _with_occlusion(forward: Tensor, backward: Tensor) -> Motion:
    hidden = occlusion(torch.cat((forward, backward)), torch.cat((backward, forward)))
    return Motion(forward, backward, *hidden.chunk(2))


def _no_motion(frames: Tensor) -> Motion:
    vectors = frames.new_zeros(0, 2, *frames.shape[-2:])
    return Motion(vectors, vectors, vectors[:, 0], vectors[:, 0])


def is_cut(before: Tensor, after: Tensor, motion: Motion) -> Tensor:
    """Return for each pair of frames whether they show different scenes.

    Across a cut most pixels find no way home, and what the flow does bring over looks little like the frame; both are
    asked for, so that a fast pan does not count as a cut. Between joined real clips, clean and dark, 0.78 and more was
    hidden and the likeness at most 0.36; within them, down to every third frame of a fast one, it was at least 0.77.

    Args:
        before, after: ``(n, 1, h, w)``, the frames as the estimator read them.
        motion: what it found for these pairs.

    Returns:
        ``(n,)`` bool.
    """
    cut = motion.backward_occlusion.flatten(1).mean(dim=1) > 0.6
    if cut.any():
        cut[cut.clone()] = _likeness(warp(before[cut], motion.backward[cut]), after[cut]) < 0.5
    return cut


def _likeness(a: Tensor, b: Tensor) -> Tensor:
    """Correlation, -1..1, of the details of pictures ``(n, 1, h, w)``: what differs from the local mean; ``(n,)``."""

    def details(pictures: Tensor) -> Tensor:
        size = pictures.shape[-2:]
        cells = [max(1, round(24 * side / max(size))) for side in size]
        mean = F.interpolate(F.interpolate(pictures, size=cells, mode="area"), size=size, mode="bilinear")
        return (pictures - mean).flatten(1)

    a, b = details(a), details(b)
    # The small constant, a deviation of 1/255, makes two flat pictures unlike rather than undefined.
    noise = 255.0**-2
    return (a * b).mean(dim=1) / ((a.square().mean(dim=1) + noise) * (b.square().mean(dim=1) + noise)).sqrt()


class Dis:
    """OpenCV's dense inverse search, medium preset, with more rounds of variational refinement.

    Given several copies of the luminance, it reads the first; where that leaves much hidden, it tries the others and
    keeps the best. On lifted dark copies of real clips ten rounds instead of five took the error from 0.75 to 0.72
    pixels and a twentieth off what is hidden; on the clean ones nothing changed.
    """

    wants_colour = False
    refinements = 10
    content_with = 0.25
    """Part of the pixels that may be hidden before another copy is tried."""

    def __init__(self) -> None:
        import cv2

        # OpenCV's stubs leave out that calc() takes None, "start from rest", for the flow.
        self._search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._search.setVariationalRefinementIterations(self.refinements)
        self._last: np.ndarray | None = None

    def pairs_at_once(self, height: int, width: int) -> int:
        """One: nothing is gained by more."""
        return 1

    def show(self, frames: Tensor) -> Motion:
        """See ``Estimator.show``."""
        found = []
        for frame in frames:
            current = (frame * 255.0).round().byte().numpy()
            if self._last is not None:
                found.append(self._best(self._last, current))
            self._last = current
        if not found:
            return _no_motion(frames)
        return Motion(*map(torch.cat, zip(*found, strict=True)))

    def _best(self, before: np.ndarray, after: np.ndarray) -> Motion:
        """Motion between two frames ``(C, h, w)``, by the copy that leaves least hidden."""
        tried = []
        for a, b in zip(before, after, strict=True):
            motion = _with_occlusion(self._between(a, b), self._between(b, a))
            hidden = float(motion.backward_occlusion.mean())
            tried.append((hidden, motion))
            if hidden <= self.content_with:
                break
        return min(tried, key=lambda attempt: attempt[0])[1]

    def _between(self, before: np.ndarray, after: np.ndarray) -> Tensor:
        return torch.from_numpy(self._search.calc(before, after, None)).movedim(-1, 0)[None]


class Raft:
    """torchvision's RAFT, run so that each frame passes through the encoders once, not once a pair and direction."""

    wants_colour = True
    smallest_side = 128
    """The four levels of the correlation pyramid need 16x16 features."""
    correlation_bytes = 512 * 2**20

    def __init__(self, net: RAFT, *, updates: int, device: torch.device, half: bool) -> None:
        self._net = net.eval().to(device)
        self._updates = updates
        self._device = device
        self._half = half and device.type == "cuda"
        self._last: tuple[Tensor, Tensor] | None = None

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        return max(self.smallest_side, -(-height // 8) * 8), max(self.smallest_side, -(-width // 8) * 8)

    def pairs_at_once(self, height: int, width: int) -> int:
        """As many as their all-pairs correlations leave memory for; one on the CPU, where batches gain nothing."""
        if self._device.type == "cpu":
            return 1
        height, width = self._padded(height, width)
        features = (height // 8) * (width // 8)
        # 4 bytes, two directions, and a third more for the coarser levels of the pyramid
        return max(1, int(self.correlation_bytes // (features**2 * 4 * 2 * 4 / 3)))

    def show(self, frames: Tensor) -> Motion:
        """See ``Estimator.show``."""
        height, width = frames.shape[-2:]
        full_height, full_width = self._padded(height, width)
        beside = (0, full_width - width, 0, full_height - height)
        pictures = F.pad(frames.to(self._device) * 2.0 - 1.0, beside, mode="replicate")
        with self._precision():
            features, context = self._net.feature_encoder(pictures), self._net.context_encoder(pictures)
        features, context = features.float(), context.float()
        if self._last is not None:
            features = torch.cat((self._last[0], features))
            context = torch.cat((self._last[1], context))
        self._last = features[-1:], context[-1:]
        if len(features) < 2:
            return _no_motion(frames)
        flow = self._refine(
            torch.cat((features[:-1], features[1:])),
            torch.cat((features[1:], features[:-1])),
            torch.cat((context[:-1], context[1:])),
        )
        return _with_occlusion(*flow[..., :height, :width].cpu().chunk(2))

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", dtype=torch.float16) if self._half else nullcontext()

    def _refine(self, features: Tensor, others: Tensor, context: Tensor) -> Tensor:
        """The iterative updates of the paper, section 3.3; correlations and positions stay in full precision."""
        net = self._net
        net.corr_block.build_pyramid(features, others)
        hidden_size = net.update_block.hidden_state_size
        state, context = context.split([hidden_size, context.shape[1] - hidden_size], dim=1)
        state, context = state.tanh(), context.relu()
        count, _, height, width = features.shape
        start = pixel_grid(height, width, device=self._device).expand(count, -1, -1, -1)
        flow = torch.zeros_like(start)
        for _ in range(self._updates):
            correlation = net.corr_block.index_pyramid(centroids_coords=start + flow)
            with self._precision():
                state, delta = net.update_block(state, context, correlation, flow)
            flow = flow + delta.float()
        if net.mask_predictor is None:
            return 8.0 * F.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)
        with self._precision():
            mask = net.mask_predictor(state)
        return _convex_upsample(flow, mask.float())


def _convex_upsample(flow: Tensor, mask: Tensor) -> Tensor:
    """Eight times larger, each vector a weighted mean of its 3x3 coarse neighbours (RAFT, section 3.3)."""
    count, _, height, width = flow.shape
    weights = mask.view(count, 1, 9, 8, 8, height, width).softmax(dim=2)
    neighbours = F.unfold(8.0 * flow, kernel_size=3, padding=1).view(count, 2, 9, 1, 1, height, width)
    return einops.rearrange((weights * neighbours).sum(dim=2), "n c y x h w -> n c (h y) (w x)")


def load_raft(name: str, path: Path) -> RAFT:
    """Build ``raft_large`` or ``raft_small`` with the weights of a file, torchvision's or the original authors'.

    Raises:
        WeightsError: the file is damaged or holds another model's weights.
    """
    from torchvision.models import optical_flow

    net = getattr(optical_flow, name)(weights=None)
    try:
        net.load_state_dict(to_torchvision_raft(read_weights(path)))
    except RuntimeError as error:
        raise WeightsError(f"{path}: not the weights of {name}; give another file or choose another model") from error
    return net


def _raft_url(name: str) -> str:
    from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

    return {"raft_large": Raft_Large_Weights.C_T_SKHT_V2, "raft_small": Raft_Small_Weights.C_T_V2}[name].url


def flow_to_rgb(flow: Flow, *, on_step: OnStep | None = None) -> Tensor:
    """Show motion as colours: hue is direction, saturation is speed, white is rest.

    The colour wheel of Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011. One scale
    serves the whole clip: full saturation is the speed that 99.5 % of its pixels stay under, and at least a pixel, so
    that neither a stray vector nor the noise of a clip at rest sets it.

    Args:
        flow: motion of T - 1 pairs.
        on_step: told after every picture; stops the work by raising.

    Returns:
        ``(T, h, w, 3)`` float32 in 0..1. Picture i shows where the pixels of frame i go; the last frame, which has no
        successor, shows the reverse of where its pixels come from.
    """
    # of a long clip some pairs tell the scale
    scale = _scale(flow.forward[:: max(1, len(flow) // 256)])

    def pictures(start: int) -> Iterator[Tensor]:
        for index in range(start, len(flow) + 1):
            field = flow.forward[index : index + 1] if index < len(flow) else -flow.backward[-1:]
            yield _colours(field, scale)

    return computed(pictures, (len(flow) + 1, *flow.size, 3), on_step=on_step)


def _preview(vectors: Tensor) -> Tensor:
    return _colours(vectors, _scale(vectors))[0]


def _scale(vectors: Tensor) -> float:
    speeds = vectors.norm(dim=1).flatten()
    return max(1.0, float(speeds.kthvalue(max(1, round(0.995 * speeds.numel()))).values))


def _colours(vectors: Tensor, scale: float) -> Tensor:
    """``(N, 2, h, w)`` -> ``(N, h, w, 3)``; ``scale`` pixels are fully saturated."""
    from torchvision.utils import flow_to_image

    vectors = vectors * (scale / vectors.norm(dim=1, keepdim=True).clamp_min(scale))
    # flow_to_image takes the longest vector it is given as its scale: a column beside the picture holds ours.
    ruler = torch.zeros_like(vectors[..., :1])
    ruler[:, 0] = scale
    pictures = flow_to_image(torch.cat((vectors, ruler), dim=-1))
    return pictures[..., :-1].movedim(1, -1).float() / 255.0
