"""Atlas: ``x = light * sum_i m_i texture_i(map_i(x, y, t))``; layer 0 is the background, the others are in front.

Layered Neural Atlases (Kasten et al., SIGGRAPH Asia 2021) finds mappings, alphas and one atlas with four networks in
400,000 steps. Here every quantity is what it is: masks are pictures, to begin with those of the task segment; a texture
is a picture, solved from the frames; a mapping is a spline through a few knots a frame; light is 4x7 numbers a frame,
and so is the way that a texture moves under the frame while the shutter is open.
Each is found while the others are held, in closed form or by a search, so that nothing is learned.

Energy, of textures T, mappings M (through knots k, ``image.knots``), light l and blur b, over all pixels p of all
frames x_t::

    E = sum_t sum_p sum_i m_i(p) |x_t(p) - l_t(p) y_ti(p)|^2,

with y_ti the mean of T_i(M_ti + s b_ti) over -1/2 < s < 1/2.

T: linear least squares, by conjugate gradients from the weighted mean (``textures.solve``).
l: least squares in its knots, in logarithms by Gauss and Newton's steps; the mean of log l over t: 0.
b: the way that M goes from frame to frame, times the share of that time that the shutter is open (one number a frame
and layer, by a search); it is what makes a texture sharper than frames that were filmed in motion.
M: dense inverse search between the frame and what is rebuilt of it, with its own data term and smoothness, finds where
each pixel should have been read; the knots take the mean of that around them (``mapping.Registration``), of wide
neighbourhoods in the first rounds and of narrow ones in the last. Then they are straightened (``knots.straightened``),
with g the slopes of colour in the texture, k' the knots so far and D the energy of a thin plate::

    E = sum_p m (g . (k - k'))^2 / NOISE + D(k) / (PLIANT d),

d the mean of D(k') around, of knots whose g tell where they are in all directions: a wall is stiff, water is not, and
what slides along edges or lies on plain ground follows from the rest. To begin with, mappings are led from frame to
frame along the flow, from the frame that shows most of a layer outwards, and each is registered to the texture that the
frames before it have made (``mapping.start``). Where pixels would get more than twice as large or small in it, it has
several charts, each led on from a frame that is mapped into two (``mapping.Seam``).
m: from the second round on, in each pixel, with e_i the mean of |x - l y_i|^2 around it and m' the masks to begin
with::

    E = sum_i m_i (log m_i - PRIOR log max(m'_i, UNSURE) - LASTING log(q_i / (1 - q_i)) + EVIDENCE/2 log(e_i + NOISE)),

sum_i m_i = 1, with q_i for an object the share of frames in which what lies there in its texture is the object's, of
those in which it or the background is seen there (1/2 for the background): ripples and shadows that pass are left out.

An object's texture is then also laid, faintly, from around the object (REACH, OUTSIDE), so that its mask can grow onto
what belongs to it: limbs that were missed, and its shadow. In the end, with textures of what masks cover alone, in each
pixel of an object's edge (BAND; elsewhere masks are held, KEPT_APART), with z what is behind the object and m' the mask
so far (as in matting, Porter and Duff: a pixel is a mixture)::

    E = |x - m l y - (1 - m) z|^2 + KEPT (m - m')^2

The model is that of Layered Neural Atlases, eq. 1; the terms are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from ...errors import InputError
from ...store.scratch import large_empty
from ..base import Found, Given
from ..join import join as one_after_the_other
from ..segment.task import prepare as prepare_masks
from .config import AtlasConfig, PublishedAtlas

__all__ = ["join", "prepare"]


def prepare(frames: torch.Tensor, given: Given, config: AtlasConfig | PublishedAtlas) -> Given:
    """See ``tasks.segment.task.prepare``: bring the given masks to their working size.

    Raises:
        InputError: more layers than the published networks have.
    """
    if isinstance(config, PublishedAtlas) and given["layers"] != 2:
        raise InputError(
            f"layers: the preset 'paper' has 2, the background and an object, got {given['layers']}; set it to 2, or "
            "choose another preset"
        )
    return prepare_masks(frames, given, config.masks)


def join(found: Sequence[Found], spans: Sequence[range], given: Given) -> Found:
    """The whole of several shots: their textures of a layer lie below each other in one, with no seam between them."""
    parts, assets = [dict(one.fields) for one in found], dict[str, torch.Tensor]()
    layers = parts[0]["masks"].shape[1]
    charts = [part.get("chart", torch.zeros(len(span), layers)) for part, span in zip(parts, spans, strict=True)]
    firsts = torch.stack([torch.zeros(layers), *(own.amax(dim=0) + 1 for own in charts)]).cumsum(dim=0)
    if any("chart" in part for part in parts):
        for part, own, first in zip(parts, charts, firsts[:-1], strict=True):
            part["chart"] = own + first
    for part in parts:
        part["mapping"] = large_empty(*part["mapping"].shape).copy_(part["mapping"])
        if "blur" in part:
            part["blur"] = part["blur"].clone()
    for number in range(layers):
        textures = [one.assets[f"texture_{number}"] for one in found]
        width, height = max(texture.shape[2] for texture in textures), sum(texture.shape[1] for texture in textures)
        wide = [F.pad(texture, (0, width - texture.shape[2])) for texture in textures]
        assets[f"texture_{number}"] = torch.cat(wide, dim=1)
        top, rows, seams, joined = 0, list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor]()
        for one, part, texture, first in zip(found, parts, textures, firsts[:-1, number].long(), strict=True):
            scale = torch.tensor([texture.shape[2] / width, texture.shape[1] / height]).view(2, 1, 1)
            corner = torch.tensor([0.0, top / height]).view(2, 1, 1)
            part["mapping"][:, number].mul_(scale).add_(corner)
            if "blur" in part:
                part["blur"][:, number].mul_(scale)
            own = one.assets.get(f"rows_{number}", torch.tensor([[0.0, 1.0]]))
            rows.append(own * scale[1, 0] + corner[1, 0])
            if f"seam_{number}" in one.assets:
                seams.append(one.assets[f"seam_{number}"] * scale + corner)
                joined.append(one.assets[f"joined_{number}"] + first)
            top += texture.shape[1]
        if seams:
            assets[f"rows_{number}"] = torch.cat(rows)
            assets |= {f"seam_{number}": torch.cat(seams), f"joined_{number}": torch.cat(joined)}
    apart = [replace(one, fields=part, assets=assets) for one, part in zip(found, parts, strict=True)]
    return one_after_the_other(apart, spans, given)
