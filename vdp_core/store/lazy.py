"""Clips of any length: frames that are made when they are looked at, and memory that is a temporary file.

A short clip is an ordinary tensor. A long one is a tensor too, of the right shape and type, but a stretch of its frames
is decoded or computed only when something works on it, and forgotten afterwards. What has to be whole all the same lies
in a file that the system pages in and out, and that is gone when its tensor is, or the process, however it ends.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import InputError, MediaError
from .guard import Walk, guarded

__all__ = ["LazyFrames", "computed", "computed_with_mask", "fits_in_memory", "large_empty", "remove_left_overs"]

SHARE = 32
"""A clip stays in memory while it takes less than one part in this many of what is free: several are in use at once."""
AT_ONCE = 96 * 2**20  # bytes of a stretch of frames that is small enough to be made as soon as it is asked for
RECENT = 3  # frames kept at least: noise removal has seen two more when it gives one, which is then read again
SKIP = 48  # frames it takes to reach a place by going on, rather than by starting again there
PREFIX = "vdp-frames-"


def fits_in_memory(size: int) -> bool:
    """Whether so many bytes of frames should be kept in memory rather than made again or laid into a file."""
    return size * SHARE <= psutil.virtual_memory().available


def large_empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Like ``torch.empty`` on the CPU, but what does not fit in memory is a temporary file, paged in and out.

    Raises:
        MediaError: the temporary folder has no room for it.
    """
    count = math.prod(shape)
    size = count * dtype.itemsize
    if fits_in_memory(size):
        return torch.empty(shape, dtype=dtype)
    remove_left_overs()
    folder = Path(tempfile.gettempdir())
    handle, name = tempfile.mkstemp(prefix=f"{PREFIX}{os.getpid()}-", dir=folder)
    try:
        _reserve(handle, size, folder)
        return torch.from_file(name, shared=True, size=count, dtype=dtype).view(shape)
    finally:
        os.close(handle)
        with suppress(PermissionError):  # Windows keeps a mapped file: remove_left_overs takes it away later
            Path(name).unlink()


