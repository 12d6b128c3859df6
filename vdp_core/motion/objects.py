"""Residual motion grouped into objects that last."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.morphology import dilate
from ..types import Flow, OnStep
from .warp import warp

__all__ = ["moving_objects"]

POOLED_FRAMES = 3
"""Frames either way whose motions are counted together; up: calmer modes, down: quicker changes of motion."""
BINS = 129
HALF = BINS // 2
BIN_WIDTH = 0.08
"""Width of a bin, as a log of one plus the speed in usual speeds."""
FLOOR = 0.1
"""Least usual speed, as a share of the fastest; up: parallax and slow objects join the background."""
BANDWIDTH = 3.0
"""Deviation, in bins, of the kernel that smooths the counts; up: fewer, broader modes."""
LEAST_VOTE = 0.01
"""Of a pixel of the border, for the group that it belongs to."""
STANDS_OUT = 3.0
"""Deviations of the background's motion by which an object must move differently."""
LEAST_MOTION = 0.1
"""The same in pixels a frame: less is what optical flow gets wrong anyway."""
SMALLEST = 0.002
"""Share of the frame below which something that moves is taken for an error of the flow."""
PATIENCE = 4
"""Times the frames that saw a thing, and three more, for which it is looked for where the flow has carried it."""
LEAST_REMAINING = 0.5
"""Share of the smallest size below which what the flow has carried is gone."""
LEAST_OVERLAP = 0.3
"""Share of the smaller one that a piece and what the flow has carried must have in common to be one thing."""
WHOLE = 0.7
"""Share of its largest size from which on a thing counts as seen whole."""
LASTS = 0.1
"""Share of the clip for which an object must be seen moving, and of the largest object's size that it must have."""
ENOUGH = 32
"""Frames of the largest object that others are measured by: that it is seen for longer makes them no smaller."""
SHARE = 0.3
"""Speed against the background, as a share of an object's, from which on what adjoins the object belongs to it."""
STILL = 0.95
"""Share of the background that must be slower than that."""
AROUND = 4
"""Pixels around objects that say nothing of the background's motion."""


class _Piece(NamedTuple):
    """Connected pixels of one frame, in their box."""

    rows: slice
    columns: slice
    inside: Tensor
    """``(h, w)`` of the box, bool."""
    area: int


class _Sighting(NamedTuple):
    """Where and how a thing moved in a frame, in pixels of (x, y)."""

    piece: _Piece
    centre: np.ndarray
    step: np.ndarray
    """To the next frame."""


@dataclass
class _Track:
    """One moving thing through the clip."""

    seen: dict[int, _Sighting] = field(default_factory=dict)
    """By frame, the first one first."""

    def see(self, index: int, piece: _Piece, flow: Flow) -> None:
        vectors = flow.forward[index] if index < len(flow) else -flow.backward[index - 1]
        step = vectors[:, piece.rows, piece.columns][:, piece.inside].median(dim=1).values
        y, x = piece.inside.nonzero(as_tuple=True)
        centre = [float(x.float().mean()) + piece.columns.start, float(y.float().mean()) + piece.rows.start]
        self.seen[index] = _Sighting(piece, np.array(centre), step.double().numpy())

    @property
    def size(self) -> int:
        return sum(sighting.piece.area for sighting in self.seen.values())

    def given_up(self, index: int) -> bool:
        """Whether it has not been seen for so long that where the flow has carried it says little."""
        return index - next(reversed(self.seen)) > PATIENCE * len(self.seen) + POOLED_FRAMES


class _Ends:
    """Ends of tracks, extrapolated at constant speed from the frames that saw the objects whole."""

    def __init__(self) -> None:
        self._first, self._last, self._radius = (np.empty(0) for _ in "abc")
        self._start, self._end = np.empty((0, 2, 2)), np.empty((0, 2, 2))
        """A place at the time 0, and a speed."""

    def add(self, track: _Track) -> None:
        areas = {index: sighting.piece.area for index, sighting in track.seen.items()}
        largest = max(areas.values())
        whole = [index for index, area in areas.items() if area >= WHOLE * largest]
        start, end = self._line(track, whole[:8], whole[0]), self._line(track, whole[-8:], whole[-1])
        self._first, self._last = np.append(self._first, min(areas)), np.append(self._last, max(areas))
        self._radius = np.append(self._radius, (largest / np.pi) ** 0.5)
        self._start, self._end = np.append(self._start, start[None], axis=0), np.append(self._end, end[None], axis=0)

    @staticmethod
    def _line(track: _Track, frames: list[int], nearest: int) -> np.ndarray:
        step = np.median([track.seen[index].step for index in frames], axis=0)
        return np.stack((track.seen[nearest].centre - nearest * step, step))

    def gaps(self, number: int) -> np.ndarray:
        """How far apart, in radii, a track and those before it would have been between the frames that saw them.

        Infinite where both were seen at a time.
        """
        radius = np.maximum(self._radius[:number], self._radius[number])
        gaps = np.full(number, np.inf)
        later = self._first[:number] > self._last[number]
        earlier = self._last[:number] < self._first[number]
        for chosen, when, ours, theirs in (
            (later, 0.5 * (self._last[number] + self._first[:number]), self._end[number], self._start[:number]),
            (earlier, 0.5 * (self._last[:number] + self._first[number]), self._start[number], self._end[:number]),
        ):
            apart = theirs[:, 0] - ours[0] + when[:, None] * (theirs[:, 1] - ours[1])
            gaps[chosen] = (np.linalg.norm(apart, axis=1) / radius)[chosen]
        return gaps


