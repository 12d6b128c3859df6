"""The editor's format, against the API format that the editor itself would send."""

from __future__ import annotations

from typing import Any

import pytest

from comfyui_vdp.runner.graph.check import check
from comfyui_vdp.runner.graph.read import read
from comfyui_vdp.runner.graph.set import set_value
from comfyui_vdp.runner.graph.specs import server_specs
from comfyui_vdp.runner.graph.types import GraphError, Link, Node, Specs

VALUES = [3, 7, "randomize", "odd", 2.0, "n", True]
SUBGRAPH = "0ef7a1c2-0000-4000-8000-000000000001"


def ui(nodes: list[dict[str, Any]], links: list[Any], **more: Any) -> dict[str, Any]:
    return {"nodes": nodes, "links": links, "version": 0.4, **more}


def number(key: int, **more: Any) -> dict[str, Any]:
    outputs = [{"name": "NUMBER", "type": "NUMBER"}]
    return {"id": key, "type": "Number", "outputs": outputs, "widgets_values": VALUES, **more}


def add(key: int, a: int | None = None, b: int | None = None, **more: Any) -> dict[str, Any]:
    inputs = [{"name": "a", "type": "NUMBER", "link": a}, {"name": "b", "type": "NUMBER", "link": b}]
    outputs = [{"name": "sum", "type": "NUMBER"}, {"name": "text", "type": "STRING"}]
    return {"id": key, "type": "Add", "inputs": inputs, "outputs": outputs, "widgets_values": [""], **more}


def report(key: int, link: int) -> dict[str, Any]:
    inputs = [{"name": "number", "type": "NUMBER", "link": link}]
    return {"id": key, "type": "Report", "inputs": inputs, "widgets_values": ["out"]}


def reroute(key: int, link: int | None) -> dict[str, Any]:
    return {"id": key, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": link}], "outputs": [{}]}


def nodes_of(workflow: dict[str, Any], specs: Specs) -> dict[str, Node]:
    return read(workflow, specs).nodes


def test_values_by_position_skip_the_slot_after_a_seed(specs: Specs) -> None:
    node = nodes_of(ui([number(1)], []), specs)["1"]
    assert node.inputs == {"value": 3, "seed": 7, "kind": "odd", "scale": 2.0, "name": "n", "loud": True}
    without = nodes_of(ui([number(1, widgets_values=[3, 7, "odd", 2.0, "n", True])], []), specs)["1"]
    assert without.inputs == node.inputs


def test_values_by_name_and_defaults_for_what_is_not_saved(specs: Specs) -> None:
    saved = {"value": 5, "scale": None, "preview": {"hidden": True}}
    node = nodes_of(ui([number(1, widgets_values=saved)], []), specs)["1"]
    assert node.inputs == {"value": 5, "seed": 0, "kind": "plain", "scale": 1.0, "name": "n", "loud": False}
    short = nodes_of(ui([number(1, widgets_values=[9])], []), specs)["1"]
    assert short.inputs == {**node.inputs, "value": 9}


def test_the_slot_of_an_upload_button_is_skipped() -> None:
    upload = {"input": {"required": {"file": [["a.mp4"], {"video_upload": True}], "start": ["INT", {}]}}, "output": []}
    workflow = ui([{"id": 1, "type": "Load", "widgets_values": ["b.mp4", "image", 4]}], [])
    assert nodes_of(workflow, server_specs({"Load": upload}))["1"].inputs == {"file": "b.mp4", "start": 4}


def test_links_of_both_versions(specs: Specs) -> None:
    nodes = [number(1), report(2, 5)]
    as_list = ui(nodes, [[5, 1, 0, 2, 0, "NUMBER"]])
    as_object = ui(nodes, [{"id": 5, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0}], version=1)
    for workflow in (as_list, as_object):
        assert nodes_of(workflow, specs)["2"].inputs == {"number": Link("1", 0), "filename_prefix": "out"}
        assert check(read(workflow, specs), specs) == []


def test_notes_and_titles(specs: Specs) -> None:
    note = {"id": 3, "type": "MarkdownNote", "widgets_values": ["text"]}
    nodes = nodes_of(ui([number(1, title="Clip"), add(2), note, {"id": 4, "type": "Note"}], []), specs)
    assert [(node.id, node.title) for node in nodes.values()] == [("1", "Clip"), ("2", "Add")]


def test_a_chain_of_reroutes_is_followed(specs: Specs) -> None:
    links = [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 3, 0, "*"], [3, 3, 0, 4, 0, "*"]]
    nodes = nodes_of(ui([number(1), reroute(2, 1), reroute(3, 2), report(4, 3)], links), specs)
    assert nodes["4"].inputs["number"] == Link("1", 0)
    assert set(nodes) == {"1", "4"}


