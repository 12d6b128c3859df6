"""Temporary files that nobody sees: arrays that do not fit in memory, and frames that are made once and read anywhere.

They have no name, or lose it with their process, so that they are gone when their tensors are, or the process, however
it ends. They lie in the system's folder for temporary files (``TMPDIR``).
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from threading import Lock
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ..errors import MediaError
from .budget import SHARE, fits_in_memory, lies_in_memory, scratch_free
from .guard import Walk

__all__ = ["Scratch", "large_empty", "let_go", "mapped", "need_room"]

TOGETHER = 4  # of flow, masks and what is behind them, as many are held at a time, each about as large as a clip
WINDOW = 320  # frames that slide: where backgrounds are followed, those up to 150 before and after one are looked at
BACK = 16  # frames before the one asked for that are made as well when a walk goes back: clips are read backwards too
TOP = 65535.0
_mapped: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()
"""What holds the pages of tensors that are files, by their address."""


def large_empty(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Return a tensor like ``torch.empty``'s; on the CPU, one that does not fit in memory is a file, paged in and out.

    Raises:
        MediaError: the folder for temporary files has no room for it.
    """
    if torch.device(device).type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    # what is filled piece by piece may outlast the inference mode it was begun in
    with torch.inference_mode(False):
        if fits_in_memory(TOGETHER * size):
            return torch.empty(shape, dtype=dtype).zero_()  # touched now, so that it no longer counts as free
        need_room(size)
        with tempfile.TemporaryFile(prefix="vdp-") as file:
            try:
                return mapped(file.fileno(), size, dtype).view(shape)
            except OSError as error:
                raise _no_room(size) from error


def mapped(file: int, size: int, dtype: torch.dtype) -> Tensor:
    """The first bytes of an open file as a tensor, paged in and out; the file grows to hold them.

    Raises:
        OSError: the disk has no room for them.
    """
    if hasattr(os, "posix_fallocate"):  # its blocks now: a disk that fills up later would kill the process
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)
    pages = mmap.mmap(file, size)
    tensor = torch.frombuffer(pages, dtype=dtype)
    _mapped[tensor.data_ptr()] = pages
    return tensor


def let_go(tensor: Tensor) -> None:
    """Have what was looked at of a mapped tensor, or a view of one, leave memory; it is in the file."""
    pages = _mapped.get(tensor.untyped_storage().data_ptr())
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def need_room(size: int) -> None:
    """Refuse, before long work, what will take so many bytes if neither memory nor the temporary folder has them.

    Raises:
        MediaError: it does not.
    """
    if size > scratch_free() and not fits_in_memory(TOGETHER * size):
        raise _no_room(size)


def _no_room(size: int) -> MediaError:
    place = tempfile.gettempdir() + (", which lies in memory," if lies_in_memory() else "")
    return MediaError(
        f"the clip needs {size / 2**30:.1f} GiB of temporary space and {place} has {scratch_free() / 2**30:.1f} GiB; "
        "take fewer frames (count) or smaller ones (max_side), or set TMPDIR to a larger disk"
    )


class Scratch:
    """The frames of a walk, each laid into a temporary file when it is first made.

    The file takes a share of the free disk. Of a clip that needs more, the beginning stays and a window slides over the
    rest: what it has left is made again, from a little before the place asked for. Where the disk fills up all the
    same, the file stays as large as it is.

    Frames may be asked for by several threads, which wait for each other.
    """

    def __init__(
        self, walk: Walk, shape: tuple[int, ...], *, dtype: torch.dtype, skip: int, most: int | None = None
    ) -> None:
        """Make an empty file.

        Args:
            walk: gives the frames.
            shape: ``(T, H, W, C)`` of the clip.
            dtype: how frames are kept. float32 as they are; uint16 in half the room, which is exact for pictures of 8
                and 16 bits, and else rounds by at most 1 / 131070.
            skip: most frames to reach a place by going on rather than by starting a walk there.
            most: bytes to take at most.
        """
        self.count = shape[0]
        """How many frames there are; where that is found out later, a guess to begin with."""
        self._shape, self._dtype = shape[1:], dtype
        self._bytes = dtype.itemsize * math.prod(self._shape)
        room = scratch_free() // SHARE
        self._room = (room if most is None else min(room, most)) // self._bytes
        self._walk, self._skip = walk, skip
        self._runs: Iterator[Tensor] | None = None
        self._next = 0
        self._kept: dict[int, int] = {}
        """Where in the file the frames of the beginning lie,"""
        self._sliding: dict[int, int] = {}
        """and those of the window, the one that was laid down first at the head."""
        self._file = tempfile.TemporaryFile(prefix="vdp-", buffering=0)  # noqa: SIM115 (open as long as this is there)
        self._lock = Lock()

    @property
    def is_full(self) -> bool:
        """Whether the next frame would take the place of another."""
        return len(self._kept) + len(self._sliding) >= self._room

    def lay(self, index: int, frame: Tensor) -> None:
        """Keep a frame ``(H, W, C)`` in 0..1 that was made elsewhere."""
        with self._lock:
            self._lay(index, self._packed(frame))

    def frame(self, index: int) -> Tensor:
        """A copy of a frame, ``(H, W, C)`` float32 in 0..1.

        Raises:
            MediaError: the walk ends before it.
        """
        with self._lock:
            packed = self._read(index)
            if packed is None:
                packed = self._make(index)
        return packed if self._dtype == torch.float32 else packed.float().div_(TOP)

    def _packed(self, frame: Tensor) -> Tensor:
        """A copy of a frame as the file keeps it."""
        frame = frame.cpu()
        if self._dtype == torch.float32:
            return frame.clone(memory_format=torch.contiguous_format)
        return frame.mul(TOP).round_().clamp_(0.0, TOP).to(self._dtype).contiguous()

    def _read(self, index: int) -> Tensor | None:
        place = self._kept.get(index, self._sliding.get(index))
        if place is None:
            return None
        packed = torch.empty(self._shape, dtype=self._dtype)
        self._file.seek(place * self._bytes)
        unread = packed.numpy().data.cast("B")
        while unread:
            unread = unread[self._file.readinto(unread) :]
        return packed

    def _make(self, index: int) -> Tensor:
        """Have the walk go on to a frame, or start one there, and lay down what it gives."""
        if self._runs is None or not self._next <= index < self._next + self._skip:
            start = max(0, index - BACK) if index < self._next else index
            self._runs, self._next = self._walk(start), start
        runs, self._runs = self._runs, None  # a walk that fails is over
        found: Tensor | None = None
        while found is None:
            run = next(runs, None)
            if run is None:
                raise MediaError(f"frame {index} is no longer there: the clip changed while it was being read")
            for frame in run:
                packed = self._packed(frame)
                self._lay(self._next, packed)
                found = packed if self._next == index else found
                self._next += 1
        if self._next < self.count:  # else it goes, with all that it holds on to, perhaps on a GPU
            self._runs = runs
        return found

    def _lay(self, index: int, packed: Tensor) -> None:
        if index in self._kept or index in self._sliding:
            return
        if not self.is_full:
            place = len(self._kept) + len(self._sliding)
        elif self._sliding:
            place = self._sliding.pop(next(iter(self._sliding)))
        else:
            return
        try:
            self._file.seek(place * self._bytes)
            unwritten = packed.numpy().data.cast("B")
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]
        except OSError:  # the disk is full: what cannot be kept is made again
            self._room = len(self._kept) + len(self._sliding)
            return
        (self._kept if index < self._room - WINDOW else self._sliding)[index] = place
