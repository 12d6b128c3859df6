"""Edits of one picture carried through a clip: of a layer's texture, or of one or several frames.

A pixel q of frame t shows of layer i the place ``u = M_ti(q)`` of its texture. An edited texture is read there. An edit
of frame s is read at the point p of s that shows the same place, ``M_si(p) = u``: from the edited frame itself, so that
it never goes through the texture. With e the colours that are read, multiplied with their opacity a, l the light and m
the masks, what came in as x goes out as ::

    x'_t(q) = x_t(q) + sum_i m_ti(q) (k_i e_i - a_i c_i),    k_i = l_t(q) / l_s(p), for a texture l_t(q)

where c is what layer i shows in q: x itself where it is alone; where several meet, what its texture shows and its share
of what textures leave over of x. So an edit hides behind whatever is in front, its borders are those of the layer, and
nothing of what it replaces shines through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..checks import check_frames, check_mask
from ..errors import InputError, ShapeError
from ..models.atlas import MODEL, PAINTED
from ..models.atlas import colours_of as own_colours
from ..models.plate import matte_of
from ..store.lazy import computed_with_mask, later
from ..types import Layers, OnStep
from .follow import Atlas
from .painted import TOUCHED, EditedFrame, EditedFrames, EditedTexture, Sight, colours_of

__all__ = ["check_numbers", "check_pictures", "edit_frames", "edit_texture"]

UNSEEN = 0.5 / 255
"""Change of a colour below which a pixel stays as it is."""


def edit_texture(
    layers: Layers,
    number: int,
    picture: Tensor,
    alpha: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor, Layers]:
    """The clip with another texture on one of its layers.

    Args:
        layers: of the model atlas.
        number: of the layer.
        picture: ``(1, H', W', 3)`` in 0..1, of any size: it covers the texture.
        alpha: ``(1, H', W')``, 1 = the edit; None: what differs from the texture.
        device: where to compute.
        on_step: told after every frame; stops the work by raising.

    Returns:
        Frames ``(T, H, W, 3)``, and how sure the place of what was painted is, ``(T, H, W)`` in 0..1, 1 where nothing
        was, both on the CPU and, of a long clip, computed when they are looked at; and the layers with this edit.

    Raises:
        InputError, ShapeError: something cannot be used.
    """
    MODEL.require(layers, "EditAtlas")
    MODEL.check_layer(layers, number)
    picture, alpha = check_pictures(picture, alpha, most=1)
    place = torch.device(device)
    atlas = Atlas(layers, place)
    return _carried(atlas, EditedTexture(atlas, number, picture, alpha), lambda: {number}, lambda _: None, on_step)


def edit_frames(
    layers: Layers,
    numbers: Sequence[int],
    pictures: Tensor,
    alpha: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor, Layers]:
    """The clip with what was painted into some of its frames.

    Args:
        layers: of the model atlas.
        numbers: of the frames, counted from 0.
        pictures: ``(N, H', W', 3)`` in 0..1, a frame each, of any size: they cover the frame.
        alpha: ``(N, H', W')``, 1 = the edit; None: what differs from the frame by more than noise.
        device, on_step: see ``edit_texture``.

    Returns:
        See ``edit_texture``. Between two edited frames, what is seen goes over from one to the other.

    Raises:
        InputError, ShapeError: something cannot be used.
    """
    MODEL.require(layers, "EditFrame")
    pictures, alpha = check_pictures(pictures, alpha)
    check_numbers(numbers, len(pictures), len(layers))
    place = torch.device(device)
    atlas = Atlas(layers, place)
    which = {index: place for place, index in enumerate(numbers)}

    def edit_of(index: int) -> EditedFrame:
        mask = None if alpha is None else alpha[which[index] if len(alpha) > 1 else 0]
        return EditedFrame(atlas, index, pictures[which[index]], mask)

    edits = EditedFrames(atlas, numbers, edit_of)
    return _carried(atlas, edits, edits.painted, edits.exact, on_step)


def check_numbers(numbers: Sequence[int], pictures: int, count: int | None) -> None:
    """Refuse numbers of edited frames that are not as many as there are pictures, or that the clip does not have.

    Args:
        numbers: of the frames, counted from 0.
        pictures: how many there are.
        count: of the clip's frames; None where it is not known yet.

    Raises:
        InputError: so they are.
    """
    if len(numbers) != pictures:
        raise InputError(
            f"frames: {len(numbers)} number{'s' * (len(numbers) != 1)} for {pictures} "
            f"picture{'s' * (pictures != 1)}; give the number of each edited frame, such as 0, 20, 39"
        )
    for number in numbers:
        if number < 0 or (count is not None and number >= count):
            last = "" if count is None else f", the clip has 0 to {count - 1}"
            raise InputError(f"frame: there is no frame {number}{last}; frames are counted from 0")
    if len(set(numbers)) < len(numbers):
        raise InputError("frames: a number is there twice; give each edited frame once")


def check_pictures(
    pictures: object, alpha: object | None = None, *, most: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return edited pictures ``(N, H, W, 3)``, at most so many, and their opacity ``(N, H, W)``.

    Raises:
        InputError, ShapeError: they cannot be used, or do not belong together.
    """
    checked = check_frames(pictures, "picture")
    if most is not None and len(checked) > most:
        raise ShapeError(f"picture: got {len(checked)} pictures, a layer has one texture; give one")
    size = (checked.shape[1], checked.shape[2])
    return checked, None if alpha is None else check_mask(alpha, "mask", count=len(checked), size=size)


