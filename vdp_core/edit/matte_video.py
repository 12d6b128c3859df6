"""Mattes of people, found frame after frame by the recurrent network of Robust Video Matting (Lin et al., WACV 2022).

The network sees a small copy of each frame and what it remembers of those before. What it finds there is kept, a few
numbers for each small sample; masks and colours are made of it at native size, of any frame at any time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from ..checks import check_frames
from ..errors import InputError
from ..image.resize import resize, size_within
from ..models.masks import of_matte
from ..motion.flow import SMALLEST_SIDE, find_cuts
from ..nets.matting_weights import load_matting
from ..nets.recurrent_matting import REFINERS, RecurrentMatting, State, auto_ratio, drawn, shrunk
from ..optim.progress import Progress
from ..store.lazy import computed_with_mask
from ..store.scratch import large_empty
from ..store.transfer import send
from ..types import Layers, OnStep

__all__ = ["check_clip", "check_settings", "matte_video", "memory_needed"]

MASK_SIDE = 512
"""Long side of the small masks that layers keep."""
LEAST = 16
"""Fewest pixels of a side of the small copy: one of the network's coarsest features."""
BYTES, PIXEL_BYTES = 2**28, 3000
"""Of a GPU's memory: weights, and for each pixel of the small copies, counted from the sizes of the features."""


def check_clip(frames: object) -> Tensor:
    """Return frames ``(T, H, W, 3)`` that the network can see.

    Raises:
        InputError, ShapeError: they cannot be used.
    """
    return check_frames(frames, smallest_side=LEAST)


def check_settings(size: tuple[int, int], *, ratio: float, refiner: str, chunk: int, warm_up: int) -> float:
    """Refuse what ``matte_video`` would refuse of its settings; return the ratio that it takes.

    Args:
        size: (H, W) of the frames.
        ratio, refiner, chunk, warm_up: see ``matte_video``.

    Raises:
        InputError: one cannot be used.
    """
    height, width = size
    if refiner not in REFINERS:
        raise InputError(f"refiner: there is no '{refiner}'; known: {', '.join(REFINERS)}")
    if chunk < 1:
        raise InputError(f"chunk: 1 frame or more needed, got {chunk}")
    if warm_up < 0:
        raise InputError(f"warm_up: 0 frames or more needed, got {warm_up}")
    if not 0.0 <= ratio <= 1.0:
        raise InputError(f"downsample_ratio: 0 for automatic, up to 1 needed, got {ratio}")
    taken = ratio or auto_ratio(height, width)
    small = [math.floor(side * taken) for side in (height, width)]
    if min(small) < LEAST:
        raise InputError(
            f"downsample_ratio: {taken:.3g} makes {small[1]}x{small[0]} pixels of {width}x{height}, {LEAST} a side are "
            f"needed; set {math.ceil(100 * LEAST / min(height, width)) / 100:g} or more"
        )
    return taken


def memory_needed(height: int, width: int, ratio: float, chunk: int) -> int:
    """About how many bytes of a GPU's memory the network takes."""
    taken = ratio or auto_ratio(height, width)
    return BYTES + int(PIXEL_BYTES * height * width * taken * taken * chunk)


