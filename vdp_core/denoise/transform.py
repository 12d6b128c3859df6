"""Noise taken out of single pictures, in sliding blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import BLOCK, STRIDE, bands, brightness_of, dct_basis, join, split
from .noise import Noise

__all__ = ["sliding_dct"]

THRESHOLD = 2.7  # in deviations of the noise; the usual choice for sliding-window DCT


def sliding_dct(noisy: Tensor, pilot: Tensor | None, noise: Noise, counted: Tensor | None) -> Tensor:
    """Shrink the DCT coefficients of overlapping 8x8 blocks and put the blocks together again.

    Without a pilot, coefficients below ``THRESHOLD`` deviations of the noise become zero; with one, each is scaled by
    ``p^2 / (p^2 + v)``, p the pilot's coefficient and v the variance of the noise. Blocks weigh by the inverse of the
    noise they keep. The mean of a block stays as it is.

    Args:
        noisy: opponent pictures ``(N, 3, H, W)``.
        pilot: a first estimate of the same shape.
        noise: of one frame.
        counted: ``(N, 1, H, W)``, how many frames were averaged at each pixel; None is 1.
    """
    out = torch.empty_like(noisy)
    height, width = noisy.shape[-2:]
    for band, around in bands(height, width, margin=STRIDE, device=noisy.device):
        # half a block beyond every border, so that border pixels lie in as many blocks as the others
        above, below = STRIDE - (band.start - around.start), STRIDE - (around.stop - band.stop)
        sides = (STRIDE, STRIDE + -width % BLOCK, above, below + -(band.stop - band.start) % BLOCK)
        guide, frames = (
            None if whole is None else F.pad(whole[..., around, :], sides, mode="replicate")
            for whole in (pilot, counted)
        )
        filtered = _shrink_coefficients(F.pad(noisy[..., around, :], sides, mode="replicate"), guide, noise, frames)
        out[..., band, :] = filtered[..., STRIDE : STRIDE + band.stop - band.start, STRIDE : STRIDE + width]
    return out


def _shrink_coefficients(picture: Tensor, guide: Tensor | None, noise: Noise, frames: Tensor | None) -> Tensor:
    """``sliding_dct`` of padded pictures: of their inner pixels, those half a block from the borders, all is right."""
    basis = dct_basis(picture.device)
    total = torch.zeros_like(picture)
    # blocks begin every STRIDE pixels, so that weights are the same over STRIDE by STRIDE pixels
    weights = picture.new_zeros(*picture.shape[:2], picture.shape[2] // STRIDE, picture.shape[3] // STRIDE)
    steps = BLOCK // STRIDE
    for top in range(0, BLOCK, STRIDE):
        for left in range(0, BLOCK, STRIDE):
            rows = (picture.shape[-2] - top) // BLOCK * BLOCK
            columns = (picture.shape[-1] - left) // BLOCK * BLOCK
            part = (..., slice(top, top + rows), slice(left, left + columns))
            blocks = split(picture[part]) @ basis.T
            variance = noise.variance(brightness_of(blocks)[:, None])
            if frames is not None:
                variance = variance / F.avg_pool2d(frames[part], BLOCK)
            variance = variance.clamp_min(1e-10)[..., None]
            if guide is None:
                gain = blocks.square().sub_(THRESHOLD**2 * variance).sign_().clamp_min_(0.0)
            else:
                energy = (split(guide[part]) @ basis.T).square_()
                gain = energy / (energy + variance)
            gain[..., 0].fill_(1.0)
            weight = 1.0 / (gain.square().sum(dim=-1, keepdim=True) * variance)
            total[part] += join(gain.mul_(blocks).mul_(weight) @ basis)
            down, right = top // STRIDE, left // STRIDE
            cells = (..., slice(down, down + rows // STRIDE), slice(right, right + columns // STRIDE))
            weights[cells] += weight[..., 0].repeat_interleave(steps, -2).repeat_interleave(steps, -1)
    total.unflatten(-1, (-1, STRIDE)).unflatten(-3, (-1, STRIDE)).div_(weights[..., :, None, :, None])
    return total
