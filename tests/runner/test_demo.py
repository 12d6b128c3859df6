"""``vdp demo``, on fewer and smaller frames than it ships with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from comfyui_vdp.runner import cli, demo
from comfyui_vdp.vdp_core.media.clip import probe


@pytest.mark.slow
def test_the_demo_relights_its_clip_and_leaves_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FRAMES", 8)
    monkeypatch.setattr(demo, "DEMO_SIDE", 240)
    assert cli.main(["demo", "--output-dir", str(tmp_path), "--device", "cpu", "--quiet"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("before (dark)") for line in printed)
    told = json.loads(printed[-1])
    assert told["after"]["psnr"] > told["one_gamma"]["psnr"] + 2.0 > told["before"]["psnr"]
    assert told["after"]["ssim"] > told["one_gamma"]["ssim"] + 0.13
    assert told["after"]["warping_error"] < 0.5 * told["one_gamma"]["warping_error"]
    relit, beside, sheet = (Path(path) for path in told["outputs"])
    assert probe(relit).frame_count == probe(beside).frame_count == 8
    assert probe(relit).has_audio
    assert probe(beside).width == 3 * probe(relit).width
    with Image.open(sheet) as picture:
        assert picture.width == 3 * probe(relit).width
