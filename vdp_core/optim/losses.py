"""The loss terms, one function each. They return maps, so that callers can mask, look at and weigh them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError
from ..motion.warp import warp

__all__ = [
    "charbonnier",
    "flow_similarity",
    "layer_term",
    "log_sum",
    "mask_binarisation",
    "perceptual",
    "reconstruction",
    "smoothness",
    "structure",
    "vgg_features",
    "warp_term",
]


def charbonnier(difference: Tensor, scale: float) -> Tensor:
    """``scale * (sqrt((d / scale)^2 + 1) - 1)``: quadratic for small differences, absolute for large ones."""
    return scale * (torch.sqrt((difference / scale).square() + 1.0) - 1.0)


def log_sum(values: Tensor, scale: float) -> Tensor:
    """``scale * log(1 + v / scale)`` of values of 0 and more: one large value costs less than many small ones.

    It makes values sparser than their sum does (Candes, Wakin and Boyd, "Enhancing sparsity by reweighted l1
    minimization", 2008, eq. 8).
    """
    return scale * torch.log1p(values / scale)


def reconstruction(rebuilt: Tensor, frames: Tensor) -> Tensor:
    """``|rebuilt - frames|``, the L1 part of the published reconstruction loss (VDP, arXiv 2412.04930).

    Args:
        rebuilt, frames: ``(N, 3, h, w)``.
    """
    return (rebuilt - frames).abs()


def structure(rebuilt: Tensor, frames: Tensor) -> Tensor:
    """A perceptual term that needs no weights: gradients at three scales, and ``1 - SSIM`` over 7x7 windows.

    It stands in for the published VGG term where VGG16's weights are not at hand.

    Returns:
        ``(N,)``, one value a picture.
    """
    total = rebuilt.new_zeros(len(rebuilt))
    a, b = rebuilt, frames
    for scale in range(3):
        if scale > 0:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        if min(a.shape[-2:]) < 2:
            break
        total = total + (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean((1, 2, 3))
        total = total + (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean((1, 2, 3))

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, 7, 1, 3, count_include_pad=False)

    mean_a, mean_b = mean(rebuilt), mean(frames)
    variances = mean(rebuilt.square()) - mean_a.square() + mean(frames.square()) - mean_b.square()
    covariance = mean(rebuilt * frames) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    ssim = ssim / ((mean_a.square() + mean_b.square() + 1e-4) * (variances + 9e-4))
    return total + (1.0 - ssim).mean((1, 2, 3))


def vgg_features(weights: dict[str, Tensor]) -> nn.Module:
    """VGG16's first 16 layers (up to relu3_3, the published choice) with torchvision's weights, frozen.

    Args:
        weights: a state dict of torchvision's ``vgg16``, or of its ``features``.

    Raises:
        WeightsError: they belong to another network.
    """
    from torchvision.models import vgg16

    with torch.device("meta"):  # no memory, no first values for the 138 million numbers that are not used
        net = vgg16(weights=None).features[:16]
    named = {name.removeprefix("features."): value for name, value in weights.items()}
    try:
        net.load_state_dict({name: named[name].float() for name in net.state_dict()}, assign=True)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torch's own takes several lines
        raise WeightsError(
            f"the VGG weights do not fit torchvision's vgg16 ({reason}); take torchvision's file"
        ) from None
    return net.eval().requires_grad_(False)


def perceptual(rebuilt: Tensor, frames: Tensor, features: Callable[[Tensor], Tensor]) -> Tensor:
    """``|features(rebuilt) - features(frames)|``, the VGG part of the published reconstruction loss."""
    return (features(_as_imagenet(rebuilt)) - features(_as_imagenet(frames))).abs()


def _as_imagenet(pictures: Tensor) -> Tensor:
    """Pictures in 0..1 with the mean and deviation that VGG was trained on."""
    # channel by channel: a tensor of these numbers would be brought to the device each time, which waits for it
    numbers = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
    channels = zip(pictures.unbind(dim=1), numbers, strict=True)
    return torch.stack([(channel - mean) / deviation for channel, (mean, deviation) in channels], dim=1)


def flow_similarity(
    flow_pictures: Tensor, mask: Tensor, other: Tensor, features: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """How alike the motion inside two masks is: ``cos(features(mask * F), features(other * F))``, to be made small.

    The published flow similarity loss (VDP, arXiv 2412.04930), F the flow as a picture, ``other`` being ``1 - mask``
    there, and features VGG16's. Without features the mean colours of F inside the masks are compared: they need no
    weights, and do not ask where in the picture the motion is.

    Args:
        flow_pictures: ``(N, 3, h, w)`` in 0..1.
        mask, other: ``(N, 1, h, w)``.
        features: of pictures normalised as for ImageNet.

    Returns:
        ``(N,)`` in -1..1, one value a picture.
    """
    inside, outside = flow_pictures * mask, flow_pictures * other
    if features is None:
        return F.cosine_similarity(inside.mean((2, 3)), outside.mean((2, 3)), dim=1)
    first, second = (features(_as_imagenet(part)).flatten(1) for part in (inside, outside))
    return F.cosine_similarity(first, second, dim=1)


def layer_term(masks: Tensor, pictures: Tensor, frames: Tensor) -> Tensor:
    """``sum_i |m_i x_i - m_i x|``: each layer's picture shows the frame inside its own mask.

    The published reconstruction layer loss (VDP, arXiv 2412.04930).

    Args:
        masks: ``(N, L, h, w)``.
        pictures: ``(N, L, 3, h, w)``, each layer's own.
        frames: ``(N, 3, h, w)``.

    Returns:
        ``(N, 3, h, w)``.
    """
    return (masks[:, :, None] * (pictures - frames[:, None])).abs().sum(dim=1)


def mask_binarisation(mask: Tensor) -> Tensor:
    """``1 / mean |m - 0.5|``, least (2) for masks of zeros and ones.

    The published mask loss (VDP, arXiv 2412.04930) has the sum instead of the mean; with the mean its weight does the
    same at every size of picture.

    Args:
        mask: ``(N, ..., h, w)`` in 0..1.

    Returns:
        ``(N,)``, one value a picture.
    """
    return 1.0 / (mask - 0.5).abs().flatten(1).mean(dim=1).clamp_min(1e-3)


def warp_term(now: Tensor, before: Tensor, backward: Tensor, occluded: Tensor) -> Tensor:
    """``|now - before brought along the flow|``, occluded pixels left out (VDP, arXiv 2412.04930).

    Args:
        now, before: pictures of frames t and t-1, ``(N, C, h, w)``.
        backward: flow from t to t-1, ``(N, 2, h, w)``.
        occluded: ``(N, h, w)``, 1 where a pixel of t is not seen in t-1.
    """
    return (now - warp(before, backward)).abs() * (1.0 - occluded[:, None])


def smoothness(field: Tensor, dim: int) -> Tensor:
    """Squared second difference along ``dim``: zero for a field that is constant or grows evenly."""
    if field.shape[dim] < 3:
        return field.new_zeros(1)
    return field.diff(n=2, dim=dim).square()
