"""Reading API format, settings, and every complaint of ``check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfyui_vdp.runner.graph.check import check, check_files, constant, needed_nodes
from comfyui_vdp.runner.graph.read import load, read, to_api
from comfyui_vdp.runner.graph.set import set_seeds, set_value
from comfyui_vdp.runner.graph.specs import local_specs
from comfyui_vdp.runner.graph.types import GraphError, Link, Specs


def problems(data: Any, specs: Specs) -> list[str]:
    return check(read(data, specs), specs)


def test_a_sound_graph_has_no_problems(api_graph: Any, specs: Specs) -> None:
    assert problems(api_graph, specs) == []


def test_api_format_survives_reading_and_writing(api_graph: Any, specs: Specs) -> None:
    written = to_api(read(api_graph, specs))
    assert written["1"] == api_graph["1"]
    assert written["2"]["inputs"] == api_graph["2"]["inputs"]
    assert read({"prompt": api_graph}, specs).nodes == read(api_graph, specs).nodes


def test_a_list_as_value_is_not_taken_for_a_link(specs: Specs) -> None:
    graph = read({"1": {"class_type": "Add", "inputs": {"a": {"__value__": ["1", 0]}}}}, specs)
    assert graph.nodes["1"].inputs["a"] == ["1", 0]
    assert to_api(graph)["1"]["inputs"]["a"] == {"__value__": ["1", 0]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda g: g["1"].update(class_type="KSampler"), "Clip (KSampler): no node 'KSampler' here"),
        (lambda g: g["1"].update(class_type="KSampler"), "--server"),
        (lambda g: g["2"]["inputs"].pop("a"), "Add (node 2): a (NUMBER) is missing"),
        (lambda g: g["1"]["inputs"].pop("value"), "Clip (Number): value (INT) is missing"),
        (lambda g: g["3"]["inputs"].update(number=["2", 1]), "takes NUMBER, but is linked to STRING from Add (node 2)"),
        (lambda g: g["3"]["inputs"].update(number=["2", 7]), "linked to output 7 of Add (node 2), which has 2 outputs"),
        (lambda g: g["3"]["inputs"].update(number=["9", 0]), "number is linked to node 9, which is not in the graph"),
        (lambda g: g["3"]["inputs"].update(number=[1, 2, 3]), "no link of the form [node, output]: [1, 2, 3]"),
        (lambda g: g["3"]["inputs"].update(number=4), "number takes NUMBER from another node, got the value 4"),
        (lambda g: g["2"]["inputs"].update(a=["2", 0]), "the links run in a circle: Add (node 2) <- Add (node 2)"),
        (lambda g: g["1"]["inputs"].update(value=11), "value must be a whole number from 0 to 10, got 11"),
        (lambda g: g["1"]["inputs"].update(value="x"), "value must be a whole number from 0 to 10, got 'x'"),
        (lambda g: g["1"]["inputs"].update(scale=float("nan")), "scale must be a number from 0.0 to 4.0, got nan"),
        (lambda g: g["1"]["inputs"].update(kind="even"), "kind must be one of plain, odd, got 'even'"),
        (lambda g: g["1"]["inputs"].update(valeu=1), "valeu: the node has no such input; its inputs are value, seed"),
        (lambda g: g.pop("3"), "no node of the graph leaves an output"),
        (lambda g: g.clear(), "the graph holds no nodes"),
    ],
)
def test_each_fault_gets_one_sentence(api_graph: Any, specs: Specs, change: Any, sentence: str) -> None:
    change(api_graph)
    found = problems(api_graph, specs)
    assert len(found) == 1, found
    assert sentence in found[0]
    assert "\n" not in found[0]


def test_a_circle_over_several_nodes_is_named(api_graph: Any, specs: Specs) -> None:
    api_graph["4"] = {"class_type": "Add", "inputs": {"a": ["2", 0]}}
    api_graph["2"]["inputs"]["b"] = ["4", 0]
    (problem,) = problems(api_graph, specs)
    assert "Add (node 2)" in problem and "Add (node 4)" in problem


def test_what_leads_to_no_output_may_be_unfinished(api_graph: Any, specs: Specs) -> None:
    api_graph["8"] = {"class_type": "Add", "inputs": {}}
    assert problems(api_graph, specs) == []
    assert needed_nodes(read(api_graph, specs), specs) == ["1", "2", "3"]
    del api_graph["3"]
    assert any("Add (node 8): a (NUMBER) is missing" in problem for problem in problems(api_graph, specs))


def test_a_long_chain_needs_no_deep_stack(specs: Specs, api_graph: Any) -> None:
    chain = {str(i): {"class_type": "Add", "inputs": {"a": [str(i - 1), 0]}} for i in range(4, 3000)}
    chain["4"]["inputs"]["a"] = ["1", 0]
    api_graph["2"]["inputs"]["a"] = ["2999", 0]
    assert problems(api_graph | chain, specs) == []


def test_what_nodes_that_hold_a_value_give_on_is_known_through_any_number_of_them() -> None:
    specs = local_specs()
    chain = {str(i): {"class_type": "PrimitiveString", "inputs": {"value": [str(i - 1), 0]}} for i in range(1, 3000)}
    first = {"class_type": "PrimitiveString", "inputs": {"value": "clip.mp4"}}
    graph = read({"0": first, **chain}, specs)
    assert constant(Link("2999", 0), graph, specs) == "clip.mp4"
    graph = read({"0": {"class_type": "LoadFrames", "inputs": {"path": "clip.mp4"}}, **chain}, specs)
    assert constant(Link("2999", 0), graph, specs) == Link("0", 0)
    assert constant(3, graph, specs) == 3


def test_nodes_judge_their_own_constants_apart_from_the_graph(api_graph: Any, specs: Specs) -> None:
    api_graph["1"]["inputs"]["name"] = "missing.mp4"
    graph = read(api_graph, specs)
    assert check(graph, specs) == []
    assert check_files(graph, specs) == ["Clip (Number): no file missing.mp4"]


# Settings


@pytest.mark.parametrize(
    ("setting", "node", "name", "value"),
    [
        ("Clip.value=7", "1", "value", 7),
        ("1.value=7", "1", "value", 7),
        ("Number.value=7", "1", "value", 7),
        ("Clip.name=a=b.c", "1", "name", "a=b.c"),
        ("Clip.name=", "1", "name", ""),
        ("Clip.scale=2", "1", "scale", 2.0),
        ("Clip.loud=Yes", "1", "loud", True),
        ("Clip.loud=0", "1", "loud", False),
        ("Clip.kind=odd", "1", "kind", "odd"),
        ("Add.note=linked before", "2", "note", "linked before"),
    ],
)
def test_settings(api_graph: Any, specs: Specs, setting: str, node: str, name: str, value: Any) -> None:
    api_graph["2"]["inputs"]["note"] = ["2", 1]
    graph = read(api_graph, specs)
    set_value(graph, specs, setting)
    assert graph.nodes[node].inputs[name] == value
    assert type(graph.nodes[node].inputs[name]) is type(value)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("Clap.value=7", "no node 'Clap'; the graph has Clip (Number), Add (node 2), Report (node 3)"),
        ("Clip.valeu=7", "has no input 'valeu'; its inputs are value, seed, kind, scale, name, loud"),
        ("Clip.value=seven", "value must be a whole number from 0 to 10, got 'seven'"),
        ("Clip.scale=inf", "scale must be a number from 0.0 to 4.0, got 'inf'"),
        ("Clip.loud=maybe", "loud must be true or false, got 'maybe'"),
        ("Add.a=3", "a takes NUMBER from another node"),
        ("Clip=3", "not of the form NODE.INPUT=VALUE"),
        ("Clip.value", "not of the form NODE.INPUT=VALUE"),
        (".value=3", "not of the form NODE.INPUT=VALUE"),
    ],
)
def test_wrong_settings(api_graph: Any, specs: Specs, setting: str, sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        set_value(read(api_graph, specs), specs, setting)
    assert sentence in str(caught.value)


def test_a_value_outside_the_range_is_left_to_check(api_graph: Any, specs: Specs) -> None:
    graph = read(api_graph, specs)
    set_value(graph, specs, "Clip.kind=even")
    set_value(graph, specs, "Clip.value=70")
    assert len(check(graph, specs)) == 2


def test_an_ambiguous_name_is_refused_with_the_ids(api_graph: Any, specs: Specs) -> None:
    api_graph["9"] = api_graph["1"] | {"_meta": {"title": "Other"}}
    with pytest.raises(GraphError, match="2 nodes have the class 'Number'; name one by its id: 1, 9"):
        set_value(read(api_graph, specs), specs, "Number.value=3")


def test_seeds(api_graph: Any, specs: Specs) -> None:
    api_graph["9"] = api_graph["1"] | {"inputs": {"seed": ["1", 0]}}
    graph = read(api_graph, specs)
    assert set_seeds(graph, specs, 42) == 2
    assert [graph.nodes[key].inputs["seed"] for key in "19"] == [42, 42]


# Files


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON: Expecting property name"),
        ("", "is no JSON"),
        ("[]", "the file holds list, expected a workflow"),
        ('{"a": 1}', "this is no workflow: entry 'a' has no class_type"),
        ('{"nodes": 3}', "the workflow is damaged: nodes is int, expected list"),
        ('{"1": {"class_type": "Add", "inputs": 3}}', "the inputs of node 1 are int"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "no class_type|integer string conversion"),
    ],
)
def test_files_that_are_no_workflow(tmp_path: Path, specs: Specs, text: str, sentence: str) -> None:
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(GraphError, match=sentence) as caught:
        load(path, specs)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_binary_data(tmp_path: Path, specs: Specs) -> None:
    with pytest.raises(GraphError, match="cannot be read: No such file"):
        load(tmp_path / "none.json", specs)
    (tmp_path / "binary.json").write_bytes(b"\x80\x81\x82")
    with pytest.raises(GraphError, match="cannot be read"):
        load(tmp_path / "binary.json", specs)


def test_a_byte_order_mark_does_not_disturb(tmp_path: Path, api_graph: Any, specs: Specs) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(api_graph), encoding="utf-8-sig")
    assert load(tmp_path / "graph.json", specs).nodes["2"].inputs["a"] == Link("1", 0)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats() | st.sampled_from(["1", "Add", "Number", "a", ""]),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "type", "class_type", "inputs", "outputs", "name", "link", "nodes", "links", "1"]),
            children,
            max_size=5,
        )
    ),
    max_leaves=12,
)
node = st.fixed_dictionaries(
    {"id": st.integers(0, 3) | anything, "type": st.sampled_from(["Add", "Number", "Reroute", "sub", "PrimitiveNode"])},
    optional={
        "mode": st.integers(0, 4),
        "widgets_values": anything,
        "inputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["a", "value", "b"]), "link": st.integers(0, 4)}), max_size=3
        )
        | anything,
        "outputs": anything,
        "properties": anything,
    },
)
link = st.lists(st.integers(-20, 4), min_size=5, max_size=6) | anything
workflow = st.fixed_dictionaries(
    {"nodes": st.lists(node, max_size=4) | anything, "links": st.lists(link, max_size=5) | anything},
    optional={
        "definitions": st.fixed_dictionaries(
            {
                "subgraphs": st.lists(
                    st.fixed_dictionaries({"id": st.just("sub"), "nodes": st.lists(node), "links": st.lists(link)})
                )
                | anything
            }
        )
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=workflow | anything | st.dictionaries(st.sampled_from("123"), anything, max_size=3))
def test_whatever_json_holds_gives_problems_or_a_sentence(data: Any, specs: Specs) -> None:
    try:
        graph = read(data, specs)
    except GraphError as error:
        assert str(error)
    else:
        assert all("\n" not in problem for problem in check(graph, specs))
        json.dumps(to_api(graph))
