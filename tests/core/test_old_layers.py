"""Layers that earlier versions saved still load, and give what they gave then."""

from __future__ import annotations

from pathlib import Path

import golden_set
import pytest
import synthetic
from safetensors.torch import load_file
from torch.testing import assert_close

FOLDER = Path(__file__).parents[1] / "layers_files"
"""A file of each task and format, written by the version that had it; ``results`` is what the nodes made of them."""


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("relight_1", {"denoise": 0.0}),  # the noise of format 1 is estimated again
        ("dehaze_1", {"denoise": 0.0}),
        ("segment_1", {}),
        ("relight_2", {"denoise": 0.5}),
        ("dehaze_2", {}),
        ("segment_2", {}),
    ],
)
def test_old_files_give_what_they_gave(file, settings):
    task = file.partition("_")[0]
    # the dehaze files were saved without their frames
    frames = {"frames": golden_set.hazier(synthetic.layered(6, 40, 64).frames)} if task == "dehaze" else {}
    layers = golden_set.run("LoadLayers", path=str(FOLDER / f"{file}.safetensors"), **frames)[0]
    result = golden_set.run(golden_set.SHOWN_BY[task], layers=layers, **settings)[0]
    expected = golden_set.unpacked(load_file(FOLDER / "results.safetensors")[file])
    assert_close(result[::2], expected, rtol=1e-3, atol=1e-3)
