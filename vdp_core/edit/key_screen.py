"""Mattes and clean colours of what stands in front of a green or blue screen, each frame by itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..checks import check_frames
from ..errors import InputError
from ..image.colour import colour_of
from ..image.keying import LEAST_AREA, LEAST_SHARE, find_colour, key_picture, share_of_hue
from ..image.resize import resize, size_within
from ..models.masks import of_matte
from ..optim.progress import Progress
from ..store.lazy import computed_with_mask
from ..store.scratch import large_empty
from ..store.transfer import send
from ..types import Layers, OnStep

__all__ = ["check_clip", "check_screen", "key_screen"]

HUES = {"green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
"""What a screen is looked for as."""
LOOKED_AT, LOOK_SIDE = 9, 160
"""Frames that the screen's colour is found on, and the long side of their copies."""
MASK_SIDE = 256
"""Long side of the small masks that layers keep."""
SMALLEST_SIDE = 16


def check_clip(frames: object) -> Tensor:
    """Return frames ``(T, H, W, 3)`` that can be keyed.

    Raises:
        InputError, ShapeError: they cannot be used.
    """
    return check_frames(frames, smallest_side=SMALLEST_SIDE)


def check_screen(screen: str) -> tuple[Tensor, ...]:
    """The hues ``(3,)`` that a screen is looked for as.

    Args:
        screen: ``auto``, ``green``, ``blue``, or a colour as ``image.colour.colour_of`` reads it.

    Raises:
        InputError: it is none of that, or too grey.
    """
    text = screen.strip().lower()
    if text in ("auto", ""):
        return tuple(torch.tensor(hue) for hue in HUES.values())
    if text in HUES:
        return (torch.tensor(HUES[text]),)
    colour = colour_of(screen, "screen")
    if float(share_of_hue(colour.view(3, 1, 1), colour)) < LEAST_SHARE * float(colour.sum().clamp_min(0.1)):
        raise InputError(f"screen: '{screen[:40]}' is too grey to tell a screen by; give its colour in the clip")
    return (colour,)


def key_screen(
    frames: Tensor, *, screen: str = "auto", device: torch.device | str = "cpu", on_step: OnStep | None = None
) -> Layers:
    """Find alpha and the colours of what stands in front of a screen.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        screen: ``auto`` (green or blue, whichever fills more), ``green``, ``blue``, or a colour near the screen's.
        device: where to compute.
        on_step: told after every frame; stops the work by raising.

    Returns:
        Layers of the model segment: the screen and what stands in front of it. Their pictures ``matte``, ``(T, H, W)``,
        and ``colour_1``, ``(T, H, W, 3)``, are on the CPU; of a long clip, they are made when they are looked at.
        Colours are the object's own, without the screen and its light; black where there is nothing of it.

    Raises:
        InputError, ShapeError: the frames or the screen cannot be used, or no screen is seen.
    """
    frames = check_clip(frames)
    place = torch.device(device)
    looking, drawing = Progress(on_step).phases(1, 6)
    colour = _colour(frames, screen).to(place)
    masks = large_empty(len(frames), 2, *size_within(frames.shape[1], frames.shape[2], MASK_SIDE, least=2))
    for index, frame in enumerate(frames):
        small = resize(send(frame, place).movedim(-1, 0)[None], (masks.shape[2], masks.shape[3]), mode="area")[0]
        alpha = key_picture(small, colour)[0]
        masks[index, 1] = alpha.cpu()
        looking(index + 1, len(frames), None)
    torch.sub(1.0, masks[:, 1], out=masks[:, 0])
    colours, matte = computed_with_mask(partial(_keyed, frames, colour, place), tuple(frames.shape), on_step=drawing)
    written = "#" + "".join(f"{round(255.0 * value):02x}" for value in colour.tolist())
    return of_matte(frames, masks, matte, colours=colours, info={"preset": "key", "screen": written})


def _colour(frames: Tensor, screen: str) -> Tensor:
    """The screen's colour ``(3,)``.

    Raises:
        InputError: no screen is seen.
    """
    count = min(LOOKED_AT, len(frames))
    places = [round(index * (len(frames) - 1) / max(count - 1, 1)) for index in range(count)]
    size = size_within(frames.shape[1], frames.shape[2], LOOK_SIDE, least=2)
    some = torch.cat([resize(frames[place].movedim(-1, 0)[None], size, mode="area") for place in places])
    found = [find_colour(some, hue) for hue in check_screen(screen)]
    colour, area = max(found, key=lambda one: one[1])
    if area < LEAST_AREA:
        raise InputError(
            f"screen: no {'green or blue' if len(found) > 1 else screen[:40]} screen is seen in this clip; give its "
            "colour, as #rrggbb, or use the task matte of Optimize, which needs none"
        )
    return colour


@torch.no_grad()
def _keyed(frames: Tensor, colour: Tensor, place: torch.device, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Colours ``(H, W, 3)`` and alpha ``(H, W)`` of each frame from ``start`` on."""
    for index in range(start, len(frames)):
        alpha, colours = key_picture(send(frames[index], place).movedim(-1, 0).contiguous(), colour)
        yield colours.movedim(0, -1).contiguous(), alpha
