"""Relight: ``x_out = A * x_in ** gamma`` with a smooth light map A that may vary over the frame and drift in time.

The published method (Video Decomposition Prior, ICLR 2024, arXiv 2412.04930) optimises
``log x_in = (1/gamma) (log(1/A) + log x_out)`` with two networks, which reconstruction alone does not identify: that
is the preset ``paper``. The other presets hold log A as a small grid for every frame and find it by what identifies
it: the same point of the scene, followed along the flow, keeps its colour, so what changes is the light; light is
smooth in the frame and in time; and a picture is well exposed on the whole, or looks like the graded still given.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_flow, check_frames
from ..denoise.noise import estimate_noise
from ..errors import InputError, ShapeError
from ..image.resize import working_copy
from ..image.upsample import upsample
from ..optim.fit import fit
from ..optim.grids import LightGrid, read_grid
from ..optim.losses import charbonnier, waviness
from ..optim.windows import OVERLAP, Window, blended, fit_windows, joined, windows
from ..store.checkpoint import Checkpoint
from ..types import Flow, Layers, OnStep
from .found import Found
from .relight_priors import corresponding_light, likeness, natural_tone

__all__ = ["PRESETS", "RelightConfig", "decompose"]

SMALLEST_SIDE = 16
LEAST_LIKENESS = 0.12  # the graded frame itself has up to 0.9, its neighbours 0.25 or more, other clips below 0.05


@dataclass(frozen=True)
class RelightConfig:
    """What a preset sets."""

    steps: int = 250
    side: int = 160
    """Long side of the copy that points are followed on; up: finer, slower."""
    grid: int = 15
    """Samples of the light map along the long side; up: light may vary faster over the frame."""
    points: int = 30_000
    """Correspondences looked at in a step."""
    learning_rate: float = 0.03
    same_scene: float = 1.0
    """Weight of points of the scene keeping their colour along the motion; up: more of what changes counts as light."""
    smooth: float = 1.0
    """Weight of evenness over the frame; up: broader light, but small shadows stay in the picture."""
    steady: float = 1.0
    """Weight of evenness in time; up: its shape changes more slowly; as a whole it may flicker."""
    modest: float = 1e-3
    """Weight of light doing nothing; it decides only where nothing else does, such as a still camera's still light."""
    graded: float = 4.0
    """Weight of looking like the reference, where one is given."""
    mistaken: float = 0.05
    """Log brightness beyond which a correspondence is rather wrong than lit otherwise."""
    window: int = 240
    """Most frames that are fitted at once."""


PRESETS = {
    "fast": RelightConfig(steps=120, side=128, points=15_000),
    "balanced": RelightConfig(),
    "quality": RelightConfig(steps=600, side=256, grid=20, points=60_000),
}
"""The presets that are ours; ``paper`` is in ``paper.py``."""


