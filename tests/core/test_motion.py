from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.metrics import iou
from comfyui_vdp.vdp_core.motion.camera import camera_motion, residual_motion
from comfyui_vdp.vdp_core.motion.objects import moving_objects
from comfyui_vdp.vdp_core.motion.trajectories import average_along
from comfyui_vdp.vdp_core.motion.warp import pixel_grid
from comfyui_vdp.vdp_core.types import Flow

SPAN = 8


def even(count: int, height: int, width: int, dx: float = 0.0, dy: float = 0.0, hidden: float = 0.0) -> Flow:
    """The same motion everywhere, ``hidden`` 1 where no pixel is seen again."""
    vectors = torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(count - 1, 2, height, width)
    gone = torch.full((count - 1, height, width), hidden)
    return Flow(vectors.clone(), -vectors, gone, gone.clone(), (height, width), "exact")


def seen_through(camera: torch.Tensor, count: int, height: int, width: int) -> Flow:
    """The flow of a plane under a camera that does the homography ``camera`` from each frame to the next."""
    places = torch.cat((pixel_grid(height, width), torch.ones(1, height, width))).double().flatten(1)

    def moved(matrix: torch.Tensor) -> torch.Tensor:
        there = matrix @ places
        vectors = (there[:2] / there[2:] - places[:2]).view(2, height, width).float()
        return vectors.expand(count - 1, -1, -1, -1).clone()

    seen = torch.zeros(count - 1, height, width)
    return Flow(moved(camera), moved(camera.inverse()), seen, seen.clone(), (height, width), "exact")


CAMERA = torch.tensor([[1.01, -0.02, 1.5], [0.015, 0.99, -0.8], [1e-5, -2e-5, 1.0]], dtype=torch.float64)


# the camera


def test_what_the_camera_does_is_taken_off():
    flow = seen_through(CAMERA, 4, 72, 120)
    assert flow.forward.norm(dim=1).max() > 2.0
    assert residual_motion(flow).norm(dim=1).max() < 0.02


def test_what_moves_by_itself_is_left():
    flow = seen_through(CAMERA, 4, 72, 120)
    square = (slice(None), slice(None), slice(20, 44), slice(40, 70))
    by = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    flow.forward[square] += by
    flow.backward[square] -= by
    own = residual_motion(flow)
    assert_close(own[square], by.expand_as(own[square]), atol=0.3, rtol=0)
    own[square] = 0.0
    assert own.norm(dim=1).quantile(0.95) < 0.15


def test_the_camera_alone_moves_all_as_one():
    flow = seen_through(CAMERA, 4, 72, 120)
    wanted = flow.forward.clone()
    flow.forward[:, :, 20:44, 40:70] += 3.0
    flow.backward[:, :, 20:44, 40:70] -= 3.0
    camera = camera_motion(flow)
    assert (camera.forward - wanted).norm(dim=1).max() < 0.15
    assert camera.forward_occlusion[:, 20:44, 40:70].max() == 0.0


def test_a_pair_that_sees_nothing_again_has_no_motion():
    assert residual_motion(even(3, 40, 60, 3.0, 1.0, hidden=1.0)).abs().max() == 0.0


# along the paths


def test_the_mean_of_a_constant_is_the_constant(synthetic):
    _, flow = synthetic.pan(5, 40, 60)
    assert_close(average_along(torch.full((5, 2, 40, 60), 0.7), flow, SPAN), torch.full((5, 2, 40, 60), 0.7))


def test_the_mean_follows_the_pixels(synthetic):
    # whole pixels, so that nothing is lost between them
    frames, flow = synthetic.pan(6, 40, 60, motion=(2.0, -1.0))
    pictures = frames.movedim(-1, 1)
    assert_close(average_along(pictures, flow, SPAN), pictures, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("span", "wanted"), [(0, [0.0, 3.0, 9.0, 0.0]), (1, [1.5, 4.0, 4.0, 4.5]), (8, [3.0, 3.0, 3.0, 3.0])]
)
def test_the_mean_reaches_span_frames_either_way(span, wanted):
    fields = torch.tensor([0.0, 3.0, 9.0, 0.0]).view(4, 1, 1, 1).expand(4, 1, 8, 10).clone()
    mean = average_along(fields, even(4, 8, 10), span)
    assert_close(mean, torch.tensor(wanted).view(4, 1, 1, 1).expand_as(mean))


