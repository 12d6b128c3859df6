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
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Place",
    "beside",
    "held",
    "is_live",
    "numbered",
    "placed",
    "remove",
    "remove_left_overs",
    "scratch",
    "watching",
    "with_name",
]

MARK = re.compile(r"(\..+\.[0-9a-f]{8})\.lock")
"""A hidden file that is locked as long as the process lives that writes beside it."""
RESERVED = ".reserved"
"""The end of the name of a hidden file that reserves a number; in it stands the name of the mark of who reserved it."""
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


@dataclass
class Place:
    """Where something new is written."""

    partial: Path
    """The hidden sibling to write to, a file or a folder."""
    target: Path
    """Its name in the end, which may become one of a higher number until then."""


@contextmanager
def numbered(folder: Path, name: str, suffix: str = "") -> Iterator[Place]:
    """Like ``beside``, but under the first number that nothing has, such as ``name_00001.mp4``: nothing is replaced.

    The number is reserved as long as the block runs, by a hidden file that only one process can make, so that others
    take the next ones. A name that somebody takes all the same, who knows nothing of this, is left to them, and the
    next number is taken. Everything that begins with the name and a number counts, whatever its suffix.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _hidden(folder, name, suffix) as partial:
        mark = _mark(partial).name
        reserved: list[Path] = []
        try:
            place = Place(partial, _reserve(folder, name, suffix, mark, reserved))
            yield place
            _flush_to_disk(partial)
            while True:
                if (watcher := _watcher.get()) is not None:
                    watcher(partial, place.target)
                if with_name(partial, place.target):
                    return
                place.target = _reserve(folder, name, suffix, mark, reserved)
        finally:
            for file in reserved:
                _remove_surely(file)


@contextmanager
def placed(folder: Path, name: str, suffix: str = "", *, is_numbered: bool) -> Iterator[Place]:
    """``numbered``, or ``beside`` under the plain name.

    Raises:
        OSError: see there.
    """
    if is_numbered:
        with numbered(folder, name, suffix) as place:
            yield place
    else:
        target = folder / (name + suffix)
        with beside(target) as partial:
            yield Place(partial, target)


def _reserve(folder: Path, name: str, suffix: str, mark: str, reserved: list[Path]) -> Path:
    """Reserve the first number that nothing has; the file that does so joins ``reserved``."""
    number = max(_numbers(folder, name), default=0) + 1
    while True:
        file = folder / f".{name}_{number:05}{RESERVED}"
        with suppress(FileExistsError), file.open("x") as made:
            reserved.append(file)
            made.write(mark)
            # between the look at the folder and now another may have finished under this number
            if number not in _numbers(folder, name):
                return folder / f"{name}_{number:05}{suffix}"
        number += 1


def _numbers(folder: Path, name: str) -> set[int]:
    """The numbers that a name has in a folder; compared without case, as Windows and macOS do."""
    pattern = re.compile(re.escape(name) + r"_(\d{5,})(?!\d)", re.IGNORECASE)
    return {int(match[1]) for path in folder.iterdir() if (match := pattern.match(path.name))}


def with_name(partial: Path, target: Path) -> bool:
    """Give what is whole its name, unless something has that name: then nothing is changed, and the answer is no.

    Raises:
        OSError: it cannot be had for another reason.
    """
    if os.path.lexists(target):
        return False
    try:
        if partial.is_dir() or os.name == "nt":  # neither takes the place of anything, but of an empty folder
            partial.rename(target)
            return True
        # A second name is refused where there is one already; renaming would replace what another has just finished.
        os.link(partial, target)
    except OSError:
        if os.path.lexists(target):
            return partial.exists() and partial.samefile(target)  # NFS may lose the answer to a link that was made
        if partial.is_dir() or os.name == "nt":
            raise
        partial.rename(target)  # a file system without hard links: the reservation has to do
        return True
    partial.unlink()
    return True


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
            _remove_surely(partial)


def _mark(partial: Path) -> Path:
    return partial.with_name(partial.name.partition(".partial")[0] + ".lock")


def is_live(partial: Path) -> bool:
    """Whether the process lives that was handed out a hidden path, such as by ``scratch``, and still writes there."""
    mark = _mark(partial)
    if not mark.exists():
        return False
    with held(mark, wait=0.0, stays=True) as is_left_over:  # what is left over goes with its mark, elsewhere
        return not is_left_over


@contextmanager
def held(mark: Path, *, wait: float = 10.0, stays: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is made if there is none, inside the block or as long as the process lives.

    Yields whether it is held: it is not if another process holds it for as long as ``wait`` seconds, nor where the
    file system has no locks. The file is removed in the end, unless it ``stays``: it must where others wait for it,
    since they would go on to hold what nobody sees any more.
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
            if not stays:
                with suppress(OSError):  # Windows: another process is looking whether it is held
                    mark.unlink(missing_ok=True)


def remove_left_overs(folder: Path) -> None:
    """Remove what processes that are gone had begun to write into a folder; what a live one writes stays."""
    there = list(folder.iterdir())
    for path in there:
        mark = MARK.fullmatch(path.name)
        if mark is None:
            continue
        with held(path, wait=0.0) as is_left_over:
            if is_left_over:
                for partial in folder.glob(f"{glob.escape(mark[1])}.partial*"):
                    _remove_surely(partial)
    nobody_writes = not any(MARK.fullmatch(path.name) for path in folder.iterdir())
    for path in there:
        if path.name.startswith(".") and path.name.endswith(RESERVED):
            with suppress(OSError, UnicodeDecodeError):  # it is gone by now
                mark_of = MARK.fullmatch(path.read_text())
                # an empty one is just being made, or its process was killed in that moment
                if nobody_writes or (mark_of is not None and not (folder / mark_of[0]).exists()):
                    _remove_surely(path)


def _remove_surely(path: Path) -> None:
    """Remove what a process wrote, if it may; its mark goes next, and without a mark nobody would come back for it."""
    try:
        with suppress(OSError):  # of another user, or what went wrong is being said already
            remove(path)
    finally:  # an interruption may have come in the middle of it
        with suppress(OSError):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
