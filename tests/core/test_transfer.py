from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.store import transfer
from comfyui_vdp.vdp_core.store.transfer import fetch, fetched, send


def test_on_the_cpu_nothing_is_copied():
    picture = torch.rand(4, 5, 3)
    assert send(picture, "cpu") is picture
    assert fetch(picture)() is picture


def told(device: str, monkeypatch) -> list[str]:
    """What happens to three runs of two tensors each, in turn."""
    said: list[str] = []

    def begun(tensor):
        said.append(f"fetch {tensor.name}")
        return lambda: said.append(f"landed {tensor.name}")

    def walk():
        for number in range(3):
            said.append(f"make {number}")
            kept = SimpleNamespace(device=torch.device(device), name=f"frame {number}")
            yield kept, SimpleNamespace(device=torch.device(device), name=f"mask {number}")

    monkeypatch.setattr(transfer, "fetch", begun)
    for number, _ in enumerate(fetched(walk())):
        said.append(f"look at {number}")
    return said


def test_on_the_cpu_each_run_is_given_as_soon_as_it_is_made(monkeypatch):
    assert told("cpu", monkeypatch)[:6] == [
        *("make 0", "fetch frame 0", "fetch mask 0", "landed frame 0", "landed mask 0", "look at 0"),
    ]


def test_a_gpu_makes_the_next_run_while_one_is_looked_at(monkeypatch):
    said = [line for line in told("cuda", monkeypatch) if "mask" not in line]
    assert said == [
        *("make 0", "fetch frame 0", "make 1", "fetch frame 1", "landed frame 0", "look at 0"),
        *("make 2", "fetch frame 2", "landed frame 1", "look at 1", "landed frame 2", "look at 2"),
    ]


def test_no_runs_are_none():
    assert list(fetched([])) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nobody_waits_for_a_gpu():
    picture = torch.rand(512, 512)
    send(picture, "cuda").square_().sum().item()  # what is begun for the first time may wait
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        coming = fetch(send(picture, "cuda") * 2.0)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert_close(coming(), picture * 2.0)
