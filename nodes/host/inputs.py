"""What other nodes and files give: masks with quirks of their own, files that change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...vdp_core.errors import WeightsError
from ...vdp_core.tasks.inputs import FPS
from .alpha import alpha_of
from .devices import on_cpu
from .paths import input_path

__all__ = ["changed", "given_mask", "rate", "remember", "selected", "weights_problem", "weights_state"]

EMPTY_MASK = (1, 64, 64)  # what ComfyUI's loaders of pictures give where there is no alpha: nothing selected


def given_mask(mask: Any) -> Any:
    """A mask as other nodes give it, or None for the empty 64x64 one that stands for no mask.

    Some segmenters give a list with a mask for each picture: it becomes one batch. Pictures get the alpha that they
    carry as a fourth channel. Anything else passes as it is, for the core to check.

    Raises:
        ShapeError: masks of different sizes in a list.
    """
    import torch

    if isinstance(mask, (list, tuple)) and mask and all(isinstance(part, torch.Tensor) for part in mask):
        parts = [part[None] if part.ndim == 2 else part for part in mask]
        if len({part.shape[1:] for part in parts}) > 1:
            from ...vdp_core.errors import ShapeError

            sizes = " and ".join(sorted({f"{part.shape[-1]}x{part.shape[-2]}" for part in parts}))
            raise ShapeError(f"mask: the masks in the list are of {sizes} pixels; all must have one size")
        mask = torch.cat(parts)
    if isinstance(mask, torch.Tensor) and mask.ndim == 4 and mask.shape[-1] == 3 and not mask.is_meta:
        alpha = alpha_of(mask)
        mask = mask if alpha is None else torch.cat((mask, alpha[..., None]), dim=-1)
    if isinstance(mask, torch.Tensor) and tuple(mask.shape) == EMPTY_MASK and not mask.is_meta and not bool(mask.any()):
        return None
    return mask


def selected(name: str, mask: Any) -> Any:
    """A mask that was linked, on the CPU; None where none was.

    Raises:
        InputError: it is the empty one that stands for no mask.
        ShapeError: see ``given_mask``.
    """
    if mask is None:
        return None
    given = given_mask(mask)
    if given is None:
        from ...vdp_core.errors import InputError

        raise InputError(
            f"{name}: it is the empty one that Load Image gives for a picture without alpha; link the picture's IMAGE "
            "output instead, black and white pictures will do"
        )
    return on_cpu(given)


@dataclass
class _Read:
    path: Path
    state: str
    answer: str


_reads: dict[str, _Read] = {}  # what nodes with a linked path read last, by the id of the node


def rate(tooltip: str) -> tuple[str, dict[str, Any]]:
    """The widget of frames a second."""
    return FPS.socket, {**FPS.options, "tooltip": tooltip}


def file_state(file: Path) -> str:
    """What tells two states of one file apart."""
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def weights_problem(find: Callable[[], Path]) -> bool | str:
    """What a node's VALIDATE_INPUTS answers of its weights: the sentence that says what is wrong, or True."""
    try:
        find()
    except WeightsError as error:
        return str(error)
    return True


def weights_state(find: Callable[[], Path]) -> str:
    """What a node's IS_CHANGED answers of its weights: which file it is, and its state."""
    try:
        path = find()
    except WeightsError:
        return ""
    return f"{path} {file_state(path)}"


def remember(node: str | None, path: Path, state: Callable[[Path], str] = file_state) -> None:
    """Keep what a node reads, for ``changed``."""
    if node is not None:
        _reads[node] = _Read(path, state(path), _reads[node].answer if node in _reads else "")


def changed(node: str | None, path: str | None, state: Callable[[Path], str] = file_state) -> str:
    """What a reader's IS_CHANGED answers: another text once the file is another.

    A linked path is None here. Then the file that the node read last is looked at, and the answer stays as it is as
    long as that file does: nothing is read again for nothing.

    Args:
        node: its id.
        path: as a person typed it.
        state: what tells two states of a file apart.
    """
    if path is not None:
        return state(input_path(path))
    last = _reads.get(node or "")
    if last is None:
        return ""
    now = state(last.path)
    if now != last.state:
        last.state = last.answer = now
    return last.answer
