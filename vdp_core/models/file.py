"""Layers kept in a file."""

from __future__ import annotations

import json
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..checks import check_frames
from ..denoise.noise import estimate_noise
from ..errors import LayersFileError, MediaError, ShapeError, VDPError
from ..store.files import placed
from ..store.lazy import computed
from ..store.scratch import large_empty
from ..types import Edit, Flow, Layers
from . import MODELS

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FORMATS", "load_layers", "own_version", "save_layers"]

FORMAT = 3
"""Of files that are written. Older ones are read: 1 kept what holds for a whole clip as numbers, 2 had no assets."""
FORMATS = ("safetensors", "npz")
"""Kinds of files, and their suffixes: both hold the same arrays under the same names, .npz for NumPy."""
ABOUT = "vdp_layers"
"""The name under which a file says what its arrays are, in JSON."""
ZIP = b"PK\3\4"
DENSEST = 1100
"""Bytes that one of a deflated file may stand for."""
DAMAGED = (
    *(LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError),
    *(EOFError, SyntaxError, NotImplementedError, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What readers raise on what is damaged; an interruption of the host's is none of them."""
_AT_ONCE = 2**22  # values converted at a time


def save_layers(
    layers: Layers,
    path: str | Path,
    *,
    with_frames: bool = True,
    numbered: bool = False,
    format: str = "safetensors",
) -> Path:
    """Write layers to one file, whole or not at all.

    Frames are stored in 8 bits where that is exact, else in 16; the flow in half precision. Arrays are named
    ``field.NAME``, ``asset.NAME``, ``picture.NAME`` and ``flow.NAME``; ``frames`` and ``alpha`` are the source.

    Args:
        layers: what to write.
        path: where to, with or without the suffix; an existing file is replaced.
        with_frames: leave the source frames out, and the file is small but needs them again to load.
        numbered: add the first number to the name that nothing has, see ``store.files.numbered``; nothing is replaced.
        format: one of ``FORMATS``.

    Returns:
        The file.

    Raises:
        MediaError: the file cannot be written.
    """
    from safetensors import SafetensorError

    path, suffix = Path(path), f".{format}"
    tensors = {f"field.{name}": field.contiguous() for name, field in layers.fields.items()}
    tensors |= {f"asset.{name}": asset.contiguous() for name, asset in layers.assets.items()}
    tensors |= {f"picture.{name}": _to_integers(picture) for name, picture in layers.pictures.items()}
    if with_frames:
        tensors["frames"] = _to_integers(layers.frames)
        if layers.alpha is not None:
            tensors["alpha"] = _to_integers(layers.alpha)
    # but not how long it took: equal layers make equal files
    info = {name: text for name, text in layers.info.items() if name != "seconds"}
    header: dict[str, Any] = {
        "format": str(FORMAT),
        "model": layers.model,
        "seed": layers.seed,
        "info": {**info, "torch": torch.__version__, "vdp": own_version()},
        "frames": list(layers.frames.shape),
    }
    if layers.edits:
        header["edits"] = {str(number): asdict(edit) for number, edit in layers.edits.items()}
    if layers.flow is not None:
        flow = layers.flow
        header["flow"] = {"source_size": list(flow.source_size), "method": flow.method, "cuts": list(flow.cuts)}
        for name, values in flow.tensors().items():
            kept = (torch.float16, Tensor.half) if values.ndim == 4 else (torch.uint8, _to_bytes)
            tensors[f"flow.{name}"] = _each(values, *kept)
    try:
        with placed(path.parent, path.name.removesuffix(suffix), suffix, is_numbered=numbered) as place:
            write = _write_npz if format == "npz" else _write_safetensors
            write(place.partial, tensors, json.dumps(header))
    except (OSError, RuntimeError, SafetensorError) as error:  # safetensors hides a full disk in its own
        raise MediaError(
            f"{path}: the layers cannot be written ({error}); free space or choose another folder"
        ) from error
    return place.target


def _write_safetensors(file: Path, tensors: dict[str, Tensor], about: str) -> None:
    from safetensors.torch import save_file

    file.touch()
    mode = file.stat().st_mode  # safetensors makes files that nobody else may read
    # one entry, as the order of several would be left to chance
    save_file(tensors, file, metadata={ABOUT: about})
    file.chmod(mode)


def _write_npz(file: Path, tensors: dict[str, Tensor], about: str) -> None:
    import numpy as np

    arrays: dict[str, Any] = {ABOUT: np.array(about), **{name: tensor.numpy() for name, tensor in tensors.items()}}
    with file.open("wb") as opened:
        np.savez(opened, **arrays)


def load_layers(path: str | Path, frames: Tensor | None = None, alpha: Tensor | None = None) -> Layers:
    """Read layers that ``save_layers`` wrote.

    Args:
        path: the file.
        frames: the source frames; needed where the file holds none, used in place of the file's where it does.
        alpha: of those frames, ``(T, H, W)``; None where they are opaque.

    Raises:
        MediaError: the file is missing or cannot be read.
        LayersFileError: it is damaged or no layers file.
        ShapeError: the frames are not those the layers were found on.
    """
    from safetensors import SafetensorError

    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 (which never raises)
        raise MediaError(f"{path}: no such layers file")
    try:
        metadata, tensors = _read(path)
        header = _header(metadata, path)
        try:
            return _assemble(header, tensors, frames, alpha)
        except LayersFileError as error:
            raise LayersFileError(f"{path}: {error}") from None
    except SafetensorError as error:
        raise LayersFileError(f"{path}: not a whole .safetensors file ({error}); save the layers again") from error
    except OSError as error:
        if isinstance(error, VDPError):
            raise
        raise MediaError(f"{path}: cannot be read ({error})") from error
    except DAMAGED as error:
        if isinstance(error, VDPError):
            raise
        raise LayersFileError(f"{path}: a damaged layers file ({str(error)[:200]}); save the layers again") from error


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    """What a file says about its arrays, and the arrays."""
    import numpy as np
    from safetensors import safe_open

    with path.open("rb") as opened:
        is_zip = opened.read(len(ZIP)) == ZIP
    if not is_zip:
        with safe_open(path, framework="pt") as file:
            # These are views of the file, of which nothing is read yet.
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with zipfile.ZipFile(path) as archive:
        arrays = {info.filename.removesuffix(".npy"): _array(archive, info) for info in archive.infolist()}
    about = {ABOUT: str(arrays.pop(ABOUT))} if ABOUT in arrays else {}
    return about, {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """An array of an .npz file, of which as much is there as it says."""
    import numpy as np

    if info.flag_bits & 1 or info.file_size > DENSEST * (info.compress_size + 1):
        raise ValueError(f"{info.filename} is encrypted, or not as large as it says")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        if math.prod(shape) * kind.itemsize != info.file_size - file.tell():
            raise ValueError(f"{info.filename} is {shape}, which its {info.file_size} bytes are not")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What a file says about the layers in it.

    Raises:
        LayersFileError: it is no layers file, or a newer one than can be read.
    """
    header = json.loads(metadata.get(ABOUT, "null"))
    if header == 1:
        header = {**json.loads(metadata["layers"]), "format": "1"}
    number = header.get("format") if isinstance(header, dict) else None
    if not isinstance(number, str) or not number.isdecimal() or int(number) < 1:
        raise LayersFileError(f"{path}: not a layers file; give one that SaveLayers wrote, not model weights")
    if int(number) > FORMAT:
        raise LayersFileError(
            f"{path}: saved by a newer version (format {number}, this one reads 1 to {FORMAT}); update the pack"
        )
    return header


def _assemble(
    header: dict[str, Any], tensors: dict[str, Tensor], frames: Tensor | None, alpha: Tensor | None
) -> Layers:
    model, shape = header["model"], tuple(header["frames"])
    if model not in MODELS:
        raise LayersFileError(
            f"the layers are of the model '{str(model)[:50]}'; known: {', '.join(MODELS)}; update the pack"
        )
    if frames is not None:
        frames = check_frames(frames)
        if tuple(frames.shape) != shape:
            raise ShapeError(
                f"frames: the layers were found on {shape[0]} frames of {shape[2]}x{shape[1]} pixels, "
                f"these are {frames.shape[0]} of {frames.shape[2]}x{frames.shape[1]}"
            )
    elif "frames" in tensors:
        frames = _to_floats(tensors["frames"])
        if tuple(frames.shape) != shape or frames.numel() == 0:
            raise ValueError(f"frames are {tuple(frames.shape)}, the header says {shape}")
        alpha = _to_floats(tensors["alpha"], "alpha") if "alpha" in tensors else None
    else:
        raise LayersFileError("the layers were saved without their frames; link the source frames too")
    # copies of everything, as the file may be written over while the layers are in use
    fields = {name: _field(name, field, len(frames)) for name, field in _named("field.", tensors)}
    if header["format"] == "1":
        fields |= _fields_of_numbers(header["scalars"], frames)
    assets = {name: _asset(name, asset) for name, asset in _named("asset.", tensors)}
    flow = None
    if "flow" in header:
        height, width = header["flow"]["source_size"]
        parts: dict[str, Any] = {
            name: _each(values, torch.float32, Tensor.float if values.ndim == 4 else _from_bytes)
            for name, values in _named("flow.", tensors)  # files of earlier versions have no confidence
        }
        flow = Flow(
            **parts,
            source_size=(int(height), int(width)),
            method=str(header["flow"]["method"]),
            cuts=tuple(int(cut) for cut in header["flow"].get("cuts", ())),
        )
        if len(flow) != len(frames) - 1:
            raise ValueError(f"flow of {len(flow)} pairs for {len(frames)} frames")
        if not (_is_finite(flow.forward) and _is_finite(flow.backward)):
            raise ValueError("the flow holds NaN or infinite values")
    info = {str(name): str(value) for name, value in header["info"].items()}
    pictures = {name: _to_floats(picture, f"picture.{name}") for name, picture in _named("picture.", tensors)}
    edits = {int(number): _to_edit(**edit) for number, edit in header.get("edits", {}).items()}
    if alpha is not None and tuple(alpha.shape) != shape[:3]:
        raise ValueError(f"alpha is {tuple(alpha.shape)} for frames of {shape}")
    layers = Layers(model, fields, frames, flow, int(header["seed"]), info, edits, assets, pictures, alpha)
    MODELS[model].check(layers)
    return layers


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors whose names begin with a prefix, by what follows it."""
    return ((name.removeprefix(prefix), tensor) for name, tensor in tensors.items() if name.startswith(prefix))


def _field(name: str, field: Tensor, count: int) -> Tensor:
    if field.ndim < 2 or len(field) != count or field.numel() == 0 or not field.is_floating_point():
        raise ValueError(f"field {name} is {tuple(field.shape)} for {count} frames")
    if not _is_finite(field):
        raise ValueError(f"field {name} holds NaN or infinite values")
    return _each(field, torch.float32, Tensor.float)


def _asset(name: str, asset: Tensor) -> Tensor:
    if asset.is_floating_point() and not _is_finite(asset):
        raise ValueError(f"asset {name} holds NaN or infinite values")
    return asset.clone()


def _fields_of_numbers(numbers: Mapping[str, float], frames: Tensor) -> dict[str, Tensor]:
    """What a file of format 1 keeps as numbers for the whole clip, as fields: the same in every frame.

    It does not hold the high-frequency energy that noise is weighed by, so the noise is estimated again.
    """
    fields = {"noise": estimate_noise(frames).field(len(frames))} if "noise_offset_0" in numbers else {}
    if "gamma" in numbers:
        gains = [float(numbers[f"log_gain_{name}"]) for name in ("red", "green", "blue")]
        fields["colour"] = torch.tensor(gains).view(1, 3, 1, 1).repeat(len(frames), 1, 1, 1)
        fields["gamma"] = torch.full((len(frames), 1, 1, 1), float(numbers["gamma"]))
    return {name: _field(name, field, len(frames)) for name, field in fields.items()}


def _runs(clip: Tensor) -> Iterator[Tensor]:
    """A clip in turn, as many frames at a time as are handled easily."""
    at_once = max(1, _AT_ONCE // max(1, clip[:1].numel()))
    return (clip[first : first + at_once] for first in range(0, len(clip), at_once))


def _each(clip: Tensor, dtype: torch.dtype, convert: Callable[[Tensor], Tensor]) -> Tensor:
    """A clip in another type, in a temporary file where it is too large for memory."""
    made = large_empty(*clip.shape, dtype=dtype)
    done = 0
    for run in _runs(clip):
        made[done : done + len(run)] = convert(run)
        done += len(run)
    return made


def _is_finite(values: Tensor) -> bool:
    return all(bool(run.isfinite().all()) for run in _runs(values)) if values.ndim else bool(values.isfinite())


def _to_bytes(run: Tensor) -> Tensor:
    return (run * 255.0).round().byte()


def _from_bytes(run: Tensor) -> Tensor:
    return run.float() / 255.0


def _to_words(run: Tensor) -> Tensor:
    return (run * 65535.0).round().to(torch.uint16)


def _from_words(run: Tensor) -> Tensor:
    return run.float() / 65535.0


def _to_integers(frames: Tensor) -> Tensor:
    """8 bits where every value is a whole number of 255ths (to rounding), else 16."""
    exact = all(bool((run * 255.0 - (run * 255.0).round()).abs().max() < 1e-3) for run in _runs(frames))
    return _each(frames, torch.uint8, _to_bytes) if exact else _each(frames, torch.uint16, _to_words)


def _to_floats(frames: Tensor, name: str = "frames") -> Tensor:
    """Frames or masks of a file as floats, made when they are needed where they are too large for memory."""
    masks = name in ("alpha", "picture.matte") or name.startswith("picture.mask_")
    whole = frames.ndim == 3 if masks else frames.ndim == 4 and frames.shape[-1] == 3
    if frames.dtype not in (torch.uint8, torch.uint16) or not whole or frames.numel() == 0:
        raise ValueError(f"{name} is {tuple(frames.shape)} {frames.dtype}")
    convert = _from_bytes if frames.dtype == torch.uint8 else _from_words
    if masks:
        return _each(frames, torch.float32, convert)
    return computed(lambda first: map(convert, _runs(frames[first:])), tuple(frames.shape))


def _to_edit(visibility: float, gain: float, saturation: float, offset: list[float]) -> Edit:
    dx, dy = (float(value) for value in offset)
    values = float(visibility), float(gain), float(saturation), dx, dy
    if not all(map(math.isfinite, values)):
        raise ValueError(f"an edit holds {values}")
    return Edit(values[0], values[1], values[2], (dx, dy))


def own_version() -> str:
    """The version of the pack."""
    try:
        return version("vdp-nodes")
    except PackageNotFoundError:  # loaded by path, as ComfyUI does
        return "from source"
