"""What is measured of a clip: the figures that are published for what a task finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from .layouts import Case

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LAYERS", "SAVED", "measure_case"]

SAVED = {"pictures": ("Result",), "rebuilt": ("Result",), "regions": ("Matte",), "mattes": ("Matte", "Foreground")}
"""Titles of the nodes of a workflow whose pictures are measured, by ``Task.measured``; the first is needed."""
LAYERS = "Layers"
"""Title of the node that saves layers, where what is measured lies in them."""
RECALLED = 0.5
"""What a frame's J or F must reach to count for its recall."""


def measure_case(measured: str, case: Case, found: Mapping[str, Path], reading: Mapping[str, Any]) -> dict[str, float]:
    """Measure what was found of a clip.

    Args:
        measured: see ``Task.measured``.
        case: the clip and its truth.
        found: what was saved, by the titles of ``SAVED``.
        reading: how frames of the clip were taken, for ``read_clip``; those of the truth are taken so too.

    Returns:
        Figures by name. ``pictures`` and ``rebuilt``: see ``metrics.figures``; for pictures also ``input_psnr`` and
        ``input_ssim`` of the clip as it came. ``regions``: J and F as DAVIS has them, each as mean, recall (the share
        of frames above a half) and decay (by how much the last quarter is below the first), without the first and the
        last frame. ``mattes``: see ``metrics.published``.

    Raises:
        MediaError, ShapeError: pictures cannot be read, or do not belong together.
    """
    from ...vdp_core import metrics
    from ...vdp_core.image.selection import as_mask

    def given(path: Path) -> Tensor:
        return _frames(path, reading)

    result, truth = _frames(found[SAVED[measured][0]]), given(case.truth)
    if measured == "mattes":
        colours: tuple[Tensor, ...] = ()
        if case.foreground is not None and "Foreground" in found:
            colours = _frames(found["Foreground"]), given(case.foreground)
        return metrics.published(result, truth, *colours).numbers
    if measured == "regions":
        each = metrics.figures(result, mask=as_mask(result), ref_mask=as_mask(truth, "truth")).per_frame
        shown = {"j": each["iou"], "f": each["boundary_f"]}
        return {f"{name}_{kind}": value for name, values in shown.items() for kind, value in _as_davis(values).items()}
    numbers = metrics.measure(result, truth)
    if measured == "pictures":
        clip = given(case.clip)
        numbers |= {"input_psnr": metrics.psnr(clip, truth), "input_ssim": metrics.ssim(clip, truth)}
        if case.airlight is not None and LAYERS in found:
            numbers |= _airlight(found[LAYERS], clip, case.airlight)
    return numbers


def _airlight(layers: Path, clip: Tensor, table: Path) -> dict[str, float]:
    """How far the airlight that was found is from the true one: ``airlight_mad``, and ``airlight_angle`` in degrees.

    Raises:
        MediaError: the table cannot be read.
        ShapeError: it has neither one row nor one for each frame.
    """
    from ...vdp_core.models.file import load_layers

    fields = load_layers(layers, clip).fields
    if "airlight" not in fields:
        return {}
    airlight, truth = fields["airlight"].flatten(1), _table_of(table, len(clip))
    cosine = (airlight * truth).sum(dim=1) / (airlight.norm(dim=1) * truth.norm(dim=1)).clamp_min(1e-12)
    angle = cosine.clamp(-1.0, 1.0).acos().rad2deg()
    return {"airlight_mad": float((airlight - truth).abs().mean()), "airlight_angle": float(angle.mean())}


def _table_of(path: Path, count: int) -> Tensor:
    """The last three numbers of each row, ``(T, 3)`` in 0..1; one row is for all frames, and titles are left out."""
    import csv

    import torch

    from ...vdp_core.errors import MediaError, ShapeError

    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.reader(file):
                try:
                    rows.append([float(cell) for cell in row if cell.strip()][-3:])
                except ValueError:
                    continue
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"{path}: cannot be read as a table ({error}); give rows of red, green and blue") from error
    if not rows or any(len(row) < 3 for row in rows):
        raise MediaError(f"{path}: each row needs red, green and blue of the airlight")
    if len(rows) not in (1, count):
        raise ShapeError(f"{path}: has {len(rows)} rows, the clip has {count} frames; give one row, or as many")
    colours = torch.tensor(rows).expand(count, 3)
    return colours / 255.0 if float(colours.max()) > 1.5 else colours


def _frames(path: Path, reading: Mapping[str, Any] | None = None) -> Tensor:
    from ...vdp_core.media.clip import read_clip

    return read_clip(path, **(reading or {})).frames


def _as_davis(values: Sequence[float]) -> dict[str, float]:
    """Mean, recall and decay of a figure of all frames: Perazzi et al., CVPR 2016, section 4.

    The four quarters that decay is told by share the frames where they meet.
    """
    counted = values[1:-1] if len(values) > 2 else values
    edges = [round(1e-9 + quarter * (len(counted) - 1) / 4) for quarter in range(5)]
    first, last = counted[edges[0] : edges[1] + 1], counted[edges[3] : edges[4] + 1]
    return {
        "mean": fmean(counted),
        "recall": fmean(float(value > RECALLED) for value in counted),
        "decay": fmean(first) - fmean(last),
    }
