from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.decompose import VDPOptimize
from comfyui_vdp.nodes.edit import Relight
from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.optim.fit import Fitted
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.base import Found, Given, Work
from comfyui_vdp.vdp_core.tasks.inputs import INPUTS
from comfyui_vdp.vdp_core.types import Flow, Layers, Shot

SETTINGS = {"task": "relight", "preset": "fast", "steps": 3, "layers": 2, "seed": 0}


@pytest.fixture(autouse=True)
def said(monkeypatch, tmp_path):
    """The status lines that were shown; headless on the CPU, with no weights at hand."""
    lines: list[str] = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(host.headless, "device", "cpu")
    monkeypatch.setattr(host.headless, "say", lines.append)
    return lines


@pytest.fixture(scope="module")
def clip(synthetic) -> tuple[torch.Tensor, Flow]:
    frames, flow = synthetic.pan(4, 32, 48)
    return frames * 0.2, flow


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    inputs = VDPOptimize.INPUT_TYPES()
    assert list(inputs["required"]) == ["frames", "task", "preset", "steps", "layers", "seed"]
    assert list(inputs["optional"]) == [
        *("flow", "reference", "mask", "reference_frame", "mask_frame"),
        *("guide", "cause", "keep", "fps", "with_shadow"),
    ]
    assert inputs["required"]["task"][0] == list(TASKS)
    presets = inputs["required"]["preset"][0]
    assert set(presets) == {name for task in TASKS.values() for name in task.presets}
    # what saved workflows choose; the first is what a new node has
    assert {"relight", "dehaze", "segment"} <= set(TASKS)
    assert presets[0] == "balanced"
    assert {"fast", "quality", "paper"} <= set(presets)
    assert all(spec[1]["tooltip"] for family in ("required", "optional") for spec in inputs[family].values())
    assert len(VDPOptimize.OUTPUT_TOOLTIPS) == len(VDPOptimize.RETURN_TYPES) == 1


def test_choices_stand_where_comfyui_wants_them():
    kind, options = VDPOptimize.INPUT_TYPES()["optional"]["cause"]
    assert isinstance(kind, list)
    assert kind[0] == options["default"] == "auto"
    assert "choices" not in options
    assert VDPOptimize.VALIDATE_INPUTS("relight", {"flow": "VDP_FLOW", "cause": "COMBO"}) is True
    assert "cause: takes COMBO, but" in VDPOptimize.VALIDATE_INPUTS("relight", {"flow": "VDP_FLOW", "cause": "INT"})


def test_widgets_that_few_tasks_take_say_which():
    declared = VDPOptimize.INPUT_TYPES()
    shown = {name: spec[1].get("shown_where") for family in declared.values() for name, spec in family.items()}
    takers = {one.name: [name for name, task in TASKS.items() if one in task.inputs] for one in INPUTS}
    assert {name for name, where in shown.items() if where} == {
        *("reference_frame", "mask_frame", "cause", "keep", "fps", "with_shadow"),
    }
    assert all(where == {"task": takers[name]} for name, where in shown.items() if where)


def test_it_finds_layers_and_says_how_it_went(clip, said):
    (layers,) = VDPOptimize().optimize(*clip, **SETTINGS)
    assert isinstance(layers, Layers)
    assert len(layers) == 4
    (line,) = said
    assert line.startswith("relight: all 3 steps, ")
    assert re.search(r" s on cpu, flow exact, loss 0\.\d+, gamma \d", line)


def test_a_reference_says_which_frame_it_shows(clip, said):
    frames, flow = clip
    (layers,) = VDPOptimize().optimize(frames, flow, **SETTINGS, reference=frames[3:4] * 3)
    assert layers.info["reference_frame"] == "3"
    assert said[-1].endswith("reference is frame 3")
    (layers,) = VDPOptimize().optimize(frames, flow, **SETTINGS, reference=frames[3:4] * 3, reference_frame=1)
    assert layers.info["reference_frame"] == "1"


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_it_optimises_under_inference_mode_with_what_was_made_there(synthetic, preset):
    settings = {**SETTINGS, "preset": preset, "steps": 2}
    with torch.inference_mode():
        frames, flow = synthetic.pan(4, 32, 48)
        assert flow.forward.is_inference()
        (layers,) = VDPOptimize().optimize(frames * 0.2, flow, **settings)
        (lit,) = Relight().relight(layers, 1.0, 0.0, 1.0, 0.0, 1.0)
    plain, plain_flow = synthetic.pan(4, 32, 48)
    (expected,) = VDPOptimize().optimize(plain * 0.2, plain_flow, **settings)
    assert torch.equal(layers.fields["log_gain"], expected.fields["log_gain"])
    assert torch.equal(lit, Relight().relight(expected, 1.0, 0.0, 1.0, 0.0, 1.0)[0])