def test_a_circle_of_reroutes_is_a_problem(specs: Specs) -> None:
    links = [[1, 3, 0, 2, 0, "*"], [2, 2, 0, 3, 0, "*"], [3, 3, 0, 4, 0, "*"]]
    graph = read(ui([reroute(2, 1), reroute(3, 2), report(4, 3)], links), specs)
    assert any("runs in a circle" in problem for problem in check(graph, specs))


def test_a_primitive_node_gives_its_value_to_a_converted_widget(specs: Specs) -> None:
    primitive = {"id": 1, "type": "PrimitiveNode", "outputs": [{"name": "INT"}], "widgets_values": [8, "fixed"]}
    value = {"name": "value", "type": "INT", "widget": {"name": "value"}, "link": 1}
    node = nodes_of(ui([primitive, number(2, inputs=[value])], [[1, 1, 0, 2, 0, "INT"]]), specs)["2"]
    assert node.inputs["value"] == 8
    assert node.inputs["kind"] == "odd"  # the converted widget still holds its place among the values


def test_a_muted_source_leaves_the_input_empty(specs: Specs) -> None:
    workflow = ui(
        [number(1, mode=2, title="Off"), add(2, a=1), report(3, 2)], [[1, 1, 0, 2, 0, ""], [2, 2, 0, 3, 0, ""]]
    )
    graph = read(workflow, specs)
    assert "1" not in graph.nodes
    assert check(graph, specs) == ["Add (node 2): a (NUMBER) is missing; 'Off' (node 1), which it comes from, is muted"]


def test_a_bypassed_node_passes_on_what_fits(specs: Specs) -> None:
    links = [[1, 1, 0, 2, 1, "NUMBER"], [2, 2, 0, 3, 0, "NUMBER"]]
    unlinked_beside = ui([number(1), add(2, b=1, mode=4), report(3, 2)], links)
    assert "passes nothing on" in check(read(unlinked_beside, specs), specs)[0]
    linked = ui([number(1), add(2, a=1, mode=4), report(3, 2)], links)
    assert nodes_of(linked, specs)["3"].inputs["number"] == Link("1", 0)
    text = ui([number(1), add(2, a=1, mode=4), report(3, 2)], [links[0], [2, 2, 1, 3, 0, "STRING"]])
    assert "passes nothing on" in check(read(text, specs), specs)[0]


