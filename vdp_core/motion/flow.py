"""Motion between neighbouring frames, by one of several estimators, on an equalised copy of dark frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..checks import check_frames
from ..errors import InputError, WeightsError
from ..image.resize import size_within
from ..nets.weights import fetch_weights, find_weights
from ..store.scratch import large_empty
from ..types import Flow, OnStep
from .colours import flow_preview
from .dis import Dis
from .estimator import Estimator, Motion
from .farneback import Farneback
from .raft import RAFT_FILES, Raft, free_memory, largest_side, load_raft, pair_bytes, raft_url
from .refined import FILES as REFINER_FILES
from .refined import Refined, load_refiner
from .shots import differ, is_cut, join_shots, small_copy

__all__ = ["MODELS", "SMALLEST_SIDE", "estimate_flow", "find_cuts", "memory_needed", "working_size"]

MODELS = ("auto", "raft_large", "raft_small", "dis", "farneback", "dis_refined")
SMALLEST_SIDE = 16
"""Fewest pixels of height and width that motion is estimated on."""
CUTS_SIDE = 160  # of the copy that only cuts are looked for on


def check_clip(frames: object) -> Tensor:
    """Return frames ``(T, H, W, 3)`` whose motion can be estimated.

    Raises:
        InputError, ShapeError: they cannot be used.
    """
    return check_frames(frames, at_least=2, smallest_side=SMALLEST_SIDE)


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
    memory: int | None = None,
    weights_folders: Sequence[str | Path] = (),
    on_step: OnStep | None = None,
) -> Flow:
    """Estimate the motion between neighbouring frames, both ways, and its occlusion.

    Cuts and dissolves between shots are found on the way. A pair of frames that show different scenes has no motion:
    its vectors are zero and all its pixels count as occluded.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more of 16x16 pixels or more.
        model: ``raft_large`` or ``raft_small`` (Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical
            Flow", ECCV 2020; weights are downloaded where none are found), ``dis`` (Kroeger et al., "Fast Optical Flow
            using Dense Inverse Search", ECCV 2016; needs no weights), ``farneback`` (Farneback, SCIA 2003; needs none
            either), ``dis_refined`` (``dis``, mended by a network that ``vdp train flow`` trains), or ``auto``: RAFT
            where its weights are found, else ``dis``.
        updates: refinements RAFT makes; more is slower and, up to about 20, finer.
        max_side: the long side motion is estimated at, in pixels; 0 for that of the frames. Smaller frames stay.
        lift_dark: where the clip is dark, equalise and denoise a copy that motion is estimated on.
        shots: look for cuts; without, the clip is taken for one shot and every pair of frames for neighbours.
        device: where networks run; searches run on the CPU.
        half: run networks in half precision, on a CUDA device.
        memory: bytes of the device's that networks may take; None for what is free there.
        weights_folders: where RAFT weights are looked for before torch's hub cache.
        on_step: called as ``on_step(pairs done, pairs, preview)``; stops the work by raising.

    Returns:
        A ``Flow`` on the CPU, at the working size; ``method`` says which estimator ran, ``cuts`` where shots begin.

    Raises:
        InputError, ShapeError: the frames or a setting cannot be used, or RAFT does not fit into memory at this size.
        WeightsError: RAFT was asked for by name and its weights can be neither found, fetched nor read.
    """
    frames = check_clip(frames)
    if model not in MODELS:
        raise InputError(f"model: there is no '{model}'; known: {', '.join(MODELS)}")
    if updates < 1:
        raise InputError(f"updates: at least 1 needed, got {updates}")
    if max_side != 0 and max_side < SMALLEST_SIDE:
        raise InputError(f"max_side: at least {SMALLEST_SIDE}, or 0 for the size of the frames, got {max_side}")

    height, width = working_size(frames.shape[1], frames.shape[2], max_side)
    place = torch.device(device or "cpu")
    memory = free_memory(place) if memory is None else memory
    name, path = _chosen(model, weights_folders)
    estimator: Estimator = Farneback() if name == "farneback" else Dis()
    if path is not None and name == "dis_refined":
        estimator = Refined(load_refiner(path), device=place, half=half, memory=memory)
    elif path is not None:
        _check_memory(height, width, place, memory)
        estimator = Raft(load_raft(name, path), updates=updates, device=place, half=half, memory=memory)
    dark = lift_dark and _is_dark(frames)

    pairs = len(frames) - 1
    vectors, masks = large_empty(2, pairs, 2, height, width), large_empty(4, pairs, height, width)
    whole = Motion(*vectors, *masks)

    done = 0
    last: Tensor | None = None
    copies: Tensor | None = None  # in one piece: many small ones, in between others, hold on to memory around them
    seen = 0
    jumps: list[int] = []
    with torch.no_grad():
        for batch, plain in _prepared(frames, (height, width), estimator, dark):
            found = estimator.show(batch)
            run = batch if last is None else torch.cat((last, batch))
            last = batch[-1:]
            motion = estimator.finish(found, run[:-1], run[1:])
            if shots:
                small = small_copy(plain)
                copies = large_empty(len(frames), *small.shape[1:], dtype=small.dtype) if copies is None else copies
                copies[seen : seen + len(small)] = small
                seen += len(small)
                cut = is_cut(run[:-1, :1], run[1:, :1], found)
                jumps += [done + 1 + index for index in cut.nonzero().flatten().tolist()]
                _part(motion, cut)
            count = len(motion.forward)
            for field, part in zip(whole, motion, strict=True):
                field[done : done + count] = part
            done += count
            if on_step is not None and count > 0:
                on_step(done, pairs, partial(flow_preview, motion.forward[-1:]))
        cuts = () if copies is None else join_shots(copies, jumps, differ)
        _part(whole, torch.tensor([cut - 1 for cut in cuts], dtype=torch.long))
    return Flow(**whole._asdict(), source_size=(frames.shape[1], frames.shape[2]), method=name, cuts=cuts)


def _part(motion: Motion, pairs: Tensor) -> None:
    """Take the motion out of pairs of frames, by number or by mark: they are of different shots."""
    motion.forward[pairs], motion.backward[pairs] = 0.0, 0.0
    motion.forward_occlusion[pairs], motion.backward_occlusion[pairs] = 1.0, 1.0
    motion.forward_confidence[pairs], motion.backward_confidence[pairs] = 0.0, 0.0


def find_cuts(frames: Tensor, *, on_step: OnStep | None = None) -> tuple[int, ...]:
    """Find the first frame of every shot but the first, from the motion of a small copy.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more of 16x16 pixels or more.
        on_step: called as ``on_step(pairs done, pairs, None)``; stops the work by raising.

    Raises:
        InputError, ShapeError: the frames cannot be used.
    """

    def report(done: int, total: int, _: Callable[[], Tensor] | None) -> None:
        if on_step is not None:
            on_step(done, total, None)

    return estimate_flow(frames, model="dis", max_side=CUTS_SIDE, on_step=report).cuts


def working_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Return (h, w) with the long side at most ``max_side`` (0: unchanged) and no side below ``SMALLEST_SIDE``."""
    return size_within(height, width, max_side, least=SMALLEST_SIDE)