def matte_video(
    frames: Tensor,
    weights: str | Path,
    *,
    ratio: float = 0.0,
    refiner: str = "deep",
    chunk: int = 1,
    warm_up: int = 0,
    device: torch.device | str = "cpu",
    half: bool = False,
    on_step: OnStep | None = None,
) -> Layers:
    """Find mattes of people and their colours.

    Each shot begins anew: the network remembers nothing of the one before.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        weights: see ``nets.matting_weights.load_matting``.
        ratio: of the copy's size that the network sees; 0: its long side is 512 pixels, or the frames' own.
        refiner: ``deep``, learnt, or ``fast``, without weights: how native size is reached where the copy is smaller.
        chunk: frames that go through the network at once; the result is the same.
        warm_up: frames after the first of each shot that are shown to the network before it, the last one first. What
            it finds there is thrown away, and it remembers them when the shot begins.
        device: where to compute.
        half: run the network in half precision, on a CUDA device.
        on_step: told after every few frames; stops the work by raising.

    Returns:
        Layers of the model segment: background and people. Their pictures ``matte``, ``(T, H, W)``, and ``colour_1``,
        ``(T, H, W, 3)``, are on the CPU; of a long clip, they are made when they are looked at. Colours are those of
        people alone, without what shines through; where there is nobody, black.

    Raises:
        InputError, ShapeError: the frames or a setting cannot be used.
        WeightsError: the weights cannot be used.
    """
    frames = check_clip(frames)
    size = (frames.shape[1], frames.shape[2])
    taken = check_settings(size, ratio=ratio, refiner=refiner, chunk=chunk, warm_up=warm_up)
    place = torch.device(device)
    net = load_matting(weights, refiner=refiner).to(place).to(memory_format=torch.channels_last)
    looking, finding, drawing = Progress(on_step).phases(1, 6, 3)
    cuts = find_cuts(frames, on_step=looking) if len(frames) > 1 and min(frames.shape[1:3]) >= SMALLEST_SIDE else ()
    see = partial(_see, net, frames, taken, None if taken == 1.0 else refiner, half and place.type == "cuda")
    lines, masks, done = None, None, 0
    for start, stop in pairwise((0, *cuts, len(frames))):
        for found, mask in see(range(start, stop), chunk, warm_up):
            if lines is None or masks is None:
                lines = large_empty(len(frames), *found.shape[1:])
                masks = large_empty(len(frames), *mask.shape[1:])
            lines[done : done + len(found)], masks[done : done + len(mask)] = found, mask
            done += len(found)
            finding(done, len(frames), mask[-1, 1, ..., None].expand(-1, -1, 3).clone)
    assert lines is not None and masks is not None
    colours, matte = computed_with_mask(partial(_pictures, frames, lines, place), frames.shape, on_step=drawing)
    info = {"preset": "network", "weights": Path(weights).name, "refiner": refiner, "ratio": f"{taken:.4g}"}
    return of_matte(frames, masks, matte, colours=colours, info={**info, "shots": str(len(cuts) + 1)})


@torch.no_grad()
def _see(
    net: RecurrentMatting,
    frames: Tensor,
    ratio: float,
    refiner: str | None,
    half: bool,
    shot: range,
    chunk: int,
    warm_up: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Show the network the frames of a shot, a chunk at a time.

    Yields:
        For each chunk, the lines that it finds ``(n, C, h, w)`` and small masks ``(n, 2, h, w)``, both on the CPU.
    """
    place = next(net.parameters()).device
    state: State | None = None
    before = range(min(shot.start + warm_up, shot.stop - 1), shot.start, -1)
    for order in (before, shot):
        for first in range(0, len(order), chunk):
            run = torch.stack([frames[index] for index in order[first : first + chunk]])
            small = shrunk(send(run, place).movedim(-1, 1), ratio)
            with torch.autocast(place.type, dtype=torch.float16, enabled=half):
                lines, state = net.find(small, state, refiner=refiner)
            if order is shot:
                lines = lines.float()
                people = drawn(lines, small)[1]
                people = resize(people, size_within(people.shape[2], people.shape[3], MASK_SIDE)).clamp(0.0, 1.0)
                yield lines.cpu(), torch.cat((1.0 - people, people), dim=1).cpu()


@torch.no_grad()
def _pictures(frames: Tensor, lines: Tensor, place: torch.device, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Colours ``(H, W, 3)`` and matte ``(H, W)`` of each frame from ``start`` on."""
    for index in range(start, len(frames)):
        frame, found = send(frames[index], place), send(lines[index], place)
        colours, matte = frame.new_zeros(frame.shape), frame.new_zeros(frame.shape[:2])
        part, samples = _somebody(found, (frame.shape[0], frame.shape[1]))
        if part[0].start < part[0].stop:
            inside = frame[part].movedim(-1, 0)[None]
            people, share = drawn(found[:, samples[0], samples[1]][None], inside)
            matte[part] = share[0, 0]
            torch.mul(people[0].movedim(0, -1), (share[0, 0] > 0.0)[..., None], out=colours[part])
        yield colours, matte


def _somebody(lines: Tensor, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a frame outside of which the matte is 0, in pixels and in samples of the lines.

    The matte is a line along the mean of the colours, which lies in 0..1: where both its ends are 0 or less it is 0.
    The part begins and ends where samples and pixels do, so that it is interpolated as the whole.
    """
    highest = lines[3] if len(lines) == 4 else lines[7] + lines[3].clamp_min(0.0)
    marks = highest > 0.0
    pixels, samples = [], []
    for dim, (side, small) in enumerate(zip(size, marks.shape, strict=True)):
        there = marks.any(dim=1 - dim).nonzero()[:, 0]
        if len(there) == 0:
            return (slice(0, 0), slice(0, 0)), (slice(0, 0), slice(0, 0))
        step = small // math.gcd(small, side)
        first = max(0, int(there[0]) - 1) // step * step
        last = min(small, -(-(int(there[-1]) + 2) // step) * step)
        samples.append(slice(first, last))
        pixels.append(slice(first * side // small, last * side // small))
    return (pixels[0], pixels[1]), (samples[0], samples[1])
