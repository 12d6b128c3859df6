"""Noise removal on the one clip: how strong the noise is, and taking it out along the motion and within each frame.

Pictures are handled in an orthonormal opponent colour space (brightness, red against blue, green against both), where
natural colour is sparse: brightness carries the detail, and the other two can be smoothed much more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ..motion.warp import resize_flow, warp
from ..store.budget import fits_in_memory
from ..store.scratch import large_empty
from ..store.transfer import fetch, send
from ..types import Flow, Layers
from .blocks import bands, from_opponent, to_opponent
from .coarse import without_blocks
from .noise import Noise, high_frequency_energy_of
from .transform import sliding_dct

__all__ = ["clean_frames", "denoised", "is_noisy", "less_noisy"]

REACH = 2  # neighbours averaged on either side; more gains little and blurs where the flow is a little off


class _Seen(NamedTuple):
    """A frame on its way through noise removal."""

    frame: Tensor
    """``(1, H, W, 3)`` as it came, so that mostly no memory of its own is needed."""
    pilot: Tensor
    """A first estimate of the clean opponent picture ``(1, 3, H, W)``; it only weighs, so half precision will do."""
    noise: Noise

    def both(self) -> Tensor:
        """Noisy and pilot opponent pictures, ``(1, 6, H, W)``."""
        return torch.cat((to_opponent(self.frame), self.pilot.float()), dim=1)


@torch.no_grad()
def denoised(
    frames: Tensor, flow: Flow | None, noise: Noise, *, start: int = 0, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yield the frames without their noise, one ``(1, H, W, 3)`` at a time, on ``device``.

    Three steps, as in V-BM3D (Dabov et al., 2007): a pilot of each frame by thresholding sliding 8x8 DCT blocks; the
    noisy frames averaged with neighbours brought along the flow, as far as the pilots agree; the remaining noise out
    by an empirical Wiener filter on the same blocks. Memory does not grow with the number of frames.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        flow: the motion of the clip; None treats each frame by itself.
        noise: what ``estimate_noise`` found.
        start: the first frame to give.
        device: where to compute.
    """
    size = (frames.shape[1], frames.shape[2])
    reach = 0 if flow is None else REACH
    window: deque[_Seen] = deque(maxlen=2 * reach + 1)
    ahead = max(0, start - reach)
    for index in range(start, len(frames)):
        while ahead < min(index + reach + 1, len(frames)):
            frame = send(frames[ahead : ahead + 1], device).float()
            noisy = to_opponent(frame)
            # encoders keep more of the noise in some frames, such as key frames
            energy = high_frequency_energy_of(noisy) / max(noise.high_frequency_energy, 1e-12)
            frame_noise = noise.scaled(energy.clamp(0.5, 4.0))
            window.append(_Seen(frame, sliding_dct(noisy, None, frame_noise, None).half(), frame_noise))
            ahead += 1
        first = ahead - len(window)
        yield _without_noise(window, first, index, flow, size)


def _without_noise(window: deque[_Seen], first: int, index: int, flow: Flow | None, size: tuple[int, int]) -> Tensor:
    """Frame ``index``, ``(1, H, W, 3)``, from those in the window, which begins with frame ``first``."""
    here = window[index - first]
    mean, counted = (here.both(), None) if flow is None else _average(window, first, index, flow, size)
    return from_opponent(sliding_dct(mean[:, :3], mean[:, 3:], here.noise, counted)).clamp_(0.0, 1.0)


_kept: WeakKeyDictionary[Layers, Tensor] = WeakKeyDictionary()
"""Denoised clips in half precision, which is exact to 1/4096: gone with the layers they belong to."""


