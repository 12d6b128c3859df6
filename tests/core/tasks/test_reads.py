"""Fits look at what is on the device every tenth step and at the end, and not in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from comfyui_vdp.vdp_core.denoise import temporal
from comfyui_vdp.vdp_core.models import haze, light, render
from comfyui_vdp.vdp_core.optim.fit import READ_EVERY, Fitted, fit
from comfyui_vdp.vdp_core.store import transfer
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.atlas import paper as atlas_paper
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Layers

FITS = {
    "relight": ("tasks.relight.find", {}),
    "dehaze": ("tasks.dehaze.clip", {}),
    "segment": ("tasks.segment.classifier", {}),
    "atlas": ("tasks.segment.classifier", {}),
    "relight, paper": ("tasks.paper", {"preset": "paper"}),
    "atlas, paper": ("tasks.atlas.paper", {"preset": "paper"}),
}
STEPS = 34
"""Neither a multiple of ten nor is its half."""


class Reads(TorchDispatchMode):
    """Counts what makes a GPU wait for the CPU, or the CPU for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.adam = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        waits = func.overloadpacket in (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.lift_fresh)
        by_mask = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        self.count += (waits or by_mask) and not self.adam
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch) -> Iterator[Reads]:
    """What Adam reads are its own counters, which are on the CPU wherever the parameters are."""
    mode = Reads()
    step = torch.optim.Adam.step

    def adam(self, *arguments, **named):
        mode.adam = True
        try:
            return step(self, *arguments, **named)
        finally:
            mode.adam = False

    monkeypatch.setattr(torch.optim.Adam, "step", adam)
    for name in ("tolist", "numpy", "cpu"):  # on a CPU these are no operations
        original = getattr(torch.Tensor, name)

        def counted(self, *arguments, original: Callable[..., object] = original, **named):
            mode.count += 1
            return original(self, *arguments, **named)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return mode


@pytest.fixture(autouse=True)
def little_work(monkeypatch) -> None:
    """A step of the published atlas takes seconds as it is."""
    presets = TASKS["atlas"].presets
    config = presets["paper"].config
    few = replace(config, samples=64, masks=replace(config.masks, steps=4))
    monkeypatch.setitem(presets, "paper", replace(presets["paper"], config=few))
    monkeypatch.setattr(atlas_paper, "LEAST", STEPS)


def watch(monkeypatch, place: str, watched: Callable[..., Fitted]) -> None:
    monkeypatch.setattr(import_module(f"comfyui_vdp.vdp_core.{place}"), "fit", watched)


def run(synthetic, name: str, device: str = "cpu") -> None:
    _, settings = FITS[name]
    task = name.split(",")[0]
    clip = synthetic.layered(4, 32, 48) if "preset" in settings else synthetic.layered(6, 64, 96)
    decompose(task, clip.frames, clip.flow, **{"preset": "fast", **settings}, steps=STEPS, device=device)


@pytest.mark.parametrize(
    "read",
    [
        float,
        lambda x: x.tolist(),
        lambda x: bool(x > 0),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.new_tensor([1.0]),
    ],
)
def test_a_read_is_counted(reads, read):
    with reads:
        read(torch.ones(()).mul(2.0))
    assert reads.count == 1


@pytest.mark.parametrize("name", FITS)
def test_nothing_is_read_between_tenth_steps(synthetic, monkeypatch, reads, name):
    fits = []

    def watched(*arguments, steps: int, on_step: object, **settings) -> Fitted:
        at: list[int] = []
        fits.append((steps, at))
        with reads:
            reads.count = 0

            def note(done: int, *_: object) -> None:
                at.extend([done] * reads.count)
                reads.count = 0

            fitted = fit(*arguments, steps=steps, on_step=note, **settings)
        assert reads.count > 0  # the terms, at the end
        return fitted

    watch(monkeypatch, FITS[name][0], watched)
    run(synthetic, name)
    assert len(fits) >= 1
    for steps, at in fits:
        assert at == list(range(READ_EVERY, steps + 1, READ_EVERY))


def noisy_layers(synthetic, task: str) -> Layers:
    """Layers of six frames with noise to take out."""
    clip = synthetic.layered(6, 64, 96)
    layers = decompose(task, clip.frames, clip.flow, preset="fast", steps=2)
    noise = torch.tensor([4e-4] * 3 + [0.0] * 3 + [4e-4]).view(1, 7, 1, 1).expand(6, 7, 1, 1)
    return replace(layers, fields={**layers.fields, "noise": noise})


@pytest.mark.parametrize(("task", "model", "each"), [("relight", light, 0), ("dehaze", haze, 1)])
def test_frames_are_made_without_a_read(synthetic, monkeypatch, reads, task, model, each):
    """But for the first of a shot, whose noise is looked up, and the number ``guide_eps``, which is on the CPU."""
    layers = noisy_layers(synthetic, task)
    for module in (transfer, temporal):
        monkeypatch.setattr(module, "fetch", lambda tensor: lambda: tensor)
    monkeypatch.setattr(render, "PIXELS_AT_ONCE", 1)
    counts: list[int] = []
    with reads:
        model.apply(layers, on_step=lambda *_: counts.append(reads.count))
    assert [count - counts[0] for count in counts] == [each * index for index in range(6)]


@contextmanager
def waiting(mode: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_every_task_is_watched():
    solved = {"deflicker", "matte"}  # linear systems, a few sweeps, no loop of steps
    assert TASKS.keys() - solved <= FITS.keys()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", FITS)
def test_a_gpu_is_waited_for_every_tenth_step_only(synthetic, monkeypatch, name):
    def watched(step, *arguments, steps: int, **settings) -> Fitted:
        def strict(index: int):
            # until the next step begins; the first prepares libraries, the last reads the terms
            may_wait = index == 0 or index + 1 == steps or (index + 1) % READ_EVERY == 0
            torch.cuda.set_sync_debug_mode("default" if may_wait else "error")
            return step(index)

        return fit(strict, *arguments, steps=steps, **settings)

    watch(monkeypatch, FITS[name][0], watched)
    with waiting("default"):
        run(synthetic, name, "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("task", "model"), [("relight", light), ("dehaze", haze)])
def test_a_gpu_is_not_waited_for_between_frames(synthetic, monkeypatch, task, model):
    monkeypatch.setattr(render, "PIXELS_AT_ONCE", 1)
    layers = noisy_layers(synthetic, task)
    with waiting("default"):
        # the first prepares libraries, and its noise is looked up
        model.apply(layers, device="cuda", on_step=lambda *_: torch.cuda.set_sync_debug_mode("error"))
