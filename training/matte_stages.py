"""Training of the matting network on data sets, in the four stages that it was published with.

Lin et al., WACV 2022, section 4. A step takes a composite clip (``training.composites``) and, by turns, pictures and a
clip of people with their masks, for the segmentation pass, so that it does not forget what people look like. Stages one
and two see short and long clips at a low size, without the refiner; stage three adds short clips at a high size with
it; stage four does so with stills. Its losses are those of ``training.matte``, and with the foreground F::

    L = ... + |F - F*|_1 + 5 (d(F - F*) / dt)^2 where a* > 0, + H(sigmoid(s), s*) of segments s

Adam at constant rates, one for the backbone, one for the refiner, one for the rest. ``optim.fit`` goes on where it was
cut off; what a stage leaves is where the next begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..vdp_core.errors import InputError
from ..vdp_core.nets.matting_weights import folded
from ..vdp_core.nets.weights import find_weights
from ..vdp_core.optim.fit import fit
from ..vdp_core.store.files import beside
from ..vdp_core.store.journal import Journal
from ..vdp_core.store.memo import digest
from .composites import Sample, Source, composite, length_of, segments
from .matte import STEADY, Log, begun, matte_losses
from .matting_net import TrainedMatting

__all__ = ["STAGES", "Stage", "train_stage"]

BACKBONE = ("mobilenet_v3_large*",)
"""File names of the backbone's weights as torchvision has them."""
RATIO = 0.25
"""Of the small copy at the high size."""
HIGH_FRAMES = 6
AHEAD = 4
"""Steps whose samples are drawn ahead for a GPU."""
_Drawn = tuple[list[tuple[Sample, bool]], list[tuple[Tensor, Tensor]]]
"""Composites, and whether each is of the high size; pictures of people and their masks."""


@dataclass(frozen=True)
class Stage:
    """How a stage is trained."""

    epochs: int
    frames: int
    """Of a clip at the low size."""
    backbone: float
    """Rates of Adam."""
    rest: float
    refiner: float = 0.0
    low: tuple[int, int] = (256, 512)
    """Range of both sides."""
    high: tuple[int, int] = (0, 0)
    """The same at the high size, with the refiner; 0 for none."""


STAGES = {
    1: Stage(epochs=20, frames=15, backbone=1e-4, rest=2e-4),
    2: Stage(epochs=2, frames=50, backbone=5e-5, rest=1e-4),
    3: Stage(epochs=1, frames=40, backbone=1e-5, rest=1e-5, refiner=2e-4, high=(1024, 2048)),
    4: Stage(epochs=5, frames=40, backbone=1e-5, rest=5e-5, refiner=2e-4, high=(1024, 2048)),
}
"""As published; stage four is for stills."""


