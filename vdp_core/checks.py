"""Checks that refuse unusable frames, masks and flow, each with a sentence that names the cure."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .errors import InputError, ShapeError
from .store.lazy import LazyFrames

__all__ = ["check_flow", "check_frames", "check_mask", "check_proportions"]

PROPORTIONS = 0.02
"""By how much the proportions of a picture may differ from the frames' whose whole it shows."""


def check_frames(frames: object, name: str = "frames", *, at_least: int = 1, smallest_side: int = 1) -> Tensor:
    """Return ``frames`` as float32 RGB ``(T, H, W, 3)`` in 0..1, or say what is wrong with it.

    Greyscale ``(T, H, W, 1)`` is repeated to three channels, and channels past the third (alpha) are dropped, as
    ComfyUI nodes do. Values outside 0..1 are clamped; NaN and infinity are refused.

    Args:
        frames: the clip, ``(T, H, W, C)``.
        name: what to call it in the message.
        at_least: fewest frames that make sense, 2 where motion is needed.
        smallest_side: fewest pixels for height and width.

    Raises:
        ShapeError: not a 4-D tensor, or too few frames or pixels.
        InputError: integer values, NaN or infinity.
    """
    if not isinstance(frames, Tensor):
        raise ShapeError(f"{name}: expected a tensor of shape (T, H, W, 3), got {type(frames).__name__}")
    if frames.ndim != 4 or frames.shape[-1] < 1:
        raise ShapeError(f"{name}: expected shape (T, H, W, 3), got {tuple(frames.shape)}")
    if frames.shape[-1] == 2 or frames.shape[-1] > 4:
        raise ShapeError(f"{name}: expected 1, 3 or 4 channels last, got shape {tuple(frames.shape)}")
    count, height, width, channels = frames.shape
    if count < at_least:
        need = "motion needs at least two frames" if at_least == 2 else f"at least {at_least} are needed"
        raise ShapeError(f"{name}: got {count} frame{'s' * (count != 1)}, {need}")
    if min(height, width) < smallest_side:
        raise ShapeError(f"{name}: frames are {width}x{height} pixels, at least {smallest_side}x{smallest_side} needed")
    if frames.is_meta or (isinstance(frames, LazyFrames) and channels == 3):
        return frames  # a stand-in has no values yet, and the core keeps those that it makes in 0..1
    if not frames.is_floating_point():
        raise InputError(f"{name}: expected float values in 0..1, got {frames.dtype}; divide by the type's maximum")
    frames = frames[..., :3].float() if channels >= 3 else frames.float().expand(-1, -1, -1, 3)
    outside = False
    for index, frame in enumerate(frames):
        # min and max of a frame are NaN or infinite exactly if some value is, without a mask as large as the clip
        low, high = (float(value) for value in frame.aminmax())
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise InputError(f"{name}: frame {index} holds NaN or infinite values")
        outside = outside or low < 0.0 or high > 1.0
    return frames.clamp(0.0, 1.0) if outside else frames


def check_mask(mask: object, name: str, *, count: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """Return ``mask`` as float32 ``(T, H, W)`` in 0..1; ``(H, W)`` and ``(T, 1, H, W)`` are understood.

    Args:
        mask: the mask.
        name: what to call it in the message.
        count: frames it must have; one frame is always taken.
        size: ``(H, W)`` it must have.

    Raises:
        ShapeError: another shape, length or size.
        InputError: NaN or infinity.
    """
    if not isinstance(mask, Tensor):
        raise ShapeError(f"{name}: expected a mask tensor of shape (T, H, W), got {type(mask).__name__}")
    if mask.ndim == 2:
        mask = mask[None]
    elif mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim != 3:
        raise ShapeError(f"{name}: expected shape (T, H, W), got {tuple(mask.shape)}")
    if count is not None and mask.shape[0] not in (1, count):
        raise ShapeError(f"{name}: got {mask.shape[0]} masks for {count} frames; give one mask or one per frame")
    if size is not None and tuple(mask.shape[1:]) != tuple(size):
        raise ShapeError(
            f"{name}: masks are {mask.shape[2]}x{mask.shape[1]} pixels, the frames are {size[1]}x{size[0]}; resize them"
        )
    if mask.is_meta or isinstance(mask, LazyFrames):
        return mask
    mask = mask.float()
    if mask.numel() == 0:
        return mask
    low, high = (float(value) for value in mask.aminmax())
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise InputError(f"{name}: holds NaN or infinite values")
    return mask.clamp(0.0, 1.0) if low < 0.0 or high > 1.0 else mask


def check_proportions(what: str, size: Sequence[int], wanted: Sequence[int]) -> None:
    """Refuse a picture of another size whose proportions are not those of the frames.

    Args:
        what: the start of the sentence, such as "mask: it is".
        size: ``(H, W)`` of the picture.
        wanted: ``(H, W)`` of the frames.

    Raises:
        ShapeError: of other proportions, or without a pixel.
    """
    (height, width), (wanted_height, wanted_width) = size, wanted
    # a much smaller picture's sides were rounded to whole pixels
    allowed = max(PROPORTIONS, 0.5 / max(height, 1) + 0.5 / max(width, 1))
    if min(height, width) < 1 or abs(width / height / (wanted_width / wanted_height) - 1.0) > allowed:
        raise ShapeError(
            f"{what} {width}x{height} pixels, the frames are {wanted_width}x{wanted_height}; it must show the whole "
            "frame, in any size of the same proportions"
        )


def check_flow(flow: object, count: int, name: str = "flow") -> None:
    """Refuse a flow that does not belong to a clip of ``count`` frames.

    Raises:
        ShapeError: not a Flow, or estimated on a clip of another length.
    """
    from .types import Flow

    if not isinstance(flow, Flow):
        raise ShapeError(f"{name}: expected a VDP_FLOW, got {type(flow).__name__}")
    if len(flow) + 1 != count:
        raise ShapeError(
            f"{name}: holds {len(flow)} frame pairs, a clip of {count} frames has {count - 1}; "
            "estimate the flow on the same frames"
        )
