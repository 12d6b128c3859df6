"""Graphs read from either JSON format, and written in API format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .embedded import embedded_workflow, is_media
from .types import Graph, GraphError, Link, Node, Specs, short, shown
from .ui_format import nodes_of_workflow

__all__ = ["load", "read", "to_api"]

MOST_BYTES = 2**26  # of a workflow file; those with pictures in their notes have a few million
MOST_DEEP = 200  # levels of JSON; the editor's own have about ten


def load(path: Path, specs: Specs) -> Graph:
    """Read a workflow in the editor's format or in API format: a JSON file, or what a saver put one into.

    Raises:
        GraphError: no such file, no JSON, or no workflow.
    """
    try:
        path = _file_of(path)
        with path.open("rb") as file:
            start = file.read(64)
        if is_media(start):
            return read(embedded_workflow(path), specs)
        text = _text(path)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error
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


def _file_of(path: Path) -> Path:
    """The file at ``path``, which may be a folder of pictures that SaveFrames wrote."""
    for first in (path / "00000.png", path / "00000.exr"):
        if first.is_file():
            return first
    if path.exists() and not path.is_file():  # a device never ends
        raise ValueError("it is no file")
    return path


def _text(path: Path) -> str:
    """What is in a text file, in UTF-8, 16 or 32 and with or without the mark that says so."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise ValueError("it is neither JSON nor a picture, a video or a sound with a workflow in it") from error


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
    data, workflow = _unwrapped(data)
    if isinstance(data, dict) and "nodes" in data:
        return read(data, specs)
    if not isinstance(data, dict):
        raise GraphError(f"the file holds {type(data).__name__}, expected a workflow in the editor's or in API format")
    nodes = {str(key): _api_node(str(key), raw, specs) for key, raw in data.items()}
    return Graph(_without_reroutes(nodes, specs), workflow=workflow)


def _unwrapped(data: Any) -> tuple[Any, dict[str, Any] | None]:
    """A graph in API format out of a request, a job or an entry of a history, and the workflow it came from.

    A history holds entries by their id; an entry's ``prompt`` is a list: its number, its id, the graph, more data.
    """
    more: Any = None
    for _ in range(4):  # an entry of a history, its prompt, the graph in that
        if isinstance(data, list) and len(data) >= 3 and isinstance(data[2], dict):
            data, more = data[2], data[3] if len(data) > 3 else None
        elif not isinstance(data, dict):
            break
        elif isinstance(data.get("prompt"), (dict, list)) and "class_type" not in data["prompt"]:
            data, more = data["prompt"], data.get("extra_data", more)
        elif isinstance(data.get("workflow"), dict) and "class_type" not in data["workflow"]:
            data = data["workflow"]
        else:
            entries = [
                each for each in data.values() if isinstance(each, dict) and isinstance(each.get("prompt"), list)
            ]
            if not entries or len(entries) != len(data):
                break
            if len(entries) > 1:
                raise GraphError(f"it is a history of {len(entries)} runs; give a file with one of them")
            (data,) = entries
    info = more.get("extra_pnginfo") if isinstance(more, dict) else None
    workflow = info.get("workflow") if isinstance(info, dict) else None
    return data, workflow if isinstance(workflow, dict) else None


def _without_reroutes(nodes: dict[str, Node], specs: Specs) -> dict[str, Node]:
    """The nodes without other packs' reroutes, which hand on what they get; nobody has to have them for that."""
    through = {
        key: value
        for key, node in nodes.items()
        if node.class_type not in specs and "reroute" in node.class_type.lower() and len(node.inputs) == 1
        for value in node.inputs.values()
        if isinstance(value, Link)
    }
    for node in nodes.values():
        for name, value in node.inputs.items():
            seen: set[str] = set()
            while isinstance(value, Link) and value.node in through and value.node not in seen:
                seen.add(value.node)
                value = through[value.node]
            node.inputs[name] = value
    return {key: node for key, node in nodes.items() if key not in through}


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
