from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui_vdp.vdp_core.errors import MediaError
from comfyui_vdp.vdp_core.store import lazy as module
from comfyui_vdp.vdp_core.store.lazy import LazyFrames, computed, fits_in_memory, large_empty, remove_left_overs

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


def lazy(walk: Walk, pick: slice | int = slice(0, 3)) -> LazyFrames:
    return LazyFrames.over(walk, tuple(DATA.shape), pick=pick)


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


def test_walking_through_makes_each_frame_once_also_with_looks_back_and_skips(walk):
    clip = lazy(walk)
    for index in range(2, COUNT, 2):
        assert torch.equal(clip[index - 2 : index + 1], COLOUR[index - 2 : index + 1])
    assert walk.starts == [0]
    assert walk.given == COUNT


def test_channels_read_side_by_side_share_the_work(walk):
    colour, alpha = lazy(walk), lazy(walk).picked(3)
    colour = alpha.picked(slice(0, 3))
    assert tuple(alpha.shape) == (COUNT, HEIGHT, WIDTH)
    for index in range(COUNT):
        assert torch.equal(colour[index], DATA[index, ..., :3])
        assert torch.equal(alpha[index], DATA[index, ..., 3])
    assert walk.given == COUNT


def test_a_far_place_is_gone_to_at_once(walk):
    clip = lazy(walk)
    assert torch.equal(clip[0], COLOUR[0])
    assert torch.equal(clip[100], COLOUR[100])
    assert walk.starts == [0, 100]


def test_a_clip_that_has_become_shorter_is_an_error():
    clip = LazyFrames.over(lambda start: iter([DATA[start:3]] if start < 3 else []), tuple(DATA.shape))
    assert torch.equal(clip[2], DATA[2])
    with pytest.raises(MediaError, match="frame 3 is no longer there: the clip changed while it was being read"):
        clip[3]


# what is whole


def test_what_does_not_fit_is_a_file_that_nobody_sees(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "SHARE", 10**12)
    large = large_empty(5, 4, 3)
    assert large.fill_(2.0).sum() == 120.0
    assert not list(tmp_path.iterdir())
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert module.PREFIX in mapped.read_text()
    del large
    if mapped.exists():
        assert module.PREFIX not in mapped.read_text()


def test_what_fits_is_memory():
    assert fits_in_memory(1000)
    assert not fits_in_memory(2**50)
    assert large_empty(2, 3, dtype=torch.float16).dtype == torch.float16


def test_no_room_for_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(
        MediaError, match=r"needs 1048576.0 GiB of temporary space and .* has .* GiB; take fewer frames"
    ):
        large_empty(2**48)
    assert not list(tmp_path.iterdir())


def test_files_of_processes_that_are_gone_are_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left, ours, other = (
        tmp_path / name for name in (f"{module.PREFIX}{gone.stdout.strip()}-a", f"{module.PREFIX}{os.getpid()}-b", "c")
    )
    for file in (left, ours, other):
        file.touch()
    remove_left_overs()
    assert sorted(tmp_path.iterdir()) == sorted((ours, other))


# computed


@pytest.mark.parametrize("share", [1, 10**12])
def test_what_is_computed_is_the_same_at_once_and_later(walk, monkeypatch, share):
    monkeypatch.setattr(module, "SHARE", share)
    told: list[tuple[int, int]] = []
    pictures: list[Callable[[], torch.Tensor]] = []

    def on_step(done: int, total: int, picture: Callable[[], torch.Tensor]) -> None:
        told.append((done, total))
        pictures.append(picture)

    made = computed(walk, tuple(DATA.shape), on_step=on_step)
    assert isinstance(made, LazyFrames) == (share > 1)
    assert torch.equal(made[30:33], DATA[30:33])
    assert torch.equal(made + 0.0, DATA)
    if share == 1:
        assert told[-1] == (COUNT, COUNT)
        assert torch.equal(pictures[0](), DATA[2])
