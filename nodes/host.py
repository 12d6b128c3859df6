"""The one file that knows where the nodes run: inside ComfyUI, or headless with the settings in ``headless``.

ComfyUI counts as present when its own modules are loaded already, which they always are when it runs a node. It is
never imported from here, so a ``comfy`` package that happens to be installed changes nothing.
"""

from __future__ import annotations

import glob
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = [
    "Headless",
    "OnStep",
    "device",
    "embed_metadata",
    "fitting",
    "headless",
    "input_path",
    "is_there",
    "output_folder",
    "output_path",
    "prefix_verdict",
    "progress",
    "say",
    "temp_folder",
    "use_half",
    "weights_folders",
]

OnStep = Callable[[int, int, "Callable[[], torch.Tensor] | None"], None]
"""``on_step(done, total, preview)``; ``preview`` is None or gives an ``(H, W, 3)`` float picture in 0..1."""

PREVIEW_EVERY = 1.0  # seconds between two preview pictures; each is encoded and sent to the browser
PREVIEW_SIDE = 512  # pixels of a preview's long side


def _ignore_step(done: int, total: int, preview: Callable[[], torch.Tensor] | None = None) -> None:
    """Show no progress."""


def _quiet(total: int, label: str) -> AbstractContextManager[OnStep]:
    return nullcontext(_ignore_step)


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


headless = Headless()


def _comfy(module: str) -> Any:
    """The loaded ComfyUI module of this name, or None when ComfyUI is not running."""
    return sys.modules.get(module) if "comfy.model_management" in sys.modules else None


def device() -> torch.device:
    """The device to compute on.

    Raises:
        InputError: headless, CUDA was asked for and torch finds none.
    """
    import torch

    if management := _comfy("comfy.model_management"):
        chosen = management.get_torch_device()
        # The fit needs gradients of operations that torch has on these two alone.
        return chosen if chosen.type in ("cuda", "cpu") else torch.device("cpu")

    if headless.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if headless.device == "cuda" and not torch.cuda.is_available():
        from ..vdp_core.errors import InputError

        raise InputError(
            f"device cuda was asked for, but torch {torch.__version__} finds no CUDA device; use cpu or auto"
        )
    return torch.device(headless.device)


def use_half(device: torch.device) -> bool:
    """Whether networks run faster in half precision on ``device``."""
    if management := _comfy("comfy.model_management"):
        return bool(management.should_use_fp16(device))
    return device.type == "cuda"


def _preview_picture(picture: torch.Tensor) -> tuple[str, Any, int]:
    """An ``(H, W, 3)`` picture in 0..1 in the form ComfyUI's progress bar takes."""
    from PIL import Image

    pixels = picture.detach().clamp(0.0, 1.0).mul(255.0).round().byte().cpu().numpy()
    return ("JPEG", Image.fromarray(pixels), PREVIEW_SIDE)


@contextmanager
def _comfy_progress(total: int) -> Iterator[OnStep]:
    # The bar remembers the running node when it is built, so it is built here and not once for all.
    bar = sys.modules["comfy.utils"].ProgressBar(total)
    management = sys.modules["comfy.model_management"]
    last_preview = 0.0

    def on_step(done: int, total: int, preview: Callable[[], torch.Tensor] | None = None) -> None:
        nonlocal last_preview
        management.throw_exception_if_processing_interrupted()
        picture = None
        if preview is not None and time.monotonic() - last_preview >= PREVIEW_EVERY:
            picture = _preview_picture(preview())
            last_preview = time.monotonic()
        bar.update_absolute(done, total, picture)

    yield on_step


def progress(total: int, label: str) -> AbstractContextManager[OnStep]:
    """Show progress for a piece of work of ``total`` steps; yields the ``on_step`` to call.

    ``on_step`` raises the host's interruption when a person cancels: never catch it.
    """
    return _comfy_progress(total) if _comfy("comfy.utils") else headless.progress(total, label)


@contextmanager
def fitting(total: int, label: str) -> Iterator[OnStep]:
    """``progress`` for work that needs gradients.

    ComfyUI runs nodes under inference mode: gradients need it off, and inputs must be cloned inside (a view keeps it).
    """
    import torch

    with torch.inference_mode(False), progress(total, label) as on_step:
        yield on_step


def is_there(path: Path) -> bool:
    """Whether a file or folder is there; what cannot even be looked up is not."""
    try:
        return path.exists()
    except OSError:  # such as a name too long for the file system
        return False


def input_path(text: str) -> Path:
    """Where the file, folder or glob that a person typed is; quotes around it and ``~`` are understood.

    A relative path is looked up in the host's input folder, then in the working folder. Existence is not checked.

    Raises:
        InputError: the text is empty or no path at all.
    """
    from ..vdp_core.errors import InputError

    cleaned = text.strip().strip("\"'")
    if not cleaned:
        raise InputError("path is empty; give a video file, a folder of images or a glob such as frames/*.png")
    if "\0" in cleaned:
        raise InputError("path holds a zero character, which no file name can")
    path = Path(cleaned)
    if cleaned.startswith("~"):
        with suppress(RuntimeError):  # no user of that name: it is a file's
            path = path.expanduser()
    if path.is_absolute():
        return path
    folder_paths = _comfy("folder_paths")
    input_folder = Path(folder_paths.get_input_directory()) if folder_paths else headless.input_folder
    folders = [Path.cwd()] if input_folder is None else [input_folder, Path.cwd()]
    for folder in folders:
        # glob takes a plain name too, but not one with brackets in it; Path.glob refuses patterns such as "**.png"
        if is_there(folder / path) or next(glob.iglob(cleaned, root_dir=folder), None):  # noqa: PTH207
            return folder / path
    return folders[0] / path


