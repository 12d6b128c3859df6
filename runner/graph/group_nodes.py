"""Group nodes, which came before subgraphs: several nodes shown as one, kept in ``extra.groupNodes``.

Each is turned into a subgraph of its own for every node that shows it, so that only one of the two has to be written
out. An input of the group is an input that no link inside the group feeds, an output one that is linked outside or not
at all, both in the order of the nodes. The group's widgets are those of its nodes, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .check import constant_problem
from .raw import as_kind, at, dicts, inputs_of, outputs_of, shown_widgets, title_of
from .types import GraphError, InputSpec, Specs, shown
from .widgets import Place, places

__all__ = ["group_name", "subgraph_of_group"]

SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = -10, -20


def group_name(kind: str) -> str | None:
    """The name of the group that a node of this type shows, None for any other type."""
    return kind[len("workflow>") :] if kind.startswith(("workflow>", "workflow/")) else None


@dataclass(frozen=True)
class _Socket:
    """An input or an output of a node inside a group."""

    node: int
    slot: int
    names: frozenset[str]
    """What the group may call it: its own name, and that after its node's where another came first."""
    open: bool = True
    """Whether the editor shows it on the group."""


def _names(group: dict[str, Any], index: int, family: str, slot: int, entry: dict[str, Any]) -> tuple[set[str], Any]:
    """What a socket may be called, and whether somebody chose to show it; None where nobody chose."""
    config = as_kind(dict, as_kind(dict, group.get("config"), "the settings of a group").get(str(index)), "a setting")
    name = str(entry.get("name"))
    chosen = as_kind(dict, config.get(family), "a setting").get(name if family == "input" else str(slot))
    chosen = chosen if isinstance(chosen, dict) else {}
    found = {str(label) for label in (chosen.get("name"), entry.get("label"), name) if label}
    return found, chosen.get("visible")


def _sockets(group: dict[str, Any], nodes: list[dict[str, Any]], family: str) -> Iterator[_Socket]:
    links = _links(group)
    fed = {(target, slot) for _, _, target, slot in links}
    feeding = {(origin, slot) for origin, slot, _, _ in links}
    for entry in as_kind(list, group.get("external"), "the outer links of a group"):
        feeding.discard(tuple(as_kind(int, part, "a part of an outer link") for part in as_kind(list, entry, "it")[:2]))
    for index, node in enumerate(nodes):
        for slot, entry in enumerate(inputs_of(node) if family == "input" else outputs_of(node)):
            names, visible = _names(group, index, family, slot, entry)
            titles = {title_of(node), str(node.get("type"))}
            longer = {f"{title} {name}" for title in titles for name in names}
            if family == "output":
                is_open = (index, slot) not in feeding if visible is None else bool(visible)
            else:
                is_open = (index, slot) not in fed and visible is not False
            yield _Socket(index, slot, frozenset(names | longer), is_open)


