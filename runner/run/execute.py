"""Run a checked graph in this process: each needed node once, values let go after their last use."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..graph.check import cast, needed_nodes
from ..graph.read import to_api
from ..graph.types import Graph, InputSpec, Link, Node, NodeSpec, RunResult, Specs
from .resume import RESUME_FOLDER, Kept, identities

__all__ = ["RESUME_FOLDER", "NodeFailed", "collect_numbers", "run"]


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

    from ...vdp_core.errors import InputError, LayersFileError, MediaError, VDPError, WeightsError

    if isinstance(error, VDPError):
        bad_input = isinstance(error, (InputError, MediaError, LayersFileError, WeightsError))
        return NodeFailed(f"{node}: {error}", bad_input=bad_input)
    # torch has no class of its own for the machine's memory
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "can't allocate memory" in str(error):
        advice = "use fewer frames (count, every_nth) or smaller ones (max_side)"
        return NodeFailed(f"{node}: ran out of memory; {advice}")
    # the system says what is wrong, such as a full temporary folder
    return NodeFailed(f"{node}: {type(error).__name__}: {error}", unforeseen=not isinstance(error, OSError))


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


def _needed(node: str, made: tuple[Any, ...], uses: Mapping[Link, int]) -> tuple[Any, ...]:
    """What a node made, without the outputs that nobody needs any more."""
    return tuple(value if uses[Link(node, slot)] else None for slot, value in enumerate(made))


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


def _left_to_do(
    graph: Graph, specs: Specs, order: list[str], kept: Kept
) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
    """The nodes that have to run, and what output nodes showed that were done before."""
    outputs = [key for key in order if specs[graph.nodes[key].class_type].is_output]
    before = {key: ui for key in outputs if (ui := kept.finished(key)) is not None}
    wanted = set(outputs) - set(before)
    for key in reversed(order):
        if key in wanted:
            wanted |= {value.node for value in graph.nodes[key].inputs.values() if isinstance(value, Link)}
    return [key for key in order if key in wanted], {key: ui for key, ui in before.items() if key not in wanted}


def run(
    graph: Graph, specs: Specs, *, on_node: Callable[[Node], None] | None = None, resume: Path | None = None
) -> RunResult:
    """Run a graph that passes ``graph.check``. Where results go and on which device, ``nodes.host.headless`` says.

    Args:
        graph: the graph.
        specs: what its nodes are.
        on_node: called before each node.
        resume: a folder to keep in what long work has found so far, and to go on from: with the same graph, files and
            device the results are the same as if the work had never been cut off. It is cleared when all is done.

    Raises:
        NodeFailed: a node raised; interruptions pass as they are.
    """
    from ...nodes import host

    order = needed_nodes(graph, specs)
    names = {} if resume is None else identities(graph, specs, order, host.device().type)
    with Kept(resume, names, host.output_folder()) as kept:
        todo, shown = _left_to_do(graph, specs, order, kept)
        for key, ui in shown.items():
            host.say(f"{graph.nodes[key]}: was done before, {', '.join(ui.get('vdp_outputs', ()))}")
        shown |= _run_nodes(graph, specs, todo, kept, on_node)
        kept.clear()
    root = host.output_folder().resolve()
    outputs = [str(root / path) for key in order if key in shown for path in shown[key].get("vdp_outputs", ())]
    numbers = collect_numbers({key: (graph.nodes[key].title, shown[key]) for key in order if key in shown})
    return RunResult(outputs, numbers, str(host.device()))


def _quick_ones(graph: Graph, specs: Specs, order: list[str]) -> dict[str, None]:
    """The nodes whose work is short, such as loaders, and that of all that leads to them: they do not ``foresee``."""
    quick: dict[str, None] = {}
    for key in order:
        links = [value.node for value in graph.nodes[key].inputs.values() if isinstance(value, Link)]
        if not hasattr(specs[graph.nodes[key].class_type].node_class, "foresee") and all(one in quick for one in links):
            quick[key] = None
    return quick


def _foresee(graph: Graph, specs: Specs, order: list[str], results: Mapping[str, tuple[Any, ...]]) -> None:
    """Have the nodes that are yet to run refuse what they would refuse later.

    Raises:
        NodeFailed: one does.
    """
    from ...nodes import host

    classes = {name: spec.node_class for name, spec in specs.items() if spec.node_class is not None}
    nodes = {key: graph.nodes[key] for key in order}
    for key, node in nodes.items():
        entries = specs[node.class_type].inputs
        inputs = {
            name: value if isinstance(value, Link) else cast(entries[name], value)
            for name, value in node.inputs.items()
        }
        nodes[key] = replace(node, inputs=inputs)
    # of nodes that ran, what nobody needs any more is gone already
    try:
        host.foresee_all(order, to_api(Graph(nodes)), dict(results), classes=classes)
    except host.Refused as refused:
        cause = refused.__cause__
        assert isinstance(cause, Exception)
        raise _failed(graph.nodes[refused.key], cause) from cause


def _run_nodes(
    graph: Graph, specs: Specs, order: list[str], kept: Kept, on_node: Callable[[Node], None] | None
) -> dict[str, Mapping[str, Any]]:
    """Run nodes in order; what each showed (its ``ui``), by id."""
    import torch

    from ...nodes import host

    uses = Counter(value for key in order for value in graph.nodes[key].inputs.values() if isinstance(value, Link))
    prompt = to_api(graph)
    results: dict[str, tuple[Any, ...]] = {}
    shown: dict[str, Mapping[str, Any]] = {}
    quick = _quick_ones(graph, specs, order)
    # ComfyUI runs nodes under inference mode; doing the same keeps both ways of running alike.
    with torch.inference_mode():
        for number, key in enumerate([*quick, *(key for key in order if key not in quick)]):
            node, spec = graph.nodes[key], specs[graph.nodes[key].class_type]
            if number == len(quick):
                _foresee(graph, specs, order, results)
            if on_node is not None:
                on_node(node)
            arguments = {name: _value(spec.inputs[name], value, results) for name, value in node.inputs.items()}
            arguments.update({name: _hidden(str(kind), node, graph, prompt) for name, kind in spec.hidden.items()})
            making = kept.making(key) if spec.is_output else nullcontext()
            with host.keeping(partial(kept.journal, key)), making:
                result, shown[key] = _run_node(node, spec, arguments)
            del arguments
            if spec.is_output:
                kept.finish(key, shown[key])
            results[key] = result
            del result
            uses.subtract(value for value in node.inputs.values() if isinstance(value, Link))
            results = {of: _needed(of, made, uses) for of, made in results.items()}
    return shown
