from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.optim.windows import blended, windows


@pytest.mark.parametrize("count", [1, 2, 24, 240, 264, 265, 300, 600, 3000, 2999])
def test_windows_cover_the_shot_and_share_the_overlap(count):
    found = windows(count, 240, 24)
    assert (found[0].start, found[-1].stop) == (0, count)
    for one, other in itertools.pairwise(found):
        assert one.stop - other.start == 24
    assert all(len(window) <= 240 + 24 for window in found)
    assert len(found) == 1 or max(map(len, found)) - min(map(len, found)) <= 1


def test_a_short_shot_is_one_window():
    assert windows(264, 240, 24) == [range(264)]
    assert len(windows(265, 240, 24)) == 2


def test_a_window_gives_way_to_the_next_in_even_steps():
    one, other = torch.zeros(6, 2), torch.ones(5, 2)
    joined = blended([range(6), range(3, 8)], [one, other])
    assert_close(joined[:, 0], torch.tensor([0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]))
    assert torch.equal(blended([range(6)], [one]), one)


def test_levels_are_those_of_the_window_that_is_sure():
    """Three windows of one rising field, each off by a constant."""
    field = torch.arange(10.0).view(10, 1)
    spans = [range(5), range(3, 8), range(6, 10)]
    parts = [field[span.start : span.stop] + off for span, off in zip(spans, (0.0, 5.0, -2.0), strict=True)]
    assert_close(blended(spans, parts, level_of=0), field)
    assert_close(blended(spans, parts, level_of=1), field + 5.0)
    assert not torch.allclose(blended(spans, parts), field)
