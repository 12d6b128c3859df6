"""The one file that knows where the nodes run: inside ComfyUI, or headless with the settings in ``headless``.

ComfyUI counts as present when its own modules are loaded already, which they always are when it runs a node. It is
never imported from here, so a ``comfy`` package that happens to be installed changes nothing.
"""

from __future__ import annotations

import glob
import json
import logging
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    import torch

    from ..vdp_core.store.journal import Journal

__all__ = [
    "Computed",
    "Headless",
    "OnStep",
    "changed",
    "compute",
    "described",
    "device",
    "embed_metadata",
    "fitting",
    "given_mask",
    "hand_on",
    "has_viewer",
    "headless",
    "input_path",
    "is_interruption",
    "is_there",
    "journal",
    "keeping",
    "native_memory",
    "on_cpu",
    "output_folder",
    "output_path",
    "prefix_verdict",
    "progress",
    "remember",
    "say",
    "temp_folder",
    "time_left",
    "use_half",
    "weights_folders",
]

T = TypeVar("T")

_log = logging.getLogger(__name__)

OnStep = Callable[[int, int, "Callable[[], torch.Tensor] | None"], None]
"""``on_step(done, total, preview)``; ``preview`` is None or gives an ``(H, W, 3)`` float picture in 0..1."""

PREVIEW_EVERY = 1.0  # seconds between two preview pictures; each is encoded and sent to the browser
PREVIEW_SIDE = 512  # pixels of a preview's long side
TEXT_EVERY = 0.5  # seconds between two lines that say how far the work is


def _ignore_step(done: int, total: int, preview: Callable[[], torch.Tensor] | None = None) -> None:
    """Show no progress."""


def _quiet(total: int, label: str) -> AbstractContextManager[OnStep]:
    return nullcontext(_ignore_step)


def _nowhere() -> Journal:
    from ..vdp_core.store.journal import NO_JOURNAL

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


def journal() -> Journal:
    """Where the node that runs may keep what it has found so far, to go on from when it runs again after a kill.

    It keeps nothing where nobody wants that: in ComfyUI, and headless unless the runner was told to resume.
    """
    return _nowhere() if _comfy("folder_paths") else headless.journal()


@contextmanager
def keeping(place: Callable[[], Journal]) -> Iterator[None]:
    """Let ``journal`` answer with ``place`` inside the block, which runs one node headless."""
    before, headless.journal = headless.journal, place
    try:
        yield
    finally:
        headless.journal = before


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


def _interruptible() -> AbstractContextManager[object]:
    """Inside, every operation of torch first looks whether a person cancelled.

    Steps may take long (a frame of 4K, a pair of frames in RAFT on a CPU), and some work has none; so the button works
    at once everywhere without the core having to know of it.
    """
    from torch.overrides import TorchFunctionMode

    stop_if_cancelled = sys.modules["comfy.model_management"].throw_exception_if_processing_interrupted

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

    with _interruptible():
        yield on_step


def time_left(done: int, total: int, seconds: float) -> str:
    """How long the rest takes if it goes on as in the first ``seconds``, such as ``, 2 min 5 s left``, or nothing."""
    if not 0 < done < total:
        return ""
    left = round(seconds * (total - done) / done)
    return f", {left} s left" if left < 60 else f", {left // 60} min {left % 60} s left"


def progress(total: int, label: str, *, previews: bool = False) -> AbstractContextManager[OnStep]:
    """Show progress for a piece of work of ``total`` steps; yields the ``on_step`` to call.

    ``previews`` shows the pictures it is given in the node, which grows by them and keeps the last one.
    ``on_step`` and, in ComfyUI, every operation of torch inside raise the host's interruption when a person cancels:
    never catch it.
    """
    return _comfy_progress(total, label, previews) if _comfy("comfy.utils") else headless.progress(total, label)


@contextmanager
def fitting(total: int, label: str) -> Iterator[OnStep]:
    """``progress`` for work that needs gradients.

    ComfyUI runs nodes under inference mode: gradients need it off, and inputs must be cloned inside (a view keeps it).
    """
    import torch

    with torch.inference_mode(False), progress(total, label, previews=True) as on_step:
        yield on_step


