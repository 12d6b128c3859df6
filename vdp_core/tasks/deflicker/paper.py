"""Deflicker as published: an atlas, a filter that takes its colours, and a refinement of the result, for comparison.

Blind Video Deflickering by Neural Filtering with a Flawed Atlas (Lei et al., CVPR 2023); its code was not read. Ranges
of the filter's training are unpublished and ours, as are the weight of STAY, the steps and the rates.

Atlas: one texture for the whole frame, found as the task of that name does in its preset ``fast``. A_t is what it
rebuilds of frame x_t, without the light of the frame: steady, but flawed where things move.

Filter F: over frames x of the clip, a(x) with other colours and g(x) with other places and less sharp::

    E = mean |F(a(x), g(x)) - x|^2                                               ("filter")

Refinement R: over runs of neighbouring frames P_t = F(x_t, A_t), with O_t = R(P_t, O_(t-1), P_(t-1)), O_0 = P_0::

    E = mean (1 - occluded) |O_t - warp(O_(t-1))|                                ("steady")
      + STAY * mean |O_t - P_t|                                                  ("stay")

Neither is trained where its published weights are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ...degrade.flicker import Change, Extent, changed
from ...errors import WeightsError
from ...image.resize import resize, size_within, working_copy
from ...metrics import psnr
from ...motion.warp import pixel_grid, resize_flow, warp
from ...nets.filter import FilterNet
from ...nets.refinement import RefinementNet
from ...nets.weights import fill, find_weights
from ...optim.fit import Fitted, fit
from ...optim.losses import warp_term
from ...optim.progress import Progress
from ...store.journal import Journal, Kept
from ...store.scratch import large_empty
from ...types import Flow, OnStep, Shot
from ..atlas.config import PRESETS
from ..atlas.find import find_steady
from ..base import Work

__all__ = ["Deflickered", "deflicker"]

SIDE = 768
"""Published long side of the frames."""
STEPS = 1000
REFINING = 4
"""Steps of the filter to one of the refinement."""
FILTER_RATE, REFINEMENT_RATE = 1e-3, 5e-4
CROP = 96
"""Side in pixels of the parts of frames that networks are trained on."""
BATCH = 2
RUN = 4
"""Neighbouring frames in a step of the refinement."""
STAY = 0.3

APPEARANCE, OFFSET = 0.4, 0.15
"""Most of what frames are changed by, as ``degrade.flicker`` counts strengths of log gain, and of values."""
AWAY = 4.0
"""Most deviation, in pixels, of what is moved."""
COARSER = 4.0
"""Most pixels that become one where sharpness is taken away."""
GIVEN_BACK = 20.0
"""Least PSNR of a picture that filters are shown twice."""
OTHERWISE = "move it elsewhere, and the network is trained on the clip itself"
PREVIEW_SIDE = 160
"""Long side of previews, as the filter takes a while for a picture."""
SHARES = (2, 6, 6)
"""About how long the stages take."""


class Deflickered(NamedTuple):
    """What the published way makes of a shot, at the working size (h, w)."""

    residual: Tensor
    """``(T, 3, h, w)`` half precision: what is to be added to the frames."""
    stages: Mapping[str, Tensor]
    """Frames ``(T, 3, h, w)`` in 0..1 in half precision after the stages ``atlas``, ``filter`` and ``refinement``."""
    fitted: Fitted
    """Of the networks that were trained, taken together."""
    notes: Mapping[str, str]


def deflicker(
    frames: Tensor,
    flow: Flow,
    *,
    steps: int,
    seed: int,
    device: torch.device | str,
    weights_folders: Sequence[Path],
    journal: Journal,
    on_step: OnStep | None,
    side: int = SIDE,
) -> Deflickered:
    """Take the flicker off a shot; ``steps`` are the filter's, of which the refinement has a quarter.

    Args:
        frames, flow, steps, seed, device, weights_folders, journal, on_step: see ``tasks.base.Work``.
        side: the most pixels of the long side that it works on.

    Raises:
        WeightsError: a file of weights is of another network; before any work.
    """
    device = torch.device(device)
    progress = Progress(on_step).phases(*SHARES)
    steps = steps or STEPS
    small = working_copy(frames, side, "cpu")
    with torch.random.fork_rng(devices=[]):  # the layers draw their first values from torch's own generator
        torch.default_generator.manual_seed(seed)  # of the CPU alone: torch.manual_seed would reseed the GPUs' too
        filter_net, refinement = FilterNet().to(device), RefinementNet().to(device)
    filter_file = _filled(filter_net, "neural_filter", weights_folders)
    refinement_file = _filled(refinement, "local_refinement_net", weights_folders)
    if filter_file is not None:
        _check_filter(filter_net, small[:1].to(device), filter_file)

    def atlas_found(journal: Journal) -> Kept:
        config = replace(PRESETS["fast"], side=side)
        work = Work(seed, device, tuple(weights_folders), journal, progress[0])
        return {"frames": find_steady(Shot(frames, flow, range(len(frames))), config, work)}, {}

    def filtered(journal: Journal) -> Kept:
        training, applying = progress[1].phases(9, 1)
        fitted = None
        if filter_file is None:
            fitted = asdict(_train_filter(filter_net, small, atlas, steps, seed, journal, training))
        return {"frames": _filter(filter_net, small, atlas, applying)}, {"fitted": fitted}

    def refined(journal: Journal) -> Kept:
        training, applying = progress[2].phases(9, 1)
        clip = _Runs(steady, flow, device)
        fitted = None
        if refinement_file is None:
            fitted = asdict(clip.train(refinement, max(1, steps // REFINING), seed, journal, training))
        return {"frames": clip.refined(refinement, applying)}, {"fitted": fitted}

    atlas = journal.step("atlas", atlas_found)[0]["frames"]
    kept, filter_notes = journal.step("filter", filtered)
    steady = kept["frames"]
    kept, refinement_notes = journal.step("refinement", refined)
    out = kept["frames"]
    residual = large_empty(*out.shape, dtype=torch.half)
    for t, frame in enumerate(out):
        residual[t] = frame.float() - small[t]
    fits = [Fitted(**notes["fitted"]) for notes in (filter_notes, refinement_notes) if notes["fitted"] is not None]
    files = {"filter": filter_file, "refinement": refinement_file}
    notes = {name: "trained on the clip" if file is None else file.name for name, file in files.items()}
    return Deflickered(residual, {"atlas": atlas, "filter": steady, "refinement": out}, _together(fits), notes)


def _filled(net: FilterNet | RefinementNet, name: str, folders: Sequence[Path]) -> Path | None:
    """Give a network the weights of that name; None where no folder has any."""
    path = find_weights((f"{name}.*",), folders)
    if path is not None:
        fill(net, path, otherwise=OTHERWISE)
    return path


@torch.no_grad()
def _check_filter(net: FilterNet, frame: Tensor, path: Path) -> None:
    """Refuse weights that do not give back a frame that is its own atlas.

    Raises:
        WeightsError: they do not.
    """
    reached = psnr(net(frame, frame).movedim(1, -1), frame.movedim(1, -1))
    if reached < GIVEN_BACK:
        raise WeightsError(
            f"{path}: with its weights a frame that needs no change comes back with {reached:.1f} dB; {OTHERWISE}"
        )


def _together(fits: Sequence[Fitted]) -> Fitted:
    terms = {name: value for fitted in fits for name, value in fitted.terms.items()}
    return Fitted(sum(fitted.steps for fitted in fits), sum(fitted.seconds for fitted in fits), terms, "steps")


# the filter


def _train_filter(
    net: FilterNet, frames: Tensor, atlas: Tensor, steps: int, seed: int, journal: Journal, progress: Progress
) -> Fitted:
    """Have it learn, on parts of frames ``(T, 3, h, w)``, to take colours from one picture and all else of another.

    The atlas ``(T, 3, h, w)`` is for previews alone.
    """
    device = next(net.parameters()).device
    generator = Generator().manual_seed(seed)
    shown = slice(len(frames) // 2, len(frames) // 2 + 1)
    size = size_within(frames.shape[2], frames.shape[3], PREVIEW_SIDE)
    pair = [resize(pictures[shown].float(), size).to(device) for pictures in (frames, atlas)]

    @torch.no_grad()
    def picture() -> Tensor:
        return net(*pair)[0].clamp(0.0, 1.0).movedim(0, -1)

    def step(_: int) -> dict[str, Tensor]:
        # drawn on the CPU, so that every device is given the same
        clean = torch.cat([_part(frames, _drawn(len(frames), generator), 1, generator) for _ in range(BATCH)])
        seen, atlas = recoloured(clean, generator), misplaced(clean, generator)
        return {"filter": (net(seen.to(device), atlas.to(device)) - clean.to(device)).square().mean()}

    return fit(
        step,
        list(net.parameters()),
        steps=steps,
        learning_rate=FILTER_RATE,
        plateau=0.0,
        clip=1.0,
        preview=picture,
        on_step=progress,
        journal=journal,
        generators=(generator,),
    )


@torch.no_grad()
def _filter(net: FilterNet, frames: Tensor, atlas: Tensor, progress: Progress) -> Tensor:
    """Frames ``(T, 3, h, w)`` with the colours of the atlas, in half precision."""
    device = next(net.parameters()).device
    made = large_empty(*frames.shape, dtype=torch.half)
    for t in range(len(frames)):
        made[t] = net(frames[t : t + 1].to(device), atlas[t : t + 1].to(device).float())[0].clamp(0.0, 1.0)
        progress(t + 1, len(frames))
    return made


def recoloured(pictures: Tensor, generator: Generator) -> Tensor:
    """Pictures ``(N, 3, h, w)`` after a gain, gamma, cast and smooth fields of gain and of offset of their own."""
    of = Extent(len(pictures), pictures.shape[2], pictures.shape[3], generator)
    strength, offset = of.uniform(0.0, APPEARANCE), of.uniform(0.0, OFFSET)
    gain = 0.7 * of.white() + 0.3 * of.white(3) + 0.4 * of.smooth(of.count)
    change = Change(strength * gain, 0.4 * strength * of.white(), offset * of.smooth(of.count, channels=3))
    return changed(pictures.movedim(1, -1), change).movedim(-1, 1)


def misplaced(pictures: Tensor, generator: Generator) -> Tensor:
    """Pictures ``(N, 3, h, w)`` whose points lie elsewhere, and which are less sharp, here more, there less."""
    of = Extent(len(pictures), pictures.shape[2], pictures.shape[3], generator)
    size = of.height, of.width
    moved = warp(pictures, of.uniform(0.0, AWAY) * of.smooth(of.count, channels=2).movedim(-1, 1))
    coarser = of.uniform(1.0, COARSER)
    small = max(1, round(of.height / coarser)), max(1, round(of.width / coarser))
    where = torch.sigmoid(4.0 * of.smooth(of.count)).movedim(-1, 1)
    return torch.lerp(moved, resize(resize(moved, small, mode="area"), size), where)


# the refinement


class _Runs:
    """What the refinement is trained on and applied to."""

    def __init__(self, frames: Tensor, flow: Flow, device: torch.device) -> None:
        """Frames ``(T, 3, h, w)`` in half precision, and their motion at any size."""
        self._frames, self._flow, self._device = frames, flow, device

    def train(self, net: RefinementNet, steps: int, seed: int, journal: Journal, progress: Progress) -> Fitted:
        """Have it learn to follow the frames before, on runs of parts of frames."""
        generator = Generator().manual_seed(seed)
        count, size = min(RUN, len(self._frames)), (self._frames.shape[2], self._frames.shape[3])

        def step(_: int) -> dict[str, Tensor]:
            first = _drawn(len(self._frames) - count + 1, generator)
            motion = resize_flow(self._flow.part(first, first + count), size)
            hidden = torch.cat((motion.backward, motion.backward_occlusion[:, None]), dim=1)
            hidden = torch.cat((torch.zeros_like(hidden[:1]), hidden))
            whole = torch.cat((self._frames[first : first + count].float(), hidden), dim=1)
            seen, backward, occluded = _part(whole, 0, count, generator).to(self._device).split((3, 2, 1), dim=1)
            occluded = torch.maximum(occluded[:, 0], _left(backward))
            state, given = None, seen[:1]
            apart = []
            for t in range(1, count):
                now = slice(t, t + 1)
                made, state = net(seen[now], seen[t - 1 : t], given, state)
                steady = warp_term(made, given, backward[now], occluded[now])
                apart.append(torch.stack((steady.mean(), STAY * (made - seen[now]).abs().mean())))
                given = made
            steady, stay = torch.stack(apart).mean(dim=0)
            return {"steady": steady, "stay": stay}

        return fit(
            step,
            list(net.parameters()),
            steps=steps,
            learning_rate=REFINEMENT_RATE,
            plateau=0.0,
            clip=1.0,
            on_step=progress,
            journal=journal,
            generators=(generator,),
        )

    @torch.no_grad()
    def refined(self, net: RefinementNet, progress: Progress) -> Tensor:
        """All frames, from the first one on, ``(T, 3, h, w)`` in half precision."""
        out = large_empty(*self._frames.shape, dtype=torch.half)
        out[0] = self._frames[0]
        before = given = self._frames[:1].to(self._device).float()
        state = None
        for t in range(1, len(out)):
            now = self._frames[t : t + 1].to(self._device).float()
            given, state = net(now, before, given, state)
            given = given.clamp(0.0, 1.0)
            out[t], before = given[0], now
            progress(t, len(out) - 1)
        return out


def _drawn(count: int, generator: Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _part(pictures: Tensor, first: int, count: int, generator: Generator) -> Tensor:
    """The same part of some pictures, ``(count, C, CROP, CROP)``, or as large as they are."""
    top, left = (_drawn(max(0, side - CROP) + 1, generator) for side in pictures.shape[-2:])
    return pictures[first : first + count, :, top : top + CROP, left : left + CROP]


def _left(vectors: Tensor) -> Tensor:
    """1 where vectors ``(N, 2, h, w)`` lead out of the picture, ``(N, h, w)``."""
    height, width = vectors.shape[-2:]
    x, y = (pixel_grid(height, width, device=vectors.device) + vectors).unbind(dim=1)
    return ((x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)).float()
