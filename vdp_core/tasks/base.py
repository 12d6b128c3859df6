"""What a task declares: what it finds, from which inputs, with which presets, and the functions that do it.

A declaration imports nothing heavy, so that a program can list tasks and their inputs at once: the functions are
imported when they are first called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from ..optim.fit import Fitted
    from ..optim.progress import Progress
    from ..store.journal import Journal
    from ..types import Layers, OnStep, Shot

__all__ = ["Config", "Found", "Given", "Input", "Preset", "Published", "Task", "Work", "later"]

Given = Mapping[str, Any]
"""What a person gave, by the name of the input; None where nothing was."""


def later(package: str, place: str) -> Callable[..., Any]:
    """A function that is imported when it is first called.

    Args:
        package: the ``__package__`` of the module that declares it.
        place: ``.module:function``, relative to the package.
    """
    module, _, name = place.partition(":")

    def call(*args: Any, **settings: Any) -> Any:
        return getattr(import_module(module, package), name)(*args, **settings)

    return call


def _unchanged(value: Any, _: range) -> Any:
    return value


@dataclass(frozen=True)
class Input:
    """Something that a person may give a task besides the clip and its flow."""

    name: str
    socket: str
    """The type of the node's input: ``IMAGE``, ``MASK,IMAGE``, or that of a widget, such as ``INT``."""
    options: Mapping[str, Any]
    """Of the node's input: tooltip, and default and range of a widget."""
    check: Callable[[Given, Tensor], Any]
    """``check(given, frames)`` returns the value as the task takes it; raises InputError or ShapeError."""
    of_shot: Callable[[Any, range], Any] = _unchanged
    """``of_shot(value, span)`` returns what of a checked value belongs to a shot, None where nothing does."""
    required: bool = False
    """Whether it is a widget that the node has always had, and not an optional input."""

    @property
    def default(self) -> Any:
        """What it is where a person gave nothing."""
        return self.options.get("default")


class Config(Protocol):
    """What a preset sets: a frozen dataclass."""

    @property
    def steps(self) -> int:
        """Most optimisation steps; 0 leaves them to the method."""

    @property
    def window(self) -> int | None:
        """Most frames that are worked on at once; None: the whole shot."""


@dataclass(frozen=True)
class Published:
    """Config of the preset ``paper``, whose settings are the published ones."""

    steps: int = 0
    window: int | None = None


@dataclass(frozen=True)
class Preset:
    """A way to do a task."""

    config: Config
    find: Callable[[Shot, Given, Any, Work], Found] | None = None
    """A method of its own in place of the task's ``find``."""
    without: tuple[Input, ...] = ()
    """Inputs of the task that this way does not take."""


@dataclass(frozen=True)
class Work:
    """How to do the work on a shot."""

    seed: int
    device: torch.device
    weights_folders: tuple[Path, ...]
    """Where networks look for pretrained weights, besides torch's cache."""
    journal: Journal
    """Where what is found on the way is kept, so that work that was cut off goes on there."""
    progress: Progress
    """Told after every step; stops the work by raising."""


@dataclass(frozen=True)
class Found:
    """What a task found."""

    fields: Mapping[str, Tensor]
    """Those of the model, per frame, ``(T, ...)`` on the CPU."""
    fitted: Fitted
    notes: Mapping[str, str]
    """What a person may want to know: ``said`` in the node's line, ``warning`` at its head, others in the layers."""
    assets: Mapping[str, Tensor] = field(default_factory=dict)
    """Those of the model that no frame owns, on the CPU."""


def _nothing(frames: Tensor, given: Given, config: Any) -> Given:
    return given


def _no_lengths(given: Given) -> Mapping[str, int | None]:
    return {}


one_after_the_other = later(__package__, ".join:join")


@dataclass(frozen=True)
class Task:
    """A task. What nodes, command line, documents and tests know of it follows from this declaration."""

    name: str
    model: str
    """The composition model whose fields it finds."""
    says: str
    """What it finds, and for which nodes, for tooltips and documents."""
    presets: Mapping[str, Preset]
    find: Callable[[Shot, Given, Any, Work], Found]
    """``find(shot, given, config, work)``: the fields of one shot; ``given`` holds the part of each input that belongs
    to it."""
    prepare: Callable[[Tensor, Given, Any], Given] = _nothing
    """``prepare(frames, given, config)``: what must be known of the whole clip before any shot is worked on. Refuses
    here what cannot work, with InputError or ShapeError."""
    join: Callable[[Sequence[Found], Sequence[range], Given], Found] = one_after_the_other
    """``join(found, spans, given)``: the whole of what was found in several shots."""
    finish: Callable[[Layers, torch.device, OnStep], Layers] | None = None
    """``finish(layers, device, on_step)``: the layers of the whole clip with what is made of them at native size."""
    lengths: Callable[[Given], Mapping[str, int | None]] = _no_lengths
    """``lengths(given)``: what letters in the shapes of the model's fields will stand for, None where an input that
    says so is not known yet, and the names of optional fields that there will be; see ``Model.stand_in``."""
    inputs: tuple[Input, ...] = ()
    aliases: tuple[str, ...] = ()
    """Words that people look for it with."""
    measured: str = "pictures"
    """What is compared with the truth on a data set: ``pictures``; ``rebuilt``, pictures whose truth is the clip
    itself; ``regions``, or ``mattes``."""
    needs_flow: bool = True
    least_frames: int = 2
    least_side: int = 16
    """Fewest pixels of height and width."""