def test_a_bypassed_node_passes_on_what_a_union_takes() -> None:
    mixed = {"input": {"required": {"layers": ["LAYERS"], "background": ["IMAGE,MASK"]}}, "output": ["IMAGE", "MASK"]}
    save = {"input": {"required": {"frames": ["IMAGE,MASK"]}}, "output": [], "output_node": True}
    picture = {"input": {}, "output": ["IMAGE", "MASK", "LAYERS"]}
    specs = server_specs({"Mix": mixed, "Save": save, "Load": picture})

    def taken_from(slot: int, background: str) -> object:
        """What Save gets through a bypassed Mix whose background is linked to this output of Load."""
        sources = {"layers": 1, "background": 2}
        types = {"layers": "LAYERS", "background": background}
        inputs = [{"name": name, "type": types[name], "link": link} for name, link in sources.items()]
        outputs = [{"name": kind, "type": kind} for kind in ("IMAGE", "MASK")]
        nodes = [
            {"id": 1, "type": "Load", "outputs": [{"type": kind} for kind in ("IMAGE", "MASK", "LAYERS")]},
            {"id": 2, "type": "Mix", "mode": 4, "inputs": inputs, "outputs": outputs},
            {"id": 3, "type": "Save", "inputs": [{"name": "frames", "type": "IMAGE,MASK", "link": 3}]},
        ]
        links = [[1, 1, 2, 2, 0, "LAYERS"], [2, 1, slot, 2, 1, "IMAGE"], [3, 2, 0, 3, 0, "IMAGE"]]
        return nodes_of(ui(nodes, links), specs)["3"].inputs.get("frames")

    assert taken_from(0, "IMAGE,MASK") == Link("1", 0)
    assert taken_from(0, "IMAGE") == Link("1", 0)
    assert taken_from(0, "AUDIO") is None


def test_a_dangling_link_is_a_problem_even_where_the_input_is_optional(specs: Specs) -> None:
    workflow = ui([number(1), add(2, a=1, b=77), report(3, 2)], [[1, 1, 0, 2, 0, ""], [2, 2, 0, 3, 0, ""]])
    assert check(read(workflow, specs), specs) == ["Add (node 2): b: its link 77 is not in the workflow"]
    gone = ui([add(2, a=1), report(3, 2)], [[1, 1, 0, 2, 0, ""], [2, 2, 0, 3, 0, ""]])
    assert check(read(gone, specs), specs) == [
        "Add (node 2): a: its link comes from node 1, which is not in the workflow"
    ]


def test_a_node_of_another_pack_keeps_its_links_and_is_reported(specs: Specs) -> None:
    other = {"id": 2, "type": "KSampler", "inputs": [{"name": "x", "type": "NUMBER", "link": 1}], "widgets_values": [1]}
    graph = read(ui([number(1), other, report(3, 1)], [[1, 1, 0, 2, 0, "NUMBER"]]), specs)
    assert graph.nodes["2"].inputs == {"x": Link("1", 0)}
    (problem,) = check(graph, specs)
    assert problem.startswith("KSampler (node 2): no node 'KSampler' here") and "--server" in problem


# Subgraphs


def subgraph(nodes: list[dict[str, Any]], links: list[tuple[int, int, int, int, int]], **more: Any) -> dict[str, Any]:
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    inputs = [{"id": "i0", "name": "x", "type": "NUMBER"}, {"id": "i1", "name": "value", "type": "INT"}]
    outputs = [{"id": "o0", "name": "sum", "type": "NUMBER"}]
    objects = [dict(zip(names, link, strict=True)) for link in links]
    found = {"id": SUBGRAPH, "name": "Twice", "inputs": inputs, "outputs": outputs}
    return {**found, "nodes": nodes, "links": objects, **more}


@pytest.fixture
def twice() -> dict[str, Any]:
    """x + Number(value), inside a subgraph."""
    inner = number(6, inputs=[{"name": "value", "type": "INT", "widget": {"name": "value"}, "link": 3}])
    links = [(1, -10, 0, 7, 0), (2, 6, 0, 7, 1), (3, -10, 1, 6, 0), (4, 7, 0, -20, 0)]
    return subgraph([inner, add(7, a=1, b=2)], links)


def instance(key: int, link: int | None, **more: Any) -> dict[str, Any]:
    inputs = [
        {"name": "x", "type": "NUMBER", "link": link},
        {"name": "value", "type": "INT", "widget": {"name": "value"}, "link": None},
    ]
    return {"id": key, "type": SUBGRAPH, "inputs": inputs, "outputs": [{"name": "sum", "type": "NUMBER"}], **more}


LINKS = [[1, 1, 0, 4, 0, "NUMBER"], [2, 4, 0, 3, 0, "NUMBER"]]


