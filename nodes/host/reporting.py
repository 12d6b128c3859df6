"""Progress, previews and interruption, in ComfyUI and headless."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from .comfy import OnStep, comfy_module, headless, say

if TYPE_CHECKING:
    import torch

__all__ = ["described", "fitting", "interruptible", "progress", "shown", "time_left"]

PREVIEW_EVERY = 1.0  # seconds between two preview pictures; each is encoded and sent to the browser
PREVIEW_SIDE = 512  # pixels of a preview's long side
TEXT_EVERY = 0.5  # seconds between two lines that say how far the work is


def _preview_picture(picture: torch.Tensor) -> tuple[str, Any, int]:
    """An ``(H, W, 3)`` picture in 0..1 in the form ComfyUI's progress bar takes."""
    from PIL import Image

    pixels = picture.detach().clamp(0.0, 1.0).mul(255.0).round().byte().cpu().numpy()
    return ("JPEG", Image.fromarray(pixels), PREVIEW_SIDE)


def interruptible() -> AbstractContextManager[object]:
    """Inside, in ComfyUI, every operation of torch first looks whether a person cancelled.

    Steps may take long (a frame of 4K, a pair of frames in RAFT on a CPU), and some work has none; so the button works
    at once everywhere without the core having to know of it.
    """
    management = comfy_module("comfy.model_management")
    if management is None:
        return nullcontext()
    from torch.overrides import TorchFunctionMode

    stop_if_cancelled = management.throw_exception_if_processing_interrupted

    class Interruptible(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            stop_if_cancelled()
            return func(*args, **(kwargs or {}))

    return Interruptible()


@contextmanager
def _comfy_progress(total: int, label: str, previews: bool) -> Iterator[OnStep]:
    # The bar remembers the running node when it is built, so it is built here and not once for all.
    bar = sys.modules["comfy.utils"].ProgressBar(total)
    management = sys.modules["comfy.model_management"]
    last_preview = 0.0
    last_text = time.monotonic()
    began: tuple[float, int] | None = None  # with the first step: what comes before it says nothing about the others

    def on_step(done: int, total: int, preview: Callable[[], torch.Tensor] | None = None) -> None:
        nonlocal last_preview, last_text, began
        management.throw_exception_if_processing_interrupted()
        picture = None
        if previews and preview is not None and time.monotonic() - last_preview >= PREVIEW_EVERY:
            picture = _preview_picture(preview())
            last_preview = time.monotonic()
        bar.update_absolute(done, total, picture)
        now = time.monotonic()
        began = began or (now, done)
        if now - last_text >= TEXT_EVERY:
            last_text = now
            say(f"{label}: {done}/{total}{time_left(done - began[1], total - began[1], now - began[0])}")

    yield on_step


def time_left(done: int, total: int, seconds: float) -> str:
    """How long the rest takes if it goes on as in the first ``seconds``, such as ``, 2 min 5 s left``, or nothing."""
    if not 0 < done < total:
        return ""
    left = round(seconds * (total - done) / done)
    return f", {left} s left" if left < 60 else f", {left // 60} min {left % 60} s left"


def shown(total: int, label: str, *, previews: bool = False) -> AbstractContextManager[OnStep]:
    """Like ``progress``, for a generator, which others run in between: only ``on_step`` stops the work."""
    return _comfy_progress(total, label, previews) if comfy_module("comfy.utils") else headless.progress(total, label)


@contextmanager
def progress(total: int, label: str, *, previews: bool = False) -> Iterator[OnStep]:
    """Show progress for a piece of work of ``total`` steps; yields the ``on_step`` to call.

    ``previews`` shows the pictures it is given in the node, which grows by them and keeps the last one.
    ``on_step`` and, in ComfyUI, every operation of torch inside raise the host's interruption when a person cancels:
    never catch it.
    """
    with shown(total, label, previews=previews) as on_step, interruptible():
        yield on_step


@contextmanager
def fitting(total: int, label: str) -> Iterator[OnStep]:
    """``progress`` for work that needs gradients.

    ComfyUI runs nodes under inference mode: gradients need it off, and inputs must be cloned inside (a view keeps it).
    """
    import torch

    with torch.inference_mode(False), progress(total, label, previews=True) as on_step:
        yield on_step


def described(frames: torch.Tensor) -> str:
    """A clip ``(T, H, W, ...)`` in words."""
    return f"{len(frames)} frame{'s' * (len(frames) != 1)} of {frames.shape[2]}x{frames.shape[1]}"
