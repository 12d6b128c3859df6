"""Motion by dense inverse search, mended by the small network that ships with the project."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from ..nets.flow import CHANNELS, FlowRefiner
from .dis import Dis, grey_copies
from .equalise import equalised
from .estimator import Motion, no_motion
from .warp import occlusion, warp

if TYPE_CHECKING:
    import numpy as np

__all__ = ["WEIGHTS", "Refined", "as_read", "gap_of", "start_of"]

START_REFINEMENTS = 5
MULTIPLE = 32  # of pixels, that the network takes
WEIGHTS = Path(__file__).parents[1] / "nets" / "flow_refiner.safetensors"


@cache
def _network() -> FlowRefiner:
    net = FlowRefiner()
    net.load_state_dict(load_file(WEIGHTS))
    return net.eval()


class Refined:
    """Dense inverse search, then the network, both ways; each frame passes through the encoder once.

    Args:
        device: where the network runs; the search runs on the CPU.
        half: whether the network runs in half precision, on CUDA.
    """

    def __init__(self, *, device: torch.device, half: bool) -> None:
        self._net = _network().to(device)
        self._device = device
        self._half = half and device.type == "cuda"
        self._search = Dis(refinements=START_REFINEMENTS)
        self._last: tuple[Tensor, Tensor] | None = None

    def read(self, picture: np.ndarray, dark: bool) -> np.ndarray:
        """See ``Estimator.read``."""
        import numpy as np

        return np.concatenate((grey_copies(picture, dark), as_read(picture)), axis=-1)

    def pairs_at_once(self, height: int, width: int) -> int:
        """One on the CPU, where batches gain nothing; on a GPU enough to keep it busy."""
        return 1 if self._device.type == "cpu" else 16

    def show(self, frames: Tensor) -> Motion:
        """See ``Estimator.show``."""
        height, width = frames.shape[-2:]
        beside = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        start = self._search.show(frames[:, :-CHANNELS])
        pictures = F.pad(frames[:, -CHANNELS:].to(self._device), beside, mode="replicate")
        with torch.autocast(self._device.type, torch.float16, enabled=self._half):
            quarter, eighth = self._net.encode(pictures)
            if self._last is not None:
                quarter, eighth = torch.cat((self._last[0], quarter)), torch.cat((self._last[1], eighth))
            self._last = quarter[-1:], eighth[-1:]
            if len(quarter) < 2:
                return no_motion(frames)
            here = torch.cat((quarter[:-1], quarter[1:])), torch.cat((eighth[:-1], eighth[1:]))
            there = torch.cat((quarter[1:], quarter[:-1])), torch.cat((eighth[1:], eighth[:-1]))
            ways = torch.cat((start.forward, start.backward)), torch.cat((start.backward, start.forward))
            begin, back = (F.pad(way, beside, mode="replicate").to(self._device) for way in ways)
            flow, logit, _ = self._net(begin, gap_of(begin, back), here, there)
        forward, backward = flow[..., :height, :width].float().cpu().chunk(2)
        ways = torch.cat((forward, backward)), torch.cat((backward, forward))
        trusted = torch.sigmoid(logit[:, 0, :height, :width]).float().cpu()
        return Motion(forward, backward, *occlusion(*ways).chunk(2), *trusted.chunk(2))


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

    dark = float(np.median(frames[:, ::8, ::8].mean(axis=-1))) < 0.25
    copies = torch.from_numpy(np.stack([grey_copies(frame, dark) for frame in frames])).movedim(-1, 1)
    motion = Dis(refinements=START_REFINEMENTS).show(copies)
    return torch.cat((motion.forward, motion.backward))
