"""Memory that runs out: on a GPU, where the CPU takes over, and on the machine, where nothing does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.models import light, render
from comfyui_vdp.vdp_core.motion import flow
from comfyui_vdp.vdp_core.store import lazy
from comfyui_vdp.vdp_core.tasks import driver

WORKFLOWS = Path(__file__).parents[2] / "workflows"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def relit(vdp: Run, clip: Callable[..., Path]) -> Callable[[str], tuple[int, list[str], str]]:
    def call(output: str) -> tuple[int, list[str], str]:
        settings = (f"Clip.path={clip(4)}", "Flow.model=dis", "Optimize.preset=fast", "Optimize.steps=4")
        pairs = [part for setting in (*settings, "Result.format=png") for part in ("--set", setting)]
        code, out, err = vdp("run", WORKFLOWS / "relight.json", "--output-dir", output, *pairs)
        return code, json.loads(out.splitlines()[-1])["outputs"] if code == 0 else [], err

    return call


def test_a_gpu_without_room(relit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node that ran out of memory says so and is done on the CPU, with the result of a run without a GPU."""
    code, plain, _ = relit("plain")
    assert code == 0
    monkeypatch.setattr(host.work, "device", lambda: torch.device("cuda"))
    tried: list[str] = []

    def without_room(function: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            if torch.device(more.get("device", "cpu")).type == "cuda":
                tried.append(function.__name__)
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return function(*arguments, **more)

        return call

    monkeypatch.setattr(driver, "decompose", without_room(driver.decompose))
    monkeypatch.setattr(light, "apply", without_room(light.apply))
    monkeypatch.setattr(flow, "estimate_flow", without_room(flow.estimate_flow))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    code, made, err = relit("out")
    assert code == 0, err
    assert {"decompose", "apply"} <= set(tried)
    assert "Flow ran out of memory on cuda, so it ran on the CPU; lower max_side to stay on the GPU" in err
    assert err.count("so it ran on the CPU; use smaller frames or fewer to stay on the GPU") == len(tried) - 1
    assert torch.equal(video.read_clip(made[0]).frames, video.read_clip(plain[0]).frames)


def test_a_gpu_without_room_for_a_long_clip(relit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames that the GPU has no room for, while another node looks at them, are made on the CPU."""
    code, plain, _ = relit("plain")
    assert code == 0
    monkeypatch.setattr(lazy, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(host.work, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    estimate, decompose, less_noisy = flow.estimate_flow, driver.decompose, render.less_noisy
    made: list[tuple[str, int]] = []

    def on_cpu(function: Any) -> Any:
        return lambda *arguments, **more: function(*arguments, **{**more, "device": "cpu"})

    def full_after_two(layers: Any, start: int, stop: int, clean: Any, amount: float, device: Any) -> torch.Tensor:
        if torch.device(device).type == "cuda" and start == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        made.append((str(device), start))
        return less_noisy(layers, start, stop, clean, amount, "cpu")

    monkeypatch.setattr(flow, "estimate_flow", on_cpu(estimate))
    monkeypatch.setattr(driver, "decompose", on_cpu(decompose))
    monkeypatch.setattr(render, "clean_frames", on_cpu(render.clean_frames))
    monkeypatch.setattr(render, "less_noisy", full_after_two)
    monkeypatch.setattr(render, "PIXELS_AT_ONCE", 1)
    code, found, err = relit("out")
    assert code == 0, err
    assert set(made) == {("cuda", 0), ("cuda", 1), ("cpu", 2), ("cpu", 3)}
    assert err.count("Relight ran out of memory on cuda, so it ran on the CPU; use smaller frames or fewer") == 1
    assert "4 frames of 64x48, made when they are needed on cuda" in err
    assert torch.equal(video.read_clip(found[0]).frames, video.read_clip(plain[0]).frames)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_a_machine_without_room(relit: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(driver, "decompose", full)
    code, _, err = relit("out")
    assert code == 3
    last = err.splitlines()[-1]
    assert "Optimize" in last and "ran out of memory; use fewer frames (count, every_nth) or smaller ones" in last
    assert [path for path in Path("out").rglob("*") if path.is_file()] == []
