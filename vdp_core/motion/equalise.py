"""Copies of dark or unevenly lit frames on which motion can be found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["equalised", "normalised"]


def equalised(picture: np.ndarray) -> np.ndarray:
    """Return a denoised copy in which every region has about the same brightness and contrast, however dark it was.

    Smoothed a little against noise, in logs (where light multiplies it becomes an offset), less the local mean and over
    the local deviation: light that varies over the frame or drifts in time is gone, what reflects it stays.

    Args:
        picture: ``(h, w, C)`` float32 in 0..1.

    Returns:
        The same shape, float32 in 0..1, mid-grey on average.
    """
    import cv2
    import numpy as np

    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0).reshape(picture.shape)
    # Below 0.02 there is more noise than picture in 8 bits: the offset keeps the logarithm from blowing it up.
    logs = np.log(smooth + 0.02)
    brightness = logs.mean(axis=-1)
    mean = _local_mean(brightness)
    deviation = np.sqrt(_local_mean(np.square(brightness - mean)))
    # The constant in the divisor leaves flat regions flat.
    out = 0.5 + 0.2 * (logs - mean[..., None]) / (deviation + 0.2)[..., None]
    return np.clip(out, 0.0, 1.0)


def normalised(picture: np.ndarray) -> np.ndarray:
    """Return a copy of a picture ``(h, w)`` in 0..1, smoothed a little, less its local mean and over its deviation.

    Haze, which takes contrast, and light that changes leave it as it is; what is small and what is large count alike.
    """
    import cv2
    import numpy as np

    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0)
    mean = _local_mean(smooth)
    deviation = np.sqrt(_local_mean(np.square(smooth - mean)))
    return np.clip(0.5 + 0.2 * (smooth - mean) / (deviation + 0.02), 0.0, 1.0)


def _local_mean(field: np.ndarray) -> np.ndarray:
    """Gaussian mean of ``(h, w)`` with a deviation of 1/32 of the long side, taken on a 64 pixel copy."""
    import cv2

    height, width = field.shape
    scale = 64.0 / max(height, width)
    small = cv2.resize(
        field, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), 2.0), (width, height), interpolation=cv2.INTER_LINEAR)