def with_subgraph(definition: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    return ui([number(1), node, report(3, 2)], LINKS, definitions={"subgraphs": [definition]})


def test_a_subgraph_is_written_out(twice: dict[str, Any], specs: Specs) -> None:
    graph = read(with_subgraph(twice, instance(4, 1)), specs)
    assert set(graph.nodes) == {"1", "3", "4:6", "4:7"}
    assert graph.nodes["3"].inputs["number"] == Link("4:7", 0)
    assert graph.nodes["4:7"].inputs == {"note": "", "a": Link("1", 0), "b": Link("4:6", 0)}
    assert graph.nodes["4:6"].inputs["value"] == 3  # nothing was typed into the instance: the inner value stands
    assert check(graph, specs) == []
    set_value(graph, specs, "4:6.value=5")
    assert graph.nodes["4:6"].inputs["value"] == 5


def test_values_promoted_to_a_subgraph(twice: dict[str, Any], specs: Specs) -> None:
    older = nodes_of(with_subgraph(twice, instance(4, 1, widgets_values=[9])), specs)
    assert older["4:6"].inputs["value"] == 9
    proxies = {"proxyWidgets": [["-1", "value"], ["6", "scale"]]}
    newer = nodes_of(with_subgraph(twice, instance(4, 1, properties=proxies, widgets_values=[9, 0.5])), specs)
    assert (newer["4:6"].inputs["value"], newer["4:6"].inputs["scale"]) == (9, 0.5)
    unsaved = nodes_of(with_subgraph(twice, instance(4, 1, properties=proxies, widgets_values=[])), specs)
    assert (unsaved["4:6"].inputs["value"], unsaved["4:6"].inputs["scale"]) == (3, 2.0)


def test_two_instances_do_not_share_values(twice: dict[str, Any], specs: Specs) -> None:
    workflow = with_subgraph(twice, instance(4, 1, widgets_values=[9]))
    workflow["nodes"].append(instance(5, 1, widgets_values=[8]))
    nodes = nodes_of(workflow, specs)
    assert (nodes["4:6"].inputs["value"], nodes["5:6"].inputs["value"]) == (9, 8)


def test_a_muted_and_a_bypassed_subgraph(twice: dict[str, Any], specs: Specs) -> None:
    muted = read(with_subgraph(twice, instance(4, 1, mode=2)), specs)
    assert set(muted.nodes) == {"1", "3"}
    assert "muted" in check(muted, specs)[0]
    bypassed = nodes_of(with_subgraph(twice, instance(4, 1, mode=4)), specs)
    assert bypassed["3"].inputs["number"] == Link("1", 0)


def test_a_subgraph_inside_a_subgraph(twice: dict[str, Any], specs: Specs) -> None:
    outer = subgraph([instance(2, 1)], [(1, -10, 0, 2, 0), (2, 2, 0, -20, 0)], id="outer")
    node = {**instance(4, 1), "type": "outer"}
    graph = read(ui([number(1), node, report(3, 2)], LINKS, definitions={"subgraphs": [twice, outer]}), specs)
    assert graph.nodes["3"].inputs["number"] == Link("4:2:7", 0)
    assert graph.nodes["4:2:7"].inputs["a"] == Link("1", 0)
    assert check(graph, specs) == []


def test_a_subgraph_inside_itself_is_refused(specs: Specs) -> None:
    with pytest.raises(GraphError, match="the subgraph 'Twice' contains itself"):
        read(with_subgraph(subgraph([instance(2, 1)], []), instance(4, 1)), specs)


def test_nested_subgraphs_cannot_grow_without_bound(specs: Specs) -> None:
    levels = [subgraph([{"id": i, "type": f"level{n + 1}"} for i in range(10)], [], id=f"level{n}") for n in range(12)]
    with pytest.raises(GraphError, match="more than 20000 nodes"):
        read(ui([{"id": 1, "type": "level0"}], [], definitions={"subgraphs": levels}), specs)


@pytest.mark.parametrize(
    ("workflow", "sentence"),
    [
        (ui([{"id": 1, "type": "Add"}, {"id": 1, "type": "Add"}], []), "two nodes have the id 1"),
        (ui([{"type": "Add"}], []), "the id of a node is NoneType"),
        (ui([{"id": 1}], []), "the type of node 1 is NoneType"),
        (ui([], [[1, 2]]), "a link has 2 parts"),
        (ui([], ["x"]), "a link is str"),
        (ui([{"id": 1, "type": "Add", "inputs": [{"link": 3}]}], []), "the name of an input of node 1"),
    ],
)
def test_a_damaged_workflow_gets_a_sentence(workflow: dict[str, Any], sentence: str, specs: Specs) -> None:
    with pytest.raises(GraphError, match=sentence):
        read(workflow, specs)


# Values set in one place and got in another, and other packs' reroutes


def setter(key: int, name: str, link: int | None, kind: str = "SetNode", **more: Any) -> dict[str, Any]:
    inputs = [{"name": "NUMBER", "type": "NUMBER", "link": link}]
    outputs = [{"name": "*", "type": "*"}]
    return {"id": key, "type": kind, "inputs": inputs, "outputs": outputs, "widgets_values": [name], **more}


def getter(key: int, name: str, kind: str = "GetNode", **more: Any) -> dict[str, Any]:
    return {"id": key, "type": kind, "inputs": [], "outputs": [{"type": "NUMBER"}], "widgets_values": [name], **more}


def wired(*links: tuple[int, int, int]) -> list[Any]:
    """Links by id, origin and target, all from output 0 to input 0."""
    return [[link, origin, 0, target, 0, "NUMBER"] for link, origin, target in links]


@pytest.mark.parametrize(("sets", "gets"), [("SetNode", "GetNode"), ("easy setNode", "easy getNode")])
def test_what_is_set_is_got(specs: Specs, sets: str, gets: str) -> None:
    nodes = [number(1), setter(2, "n", 1, sets), getter(3, "n", gets), report(4, 2)]
    graph = read(ui(nodes, wired((1, 1, 2), (2, 3, 4))), specs)
    assert set(graph.nodes) == {"1", "4"}
    assert graph.nodes["4"].inputs["number"] == Link("1", 0)
    assert check(graph, specs) == []


def test_a_set_node_hands_on_what_it_sets_and_may_set_what_was_got(specs: Specs) -> None:
    nodes = [number(1), setter(2, "a", 1), getter(3, "a"), setter(4, "b", 2), getter(5, "b"), report(6, 3)]
    links = wired((1, 1, 2), (2, 3, 4), (3, 5, 6))
    assert nodes_of(ui(nodes, links), specs)["6"].inputs["number"] == Link("1", 0)
    assert nodes_of(ui([*nodes[:2], report(6, 3)], wired((1, 1, 2), (3, 2, 6))), specs)["6"].inputs["number"] == Link(
        "1", 0
    )


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([], "'GetNode' (node 3) gets 'n', which no SetNode sets; set it, or choose another there"),
        ([setter(2, "n", 1), setter(7, "n", 8)], "which node 2 and node 7 set; rename one of them"),
        ([setter(2, "n", None)], "'SetNode' (node 2), which it comes from, passes nothing on"),
        ([setter(2, "n", 1, mode=2)], "'SetNode' (node 2), which it comes from, is muted"),
        ([setter(2, "n", 9)], "runs in a circle"),
    ],
)
def test_what_cannot_be_got_is_a_problem(specs: Specs, nodes: list[Any], problem: str) -> None:
    links = wired((1, 1, 2), (2, 3, 4), (8, 5, 7), (9, 3, 2))
    graph = read(ui([number(1), number(5), *nodes, getter(3, "n"), report(4, 2)], links), specs)
    assert any(problem in said for said in check(graph, specs)), check(graph, specs)


