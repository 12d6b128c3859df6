"""Masks as people have them: ComfyUI's MASK, or pictures that show one."""

from __future__ import annotations

from torch import Tensor

from .errors import ShapeError, check_frames, check_mask

__all__ = ["as_mask", "as_matte"]

COLOURED = 0.05
"""Difference between channels above which a picture is coloured: more than what lossy video does to grey."""


def as_mask(mask: Tensor, name: str = "mask") -> Tensor:
    """Return a mask, or pictures used as one, as ``(T, H, W)`` in 0..1.

    A MASK keeps its values. In pictures a pixel is selected (1) where it is brighter than half of the clip's largest
    value, else 0: white on black, labels 0 and 1 of 255 and coloured palettes all work, and black frames stay empty.
    Brightness is that of the strongest channel, so that a palette's blue counts as much as its yellow.

    Args:
        mask: ``(H, W)``, ``(T, H, W)`` or ``(T, 1, H, W)``; or pictures ``(T, H, W, 1, 3 or 4)``.
        name: what to call it in messages.

    Raises:
        ShapeError: another shape.
        InputError: NaN or infinity, or pictures of integers.
    """
    if not _are_pictures(mask, name):
        return check_mask(mask, name)
    pictures = check_frames(mask, name)
    brightness = pictures.amax(dim=-1)
    largest = brightness.amax() if brightness.numel() else brightness.new_zeros(())
    return (brightness > 0.5 * largest).float()


def as_matte(mask: Tensor, name: str = "mask") -> Tensor:
    """``as_mask`` for measuring: pictures of a soft matte keep their values.

    Grey pictures that get brighter than a half hold opacity as it is; coloured and darker ones are labels, and are cut.

    Args:
        mask, name: see ``as_mask``.

    Raises:
        ShapeError, InputError: see ``as_mask``.
    """
    if not _are_pictures(mask, name):
        return check_mask(mask, name)
    pictures = check_frames(mask, name)
    labels = bool(pictures.numel()) and (
        float(pictures.amax()) <= 0.5 or any(float(_spread(frame)) > COLOURED for frame in pictures)
    )
    return as_mask(pictures, name) if labels else pictures.mean(dim=-1)


def _are_pictures(mask: object, name: str) -> bool:
    if not isinstance(mask, Tensor):
        return False
    if mask.ndim == 4 and mask.shape[-1] in (1, 3, 4):
        return True
    if mask.ndim == 4 and mask.shape[1] != 1:
        raise ShapeError(f"{name}: expected (T, H, W), or pictures (T, H, W, 3), got {tuple(mask.shape)}")
    return False


def _spread(picture: Tensor) -> Tensor:
    """The largest difference between the channels of a pixel."""
    return (picture.amax(dim=-1) - picture.amin(dim=-1)).amax()
