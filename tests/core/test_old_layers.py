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
    ("task", "node", "settings"),
    [("relight", "Relight", {"denoise": 0.5}), ("dehaze", "Dehaze", {}), ("segment", "Composite", {})],
)
def test_files_of_format_2(task, node, settings):
    clip = synthetic.layered(6, 40, 64).frames
    # the dehaze file was saved without its frames
    frames = {"frames": golden_set.hazier(clip)} if task == "dehaze" else {}
    layers = golden_set.run("LoadLayers", path=str(FOLDER / f"{task}_2.safetensors"), **frames)[0]
    result = golden_set.run(node, layers=layers, **settings)[0]
    expected = golden_set.unpacked(load_file(FOLDER / "results.safetensors")[task])
    assert_close(result[::2], expected, rtol=1e-3, atol=1e-3)