def _carried(
    atlas: Atlas,
    edits: Callable[[int], list[tuple[int, Sight]]],
    painted_on: Callable[[], Collection[int]],
    exact: Callable[[int], Tensor | None],
    on_step: OnStep | None,
) -> tuple[Tensor, Tensor, Layers]:
    """The clip with edits.

    Args:
        atlas: the layers.
        edits: gives what is seen of them in a frame, by the number of the layer.
        painted_on: gives the numbers of the layers that were painted on; asked last, when a short clip's frames have
            all been made.
        exact: gives what a frame was painted over with itself, if it was.
        on_step: see ``edit_texture``.
    """
    layers = atlas.layers

    @torch.no_grad()
    def frames(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(start, len(layers)):
            painted = exact(index)
            yield _painted(atlas, index, edits(index)) if painted is None else _over(atlas.base(index), painted)

    made, sure = computed_with_mask(frames, tuple(layers.frames.shape), on_step=on_step)
    colours = {f"colour_{number}": _colours(atlas, number, edits) for number in painted_on()}
    return made, sure, replace(layers, pictures={**layers.pictures, **colours, PAINTED: made})


def _colours(atlas: Atlas, number: int, edits: Callable[[int], list[tuple[int, Sight]]]) -> Tensor:
    """A layer by itself with edits, ``(T, H, W, 3)``, also where others are in front; made when it is looked at."""
    layers = atlas.layers

    @torch.no_grad()
    def walk(start: int) -> Iterator[Tensor]:
        for index in range(start, len(layers)):
            colours = own_colours(layers, number, index, atlas.device).clone()
            for painted, sight in edits(index):
                if painted == number:
                    region = colours[sight.part].movedim(-1, 0)
                    region += sight.sure * (sight.colours - sight.alpha * region)
            yield colours.clamp_(0.0, 1.0)[None]

    return later(walk, tuple(layers.frames.shape))


def _over(base: Tensor, painted: Tensor) -> tuple[Tensor, Tensor]:
    """A frame that was painted over, ``(H, W, 3)``, which is sure of that, ``(H, W)``."""
    over = ((1.0 - painted[3]) * base + painted[:3]).clamp_(0.0, 1.0)
    return torch.where(painted[3] > 0.0, over, base).movedim(0, -1).contiguous(), torch.ones_like(base[0])


def _painted(atlas: Atlas, index: int, sights: list[tuple[int, Sight]]) -> tuple[Tensor, Tensor]:
    """A frame with edits, ``(H, W, 3)``, and how sure their places are, ``(H, W)``."""
    base = atlas.base(index)
    out, certain = base.movedim(0, -1).clone(memory_format=torch.contiguous_format), torch.ones_like(base[0])
    if not sights:
        return out, certain
    matte = matte_of(atlas.layers, index, atlas.source(index).movedim(0, -1).contiguous())
    for number, sight in sights:
        share = matte.masks[number][sight.part]
        certain[sight.part] -= share * (1.0 - sight.sure) * (sight.alpha > TOUCHED)
        touched = (sight.alpha * sight.sure * share) > TOUCHED
        if not bool(touched.any()):
            continue
        shown = colours_of(atlas, index, base, matte, sight.part, wanted=touched)[number]
        change = share * sight.sure * (sight.colours - sight.alpha * shown)
        region = out[sight.part].movedim(-1, 0)
        region += torch.where(touched & (change.abs().amax(dim=0) > UNSEEN), change, 0.0)
    return out.clamp_(0.0, 1.0), certain.clamp_(0.0, 1.0)
