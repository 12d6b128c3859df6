from __future__ import annotations

import json

import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.flashes import FlashSafety

STROBE = torch.linspace(0.0, 1.0, 2).repeat_interleave(2).repeat(12).view(-1, 1, 1, 1).expand(-1, 24, 32, 3)
"""Six flashes a second, of 24 frames each."""


def test_widgets_keep_their_order():
    inputs = FlashSafety.INPUT_TYPES()
    assert list(inputs["required"]) == ["frames", "fps"]
    assert "optional" not in inputs
    assert all(spec[1]["tooltip"] for spec in inputs["required"].values())
    assert len(FlashSafety.OUTPUT_TOOLTIPS) == len(FlashSafety.RETURN_TYPES) == len(FlashSafety.RETURN_NAMES)


def test_a_strobe_is_lowered_and_the_line_says_so(capsys):
    made, report, chart = FlashSafety().make_safe(STROBE, 24.0)
    assert made.shape == STROBE.shape
    assert float(made[20:30].std()) < 0.3 * float(STROBE[20:30].std())
    found = json.loads(report)
    assert (found["before"]["passes"], found["after"]["passes"]) == (False, True)
    assert chart.shape == (1, 480, 960, 3)
    said = capsys.readouterr().err
    assert "6 flashes and 0 red ones in a second, stripes over 0%: failed, lowered in frames 0-47" in said


def test_a_clip_that_passes_is_left_as_it_is(capsys):
    made, report, _ = FlashSafety().make_safe(STROBE, 12.0)  # played at half the rate: three a second
    assert torch.equal(made, STROBE)
    assert json.loads(report)["after"]["passes"]
    said = capsys.readouterr().err
    assert "3 flashes and 0 red ones in a second, stripes over 0%: passes, and is left as it is" in said


def test_the_alpha_goes_along():
    alpha = torch.rand(48, 24, 32)
    made, _, _ = FlashSafety().make_safe(host.with_alpha(STROBE.clone(), alpha), 24.0)
    assert host.alpha_of(made) is alpha


def test_what_comes_out_is_foreseen():
    frames, report, chart = FlashSafety.foresee(frames=STROBE, fps=24.0)
    assert frames.is_meta
    assert frames.shape == STROBE.shape
    assert (report, chart) == (None, None)
    assert FlashSafety.foresee() == (None, None, None)