def _linked(tracks: list[_Track], on_step: Callable[[], None] | None) -> list[_Track]:
    """Link tracks of one object that was occluded for a while, the nearest ends first."""
    left = dict(enumerate(tracks))
    ends = _Ends()
    pairs: list[tuple[float, int, int]] = []

    def add(number: int) -> None:
        ends.add(left[number])
        gaps = ends.gaps(number)
        for other in np.flatnonzero(gaps <= 1.0).tolist():
            if other in left:
                heapq.heappush(pairs, (float(gaps[other]), other, number))
        if on_step is not None and number % 64 == 63:
            on_step()

    for number in range(len(tracks)):
        add(number)
    number = len(tracks)
    while pairs:
        _, first, second = heapq.heappop(pairs)
        if first in left and second in left:
            seen = left.pop(first).seen | left.pop(second).seen
            left[number] = _Track(dict(sorted(seen.items())))
            add(number)
            number += 1
    return list(left.values())


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
        on_step: told after every frame, and now and then while pieces of one object are joined; stops the work by
            raising.

    Returns:
        Masks of zeros and ones, largest object first; K is 0 where nothing moves by itself.
    """
    count, _, height, width = motion.shape
    tracks: list[_Track] = []
    live: list[_Track] = []
    now = torch.zeros(0, height, width)  # where the flow has carried the live ones
    for index in range(count):
        if index > 0 and live:
            now = warp(now[None], flow.backward[index - 1 : index])[0]
            # what has left the picture, or shrunk to nothing, would take anything for itself
            areas = now.sum(dim=(1, 2)).tolist()
            kept = [
                number
                for number, track in enumerate(live)
                if areas[number] >= LEAST_REMAINING * SMALLEST * height * width and not track.given_up(index)
            ]
            live, now = [live[number] for number in kept], now[kept]
        pieces = _pieces(motion, index, flow)
        matches = _matches(pieces, now)
        new = [number for number in range(len(pieces)) if number not in matches]
        for number, match in matches.items():
            live[match].see(index, pieces[number], flow)
        for number in new:
            track = _Track()
            track.see(index, pieces[number], flow)
            tracks.append(track)
            live.append(track)
        now = torch.cat((now, now.new_zeros(len(new), height, width)))
        for number, place in (*matches.items(), *zip(new, range(len(live) - len(new), len(live)), strict=True)):
            piece = pieces[number]
            now[place] = 0.0
            now[place, piece.rows, piece.columns] = piece.inside.float()
        if on_step is not None:
            on_step(index + 1, count, None)
    still_going = None if on_step is None else partial(on_step, count, count, None)
    tracks = _linked([track for track in tracks if len(track.seen) > 1], still_going)
    tracks.sort(key=lambda track: -track.size)
    least = LASTS * tracks[0].size * min(1.0, ENOUGH / len(tracks[0].seen)) if tracks else 0.0
    lasting = [track for track in tracks if len(track.seen) >= max(2, LASTS * count) and track.size >= least]
    masks = torch.zeros(count, min(wanted, len(lasting)), height, width)
    for index, vectors in enumerate(motion):
        there = [number for number, track in enumerate(lasting) if index in track.seen]
        if there:
            own = torch.zeros(len(there), height, width)
            for mask, number in zip(own, there, strict=True):
                piece = lasting[number].seen[index].piece
                mask[piece.rows, piece.columns][piece.inside] = 1.0
            _grow(own, vectors)
            for mask, number in zip(own, there, strict=True):
                torch.maximum(masks[index, min(number, wanted - 1)], mask, out=masks[index, min(number, wanted - 1)])
    return masks


def _grow(masks: Tensor, motion: Tensor) -> None:
    """Let masks ``(K, h, w)`` of a frame take in what adjoins them and moves against the background, at whatever speed.

    Limbs, and what turns, move unlike the rest of an object, and modes take them apart. Hysteresis, as Canny's (1986).
    """
    import cv2

    objects = masks.amax(dim=0) > 0.5
    background = ~dilate(objects, AROUND)
    if not bool(background.any()):
        return
    away = (motion - motion[:, background].median(dim=1).values.view(2, 1, 1)).norm(dim=0)
    still = float(away[background].quantile(STILL))
    slowest = min(float(away[mask > 0.5].median()) for mask in masks)
    least = max(LEAST_MOTION, still, SHARE * slowest)
    _, labels = cv2.connectedComponents(((away > least) | objects).numpy().astype(np.uint8), connectivity=4)
    pieces = torch.from_numpy(labels)
    free = ~objects & (pieces > 0)
    for piece in pieces[objects].unique().tolist():
        inside = pieces == piece
        largest = masks[:, inside].sum(dim=1).argmax()
        masks[largest][inside & free] = 1.0


def _matches(pieces: list[_Piece], now: Tensor) -> dict[int, int]:
    """Match pieces with the tracks' warped masks ``(K, h, w)``, largest overlap first."""
    areas = now.sum(dim=(1, 2)).tolist()
    pairs = []
    for number, piece in enumerate(pieces):
        overlaps = now[:, piece.rows, piece.columns][:, piece.inside].sum(dim=1).tolist()
        pairs += [
            (-overlap, number, match)
            for match, overlap in enumerate(overlaps)
            if overlap >= LEAST_OVERLAP * min(piece.area, areas[match])
        ]
    matches: dict[int, int] = {}
    for _, number, match in sorted(pairs):
        if number not in matches and match not in matches.values():
            matches[number] = match
    return matches


