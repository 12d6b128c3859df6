"""Pictures, masks and fields at other sizes; all cover the same area (see ``sample``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..store.scratch import large_empty
from ..store.transfer import send

__all__ = ["resize", "size_within", "upsample", "working_copy"]


def resize(pictures: Tensor, size: tuple[int, int], *, mode: str = "bilinear") -> Tensor:
    """Resize ``(N, C, H, W)`` to ``size`` = (h, w).

    Args:
        pictures: of any floating type.
        size: the wanted one; the same one gives the pictures themselves.
        mode: ``bilinear`` or ``bicubic``, antialiased where a side shrinks; ``area``, the mean over what a pixel
            covers; ``nearest``.
    """
    old, new = (pictures.shape[2], pictures.shape[3]), (int(size[0]), int(size[1]))
    if old == new:
        return pictures
    if mode == "area":
        return F.interpolate(pictures, size=new, mode="area")
    if mode == "nearest":
        return F.interpolate(pictures, size=new, mode="nearest-exact")
    shrinks = new[0] < old[0] or new[1] < old[1]
    return F.interpolate(pictures, size=new, mode=mode, align_corners=False, antialias=shrinks)


def upsample(knots: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate grids of knots ``(N, C, h, w)`` bicubically to pictures of ``size`` = (H, W).

    The outer knots lie on the centres of the outer pixels, so that a slope goes on up to the border.
    """
    return F.interpolate(knots, size=size, mode="bicubic", align_corners=True)


def size_within(height: int, width: int, side: int, *, least: int = 1) -> tuple[int, int]:
    """The size (h, w) of a copy whose long side is at most ``side`` (0: unchanged); smaller ones stay as they are.

    Args:
        height, width: of the original.
        side: the most pixels along the long side.
        least: the fewest pixels along a side that is made smaller.
    """
    longest = max(height, width)
    if side == 0 or longest <= side:
        return height, width
    scale = side / longest
    return max(least, round(height * scale)), max(least, round(width * scale))


def working_copy(frames: Tensor, side: int, device: torch.device | str | None = None) -> Tensor:
    """Return frames ``(T, H, W, 3)`` as ``(T, 3, h, w)``, averaged down to a long side of ``side``; smaller ones stay.

    Args:
        frames: in 0..1.
        side: the most pixels along the long side.
        device: where to work, and where the copy will be; None: where the frames are.
    """
    size = size_within(frames.shape[1], frames.shape[2], side, least=2)
    place = frames.device if device is None else device
    made = large_empty(len(frames), frames.shape[3], *size, device=place)
    for index, frame in enumerate(frames):
        made[index] = resize(send(frame, place)[None].movedim(-1, 1).float(), size, mode="area")[0]
    return made