def decompose(
    frames: Tensor,
    flow: Flow,
    *,
    preset: str = "balanced",
    steps: int = 0,
    seed: int = 0,
    layers: int = 2,
    reference: Tensor | None = None,
    reference_frame: int = -1,
    mask: Tensor | None = None,
    mask_frame: int = 0,
    device: torch.device | str = "cpu",
    weights_folders: tuple[Path, ...] = (),
    checkpoint: Checkpoint | None = None,
    on_step: OnStep | None = None,
) -> Layers:
    """Find the light of a shot.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1, two frames or more.
        flow: of the same clip.
        preset: ``fast``, ``balanced``, ``quality`` or ``paper``.
        steps: of the optimisation, at most; 0 takes the preset's.
        seed: the same seed gives the same layers (on a CPU, to the bit).
        layers: not used; the tasks are called alike.
        reference: one frame of the clip as it should look, ``(1, H, W, 3)`` or of the same shape in another size.
        reference_frame: which frame it shows; -1 looks for it.
        mask, mask_frame: none is taken.
        device: where to optimise.
        weights_folders: where the preset ``paper`` looks for VGG16 weights, besides torch's cache.
        checkpoint: where to keep what is found on the way, to go on from when the work was cut off.
        on_step: told after every step; stops the work by raising.

    Returns:
        Layers of the model ``relight``: the fields ``log_gain`` ``(T, 1, h, w)``, which is log A, ``colour``
        ``(T, 3, 1, 1)``, which is added to it for red, green and blue, and ``gamma`` ``(T, 1, 1, 1)``, both the same
        in the whole clip; the noise that ``estimate_noise`` found is kept beside them.

    Raises:
        ShapeError: frames, flow and reference do not belong together.
        InputError: an unknown preset, a mask, or a setting out of range.
    """
    frames = check_frames(frames, at_least=2, smallest_side=SMALLEST_SIDE)
    check_flow(flow, len(frames))
    if mask is not None:
        raise InputError("mask: the task relight takes none; unlink it, or choose the task segment")
    if preset != "paper" and preset not in PRESETS:
        raise InputError(f"preset: there is no '{preset}'; known: {', '.join([*PRESETS, 'paper'])}")
    if steps < 0:
        raise InputError(f"steps: 0 for the preset's, or more, got {steps}")
    if not -1 <= reference_frame < len(frames):
        raise InputError(
            f"reference_frame: -1 to look for it, or 0 to {len(frames) - 1} in this clip, got {reference_frame}"
        )
    if reference is not None:
        reference, reference_frame = check_reference(reference, reference_frame, frames)
    started = time.perf_counter()
    noise = estimate_noise(frames)
    if preset == "paper":
        from . import paper

        if reference is not None:
            raise InputError("reference: the preset 'paper' takes none; choose another preset, or unlink it")
        found = paper.relight(
            frames,
            flow,
            steps=steps,
            seed=seed,
            device=device,
            weights_folders=weights_folders,
            checkpoint=checkpoint,
            on_step=on_step,
        )
    else:
        config = PRESETS[preset]
        config = replace(config, steps=steps or config.steps)
        found = _fit_light(
            frames, flow, config, seed, reference, reference_frame, torch.device(device), checkpoint, on_step
        )
    count = len(frames)
    fields = {
        "log_gain": found.log_gain,
        "colour": torch.tensor(found.colour).view(1, 3, 1, 1).repeat(count, 1, 1, 1),
        "gamma": torch.full((count, 1, 1, 1), found.gamma),
        "noise": noise.field(count),
    }
    info = {
        "said": f"gamma {found.gamma:.2f}",
        **found.fitted.info(preset=preset, flow=flow.method, seconds=time.perf_counter() - started),
        **found.notes,
    }
    return Layers("relight", fields, frames, flow, seed, info)


def check_reference(reference: Tensor, index: int, frames: Tensor) -> tuple[Tensor, int]:
    """Return a graded still ``(1, H', W', 3)`` and the frame it shows, or say what is wrong with it.

    Args:
        reference: the still.
        index: of the frame, one of the clip's; -1 looks for it.
        frames: the clip, ``(T, H, W, 3)``.

    Raises:
        ShapeError: not one still of the frames' proportions.
        InputError: the still does not look like that frame, or like any.
    """
    reference = check_frames(reference, "reference")
    if len(reference) != 1:
        raise ShapeError(f"reference: one graded still is needed, got {len(reference)} frames; set count to 1")
    wanted, found = frames.shape[2] / frames.shape[1], reference.shape[2] / reference.shape[1]
    if abs(found / wanted - 1.0) > 0.02:
        raise ShapeError(
            f"reference: the still is {reference.shape[2]}x{reference.shape[1]} pixels, the frames are "
            f"{frames.shape[2]}x{frames.shape[1]}; it must show the whole frame, in any size of the same proportions"
        )
    return reference, _frame_shown(reference, index, frames)


