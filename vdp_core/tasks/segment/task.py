"""Segment: ``x = sum_i m_i c_i`` with masks that sum to one; layer 0 is the background, the others are what moves.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) finds masks and colours with networks
whose losses are satisfied before the masks mean anything: that is the preset ``paper``. The other presets let motion
speak first. What moves alike against the scene, and lasts, is an object (``motion.py``), or it is what a person's mask
shows. Reflections, wakes and shadows move with it, but not as steadily, and flow there is believed less: they are left
out. Then, in turn: each layer's motion is spread over the frame, and says which layer rebuilds a pixel best from the
neighbouring frames; a small classifier learns what the layers look like; and both, the masks of the neighbouring frames
and the edges of the picture are put together frame by frame, forwards and backwards through the clip. Colours are the
frames' own, so colour cannot settle before the masks do.

Energy. Each of ``rounds`` rounds takes two steps in turn, as hard expectation maximisation does. First the classifier f
learns the masks so far (``classifier.train_classifier``), over its weights::

    E = sum_i w_i cross_entropy(f(features_i), label_i) / n

Then masks m ``(L, h, w)`` are found frame by frame, forwards and backwards (``propagation.propagate``). In each pixel::

    E = sum_l m_l (log m_l - u_l),    sum_l m_l = 1,    least at m = softmax(u)
    u_l  = appearance  * a_l                          classifier: log odds against the most likely layer, -4..0
         + warping     * log(r_0 / r_l)               warp evidence: layer 0 has 0, -2..2
         + propagation * log max(m'_l, PROPAGATED_FLOOR)     the mask of the frame before, along the layer's own flow
         - BEYOND * max(d_l - REACH, 0), at most MOST_AGAINST    of objects, in the frames that show them where expected

r_l is the mean colour difference (3x3 pixels, plus LEAST_RESIDUAL) between the frame and its neighbour warped by the
flow of layer l, the less of the two neighbours' (``LayerFlows.warp_evidence``). Among the classifier's features is how
unlike a pixel is to the background that frames far away show at its place (``LayerFlows.background_evidence``). d_l is
the distance, in diameters of the object, from where the last round or the frame before has it. The guided filter then
moves borders to the edges of the frame: over a line (a, b) of colours in each window k of radius GUIDED_RADIUS::

    E = sum_(i in k) (a . x_i + b - m_i)^2 + GUIDED_EPS |a|^2

(He, Sun and Tang, "Guided Image Filtering", TPAMI 2013, eq. 5, with the colours x as the guide; windows keep their mask
where colour explains little of its variance). Frames with a given mask keep it. Both directions are averaged, by the
inverse of the distance to the nearest given mask. Weights w_i balance layers by their share, and pixels near borders
count less.
x = sum_i m_i c_i itself is no term: colours are the frames' own. The model is that of Video Decomposition Prior (ICLR
2024, arXiv 2412.04930); the terms are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ...image.resize import working_copy
from ...motion.background import track_background
from ...optim.progress import Progress
from ...store.scratch import need_room
from ...types import Shot
from ..base import Found, Given, Published, Work
from ..paper import PAPER_SIDE as PUBLISHED_SIDE
from . import paper
from .config import SegmentConfig
from .find import NO_FIT, Masks, all_background, shown_masks
from .windows import find_masks

__all__ = ["find", "find_as_published", "find_objects", "prepare"]

FINDING, TRACING = 2, 1
"""About how long the phases take, as shares."""


def prepare(frames: Tensor, given: Given, config: SegmentConfig | Published) -> Given:
    """Bring the given masks to the working size, and see that what will be found has room.

    Raises:
        InputError: nothing is left of them there.
        MediaError: neither memory nor the temporary folder has room for what will be found.
    """
    masks: Mapping[int, Tensor] | None = given["mask"]
    side = PUBLISHED_SIDE if isinstance(config, Published) else config.side
    small = working_copy(frames[:1], side)
    # a mask for each layer, and, as the background is followed, two flows and two places with their distance
    need_room(4 * len(frames) * small[0, 0].numel() * (given["layers"] + 2 * 2 + 2 * 3))
    if masks is None or isinstance(config, Published):
        return given
    return {**given, "mask": shown_masks(masks, (small.shape[2], small.shape[3]))}


def find(shot: Shot, given: Given, config: SegmentConfig, work: Work) -> Found:
    """Find the objects of a shot: what moves by itself, or what masks show.

    Returns:
        The fields ``masks`` ``(T, L, h, w)``, the background first, sum 1; and ``before`` and ``after``
        ``(T, 3, h, w)``, where the background behind objects is seen (``motion.background.track_background``).
    """
    finding, tracing = work.progress.phases(FINDING, TRACING)
    return _traced(shot, find_objects(shot, given, config, replace(work, progress=finding)), work.device, tracing)


def find_objects(shot: Shot, given: Given, config: SegmentConfig, work: Work) -> Masks:
    """The masks alone, of ``find``."""
    assert shot.flow is not None
    masks: Mapping[int, Tensor] | None = given["mask"]
    if masks is not None and not masks:
        warning = "no mask shows anything here: the foreground is empty; give a mask of one of these frames"
        return Masks(all_background(shot.frames, config, given["layers"]), NO_FIT, {"warning": warning})
    return find_masks(
        shot.frames, shot.flow, config, given["layers"], work.seed, masks, work.device, work.journal, work.progress
    )


def find_as_published(shot: Shot, given: Given, config: Published, work: Work) -> Found:
    """Find the objects of a shot with the published networks and losses; see ``paper``."""
    assert shot.flow is not None
    finding, tracing = work.progress.phases(FINDING, TRACING)
    found = paper.segment(
        shot.frames,
        shot.flow,
        layers=given["layers"],
        steps=config.steps,
        seed=work.seed,
        device=work.device,
        weights_folders=work.weights_folders,
        journal=work.journal,
        on_step=finding,
    )
    return _traced(shot, found, work.device, tracing)


def _traced(shot: Shot, found: Masks, device: torch.device, progress: Progress) -> Found:
    assert shot.flow is not None
    before, after = track_background(found.masks[:, 0], shot.flow, frames=shot.frames, device=device, on_step=progress)
    return Found({"masks": found.masks, "before": before, "after": after}, found.fitted, found.notes)
