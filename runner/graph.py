"""Graphs: read from either JSON format, settings changed, and everything checked before anything runs."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .specs import Primitive
from .types import Graph, GraphError, InputSpec, Link, Node, NodeSpec, Specs, short, shown, types_fit
from .ui_format import nodes_of_workflow

__all__ = [
    "cast",
    "check",
    "check_files",
    "constant",
    "load",
    "needed_nodes",
    "read",
    "set_seeds",
    "set_value",
    "to_api",
]

SEEDS = ("seed", "noise_seed")
MOST_BYTES = 2**26  # of a workflow file; those with pictures in their notes have a few million
MOST_DEEP = 200  # levels of JSON; the editor's own have about ten
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def load(path: Path, specs: Specs) -> Graph:
    """Read a workflow file in the editor's format or in API format.

    Raises:
        GraphError: no such file, no JSON, or no workflow.
    """
    try:
        text = _text(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GraphError(f"the workflow {path} cannot be read: {reason}") from error
    try:
        return read(json.loads(text), specs)
    except json.JSONDecodeError as error:
        raise GraphError(f"{path} is no JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise GraphError(f"{path}: it is nested too deeply to be a workflow") from error
    except (GraphError, ValueError) as error:
        raise GraphError(f"{path}: {error}") from error


def _text(path: Path) -> str:
    """What is in a file, unless it cannot be a workflow: a device never ends."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
    return content.decode("utf-8-sig")


def _is_deep(data: object) -> bool:
    """Whether lists and objects are nested so deep that Python's stack may not reach down."""
    level = [data]
    for _ in range(MOST_DEEP):
        inner = [part for part in level if isinstance(part, (dict, list))]
        level = [entry for part in inner for entry in (part.values() if isinstance(part, dict) else part)]
    return bool(level)


def read(data: object, specs: Specs) -> Graph:
    """A graph from parsed JSON; ``specs`` say which value of the editor's format belongs to which input.

    Raises:
        GraphError: it is no workflow, or a damaged one.
    """
    if _is_deep(data):
        raise GraphError("it is nested too deeply to be a workflow")
    if isinstance(data, dict) and "nodes" in data:
        return Graph(nodes_of_workflow(data, specs), workflow=data)
    if isinstance(data, dict) and isinstance(data.get("prompt"), dict):
        data = data["prompt"]
    if not isinstance(data, dict):
        raise GraphError(f"the file holds {type(data).__name__}, expected a workflow in the editor's or in API format")
    return Graph({str(key): _api_node(str(key), raw, specs) for key, raw in data.items()})


def _api_node(key: str, raw: object, specs: Specs) -> Node:
    if not isinstance(raw, dict) or not isinstance(raw.get("class_type"), str):
        raise GraphError(f"this is no workflow: entry {shown(key)} has no class_type, and there is no list of nodes")
    inputs = raw.get("inputs", {})
    if not isinstance(inputs, dict):
        raise GraphError(f"the inputs of node {short(key)} are {type(inputs).__name__}, expected an object")
    kind = raw["class_type"]
    meta = raw.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    if not isinstance(title, str) or not title:
        title = specs[kind].display_name if kind in specs else kind
    node = Node(key, kind, title)
    for name, value in inputs.items():
        if isinstance(value, dict) and "__value__" in value:
            node.inputs[name] = value["__value__"]
        elif not isinstance(value, list):
            node.inputs[name] = value
        elif len(value) == 2 and isinstance(value[0], (str, int)) and type(value[1]) is int:
            node.inputs[name] = Link(str(value[0]), value[1])
        else:
            node.damaged[name] = f"its value is a list, but no link of the form [node, output]: {shown(value)}"
    return node


def to_api(graph: Graph) -> dict[str, Any]:
    """The graph in API format, as servers take it and as savers embed it."""

    def plain(value: Any) -> Any:
        if isinstance(value, Link):
            return [value.node, value.slot]
        return {"__value__": value} if isinstance(value, list) else value

    return {
        node.id: {
            "class_type": node.class_type,
            "inputs": {name: plain(value) for name, value in node.inputs.items()},
            "_meta": {"title": node.title},
        }
        for node in graph.nodes.values()
    }


def _listed(names: Iterable[object]) -> str:
    return ", ".join(short(name) for name in names) or "none"


