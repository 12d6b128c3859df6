"""Curves over time, drawn as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Curve", "plot"]

HEIGHT, WIDTH = 240, 960  # pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 26  # of the frame around the curves
PAPER, INK, GRID, MARK = (255, 255, 255), (60, 60, 60), (225, 225, 225), (250, 205, 200)


@dataclass(frozen=True)
class Curve:
    """One line of a plot."""

    values: Sequence[float]
    """One a frame."""
    colour: tuple[int, int, int]
    """Red, green and blue, 0..255."""
    label: str


def plot(
    title: str,
    curves: Sequence[Curve],
    *,
    fps: float,
    span: tuple[float, float],
    marks: Sequence[tuple[int, int]] = (),
    limit: float | None = None,
) -> Tensor:
    """Draw curves over the seconds of a clip, ``(240, 960, 3)`` in 0..1.

    Args:
        title: what the values are.
        curves: drawn in turn, the last on top.
        fps: frames a second.
        span: lowest and highest value; what lies beyond is drawn at the border.
        marks: first and last frames of stretches that are shaded.
        limit: a value at which a line is drawn.
    """
    import cv2
    import numpy as np

    picture = np.full((HEIGHT, WIDTH, 3), PAPER, dtype=np.uint8)
    count = max(len(curve.values) for curve in curves)
    across = (WIDTH - LEFT - RIGHT) / max(1, count - 1)
    low, high = span
    down = (HEIGHT - TOP - BOTTOM) / (high - low)

    def place(index: float, value: float) -> tuple[int, int]:
        clipped = min(max(value, low), high)
        return round(LEFT + across * index), round(HEIGHT - BOTTOM - down * (clipped - low))

    def write(text: str, at: tuple[int, int], colour: tuple[int, int, int] = INK) -> int:
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
        return width

    for first, last in marks:
        cv2.rectangle(picture, place(first - 0.5, high), place(last + 0.5, low), MARK, cv2.FILLED)
    for value in (low, (low + high) / 2.0, high):
        cv2.line(picture, place(0, value), place(count - 1, value), GRID, 1)
        write(f"{value:.3g}", (8, place(0, value)[1] + 5))
    for share in range(5):
        index = share / 4.0 * (count - 1)
        write(f"{index / fps:.3g} s", (min(place(index, low)[0], WIDTH - 52), HEIGHT - 8))
    if limit is not None:
        cv2.line(picture, place(0, limit), place(count - 1, limit), (200, 60, 50), 1, cv2.LINE_AA)
    left = LEFT + write(title, (LEFT, 20)) + 24
    for curve in curves:
        points = np.array([place(index, value) for index, value in enumerate(curve.values)], dtype=np.int32)
        cv2.polylines(picture, [points], False, curve.colour, 2, cv2.LINE_AA)
        left += write(curve.label, (left, 20), curve.colour) + 18
    return torch.from_numpy(picture).float() / 255.0
