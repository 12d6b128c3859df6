"""Motion applied to pictures: warping along a flow, resizing a flow, finding occlusion."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from ..errors import InputError, ShapeError
from ..image.resize import resize
from ..image.sample import sample
from ..types import Flow

__all__ = ["occlusion", "pixel_grid", "resize_flow", "warp"]

FlowLike = TypeVar("FlowLike", Flow, Tensor)


def pixel_grid(
    height: int, width: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return ``(2, height, width)``: the position (x, y) of every pixel centre, counted from 0."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype), torch.arange(width, device=device, dtype=dtype), indexing="ij"
    )
    return torch.stack((x, y))


def warp(frames: Tensor, flow: Tensor, *, top: int | None = None) -> Tensor:
    """Read ``frames`` at ``p + flow(p)``, bilinearly; positions outside read the nearest border pixel.

    The border is repeated, not black, so that a slightly wrong vector at the edge costs little; ``occlusion`` marks the
    pixels that left the picture. Gradients flow into both arguments.

    Args:
        frames: ``(N, C, H, W)``.
        flow: ``(N, 2, H, W)``, (dx, dy) in pixels.
        top: the flow is that of some rows ``(N, 2, h, W)`` of the frames, from this one on.

    Returns:
        ``(N, C, H, W)``; of some rows ``(N, C, h, W)``.

    Raises:
        ShapeError: the two differ in number or size, or the frames have no such rows.
    """
    if frames.ndim != 4 or flow.ndim != 4 or flow.shape[1] != 2:
        raise ShapeError(
            f"warp: expected frames (N, C, H, W) and flow (N, 2, H, W), "
            f"got {tuple(frames.shape)} and {tuple(flow.shape)}"
        )
    height, width = frames.shape[-2:]
    if flow.shape[-2:] != (height, width) and (top is None or flow.shape[3] != width):
        raise ShapeError(
            f"flow is {flow.shape[3]}x{flow.shape[2]}, frames are {frames.shape[3]}x{frames.shape[2]}; "
            "use resize_flow(), which also scales the vectors"
        )
    if frames.shape[0] != flow.shape[0]:
        raise ShapeError(
            f"warp: got {frames.shape[0]} frames and {flow.shape[0]} flow fields; give one field per frame"
        )
    rows = range(top or 0, (top or 0) + flow.shape[2])
    if rows.start < 0 or rows.stop > height:
        raise ShapeError(f"warp: of {height} rows there are no {len(rows)} from row {top} on")
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(rows.start, rows.stop, device=flow.device, dtype=flow.dtype)
    return sample(frames, torch.stack((flow[:, 0] + x, flow[:, 1] + y[:, None]), dim=-1))


def resize_flow(flow: FlowLike, size: tuple[int, int]) -> FlowLike:
    """Resize a flow to ``size`` = (h, w), vectors scaled with it.

    Args:
        flow: a ``Flow``, whose masks are resized too, or vectors ``(N, 2, H, W)``.
        size: the wanted (h, w).

    Raises:
        InputError: a size below one pixel.
        ShapeError: a tensor of another shape.
    """
    height, width = int(size[0]), int(size[1])
    if height < 1 or width < 1:
        raise InputError(f"resize_flow: the size must be at least 1x1, got {width}x{height}")
    if isinstance(flow, Flow):
        if flow.size == (height, width):
            return flow
        return flow.mapped(
            lambda part: resize_flow(part, size) if part.ndim == 4 else resize(part[:, None], (height, width))[:, 0]
        )
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise ShapeError(f"resize_flow: expected (N, 2, H, W), got {tuple(flow.shape)}")
    across, down = resize(flow, (height, width)).unbind(dim=1)
    return torch.stack((across * (width / flow.shape[3]), down * (height / flow.shape[2])), dim=1)


def occlusion(forward: Tensor, backward: Tensor) -> Tensor:
    """Return 1 where following ``forward`` and then ``backward`` does not lead home, or leaves the picture.

    A pixel is occluded where ``|f + b'|^2 > 0.01 (|f|^2 + |b'|^2) + 0.5`` with ``b'(p) = b(p + f(p))``: Sundaram, Brox
    and Keutzer, "Dense point trajectories by GPU-accelerated large displacement optical flow", ECCV 2010, eq. 5.

    Args:
        forward: ``(N, 2, H, W)`` from frame a to frame b, in pixels.
        backward: ``(N, 2, H, W)`` from frame b to frame a.

    Returns:
        ``(N, H, W)`` of zeros and ones on the grid of frame a.

    Raises:
        ShapeError: the two differ in shape.
    """
    if forward.shape != backward.shape:
        raise ShapeError(
            f"occlusion: forward {tuple(forward.shape)} and backward {tuple(backward.shape)} must be of one shape"
        )
    home = warp(backward, forward)
    gap = (forward + home).square().sum(dim=1)
    allowed = 0.01 * (forward.square().sum(dim=1) + home.square().sum(dim=1)) + 0.5
    height, width = forward.shape[-2:]
    x, y = (pixel_grid(height, width, device=forward.device, dtype=forward.dtype) + forward).unbind(dim=1)
    # Half a pixel past the border centre is still inside the picture.
    outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    return ((gap > allowed) | outside).to(forward.dtype)
