"""Group nodes of workflows from before subgraphs, written out from ``extra.groupNodes``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_vdp.runner.graph.check import check
from comfyui_vdp.runner.graph.read import read, to_api
from comfyui_vdp.runner.graph.specs import local_specs
from comfyui_vdp.runner.graph.types import GraphError, Link, Node, Specs

ROOT = Path(__file__).parents[2]


def number(**more: Any) -> dict[str, Any]:
    values = [3, 7, "randomize", "odd", 2.0, "n", True]
    return {"type": "Number", "outputs": [{"name": "NUMBER"}], "widgets_values": values, **more}


def add(**more: Any) -> dict[str, Any]:
    inputs = [{"name": name, "type": "NUMBER", "link": None} for name in "ab"]
    outputs = [{"name": "sum", "type": "NUMBER"}, {"name": "text", "type": "STRING"}]
    return {"type": "Add", "inputs": inputs, "outputs": outputs, "widgets_values": [""], **more}


def workflow(groups: dict[str, Any], instance: dict[str, Any], output: int = 0) -> dict[str, Any]:
    """Number 1 -> the group's input 0, the group's output -> Report 3."""
    report = {"id": 3, "type": "Report", "inputs": [{"name": "number", "link": 2}], "widgets_values": ["out"]}
    return {
        "nodes": [{"id": 1, **number()}, {"id": 2, "type": "workflow>G", **instance}, report],
        "links": [[1, 1, 0, 2, 0, "NUMBER"], [2, 2, output, 3, 0, "NUMBER"]],
        "extra": {"groupNodes": groups},
    }


def nodes_of(groups: dict[str, Any], instance: dict[str, Any], specs: Specs, output: int = 0) -> dict[str, Node]:
    graph = read(workflow(groups, instance, output), specs)
    assert check(graph, specs) == []
    return graph.nodes


SUM = {"nodes": [number(), add(), add(title="Last")], "links": [[0, 0, 1, 1, 0, "NUMBER"], [1, 0, 2, 0, 5, "NUMBER"]]}
"""a + Number, and b added to that."""
SOCKETS = [{"name": "a", "link": 1}, {"name": "Last b", "link": 1}]


def test_a_group_is_written_out(specs: Specs) -> None:
    values = [5, 8, "fixed", "plain", 1.0, "m", False, "x", "y"]
    found = nodes_of({"G": SUM}, {"inputs": SOCKETS, "outputs": [{"name": "sum"}], "widgets_values": values}, specs)
    assert set(found) == {"1", "3", "2:0", "2:1", "2:2"}
    assert found["2:0"].inputs == {"value": 5, "seed": 8, "kind": "plain", "scale": 1.0, "name": "m", "loud": False}
    assert found["2:1"].inputs == {"note": "x", "a": Link("1", 0), "b": Link("2:0", 0)}
    assert found["2:2"].inputs == {"note": "y", "a": Link("2:1", 0), "b": Link("1", 0)}
    assert found["3"].inputs["number"] == Link("2:2", 0)


def test_without_values_of_its_own_those_inside_stand(specs: Specs) -> None:
    found = nodes_of({"G": SUM}, {"inputs": SOCKETS, "outputs": [{"name": "sum"}]}, specs)
    assert found["2:0"].inputs["value"] == 3


def test_sockets_that_somebody_renamed_are_found_by_their_order(specs: Specs) -> None:
    sockets = [{"name": "first", "link": None}, {"name": "second", "link": 1}]
    graph = read(workflow({"G": SUM}, {"inputs": sockets, "outputs": [{"name": "total"}]}), specs)
    assert "a" not in graph.nodes["2:1"].inputs
    assert graph.nodes["2:2"].inputs["b"] == Link("1", 0)
    config = {"1": {"input": {"a": {"visible": False}}, "output": {"0": {"visible": True}}}}
    shown = {"inputs": [{"name": "second", "link": 1}], "outputs": [{"name": "early"}, {"name": "text"}]}
    hidden = read(workflow({"G": {**SUM, "config": config}}, shown), specs)
    assert hidden.nodes["2:2"].inputs["b"] == Link("1", 0)
    assert hidden.nodes["3"].inputs["number"] == Link("2:1", 0)


def test_what_is_linked_outside_too_is_an_output(specs: Specs) -> None:
    outputs = {"outputs": [{"name": "NUMBER"}, {"name": "sum"}]}
    group = {**SUM, "external": [[0, 0, "NUMBER"]]}
    assert nodes_of({"G": group}, {"inputs": SOCKETS, **outputs}, specs)["3"].inputs["number"] == Link("2:0", 0)


def test_a_widget_linked_to_the_group_and_one_fed_inside(specs: Specs) -> None:
    primitive = {"type": "PrimitiveNode", "outputs": [{"name": "INT"}], "widgets_values": [4, "fixed"]}
    fed = number(inputs=[{"name": "value", "type": "INT", "widget": {"name": "value"}, "link": 1}])
    group = {"nodes": [primitive, fed, add()], "links": [[0, 0, 1, 0, 0, "INT"], [1, 0, 2, 1, 0, "NUMBER"]]}
    scale = {"name": "scale", "type": "FLOAT", "widget": {"name": "scale"}, "link": 3}
    inputs = [{"name": "a", "link": 1}, scale]
    values = [6, "fixed", 8, "fixed", "plain", 1.0, "m", False, "x"]  # none for the value that is fed
    instance = {"inputs": inputs, "outputs": [{"name": "sum"}], "widgets_values": values}
    graph = workflow({"G": group}, instance)
    graph["nodes"].append({"id": 9, "type": "PrimitiveNode", "outputs": [{}], "widgets_values": [0.5, "fixed"]})
    graph["links"].append([3, 9, 0, 2, 1, "FLOAT"])
    found = read(graph, specs).nodes
    assert (found["2:1"].inputs["value"], found["2:1"].inputs["seed"], found["2:1"].inputs["scale"]) == (6, 8, 0.5)


def test_a_group_inside_a_group(specs: Specs) -> None:
    inner = {"type": "workflow/In", "inputs": [{"name": "a", "link": None}], "outputs": [{"name": "sum"}]}
    groups = {"G": {"nodes": [inner], "links": []}, "In": {"nodes": [add()], "links": []}}
    found = nodes_of(groups, {"inputs": [{"name": "a", "link": 1}], "outputs": [{"name": "sum"}]}, specs)
    assert found["3"].inputs["number"] == Link("2:0:0", 0)
    assert found["2:0:0"].inputs["a"] == Link("1", 0)


@pytest.mark.parametrize(
    ("groups", "instance", "sentence"),
    [
        ({}, {}, r"the group node 'G' \(node 2\) is not in this file"),
        ({"G": SUM}, {"widgets_values": [1, 2]}, "do not fit the nodes in it; convert it to nodes in the editor"),
        ({"G": {"nodes": [{"type": "workflow>G"}]}}, {}, "contains itself"),
        ({"G": {"nodes": [add()], "links": [[0, 0, 7, 0]]}}, {}, "leads nowhere"),
        ({"G": {"nodes": [add()], "external": [3]}}, {}, "is int, expected list"),
        ({"G": {"nodes": [{}]}}, {}, "the type of a node of a group is NoneType"),
        (
            {"G": SUM},
            {"inputs": [{"name": "no such", "widget": {"name": "no such"}, "link": 1}]},
            "has an input 'no such' that none of its nodes has",
        ),
    ],
)
def test_what_cannot_be_written_out_is_named(groups: Any, instance: Any, sentence: str, specs: Specs) -> None:
    with pytest.raises(GraphError, match=sentence):
        read(workflow(groups, instance), specs)


def test_a_muted_group_needs_no_definition(specs: Specs) -> None:
    assert set(read(workflow({}, {"mode": 2}), specs).nodes) == {"1", "3"}


def test_relighting_with_flow_and_optimize_in_a_group() -> None:
    specs = local_specs()
    plain = read(json.loads((ROOT / "workflows" / "relight.json").read_text()), specs)
    grouped = read(json.loads((ROOT / "tests" / "files" / "graph_groupnode.json").read_text()), specs)
    assert check(grouped, specs) == []
    ids = {"300:0": "3", "300:1": "4"}

    def settings(node: Node) -> tuple[str, str, dict[str, Any]]:
        inputs = {
            name: Link(ids.get(value.node, value.node), value.slot) if isinstance(value, Link) else value
            for name, value in node.inputs.items()
            # the file was saved before all but the first were there
            if name
            not in ("path", "timing", "sound_track", "cause", "keep", "fps", "with_shadow", "neutral", "bitrate")
        }
        return node.class_type, node.title, inputs

    assert {ids.get(key, key): settings(node) for key, node in grouped.nodes.items()} == {
        key: settings(node) for key, node in plain.nodes.items()
    }


@pytest.mark.parametrize("name", ["group", "subgraph"])
@pytest.mark.parametrize("lists_all", [True, False])
def test_what_the_editor_made_is_what_the_editor_queues(name: str, lists_all: bool) -> None:
    """Made and queued by the editor of ComfyUI 0.3.64: relight.json, its Flow and Optimize in one; 77 steps."""
    made = json.loads((ROOT / "tests" / "files" / "from_the_editor.json").read_text())[name]
    saved = made["saved"]
    if not lists_all:  # as in what is saved into pictures
        for node in saved["nodes"]:
            node["inputs"] = [each for each in node["inputs"] if not each.get("widget") or each.get("link")]
    queued = to_api(read(saved, local_specs()))
    assert {key: node["inputs"] for key, node in queued.items()} == made["queued"]