def test_two_that_set_the_same_are_one_and_a_muted_one_is_none(specs: Specs) -> None:
    links = wired((1, 1, 2), (2, 3, 4), (5, 1, 7), (8, 5, 7))
    same = ui([number(1), setter(2, "n", 1), setter(7, "n", 5), getter(3, "n"), report(4, 2)], links)
    assert nodes_of(same, specs)["4"].inputs["number"] == Link("1", 0)
    muted = ui(
        [number(1), number(5), setter(2, "n", 1, mode=2), setter(7, "n", 8), getter(3, "n"), report(4, 2)], links
    )
    assert nodes_of(muted, specs)["4"].inputs["number"] == Link("5", 0)


def test_a_subgraph_gets_what_is_set_around_it_unless_it_sets_it_itself(specs: Specs) -> None:
    ends = [(1, 9, 0, -20, 0)]
    inner = subgraph([getter(9, "n")], ends)
    nodes = [number(1), setter(2, "n", 1), instance(4, None), report(3, 2)]
    workflow = ui(nodes, [*wired((1, 1, 2)), [2, 4, 0, 3, 0, ""]], definitions={"subgraphs": [inner]})
    assert nodes_of(workflow, specs)["3"].inputs["number"] == Link("1", 0)
    inner["nodes"] += [number(6), setter(7, "n", 5)]
    inner["links"].append({"id": 5, "origin_id": 6, "origin_slot": 0, "target_id": 7, "target_slot": 0})
    assert nodes_of(workflow, specs)["3"].inputs["number"] == Link("4:6", 0)


