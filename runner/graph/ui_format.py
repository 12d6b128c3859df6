"""The format the graph editor saves, turned into the nodes that would run.

Versions 0.4 (links are lists) and 1 (links are objects) are read. What only the editor knows is resolved the way the
editor does it: muted and bypassed nodes, reroutes, values set in one place and got in another, primitive nodes, group
nodes, subgraphs and the values promoted to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .group_nodes import group_name, subgraph_of_group
from .raw import as_kind, at, dicts, inputs_of, key_of, outputs_of, shown_widgets, title_of
from .types import GraphError, Link, Node, Specs, short, shown, types_fit
from .widgets import widget_values

__all__ = ["nodes_of_workflow"]

MUTED, BYPASSED = 2, 4
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = "-10", "-20"
REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"
SETS = frozenset({"SetNode", "easy setNode"})  # KJNodes and others, Easy Use
GETS = {"GetNode": "SetNode", "easy getNode": "easy setNode"}
# What only mutes others, whose modes the file holds, or only says something.
IDLE = frozenset(
    {"Note", "MarkdownNote"}
    | {f"{name} (rgthree)" for name in ("Bookmark", "Fast Actions Button", "Fast Bypasser", "Fast Groups Bypasser")}
    | {f"{name} (rgthree)" for name in ("Fast Groups Muter", "Fast Muter", "Label", "Mute / Bypass Relay")}
    | {f"{name} (rgthree)" for name in ("Mute / Bypass Repeater", "Node Collector", "Random Unmuter")}
)
PREFIX = re.compile(r"^(\d+: *)+")  # of a widget's name, as some editors wrote it
BROADCASTS = re.compile(r"(Anything|Prompts|Seed) Everywhere")  # Use Everywhere
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


def _wire(raw: Any) -> tuple[str, _Wire]:
    if isinstance(raw, dict):
        parts = [raw.get(name) for name in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
    else:
        parts = as_kind(list, raw, "a link")[:5]
    if len(parts) < 5:
        raise GraphError(f"the workflow is damaged: a link has {len(parts)} parts, expected at least 5")
    link, origin, origin_slot, target, target_slot = parts
    return key_of(link, "the id of a link"), _Wire(
        key_of(origin, "the origin of a link"),
        as_kind(int, origin_slot, "the origin slot of a link"),
        key_of(target, "the target of a link"),
        as_kind(int, target_slot, "the target slot of a link"),
    )


def _broadcast(raw: dict[str, Any], nodes: dict[str, dict[str, Any]], name: str) -> _Wire:
    """A link without a line, as Use Everywhere lists them, made one that its target names."""
    parts = [raw.get(part) for part in ("upstream", "upstream_slot", "downstream", "downstream_slot")]
    wire = _wire([name, *parts])[1]
    target = nodes.get(wire.target, {})
    entry = at(inputs_of(target), wire.target_slot)
    if entry is None or not types_fit(str(raw.get("type")), str(entry.get("type") or "*")):
        raise GraphError(
            f"the workflow lists a link without a line to input {short(wire.target_slot)} of "
            f"'{short(title_of(target))}' (node {short(wire.target)}), which does not fit it; make real links of them "
            "in the editor"
        )
    if entry.get("link") is None and wire.target in nodes:
        inputs = list(inputs_of(target))
        inputs[wire.target_slot] = {**entry, "link": name}
        nodes[wire.target] = {**target, "inputs": inputs}
    return wire


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
    sets: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """The nodes that set a value to be got elsewhere, by their type and the value's name."""
    linked: set[str] = field(default_factory=set)
    """The nodes at an end of any link."""
    broadcasting: set[str] = field(default_factory=set)
    """The nodes whose links without lines the file lists."""


