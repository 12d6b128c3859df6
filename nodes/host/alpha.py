"""Opacity that goes with frames from node to node.

An IMAGE has no place for it: a fourth channel breaks many nodes, and a wire of its own is missing in every graph that
links frames alone. So it goes along as an attribute of the tensor, which ComfyUI hands on as it is. Whatever makes new
frames of them drops it; the nodes here that keep the shape of a clip hand it on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["alpha_of", "with_alpha"]

ATTRIBUTE = "vdp_alpha"


def with_alpha(frames: Tensor, alpha: Tensor | None) -> Tensor:
    """Frames ``(T, H, W, 3)`` that carry an opacity ``(T, H, W)``, 1 = opaque; None leaves them as they are."""
    if alpha is not None:
        setattr(frames, ATTRIBUTE, alpha)
    return frames


def alpha_of(frames: object) -> Tensor | None:
    """The opacity ``(T, H, W)`` that frames carry, or have as a fourth channel; None where they are opaque."""
    import torch

    if isinstance(frames, torch.Tensor) and frames.ndim == 4 and frames.shape[-1] == 4:
        return frames[..., 3]
    return getattr(frames, ATTRIBUTE, None)