def train_stage(
    folder: Path,
    number: int,
    *,
    foregrounds: Sequence[Source],
    backgrounds: Sequence[Source],
    pictures: Sequence[Source] = (),
    clips: Sequence[Source] = (),
    weights: Path | None = None,
    stage: Stage | None = None,
    steps: int = 0,
    batch: int = 1,
    seed: int = 0,
    half: bool = False,
    device: torch.device | str = "cpu",
    tell: Callable[[str], None] = print,
) -> Path:
    """Train a stage, or go on with it.

    Args:
        folder: of the training; ``stageN`` in it is this stage's.
        number: of the stage, from 1.
        foregrounds, backgrounds: see ``training.composites``.
        pictures: of people with masks, for the segmentation pass; empty for none.
        clips: the same, in motion.
        weights: to begin with; None takes what the stage before left, for the first stage the weights of torchvision's
            backbone, where they are in torch's cache, and else nothing.
        stage: other settings than those of ``STAGES``.
        steps: in all; 0: the stage's epochs, each of as many steps as there are clips of its length.
        batch: composites of a step.
        seed: of the first weights and of what each step takes.
        half: compute in bfloat16.
        device: where to.
        tell: told a line of the log.

    Returns:
        ``FOLDER/weights.safetensors``, for ``MatteVideo``.

    Raises:
        InputError: a setting, or the stage before is missing.
        WeightsError: the weights cannot be used.
        MediaError: a source cannot be read.
    """
    if number not in STAGES:
        raise InputError(f"stage: there is no {number}; known: {', '.join(map(str, STAGES))}")
    stage = stage or STAGES[number]
    before = folder / f"stage{number - 1}" / "trained.safetensors"
    if weights is None and number > 1:
        if not before.is_file():
            raise InputError(f"{before}: is not there; train stage {number - 1} first, or give weights to begin with")
        weights = before
    if weights is None:
        weights = find_weights(BACKBONE, [])
        tell(json.dumps({"stage": number, "begins_with": "nothing" if weights is None else weights.name}))
    torch.manual_seed(seed)
    net = TrainedMatting() if weights is None else TrainedMatting.of_file(weights)
    if not steps:
        runs = sum(max(1, length_of(source.path) // stage.frames) for source in foregrounds)
        steps = stage.epochs * -(-runs // batch)
    own = folder / f"stage{number}"
    settings: dict[str, Any] = {"steps": steps, "batch": batch, "seed": seed, **asdict(stage)}
    settings |= {"weights": None if weights is None else weights.name, "half": half}
    counts = {"foregrounds": foregrounds, "backgrounds": backgrounds, "pictures": pictures, "clips": clips}
    settings |= {name: _names(sources) for name, sources in counts.items()}
    trained, target = own / "trained.safetensors", folder / "weights.safetensors"
    if begun(own, settings) and trained.exists():
        tell(json.dumps({"step": steps, "weights": str(target)}))
        return target
    place = torch.device(device)
    net.to(place).train()
    log = Log(own, tell)

    def losses(sample: Sample, *, high: bool) -> dict[str, Tensor]:
        frames, foreground, matte = (part.to(place) for part in (sample.frames, sample.foreground, sample.matte))
        with torch.autocast(place.type, torch.bfloat16, enabled=half):
            drawn, found, _ = net.net(frames, ratio=RATIO if high else 1.0)
        return composite_losses(drawn.float(), found.float(), foreground, matte)

    def draw(index: int) -> _Drawn:
        rng = np.random.default_rng((seed, number, index))
        found: list[tuple[Sample, bool]] = []
        passes = [(stage.low, stage.frames, False), (stage.high, min(HIGH_FRAMES, stage.frames), True)]
        for sides, frames, is_high in passes * batch:
            if sides[1]:
                size = _drawn_size(rng, sides)
                found.append((composite(foregrounds, backgrounds, rng, frames=frames, size=size), is_high))
        sources, frames = (pictures, 1) if index % 2 == 0 else (clips, stage.frames)
        seen = [
            segments(sources, rng, frames=frames, size=_drawn_size(rng, stage.low)) for _ in range(batch) if sources
        ]
        return found, seen

    def step(index: int) -> dict[str, Tensor]:
        samples, seen = ahead.of(index)
        found: dict[str, Tensor] = {}
        for sample, is_high in samples:
            for name, term in losses(sample, high=is_high).items():
                name = f"high_{name}" if is_high else name
                found[name] = found.get(name, 0.0) + term / batch
        if seen:
            with torch.autocast(place.type, torch.bfloat16, enabled=half):
                each = [
                    F.binary_cross_entropy_with_logits(net.segments(run.to(place)).float(), mask.to(place))
                    for run, mask in seen
                ]
            found["segments"] = torch.stack(each).mean()
        return log.terms(found)

    with _Ahead(draw, steps, AHEAD if place.type == "cuda" else 1) as ahead:
        fit(
            step,
            net.groups(stage.backbone, stage.refiner, stage.rest),
            steps=steps,
            learning_rate=stage.rest,
            schedule=lambda progress: 1.0,
            plateau=0.0,
            on_step=log.step,
            journal=Journal(own / "state"),
            buffers=list(net.buffers()),
        )
    _write(net, trained, target)
    Journal(own / "state").clear()
    return target


class _Ahead:
    """What steps take, drawn while the steps before are computed. As each follows from its number, order is no matter.

    Args:
        draw: gives what a step takes.
        steps: in all.
        count: of steps that are drawn ahead, side by side.
    """

    def __init__(self, draw: Callable[[int], _Drawn], steps: int, count: int) -> None:
        self._draw, self._steps, self._count = draw, steps, count
        self._pool = ThreadPoolExecutor(count)
        self._waiting: dict[int, Future[_Drawn]] = {}

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def of(self, index: int) -> _Drawn:
        """What a step takes; those after it begin to be drawn."""
        for number in range(index, min(index + 1 + self._count, self._steps)):
            if number not in self._waiting:
                self._waiting[number] = self._pool.submit(self._draw, number)
        return self._waiting.pop(index).result()


def composite_losses(foreground: Tensor, matte: Tensor, true_foreground: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """The losses of a composite clip, each a scalar.

    Args:
        foreground: ``(T, 3, H, W)``.
        matte: ``(T, 1, H, W)``.
        true_foreground, truth: the same shapes.
    """
    terms = matte_losses(matte, truth, steady=range(1, len(matte)))
    error = (foreground - true_foreground) * (truth > 0.0)
    terms["foreground"] = error.abs().mean()
    if len(error) > 1:
        terms["steady_foreground"] = STEADY * (error[1:] - error[:-1]).square().mean()
    return terms


def _drawn_size(rng: np.random.Generator, sides: tuple[int, int]) -> tuple[int, int]:
    height, width = (int(rng.integers(sides[0], sides[1] + 1)) for _ in range(2))
    return height, width


def _names(sources: Sequence[Source]) -> str:
    """How many sources there are, and what tells their names from those of others."""
    return f"{len(sources)} {digest(*(source.path.name for source in sources)).hex()[:8]}"


def _write(net: TrainedMatting, trained: Path, target: Path) -> None:
    """Write what the next stage begins with, and the weights for use."""
    from safetensors.torch import save_file

    table = {name: value.detach().float().cpu().contiguous() for name, value in net.published().items()}
    with beside(target) as partial:
        save_file(folded(dict(table)), partial)
    with beside(trained) as partial:  # last, as a stage that has it is done
        save_file(table, partial)


def with_settings(number: int, *, frames: int, size: int) -> Stage:
    """A stage with clips of so many frames and sides of at most so many pixels at the low size; 0: as published.

    The high size is four times that.
    """
    stage = STAGES[number]
    low = (max(32, size // 2), size) if size else stage.low
    high = (4 * low[0], 4 * low[1]) if size and stage.high[1] else stage.high
    return replace(stage, frames=frames or stage.frames, low=low, high=high)
