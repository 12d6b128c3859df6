"""What a person has without this project, and fair ways to compare."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np


def gamma_to_mid_grey(dark: Tensor) -> Tensor:
    """One power for the clip that brings its mean to where 0.5 comes from."""
    return dark.pow(math.log(0.5) / math.log(float(dark.mean())))


def clahe(dark: Tensor) -> Tensor:
    """Contrast-limited adaptive histogram equalisation of the lightness of every frame."""
    import cv2

    equaliser = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8))
    out = []
    for frame in dark:
        lab = cv2.cvtColor((frame.numpy() * 255.0).round().astype("uint8"), cv2.COLOR_RGB2LAB)
        lab[..., 0] = equaliser.apply(lab[..., 0])
        out.append(torch.from_numpy(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)).float() / 255.0)
    return torch.stack(out)


def still_map(dark: Tensor, still: Tensor, index: int) -> Tensor:
    """One static light map and gamma fitted to a graded still of frame ``index``, applied to every frame."""
    import cv2

    def smooth(picture: Tensor) -> Tensor:
        return torch.from_numpy(cv2.GaussianBlur(picture.numpy(), (0, 0), picture.shape[1] / 16))

    best: tuple[float, Tensor] | None = None
    for gamma in torch.linspace(0.4, 1.2, 17).tolist():
        lifted = dark[index].pow(gamma)
        gain = smooth(still.mean(-1)) / smooth(lifted.mean(-1)).clamp_min(1e-3)
        error = float((lifted * gain[..., None] - still).square().mean())
        if best is None or error < best[0]:
            best = (error, (dark.pow(gamma) * gain[..., None]).clamp(0.0, 1.0))
    assert best is not None
    return best[1]


def best_gain_and_gamma(frames: Tensor, truth: Tensor) -> Tensor:
    """``a * frames ** b`` with the one a and b of the clip that come closest to the truth: takes exposure out of it."""
    values = frames[::4, ::3, ::3].reshape(-1).clamp_min(1e-4).log()
    wanted = truth[::4, ::3, ::3].reshape(-1)

    def gain(power: float) -> tuple[float, float]:
        raised = (values * power).exp()
        factor = float((raised * wanted).sum() / raised.square().sum())
        return float(((factor * raised).clamp(0.0, 1.0) - wanted).square().mean()), factor

    power = min(torch.linspace(0.3, 3.0, 28).tolist(), key=lambda p: gain(p)[0])
    power = min(torch.linspace(power - 0.1, power + 0.1, 21).tolist(), key=lambda p: gain(p)[0])
    return frames.clamp_min(1e-4).pow(power).mul_(gain(power)[1]).clamp_(0.0, 1.0)


def true_light(dark: Tensor, light: Tensor, gamma: float) -> Tensor:
    """The oracle: the true light and gamma undone."""
    return (dark / light[..., None]).clamp(0.0, 1.0).pow(1.0 / gamma)


def dark_channel(hazy: Tensor, *, patch: int = 15, omega: float = 0.95, least: float = 0.1) -> Tensor:
    """Haze off every frame by the dark channel prior, t refined with a guided filter.

    He, Sun and Tang, "Single image haze removal using dark channel prior", CVPR 2009, and "Guided image filtering",
    TPAMI 2013: the airlight is the brightest of the 0.1 % of pixels with the brightest dark channel.
    """
    import cv2
    import numpy as np

    out = []
    window = np.ones((patch, patch), np.uint8)
    for frame in hazy.numpy():
        dark = cv2.erode(frame.min(axis=-1), window)
        count = max(1, dark.size // 1000)
        farthest = frame.reshape(-1, 3)[np.argpartition(dark.ravel(), -count)[-count:]]
        air = farthest[farthest.sum(axis=-1).argmax()].clip(1e-3)
        through = 1.0 - omega * cv2.erode((frame / air).min(axis=-1), window)
        through = _guided(frame.mean(axis=-1), through, radius=40, eps=1e-3).clip(least, 1.0)[..., None]
        out.append(torch.from_numpy(((frame - air) / through + air).clip(0.0, 1.0)).float())
    return torch.stack(out)


def _guided(guide: np.ndarray, picture: np.ndarray, *, radius: int, eps: float) -> np.ndarray:
    """The guided filter with a grey guide, both ``(H, W)``."""
    import cv2

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_picture = mean(guide), mean(picture)
    slope = mean(guide * picture) - mean_guide * mean_picture
    slope = slope / (mean(guide * guide) - mean_guide**2 + eps)
    return mean(slope) * guide + mean(mean_picture - slope * mean_guide)


def true_haze(hazy: Tensor, through: Tensor, airlight: tuple[float, float, float], *, least: float = 0.02) -> Tensor:
    """The oracle: the true transmission ``(T, H, W)`` and airlight undone."""
    air = hazy.new_tensor(airlight)
    return ((hazy - air) / through.clamp_min(least)[..., None] + air).clamp(0.0, 1.0)
