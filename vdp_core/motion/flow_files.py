"""Flow kept in files: one .npz, or folders of .flo, KITTI's PNG and .npy as published systems name them."""

from __future__ import annotations

import errno
import json
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, MediaError, ShapeError, VDPError
from ..image.resize import resize
from ..store.files import placed
from ..store.scratch import large_empty
from ..types import Flow, OnStep
from .estimator import RawMotion, with_confidence
from .flow_formats import UNKNOWN, decode, encode_flo, encode_kitti, encode_npy, head
from .inverse import inverse_flow
from .warp import occlusion, resize_flow

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FORMATS", "SUFFIXES", "LoadedFlow", "files_of", "fingerprint", "left_out", "load_flow", "save_flow"]

VECTORS = ("forward", "backward")
OCCLUSION = ("forward_occlusion", "backward_occlusion")
CONFIDENCE = ("forward_confidence", "backward_confidence")
ABOUT = "flow.json"
"""What the files of a folder have no place for: size of the frames, method, cuts."""
SUFFIXES = (".flo", ".npy", ".png")
ROOM = 2**24  # bytes that what is said about flow may take
OTHER_SHAPE = 1.1  # ratios of sides that differ by more are not rounded or padded, but another clip's
FOREIGN = (
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError, SyntaxError, RecursionError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What readers of .npz, .npy and JSON raise on what is damaged; an interruption of the host's is none of them."""
_PAIR = re.compile(r"(.+\.[A-Za-z]+)_(.+\.[A-Za-z]+)\.npy")
"""The name of a file between two frames, each with its suffix."""


@dataclass(frozen=True)
class _Folder:
    """How a format names the files of a folder, and makes one."""

    forward: str
    """Name of the motion from frame ``a`` to the next one, ``b``."""
    backward: str
    """Name of the motion from ``b`` to ``a``; empty where the format has none."""
    encode: Callable[[np.ndarray, np.ndarray], bytes]
    """See ``flow_formats``."""
    left_out: str = "the format holds neither occlusion nor confidence"
    suffix: str = ""
    """Of the folder."""


_FOLDERS = {
    # as Flow-edge Guided Video Completion has them (Gao et al., ECCV 2020)
    "flo": _Folder("forward_flo/{a:05}.flo", "backward_flo/{a:05}.flo", encode_flo),
    "kitti": _Folder(
        "forward/{a:05}.png", "backward/{a:05}.png", encode_kitti, "the format holds no confidence, and 1/64 pixel"
    ),
    # Layered Neural Atlases (Kasten et al., SIGGRAPH Asia 2021): NAME_flow beside a folder NAME of frames
    "lna": _Folder("{a:05}.jpg_{b:05}.jpg.npy", "{b:05}.jpg_{a:05}.jpg.npy", encode_npy, suffix="_flow"),
    # Blind Video Deflickering (Lei et al., CVPR 2023), which is built on it, and makes PNG frames
    "deflicker": _Folder("{a:05}.png_{b:05}.png.npy", "{b:05}.png_{a:05}.png.npy", encode_npy, suffix="_flow"),
    # VideoDIP (re-implementation of Video Decomposition Prior): a file under the name of the frame that it leads to
    "videodip": _Folder(
        "{b:05}.jpg.npy", "", encode_npy, "the format holds neither the motion back, nor occlusion, nor confidence"
    ),
}
FORMATS = ("npz", *_FOLDERS)
"""What ``save_flow`` writes; ``load_flow`` sees by itself what it is given."""


def left_out(format: str) -> str:
    """What a format does not hold, in words; empty where it holds all."""
    return _FOLDERS[format].left_out if format in _FOLDERS else ""


def save_flow(
    flow: Flow,
    path: str | Path,
    *,
    format: str = "npz",
    size: tuple[int, int] | None = None,
    numbered: bool = False,
    on_step: OnStep | None = None,
) -> Path:
    """Write flow to one ``.npz`` file or a folder of files, whole or not at all.

    The .npz holds ``forward`` and ``backward`` ``(T-1, 2, H, W)`` and ``forward_occlusion``, ``backward_occlusion``,
    ``forward_confidence`` and ``backward_confidence`` ``(T-1, H, W)`` in float32, and ``source_size``, ``method`` and
    ``cuts``. A folder holds a file for each pair of frames and direction, and the last three in ``flow.json``.

    Args:
        flow: what to write.
        path: where to, without a suffix. A file of that name is replaced, a folder is not.
        format: one of ``FORMATS``.
        size: (H, W) of the frames, to which vectors and masks are brought. None: as they are.
        numbered: add the first number to the name that nothing has, see ``store.files.numbered``; nothing is replaced.
        on_step: called as ``on_step(done, all, None)``; stops the work by raising.

    Returns:
        The file or folder.

    Raises:
        InputError: an unknown format, or motion that it cannot hold.
        MediaError: it cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    path, form = Path(path), _FOLDERS.get(format)
    target = path.with_name(path.name + (form.suffix if form else ".npz"))
    if form and not numbered and target.exists():
        raise MediaError(f"{target}: is there already; choose another name or remove it")
    size = flow.size if size is None else size
    try:
        with placed(path.parent, path.name, target.name[len(path.name) :], is_numbered=numbered) as place:
            if form:
                _write_folder(place.partial, flow, size, form, on_step)
            else:
                _write_npz(place.partial, flow, size, on_step)
    except OSError as error:
        if isinstance(error, VDPError):
            raise
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise MediaError(f"{target}: cannot be written, {reason}") from error
    return place.target


def _about(flow: Flow, size: tuple[int, int]) -> dict[str, Any]:
    source = flow.source_size if size == flow.size else size
    return {"source_size": list(source), "method": flow.method, "cuts": list(flow.cuts)}


def _pairs(values: Tensor, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Vectors ``(2, H, W)`` or masks ``(H, W)`` of one pair of frames after the other, at a size."""
    for part in values.split(1):
        sized = resize_flow(part, size) if part.ndim == 4 else resize(part[:, None], size)[:, 0]
        yield sized[0].float().cpu().contiguous().numpy()


def _write_npz(file: Path, flow: Flow, size: tuple[int, int], on_step: OnStep | None) -> None:
    import numpy as np

    tensors, done = flow.tensors(), 0
    with zipfile.ZipFile(file, "w", compresslevel=1) as archive:
        for name, values in tensors.items():
            # which is little once deflated; other values take long, and stay nearly as large
            archive.compression = zipfile.ZIP_DEFLATED if name in OCCLUSION else zipfile.ZIP_STORED
            header = {"descr": "<f4", "fortran_order": False, "shape": (*values.shape[:-2], *size)}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for pair in _pairs(values, size):
                    member.write(pair.astype("<f4", copy=False).tobytes())
                    done += 1
                    if on_step is not None:
                        on_step(done, len(tensors) * len(flow), None)
        archive.compression = zipfile.ZIP_STORED
        for name, value in _about(flow, size).items():
            with archive.open(f"{name}.npy", "w") as member:
                array = np.array(value, str if name == "method" else np.int64)
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_folder(folder: Path, flow: Flow, size: tuple[int, int], form: _Folder, on_step: OnStep | None) -> None:
    names = [name for name in (form.forward, form.backward) if name]
    folder.mkdir()
    done = 0
    for direction, name in zip(VECTORS, names, strict=False):
        vectors, hidden = getattr(flow, direction), getattr(flow, f"{direction}_occlusion")
        for first, (moved, covered) in enumerate(zip(_pairs(vectors, size), _pairs(hidden, size), strict=True)):
            file = folder / name.format(a=first, b=first + 1)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(form.encode(moved.transpose(1, 2, 0), covered < 0.5))
            done += 1
            if on_step is not None:
                on_step(done, len(names) * len(flow), None)
    (folder / ABOUT).write_text(json.dumps(_about(flow, size)), encoding="utf-8")


class LoadedFlow(NamedTuple):
    """What ``load_flow`` gives."""

    flow: Flow
    notes: tuple[str, ...]
    """What the files do not hold, and what took its place."""


def load_flow(path: str | Path, frames: Tensor | None = None, *, on_step: OnStep | None = None) -> LoadedFlow:
    """Read flow that ``save_flow`` or another program wrote, recognised by its content.

    That is an .npz file as ``save_flow`` writes it, of which ``forward`` must be there; a .flo, .npy or KITTI's .png
    file of one pair of frames; or a folder of them: folders ``forward*`` and ``backward*`` in it with a file for each
    pair; or files named for two frames, ``00000.jpg_00001.jpg.npy``, both ways; or files in the order of the frames,
    of the motion ahead.

    Motion back that is missing is found from the motion ahead, which tells it wherever a pixel is seen in both frames
    (``inverse_flow``). Occlusion that is missing is found from both. Confidence is 1 where nothing is known of it.

    Args:
        path: file or folder.
        frames: ``(T, H, W, 3)``, the clip that it belongs to; the flow may be of another size.
        on_step: called as ``on_step(done, all, None)``; stops the work by raising.

    Raises:
        MediaError: there is no such file, or it is damaged or not flow.
        InputError: it holds NaN or infinite values.
        ShapeError: it is of another number of frames, or of frames of another shape.
    """
    path = Path(path)
    with _reading(path), _opened(path) as source:
        if frames is not None:
            _check_frames(source, path, frames)
        return _assembled(source, frames, on_step)


class _Source:
    """Flow in files of one kind."""

    names: list[str]
    """The tensors of a ``Flow`` that it holds and that are read one by one; vectors come first."""
    whole: frozenset[str]
    """Masks that need not be found."""
    count: int
    """Pairs of frames."""
    size: tuple[int, int]
    about: Mapping[str, Any]
    """Source size, method and cuts, where it says them."""

    def read(self, name: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        """A tensor pair by pair; beside vectors what is occluded, ``(h, w)``, where a file says so."""
        raise NotImplementedError


def _frame_size(source: _Source) -> tuple[int, int]:
    """(H, W) of the frames, as the files say, else that of the vectors."""
    height, width = (int(side) for side in source.about.get("source_size", source.size))
    if height < 1 or width < 1:
        raise ValueError(f"the frames are said to be {width}x{height}")
    return height, width


def _check_frames(source: _Source, path: Path, frames: Tensor) -> None:
    height, width = _frame_size(source)
    if len(frames) != source.count + 1:
        raise ShapeError(
            f"frames: {path} holds the motion of {source.count + 1} frames, the clip has {len(frames)}; "
            "load the frames that it was estimated on"
        )
    ratio = (width * frames.shape[1]) / (height * frames.shape[2])
    if max(ratio, 1.0 / ratio) > OTHER_SHAPE:
        raise ShapeError(
            f"frames: {path} holds the motion of frames of {width}x{height}, these are {frames.shape[2]}x"
            f"{frames.shape[1]}, of another shape; load the frames that it was estimated on"
        )


def _assembled(source: _Source, frames: Tensor | None, on_step: OnStep | None) -> LoadedFlow:
    count, size = source.count, source.size
    is_derived = "backward" not in source.names
    missing = [name for name in OCCLUSION if name not in source.whole]
    unsure = frames is not None and not source.whole & set(CONFIDENCE)
    total, done = count * (len(source.names) + is_derived + bool(missing) + unsure), 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, total, None)

    parts = {name: large_empty(count, 2, *size) for name in VECTORS}
    masks = (*OCCLUSION, *(CONFIDENCE if unsure else source.whole & set(CONFIDENCE)))
    parts |= {name: large_empty(count, *size) for name in masks}
    for name in source.names:
        for index, (values, hidden) in enumerate(source.read(name)):
            parts[name][index] = values
            if hidden is not None:
                parts[f"{name}_occlusion"][index] = hidden
            step()
    both_ways = list(zip(VECTORS, reversed(VECTORS), OCCLUSION, strict=True))
    for index in range(count if is_derived else 0):
        ends = None if frames is None else _ends(frames, index, size)
        vectors, hidden = inverse_flow(parts["forward"][index : index + 1], ends)
        parts["backward"][index], parts["backward_occlusion"][index] = vectors[0], hidden[0]
        step()
    for index in range(count if missing else 0):
        pair = slice(index, index + 1)
        for one, other, mask in both_ways:
            if mask in missing:
                found = occlusion(parts[one][pair], parts[other][pair])
                parts[mask][pair] = parts[mask][pair].maximum(found)
        step()
    for index in range(count if unsure else 0):
        assert frames is not None
        raw = RawMotion(*(parts[name][index : index + 1] for name in (*VECTORS, *OCCLUSION)))
        motion = with_confidence(raw, *_ends(frames, index, size))
        for name in CONFIDENCE:
            parts[name][index] = getattr(motion, name)[0]
        step()
    flow = _flow(parts, source, frames)
    notes = (
        "the motion back is found from the motion ahead" if is_derived else "",
        "occlusion is found from the motion" if missing else "",
        "" if source.whole & set(CONFIDENCE) else f"confidence is {'found from the frames' if unsure else 'not known'}",
    )
    return LoadedFlow(flow, tuple(filter(None, notes)))


def _flow(parts: dict[str, Tensor], source: _Source, frames: Tensor | None) -> Flow:
    """The parts as a flow, with no motion across cuts."""
    flow = Flow(
        **parts,
        source_size=_frame_size(source) if frames is None else (frames.shape[1], frames.shape[2]),
        method=str(source.about.get("method", "unknown"))[:100],
        cuts=tuple(int(cut) for cut in source.about.get("cuts", ())),
    )
    for cut in flow.cuts:
        for direction, mask in zip(VECTORS, OCCLUSION, strict=True):
            parts[direction][cut - 1], parts[mask][cut - 1] = 0.0, 1.0
    return flow


def _ends(frames: Tensor, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A frame and the next one, ``(1, 3, h, w)`` each."""
    first, second = frames[index : index + 2, ..., :3].movedim(-1, 1).float().split(1)
    return resize(first, size, mode="area"), resize(second, size, mode="area")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged or foreign file makes libraries raise into a sentence."""
    try:
        yield
    except VDPError:
        raise
    except OSError as error:
        raise MediaError(f"{path}: cannot be read, {error.strerror or error}") from error
    except FOREIGN as error:
        raise MediaError(f"{path}: damaged, or not flow ({str(error)[:200]}); save the flow again") from error


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    if path.is_dir():
        yield _files_of(path)
    elif not path.is_file():
        raise MediaError(f"{path}: there is no such flow file or folder")
    elif head(path).startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            yield _Npz(archive, path)
    else:
        yield _Files({"forward": [path]})


class _Npz(_Source):
    """An .npz file, of which one pair of frames at a time is read."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if any(info.flag_bits & 1 for info in archive.infolist()):
            raise MediaError(f"{path}: is encrypted; save the flow again")
        if "forward" not in self._members:
            held = ", ".join(sorted(self._members))[:200] or "nothing"
            raise MediaError(f"{path}: holds {held}; expected forward and backward, as SaveFlow writes them")
        self.names = [name for name in (*VECTORS, *OCCLUSION, *CONFIDENCE) if name in self._members]
        self.whole = frozenset(self.names) - set(VECTORS)
        shapes = {name: self._header(name)[0] for name in self.names}
        if len(shapes["forward"]) != 4 or shapes["forward"][1] != 2 or 0 in shapes["forward"]:
            raise ShapeError(f"{path}: forward is {shapes['forward']}, expected (T-1, 2, H, W)")
        self.count, _, height, width = shapes["forward"]
        self.size = (height, width)
        for name, shape in shapes.items():
            wanted = (self.count, 2, height, width) if name in VECTORS else (self.count, height, width)
            if shape != wanted:
                raise ShapeError(f"{path}: {name} is {shape}, expected {wanted} as forward is {shapes['forward']}")
        self.about = {name: self._list(name) for name in ("source_size", "method", "cuts") if name in self._members}

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Shape and type of an array, and how many bytes come before it."""
        import numpy as np

        info = self._members[name]
        with self._archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, kind = read(file)
            start = file.tell()
        if is_fortran or kind.kind not in "fbiu" or (name in VECTORS and kind.kind != "f"):
            order = " in Fortran order" if is_fortran else ""
            raise MediaError(f"{self._path}: {name} is {kind}{order}, expected floats in C order")
        wanted = kind.itemsize
        for side in shape:
            wanted *= side
        if info.file_size - start != wanted:
            raise MediaError(
                f"{self._path}: {name} holds {info.file_size - start} bytes, its shape {shape} takes {wanted}; "
                "save the flow again"
            )
        return shape, kind, start

    def _list(self, name: str) -> Any:
        import numpy as np

        if self._members[name].file_size > ROOM:
            raise MediaError(f"{self._path}: {name} is too large; save the flow again")
        with self._archive.open(self._members[name]) as file:
            return np.lib.format.read_array(file, allow_pickle=False).tolist()

    def read(self, name: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        import numpy as np

        shape, kind, start = self._header(name)
        with self._archive.open(self._members[name]) as file:
            file.read(start)
            for index in range(self.count):
                content = file.read((self._members[name].file_size - start) // self.count)
                values = np.frombuffer(content, kind).reshape(shape[1:]).astype(np.float32)
                yield _usable(torch.from_numpy(values), name, f"{self._path}: {name} of pair {index}"), None
            file.read(1)  # past the end, where the checksum is looked at


def _usable(values: Tensor, name: str, where: str) -> Tensor:
    low, high = (float(value) for value in values.aminmax())
    if not (abs(low) <= UNKNOWN and abs(high) <= UNKNOWN):
        raise InputError(f"{where}: holds NaN or infinite values, or such as no frame has; estimate the flow again")
    if name in VECTORS:
        return values
    if low < -1e-3 or high > 1.0 + 1e-3:
        raise InputError(f"{where}: holds values from {low:.3g} to {high:.3g}, expected 0 to 1")
    return values.clamp(0.0, 1.0)


class _Files(_Source):
    """A file for each pair of frames."""

    def __init__(self, files: Mapping[str, Sequence[Path]], about: Mapping[str, Any] | None = None) -> None:
        self._files, self.about = files, about or {}
        self.names = list(files)
        vectors, valid = decode(files["forward"][0])
        # what SaveFlow writes is valid where it is not occluded; elsewhere it may be occluded too
        self.whole = frozenset(OCCLUSION if about and valid is not None else ())
        self.count, self.size = len(files["forward"]), (vectors.shape[1], vectors.shape[2])

    def read(self, name: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        for file in self._files[name]:
            vectors, valid = decode(file)
            if tuple(vectors.shape[1:]) != self.size:
                raise ShapeError(
                    f"{file}: is {vectors.shape[2]}x{vectors.shape[1]} pixels, the first one "
                    f"{self.size[1]}x{self.size[0]}; all must have one size"
                )
            yield vectors, None if valid is None else 1.0 - valid


def _files_of(folder: Path) -> _Files:
    about: dict[str, Any] = {}
    if (folder / ABOUT).is_file():
        if (folder / ABOUT).stat().st_size > ROOM:
            raise MediaError(f"{folder / ABOUT}: is too large; save the flow again")
        about = dict(json.loads((folder / ABOUT).read_text(encoding="utf-8")))
    found: dict[str, list[Path]] = {}
    for direction in VECTORS:
        inside = (_listed(path) for path in sorted(folder.glob(f"{direction}*")) if path.is_dir())
        if files := next(filter(None, inside), []):
            found[direction] = files
    if not found and (files := _listed(folder)):
        found = _named_for_pairs(folder, files) or {"forward": files}
    if "forward" not in found:
        what = "only motion back" if found else "no .flo, .npy or .png files"
        raise MediaError(f"{folder}: holds {what}; give a folder that SaveFlow or another program wrote flow to")
    numbers = sorted({len(files) for files in found.values()})
    if len(numbers) > 1:
        raise MediaError(
            f"{folder}: holds {numbers[0]} files of one direction and {numbers[1]} of the other; expected one for each "
            "pair of frames both ways"
        )
    return _Files(found, about)


def _listed(folder: Path) -> list[Path]:
    """The flow files of a folder, of the first suffix that is there, in natural order."""
    from natsort import natsorted

    entries = [path for path in folder.iterdir() if path.name[0] != "." and path.is_file()]
    of_suffix = ([path for path in entries if path.suffix.lower() == suffix] for suffix in SUFFIXES)
    return natsorted(next(filter(None, of_suffix), []), key=lambda path: path.name)


def _named_for_pairs(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Both directions, or the one that is there, where files are named for two frames; else nothing.

    Raises:
        MediaError: one is missing.
    """
    from natsort import natsorted

    named = {(match[1], match[2]): file for file in files if (match := _PAIR.fullmatch(file.name))}
    if not named:
        return {}
    following = list(pairwise(natsorted({name for pair in named for name in pair})))
    found = {}
    for direction, pairs in zip(VECTORS, (following, [(b, a) for a, b in following]), strict=True):
        there = [named[pair] for pair in pairs if pair in named]
        if len(there) == len(pairs) > 0:
            found[direction] = there
        elif there or direction == "forward":
            (one, other), *_ = (pair for pair in pairs if pair not in named)
            raise MediaError(f"{folder}: {one}_{other}.npy is missing; expected one for each frame and the next")
    return found


def files_of(source: str | Path) -> list[Path]:
    """The files that flow may be read from: the one of that path, or those of the folder there and of folders in it."""
    path = Path(source)
    if not path.is_dir():
        return [path]
    inside = [entry for entry in path.iterdir() if entry.is_file() or entry.name.startswith(VECTORS)]
    return sorted(file for entry in inside for file in (entry.iterdir() if entry.is_dir() else [entry]))


def fingerprint(source: str | Path) -> str:
    """A text that changes when files do: their names, sizes and times, nothing of their content."""
    return " ".join(f"{file.name} {(found := file.stat()).st_size} {found.st_mtime_ns}" for file in files_of(source))
