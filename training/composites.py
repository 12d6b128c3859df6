"""What the matting network learns from: foregrounds over backgrounds, and segments of people, always in motion.

A sample follows from the generator that it is drawn with. As published (Lin et al., WACV 2022, section 4.1): clips run
faster, slower, backwards and pause; foreground and background are moved, turned, sheared and scaled, each by itself,
and change their light, colour and sharpness, from one setting to another along the clip; all frames are mirrored, made
grey or sharpened alike. Stills become clips by that motion. How far is ours, as the ranges are not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..vdp_core.errors import InputError
from ..vdp_core.image.selection import as_mask, as_matte
from ..vdp_core.media.clip import probe, read_clip
from ..vdp_core.media.source import clips_and_stills, open_source
from .annotations import Outlined, read_outlined

__all__ = ["Sample", "Source", "composite", "read_backgrounds", "read_foregrounds", "read_segments", "segments"]

FOREGROUNDS, MATTES = ("fgr", "fg", "foreground"), ("pha", "alpha", "mattes")
PICTURES, MASKS = ("images", "jpegimages", "frames"), ("masks", "annotations")
ROOM = 1.5
"""How much larger than needed clips are read, so that there is something to scale."""
STILL = 0.3
"""Share of clips whose setting does not change along the clip."""


@dataclass(frozen=True)
class Source:
    """A clip or a still, and what belongs to it."""

    path: Path
    other: Path | None = None
    """Its matte or mask; None where the alpha is the matte, and for backgrounds."""
    outlined: Outlined | None = None
    """Its frames and their outlines, where a file of annotations has them."""


@dataclass(frozen=True)
class Sample:
    """A composite ``(T, 3, h, w)``, and what it is made of."""

    frames: Tensor
    foreground: Tensor
    matte: Tensor
    """``(T, 1, h, w)``."""


def read_foregrounds(folder: Path) -> list[Source]:
    """The foregrounds of a folder: pairs from its folders ``fgr`` and ``pha``, or clips and stills with alpha.

    Raises:
        InputError: there are none, or one has no matte.
    """
    found = _pairs(folder, FOREGROUNDS, MATTES)
    if not found:
        found = _alone(folder, "foregrounds")
        if not probe(found[0].path).has_alpha:
            raise _opaque(found[0].path)
    return found


def read_backgrounds(folder: Path) -> list[Source]:
    """The backgrounds of a folder: clips and stills.

    Raises:
        InputError: there are none.
    """
    return _alone(folder, "backgrounds")


def read_segments(folder: Path) -> list[Source]:
    """Pictures of people and their masks: pairs from the folders ``images`` and ``masks``, or those of a file of
    annotations (see ``annotations.read_outlined``).

    Raises:
        InputError: there are none.
    """
    if folder.is_file():
        return [Source(_name_of(one), outlined=one) for one in read_outlined(folder)]
    found = _pairs(folder, PICTURES, MASKS)
    if not found:
        raise InputError(
            f"{folder}: has no folders images and masks; put pictures or clips there, of the same names, "
            "or give a file of annotations"
        )
    return found


def _name_of(one: Outlined) -> Path:
    """The picture, or the folder of the clip's frames."""
    return one.files[0] if len(one.files) == 1 else one.files[0].parent


