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
from .dis import Search, grey_copies, search_with, side_by_side, threads
from .equalise import equalised
from .estimator import Motion, RawMotion, no_motion, with_occlusion

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FILES", "Refined", "as_read", "load_refiner", "starts_of"]

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


class Refined:
    """Dense inverse search of two kinds, then the network, both ways; each frame passes through the encoder once.

    Args:
        net: the network.
        device: where the network runs; the searches run on the CPU.
        half: whether the network runs in half precision, on CUDA.
        memory: bytes it may take.
    """

    def __init__(self, net: FlowRefiner, *, device: torch.device, half: bool, memory: int) -> None:
        self._net = net.to(device)
        self._memory = memory
        self._device = device
        self._half = half and device.type == "cuda"
        self._searches = Starts()
        self._last: Tensor | None = None
        self._features: tuple[Tensor, Tensor] | None = None

    def read(self, picture: np.ndarray, dark: bool) -> np.ndarray:
        """See ``Estimator.read``."""
        import cv2
        import numpy as np

        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        return np.concatenate((grey_copies(grey, dark), as_read(picture)), axis=-1)

    def pairs_at_once(self, height: int, width: int) -> int:
        """One on the CPU, where the network gains nothing by batches; on a GPU as many as there is memory for."""
        if self._device.type == "cpu":
            return 1
        return min(AT_ONCE, max(1, self._memory // SHARE // (2 * PIXEL_BYTES * height * width)))

    def show(self, frames: Tensor) -> RawMotion:
        """See ``Estimator.show``: what the first search found."""
        run = frames if self._last is None else torch.cat((self._last, frames))
        self._last = frames[-1:]
        if len(run) < 2:
            return no_motion(frames)
        self._found = self._searches.between(run[:, :-CHANNELS])
        return with_occlusion(*self._found[:, :2].chunk(2))

    def finish(self, motion: RawMotion, before: Tensor, after: Tensor) -> Motion:
        """See ``Estimator.finish``."""
        if len(before) == 0:
            return Motion(*motion, *motion[2:])
        height, width = before.shape[-2:]
        beside = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        new = after if self._features is not None else torch.cat((before[:1], after))
        pictures = F.pad(send(new[:, -CHANNELS:], self._device), beside, mode="replicate")
        starts = send(F.pad(self._found, beside, mode="replicate"), self._device)
        with torch.autocast(self._device.type, torch.float16, enabled=self._half):
            quarter, eighth = self._net.encode(pictures)
            if self._features is not None:
                quarter, eighth = torch.cat((self._features[0], quarter)), torch.cat((self._features[1], eighth))
            self._features = quarter[-1:], eighth[-1:]
            features = torch.cat((quarter[:-1], quarter[1:])), torch.cat((eighth[:-1], eighth[1:]))
            flow, logit, _ = self._net(starts, features)
        # two frames without contrast say nothing: the network would make something of it
        contrast = torch.cat((before, after))[:, -CHANNELS:].flatten(2).var(dim=2).amax(dim=1)
        told = torch.maximum(*contrast.chunk(2)) > CONTRAST**2
        flow = torch.where(send(told, self._device).repeat(2).view(-1, 1, 1, 1), flow, starts[:, :2])
        found = with_occlusion(*flow[..., :height, :width].float().chunk(2))
        trusted = torch.sigmoid(logit[:, 0, :height, :width].float())
        return Motion(*(part.cpu() for part in (*found, *trusted.chunk(2))))


class Starts:
    """The motions that the network starts from, ``nets.flow.STARTS`` of them.

    On the luminance down to single pixels, and on copies of even contrast with larger patches and twice as coarse.
    """

    def __init__(self) -> None:
        # each keeps its working memory: one for each thread, and for each direction at least
        self._ways = [
            (
                search_with(finest=0, patch=8, stride=4, smoothness=10.0, refinements=3),
                search_with(finest=2, patch=12, stride=6, smoothness=40.0, refinements=5),
            )
            for _ in range(max(2, threads()))
        ]

    def between(self, copies: Tensor) -> Tensor:
        """Motion between frames and the next, of ``dis.grey_copies`` ``(n + 1, 2, h, w)``.

        Returns:
            ``(2 n, 4, h, w)`` in pixels: of n pairs of frames forward, then of the same backward.
        """
        import numpy as np

        pictures = (copies * 255.0).round().byte().numpy()

        def found(way: tuple[Search, Search], before: np.ndarray, after: np.ndarray) -> np.ndarray:
            return np.stack([search(before[copy], after[copy]) for copy, search in enumerate(way)])

        ends = np.concatenate((pictures[:-1], pictures[1:])), np.concatenate((pictures[1:], pictures[:-1]))
        return torch.from_numpy(np.stack(side_by_side(found, self._ways, *ends))).movedim(-1, 2).flatten(1, 2)


def as_read(picture: np.ndarray) -> np.ndarray:
    """A picture ``(h, w, 3)`` in 0..1 as the network reads it, ``(h, w, CHANNELS)``: equalised, and its luminance."""
    import cv2
    import numpy as np

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    return np.concatenate((equalised(picture), grey), axis=-1) * 2.0 - 1.0


def starts_of(frames: np.ndarray) -> Tensor:
    """What the network starts from, of two frames ``(2, h, w, 3)``; see ``Starts.between``."""
    import cv2
    import numpy as np

    dark = float(np.median(frames[:, ::8, ::8].mean(axis=-1))) < 0.25
    copies = np.stack([grey_copies(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dark) for frame in frames])
    return Starts().between(torch.from_numpy(copies).movedim(-1, 1))
