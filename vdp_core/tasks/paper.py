"""The preset ``paper``: the published networks, losses, weights and schedule, for comparison.

Video Decomposition Prior, ICLR 2024, arXiv 2412.04930, with what the paper leaves open taken from its re-implementation
VideoDIP. It runs on a small copy like the other presets, and its light map is lifted to native size; the published code
works at native size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ShapeError
from ..fit import fit
from ..flow import flow_to_rgb
from ..losses import perceptual, reconstruction, structure, vgg_features, warp_term
from ..nets import alpha_net, rgb_net
from ..priors import working_copy
from ..types import Flow, OnStep
from ..warp import resize_flow
from ..weights import find_weights, read_weights
from .found import Found

__all__ = ["relight"]

SIDE = 256
BATCH = 4  # neighbouring frames, so that the warp term needs no others
EPOCHS = 100
LEARNING_RATE = 2e-3
WARP_WEIGHT = 0.02
INVERSE_GAMMA = 0.9  # where it starts
INVERSE_GAMMA_RANGE = (0.1, 1.0)
DARKEST = 1e-4  # keeps the logarithms finite


def relight(
    frames: Tensor,
    flow: Flow,
    *,
    steps: int,
    seed: int,
    device: torch.device | str,
    weights_folders: Sequence[Path],
    on_step: OnStep | None,
) -> Found:
    """Optimise ``log x_in = (1/gamma) (log(1/A) + log x_out)``: alpha-net gives 1/A, RGB-net x_out, gamma is learnt.

    The loss is ``L1 + perceptual`` between x_in and what it is rebuilt as, and 0.02 times the warp term of x_out. The
    perceptual term compares VGG16 features where weights are found, else gradients and SSIM; ``info`` says which.

    Args:
        frames, flow, steps, seed, device, weights_folders, on_step: see ``relight.decompose``.

    Raises:
        ShapeError: the frames are too long and narrow for the networks' three poolings.
    """
    small = working_copy(frames, SIDE).to(device)
    count, _, height, width = small.shape
    if min(height, width) < 8:
        raise ShapeError(
            f"frames: {frames.shape[2]}x{frames.shape[1]} pixels are too long and narrow for the preset 'paper'; "
            "choose another preset"
        )
    motion = resize_flow(flow, (height, width))
    backward, hidden = motion.backward.to(device), motion.backward_occlusion.to(device)
    colours = flow_to_rgb(flow).movedim(-1, 1).to(device)
    colours = F.interpolate(colours, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    vgg_file = find_weights(("vgg16-*", "vgg16"), weights_folders)
    features = None if vgg_file is None else vgg_features(read_weights(vgg_file)).to(device)

    with torch.random.fork_rng(devices=[]):  # the layers draw their first values from torch's own generator
        torch.default_generator.manual_seed(seed)  # of the CPU alone: torch.manual_seed would reseed the GPUs' too
        rgb, alpha = rgb_net().to(device), alpha_net().to(device)
    inverse_gamma = torch.tensor(INVERSE_GAMMA, device=device, requires_grad=True)
    generator = torch.Generator().manual_seed(seed)
    epoch = -(-count // BATCH)

    def step(_: int) -> dict[str, Tensor]:
        first = int(torch.randint(max(1, count - BATCH + 1), (), generator=generator))
        run = slice(first, first + BATCH)
        out = rgb(small[run]).clamp_min(DARKEST)
        inverse_gain = alpha(colours[run]).clamp_min(DARKEST)
        rebuilt = (inverse_gamma.clamp(*INVERSE_GAMMA_RANGE) * (inverse_gain.log() + out.log())).exp()
        alike = (
            structure(rebuilt, small[run]) if features is None else perceptual(rebuilt, small[run], features)
        ).mean()
        pairs = slice(first, first + len(out) - 1)
        steady = warp_term(out[1:], out[:-1], backward[pairs], hidden[pairs]).mean()
        return {
            "reconstruction": reconstruction(rebuilt, small[run]).mean(),
            "perceptual": alike,
            "warp": WARP_WEIGHT * steady,
        }

    def preview() -> Tensor:
        with torch.no_grad():
            return rgb(small[count // 2 : count // 2 + 2])[0].movedim(0, -1)

    fitted = fit(
        step,
        [*rgb.parameters(), *alpha.parameters(), inverse_gamma],
        steps=steps or EPOCHS * epoch,
        learning_rate=LEARNING_RATE,
        schedule=_schedule,
        plateau=0.0,  # the published schedule has a fixed length
        preview=preview,
        on_step=on_step,
    )
    with torch.no_grad():
        alpha.eval()
        field = torch.cat([-alpha(picture[None]).clamp_min(DARKEST).log().cpu() for picture in colours])
        gamma = 1.0 / float(inverse_gamma.clamp(*INVERSE_GAMMA_RANGE))
    notes = {"perceptual": "vgg16" if features is not None else "gradients and SSIM"}
    return Found(field, gamma, (0.0, 0.0, 0.0), fitted, notes)


def _schedule(progress: float) -> float:
    """Five epochs of warm-up from a hundredth, then half the rate at each published milestone of the 100 epochs.

    The first milestone, epoch 5, is the end of the warm-up. The factor is not published; VideoDIP's gamma of 0.5 is.
    """
    epoch = EPOCHS * progress
    warm_up = min(1.0, 0.01 + 0.99 * epoch / 5.0)
    return warm_up * 0.5 ** sum(epoch >= milestone for milestone in (5.0, 15.0, 45.0, 75.0))
