from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.windows import Known, blended, known_of, windows


@pytest.mark.parametrize("count", [1, 2, 24, 240, 264, 265, 300, 600, 3000, 2999])
def test_windows_cover_the_shot_and_share_the_overlap(count):
    found = windows(count, 240, 24)
    assert (found[0].start, found[-1].stop) == (0, count)
    for one, other in zip(found, found[1:], strict=False):
        assert one.stop - other.start == 24
    assert all(len(window) <= 240 + 24 for window in found)
    assert len(found) == 1 or max(map(len, found)) - min(map(len, found)) <= 1


def test_a_short_shot_is_one_window():
    assert windows(264, 240, 24) == [range(264)]
    assert len(windows(265, 240, 24)) == 2


def test_a_window_gives_way_to_the_next_in_even_steps():
    one, other = torch.zeros(6, 2), torch.ones(5, 2)
    joined = blended([(range(6), one), (range(3, 8), other)])
    assert_close(joined[:, 0], torch.tensor([0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]))
    assert torch.equal(blended([(range(6), one)]), one)


def test_what_neighbours_know():
    fields = torch.arange(6.0)
    assert known_of(range(6, 12), [(range(6), fields)]) == []
    (known,) = known_of(range(4, 10), [(range(6), fields)])
    assert isinstance(known, Known)
    assert known.frames == slice(0, 2)
    assert known.values.tolist() == [4.0, 5.0]
    (known,) = known_of(range(6), [(range(4, 10), fields)])
    assert known.frames == slice(4, 6)
    assert known.values.tolist() == [0.0, 1.0]