def _reserve(handle: int, size: int, folder: Path) -> None:
    """Give the file its blocks now: a disk that fills up later would kill the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
        else:
            os.truncate(handle, size)
    except OSError as error:
        free = psutil.disk_usage(str(folder)).free
        raise MediaError(
            f"the clip needs {size / 2**30:.1f} GiB of temporary space and {folder} has {free / 2**30:.1f} GiB; take "
            "fewer frames (count) or smaller ones (max_side), or set TMPDIR to a larger disk"
        ) from error


def remove_left_overs() -> None:
    """Remove the temporary files of processes that are gone, where the system did not do so itself."""
    for file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = file.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            with suppress(OSError):
                file.unlink()


class _Reader:
    """Reads a walk at any place: the last frames are kept, and the walk goes on where it is near."""

    def __init__(self, walk: Walk, frame_bytes: int) -> None:
        self._walk = walk
        self._keep = max(RECENT, AT_ONCE // max(frame_bytes, 1))
        self._recent: OrderedDict[int, Tensor] = OrderedDict()
        self._runs: Iterator[Tensor] | None = None
        self._next = 0

    def frame(self, index: int) -> Tensor:
        """The frame itself, not a copy."""
        if index in self._recent:
            return self._recent[index]
        if self._runs is None or not self._next <= index < self._next + SKIP:
            self._runs, self._next = self._walk(index), index
        while self._next <= index:
            run = next(self._runs, None)
            if run is None:
                self._runs = None
                raise MediaError(f"frame {index} is no longer there: the clip changed while it was being read")
            for frame in run:
                self._recent[self._next] = frame
                self._next += 1
            while len(self._recent) > max(self._keep, len(run)):
                self._recent.popitem(last=False)
        return self._recent[index]


class LazyFrames(Tensor):
    """A clip ``(T, H, W, C)``, or a mask ``(T, H, W)``, float32 in 0..1, whose frames are made when they are needed.

    It may be sliced along time, asked for its shape and walked through; whatever else is done to it is done to all of
    its frames at once, which are then laid into memory that may be a file. A stretch that is short is made at once.
    """

    _reader: _Reader
    _places: range
    _pick: slice | int
    _made: Tensor | None

    @staticmethod
    def __new__(cls, reader: _Reader, places: range, shape: tuple[int, ...], pick: slice | int) -> LazyFrames:
        made = Tensor._make_wrapper_subclass(cls, (len(places), *shape), dtype=torch.float32)
        made._reader, made._places, made._pick, made._made = reader, places, pick, None
        return made

    @classmethod
    def over(cls, walk: Walk, shape: tuple[int, ...], *, pick: slice | int = slice(None)) -> LazyFrames:
        """Frames of a walk.

        Args:
            walk: gives frames ``(n, H, W, C)`` from any place on; the same ones each time.
            shape: ``(T, H, W, C)`` of what it gives, before ``pick``.
            pick: which of the channels.
        """
        channels = () if isinstance(pick, int) else (len(range(*pick.indices(shape[3]))),)
        reader = _Reader(walk, 4 * math.prod(shape[1:]))
        return cls(reader, range(shape[0]), (*shape[1:3], *channels), pick)

    def picked(self, pick: slice | int) -> LazyFrames:
        """Other channels of the same frames, which are made once for both as long as both are read side by side."""
        channels = () if isinstance(pick, int) else (pick.stop - pick.start,)
        return LazyFrames(self._reader, self._places, (*self.shape[1:3], *channels), pick)

    def runs(self, length: int = 1) -> Iterator[Tensor]:
        """All frames in turn, ``length`` of them at a time."""
        for start in range(0, len(self), length):
            yield self._stretch(self._places[start : start + length])

    def whole(self) -> Tensor:
        """All frames as an ordinary tensor, in memory or in a file; made once."""
        if self._made is None:
            made = large_empty(*self.shape)
            for index, place in enumerate(self._places):
                made[index] = self._frame(place)
            self._made = made
        return self._made

    def _frame(self, place: int) -> Tensor:
        return self._reader.frame(place)[..., self._pick]

    def _stretch(self, places: range) -> Tensor:
        if self._made is not None:
            start = self._places.index(places[0])
            step = places.step // self._places.step if len(places) > 1 else 1
            return self._made[start : start + step * len(places) : step]
        if len(places) == 1:  # no copy, where it can be helped: a frame may be large
            return self._frame(places[0]).contiguous()[None]
        return torch.stack([self._frame(place) for place in places])

    def _taken(self, key: Any) -> Tensor:
        """``self[key]``."""
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        if isinstance(first, int) and not isinstance(first, bool):
            place = self._places[first]  # raises where there is none
            frame = self._stretch(range(place, place + 1))[0]
            return frame[rest] if rest else frame
        if isinstance(first, (list, Tensor)) and not rest and (chosen := _numbers(first)) is not None:
            named = [self._places[at] for at in chosen]  # raises where there is none
            if not named:
                return torch.empty(0, *self.shape[1:])
            return _joined((self._stretch(range(place, place + 1)) for place in named), len(named))
        if isinstance(first, slice) and (first.step is None or first.step > 0):
            places, inside = self._places[first], (slice(None), *rest)
            if not places:
                return torch.empty(0, *self.shape[1:])[inside]
            if not rest and 4 * len(places) * math.prod(self.shape[1:]) > AT_ONCE:
                return LazyFrames(self._reader, places, tuple(self.shape[1:]), self._pick)
            if not rest:
                return self._stretch(places)
            cut = (self._stretch(places[at : at + 1])[inside] for at in range(len(places)))
            return _joined(cut, len(places))
        return self.whole()[key]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ABOUT:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        self = args[0] if args else None
        if isinstance(self, LazyFrames):
            if func is Tensor.__getitem__:
                return self._taken(args[1])
            if func is Tensor.__iter__:
                return (run[0] for run in self.runs())
            if func is Tensor.__repr__:
                return f"LazyFrames{tuple(self.shape)}"
            if func in _UNCHANGED or (func is Tensor.to and _keeps(args[1:], kwargs)):
                return self
        args, kwargs = tree_map(_whole, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares the old form of it
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map(_whole, (args, kwargs or {}))  # what torch itself calls from within
        return func(*args, **kwargs)


def _whole(value: Any) -> Any:
    return value.whole() if isinstance(value, LazyFrames) else value


_ABOUT = {
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.device.__get__,
    Tensor.layout.__get__,  # type: ignore[attr-defined]
    Tensor.ndim.__get__,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__,  # type: ignore[attr-defined]
    Tensor.is_sparse.__get__,  # type: ignore[attr-defined]
    Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
    Tensor.nbytes.__get__,  # type: ignore[attr-defined]
    Tensor.itemsize.__get__,  # type: ignore[attr-defined]
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.nelement,
    Tensor.element_size,
    Tensor.is_floating_point,
    Tensor.is_complex,
    Tensor.is_inference,
    Tensor.__len__,
    Tensor.__hash__,
}
"""What is known without the frames."""
_UNCHANGED = {Tensor.cpu, Tensor.contiguous, Tensor.float, Tensor.detach}
"""What changes nothing about float32 on the CPU."""


def _keeps(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``Tensor.to`` with these arguments leaves float32 on the CPU as it is."""
    if kwargs.get("copy"):
        return False
    like = torch.empty(0).to(*args, **kwargs)
    return like.dtype == torch.float32 and like.device.type == "cpu"


