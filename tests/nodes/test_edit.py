from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.edit import Relight
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.tasks import relight
from comfyui_vdp.vdp_core.types import Layers

AS_IT_IS = {"strength": 0.0, "exposure": 0.0, "gamma": 1.0, "warmth": 0.0, "denoise": 0.0}


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(host.headless, "device", "cpu")


@pytest.fixture(scope="module")
def layers(synthetic) -> Layers:
    frames, flow = synthetic.pan(3, 32, 48)
    return relight.decompose(frames * 0.2, flow, preset="fast", steps=3)


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    inputs = Relight.INPUT_TYPES()["required"]
    assert list(inputs) == ["layers", "strength", "exposure", "gamma", "warmth", "denoise"]
    assert all(spec[1]["tooltip"] for spec in inputs.values())
    assert {name: spec[1]["default"] for name, spec in inputs.items() if name != "layers"} == {
        **AS_IT_IS,
        "strength": 1.0,
        "denoise": 1.0,
    }


def test_every_widget_reaches_its_setting(layers):
    for name, value in {"strength": 0.6, "exposure": -0.5, "gamma": 1.3, "warmth": 0.4, "denoise": 1.0}.items():
        (lit,) = Relight().relight(layers, **{**AS_IT_IS, name: value})
        assert torch.equal(lit, relight.apply(layers, **{**AS_IT_IS, name: value}))
        if name != "denoise":  # these frames have no noise
            assert not torch.equal(lit, layers.frames)


def test_neutral_settings_give_the_frames_back(layers):
    (lit,) = Relight().relight(layers, **AS_IT_IS)
    assert torch.equal(lit, layers.frames)


def test_the_limits_of_the_sliders_work(layers):
    for name, spec in Relight.INPUT_TYPES()["required"].items():
        for limit in ("min", "max") if name != "layers" else ():
            (lit,) = Relight().relight(layers, **{**AS_IT_IS, "strength": 1.0, name: spec[1][limit]})
            assert 0.0 <= lit.min() <= lit.max() <= 1.0


def test_layers_of_another_model_are_refused(layers):
    with pytest.raises(InputError, match="of the model 'fog', Relight needs 'relight'"):
        Relight().relight(replace(layers, model="fog"), **AS_IT_IS)