def _pieces(motion: Tensor, index: int, flow: Flow) -> list[_Piece]:
    """Connected pieces of frame ``index`` that move unlike the background."""
    import cv2

    near = motion[max(0, index - POOLED_FRAMES) : index + POOLED_FRAMES + 1]
    height, width = motion.shape[2:]
    speed = torch.hypot(near[:, 0], near[:, 1]).flatten()
    speed = speed[:: max(1, len(speed) // 100_000)]
    fastest = float(speed.quantile(0.995))
    usual = max(float(speed.median()), 0.5 * LEAST_MOTION, FLOOR * fastest)
    if fastest < LEAST_MOTION:
        return []

    def bins(vectors: Tensor) -> Tensor:
        """Finer for slow motion than for fast: the flow's errors grow with the speed."""
        length = torch.hypot(vectors[0], vectors[1]).clamp_min(1e-6)
        place = vectors * ((1.0 + length / usual).log() / (length * BIN_WIDTH))
        place = place.round().long().clamp(-HALF, HALF) + HALF
        return place[1] * BINS + place[0]

    counts = torch.bincount(bins(near.movedim(1, 0)).flatten(), minlength=BINS * BINS).float().view(BINS, BINS)
    modes = _modes(torch.from_numpy(cv2.GaussianBlur(counts.numpy(), (0, 0), BANDWIDTH)))
    groups = modes[bins(motion[index])]
    # water and sky, whose motion is not believed, do not say what the background is
    sure = flow.forward_confidence[index] if index < len(flow) else flow.backward_confidence[index - 1]
    border, votes = (torch.cat((part[0], part[-1], part[:, 0], part[:, -1])) for part in (groups, sure))
    scene = groups == torch.bincount(border, votes + LEAST_VOTE).argmax()
    middle = motion[index][:, scene].median(dim=1).values
    away = (motion[index] - middle.view(2, 1, 1)).norm(dim=0)
    # the median length of two normal numbers is 1.18 deviations
    differs = max(LEAST_MOTION, STANDS_OUT * float(away[scene].median()) / 1.18)
    pieces = []
    for group in groups[~scene].unique():
        _, labels, stats, _ = cv2.connectedComponentsWithStats((groups == group).numpy().astype(np.uint8))
        for label in range(1, len(stats)):
            if stats[label, cv2.CC_STAT_AREA] < SMALLEST * height * width:
                continue
            left, top, across, down, area = stats[label].tolist()
            if across == width:  # ground behind ground, as it seems to move where the camera does
                continue
            rows, columns = slice(top, top + down), slice(left, left + across)
            inside = torch.from_numpy(labels[rows, columns] == label)
            if float(away[rows, columns][inside].median()) > differs:
                pieces.append(_Piece(rows, columns, inside, area))
    return pieces


def _modes(counts: Tensor) -> Tensor:
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
