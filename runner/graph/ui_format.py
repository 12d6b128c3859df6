"""The format the graph editor saves, turned into the nodes that would run.

Versions 0.4 (links are lists) and 1 (links are objects) are read. What only the editor knows is resolved the way the
editor does it: muted and bypassed nodes, reroutes, primitive nodes, subgraphs and the values promoted to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .types import GraphError, InputSpec, Link, Node, NodeSpec, Specs, short, shown, types_fit

__all__ = ["nodes_of_workflow"]

MUTED, BYPASSED = 2, 4
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = "-10", "-20"
REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"
EDITOR_ONLY = frozenset({REROUTE, PRIMITIVE, "Note", "MarkdownNote"})
SEED_CONTROLS = frozenset({"fixed", "randomize", "increment", "decrement", "increment-wrap"})
MOST_NODES = 20_000  # nested subgraphs multiply, so a small file can ask for any number
MOST_STEPS = 500_000  # parts looked at, for which a few seconds are enough; chains of links may be long
MOST_LEVELS = 50  # of subgraphs inside subgraphs


@dataclass(frozen=True)
class _Constant:
    value: Any


@dataclass(frozen=True)
class _Nothing:
    """A link that brings no value; ``damaged`` unless somebody meant it so."""

    why: str
    damaged: bool = False


@dataclass(frozen=True)
class _Wire:
    origin: str
    origin_slot: int
    target: str
    target_slot: int


def _as(kind: type, value: Any, what: str) -> Any:
    """``value`` if it is of this kind (an absent list or dict is empty), or the sentence that it is not."""
    if value is None and kind in (dict, list):
        return kind()
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise GraphError(f"the workflow is damaged: {short(what)} is {type(value).__name__}, expected {kind.__name__}")
    return value


def _key(value: Any, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise GraphError(
            f"the workflow is damaged: {short(what)} is {type(value).__name__}, expected a number or a text"
        )
    return str(value)


def _dicts(value: Any, what: str) -> list[dict[str, Any]]:
    return [_as(dict, entry, f"an entry of {what}") for entry in _as(list, value, what)]


def _wire(raw: Any) -> tuple[str, _Wire]:
    if isinstance(raw, dict):
        parts = [raw.get(name) for name in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
    else:
        parts = _as(list, raw, "a link")[:5]
    if len(parts) < 5:
        raise GraphError(f"the workflow is damaged: a link has {len(parts)} parts, expected at least 5")
    link, origin, origin_slot, target, target_slot = parts
    return _key(link, "the id of a link"), _Wire(
        _key(origin, "the origin of a link"),
        _as(int, origin_slot, "the origin slot of a link"),
        _key(target, "the target of a link"),
        _as(int, target_slot, "the target slot of a link"),
    )


def _at(entries: Sequence[dict[str, Any]], index: int) -> dict[str, Any] | None:
    return entries[index] if 0 <= index < len(entries) else None


def _inputs(raw: dict[str, Any]) -> list[dict[str, Any]]:
    return _dicts(raw.get("inputs"), "the inputs of a node")


def _title(raw: dict[str, Any]) -> str:
    title = raw.get("title")
    return title if isinstance(title, str) and title else str(raw.get("type"))


@dataclass
class _Level:
    """The top graph, or one instance of a subgraph with what its surroundings give it."""

    nodes: dict[str, dict[str, Any]]
    wires: dict[str, _Wire]
    ends: dict[int, str] = field(default_factory=dict)
    """The links to a subgraph's own outputs, by slot."""
    prefix: str = ""
    outer: _Level | None = None
    instance: dict[str, Any] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    promoted_inputs: dict[str, Any] = field(default_factory=dict)
    """Values typed into the instance, by the name of its input."""
    promoted_widgets: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Values typed into the instance, by inner node and widget."""
    children: dict[str, _Level] = field(default_factory=dict)


class _Workflow:
    def __init__(self, workflow: dict[str, Any], specs: Specs) -> None:
        definitions = _as(dict, workflow.get("definitions"), "definitions")
        self.specs = specs
        self.count = self.steps = 0
        self.subgraphs = {
            _key(raw.get("id"), "the id of a subgraph"): raw
            for raw in _dicts(definitions.get("subgraphs"), "definitions.subgraphs")
        }
        self.top = self._level(workflow, inside=())

    def _level(self, raw: dict[str, Any], *, inside: tuple[str, ...], **given: Any) -> _Level:
        nodes: dict[str, dict[str, Any]] = {}
        for node in _dicts(raw.get("nodes"), "nodes"):
            key = _key(node.get("id"), "the id of a node")
            if key in nodes:
                raise GraphError(f"the workflow is damaged: two nodes have the id {short(key)}")
            _as(str, node.get("type"), f"the type of node {key}")
            nodes[key] = node
        self.count += len(nodes)
        if self.count > MOST_NODES:
            raise GraphError(f"the workflow holds more than {MOST_NODES} nodes once its subgraphs are written out")
        links = _as(list, raw.get("links"), "links")
        self._spend(len(nodes) + len(links))
        level = _Level(nodes, dict(_wire(link) for link in links), **given)
        level.ends = {w.target_slot: link for link, w in reversed(level.wires.items()) if w.target == SUBGRAPH_OUTPUT}
        for key, node in nodes.items():
            if node["type"] in self.subgraphs and node.get("mode") not in (MUTED, BYPASSED):
                level.children[key] = self._instance(level, key, node, inside)
        return level

    def _spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise GraphError("the workflow is too large: its links take too many steps to follow")

    def _instance(self, outer: _Level, key: str, node: dict[str, Any], inside: tuple[str, ...]) -> _Level:
        kind = node["type"]
        definition = self.subgraphs[kind]
        if kind in inside:
            raise GraphError(f"the subgraph {shown(definition.get('name', kind))} contains itself")
        if len(inside) >= MOST_LEVELS:
            raise GraphError(f"the workflow nests subgraphs more than {MOST_LEVELS} deep")
        inputs = _as(list, definition.get("inputs"), "the inputs of a subgraph")
        self._spend(len(inputs) + len(_inputs(node)))
        by_input, by_widget = _promoted(node)
        return self._level(
            definition,
            inside=(*inside, kind),
            prefix=f"{outer.prefix}{key}:",
            outer=outer,
            instance=node,
            inputs=_dicts(inputs, "the inputs of a subgraph"),
            promoted_inputs=by_input,
            promoted_widgets=by_widget,
        )

    def nodes(self) -> dict[str, Node]:
        """Every node that would run, by id; nodes inside subgraphs have ids such as ``4:7``."""
        found: dict[str, Node] = {}
        waiting = [self.top]
        while waiting:
            level = waiting.pop()
            waiting.extend(level.children.values())
            for key, raw in level.nodes.items():
                if not self._is_virtual(level, key, raw):
                    node = self._node(level, key, raw)
                    found[node.id] = node
        return found

    @staticmethod
    def _is_virtual(level: _Level, key: str, raw: dict[str, Any]) -> bool:
        editor_only = raw["type"] in EDITOR_ONLY or key in level.children
        return editor_only or raw.get("mode") in (MUTED, BYPASSED)

    def _node(self, level: _Level, key: str, raw: dict[str, Any]) -> Node:
        kind = raw["type"]
        spec = self.specs.get(kind)
        given = raw.get("title")
        title = given if isinstance(given, str) and given else (spec.display_name if spec else kind)
        node = Node(level.prefix + key, kind, title)
        if spec is not None:
            node.inputs = _widget_values(raw, spec)
            node.inputs.update(
                {
                    widget: value
                    for (inner, widget), value in level.promoted_widgets.items()
                    if inner == key and widget in spec.inputs
                }
            )
        self._spend(len(_inputs(raw)))
        for entry in _inputs(raw):
            name = _as(str, entry.get("name"), f"the name of an input of node {key}")
            if entry.get("link") is None:
                continue
            match self._source(level, _key(entry["link"], f"a link of node {key}"), str(entry.get("type") or "*")):
                case Link() as link:
                    node.inputs[name] = link
                case _Constant(value):
                    node.inputs[name] = value
                case _Nothing(why, damaged):
                    (node.damaged if damaged else node.unlinked)[name] = why
        return node

    def _source(self, level: _Level, link: str, wanted: str) -> Link | _Constant | _Nothing | None:
        """Where the value of a link to an input of type ``wanted`` comes from, through what only the editor knows.

        None where the value typed into the inner widget stands.
        """
        seen: set[tuple[str, str]] = set()
        while True:
            if (level.prefix, link) in seen:
                return _Nothing(f"its link {short(link)} runs in a circle", damaged=True)
            seen.add((level.prefix, link))
            wire = level.wires.get(link)
            if wire is None:
                return _Nothing(f"its link {short(link)} is not in the workflow", damaged=True)
            step: Link | _Constant | _Nothing | tuple[_Level, str] | None
            origin = level.instance if wire.origin == SUBGRAPH_INPUT else level.nodes.get(wire.origin, {})
            self._spend(1 + len(_inputs(origin)))
            if wire.origin == SUBGRAPH_INPUT and level.outer is not None:
                step = self._outside(level, wire.origin_slot)
            else:
                step = self._behind(level, wire.origin, wire.origin_slot, wanted)
            if not isinstance(step, tuple):
                return step
            level, link = step

    @staticmethod
    def _outside(level: _Level, slot: int) -> _Constant | _Nothing | tuple[_Level, str] | None:
        """What a subgraph's own input brings from outside."""
        assert level.outer is not None
        entry = _at(level.inputs, slot)
        if entry is None:
            return _Nothing(f"its subgraph has no input {short(slot)}", damaged=True)
        name = entry.get("name")
        for outer in _inputs(level.instance):
            if outer.get("name") == name and outer.get("link") is not None:
                return level.outer, _key(outer["link"], "a link of a subgraph")
        if isinstance(name, str) and name in level.promoted_inputs:
            return _Constant(level.promoted_inputs[name])
        return None

    def _behind(
        self, level: _Level, key: str, slot: int, wanted: str
    ) -> Link | _Constant | _Nothing | tuple[_Level, str]:
        """What output ``slot`` of a node brings to an input of type ``wanted``, or the link to follow on."""
        raw = level.nodes.get(key)
        if raw is None:
            return _Nothing(f"its link comes from node {short(key)}, which is not in the workflow", damaged=True)
        source = f"'{short(_title(raw))}' (node {short(level.prefix + key)})"
        if raw.get("mode") == MUTED:
            return _Nothing(f"{source}, which it comes from, is muted")
        through: dict[str, Any] | None
        if raw.get("mode") == BYPASSED:
            through = _bypass(raw, slot, wanted)
        elif raw["type"] == REROUTE:
            through = _at(_inputs(raw), 0)
        elif raw["type"] == PRIMITIVE:
            values = _as(list, raw.get("widgets_values"), f"the values of node {key}")
            return _Constant(values[0]) if values else _Nothing(f"{source} holds no value", damaged=True)
        elif key in level.children:
            child = level.children[key]
            if slot in child.ends:
                return child, child.ends[slot]
            return _Nothing(f"output {short(slot)} of {source} is not linked inside it")
        else:
            return Link(level.prefix + key, slot)
        if through is None or through.get("link") is None:
            return _Nothing(f"{source}, which it comes from, passes nothing on")
        return level, _key(through["link"], f"a link of node {key}")