@pytest.mark.parametrize("kind", ["Reroute", "Reroute (rgthree)", "ReroutePrimitive|pysssss", "mxReroute"])
def test_reroutes_of_every_pack_in_chains(specs: Specs, kind: str) -> None:
    nodes = [number(1), {**reroute(2, 1), "type": kind}, {**reroute(3, 2), "type": kind}, report(4, 3)]
    graph = read(ui(nodes, wired((1, 1, 2), (2, 2, 3), (3, 3, 4))), specs)
    assert set(graph.nodes) == {"1", "4"}
    assert graph.nodes["4"].inputs["number"] == Link("1", 0)


def test_notes_labels_and_muters_of_other_packs_are_ignored(specs: Specs) -> None:
    muter = {
        "id": 8,
        "type": "Fast Groups Bypasser (rgthree)",
        "outputs": [{"name": "OPT_CONNECTION", "type": "*"}],
        "inputs": [],
    }
    label = {"id": 9, "type": "Label (rgthree)", "inputs": [], "outputs": [], "title": "Part 1"}
    note = {"id": 10, "type": "Note Plus (mtb)", "widgets_values": ["text"]}
    graph = read(ui([number(1), report(4, 1), muter, label, note], wired((1, 1, 4))), specs)
    assert set(graph.nodes) == {"1", "4"}
    assert check(graph, specs) == []


EVERYWHERE = {
    "id": 7,
    "type": "Anything Everywhere",
    "inputs": [{"name": "anything", "type": "NUMBER", "link": 1}],
    "outputs": [],
}
BROADCAST = {"downstream": 2, "downstream_slot": 1, "upstream": "1", "upstream_slot": 0, "controller": 7}


def test_links_without_lines_are_followed_where_the_file_lists_them(specs: Specs) -> None:
    extra = {"ue_links": [{**BROADCAST, "type": "NUMBER"}]}
    nodes = [number(1), EVERYWHERE, add(2, a=2), report(3, 3)]
    links = [*wired((1, 1, 7), (2, 1, 2), (3, 2, 3))]
    found = nodes_of(ui(nodes, links, extra=extra), specs)
    assert set(found) == {"1", "2", "3"}
    assert found["2"].inputs["b"] == Link("1", 0)


def test_links_without_lines_that_nothing_lists_are_refused_with_the_cure(specs: Specs) -> None:
    with pytest.raises(GraphError, match=r"'Anything Everywhere' \(node 7\) links without lines.*make real links"):
        read(ui([number(1), EVERYWHERE], wired((1, 1, 7))), specs)
    for wrong in ({"type": "IMAGE"}, {"type": "NUMBER", "downstream_slot": 9}, {"type": "NUMBER", "downstream": 99}):
        extra = {"ue_links": [{**BROADCAST, **wrong}]}
        with pytest.raises(GraphError, match="does not fit it; make real links"):
            read(ui([number(1), EVERYWHERE, add(2)], wired((1, 1, 7)), extra=extra), specs)