# Settings


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
            ids = _listed(node.id for node in found)
            raise GraphError(f"{len(found)} nodes have the {kind} {shown(name)}; name one by its id: {ids}")
    raise GraphError(f"no node {shown(name)}; the graph has {_listed(graph.nodes.values())}")


def set_value(graph: Graph, specs: Specs, setting: str) -> None:
    """Apply one ``NODE.INPUT=VALUE``; an input that was linked takes the value instead.

    Raises:
        GraphError: no such node or input, or a value that is not of the input's type.
    """
    target, equals, text = setting.partition("=")
    name, dot, input_name = target.rpartition(".")
    if not equals or not dot or not name or not input_name:
        raise GraphError(f"the setting {shown(setting)} is not of the form NODE.INPUT=VALUE")
    node = _find(graph, name)
    spec = specs.get(node.class_type)
    if spec is None:
        raise GraphError(_unknown(node))
    if input_name not in spec.inputs:
        raise GraphError(f"{node} has no input {shown(input_name)}; its inputs are {_listed(spec.inputs)}")
    entry = spec.inputs[input_name]
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
        raise GraphError(f"{node}: {entry.name} must be {_wanted(entry)}, got {shown(text)}") from None


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


# Checks


def cast(entry: InputSpec, value: Any) -> Any:
    """A constant as the type its input declares, the way ComfyUI casts it.

    Raises:
        ValueError: it cannot be.
    """
    try:
        match entry.type:
            case "INT":
                return int(value)
            case "FLOAT":
                number = float(value)
                if not math.isfinite(number):
                    raise ValueError(f"{number} is not finite")
                return number
            case "STRING":
                return value if isinstance(value, str) else str(value)
            case "BOOLEAN":
                return bool(value)
            case _:
                return value
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _wanted(entry: InputSpec) -> str:
    kind = {"INT": "a whole number", "FLOAT": "a number", "STRING": "a text"}.get(entry.type, entry.type)
    low, high = entry.options.get("min"), entry.options.get("max")
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    if low is not None:
        return f"{kind} of at least {low}"
    return f"{kind} of at most {high}" if high is not None else kind


def _unknown(node: Node) -> str:
    return (
        f"{node}: no node {shown(node.class_type)} here; it belongs to ComfyUI or another pack, "
        "so run this graph in a ComfyUI that has it, with --server URL"
    )


def _constant_problem(entry: InputSpec, value: Any) -> str | None:
    """What is wrong with a constant, in words that follow the input's name."""
    if not entry.is_widget:
        return f"takes {entry.type} from another node, got the value {shown(value)}"
    if entry.type == "COMBO":
        if entry.choices is None or value in entry.choices:
            return None
        return f"must be one of {_listed(entry.choices)}, got {shown(value)}"
    try:
        number = cast(entry, value)
    except ValueError:
        return f"must be {_wanted(entry)}, got {shown(value)}"
    if entry.type in ("INT", "FLOAT"):
        low, high = entry.options.get("min", -math.inf), entry.options.get("max", math.inf)
        if not low <= number <= high:
            return f"must be {_wanted(entry)}, got {shown(number)}"
    return None


def _link_problem(graph: Graph, specs: Specs, entry: InputSpec, link: Link) -> str | None:
    source = graph.nodes.get(link.node)
    if source is None:
        return f"is linked to node {short(link.node)}, which is not in the graph"
    spec = specs.get(source.class_type)
    if spec is None:
        return None  # reported once, at the unknown node itself
    if not 0 <= link.slot < len(spec.output_types):
        return f"is linked to output {link.slot} of {source}, which has {len(spec.output_types)} outputs"
    given = spec.output_types[link.slot]
    if not types_fit(given, entry.type):
        return f"takes {entry.type}, but is linked to {given} from {source}"
    return None


def _node_problems(graph: Graph, specs: Specs, node: Node, spec: NodeSpec) -> list[str]:
    problems = [f"{short(name)}: {why}" for name, why in node.damaged.items()]
    for name, value in node.inputs.items():
        entry = spec.inputs.get(name)
        if entry is None:
            what: str | None = f"the node has no such input; its inputs are {_listed(spec.inputs)}"
        elif isinstance(value, Link):
            what = _link_problem(graph, specs, entry, value)
        else:
            what = _constant_problem(entry, value)
        if what is not None:
            problems.append(f"{short(name)}: {what}" if entry is None else f"{name} {what}")
    for name, entry in spec.inputs.items():
        if entry.required and name not in node.inputs and name not in node.damaged:
            why = f"; {node.unlinked[name]}" if name in node.unlinked else ""
            problems.append(f"{name} ({entry.type}) is missing{why}")
    return [f"{node}: {problem}" for problem in problems]


