from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from comfyui_vdp.vdp_core.errors import MediaError
from comfyui_vdp.vdp_core.store import lazy as module
from comfyui_vdp.vdp_core.store.lazy import LazyFrames, computed, floats

COUNT, HEIGHT, WIDTH = 120, 6, 8
DATA = torch.rand(COUNT, HEIGHT, WIDTH, 4, generator=torch.Generator().manual_seed(0))


class Walk:
    """Gives DATA from any place on, three frames at a time, and notes where it was started and how far it went."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.given = 0

    def __call__(self, start: int) -> Iterator[torch.Tensor]:
        self.starts.append(start)
        for index in range(start, COUNT, 3):
            run = DATA[index : index + 3]
            self.given += len(run)
            yield run


@pytest.fixture
def walk(monkeypatch) -> Walk:
    monkeypatch.setattr(module, "AT_ONCE", 5 * 4 * 4 * HEIGHT * WIDTH)  # five frames
    return Walk()


def lazy(walk: Walk) -> LazyFrames:
    return LazyFrames.over(walk, tuple(DATA.shape)).cut(..., slice(0, 3))


COLOUR = DATA[..., :3]


def test_it_is_a_tensor_that_says_what_it_is_without_making_a_frame(walk):
    clip = lazy(walk)
    assert isinstance(clip, torch.Tensor)
    assert tuple(clip.shape) == (COUNT, HEIGHT, WIDTH, 3)
    assert (clip.dtype, clip.device.type, clip.ndim, len(clip)) == (torch.float32, "cpu", 4, COUNT)
    assert clip.is_floating_point()
    assert clip.numel() == COLOUR.numel()
    assert clip.cpu() is clip.contiguous() is clip.float() is clip.to("cpu") is clip.to("cpu", torch.float32) is clip
    assert isinstance(clip[10:100], LazyFrames)
    assert repr(clip) == f"LazyFrames({COUNT}, {HEIGHT}, {WIDTH}, 3)"
    assert walk.starts == []


@pytest.mark.parametrize(
    "key",
    [
        5,
        -1,
        slice(3, 6),
        slice(None, None, 40),
        slice(-4, None),
        slice(50, 20),
        (slice(2, 90), slice(None), slice(None, None, 2)),
        (slice(None, None, 30), slice(1, 3)),
        (7, 2),
        (..., 0),
        (..., None),
        (..., slice(2, 3)),
        (slice(None), slice(1, 5), slice(None, None, 3)),
        (slice(None), torch.tensor([0, 2]), slice(None), torch.tensor([1, 1])),
        (3, ..., 1),
        None,
        [3, 99, -1],
        torch.tensor([4, 0]),
        torch.empty(0, dtype=torch.int64),
        slice(5, 110),
        slice(5, 110, 3),
    ],
)
def test_what_is_taken_is_what_a_tensor_gives(walk, key):
    taken = lazy(walk)[key]
    assert taken.shape == COLOUR[key].shape
    assert torch.equal(taken.clone(), COLOUR[key])


def test_a_stretch_of_a_stretch(walk):
    clip = lazy(walk)[10:110][::2]
    assert len(clip) == 50
    assert torch.equal(clip[20:23], COLOUR[50:56:2])
    clip.whole()
    assert torch.equal(clip[20:23], COLOUR[50:56:2])
    assert torch.equal(clip[4], COLOUR[18])


def test_a_place_that_is_not_there(walk):
    for key in (COUNT, [COUNT]):
        with pytest.raises(IndexError):
            lazy(walk)[key]


@pytest.mark.parametrize(
    "use",
    [
        lambda clip: clip + 1.0,
        lambda clip: torch.cat([clip, clip]),
        lambda clip: clip.movedim(-1, 1),
        lambda clip: clip.to(torch.float16),
        lambda clip: torch.from_numpy(np.asarray(clip)),
        lambda clip: torch.from_numpy(clip.numpy()),
        lambda clip: copy.deepcopy(clip),
        lambda clip: torch.stack(list(clip)),
        lambda clip: torch.stack(clip.unbind()),
        lambda clip: torch.where(clip > 0.5, clip, 0.0),
        lambda clip: torch.nn.functional.interpolate(clip.movedim(-1, 1), size=(3, 4), mode="area"),
    ],
)
@pytest.mark.parametrize("inference", [True, False])
def test_whatever_is_done_to_it_is_done_to_all_of_its_frames(walk, use, inference):
    with torch.inference_mode(inference):
        assert torch.equal(use(lazy(walk)), use(COLOUR))


def test_all_frames_are_made_once(walk):
    clip = lazy(walk)
    assert torch.equal(clip * 2.0, COLOUR * 2.0)
    assert float(clip.max()) == float(COLOUR.max())
    assert walk.given == COUNT


@pytest.mark.parametrize(
    "steps",
    [
        lambda clip: iter(clip),
        lambda clip: (a for a, _ in zip(clip, clip, strict=True)),
        lambda clip: (frame for _, frame in enumerate(clip)),
        lambda clip: (run[0] for run in clip.runs(3)),
    ],
)
def test_walking_through_makes_no_frame_before_it_is_looked_at_and_lays_nothing_out(walk, monkeypatch, steps):
    monkeypatch.setattr(module, "large_empty", None)  # what lays frames out
    clip = lazy(walk)
    assert torch.equal(next(steps(clip)), COLOUR[0])
    assert walk.given == 3  # the first run of the walk
    for _ in steps(clip):
        pass
    assert walk.given == COUNT


def test_each_frame_is_made_once_also_with_looks_back_and_skips(walk):
    clip = lazy(walk)
    for index in range(2, COUNT, 2):
        assert torch.equal(clip[index - 2 : index + 1], COLOUR[index - 2 : index + 1])
    assert walk.starts == [0]
    assert walk.given == COUNT


def test_what_was_looked_at_is_there_for_looks_back_from_anywhere(walk):
    clip = lazy(walk)
    for frame in clip:
        del frame
    for index in [*range(COUNT - 1, -1, -1), 7, 100, 3]:
        assert torch.equal(clip[index], COLOUR[index])
    assert walk.given == COUNT


def test_channels_read_side_by_side_share_the_work(walk):
    both = LazyFrames.over(walk, tuple(DATA.shape))
    colour, alpha = both.cut(..., slice(0, 3)), both.cut(..., 3)
    assert tuple(alpha.shape) == (COUNT, HEIGHT, WIDTH)
    for index in range(COUNT):
        assert torch.equal(colour[index], DATA[index, ..., :3])
        assert torch.equal(alpha[index], DATA[index, ..., 3])
    assert walk.given == COUNT


@pytest.mark.parametrize("key", [(..., None), (slice(None), slice(1, 5)), (..., slice(0, 2)), slice(5, 110)])
def test_a_part_of_every_frame_of_many_is_not_made_either(walk, key):
    clip = lazy(walk)
    assert isinstance(clip[key], LazyFrames)
    assert walk.given == 0
    assert torch.equal(clip[key][50], COLOUR[key][50])
    assert torch.equal(clip[key] + 0.0, COLOUR[key])


def test_a_few_frames_of_many_are_all_that_is_made(walk):
    clip = lazy(walk)
    assert torch.equal(clip[::30, ::2], COLOUR[::30, ::2])
    assert walk.given == 4 * 3  # runs of three
    assert walk.starts == [0, 30, 60, 90]


def test_a_far_place_is_gone_to_at_once(walk):
    clip = lazy(walk)
    assert torch.equal(clip[0], COLOUR[0])
    assert torch.equal(clip[100], COLOUR[100])
    assert walk.starts == [0, 100]


def test_a_walk_is_let_go_at_its_end():
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    def walk(start: int) -> Iterator[torch.Tensor]:
        buffer = Held()
        held.append(weakref.ref(buffer))
        for index in range(start, COUNT):
            yield DATA[index : index + 1]
        del buffer

    clip = LazyFrames.over(walk, tuple(DATA.shape))
    assert torch.equal(clip[COUNT - 2], DATA[COUNT - 2])
    assert held[0]() is not None
    assert torch.equal(clip[COUNT - 1], DATA[COUNT - 1])
    assert held[0]() is None


def test_a_walk_that_began_in_inference_mode_goes_on_outside_of_it(walk):
    clip = lazy(walk)
    with torch.inference_mode():
        assert torch.equal(clip[0], COLOUR[0])
    assert torch.equal(clip[1].mul_(2.0), COLOUR[1] * 2.0)
    assert torch.equal(clip[30], COLOUR[30])


def test_a_clip_that_has_become_shorter_is_an_error():
    clip = LazyFrames.over(lambda start: iter([DATA[start:3]] if start < 3 else []), tuple(DATA.shape))
    assert torch.equal(clip[2], DATA[2])
    with pytest.raises(MediaError, match="frame 3 is no longer there: the clip changed while it was being read"):
        clip[3]


# computed


@pytest.mark.parametrize("fits", [True, False])
def test_what_is_computed_is_the_same_at_once_and_later(walk, monkeypatch, fits):
    monkeypatch.setattr(module, "fits_in_memory", lambda size: fits)
    told: list[tuple[int, int]] = []
    pictures: list[Callable[[], torch.Tensor]] = []

    def on_step(done: int, total: int, picture: Callable[[], torch.Tensor]) -> None:
        told.append((done, total))
        pictures.append(picture)

    made = computed(walk, tuple(DATA.shape), on_step=on_step)
    assert isinstance(made, LazyFrames) != fits
    assert torch.equal(made[30:33], DATA[30:33])
    assert torch.equal(made + 0.0, DATA)
    if fits:
        assert told[-1] == (COUNT, COUNT)
        assert torch.equal(pictures[0](), DATA[2])


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16])
def test_whole_numbers_as_floats(monkeypatch, fits, kind):
    monkeypatch.setattr(module, "fits_in_memory", lambda size: fits)
    top = torch.iinfo(kind).max
    numbers = torch.tensor([[0, 1], [top - 1, top]]).to(kind)
    made = floats(numbers)
    assert isinstance(made, LazyFrames) != fits
    assert torch.equal(made + 0.0, torch.tensor([[0.0, 1.0 / top], [(top - 1.0) / top, 1.0]]))
