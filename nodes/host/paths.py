"""Where inputs are looked up and results are written."""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from pathlib import Path, PureWindowsPath

from .comfy import comfy_module, headless

__all__ = [
    "input_path",
    "input_verdict",
    "is_there",
    "output_folder",
    "output_path",
    "prefix_verdict",
    "temp_folder",
    "weights_folders",
]


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
    from ...vdp_core.errors import InputError, MediaError
    from ...vdp_core.media.source import find_names, is_pattern

    cleaned = text.strip()
    if len(cleaned) > 1 and cleaned[0] == cleaned[-1] and cleaned[0] in "\"'":
        cleaned = cleaned[1:-1]
    if not cleaned:
        raise InputError("path is empty; give a video file, a folder of images or a pattern such as frames/*.png")
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
    folder_paths = comfy_module("folder_paths")
    input_folder = Path(folder_paths.get_input_directory()) if folder_paths else headless.input_folder
    folders = [Path.cwd()] if input_folder is None else [input_folder, Path.cwd()]
    for folder in folders:
        if is_there(folder / path):
            return folder / path
        pattern = Path(glob.escape(str(folder))) / path
        with suppress(MediaError):  # which its reader raises too
            if is_pattern(cleaned) and next(find_names(str(pattern)), None):
                return pattern
    return folders[0] / path


def output_folder() -> Path:
    """The folder that results are written under."""
    folder_paths = comfy_module("folder_paths")
    return Path(folder_paths.get_output_directory()) if folder_paths else headless.output_folder


def temp_folder() -> Path:
    """The folder for files that need not outlive the program; it exists."""
    folder_paths = comfy_module("folder_paths")
    folder = Path(folder_paths.get_temp_directory()) if folder_paths else headless.temp_folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _split_prefix(prefix: str) -> tuple[Path, str]:
    """Folder and name that a prefix stands for, after every check that needs nothing to be written.

    Raises:
        InputError, MediaError: see output_path.
    """
    from ...vdp_core.errors import InputError, MediaError

    parts = [part for part in prefix.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or prefix.replace("\\", "/").endswith("/"):
        raise InputError(f"filename_prefix {prefix!r} names no file; give a name such as 'clip' or 'folder/clip'")
    if drive := PureWindowsPath(prefix).drive:
        raise InputError(
            f"filename_prefix {prefix!r} names a drive ({drive}), which leads outside the output folder; give a "
            "relative path without ':'"
        )
    if prefix.startswith(("/", "\\")) or ".." in parts:
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


def input_verdict(path: str | None, what: str, *, folders: bool = False) -> bool | str:
    """What a loader's VALIDATE_INPUTS answers: True, or that a path leads to no file, nor, if it may, to a folder.

    A linked path is None here and known when the loader runs.
    """
    if path is None:
        return True
    try:
        found = input_path(path)
    except ValueError as error:
        return str(error)
    if is_there(found) and (found.is_file() or (folders and found.is_dir())):
        return True
    return f"path: there is no {what} {found}"


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
    """The path below ``output_folder()`` that a prefix stands for, such as ``out/sub/name`` for ``sub/name``.

    Sub-folders are made. Number and suffix are added when it is written, see ``vdp_core.store.files.numbered``.

    Raises:
        InputError: the prefix is empty, absolute, or leads outside the output folder (also through a link).
        MediaError: the folder cannot be made or is read-only.
    """
    from ...vdp_core.errors import MediaError

    folder, name = _split_prefix(prefix)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"the output folder {folder} cannot be used: {error.strerror or error}") from error
    return folder / name


def weights_folders(kind: str = "optical_flow") -> list[Path]:
    """ComfyUI's folders for weights of some kind, such as ``optical_flow``; none headless."""
    folder_paths = comfy_module("folder_paths")
    if not folder_paths:
        return []
    if kind in folder_paths.folder_names_and_paths:
        return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]
    return [Path(folder_paths.models_dir) / kind]  # no folder of its own, or not yet in older releases
