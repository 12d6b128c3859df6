"""Segment as published: networks for masks and colours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from ...nets.unet import alpha_net, rgb_net
from ...optim.losses import flow_similarity, layer_term, mask_binarisation
from ...store.journal import Journal
from ...types import Flow, OnStep
from ..paper import DARKEST, Prediction, PublishedFit, Recipe
from .find import Masks

__all__ = ["segment"]

OBJECTS = Recipe(learning_rate=1e-3, batch=2, warp=0.01)
FLOW_SIMILARITY, LAYER, BINARISATION = 0.001, 1.0, 0.01
"""Weights of the terms that only segmentation has."""


def segment(
    frames: Tensor,
    flow: Flow,
    *,
    layers: int,
    steps: int,
    seed: int,
    device: torch.device | str,
    weights_folders: Sequence[Path],
    journal: Journal,
    on_step: OnStep | None,
) -> Masks:
    """Optimise ``x = sum_i m_i x_i``: an alpha-net gives m for each layer but one, an RGB-net x_i for each layer.

    The loss is ``L1 + perceptual`` between x and what it is rebuilt as, the layer term, 0.001 times the flow
    similarity, and 0.01 times each of the warp term of the masks and their binarisation. Which layer becomes which is
    left to chance; the one that holds most of the frames' border is put first, as the background.

    Args:
        frames, flow, steps, seed, device, weights_folders, journal, on_step: see ``tasks.base.Work``.
        layers: how many, 2 or more.

    Raises:
        ShapeError: the frames are too long and narrow for the networks' three poolings.
    """
    clip = PublishedFit(frames, flow, device, weights_folders)
    networks = clip.networks(seed, *[rgb_net] * layers, *[alpha_net] * (layers - 1))
    colour_nets, mask_nets = networks[:layers], networks[layers:]

    def model(run: slice) -> Prediction:
        x, motion = clip.small[run], clip.colours[run]
        masks = _sum_to_one(torch.cat([net(motion) for net in mask_nets], dim=1))
        pictures = torch.stack([net(x) for net in colour_nets], dim=1)
        pairs = [(masks[:, i : i + 1], masks[:, j : j + 1]) for i, j in combinations(range(layers), 2)]
        similarity = torch.stack([flow_similarity(motion, first, second, clip.features) for first, second in pairs])
        terms = {
            "layer": LAYER * layer_term(masks, pictures, x).mean(),
            "flow_similarity": FLOW_SIMILARITY * similarity.mean(),
            "binarisation": BINARISATION * mask_binarisation(masks).mean(),
        }
        return Prediction((masks[:, :, None] * pictures).sum(dim=1), masks, terms)

    def preview(run: slice) -> Tensor:
        masks = _sum_to_one(torch.cat([net(clip.colours[run]) for net in mask_nets], dim=1))
        return masks[0, 1:].sum(dim=0).expand(3, -1, -1)

    parameters = [parameter for net in networks for parameter in net.parameters()]
    fitted = clip.optimise(model, parameters, OBJECTS, steps, seed, preview, journal, on_step)
    masks = _sum_to_one(torch.cat([clip.predicted_by(net) for net in mask_nets], dim=1))
    notes = {**clip.notes, "flow_similarity": "vgg16" if clip.features is not None else "mean colours of the flow"}
    return Masks(_background_first(masks), fitted, notes)


def _sum_to_one(opacities: Tensor) -> Tensor:
    """Masks ``(n, L, h, w)`` from the alpha-nets' ``(n, L - 1, h, w)``: scaled to sum to one, as published.

    The first layer gets what all others leave; with two layers that is ``(1 - m, m)``.
    """
    masks = torch.cat(((1.0 - opacities).prod(dim=1, keepdim=True), opacities), dim=1)
    return masks / masks.sum(dim=1, keepdim=True).clamp_min(DARKEST)


def _background_first(masks: Tensor) -> Tensor:
    """The layers so that the first covers most of the frames' border, the others in their order."""
    at_border = masks[:, :, (0, -1)].mean((0, 2, 3)) + masks[..., (0, -1)].mean((0, 2, 3))
    background = int(at_border.argmax())
    return masks[:, [background, *(index for index in range(masks.shape[1]) if index != background)]]
