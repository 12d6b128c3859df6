"""Whole clips through a model, at native size and with as much of their noise taken out as is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..denoise.banding import without_bands
from ..denoise.temporal import clean_frames, is_noisy, less_noisy
from ..errors import InputError
from ..store.lazy import computed
from ..types import Layers, OnStep
from .base import Compose, Field

__all__ = ["NOISE", "PIXELS_AT_ONCE", "applied"]

NOISE = Field("noise", (7, 1, 1), low=0.0)
"""What layers keep of ``denoise.noise.Noise``, so that ``applied`` can take it out."""
PIXELS_AT_ONCE = 2**20


def applied(
    layers: Layers,
    compose: Compose,
    *,
    denoise: float,
    contrast: Tensor | None = None,
    deblock: bool = False,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> Tensor:
    """The clip of the layers as ``compose`` makes it, a few frames at a time.

    Args:
        layers: with a field ``noise``.
        compose: of their model, with a person's settings.
        denoise: 0 keeps the noise of the source and its bands, 1 takes them out.
        contrast: ``(T,)``, by how much ``compose`` raises the contrast of each frame, and so its noise and its steps
            of 8 bits; None is 1.
        deblock: whether what is taken out is blocks too, everywhere alike.
        device: where to compute.
        on_step: told after every few frames; stops the work by raising.

    Returns:
        ``(T, H, W, 3)`` float32 in 0..1, on the CPU; of a long clip, frames are computed when they are looked at.

    Raises:
        InputError: ``denoise`` is out of range.
    """
    if not 0.0 <= denoise <= 1.0:
        raise InputError(f"denoise: 0 to 1 needed, got {denoise}")
    count, height, width, _ = layers.frames.shape
    chunk = max(1, PIXELS_AT_ONCE // (height * width))

    def smoothed(first: int, stop: int, clean: Iterator[Tensor] | None, banded: bool) -> Tensor:
        frames = less_noisy(layers, first, stop, clean, denoise, device)
        return frames.lerp(without_bands(frames), denoise) if banded else frames

    @torch.no_grad()
    def made(start: int) -> Iterator[Tensor]:
        noisy = denoise > 0.0 and is_noisy(layers, contrast, deblock=deblock)
        clean = None
        if noisy:
            clean = clean_frames(layers, start=start, contrast=contrast, deblock=deblock, device=device)
        raised = [False] * count if contrast is None or denoise == 0.0 else contrast.gt(1.0).tolist()
        for first in range(start, count, chunk):
            stop = min(first + chunk, count)
            # (no name for the frames: it would keep them while the next are made)
            yield compose(layers, first, stop, smoothed(first, stop, clean, any(raised[first:stop]))).clamp_(0.0, 1.0)

    return computed(made, tuple(layers.frames.shape), on_step=on_step)