def _children(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    return {path.name.casefold(): path for path in sorted(folder.iterdir())}


def _pairs(folder: Path, firsts: Sequence[str], seconds: Sequence[str]) -> list[Source]:
    children = _children(folder)
    one, other = (next((children[name] for name in names if name in children), None) for names in (firsts, seconds))
    if one is None or other is None:
        return []
    partners = {path.stem if path.is_file() else path.name: path for path in clips_and_stills(other)}
    found = []
    for path in clips_and_stills(one):
        name = path.stem if path.is_file() else path.name
        if name not in partners:
            raise InputError(f"{path}: nothing in {other} is called {name}; give it, or take the first away")
        found.append(Source(path, partners[name]))
    return found


def _alone(folder: Path, what: str) -> list[Source]:
    _children(folder)
    found = [Source(path) for path in clips_and_stills(folder)]
    if not found:
        raise InputError(f"{folder}: holds no {what}; give videos, folders of pictures or pictures")
    return found


@lru_cache(maxsize=4096)
def length_of(path: Path) -> int:
    """How many frames a clip has, 1 for a still."""
    return open_source(path).likely_count


def composite(
    foregrounds: Sequence[Source],
    backgrounds: Sequence[Source],
    rng: np.random.Generator,
    *,
    frames: int,
    size: tuple[int, int],
) -> Sample:
    """A foreground in motion over a background in motion.

    Args:
        foregrounds, backgrounds: to draw from.
        rng: what is drawn with.
        frames: T.
        size: (h, w).

    Raises:
        MediaError, InputError: a source cannot be read, or a foreground has no alpha.
    """
    source = foregrounds[int(rng.integers(len(foregrounds)))]
    colours, matte = _read(source, rng, frames, size, opacity=True)
    ground, _ = _read(backgrounds[int(rng.integers(len(backgrounds)))], rng, frames, size)
    moved = _moved(torch.cat((colours * matte, matte), dim=1), rng, size, outside="zeros")
    matte = moved[:, 3:].clamp(0.0, 1.0)
    # colours go along multiplied with their matte, and on beyond it, so that none come in from where there is nothing
    around = _blurred(_blurred(moved))
    colours = torch.where(
        matte > 0.01, moved[:, :3] / matte.clamp_min(0.01), around[:, :3] / around[:, 3:].clamp_min(1e-4)
    )
    colours = _lit(colours.clamp(0.0, 1.0), rng)
    ground = _lit(_moved(ground, rng, size, outside="reflection"), rng)
    parts = _alike(torch.cat((colours, ground)), rng)
    flip = rng.random() < 0.5
    colours, ground, matte = (part.flip(-1) if flip else part for part in (*parts.chunk(2), matte))
    return Sample(colours * matte + ground * (1.0 - matte), colours, matte)


def segments(
    sources: Sequence[Source], rng: np.random.Generator, *, frames: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Frames ``(T, 3, h, w)`` of people and their masks ``(T, 1, h, w)``, 0 or 1.

    Args:
        sources, rng, frames, size: see ``composite``.
    """
    pictures, masks = _read(sources[int(rng.integers(len(sources)))], rng, frames, size)
    moved = _moved(torch.cat((pictures, masks), dim=1), rng, size, outside="zeros")
    moved = moved.flip(-1) if rng.random() < 0.5 else moved
    return _alike(_lit(moved[:, :3], rng), rng), (moved[:, 3:] > 0.5).float()


def _read(
    source: Source, rng: np.random.Generator, frames: int, size: tuple[int, int], *, opacity: bool = False
) -> tuple[Tensor, Tensor]:
    """Frames ``(T, 3, H, W)`` of a source at random speed, and their mattes ``(T, 1, H, W)``."""
    side = round(ROOM * max(size))
    if source.outlined is not None:
        return _read_outlined(source.outlined, _times(len(source.outlined.files), rng, frames), side)
    order = _times(length_of(source.path), rng, frames)
    first, last = int(order.min()), int(order.max())
    reading: dict[str, Any] = {"start": first, "count": last - first + 1, "max_side": side}
    clip = read_clip(source.path, **reading)
    pictures = _in_order(clip.frames, order - first).movedim(-1, 1)
    if source.other is None:
        if opacity and not clip.has_alpha:
            raise _opaque(source.path)
        return pictures, _in_order(clip.alpha, order - first)[:, None]
    other = read_clip(source.other, **reading)
    masks = other.alpha if other.has_alpha else (as_matte if opacity else as_mask)(other.frames, source.other.name)
    return pictures, _as_large(_in_order(masks, order - first)[:, None], pictures)


def _read_outlined(outlined: Outlined, order: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
    """Frames ``(T, 3, H, W)`` in an order, and what is outlined in them, ``(T, 1, H, W)``."""
    pictures, masks = [], []
    for index in order.tolist():
        pictures.append(read_clip(outlined.files[index], max_side=side).frames.movedim(-1, 1))
        mask = torch.from_numpy(outlined.mask(index)).float()[None, None]
        masks.append(_as_large(mask, pictures[-1]))
    return torch.cat(pictures), torch.cat(masks)


def _as_large(masks: Tensor, pictures: Tensor) -> Tensor:
    """Masks ``(T, 1, h, w)`` at the size of pictures."""
    if masks.shape[-2:] == pictures.shape[-2:]:
        return masks
    return F.interpolate(masks, size=pictures.shape[-2:], mode="area")


def _opaque(path: Path) -> InputError:
    return InputError(f"{path}: has no alpha, and there are no folders fgr and pha; give the mattes of foregrounds")


def _in_order(frames: Tensor, order: np.ndarray) -> Tensor:
    return torch.stack([frames[min(int(index), len(frames) - 1)] for index in order])


def _times(length: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """Which frames are shown, one after the other: slower, faster, backwards, or with a pause."""
    speed = float(rng.choice([0.5, 1.0, 1.0, 1.0, 2.0]))
    steps = np.full(count, speed)
    if rng.random() < 0.2:
        pause = int(rng.integers(count))
        steps[pause : pause + int(rng.integers(1, count + 1))] = 0.0
    places = np.cumsum(steps).astype(int) + int(rng.integers(length))
    if rng.random() < 0.2:
        places = places[::-1]
    # a clip that ends runs back
    turned = places % max(1, 2 * length - 2)
    return np.where(turned < length, turned, 2 * length - 2 - turned)


def _along(rng: np.random.Generator, frames: int, low: float, high: float) -> Tensor:
    """A setting for each frame, ``(T)``, from one value to another, evenly or with ease."""
    begin, end = rng.uniform(low, high, 2)
    if rng.random() < STILL:
        end = begin
    along = np.linspace(0.0, 1.0, frames)
    if rng.random() < 0.5:
        along = along * along * (3.0 - 2.0 * along)
    return torch.from_numpy((begin + (end - begin) * along).astype(np.float32))


def _moved(frames: Tensor, rng: np.random.Generator, size: tuple[int, int], *, outside: str) -> Tensor:
    """Frames ``(T, C, H, W)`` cut to ``size``, and moved, turned, sheared and scaled along the clip."""
    count, (h, w), (height, width) = len(frames), size, frames.shape[-2:]
    shown = w / h
    scale = _along(rng, count, 0.6, 1.1)
    angle, shear = (_along(rng, count, -reach, reach) for reach in (0.17, 0.09))
    right, down = (_along(rng, count, -0.15, 0.15) for _ in range(2))
    # in units of half a height of what is shown; the whole of one side of the frame fits
    fit = min(1.0, (width / height) / shown)
    grow = scale * fit
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack((grow * cos * shown, grow * (shear * cos - sin), right), dim=1)
    rows = rows / torch.tensor([width / height, width / height, 1.0])
    columns = torch.stack((grow * sin * shown, grow * (shear * sin + cos), down), dim=1)
    theta = torch.stack((rows, columns), dim=1)
    grid = F.affine_grid(theta, [count, frames.shape[1], h, w], align_corners=False)
    return F.grid_sample(frames, grid, padding_mode=outside, align_corners=False)


def _lit(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Frames ``(T, 3, h, w)`` in other light, of other colour, noisy and blurred, along the clip."""
    count = len(frames)

    def setting(low: float, high: float) -> Tensor:
        return _along(rng, count, low, high).view(count, 1, 1, 1)

    grey = frames.mean(dim=1, keepdim=True)
    frames = grey + (frames - grey) * setting(0.7, 1.3)
    frames = (frames - 0.5) * setting(0.8, 1.2) + 0.5 + setting(-0.1, 0.1)
    cast = torch.cat([setting(-0.05, 0.05) for _ in range(3)], dim=1)
    frames = frames + cast - cast.mean(dim=1, keepdim=True)
    if rng.random() < 0.1:
        noise = torch.from_numpy(rng.standard_normal(frames.shape, dtype=np.float32))
        frames = frames + setting(0.0, 0.03) * noise
    if rng.random() < 0.1:
        share = setting(0.0, 1.0)
        frames = frames * (1.0 - share) + _blurred(frames) * share
    return frames.clamp(0.0, 1.0)


def _alike(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """All frames grey or sharpened, now and then."""
    if rng.random() < 0.02:
        frames = frames.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    if rng.random() < 0.1:
        frames = (frames + rng.uniform(0.2, 1.0) * (frames - _blurred(frames))).clamp(0.0, 1.0)
    return frames


def _blurred(frames: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(frames, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
