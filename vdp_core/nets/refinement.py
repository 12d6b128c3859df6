"""The network of "Learning Blind Video Temporal Consistency" (Lai et al., ECCV 2018), which makes frames follow others.

Blind Video Deflickering (Lei et al., CVPR 2023) ends with it. What is known of it says neither the slope of its ReLUs
nor the order of its memory's gates; those here are the usual ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .padding import padded

__all__ = ["RefinementNet", "State"]

State = tuple[Tensor, Tensor]
"""What a ConvLSTM holds from frame to frame: what it gave, and its memory, each ``(N, C, h / 4, w / 4)``, padded."""
WIDTH, BLOCKS = 32, 5
SLOPE = 0.2  # of the leaky ReLUs


class RefinementNet(nn.Module):
    """A recurrent network that changes a frame so that it follows the one before: ``O_t = P_t + tanh(net)``.

    As published: two streams, of ``(P_t, O_(t-1))`` and of ``(P_t, P_(t-1))``; two halvings, five residual blocks and a
    ConvLSTM of 128 channels; skips from the first stream alone; 2,979,555 parameters. Its memory is carried from frame
    to frame, as Lai et al. have it. Its first answer is no change.
    """

    def __init__(self, width: int = WIDTH, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.first = nn.ModuleList(_conv(6, width, 7) for _ in range(2))
        self.second = nn.ModuleList(_conv(width, 2 * width, 3, stride=2) for _ in range(2))
        self.third = _conv(4 * width, 4 * width, 3, stride=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(_conv(4 * width, 4 * width, 3), _act(), _conv(4 * width, 4 * width, 3)) for _ in range(blocks)
        )
        self.memory = ConvLSTM(4 * width)
        self.up = nn.ModuleList((_conv(4 * width, 2 * width, 3), _conv(4 * width, width, 3)))
        self.head = _conv(2 * width, 3, 7)
        for value in self.head.parameters():
            nn.init.zeros_(value)

    def forward(self, now: Tensor, before: Tensor, given: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Refine a frame.

        Args:
            now: P_t, ``(N, 3, h, w)`` in 0..1; any size.
            before: P_(t-1).
            given: O_(t-1), what this gave for the frame before.
            state: what it left then; None at the start.

        Returns:
            O_t, ``(N, 3, h, w)`` of about 0..1, and the state to go on with.
        """
        both, crop = padded(torch.cat((now, given, before), dim=1))
        seen, own, last = both.split(3, dim=1)
        full = [_on(conv(torch.cat((seen, other), dim=1))) for conv, other in zip(self.first, (own, last), strict=True)]
        half = [_on(conv(features)) for conv, features in zip(self.second, full, strict=True)]
        features = _on(self.third(torch.cat(half, dim=1)))
        for block in self.blocks:
            features = features + block(features)
        features, memory = self.memory(features, state)
        kept = features, memory
        for conv, skip in zip(self.up, (half[0], full[0]), strict=True):
            wide = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            features = torch.cat((_on(conv(wide)), skip), dim=1)
        return now + torch.tanh(self.head(features))[crop], kept


class ConvLSTM(nn.Module):
    """A long short-term memory whose gates are convolutions (Shi et al., NeurIPS 2015, eq. 3, without peepholes)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * width, 4 * width, 3, padding=1)

    def forward(self, features: Tensor, state: State | None) -> State:
        """``(N, C, h, w)`` and what was left of the frame before, to what is left now."""
        given, memory = (torch.zeros_like(features),) * 2 if state is None else state
        enter, keep, leave, new = self.gates(torch.cat((features, given), dim=1)).chunk(4, dim=1)
        memory = torch.sigmoid(keep) * memory + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(leave) * torch.tanh(memory), memory


def _conv(inputs: int, outputs: int, side: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride, padding=side // 2)


def _act() -> nn.LeakyReLU:
    return nn.LeakyReLU(SLOPE)


def _on(features: Tensor) -> Tensor:
    return F.leaky_relu(features, SLOPE)
