"""Motion between neighbouring frames: RAFT or DIS, on a lifted copy of dark frames, and motion as colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from .errors import InputError, check_frames
from .types import Flow
from .warp import occlusion

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MODELS", "SMALLEST_SIDE", "estimate_flow", "flow_to_rgb"]

MODELS = ("auto", "raft_large", "raft_small", "dis")
SMALLEST_SIDE = 16
"""Fewest pixels of height and width that motion is estimated on."""

OnStep = Callable[[int, int, Callable[[], Tensor] | None], None]


class Estimator(Protocol):
    """Motion between each frame and the one before; it remembers the last frame it was shown."""

    channels: int
    """1 where it reads luminance, 3 where it reads RGB."""

    def pairs_at_once(self, height: int, width: int) -> int:
        """Number of frames to show in one call."""

    def show(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Take the next frames ``(n, C, h, w)``; return the flow to each from its predecessor, and back.

        The first frame of a clip has no predecessor: the first call returns one field less than it got frames.
        """


def estimate_flow(
    frames: Tensor,
    *,
    model: str = "auto",
    updates: int = 12,
    max_side: int = 512,
    lift_dark: bool = True,
    device: torch.device | str | None = None,
    half: bool = False,
    weights_folders: Sequence[str | Path] = (),
    on_step: OnStep | None = None,
) -> Flow:
    """Estimate the motion between neighbouring frames, both ways, and what is hidden in the other frame.

    A pair across a scene cut has no motion: its vectors are zero and all its pixels count as occluded.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more of 16x16 pixels or more.
        model: ``raft_large`` or ``raft_small`` (Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical
            Flow", ECCV 2020; weights are downloaded where none are found), ``dis`` (Kroeger et al., "Fast Optical Flow
            using Dense Inverse Search", ECCV 2016; needs no weights), or ``auto``: the first of the three that runs
            without a download.
        updates: refinements RAFT makes; more is slower and, up to about 20, finer.
        max_side: the long side motion is estimated at, in pixels; 0 for that of the frames. Smaller frames stay.
        lift_dark: equalise and denoise the copy that motion is estimated on.
        device: where RAFT runs; DIS runs on the CPU.
        half: run RAFT's networks in half precision, on a CUDA device.
        weights_folders: where RAFT weights are looked for before torch's hub cache.
        on_step: called as ``on_step(pairs done, pairs, preview)``; stops the work by raising.

    Returns:
        A ``Flow`` on the CPU, at the working size; ``method`` says which estimator ran.

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

    estimator, method = Dis(), "dis"

    pairs = len(frames) - 1
    height, width = working_size(frames.shape[1], frames.shape[2], max_side)
    forward = torch.empty(pairs, 2, height, width)
    backward = torch.empty_like(forward)
    hidden, hidden_back = torch.empty(2, pairs, height, width)

    done = 0
    last: Tensor | None = None
    with torch.no_grad():
        for batch in _prepared(frames, (height, width), estimator, lift_dark):
            there, back = estimator.show(batch)
            run = batch if last is None else torch.cat((last, batch))
            last = batch[-1:]
            at = slice(done, done + len(there))
            forward[at], backward[at] = there, back
            hidden[at], hidden_back[at] = occlusion(there, back), occlusion(back, there)
            cut = _is_cut(run, back, hidden_back[at])
            for field in (forward, backward):
                field[at][cut] = 0.0
            for mask in (hidden, hidden_back):
                mask[at][cut] = 1.0
            done = at.stop
            if on_step is not None and len(there) > 0:
                on_step(done, pairs, partial(_preview, there[-1:]))
    return Flow(
        forward=forward,
        backward=backward,
        forward_occlusion=hidden,
        backward_occlusion=hidden_back,
        source_size=(frames.shape[1], frames.shape[2]),
        method=method,
    )


def working_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Return (h, w) with the long side at most ``max_side`` (0: unchanged) and no side below ``SMALLEST_SIDE``."""
    longest = max(height, width)
    if max_side == 0 or longest <= max_side:
        return height, width
    scale = max_side / longest
    return max(SMALLEST_SIDE, round(height * scale)), max(SMALLEST_SIDE, round(width * scale))


def _prepared(frames: Tensor, size: tuple[int, int], estimator: Estimator, lift: bool) -> Iterator[Tensor]:
    """Yield the frames as the estimator reads them, ``(n, C, h, w)`` in 0..1, in runs of the length it asks for."""
    import cv2
    import numpy as np

    height, width = size
    step = estimator.pairs_at_once(height, width)
    for start in range(0, len(frames), step):
        run = []
        for frame in frames[start : start + step]:
            picture = np.ascontiguousarray(frame.cpu().numpy())
            if picture.shape[:2] != size:
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            if estimator.channels == 1:
                picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
            if lift:
                picture = lifted(picture)
            run.append(torch.from_numpy(picture).movedim(-1, 0))
        yield torch.stack(run)


def lifted(picture: np.ndarray) -> np.ndarray:
    """Return a copy of ``(h, w, C)`` in 0..1 in which dark regions have the contrast of bright ones."""
    import cv2
    import numpy as np

    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0).reshape(picture.shape)
    logs = np.log(smooth + 0.01)
    centre = cv2.GaussianBlur(logs, (0, 0), 16.0).reshape(picture.shape)
    spread = np.sqrt(cv2.GaussianBlur((logs - centre) ** 2, (0, 0), 16.0)).reshape(picture.shape)
    return np.clip(0.5 + 0.2 * (logs - centre) / (spread + 0.1), 0.0, 1.0)


def _is_cut(run: Tensor, backward: Tensor, hidden: Tensor) -> Tensor:
    """Return for each pair of neighbours in ``run`` whether the two frames show different scenes, ``(n,)`` bool."""
    return hidden.mean(dim=(1, 2)) > 0.6


class Dis:
    """OpenCV's dense inverse search, medium preset."""

    channels = 1

    def __init__(self) -> None:
        import cv2

        self._search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._last: np.ndarray | None = None

    def pairs_at_once(self, height: int, width: int) -> int:
        """One: nothing is gained by more."""
        return 1

    def show(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Estimator.show``."""
        there, back = [], []
        for frame in frames[:, 0]:
            current = (frame * 255.0).round().byte().numpy()
            if self._last is not None:
                there.append(torch.from_numpy(self._search.calc(self._last, current, None)))
                back.append(torch.from_numpy(self._search.calc(current, self._last, None)))
            self._last = current
        if not there:
            empty = frames.new_zeros(0, 2, *frames.shape[-2:])
            return empty, empty
        return torch.stack(there).movedim(-1, 1), torch.stack(back).movedim(-1, 1)


def flow_to_rgb(flow: Flow) -> Tensor:
    """Show motion as colours: hue is direction, saturation is speed, white is rest.

    The colour wheel of Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011. One scale
    serves the whole clip: full saturation is the speed that 99.5 % of its pixels stay under, and at least a pixel, so
    that neither a stray vector nor the noise of a clip at rest sets it.

    Args:
        flow: motion of T - 1 pairs.

    Returns:
        ``(T, h, w, 3)`` float32 in 0..1. Picture i shows where the pixels of frame i go; the last frame, which has no
        successor, shows the reverse of where its pixels come from.
    """
    vectors = torch.cat((flow.forward, -flow.backward[-1:]))
    scale = _scale(vectors)
    return torch.cat([_colours(field[None], scale) for field in vectors])


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
