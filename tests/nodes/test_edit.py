from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.edit import Deflicker, Dehaze, Relight
from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.models import colour, haze, light
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


# Deflicker

FOUND = {"strength": 1.0, "pivot": -1, "smoothing": 0.0, "fps": 24.0}


@pytest.fixture(scope="module")
def flickering(synthetic) -> Layers:
    frames, flow = synthetic.pan(6, 32, 48)
    gain = 1.0 + 0.2 * (-1.0) ** torch.arange(6.0).view(-1, 1, 1, 1)
    return decompose("deflicker", 0.6 * gain * frames, flow, preset="fast")


def test_widgets_of_deflicker_keep_their_order():
    inputs = Deflicker.INPUT_TYPES()
    assert list(inputs["required"]) == ["layers", *FOUND]
    assert list(inputs["optional"]) == ["region", "matte"]
    assert all(spec[1]["tooltip"] for family in inputs.values() for spec in family.values())
    assert {name: spec[1]["default"] for name, spec in inputs["required"].items() if name != "layers"} == FOUND
    assert len(Deflicker.OUTPUT_TOOLTIPS) == len(Deflicker.RETURN_TYPES) == len(Deflicker.RETURN_NAMES) == 2


def test_every_widget_of_deflicker_reaches_its_setting(flickering):
    left = torch.zeros(1, 32, 48)
    left[..., :16] = 1.0
    frames, curve = Deflicker().deflicker(flickering, **FOUND)
    assert torch.equal(frames, colour.apply(flickering))
    assert torch.equal(curve, colour.curves(flickering))
    fields = {**flickering.fields, "kept": torch.linspace(-0.3, 0.5, 6)[:, None].expand(-1, 3) ** 3}
    layers = replace(flickering, fields=fields)
    given = {"strength": 0.5, "pivot": 2, "smoothing": 1.0, "region": left, "matte": left}
    for name, value in given.items():
        made, _ = Deflicker().deflicker(layers, **{**FOUND, name: value})
        assert torch.equal(made, colour.apply(layers, **{name: value}))
        assert not torch.equal(made, colour.apply(layers))
    slow, _ = Deflicker().deflicker(layers, **{**FOUND, "smoothing": 0.2, "fps": 6.0})
    assert not torch.equal(slow, colour.apply(layers, smoothing=0.2))


def test_the_limits_of_the_sliders_of_deflicker_work(flickering):
    for name in ("strength", "smoothing"):
        spec = Deflicker.INPUT_TYPES()["required"][name]
        for limit in ("min", "max"):
            made, curve = Deflicker().deflicker(flickering, **{**FOUND, name: spec[1][limit]})
            assert 0.0 <= made.min() <= made.max() <= 1.0
            assert curve.isfinite().all()
    made, _ = Deflicker().deflicker(flickering, **{**FOUND, "strength": 0.0})
    assert torch.equal(made, flickering.frames)


def test_pictures_of_masks_and_the_alpha_go_along(flickering):
    alpha = torch.rand(6, 32, 48)
    picture = torch.zeros(1, 32, 48, 3)
    picture[:, :, :16] = 1.0
    made, _ = Deflicker().deflicker(replace(flickering, alpha=alpha), **FOUND, region=picture)
    assert torch.equal(made, colour.apply(flickering, region=picture[..., 0]))
    assert host.alpha_of(made) is alpha


def test_deflicker_refuses_what_cannot_be_before_layers_are_found(flickering):
    stand_in = colour.MODEL.stand_in(host.frames_like(flickering.frames), {})
    frames, curve = Deflicker.foresee(layers=stand_in, **FOUND, region=torch.ones(32, 48))
    assert frames.is_meta
    assert frames.shape == flickering.frames.shape
    assert curve is None
    assert Deflicker.foresee() == (None, None)
    with pytest.raises(InputError, match="pivot: there is no frame 6"):
        Deflicker.foresee(layers=stand_in, **{**FOUND, "pivot": 6})
    with pytest.raises(ShapeError, match="matte: got 2 masks for 6 frames"):
        Deflicker.foresee(layers=stand_in, **FOUND, matte=torch.ones(2, 32, 48))
    with pytest.raises(InputError, match="region: it is the empty one that Load Image gives"):
        Deflicker().deflicker(flickering, **FOUND, region=torch.zeros(1, 64, 64))


def test_deflicker_refuses_layers_of_another_model(layers):
    with pytest.raises(InputError, match="Deflicker needs 'colour'"):
        Deflicker().deflicker(layers, **FOUND)
