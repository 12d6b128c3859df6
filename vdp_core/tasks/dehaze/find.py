"""Haze fitted window by window, and its confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...denoise.noise import ROUNDING, Noise
from ...image.borders import scene_area
from ...image.resize import working_copy
from ...optim.fit import Fitted
from ...optim.progress import Progress
from ...optim.windows import WINDOW_OVERLAP, Window, blended, combined_fit, fit_windows, windows
from ...store.journal import Journal
from ...types import Flow
from .clip import HazyClip
from .config import DehazeConfig
from .priors import block_extremes, initial_airlight

__all__ = ["Haze", "fit_haze", "noise_of_copy"]

LEAST_MEDIAN = math.log(0.25)
"""Of t, its median over the clip, at least. A bright scene in haze looks just as a dark one in denser haze does, and
taking off too much does more harm: without this, bright clips in dense haze came out up to 5.6 dB below the hazy ones
themselves; with it, never more than 0.04 (30 clips)."""


class Haze(NamedTuple):
    """The haze of a clip, as one of the presets found it."""

    transmission: Tensor
    """``(T, 1, h, w)``, on the CPU."""
    airlight: Tensor
    """``(T, 3, 1, 1)``, on the CPU."""
    fitted: Fitted
    notes: Mapping[str, str]


def fit_haze(
    frames: Tensor,
    flow: Flow,
    config: DehazeConfig,
    noise: Noise,
    seed: int,
    device: torch.device,
    journal: Journal,
    progress: Progress,
) -> Haze:
    """Find the haze window by window; the whole shot has one confidence and one bound on its density.

    ``noise`` is that of the frames.
    """
    spans = windows(len(frames), config.window, WINDOW_OVERLAP)
    expected = None
    if len(spans) > 1:
        some = working_copy(frames[:: max(1, len(frames) // 64)], config.side, device)
        expected = initial_airlight(block_extremes(some, noise_of_copy(noise, frames, some), area=scene_area(some)))

    def work(number: int, _: Mapping[int, Window], journal: Journal, progress: Progress) -> Window:
        span = spans[number]
        small = working_copy(frames[span.start : span.stop], config.side, device)
        own = noise_of_copy(noise, frames, small)
        clip = HazyClip(small, flow.part(span.start, span.stop), config, own, seed + number, expected=expected)
        return _fit_window(clip, config, journal, progress)

    found = fit_windows(spans, work, journal=journal, progress=progress)
    mean = {
        name: sum(window.numbers[name] * len(span) for window, span in zip(found, spans, strict=True))
        / sum(map(len, spans))
        for name in found[0].numbers
    }
    confidence = _confidence(mean["explained_variance"], mean["amount"], mean["dark_channel_loss"])
    notes = {
        "points": f"{sum(window.numbers['points'] for window in found):.0f}",
        "explained_variance": f"{mean['explained_variance']:.2f}",
        "confidence": f"{confidence:.2f}",
    }
    if confidence < 0.5:
        notes["warning"] = "hardly any haze to be seen, so hardly any is taken off"
    log_t, airlight = (blended(spans, [window.fields[name] for window in found]) for name in ("log_t", "airlight"))
    log_t = log_t + F.relu(LEAST_MEDIAN - log_t.median())
    transmission = (confidence * log_t.clamp(max=0.0)).exp()[:, None]
    return Haze(transmission, airlight[:, :, None, None], combined_fit(found), notes)


def noise_of_copy(noise: Noise, frames: Tensor, small: Tensor) -> Noise:
    """The noise of a working copy ``(T, 3, h, w)`` of frames ``(T, H, W, 3)``: each of its pixels averages several.

    Without rounding, the least that is found of any clip.
    """
    return noise.less(ROUNDING**2).scaled(math.prod(small.shape[2:]) / math.prod(frames.shape[1:3]))


def _fit_window(clip: HazyClip, config: DehazeConfig, journal: Journal, progress: Progress) -> Window:
    """Find the airlight with a smooth log t, then log t with objects in front of the haze, the airlight known."""
    steps = max(1, config.steps // 2)
    first, second = progress.phases(steps, max(0, config.steps - steps))
    fitted = clip.fit_smooth(steps, first, journal)
    with torch.no_grad():
        numbers = {
            "explained_variance": clip.explained_variance(),
            "dark_channel_loss": fitted.terms["dark_channel"] / max(config.dark_channel, 1e-9),
            "amount": float(1.0 - clip.smooth().clamp(max=0.0).exp().mean()),
            "points": float(len(clip.points)),
        }
    if config.steps > steps:
        again = clip.fit_objects(config.steps - steps, second, journal)
        fitted = replace(again, steps=fitted.steps + again.steps, seconds=fitted.seconds + again.seconds)
    with torch.no_grad():
        fields = {"log_t": clip.log_t(), "airlight": clip.airlight()[:, :, 0, 0]}
        return Window({name: field.cpu() for name, field in fields.items()}, numbers, fitted)


def _confidence(explained_variance: float, amount: float, dark_channel_loss: float) -> float:
    """Confidence that the result is haze, 0 to 1: clear pictures are not black everywhere either.

    Either the haze explains how the colours of followed points change: over 15 hazy clips by 0.59 to 0.87, over five
    clear ones by -0.4 to 0.41. Or there is much of it and nearly every part of the clip fits it: clear clips seem to
    hold 0.07 to 0.10 of haze, or up to 0.44 with misfits of 0.1 and more where walls are bright.

    Args:
        explained_variance: share of the change of followed colours that t and L explain; 1 is all of it.
        amount: mean of 1 - t.
        dark_channel_loss: mean of the quantile loss.
    """
    moving = _smoothstep(explained_variance, 0.39, 0.49) * _smoothstep(amount, 0.10, 0.18)
    still = _smoothstep(amount, 0.15, 0.30) * (1.0 - _smoothstep(dark_channel_loss, 0.07, 0.09))
    return max(moving, still)


def _smoothstep(value: float, low: float, high: float) -> float:
    """0 below ``low``, 1 above ``high``, smooth in between."""
    at = min(max((value - low) / (high - low), 0.0), 1.0)
    return at * at * (3.0 - 2.0 * at)
