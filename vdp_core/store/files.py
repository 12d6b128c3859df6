"""Files that appear whole or not at all, also when the process is killed."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

__all__ = ["beside", "held", "remove", "remove_left_overs", "scratch", "watching"]

MARK = re.compile(r"(\..+\.[0-9a-f]{8})\.lock")
"""A hidden file that is locked as long as the process lives that writes beside it."""
_watcher: ContextVar[Callable[[Path, Path], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Hand out a hidden sibling to write to, a file or a folder; it becomes ``target`` when the block ends well.

    When the block fails it is removed. When the process is killed it stays, and the next call in that folder removes
    it; that its writer is gone, a locked file beside it tells. Folders on the way are made.

    Raises:
        OSError: the folder cannot be written to, or the target not be replaced, such as a folder that is not empty.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _hidden(target.parent, target.stem, target.suffix) as partial:
        yield partial
        if partial.is_dir() and target.is_dir():
            target.rmdir()
        _flush_to_disk(partial)
        if (watcher := _watcher.get()) is not None:
            watcher(partial, target)
        partial.replace(target)


def _flush_to_disk(path: Path) -> None:
    """Have the disk take what was written, so that a name never outlives its content when the power fails."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb+") as written:
                os.fsync(written.fileno())


@contextmanager
def watching(watcher: Callable[[Path, Path], None]) -> Iterator[None]:
    """Inside the block, ``watcher(partial, target)`` is called just before anything whole gets its name."""
    before = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(before)


@contextmanager
def scratch(place: Path | None = None) -> Iterator[Path]:
    """Hand out a new temporary folder, removed after the block or, when the process is killed, by the next call.

    It lies in the system's folder for temporary files, unless another ``place`` is given.
    """
    with _hidden(place or Path(tempfile.gettempdir()), "vdp", "") as folder:
        folder.mkdir(mode=0o700)
        yield folder


@contextmanager
def _hidden(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    """Hand out a new hidden path, and remove what is there in the end, now or, after a kill, with the next call."""
    remove_left_overs(folder)
    stem = f".{stem}.{uuid.uuid4().hex[:8]}"
    partial = folder / f"{stem}.partial{suffix}"
    with held(folder / f"{stem}.lock"):
        try:
            yield partial
        finally:
            _remove_with_its_mark(partial)


@contextmanager
def held(mark: Path, *, wait: float = 10.0) -> Iterator[bool]:
    """Hold the lock of a file, which is made and in the end removed, inside the block or as long as the process lives.

    Yields whether it is held: it is not if another process holds it for as long as ``wait`` seconds, nor where the
    file system has no locks.
    """
    from filelock import FileLock

    lock = FileLock(mark)
    try:
        with suppress(OSError, NotImplementedError):  # also filelock's Timeout
            lock.acquire(timeout=wait)
        yield lock.is_locked
    finally:
        if lock.is_locked:
            lock.release()
            with suppress(OSError):  # Windows: another process is looking whether it is held
                mark.unlink(missing_ok=True)


def remove_left_overs(folder: Path) -> None:
    """Remove what processes that are gone had begun to write into a folder; what a live one writes stays."""
    for path in list(folder.iterdir()):
        mark = MARK.fullmatch(path.name)
        if mark is None:
            continue
        with held(path, wait=0.0) as is_left_over:
            if is_left_over:
                for partial in folder.glob(f"{glob.escape(mark[1])}.partial*"):
                    _remove_with_its_mark(partial)


def _remove_with_its_mark(partial: Path) -> None:
    """Remove what a process wrote, if it may; its mark goes next, and without a mark nobody would come back for it."""
    try:
        with suppress(OSError):  # of another user, or what went wrong is being said already
            remove(partial)
    finally:  # an interruption may have come in the middle of it
        with suppress(OSError):
            remove(partial)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
