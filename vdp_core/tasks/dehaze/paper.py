"""Dehaze as published: networks for transmission and colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...nets.unet import alpha_net, rgb_net
from ...store.journal import Journal
from ...types import Flow, OnStep
from ..paper import DARKEST, Prediction, PublishedFit, Recipe
from .find import Haze

__all__ = ["dehaze"]

HAZE = Recipe(learning_rate=2e-3, batch=4, warp=0.02)


def dehaze(
    frames: Tensor,
    flow: Flow,
    *,
    airlight: Tensor,
    steps: int,
    seed: int,
    device: torch.device | str,
    weights_folders: Sequence[Path],
    journal: Journal,
    on_step: OnStep | None,
) -> Haze:
    """Optimise ``x = t J + (1 - t) L``: alpha-net gives t, RGB-net the clear J; the airlight L is given and stays.

    The loss is ``L1 + perceptual`` between x and what it is rebuilt as, and 0.02 times the warp term of J.

    Args:
        frames, flow, steps, seed, device, weights_folders, journal, on_step: see ``tasks.base.Work``.
        airlight: ``(T, 3)`` in 0..1. The paper takes that of Bahat and Irani, ICCP 2016; any estimate will do.

    Raises:
        ShapeError: the frames are too long and narrow for the networks.
    """
    clip = PublishedFit(frames, flow, device, weights_folders)
    rgb, alpha = clip.networks(seed, rgb_net, alpha_net)
    airlight_field = airlight.float()[:, :, None, None]
    airlight_on_device = airlight_field.to(device)

    def model(run: slice) -> Prediction:
        clear, t = rgb(clip.small[run]), alpha(clip.colours[run])
        return Prediction(t * clear + (1.0 - t) * airlight_on_device[run], clear, {})

    parameters = [*rgb.parameters(), *alpha.parameters()]
    fitted = clip.optimise(model, parameters, HAZE, steps, seed, lambda run: rgb(clip.small[run])[0], journal, on_step)
    return Haze(clip.predicted_by(alpha).clamp_min(DARKEST), airlight_field.cpu(), None, None, fitted, clip.notes)
