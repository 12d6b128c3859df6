from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.edit import Dehaze, Relight
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.models import haze, light
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Layers

AS_IT_IS = {"strength": 0.0, "exposure": 0.0, "gamma": 1.0, "warmth": 0.0, "denoise": 0.0}


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(host.headless, "device", "cpu")


@pytest.fixture(scope="module")
def layers(synthetic) -> Layers:
    frames, flow = synthetic.pan(3, 32, 48)
    return decompose("relight", frames * 0.2, flow, preset="fast", steps=3)


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
        assert torch.equal(lit, light.apply(layers, **{**AS_IT_IS, name: value}))
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


# Dehaze

CLEAR = {"strength": 0.0, "min_transmission": 0.1, "airlight_tint": 0.0, "denoise": 0.0}


@pytest.fixture(scope="module")
def hazy(synthetic) -> Layers:
    clean, flow = synthetic.pan(3, 32, 48)
    return decompose("dehaze", 0.5 * clean + 0.4, flow, preset="fast", steps=3)


def test_widgets_of_dehaze_keep_their_order():
    inputs = Dehaze.INPUT_TYPES()["required"]
    assert list(inputs) == ["layers", "strength", "min_transmission", "airlight_tint", "denoise"]
    assert all(spec[1]["tooltip"] for spec in inputs.values())
    assert inputs["min_transmission"][1]["default"] == haze.MIN_TRANSMISSION


def test_every_widget_of_dehaze_reaches_its_setting(hazy):
    layers = replace(hazy, fields={**hazy.fields, "transmission": torch.full_like(hazy.fields["transmission"], 0.5)})
    settings = {"min_transmission": "min_transmission", "airlight_tint": "tint", "strength": "strength"}
    for widget, name in settings.items():
        value = {"min_transmission": 0.7, "airlight_tint": 0.5, "strength": -0.5}[widget]
        (made,) = Dehaze().dehaze(layers, **{**CLEAR, "strength": 0.8, widget: value})
        assert torch.equal(made, haze.apply(layers, **{"strength": 0.8, "denoise": 0.0, name: value}))
        assert not torch.equal(made, haze.apply(layers, strength=0.8, denoise=0.0))


def test_the_limits_of_the_sliders_of_dehaze_work(hazy):
    for name, spec in Dehaze.INPUT_TYPES()["required"].items():
        for limit in ("min", "max") if name != "layers" else ():
            (made,) = Dehaze().dehaze(hazy, **{**CLEAR, "strength": 1.0, name: spec[1][limit]})
            assert 0.0 <= made.min() <= made.max() <= 1.0


def test_dehaze_refuses_layers_of_another_model(layers):
    with pytest.raises(InputError, match="Dehaze needs 'dehaze'"):
        Dehaze().dehaze(layers, **CLEAR)
