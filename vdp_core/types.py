"""The data that parts exchange: motion and layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .errors import ShapeError

__all__ = ["Edit", "Flow", "Layers", "OnStep", "Shot"]

OnStep = Callable[[int, int, Callable[[], Tensor] | None], None]
"""``on_step(done, total, preview)``; ``preview`` is None or gives an ``(H, W, 3)`` picture in 0..1."""


_MASKS = ("forward_occlusion", "backward_occlusion", "forward_confidence", "backward_confidence")
_UNKNOWN = torch.ones(())


@dataclass(frozen=True, eq=False, repr=False)
class Flow:
    """Motion between neighbouring frames of a clip of T frames, both ways, at one working size (h, w).

    ``frame[i](p) ~ frame[i+1](p + forward[i](p))`` and ``frame[i+1](p) ~ frame[i](p + backward[i](p))``; vectors are
    (dx, dy) in pixels of (h, w). Where an occlusion mask is 1 the pixel has no partner in the other frame.
    """

    forward: Tensor
    """``(T-1, 2, h, w)`` float32, read on the grid of frame i."""
    backward: Tensor
    """``(T-1, 2, h, w)`` float32, read on the grid of frame i+1."""
    forward_occlusion: Tensor
    """``(T-1, h, w)`` float32 in 0..1, 1 where a pixel of frame i is not seen in frame i+1."""
    backward_occlusion: Tensor
    """``(T-1, h, w)`` float32 in 0..1, 1 where a pixel of frame i+1 is not seen in frame i."""
    source_size: tuple[int, int]
    """``(H, W)`` of the frames it was estimated on."""
    method: str = "unknown"
    """The estimator, such as ``dis``."""
    cuts: tuple[int, ...] = ()
    """The first frame of every shot but the first, rising. A pair of frames across a cut has no motion: its vectors are
    zero, all of its pixels count as occluded, and nothing is compared, smoothed or averaged across it."""
    forward_confidence: Tensor = _UNKNOWN
    """``(T-1, h, w)`` float32 in 0..1: how likely a vector of ``forward`` is right to a pixel, where the pixel is seen
    in the other frame; 1 everywhere where nothing is known of that."""
    backward_confidence: Tensor = _UNKNOWN
    """The same of ``backward``."""

    def __post_init__(self) -> None:
        count, two, height, width = self.forward.shape
        if two != 2 or self.backward.shape != self.forward.shape:
            raise ShapeError(
                f"flow: forward and backward must both be (T-1, 2, h, w), got {tuple(self.forward.shape)} "
                f"and {tuple(self.backward.shape)}"
            )
        if list(self.cuts) != sorted({cut for cut in self.cuts if 0 < cut <= count}):
            raise ShapeError(f"flow: cuts must rise and lie within 1 to {count}, got {self.cuts}")
        for name in ("forward_confidence", "backward_confidence"):
            if getattr(self, name) is _UNKNOWN:
                object.__setattr__(self, name, self.forward.new_ones(()).expand(count, height, width))
        for name in _MASKS:
            if getattr(self, name).shape != (count, height, width):
                raise ShapeError(
                    f"flow: {name} must be {(count, height, width)}, got {tuple(getattr(self, name).shape)}"
                )

    def __len__(self) -> int:
        """Number of frame pairs, one less than the clip has frames."""
        return self.forward.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """``(h, w)`` of the flow's own grid."""
        return (self.forward.shape[2], self.forward.shape[3])

    @property
    def shots(self) -> list[range]:
        """The frames of each shot."""
        return [range(first, end) for first, end in pairwise((0, *self.cuts, len(self) + 1))]

    def to(self, device: torch.device | str) -> Flow:
        """The same motion on a device."""
        return self.mapped(lambda tensor: tensor.to(device))

    def part(self, first: int, end: int) -> Flow:
        """The motion within the frames ``first`` to ``end - 1``, sharing memory."""
        pairs = slice(first, max(first, end - 1))
        cuts = tuple(cut - first for cut in self.cuts if first < cut < end)
        return self.mapped(lambda tensor: tensor[pairs], cuts)

    def mapped(self, change: Callable[[Tensor], Tensor], cuts: tuple[int, ...] | None = None) -> Flow:
        """The flow that has each of its tensors changed, and other cuts where some are given."""
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changed, cuts=self.cuts if cuts is None else cuts)

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name: vectors, occlusion and confidence, each forward, then backward."""
        return {name: getattr(self, name) for name in ("forward", "backward", *_MASKS)}

    def __repr__(self) -> str:
        return f"Flow({len(self)} pairs, {self.size[1]}x{self.size[0]}, {self.method})"


@dataclass(frozen=True, eq=False, repr=False)
class Shot:
    """One shot of a clip."""

    frames: Tensor
    """``(T, H, W, 3)`` in 0..1."""
    flow: Flow | None
    """Its motion, where a task needs any."""
    span: range
    """Which frames of the clip it has."""


@dataclass(frozen=True)
class Edit:
    """A person's edit of one layer; the defaults change nothing."""

    visibility: float = 1.0
    """0 takes the layer out, 1 shows it whole; the background goes to black."""
    gain: float = 0.0
    """Stops of scene light."""
    saturation: float = 1.0
    """0 is grey, 1 as it is."""
    offset: tuple[float, float] = (0.0, 0.0)
    """(dx, dy) in pixels of the source frames, right and down."""

    def then(self, other: Edit) -> Edit:
        """Both edits, one after the other."""
        return Edit(
            self.visibility * other.visibility,
            self.gain + other.gain,
            self.saturation * other.saturation,
            (self.offset[0] + other.offset[0], self.offset[1] + other.offset[1]),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Layers:
    """The result of a decomposition: small fields that rebuild the video together with the source frames.

    See ``vdp_core.models`` for the composition models, and ``models.file`` for saving and loading.
    """

    model: str
    """The name of the composition model."""
    fields: Mapping[str, Tensor]
    """Small quantities per frame, each ``(T, ...)`` floating point; which ones, the model says. Those of a whole shot,
    such as gamma, are the same in all of its frames."""
    frames: Tensor
    """The source, ``(T, H, W, 3)`` float32 in 0..1, by reference."""
    flow: Flow | None = None
    """The motion the decomposition used."""
    seed: int = 0
    info: Mapping[str, str] = field(default_factory=dict)
    """How it was made: preset, steps, seconds, versions, which loss terms ran."""
    edits: Mapping[int, Edit] = field(default_factory=dict)
    """What was done to a layer, by its number."""
    assets: Mapping[str, Tensor] = field(default_factory=dict)
    """Quantities that no frame owns, of any shape and type, such as a texture or a network's weights; which ones, the
    model says."""
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    """What takes the place of a layer, at native size: ``colour_0``, ``colour_1``, ... ``(T or 1, H, W, 3)`` in 0..1,
    and ``mask_1``, ... ``(T or 1, H, W)``; ``matte`` ``(T or 1, H, W)`` is a finished mask of the only object,
    in place of what would be made of the small masks."""
    alpha: Tensor | None = None
    """Opacity of the source, ``(T, H, W)`` in 0..1; None where it is opaque. No model changes it."""

    def __len__(self) -> int:
        """Number of frames."""
        return self.frames.shape[0]

    @property
    def shots(self) -> list[range]:
        """The frames of each shot, as the flow has them."""
        return [range(len(self))] if self.flow is None else self.flow.shots

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        return f"Layers({self.model}, {count} frames {width}x{height}, fields {sorted(self.fields)})"
