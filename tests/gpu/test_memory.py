"""Work at native size takes no more of a GPU's memory than the host is told to make room for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.vdp_core.edit import layers as edits
from comfyui_vdp.vdp_core.edit.composite import composite
from comfyui_vdp.vdp_core.models import haze, light
from comfyui_vdp.vdp_core.types import Edit, Flow, Layers

COUNT, HEIGHT, WIDTH = 6, 1080, 1920

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


def layers(model: str, fields: dict[str, torch.Tensor]) -> Layers:
    """Layers of noisy frames whose camera stands still."""
    torch.manual_seed(0)
    vectors, hidden = torch.zeros(COUNT - 1, 2, 288, 512), torch.zeros(COUNT - 1, 288, 512)
    flow = Flow(vectors, vectors, hidden, hidden, (HEIGHT, WIDTH), "exact")
    noise = torch.tensor([4e-4] * 3 + [0.0] * 3 + [4e-4]).view(1, 7, 1, 1).repeat(COUNT, 1, 1, 1)
    frames = torch.rand(COUNT, HEIGHT, WIDTH, 3)
    return Layers(model, {**fields, "noise": noise} if model != "segment" else fields, frames, flow)


def relit(device: str) -> Any:
    fields = {"log_gain": torch.full((COUNT, 1, 9, 16), 0.5), "colour": torch.zeros(COUNT, 3, 1, 1)}
    fields["gamma"] = torch.full((COUNT, 1, 1, 1), 0.7)
    return lambda: light.apply(layers("relight", fields), device=device)


def dehazed(device: str) -> Any:
    fields = {"transmission": torch.full((COUNT, 1, 54, 96), 0.5), "airlight": torch.full((COUNT, 3, 1, 1), 0.8)}
    return lambda: haze.apply(layers("dehaze", fields), device=device)


def emptied(device: str) -> Any:
    masks = torch.zeros(COUNT, 2, 288, 512)
    masks[:, 1, 60:200, 100:300] = 1.0
    masks[:, 0] = 1.0 - masks[:, 1]
    found = edits.edit(layers("segment", {"masks": masks}), "objects", Edit(visibility=0.0))
    return lambda: composite(found, device=device)


@pytest.mark.parametrize("work", [relit, dehazed, emptied])
def test_native_frames_keep_to_the_estimate(work):
    make = work("cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    make()
    estimate = host.native_memory(torch.empty(COUNT, HEIGHT, WIDTH, 3, device="meta"))
    assert torch.cuda.max_memory_allocated() - held <= estimate