def test_hidden_frames_are_left_out_of_the_mean():
    fields = torch.rand(4, 2, 8, 10, generator=torch.Generator().manual_seed(0))
    assert_close(average_along(fields, even(4, 8, 10, hidden=1.0), SPAN), fields)


# objects


def found(flow: Flow, wanted: int) -> torch.Tensor:
    return moving_objects(average_along(residual_motion(flow), flow, SPAN), flow, wanted)


def alike(objects: torch.Tensor, masks: torch.Tensor) -> list[list[float]]:
    """IoU of each object ``(T, K, h, w)`` with each true one."""
    true = (masks[:, 1:] > 0.5).float()
    return [[iou(objects[:, k], true[:, j]) for j in range(true.shape[1])] for k in range(objects.shape[1])]


@pytest.fixture(scope="module")
def apart(synthetic):
    return synthetic.layered(12, 96, 160)


def test_a_pan_alone_has_no_objects(synthetic):
    _, flow = synthetic.pan(6, 72, 120)
    assert found(flow, 3).shape == (6, 0, 72, 120)


def test_two_objects_are_found_the_largest_first(apart):
    objects = found(apart.flow, 3)
    assert objects.shape[1] == 2
    assert set(objects.unique().tolist()) == {0.0, 1.0}
    sizes = objects.sum(dim=(0, 2, 3))
    assert sizes[0] >= sizes[1]
    agreement = torch.tensor(alike(objects, apart.masks))
    assert sorted(agreement.argmax(dim=1).tolist()) == [0, 1]
    assert agreement.amax(dim=1).min() > 0.85
    assert agreement.amin(dim=1).max() < 0.05


def test_one_that_is_wanted_holds_all(apart):
    one, two = (found(apart.flow, wanted) for wanted in (1, 2))
    assert torch.equal(one[:, 0], two.amax(dim=1))


@pytest.mark.parametrize("seed", [0, 1])
def test_objects_keep_their_places_when_they_cross(synthetic, seed):
    clip = synthetic.layered(16, 96, 160, crossing=True, seed=seed)
    objects = found(clip.flow, 2)
    assert objects.shape[1] == 2
    owner = torch.tensor(alike(objects, clip.masks)).argmax(dim=1).tolist()
    assert sorted(owner) == [0, 1]
    for ends in (slice(0, 4), slice(-4, None)):
        for layer, true in enumerate(owner):
            assert iou(objects[ends, layer], (clip.masks[ends, 1 + true] > 0.5).float()) > 0.8


def square_that_moves(by: float, side: int) -> tuple[torch.Tensor, Flow]:
    """Motion of a square that does not leave its place much, over a scene that stands still."""
    flow = even(6, 60, 90)
    here = (slice(None), slice(None), slice(20, 20 + side), slice(30, 30 + side))
    flow.forward[here][:, 0], flow.backward[here][:, 0] = by, -by
    motion = torch.zeros(6, 2, 60, 90)
    motion[here][:, 0] = by
    return motion, flow


@pytest.mark.parametrize(("by", "side", "number"), [(1.0, 20, 1), (0.05, 20, 0), (1.0, 3, 0)])
def test_what_hardly_moves_and_what_is_tiny_is_no_object(by, side, number):
    motion, flow = square_that_moves(by, side)
    assert moving_objects(motion, flow, 2).shape[1] == number


def test_what_moves_in_one_frame_only_is_no_object():
    motion, flow = square_that_moves(1.0, 20)
    motion[:3], motion[4:] = 0.0, 0.0
    assert moving_objects(motion, flow, 2).shape[1] == 0


def boxes(count: int, *, height: int = 60, width: int = 90) -> tuple[torch.Tensor, Flow]:
    """A scene that stands still, to put things that move into."""
    return torch.zeros(count, 2, height, width), even(count, height, width)


def put(motion: torch.Tensor, flow: Flow, frames: range, corner: tuple[int, int], side: int, by: float) -> None:
    """A square that moves ``by`` to the right in each of some frames, its corner (x, y) in frame 0 given."""
    for index in frames:
        left = corner[0] + round(by * index)
        here = (0, slice(corner[1], corner[1] + side), slice(left, left + side))
        motion[index][here] = by
        if index < len(flow):
            flow.forward[index][here] = by
        if index > 0:
            flow.backward[index - 1][here] = -by


