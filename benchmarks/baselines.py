"""What a person has without this project, and fair ways to compare."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
