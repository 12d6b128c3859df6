"""Haze fitted window by window, and its confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
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
from .priors import block_extremes, initial_airlight, ranked

__all__ = ["Haze", "fit_haze", "noise_of_copy"]

LEAST_MEDIAN = math.log(0.25)
"""Of t, its median over the clip, at least. A bright scene in haze looks just as a dark one in denser haze does, and
taking off too much does more harm: without this, bright clips in dense haze came out up to 5.6 dB below the hazy ones
themselves; with it, never more than 0.04 (30 clips)."""
LEAST_MISFIT, DARK_OF_MISFIT, MOST_DARK = 0.015, 5.0, 0.25
"""What is darkest in a clear scene is not black, so t is more than the dark channel says; how much more, shows in how
unevenly the dark values of the parts of the clip lie about smooth haze. Log t is raised by this many times the mean
quantile loss above the least. On 40 hazy copies of 16 clips (benchmarks/dehaze.py, range; a brighter first guess of the
airlight, and all of the haze taken off) none was below its hazy input so, and three without."""
CHROMA_ERROR, TOLD_FROM, TOLD = 0.15, 0.3, 0.6
"""Error of the airlight's colour in units of the chroma of clips, and explained variance from which on it is less, and
none. Over 40 hazy copies, chosen as above, the mean did not change; cast and blotches far away did where haze stands
still."""
EVIDENCE = ("near", "nearest", "contrast", "blocks", "explained_variance")
"""What the confidence is of."""
FEW_BLOCKS, ASKED = 50.0, 1.0
"""Log odds before anything was looked at, and how many blocks say as much."""
SURE_ODDS = 0.75
"""Log odds at which the confidence is a half: to harm a clear clip is worse than to leave some haze in."""
UNSURE, SURE = 0.3, 0.8
"""Confidence below which only dense haze is taken off, and from which on nothing need be said."""
BELIEVE = "the setting 'believe' of Dehaze takes off all that may be there"


class Haze(NamedTuple):
    """The haze of a clip, as one of the presets found it."""

    transmission: Tensor
    """``(T, 1, h, w)``, on the CPU."""
    airlight: Tensor
    """``(T, 3, 1, 1)``, on the CPU."""
    confidence: Tensor | None
    """``(T, 1, 1, 1)``, that this is haze and not a bright scene; None of the published method, which never doubts."""
    chroma_error: Tensor | None
    """``(T, 1, 1, 1)``, expected error of the airlight's colour, in units of the chroma of clips; None as above."""
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
    confidence = _confidence(**{name: mean[name] for name in EVIDENCE})
    notes = {
        "points": f"{sum(window.numbers['points'] for window in found):.0f}",
        "explained_variance": f"{mean['explained_variance']:.2f}",
        "confidence": f"{confidence:.2f}",
    }
    if confidence < UNSURE:
        notes["warning"] = "hardly any haze is sure to be there, so only what is dense is taken off; " + BELIEVE
    elif confidence < SURE:
        notes["warning"] = "haze is likely but not sure, so some is left in; " + BELIEVE
    log_t, airlight = (blended(spans, [window.fields[name] for window in found]) for name in ("log_t", "airlight"))
    log_t = log_t + max(float(LEAST_MEDIAN - log_t.median()), _dark_floor(log_t, mean["dark_channel_loss"]))
    transmission = log_t.clamp(max=0.0).exp()[:, None]
    sure = torch.full((len(frames), 1, 1, 1), confidence)
    doubt = torch.full_like(sure, _chroma_error(mean["explained_variance"]))
    return Haze(transmission, airlight[:, :, None, None], sure, doubt, combined_fit(found), notes)


def _dark_floor(log_t: Tensor, dark_channel_loss: float) -> float:
    """By how much log t is to be raised for what is darkest and not black; the nearest things keep 1 or less."""
    nearest = log_t[:: max(1, len(log_t) // 16)].flatten()
    room = max(-float(ranked(nearest, 0.95)), 0.0)
    return min(DARK_OF_MISFIT * max(dark_channel_loss - LEAST_MISFIT, 0.0), MOST_DARK, room)


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
        near, nearest, contrast = clip.evidence()
        numbers = {
            "near": near,
            "nearest": nearest,
            "contrast": contrast,
            "blocks": float(clip.blocks),
            "explained_variance": clip.explained_variance(),
            "dark_channel_loss": fitted.terms["dark_channel"] / max(config.dark_channel, 1e-9),
            "points": float(len(clip.points)),
        }
    if config.steps > steps:
        again = clip.fit_objects(config.steps - steps, second, journal)
        fitted = replace(again, steps=fitted.steps + again.steps, seconds=fitted.seconds + again.seconds)
    with torch.no_grad():
        fields = {"log_t": clip.log_t(), "airlight": clip.airlight()[:, :, 0, 0]}
        return Window({name: field.cpu() for name, field in fields.items()}, numbers, fitted)


def _chroma_error(explained_variance: float) -> float:
    """Expected error of the airlight's colour: none where what moves in the haze tells it, else ``CHROMA_ERROR``."""
    told = min(max((explained_variance - TOLD_FROM) / (TOLD - TOLD_FROM), 0.0), 1.0)
    return CHROMA_ERROR * (1.0 - told)


def _confidence(near: float, nearest: float, contrast: float, blocks: float, explained_variance: float) -> float:
    """Confidence that what was found is haze, 0 to 1: clear pictures are not black everywhere either.

    A logistic regression of the first three on 355 clear and 710 hazy variants of 16 clips (other cuts, gammas 0.6 to
    1.6, colours of 0.15 to 0.3, hazes of beta 0.4 to 2.2) and of three real hazy clips, one of them also clear; grey
    and bright variants stand for the grey and bright scenes that are no haze. With each clip left out in turn, 5 of
    the clear ones, of two clips, come out above 0.5; of the 576 of beta 0.6 and more 50 below, nearly all of beta 0.8
    and less, before motion is asked. The weight of motion is of 57 copies and clear clips: it tells haze over scenes
    with something black and near.

    Args:
        near, nearest, contrast: see ``priors.evidence_of_haze``.
        blocks: of which they are statistics; where these are few, it counts that somebody asked for haze to be found.
        explained_variance: of what moves in the haze.
    """
    log_odds = 7.9 * near + 9.5 * nearest - 4.2 * math.log(max(contrast, 0.0) + 0.03) - 6.2
    log_odds += 10.0 * max(explained_variance - TOLD_FROM, 0.0)
    log_odds = (blocks * log_odds + FEW_BLOCKS * ASKED) / (blocks + FEW_BLOCKS)
    return 1.0 / (1.0 + math.exp(SURE_ODDS - log_odds))
