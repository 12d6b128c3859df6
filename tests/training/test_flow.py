"""Training of the flow network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from comfyui_vdp.training import flow as training
from comfyui_vdp.vdp_core.nets.flow import FlowRefiner

SIZE = (64, 96)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Three pairs of noise that moves three pixels to the right; the starts say that it rests."""
    monkeypatch.setattr(training, "SIZE", SIZE)
    monkeypatch.setattr(training, "PERTURBED", 0.0)
    pool = training.open_pool(tmp_path, 3)
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = np.kron(rng.integers(0, 255, (16, 24, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        for frame, seen in enumerate((picture, np.roll(picture, 3, axis=1))):
            read = seen[..., [0, 1, 2, 0]].transpose(2, 0, 1)
            pool.read[number, frame] = torch.from_numpy(read.copy())
        pool.flow[number, 0, 0], pool.flow[number, 1, 0] = 3.0, -3.0
    pool.visible.fill_(1)
    pool.done.fill_(1)
    return tmp_path


def state(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "state.pt", weights_only=True)["net"]


def test_training_that_is_cut_off_goes_on_to_the_same_weights(pool):
    training.train(pool, 4, batch=2, every=2, tell=lambda _: None)
    whole = state(pool)
    (pool / "state.pt").unlink()
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(pool, 4, batch=2, every=1, tell=stop)
    training.train(pool, 4, batch=2, every=1, tell=lines.append)
    for name, value in state(pool).items():
        assert torch.equal(value, whole[name]), name


def test_it_learns_and_what_it_exports_loads(pool):
    lines: list[str] = []
    training.train(pool, 40, batch=2, rate=2e-3, every=10, tell=lines.append)
    first, *_, last = (json.loads(line) for line in lines)
    assert first["start_0"] == pytest.approx(3.0, abs=0.01)
    assert last["loss"] < first["loss"]
    training.export(pool, pool / "weights.safetensors")
    weights = load_file(pool / "weights.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    FlowRefiner().load_state_dict(weights)
