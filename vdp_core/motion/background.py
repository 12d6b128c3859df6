"""Tracking of the background behind objects: its flow, completed under the objects, leads to frames that see it.

The background's flow is known around the objects, and flow estimators carry the objects' motion a few pixels beyond
their borders. So a hole somewhat larger than the objects is closed with the motion of the whole background, which is a
planar scene's seen by a moving camera (Longuet-Higgins, "The visual ambiguity of a moving plane", 1984), and what the
flow around the hole has beyond that is spread into it. Points are then followed along the closed flow.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..checks import check_flow
from ..errors import ShapeError
from ..image.inpaint import inpaint
from ..image.morphology import erode
from ..image.resize import resize
from ..image.sample import sample_points
from ..store.memo import MEMO, digest
from ..store.scratch import large_empty
from ..store.transfer import send
from ..types import Flow, OnStep
from .planar import planar_correction, planar_motion
from .warp import resize_flow

__all__ = ["COVERED", "background_flow", "track_background"]

COVERED = 0.99
"""Least share of the background in a pixel that shows only background."""
CONTAMINATED = 16
"""Pixels of the flow's own grid: how far around an object the flow is partly the object's. With DIS on rendered clips
it is off by 0.9 pixels beside the border, 0.35 at four, 0.15 at eight and 0.03 to 0.1, as everywhere, from sixteen on;
what is spread under an object is off by 0.20, 0.09, 0.06 and 0.05 with margins of 4, 8, 12 and 16."""
BORDER_MARGIN = 2
"""Pixels of the masks beside a border that may still show something of the object."""
FARTHEST = 150
"""Most frames over which a point is followed: beyond them errors add up and the light has changed."""


def track_background(
    background: Tensor,
    flow: Flow,
    *,
    frames: Tensor | None = None,
    device: torch.device | str | None = None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Find, for every pixel that objects cover, where its background is seen in an earlier and in a later frame.

    Args:
        background: ``(T, h, w)`` in 0..1, how much of a pixel is background.
        flow: of the same clip, of any working size.
        frames: ``(T, H, W, 3)`` in 0..1, the clip, of any size: the motion is then corrected by what is seen.
        device: where to compute, on up to some 450 frames of motion at a time; None: where the masks are.
        on_step: told after every pair of frames that is completed, and after every frame whose points were followed;
            stops the work by raising.

    Returns:
        ``before`` and ``after``, each ``(T, 3, h, w)`` float32, where the masks are: (dx, dy) in pixels of (h, w) from
        the pixel to its place in the nearest earlier, or later, frame that sees it, and how many frames away that is;
        all 0 where no frame does, or where the background is seen in the frame itself.

    Raises:
        ShapeError: not a clip's masks, or the flow is of another length.
    """
    if background.ndim != 3:
        raise ShapeError(f"track_background: expected background masks (T, h, w), got {tuple(background.shape)}")
    check_flow(flow, len(background))
    count, height, width = background.shape
    home, device = background.device, background.device if device is None else torch.device(device)
    seen = large_empty(*background.shape, dtype=torch.bool).to(home)
    for index, shown in enumerate(background):
        seen[index] = erode(shown >= COVERED, BORDER_MARGIN)
    steps = 2 * count - 1
    forward, backward = background_flow(
        background,
        flow,
        frames=frames,
        device=device,
        on_step=None if on_step is None else lambda done, _, preview: on_step(done, steps, preview),
    )
    # a pair across a cut has no motion: all its pixels count as occluded
    same_shot = (torch.stack([occluded.mean() for occluded in flow.forward_occlusion]) < 0.99).tolist()
    before, after = (large_empty(count, 3, height, width).to(home) for _ in range(2))
    for start in range(0, count, FARTHEST):
        first, stop = max(0, start - FARTHEST), start + 2 * FARTHEST
        ways = (forward[first : stop - 1].to(device), backward[first : stop - 1].to(device))
        near = seen[first:stop].to(device)
        for index in range(start, min(start + FARTHEST, count)):
            points = (~near[index - first]).nonzero().flip(-1).float()
            for found, step in ((before, -1), (after, 1)):
                found[index] = _follow(points, index - first, step, ways, near, same_shot[first : stop - 1])
            if on_step is not None:
                on_step(count + index, steps, None)
    return before, after