def output_folder() -> Path:
    """The folder that results are written under."""
    folder_paths = _comfy("folder_paths")
    return Path(folder_paths.get_output_directory()) if folder_paths else headless.output_folder


def temp_folder() -> Path:
    """The folder for files that need not outlive the program; it exists."""
    folder_paths = _comfy("folder_paths")
    folder = Path(folder_paths.get_temp_directory()) if folder_paths else headless.temp_folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder


_given: set[Path] = set()  # output paths handed out but perhaps not written yet
_giving = threading.Lock()


def _split_prefix(prefix: str) -> tuple[Path, str]:
    """Folder and name that a prefix stands for, after every check that needs nothing to be written.

    Raises:
        InputError, MediaError: see output_path.
    """
    from ..vdp_core.errors import InputError, MediaError

    parts = [part for part in prefix.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or prefix.replace("\\", "/").endswith("/"):
        raise InputError(f"filename_prefix {prefix!r} names no file; give a name such as 'clip' or 'folder/clip'")
    if prefix.startswith(("/", "\\")) or PureWindowsPath(prefix).drive or ".." in parts:
        raise InputError(
            f"filename_prefix {prefix!r} leads outside the output folder; give a relative path without '..'"
        )
    if any(ord(character) < 32 for character in prefix) or max(len(part.encode()) for part in parts) > 200:
        raise InputError(f"filename_prefix {prefix!r} holds control characters or a name of more than 200 bytes")
    root = output_folder()
    folder = root.joinpath(*parts[:-1])
    try:
        inside = folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # links in a circle
        raise InputError(f"filename_prefix {prefix!r} cannot be followed: {error}") from error
    if not inside:
        raise InputError(f"filename_prefix {prefix!r} leads outside the output folder {root} through a link")
    there = next((place for place in (folder, *folder.parents) if is_there(place)), folder)
    if not there.is_dir():
        raise MediaError(f"the output folder {folder} cannot be used: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise MediaError(f"the output folder {folder} cannot be used: {there} is read-only; choose another")
    return folder, parts[-1]


def prefix_verdict(prefix: str | None) -> bool | str:
    """What a saver's VALIDATE_INPUTS answers: True, or why nothing can be saved under this prefix.

    Asked before anything runs, so that no long work is done in vain; a linked prefix is None here and known later.
    """
    if prefix is None:
        return True
    try:
        _split_prefix(prefix)
    except (ValueError, OSError) as error:  # what InputError and MediaError are
        return str(error)
    return True


def output_path(prefix: str) -> Path:
    """A new path below ``output_folder()``, without suffix, such as ``out/sub/name_00001`` for ``sub/name``.

    No file or folder whose name begins with it exists, and no other call was given it. Sub-folders are made.

    Raises:
        InputError: the prefix is empty, absolute, or leads outside the output folder (also through a link).
        MediaError: the folder cannot be made or is read-only.
    """
    from ..vdp_core.errors import MediaError

    folder, name = _split_prefix(prefix)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise MediaError(f"the output folder {folder} cannot be used: {error.strerror or error}") from error
    # Names are compared without case, as Windows and macOS do.
    numbered = re.compile(re.escape(name) + r"_(\d{5,})(?!\d)", re.IGNORECASE)
    counter = 1 + max((int(match[1]) for entry in taken if (match := numbered.match(entry))), default=0)
    with _giving:
        while (path := folder / f"{name}_{counter:05}") in _given:
            counter += 1
        _given.add(path)
    return path


def weights_folders() -> list[Path]:
    """ComfyUI's folders for optical flow weights; none headless."""
    folder_paths = _comfy("folder_paths")
    if not folder_paths:
        return []
    if "optical_flow" in folder_paths.folder_names_and_paths:
        return [Path(folder) for folder in folder_paths.get_folder_paths("optical_flow")]
    return [Path(folder_paths.models_dir) / "optical_flow"]  # releases before optical_flow became a folder of its own


def embed_metadata(prompt: object, extra_pnginfo: object) -> dict[str, str]:
    """The graph in the form savers write into files, so that a result opens as the workflow that made it.

    Empty when ComfyUI was started with ``--disable-metadata``.
    """
    cli_args = _comfy("comfy.cli_args")
    if cli_args and cli_args.args.disable_metadata:
        return {}
    metadata = {} if prompt is None else {"prompt": json.dumps(prompt)}
    if isinstance(extra_pnginfo, dict):
        metadata.update({str(name): json.dumps(value) for name, value in extra_pnginfo.items()})
    return metadata


def say(text: str, unique_id: str | None = None) -> None:
    """Show one status line: on the node in ComfyUI, on stderr headless."""
    server = _comfy("server")
    if server is None:
        headless.say(text)
    elif unique_id is not None and hasattr(server.PromptServer.instance, "send_progress_text"):
        server.PromptServer.instance.send_progress_text(text, unique_id)