class _Workflow:
    def __init__(self, workflow: dict[str, Any], specs: Specs) -> None:
        self.specs = specs
        self.count = self.steps = 0
        self.subgraphs: dict[str, dict[str, Any]] = {}
        waiting = [workflow]
        while waiting:  # a subgraph may bring those that it uses
            definitions = as_kind(dict, waiting.pop().get("definitions"), "definitions")
            found = dicts(definitions.get("subgraphs"), "definitions.subgraphs")
            waiting.extend(found)
            self.subgraphs |= {key_of(raw.get("id"), "the id of a subgraph"): raw for raw in found}
        extra = as_kind(dict, workflow.get("extra"), "extra")
        self.groups = as_kind(dict, extra.get("groupNodes"), "extra.groupNodes")
        self.top = self._level(workflow, inside=())

    def _level(self, raw: dict[str, Any], *, inside: tuple[str, ...], **given: Any) -> _Level:
        nodes: dict[str, dict[str, Any]] = {}
        for node in dicts(raw.get("nodes"), "nodes"):
            key = key_of(node.get("id"), "the id of a node")
            if key in nodes:
                raise GraphError(f"the workflow is damaged: two nodes have the id {short(key)}")
            as_kind(str, node.get("type"), f"the type of node {key}")
            nodes[key] = node
        self.count += len(nodes)
        if self.count > MOST_NODES:
            raise GraphError(f"the workflow holds more than {MOST_NODES} nodes once its subgraphs are written out")
        links = as_kind(list, raw.get("links"), "links")
        self._spend(len(nodes) + len(links))
        wires = dict(_wire(link) for link in links)
        extra = as_kind(dict, raw.get("extra"), "extra")
        broadcasts = dicts(extra.get("ue_links"), "extra.ue_links")
        for number, link in enumerate(broadcasts):
            name, target = f"broadcast {number}", nodes.get(str(link.get("downstream")), {})
            self._spend(1 + len(inputs_of(target)))
            wires[name] = _broadcast(link, nodes, name)
        level = _Level(nodes, wires, **given)
        level.broadcasting = {str(link.get("controller")) for link in broadcasts}
        level.ends = {w.target_slot: link for link, w in reversed(level.wires.items()) if w.target == SUBGRAPH_OUTPUT}
        level.linked = {end for wire in level.wires.values() for end in (wire.origin, wire.target)}
        for key, node in nodes.items():
            if node["type"] in SETS:
                level.sets.setdefault((node["type"], _variable(node)), []).append(key)
            is_instance = node["type"] in self.subgraphs or self._is_group(node["type"])
            if is_instance and node.get("mode") not in (MUTED, BYPASSED):
                level.children[key] = self._instance(level, key, node, inside)
        return level

    def _is_group(self, kind: str) -> bool:
        return group_name(kind) is not None and kind not in self.specs

    def _spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise GraphError("the workflow is too large: its links take too many steps to follow")

    def _instance(self, outer: _Level, key: str, node: dict[str, Any], inside: tuple[str, ...]) -> _Level:
        kind = node["type"]
        definition = self.subgraphs.get(kind) or self._group(node)
        if kind in inside:
            raise GraphError(f"the subgraph {shown(definition.get('name', kind))} contains itself")
        if len(inside) >= MOST_LEVELS:
            raise GraphError(f"the workflow nests subgraphs more than {MOST_LEVELS} deep")
        inputs = as_kind(list, definition.get("inputs"), "the inputs of a subgraph")
        self._spend(len(inputs) + len(inputs_of(node)))
        given = {widget: value for (inner, widget), value in outer.promoted_widgets.items() if inner == key}
        self._spend(len(outer.promoted_widgets))
        by_input, by_widget = _promoted(node, definition, given) if kind in self.subgraphs else ({}, {})
        return self._level(
            definition,
            inside=(*inside, kind),
            prefix=f"{outer.prefix}{key}:",
            outer=outer,
            instance=node,
            inputs=dicts(inputs, "the inputs of a subgraph"),
            promoted_inputs=by_input,
            promoted_widgets=by_widget,
        )

    def _group(self, node: dict[str, Any]) -> dict[str, Any]:
        """What the group node ``node`` stands for."""
        name = group_name(node["type"])
        if name not in self.groups:
            raise GraphError(
                f"the group node {shown(name)} (node {short(node['id'])}) is not in this file; open the workflow where "
                "the group is known, and convert it to nodes"
            )
        group = as_kind(dict, self.groups[name], "a group node")
        inner = dicts(group.get("nodes"), "the nodes of a group")
        sockets = sum(len(inputs_of(each)) + len(outputs_of(each)) for each in inner)
        self._spend(len(inner) + (1 + sockets) * (1 + len(inputs_of(node)) + len(outputs_of(node))))
        return subgraph_of_group(node["type"], group, node, self.specs)

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

    def _is_virtual(self, level: _Level, key: str, raw: dict[str, Any]) -> bool:
        """Whether a node does not run: it is the editor's, or nobody wants it."""
        kind = raw["type"]
        if raw.get("mode") in (MUTED, BYPASSED) or key in level.children or self._is_reroute(raw):
            return True
        if kind == PRIMITIVE or kind in SETS or kind in GETS or kind in IDLE:
            return True
        if BROADCASTS.match(kind):
            if key in level.linked and key not in level.broadcasting:
                raise GraphError(
                    f"'{short(title_of(raw))}' (node {short(level.prefix + key)}) links without lines, which this file "
                    "does not list; make real links of them in the editor, or export the workflow in API format"
                )
            return not kind.startswith("Seed")
        # What nothing can be linked to is a note, a label or a button.
        return kind not in self.specs and not inputs_of(raw) and not outputs_of(raw) and key not in level.linked

    def _is_reroute(self, raw: dict[str, Any]) -> bool:
        kind = raw["type"]
        unknown = kind not in self.specs and "reroute" in kind.lower()  # every pack has one of its own
        return kind == REROUTE or (unknown and len(inputs_of(raw)) == len(outputs_of(raw)))

    def _node(self, level: _Level, key: str, raw: dict[str, Any]) -> Node:
        kind = raw["type"]
        spec = self.specs.get(kind)
        given = raw.get("title")
        title = given if isinstance(given, str) and given else (spec.display_name if spec else kind)
        node = Node(level.prefix + key, kind, title)
        self._spend(len(inputs_of(raw)))
        if spec is not None:
            saved = raw.get("widgets_values")
            saved = saved if isinstance(saved, dict) else as_kind(list, saved, f"the values of node {key}")
            node.inputs = widget_values(saved, spec, shown_widgets(raw))
            node.inputs.update(
                {
                    widget: value
                    for (inner, widget), value in level.promoted_widgets.items()
                    if inner == key and widget in spec.every_input
                }
            )
        for entry in inputs_of(raw):
            name = as_kind(str, entry.get("name"), f"the name of an input of node {key}")
            if entry.get("link") is None:
                continue
            match self._source(level, key_of(entry["link"], f"a link of node {key}"), str(entry.get("type") or "*")):
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
            self._spend(1 + len(inputs_of(origin)))
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
        entry = at(level.inputs, slot)
        if entry is None:
            return _Nothing(f"its subgraph has no input {short(slot)}", damaged=True)
        name = entry.get("name")
        for outer in inputs_of(level.instance):
            if outer.get("name") == name and outer.get("link") is not None:
                return level.outer, key_of(outer["link"], "a link of a subgraph")
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
        source = f"'{short(title_of(raw))}' (node {short(level.prefix + key)})"
        if raw.get("mode") == MUTED:
            return _Nothing(f"{source}, which it comes from, is muted")
        through: dict[str, Any] | None
        if raw.get("mode") == BYPASSED:
            through = _bypass(raw, slot, wanted)
        elif raw["type"] in SETS or self._is_reroute(raw):
            through = at(inputs_of(raw), slot)
        elif raw["type"] in GETS:
            return self._set_for(level, raw, source)
        elif raw["type"] == PRIMITIVE:
            values = as_kind(list, raw.get("widgets_values"), f"the values of node {key}")
            promoted = [value for (inner, _), value in level.promoted_widgets.items() if inner == key]
            found = [*promoted[:1], *values[:1]]
            return _Constant(found[0]) if found else _Nothing(f"{source} holds no value", damaged=True)
        elif key in level.children:
            child = level.children[key]
            if slot in child.ends:
                return child, child.ends[slot]
            return _Nothing(f"output {short(slot)} of {source} is not linked inside it")
        else:
            return Link(level.prefix + key, slot)
        if through is None or through.get("link") is None:
            return _Nothing(f"{source}, which it comes from, passes nothing on")
        return level, key_of(through["link"], f"a link of node {key}")

    def _set_for(self, level: _Level, raw: dict[str, Any], source: str) -> _Nothing | tuple[_Level, str]:
        """The link to what a node gets by name: set beside it, else around the subgraph that it is in."""
        name, kind = _variable(raw), GETS[raw["type"]]
        place: _Level | None = level
        while place is not None and not place.sets.get((kind, name)):
            self._spend(1)
            place = place.outer
        if place is None:
            return _Nothing(
                f"{source} gets {shown(name)}, which no {kind} sets; set it, or choose another there", damaged=True
            )
        keys = place.sets[kind, name]
        self._spend(len(keys))
        awake = [key for key in keys if place.nodes[key].get("mode") != MUTED] or keys[:1]
        links = {key: (at(inputs_of(place.nodes[key]), 0) or {}).get("link") for key in awake}
        wires = {str(link): place.wires.get(str(link)) for link in links.values()}
        if len({(wire and wire.origin, wire and wire.origin_slot) for wire in wires.values()}) > 1:
            nodes = " and ".join(f"node {short(place.prefix + key)}" for key in awake[:2])
            return _Nothing(f"{source} gets {shown(name)}, which {nodes} set; rename one of them", damaged=True)
        setter = place.nodes[awake[0]]
        said = f"'{short(title_of(setter))}' (node {short(place.prefix + awake[0])}), which it comes from,"
        if setter.get("mode") == MUTED:
            return _Nothing(f"{said} is muted")
        if links[awake[0]] is None:
            return _Nothing(f"{said} passes nothing on")
        return place, key_of(links[awake[0]], f"a link of node {awake[0]}")


