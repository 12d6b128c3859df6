"""Deflicker: a change of colour for each frame, found where the same points of the scene are seen in other frames.

Published (Lei et al., "Blind Video Deflickering by Neural Filtering with a Flawed Atlas", CVPR 2023): an atlas, whose
frames do not flicker but are flawed, and networks that bring the details back. Ours changes nothing but colour, so that
no detail is lost, and finds the change in closed form.

Energy. Of a window, over the parameters p of each frame and channel, which say the change C_t(x) of logs of values::

    E = sum_ij w_ij rho((l_i + C_i) - (l_j + C_j) - (g_i - g_j))  +  sum_k (p_k - r_k)^2 / s_k^2,   mean_t p = 0

l are the logs of the values of two views i and j of one point, 1 to 16 frames apart along the flow; g those of the
guide where one is given. w is how far the flow can be believed, times the square of the value (differences are seen in
values, not in logs), and rho Cauchy's robust loss at the scale of the clip's own residuals. r is the part of p over
time that is real, such as a sunset (``trend``), and stays; s is learnt from the clip for each group of parameters
(``basis``), so that a clip without flicker is left alone. What is applied is p - r.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ...image.resize import working_copy
from ...models.colour import EPSILON, logs, sliced
from ...motion.camera import camera_motion
from ...motion.flow import estimate_flow
from ...optim.fit import Fitted
from ...optim.progress import Progress
from ...optim.windows import WINDOW_OVERLAP, Window, blended, combined_fit, fit_windows, windows
from ...store.journal import Journal
from ...types import Flow, Shot
from ..base import Found, Given, Published, Work
from . import paper
from .basis import Basis
from .cause import GROUPS, verdict
from .config import DeflickerConfig
from .find import Change, Clip, fit_change
from .partners import Partners

__all__ = ["find", "find_as_published"]

ROUGH = 4
"""Sweeps along the camera's motion."""
MOTION_SIDE = 192
"""Long side of the copy that motion is found on."""


def find(shot: Shot, given: Given, config: DeflickerConfig, work: Work) -> Found:
    """Find the change of colour that takes the flicker off a shot.

    Returns:
        The fields of the model colour, whose mean over a window's time is 0; ``kept`` is the mean log gain of what is
        real.
    """
    spans = windows(len(shot.frames), config.window, WINDOW_OVERLAP)
    found = fit_windows(
        spans, partial(_fit_window, shot, given, config, work, spans), journal=work.journal, progress=work.progress
    )
    names = found[0].fields
    fields = {name: blended(spans, [window.fields[name] for window in found]) for name in names}
    causes: dict[str, list[float]] = {}
    for window in found:
        for name, share in window.numbers.items():
            causes.setdefault(name, []).append(share)
    cause = max(causes, key=lambda name: sum(causes[name]))
    sure = sum(causes[cause]) / len(found)
    said = "no flicker found" if cause == "none" else f"flicker as of {cause} ({sure:.0%} of it)"
    return Found(fields, combined_fit(found), {"said": said, "cause": cause})


def find_as_published(shot: Shot, given: Given, config: Published, work: Work) -> Found:
    """Take the flicker off a shot with the published networks; see ``paper``. Nothing but ``residual`` is found."""
    assert shot.flow is not None
    made = paper.deflicker(
        shot.frames,
        shot.flow,
        steps=config.steps,
        seed=work.seed,
        device=work.device,
        weights_folders=work.weights_folders,
        journal=work.journal,
        on_step=work.progress,
    )
    count = len(shot.frames)
    fields = {
        "grid": torch.zeros(count, 3, 2, 1, 1),
        "rows": torch.zeros(count, 3, 2),
        "saturation": torch.zeros(count, 3),
        "kept": torch.zeros(count, 3),
        "residual": made.residual,
    }
    return Found(fields, made.fitted, made.notes)


@torch.no_grad()
def _fit_window(
    shot: Shot,
    given: Given,
    config: DeflickerConfig,
    work: Work,
    spans: list[range],
    number: int,
    _: Mapping[int, Window],
    journal: Journal,
    progress: Progress,
) -> Window:
    assert shot.flow is not None
    span = spans[number]
    small = working_copy(shot.frames[span.start : span.stop], config.side, work.device)
    size = small.shape[2], small.shape[3]
    guide: Tensor | None = given["guide"]
    if guide is not None:
        guide = working_copy(guide[span.start : span.stop], config.side, work.device)
    basis = Basis(*size, config.stride)
    flow = shot.flow.part(span.start, span.stop)
    # with a guide, whatever changes more slowly is in the guide if it is real
    frames = math.inf if guide is not None else given["keep"] * given["fps"]
    stay = given["cause"] == "auto" and guide is None

    def fit(flow: Flow, sweeps: int, progress: Progress) -> Change:
        clip = Clip(small, guide, Partners(flow, size, work.device), basis)
        return fit_change(clip, sweeps, frames, GROUPS[given["cause"]], stay, progress)

    if guide is None:
        begun, progress = progress.phases(ROUGH, config.steps)
        rough = fit(camera_motion(flow), ROUGH, begun)
        flow = _found_again(shot.frames[span.start : span.stop], basis.knots(rough.flicker), work.device)
    change = fit(flow, config.steps, progress)
    looks = verdict(change, basis, small)
    fields = {name: part.cpu() for name, part in basis.knots(change.flicker).items()}
    fields["kept"] = basis.knots(change.kept)["grid"].mean(dim=(2, 3, 4)).cpu()
    fitted = Fitted(config.steps, 0.0, {"error": change.error}, "steps")
    return Window(fields, {looks.cause: looks.share}, fitted)


def _found_again(frames: Tensor, knots: dict[str, Tensor], device: torch.device) -> Flow:
    """The motion of frames ``(n, H, W, 3)`` that are brought to one appearance, as far as it is known by now."""
    steadied = working_copy(frames, MOTION_SIDE, device)
    for index, frame in enumerate(steadied):
        own = {name: part[index : index + 1] for name, part in knots.items()}
        steadied[index] = (logs(frame) + sliced(**own, frames=frame[None])[0]).exp_().sub_(EPSILON).clamp_(0.0, 1.0)
    return estimate_flow(steadied.movedim(1, -1), model="dis", max_side=0, shots=False)
