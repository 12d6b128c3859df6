"""Motion by RAFT: the network, its weights and their names."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import WeightsError
from ..nets.flow import convex_upsample
from ..nets.weights import read_weights, to_torchvision_raft
from ..store.transfer import send
from .equalise import equalised
from .estimator import Motion, RawMotion, no_motion, with_confidence, with_occlusion
from .warp import pixel_grid

if TYPE_CHECKING:
    import numpy as np
    from torchvision.models.optical_flow import RAFT

__all__ = ["RAFT_FILES", "Raft", "free_memory", "largest_side", "load_raft", "pair_bytes", "raft_url"]

RAFT_FILES = {
    "raft_large": ("raft_large_C_T_SKHT_V2*", "raft_large*", "raft-sintel*", "raft-things*"),
    "raft_small": ("raft_small*", "raft-small*"),
}
"""File names of weights without suffix, the best first: torchvision's, then the original authors'."""


SMALLEST = 128
"""Fewest pixels of a side: the four levels of the correlation pyramid need 16x16 features."""
PIXEL_BYTES = 640  # a pixel and direction: frames in the encoders, features, states; measured, of raft_large
AT_ONCE = 32  # pairs; a GPU gains nothing from more
SHARE = 4  # of the memory that is there, batches take one part in so many


def padded(height: int, width: int) -> tuple[int, int]:
    """The size that RAFT works at: multiples of 8 pixels, none below ``SMALLEST``."""
    return max(SMALLEST, -(-height // 8) * 8), max(SMALLEST, -(-width // 8) * 8)


def pair_bytes(height: int, width: int, *, directions: int = 2) -> int:
    """About how many bytes RAFT takes for the motion between two frames, one way or both ways at once.

    All-pairs correlations of features at an eighth of the size grow with the square of the pixels: they take
    ``4 (h w / 64) ** 2`` bytes, twice while torchvision scales them, more than the coarser levels of the pyramid later.
    """
    height, width = padded(height, width)
    correlations = 4 * (height // 8 * width // 8) ** 2
    return directions * (2 * correlations + PIXEL_BYTES * height * width)


def largest_side(height: int, width: int, memory: int) -> int:
    """The longest side, in pixels, to which frames may be scaled so that RAFT fits into so many bytes; 0 for none."""
    longest = max(height, width)
    for side in range(longest // 8 * 8, 0, -8):
        if pair_bytes(round(height * side / longest), round(width * side / longest), directions=1) <= memory:
            return side
    return 0


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device for torch, with those that it has cached and does not use."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


class Raft:
    """torchvision's RAFT, run so that each frame passes through the encoders once, not once a pair and direction.

    Args:
        net: the network.
        updates: refinements it makes.
        device: where it runs.
        half: whether its networks run in half precision, on CUDA.
        memory: bytes it may take. Both directions of a pair are found at once where they fit, else in turn.
    """

    def __init__(self, net: RAFT, *, updates: int, device: torch.device, half: bool, memory: int) -> None:
        self._net = net.eval().to(device)
        self._updates = updates
        self._device = device
        self._half = half and device.type == "cuda"
        self._memory = memory
        self._last: tuple[Tensor, Tensor] | None = None

    def read(self, picture: np.ndarray, dark: bool) -> np.ndarray:
        """See ``Estimator.read``."""
        return equalised(picture) if dark else picture

    def pairs_at_once(self, height: int, width: int) -> int:
        """As many as there is memory for; one on the CPU, where batches gain nothing."""
        if self._device.type == "cpu":
            return 1
        return min(AT_ONCE, max(1, self._memory // SHARE // pair_bytes(height, width)))

    def show(self, frames: Tensor) -> RawMotion:
        """See ``Estimator.show``."""
        height, width = frames.shape[-2:]
        full_height, full_width = padded(height, width)
        beside = (0, full_width - width, 0, full_height - height)
        pictures = F.pad(send(frames, self._device) * 2.0 - 1.0, beside, mode="replicate")
        with self._precision():
            features, context = self._net.feature_encoder(pictures), self._net.context_encoder(pictures)
        features, context = features.float(), context.float()
        if self._last is not None:
            features = torch.cat((self._last[0], features))
            context = torch.cat((self._last[1], context))
        self._last = features[-1:], context[-1:]
        if len(features) < 2:
            return no_motion(frames)
        ahead, back = (features[:-1], features[1:], context[:-1]), (features[1:], features[:-1], context[1:])
        if len(features) == 2 and pair_bytes(height, width) > self._memory:
            flow = torch.cat((self._refine(*ahead), self._refine(*back)))
        else:
            flow = self._refine(*map(torch.cat, zip(ahead, back, strict=True)))
        forward, backward = flow[..., :height, :width].chunk(2)
        return RawMotion(*(found.cpu() for found in with_occlusion(forward, backward)))

    def finish(self, motion: RawMotion, before: Tensor, after: Tensor) -> Motion:
        """See ``Estimator.finish``."""
        here = RawMotion(*(send(part, self._device) for part in motion))
        found = with_confidence(here, send(before, self._device), send(after, self._device))
        return Motion(*(part.cpu() for part in found))

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", dtype=torch.float16) if self._half else nullcontext()

    def _refine(self, features: Tensor, others: Tensor, context: Tensor) -> Tensor:
        """The iterative updates of the paper, section 3.3; correlations and positions stay in full precision."""
        net = self._net
        net.corr_block.build_pyramid(features, others)
        hidden_size = net.update_block.hidden_state_size
        state, context = context.split([hidden_size, context.shape[1] - hidden_size], dim=1)
        state, context = state.tanh(), context.relu()
        count, _, height, width = features.shape
        start = pixel_grid(height, width, device=self._device).expand(count, -1, -1, -1)
        flow = torch.zeros_like(start)
        for _ in range(self._updates):
            correlation = net.corr_block.index_pyramid(centroids_coords=start + flow)
            with self._precision():
                state, delta = net.update_block(state, context, correlation, flow)
            flow = flow + delta.float()
        net.corr_block.corr_pyramid = []  # else it stays while the next is built
        if net.mask_predictor is None:
            return 8.0 * F.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)
        with self._precision():
            mask = net.mask_predictor(state)
        return convex_upsample(8.0 * flow, mask, 8, border="constant")


def load_raft(name: str, path: Path) -> RAFT:
    """Build ``raft_large`` or ``raft_small`` with the weights of a file, torchvision's or the original authors'.

    Raises:
        WeightsError: the file is damaged or holds another model's weights.
    """
    from torchvision.models import optical_flow

    net = getattr(optical_flow, name)(weights=None)
    try:
        net.load_state_dict(to_torchvision_raft(read_weights(path)))
    except RuntimeError as error:
        raise WeightsError(f"{path}: not the weights of {name}; give another file or choose another model") from error
    return net


def raft_url(name: str) -> str:
    """The address of torchvision's weights of ``raft_large`` or ``raft_small``."""
    from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

    return {"raft_large": Raft_Large_Weights.C_T_SKHT_V2, "raft_small": Raft_Small_Weights.C_T_V2}[name].url
