"""Atlas as published: four networks of places, for comparison.

Layered Neural Atlases (Kasten, Ofri, Wang and Dekel, SIGGRAPH Asia 2021), with what the paper leaves open taken from
the authors' code (MIT); the code here is our own.

Energy, over points p = (x, y, t) drawn from the whole clip c. M_0 and M_1 are the mappings of the background and of the
object, A_i their halves of the atlas, a is alpha, and m_1 = a, m_0 = 1 - a; c'(p) = sum_i m_i A_i(M_i(p)). q is where
the flow leads from p in the next frame or in the one before; S is how many pixels of a frame a unit of u is::

    E = COLOUR      * mean |c'(p) - c(p)|^2                                      ("colour")
      + GRADIENT    * mean |d_x c' - d_x c|^2 + |d_y c' - d_y c|^2               ("gradient", eq. 7)
      + SPARSITY    * mean |(1 - a) A_1(M_1(p))|^2                               ("sparsity")
      + RIGIDITY    * sum_i mean |J'J| + |(J'J + EPS I)^-1|                      ("rigidity", eq. 9)
      + sum_i FAR_RIGIDITY_i * mean (the same, over FAR pixels)                  ("far_rigidity", up to FAR_UNTIL)
      + FLOW        * sum_i mean S |M_i(q) - M_i(p)| m_i(p)                      ("flow", eq. 11)
      + ALPHA_FLOW  * mean |a(q) - a(p)|                                         ("alpha_flow", eq. 12)
      + BOOTSTRAP   * mean - m' log a - (1 - m') log(1 - a)                      ("bootstrap", up to BOOTSTRAP_UNTIL)

d_x and d_y are differences to the pixel on the right and to the one below. J is the Jacobian of S M_i by differences to
the left and to above; matrices have Frobenius norms. Terms of the flow are the mean of both directions, each over the
points whose flow and flow back end less than CONSISTENT pixels apart. m' is a rough mask of the object: as published
Mask R-CNN's, here a given one or that of the task segment. Before all that the mappings learn M_i(p) = UV_SCALE (x, y),
frame by frame, in PASSES over the clip. Fewer steps shorten all of it in proportion, but that beginning and the
bootstrap have LEAST.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Generator, Tensor, nn

from ...image.resize import resize, size_within
from ...models.neural_atlas import UV_SCALE, evaluated, fields_of
from ...motion.warp import resize_flow, warp
from ...nets.atlas_nets import AtlasNets, coordinates
from ...optim.fit import Fitted, fit
from ...optim.progress import Progress
from ...store.journal import Journal, Kept
from ...store.scratch import large_empty
from ...store.transfer import send
from ...types import Shot
from ..base import Found, Given, Work
from ..segment.task import find_objects
from .config import PublishedAtlas

__all__ = ["PublishedFit", "bootstrap", "find", "rigidity"]

STEPS = 400_000
LEARNING_RATE = 1e-4
COLOUR, GRADIENT, SPARSITY = 5000.0, 1000.0, 1000.0
RIGIDITY, FLOW, ALPHA_FLOW, BOOTSTRAP = 1.0, 5.0, 49.0, 2000.0
FAR, FAR_RIGIDITY = 100.0, (50.0, 5.0)
FAR_UNTIL, BOOTSTRAP_UNTIL = 5_000 / STEPS, 10_000 / STEPS
"""Shares of the steps."""
PASSES = 100
"""Of the mappings' beginning over the clip; with fewer steps than STEPS as many fewer."""
LEAST = 400
"""Fewest steps of the mappings' beginning and of the bootstrap: with half as many, alpha has found no object yet."""
CONSISTENT = 1.0
EPS = 1e-3
PREVIEW_SIDE = 160
"""Long side of previews, as the networks take a while for a picture."""
SHARES = (1, 1, 97, 1)
"""About how long masks, the mappings' beginning, the fit and its reading take."""


def find(shot: Shot, given: Given, config: PublishedAtlas, work: Work) -> Found:
    """Fit the published networks to a shot, and read the fields of ``models.atlas`` off them; see ``find.find``."""
    looking, beginning, fitting, reading = work.progress.phases(*SHARES)

    def masks_found(journal: Journal) -> Kept:
        found = find_objects(shot, given, config.masks, replace(work, journal=journal, progress=looking))
        return {"masks": found.masks}, dict(found.notes)

    kept, notes = work.journal.step("masks", masks_found)
    clip = PublishedFit(shot, kept["masks"][:, 1], config, work.seed, work.device)
    clip.restore(work.journal.step("beginning", lambda journal: clip.begin(journal, beginning))[0])
    state, fitted = work.journal.step("networks", lambda journal: clip.optimise(journal, fitting))
    clip.restore(state)
    native = (shot.frames.shape[1], shot.frames.shape[2])
    fields, assets = fields_of(clip.nets, clip.size, len(shot.frames), native, device=work.device, on_step=reading)
    return Found(fields, Fitted(**fitted), notes, assets)


