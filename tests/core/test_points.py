"""Points go through the atlas to where they are, and are seen where they are seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit.points import HIDDEN, SEARCH, Point, Tracks, best_paths, draw, follow
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.store import lazy
from comfyui_vdp.vdp_core.store.lazy import LazyFrames
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Layers

COUNT, HEIGHT, WIDTH = 8, 80, 128
CLIPS = {
    "a camera that nears and turns": {"zoom": 1.01, "turn": 0.012, "pan": (1.0, 0.3)},
    "parallax, and an object that bends": {"parallax": 0.4, "bend": 0.3, "pan": (1.5, 0.0)},
}


@pytest.fixture(scope="module")
def rendered(synthetic):
    """A clip by its name, and its layers; each is decomposed once."""
    made = {}

    def give(name: str):
        if name not in made:
            clip = synthetic.layered(COUNT, HEIGHT, WIDTH, objects=1, **CLIPS[name])
            made[name] = clip, decompose("atlas", clip.frames, clip.flow, preset="fast", steps=40)
        return made[name]

    return give


def asked(clip, frame: int) -> tuple[list[Point], list[int]]:
    """Points between the pixels of a frame, on the background and on the object, and their layers."""
    points, layers = [], []
    for number in range(2):
        places = (clip.masks[frame, number] > 0.9).nonzero()
        for y, x in places[:: len(places) // 40].tolist():
            points.append(Point(frame, x + 0.3, y - 0.2))
            layers.append(number)
    return points, layers


def truth(clip, points: list[Point], layers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where points are in every frame, ``(N, T, 2)``, and whether they are seen."""
    xy, seen = torch.empty(len(points), COUNT, 2), torch.empty(len(points), COUNT, dtype=torch.bool)
    last = torch.tensor([WIDTH - 0.5, HEIGHT - 0.5])
    for number, (point, layer) in enumerate(zip(points, layers, strict=True)):
        for time in range(COUNT):
            place = clip.follow(layer, torch.tensor([point.x, point.y]), point.frame, time)
            inside = bool(((place >= -0.5) & (place <= last)).all())
            xy[number, time] = place
            seen[number, time] = inside and float(clip.masks_at(place, time)[layer]) > 0.5
    return xy, seen


