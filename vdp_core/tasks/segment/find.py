"""Masks of one window: motion, then rounds of learning and propagation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import InputError
from ...image.matting import align_masks
from ...image.resize import resize, working_copy
from ...optim.fit import Fitted
from ...optim.progress import Progress
from ...store.journal import Journal, Kept
from ...store.scratch import large_empty
from ...types import Flow
from .classifier import PixelFeatures, train_classifier
from .config import SegmentConfig
from .layer_flow import LayerFlows
from .motion import MOST_TRACKS, MotionTracks
from .propagation import propagate

__all__ = ["Masks", "all_background", "coverage", "find_in_window", "shown_masks", "too_few"]


class Masks(NamedTuple):
    """The masks of a shot, as one of the presets found them."""

    masks: Tensor
    """``(T, L, h, w)``, sum over L is 1."""
    fitted: Fitted
    notes: Mapping[str, str]


MOVING, ROUND, SETTLING = 1, 5, 2
"""How long the phases take, as shares."""
LASTING = 3
"""Frames in a row that an object is seen in, if nobody showed it: noise makes some that are gone after one or two."""
NO_FIT = Fitted(0, 0.0, {}, "steps")
"""Of a classifier where there was nothing to learn."""


def all_background(frames: Tensor, config: SegmentConfig, layers: int) -> Tensor:
    """Masks without any object."""
    masks = large_empty(len(frames), layers, *working_copy(frames[:1], config.side).shape[2:])
    masks[:, 0], masks[:, 1:] = 1.0, 0.0
    return masks


def coverage(masks: Tensor) -> dict[str, str]:
    """The note that says how much of the clip objects cover."""
    share = 100.0 * (1.0 - float(torch.stack([mask.mean() for mask in masks[:, 0]]).mean()))
    return {"said": f"objects cover {share:.1f} % of the clip"}


def find_in_window(
    frames: Tensor,
    flow: Flow,
    config: SegmentConfig,
    layers: int,
    seed: int,
    given: Mapping[int, Tensor] | None,
    device: torch.device,
    journal: Journal,
    progress: Progress,
) -> Masks:
    small = working_copy(frames, config.side, device)
    count, _, height, width = small.shape
    size = (height, width)
    shown = {} if given is None else {index: one.to(device) for index, one in given.items()}
    moving, *rounds, settling = progress.phases(MOVING, *[ROUND] * config.rounds, SETTLING)
    motion = MotionTracks(flow, layers - 1 if given is None else MOST_TRACKS, device, moving)
    if given is None and motion.objects.shape[1] == 0:
        return Masks(all_background(frames, config, layers), NO_FIT, {"warning": too_few(0)})
    fixed: dict[int, Tensor] = {}
    if given is None:
        labels = motion.labels(size)
    else:
        motion.merge_given({index: _resized(one.to(device), motion.flow.size) for index, one in given.items()})
        labels = motion.labels(size)
        for index, masks in shown.items():
            background = 1.0 - masks.sum(dim=0)
            others = labels[index, layers:] * background
            fixed[index] = labels[index] = torch.cat((background[None] - others.sum(dim=0), masks, others))
    features = PixelFeatures(small, motion)
    for number, phase in enumerate(rounds):
        kept, notes = journal.step(
            f"round_{number}",
            partial(_em_round, small, motion.flow, features, labels, fixed, number, config, seed, phase),
        )
        labels, fitted = kept["labels"].to(device), Fitted(**notes["fitted"])
    del small, motion, features
    if given is not None:  # what else moves belongs to the background
        labels = _with_background(labels[:, 1:layers])
    labels = align_masks(labels, frames, on_step=settling)
    clear = _seen(labels[:, 1:], 1 if shown else min(LASTING, count))
    if not bool(clear.all()):
        # an object that was given keeps its number
        objects = labels[:, 1:][:, clear] if given is None else labels[:, 1:] * clear.view(-1, 1, 1)
        labels = _with_background(objects)
    number = int(clear.sum())
    notes = {"warning": too_few(number, layers - 1 if given is not None else 0)} if number < layers - 1 else {}
    if labels.shape[1] < layers:
        number = labels.shape[1] - 1
        labels = torch.cat((labels, labels.new_zeros(count, layers - 1 - number, height, width)), dim=1)
    labels = labels.cpu()
    return Masks(labels, fitted, {**coverage(labels), **notes})


def _seen(objects: Tensor, lasting: int) -> Tensor:
    """Which of the objects ``(T, K, h, w)`` are seen clearly in so many frames in a row."""
    clear = objects.amax(dim=(2, 3)) > 0.5
    return clear.unfold(0, lasting, 1).all(dim=2).any(dim=0)


def _em_round(
    small: Tensor,
    flow: Flow,
    features: PixelFeatures,
    labels: Tensor,
    fixed: Mapping[int, Tensor],
    number: int,
    config: SegmentConfig,
    seed: int,
    progress: Progress,
    _: Journal,
) -> Kept:
    """One round: learn the layers' motion and appearance from the masks so far, then find masks ``(T, L, h, w)``."""
    explaining, learning, carrying = progress.phases(1, 2, 2)
    layer_flows = LayerFlows(labels, flow)
    count, kinds, height, width = labels.shape
    # half precision holds logs of odds to a thousandth, in half the memory
    warp_evidence = large_empty(count, kinds - 1, height, width, dtype=torch.half, device=small.device)
    for index in range(count):
        warp_evidence[index] = layer_flows.warp_evidence(small, index)[0]
        explaining(index + 1, count)
    shown = layer_flows.background_evidence(small, labels)
    training_frames = sorted(fixed) if fixed and number == 0 else list(range(count))
    start = (seed + number) % 2**64
    classifier, fitted = train_classifier(
        features, warp_evidence, shown, labels, training_frames, fixed, config, start, learning
    )
    appearance_evidence = large_empty(*labels.shape, dtype=torch.half, device=small.device)
    for index in range(count):
        appearance_evidence[index] = classifier(features.of(index, warp_evidence[index], shown[index]))
    better = propagate(small, labels, layer_flows, appearance_evidence, warp_evidence, fixed, config, carrying)
    return {"labels": better}, {"fitted": asdict(fitted)}


def shown_masks(given: Mapping[int, Tensor], size: tuple[int, int]) -> dict[int, Tensor]:
    """The given masks ``(K, h, w)`` at the working size; frames without a pixel above 0.5 there are left out."""
    masks = {index: _resized(one, size) for index, one in given.items()}
    masks = {index: mask for index, mask in masks.items() if bool((mask > 0.5).any())}
    if not masks:
        raise InputError(
            f"mask: what it shows is smaller than a pixel at the working size, {size[1]}x{size[0]}; paint the whole "
            "object white, or crop the clip around it"
        )
    return masks


def too_few(number: int, given: int = 0) -> str:
    """The warning for fewer objects than layers; ``given`` is how many a mask showed."""
    if given > 1 and number > 0:
        return f"only {number} of the mask's {given} objects could be held on to; give masks of more frames"
    if given:
        return "nothing of the mask's object could be held on to: the foreground is empty; give masks of more frames"
    if number == 0:
        return "nothing moves by itself against the camera's motion: the foreground is empty; give a mask"
    return f"only {number} moving object{'s' if number > 1 else ''} found: the layers after it are empty"


def _resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(masks[None].float(), size, mode="area")[0]


def _with_background(objects: Tensor) -> Tensor:
    """Masks ``(T, 1 + K, h, w)`` of objects ``(T, K, h, w)``."""
    return torch.cat((1.0 - objects.sum(dim=1, keepdim=True), objects), dim=1)
