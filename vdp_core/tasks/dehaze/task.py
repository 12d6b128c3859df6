"""Dehaze: ``x = t J + (1 - t) L``, with a transmission t that varies over the frame and an airlight L that may drift.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) finds t and J with two networks, which
reconstruction alone does not identify: that is the preset ``paper``. The other presets hold log t as a small grid for
every few frames and L as a few colours, and find them by what identifies them: the same point of the scene, followed
along the flow, moves in a straight line towards L as haze thickens; somewhere near, the clear scene is almost black in
one channel; and no clear colour is darker than black or brighter than white. J needs no network: it follows from x, t
and L, at native size.

Energy. Log transmission is u = s + o, a smooth part s and objects o, ``(T, h, w)``; the airlight L has a colour every
24 frames. First stage (``HazyClip.fit_smooth``), over s and L with o = 0::

    E = smoothness          * (mean D_t^2 s + mean D_y^2 s + mean D_x^2 s)
      + dark_channel        * mean_b pinball(s(b) - d_b; quantile)
      + (1 - quantile)      * mean_b (max(h_b - s(b), 0) + max(s(b), 0))                     ("range")
      + airlight_smoothness * sum_k |L_(k+1) - L_k|^2
      + airlight_prior      * mean_k |L_k - L_0|^2
      + correspondence      * mean_i rho(x(q_i) - L(q_i) - exp(s(q_i) - s(p_i)) (x(p_i) - L(p_i)); robust_scale)

Second stage (``HazyClip.fit_objects``), over s and o with L known::

    E = smoothness            * (mean D_t^2 s + mean D_y^2 s + mean D_x^2 s)
      + dark_channel          * (quantile mean_b max(s(b) - d_b, 0)
                                 + (1 - quantile) CELL_WEIGHT / B sum_c max(d_c - u(c), 0))
      + (1 - quantile)        * mean_b (max(h_b - u(b), 0) + max(u(b), 0))                   ("range")
      + sparsity              * mean psi(rho(o; OBJECT_SCALE); LARGE_OBJECT)
      + edge_aware_smoothness * sum_(a = y, x) mean e_a psi(rho(D_a o; STEP_SCALE); LARGE_STEP)
      + correspondence        * mean_i rho(x(q_i) - L(q_i) - exp(u(q_i) - u(p_i)) (x(p_i) - L(p_i)); robust_scale)

pinball(v; q) = q max(v, 0) + (1 - q) max(-v, 0), the quantile loss (Koenker and Bassett, "Regression Quantiles",
Econometrica 1978): a share q of the B blocks b may have d_b above s(b). d_b = log(1 - min_c x_c / L_c) of the darkest
value of a block, noise taken off, bounds log t from below, and is about log t itself by the dark channel prior (He, Sun
and Tang, CVPR 2009); h_b = log max_c (x_c - L_c) / (1 - L_c) of the brightest keeps J below 1; cells c are smaller
blocks (``priors.block_extremes``, ``priors.transmission_bounds``). L_0 is the brightest haze
(``priors.initial_airlight``).
D_a^2 is the squared second difference (``losses.smoothness``), D_a o the first; e_a = exp(-|colour difference|^2 /
EDGE_SCALE^2) makes it edge-aware (Godard et al., CVPR 2017, eq. 3). rho is the Charbonnier loss, psi the log-sum
penalty (``losses.log_sum``). Correspondence i sees one point of the scene at p_i and q_i: on a line towards the
airlight (``priors.followed_colours``). What is kept is t = exp(min(u, 0)), u raised so that its median is
LEAST_MEDIAN or more, and by what is taken for black and is not (``find.fit_haze``); what is taken off is less of
it, by the confidence (``models.haze.DOUBT``).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ...denoise.coarse import visible_blocking
from ...denoise.noise import Noise, estimate_noise
from ...image.resize import working_copy
from ...models.haze import UPSAMPLING_EPS
from ...types import Shot
from ..base import Found, Given, Published, Work
from . import paper
from .clip import HazyClip
from .config import PRESETS, DehazeConfig
from .find import Haze, fit_haze, noise_of_copy

__all__ = ["find", "find_as_published"]


def find(shot: Shot, given: Given, config: DehazeConfig, work: Work) -> Found:
    """Find the haze of a shot.

    Returns:
        The fields ``transmission`` ``(T, 1, h, w)`` in 0..1, ``airlight`` ``(T, 3, 1, 1)`` in 0..1, ``confidence`` that
        it is haze, ``chroma_error`` of the airlight and the deviation of the shot's blocks, ``blocking``,
        ``(T, 1, 1, 1)`` each, the ``noise`` of the shot, and ``guide_eps``, by which the field is brought to native
        size.
    """
    assert shot.flow is not None
    noise = estimate_noise(shot.frames, device=work.device)
    haze = fit_haze(shot.frames, shot.flow, config, noise, work.seed, work.device, work.journal, work.progress)
    found = _found(shot, haze, noise)
    blocking = torch.full((len(shot.frames), 1, 1, 1), visible_blocking(shot.frames, device=work.device))
    return replace(
        found, fields={**found.fields, "blocking": blocking}, assets={"guide_eps": torch.tensor(UPSAMPLING_EPS)}
    )


def find_as_published(shot: Shot, given: Given, config: Published, work: Work) -> Found:
    """Find the haze of a shot with the published networks and losses; see ``paper``."""
    assert shot.flow is not None
    waiting, fitting = work.progress.phases(0, 1)
    # the paper takes its airlight from elsewhere too
    quick = PRESETS["fast"]
    noise = estimate_noise(shot.frames, device=work.device)
    small = working_copy(shot.frames, quick.side, work.device)
    clip = HazyClip(small, shot.flow, quick, noise_of_copy(noise, shot.frames, small), work.seed)
    clip.fit_smooth(quick.steps // 2, waiting, work.journal)
    haze = paper.dehaze(
        shot.frames,
        shot.flow,
        airlight=clip.airlight()[:, :, 0, 0].cpu(),
        steps=config.steps,
        seed=work.seed,
        device=work.device,
        weights_folders=work.weights_folders,
        journal=work.journal,
        on_step=fitting,
    )
    return _found(shot, haze, noise)


def _found(shot: Shot, haze: Haze, noise: Noise) -> Found:
    colour = ", ".join(f"{value:.2f}" for value in haze.airlight.mean(dim=0).flatten().tolist())
    said = f"airlight ({colour}), transmission {float(haze.transmission.mean()):.2f} on average"
    fields = {
        "transmission": haze.transmission,
        "airlight": haze.airlight,
        "noise": noise.field(len(shot.frames)),
    }
    if haze.confidence is not None and haze.chroma_error is not None:
        fields |= {"confidence": haze.confidence, "chroma_error": haze.chroma_error}
    return Found(fields, haze.fitted, {"said": said, **haze.notes})