def test_a_still_under_inference_mode(synthetic):
    with torch.inference_mode():
        frames, flow = synthetic.pan(4, 32, 48)
        (layers,) = VDPOptimize().optimize(frames * 0.2, flow, **SETTINGS, reference=frames[:1].clone())
    assert layers.info["reference_frame"] == "0"


def test_a_tasks_own_words_and_warning_are_shown(clip, said, monkeypatch):
    frames, flow = clip
    taken = {}

    def find(shot: Shot, given: Given, config: object, work: Work) -> Found:
        taken.update(given)
        return Found({}, Fitted(0, 0.1, {}, "steps"), {"said": "1 object", "warning": "nothing moves"})

    monkeypatch.setitem(TASKS, "segment", replace(TASKS["segment"], find=find, prepare=lambda frames, given, _: given))
    pictures = torch.zeros(1, 32, 48, 3)
    pictures[:, :8] = 1 / 255
    settings = {**SETTINGS, "task": "segment", "layers": 2}
    VDPOptimize().optimize(frames, flow, **settings, mask=pictures, mask_frame=2)
    assert said == ["warning: nothing moves; segment: all 0 steps, 0.0 s on cpu, flow exact, 1 object"]
    assert torch.equal(taken["mask"][2], (pictures[..., 0] > 0).float())
    assert taken.keys() == {"layers", "mask", "mask_frame"}
    assert (taken["layers"], taken["mask_frame"]) == (2, 2)


def test_the_hosts_interruption_comes_through(clip, monkeypatch):
    class Interrupted(BaseException):
        pass

    steps = []

    @contextmanager
    def progress(total: int, label: str):
        def on_step(done: int, total: int, preview: object = None) -> None:
            steps.append((label, done, total))
            if done == 2:
                raise Interrupted

        yield on_step

    monkeypatch.setattr(host.headless, "progress", progress)
    with pytest.raises(Interrupted):
        VDPOptimize().optimize(*clip, **SETTINGS)
    assert steps == [("Optimize (relight)", 1, 3), ("Optimize (relight)", 2, 3)]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"task": "fog"}, InputError, "task: there is no 'fog'; known: relight"),
        ({"mask": torch.ones(4, 32, 48)}, InputError, "mask: the task relight takes none; unlink it, or choose"),
        ({"mask": torch.rand(4, 32, 48, 3)}, InputError, "mask: the task relight takes none; unlink it, or choose"),
        ({"task": "segment", "mask": torch.full((4, 32, 48, 3), torch.nan)}, InputError, "mask: frame 0 holds NaN"),
        ({"task": "segment", "mask": torch.ones(3, 32, 48)}, ShapeError, "one for each of the 4 frames, got 3"),
        ({"task": "segment", "mask": torch.zeros(1, 32, 48)}, InputError, "mask: it is empty everywhere"),
        ({"task": "segment", "mask": torch.ones(1, 32, 32)}, ShapeError, "mask: it is 32x32 pixels, the frames are"),
        ({"task": "segment", "mask": torch.ones(1, 32, 48), "mask_frame": 4}, InputError, "mask_frame: 0 to 3"),
        (
            {"task": "segment", "mask": torch.ones(1, 32, 48), "layers": 3},
            InputError,
            "with a mask of one object",
        ),
        ({"task": "segment", "reference": torch.rand(1, 32, 48, 3)}, InputError, "the task segment takes none"),
        ({"task": "segment", "preset": "best"}, InputError, "preset: there is no 'best'"),
        ({"task": "segment", "frames": torch.rand(1, 32, 48, 3)}, ShapeError, "got 1 frame, motion needs at least two"),
        ({"reference_frame": 4}, InputError, "reference_frame: -1 to look for it, or 0 to 3"),
        ({"reference": torch.rand(2, 32, 48, 3)}, ShapeError, "one graded still is needed, got 2 frames"),
        ({"frames": torch.rand(1, 32, 48, 3)}, ShapeError, "got 1 frame, motion needs at least two"),
        ({"frames": torch.rand(7, 32, 48, 3)}, ShapeError, "estimate the flow on the same frames"),
    ],
)
def test_what_cannot_work_is_refused(clip, said, changes, error, words):
    with pytest.raises(error, match=words):
        VDPOptimize().optimize(**{"frames": clip[0], "flow": clip[1], **SETTINGS, **changes})
    assert said == []
