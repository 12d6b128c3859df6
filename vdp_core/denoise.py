"""Noise removal on the one clip: how strong the noise is, and taking it out along the motion and within each frame.

Pictures are handled in an orthonormal opponent colour space (brightness, red against blue, green against both), where
natural colour is sparse: brightness carries the detail, and the other two can be smoothed much more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import LayersFileError
from .frames import large_empty
from .types import Flow, Layers
from .warp import resize_flow, warp

__all__ = ["Noise", "check_noise", "clean_frames", "denoised", "estimate_noise", "is_noisy", "less_noisy"]

BLOCK = 8
STRIDE = 4  # 2 gains 0.5 to 1.1 dB and costs four times as much
THRESHOLD = 2.7  # in deviations of the noise; the usual choice for sliding-window DCT
REACH = 2  # neighbours averaged on either side; more gains little and blurs where the flow is a little off
BAND = 2**19  # pixels worked on at once: fewer cost calls, more leave the caches, and take memory
COLOUR_SHARE = 0.7
"""Least deviation of the noise in colour, as a share of that in brightness: files that store colour at half size keep
noise only in its low frequencies, where it cannot be told from picture. Grey clips have no colour to lose."""
NEGLIGIBLE = 0.4 / 255  # below this deviation, noise cannot be seen
ROUNDING = 1.0 / (255 * math.sqrt(12.0))
"""The deviation that rounding to 8 bits has; where haze leaves blocks flat, rounding hides itself from estimates."""


@dataclass(frozen=True)
class Noise:
    """Gaussian noise whose variance grows with brightness: ``variance = offset + slope * brightness``.

    One pair of numbers for each opponent channel, in the units of frames in 0..1; sensor noise has a slope.
    """

    offset: tuple[float, float, float]
    slope: tuple[float, float, float]
    loudness: float = 1.0
    """Mean high-frequency energy of the clip, against which single frames are louder or less loud."""

    @classmethod
    def of(cls, layers: Layers, frame: int) -> Noise:
        """The noise of a frame of the source, as it was estimated when the layers were found."""
        a, b, c, d, e, f, loudness = layers.fields["noise"][frame].flatten().tolist()
        return cls((a, b, c), (d, e, f), loudness)

    def field(self, count: int) -> Tensor:
        """What layers keep of it, the same for ``count`` frames: ``(count, 7, 1, 1)``."""
        return torch.tensor((*self.offset, *self.slope, self.loudness)).view(1, -1, 1, 1).repeat(count, 1, 1, 1)

    def negligible(self, gain: float = 1.0) -> bool:
        """Whether there is nothing to remove, at any brightness, from frames whose contrast is to grow by ``gain``."""
        return all(gain * math.sqrt(a + b) < NEGLIGIBLE for a, b in zip(self.offset, self.slope, strict=True))

    def scaled(self, factor: float) -> Noise:
        """Return noise of ``factor`` times the variance."""
        offset, slope = ([factor * value for value in values] for values in (self.offset, self.slope))
        return replace(self, offset=(offset[0], offset[1], offset[2]), slope=(slope[0], slope[1], slope[2]))

    def variance(self, brightness: Tensor) -> Tensor:
        """Return the variances ``(N, 3, ...)`` at a brightness ``(N, 1, ...)``."""
        shape = (1, 3, *[1] * (brightness.ndim - 2))
        offset, slope = brightness.new_tensor(self.offset), brightness.new_tensor(self.slope)
        return offset.view(shape) + slope.view(shape) * brightness.clamp_min(0.0)


def check_noise(layers: Layers) -> None:
    """Refuse layers, read from a file, that do not say how noisy their source is.

    Raises:
        LayersFileError: there is no such field, or it is impossible.
    """
    field = layers.fields.get("noise")
    if field is None or tuple(field.shape[1:]) != (7, 1, 1) or bool((field < 0.0).any()):
        raise LayersFileError("the layers hold no usable 'noise' (T, 7, 1, 1); save them again")


def estimate_noise(frames: Tensor, *, samples: int = 12) -> Noise:
    """Estimate the noise of a clip from the highest frequencies of its flattest blocks.

    At each brightness the quietest twentieth of the 8x8 blocks holds hardly anything but noise there, also in clips
    that are textured all over. Follows the idea of Ponomarenko et al., "An automatic approach to lossy compression of
    AVIRIS images", 2007. Rounding to 8 bits is the least that is found.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        samples: number of frames looked at, evenly spread.
    """
    if min(frames.shape[1:3]) < BLOCK:
        return Noise((ROUNDING**2,) * 3, (0.0,) * 3)
    some = torch.linspace(0, len(frames) - 1, min(samples, len(frames))).round().long().tolist()
    levels, deviations = zip(*(_hiss(_to_opponent(frames[index : index + 1].float())) for index in some), strict=True)
    level, deviation = torch.cat(levels), torch.cat(deviations, dim=1)
    order = level.argsort()
    bins = [part for part in order.tensor_split(8) if len(part) > 0]
    brightness = torch.stack([level[part].mean() for part in bins])
    # the root mean square of n normal values lies below 1 - 1.645 / sqrt(2 n) one time in twenty
    lowest = 1.0 - 1.645 / math.sqrt(2 * int(_high().sum()))
    variance = torch.stack([(deviation[:, part].quantile(0.05, dim=1) / lowest).square() for part in bins])
    variance = torch.maximum(variance, variance[:, :1] * COLOUR_SHARE**2).clamp_min(ROUNDING**2)
    pairs = [_line(brightness, variance[:, channel]) for channel in range(3)]
    loudness = max(sum(_quiet_energy(of_frame[0]) for of_frame in deviations) / len(some), 1e-12)
    return Noise((pairs[0][0], pairs[1][0], pairs[2][0]), (pairs[0][1], pairs[1][1], pairs[2][1]), loudness)


def _high() -> Tensor:
    """Which of the 64 DCT coefficients of a block count as high frequencies."""
    frequency = torch.arange(BLOCK)
    return (frequency[:, None] + frequency[None, :] > BLOCK).flatten()


def _hiss(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Of the 8x8 blocks of opponent pictures ``(1, C, H, W)``: brightness ``(n,)``, deviation of the high frequencies
    ``(C, n)``."""
    height, width = (side // BLOCK * BLOCK for side in pictures.shape[-2:])
    blocks = _split(pictures[..., :height, :width]) @ _dct_basis(pictures.device).T
    return _brightness(blocks)[0].flatten(), blocks[0, ..., _high()].square().mean(-1).sqrt().flatten(1)


def _loudness(noisy: Tensor) -> float:
    """Mean high-frequency energy of an opponent picture ``(1, 3, H, W)``, in brightness; 1 where it has no blocks."""
    if min(noisy.shape[-2:]) < BLOCK:
        return 1.0
    return _quiet_energy(_hiss(noisy[:, :1])[1][0])


def _quiet_energy(deviation: Tensor) -> float:
    """Mean energy of the quieter half of the blocks ``(n,)``."""
    energy = deviation.square().sort().values
    return float(energy[: (len(energy) + 1) // 2].mean())


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Least-squares offset and slope, neither of them below zero."""
    spread = (x - x.mean()).square().sum()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    offset = float(y.mean()) - slope * float(x.mean())
    if slope < 0.0:
        return float(y.mean()), 0.0
    if offset < 0.0:
        return 0.0, float((x * y).sum() / x.square().sum())
    return offset, slope


class _Seen(NamedTuple):
    """A frame on its way through noise removal."""

    frame: Tensor
    """``(1, H, W, 3)`` as it came, so that mostly no memory of its own is needed."""
    pilot: Tensor
    """A first estimate of the clean opponent picture ``(1, 3, H, W)``; it only weighs, so half precision will do."""
    noise: Noise

    def both(self) -> Tensor:
        """Noisy and pilot opponent pictures, ``(1, 6, H, W)``."""
        return torch.cat((_to_opponent(self.frame), self.pilot.float()), dim=1)


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
            frame = frames[ahead : ahead + 1].to(device).float()
            noisy = _to_opponent(frame)
            # encoders keep more of the noise in some frames, such as key frames
            louder = noise.scaled(min(max(_loudness(noisy) / max(noise.loudness, 1e-12), 0.5), 4.0))
            window.append(_Seen(frame, _sliding(noisy, None, louder, None).half(), louder))
            ahead += 1
        first = ahead - len(window)
        yield _without_noise(window, first, index, flow, size)


def _without_noise(window: deque[_Seen], first: int, index: int, flow: Flow | None, size: tuple[int, int]) -> Tensor:
    """Frame ``index``, ``(1, H, W, 3)``, from those in the window, which begins with frame ``first``."""
    here = window[index - first]
    mean, counted = (here.both(), None) if flow is None else _average(window, first, index, flow, size)
    return _from_opponent(_sliding(mean[:, :3], mean[:, 3:], here.noise, counted)).clamp_(0.0, 1.0)


_kept: WeakKeyDictionary[Layers, Tensor] = WeakKeyDictionary()
"""Denoised clips in half precision, which is exact to 1/4096: gone with the layers they belong to."""


def clean_frames(
    layers: Layers, *, start: int = 0, contrast: Tensor | None = None, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yield the denoised source frames of ``layers`` one by one, like ``denoised``, but work only the first time.

    Each shot has a noise of its own. So that sliders stay quick, the result is kept as long as the layers are, where it
    takes less than a quarter of the memory that is free.

    Args:
        layers: with a field ``noise``.
        start: the first frame to give.
        contrast: ``(T,)``, by how much the contrast of each frame is to grow; shots whose noise stays unseen even so
            are left as they are.
        device: where to compute.
    """
    kept = _kept.get(layers)
    if kept is not None:
        yield from (kept[index : index + 1].to(device).float() for index in range(start, len(layers)))
        return
    fits = layers.frames.numel() * 2 < psutil.virtual_memory().available / 4
    keep = large_empty(*layers.frames.shape, dtype=torch.float16) if fits and start == 0 else None
    index = start  # (enumerate would hold on to a frame)
    for frame in _clean_shots(layers, start, contrast, device):
        frame = frame.half()  # the same, kept or not
        if keep is not None:
            keep[index] = frame[0]
            if index == len(layers) - 1:  # not after the loop: nobody asks for a frame past the last
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
        return layers.frames[start:stop].to(device)
    quiet = torch.cat([next(clean) for _ in range(start, stop)])  # first, as it needs the most memory
    return layers.frames[start:stop].to(device).lerp(quiet, amount)


def is_noisy(layers: Layers, contrast: Tensor | None = None) -> bool:
    """Whether ``clean_frames`` has anything to take out of any shot."""
    return any(_noise_of(layers, shot, contrast) is not None for shot in layers.shots)


def _noise_of(layers: Layers, shot: range, contrast: Tensor | None) -> Noise | None:
    """The noise of a shot, None where it cannot be seen."""
    noise = Noise.of(layers, shot.start)
    gain = 1.0 if contrast is None else float(contrast[shot.start : shot.stop].mean())
    return None if noise.negligible(gain) else noise


def _clean_shots(layers: Layers, start: int, contrast: Tensor | None, device: torch.device | str) -> Iterator[Tensor]:
    for shot in layers.shots:
        if start >= shot.stop:
            continue
        frames = layers.frames[shot.start : shot.stop]
        first = max(start - shot.start, 0)
        noise = _noise_of(layers, shot, contrast)
        if noise is None:
            yield from (frames[index : index + 1].to(device) for index in range(first, len(shot)))
        else:
            flow = None if layers.flow is None else layers.flow.part(shot.start, shot.stop)
            yield from denoised(frames, flow, noise, start=first, device=device)


def _average(window: deque[_Seen], first: int, index: int, flow: Flow, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Average frame ``index`` with its neighbours in the window, and say how many frames each pixel averages.

    A neighbour counts ``exp(-d / v)``, with d the mean squared difference of the pilots over 3x3 pixels and v the
    variance of the noise there: what differs by more than the noise moved wrongly, was hidden or was lit otherwise.
    """
    here = window[index - first]
    total = here.both()
    weights, squares = torch.ones_like(total[:, :1]), torch.ones_like(total[:, :1])
    for step in (1, -1):
        path: Tensor | None = None  # at the size of the flow: only its end is needed at that of the frames
        other = index + step
        while first <= other < first + len(window):
            hop = flow.forward[other - 1 : other] if step == 1 else flow.backward[other : other + 1]
            hop = hop.to(total.device)
            path = hop if path is None else path + warp(hop, path)
            _add(total, weights, squares, here, window[other - first], resize_flow(path, size))
            other += step
    return total.div_(weights), weights.square_().div_(squares)


def _add(total: Tensor, weights: Tensor, squares: Tensor, here: _Seen, there: _Seen, path: Tensor) -> None:
    """Add a neighbour along ``path``, its weights and their squares to their sums."""
    frame, pilot = there.frame.movedim(-1, 1), there.pilot.float()
    for band, around in _bands(*path.shape[-2:], margin=1):
        way, own = path[..., around, :], here.pilot[..., around, :].float()
        noisy, brought = (warp(whole, way, top=around.start) for whole in (frame, pilot))
        brought = torch.cat((_to_opponent(noisy.movedim(1, -1)), brought), dim=1)
        gap = _mean_around((brought[:, 3:] - own).square_().mean(dim=1, keepdim=True))
        variance = here.noise.variance(own[:, :1] / math.sqrt(3)).mean(dim=1, keepdim=True).clamp_min(1e-8)
        inside = slice(band.start - around.start, band.stop - around.start)
        weight = gap.div_(-variance).exp_()[..., inside, :]
        total[..., band, :].addcmul_(weight, brought[..., inside, :])
        weights[..., band, :] += weight
        squares[..., band, :].addcmul_(weight, weight)


def _bands(height: int, width: int, *, margin: int) -> Iterator[tuple[slice, slice]]:
    """Rows that are worked on together, a multiple of ``BLOCK`` except at the bottom, and the same with a margin."""
    rows = max(1, BAND // width // BLOCK) * BLOCK
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield slice(top, bottom), slice(max(top - margin, 0), min(bottom + margin, height))


def _mean_around(values: Tensor) -> Tensor:
    """Means over 3x3 pixels of ``(N, 1, H, W)``; at least five times as fast as pooling a single channel."""
    padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2] + padded[..., 1:-1]).add_(padded[..., 2:])
    return (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :]).mul_(1.0 / 9.0)


def _sliding(noisy: Tensor, pilot: Tensor | None, noise: Noise, counted: Tensor | None) -> Tensor:
    """Shrink the DCT coefficients of overlapping 8x8 blocks and put the blocks together again.

    Without a pilot, coefficients below ``THRESHOLD`` deviations of the noise become zero; with one, each is scaled by
    ``p^2 / (p^2 + v)``, p the pilot's coefficient and v the variance of the noise. Blocks weigh by the inverse of the
    noise they keep. The mean of a block stays as it is.

    Args:
        noisy: opponent pictures ``(N, 3, H, W)``.
        pilot: a first estimate of the same shape.
        noise: of one frame.
        counted: ``(N, 1, H, W)``, how many frames were averaged at each pixel; None is 1.
    """
    out = torch.empty_like(noisy)
    height, width = noisy.shape[-2:]
    for band, around in _bands(height, width, margin=STRIDE):
        # half a block beyond every border, so that border pixels lie in as many blocks as the others
        above, below = STRIDE - (band.start - around.start), STRIDE - (around.stop - band.stop)
        sides = (STRIDE, STRIDE + -width % BLOCK, above, below + -(band.stop - band.start) % BLOCK)
        guide, frames = (
            None if whole is None else F.pad(whole[..., around, :], sides, mode="replicate")
            for whole in (pilot, counted)
        )
        shrunk = _shrunk(F.pad(noisy[..., around, :], sides, mode="replicate"), guide, noise, frames)
        out[..., band, :] = shrunk[..., STRIDE : STRIDE + band.stop - band.start, STRIDE : STRIDE + width]
    return out


def _shrunk(picture: Tensor, guide: Tensor | None, noise: Noise, frames: Tensor | None) -> Tensor:
    """``_sliding`` of padded pictures: of their inner pixels, those half a block from the borders, all is right."""
    basis = _dct_basis(picture.device)
    total = torch.zeros_like(picture)
    # blocks begin every STRIDE pixels, so that weights are the same over STRIDE by STRIDE pixels
    weights = picture.new_zeros(*picture.shape[:2], picture.shape[2] // STRIDE, picture.shape[3] // STRIDE)
    steps = BLOCK // STRIDE
    for top in range(0, BLOCK, STRIDE):
        for left in range(0, BLOCK, STRIDE):
            rows = (picture.shape[-2] - top) // BLOCK * BLOCK
            columns = (picture.shape[-1] - left) // BLOCK * BLOCK
            part = (..., slice(top, top + rows), slice(left, left + columns))
            blocks = _split(picture[part]) @ basis.T
            variance = noise.variance(_brightness(blocks)[:, None])
            if frames is not None:
                variance = variance / F.avg_pool2d(frames[part], BLOCK)
            variance = variance.clamp_min(1e-10)[..., None]
            if guide is None:
                gain = blocks.square().sub_(THRESHOLD**2 * variance).sign_().clamp_min_(0.0)
            else:
                energy = (_split(guide[part]) @ basis.T).square_()
                gain = energy / (energy + variance)
            gain[..., 0] = 1.0
            weight = 1.0 / (gain.square().sum(dim=-1, keepdim=True) * variance)
            total[part] += _join(gain.mul_(blocks).mul_(weight) @ basis)
            down, right = top // STRIDE, left // STRIDE
            cells = (..., slice(down, down + rows // STRIDE), slice(right, right + columns // STRIDE))
            weights[cells] += weight[..., 0].repeat_interleave(steps, -2).repeat_interleave(steps, -1)
    total.unflatten(-1, (-1, STRIDE)).unflatten(-3, (-1, STRIDE)).div_(weights[..., :, None, :, None])
    return total


def _split(pictures: Tensor) -> Tensor:
    """``(N, C, H, W)``, sides divisible by 8, into ``(N, C, H/8, W/8, 64)``."""
    count, channels, height, width = pictures.shape
    blocks = pictures.reshape(count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return blocks.transpose(3, 4).flatten(4)


def _join(blocks: Tensor) -> Tensor:
    """The inverse of ``_split``."""
    count, channels, rows, columns, _ = blocks.shape
    pictures = blocks.unflatten(-1, (BLOCK, BLOCK)).transpose(3, 4)
    return pictures.reshape(count, channels, rows * BLOCK, columns * BLOCK)


def _brightness(blocks: Tensor) -> Tensor:
    """Mean of red, green and blue of each block ``(N, rows, columns)``, from its first coefficient."""
    return blocks[:, 0, ..., 0] / (BLOCK * math.sqrt(3))


def _dct_basis(device: torch.device) -> Tensor:
    """The orthonormal two-dimensional DCT-II of 8x8 blocks as a ``(64, 64)`` matrix, one basis picture a row."""
    position = torch.arange(BLOCK, dtype=torch.float32, device=device)
    waves = torch.cos(math.pi * (position[None, :] + 0.5) * position[:, None] / BLOCK) * math.sqrt(2 / BLOCK)
    waves[0] /= math.sqrt(2)
    return torch.kron(waves, waves)


def _opponent(like: Tensor) -> Tensor:
    rows = [[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]]
    matrix = like.new_tensor(rows)
    return matrix / matrix.norm(dim=1, keepdim=True)


def _to_opponent(frames: Tensor) -> Tensor:
    """``(N, H, W, 3)`` RGB to opponent ``(N, 3, H, W)``."""
    return torch.einsum("ij,nhwj->nihw", _opponent(frames), frames).contiguous()


def _from_opponent(pictures: Tensor) -> Tensor:
    """Opponent ``(N, 3, H, W)`` to RGB ``(N, H, W, 3)``; the matrix is orthonormal."""
    return torch.einsum("ij,nihw->nhwj", _opponent(pictures), pictures).contiguous()
