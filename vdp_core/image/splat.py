"""Pixels laid down where they belong in another picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Splat"]

LEAST = 1e-3
"""Weight below which a pixel is not worth laying down."""


class Splat:
    """Weighted sums of colours by place: each pixel is shared between the four around the place where it is laid."""

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.size = size
        # the channels of a pixel lie side by side, four times as fast as apart
        self._sums = torch.zeros(size[0] * size[1], channels + 1, device=device, dtype=dtype)

    def lay(self, colours: Tensor, places: Tensor, weight: Tensor) -> None:
        """Add colours ``(C, h, w)`` at places (x, y) ``(2, h, w)`` with a weight ``(h, w)``; beyond the rim none is.

        Args:
            colours, weight: of pixels.
            places: in pixels of the picture that is laid on.
        """
        height, width = self.size
        x, y = places
        inside = (weight > LEAST) & (x >= 0.0) & (x < width - 1) & (y >= 0.0) & (y < height - 1)
        x, y, weight, values = x[inside], y[inside], weight[inside], colours[:, inside].T
        left, top = x.floor(), y.floor()
        across, down = x - left, y - top
        first = (top * width + left).long()
        values = torch.cat((values, torch.ones_like(values[:, :1])), dim=1) * weight[:, None]
        lower = values * down[:, None]
        for row, part in ((0, values - lower), (width, lower)):
            right = part * across[:, None]
            self._sums.index_add_(0, first + row, part - right)
            self._sums.index_add_(0, first + row + 1, right)

    def grown(self, before: Sequence[int], after: Sequence[int]) -> Splat:
        """The same with more room: (x, y) pixels to the left and above, and to the right and below."""
        height, width = self.size
        size = (before[1] + height + after[1], before[0] + width + after[0])
        larger = Splat(size, self._sums.shape[1] - 1, self._sums.device, self._sums.dtype)
        inner = larger._sums.view(*size, -1)[before[1] : before[1] + height, before[0] : before[0] + width]
        inner.copy_(self._sums.view(height, width, -1))
        return larger

    @property
    def sums(self) -> Tensor:
        """``(C + 1, H, W)``: colours times weights, and the weights."""
        return self._sums.T.unflatten(1, self.size)