def _links(group: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    """The links inside a group, as origin, its slot, target, its slot; nodes by their place in the group."""
    found = []
    for link in as_kind(list, group.get("links"), "the links of a group"):
        parts = as_kind(list, link, "a link of a group")[:4]
        if len(parts) == 4 and all(type(part) is int for part in parts):  # what comes from outside has no origin
            found.append((parts[0], parts[1], parts[2], parts[3]))
    return found


def _matched(listed: list[dict[str, Any]], sockets: list[_Socket], *, by_order: bool = True) -> list[_Socket | None]:
    """The socket inside for each of the group's own: by name, and what no name tells in the order of the nodes."""
    found: list[_Socket | None] = [None] * len(listed)
    waiting = sorted(sockets, key=lambda socket: not socket.open)
    for by_name in (True, False) if by_order else (True,):
        for place, entry in enumerate(listed):
            fitting = (s for s in waiting if (str(entry.get("name")) in s.names if by_name else s.open))
            if found[place] is None and (taken := next(fitting, None)) is not None:
                found[place] = taken
                waiting.remove(taken)
    return found


@dataclass(frozen=True)
class _Widget:
    """A widget of a node inside a group."""

    node: int
    place: Place
    slot: int | None
    """Which of its node's inputs it is; None where the file lists it among none."""
    entry: InputSpec | None
    names: frozenset[str]
    is_shown: bool
    """Whether the group has it too: no link inside feeds it."""

    def ill(self, values: list[Any]) -> bool:
        """Whether these, the first its own, do not look like what it holds."""
        wrong = self.entry is not None and constant_problem(self.entry, values[0]) is not None
        return wrong or any(not isinstance(value, str) for value in values[1:])


def _widgets(group: dict[str, Any], nodes: list[dict[str, Any]], specs: Specs) -> Iterator[_Widget]:
    fed = {(target, slot) for _, _, target, slot in _links(group)}
    sockets = {(socket.node, socket.slot): socket.names for socket in _sockets(group, nodes, "input")}
    for index, node in enumerate(nodes):
        saved, spec = node.get("widgets_values"), specs.get(node["type"])
        if not isinstance(saved, list):
            continue
        found = [Place("", 0, len(saved))] if spec is None else places(saved, spec, shown_widgets(node))
        slots = {str(entry.get("name")): slot for slot, entry in enumerate(node["inputs"]) if entry.get("widget")}
        for place in found:
            slot = slots.get(place.name)
            names = sockets.get((index, slot), frozenset([place.name])) if slot is not None else frozenset([place.name])
            entry = None if spec is None else spec.every_input.get(place.name)
            yield _Widget(index, place, slot, entry, names, (index, slot) not in fed)


def _give_values(
    kind: str, group: dict[str, Any], nodes: list[dict[str, Any]], instance: dict[str, Any], specs: Specs
) -> None:
    """Deal the values typed into the group out to its nodes.

    They stand in the order of the widgets that the group lists. Where it lists none: first those of the nodes that the
    file lists among no inputs, then the others in the order of their places, by their digits (10 before 2), as the
    editor sorts them; or simply one after the other. It is the way in which they look most like what they are for.
    """
    values = instance.get("widgets_values")
    if not values:
        return
    every = list(_widgets(group, nodes, specs))
    shown_ones = [widget for widget in every if widget.is_shown]
    by_name: list[_Widget] = []
    for name in shown_widgets(instance):
        by_name += [w for w in shown_ones if name in w.names and w not in by_name][:1]
    sorted_ones = sorted(shown_ones, key=lambda w: (w.slot is not None, w.node, str(w.slot or 0)))
    ways = []
    for way in (by_name, sorted_ones, shown_ones, every):
        lengths = [widget.place.stop - widget.place.start for widget in way]
        if isinstance(values, list) and sum(lengths) == len(values):
            starts = accumulate(lengths, initial=0)
            ways.append([(w, values[at : at + n]) for w, at, n in zip(way, starts, lengths, strict=False)])
    if not ways:
        raise GraphError(
            f"the values of the group node {shown(kind)} do not fit the nodes in it; convert it to nodes in the editor"
        )
    for widget, given in min(ways, key=lambda way: sum(widget.ill(given) for widget, given in way)):
        node = nodes[widget.node]
        node["widgets_values"] = list(node["widgets_values"])
        node["widgets_values"][widget.place.start : widget.place.stop] = given


def _list_widgets(nodes: list[dict[str, Any]], specs: Specs) -> None:
    """List every widget of the nodes among their inputs, so that what is linked to the group's own has where to go."""
    for node in nodes:
        spec, there = specs.get(node["type"]), shown_widgets(node)
        for entry in spec.inputs.values() if spec is not None else ():
            if entry.is_widget and entry.name not in there:
                widget = {"name": entry.name, "type": entry.type, "widget": {"name": entry.name}, "link": None}
                node["inputs"].append(widget)


def subgraph_of_group(kind: str, group: dict[str, Any], instance: dict[str, Any], specs: Specs) -> dict[str, Any]:
    """The subgraph that a group is where ``instance`` shows it, with the values typed into that.

    Raises:
        GraphError: the group is damaged, or the values do not fit its nodes.
    """
    nodes = [
        {**node, "id": index, "inputs": [{**entry, "link": None} for entry in inputs_of(node)]}
        for index, node in enumerate(dicts(group.get("nodes"), "the nodes of a group"))
    ]
    for node in nodes:
        as_kind(str, node.get("type"), "the type of a node of a group")
    _give_values(kind, group, nodes, instance, specs)
    _list_widgets(nodes, specs)
    links: list[dict[str, Any]] = []

    def link(origin: int, origin_slot: int, target: int, target_slot: int) -> int:
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        links.append(dict(zip(names, (len(links), origin, origin_slot, target, target_slot), strict=True)))
        return len(links) - 1

    for origin, origin_slot, target, target_slot in _links(group):
        entry = at(inputs_of(nodes[target]), target_slot) if 0 <= target < len(nodes) else None
        if entry is None or not 0 <= origin < len(nodes):
            raise GraphError(f"the workflow is damaged: a link of the group node {shown(kind)} leads nowhere")
        entry["link"] = link(origin, origin_slot, target, target_slot)
    given = inputs_of(instance)
    sockets = [socket for socket in _sockets(group, nodes, "input") if socket.open]
    for widget in (False, True):
        of_kind = [s for s in sockets if bool(nodes[s.node]["inputs"][s.slot].get("widget")) is widget]
        slots = [slot for slot, entry in enumerate(given) if bool(entry.get("widget")) is widget]
        matched = _matched([given[slot] for slot in slots], of_kind, by_order=not widget)
        for slot, socket in zip(slots, matched, strict=True):
            if given[slot].get("link") is None:
                continue
            if socket is None:
                name = shown(given[slot].get("name"))
                raise GraphError(
                    f"the group node {shown(kind)} has an input {name} that none of its nodes has; convert it to nodes "
                    "in the editor"
                )
            entry = nodes[socket.node]["inputs"][socket.slot]
            entry["link"] = link(SUBGRAPH_INPUT, slot, socket.node, socket.slot)
    for slot, socket in enumerate(_matched(outputs_of(instance), list(_sockets(group, nodes, "output")))):
        if socket is not None:
            link(socket.node, socket.slot, SUBGRAPH_OUTPUT, slot)
    return {"name": group_name(kind), "nodes": nodes, "links": links, "inputs": given}
