"""Clips of any length: frames that are read, or made, when they are looked at.

A short clip is an ordinary tensor. A long one is a tensor too, of the right shape and type, whose frames lie in a
temporary file: those of a decoded clip from the beginning, those that are computed once something has looked at them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import InputError
from .budget import fits_in_memory
from .guard import Walk, guarded
from .scratch import Scratch, large_empty
from .transfer import fetched

__all__ = ["LazyFrames", "Source", "computed", "computed_with_mask", "floats", "later"]

AT_ONCE = 96 * 2**20  # bytes of a stretch of frames that is small enough to be made as soon as it is asked for
WINDOW = 4 * 2**30  # bytes of computed frames that are kept: most are read once, in order
SKIP = 8  # computed frames it takes to reach a place by going on, rather than by starting again there


class Source(Protocol):
    """Where the frames of a long clip come from."""

    def frame(self, index: int) -> Tensor:
        """A frame ``(H, W, C)``, or ``(H, W)``, float32 in 0..1, which is the caller's to keep."""
        ...


class LazyFrames(Tensor):
    """A clip ``(T, H, W, C)``, or a mask ``(T, H, W)``, float32 in 0..1, whose frames are read when they are needed.

    It may be sliced, along time and within its frames, asked for its shape and walked through; whatever else is done to
    it is done to all of its frames at once, which are then laid into memory that may be a file. What is small is made
    at once.
    """

    _source: Source
    _places: range
    _cuts: tuple[tuple[Any, ...], ...]
    _made: Tensor | None

    @staticmethod
    def __new__(
        cls, source: Source, places: range, shape: tuple[int, ...], cuts: tuple[tuple[Any, ...], ...] = ()
    ) -> LazyFrames:
        made = Tensor._make_wrapper_subclass(cls, (len(places), *shape), dtype=torch.float32)
        made._source, made._places, made._cuts, made._made = source, places, cuts, None
        return made

    @classmethod
    def of(cls, source: Source, shape: tuple[int, ...]) -> LazyFrames:
        """All frames of a source, whose clip has this shape."""
        return cls(source, range(shape[0]), shape[1:])

    @classmethod
    def over(cls, walk: Walk, shape: tuple[int, ...]) -> LazyFrames:
        """Frames of a walk, ``(T, H, W, C)``, kept as they are made."""
        return cls.of(Scratch(walk, shape, dtype=torch.float32, skip=SKIP, most=WINDOW), shape)

    def cut(self, *key: Any) -> LazyFrames:
        """The same part of each frame: ``frame[key]``, of numbers, slices, None and ``...``."""
        shape = torch.empty(self.shape[1:], device="meta")[key].shape
        return LazyFrames(self._source, self._places, tuple(shape), (*self._cuts, key))

    def runs(self, length: int = 1) -> Iterator[Tensor]:
        """All frames in turn, ``length`` of them at a time."""
        for start in range(0, len(self), length):
            yield self._stretch(self._places[start : start + length])

    def __iter__(self) -> Iterator[Tensor]:  # torch's own would make all frames first
        return (run[0] for run in self.runs())

    def whole(self) -> Tensor:
        """All frames as an ordinary tensor, in memory or in a file; made once."""
        if self._made is None:
            made = large_empty(*self.shape)
            for index, place in enumerate(self._places):
                made[index] = self._frame(place)
            self._made = made
        return self._made

    def _frame(self, place: int) -> Tensor:
        frame = self._source.frame(place)
        for key in self._cuts:
            frame = frame[key]
        return frame

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
        if first is Ellipsis and sum(part is not None for part in rest) < self.ndim:
            first, rest = slice(None), key
        if isinstance(first, int) and not isinstance(first, bool):
            place = self._places[first]  # raises where there is none
            frame = self._stretch(range(place, place + 1))[0]
            return frame[rest] if rest else frame
        if isinstance(first, (list, Tensor)) and not rest and (chosen := _numbers(first)) is not None:
            named = [self._places[at] for at in chosen]  # raises where there is none
            made = large_empty(len(named), *self.shape[1:])
            for index, place in enumerate(named):
                made[index] = self._stretch(range(place, place + 1))[0]
            return made
        plain = all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in rest)
        if plain and isinstance(first, slice) and (first.step is None or first.step > 0):
            if self._made is not None:
                return self._made[key]
            part = LazyFrames(self._source, self._places[first], tuple(self.shape[1:]), self._cuts)
            part = part.cut(*rest) if rest else part
            if part.numel() == 0:
                return torch.empty(part.shape)
            return part if part.nbytes > AT_ONCE else part._stretch(part._places)
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
    Tensor.is_meta.__get__,  # type: ignore[attr-defined]
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


class _Integers:
    """Frames in whole numbers, of which the largest stands for 1."""

    def __init__(self, frames: Tensor) -> None:
        self._frames, self._top = frames, torch.iinfo(frames.dtype).max

    def frame(self, index: int) -> Tensor:
        return self._frames[index].float().div_(self._top)


def floats(frames: Tensor) -> Tensor:
    """Frames or masks ``(T, ...)`` of 8 or 16 bits, which may lie in a file, as float32 in 0..1.

    All of them now where they fit in memory, else each when it is looked at.
    """
    made = LazyFrames.of(_Integers(frames), tuple(frames.shape))
    return made.whole() if fits_in_memory(made.nbytes) else made


def computed(
    walk: Walk, shape: tuple[int, ...], *, on_step: Callable[[int, int, Callable[[], Tensor]], None] | None = None
) -> Tensor:
    """The frames of a walk: all of them now where they fit in memory, else each when it is needed.

    Args:
        walk: gives frames ``(n, ...)`` in 0..1 from any place on, on any device.
        shape: ``(T, H, W, C)``.
        on_step: told after every run of frames that is made now.
    """
    if not fits_in_memory(4 * math.prod(shape)):
        return later(walk, shape)
    out = torch.empty(shape)
    done = 0
    for run in _on_cpu(walk(0)):
        out[done : done + len(run)] = run
        done += len(run)
        if on_step is not None:
            on_step(done, shape[0], run[-1].clone)
    if done != shape[0]:
        raise InputError(f"expected {shape[0]} frames, got {done}")
    return out


def _on_cpu(runs: Iterator[Tensor]) -> Iterator[Tensor]:
    # (by map, which holds on to no frame while the next is made)
    return map(itemgetter(0), fetched(map(_alone, runs)))


def _alone(run: Tensor) -> tuple[Tensor]:
    return (run,)


def later(walk: Walk, shape: tuple[int, ...]) -> LazyFrames:
    """The frames of a walk, which are made when they are looked at, of a short clip too: see ``computed``."""
    return LazyFrames.over(guarded(lambda start: _on_cpu(walk(start)), shape[0]), shape)


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
            return (torch.cat((frame, mask[..., None]), dim=-1)[None] for frame, mask in walk(start))

        frames = later(four, (count, height, width, 4))
        return frames.cut(..., slice(0, 3)), frames.cut(..., 3)
    out, masks = torch.empty(shape), torch.empty(shape[:3])
    for index, (frame, mask) in enumerate(fetched(walk(0))):
        out[index], masks[index] = frame, mask
        if on_step is not None:
            on_step(index + 1, count, frame.clone)
    return out, masks
