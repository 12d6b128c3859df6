"""Settings of the command line, put into a graph."""

from __future__ import annotations

from typing import Any

from .check import cast, listed, unknown, wanted
from .types import Graph, GraphError, InputSpec, Node, Specs, shown

__all__ = ["set_seeds", "set_value"]

SEEDS = ("seed", "noise_seed")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def _find(graph: Graph, name: str) -> Node:
    """The node with this id, title or class name."""
    if name in graph.nodes:
        return graph.nodes[name]
    for kind, found in (
        ("title", [node for node in graph.nodes.values() if node.title == name]),
        ("class", [node for node in graph.nodes.values() if node.class_type == name]),
    ):
        if len(found) == 1:
            return found[0]
        if found:
            ids = listed(node.id for node in found)
            raise GraphError(f"{len(found)} nodes have the {kind} {shown(name)}; name one by its id: {ids}")
    raise GraphError(f"no node {shown(name)}; the graph has {listed(graph.nodes.values())}")


def _named(graph: Graph, name: str) -> bool:
    """Whether any node goes by this name."""
    return name in graph.nodes or any(name in (node.title, node.class_type) for node in graph.nodes.values())


def set_value(graph: Graph, specs: Specs, setting: str) -> None:
    """Apply one ``NODE.INPUT=VALUE``; an input that was linked takes the value instead.

    Raises:
        GraphError: no such node or input, or a value that is not of the input's type.
    """
    target, equals, text = setting.partition("=")
    name, dot, input_name = target.rpartition(".")
    if not equals or not dot or not name or not input_name:
        raise GraphError(f"the setting {shown(setting)} is not of the form NODE.INPUT=VALUE")
    outer, _, combo = name.rpartition(".")
    if outer and not _named(graph, name) and _named(graph, outer):  # an input that a dynamic combo adds
        name, input_name = outer, f"{combo}.{input_name}"
    node = _find(graph, name)
    spec = specs.get(node.class_type)
    if spec is None:
        raise GraphError(unknown(node))
    if input_name not in spec.every_input:
        raise GraphError(f"{node} has no input {shown(input_name)}; its inputs are {listed(spec.every_input)}")
    entry = spec.every_input[input_name]
    if not entry.is_widget:
        raise GraphError(f"{node}: {input_name} takes {entry.type} from another node, it cannot be set to a value")
    node.inputs[input_name] = _parse(node, entry, text)
    node.unlinked.pop(input_name, None)
    node.damaged.pop(input_name, None)


def _parse(node: Node, entry: InputSpec, text: str) -> Any:
    """The value a person typed, as the type the input declares."""
    if entry.type == "COMBO":
        return next((choice for choice in entry.choices or () if str(choice) == text), text)
    if entry.type == "BOOLEAN":
        if text.lower() in (*TRUE, *FALSE):
            return text.lower() in TRUE
        raise GraphError(f"{node}: {entry.name} must be true or false, got {shown(text)}")
    try:
        return cast(entry, text)
    except ValueError:
        raise GraphError(f"{node}: {entry.name} must be {wanted(entry)}, got {shown(text)}") from None


def set_seeds(graph: Graph, specs: Specs, seed: int) -> int:
    """Set every seed input of the graph, also linked ones; returns how many there are."""
    count = 0
    for node in graph.nodes.values():
        spec = specs.get(node.class_type)
        for name in SEEDS:
            if spec is not None and name in spec.inputs and spec.inputs[name].type == "INT":
                node.inputs[name] = seed
                count += 1
    return count