def clean_frames(
    layers: Layers,
    *,
    start: int = 0,
    contrast: Tensor | None = None,
    deblock: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Yield the denoised source frames of ``layers`` one by one, like ``denoised``, but work only the first time.

    Each shot has a noise of its own. So that sliders stay quick, the result is kept as long as the layers are, where it
    fits in memory.

    Args:
        layers: with a field ``noise``.
        start: the first frame to give.
        contrast: ``(T,)``, by how much the contrast of each frame is to grow; shots whose noise stays unseen even so
            are left as they are.
        deblock: whether blocks are taken out as well, by the field ``blocking``.
        device: where to compute.
    """
    kept = _kept.get(layers)
    if kept is not None:
        yield from (send(kept[index : index + 1], device).float() for index in range(start, len(layers)))
        return
    fits = start == 0 and fits_in_memory(2 * layers.frames.numel())
    keep = large_empty(*layers.frames.shape, dtype=torch.float16) if fits else None
    coming: deque[tuple[int, Callable[[], Tensor]]] = deque()
    index = start  # (enumerate would hold on to a frame)
    for frame in _clean_shots(layers, start, contrast, deblock, device):
        frame = frame.half()  # the same, kept or not
        if keep is not None:
            coming.append((index, fetch(frame[0])))
            is_last = index == len(layers) - 1
            while len(coming) > int(not is_last):  # the device has the next frame to do meanwhile
                place, landed = coming.popleft()
                keep[place] = landed()
            if is_last:  # not after the loop: nobody asks for a frame past the last
                _kept[layers] = keep
        index += 1
        yield frame.float()


def less_noisy(
    layers: Layers, start: int, stop: int, clean: Iterator[Tensor] | None, amount: float, device: torch.device | str
) -> Tensor:
    """Source frames ``start`` to ``stop``, ``(n, H, W, 3)``, on ``device``, less a share of their noise.

    Args:
        clean: gives the denoised ones from ``start`` on; None: there is no noise to remove.
        amount: 0 keeps the noise, 1 takes it out.
    """
    if clean is None:
        return send(layers.frames[start:stop], device)
    clean_run = torch.cat([next(clean) for _ in range(start, stop)])  # first, as it needs the most memory
    if amount == 1.0:
        return clean_run
    return send(layers.frames[start:stop], device).lerp(clean_run, amount)


def is_noisy(layers: Layers, contrast: Tensor | None = None, *, deblock: bool = False) -> bool:
    """Whether ``clean_frames`` has anything to take out of any shot."""
    blocking = layers.fields.get("blocking") if deblock else None
    has_blocks = blocking is not None and bool(blocking.gt(0.0).any())
    return has_blocks or any(_noise_of(layers, shot, contrast) is not None for shot in layers.shots)


def _noise_of(layers: Layers, shot: range, contrast: Tensor | None) -> Noise | None:
    """The noise of a shot, None where it cannot be seen."""
    noise = Noise.of(layers, shot.start)
    gain = 1.0 if contrast is None else float(contrast[shot.start : shot.stop].mean())
    return None if noise.negligible(gain) else noise


def _clean_shots(
    layers: Layers, start: int, contrast: Tensor | None, deblock: bool, device: torch.device | str
) -> Iterator[Tensor]:
    blocking = layers.fields.get("blocking") if deblock else None
    deviations = [0.0] * len(layers) if blocking is None else blocking.flatten().tolist()
    for index, frame in enumerate(_quiet_shots(layers, start, contrast, device), start):
        yield without_blocks(frame, deviations[index])


def _quiet_shots(layers: Layers, start: int, contrast: Tensor | None, device: torch.device | str) -> Iterator[Tensor]:
    for shot in layers.shots:
        if start >= shot.stop:
            continue
        frames = layers.frames[shot.start : shot.stop]
        first = max(start - shot.start, 0)
        noise = _noise_of(layers, shot, contrast)
        if noise is None:
            yield from (send(frames[index : index + 1], device) for index in range(first, len(shot)))
        else:
            flow = None if layers.flow is None else layers.flow.part(shot.start, shot.stop)
            yield from denoised(frames, flow, noise, start=first, device=device)


def _average(window: deque[_Seen], first: int, index: int, flow: Flow, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Average frame ``index`` with its neighbours in the window, and say how many frames each pixel averages.

    A neighbour counts ``exp(-d / v)``, with d the mean squared difference of the pilots over 3x3 pixels and v the
    variance of the noise there: what differs by more than the noise moved wrongly, was occluded or was lit otherwise.
    """
    here = window[index - first]
    total = here.both()
    weights, squares = torch.ones_like(total[:, :1]), torch.ones_like(total[:, :1])
    for step in (1, -1):
        path: Tensor | None = None  # at the size of the flow: only its end is needed at that of the frames
        other = index + step
        while first <= other < first + len(window):
            hop = flow.forward[other - 1 : other] if step == 1 else flow.backward[other : other + 1]
            hop = send(hop, total.device)
            path = hop if path is None else path + warp(hop, path)
            _add(total, weights, squares, here, window[other - first], resize_flow(path, size))
            other += step
    return total.div_(weights), weights.square_().div_(squares)


def _add(total: Tensor, weights: Tensor, squares: Tensor, here: _Seen, there: _Seen, path: Tensor) -> None:
    """Add a neighbour along ``path``, its weights and their squares to their sums."""
    frame, pilot = there.frame.movedim(-1, 1), there.pilot.float()
    for band, around in bands(*path.shape[-2:], margin=1, device=path.device):
        way, own = path[..., around, :], here.pilot[..., around, :].float()
        noisy, warped = (warp(whole, way, top=around.start) for whole in (frame, pilot))
        warped = torch.cat((to_opponent(noisy.movedim(1, -1)), warped), dim=1)
        gap = _mean_around((warped[:, 3:] - own).square_().mean(dim=1, keepdim=True))
        variance = here.noise.variance(own[:, :1] / math.sqrt(3)).mean(dim=1, keepdim=True).clamp_min(1e-8)
        inside = slice(band.start - around.start, band.stop - around.start)
        weight = gap.div_(-variance).exp_()[..., inside, :]
        total[..., band, :].addcmul_(weight, warped[..., inside, :])
        weights[..., band, :] += weight
        squares[..., band, :].addcmul_(weight, weight)


def _mean_around(values: Tensor) -> Tensor:
    """Means over 3x3 pixels of ``(N, 1, H, W)``; at least five times as fast as pooling a single channel."""
    padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2] + padded[..., 1:-1]).add_(padded[..., 2:])
    return (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :]).mul_(1.0 / 9.0)
