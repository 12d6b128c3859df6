"""What was computed is given again where the same is asked for: a small change then takes a small part of a run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["MEMO", "Memo", "digest"]

MOST = 2**30
"""Bytes of tensors that are kept: alpha and motion of some 200 frames of 512x288; of longer clips all is made anew."""


def digest(*parts: Tensor | int | float | str | bytes | None) -> bytes:
    """A number that tells inputs apart: shapes, types and every bit of the values count."""
    made = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            made.update(f"{part.dtype} {tuple(part.shape)} {part.device} ".encode())
            made.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        elif isinstance(part, bytes):
            made.update(f"bytes {len(part)} ".encode() + part)
        else:
            made.update(f"{type(part).__name__} {part!r} ".encode())
    return made.digest()


class _Made(NamedTuple):
    kept: Tensor
    """On the CPU: a GPU's memory is for work."""
    device: torch.device


class Memo:
    """Tensors by the digest of what they were made from; what was used longest ago is forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        """Keep so many bytes."""
        self._most = most
        self._kept: OrderedDict[bytes, _Made] = OrderedDict()
        self._lock = Lock()

    def __call__(self, key: bytes, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` gave for this key, which is nobody's to change; made now where it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found.kept.to(found.device)
        made = make().contiguous()
        if made.nbytes > self._most:  # it would push out all the others, and itself
            return made
        with self._lock:
            self._kept[key] = _Made(made.detach().cpu(), made.device)
            while self._kept and sum(one.kept.nbytes for one in self._kept.values()) > self._most:
                self._kept.popitem(last=False)
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()


MEMO = Memo()
"""That of this process."""
