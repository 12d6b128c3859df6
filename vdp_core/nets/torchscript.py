"""Weights out of a TorchScript file, read as data: none of the program that it holds is run.

Such a file is a zip archive; its ``data.pkl`` pickles the modules as nested objects, whose tensors lie beside it.
torch's own reader builds the program too, and is deprecated.
"""

from __future__ import annotations

import collections
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_torchscript", "read_torchscript"]

KINDS = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MOST_MODULES = 100_000


def is_torchscript(path: Path) -> bool:
    """Whether a file is one, by what only such archives hold."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The tensors of the modules in a TorchScript file, by their names in a state dict.

    Raises:
        pickle.UnpicklingError, and what ``zipfile`` and ``pickle`` raise: it is damaged, or holds more than modules.
    """
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
        with archive.open(name) as file:
            root = _Reader(file, archive, name.removesuffix("data.pkl")).load()
    return _tensors(root)


class _Module:
    """What stands for a module of the program."""


class _Reader(pickle._Unpickler):
    """Builds modules without a class, and tensors; refuses everything else.

    In Python, and without arrays of bytes: else a damaged file gets memory for whatever it claims to hold.
    """

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _tensor
        if module == "torch" and name in KINDS:
            return KINDS[name]
        if module == "collections" and name == "OrderedDict":
            return collections.OrderedDict
        if module == "torch.jit._pickle":  # lists and dictionaries of one type, as they are
            return lambda values, *_: values
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no module or tensor")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        name = f"{self._folder}data/{key}"
        if self._archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # it might unpack to anything
            raise pickle.UnpicklingError("its tensors are compressed, which TorchScript's are not")
        data = bytearray(self._archive.read(name))
        return torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _tensor(stored: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if math.prod(size) > stored.numel():
        raise pickle.UnpicklingError("a tensor is larger than what is stored of it")
    return stored.as_strided(size, stride, offset).clone()  # raises where it leads outside


def _tensors(root: object) -> dict[str, Tensor]:
    found, waiting, count = {}, [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        count += 1
        if count > MOST_MODULES:
            raise pickle.UnpicklingError("its modules hold each other without end")
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
    return found
