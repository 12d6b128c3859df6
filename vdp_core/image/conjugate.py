"""Linear systems whose matrix is symmetric and positive, and known by what it does."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["conjugate_gradients"]

LEAST = 1e-20
"""What is divided by, at least: a system that is solved stays so."""


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor],
    target: Tensor,
    diagonal: Tensor,
    *,
    dims: tuple[int, ...],
    steps: int,
    start: Tensor | None = None,
    tolerance: float = 0.0,
) -> Tensor:
    """Solve ``matrix(x) = target`` (Hestenes and Stiefel, "Methods of Conjugate Gradients", 1952).

    Args:
        matrix: gives the matrix times what it is given.
        target: of any shape.
        diagonal: of the matrix, or about that.
        dims: over which a system reaches; along the others each is one by itself.
        steps: most of them.
        start: where to begin; None: at 0.
        tolerance: root mean square of a step at which it ends, which is read back from the device at each; 0: never.
    """
    found = target.new_zeros(target.shape) if start is None else start
    residual = target if start is None else target - matrix(start)
    towards = scaled = residual / diagonal
    product = (residual * scaled).sum(dim=dims, keepdim=True)
    for _ in range(steps):
        image = matrix(towards)
        length = product / (towards * image).sum(dim=dims, keepdim=True).clamp_min(LEAST)
        step = length * towards
        found = found + step
        if tolerance > 0.0 and float(step.square().mean()) < tolerance * tolerance:
            break
        residual = residual - length * image
        scaled = residual / diagonal
        before, product = product, (residual * scaled).sum(dim=dims, keepdim=True)
        towards = scaled + product / before.clamp_min(LEAST) * towards
    return found
