"""What long work has found so far, kept on disk, so that it goes on where it was after the process was killed."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

__all__ = ["Checkpoint"]

FORMAT = "1"
_log = logging.getLogger(__name__)


class Checkpoint:
    """A folder of tensors under names, each a ``.safetensors`` file that is there whole or not at all.

    Work that may be repeated asks ``load`` first and tells ``save`` what it found. That what lies in the folder belongs
    to the same work on the same input, whoever chose the folder has to see to.
    """

    def __init__(self, folder: str | Path) -> None:
        """Take a folder, which is made with the first ``save``."""
        self.folder = Path(folder)

    def part(self, name: str) -> Checkpoint:
        """The checkpoint of one part of the work, in a folder of its own inside this one."""
        return Checkpoint(self.folder / name)

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """The tensors, on the CPU, and the notes that were saved under a name.

        None where there are none, and, with a warning in the log, where the file is damaged or no checkpoint.
        """
        from safetensors import SafetensorError, safe_open

        path = self._path(name)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("vdp_checkpoint") != FORMAT:
                    raise ValueError("no checkpoint of this version")
                notes = {str(key): str(note) for key, note in json.loads(metadata["notes"]).items()}
                # copies: what is mapped would be in the way of the next file of that name
                tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError, AttributeError, RecursionError) as error:
            _log.warning("%s is left aside: %s", path, error)
            return None
        return tensors, notes

    def save(self, name: str, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
        """Keep tensors and notes under a name, in place of what was kept under it.

        Where they cannot be written, a warning in the log says so, and the earlier ones stay: the work itself need not
        fail for it.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self._path(name)
        beside = path.with_name(f".{path.name}.part")
        metadata = {"vdp_checkpoint": FORMAT, "notes": json.dumps(dict(notes or {}))}
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
            _log.warning("no checkpoint could be written to %s (%s); the work goes on without", path, error)

    def clear(self) -> None:
        """Remove everything that is kept here."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlast a loss of power."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
