"""The preset ``paper``: the published networks, losses, weights and schedule, for comparison.

Video Decomposition Prior, ICLR 2024, arXiv 2412.04930, with what the paper leaves open taken from its re-implementation
VideoDIP. It runs on a small copy like the other presets, and what it finds is lifted to native size; the published code
works at native size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, ShapeError
from ..image.resize import working_copy
from ..motion.colours import flow_to_rgb
from ..motion.warp import resize_flow
from ..nets.unet import UNet, alpha_net, rgb_net
from ..nets.weights import find_weights, read_weights
from ..optim.fit import Fitted, fit
from ..optim.losses import (
    flow_similarity,
    layer_term,
    mask_binarisation,
    perceptual,
    reconstruction,
    structure,
    vgg_features,
    warp_term,
)
from ..store.checkpoint import Checkpoint
from ..types import Flow, OnStep
from .found import Found

__all__ = ["Haze", "Masks", "dehaze", "relight", "segment"]

SIDE = 256
EPOCHS = 100
INVERSE_GAMMA = 0.9  # where it starts
INVERSE_GAMMA_RANGE = (0.1, 1.0)
DARKEST = 1e-4  # keeps logarithms and quotients finite


class _Recipe(NamedTuple):
    """What differs between the tasks."""

    learning_rate: float
    batch: int
    """Neighbouring frames, so that the warp term needs no others."""
    warp: float
    """Weight of the warp term; reconstruction has 1."""


LIGHT = HAZE = _Recipe(learning_rate=2e-3, batch=4, warp=0.02)
OBJECTS = _Recipe(learning_rate=1e-3, batch=2, warp=0.01)
FLOW_SIMILARITY, LAYER, BINARISATION = 0.001, 1.0, 0.01
"""Weights of the terms that only segmentation has."""


class Haze(NamedTuple):
    """What ``dehaze`` finds."""

    transmission: Tensor
    """``(T, 1, h, w)`` above 0 and up to 1, on the CPU."""
    airlight: Tensor
    """``(T, 3, 1, 1)``, as it was given."""
    fitted: Fitted
    notes: Mapping[str, str]


class Masks(NamedTuple):
    """What ``segment`` finds."""

    masks: Tensor
    """``(T, L, h, w)``, summing to one over L, the background first, on the CPU."""
    fitted: Fitted
    notes: Mapping[str, str]


class _Model(NamedTuple):
    """How the networks see some neighbouring frames."""

    rebuilt: Tensor
    """``(n, 3, h, w)``: the frames put together again."""
    steady: Tensor
    """``(n, C, h, w)``: what should stay the same along the flow."""
    terms: Mapping[str, Tensor]
    """Weighted losses that only this task has."""


def relight(
    frames: Tensor,
    flow: Flow,
    *,
    steps: int,
    seed: int,
    device: torch.device | str,
    weights_folders: Sequence[Path],
    checkpoint: Checkpoint | None,
    on_step: OnStep | None,
) -> Found:
    """Optimise ``log x_in = (1/gamma) (log(1/A) + log x_out)``: alpha-net gives 1/A, RGB-net x_out, gamma is learnt.

    The loss is ``L1 + perceptual`` between x_in and what it is rebuilt as, and 0.02 times the warp term of x_out. The
    perceptual term compares VGG16 features where weights are found, else gradients and SSIM; ``notes`` say which.

    Args:
        frames, flow, steps, seed, device, weights_folders, checkpoint, on_step: see ``relight.decompose``.

    Raises:
        ShapeError: the frames are too long and narrow for the networks' three poolings.
    """
    clip = _Clip(frames, flow, device, weights_folders)
    rgb, alpha = clip.networks(seed, rgb_net, alpha_net)
    inverse_gamma = torch.tensor(INVERSE_GAMMA, device=device, requires_grad=True)

    def model(run: slice) -> _Model:
        out = rgb(clip.small[run]).clamp_min(DARKEST)
        inverse_gain = alpha(clip.colours[run]).clamp_min(DARKEST)
        rebuilt = (inverse_gamma.clamp(*INVERSE_GAMMA_RANGE) * (inverse_gain.log() + out.log())).exp()
        return _Model(rebuilt, out, {})

    parameters = [*rgb.parameters(), *alpha.parameters(), inverse_gamma]
    fitted = clip.optimise(
        model, parameters, LIGHT, steps, seed, lambda run: rgb(clip.small[run])[0], checkpoint, on_step
    )
    gain = clip.seen_by(alpha).clamp_min(DARKEST).log().neg()
    with torch.no_grad():
        gamma = 1.0 / float(inverse_gamma.clamp(*INVERSE_GAMMA_RANGE))
    return Found(gain, gamma, (0.0, 0.0, 0.0), fitted, clip.notes)


def dehaze(
    frames: Tensor,
    flow: Flow,
    *,
    airlight: Tensor,
    steps: int,
    seed: int,
    device: torch.device | str,
    weights_folders: Sequence[Path],
    checkpoint: Checkpoint | None,
    on_step: OnStep | None,
) -> Haze:
    """Optimise ``x = t J + (1 - t) L``: alpha-net gives t, RGB-net the clear J; the airlight L is given and stays.

    The loss is ``L1 + perceptual`` between x and what it is rebuilt as, and 0.02 times the warp term of J.

    Args:
        frames, flow, steps, seed, device, weights_folders, checkpoint, on_step: see ``dehaze.decompose``.
        airlight: ``(T, 3)`` in 0..1. The paper takes that of Bahat and Irani, ICCP 2016; any estimate will do.

    Raises:
        ShapeError: the airlight is of another clip, or the frames are too long and narrow for the networks.
    """
    if tuple(airlight.shape) != (len(frames), 3):
        raise ShapeError(f"airlight: expected one colour a frame, ({len(frames)}, 3), got {tuple(airlight.shape)}")
    clip = _Clip(frames, flow, device, weights_folders)
    rgb, alpha = clip.networks(seed, rgb_net, alpha_net)
    light = airlight.float()[:, :, None, None]
    there = light.to(device)

    def model(run: slice) -> _Model:
        clear, through = rgb(clip.small[run]), alpha(clip.colours[run])
        return _Model(through * clear + (1.0 - through) * there[run], clear, {})

    parameters = [*rgb.parameters(), *alpha.parameters()]
    fitted = clip.optimise(
        model, parameters, HAZE, steps, seed, lambda run: rgb(clip.small[run])[0], checkpoint, on_step
    )
    return Haze(clip.seen_by(alpha).clamp_min(DARKEST), light.cpu(), fitted, clip.notes)


def segment(
    frames: Tensor,
    flow: Flow,
    *,
    layers: int,
    steps: int,
    seed: int,
    device: torch.device | str,
    weights_folders: Sequence[Path],
    checkpoint: Checkpoint | None,
    on_step: OnStep | None,
) -> Masks:
    """Optimise ``x = sum_i m_i x_i``: an alpha-net gives m for each layer but one, an RGB-net x_i for each layer.

    The loss is ``L1 + perceptual`` between x and what it is rebuilt as, the layer term, 0.001 times the flow
    similarity, and 0.01 times each of the warp term of the masks and their binarisation. Which layer becomes which is
    left to chance; the one that holds most of the frames' border is put first, as the background.

    Args:
        frames, flow, steps, seed, device, weights_folders, checkpoint, on_step: see ``segment.decompose``.
        layers: how many, 2 or more.

    Raises:
        InputError: fewer than two layers.
        ShapeError: the frames are too long and narrow for the networks' three poolings.
    """
    if layers < 2:
        raise InputError(f"layers: at least 2 needed, got {layers}")
    clip = _Clip(frames, flow, device, weights_folders)
    networks = clip.networks(seed, *[rgb_net] * layers, *[alpha_net] * (layers - 1))
    colour_nets, mask_nets = networks[:layers], networks[layers:]

    def model(run: slice) -> _Model:
        x, motion = clip.small[run], clip.colours[run]
        masks = _sum_to_one(torch.cat([net(motion) for net in mask_nets], dim=1))
        pictures = torch.stack([net(x) for net in colour_nets], dim=1)
        pairs = [(masks[:, i : i + 1], masks[:, j : j + 1]) for i, j in combinations(range(layers), 2)]
        alike = torch.stack([flow_similarity(motion, first, second, clip.features) for first, second in pairs])
        terms = {
            "layer": LAYER * layer_term(masks, pictures, x).mean(),
            "flow_similarity": FLOW_SIMILARITY * alike.mean(),
            "binarisation": BINARISATION * mask_binarisation(masks).mean(),
        }
        return _Model((masks[:, :, None] * pictures).sum(dim=1), masks, terms)

    def preview(run: slice) -> Tensor:
        masks = _sum_to_one(torch.cat([net(clip.colours[run]) for net in mask_nets], dim=1))
        return masks[0, 1:].sum(dim=0).expand(3, -1, -1)

    parameters = [parameter for net in networks for parameter in net.parameters()]
    fitted = clip.optimise(model, parameters, OBJECTS, steps, seed, preview, checkpoint, on_step)
    masks = _sum_to_one(torch.cat([clip.seen_by(net) for net in mask_nets], dim=1))
    notes = {**clip.notes, "flow_similarity": "vgg16" if clip.features is not None else "mean colours of the flow"}
    return Masks(_background_first(masks), fitted, notes)


def _sum_to_one(opacities: Tensor) -> Tensor:
    """Masks ``(n, L, h, w)`` from the alpha-nets' ``(n, L - 1, h, w)``: scaled to sum to one, as published.

    The first layer gets what all others leave; with two layers that is ``(1 - m, m)``.
    """
    masks = torch.cat(((1.0 - opacities).prod(dim=1, keepdim=True), opacities), dim=1)
    return masks / masks.sum(dim=1, keepdim=True).clamp_min(DARKEST)


def _background_first(masks: Tensor) -> Tensor:
    """The layers so that the first covers most of the frames' border, the others in their order."""
    at_border = masks[:, :, (0, -1)].mean((0, 2, 3)) + masks[..., (0, -1)].mean((0, 2, 3))
    background = int(at_border.argmax())
    return masks[:, [background, *(index for index in range(masks.shape[1]) if index != background)]]


