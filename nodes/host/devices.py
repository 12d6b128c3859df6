"""Which device computes, how much it can hold, and where clips lie between nodes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from .comfy import T, comfy_module, headless

if TYPE_CHECKING:
    import torch

__all__ = [
    "device",
    "free_memory",
    "hand_on",
    "is_out_of_memory",
    "let_go",
    "make_room",
    "native_memory",
    "on_cpu",
    "use_half",
]


def device() -> torch.device:
    """The device to compute on.

    Raises:
        InputError: headless, CUDA was asked for and torch finds none.
    """
    import torch

    if management := comfy_module("comfy.model_management"):
        chosen = management.get_torch_device()
        # The fit needs gradients of operations that torch has on these two alone.
        return chosen if chosen.type in ("cuda", "cpu") else torch.device("cpu")

    if headless.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if headless.device == "cuda" and not torch.cuda.is_available():
        from ...vdp_core.errors import InputError

        raise InputError(
            f"device cuda was asked for, but torch {torch.__version__} finds no CUDA device; use cpu or auto"
        )
    return torch.device(headless.device)


def use_half(device: torch.device) -> bool:
    """Whether networks run faster in half precision on ``device``."""
    if management := comfy_module("comfy.model_management"):
        return bool(management.should_use_fp16(device))
    return device.type == "cuda"


def make_room(place: torch.device, memory: int) -> None:
    """Have ComfyUI unload models until this much memory is free."""
    if place.type != "cpu" and (management := comfy_module("comfy.model_management")):
        management.free_memory(memory, place)


def free_memory(place: torch.device) -> int | None:
    """How many bytes of a device's memory ComfyUI says are free; None headless and of the CPU: torch can tell."""
    management = comfy_module("comfy.model_management")
    if management is None or place.type == "cpu":
        return None
    return int(management.get_free_memory(place))


def let_go() -> None:
    """Give a device that is full back what torch has cached and does not use, and what the host's models hold."""
    management = comfy_module("comfy.model_management")
    if management is None:
        import torch

        torch.cuda.empty_cache()
        return
    management.unload_all_models()
    management.soft_empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a GPU has no room, in torch's words, cuBLAS's, cuDNN's or the host's."""
    import torch

    management = comfy_module("comfy.model_management")
    if management and hasattr(management, "is_oom") and management.is_oom(error):
        return True
    # cuBLAS and cuDNN say it in their own words
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in said or "alloc_failed" in said


def hand_on(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """IMAGEs and MASKs where and as the host wants them between nodes: the CPU and float32, unless it was told else.

    Long clips stay as they are, also under ``--gpu-only``: elsewhere or in another type they would have to be whole.
    """
    from ...vdp_core.store.lazy import LazyFrames

    management = comfy_module("comfy.model_management")
    if management is None:
        return tensors
    place = management.intermediate_device()
    dtype = getattr(management, "intermediate_dtype", None)  # releases from 0.18 on

    def handed(tensor: torch.Tensor) -> torch.Tensor:
        return (
            tensor if isinstance(tensor, LazyFrames) else tensor.to(place, tensor.dtype if dtype is None else dtype())
        )

    return tuple(map(handed, tensors))


def on_cpu(given: T) -> T:
    """An input as the core keeps clips, on the CPU and in one piece.

    With ``--gpu-only`` ComfyUI hands them on elsewhere, and nodes that crop or flip hand on views of larger tensors.
    """
    import torch

    if not isinstance(given, torch.Tensor) or given.is_meta:
        return given  # the core refuses what is no tensor, and looks at the shape of a stand-in
    return cast("T", given.cpu().contiguous())


NATIVE_BYTES = 600  # a pixel at native size: a frame, its neighbours along the flow, and blocks of them


def native_memory(frames: torch.Tensor) -> int:
    """About how many bytes it takes to work on some frames of a clip at its own size."""
    return NATIVE_BYTES * max(math.prod(frames.shape[1:3]), 2**20)
