"""Pretrained weights: where they are looked for, how they are fetched, read, and brought to torchvision's names."""

from __future__ import annotations

import glob
import http.client
import logging
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from .torchscript import is_torchscript, read_torchscript

__all__ = [
    "fetch_weights",
    "fill",
    "find_weights",
    "hub_folder",
    "named_weights",
    "read_networks",
    "read_weights",
    "to_torchvision_raft",
]

log = logging.getLogger(__name__)
SUFFIXES = (".safetensors", ".pth", ".pt", ".torchscript")
# What torch raises on bytes that are no weights depends on where its reading derails.
_DAMAGED = (
    *(RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OverflowError),
    *(pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error),
)


def hub_folder() -> Path:
    """Where torch and torchvision keep what they download."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(patterns: Sequence[str], folders: Iterable[str | Path]) -> Path | None:
    """Return the first weights file that matches, or None.

    The given folders come in their order and the torch hub cache last, each with its subfolders; within a folder
    earlier patterns win.

    Args:
        patterns: file name patterns without suffix, such as ``raft_large*``.
        folders: where to look; those that do not exist are passed over.
    """
    for folder in (*map(Path, folders), hub_folder()):
        if not folder.is_dir():
            continue
        for pattern in patterns:
            for path in sorted(folder.rglob(pattern)):
                if path.suffix.lower() in SUFFIXES and path.is_file():
                    return path
    return None


def named_weights(name: str, files: Sequence[str], folders: Iterable[str | Path], *, source: str) -> Path:
    """The weights that a person names.

    Args:
        name: ``auto`` for the first of ``files`` that is found; a file's name, with its suffix or without, in the
            folders or in torch's hub cache; or a path.
        files: patterns of file names without suffix, the best first.
        folders: where to look before torch's hub cache.
        source: which file to get, and where; what a person is told where there is none.

    Raises:
        WeightsError: there is no such file.
    """
    folders, name = list(folders), name.strip().strip("\"'")
    path = Path(name).expanduser() if name and "\0" not in name else Path()
    if name not in ("", "auto") and path.is_file():
        return path
    patterns = files if name in ("", "auto") else [f"{glob.escape(name)}*"]
    found = find_weights(patterns, folders) if len(path.parts) <= 1 else None
    if found is not None:
        return found
    what = "no weights are found" if name in ("", "auto") else f"there is no '{name}'"
    places = " or ".join(map(str, [*folders, hub_folder()]))
    raise WeightsError(f"weights: {what}; get {source} and put it into {places}, or give the path of a file")


def fetch_weights(url: str, *, otherwise: str) -> Path:
    """Download a weights file into the torch hub cache, whole and checked against the hash in its name, or not at all.

    The log says so first.

    Args:
        url: its address; the name ends in ``-`` and the first digits of its SHA-256, as torch's own do.
        otherwise: what else a person can do, the end of the sentence when it fails.

    Raises:
        WeightsError: the address cannot be reached, the file is damaged, or the folder cannot be written.
    """
    name = PurePosixPath(urlparse(url).path).name
    target = hub_folder() / name
    if target.is_file():
        return target
    digits = re.search(r"-([0-9a-f]{8,})\.", name)
    if digits is None:
        raise WeightsError(f"{name}: its name holds no checksum, so it is not downloaded from {url}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A warning, so that it is seen everywhere: nothing else here ever reaches for the network.
        log.warning("downloading weights, because they were asked for and are missing: %s to %s", url, target.parent)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=digits.group(1), progress=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        # URLError is an OSError; a wrong checksum is a RuntimeError.
        raise WeightsError(
            f"{name}: cannot be downloaded from {url} ({error}); "
            f"put the file into {target.parent} yourself, or {otherwise}"
        ) from error
    return target


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read ``.safetensors``, or ``.pth`` and TorchScript as data only, never as code.

    Raises:
        WeightsError: unreadable, damaged, or not a table of tensors.
    """
    path = Path(path)
    table = _read(path)
    if isinstance(table, dict) and isinstance(table.get("state_dict"), dict):
        table = table["state_dict"]
    if not _is_table(table):
        raise WeightsError(f"{path}: holds no table of weights; give a state dict")
    return table


