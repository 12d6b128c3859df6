"""Where the nodes run: inside ComfyUI, or headless with the settings in ``headless``.

ComfyUI counts as present when its own modules are loaded already, which they always are when it runs a node. It is
never imported from here, so a ``comfy`` package that happens to be installed changes nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

    from ...vdp_core.store.journal import Journal

__all__ = [
    "Headless",
    "OnStep",
    "RunningNode",
    "comfy_module",
    "embed_metadata",
    "has_viewer",
    "headless",
    "ignore_step",
    "is_interruption",
    "journal",
    "keeping",
    "running",
    "running_node",
    "say",
]

T = TypeVar("T")
OnStep = Callable[[int, int, "Callable[[], torch.Tensor] | None"], None]
"""``on_step(done, total, preview)``; ``preview`` is None or gives an ``(H, W, 3)`` float picture in 0..1."""


def ignore_step(done: int, total: int, preview: Callable[[], torch.Tensor] | None = None) -> None:
    """Show no progress."""


def _quiet(total: int, label: str) -> AbstractContextManager[OnStep]:
    return nullcontext(ignore_step)


def _nowhere() -> Journal:
    from ...vdp_core.store.journal import NO_JOURNAL

    return NO_JOURNAL


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Headless:
    """What ComfyUI decides when it is there, and the runner when it is not."""

    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    output_folder: Path = Path("output")
    input_folder: Path | None = None
    """Where relative input paths are looked up before the working folder."""
    temp_folder: Path = Path(tempfile.gettempdir()) / "vdp"
    progress: Callable[[int, str], AbstractContextManager[OnStep]] = _quiet
    say: Callable[[str], None] = _to_stderr
    journal: Callable[[], Journal] = _nowhere


headless = Headless()
"""The settings that hold, one object for as long as the program runs; see ``running``."""


@contextmanager
def running(settings: Headless) -> Iterator[None]:
    """Let these settings hold inside the block."""
    before = vars(headless).copy()
    vars(headless).update(vars(settings))
    try:
        yield
    finally:
        vars(headless).update(before)


def comfy_module(module: str) -> Any:
    """The loaded ComfyUI module of this name, or None when ComfyUI is not running."""
    return sys.modules.get(module) if "comfy.model_management" in sys.modules else None


def journal() -> Journal:
    """Where the node that runs may keep what it has found so far, to go on from when it runs again after a kill.

    It keeps nothing where nobody wants that: in ComfyUI, and headless unless the runner was told to resume.
    """
    return _nowhere() if comfy_module("folder_paths") else headless.journal()


@contextmanager
def keeping(place: Callable[[], Journal]) -> Iterator[None]:
    """Let ``journal`` answer with ``place`` inside the block, which runs one node headless."""
    before, headless.journal = headless.journal, place
    try:
        yield
    finally:
        headless.journal = before


def is_interruption(error: Exception) -> bool:
    """Whether this is ComfyUI's way to stop a node, which some releases derive from Exception: let it pass."""
    management = comfy_module("comfy.model_management")
    return management is not None and isinstance(error, management.InterruptProcessingException)


def has_viewer() -> bool:
    """Whether somebody looks at what nodes show: headless nobody does."""
    return comfy_module("server") is not None


@dataclass(frozen=True)
class RunningNode:
    """In ComfyUI, a node that runs."""

    id: str
    prompt: Mapping[str, Any]
    """The graph, in the format of the API."""
    outputs: Sequence[str]
    """Ids of the nodes that the graph is run for."""


def running_node() -> RunningNode | None:
    """The node that runs in ComfyUI; None elsewhere."""
    server, execution = comfy_module("server"), comfy_module("comfy_execution.utils")
    context = execution.get_executing_context() if execution else None
    if server is None or context is None:
        return None
    queue = getattr(server.PromptServer.instance, "prompt_queue", None)
    for _, prompt_id, prompt, _, outputs, *_ in list(getattr(queue, "currently_running", {}).values()):
        if prompt_id == context.prompt_id and context.node_id in prompt:
            return RunningNode(context.node_id, prompt, outputs)
    return None


def embed_metadata(prompt: object, extra_pnginfo: object) -> dict[str, str]:
    """The graph in the form savers write into files, so that a result opens as the workflow that made it.

    Empty when ComfyUI was started with ``--disable-metadata``.
    """
    cli_args = comfy_module("comfy.cli_args")
    if cli_args and cli_args.args.disable_metadata:
        return {}
    metadata = {} if prompt is None else {"prompt": json.dumps(prompt)}
    if isinstance(extra_pnginfo, dict):
        metadata.update({str(name): json.dumps(value) for name, value in extra_pnginfo.items()})
    return metadata


def warned(text: str, *warnings: str) -> str:
    """A status line with warnings before it; empty ones are none."""
    found = [warning for warning in warnings if warning]
    return f"warning: {'; '.join([*found, text])}" if found else text


def say(text: str, *warnings: str) -> None:
    """Show one status line, see ``warned``: on the node that runs in ComfyUI, on stderr headless."""
    text = warned(text, *warnings)
    server = comfy_module("server")
    if server is None:
        headless.say(text)
        return
    execution = comfy_module("comfy_execution.utils")
    context = execution.get_executing_context() if execution else None
    if context is not None and hasattr(server.PromptServer.instance, "send_progress_text"):
        server.PromptServer.instance.send_progress_text(text, context.node_id)
