"""What the runner passes around: what nodes take and give, and graphs of them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

__all__ = [
    "Graph",
    "GraphError",
    "InputSpec",
    "Link",
    "Node",
    "NodeSpec",
    "RunResult",
    "Specs",
    "in_line",
    "short",
    "shown",
    "types_fit",
]

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


class GraphError(Exception):
    """A workflow or a setting of it is wrong; the text is one sentence for a person."""


def in_line(text: object) -> str:
    """A text as one line that any terminal shows as it is: control characters and the like are spelled out."""
    said = str(text)
    return said if said.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in said)


def short(text: object) -> str:
    """A name from a file as it stands in a sentence."""
    said = in_line(text)
    return said if len(said) <= 80 else said[:77] + "..."


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxlong = _brief.maxother = 80


def shown(value: object) -> str:
    """A value from a file as it stands in a sentence, however large or deep it is."""
    return short(_brief.repr(value))


def types_fit(given: str, wanted: str) -> bool:
    """Whether an output may be linked to an input: either may be a union such as ``IMAGE,MASK``, and ``*`` is any type.

    As in ComfyUI one type in common is enough.
    """
    if "*" in (given, wanted):
        return True
    return bool({kind.strip() for kind in given.split(",")} & {kind.strip() for kind in wanted.split(",")})


@dataclass(frozen=True)
class InputSpec:
    """One input of a node as its author declared it."""

    name: str
    type: str
    """``COMBO`` for a list of choices."""
    required: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    """What a combo offers; None for other types and for combos that do not say."""
    branches: Mapping[str, Mapping[str, InputSpec]] = field(default_factory=dict)
    """What each choice of a dynamic combo adds to the inputs; the names begin with the combo's own and a dot."""

    @property
    def is_widget(self) -> bool:
        """Whether the graph editor shows a value to type in, and saves one."""
        kinds = str(self.options.get("widgetType") or self.type).split(",")
        return WIDGET_TYPES.issuperset(kind.strip() for kind in kinds) and not self.options.get("forceInput")

    def with_branches(self) -> Iterator[InputSpec]:
        """The input itself and whatever its choices may add."""
        yield self
        for branch in self.branches.values():
            for entry in branch.values():
                yield from entry.with_branches()


@dataclass(frozen=True)
class NodeSpec:
    """What a node takes and gives."""

    name: str
    inputs: Mapping[str, InputSpec]
    """By name, in widget order."""
    output_types: tuple[str, ...]
    output_names: tuple[str, ...] = ()
    is_output: bool = False
    """Whether the node leaves something behind, so that it is worth running for its own sake."""
    display_name: str = ""
    description: str = ""
    category: str = ""
    hidden: Mapping[str, str] = field(default_factory=dict)
    node_class: type | None = None
    """None for a node that only a server has."""

    @cached_property
    def every_input(self) -> Mapping[str, InputSpec]:
        """The inputs with those that only some choice of a dynamic combo adds."""
        return {each.name: each for entry in self.inputs.values() for each in entry.with_branches()}


Specs = Mapping[str, NodeSpec]


@dataclass(frozen=True)
class Link:
    """The output ``slot`` of node ``node``."""

    node: str
    slot: int


@dataclass
class Node:
    """One node of a graph."""

    id: str
    class_type: str
    title: str
    inputs: dict[str, Any] = field(default_factory=dict)
    """Constants, and a ``Link`` where the value comes from another node."""
    unlinked: dict[str, str] = field(default_factory=dict)
    """Inputs whose link leads to nothing on purpose (a muted node), and why."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Inputs whose link leads to nothing by mistake, and why."""

    def __str__(self) -> str:
        other = self.class_type if self.title != self.class_type else f"node {self.id}"
        return f"{short(self.title)} ({short(other)})"


@dataclass
class Graph:
    """The nodes that would run, by id, and the workflow file they came from where it was in the editor's format."""

    nodes: dict[str, Node]
    workflow: dict[str, Any] | None = None


@dataclass
class RunResult:
    """What a run left: files (or folders of pictures) and the numbers that measuring nodes gave."""

    outputs: list[str]
    numbers: dict[str, float | None]
    device: str
