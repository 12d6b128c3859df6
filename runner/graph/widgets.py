"""The values that the editor saves with a node, by the names of its inputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .types import InputSpec, NodeSpec

__all__ = ["Place", "places", "widget_values"]

SEED_CONTROLS = frozenset({"fixed", "randomize", "increment", "decrement", "increment-wrap"})
SEEDS = ("seed", "noise_seed")


@dataclass(frozen=True)
class Place:
    """Where a widget's value stands in the list that the editor saves."""

    name: str
    start: int
    stop: int
    """The first place that is another widget's: after a seed stands how it changes, after a file its button."""


def _takes_control(spec: InputSpec) -> bool:
    return bool(spec.options.get("control_after_generate")) or (spec.type == "INT" and spec.name in SEEDS)


def _takes_upload(spec: InputSpec) -> bool:
    return any(value and str(name).endswith("_upload") for name, value in spec.options.items())


def _widgets(inputs: Mapping[str, InputSpec], shown: Iterable[str]) -> list[InputSpec]:
    return [entry for entry in inputs.values() if entry.is_widget or entry.name in shown]


def _walk(widgets: Iterable[InputSpec], saved: list[Any], shown: Iterable[str]) -> tuple[list[Place], bool]:
    """Where each value stands if the widgets were saved in this order, and whether there are as many of both."""
    todo, found, at = deque(widgets), [], 0
    while todo and at < len(saved):
        entry, start = todo.popleft(), at
        at += 1
        todo.extendleft(reversed(_widgets(entry.branches.get(str(saved[start]), {}), shown)))
        is_control = _takes_control(entry) and saved[at : at + 1] and str(saved[at]) in SEED_CONTROLS
        if is_control or (_takes_upload(entry) and len(saved) - at > len(todo)):
            at += 1
        if is_control and entry.type == "COMBO" and len(saved) - at > len(todo) and isinstance(saved[at], str):
            at += 1  # which of the choices may come next
        found.append(Place(entry.name, start, at))
    return found, not todo and at == len(saved)


def places(saved: list[Any], spec: NodeSpec, shown: list[str]) -> list[Place]:
    """Where each widget's value stands among those of a node.

    They stand in the order of the widgets that the node had when it was saved. Where those are not the ones it has now,
    ``shown`` tells, if it tells of all.

    Args:
        saved: the values.
        spec: what the node takes now.
        shown: names of the inputs with a widget that the file lists; not all of them in many files.
    """
    now, fits = _walk(_widgets(spec.inputs, shown), saved, shown)
    if fits and {place.name for place in now}.issuperset(shown):
        return now
    listed = [spec.every_input.get(name) or InputSpec(name, "INT", False) for name in shown]
    then, fitted = _walk([replace(entry, branches={}) for entry in listed], saved, ())
    return then if fitted and shown else now


def _defaults(entry: InputSpec, chosen: Mapping[str, Any], shown: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The default of a widget, and of those that its choice adds."""
    value = chosen.get(entry.name)
    if entry.required and ("default" in entry.options or entry.choices):
        default = entry.options["default"] if "default" in entry.options else (entry.choices or (None,))[0]
        value = default if value is None else value
        yield entry.name, default
    for inner in _widgets(entry.branches.get(str(value), {}), shown):
        yield from _defaults(inner, chosen, shown)


def widget_values(saved: list[Any] | dict[str, Any], spec: NodeSpec, shown: list[str]) -> dict[str, Any]:
    """The values of a node's widgets by input name; what is not saved gets its default, as in the editor."""
    if isinstance(saved, dict):
        found = {
            name: saved[name]
            for name, entry in spec.every_input.items()
            if (entry.is_widget or name in shown) and saved.get(name) is not None
        }
    else:
        found = {
            place.name: saved[place.start]
            for place in places(saved, spec, shown)
            if saved[place.start] is not None and place.name in spec.every_input
        }
    widgets = _widgets(spec.inputs, shown)
    return {name: value for entry in widgets for name, value in _defaults(entry, found, shown)} | found
