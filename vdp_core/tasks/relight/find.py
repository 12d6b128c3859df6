"""Light fitted to followed points, window by window."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...image.resize import working_copy
from ...models.light import Held
from ...optim.fit import fit
from ...optim.grids import Pyramid, frame_sizes, read_grid
from ...optim.losses import charbonnier, smoothness
from ...optim.progress import Progress
from ...optim.windows import WINDOW_OVERLAP, Window, blended, combined_fit, fit_windows, windows
from ...store.journal import Journal
from ...types import Flow
from .config import RelightConfig
from .found import Light
from .priors import corresponding_light
from .reference import Still
from .tone import Tone, sampled, tone_of, without_light

__all__ = ["fit_light"]


def fit_light(
    frames: Tensor,
    flow: Flow,
    config: RelightConfig,
    held: Held,
    expose: Callable[[Tensor], Tone],
    seed: int,
    reference: Tensor | None,
    reference_frame: int,
    device: torch.device,
    journal: Journal,
    progress: Progress,
) -> Light:
    """Fit the grids of log light, window by window; with a reference, in the window that has its frame, also the tone.

    ``held`` says what the signal holds, each ``(1, 1, 1, 1)``, on ``device``; ``expose`` gives the tone of the
    clip from the log light of some of its frames (``tone.sampled``).

    The light of a window is known but for a factor, which is that of the window with the reference, or the first.
    """
    spans = windows(len(frames), config.window, WINDOW_OVERLAP)
    graded = None
    if reference is not None:
        graded = next(number for number, span in enumerate(spans) if reference_frame in span)

    def work(number: int, _: Mapping[int, Window], journal: Journal, progress: Progress) -> Window:
        span = spans[number]
        small = working_copy(frames[span.start : span.stop], config.side, device) + held.black
        still = None
        if reference is not None and number == graded:
            still = Still(small, reference, reference_frame - span.start, config)
        part = flow.part(span.start, span.stop)
        return _fit_window(small, part, config, held, seed + number, still, journal, progress)

    found = fit_windows(spans, work, journal=journal, progress=progress)
    grid = blended(spans, [window.fields["light"] for window in found], level_of=graded or 0)
    if graded is None:
        gamma, colour = expose(sampled(grid).to(device))
    else:
        grid = grid - found[graded].fields["kept"]
        gamma, *(red, green, blue) = (found[graded].numbers[name] for name in ("gamma", "red", "green", "blue"))
        colour = (red, green, blue)
    # x_out = exp(colour) (x / light)^gamma, so log A is the colour less gamma times log light
    notes = {} if reference is None else {"reference_frame": str(reference_frame)}
    return Light((-gamma * grid)[:, None], gamma, colour, combined_fit(found), notes)


def _fit_window(
    small: Tensor,
    flow: Flow,
    config: RelightConfig,
    held: Held,
    seed: int,
    still: Still | None,
    journal: Journal,
    progress: Progress,
) -> Window:
    """Fit the light of one window, of which the working copy ``(T, 3, h, w)`` is given."""
    device = small.device
    points = corresponding_light(small, flow, seed=seed)
    count = len(small)
    fine, middle, coarse = frame_sizes(small, config.grid)
    sizes = [(count, *fine), (count, *middle), (count, *coarse), (count, 1, 1), (max(2, count // 6), *coarse)]
    light = Pyramid(sizes, device)
    generator = torch.Generator(device).manual_seed(seed)
    everywhere = small.new_ones(small.shape[2:])

    def step(_: int) -> dict[str, Tensor]:
        grid = light()
        # of the shape of the light only: a lamp may flicker, and a cut may change it at once
        shape = grid - grid.mean(dim=(1, 2), keepdim=True)
        terms = {
            "spatial_smoothness": config.spatial_smoothness * (smoothness(grid, 1).mean() + smoothness(grid, 2).mean()),
            "temporal_smoothness": config.temporal_smoothness * smoothness(shape, 0).mean(),
            "l2_prior": config.l2_prior * grid.square().mean(),
        }
        if len(points) > 0:
            size = (min(config.points, len(points)),)
            chosen = torch.randint(len(points), size, generator=generator, device=device)
            change = read_grid(grid, points.second[chosen]) - read_grid(grid, points.first[chosen])
            losses = charbonnier(change - points.log_ratio[chosen], config.robust_scale)
            weight = points.weight[chosen]
            terms["correspondence"] = config.correspondence * (weight * losses).sum() / weight.sum()
        if still is not None:
            kept = still.kept()
            terms["reference"] = config.reference * still.difference(grid, kept).mean()
            curved = smoothness(kept, 1).mean() + smoothness(kept, 2).mean()
            terms["kept_smoothness"] = config.spatial_smoothness * curved
            # points say how light changed up to what the scene itself may look like, and new parts of it are free
            change = charbonnier(shape.diff(dim=0), config.robust_scale)
            terms["steadiness"] = config.steadiness * change.mean()
        return terms

    @torch.no_grad()
    def preview() -> Tensor:
        grid = light()
        gamma, colour = tone_of(small[::8], grid[::8], held, everywhere) if still is None else still.tone()
        index = slice(len(small) // 2, len(small) // 2 + 1) if still is None else still.index
        left = grid[index] if still is None else grid[index] - still.kept()
        lit = without_light(small[index], left)[0].pow(gamma).movedim(0, -1)
        return (lit * lit.new_tensor(colour).exp()).clamp(0.0, 1.0)

    fitted = fit(
        step,
        light.parts if still is None else [*light.parts, *still.parameters],
        steps=config.steps,
        learning_rate=config.learning_rate,
        preview=preview,
        on_step=progress,
        journal=journal,
        generators=[generator],
    )
    numbers: dict[str, float] = {}
    fields = {"light": light().detach().cpu()}
    if still is not None:
        fields["kept"] = still.kept().detach().cpu()
        gamma, colour = still.tone()
        numbers = {"gamma": gamma, **dict(zip(("red", "green", "blue"), colour, strict=True))}
    return Window(fields, numbers, fitted)
