"""What tests run in processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from comfyui_vdp import nodes
from comfyui_vdp.nodes import host
from comfyui_vdp.runner.cli import main
from comfyui_vdp.vdp_core.optim import fit as fitting
from comfyui_vdp.vdp_core.store.files import beside, numbered, scratch


def ignoring_hangups(arguments: list[str]) -> int:
    """The ``vdp`` command as ``nohup`` starts it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code = main(arguments)
    print("still ignored" if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else "no longer ignored")
    return code


class Learn:
    """Pictures that only the whole of a noisy optimisation gives."""

    FUNCTION, RETURN_TYPES, CATEGORY = "learn", ("IMAGE",), "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"pause": ("FLOAT", {"default": 0.0})}}

    def learn(self, pause: float) -> tuple[Tensor]:
        with host.fitting(60, "Learning") as on_step:
            generator = torch.Generator().manual_seed(3)
            wanted = torch.rand(6, 3, 32, 48, generator=generator)
            made = torch.full((6, 3, 32, 48), 0.5, requires_grad=True)

            def step(index: int) -> dict[str, Tensor]:
                time.sleep(pause)
                noise = torch.rand(wanted.shape, generator=generator)
                return {"wrong": (noise * (made - wanted)).square().mean()}

            kept = host.journal()
            fitting.fit(
                step,
                [made],
                steps=60,
                learning_rate=0.02,
                plateau=0.0,
                on_step=on_step,
                journal=kept,
                generators=[generator],
            )
            return (made.detach().movedim(1, -1).clamp(0.0, 1.0),)


def learning(arguments: list[str]) -> int:
    """The ``vdp`` command with a node that learns; every step of an optimisation is kept."""
    nodes.NODE_CLASS_MAPPINGS["Learn"] = Learn
    fitting.SAVE_EVERY, fitting.SAVE_SHARE = 0.0, 1.0
    return main(arguments)


def batch(arguments: list[str], workers: Path) -> int:
    """``vdp batch`` whose workers are forked too, as this process is; their numbers are added to a file."""
    get_context, start = multiprocessing.get_context, BaseProcess.start

    def forking(method: str | None = None) -> Any:
        return get_context("forkserver" if method == "spawn" else method)

    def noted(process: BaseProcess) -> None:
        start(process)
        with workers.open("a") as file:
            file.write(f"{process.pid}\n")

    multiprocessing.get_context = forking  # type: ignore[assignment]
    BaseProcess.start = noted  # type: ignore[method-assign]
    return main(["batch", *arguments])


def writer(target: Path, kind: str, end: Path) -> None:
    """Write beside a target, a file, a folder or nothing, and hold on until a file ``end`` is there."""
    with beside(target) as partial:
        if kind == "file":
            partial.write_text("half")
        elif kind == "folder":
            partial.mkdir()
            (partial / "00000.png").touch()
        print("writing", flush=True)
        while not end.exists():
            time.sleep(0.01)


def scratcher() -> None:
    """Hold a temporary folder, with something in it, until killed."""
    with scratch() as folder:
        (folder / "preview.mp4").touch()
        print(folder, flush=True)
        time.sleep(600)


def numbered_writer(folder: Path, kind: str, end: Path) -> None:
    """Like ``writer``, with a number."""
    with numbered(folder, "clip") as place:
        if kind == "file":
            place.partial.write_text("half")
        else:
            place.partial.mkdir()
            (place.partial / "00000.png").touch()
        print("writing", flush=True)
        while not end.exists():
            time.sleep(0.01)


def saver(folder: Path, name: str, count: int, go: Path) -> None:
    """Save files and folders under numbers as fast as it goes, once a file ``go`` is there."""
    print("ready", flush=True)
    while not go.exists():
        time.sleep(0.001)
    for index in range(count):
        with numbered(folder, "clip") as place:
            if index % 2:
                place.partial.write_text(f"{name}-{index}")
            else:
                place.partial.mkdir()
                (place.partial / "0.png").write_text(f"{name}-{index}")
