"""The background filled where objects cover it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..image.inpaint import inpaint
from ..image.matting import MIXED, Matte, bounding_box, pixels_of, sample_of, smooth_colours, upsample_masks
from ..image.morphology import dilate
from ..image.resize import resize
from ..image.sample import places_of, rescaled, sample_points
from ..motion.background import BORDER_MARGIN, COVERED
from ..store.transfer import send
from ..types import Layers

__all__ = ["background_of", "clean_plate_of", "matte_of", "picture_of", "shade_of"]

DARKEST = 0.1
"""The least share of light that a shadow leaves: what is left below is noise."""


def matte_of(layers: Layers, index: int, frame: Tensor) -> Matte:
    """The masks of a frame at native size; a mask that came with the frames (``cut_out``) is one already."""
    masks = send(layers.fields["masks"][index], frame.device)
    given = picture_of(layers, "matte", index, frame.device)
    if given is None:
        return upsample_masks(masks, frame)
    mixed = ((given > MIXED) & (given < 1.0 - MIXED)).flatten().nonzero()[:, 0]
    coarse = resize(frame.movedim(-1, 0)[None], (masks.shape[1], masks.shape[2]))[0]
    return Matte(torch.stack((1.0 - given, given)), coarse, mixed)


def background_of(layers: Layers, index: int, frame: Tensor, matte: Matte, *, whole: bool) -> Tensor:
    """The frame with its background where objects are: in all pixels, without shadow, above 1 where only so times the
    shadow it is the frame; or, if not ``whole``, in the mixed ones, as it is seen there."""
    size, small = (frame.shape[0], frame.shape[1]), (matte.coarse.shape[1], matte.coarse.shape[2])
    shade = shade_of(layers, index, size, frame.device)
    lit, coarse = frame, matte.coarse
    if shade is not None:
        lit = frame / shade  # above 1 where the shadow is taken for too deep: times it, it is the frame again
        coarse = resize(lit.clamp_max(1.0).movedim(-1, 0)[None], small)[0]
    out = (lit if whole else frame).clone()
    if whole:
        covered = (resize(matte.masks[None, :1], small) < COVERED).float()
        pixels = pixels_of(dilate(covered, BORDER_MARGIN)[0, 0], size)
    else:
        pixels = matte.mixed
    if len(pixels) == 0:
        return out
    place = places_of(pixels, size[1])
    lies = sample_of(place, size, small)
    colours = _tracked_colours(layers, index, place, lies, size)
    never = colours[:, 0].isnan().nonzero()[:, 0]
    if len(never) > 0:
        unknown = pixels[never]
        smooth = (
            _inpaint_behind(coarse, colours, lies)
            if whole
            else smooth_colours(replace(matte, coarse=coarse), slice(0, 1))
        )
        # beside a border the frame itself is a better guess than what is spread, but not good enough to be spread
        own = matte.masks[0].view(-1)[unknown, None] >= COVERED
        spread_there = sample_points(smooth[0], rescaled(place[never], size, small)).T
        guess = torch.where(own, lit.view(-1, 3)[unknown], spread_there)
        colours.index_copy_(0, never, guess)
    if shade is not None and not whole:
        colours *= shade.reshape(-1, 3)[pixels]
    out.view(-1, 3).index_copy_(0, pixels, colours)
    return out


def clean_plate_of(layers: Layers, index: int, frame: Tensor, matte: Matte) -> Tensor:
    """The whole background of a frame without objects and shadow, as a picture, ``(H, W, 3)`` in 0..1."""
    return background_of(layers, index, frame, matte, whole=True).clamp_max(1.0)


def _inpaint_behind(coarse: Tensor, colours: Tensor, lies: Tensor) -> Tensor:
    """The background at the small size ``(1, 3, h, w)``, smooth where it is not known.

    Args:
        coarse: ``(3, h, w)``, the frame: known in samples that no pixel lies in.
        colours: ``(N, 3)`` of the pixels that fill all the other samples, NaN where unknown.
        lies: ``(N,)``, the sample each lies in.
    """
    known = (~colours[:, :1].isnan()).to(colours.dtype)
    sums = colours.new_zeros(coarse[0].numel(), 5)
    sums.index_add_(0, lies, torch.cat((colours.nan_to_num(), known, torch.ones_like(known)), dim=1))
    total, found, count = sums.T.unflatten(1, coarse.shape[1:]).split((3, 1, 1))
    picture = torch.where(count > 0.0, total / found.clamp_min(1.0), coarse)
    weight = torch.where(count > 0.0, found / count.clamp_min(1.0), 1.0)
    return inpaint(picture[None], weight[None])


def _tracked_colours(layers: Layers, index: int, place: Tensor, lies: Tensor, size: tuple[int, int]) -> Tensor:
    """Colours ``(N, 3)`` of the background at places, from the frames that saw it, without shadow; NaN where none did.

    ``lies`` ``(N,)`` are the samples the places lie in: they say which frames to look into. All of it is done on the
    CPU, where the frames are: of each only a few pixels are read.
    """
    device, place, lies = place.device, place.cpu(), lies.cpu()
    total, shadow = torch.zeros(len(place), 4), layers.fields.get("shadow")
    for name, sign in (("before", -1), ("after", 1)):
        if name not in layers.fields:
            continue
        field = layers.fields[name][index]
        # (a sort of short integers takes an eighth of the time that one of floats takes)
        distance, order = field[2].take(lies).short().sort()
        nowhere = int((distance == 0).sum())
        distance, order = distance[nowhere:], order[nowhere:]
        here, start = place.index_select(0, order), 0
        colours = torch.ones(len(order), 4)
        for away, count in zip(
            *(part.tolist() for part in distance.unique_consecutive(return_counts=True)), strict=True
        ):
            some = here[start : start + count]
            source, there = layers.frames[index + sign * away], some + _offsets(field, away, some, size)
            found = _sample_bicubic(source, there)
            if shadow is not None:
                shade = shadow[index + sign * away]
                read = sample_points(shade, rescaled(there, size, (shade.shape[1], shade.shape[2]))).T
                found = (found / read.clamp_min(DARKEST)).clamp_(0.0, 1.0)
            colours[start : start + count, :3] = found
            start += count
        total.index_add_(0, order, colours.div_(distance.float().square()[:, None]))
    # (no weight: 0 / 0, which is NaN)
    return send(total[:, :3] / total[:, 3:], device)


def _offsets(field: Tensor, away: int, place: Tensor, size: tuple[int, int]) -> Tensor:
    """From a small field (dx, dy, distance) to places (x, y) at one distance: offsets ``(N, 2)`` in native pixels.

    Neighbouring samples may point to other frames, so only those that point to the same one are interpolated.
    """
    same = (field[2] == away).to(field.dtype)
    small = (field.shape[1], field.shape[2])
    rows, columns = bounding_box(same, 1)
    field, same = field[:2, rows, columns], same[rows, columns]
    x, y = rescaled(place, size, small).unbind(dim=-1)
    there = torch.stack((x - columns.start, y - rows.start), dim=-1)
    across, down, weight = sample_points(torch.cat((field * same, same[None])), there)
    return torch.stack((across / weight * (size[1] / small[1]), down / weight * (size[0] / small[0])), dim=-1)


def _sample_bicubic(frame: Tensor, where: Tensor) -> Tensor:
    """Read ``(H, W, 3)`` at (x, y) ``(N, 2)``, bicubically, within 0..1; ``(N, 3)``."""
    return sample_points(frame.movedim(-1, 0), where, mode="bicubic").T.clamp(0.0, 1.0)


def shade_of(layers: Layers, index: int, size: tuple[int, int], device: torch.device) -> Tensor | None:
    """What a frame's background is multiplied with by shadow, ``(H, W, 3)``; None where no shadow was looked for."""
    shadow = layers.fields.get("shadow")
    if shadow is None:
        return None
    return resize(send(shadow[index], device)[None], size, mode="bicubic")[0].movedim(0, -1).clamp_min(DARKEST)


def picture_of(layers: Layers, name: str, index: int, device: torch.device) -> Tensor | None:
    """A replaced picture's frame, if there is one; a still stands for every frame."""
    pictures = layers.pictures.get(name)
    return None if pictures is None else send(pictures[index if len(pictures) > 1 else 0], device)
