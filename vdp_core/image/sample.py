"""Reading pictures between their pixels.

One convention holds: places are (x, y) in pixels, and (0, 0) is the centre of the first pixel. Two pictures of one
scene cover the same area whatever their sizes, so pixel x of W lies at ``(x + 0.5) w / W - 0.5`` in w: ``rescaled`` for
places, ``resize`` for whole pictures, ``align_corners=False`` in torch's words. Beyond the border the nearest pixel is
read. Grids of knots alone lie otherwise, their outer knots on the centres of the outer pixels: ``resize.upsample``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["averaged", "places_of", "rescaled", "sample", "sample_points"]


def sample(pictures: Tensor, places: Tensor, *, mode: str = "bilinear", beyond: str = "border") -> Tensor:
    """Read pictures ``(N, C, H, W)`` at places ``(N, h, w, 2)``; ``(N, C, h, w)``.

    Gradients flow into both.

    Args:
        pictures: of any floating type.
        places: (x, y) in pixels.
        mode: ``bilinear`` or ``bicubic``.
        beyond: what is read beyond the border: ``border``, its nearest pixel, or ``zeros``.
    """
    height, width = pictures.shape[-2:]
    # torch asks for -1..1: here, between the centres of the outer pixels
    x, y = places.unbind(dim=-1)
    across, down = (x * (2.0 / max(width - 1, 1))).sub_(1.0), (y * (2.0 / max(height - 1, 1))).sub_(1.0)
    where = torch.stack((across, down), dim=-1).to(pictures.dtype)
    return F.grid_sample(pictures, where, mode=mode, padding_mode=beyond, align_corners=True)


def averaged(picture: Tensor, taps: Tensor) -> Tensor:
    """The mean ``(C, h, w)`` of what one picture ``(C, H, W)`` shows at places ``(K, 2, h, w)``, taps (x, y)."""
    total = sample(picture[None], taps[0].movedim(0, -1)[None])[0]
    for places in taps[1:]:
        total = total + sample(picture[None], places.movedim(0, -1)[None])[0]
    return total / len(taps)


def sample_points(picture: Tensor, places: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Read one picture ``(C, H, W)`` at places ``(N, 2)``; ``(C, N)``."""
    return sample(picture[None], places[None, None], mode=mode)[0, :, 0]


def rescaled(places: Tensor, size: tuple[float, float], other: tuple[float, float]) -> Tensor:
    """Where places ``(..., 2)`` of a picture of ``size`` = (H, W) lie in one of the size ``other``."""
    x, y = (places + 0.5).unbind(dim=-1)
    return torch.stack((x * (other[1] / size[1]), y * (other[0] / size[0])), dim=-1).sub_(0.5)


def places_of(pixels: Tensor, width: int) -> Tensor:
    """The places ``(N, 2)`` of pixels ``(N,)``, counted along rows, of a picture of that width."""
    row = torch.div(pixels, width, rounding_mode="floor")
    return torch.stack((pixels - row * width, row), dim=-1).float()