@dataclass(frozen=True)
class Computed(Generic[T]):
    """What ``compute`` gives."""

    result: T
    device: torch.device
    """Where it was computed in the end."""
    seconds: float
    warning: str = ""
    """What went otherwise than asked for, else empty."""

    def told(self, text: str) -> str:
        """A status line: the warning, the text, time and device."""
        line = f"{text}, {self.seconds:.1f} s on {self.device}"
        return f"warning: {self.warning}; {line}" if self.warning else line


def compute(
    label: str,
    total: int,
    work: Callable[[torch.device, OnStep], T],
    *,
    memory: int,
    gradients: bool = False,
    previews: bool = True,
) -> Computed[T]:
    """Run ``work(device, on_step)`` on the host's device, with room made for it, and tidy up behind it.

    Out of memory on a GPU, the host's models are unloaded and the work is done again; if that is not enough, once more
    on the CPU, with a warning. What ``work`` allocated is let go in between.

    Args:
        label: what to call the work.
        total: how many steps it has, if they can be told beforehand.
        work: may run more than once.
        memory: about how many bytes of the GPU's it needs; the host unloads other models to make room.
        gradients: whether the work needs them, see ``fitting``.
        previews: whether to show the pictures it gives on the way.
    """
    import torch

    started = time.perf_counter()
    place, warning = device(), ""
    _make_room(place, memory)
    # a second try on the same device makes sense only where there is something that can be unloaded
    places = [place, place] if _comfy("comfy.model_management") else [place]
    if place.type != "cpu":
        places.append(torch.device("cpu"))
    shown = fitting if gradients else partial(progress, previews=previews)
    try:
        for tries, place in enumerate(places, 1):
            try:
                with shown(total, label) as on_step:
                    result = work(place, on_step)
                break
            except RuntimeError as error:
                if place.type == "cpu" or tries == len(places) or not _is_out_of_memory(error):
                    raise
            # out here the error is gone, and with it what its traceback held
            _let_go(place, unload=True)
            warning = f"{label} ran out of memory on {place}"
            _log.warning("%s; trying again", warning)
    finally:
        _let_go(places[0])
    if place.type == "cpu" and warning:
        warning += ", so it ran on the CPU; use smaller frames or fewer to stay on the GPU"
    else:
        warning = ""
    return Computed(result, place, time.perf_counter() - started, warning)


def _make_room(place: torch.device, memory: int) -> None:
    """Have ComfyUI unload models until this much memory is free."""
    if place.type != "cpu" and (management := _comfy("comfy.model_management")):
        management.free_memory(memory, place)


def _let_go(place: torch.device, *, unload: bool = False) -> None:
    """Give memory that is cached but not used back to the device; on ``unload`` also what the host's models hold."""
    if place.type == "cpu":
        return
    management = _comfy("comfy.model_management")
    if management is None:
        import torch

        torch.cuda.empty_cache()
        return
    if unload:
        management.unload_all_models()
    management.soft_empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch

    management = _comfy("comfy.model_management")
    if management and hasattr(management, "is_oom") and management.is_oom(error):
        return True
    # cuBLAS and cuDNN say it in their own words
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in said or "alloc_failed" in said


def is_interruption(error: Exception) -> bool:
    """Whether this is ComfyUI's way to stop a node, which some releases derive from Exception: let it pass."""
    management = _comfy("comfy.model_management")
    return management is not None and isinstance(error, management.InterruptProcessingException)


