"""What runs, in which order, how often, and what is kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.runner.graph.check import check
from comfyui_vdp.runner.graph.read import read
from comfyui_vdp.runner.graph.types import Specs
from comfyui_vdp.runner.run.execute import NodeFailed, collect_numbers, run
from comfyui_vdp.vdp_core.errors import LayersFileError, MediaError, ShapeError, VDPError, WeightsError


@pytest.fixture(autouse=True)
def output_folder(tmp_path: Path) -> Iterator[Path]:
    with host.running(host.Headless(device="cpu", output_folder=tmp_path)):
        yield tmp_path


def test_each_needed_node_runs_once_sources_first(
    api_graph: Any, specs: Specs, node_log: list[str], output_folder: Path
) -> None:
    api_graph["8"] = {"class_type": "Number", "inputs": api_graph["1"]["inputs"] | {"name": "not needed"}}
    seen: list[str] = []
    result = run(read(api_graph, specs), specs, on_node=lambda node: seen.append(node.id))
    assert node_log == ["make n", "add", "show 12.0 as 3 of 4, []"]
    assert seen == ["1", "2", "3"]
    assert result.outputs == [str(output_folder.resolve() / "report_00001.txt")]
    assert Path(result.outputs[0]).read_text() == "12.0"
    assert result.numbers == {"number": 12.0, "loss": None}
    assert result.device == "cpu"


def test_the_workflow_reaches_savers(specs: Specs, node_log: list[str]) -> None:
    links = [[1, 1, 0, 2, 0, "NUMBER"]]
    report = {"id": 2, "type": "Report", "inputs": [{"name": "number", "type": "NUMBER", "link": 1}]}
    run(read({"nodes": [{"id": 1, "type": "Number"}, report], "links": links}, specs), specs)
    assert node_log[-1].endswith("as 2 of 2, ['workflow']")


def test_two_outputs_of_one_name_do_not_meet(api_graph: Any, specs: Specs) -> None:
    api_graph["4"] = api_graph["3"] | {"_meta": {"title": "Second"}}
    result = run(read(api_graph, specs), specs)
    assert [Path(path).name for path in result.outputs] == ["report_00001.txt", "report_00002.txt"]
    assert result.numbers["Second.number"] == result.numbers["Report.number"] == 12.0


def test_numbers_of_nodes_with_one_title_are_told_apart_by_id() -> None:
    ui = {"vdp_numbers": [{"psnr": 30.0}]}
    assert collect_numbers({"1": ("Measure", ui), "2": ("Measure", ui)}) == {"1.psnr": 30.0, "2.psnr": 30.0}


def ending(look: Callable[[], None]) -> type:
    """An output node that looks at what there is."""

    class End:
        FUNCTION, RETURN_TYPES, OUTPUT_NODE = "end", (), True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {"thing": ("THING",)}}

        def end(self, thing: object) -> None:
            gc.collect()
            look()

    return End


def test_values_are_let_go_after_their_last_use(make_specs: Callable[..., Specs]) -> None:
    class Thing:
        pass

    made: list[weakref.ref[Thing]] = []
    alive: list[int] = []

    class Make:
        FUNCTION, RETURN_TYPES = "make", ("THING",)

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {}, "optional": {"after": ("THING",)}}

        def make(self, after: Thing | None = None) -> tuple[Thing]:
            thing = Thing()
            made.append(weakref.ref(thing))
            return (thing,)

    End = ending(lambda: alive.append(sum(reference() is not None for reference in made)))
    specs = make_specs(Make=Make, End=End)
    graph: dict[str, Any] = {str(i): {"class_type": "Make", "inputs": {"after": [str(i - 1), 0]}} for i in range(1, 5)}
    graph["0"] = {"class_type": "Make", "inputs": {}}
    graph["5"] = {"class_type": "End", "inputs": {"thing": ["4", 0]}}
    run(read(graph, specs), specs)
    assert len(made) == 5
    assert alive == [1]
    assert all(reference() is None for reference in made)


def test_each_output_is_let_go_after_its_own_last_use(make_specs: Callable[..., Specs]) -> None:
    class Thing:
        pass

    made: list[weakref.ref[Thing]] = []
    alive: list[list[bool]] = []

    class Make:
        FUNCTION, RETURN_TYPES = "make", ("THING", "THING", "THING")

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {}}

        def make(self) -> tuple[Thing, ...]:
            things = Thing(), Thing(), Thing()
            made.extend(map(weakref.ref, things))
            return things

    End = ending(lambda: alive.append([reference() is not None for reference in made]))
    specs = make_specs(Make=Make, End=End)
    graph: dict[str, Any] = {"0": {"class_type": "Make", "inputs": {}}}
    graph |= {str(i + 1): {"class_type": "End", "inputs": {"thing": ["0", i]}} for i in range(2)}
    run(read(graph, specs), specs)
    assert alive == [[True, True, False], [False, True, False]]


def test_nodes_run_under_inference_mode_and_fitting_leaves_it(make_specs: Callable[..., Specs]) -> None:
    seen: list[bool] = []

    class Fit:
        FUNCTION, RETURN_TYPES, OUTPUT_NODE = "fit", (), True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {}}

        def fit(self) -> None:
            seen.append(torch.is_inference_mode_enabled())
            with host.fitting(1, "fit") as on_step:
                seen.append(torch.is_inference_mode_enabled())
                weight = torch.ones(1, requires_grad=True)
                (weight * 2).backward()
                on_step(1, 1, None)
            seen.append(torch.is_inference_mode_enabled())

    specs = make_specs(Fit=Fit)
    run(read({"1": {"class_type": "Fit", "inputs": {}}}, specs), specs)
    assert seen == [True, False, True]


def test_primitive_values_and_async_nodes(make_specs: Callable[..., Specs]) -> None:
    from comfyui_vdp.runner.graph.specs import local_specs

    class Wait:
        FUNCTION, RETURN_TYPES, OUTPUT_NODE = "wait", (), True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {"value": ("INT", {})}}

        async def wait(self, value: int) -> dict[str, Any]:
            return {"ui": {"vdp_numbers": [{"value": value}]}}

    specs = {**local_specs(), **make_specs(Wait=Wait)}
    graph = read(
        {
            "1": {"class_type": "PrimitiveInt", "inputs": {"value": "4"}},
            "2": {"class_type": "Wait", "inputs": {"value": ["1", 0]}},
        },
        specs,
    )
    assert check(graph, specs) == []
    assert run(graph, specs).numbers == {"value": 4.0}


@pytest.mark.parametrize(
    ("error", "bad_input", "unforeseen"),
    [
        (ShapeError("wrong shape"), True, False),
        (MediaError("no file"), True, False),
        (LayersFileError("no layers"), True, False),
        (WeightsError("no weights"), True, False),
        (VDPError("cannot go on"), False, False),
        (MemoryError(), False, False),
        (ZeroDivisionError("by nought"), False, True),
    ],
)
def test_failures_name_the_node(
    make_specs: Callable[..., Specs], error: Exception, bad_input: bool, unforeseen: bool
) -> None:
    class Fail:
        FUNCTION, RETURN_TYPES, OUTPUT_NODE = "fail", (), True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {}}

        def fail(self) -> None:
            raise error

    specs = make_specs(Fail=Fail)
    graph = read({"1": {"class_type": "Fail", "inputs": {}, "_meta": {"title": "Result"}}}, specs)
    with pytest.raises(NodeFailed) as caught:
        run(graph, specs)
    assert str(caught.value).startswith("Result (Fail): ")
    assert str(error) in str(caught.value)
    assert (caught.value.bad_input, caught.value.unforeseen) == (bad_input, unforeseen)


def test_an_interruption_passes_as_it_is(make_specs: Callable[..., Specs]) -> None:
    class Stop:
        FUNCTION, RETURN_TYPES, OUTPUT_NODE = "stop", (), True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {}}

        def stop(self) -> None:
            raise KeyboardInterrupt

    specs = make_specs(Stop=Stop)
    with pytest.raises(KeyboardInterrupt):
        run(read({"1": {"class_type": "Stop", "inputs": {}}}, specs), specs)
