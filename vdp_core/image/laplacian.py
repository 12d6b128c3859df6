"""Alpha in closed form: locally a linear function of colour, and near what is known."""

from __future__ import annotations

import torch
from torch import Tensor

from .conjugate import conjugate_gradients
from .matting import bounding_box
from .morphology import box_sum

__all__ = ["MattingLaplacian", "solve_band"]

RADIUS = 1
"""Of the windows, in pixels."""
EPS = 1e-5
"""Variance of colour in a window below which alpha is flat there."""
TILE, MARGIN = 768, 12
"""Pixels of a side of the pieces that large pictures are solved in, and how far around them is looked."""


class MattingLaplacian:
    """The matting Laplacian of pictures (Levin, Lischinski and Weiss, "A Closed-Form Solution to Natural Image
    Matting", TPAMI 2008, equation 12), as an operator.

    In each window alpha is a line along colour, found by least squares with ``eps`` on its slope; what the lines leave
    of alpha is what the operator returns. Nothing is stored but means and inverses of covariances, so that one use
    takes some box sums (He, Sun and Tang, "Fast Matting Using Large Kernel Matting Laplacian Matrices", CVPR 2010).
    """

    def __init__(self, pictures: Tensor, *, eps: float = EPS) -> None:
        """Of pictures ``(N, 3, H, W)`` in 0..1."""
        self._pictures = pictures
        self._count = box_sum(torch.ones_like(pictures[:, :1]), RADIUS)
        pairs = [(a, b) for a in range(3) for b in range(a, 3)]
        # (differences of squares lose single precision in flat windows)
        fine = pictures.double()
        products = torch.stack([fine[:, a] * fine[:, b] for a, b in pairs], dim=1)
        products = box_sum(products, RADIUS) / self._count
        mean = box_sum(fine, RADIUS) / self._count
        self._mean = mean.to(pictures.dtype)
        rr, rg, rb, gg, gb, bb = (
            products[:, number] - mean[:, a] * mean[:, b] + (eps if a == b else 0.0)
            for number, (a, b) in enumerate(pairs)
        )
        cofactors = (
            gg * bb - gb * gb,
            rb * gb - rg * bb,
            rg * gb - rb * gg,
            rr * bb - rb * rb,
            rb * rg - rr * gb,
            rr * gg - rg * rg,
        )
        determinant = (rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2]).clamp_min(1e-30)
        self._inverse = (torch.stack(cofactors, dim=1) / determinant[:, None]).to(pictures.dtype)

    def __call__(self, alpha: Tensor) -> Tensor:
        """The Laplacian times alpha ``(N, 1, H, W)``."""
        means = box_sum(torch.cat((alpha, alpha * self._pictures), dim=1), RADIUS) / self._count
        red, green, blue = (means[:, 1:] - means[:, :1] * self._mean).unbind(dim=1)
        rr, rg, rb, gg, gb, bb = self._inverse.unbind(dim=1)
        slope = torch.stack(
            (rr * red + rg * green + rb * blue, rg * red + gg * green + gb * blue, rb * red + gb * green + bb * blue),
            dim=1,
        )
        constant = means[:, :1] - (slope * self._mean).sum(dim=1, keepdim=True)
        sums = box_sum(torch.cat((slope, constant), dim=1), RADIUS)
        return self._count * alpha - (sums[:, :3] * self._pictures).sum(dim=1, keepdim=True) - sums[:, 3:]

    def solve(
        self,
        target: Tensor,
        weight: Tensor,
        *,
        start: Tensor | None = None,
        steps: int = 100,
        tolerance: float = 1e-4,
    ) -> Tensor:
        """The alpha with the least ``alpha' L alpha + sum_i weight_i (alpha_i - target_i)^2``, within 0..1.

        Conjugate gradients, preconditioned by the diagonal of the weights and of windows without contrast.

        Args:
            target: ``(N, 1, H, W)`` in 0..1.
            weight: ``(N, 1, H, W)``, 0 or more.
            start: where to begin; None: at the target.
            steps: most of them.
            tolerance: root mean square of a step at which it ends.
        """
        alpha = conjugate_gradients(
            lambda values: self(values) + weight * values,
            weight * target,
            weight + 0.5 * self._count,
            dims=(1, 2, 3),
            steps=steps,
            start=target if start is None else start,
            tolerance=tolerance,
        )
        return alpha.clamp(0.0, 1.0)


def solve_band(
    picture: Tensor, target: Tensor, weight: Tensor, band: Tensor, *, eps: float = EPS, steps: int = 100
) -> Tensor:
    """Alpha ``(H, W)`` of a picture ``(3, H, W)`` near a target, in pieces, solved for only where there is a band.

    Args:
        picture: in 0..1.
        target: ``(H, W)`` in 0..1; alpha is this away from the band.
        weight: ``(H, W)``, 0 or more.
        band: ``(H, W)``, not 0 where alpha is looked for.
        eps: see ``MattingLaplacian``.
        steps: most of them.
    """
    size = (picture.shape[1], picture.shape[2])
    alpha = target.clone()
    for top in range(0, size[0], TILE):
        for left in range(0, size[1], TILE):
            piece = band[top : top + TILE, left : left + TILE]
            if not bool(piece.any()):
                continue
            rows, columns = bounding_box(piece)
            inner = (slice(top + rows.start, top + rows.stop), slice(left + columns.start, left + columns.stop))
            outer = tuple(
                slice(max(0, side.start - MARGIN), min(limit, side.stop + MARGIN))
                for side, limit in zip(inner, size, strict=True)
            )
            solved = MattingLaplacian(picture[None, :, outer[0], outer[1]], eps=eps).solve(
                target[outer][None, None], weight[outer][None, None], steps=steps
            )[0, 0]
            own = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
            alpha[inner] = solved[own]
    return alpha