def _sources(graph: Graph, node: Node) -> list[str]:
    return [value.node for value in node.inputs.values() if isinstance(value, Link) and value.node in graph.nodes]


def _cycle(graph: Graph) -> list[str] | None:
    """The ids along one circle of links, if there is any."""
    done: set[str] = set()
    for start in graph.nodes:
        path: dict[str, None] = {}
        # Depth first without recursion: graphs may be longer than Python's stack. None marks the way back.
        waiting: list[str | None] = [start]
        while waiting:
            key = waiting.pop()
            if key is None:
                done.add(path.popitem()[0])
            elif key in path:
                return [*path][[*path].index(key) :]
            elif key not in done:
                path[key] = None
                waiting.append(None)
                waiting.extend(_sources(graph, graph.nodes[key]))
    return None


def constant(value: Any, graph: Graph, specs: Specs) -> Any:
    """What an input gets where that is known before the graph runs, also from a node that holds a value; else the link.

    Args:
        value: as the node has it, a link or not.
        graph: one that passes ``check``.
        specs: what its nodes are.
    """
    while isinstance(value, Link):
        source = graph.nodes[value.node]
        if not issubclass(specs[source.class_type].node_class or object, Primitive):
            break
        value = source.inputs.get("value")
    return value


def needed_nodes(graph: Graph, specs: Specs) -> list[str]:
    """The ids of the output nodes and of everything they need, sources first. The graph must have no circle."""
    order: dict[str, None] = {}
    outputs = [key for key, node in graph.nodes.items() if (spec := specs.get(node.class_type)) and spec.is_output]
    waiting = [(key, False) for key in reversed(outputs)]
    while waiting:
        key, sources_done = waiting.pop()
        if sources_done:
            order[key] = None
        elif key not in order:
            waiting.append((key, True))
            waiting.extend((source, False) for source in reversed(_sources(graph, graph.nodes[key])))
    return list(order)


def check(graph: Graph, specs: Specs) -> list[str]:
    """Everything that is wrong with a graph, one sentence each; an empty list where it can run.

    As in ComfyUI, nodes that lead to no output may be unfinished; only where there is no output at all is everything
    looked at.
    """
    if not graph.nodes:
        return ["the graph holds no nodes"]
    problems = [_unknown(node) for node in graph.nodes.values() if node.class_type not in specs]
    cycle = _cycle(graph)
    if cycle is not None:
        problems.append(
            "the links run in a circle: " + " <- ".join(str(graph.nodes[key]) for key in [*cycle, cycle[0]])
        )
    needed = list(graph.nodes) if cycle is not None else needed_nodes(graph, specs)
    if not needed:
        problems.append("no node of the graph leaves an output; add one such as SaveFrames")
    for key in needed or graph.nodes:
        node = graph.nodes[key]
        spec = specs.get(node.class_type)
        if spec is not None:
            problems.extend(_node_problems(graph, specs, node, spec))
    return problems


def check_files(graph: Graph, specs: Specs) -> list[str]:
    """What the nodes themselves say about their constants (``VALIDATE_INPUTS``): files that are not there, mostly.

    Apart from ``check``, because it depends on the machine and not on the graph. The graph must pass ``check``.
    """
    problems = []
    for key in needed_nodes(graph, specs):
        node, spec = graph.nodes[key], specs[graph.nodes[key].class_type]
        validate = getattr(spec.node_class, "VALIDATE_INPUTS", None)
        if validate is None:
            continue
        wanted = inspect.getfullargspec(validate)
        constants = {
            name: None if isinstance(value, Link) else cast(spec.inputs[name], value)
            for name, value in node.inputs.items()
            if name in wanted.args or wanted.varkw is not None
        }
        verdict = validate(**constants)
        if verdict is not True:
            problems.append(f"{node}: {verdict or 'an input is not valid'}")
    return problems