def _frame_shown(reference: Tensor, index: int, frames: Tensor) -> int:
    side = PRESETS["balanced"].side
    picture = working_copy(reference, side)
    candidates = range(len(frames)) if index < 0 else range(index, index + 1)
    best, found = -1.0, 0
    for start in range(candidates.start, candidates.stop, 64):
        small = working_copy(frames[start : min(start + 64, candidates.stop)], side)
        alike = likeness(small, F.interpolate(picture, size=small.shape[-2:], mode="area")[0])
        if float(alike.max()) > best:
            best, found = float(alike.max()), start + int(alike.argmax())
    if best < LEAST_LIKENESS:
        raise InputError(
            f"reference: it does not look like frame {found} of the clip (likeness {best:.2f} of 1); "
            "give a graded frame of this clip, or another reference_frame"
        )
    return found


def graded_like(layers: Layers, other: Layers) -> Layers:
    """Return layers with the gamma and the colour of another shot's; the light that was found stays."""
    count = len(layers)
    gamma, colour = (other.fields[name][:1] for name in ("gamma", "colour"))
    fields = {
        **layers.fields,
        "log_gain": layers.fields["log_gain"] * (gamma / layers.fields["gamma"]),
        "gamma": gamma.repeat(count, 1, 1, 1),
        "colour": colour.repeat(count, 1, 1, 1),
    }
    return replace(layers, fields=fields)


def _fit_light(
    frames: Tensor,
    flow: Flow,
    config: RelightConfig,
    seed: int,
    reference: Tensor | None,
    reference_frame: int,
    device: torch.device,
    checkpoint: Checkpoint | None,
    on_step: OnStep | None,
) -> Found:
    """Fit the grids of log light, window by window; with a reference, in the window that has its frame, also the tone.

    The light of a window is known but for a factor, which is that of the window with the reference, or the first.
    """
    spans = windows(len(frames), config.window, OVERLAP)
    graded = None
    if reference is not None:
        graded = next(number for number, span in enumerate(spans) if reference_frame in span)

    def work(number: int, place: Checkpoint | None, told: OnStep) -> Window:
        span = spans[number]
        small = working_copy(frames[span.start : span.stop], config.side).to(device)
        still = None
        if reference is not None and number == graded:
            still = _Still(small, reference, reference_frame - span.start, config.side)
        part = flow.part(span.start, span.stop)
        return _fit_window(small, part, config, seed + number, still, place, told)

    found = fit_windows(spans, work, steps=config.steps, checkpoint=checkpoint, on_step=on_step)
    grid = blended(spans, [window.fields["light"] for window in found], level_of=graded or 0)
    if graded is None:
        gamma, colour = _natural(frames, grid, config.side)
    else:
        gamma, *(red, green, blue) = (found[graded].numbers[name] for name in ("gamma", "red", "green", "blue"))
        colour = (red, green, blue)
    # x_out = exp(colour) (x / light)^gamma, so log A is the colour less gamma times log light
    notes = {} if reference is None else {"reference_frame": str(reference_frame)}
    return Found((-gamma * grid)[:, None], gamma, colour, joined(found), notes)


