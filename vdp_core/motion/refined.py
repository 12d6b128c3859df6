"""Motion by dense inverse search, mended by a small network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import WeightsError
from ..nets.flow import CHANNELS, FlowRefiner
from ..nets.weights import read_weights
from ..store.transfer import send
from .dis import Dis
from .equalise import equalised
from .estimator import Motion, RawMotion, with_occlusion
from .warp import warp

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FILES", "Refined", "as_read", "gap_of", "load_refiner", "start_of"]

FILES = ("flow_refiner*",)
"""File names of weights without suffix."""
MULTIPLE = 32  # of pixels, that the network takes
CONTRAST = 1e-3  # deviation of a frame, as it is read, below which there is none
PIXEL_BYTES = 400  # a pixel and direction, at the most
AT_ONCE = 16  # pairs
SHARE = 4  # of the memory that is there, batches take one part in so many


def load_refiner(path: Path) -> FlowRefiner:
    """Build the network with the weights of a file that ``vdp train flow`` wrote.

    Raises:
        WeightsError: the file is damaged or holds another model's weights.
    """
    net = FlowRefiner()
    try:
        net.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise WeightsError(f"{path}: not the weights of dis_refined; give another file") from error
    return net.eval()


class Refined(Dis):
    """Dense inverse search, then the network, both ways; each frame passes through the encoder once.

    Args:
        net: the network.
        device: where the network runs; the search runs on the CPU.
        half: whether the network runs in half precision, on CUDA.
        memory: bytes it may take.
    """

    def __init__(self, net: FlowRefiner, *, device: torch.device, half: bool, memory: int) -> None:
        super().__init__()
        self._net = net.to(device)
        self._memory = memory
        self._device = device
        self._half = half and device.type == "cuda"
        self._features: tuple[Tensor, Tensor] | None = None

    def read(self, picture: np.ndarray, dark: bool) -> np.ndarray:
        """See ``Estimator.read``."""
        import numpy as np

        return np.concatenate((super().read(picture, dark), as_read(picture)), axis=-1)

    def pairs_at_once(self, height: int, width: int) -> int:
        """One on the CPU, where batches gain nothing; on a GPU as many as there is memory for."""
        if self._device.type == "cpu":
            return 1
        return min(AT_ONCE, max(1, self._memory // SHARE // (2 * PIXEL_BYTES * height * width)))

    def show(self, frames: Tensor) -> RawMotion:
        """See ``Estimator.show``."""
        return super().show(frames[:, :-CHANNELS])

    def finish(self, motion: RawMotion, before: Tensor, after: Tensor) -> Motion:
        """See ``Estimator.finish``."""
        begun = super().finish(motion, before, after)
        if len(before) == 0:
            return begun
        height, width = before.shape[-2:]
        beside = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        new = after if self._features is not None else torch.cat((before[:1], after))
        pictures = F.pad(send(new[:, -CHANNELS:], self._device), beside, mode="replicate")
        ahead, back = (send(F.pad(way, beside, mode="replicate"), self._device) for way in begun[:2])
        with torch.autocast(self._device.type, torch.float16, enabled=self._half):
            quarter, eighth = self._net.encode(pictures)
            if self._features is not None:
                quarter, eighth = torch.cat((self._features[0], quarter)), torch.cat((self._features[1], eighth))
            self._features = quarter[-1:], eighth[-1:]
            here = torch.cat((quarter[:-1], quarter[1:])), torch.cat((eighth[:-1], eighth[1:]))
            there = torch.cat((quarter[1:], quarter[:-1])), torch.cat((eighth[1:], eighth[:-1]))
            start = torch.cat((ahead, back))
            flow, logit, _ = self._net(start, gap_of(start, torch.cat((back, ahead))), here, there)
        # two frames without contrast say nothing: the network would make something of it
        contrast = torch.cat((before, after))[:, -CHANNELS:].flatten(2).var(dim=2).amax(dim=1)
        told = torch.maximum(*contrast.chunk(2)) > CONTRAST**2
        flow = torch.where(send(told, self._device).repeat(2).view(-1, 1, 1, 1), flow, start)
        found = with_occlusion(*flow[..., :height, :width].float().chunk(2))
        trusted = torch.sigmoid(logit[:, 0, :height, :width].float())
        return Motion(*(part.cpu() for part in (*found, *trusted.chunk(2))))


def as_read(picture: np.ndarray) -> np.ndarray:
    """A picture ``(h, w, 3)`` in 0..1 as the network reads it, ``(h, w, CHANNELS)``: equalised, and its luminance."""
    import cv2
    import numpy as np

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    return np.concatenate((equalised(picture), grey), axis=-1) * 2.0 - 1.0


def gap_of(start: Tensor, back: Tensor) -> Tensor:
    """How far from home flow ``(n, 2, h, w)`` and then the flow back lead, ``(n, 1, h, w)`` in pixels."""
    return (start + warp(back, start)).square().sum(dim=1, keepdim=True).sqrt()


def start_of(frames: np.ndarray) -> Tensor:
    """The motion that the network starts from: of two frames ``(2, h, w, 3)``, both ways, ``(2, 2, h, w)``."""
    import numpy as np

    search, dark = Dis(), float(np.median(frames[:, ::8, ::8].mean(axis=-1))) < 0.25
    copies = torch.from_numpy(np.stack([search.read(frame, dark) for frame in frames])).movedim(-1, 1)
    motion = search.finish(search.show(copies), copies[:1], copies[1:])
    return torch.cat((motion.forward, motion.backward))
