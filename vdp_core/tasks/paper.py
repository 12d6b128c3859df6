"""The preset ``paper``: the published networks, losses, weights and schedule, for comparison.

Video Decomposition Prior, ICLR 2024, arXiv 2412.04930, with what the paper leaves open taken from its re-implementation
VideoDIP. It runs on a small copy like the other presets, and joint upsampling brings what it finds to native size; the
published code works at native size.

Energy, for a run of neighbouring frames x; y is what the networks rebuild them as, z what should stay along the flow::

    E = mean |y - x|                                              ("reconstruction")
      + mean |vgg(y) - vgg(x)|                                    ("perceptual"; ``losses.structure`` without weights)
      + recipe.warp * mean (1 - occluded) |z_t - warp(z_(t-1))|   ("warp")

relight:  log y = (1/gamma) (log(1/A) + log x_out),  z = x_out,   warp 0.02
dehaze:   y = t J + (1 - t) L,                       z = J,       warp 0.02
segment:  y = sum_i m_i x_i,                         z = m,       warp 0.01, and

    E += LAYER           * mean sum_i |m_i x_i - m_i x|                                   ("layer", 1)
       + FLOW_SIMILARITY * mean_(i<j) cos(vgg(m_i F), vgg(m_j F))                         ("flow_similarity", 0.001)
       + BINARISATION    * mean 1 / mean |m - 0.5|                                        ("binarisation", 0.01)

F is the flow as a picture; x_i the picture of layer i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..image.resize import resize, working_copy
from ..motion.colours import flow_to_rgb
from ..motion.warp import resize_flow
from ..nets.unet import UNet
from ..nets.weights import find_weights, read_weights
from ..optim.fit import Fitted, fit
from ..optim.losses import perceptual, reconstruction, structure, vgg_features, warp_term
from ..store.journal import Journal
from ..types import Flow, OnStep

__all__ = ["DARKEST", "PAPER_SIDE", "Prediction", "PublishedFit", "Recipe"]

PAPER_SIDE = 256
EPOCHS = 100
DARKEST = 1e-4  # keeps logarithms and quotients finite


class Recipe(NamedTuple):
    """The settings that differ between the tasks."""

    learning_rate: float
    batch: int
    """Neighbouring frames, so that the warp term needs no others."""
    warp: float
    """Weight of the warp term; reconstruction has 1."""


class Prediction(NamedTuple):
    """The networks' prediction for some neighbouring frames."""

    rebuilt: Tensor
    """``(n, 3, h, w)``: the frames put together again."""
    consistent: Tensor
    """``(n, C, h, w)``: the quantity that the warp term compares along the flow."""
    terms: Mapping[str, Tensor]
    """Weighted losses that only this task has."""


class PublishedFit:
    """The networks' inputs, at a small size, and the optimisation that the tasks share."""

    def __init__(self, frames: Tensor, flow: Flow, device: torch.device | str, weights_folders: Sequence[Path]) -> None:
        self.small = working_copy(frames, PAPER_SIDE, device)
        size = (self.small.shape[2], self.small.shape[3])
        if min(size) < 8:
            raise ShapeError(
                f"frames: {frames.shape[2]}x{frames.shape[1]} pixels are too long and narrow for the preset 'paper'; "
                "choose another preset"
            )
        colours = flow_to_rgb(flow).movedim(-1, 1).to(device)
        self.colours = resize(colours, size)
        motion = resize_flow(flow, size)
        self.backward, self.occluded = motion.backward.to(device), motion.backward_occlusion.to(device)
        vgg_file = find_weights(("vgg16-*", "vgg16"), weights_folders)
        self.features = None if vgg_file is None else vgg_features(read_weights(vgg_file)).to(device)
        self.notes = {"perceptual": "vgg16" if self.features is not None else "gradients and SSIM"}

    def networks(self, seed: int, *kinds: Callable[[], UNet]) -> list[UNet]:
        """New networks; the same seed gives the same."""
        with torch.random.fork_rng(devices=[]):  # the layers draw their first values from torch's own generator
            torch.default_generator.manual_seed(seed)  # of the CPU alone: torch.manual_seed would reseed the GPUs' too
            self._nets = [kind().to(self.small.device) for kind in kinds]
        return self._nets

    def optimise(
        self,
        model: Callable[[slice], Prediction],
        parameters: Sequence[Tensor],
        recipe: Recipe,
        steps: int,
        seed: int,
        preview: Callable[[slice], Tensor],
        journal: Journal,
        on_step: OnStep | None,
    ) -> Fitted:
        """Fit the model to runs of neighbouring frames; 0 steps take the published number of epochs.

        ``preview`` gives a picture ``(3, h, w)`` of the first of some frames.
        """
        count = len(self.small)
        steps = steps or EPOCHS * -(-count // recipe.batch)
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(max(1, count - recipe.batch + 1), (steps,), generator=generator).tolist()

        def step(index: int) -> dict[str, Tensor]:
            first = starts[index]
            run = slice(first, first + recipe.batch)
            predicted, frames = model(run), self.small[run]
            perceptual_loss = structure(predicted.rebuilt, frames)
            if self.features is not None:
                perceptual_loss = perceptual(predicted.rebuilt, frames, self.features)
            pairs = slice(first, first + len(frames) - 1)
            warp_loss = warp_term(
                predicted.consistent[1:], predicted.consistent[:-1], self.backward[pairs], self.occluded[pairs]
            )
            return {
                "reconstruction": reconstruction(predicted.rebuilt, frames).mean(),
                "perceptual": perceptual_loss.mean(),
                "warp": recipe.warp * warp_loss.mean(),
                **predicted.terms,
            }

        @torch.no_grad()
        def picture() -> Tensor:
            for net in self._nets:
                net.eval()  # looking must not change what normalisation has seen
            shown = preview(slice(count // 2, count // 2 + 2)).movedim(0, -1)
            for net in self._nets:
                net.train()
            return shown

        return fit(
            step,
            parameters,
            steps=steps,
            learning_rate=recipe.learning_rate,
            schedule=_schedule,
            plateau=0.0,  # the published schedule has a fixed length
            preview=picture,
            on_step=on_step,
            journal=journal,
            buffers=[buffer for net in self._nets for buffer in net.buffers()],
        )

    @torch.no_grad()
    def predicted_by(self, net: nn.Module) -> Tensor:
        """What an alpha-net gives for the flow of every frame, ``(T, 1, h, w)`` on the CPU."""
        net.eval()
        return torch.cat([net(picture[None]).cpu() for picture in self.colours])


def _schedule(progress: float) -> float:
    """Five epochs of warm-up from a hundredth, then half the rate at each published milestone of the 100 epochs.

    The first milestone, epoch 5, is the end of the warm-up. The factor is not published; VideoDIP's gamma of 0.5 is.
    """
    epoch = EPOCHS * progress
    warm_up = min(1.0, 0.01 + 0.99 * epoch / 5.0)
    return warm_up * 0.5 ** sum(epoch >= milestone for milestone in (5.0, 15.0, 45.0, 75.0))
