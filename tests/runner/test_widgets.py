"""Saved values by the names of their widgets, whatever version of the node and the editor saved them."""

from __future__ import annotations

from typing import Any

import pytest

from comfyui_vdp.runner.graph.read import read
from comfyui_vdp.runner.graph.set import set_value
from comfyui_vdp.runner.graph.specs import server_specs
from comfyui_vdp.runner.graph.types import GraphError, Specs

MODES = [
    {"key": "a", "inputs": {"required": {"x": ["INT", {"default": 1}]}}},
    {"key": "b", "inputs": {}},
    {
        "key": "c",
        "inputs": {
            "required": {"seed": ["INT", {"control_after_generate": True}], "image": ["IMAGE", {}]},
            "optional": {
                "deep": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {"options": [{"key": "on", "inputs": {"required": {"y": ["FLOAT", {"default": 0.5}]}}}]},
                ]
            },
        },
    },
]
SPECS = server_specs(
    {
        "Audio": {
            "input": {
                "required": {
                    "frames_number": ["INT", {"default": 97}],
                    "frame_rate": ["FLOAT,INT", {"default": 25}],
                    "batch_size": ["INT", {"default": 1}],
                    "audio_vae": ["VAE", {}],
                    "either": ["IMAGE,MASK", {}],
                    "grown": ["FLOAT,IMAGE", {"widgetType": "FLOAT", "default": 2.0}],
                }
            },
            "output": ["LATENT"],
        },
        "Sample": {
            "input": {
                "required": {
                    "seed": ["INT", {"default": 0, "control_after_generate": True}],
                    "steps": ["INT", {"default": 20}],
                    "mode": ["COMFY_DYNAMICCOMBO_V3", {"options": MODES}],
                    "cfg": ["FLOAT", {"default": 8}],
                }
            },
            "output": ["X"],
        },
    }
)


def inputs_of(kind: str, values: Any, shown: tuple[str, ...] = (), specs: Specs = SPECS) -> dict[str, Any]:
    inputs = [{"name": name, "type": "*", "widget": {"name": name}, "link": None} for name in shown]
    workflow = {"nodes": [{"id": 1, "type": kind, "inputs": inputs, "widgets_values": values}], "links": []}
    return read(workflow, specs).nodes["1"].inputs


@pytest.mark.parametrize("shown", [(), ("frames_number", "frame_rate", "batch_size", "grown"), ("frame_rate",)])
def test_widgets_of_two_types_hold_their_place(shown: tuple[str, ...]) -> None:
    found = inputs_of("Audio", [97, 25, 1, 0.5], shown)
    assert found == {"frames_number": 97, "frame_rate": 25, "batch_size": 1, "grown": 0.5}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([5, "randomize", 30, "a", 3, 7.5], {"mode": "a", "mode.x": 3}),
        ([5, "randomize", 30, "b", 7.5], {"mode": "b"}),
        (
            [5, 30, "c", 4, "fixed", "on", 0.25, 7.5],
            {"mode": "c", "mode.seed": 4, "mode.deep": "on", "mode.deep.y": 0.25},
        ),
        ({"seed": 5, "steps": 30, "cfg": 7.5, "mode": "a"}, {"mode": "a", "mode.x": 1}),
    ],
)
def test_a_dynamic_combo_brings_the_widgets_of_its_choice(values: Any, found: dict[str, Any]) -> None:
    assert inputs_of("Sample", values) == {"seed": 5, "steps": 30, "cfg": 7.5, **found}


@pytest.mark.parametrize("more", [["randomize", ""], ["fixed"], []])
def test_how_a_combo_changes_is_no_widget_of_the_node(more: list[str]) -> None:
    choice = ["COMBO", {"options": ["a", "b"], "control_after_generate": True}]
    specs = server_specs({"Node": {"input": {"required": {"c": choice, "text": ["STRING", {}], "n": ["INT", {}]}}}})
    assert inputs_of("Node", ["b", *more, "words", 3], (), specs) == {"c": "b", "text": "words", "n": 3}


def test_defaults_are_those_of_the_choice() -> None:
    assert inputs_of("Sample", []) == {"seed": 0, "steps": 20, "mode": "a", "mode.x": 1, "cfg": 8}
    assert inputs_of("Sample", [1, "fixed", 2, "b"]) == {"seed": 1, "steps": 2, "mode": "b", "cfg": 8}


def test_what_a_dynamic_combo_brings_can_be_set() -> None:
    node = {"id": 1, "type": "Sample", "title": "My.Sampler", "widgets_values": [5, "fixed", 30, "a", 3, 7.5]}
    graph = read({"nodes": [node], "links": []}, SPECS)
    for setting in ("1.mode.x=9", "My.Sampler.mode.x=9", "Sample.mode.x=9"):
        graph.nodes["1"].inputs["mode.x"] = 3
        set_value(graph, SPECS, setting)
        assert graph.nodes["1"].inputs["mode.x"] == 9
    with pytest.raises(GraphError, match=r"no node 'Other\.mode'"):
        set_value(graph, SPECS, "Other.mode.x=9")
    with pytest.raises(GraphError, match="no input 'z'"):
        set_value(graph, SPECS, "1.z=9")


def node_with(*widgets: str) -> Specs:
    declared = {name: ["INT", {"default": -1}] for name in widgets}
    return server_specs({"Node": {"input": {"required": declared}, "output": []}})


def test_a_widget_that_the_node_has_since_got_has_its_default() -> None:
    specs = node_with("a", "new", "b")
    assert inputs_of("Node", [1, 2], ("a", "b"), specs) == {"a": 1, "new": -1, "b": 2}
    assert inputs_of("Node", [1, 2], (), node_with("a", "b", "new")) == {"a": 1, "b": 2, "new": -1}


def test_a_widget_that_the_node_has_no_more_leaves_the_others_in_place() -> None:
    specs = node_with("a", "b")
    assert inputs_of("Node", [1, 7, "fixed", 9, 2], ("a", "seed", "old", "b"), specs) == {"a": 1, "b": 2}
    assert inputs_of("Node", [1, 9], ("a", "old"), specs) == {"a": 1, "b": -1}


def test_widgets_that_the_file_does_not_list_in_full_go_by_the_node() -> None:
    assert inputs_of("Node", [1, 2, 3], ("b",), node_with("a", "b", "c")) == {"a": 1, "b": 2, "c": 3}