def memory_needed(frames: Tensor, max_side: int) -> int:
    """About how many bytes RAFT takes on these frames, both ways at once; half of them will do."""
    return pair_bytes(*working_size(frames.shape[1], frames.shape[2], max_side)) if frames.ndim == 4 else 0


def _check_memory(height: int, width: int, device: torch.device, memory: int) -> None:
    """Refuse a size at which RAFT does not fit into so many bytes even one direction at a time."""
    needed = pair_bytes(height, width, directions=1)
    if needed <= memory:
        return
    side = largest_side(height, width, memory)
    smaller = f"set max_side to {side} or less, or model to dis" if side >= SMALLEST_SIDE else "set model to dis"
    raise InputError(
        f"max_side: RAFT takes {needed / 2**30:.1f} GiB of memory for two frames of {width}x{height}, and {device} has "
        f"{memory / 2**30:.1f} GiB free; {smaller}"
    )


def _chosen(model: str, folders: Sequence[str | Path]) -> tuple[str, Path | None]:
    """The model's name and its weights' file, None where it needs none; ``auto`` takes what runs without a download."""
    for name in ("raft_large", "raft_small") if model == "auto" else (model,):
        if name == "dis_refined":
            path = find_weights(REFINER_FILES, folders)
            if path is None:
                raise WeightsError("dis_refined: no weights are found; train some (vdp train flow), or choose 'dis'")
            return name, path
        if name not in RAFT_FILES:
            return name, None
        path = find_weights(RAFT_FILES[name], folders)
        if path is None and model != "auto":
            path = fetch_weights(raft_url(name), otherwise="choose the model 'dis', which needs none")
        if path is not None:
            return name, path
    return "dis", None


def _is_dark(frames: Tensor) -> bool:
    """Whether the median luminance of the clip, read at every 8th pixel of some 16 frames, is below a quarter."""
    some = frames[:: max(1, len(frames) // 16), ::8, ::8]
    return float(some.mean(dim=-1).median()) < 0.25


def _prepared(
    frames: Tensor, size: tuple[int, int], estimator: Estimator, dark: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the frames as the estimator reads them, ``(n, C, h, w)``, in runs of the length it asks for.

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
            plain.append(torch.from_numpy(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))[None])
            run.append(torch.from_numpy(estimator.read(picture, dark)).movedim(-1, 0))
        yield torch.stack(run), torch.stack(plain)