class _Clip:
    """What the networks look at, at a small size, and the optimisation that the tasks share."""

    def __init__(self, frames: Tensor, flow: Flow, device: torch.device | str, weights_folders: Sequence[Path]) -> None:
        self.small = working_copy(frames, SIDE).to(device)
        size = (self.small.shape[2], self.small.shape[3])
        if min(size) < 8:
            raise ShapeError(
                f"frames: {frames.shape[2]}x{frames.shape[1]} pixels are too long and narrow for the preset 'paper'; "
                "choose another preset"
            )
        colours = flow_to_rgb(flow).movedim(-1, 1).to(device)
        self.colours = F.interpolate(colours, size=size, mode="bilinear", align_corners=False, antialias=True)
        motion = resize_flow(flow, size)
        self.backward, self.hidden = motion.backward.to(device), motion.backward_occlusion.to(device)
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
        model: Callable[[slice], _Model],
        parameters: Sequence[Tensor],
        recipe: _Recipe,
        steps: int,
        seed: int,
        preview: Callable[[slice], Tensor],
        checkpoint: Checkpoint | None,
        on_step: OnStep | None,
    ) -> Fitted:
        """Fit the model to runs of neighbouring frames; 0 steps take the published number of epochs.

        ``preview`` gives a picture ``(3, h, w)`` of the first of some frames.
        """
        count = len(self.small)
        generator = torch.Generator().manual_seed(seed)

        def step(_: int) -> dict[str, Tensor]:
            first = int(torch.randint(max(1, count - recipe.batch + 1), (), generator=generator))
            run = slice(first, first + recipe.batch)
            made, frames = model(run), self.small[run]
            alike = structure(made.rebuilt, frames)
            if self.features is not None:
                alike = perceptual(made.rebuilt, frames, self.features)
            pairs = slice(first, first + len(frames) - 1)
            steady = warp_term(made.steady[1:], made.steady[:-1], self.backward[pairs], self.hidden[pairs])
            return {
                "reconstruction": reconstruction(made.rebuilt, frames).mean(),
                "perceptual": alike.mean(),
                "warp": recipe.warp * steady.mean(),
                **made.terms,
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
            steps=steps or EPOCHS * -(-count // recipe.batch),
            learning_rate=recipe.learning_rate,
            schedule=_schedule,
            plateau=0.0,  # the published schedule has a fixed length
            preview=picture,
            on_step=on_step,
            checkpoint=checkpoint,
            generators=[generator],
            buffers=[buffer for net in self._nets for buffer in net.buffers()],
        )

    @torch.no_grad()
    def seen_by(self, net: nn.Module) -> Tensor:
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
