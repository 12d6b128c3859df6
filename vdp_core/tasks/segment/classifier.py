"""Appearance of layers: features of pixels, and a small network that learns them on the clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...image.colour import to_lab
from ...image.morphology import box_mean, distance_inside
from ...image.resize import resize
from ...optim.fit import Fitted, fit
from ...types import OnStep
from .config import SegmentConfig
from .motion import MotionTracks

__all__ = ["PixelFeatures", "train_classifier"]

CONFIDENT_DISTANCE = 6
"""Distance from the border of a mask, in pixels, from which on its labels have full confidence."""
LARGEST_LOG_ODDS = 4.0
"""Largest log odds of the classifier."""


class PixelFeatures:
    """Features of a pixel: its colour, the mean colour and contrast around it, and its motion."""

    def __init__(self, small: Tensor, motion: MotionTracks) -> None:
        self._small, self._speed = small, motion.speed
        # copies: a view of a seventh would keep the whole
        every = max(1, len(small) // 16)
        some = torch.cat([self._colours(index)[::7].clone() for index in range(0, len(small), every)])
        self._mean, self._deviation = some.mean(dim=0), some.std(dim=0).clamp_min(1e-4)

    def of(self, index: int, warp_evidence: Tensor, background: Tensor) -> Tensor:
        """All pixels of a frame, ``(h * w, features)``, with what ``LayerFlows.warp_evidence`` and
        ``background_evidence`` say of it."""
        size = (self._small.shape[2], self._small.shape[3])
        speed = resize(self._speed[index : index + 1], size)
        colours = (self._colours(index) - self._mean) / self._deviation
        motion = [part.float().flatten(1).T for part in (speed[0], warp_evidence, background)]
        return torch.cat((colours, *motion), dim=1)

    def _colours(self, index: int) -> Tensor:
        lab = to_lab(self._small[index : index + 1])
        values = torch.cat((lab, lab[:, :1].square()), dim=1)
        seen = [lab]
        for radius in (2, 7):
            around = box_mean(values, radius)
            contrast = (around[:, 3:] - around[:, :1].square()).clamp_min(0.0).sqrt()
            seen += [around[:, :3], contrast]
        return torch.cat(seen, dim=1)[0].flatten(1).T


def train_classifier(
    features: PixelFeatures,
    warp_evidence: Tensor,
    background: Tensor,
    labels: Tensor,
    training_frames: list[int],
    fixed: Mapping[int, Tensor],
    config: SegmentConfig,
    seed: int,
    on_step: OnStep,
) -> tuple[Callable[[Tensor], Tensor], Fitted]:
    """Teach a classifier the labels of some frames; it gives log odds ``(L, h, w)`` from what ``features`` shows."""
    _, kinds, height, width = labels.shape
    device = labels.device
    generator = torch.Generator(device).manual_seed(seed)
    seen, wanted, weights = [], [], []
    for index in training_frames:
        kind = labels[index].argmax(dim=0)
        # what a person gave counts as it is, and as much as everything that was found
        confidence = torch.ones_like(kind, dtype=torch.float32) if index in fixed else _label_confidence(kind)
        share = torch.bincount(kind.flatten(), minlength=kinds).clamp_min(1) / kind.numel()
        rarity = share[kind] ** (-0.5)
        # pixels drawn in proportion to trust and rarity
        summed = (confidence * rarity).flatten().double().cumsum(dim=0)
        size = (min(config.samples, kind.numel()),)
        drawn = torch.rand(size, dtype=torch.float64, generator=generator, device=device) * summed[-1]
        chosen = torch.searchsorted(summed, drawn).clamp_max(kind.numel() - 1)
        seen.append(features.of(index, warp_evidence[index], background[index])[chosen])
        wanted.append(kind.flatten()[chosen])
        balance = share[kind.flatten()[chosen]] ** (-0.5 if index in fixed else 0.5)
        weights.append(balance / balance.mean() * (len(training_frames) / len(fixed) if index in fixed else 1.0))
    x, y, w = torch.cat(seen), torch.cat(wanted), torch.cat(weights)
    del seen, wanted, weights
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs as well
        hidden = 32
        net = nn.Sequential(
            nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, kinds)
        )
    net = net.to(device)

    def step(_: int) -> dict[str, Tensor]:
        chosen = torch.randint(len(x), (4096,), generator=generator, device=device)
        losses = F.cross_entropy(net(x[chosen]), y[chosen], reduction="none")
        return {"labels": (w[chosen] * losses).mean()}

    fitted = fit(
        step, net.parameters(), steps=config.steps, learning_rate=config.learning_rate, plateau=0.0, on_step=on_step
    )

    @torch.no_grad()
    def classify(pixels: Tensor) -> Tensor:
        log_odds = net(pixels)
        log_odds = (log_odds - log_odds.amax(dim=1, keepdim=True)).clamp_min(-LARGEST_LOG_ODDS)
        return log_odds.T.reshape(kinds, height, width)

    return classify, fitted


def _label_confidence(kind: Tensor) -> Tensor:
    """How far labels ``(h, w)`` can be trusted, 0.1..1: least at the borders between them."""
    same = torch.ones_like(kind, dtype=torch.bool)
    same[:-1] &= kind[:-1] == kind[1:]
    same[:, :-1] &= kind[:, :-1] == kind[:, 1:]
    return (distance_inside(same, CONFIDENT_DISTANCE) / CONFIDENT_DISTANCE).clamp_min(0.1)
