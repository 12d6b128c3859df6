"""Results of a batch: moved into place when they are complete, and looked for there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .manifest import explained

if TYPE_CHECKING:
    from .manifest import Entry, Manifest
    from .work import Outcome

__all__ = ["is_complete", "put_back", "put_in_place"]

OURS = ".vdp-batch"
"""An empty file in every folder of results, which says that a batch made it and may replace it."""
REPLACED = "work"
"""The folder beside those of work in progress to which results move that are being replaced."""
OLD = "old-"
"""Before their names there."""


def put_in_place(outcome: Outcome, entry: Entry, manifest: Manifest, state: Path) -> None:
    """Move a clip's results to the folder that is reserved for them, and note them in its entry.

    To be called while the manifest is ``shared``.

    What a batch left there before is replaced; what anybody else put there stays, and the results get another folder.

    Args:
        outcome: has a folder of results.
        entry: of the clip, in ``manifest``.
        manifest: of the output folder.
        state: the folder that holds those of work in progress.

    Raises:
        MediaError: the output folder cannot be written to.
    """
    from ...vdp_core.store.files import remove, with_name

    assert outcome.folder is not None
    target = manifest.folder / entry.folder
    with explained(target):
        (outcome.folder / OURS).touch()
        if target.exists() and not (target / OURS).exists():
            manifest.give_way(entry)
            target = manifest.folder / entry.folder
        old = state / REPLACED / f"{OLD}{entry.folder}"
        if target.exists():
            old.parent.mkdir(exist_ok=True)
            target.rename(old)
        while not with_name(outcome.folder, target):  # somebody else has just taken it
            manifest.give_way(entry)
            target = manifest.folder / entry.folder
        remove(old)
        with suppress(OSError):  # it is not there, or holds what a batch was replacing that was killed
            old.parent.rmdir()
        entry.outputs = [{"path": f"{entry.folder}/{path}", "bytes": _bytes(target / path)} for path in outcome.outputs]


def put_back(state: Path, folder: Path) -> None:
    """Put results back that were being replaced when a batch was killed, and whose successors have no name yet.

    To be called while the output folder is ``locked``.
    """
    from ...vdp_core.store.files import remove

    for old in (state / REPLACED).glob(f"{OLD}*"):
        target = folder / old.name.removeprefix(OLD)
        if not target.exists():
            old.rename(target)
    remove(state / REPLACED)


def is_complete(entry: Entry, folder: Path) -> bool:
    """Whether all results of an entry are in the output folder, of the size they were left with."""
    return all(_bytes(folder / output["path"]) == output["bytes"] for output in entry.outputs)


def _bytes(path: Path) -> int:
    """The size of a file, or of all files in a folder; -1 where nothing is."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else -1