@pytest.mark.parametrize("name", CLIPS)
def test_points_are_within_a_pixel_and_seen_where_they_are(rendered, name):
    clip, layers = rendered(name)
    points, numbers = map(sum, zip(*(asked(clip, frame) for frame in (0, COUNT // 2)), strict=True), ([], []))
    xy, seen = truth(clip, points, numbers)
    tracks = follow(layers, points)
    assert (tracks.xy - xy).norm(dim=-1)[seen].mean() < 1.0
    assert (tracks.visible == seen).float().mean() > 0.95
    assert tracks.xy.isfinite().all()


def test_a_point_of_which_the_mask_knows_nothing_is_found_on_its_layer(rendered):
    """As where little of an object shows: in the frame that is asked for, all is taken for the background."""
    clip, layers = rendered(next(iter(CLIPS)))
    masks = layers.fields["masks"].clone()
    masks[3, 0], masks[3, 1] = 1.0, 0.0
    points, numbers = asked(clip, 3)
    xy, seen = truth(clip, points, numbers)
    tracks = follow(replace(layers, fields={**layers.fields, "masks": masks}), points)
    on_object = torch.tensor(numbers) == 1
    apart = (tracks.xy - xy).norm(dim=-1)
    assert apart[on_object][seen[on_object]].median() < 1.0
    assert apart[~on_object][seen[~on_object]].mean() < 1.0


def test_a_point_is_where_it_was_given_in_its_own_frame(rendered):
    _, layers = rendered(next(iter(CLIPS)))
    tracks = follow(layers, [Point(5, 31.25, 40.5), Point(0, 100.0, 20.0)])
    assert tracks.xy[0, 5].tolist() == [31.25, 40.5]
    assert tracks.xy[1, 0].tolist() == [100.0, 20.0]
    assert tracks.visible[0, 5]
    assert tracks.visible[1, 0]
    assert tracks.size == (HEIGHT, WIDTH)


def test_tracks_follow_from_the_layers_alone(rendered):
    """Another flow beside the same fields changes nothing."""
    clip, layers = rendered(next(iter(CLIPS)))
    still = replace(layers, flow=replace(clip.flow, forward=torch.zeros_like(clip.flow.forward)))
    points = [Point(0, 30.0, 40.0), Point(6, 100.0, 20.0)]
    tracks = follow(layers, points)
    for other in (follow(still, points), follow(replace(layers, flow=None), points)):
        assert torch.equal(tracks.xy, other.xy)
        assert torch.equal(tracks.visible, other.visible)


def test_a_point_is_seen_in_its_own_shot_alone(rendered):
    clip, layers = rendered(next(iter(CLIPS)))
    cut = replace(layers, flow=replace(clip.flow, cuts=(4,)))
    points = [Point(0, 60.0, 10.0), Point(6, 60.0, 70.0)]
    assert follow(layers, points).visible.all()
    assert follow(cut, points).visible.tolist() == [[True] * 4 + [False] * 4, [False] * 4 + [True] * 4]


def test_the_answer_for_a_point_does_not_hang_on_the_others(rendered):
    _, layers = rendered(next(iter(CLIPS)))
    points = [Point(0, 30.0, 40.0), Point(6, 100.0, 20.0), Point(2, 80.0, 48.0)]
    together = follow(layers, points)
    for number, point in enumerate(points):
        assert_close(follow(layers, [point]).xy[0], together.xy[number], atol=1e-3, rtol=0)


def test_a_point_outside_its_frame_is_followed_but_never_seen_there(rendered):
    _, layers = rendered(next(iter(CLIPS)))
    tracks = follow(layers, [Point(0, WIDTH + 4.0, 20.0)])
    assert tracks.xy[0, 0].tolist() == [WIDTH + 4.0, 20.0]
    assert not tracks.visible[0, 0]
    assert tracks.xy.isfinite().all()


def test_points_that_cannot_be_followed_are_refused(rendered):
    _, layers = rendered(next(iter(CLIPS)))
    with pytest.raises(InputError, match=f"point 1 is of frame {COUNT}, the clip has {COUNT}"):
        follow(layers, [Point(0, 1.0, 1.0), Point(COUNT, 1.0, 1.0)])
    with pytest.raises(InputError, match="TrackPoints needs 'atlas'"):
        follow(Layers("segment", {}, layers.frames), [Point(0, 1.0, 1.0)])


def test_the_best_path_is_the_one_of_least_energy():
    """A place two pixels off that is plainly better for three frames is worth the way there, and not for one."""
    side = 2 * SEARCH + 1
    costs = torch.full((2, 6, side, side), HIDDEN)
    costs[:, :, SEARCH, SEARCH] = 0.5
    costs[0, 2:5, SEARCH, SEARCH + 2] = 0.0
    costs[1, 2:3, SEARCH, SEARCH + 2] = 0.35
    paths = best_paths(costs, torch.tensor([0, 0]))
    assert paths[0, 2:5].tolist() == [[2.0, 0.0]] * 3
    assert paths[0, 0].tolist() == [0.0, 0.0]
    assert not paths[1].any()


def test_dots_are_drawn_where_points_are_and_rings_where_they_are_hidden():
    frames = torch.full((2, 60, 80, 3), 0.5)
    xy = torch.tensor([[[20.0, 30.0], [24.0, 30.0]], [[60.0, 10.0], [60.0, 10.0]], [[500.0, 9.0], [-90.0, 9.0]]])
    tracks = Tracks(xy, torch.tensor([[True, True], [True, False], [False, False]]), (60, 80))
    drawn = draw(frames, tracks)
    changed = (drawn != frames).any(dim=-1)
    assert changed[0, 30, 20]
    assert changed[1, 30, 20:25].all()  # the trail
    assert changed[0, 10, 60]
    assert not changed[1, 10, 60]  # the middle of a ring
    assert changed[1, 10, 61:64].any()
    assert changed[0].nonzero().amin(dim=0)[1] >= 17
    assert (drawn[0, 30, 20] - drawn[0, 10, 60]).abs().max() > 0.2
    assert torch.equal(frames, torch.full((2, 60, 80, 3), 0.5))


def test_a_long_clip_is_drawn_when_it_is_looked_at(monkeypatch):
    frames = torch.rand(6, 40, 60, 3)
    tracks = Tracks(torch.rand(3, 6, 2) * 40, torch.rand(3, 6) > 0.3, (40, 60))
    whole = draw(frames, tracks)
    monkeypatch.setattr(lazy, "fits_in_memory", lambda size: False)
    later = draw(frames, tracks)
    assert isinstance(later, LazyFrames)
    assert torch.equal(later[4], whole[4])
