"""Relight as published: networks for light and colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...nets.unet import alpha_net, rgb_net
from ...store.journal import Journal
from ...types import Flow, OnStep
from ..paper import DARKEST, Prediction, PublishedFit, Recipe
from .found import Light

__all__ = ["relight"]

INVERSE_GAMMA = 0.9  # where it starts
INVERSE_GAMMA_RANGE = (0.1, 1.0)

LIGHT = Recipe(learning_rate=2e-3, batch=4, warp=0.02)


def relight(
    frames: Tensor,
    flow: Flow,
    *,
    steps: int,
    seed: int,
    device: torch.device | str,
    weights_folders: Sequence[Path],
    journal: Journal,
    on_step: OnStep | None,
) -> Light:
    """Optimise ``log x_in = (1/gamma) (log(1/A) + log x_out)``: alpha-net gives 1/A, RGB-net x_out, gamma is learnt.

    The loss is ``L1 + perceptual`` between x_in and what it is rebuilt as, and 0.02 times the warp term of x_out. The
    perceptual term compares VGG16 features where weights are found, else gradients and SSIM; ``notes`` say which.

    Args:
        frames, flow, steps, seed, device, weights_folders, journal, on_step: see ``tasks.base.Work``.

    Raises:
        ShapeError: the frames are too long and narrow for the networks' three poolings.
    """
    clip = PublishedFit(frames, flow, device, weights_folders)
    rgb, alpha = clip.networks(seed, rgb_net, alpha_net)
    inverse_gamma = torch.tensor(INVERSE_GAMMA, device=device, requires_grad=True)

    def model(run: slice) -> Prediction:
        out = rgb(clip.small[run]).clamp_min(DARKEST)
        inverse_gain = alpha(clip.colours[run]).clamp_min(DARKEST)
        rebuilt = (inverse_gamma.clamp(*INVERSE_GAMMA_RANGE) * (inverse_gain.log() + out.log())).exp()
        return Prediction(rebuilt, out, {})

    parameters = [*rgb.parameters(), *alpha.parameters(), inverse_gamma]
    fitted = clip.optimise(model, parameters, LIGHT, steps, seed, lambda run: rgb(clip.small[run])[0], journal, on_step)
    gain = clip.predicted_by(alpha).clamp_min(DARKEST).log().neg()
    with torch.no_grad():
        gamma = 1.0 / float(inverse_gamma.clamp(*INVERSE_GAMMA_RANGE))
    return Light(gain, gamma, (0.0, 0.0, 0.0), fitted, clip.notes)