def background_flow(
    background: Tensor,
    flow: Flow,
    *,
    frames: Tensor | None = None,
    device: torch.device | str | None = None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """The motion of the background alone, also where objects hide it.

    Args:
        background, flow, frames, device: see ``track_background``.
        on_step: told after every pair of frames; stops the work by raising.

    Returns:
        ``(T-1, 2, h, w)`` from each frame to the next, and from the next back, in pixels, where the masks are.
    """
    count, height, width = background.shape
    margin = max(BORDER_MARGIN, round(CONTAMINATED * max(height, width) / max(flow.size)))
    home, device = background.device, background.device if device is None else torch.device(device)
    forward, backward = (large_empty(count - 1, 2, height, width).to(home) for _ in range(2))
    there = None if frames is None else _resized_frame(frames[0], (height, width), device)
    for index in range(count - 1):
        here, there = there, None if frames is None else _resized_frame(frames[index + 1], (height, width), device)
        pair = _pair_flow(flow, index, (height, width), device)
        known = background[index : index + 2].to(device) >= COVERED
        visible = (pair.forward_occlusion[0] < 0.5, pair.backward_occlusion[0] < 0.5)
        ahead = (pair.forward[0], known[0], visible[0], margin, here, there)
        back = (pair.backward[0], known[1], visible[1], margin, there, here)
        forward[index] = MEMO(digest("completed", *ahead), partial(_complete_flow, *ahead))
        backward[index] = MEMO(digest("completed", *back), partial(_complete_flow, *back))
        if on_step is not None:
            on_step(index + 1, count - 1, None)
    return forward, backward


def _resized_frame(frame: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    """A frame ``(H, W, 3)`` as ``(3, h, w)``."""
    return resize(send(frame, device).movedim(-1, 0)[None], size)[0]


def _pair_flow(flow: Flow, index: int, size: tuple[int, int], device: torch.device) -> Flow:
    """The flow of one pair of frames at another size: that of a whole clip would take as much memory as all else."""
    return resize_flow(flow.part(index, index + 2).mapped(lambda part: send(part, device)), size)


def _follow(
    start: Tensor, index: int, step: int, ways: tuple[Tensor, Tensor], seen: Tensor, same_shot: list[bool]
) -> Tensor:
    """Follow points ``(N, 2)`` of a frame into earlier (``step`` -1) or later frames, and note where they are seen.

    ``ways`` are the forward and the backward motion. Returns ``(3, h, w)``.
    """
    height, width = seen.shape[1:]
    found = torch.zeros(3, height, width, device=start.device)
    onward, back = ways if step > 0 else ways[::-1]
    there, home = start, start.long()
    for distance in range(1, FARTHEST + 1):
        other = index + step * distance
        pair = min(other, other - step)
        if not 0 <= other < len(seen) or not same_shot[pair] or len(home) == 0:
            break
        moved = sample_points(onward[pair], there).T
        there = there + moved
        returned = sample_points(back[pair], there).T
        # as in warp.occlusion: a point that does not come home is occluded by another part of the background
        gap = (moved + returned).square().sum(dim=-1)
        allowed = 0.01 * (moved.square().sum(dim=-1) + returned.square().sum(dim=-1)) + 0.5
        x, y = there.unbind(dim=-1)
        alive = (gap <= allowed) & (x >= 0.0) & (x <= width - 1) & (y >= 0.0) & (y <= height - 1)
        arrived = alive & (sample_points(seen[other, None].float(), there)[0] > 0.999)
        here, going = arrived.nonzero()[:, 0], (alive & ~arrived).nonzero()[:, 0]
        column, row = home[here].unbind(dim=-1)
        found[:2, row, column] = (there - start)[here].T
        found[2, row, column] = float(distance)
        there, start, home = there[going], start[going], home[going]
    return found


def _complete_flow(
    field: Tensor, whole: Tensor, visible: Tensor, margin: int, here: Tensor | None, there: Tensor | None
) -> Tensor:
    """Replace flow ``(2, h, w)`` where objects are, and where it is partly theirs, by what surrounds it.

    Flow is the objects' the farther beyond their borders the faster they move against the background. (Of a ball that
    moves by 20 to 26 pixels a frame, what is spread under it is off by 0.02 to 0.06 pixels with that much added to the
    margin, by up to 1.3 without.)

    Args:
        field: ``(2, h, w)``.
        whole: ``(h, w)``, where a pixel is the background's alone.
        visible: ``(h, w)``, where it is seen in the other frame.
        margin: the margin, in pixels, for objects at rest.
        here, there: ``(3, h, w)``, the frames that the flow leads from and to: it is then corrected as a whole.
    """
    known = erode(whole, margin) & visible
    plane = planar_motion(field, known.float())
    if not bool(whole.all()):
        speed = float((field - plane).norm(dim=0)[~whole].quantile(0.75))
        known &= erode(whole, margin + round(speed))
    certain = known.float()
    around = inpaint((field - plane)[None], certain[None, None])[0]
    field = torch.where(known, field, plane + around)
    if here is None or there is None:
        return field
    return field + planar_correction(here, there, field, certain)
