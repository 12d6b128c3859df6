"""State of long work, kept on disk, so that the work goes on after the process was killed."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .scratch import large_empty

__all__ = ["NO_JOURNAL", "Journal", "Kept"]

FORMAT = "2"
_log = logging.getLogger(__name__)

Kept = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""Tensors, on the CPU where they were loaded, and notes, which are values of JSON."""


class Journal:
    """A folder of tensors and notes under names, each a ``.safetensors`` file that is there whole or not at all.

    Without a folder it keeps nothing. Whoever chooses the folder sees to it that it belongs to the same work on the
    same input.
    """

    def __init__(self, folder: str | Path | None) -> None:
        """Take a folder, which is made with the first ``save``, or None."""
        self.folder = None if folder is None else Path(folder)

    def part(self, name: str) -> Journal:
        """The journal of one part of the work, in a folder of its own inside this one."""
        return self if self.folder is None else Journal(self.folder / name)

    def step(self, name: str, make: Callable[[Journal], Kept]) -> Kept:
        """Give what is kept under a name, or make it and keep it.

        Args:
            name: of the step.
            make: does the work of the step, and may keep parts of it in the journal that it is given; they are removed
                once the whole is kept.
        """
        kept = self.load(name)
        if kept is None:
            part = self.part(name)
            kept = make(part)
            self.save(name, *kept)
            part.clear()
        return kept

    def load(self, name: str) -> Kept | None:
        """Give the tensors and the notes that were saved under a name.

        None where there are none, and, with a warning in the log, where the file is damaged or of another version.
        """
        if self.folder is None or not (path := _file(self.folder, name)).exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("vdp_journal") != FORMAT:
                    raise ValueError("no journal of this version")
                notes = dict(json.loads(metadata["notes"]).items())
                # copies: what is mapped would be in the way of the next file of that name
                tensors = {key: _copy(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError, AttributeError, RecursionError) as error:
            _log.warning("%s is left aside: %s", path, error)
            return None
        return tensors, notes

    def save(self, name: str, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> None:
        """Keep tensors and notes under a name, in place of what was kept under it.

        Where they cannot be written, a warning in the log says so, and the earlier ones stay: the work itself need not
        fail for it.
        """
        if self.folder is None:
            return
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = _file(self.folder, name)
        beside = path.with_name(f".{path.name}.part")
        metadata = {"vdp_journal": FORMAT, "notes": json.dumps(dict(notes or {}))}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, beside, metadata)
                _to_disk(beside)
                beside.replace(path)
                _to_disk(self.folder)
            finally:
                beside.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:  # safetensors hides a full disk in its own
            _log.warning("nothing could be kept in %s (%s); the work goes on without", path, error)

    def clear(self) -> None:
        """Remove everything that is kept here."""
        if self.folder is not None and self.folder.exists():
            shutil.rmtree(self.folder)


NO_JOURNAL = Journal(None)
"""Keeps nothing."""


def _copy(tensor: Tensor) -> Tensor:
    return large_empty(*tensor.shape, dtype=tensor.dtype).copy_(tensor)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlast a loss of power."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