def when_seen(objects: torch.Tensor) -> list[list[int]]:
    """Frames in which each object is seen."""
    return [one.flatten(1).any(dim=1).nonzero()[:, 0].tolist() for one in objects.unbind(dim=1)]


def test_what_lasts_too_short_or_is_small_beside_the_others_is_no_object():
    motion, flow = boxes(30)
    put(motion, flow, range(30), (4, 4), 24, 1.0)
    assert when_seen(moving_objects(motion, flow, 4)) == [list(range(30))]
    put(motion, flow, range(10, 12), (4, 40), 16, 2.0)  # of 30 frames, 3 are asked for
    assert when_seen(moving_objects(motion, flow, 4)) == [list(range(30))]
    put(motion, flow, range(30), (4, 40), 6, 2.0)  # a tenth of 24 * 24 is more
    assert when_seen(moving_objects(motion, flow, 4)) == [list(range(30))]


def test_what_comes_by_in_a_long_clip_is_an_object():
    motion, flow = boxes(60)
    put(motion, flow, range(60), (4, 4), 24, 1.0)
    put(motion, flow, range(10, 20), (4, 40), 14, 2.0)
    assert when_seen(moving_objects(motion, flow, 4)) == [list(range(60)), list(range(10, 20))]


def test_what_is_hidden_for_a_while_is_one_object():
    motion, flow = boxes(20)
    put(motion, flow, range(7), (2, 20), 12, 3.0)
    put(motion, flow, range(13, 20), (2, 20), 12, 3.0)
    assert when_seen(moving_objects(motion, flow, 4)) == [[*range(7), *range(13, 20)]]


@pytest.mark.parametrize("pan", [0.0, -10.0])
def test_what_has_left_and_what_comes_later_elsewhere_are_two_objects(pan):
    motion, flow = torch.zeros(20, 2, 60, 90), even(20, 60, 90, pan)
    motion[:3, 0, 5:25, 5:35] = 2.0
    motion[14:, 1, 35:55, 60:85] = 2.0
    assert when_seen(moving_objects(motion, flow, 4)) == [list(range(14, 20)), [0, 1, 2]]


def test_gathering_and_joining_can_be_stopped():
    generator = torch.Generator().manual_seed(0)
    motion, flow = boxes(12, height=144, width=256)
    for index in range(0, 12, 2):  # pairs of frames, so that each thing is seen twice
        for _ in range(40):
            x, y = (int(torch.randint(0, high, (1,), generator=generator)) for high in (240, 128))
            motion[index : index + 2, :, y : y + 14, x : x + 14] = 4 * torch.randn(2, 1, 1, generator=generator)
    told = []
    moving_objects(motion, flow, 3, lambda *step: told.append(step))
    assert told[:12] == [(done, 12, None) for done in range(1, 13)]
    assert set(told[12:]) == {(12, 12, None)}


def test_nothing_given_is_changed(apart):
    kept = apart.flow.forward.clone(), apart.flow.backward.clone(), apart.flow.forward_occlusion.clone()
    found(apart.flow, 2)
    assert torch.equal(apart.flow.forward, kept[0])
    assert torch.equal(apart.flow.backward, kept[1])
    assert torch.equal(apart.flow.forward_occlusion, kept[2])


def test_a_slower_part_that_adjoins_an_object_belongs_to_it():
    """A limb at half the speed makes a mode of its own; of two of them, the one that stands apart is another thing."""
    motion = torch.zeros(6, 2, 60, 90)
    motion[:, 0, 20:40, 30:50] = 2.0
    motion[:, 0, 40:44, 30:34] = 1.0  # 16 pixels: too small to be an object
    motion[:, 0, 5:9, 70:74] = 1.0
    objects = moving_objects(motion, even(6, 60, 90), 1)
    assert objects.shape[1] == 1
    assert bool((objects[:, 0, 20:40, 30:50] == 1.0).all())
    assert bool((objects[:, 0, 40:44, 30:34] == 1.0).all())
    assert float(objects.sum(dim=(2, 3)).max()) == 20 * 20 + 4 * 4


def test_ground_across_the_whole_frame_is_no_object():
    motion = torch.zeros(6, 2, 60, 90)
    motion[:, 0, 25:35] = 2.0
    assert moving_objects(motion, even(6, 60, 90), 1).shape[1] == 0
