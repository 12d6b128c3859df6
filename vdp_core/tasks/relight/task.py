"""Relight: ``x_out = A * x_in ** gamma`` with a smooth light map A that may vary over the frame and drift in time.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) optimises
``log x_in = (1/gamma) (log(1/A) + log x_out)`` with two networks, which reconstruction alone does not identify: that
is the preset ``paper``. The other presets hold log A as a small grid for every frame and find it by what identifies
it: the same point of the scene, followed along the flow, keeps its colour, so what changes is the light; light is
smooth in the frame and in time; and a picture is well exposed on the whole, or looks like the graded still given.

Energy. For each window, over the log light g ``(T, h, w)``; with a reference also over gamma, the colour c and s::

    E = spatial_smoothness  * (mean D_y^2 g + mean D_x^2 g)
      + temporal_smoothness * mean D_t^2 (g - mean_xy g)
      + l2_prior            * mean g^2
      + correspondence      * sum_i w_i rho(g(q_i) - g(p_i) - r_i; robust_scale) / sum_i w_i
      + reference           * mean rho(exp(c) (x_k / exp(g_k - s))^gamma - x_ref; REFERENCE_SCALE)
      + spatial_smoothness  * (mean D_y^2 s + mean D_x^2 s)                                ("kept_smoothness")
      + steadiness          * mean rho(d_t (g - mean_xy g); robust_scale)

D_a^2 f is the squared second difference along axis a (``losses.smoothness``; Terzopoulos, PAMI 1986); rho the
Charbonnier loss (``losses.charbonnier``; Charbonnier et al., ICIP 1994). Correspondence i sees one point of the
scene at p_i and at q_i, (x, y, t); r_i is the log of its brightness at q_i over that at p_i, and w_i in 0..1 falls
where the point is dim, occluded, or changes its chromaticity (``priors.corresponding_light``). The term says that
a point keeps its reflectance x / exp(g) along the flow. x_k is the frame that the reference x_ref shows, and s,
``(h, w)``, the light that the reference leaves in, such as darker corners, in all frames alike. Points say how the
light changed, up to a pattern that moves with the scene; steadiness has it move as little as may be, and decides about
what comes into view. Without a reference the last three terms and s are missing, and gamma and c come from
``priors.natural_tone``. x is the source and what was taken off its values (``priors.black_level``). What is saved is
log A = -gamma (g - s); ``models.light.Held`` says how far it is applied where the signal holds little.
The model is that of Video Decomposition Prior (ICLR 2024, arXiv 2412.04930); the terms are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...denoise.coarse import visible_blocking
from ...denoise.noise import Noise, estimate_noise
from ...image.borders import scene_area
from ...image.resize import working_copy
from ...models.light import HELD, Held
from ...types import Shot
from ..base import Found, Given, Published, Work
from ..given import Reference
from ..join import join as join_shots
from . import paper
from .config import RelightConfig
from .find import fit_light
from .found import Light
from .priors import NATURAL_MEAN, black_level, brightest
from .reference import frame_shown
from .tone import Tone, cast_of, sampled, tone_of

__all__ = ["find", "find_as_published", "join", "prepare"]

NO_SHOULDER = 1e-3
"""A brightest value that nothing brings above white."""


def prepare(frames: Tensor, given: Given, config: RelightConfig | Published) -> Given:
    """Find the frame that the reference shows.

    Raises:
        InputError: it looks like none of the clip, or not like the one that it is said to show.
    """
    reference: Reference | None = given["reference"]
    if reference is None:
        return given
    shown = frame_shown(reference.still, reference.frame, frames)
    return {**given, "reference": reference._replace(frame=shown)}


def find(shot: Shot, given: Given, config: RelightConfig, work: Work) -> Found:
    """Find the light of a shot, and its tone: like the reference's where its frame is in the shot, else natural.

    Returns:
        The fields ``log_gain`` ``(T, 1, h, w)``, which is log A, ``colour`` ``(T, 3, 1, 1)``, which is added to it for
        red, green and blue, and ``gamma`` ``(T, 1, 1, 1)``, both the same in the whole shot; and its ``noise``, the
        deviation of its blocks, ``blocking``, what was taken off its values, ``black``, and its brightest value,
        ``white``, ``(T, 1, 1, 1)`` each; and the log colour of its light, ``cast``, ``(T, 3, h, w)``.
    """
    assert shot.flow is not None
    reference: Reference | None = given["reference"]
    still, frame = (None, -1) if reference is None else reference
    noise = estimate_noise(shot.frames, device=work.device)
    small = working_copy(sampled(shot.frames), config.side, work.device)
    area = scene_area(small)
    lift = max(NATURAL_MEAN / max(float(small[..., area].mean()), 1e-3), 1.0)
    # a clip that is twice as bright afterwards shows all of them, one that is bright already keeps its texture
    blocking = min(2.0 - 2.0 / lift, 1.0) * visible_blocking(shot.frames, gain=lift, device=work.device)
    black = black_level(small, area)
    # a still says how bright places are to be
    white = NO_SHOULDER if still is not None else min(brightest(small) + black, 1.0)
    values = blocking, black, white
    fields = {name: torch.full((1, 1, 1, 1), value) for name, value in zip(HELD, values, strict=True)}
    held = Held.of(noise.field(1).to(small), *(field.to(small) for field in fields.values()))

    def expose(log_light: Tensor) -> Tone:
        return tone_of(small + black, log_light, held, area)

    light = fit_light(
        shot.frames, shot.flow, config, held, expose, work.seed, still, frame, work.device, work.journal, work.progress
    )
    found = _found(shot, light, noise)
    count = len(shot.frames)
    whole = {name: x.repeat(count, 1, 1, 1) for name, x in fields.items()}
    whole["cast"] = cast_of(shot.frames, config.side, work.device, held)
    return replace(found, fields={**found.fields, **whole})


def find_as_published(shot: Shot, given: Given, config: Published, work: Work) -> Found:
    """Find the light of a shot with the published networks and losses; see ``paper``."""
    assert shot.flow is not None
    light = paper.relight(
        shot.frames,
        shot.flow,
        steps=config.steps,
        seed=work.seed,
        device=work.device,
        weights_folders=work.weights_folders,
        journal=work.journal,
        on_step=work.progress,
    )
    return _found(shot, light, estimate_noise(shot.frames, device=work.device))


def join(found: Sequence[Found], spans: Sequence[range], given: Given) -> Found:
    """Lend the gamma and the colour of the shot with the reference to the others; the light that was found stays."""
    reference: Reference | None = given["reference"]
    if reference is None:
        return join_shots(found, spans, given)
    graded = next(part for part, span in zip(found, spans, strict=True) if reference.frame in span)
    whole = join_shots([_graded_like(part, graded) for part in found], spans, given)
    return replace(whole, notes={**whole.notes, "reference_frame": str(reference.frame)})


def _graded_like(found: Found, other: Found) -> Found:
    count = len(found.fields["gamma"])
    gamma, colour = (other.fields[name][:1] for name in ("gamma", "colour"))
    fields = {
        **found.fields,
        "log_gain": found.fields["log_gain"] * (gamma / found.fields["gamma"]),
        "gamma": gamma.repeat(count, 1, 1, 1),
        "colour": colour.repeat(count, 1, 1, 1),
    }
    if "white" in other.fields:  # how highlights are treated is part of the look
        fields["white"] = other.fields["white"][:1].repeat(count, 1, 1, 1)
    return replace(found, fields=fields)


def _found(shot: Shot, light: Light, noise: Noise) -> Found:
    count = len(shot.frames)
    fields = {
        "log_gain": light.log_gain,
        "colour": torch.tensor(light.colour).view(1, 3, 1, 1).repeat(count, 1, 1, 1),
        "gamma": torch.full((count, 1, 1, 1), light.gamma),
        "noise": noise.field(count),
    }
    return Found(fields, light.fitted, {"said": f"gamma {light.gamma:.2f}", **light.notes})
