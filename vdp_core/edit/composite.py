"""Layers as pictures: the background filled where objects cover it, layers taken out, put back, and painted over.

The masks of layers share out each pixel, ``x = sum_i m_i c_i`` with ``sum_i m_i = 1``. To paint layer over
layer, from the background up, layer i has the opacity ``a_i = m_i / sum_{j <= i} m_j`` (Porter and Duff, "Compositing
Digital Images", SIGGRAPH 1984): what lies in front of it no longer matters, so that layers can move and vanish.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..models import look_of
from ..models.masks import MODEL as MASKS
from ..models.paint import paint
from ..models.plate import clean_plate_of, matte_of
from ..store.lazy import computed_with_mask
from ..store.transfer import send
from ..types import Layers, OnStep

__all__ = ["clean_plate", "composite"]


def composite(
    layers: Layers,
    *,
    linear_light: bool = False,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Put layers together, with their edits and replaced pictures.

    Args:
        layers: of a model with a look: segment, atlas.
        linear_light: mix in light instead of display values: soft borders and motion blur then look as filmed, and
            gain is that of scene light, exactly.
        device: where to compute.
        on_step: told after every frame; stops the work by raising.

    Returns:
        Frames ``(T, H, W, 3)`` in 0..1, and ``(T, H, W)`` how far objects cover each pixel as shown, on the CPU; of a
        long clip, they are computed when they are looked at.

    Raises:
        InputError: layers of another model.
    """
    look = look_of(layers, "Composite")

    @torch.no_grad()
    def painted(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(start, len(layers)):
            yield paint(layers, index, look, linear_light, torch.device(device))

    return computed_with_mask(painted, layers.frames.shape, on_step=on_step)


@torch.no_grad()
def clean_plate(layers: Layers, start: int, stop: int, device: torch.device | str = "cpu") -> Tensor:
    """The background without objects, ``(stop - start, H, W, 3)`` at native size.

    The source where it shows the background; else what ``before`` and ``after`` say earlier and later frames saw there,
    blended by how far away they are; and where no frame saw it, colours spread from around.

    Raises:
        InputError: layers of another model.
    """
    MASKS.require(layers, "clean_plate")
    chunk = []
    for index in range(start, stop):
        frame = send(layers.frames[index], device).contiguous()
        chunk.append(clean_plate_of(layers, index, frame, matte_of(layers, index, frame)))
    return torch.stack(chunk)
