"""Results moved into place when they are complete."""

from __future__ import annotations

from pathlib import Path

__all__ = ["bytes_of"]

OURS = ".vdp-batch"
"""An empty file in every folder of results, which says that a batch made it and may replace it."""
OLD = "old-"
"""Before the name of results that are being replaced, in the folder of work in progress."""


def bytes_of(path: Path) -> int:
    """The size of a file, or of all files in a folder; -1 where nothing is."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else -1