def _bypass(raw: dict[str, Any], slot: int, wanted: str) -> dict[str, Any] | None:
    """The input that a bypassed node passes on as output ``slot``, chosen as the editor does.

    It is the input beside the output where it fits the output and what waits behind it, else the first of the very type
    that is wanted, else the first that fits.
    """
    output = _at(_dicts(raw.get("outputs"), "the outputs of a node"), slot)
    if output is None:
        return None
    given = str(output.get("type") or "*")
    wanted = given if wanted == "*" else wanted
    inputs = _inputs(raw)
    fitting = [
        entry
        for entry in inputs
        if types_fit(str(entry.get("type") or "*"), given) and types_fit(str(entry.get("type") or "*"), wanted)
    ]
    beside = _at(inputs, slot)
    if beside in fitting:
        return beside
    exact = [entry for entry in fitting if entry.get("type") == wanted]
    return next(iter(exact + fitting), None)


def _promoted(instance: dict[str, Any]) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """Values typed into a subgraph node: by the name of its input, and by inner node and widget.

    Newer editors list the widgets in ``proxyWidgets``; older ones show a widget for each input that has one. Where
    the number of values fits neither, the values inside the subgraph stand.
    """
    values = instance.get("widgets_values")
    if isinstance(values, dict):
        return dict(values), {}
    values = _as(list, values, "the values of a subgraph")
    proxies = _as(dict, instance.get("properties"), "properties").get("proxyWidgets")
    targets: list[tuple[str, str]]
    if isinstance(proxies, list) and proxies:
        targets = [(str(entry[0]), str(entry[1])) for entry in proxies if isinstance(entry, list) and len(entry) >= 2]
    else:
        targets = [("-1", str(entry.get("name"))) for entry in _inputs(instance) if entry.get("widget")]
    if len(targets) != len(values):
        return {}, {}
    pairs = [(target, value) for target, value in zip(targets, values, strict=True) if value is not None]
    return (
        {widget: value for (node, widget), value in pairs if node == "-1"},
        {target: value for target, value in pairs if target[0] != "-1"},
    )


