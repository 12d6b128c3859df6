"""What a composition model declares: its fields, and how they put a clip together and take it apart again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import InputError, LayersFileError
from ..image.matting import Matte
from ..types import Layers

__all__ = ["Colours", "Compose", "Field", "Look", "Model"]


@dataclass(frozen=True)
class Field:
    """One quantity of a model: where layers keep it, its shape, and the values it may have."""

    name: str
    shape: tuple[int | str | None, ...]
    """Of one frame, or of the whole where it is not per frame. A letter stands for any length, the same wherever the
    model's fields use it; None for any length at all."""
    per: Literal["frame", "layer", "once"] = "frame"
    """``frame``: ``Layers.fields[name]``, ``(T, *shape)``, floating point. ``layer``: ``Layers.assets[name_0]``,
    ``name_1``, ... ``once``: ``Layers.assets[name]``. Assets have any shape and type."""
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    """Whether values must lie above ``low``, not at it."""
    optional: bool = False

    def check(self, layers: Layers, lengths: dict[str, int]) -> None:
        """Refuse layers in which it is missing or impossible; ``lengths`` collects what letters stand for.

        Raises:
            LayersFileError: it is missing, of another shape, or out of range.
        """
        for name, values in self._kept(layers).items():
            shape = tuple(values.shape[1:]) if self.per == "frame" else tuple(values.shape)
            fits = len(shape) == len(self.shape) and all(
                wanted is None or length == (lengths.setdefault(wanted, length) if isinstance(wanted, str) else wanted)
                for length, wanted in zip(shape, self.shape, strict=True)
            )
            if not fits:
                raise LayersFileError(
                    f"the layers hold no '{name}' {self._shape()}, but one of {tuple(values.shape)}; save them again"
                )
            if self.low == -math.inf and self.high == math.inf:
                continue
            low, high = float(values.min()), float(values.max())
            if low < self.low or (self.above and low == self.low) or high > self.high:
                wrong = high if high > self.high else low
                raise LayersFileError(
                    f"the layers hold a '{name}' of {wrong:.4g}, {self._range()} needed; save them again"
                )

    def _kept(self, layers: Layers) -> Mapping[str, Tensor]:
        """The tensors that hold it, by name."""
        kept = layers.fields if self.per == "frame" else layers.assets
        if self.per == "layer":
            found = {name: kept[name] for name in kept if name.rpartition("_")[0] == self.name}
        else:
            found = {self.name: kept[self.name]} if self.name in kept else {}
        if not found and not self.optional:
            raise LayersFileError(f"the layers hold no '{self.name}' {self._shape()}; save them again")
        return found

    def _shape(self) -> str:
        sides = ("T", *self.shape) if self.per == "frame" else self.shape
        return f"({', '.join(map(str, sides))})"

    def _range(self) -> str:
        if self.high == math.inf:
            return f"{'above ' if self.above else ''}{self.low:g}{'' if self.above else ' or more'}"
        return f"{self.low:g} to {self.high:g}"


class Compose(Protocol):
    """Puts frames together, or takes them apart; settings are the model's own."""

    def __call__(self, layers: Layers, start: int, stop: int, frames: Tensor, /) -> Tensor:
        """Frames ``start`` to ``stop`` of the layers, from ``(stop - start, H, W, 3)`` to the same shape."""


Split = Callable[[Layers, int, int, Tensor], "tuple[Tensor, Tensor]"]
"""``split(layers, number, index, frame)``: colours ``(H, W, 3)`` and mask ``(H, W)`` of a layer in a frame, of which
the source ``(H, W, 3)`` is given on the device that is to be computed on."""


class Colours(NamedTuple):
    """What the layers of one frame look like by themselves, before anything is done to them."""

    background: Tensor
    """``(H, W, 3)``, into which the objects may be painted."""
    objects: Callable[[int, tuple[slice, slice]], Tensor]
    """Colours ``(h, w, 3)`` of an object, by its number, in some rows and columns of the frame."""


class Look(Protocol):
    """Gives the colours of layers, for ``paint``."""

    def __call__(
        self, layers: Layers, index: int, frame: Tensor, matte: Matte, /, *, whole: bool, linear_light: bool
    ) -> Colours:
        """Colours in a frame.

        Args:
            layers: of the model.
            index, frame: its number, and the source ``(H, W, 3)`` on the device that is to be computed on.
            matte: of that frame.
            whole: whether the background will be seen where objects hide it.
            linear_light: whether layers are mixed in light instead of display values.
        """


@dataclass(frozen=True)
class Model:
    """A composition model. Everything that is done to layers of any model goes by this declaration."""

    name: str
    """As ``Layers.model`` and files have it."""
    fields: tuple[Field, ...]
    compose: Compose
    """What the model makes of the source frames: the result with nothing changed."""
    rebuild: Compose
    """The inverse of ``compose``: the source frames from what it made."""
    split: Split | None = None
    """Takes a layer out as pictures; None where the model has none."""
    layer_names: Callable[[Layers], tuple[str, ...]] | None = None
    """What the layers that ``split`` takes out are, the first one's number being 0."""
    look: Look | None = None
    """What layers look like, for putting them together with edits; None where the model's cannot be edited so."""
    invariant: Callable[[Layers], None] | None = None
    """Refuses what the fields alone cannot show; raises LayersFileError."""

    def check(self, layers: Layers) -> None:
        """Refuse layers, read from a file, that lack something the model needs.

        Raises:
            LayersFileError: what is missing or impossible.
        """
        lengths: dict[str, int] = {}
        for field in self.fields:
            field.check(layers, lengths)
        if self.invariant is not None:
            self.invariant(layers)

    def stand_in(self, frames: Tensor, lengths: Mapping[str, int | None]) -> Layers:
        """Layers without values, on the device ``meta``, for what is to be checked before they are found.

        Args:
            frames: the clip, or a stand-in.
            lengths: what letters of the fields' shapes stand for: None where nobody can tell, and fields with it are
                left out; sides that are not named do not matter. Optional fields are left out where their own name is
                not among these.
        """
        fields = {}
        for field in self.fields:
            sides = [lengths.get(side, 1) if isinstance(side, str) else side for side in field.shape]
            known = [side for side in sides if side is not None]
            wanted = not field.optional or field.name in lengths
            if field.per == "frame" and wanted and known == sides:
                fields[field.name] = torch.empty(len(frames), *known, device="meta")
        return Layers(self.name, fields, frames)

    def require(self, layers: Layers, what: str) -> None:
        """Refuse layers of another model.

        Args:
            what: needs those of this one: a node's name.

        Raises:
            InputError: they are of another model.
        """
        if layers.model != self.name:
            raise InputError(f"layers: they are of the model '{layers.model}', {what} needs '{self.name}'")

    def check_layer(self, layers: Layers, number: int) -> None:
        """Refuse a number that no layer has.

        Raises:
            InputError: the model has no layers, or none of this number.
        """
        names = self.layer_names(layers) if self.layer_names is not None else ()
        if not 0 <= number < len(names):
            known = ", ".join(f"{other} {name}" for other, name in enumerate(names))
            raise InputError(
                f"layer: there is no layer {number}; these layers have {known}"
                if names
                else f"layers: of the model '{self.name}', which has no layers to split"
            )
