"""Tensors brought to a device and back without waiting for it.

A copy between CUDA and ordinary memory lets the CPU wait until the device has done all that it was told before, and the
device wait for what it is told next. From and to pinned memory a copy is one more operation in the device's queue: the
CPU goes on to read, decode, write and encode meanwhile. On the CPU itself there is nothing to bring.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

__all__ = ["fetch", "fetched", "send"]


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; from the CPU to CUDA the copy may be yet to come, before all that is done with it."""
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        # what is expanded has one place in memory for many elements, which torch refuses to pin
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def fetch(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin to bring a tensor to the CPU; what is returned gives it there, and waits for it only."""
    if tensor.device.type != "cuda":
        return tensor.cpu
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    done = torch.cuda.current_stream(tensor.device).record_event()

    def landed() -> Tensor:
        done.synchronize()
        return copy

    return landed


def fetched(runs: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """What a walk makes, on the CPU; what is on CUDA is given once the next has been asked for.

    So the device has work while it is looked at.
    """
    coming: deque[list[Callable[[], Tensor]]] = deque()
    for run in runs:
        coming.append([fetch(tensor) for tensor in run])
        behind = int(run[0].device.type == "cuda")
        del run  # it may be large, and the next is about to be made
        while len(coming) > behind:
            yield tuple(landed() for landed in coming.popleft())
    for last in coming:
        yield tuple(landed() for landed in last)
