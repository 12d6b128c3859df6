"""Everything that is wrong with a graph, found before anything runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

from .specs import Primitive
from .types import Graph, InputSpec, Link, Node, NodeSpec, Specs, short, shown, types_fit

__all__ = [
    "cast",
    "check",
    "check_files",
    "constant",
    "constant_problem",
    "listed",
    "needed_nodes",
    "unknown",
    "wanted",
]


def listed(names: Iterable[object]) -> str:
    """Names in a row, in words."""
    return ", ".join(short(name) for name in names) or "none"


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


def wanted(entry: InputSpec) -> str:
    """What an input takes, in words that follow ``must be``."""
    kind = {"INT": "a whole number", "FLOAT": "a number", "STRING": "a text"}.get(entry.type, entry.type)
    low, high = entry.options.get("min"), entry.options.get("max")
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    if low is not None:
        return f"{kind} of at least {low}"
    return f"{kind} of at most {high}" if high is not None else kind


def unknown(node: Node) -> str:
    """What to say of a node whose class nobody here knows."""
    return (
        f"{node}: no node {shown(node.class_type)} here; it belongs to ComfyUI or another pack, "
        "so run this graph in a ComfyUI that has it, with --server URL"
    )


def constant_problem(entry: InputSpec, value: Any) -> str | None:
    """What is wrong with a constant, in words that follow the input's name."""
    if not entry.is_widget:
        return f"takes {entry.type} from another node, got the value {shown(value)}"
    if entry.type == "COMBO":
        if entry.choices is None or value in entry.choices:
            return None
        return f"must be one of {listed(entry.choices)}, got {shown(value)}"
    try:
        number = cast(entry, value)
    except ValueError:
        return f"must be {wanted(entry)}, got {shown(value)}"
    if entry.type in ("INT", "FLOAT"):
        low, high = entry.options.get("min", -math.inf), entry.options.get("max", math.inf)
        if not low <= number <= high:
            return f"must be {wanted(entry)}, got {shown(number)}"
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
            what: str | None = f"the node has no such input; its inputs are {listed(spec.inputs)}"
        elif isinstance(value, Link):
            what = _link_problem(graph, specs, entry, value)
        else:
            what = constant_problem(entry, value)
        if what is not None:
            problems.append(f"{short(name)}: {what}" if entry is None else f"{name} {what}")
    for name, entry in spec.inputs.items():
        if _is_needed(entry, node) and name not in node.inputs and name not in node.damaged:
            why = f"; {node.unlinked[name]}" if name in node.unlinked else ""
            problems.append(f"{name} ({entry.type}) is missing{why}")
    return [f"{node}: {problem}" for problem in problems]


def _is_needed(entry: InputSpec, node: Node) -> bool:
    """Whether a node cannot do without an input, always or with the choices it has (``needed_where``)."""
    where = entry.options.get("needed_where")
    choices = where.items() if isinstance(where, dict) else ()
    return entry.required or any(node.inputs.get(name) in values for name, values in choices)


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
    problems = [unknown(node) for node in graph.nodes.values() if node.class_type not in specs]
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