def _variable(raw: dict[str, Any]) -> str:
    """The name under which a node sets a value or gets it."""
    values = raw.get("widgets_values")
    return str(values[0]) if isinstance(values, list) and values else ""


def _bypass(raw: dict[str, Any], slot: int, wanted: str) -> dict[str, Any] | None:
    """The input that a bypassed node passes on as output ``slot``, chosen as the editor does.

    It is the input beside the output where it fits the output and what waits behind it, else the first of the very type
    that is wanted, else the first that fits.
    """
    output = at(outputs_of(raw), slot)
    if output is None:
        return None
    given = str(output.get("type") or "*")
    wanted = given if wanted == "*" else wanted
    inputs = inputs_of(raw)
    fitting = [
        entry
        for entry in inputs
        if types_fit(str(entry.get("type") or "*"), given) and types_fit(str(entry.get("type") or "*"), wanted)
    ]
    beside = at(inputs, slot)
    if beside in fitting:
        return beside
    exact = [entry for entry in fitting if entry.get("type") == wanted]
    return next(iter(exact + fitting), None)


def _promoted(
    instance: dict[str, Any], definition: dict[str, Any], given: dict[str, Any]
) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """Values typed into a subgraph node: by the name of its input, and by inner node and widget.

    Some editors list the widgets in ``proxyWidgets``; those before and after show a widget for each input that has one,
    which not all files list. Where the number of values fits none of these, the values inside the subgraph stand.

    Args:
        instance: the subgraph node.
        definition: its subgraph.
        given: what was typed into a subgraph node around it, by the name of its widget here.
    """
    proxies = as_kind(dict, instance.get("properties"), "properties").get("proxyWidgets")
    entries = [entry[:2] for entry in proxies if isinstance(entry, list)] if isinstance(proxies, list) else []
    listed = [(str(entry[0]), PREFIX.sub("", str(entry[1]))) for entry in entries if len(entry) == 2]
    values = instance.get("widgets_values")
    if isinstance(values, dict):
        pairs = [(("-1", name), value) for name, value in values.items()]
    else:
        values = as_kind(list, values, "the values of a subgraph")
        pairs = list(zip(_targets(instance, definition, listed, len(values)), values, strict=False))
    for widget, value in given.items():
        pairs.append((next((target for target in listed if target[1] == widget), ("-1", widget)), value))
    pairs = [(target, value) for target, value in pairs if value is not None]
    return (
        {widget: value for (node, widget), value in pairs if node == "-1"},
        {target: value for target, value in pairs if target[0] != "-1"},
    )


