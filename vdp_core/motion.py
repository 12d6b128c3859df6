"""What moves by itself: the camera's motion taken off, and the rest gathered into objects that last."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .types import Flow, OnStep
from .warp import pixel_grid, warp

__all__ = ["average_along", "moving_objects", "own_motion"]

WINDOW = 3
"""Frames either way whose motions are counted together; up: calmer modes, down: quicker changes of motion."""
BINS = 129
HALF = BINS // 2
STEP = 0.08
"""Width of a bin, as a log of one plus the speed in usual speeds."""
FLOOR = 0.1
"""Least usual speed, as a share of the fastest; up: parallax and slow objects join the background."""
BANDWIDTH = 3.0
"""Deviation, in bins, of the kernel that smooths the counts; up: fewer, broader modes."""
STANDS_OUT = 3.0
"""Deviations of the background's motion by which an object must move differently."""
LEAST_MOTION = 0.1
"""The same in pixels a frame: less is what optical flow gets wrong anyway."""
SMALLEST = 0.002
"""Share of the frame below which something that moves is taken for an error of the flow."""
WHOLE = 0.7
"""Share of its largest size from which on a thing counts as seen whole."""
LASTS = 0.1
"""Share of the clip for which an object must be seen moving, and of the largest object's size that it must have."""


def own_motion(flow: Flow, on_step: OnStep | None = None) -> Tensor:
    """Motion against the scene, ``(T, 2, h, w)`` in pixels a frame: what the camera does, a homography, is taken off.

    The homography of each pair is found robustly (MAGSAC++, Barath et al. 2020) on the pixels that both frames see. The
    middle frames average what leads to them and away from them. ``on_step`` is told after every pair.
    """
    count = len(flow) + 1
    own = torch.zeros(count, 2, *flow.size)
    for index in range(len(flow)):
        away = _without_camera(flow.forward[index], flow.forward_occlusion[index])
        back = _without_camera(flow.backward[index], flow.backward_occlusion[index])
        own[index] += away if index == 0 else 0.5 * away
        own[index + 1] -= back if index + 2 == count else 0.5 * back
        if on_step is not None:
            on_step(index + 1, len(flow), None)
    return own