def hand_on(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """IMAGEs and MASKs where and as the host wants them between nodes: the CPU and float32, unless it was told else."""
    management = _comfy("comfy.model_management")
    if management is None:
        return tensors
    place = management.intermediate_device()
    dtype = getattr(management, "intermediate_dtype", None)  # releases from 0.18 on
    return tuple(tensor.to(place, tensor.dtype if dtype is None else dtype()) for tensor in tensors)


def on_cpu(given: T) -> T:
    """An input as the core keeps clips, on the CPU and in one piece.

    With ``--gpu-only`` ComfyUI hands them on elsewhere, and nodes that crop or flip hand on views of larger tensors.
    """
    import torch

    # what is no tensor, the core refuses
    return cast("T", given.cpu().contiguous()) if isinstance(given, torch.Tensor) else given


NATIVE_BYTES = 600  # a pixel at native size: a frame, its neighbours along the flow, and blocks of them


def native_memory(frames: torch.Tensor) -> int:
    """About how many bytes it takes to work on some frames of a clip at its own size."""
    return NATIVE_BYTES * max(math.prod(frames.shape[1:3]), 2**20)


def described(frames: torch.Tensor) -> str:
    """A clip ``(T, H, W, ...)`` in words."""
    return f"{len(frames)} frame{'s' * (len(frames) != 1)} of {frames.shape[2]}x{frames.shape[1]}"


EMPTY_MASK = (1, 64, 64)  # what ComfyUI's loaders of pictures give where there is no alpha: nothing selected


def given_mask(mask: Any) -> Any:
    """A mask as other nodes give it, or None for the empty 64x64 one that stands for no mask.

    Some segmenters give a list with a mask for each picture: it becomes one batch. Anything else passes as it is, for
    the core to check.

    Raises:
        ShapeError: masks of different sizes in a list.
    """
    import torch

    if isinstance(mask, (list, tuple)) and mask and all(isinstance(part, torch.Tensor) for part in mask):
        parts = [part[None] if part.ndim == 2 else part for part in mask]
        if len({part.shape[1:] for part in parts}) > 1:
            from ..vdp_core.errors import ShapeError

            sizes = " and ".join(sorted({f"{part.shape[-1]}x{part.shape[-2]}" for part in parts}))
            raise ShapeError(f"mask: the masks in the list are of {sizes} pixels; all must have one size")
        mask = torch.cat(parts)
    if isinstance(mask, torch.Tensor) and tuple(mask.shape) == EMPTY_MASK and not bool(mask.any()):
        return None
    return mask


@dataclass
class _Read:
    path: Path
    state: str
    answer: str


_reads: dict[str, _Read] = {}  # what nodes with a linked path read last, by the id of the node


def remember(node: str | None, path: Path, state: Callable[[Path], str]) -> None:
    """Keep what a node reads, for ``changed``."""
    if node is not None:
        _reads[node] = _Read(path, state(path), _reads[node].answer if node in _reads else "")


def changed(node: str | None, path: str | None, state: Callable[[Path], str]) -> str:
    """What a reader's IS_CHANGED answers: another text once the file is another.

    A linked path is None here. Then the file that the node read last is looked at, and the answer stays as it is as
    long as that file does: nothing is read again for nothing.

    Args:
        node: its id.
        path: as a person typed it.
        state: what tells two states of a file apart.
    """
    if path is not None:
        return state(input_path(path))
    last = _reads.get(node or "")
    if last is None:
        return ""
    now = state(last.path)
    if now != last.state:
        last.state = last.answer = now
    return last.answer


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

    cleaned = text.strip()
    if len(cleaned) > 1 and cleaned[0] == cleaned[-1] and cleaned[0] in "\"'":
        cleaned = cleaned[1:-1]
    if not cleaned:
        raise InputError("path is empty; give a video file, a folder of images or a glob such as frames/*.png")
    try:
        os.fsencode(cleaned)
    except UnicodeEncodeError as error:
        raise InputError(f"path {cleaned[:200]!r} holds half a character, which no file name can") from error
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
        if is_there(folder / path):
            return folder / path
        # Path.glob refuses patterns such as "**.png"
        if glob.has_magic(cleaned) and next(glob.iglob(cleaned, root_dir=folder), None):  # noqa: PTH207
            return Path(glob.escape(str(folder))) / path
    return folders[0] / path


def output_folder() -> Path:
    """The folder that results are written under."""
    folder_paths = _comfy("folder_paths")
    return Path(folder_paths.get_output_directory()) if folder_paths else headless.output_folder


def has_viewer() -> bool:
    """Whether somebody looks at what nodes show: headless nobody does."""
    return _comfy("server") is not None


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
    sizes = [len(part.encode(errors="replace")) for part in parts]
    if any(ord(character) < 32 or "\ud800" <= character <= "\udfff" for character in prefix) or max(sizes) > 200:
        raise InputError(f"filename_prefix {prefix[:200]!r} holds control characters or a name of more than 200 bytes")
    if sum(sizes) > 1000 or len(parts) > 20:
        raise InputError(
            f"filename_prefix {prefix[:200]!r}... is too long; give at most 20 folders and 1000 bytes in all"
        )
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


def say(text: str) -> None:
    """Show one status line: on the node that runs in ComfyUI, on stderr headless."""
    server = _comfy("server")
    if server is None:
        headless.say(text)
        return
    running = _comfy("comfy_execution.utils")
    context = running.get_executing_context() if running else None
    if context is not None and hasattr(server.PromptServer.instance, "send_progress_text"):
        server.PromptServer.instance.send_progress_text(text, context.node_id)
