"""The graded still that a clip follows."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...image.resize import resize, working_copy
from ...optim.grids import Pyramid, frame_sizes
from ...optim.losses import charbonnier
from .config import PRESETS, RelightConfig
from .priors import likeness
from .tone import without_light

__all__ = ["Still", "frame_shown"]

REFERENCE_SCALE = 0.02  # difference from the still beyond which it is rather burnt out or a local change
LEAST_LIKENESS = 0.12  # the graded frame itself has up to 0.9, its neighbours 0.25 or more, other clips below 0.05


def frame_shown(reference: Tensor, index: int, frames: Tensor) -> int:
    """Return which frame of a clip ``(T, H, W, 3)`` a graded still ``(1, H', W', 3)`` shows.

    Args:
        reference: the still.
        index: of the frame that it is said to show; -1 looks for it.
        frames: the clip.

    Raises:
        InputError: it does not look like that frame, or like any.
    """
    side = PRESETS["balanced"].side
    picture = working_copy(reference, side)
    candidates = range(len(frames)) if index < 0 else range(index, index + 1)
    best, found = -1.0, 0
    for start in range(candidates.start, candidates.stop, 64):
        small = working_copy(frames[start : min(start + 64, candidates.stop)], side)
        alike = likeness(small, resize(picture, (small.shape[2], small.shape[3]), mode="area")[0])
        if float(alike.max()) > best:
            best, found = float(alike.max()), start + int(alike.argmax())
    if best < LEAST_LIKENESS:
        raise InputError(
            f"reference: it does not look like frame {found} of the clip (likeness {best:.2f} of 1); "
            "give a graded frame of this clip, or another reference_frame"
        )
    return found


class Still:
    """The graded still: gamma and the colour are learnt so that its frame comes out like it.

    What light the picture keeps is learnt with them, as a field that is fixed in the frame: a lens that darkens corners
    does so in every frame, and who grades one of them leaves it in. Without it, the corners' darkness of that frame
    would stay with the scene while the camera pans.
    """

    def __init__(self, small: Tensor, reference: Tensor, index: int, config: RelightConfig) -> None:
        picture = working_copy(reference, config.side, small.device)
        self.picture = resize(picture, (small.shape[2], small.shape[3]), mode="area")
        self.index = slice(index, index + 1)
        self.dark = small[self.index]
        # within the range that natural_tone gives to dark clips
        self.log_gamma = torch.tensor(-0.5, device=small.device, requires_grad=True)
        self.colour = torch.ones(3, device=small.device, requires_grad=True)
        self.kept = Pyramid([(1, *size) for size in frame_sizes(small, config.grid)], small.device)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.log_gamma, self.colour, *self.kept.parts]

    def difference(self, grid: Tensor, kept: Tensor) -> Tensor:
        """How far the frame is from the still, ``(1, 3, h, w)``; burnt-out and other local changes count little."""
        left = grid[self.index] - kept
        reflectance = without_light(self.dark, left).clamp_min(1e-4)  # the power's slope at 0 is infinite
        lit = self.colour.exp().view(1, 3, 1, 1) * reflectance.pow(self.log_gamma.exp())
        return charbonnier(lit - self.picture, REFERENCE_SCALE)

    def tone(self) -> tuple[float, tuple[float, float, float]]:
        """Gamma, and the log gain of red, green and blue."""
        red, green, blue = self.colour.tolist()
        return float(self.log_gamma.detach().exp()), (red, green, blue)
