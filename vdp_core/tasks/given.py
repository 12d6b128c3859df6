"""What a person gives a task, checked, and cut to its shots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_frames, check_proportions
from ..errors import InputError, ShapeError
from ..image.selection import as_labels, as_mask
from .base import Given, Input
from .inputs import CAUSE, FPS, KEEP, LAYERS

__all__ = [
    "Reference",
    "check_cause",
    "check_fps",
    "check_guide",
    "check_keep",
    "check_layers",
    "check_mask_frame",
    "check_masks",
    "check_reference",
    "check_reference_frame",
    "check_with_shadow",
    "frames_of_shot",
    "masks_of_shot",
    "reference_of_shot",
]


class Reference(NamedTuple):
    """A graded still."""

    still: Tensor
    """``(1, H', W', 3)`` in 0..1."""
    frame: int
    """Which frame of the clip, or of the shot, it shows; -1: not known yet."""


def check_layers(given: Given, _: Tensor) -> int:
    """Return how many layers are asked for.

    Raises:
        InputError: out of the widget's range.
    """
    layers, least, most = given["layers"], LAYERS.options["min"], LAYERS.options["max"]
    if not least <= layers <= most:
        raise InputError(f"layers: {least} to {most}, the background included, got {layers}")
    return int(layers)


def check_reference(given: Given, frames: Tensor) -> Reference | None:
    """Return the graded still with the frame that it is said to show, None where none was given.

    Raises:
        ShapeError: not one still of the frames' proportions.
    """
    if given["reference"] is None:
        return None
    still = check_frames(given["reference"], "reference")
    if len(still) != 1:
        raise ShapeError(f"reference: one graded still is needed, got {len(still)} frames; set count to 1")
    check_proportions("reference: the still is", still.shape[1:3], frames.shape[1:3])
    return Reference(still, check_reference_frame(given, frames))


def check_reference_frame(given: Given, frames: Tensor) -> int:
    """Return which frame a reference shows, -1 where it is to be looked for.

    Raises:
        InputError: the clip has no such frame.
    """
    index = given["reference_frame"]
    if not -1 <= index < len(frames):
        raise InputError(f"reference_frame: -1 to look for it, or 0 to {len(frames) - 1} in this clip, got {index}")
    return int(index)


def reference_of_shot(reference: Reference | None, span: range) -> Reference | None:
    """Return the still with its frame counted from the shot's first, None for shots without that frame."""
    if reference is None or reference.frame not in span:
        return None
    return reference._replace(frame=reference.frame - span.start)


def check_masks(given: Given, frames: Tensor) -> dict[int, Tensor] | None:
    """Return the masks that show something, ``(K, H', W')`` in 0..1, by frame; None where no mask was given.

    K is one less than the layers asked for: with two all that is selected is one object. Of more objects than K, those
    that are left over belong to the last.

    Raises:
        ShapeError: of other proportions than the frames, or neither one nor as many as the clip has frames.
        InputError: empty everywhere, of a frame that is not there, or of fewer objects than the layers asked for.
    """
    if given["mask"] is None:
        return None
    layers = check_layers(given, frames)
    masks, objects = (as_mask(given["mask"]), 1) if layers == 2 else as_labels(given["mask"])
    count = len(frames)
    check_proportions("mask: it is", masks.shape[1:], frames.shape[1:3])
    if len(masks) == 1:
        index = given["mask_frame"]
        if not 0 <= index < count:
            raise InputError(f"mask_frame: 0 to {count - 1} in this clip, got {index}")
        by_frame = {int(index): masks[0]}
    elif len(masks) == count:
        by_frame = dict(enumerate(masks))
    else:
        raise ShapeError(f"mask: one, or one for each of the {count} frames, got {len(masks)}; set count to 1")
    by_frame = {index: mask for index, mask in by_frame.items() if bool((mask > 0.5).any())}
    if not by_frame:
        raise InputError("mask: it is empty everywhere; paint the object white, or unlink it")
    if objects < layers - 1:
        shown = "one object" if objects == 1 else f"{objects} objects"
        raise InputError(
            f"layers: with a mask of {shown} there are {objects + 1}, the background included, got {layers}; set it "
            f"to {objects + 1}"
        )
    if layers == 2:
        return {index: mask[None] for index, mask in by_frame.items()}
    return {index: _apart(mask, layers - 1) for index, mask in by_frame.items()}


def _apart(labels: Tensor, count: int) -> Tensor:
    """Masks ``(count, H, W)`` of labels ``(H, W)``; those from ``count`` on are one object."""
    return torch.stack([labels.clamp_max(count) == number for number in range(1, count + 1)]).float()


def check_mask_frame(given: Given, _: Tensor) -> int:
    """Return which frame a single mask belongs to; ``check_masks`` says whether the clip has it."""
    return int(given["mask_frame"])


def masks_of_shot(masks: Mapping[int, Tensor] | None, span: range) -> dict[int, Tensor] | None:
    """Return the masks of a shot, by frame counted from its first; empty where they are all of other shots."""
    return None if masks is None else {index - span.start: mask for index, mask in masks.items() if index in span}


def check_guide(given: Given, frames: Tensor) -> Tensor | None:
    """Return the steady original ``(T, H', W', 3)`` in 0..1, None where none was given.

    Raises:
        ShapeError: of other proportions than the frames, or of another number.
    """
    if given["guide"] is None:
        return None
    guide = check_frames(given["guide"], "guide")
    if len(guide) != len(frames):
        raise ShapeError(
            f"guide: it has {len(guide)} frames, the clip has {len(frames)}; load as many, from the same one on"
        )
    check_proportions("guide: it is", guide.shape[1:3], frames.shape[1:3])
    return guide


def frames_of_shot(frames: Tensor | None, span: range) -> Tensor | None:
    """Return the frames of a shot."""
    return None if frames is None else frames[span.start : span.stop]


def check_cause(given: Given, _: Tensor) -> str:
    """Return where a person says that the flicker comes from.

    Raises:
        InputError: there is no such cause.
    """
    cause, choices = given["cause"], CAUSE.options["choices"]
    if cause not in choices:
        raise InputError(f"cause: there is no '{cause}'; known: {', '.join(choices)}")
    return str(cause)


def check_keep(given: Given, _: Tensor) -> float:
    """Return from how many seconds on a change is real.

    Raises:
        InputError: out of the widget's range.
    """
    return _within(KEEP, given)


def check_fps(given: Given, _: Tensor) -> float:
    """Return the frames of a second.

    Raises:
        InputError: out of the widget's range.
    """
    return _within(FPS, given)


def check_with_shadow(given: Given, _: Tensor) -> bool:
    """Return whether the object's shadow is wanted."""
    return bool(given["with_shadow"])


def _within(one: Input, given: Given) -> float:
    value, low, high = given[one.name], one.options["min"], one.options["max"]
    if not low <= value <= high:  # which NaN is not
        raise InputError(f"{one.name}: {low:g} to {high:g}, got {value}")
    return float(value)
