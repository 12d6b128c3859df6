"""Rough masks of things that a network knows by name, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..checks import check_frames
from ..errors import InputError
from ..image.resize import resize
from ..nets.coco import ANYTHING, CLASSES
from ..store.scratch import large_empty
from ..store.transfer import send
from ..types import OnStep

__all__ = ["check_class", "check_clip", "check_settings", "detect_masks"]

Detector = Callable[[list[Tensor]], Sequence[Mapping[str, Tensor]]] | nn.Module
LEAST = 32
"""Fewest pixels of a side of the frames."""


def check_clip(frames: object) -> Tensor:
    """Return frames ``(T, H, W, 3)`` in which things can be detected.

    Raises:
        InputError, ShapeError: they cannot be used.
    """
    return check_frames(frames, smallest_side=LEAST)


def check_class(name: str) -> int | None:
    """The number of a class; None for anything.

    Raises:
        InputError: the network knows no such thing.
    """
    wanted = name.strip().lower()
    if wanted == ANYTHING:
        return None
    for number, known in CLASSES.items():
        if known == wanted:
            return number
    raise InputError(f"class_name: there is no '{name}'; known: {ANYTHING}, {', '.join(CLASSES.values())}")


def check_settings(class_name: str, score: float, every: int) -> None:
    """Refuse what ``detect_masks`` would refuse of its settings.

    Raises:
        InputError: one cannot be used.
    """
    check_class(class_name)
    if not 0.0 <= score <= 1.0:
        raise InputError(f"score: 0 to 1 needed, got {score}")
    if every < 1:
        raise InputError(f"every: 1 frame or more needed, got {every}")


@torch.no_grad()
def detect_masks(
    frames: Tensor,
    net: Detector,
    *,
    class_name: str = ANYTHING,
    score: float = 0.5,
    every: int = 1,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> tuple[Tensor, int]:
    """Find what a network sees of a class, as one rough mask a frame.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        net: takes a list of pictures ``(3, H, W)`` and gives for each ``labels`` ``(n,)``, ``scores`` ``(n,)`` and
            ``masks`` ``(n, 1, H, W)`` in 0..1, as torchvision's detectors do.
        class_name: one of ``nets.coco.CLASSES``, or ``anything``.
        score: least score of what counts.
        every: look at each so many-th frame; the others have an empty mask.
        device: where to compute.
        on_step: told after every frame that is looked at; stops the work by raising.

    Returns:
        ``(T, H, W)``, the most of the masks of all that count, in 0..1; and in how many frames there is any.

    Raises:
        InputError, ShapeError: the frames or a setting cannot be used.
    """
    frames = check_clip(frames)
    check_settings(class_name, score, every)
    wanted = check_class(class_name)
    count, height, width, _ = frames.shape
    out = large_empty(count, height, width).zero_()
    looked_at = range(0, count, every)
    seen = 0
    for done, index in enumerate(looked_at, 1):
        (found,) = net([send(frames[index], device).movedim(-1, 0)])
        counts = found["scores"] >= score
        if wanted is not None:
            counts &= found["labels"] == wanted
        masks = found["masks"][counts]
        if len(masks) > 0:
            out[index] = resize(masks.amax(dim=0, keepdim=True).float(), (height, width))[0, 0].clamp(0.0, 1.0).cpu()
            seen += bool((out[index] > 0.5).any())
        if on_step is not None:
            on_step(done, len(looked_at), None)
    return out, seen
