"""What tests run in processes of their own."""

from __future__ import annotations

import signal
import time
from typing import Any

import torch
from torch import Tensor

from comfyui_vdp import nodes
from comfyui_vdp.nodes import host
from comfyui_vdp.runner.cli import main
from comfyui_vdp.vdp_core.optim import fit as fitting


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

            kept = host.checkpoint()
            fitting.fit(
                step,
                [made],
                steps=60,
                learning_rate=0.02,
                plateau=0.0,
                on_step=on_step,
                checkpoint=kept,
                generators=[generator],
            )
            return (made.detach().movedim(1, -1).clamp(0.0, 1.0),)


def learning(arguments: list[str]) -> int:
    """The ``vdp`` command with a node that learns; every step of an optimisation is kept."""
    nodes.NODE_CLASS_MAPPINGS["Learn"] = Learn
    fitting.SAVE_EVERY, fitting.SAVE_SHARE = 0.0, 1.0
    return main(arguments)
