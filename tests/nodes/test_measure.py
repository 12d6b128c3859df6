from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.measure import MeasureVideo
from comfyui_vdp.vdp_core.errors import InputError, MediaError, ShapeError


@pytest.fixture
def output(tmp_path, monkeypatch):
    """An output folder of this test's own."""
    monkeypatch.setattr(host.headless, "output_folder", tmp_path / "out")
    return tmp_path / "out"


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    inputs = MeasureVideo.INPUT_TYPES()
    assert list(inputs["required"]) == ["frames", "filename_prefix"]
    assert list(inputs["optional"]) == ["reference", "mask", "reference_mask", "flow", "published"]
    assert all(spec[1]["tooltip"] for family in ("required", "optional") for spec in inputs[family].values())
    assert len(MeasureVideo.OUTPUT_TOOLTIPS) == len(MeasureVideo.RETURN_TYPES)


def test_figures_come_out_as_numbers_and_as_a_file(output):
    ref = torch.full((2, 16, 16, 3), 0.5)
    mask = torch.ones(2, 16, 16)
    shown = MeasureVideo().measure(ref + 0.1, "sub/figures", ref, mask, mask)
    psnr, ssim, warping_error, iou, report, boundary_f, mad, mse = shown["result"]
    assert psnr == pytest.approx(20.0, abs=1e-3)
    assert (iou, boundary_f, mad, mse) == (1.0, 1.0, 0.0, 0.0)
    assert 0.9 < ssim < 1.0
    assert warping_error == pytest.approx(0.0, abs=1e-5)
    assert "psnr: 20" in report
    (name,) = shown["ui"]["vdp_outputs"]
    assert name == "sub/figures_00001.json"
    written = json.loads((output / name).read_text())
    per_frame = written.pop("per_frame")
    assert written == shown["ui"]["vdp_numbers"][0]
    assert per_frame["iou"] == [1.0, 1.0]
    assert per_frame["psnr"] == pytest.approx([20.0, 20.0], abs=1e-3)
    assert [path.name for path in (output / "sub").iterdir()] == ["figures_00001.json"]


def test_what_was_not_measured_is_not_a_number(output):
    mask = torch.ones(1, 8, 8)
    shown = MeasureVideo().measure(torch.rand(1, 8, 8, 3), mask=mask, reference_mask=mask)
    assert all(math.isnan(value) for value in shown["result"][:3])
    assert shown["ui"]["vdp_numbers"] == [{"iou": 1.0, "boundary_f": 1.0, "mad": 0.0, "mse": 0.0}]
    assert shown["result"][5:] == (1.0, 0.0, 0.0)


def test_figures_of_papers_come_under_names_of_their_own(output):
    """A matte that is off by a tenth everywhere, from the second frame on."""
    truth = torch.zeros(4, 16, 16)
    truth[:, 4:12, 4:12] = 0.5
    found = truth.clone()
    found[1:] += 0.1
    clip = torch.full((4, 16, 16, 3), 0.5)
    shown = MeasureVideo().measure(clip + 0.2, "mattes", clip, found, truth, published=True)
    numbers = shown["ui"]["vdp_numbers"][0]
    assert numbers["mad"] == pytest.approx(0.075)
    assert numbers["published_mad"] == pytest.approx(75.0, abs=1e-3)
    assert numbers["published_mse"] == pytest.approx(7.5, abs=1e-3)
    assert numbers["published_dtssd"] == pytest.approx(2.5, abs=1e-3)  # 10, 0 and 0, and 0 for the first frame
    assert numbers["published_foreground_mse"] == pytest.approx(40.0, abs=1e-3)
    assert {"published_grad", "published_grad_hr", "published_conn"} < set(numbers)
    assert "published_conn" in shown["result"][4]
    written = json.loads((output / "mattes_00001.json").read_text())["per_frame"]
    assert written["published_mad"] == pytest.approx([0.0, 100.0, 100.0, 100.0], abs=1e-3)


def test_pictures_will_do_as_masks(output):
    inputs = MeasureVideo.INPUT_TYPES()["optional"]
    assert inputs["mask"][0] == inputs["reference_mask"][0] == "MASK,IMAGE"
    truth = torch.zeros(2, 16, 16)
    truth[:, 4:12] = 1.0
    pictures = truth[..., None].expand(-1, -1, -1, 3) / 255  # labels 0 and 1
    shown = MeasureVideo().measure(torch.rand(2, 16, 16, 3), mask=truth, reference_mask=pictures)
    assert shown["ui"]["vdp_numbers"][0]["iou"] == 1.0


def test_a_file_that_cannot_be_written_leaves_nothing(output, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(MediaError, match="No space left"):
        MeasureVideo().measure(torch.rand(1, 8, 8, 3), reference=torch.rand(1, 8, 8, 3))
    assert list(output.iterdir()) == []


def test_refusals_come_before_any_file(output):
    with pytest.raises(InputError, match="outside the output folder"):
        MeasureVideo().measure(torch.rand(1, 8, 8, 3), "../out", torch.rand(1, 8, 8, 3))
    with pytest.raises(ShapeError, match="one size and length"):
        MeasureVideo().measure(torch.rand(1, 8, 8, 3), reference=torch.rand(2, 8, 8, 3))
    with pytest.raises(InputError, match="nothing to measure"):
        MeasureVideo().measure(torch.rand(1, 8, 8, 3))
    assert list(output.iterdir()) == []
