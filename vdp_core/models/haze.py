"""Haze: ``x = t J + (1 - t) L``, with a transmission t that varies over the frame and an airlight L that may drift."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ..denoise.coarse import without_blocks
from ..errors import InputError
from ..image.colour import luma
from ..image.guided import joint_upsample
from ..store.transfer import send
from ..types import Layers, OnStep
from .base import Field, Model
from .render import NOISE, applied

__all__ = ["MIN_TRANSMISSION", "MODEL", "apply", "compose", "rebuild", "split", "transmission"]


MIN_TRANSMISSION = 0.1
"""What the slider starts at: below this, 8 bits hold hardly anything of the scene."""
DOUBT = 0.4
"""Of log t, the haze that is not believed, per unit of -log confidence. What a clear scene shows of haze is thin."""
UPSAMPLING_RADIUS = 1  # 3 costs 2 to 6 dB at the edges of objects, the true t given
UPSAMPLING_EPS = 3e-3
"""``guide_eps`` of layers that are found: 1e-4 costs up to 1 dB without objects, 1e-2 up to 0.25 at their edges."""


def compose(
    layers: Layers,
    start: int,
    stop: int,
    frames: Tensor,
    *,
    strength: float = 1.0,
    min_transmission: float = MIN_TRANSMISSION,
    tint: float = 0.0,
    believe: bool = False,
    blocking: Sequence[float] = (),
) -> Tensor:
    """``J = L + (x - L) / t`` for frames ``start`` to ``stop`` of the layers, not clamped.

    Args:
        layers: of the model dehaze.
        start, stop: which frames' haze.
        frames: ``(stop - start, H, W, 3)``, the source or a denoised copy.
        strength, min_transmission, tint, believe: see ``apply``.
        blocking: of each frame of the clip, the deviation of its blocks, which are taken out; empty: none are.

    Returns:
        ``(stop - start, H, W, 3)``.
    """
    t, airlight = _model(layers, start, stop, frames, min_transmission, tint, believe)
    gain = t.pow_(-strength)
    if any(blocking[start:stop]):
        frames = _less_blocky(frames, blocking[start:stop], gain)
    keep = _kept_chroma(layers, start, stop, gain)
    clear = (frames - airlight).mul_(gain).add_(airlight)
    return clear if keep is None else torch.lerp(luma(clear), clear, keep)


def _less_blocky(frames: Tensor, blocking: Sequence[float], gain: Tensor) -> Tensor:
    """Frames less a share ``1 - 1 / gain`` of their blocks, which come out as strong as they were; what gains nothing
    stays as it is."""
    pairs = zip(frames.split(1), blocking, strict=True)
    smooth = torch.cat([without_blocks(frame, deviation) for frame, deviation in pairs])
    return frames.lerp(smooth, (1.0 - 1.0 / gain).clamp_min(0.0))


def rebuild(layers: Layers, start: int, stop: int, clear: Tensor) -> Tensor:
    """The inverse of ``compose`` as found: ``x = t J + (1 - t) L``, the source from the clear frames."""
    guide = send(layers.frames[start:stop], clear.device)
    t, airlight = _model(layers, start, stop, guide, MIN_TRANSMISSION)
    keep = _kept_chroma(layers, start, stop, 1.0 / t)
    if keep is not None:
        clear = torch.lerp(luma(clear), clear, 1.0 / keep)
    return (clear - airlight).mul_(t).add_(airlight)


def _kept_chroma(layers: Layers, start: int, stop: int, gain: Tensor) -> Tensor | None:
    """Share ``(n, H, W, 1)`` of the chroma of what haze is taken off by a gain; None where all of it is kept.

    An error e of the airlight's colour is one of ``(1 / t - 1) e`` of the clear colour, so that far away it may be all
    that is seen of it. What is kept is the Wiener filter's ``1 / (1 + error^2)``, the error in units of the chroma that
    clips have.
    """
    error = layers.fields.get("chroma_error")
    if error is None:
        return None
    own = send(error[start:stop], gain.device) * (gain - 1.0).clamp_min(0.0)
    return 1.0 / (1.0 + own.square())


def _model(
    layers: Layers, start: int, stop: int, guide: Tensor, least: float, tint: float = 0.0, believe: bool = False
) -> tuple[Tensor, Tensor]:
    """t ``(n, H, W, 1)`` at native size, ``least`` or more, and L ``(n, 1, 1, 3)``."""
    t = transmission(layers, start, stop, guide, believe).clamp_(max(least, 1e-3), 1.0)
    airlight = send(layers.fields["airlight"][start:stop], guide.device).movedim(1, -1)
    red_to_blue = torch.linspace(0.1, -0.1, 3, device=guide.device)
    return t, (airlight * torch.exp(red_to_blue * tint)).clamp(max=1.0)


def transmission(layers: Layers, start: int, stop: int, frames: Tensor, believe: bool = False) -> Tensor:
    """t of frames ``start`` to ``stop`` at native size, ``(n, H, W, 1)`` in 0..1, along the edges of the frames.

    It is larger the less sure the haze is; with ``believe`` it is what was found.
    """
    field = send(layers.fields["transmission"][start:stop], frames.device)
    guide_eps = layers.assets.get("guide_eps")
    if guide_eps is None:  # earlier versions saved none, and showed the field like this
        t = joint_upsample(field, frames, radius=UPSAMPLING_RADIUS)
    else:
        t = joint_upsample(field, frames, radius=UPSAMPLING_RADIUS, eps=float(guide_eps), continued=True)
    t = t.movedim(1, -1).clamp_(0.0, 1.0)
    return t if believe else _sure(t, layers.fields.get("confidence"), start, stop)


def _sure(t: Tensor, confidence: Tensor | None, start: int, stop: int) -> Tensor:
    """t as far as it is sure to be haze: ``log t`` times ``1 - (doubt / log t)^2``, 0 or more.

    The non-negative garrote (Breiman, Technometrics 1995) takes thin haze away, and hardly changes dense haze. Earlier
    versions kept no confidence: it was in t itself.
    """
    if confidence is None:
        return t
    doubt = DOUBT * send(confidence[start:stop], t.device).clamp_min(1e-6).log()
    log_t = t.clamp_min(1e-6).log().clamp_(max=-1e-6)
    return (log_t * (1.0 - (doubt / log_t).square()).clamp_min(0.0)).exp()


def apply(
    layers: Layers,
    *,
    strength: float = 1.0,
    min_transmission: float = MIN_TRANSMISSION,
    tint: float = 0.0,
    denoise: float = 1.0,
    believe: bool = False,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> Tensor:
    """Take the haze off the clip of the layers, or add to it, at native size, a few frames at a time.

    Args:
        layers: what ``decompose`` found.
        strength: 1 takes off what was found, 0 leaves the frames alone, -1 puts as much on again: t becomes
            ``t ** (1 - strength)``, as if the haze were thinner or thicker.
        min_transmission: t is taken for no less than this; up: far haze stays, with less noise.
        tint: above 0 the airlight is taken for warmer than was found, below 0 for cooler; 1 is about a tenth.
        denoise: 0 keeps the noise, and the blocks of lossy compression, 1 takes them out. The first use takes a while,
            then it is kept with the layers.
        believe: whether all that may be haze is one; else only as much is taken off as is sure.
        device: where to compute.
        on_step: told after every few frames; stops the work by raising.

    Returns:
        ``(T, H, W, 3)`` float32 in 0..1, on the CPU; of a long clip, frames are computed when they are looked at.

    Raises:
        InputError: layers of another model, or a setting out of range.
    """
    MODEL.require(layers, "Dehaze")
    for name, value, low in (("strength", strength, -1.0), ("min_transmission", min_transmission, 0.0)):
        if not low <= value <= 1.0:
            raise InputError(f"{name}: {low:g} to 1 needed, got {value}")
    if not -1.0 <= tint <= 1.0:
        raise InputError(f"tint: -1 to 1 needed, got {tint}")
    t = layers.fields["transmission"]
    if not believe:
        t = _sure(t, layers.fields.get("confidence"), 0, len(layers))
    contrast = 1.0 / t.mean(dim=(1, 2, 3)).clamp_min(MIN_TRANSMISSION)
    found = layers.fields.get("blocking")
    blocking = () if found is None else (denoise * found).flatten().tolist()
    edit = partial(compose, strength=strength, min_transmission=min_transmission, tint=tint, believe=believe)
    edit = partial(edit, blocking=blocking)
    return applied(layers, edit, denoise=denoise, contrast=contrast, device=device, on_step=on_step)


def split(layers: Layers, number: int, index: int, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Layer 0 is the clear picture with t as its mask, layer 1 the airlight with the rest; see ``base.Split``."""
    t = transmission(layers, index, index + 1, frame[None])[0, ..., 0]
    if number == 0:
        return compose(layers, index, index + 1, frame[None])[0].clamp(0.0, 1.0), t
    airlight = send(layers.fields["airlight"][index, :, 0, 0], frame.device)
    return airlight.expand(frame.shape), 1.0 - t


MODEL = Model(
    name="dehaze",
    fields=(
        Field("transmission", (1, "h", "w"), low=0.0, high=1.0),
        Field("airlight", (3, 1, 1), low=0.0, high=1.0),
        Field("confidence", (1, 1, 1), low=0.0, high=1.0, optional=True),
        Field("chroma_error", (1, 1, 1), low=0.0, optional=True),
        Field("blocking", (1, 1, 1), low=0.0, optional=True),
        Field("guide_eps", (), per="once", low=0.0, above=True, optional=True),
        NOISE,
    ),
    compose=compose,
    rebuild=rebuild,
    split=split,
    layer_names=lambda _: ("the clear picture", "the haze"),
)