class PublishedFit:
    """The networks, and what they are fitted to: frames, masks and motion at the published size."""

    def __init__(
        self, shot: Shot, masks: Tensor, config: PublishedAtlas, seed: int, device: torch.device | str
    ) -> None:
        """Take a shot, and rough masks of its object, ``(T, h, w)``."""
        assert shot.flow is not None
        self._seed, self._device = seed, device
        self._count = count = len(shot.frames)
        self.size = height, width = size_within(shot.frames.shape[1], shot.frames.shape[2], config.side, least=2)
        self._steps = config.steps or STEPS
        self._samples = min(config.samples, height * width)
        frames, rough = large_empty(count, height, width, 3), large_empty(count, height, width)
        ahead, back = (large_empty(count, height, width, 3) for _ in range(2))
        for t in range(count):
            frame = send(shot.frames[t], device).movedim(-1, 0)[None]
            frames[t] = resize(frame, self.size, mode="area")[0].movedim(0, -1)
            rough[t] = resize(masks[t][None, None], self.size)[0, 0].clamp(0.0, 1.0)
            if t + 1 < count:
                pair = resize_flow(shot.flow.part(t, t + 2).to(device), self.size)
                ahead[t], back[t + 1] = _trusted(pair.forward, pair.backward), _trusted(pair.backward, pair.forward)
        # a row for each pixel of the clip
        self._frames, self._rough = frames.to(device).flatten(0, 2), rough.to(device).flatten()
        self._ahead, self._back = ahead.to(device).flatten(0, 2), back.to(device).flatten(0, 2)
        with torch.random.fork_rng(devices=[]):  # the layers draw their first values from torch's own generator
            torch.default_generator.manual_seed(seed)  # of the CPU alone: torch.manual_seed would reseed the GPUs' too
            self.nets = AtlasNets().to(device)

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Take the networks that ``begin`` or ``optimise`` left, now or before the work was cut off."""
        self.nets.load_state_dict(kept)

    def begin(self, journal: Journal, progress: Progress) -> Kept:
        """Have the mappings lead each pixel to where it is in its frame, at the scale of the atlas."""
        height, width = self.size

        def step(index: int, generator: Generator) -> dict[str, Tensor]:
            x, y = self._drawn(width, generator), self._drawn(height, generator)
            places = self._places(x, y, torch.full_like(x, index % self._count))
            apart = [(self.nets.mapping(layer, places) - UV_SCALE * places[:, :2]).norm(dim=1) for layer in (0, 1)]
            return {"mapping": torch.stack(apart).sum(dim=0).mean()}

        steps = max(LEAST, round(PASSES * self._count * self._steps / STEPS))
        self._fit(step, self.nets.mappings, steps, journal, progress, None)
        return self.nets.state_dict(), {}

    def optimise(self, journal: Journal, progress: Progress) -> Kept:
        """Minimise the energy."""

        def step(index: int, generator: Generator) -> dict[str, Tensor]:
            return self.terms(self._drawn(len(self._frames), generator), index)

        fitted = self._fit(step, self.nets, self._steps, journal, progress, self._picture)
        return self.nets.state_dict(), asdict(fitted)

    def _fit(
        self,
        step: Callable[[int, Generator], dict[str, Tensor]],
        nets: nn.Module,
        steps: int,
        journal: Journal,
        progress: Progress,
        preview: Callable[[], Tensor] | None,
    ) -> Fitted:
        generator = Generator().manual_seed(self._seed)
        return fit(
            lambda index: step(index, generator),
            nets.parameters(),
            steps=steps,
            learning_rate=LEARNING_RATE,
            schedule=lambda _: 1.0,
            plateau=0.0,  # the published schedule has a fixed length
            preview=preview,
            on_step=progress,
            journal=journal,
            generators=[generator],
        )

    def terms(self, pixels: Tensor, index: int) -> dict[str, Tensor]:
        """The weighted terms of the energy.

        Args:
            pixels: ``(N,)``, counted through the whole clip along rows.
            index: number of the step.
        """
        height, width = self.size
        x, y, t = pixels % width, pixels // width % height, pixels // (width * height)
        ahead, back = self._ahead[pixels], self._back[pixels]
        places = [self._places(x, y, t), self._places(x + 1, y, t), self._places(x, y + 1, t)]
        places += [self._places(x + to[:, 0], y + to[:, 1], t + later) for to, later in ((ahead, 1), (back, -1))]
        for apart in (1.0, FAR)[: 1 + (index <= FAR_UNTIL * self._steps)]:
            places += [self._places(x - apart, y, t), self._places(x, y - apart, t)]

        # each network once, for all places that it is asked about
        uv = torch.stack([_each(partial(self.nets.mapping, layer), torch.stack(places)) for layer in (0, 1)])
        alpha = _each(self.nets.opacity, torch.stack(places[:5]))
        background, foreground = (_each(partial(self.nets.colours, layer), uv[layer, :3]) for layer in (0, 1))
        rebuilt = torch.lerp(background, foreground, alpha[:3, :, None])

        true = self._frames[pixels]
        right = self._frames[pixels + (x < width - 1)] - true
        below = self._frames[pixels + width * (y < height - 1)] - true
        scale = max(self.size) / (2.0 * UV_SCALE)
        away = scale * (uv[:, 3:] - uv[:, :1])  # (2, 4 or 6, N, 2), in pixels
        shares = torch.stack((1.0 - alpha[0], alpha[0]))
        to_next, to_last = away[:, 0].norm(dim=2) * shares, away[:, 1].norm(dim=2) * shares
        terms = {
            "colour": COLOUR * _squared(rebuilt[0] - true).mean(),
            "gradient": GRADIENT
            * (_squared(rebuilt[1] - rebuilt[0] - right) + _squared(rebuilt[2] - rebuilt[0] - below)).mean(),
            "sparsity": SPARSITY * _squared(shares[0, :, None] * foreground[0]).mean(),
            "rigidity": RIGIDITY * rigidity(-away[:, 2], -away[:, 3]).mean(dim=1).sum(),
            "flow": FLOW * 0.5 * (_mean(to_next.sum(dim=0), ahead[:, 2]) + _mean(to_last.sum(dim=0), back[:, 2])),
            "alpha_flow": ALPHA_FLOW
            * 0.5
            * (_mean((alpha[3] - alpha[0]).abs(), ahead[:, 2]) + _mean((alpha[4] - alpha[0]).abs(), back[:, 2])),
        }
        if away.shape[1] > 4:
            behind, front = rigidity(-away[:, 4] / FAR, -away[:, 5] / FAR).mean(dim=1)
            terms["far_rigidity"] = FAR_RIGIDITY[0] * behind + FAR_RIGIDITY[1] * front
        if index <= max(LEAST, BOOTSTRAP_UNTIL * self._steps):
            terms["bootstrap"] = BOOTSTRAP * bootstrap(alpha[0], self._rough[pixels]).mean()
        return terms

    def _drawn(self, below: int, generator: Generator) -> Tensor:
        # on the CPU, so that every device is given the same
        return send(torch.randint(below, (self._samples,), generator=generator), self._device)

    def _places(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return coordinates(torch.stack((x.float(), y.float(), t.float()), dim=1), self.size, self._count)

    @torch.no_grad()
    def _picture(self) -> Tensor:
        """The frame in the middle as the networks rebuild it, ``(h, w, 3)``."""
        height, width = size_within(*self.size, PREVIEW_SIDE)
        rows = (torch.arange(height, device=self._device) + 0.5) * (self.size[0] / height) - 0.5
        columns = (torch.arange(width, device=self._device) + 0.5) * (self.size[1] / width) - 0.5
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        places = self._places(x.flatten(), y.flatten(), torch.full_like(x, self._count // 2).flatten())
        return evaluated(self.nets, places).view(height, width, 3)


def rigidity(across: Tensor, down: Tensor) -> Tensor:
    """``|J'J| + |(J'J + EPS I)^-1|`` of Jacobians with these columns, ``(..., 2)``; least where J turns alone."""
    a, b, d = across.square().sum(dim=-1), (across * down).sum(dim=-1), down.square().sum(dim=-1)
    own = (a.square() + 2.0 * b.square() + d.square()).sqrt()
    a, d = a + EPS, d + EPS
    return own + (a.square() + 2.0 * b.square() + d.square()).sqrt() / (a * d - b.square())


def bootstrap(alpha: Tensor, rough: Tensor) -> Tensor:
    """Binary cross entropy of alpha with a rough mask."""
    return -rough * alpha.log() - (1.0 - rough) * (1.0 - alpha).log()


def _squared(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=-1)


def _mean(values: Tensor, trust: Tensor) -> Tensor:
    """Their mean where trust is 1; 0 where it is 1 nowhere."""
    return (values * trust).sum() / trust.sum().clamp_min(1.0)


def _each(net: Callable[[Tensor], Tensor], places: Tensor) -> Tensor:
    """What a network gives for ``(K, N, ...)``, ``(K, N, ...)``."""
    return net(places.flatten(0, 1)).unflatten(0, places.shape[:2])


def _trusted(vectors: Tensor, home: Tensor) -> Tensor:
    """Vectors ``(h, w, 3)`` of motion ``(1, 2, h, w)``, and 1 where the motion back leads home."""
    apart = (vectors + warp(home, vectors)).norm(dim=1, keepdim=True)
    return torch.cat((vectors, (apart < CONSISTENT).float()), dim=1)[0].movedim(0, -1)