def test_a_subgraph_that_brings_those_it_uses(twice: dict[str, Any], specs: Specs) -> None:
    outer = subgraph([instance(2, 1)], [(1, -10, 0, 2, 0), (2, 2, 0, -20, 0)], id="outer")
    node = {**instance(4, 1), "type": "outer"}
    definitions = {"subgraphs": [{**outer, "definitions": {"subgraphs": [twice]}}]}
    workflow = ui([number(1), node, report(3, 2)], LINKS, definitions=definitions)
    assert nodes_of(workflow, specs)["3"].inputs["number"] == Link("4:2:7", 0)


# Values promoted to subgraphs, in the ways of several editors


def test_a_value_promoted_through_two_subgraphs(twice: dict[str, Any], specs: Specs) -> None:
    inner = {**instance(2, 1), "properties": {"proxyWidgets": [["6", "scale"]]}, "widgets_values": [1.5]}
    outer = subgraph([inner], [(1, -10, 0, 2, 0), (2, 2, 0, -20, 0)], id="outer")
    node = {**instance(4, 1), "type": "outer", "properties": {"proxyWidgets": [["2", "6: scale"]]}}
    definitions = {"subgraphs": [twice, outer]}
    unsaved = ui([number(1), {**node, "widgets_values": []}, report(3, 2)], LINKS, definitions=definitions)
    assert nodes_of(unsaved, specs)["4:2:6"].inputs["scale"] == 1.5
    typed = ui([number(1), {**node, "widgets_values": [0.25]}, report(3, 2)], LINKS, definitions=definitions)
    assert nodes_of(typed, specs)["4:2:6"].inputs["scale"] == 0.25


def test_previews_among_what_is_promoted_hold_no_value(twice: dict[str, Any], specs: Specs) -> None:
    proxies = {"proxyWidgets": [["6", "$$canvas-image-preview"], ["6", "scale"]]}
    node = instance(4, 1, properties=proxies, widgets_values=[0.5])
    assert nodes_of(with_subgraph(twice, node), specs)["4:6"].inputs["scale"] == 0.5


def test_a_promoted_value_whose_input_the_file_leaves_out(twice: dict[str, Any], specs: Specs) -> None:
    """Editors leave inputs with a widget and no link out of what they put into pictures."""
    node = {**instance(4, 1), "widgets_values": [9]}
    node["inputs"] = [entry for entry in node["inputs"] if not entry.get("widget")]
    assert nodes_of(with_subgraph(twice, node), specs)["4:6"].inputs["value"] == 9


def test_the_value_of_a_primitive_node_is_promoted(specs: Specs) -> None:
    primitive = {"id": 8, "type": "PrimitiveNode", "outputs": [{"name": "INT"}], "widgets_values": [8, "fixed"]}
    value = {"name": "value", "type": "INT", "widget": {"name": "value"}, "link": 1}
    inner = subgraph([primitive, number(6, inputs=[value])], [(1, 8, 0, 6, 0), (2, 6, 0, -20, 0)])
    node = instance(4, 1, properties={"proxyWidgets": [["8", "value"]]}, widgets_values=[5])
    assert nodes_of(with_subgraph(inner, node), specs)["4:6"].inputs["value"] == 5


def test_what_app_mode_keeps_changes_nothing(specs: Specs) -> None:
    extra = {"linearMode": True, "linearData": {"inputs": [[1, "value"]], "outputs": [3]}, "reroutes": [{"id": 1}]}
    workflow = ui([number(1), report(3, 1)], wired((1, 1, 3)), extra=extra)
    assert nodes_of(workflow, specs) == nodes_of({**workflow, "extra": {}}, specs)
