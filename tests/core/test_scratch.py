from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from comfyui_vdp.vdp_core.errors import MediaError
from comfyui_vdp.vdp_core.store import scratch as module
from comfyui_vdp.vdp_core.store.scratch import BACK, Scratch, large_empty, need_room

COUNT, HEIGHT, WIDTH = 400, 2, 3
FRAME = 2 * HEIGHT * WIDTH * 3  # bytes in 16 bits
DATA = torch.randint(0, 256, (COUNT, HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(0)) / 255.0


@pytest.fixture(autouse=True)
def window(monkeypatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 50)


class Walk:
    def __init__(self) -> None:
        self.starts: list[int] = []
        self.given = 0

    def __call__(self, start: int) -> Iterator[torch.Tensor]:
        self.starts.append(start)
        for index in range(start, COUNT):
            self.given += 1
            yield DATA[index : index + 1]


def scratch(walk: Walk, *, keep: int = COUNT, dtype: torch.dtype = torch.uint16, skip: int = 20) -> Scratch:
    return Scratch(walk, tuple(DATA.shape), dtype=dtype, skip=skip, most=keep * FRAME * dtype.itemsize // 2)


def laid(keep: int = COUNT) -> tuple[Scratch, Walk]:
    """A file into which a whole clip was laid, as far as there is room."""
    walk = Walk()
    made = scratch(walk, keep=keep)
    for index, frame in enumerate(DATA):
        if not made.is_full:
            made.lay(index, frame)
    return made, walk


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_frames_come_back_as_they_were(dtype):
    made = scratch(Walk(), dtype=dtype)
    values = torch.tensor([0.0, 1.0, 1 / 3, 0.7]).view(2, 2, 1).expand(2, 2, 3).repeat(1, 2, 1)[:, :3]
    made.lay(5, values)
    assert float((made.frame(5) - values).abs().max()) <= (0.0 if dtype == torch.float32 else 0.5 / 65535 + 1e-7)
    made.lay(6, DATA[0])
    assert torch.equal(made.frame(6), DATA[0])  # 8 bits are exact


def test_every_value_of_8_and_16_bits_is_kept_exactly():
    for top in (255, 65535):
        values = (torch.arange(top + 1) / top).view(1, -1, 1)
        made = Scratch(Walk(), (1, *values.shape), dtype=torch.uint16, skip=1)
        made.lay(0, values)
        assert torch.equal(made.frame(0), values)


def test_a_frame_is_the_callers_to_change():
    made, _ = laid()
    made.frame(3).zero_()
    assert torch.equal(made.frame(3), DATA[3])


def test_a_clip_that_was_laid_down_is_read_from_anywhere_and_never_made_again():
    made, walk = laid()
    for index in [*range(COUNT - 1, -1, -1), 17, 3, 399]:
        assert torch.equal(made.frame(index), DATA[index])
    assert walk.starts == []


def test_of_a_clip_too_long_for_the_disk_the_beginning_stays_and_a_window_slides():
    made, walk = laid(keep=100)
    assert made.is_full
    for _ in range(2):
        walk.given, walk.starts = 0, []
        for index in range(COUNT):
            assert torch.equal(made.frame(index), DATA[index])
            assert torch.equal(made.frame(max(index - 40, 0)), DATA[max(index - 40, 0)])
        assert walk.given <= COUNT - 50 + BACK
        assert len(walk.starts) == 1


def test_it_takes_no_more_than_its_share():
    made, _ = laid(keep=100)
    for index in range(COUNT):
        made.frame(index)
    assert os.fstat(made._file.fileno()).st_size == 100 * FRAME


def test_backwards_costs_a_start_for_every_few_frames_and_no_frame_twice():
    made, walk = laid(keep=100)
    for index in range(COUNT - 1, -1, -1):
        assert torch.equal(made.frame(index), DATA[index])
    assert walk.given <= COUNT
    assert len(walk.starts) <= -(-COUNT // BACK)


def test_a_place_a_little_further_on_is_reached_by_going_on_and_a_far_one_by_starting_there():
    walk = Walk()
    made = scratch(walk)
    made.frame(0), made.frame(20), made.frame(200)
    assert walk.starts == [0, 200]
    assert walk.given == 22


def test_a_disk_that_fills_up_leaves_what_there_is(monkeypatch):
    walk = Walk()
    made = scratch(walk)
    for index in range(30):
        made.lay(index, DATA[index])
    real = made._file

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def write(self, data: memoryview) -> int:
            if real.tell() >= 30 * FRAME:
                raise OSError(28, "No space left on device")
            return real.write(data)

    made._file = Full()
    for index in [*range(COUNT), 0, 200]:
        assert torch.equal(made.frame(index), DATA[index])
    assert os.fstat(real.fileno()).st_size == 30 * FRAME


def test_no_room_at_all_still_gives_frames():
    made = scratch(Walk(), keep=0)
    for index in (0, 1, 5, 3):
        assert torch.equal(made.frame(index), DATA[index])


def test_a_walk_that_ends_early_is_an_error():
    made = Scratch(lambda start: iter([DATA[start:3]] if start < 3 else []), DATA.shape, dtype=torch.uint16, skip=8)
    assert torch.equal(made.frame(2), DATA[2])
    with pytest.raises(MediaError, match="frame 3 is no longer there: the clip changed while it was being read"):
        made.frame(3)


def test_a_walk_that_failed_is_started_again():
    tries: list[int] = []

    def walk(start: int) -> Iterator[torch.Tensor]:
        tries.append(start)
        yield DATA[start : start + 1]
        if len(tries) == 1:
            raise MemoryError
        yield DATA[start + 1 : start + 2]

    made = scratch(walk)
    assert torch.equal(made.frame(0), DATA[0])
    with pytest.raises(MemoryError):
        made.frame(1)
    assert torch.equal(made.frame(1), DATA[1])
    assert tries == [0, 1]


def test_several_threads_read_what_is_there():
    made, wrong = scratch(Walk(), keep=100), []

    def read(order: range) -> None:
        wrong.extend(index for index in order if not torch.equal(made.frame(index), DATA[index]))

    threads = [threading.Thread(target=read, args=(range(start, COUNT, step),)) for start, step in ((0, 1), (3, 7))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# what is whole


@pytest.fixture
def nothing_fits(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(module, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_does_not_fit_is_a_file_that_nobody_sees(nothing_fits):
    large = large_empty(5, 4, 3)
    assert large.fill_(2.0).sum() == 120.0
    assert not list(nothing_fits.iterdir())
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert f"{nothing_fits}/" in mapped.read_text()
    del large
    if mapped.exists():
        assert f"{nothing_fits}/" not in mapped.read_text()


def test_a_process_that_is_killed_leaves_nothing(tmp_path):
    program = (
        "import os, torch\n"
        "from comfyui_vdp.vdp_core.store import scratch\n"
        "scratch.fits_in_memory = lambda size: False\n"
        "large = scratch.large_empty(10, 10)\n"
        "frames = scratch.Scratch(None, (9, 2, 2, 3), dtype=torch.uint16, skip=1)\n"
        "frames.lay(0, torch.zeros(2, 2, 3))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)})
    assert ended.returncode == -9
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fits", [True, False])
def test_what_was_made_in_inference_mode_can_be_written_to_outside_of_it(nothing_fits, monkeypatch, fits):
    monkeypatch.setattr(module, "fits_in_memory", lambda size: fits)
    with torch.inference_mode():
        large = large_empty(2, 3, dtype=torch.float16)
        large[0] = 1.0
    large[1] = 2.0
    assert large.tolist() == [[1.0] * 3, [2.0] * 3]


@pytest.mark.parametrize("memory", [True, False])
def test_no_room_for_it_is_said(nothing_fits, monkeypatch, memory):
    monkeypatch.setattr(module, "lies_in_memory", lambda: memory)
    where = f"{nothing_fits}{', which lies in memory,' if memory else ''}"
    with pytest.raises(
        MediaError, match=rf"needs 1048576.0 GiB of temporary space and {where} has .* GiB; take fewer frames"
    ):
        large_empty(2**48)
    assert not list(nothing_fits.iterdir())


def test_room_that_is_needed_later_is_asked_for_before(nothing_fits, monkeypatch):
    need_room(1000)
    with pytest.raises(MediaError, match=r"needs 1048576\.0 GiB of temporary space"):
        need_room(2**50)
    monkeypatch.setattr(module, "fits_in_memory", lambda size: True)
    need_room(2**50)