def _takes_control(spec: InputSpec) -> bool:
    return bool(spec.options.get("control_after_generate")) or (
        spec.type == "INT" and spec.name in ("seed", "noise_seed")
    )


def _takes_upload(spec: InputSpec) -> bool:
    return any(value and str(name).endswith("_upload") for name, value in spec.options.items())


def _widget_values(raw: dict[str, Any], spec: NodeSpec) -> dict[str, Any]:
    """The values of a node's widgets by input name; what is not saved gets its default, as in the editor."""
    shown_names = [entry.get("name") for entry in _inputs(raw) if entry.get("widget")]
    widgets = [entry for entry in spec.inputs.values() if entry.is_widget or entry.name in shown_names]
    values = {entry.name: _default(entry) for entry in widgets if _has_default(entry)}
    saved = raw.get("widgets_values")
    if isinstance(saved, dict):
        values.update({entry.name: saved[entry.name] for entry in widgets if saved.get(entry.name) is not None})
        return values
    waiting = list(_as(list, saved, f"the values of node {raw.get('id')}"))
    for position, entry in enumerate(widgets):
        if not waiting:
            break
        value = waiting.pop(0)
        if value is not None:
            values[entry.name] = value
        # The editor saves a slot of its own after seeds ("fixed", "randomize") and after upload buttons.
        still_to_come = len(widgets) - position - 1
        is_control = _takes_control(entry) and waiting[:1] and str(waiting[0]) in SEED_CONTROLS
        if is_control or (_takes_upload(entry) and len(waiting) > still_to_come):
            waiting.pop(0)
    return values


def _has_default(spec: InputSpec) -> bool:
    return spec.required and ("default" in spec.options or bool(spec.choices))


def _default(spec: InputSpec) -> Any:
    return spec.options["default"] if "default" in spec.options else (spec.choices or (None,))[0]


def nodes_of_workflow(workflow: dict[str, Any], specs: Specs) -> dict[str, Node]:
    """The nodes of a workflow in the editor's format that would run, by id.

    Raises:
        GraphError: the file is damaged, or a subgraph contains itself.
    """
    return _Workflow(workflow, specs).nodes()