def read_networks(path: str | Path, names: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Read the weights of several networks that one ``.pth`` holds, each under its name, as data only.

    Raises:
        WeightsError: unreadable, damaged, or without one of them.
    """
    tables = _read(Path(path))
    found: dict[str, dict[str, Tensor]] = {}
    for name in names:
        table = tables.get(name) if isinstance(tables, dict) else None
        if not _is_table(table):
            raise WeightsError(f"{path}: holds no table of weights named '{name}'; give another checkpoint")
        found[name] = table
    return found


def fill(net: nn.Module, path: str | Path, *, otherwise: str) -> None:
    """Give a network the weights of a file; where it names them otherwise, those of one shape in the file's order.

    Args:
        net: takes them.
        path: see ``read_weights``.
        otherwise: what else a person can do, the end of the sentence when they do not fit.

    Raises:
        WeightsError: unreadable, damaged, or of another network.
    """
    found = {name.removeprefix("module."): value for name, value in read_weights(path).items()}
    own = net.state_dict()
    if found.keys() != own.keys() and len(found) == len(own):
        there: dict[torch.Size, list[Tensor]] = {}
        for value in found.values():
            there.setdefault(value.shape, []).append(value)
        found = {name: there[value.shape].pop(0) for name, value in own.items() if there.get(value.shape)}
    if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in own.items()}:
        raise WeightsError(f"{path}: its weights are of another network; {otherwise}")
    net.load_state_dict(found)


def _is_table(value: Any) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(weight, Tensor) for name, weight in value.items())
    )


def _read(path: Path) -> Any:
    """What a file of weights holds.

    Raises:
        WeightsError: it is unreadable or damaged, or holds more than data.
    """
    try:
        if not path.is_file():
            raise WeightsError(f"{path}: there is no such file")
        if path.suffix.lower() == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise WeightsError(f"{path}: not a whole .safetensors file ({error}); download it again") from error
        if is_torchscript(path):
            return read_torchscript(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle protocol that torch does not write, but reads
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from error
    except _DAMAGED as error:
        raise WeightsError(f"{path}: damaged, or holds more than weights; download it again") from error


# The names of https://github.com/princeton-vl/RAFT, and torchvision's for the same layers. In the residual blocks
# "norm3" (large) and "norm4" (small) are the same module as "downsample.1", stored twice.
_RAFT_NAMES: tuple[tuple[str, str | None], ...] = (
    (r"(fnet|cnet)\.layer\d\.\d\.norm[34]\..*", None),
    (r"fnet\.(.*)", r"feature_encoder.\1"),
    (r"cnet\.(.*)", r"context_encoder.\1"),
    (r"(\w+_encoder)\.conv1\.(\w+)", r"\1.convnormrelu.0.\2"),
    (r"(\w+_encoder)\.norm1\.(\w+)", r"\1.convnormrelu.1.\2"),
    (r"(\w+_encoder)\.conv2\.(\w+)", r"\1.conv.\2"),
    (r"(\w+_encoder\.layer\d\.\d)\.conv(\d)\.(\w+)", r"\1.convnormrelu\2.0.\3"),
    (r"(\w+_encoder\.layer\d\.\d)\.norm(\d)\.(\w+)", r"\1.convnormrelu\2.1.\3"),
    (r"update_block\.encoder\.convc(\d)\.(\w+)", r"update_block.motion_encoder.convcorr\1.0.\2"),
    (r"update_block\.encoder\.convf(\d)\.(\w+)", r"update_block.motion_encoder.convflow\1.0.\2"),
    (r"update_block\.encoder\.conv\.(\w+)", r"update_block.motion_encoder.conv.0.\1"),
    (r"update_block\.gru\.conv([zrq])\.(\w+)", r"update_block.recurrent_block.convgru1.conv\1.\2"),
    (r"update_block\.gru\.conv([zrq])(\d)\.(\w+)", r"update_block.recurrent_block.convgru\2.conv\1.\3"),
    (r"update_block\.mask\.0\.(\w+)", r"mask_predictor.convrelu.0.\1"),
    (r"update_block\.mask\.2\.(\w+)", r"mask_predictor.conv.\1"),
)


def to_torchvision_raft(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return RAFT weights under torchvision's names; those of the original authors' files are translated.

    Both name the same network, so ``raft-things.pth``, ``raft-sintel.pth`` and ``raft-small.pth`` work as they are. A
    ``module.`` in front of every name (left by data-parallel training) is dropped.
    """
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    if not any(name.startswith("fnet.") for name in weights):
        return weights
    renamed = {}
    for name, value in weights.items():
        new: str | None = name
        for pattern, replacement in _RAFT_NAMES:
            if new is not None and re.fullmatch(pattern, new):
                new = None if replacement is None else re.sub(pattern, replacement, new)
        if new is not None:
            renamed[new] = value
    return renamed
