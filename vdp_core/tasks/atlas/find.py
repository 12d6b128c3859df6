"""The atlas of a shot: masks, then mappings and textures in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...image.checkerboard import SQUARES, checkerboard
from ...image.knots import fitted, spread, through
from ...image.matting import upsample_masks
from ...image.morphology import box_mean, dilate
from ...image.resize import resize, size_within
from ...image.sample import sample
from ...image.splat import Splat
from ...models.atlas import BLUR, LIGHT, light_of
from ...motion.warp import resize_flow
from ...optim.fit import Fitted
from ...optim.progress import Progress
from ...store.journal import Journal, Kept
from ...store.scratch import large_empty
from ...store.transfer import send
from ...types import Shot
from ..base import Found, Given, Work
from ..segment.task import find_objects
from .config import AtlasConfig
from .mapping import HARDLY, Registration, start
from .textures import Canvas, Look, Texture, solve

__all__ = ["find", "find_steady"]

MASKS, BEGINNING, ROUNDS, EDGES, TEXTURES = 6, 1, 6, 2, 2
"""About how long the phases take, as shares."""
FINE_ROUNDS = 2
"""Rounds, the last ones, in which mappings are found at the full working size, and not at half of it."""
SHOWN = 0.5
"""Share of a pixel from which on it says how large a texture must be."""
RIM = 4
"""Pixels around what is seen of a texture."""
LARGEST = 2**26
"""Most pixels of a texture, of which there are four half precision numbers each."""
MOST_LIGHT = 0.5
"""Greatest logarithm of light."""
DARKEST = 0.03
"""Brightness below which light is not found."""
UNLIT = 1e-5
"""Weight of no change of light, beside that of all pixels."""
LIGHT_STEPS = 2
REACH = 24
"""Pixels around an object into which its mask may grow, such as onto its shadow."""
OUTSIDE = 0.3
"""Weight of pixels so far around an object, beside its own, in its texture while masks are found."""
EVIDENCE, PRIOR = 8.0, 0.5
"""Weights of what textures and of what the masks to begin with say of a pixel's layer, in logs of odds."""
LASTING = 0.5
"""Weight of whether what lies there in a texture is the object's in other frames, in log odds."""
LITTLE = 0.05
"""Share of frames that says no more than none."""
UNSURE = 0.05
"""Least share that a layer has to begin with, of any pixel: a mask may be wrong anywhere."""
AROUND = 3
"""Radius in pixels of the windows that errors are compared in."""
NOISE = 4e-4
"""Squared error that says nothing."""
UNKNOWN = 0.1
"""Squared error of a layer where its texture is not known."""
MATTINGS = 2
"""How often what pixels are mixed of is found, with the textures, in the end."""
BAND = 4
"""Pixels on either side of the edge of a mask in which a pixel may be a mixture."""
HARDLY_ANY = 1e-3
"""Share of a pixel that is none."""
KEPT, KEPT_APART = 2e-3, 1.0
"""Squared difference of two layers' colours below which masks stay as they are: along edges, and elsewhere."""
OPENED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the time between frames that the shutter may be open."""
WORTH = 0.003
"""Share of what is left over that a longer time must take away to be believed."""
BOARDS = 0.6
"""Opacity of checkerboards in previews."""


def find(shot: Shot, given: Given, config: AtlasConfig, work: Work) -> Found:
    """Find masks, mappings and textures of a shot's layers.

    Returns:
        The fields ``masks`` ``(T, L, h, w)``, ``mapping`` ``(T, L, 2, h', w')``, ``light`` ``(T, 3, 4, 7)`` and
        ``blur`` ``(T, L, 2, 4, 7)``, and the assets ``texture_0``, ... ``(4, H', W')``; where a layer has more charts
        than one, the field ``chart`` and the assets ``rows_0``, ``seam_0`` and ``joined_0``, ... too; see
        ``models.atlas``.
    """
    assert shot.flow is not None
    looking, beginning, refining, mixing, texturing = work.progress.phases(MASKS, BEGINNING, ROUNDS, EDGES, TEXTURES)
    masking = replace(config.masks, steps=config.steps or config.masks.steps)

    def masks_found(journal: Journal) -> Kept:
        found = find_objects(shot, given, masking, replace(work, journal=journal, progress=looking))
        return {"masks": found.masks}, {"fitted": asdict(found.fitted), "notes": dict(found.notes)}

    kept, notes = work.journal.step("masks", masks_found)
    atlas = _Atlas(shot, kept["masks"], config, work.device)
    atlas.fit(work.journal, beginning, refining)
    atlas.restore(work.journal.step("edges", lambda _: atlas.mixed(mixing))[0])
    fields, assets = atlas.fields(texturing)
    return Found(fields, Fitted(**notes["fitted"]), notes["notes"], assets)


def find_steady(shot: Shot, config: AtlasConfig, work: Work) -> Tensor:
    """Find what one texture for the whole frame, in the light that there is on the whole, rebuilds of a shot.

    So each point of the scene has one colour, but what moves by itself, or behind something, is blurred or elsewhere.

    Returns:
        ``(T, 3, h, w)`` in 0..1, at the working size, in half precision.
    """
    beginning, refining, reading = work.progress.phases(BEGINNING, ROUNDS, TEXTURES)
    atlas = _Atlas(shot, torch.ones(len(shot.frames), 1, 1, 1), config, work.device)
    atlas.fit(work.journal, beginning, refining)
    return atlas.steady(reading)


class _Atlas:
    """Mappings of all layers, in pixels of textures as large as the working size of the frames has them."""

    def __init__(self, shot: Shot, masks: Tensor, config: AtlasConfig, device: torch.device) -> None:
        assert shot.flow is not None
        self._frames, self._flow = shot.frames, shot.flow
        self._config, self._device = config, device
        count, layers = masks.shape[:2]
        height, width = self._native = (shot.frames.shape[1], shot.frames.shape[2])
        self._size = size_within(height, width, config.side)
        longest = max(self._size)
        self._grid = (_knots(self._size[0], longest, config), _knots(self._size[1], longest, config))
        self._knots = large_empty(count, layers, 2, *self._grid)
        self._charts = torch.zeros(count, layers)
        # of each frame that lies in two charts: its layer, its number, the second chart, and its knots there
        self._joined, self._seams = torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, 2, *self._grid)
        # of each chart: its layer, and between which y it lies
        self._rows = torch.zeros(0, 3)
        self._light = torch.zeros(count, 3, *LIGHT)
        self._blur = torch.zeros(count, layers, 2, *BLUR)
        # found anew with the textures, from what they are to begin with
        self._prior, self._masks = masks, large_empty(count, layers, *self._size)
        for t, shares in enumerate(masks):
            self._masks[t] = resize(shares[None], self._size)[0].clamp(0.0, 1.0)
        self._little = [HARDLY * max(float(one[layer].sum()) for one in self._masks) for layer in range(layers)]

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Take what ``begin`` or ``refine`` found, now or before the work was cut off."""
        self._knots, self._light, self._masks = kept["knots"], kept["light"], kept["masks"]
        self._blur = kept["blur"]
        self._charts, self._rows = kept["charts"], kept["rows"]
        self._joined, self._seams = kept["joined"], kept["seams"]

    def _found(self) -> Kept:
        charts = {"charts": self._charts, "rows": self._rows, "joined": self._joined, "seams": self._seams}
        return {"knots": self._knots, "light": self._light, "blur": self._blur, "masks": self._masks, **charts}, {}

    def fit(self, journal: Journal, beginning: Progress, refining: Progress) -> None:
        """Begin, and refine as often as the preset says; each is kept in the journal."""
        self.restore(journal.step("beginning", lambda _: self.begin(beginning))[0])
        for number, phase in enumerate(refining.phases(*[1] * self._config.rounds)):
            self.restore(journal.step(f"round_{number}", partial(self.refine, number, phase))[0])

    def begin(self, progress: Progress) -> Kept:
        """Map every layer, frame by frame from the one that shows most of it."""
        count, layers = self._masks.shape[:2]
        for layer, phase in enumerate(progress.phases(*[1] * layers)):
            shares = self._masks[:, layer]
            if any(bool((share > SHOWN).any()) for share in shares):
                on_frame = partial(phase, total=count)
                begun = start(self._frame, shares, self._motion, self._grid, self._device, on_frame)
                self._knots[:, layer], self._charts[:, layer] = begun.knots, begun.charts
                self._rows = torch.cat((self._rows, F.pad(begun.rows, (1, 0), value=layer)))
                for seam in begun.seams:
                    joined = torch.tensor([[layer, seam.frame, seam.chart]])
                    self._joined = torch.cat((self._joined, joined))
                    self._seams = torch.cat((self._seams, seam.knots[None]))
        return self._found()

    def refine(self, number: int, progress: Progress, _: Journal) -> Kept:
        """Find textures and light, then mappings, coarsely in the first rounds, and, from the second one on, masks;
        in every second round also how far frames are blurred."""
        textures = self._solved(1)
        self._lighten(textures)
        if number % 2 == 1:
            self._open(textures)
        lasting = self._lasting(textures) if number > 0 else {}
        halved = max(0, 2 - number)
        size = max(4, self._grid[0] >> halved), max(4, self._grid[1] >> halved)
        register = Registration(finest=int(number < self._config.rounds - FINE_ROUNDS))
        for t in range(len(self._masks)):
            frame, light = self._frame(t), light_of(self._light[t].to(self._device), self._size)
            for layer, texture in textures.items():
                share = self._share(t, layer)
                if bool((share > SHOWN).any()):
                    for knots in (self._knots[t, layer], *self._seams_at(t, layer)):
                        here = knots.to(self._device)
                        knots[:] = register(
                            here, frame, share, partial(self._lit, t, layer, texture, light), size, self._little[layer]
                        ).cpu()
            if number > 0:
                self._masks[t] = self._divided(t, textures, lasting, frame, light).cpu()
            progress(t + 1, len(self._masks), partial(self._picture, t, textures))
        return self._found()

    def _lasting(self, textures: Mapping[int, Texture]) -> dict[int, Tensor]:
        """Log odds that what lies at a place of an object's texture is the object's, ``(1, H, W)``: in how many frames
        it is, of those in which it or the background is seen there."""
        splats = {
            layer: Splat(texture.canvas.size, 1, self._device) for layer, texture in textures.items() if layer > 0
        }
        for t in range(len(self._masks)):
            for layer, splat in splats.items():
                own, seen = self._share(t, layer), self._share(t, layer) + self._share(t, 0)
                places = textures[layer].canvas.placed(through(self._here(t, layer), self._size))
                splat.lay((own / seen.clamp_min(LITTLE))[None], places, seen * self._reach(t, layer))
        found = {}
        for layer, splat in splats.items():
            whole = box_mean(splat.sums[None], AROUND)[0]
            found[layer] = ((whole[:1] + LITTLE) / (whole[1:] + 2.0 * LITTLE)).clamp(LITTLE, 1.0 - LITTLE).logit()
        return found

    def _divided(
        self, t: int, textures: Mapping[int, Texture], lasting: Mapping[int, Tensor], frame: Tensor, light: Tensor
    ) -> Tensor:
        """The masks of a frame, ``(L, h, w)``, by how well textures rebuild it, and by what lasts."""
        errors = frame.new_full((self._masks.shape[1], *self._size), UNKNOWN)
        odds = torch.zeros_like(errors)
        for layer, texture in textures.items():
            places = through(self._here(t, layer), self._size)
            colours, known = self._lit(t, layer, texture, light, places)
            if layer in lasting:
                odds[layer] = (
                    LASTING * sample(lasting[layer][None], texture.canvas.placed(places).movedim(0, -1)[None])[0, 0]
                )
            there = known * (self._reach(t, layer) if layer > 0 else 1.0)
            error = (frame - colours).square().mean(dim=0)
            errors[layer] = box_mean((UNKNOWN + there * (error - UNKNOWN))[None, None], AROUND)[0, 0]
        prior = resize(self._prior[t : t + 1].to(self._device), self._size)[0]
        odds += PRIOR * prior.clamp_min(UNSURE).log() - 0.5 * EVIDENCE * (errors + NOISE).log()
        return odds.softmax(dim=0)

    def mixed(self, progress: Progress) -> Kept:
        """Masks along their edges, as textures say that pixels are mixed of their layers."""
        for phase in progress.phases(*[1] * MATTINGS):
            textures = self._solved(self._config.sharpening, apart=True)
            self._lighten(textures)
            for t in range(len(self._masks)):
                frame, light = self._frame(t), light_of(self._light[t].to(self._device), self._size)
                self._masks[t] = self._mixture(t, textures, frame, light).cpu()
                phase(t + 1, len(self._masks), partial(self._picture, t, textures))
        return self._found()

    def _mixture(self, t: int, textures: Mapping[int, Texture], frame: Tensor, light: Tensor) -> Tensor:
        """The masks of a frame with which textures rebuild it best, of those near what they were."""
        masks = self._masks[t].to(self._device, copy=True)
        lit = {
            layer: self._lit(t, layer, texture, light, through(self._here(t, layer), self._size))
            for layer, texture in textures.items()
        }
        for layer in (layer for layer in lit if layer > 0 and 0 in lit):
            mask, (own, known) = masks[layer], lit[layer]
            rest = sum(masks[other] * lit[other][0] for other in lit if other != layer) / (1.0 - mask).clamp_min(1e-3)
            # where it is alone, the background would be behind it
            behind = torch.lerp(lit[0][0], rest, (1.0 - mask).clamp(0.0, 0.1) * 10.0)
            apart = own - behind
            sums = torch.stack(((frame - behind) * apart, apart.square())).mean(dim=1)
            along, size = box_mean(sums[None], 1)[0]
            edge = dilate(mask[None, None], BAND) + dilate(1.0 - mask[None, None], BAND) > 1.5
            kept = torch.where(edge[0, 0] & known, KEPT, KEPT_APART)
            found = ((along + kept * mask) / (size + kept)).clamp(0.0, 1.0)
            # the others keep their shares of what is left, and where there were none it is the background's
            masks[layer] = 0.0
            others = masks.sum(dim=0)
            masks *= (1.0 - found) / others.clamp_min(HARDLY_ANY)
            masks[layer] = found
            masks[0] += (1.0 - masks.sum(dim=0)).clamp_min(0.0)
        return masks

    def _picture(self, t: int, textures: Mapping[int, Texture]) -> Tensor:
        """A frame as textures rebuild it, and with checkerboards on its layers, through which it shines, ``(h, w, 3)``.

        Next to each other or one below the other: the shape that a node has most room for.
        """
        frame, light = self._frame(t), light_of(self._light[t].to(self._device), self._size)
        rebuilt, boards = torch.zeros_like(frame), torch.zeros_like(frame)
        for layer, texture in textures.items():
            places, share = through(self._here(t, layer), self._size), self._share(t, layer)
            rebuilt += share * self._lit(t, layer, texture, light, places)[0]
            boards += share * light * checkerboard((places + 0.5) * (SQUARES / self._size[1]), layer)
        pair = (rebuilt, torch.lerp(frame, boards, BOARDS))
        return torch.cat(pair, dim=1 if self._size[1] > self._size[0] else 2).clamp(0.0, 1.0).movedim(0, -1)

    def _reach(self, t: int, layer: int) -> Tensor:
        return dilate(self._share(t, layer)[None, None], REACH)[0, 0]

    def steady(self, progress: Progress) -> Tensor:
        """What the first layer's texture shows in each frame, ``(T, 3, h, w)``, without the light of the frame."""
        texture, count = self._solved(self._config.sharpening)[0], len(self._masks)
        made = large_empty(count, 3, *self._size, dtype=torch.half)
        for t in range(count):
            places = through(self._here(t, 0), self._size)
            made[t] = texture.at(self._taps(t, 0, texture.canvas, places))[0].cpu()
            progress(t + 1, count)
        return made

    def fields(self, progress: Progress) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Fields and assets of the model: textures as large as the frames have them."""
        textures = self._solved(self._config.sharpening, native=True)
        progress(1, 2)
        self._lighten(textures, native=True)
        progress(2, 2)
        mapping, blur, assets = large_empty(*self._knots.shape), torch.zeros_like(self._blur), {}
        for layer in range(self._masks.shape[1]):
            if layer not in textures:
                assets[f"texture_{layer}"] = torch.zeros(4, 1, 1, dtype=torch.half)
                continue
            texture = textures[layer]
            for t, knots in enumerate(self._knots[:, layer]):
                mapping[t, layer] = texture.canvas.relative(knots)
            if bool((own := self._joined[:, 0] == layer).any()):
                frames, seconds = self._joined[own, 1], self._joined[own, 2]
                both = torch.stack((self._knots[frames, layer], self._seams[own]), dim=1)
                places = F.pad(self._rows[self._rows[:, 0] == layer, 1:, None], (1, 0)).movedim(-1, 0)
                assets[f"rows_{layer}"] = texture.canvas.relative(places)[1]
                assets[f"seam_{layer}"] = texture.canvas.relative(both)
                assets[f"joined_{layer}"] = torch.stack((self._charts[frames, layer].long(), seconds), dim=1)
            # how often it was seen, without the pattern of pixels that lie beside each other
            values = torch.cat((texture.values[:3], box_mean(texture.values[None, 3:], 1)[0]))
            assets[f"texture_{layer}"] = values.half().cpu()
            blur[:, layer] = texture.canvas.share_of(self._blur[:, layer])
        fields = {"masks": self._masks, "mapping": mapping, "light": self._light, "blur": blur}
        return fields if len(self._joined) == 0 else {**fields, "chart": self._charts}, assets

    def _solved(self, sharpening: int, *, native: bool = False, apart: bool = False) -> dict[int, Texture]:
        """Textures by the number of their layer; layers that are never seen have none.

        Args:
            sharpening: steps of the least squares.
            native: as large as the frames have them.
            apart: without what lies around objects.
        """
        wanted = ((layer, self._canvas(layer, native)) for layer in range(self._masks.shape[1]))
        canvases = {layer: canvas for layer, canvas in wanted if canvas is not None}
        return solve(partial(self._looks, canvases, native, apart), canvases, sharpening, self._device)

    def _canvas(self, layer: int, native: bool) -> Canvas | None:
        """Large enough for all that is seen of a layer; None where nothing is."""
        low, high = torch.full((2,), torch.inf), torch.full((2,), -torch.inf)
        for t in range(len(self._masks)):
            seen = self._share(t, layer) > SHOWN
            if bool(seen.any()):
                places = through(self._here(t, layer), self._size)[:, seen]
                low, high = torch.minimum(low, places.amin(dim=1).cpu()), torch.maximum(high, places.amax(dim=1).cpu())
        if not bool(low.isfinite().all()):
            return None
        low, high = low.floor() - RIM, high.ceil() + RIM + 1
        finer = self._config.finer * self._native[1] / self._size[1] if native else 1.0
        finer *= min(1.0, (LARGEST / float((high - low).prod() * finer**2)) ** 0.5)
        width, height = ((high - low) * finer).ceil().int().tolist()
        return Canvas((height, width), low, finer)

    def _looks(self, canvases: Mapping[int, Canvas], native: bool, apart: bool) -> Iterator[tuple[int, Look]]:
        for t in range(len(self._masks)):
            size, frame, shares = self._seen(t, native)
            colours = frame / light_of(self._light[t].to(self._device), size)
            for layer, canvas in canvases.items():
                share = shares[layer]
                if bool((share > SHOWN).any()):
                    if layer > 0 and not (native or apart):
                        share = torch.maximum(share, OUTSIDE * self._reach(t, layer))
                    if native:
                        share = share * self._config.finer**2  # as much on a pixel as were it as large as a frame's
                    taps = self._taps(t, layer, canvas, through(self._here(t, layer), size))
                    yield layer, Look(colours, taps, share)

    def _lighten(self, textures: Mapping[int, Texture], *, native: bool = False) -> None:
        """Find how much brighter, by and large, each frame is than what textures rebuild of it."""
        for t in range(len(self._masks)):
            size, frame, shares = self._seen(t, native)
            rebuilt = torch.zeros_like(frame)
            for layer, texture in textures.items():
                taps = self._taps(t, layer, texture.canvas, through(self._here(t, layer), size))
                rebuilt += shares[layer] * texture.at(taps)[0]
            light = self._light[t].to(self._device)
            for _ in range(LIGHT_STEPS):
                lit = rebuilt * light_of(light, size)
                change = ((frame - lit) / lit.clamp_min(DARKEST)).clamp(-MOST_LIGHT, MOST_LIGHT)
                wanted = through(light, size) + change
                light = fitted(wanted, lit.square(), LIGHT, little=UNLIT * size[0] * size[1])
            self._light[t] = light.clamp(-MOST_LIGHT, MOST_LIGHT).cpu()
        # textures have the light that there is on the whole
        self._light -= self._light.mean(dim=0, keepdim=True)

    def _open(self, textures: Mapping[int, Texture]) -> None:
        """Find how long the shutter was open, and with that how far each layer is blurred."""
        for t in range(len(self._masks)):
            frame, light = self._frame(t), light_of(self._light[t].to(self._device), self._size)
            for layer, texture in textures.items():
                share, way = self._share(t, layer), self._way(t, layer)
                places = through(self._here(t, layer), self._size)
                few = [one[..., ::2, ::2] for one in (places, frame, light, share)]
                blur, least = torch.zeros_like(way), torch.inf
                for opened in OPENED:
                    left = _left_over(texture, texture.canvas.along(few[0], opened * way), *few[1:])
                    if left < (1.0 - WORTH) * least:
                        blur, least = opened * way, left
                self._blur[t, layer] = blur.cpu()

    def _way(self, t: int, layer: int) -> Tensor:
        """How far a layer's texture moves under a frame from one frame to the next, ``(2, 4, 7)``."""
        chart = self._charts[t, layer]
        near = [s for s in (t - 1, t + 1) if 0 <= s < len(self._masks) and self._charts[s, layer] == chart]
        first, last = min([t, *near]), max([t, *near])
        moved = (self._here(last, layer) - self._here(first, layer)) / max(1, last - first)
        return spread(through(moved, self._size), self._share(t, layer), BLUR)

    def _taps(self, t: int, layer: int, canvas: Canvas, places: Tensor) -> Tensor:
        return canvas.along(places, self._blur[t, layer].to(self._device))

    def _lit(self, t: int, layer: int, texture: Texture, light: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """What a texture shows at places in a frame, blurred and lit, ``(3, h, w)``, and where that is known."""
        colours, known = texture.at(self._taps(t, layer, texture.canvas, places))
        return colours * light, known

    def _seen(self, t: int, native: bool) -> tuple[tuple[int, int], Tensor, Tensor]:
        """The size to work at, a frame ``(3, h, w)`` and its masks ``(L, h, w)``."""
        if not native:
            return self._size, self._frame(t), self._masks[t].to(self._device)
        frame = send(self._frames[t], self._device)
        return self._native, frame.movedim(-1, 0), upsample_masks(self._masks[t].to(self._device), frame).masks

    def _seams_at(self, t: int, layer: int) -> list[Tensor]:
        """The knots of a frame in charts that it lies in beside its own."""
        there = (self._joined[:, :2] == torch.tensor([layer, t])).all(dim=1)
        return [self._seams[number] for number in there.nonzero()[:, 0].tolist()]

    def _here(self, t: int, layer: int) -> Tensor:
        return self._knots[t, layer].to(self._device)

    def _frame(self, t: int) -> Tensor:
        return resize(send(self._frames[t], self._device).movedim(-1, 0)[None], self._size, mode="area")[0]

    def _share(self, t: int, layer: int) -> Tensor:
        return self._masks[t, layer].to(self._device)

    def _motion(self, t: int, s: int) -> tuple[Tensor, Tensor]:
        """Motion from a frame to its neighbour, ``(2, h, w)``, and how far it can be believed ``(h, w)``."""
        first = min(t, s)
        pair = resize_flow(self._flow.part(first, first + 2).to(self._device), self._size)
        if s > t:
            return pair.forward[0], pair.forward_confidence[0] * (1.0 - pair.forward_occlusion[0])
        return pair.backward[0], pair.backward_confidence[0] * (1.0 - pair.backward_occlusion[0])


def _knots(side: int, longest: int, config: AtlasConfig) -> int:
    return max(5, round(config.knots * side / longest) + 1)


def _left_over(texture: Texture, taps: Tensor, frame: Tensor, light: Tensor, share: Tensor) -> float:
    return float((share * (frame - light * texture.at(taps)[0]).square().mean(dim=0)).sum())