def _targets(
    instance: dict[str, Any], definition: dict[str, Any], listed: list[tuple[str, str]], count: int
) -> list[tuple[str, str]]:
    """What ``count`` values of a subgraph node belong to, as inner node and widget, or ``-1`` and an input's name."""
    values_only = [target for target in listed if not target[1].startswith("$$")]  # the others are previews
    for found in (listed, values_only, [("-1", name) for name in shown_widgets(instance)]):
        if len(found) == count:
            return found
    nodes = {str(node.get("id")): node for node in dicts(definition.get("nodes"), "nodes")}
    wires = [_wire(link)[1] for link in as_kind(list, definition.get("links"), "links")]
    inner = {w.origin_slot: (nodes.get(w.target), w.target_slot) for w in wires if w.origin == SUBGRAPH_INPUT}
    inputs = dicts(definition.get("inputs"), "the inputs of a subgraph")
    fed = [
        ("-1", str(entry.get("name")))
        for slot, entry in enumerate(inputs)
        if (end := inner.get(slot)) and end[0] is not None and (at(inputs_of(end[0]), end[1]) or {}).get("widget")
    ]
    return fed if len(fed) == count else []


def nodes_of_workflow(workflow: dict[str, Any], specs: Specs) -> dict[str, Node]:
    """The nodes of a workflow in the editor's format that would run, by id.

    Raises:
        GraphError: the file is damaged, or a subgraph contains itself.
    """
    return _Workflow(workflow, specs).nodes()