def _fit_window(
    small: Tensor,
    flow: Flow,
    config: RelightConfig,
    seed: int,
    still: _Still | None,
    checkpoint: Checkpoint | None,
    on_step: OnStep,
) -> Window:
    """Fit the light of one window, of which the working copy ``(T, 3, h, w)`` is given."""
    device = small.device
    points = corresponding_light(small, flow, seed=seed)
    light = LightGrid(small, config.grid)
    generator = torch.Generator().manual_seed(seed)

    def step(_: int) -> dict[str, Tensor]:
        grid = light()
        terms = {
            "smooth": config.smooth * (waviness(grid, 1).mean() + waviness(grid, 2).mean()),
            # of the shape of the light only: a lamp may flicker, and a cut may change it at once
            "steady": config.steady * waviness(grid - grid.mean(dim=(1, 2), keepdim=True), 0).mean(),
            "modest": config.modest * grid.square().mean(),
        }
        if len(points) > 0:
            chosen = torch.randint(len(points), (min(config.points, len(points)),), generator=generator).to(device)
            change = read_grid(grid, points.second[chosen]) - read_grid(grid, points.first[chosen])
            wrong = charbonnier(change - points.log_ratio[chosen], config.mistaken)
            weight = points.weight[chosen]
            terms["same_scene"] = config.same_scene * (weight * wrong).sum() / weight.sum()
        if still is not None:
            terms["graded"] = config.graded * still.difference(grid).mean()
        return terms

    @torch.no_grad()
    def preview() -> Tensor:
        grid = light()
        gamma, colour = _natural_tone(small[::8], grid[::8]) if still is None else still.tone()
        index = slice(len(small) // 2, len(small) // 2 + 1) if still is None else still.index
        lit = _without_light(small[index], grid[index])[0].pow(gamma).movedim(0, -1)
        return (lit * lit.new_tensor(colour).exp()).clamp(0.0, 1.0)

    fitted = fit(
        step,
        light.parts if still is None else [*light.parts, still.log_gamma, still.colour],
        steps=config.steps,
        learning_rate=config.learning_rate,
        preview=preview,
        on_step=on_step,
        checkpoint=checkpoint,
        generators=[generator],
    )
    numbers: dict[str, float] = {}
    if still is not None:
        gamma, colour = still.tone()
        numbers = {"gamma": gamma, **dict(zip(("red", "green", "blue"), colour, strict=True))}
    return Window({"light": light().detach().cpu()}, numbers, fitted)


class _Still:
    """The graded still: gamma and the colour are learnt so that its frame comes out like it."""

    def __init__(self, small: Tensor, reference: Tensor, index: int, side: int) -> None:
        picture = working_copy(reference, side).to(small.device)
        self.picture = F.interpolate(picture, size=small.shape[-2:], mode="area")
        self.index = slice(index, index + 1)
        self.dark = small[self.index]
        # within the range that natural_tone gives to dark clips
        self.log_gamma = torch.tensor(-0.5, device=small.device, requires_grad=True)
        self.colour = torch.ones(3, device=small.device, requires_grad=True)

    def difference(self, grid: Tensor) -> Tensor:
        """How far the frame is from the still, ``(1, 3, h, w)``; burnt-out and other local changes count little."""
        unlit = _without_light(self.dark, grid[self.index]).clamp_min(1e-4)  # the power's slope at 0 is infinite
        lit = self.colour.exp().view(1, 3, 1, 1) * unlit.pow(self.log_gamma.exp())
        return charbonnier(lit - self.picture, 0.02)

    def tone(self) -> tuple[float, tuple[float, float, float]]:
        """Gamma, and the log gain of red, green and blue."""
        red, green, blue = self.colour.tolist()
        return float(self.log_gamma.detach().exp()), (red, green, blue)


def _natural_tone(small: Tensor, grid: Tensor) -> tuple[float, tuple[float, float, float]]:
    """Gamma and neutral log gains that expose frames ``(n, 3, h, w)`` with log light ``(n, gh, gw)`` well."""
    gamma, gain = natural_tone(_without_light(small, grid).mean(dim=1))
    return gamma, (gain, gain, gain)


def _natural(frames: Tensor, grid: Tensor, side: int) -> tuple[float, tuple[float, float, float]]:
    """Gamma and neutral log gains that expose the whole clip well, from at most some 64 frames."""
    some = slice(None, None, max(1, len(frames) // 64))
    return _natural_tone(working_copy(frames[some], side), grid[some])


def _without_light(small: Tensor, grid: Tensor) -> Tensor:
    """``x / light`` for ``(n, 3, h, w)`` and log light ``(n, gh, gw)``."""
    return small * torch.exp(-upsample(grid[:, None], (small.shape[2], small.shape[3])))
