"""The mapping of a layer: where each pixel of each frame lies in the layer's texture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...image.inpaint import inpaint
from ...image.knots import spread, through
from ...image.sample import sample
from ...image.splat import Splat
from ...motion.dis import search_with
from ...motion.planar import robust_weight
from ...motion.warp import pixel_grid
from .textures import KNOWN

__all__ = ["Registration", "start"]

REWEIGHTINGS = 8
SPEED = 1.0
"""Pixels by which a vector may differ from a common motion without counting less."""
LITTLE = 1e-3
"""Weight of nothing beside that of pixels that are known."""


class Registration:
    """Moves a mapping so that what it rebuilds lies on the frame: dense inverse search, spread onto the knots."""

    def __init__(self) -> None:
        self._search = search_with(finest=1, patch=8, stride=4, smoothness=8.0, refinements=5)

    def __call__(
        self,
        knots: Tensor,
        frame: Tensor,
        share: Tensor,
        rebuilt: Callable[[Tensor], tuple[Tensor, Tensor]],
        size: tuple[int, int],
    ) -> Tensor:
        """Return the knots ``(2, h', w')`` of a mapping, corrected.

        Args:
            knots: places (x, y) in the texture.
            frame: ``(3, h, w)``.
            share: ``(h, w)``, of the layer in each pixel.
            rebuilt: gives colours ``(3, h, w)`` at places, and where they are known; elsewhere nothing is corrected.
            size: (h, w) of the knots that corrections are spread onto; fewer of them bridge larger gaps.
        """
        places = through(knots, (share.shape[0], share.shape[1]))
        colours, known = rebuilt(places)
        shown = share * known
        rebuilt_frame = torch.lerp(frame, colours, shown)
        vectors = torch.from_numpy(self._search(_grey(frame), _grey(rebuilt_frame))).movedim(-1, 0).to(frame)
        across, down = torch.gradient(places, dim=(2, 1))
        moved = across * vectors[0] + down * vectors[1]
        correction = spread(moved, shown.square(), size)
        return knots + F.interpolate(correction[None], size=knots.shape[1:], mode="bilinear", align_corners=True)[0]


def start(
    frame_of: Callable[[int], Tensor],
    shares: Tensor,
    motion_of: Callable[[int, int], tuple[Tensor, Tensor]],
    size: tuple[int, int],
    device: torch.device,
    on_frame: Callable[[int], None],
) -> Tensor:
    """The mapping of a layer to begin with, ``(T, 2, h', w')``, in pixels from the frame that shows most of it.

    From that frame outwards, each frame is mapped as its neighbour is, along the flow between them. Where the flow is
    not believed, the layer's common motion (affine, found robustly) leads on. Each frame is then registered to the
    texture that the frames before it have made, so that errors do not add up.

    Args:
        frame_of: gives frame ``(3, h, w)`` by its number.
        shares: ``(T, h, w)``, of the layer.
        motion_of: gives the motion from a frame to its neighbour, ``(2, h, w)``, and how far it can be believed,
            ``(h, w)``, by their numbers.
        size: (h', w') of the knots.
        device: where to compute.
        on_frame: told after every frame.
    """
    count, height, width = shares.shape
    middle = max(range(count), key=lambda t: float(shares[t].mean()) * (1.0 - abs(2 * t + 1 - count) / (2 * count)))
    order = [middle, *(t for far in range(1, count) for t in (middle - far, middle + far) if 0 <= t < count)]
    grid = pixel_grid(height, width, device=device)
    # the texture so far has room for a frame on either side; what goes beyond is registered to nothing
    margin = grid.new_tensor([width, height]).view(2, 1, 1)
    so_far = Splat((3 * height, 3 * width), 3, device)
    register = Registration()
    knots = torch.empty(count, 2, *size, device=device)
    for done, t in enumerate(order):
        frame, share = frame_of(t), shares[t].to(device)
        if t == middle:
            knots[t] = _affine_knots(grid, torch.ones_like(share), grid, size)
        else:
            s = t + 1 if t < middle else t - 1
            vectors, sure = motion_of(t, s)
            there = (grid + vectors).movedim(0, -1)[None]
            neighbour = torch.cat((through(knots[s], (height, width)), shares[s].to(device)[None]))
            led = sample(neighbour[None], there)[0]
            weight = sure * (share > 0.5) * (led[2] > 0.5) * _inside(there[0], height, width)
            knots[t] = _led(led[:2], weight, grid, size, knots[s])
            knots[t] = register(knots[t], frame, share, lambda places: _so_far(so_far, places + margin), _fewer(size))
        so_far.lay(frame, through(knots[t], (height, width)) + margin, share)
        on_frame(done + 1)
    return knots


def _fewer(size: tuple[int, int]) -> tuple[int, int]:
    return max(4, size[0] // 2), max(4, size[1] // 2)


def _so_far(texture: Splat, places: Tensor) -> tuple[Tensor, Tensor]:
    sums = sample(texture.sums[None], places.movedim(0, -1)[None])[0]
    return sums[:3] / sums[3:].clamp_min(1e-6), sums[3] > KNOWN


def _inside(there: Tensor, height: int, width: int) -> Tensor:
    x, y = there.unbind(dim=-1)
    return (x >= 0.0) & (x <= width - 1) & (y >= 0.0) & (y <= height - 1)


def _led(places: Tensor, weight: Tensor, grid: Tensor, size: tuple[int, int], before: Tensor) -> Tensor:
    """Knots of a mapping whose places ``(2, h, w)`` are known where ``weight`` is, and else go on as most do."""
    height, width = weight.shape
    if float(weight.sum()) < 16.0:
        return before
    base = _affine_knots(places, weight, grid, size)
    rest = spread(places - through(base, (height, width)), weight.square(), size, little=LITTLE)
    there = spread(weight[None], torch.ones_like(weight), size, little=LITTLE)
    return base + inpaint(rest[None], there[None].square().clamp_min(1e-6))[0]


def _affine_knots(places: Tensor, weight: Tensor, grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Knots of the affine mapping that fits places best, with weights that fall with the distance (Geman-McClure)."""
    height, width = weight.shape
    known = (weight > 0.1).flatten().nonzero()[:, 0]
    known = known[:: max(1, len(known) // 6000)]
    scale = 1.0 / max(height, width)
    here = torch.cat((grid.flatten(1)[:, known] * scale, torch.ones_like(grid[:1].flatten(1)[:, known]))).T.double()
    there = places.flatten(1)[:, known].T.double()
    sure = weight.flatten()[known].double()
    weights = sure
    for _ in range(REWEIGHTINGS):
        weighted = here * weights[:, None]
        # a little ridge keeps few pixels in a line from turning the rest
        ridge = 1e-6 * weights.sum() * torch.eye(3, dtype=torch.double, device=here.device)
        found = torch.linalg.solve(weighted.T @ here + ridge, weighted.T @ there)
        apart = (here @ found - there).square().sum(dim=1)
        weights = sure * robust_weight(apart, SPEED**2)
    rows = torch.linspace(-0.5, height - 0.5, size[0], dtype=torch.double, device=grid.device)
    columns = torch.linspace(-0.5, width - 0.5, size[1], dtype=torch.double, device=grid.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    whole = torch.stack((x * scale, y * scale, torch.ones_like(x)), dim=-1) @ found
    return whole.movedim(-1, 0).to(places.dtype)


def _grey(picture: Tensor) -> np.ndarray:
    return (picture.mean(dim=0) * 255.0).round().clamp(0.0, 255.0).byte().cpu().numpy()