def _without_camera(vectors: Tensor, hidden: Tensor) -> Tensor:
    import cv2

    height, width = vectors.shape[1:]
    places = pixel_grid(height, width)
    every = max(1, min(height, width) // 24)
    some = (slice(every // 2, None, every), slice(every // 2, None, every))
    seen = hidden[some] < 0.5
    start = places[:, some[0], some[1]][:, seen].T.numpy()
    end = (places + vectors.cpu())[:, some[0], some[1]][:, seen].T.numpy()
    if len(start) < 12:
        return torch.zeros(2, height, width)
    cv2.setRNGSeed(0)
    camera, _ = cv2.findHomography(start, end, cv2.USAC_MAGSAC, 0.5, maxIters=2000)
    if camera is None:
        return torch.zeros(2, height, width)
    moved = cv2.perspectiveTransform(places.flatten(1).T[None].numpy(), camera.astype(np.float32))[0]
    return vectors.cpu() - (torch.from_numpy(moved.T).view(2, height, width) - places)


def average_along(fields: Tensor, flow: Flow, span: int) -> Tensor:
    """Mean of ``(T, C, h, w)`` along the path of each pixel, up to ``span`` frames either way while it is seen."""
    total, weight = fields.clone(), torch.ones_like(fields[:, :1])
    count = len(fields)
    for vectors, hidden, sign in (
        (flow.forward, flow.forward_occlusion, 1),
        (flow.backward, flow.backward_occlusion, -1),
    ):
        path = torch.zeros(count, 2, *flow.size)
        seen = torch.ones(count, 1, *flow.size)
        for hop in range(1, min(span, count - 1) + 1):
            # frames from which the hop stays in the clip; the flow of pair i starts at frame i, or leads back to it
            ours = slice(0, count - hop) if sign > 0 else slice(hop, count)
            pair = slice(hop - 1, count - 1) if sign > 0 else slice(0, count - hop)
            theirs = slice(hop, count) if sign > 0 else slice(0, count - hop)
            onward = warp(torch.cat((vectors[pair], hidden[pair, None]), dim=1), path[ours])
            path[ours] += onward[:, :2]
            seen[ours] *= 1.0 - onward[:, 2:]
            total[ours] += seen[ours] * warp(fields[theirs], path[ours])
            weight[ours] += seen[ours]
    return total / weight


@dataclass
class _Track:
    """One moving thing through the clip: where it was seen to move, and where the flow has carried that since."""

    now: Tensor
    seen: dict[int, Tensor] = field(default_factory=dict)
    step: dict[int, Tensor] = field(default_factory=dict)
    """Its motion in the picture, (dx, dy), in the same frames."""

    def see(self, index: int, piece: Tensor, flow: Flow) -> None:
        vectors = flow.forward[index] if index < len(flow) else -flow.backward[index - 1]
        self.now, self.seen[index] = piece, piece
        self.step[index] = vectors[:, piece > 0.5].median(dim=1).values

    @property
    def size(self) -> float:
        return sum(float(piece.sum()) for piece in self.seen.values())

    def radius(self) -> float:
        return (max(float(piece.sum()) for piece in self.seen.values()) / np.pi) ** 0.5

    def at(self, when: float) -> Tensor:
        """Centre at a time outside those it was seen at: at even speed from the nearest frame that saw it whole."""
        whole = max(float(piece.sum()) for piece in self.seen.values())
        frames = [index for index, piece in self.seen.items() if float(piece.sum()) >= WHOLE * whole]
        nearest = min(frames, key=lambda index: abs(index - when))
        y, x = self.seen[nearest].nonzero(as_tuple=True)
        some = sorted(frames, key=lambda index: abs(index - when))[:8]
        step = torch.stack([self.step[index] for index in some]).median(dim=0).values
        return torch.stack((x.float().mean(), y.float().mean())) + (when - nearest) * step

    def gap(self, other: _Track) -> float:
        """How far apart, in radii, the two would have been between the frames that saw them; infinite if both were."""
        if self.seen.keys() & other.seen.keys():
            return float("inf")
        first, second = sorted((self, other), key=lambda track: min(track.seen))
        if max(first.seen) > min(second.seen):
            return float("inf")
        when = 0.5 * (max(first.seen) + min(second.seen))
        return float((first.at(when) - second.at(when)).norm()) / max(self.radius(), other.radius())


def _joined(tracks: list[_Track]) -> list[_Track]:
    """Join what is one thing that was hidden for a while."""
    tracks = list(tracks)
    while len(tracks) > 1:
        gap, first, second = min(
            ((a.gap(b), i, j) for i, a in enumerate(tracks) for j, b in enumerate(tracks) if i < j)
        )
        if gap > 1.0:
            break
        tracks[first].seen.update(tracks[second].seen)
        tracks[first].step.update(tracks[second].step)
        del tracks[second]
    return tracks


@torch.no_grad()
def moving_objects(motion: Tensor, flow: Flow, wanted: int, on_step: OnStep | None = None) -> Tensor:
    """Gather pixels that move alike, against the scene and for some time, into objects: ``(T, K, h, w)``, K <= wanted.

    In every frame the motions of all pixels are counted; each hill of the smoothed counts is a group that moves alike
    (mode seeking; Comaniciu and Meer, "Mean Shift", 2002). The group that the border of the picture belongs to is the
    background. The others, each connected piece by itself, are followed along the flow and linked. What is small,
    short-lived, or moves hardly differently from the background is no object. No number has to be chosen.

    Args:
        motion: ``(T, 2, h, w)`` against the scene, best averaged along the flow.
        flow: of the same size.
        wanted: the most objects; the largest ones stay by themselves, the others join the last.
        on_step: told after every frame; stops the work by raising.

    Returns:
        Masks of zeros and ones, largest object first; K is 0 where nothing moves by itself.
    """
    count, _, height, width = motion.shape
    tracks: list[_Track] = []
    for index in range(count):
        if index > 0:
            for track in tracks:
                track.now = warp(track.now[None, None], flow.backward[index - 1 : index])[0, 0]
        pieces = _pieces(motion, index)
        pairs = [
            (float((piece * track.now).sum()), number, track) for number, piece in enumerate(pieces) for track in tracks
        ]
        taken: set[int] = set()
        moved: set[int] = set()
        for overlap, number, track in sorted(pairs, key=lambda pair: -pair[0]):
            smaller = min(float(pieces[number].sum()), float(track.now.sum()))
            if number in taken or id(track) in moved or overlap < 0.3 * smaller:
                continue
            taken.add(number)
            moved.add(id(track))
            track.see(index, pieces[number], flow)
        for number, piece in enumerate(pieces):
            if number not in taken:
                track = _Track(piece)
                tracks.append(track)
                track.see(index, piece, flow)
        if on_step is not None:
            on_step(index + 1, count, None)
    tracks = _joined([track for track in tracks if len(track.seen) > 1])
    tracks.sort(key=lambda track: -track.size)
    lasting = [
        track for track in tracks if len(track.seen) >= max(2, LASTS * count) and track.size >= LASTS * tracks[0].size
    ]
    masks = torch.zeros(count, min(wanted, len(lasting)), height, width)
    for number, track in enumerate(lasting):
        for index, piece in track.seen.items():
            place = masks[index, min(number, wanted - 1)]
            torch.maximum(place, piece, out=place)
    return masks


def _pieces(motion: Tensor, index: int) -> list[Tensor]:
    """Connected pieces of frame ``index`` that move unlike the background, as masks."""
    import cv2

    near = motion[max(0, index - WINDOW) : index + WINDOW + 1]
    height, width = motion.shape[2:]
    speed = near.norm(dim=1).flatten()
    speed = speed[:: max(1, len(speed) // 100_000)]
    fastest = float(speed.quantile(0.995))
    usual = max(float(speed.median()), 0.5 * LEAST_MOTION, FLOOR * fastest)
    if fastest < LEAST_MOTION:
        return []

    def bins(vectors: Tensor) -> Tensor:
        """Finer for slow motion than for fast: the flow's errors grow with the speed."""
        length = vectors.norm(dim=0).clamp_min(1e-6)
        place = vectors * ((1.0 + length / usual).log() / (length * STEP))
        place = place.round().long().clamp(-HALF, HALF) + HALF
        return place[1] * BINS + place[0]

    counts = torch.bincount(bins(near.movedim(1, 0)).flatten(), minlength=BINS * BINS).float().view(BINS, BINS)
    hills = _uphill(torch.from_numpy(cv2.GaussianBlur(counts.numpy(), (0, 0), BANDWIDTH)))
    groups = hills[bins(motion[index])]
    border = torch.cat((groups[0], groups[-1], groups[:, 0], groups[:, -1]))
    scene = groups == border.mode().values
    middle = motion[index][:, scene].median(dim=1).values
    away = (motion[index] - middle.view(2, 1, 1)).norm(dim=0)
    # the median length of two normal numbers is 1.18 deviations
    differs = max(LEAST_MOTION, STANDS_OUT * float(away[scene].median()) / 1.18)
    pieces = []
    for group in groups[~scene].unique():
        _, labels, stats, _ = cv2.connectedComponentsWithStats((groups == group).numpy().astype(np.uint8))
        for label in range(1, len(stats)):
            piece = torch.from_numpy(labels == label)
            if stats[label, cv2.CC_STAT_AREA] >= SMALLEST * height * width and float(away[piece].median()) > differs:
                pieces.append(piece.float())
    return pieces


def _uphill(counts: Tensor) -> Tensor:
    """For each of the bins ``(B, B)`` the number of the top that steepest ascent leads to, ``(B * B,)``."""
    size = len(counts)
    around = F.unfold(F.pad(counts[None, None], (1, 1, 1, 1), value=-1.0), 3)[0]  # (9, B * B)
    best = around.argmax(dim=0)
    step = (best // 3 - 1) * size + best % 3 - 1
    here = torch.arange(size * size)
    top = torch.where(counts.flatten() > 0.0, here + step, here)
    for _ in range(8):  # each round doubles the length of the way that is taken
        top = top[top]
    return top
