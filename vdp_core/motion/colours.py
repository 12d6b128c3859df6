"""Motion as colours."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..store.lazy import computed
from ..types import Flow, OnStep

__all__ = ["flow_preview", "flow_to_rgb"]


def flow_to_rgb(flow: Flow, *, on_step: OnStep | None = None) -> Tensor:
    """Show motion as colours: hue is direction, saturation is speed, white is rest.

    The colour wheel of Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011. One scale
    serves the whole clip: full saturation is the speed that 99.5 % of its pixels stay under, and at least a pixel, so
    that neither a stray vector nor the noise of a clip at rest sets it.

    Args:
        flow: motion of T - 1 pairs.
        on_step: told after every picture; stops the work by raising.

    Returns:
        ``(T, h, w, 3)`` float32 in 0..1. Picture i shows where the pixels of frame i go; the last frame, which has no
        successor, shows the reverse of where its pixels come from.
    """
    # of a long clip some pairs tell the scale
    scale = _scale(flow.forward[:: max(1, len(flow) // 256)])

    def pictures(start: int) -> Iterator[Tensor]:
        for index in range(start, len(flow) + 1):
            field = flow.forward[index : index + 1] if index < len(flow) else -flow.backward[-1:]
            yield _colours(field, scale)

    return computed(pictures, (len(flow) + 1, *flow.size, 3), on_step=on_step)


def flow_preview(vectors: Tensor) -> Tensor:
    """Vectors ``(1, 2, h, w)`` as a picture ``(h, w, 3)`` in 0..1, by their own largest."""
    return _colours(vectors, _scale(vectors))[0]


def _scale(vectors: Tensor) -> float:
    speeds = vectors.norm(dim=1).flatten()
    return max(1.0, float(speeds.kthvalue(max(1, round(0.995 * speeds.numel()))).values))


def _colours(vectors: Tensor, scale: float) -> Tensor:
    """``(N, 2, h, w)`` -> ``(N, h, w, 3)``; ``scale`` pixels are fully saturated."""
    from torchvision.utils import flow_to_image

    vectors = vectors * (scale / vectors.norm(dim=1, keepdim=True).clamp_min(scale))
    # flow_to_image takes the longest vector it is given as its scale: a column beside the picture holds ours.
    ruler = torch.zeros_like(vectors[..., :1])
    ruler[:, 0] = scale
    pictures = flow_to_image(torch.cat((vectors, ruler), dim=-1))
    return pictures[..., :-1].movedim(1, -1).float() / 255.0