def _numbers(key: list[Any] | Tensor) -> list[int] | None:
    """The frames that a list or a tensor of whole numbers names, in turn."""
    if isinstance(key, Tensor):
        is_mask = key.dtype in (torch.bool, torch.uint8)
        return None if is_mask or key.is_floating_point() or key.ndim != 1 else key.tolist()
    return key if key and all(type(at) is int for at in key) else None


def _joined(parts: Iterator[Tensor], count: int) -> Tensor:
    """Put ``count`` parts ``(1, ...)`` together."""
    first = next(parts)
    made = large_empty(count, *first.shape[1:])
    made[:1] = first
    for index, part in enumerate(parts, 1):
        made[index : index + 1] = part
    return made


def computed(
    walk: Walk, shape: tuple[int, ...], *, on_step: Callable[[int, int, Callable[[], Tensor]], None] | None = None
) -> Tensor:
    """The frames of a walk: all of them now where they fit in memory, else each when it is needed.

    Args:
        walk: gives frames ``(n, ...)`` in 0..1 from any place on.
        shape: ``(T, H, W, C)``.
        on_step: told after every run of frames that is made now.
    """
    if not fits_in_memory(4 * math.prod(shape)):
        return LazyFrames.over(guarded(walk, shape[0]), shape)
    out = torch.empty(shape)
    done = 0
    for run in walk(0):
        out[done : done + len(run)] = run
        done += len(run)
        if on_step is not None:
            on_step(done, shape[0], run[-1].clone)
    if done != shape[0]:
        raise InputError(f"expected {shape[0]} frames, got {done}")
    return out


def computed_with_mask(
    walk: Callable[[int], Iterator[tuple[Tensor, Tensor]]],
    shape: tuple[int, ...],
    *,
    on_step: Callable[[int, int, Callable[[], Tensor]], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Like ``computed``, for frames ``(H, W, 3)`` that come with a mask ``(H, W)`` each."""
    count, height, width, _ = shape
    if not fits_in_memory(4 * math.prod(shape)):

        def four(start: int) -> Iterator[Tensor]:
            return (torch.cat((frame, mask[..., None]), dim=-1)[None].cpu() for frame, mask in walk(start))

        frames = LazyFrames.over(guarded(four, count), (count, height, width, 4), pick=slice(0, 3))
        return frames, frames.picked(3)
    out, masks = torch.empty(shape), torch.empty(shape[:3])
    for index, (frame, mask) in enumerate(walk(0)):
        out[index], masks[index] = frame, mask
        if on_step is not None:
            on_step(index + 1, count, frame.clone)
    return out, masks
