"""Run a checked graph in this process: each needed node once, values let go after their last use."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from .graph import cast, needed_nodes, to_api
from .types import Graph, InputSpec, Link, Node, NodeSpec, RunResult, Specs

__all__ = ["NodeFailed", "collect_numbers", "run"]


class NodeFailed(Exception):
    """A node raised; ``__cause__`` is what it raised."""

    def __init__(self, message: str, *, bad_input: bool = False, unforeseen: bool = False) -> None:
        super().__init__(message)
        self.bad_input = bad_input
        """Whether what the node was given is wrong, rather than its work having failed."""
        self.unforeseen = unforeseen
        """Whether nobody wrote a sentence for it: a defect, most likely."""


def _failed(node: Node, error: Exception) -> NodeFailed:
    import torch

    from ..vdp_core.errors import InputError, LayersFileError, MediaError, VDPError, WeightsError

    if isinstance(error, VDPError):
        bad_input = isinstance(error, (InputError, MediaError, LayersFileError, WeightsError))
        return NodeFailed(f"{node}: {error}", bad_input=bad_input)
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        advice = "use fewer frames (count, every_nth) or smaller ones (max_side)"
        return NodeFailed(f"{node}: ran out of memory; {advice}")
    return NodeFailed(f"{node}: {type(error).__name__}: {error}", unforeseen=True)


def _hidden(kind: str, node: Node, graph: Graph, prompt: Mapping[str, Any]) -> Any:
    match kind:
        case "UNIQUE_ID":
            return node.id
        case "PROMPT":
            return prompt
        case "EXTRA_PNGINFO":
            return None if graph.workflow is None else {"workflow": graph.workflow}
        case _:
            return None


def _value(entry: InputSpec, value: Any, results: Mapping[str, tuple[Any, ...]]) -> Any:
    return results[value.node][value.slot] if isinstance(value, Link) else cast(entry, value)


def _run_node(node: Node, spec: NodeSpec, arguments: dict[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """What the node gives on, and what it shows (its ``ui``)."""
    assert spec.node_class is not None
    instance = spec.node_class()
    try:
        answer = getattr(instance, instance.FUNCTION)(**arguments)
        if inspect.iscoroutine(answer):
            answer = asyncio.run(answer)
    except Exception as error:
        raise _failed(node, error) from error
    if isinstance(answer, dict):
        return tuple(answer.get("result") or ()), answer.get("ui") or {}
    return tuple(answer or ()), {}


def collect_numbers(shown: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, float | None]:
    """The numbers that nodes gave, by name; ``shown`` is title and ui by node id.

    Where two nodes give the same name, each is called ``TITLE.name``. Infinity and NaN, which JSON has not, are None.
    """
    found = [
        (key, title, name, float(number))
        for key, (title, ui) in shown.items()
        for numbers in ui.get("vdp_numbers", ())
        for name, number in numbers.items()
    ]
    names = Counter(name for _, _, name, _ in found)
    titles = Counter((title, name) for _, title, name, _ in found)
    result: dict[str, float | None] = {}
    for key, title, name, number in found:
        label = name if names[name] == 1 else f"{title if titles[title, name] == 1 else key}.{name}"
        result[label] = number if math.isfinite(number) else None
    return result


def run(graph: Graph, specs: Specs, *, on_node: Callable[[Node], None] | None = None) -> RunResult:
    """Run a graph that passes ``graph.check``. Where results go and on which device, ``nodes.host.headless`` says.

    Args:
        graph: the graph.
        specs: what its nodes are.
        on_node: called before each node.

    Raises:
        NodeFailed: a node raised; interruptions pass as they are.
    """
    import torch

    from ..nodes import host

    order = needed_nodes(graph, specs)
    uses = Counter(value.node for key in order for value in graph.nodes[key].inputs.values() if isinstance(value, Link))
    prompt = to_api(graph)
    results: dict[str, tuple[Any, ...]] = {}
    shown: dict[str, tuple[str, Mapping[str, Any]]] = {}
    # ComfyUI runs nodes under inference mode; doing the same keeps both ways of running alike.
    with torch.inference_mode():
        for key in order:
            node, spec = graph.nodes[key], specs[graph.nodes[key].class_type]
            if on_node is not None:
                on_node(node)
            arguments = {name: _value(spec.inputs[name], value, results) for name, value in node.inputs.items()}
            arguments.update({name: _hidden(str(kind), node, graph, prompt) for name, kind in spec.hidden.items()})
            result, ui = _run_node(node, spec, arguments)
            del arguments
            shown[key] = (node.title, ui)
            if uses[key]:
                results[key] = result
            del result
            for value in node.inputs.values():
                if isinstance(value, Link):
                    uses[value.node] -= 1
                    if not uses[value.node]:
                        del results[value.node]
    root = host.output_folder().resolve()
    outputs = [str(root / path) for _, ui in shown.values() for path in ui.get("vdp_outputs", ())]
    return RunResult(outputs, collect_numbers(shown), str(host.device()))
