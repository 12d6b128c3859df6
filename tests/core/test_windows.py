from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.optim.fit import Fitted
from comfyui_vdp.vdp_core.optim.progress import Progress
from comfyui_vdp.vdp_core.optim.windows import Window, blended, combined_fit, fit_windows, windows
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL, Journal


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
    combined_fit = blended([range(6), range(3, 8)], [one, other])
    assert_close(combined_fit[:, 0], torch.tensor([0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]))
    assert torch.equal(blended([range(6)], [one]), one)


def test_levels_are_those_of_the_window_that_is_sure():
    """Three windows of one rising field, each off by a constant."""
    field = torch.arange(10.0).view(10, 1)
    spans = [range(5), range(3, 8), range(6, 10)]
    parts = [field[span.start : span.stop] + off for span, off in zip(spans, (0.0, 5.0, -2.0), strict=True)]
    assert_close(blended(spans, parts, level_of=0), field)
    assert_close(blended(spans, parts, level_of=1), field + 5.0)
    assert not torch.allclose(blended(spans, parts), field)


SPANS = [range(4), range(2, 6), range(4, 8)]


class Counting:
    """Each window finds how many were found before it, which is a state handed on."""

    def __init__(self, killed_in: int = -1) -> None:
        self.killed_in = killed_in
        self.visited: list[tuple[int, list[int]]] = []

    def __call__(self, number: int, found: dict[int, Window], journal: Journal, progress: Progress) -> Window:
        self.visited.append((number, list(found)))
        progress(1, 1)
        state = 1 + sum(int(window.fields["state"]) for window in found.values())
        if number == self.killed_in:
            raise KeyboardInterrupt
        return Window({"state": torch.tensor(state)}, {"number": number}, Fitted(number, 0.5, {"a": 1.0}, "plateau"))


def fitted(work: Counting, journal: Journal = NO_JOURNAL, **settings: object) -> list[Window]:
    return fit_windows(SPANS, work, journal=journal, progress=Progress(None), **settings)


def test_windows_are_fitted_in_their_order_and_see_what_was_found():
    work = Counting()
    found = fitted(work)
    assert work.visited == [(0, []), (1, [0]), (2, [0, 1])]
    assert [int(window.fields["state"]) for window in found] == [1, 2, 4]


def test_another_order_gives_the_windows_first_to_last():
    work = Counting()
    found = fitted(work, order=[2, 1, 0])
    assert work.visited == [(2, []), (1, [2]), (0, [2, 1])]
    assert [window.numbers["number"] for window in found] == [0, 1, 2]
    assert combined_fit(found) == Fitted(3, 1.5, {"a": 1.0}, "plateau")


def test_an_order_may_grow_on_the_way():
    order = [1]

    def grow(number: int, window: Window) -> Window:
        order.extend({1: [2, 0]}.get(number, []))
        return window

    work = Counting()
    fit_windows(SPANS, work, order=order, hold=grow, journal=NO_JOURNAL, progress=Progress(None))
    assert [number for number, _ in work.visited] == [1, 2, 0]


def test_only_what_is_held_stays_in_memory():
    laid = {}

    def lay(number: int, window: Window) -> Window:
        laid[number] = int(window.fields["state"])
        return window._replace(fields={"state": torch.tensor(10)})

    found = fitted(Counting(), hold=lay)
    assert laid == {0: 1, 1: 11, 2: 21}
    assert [int(window.fields["state"]) for window in found] == [10, 10, 10]


def test_windows_that_are_there_are_not_fitted_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fitted(Counting(killed_in=2), Journal(tmp_path))
    work = Counting()
    found = fitted(work, Journal(tmp_path))
    assert work.visited == [(2, [0, 1])]
    assert [int(window.fields["state"]) for window in found] == [1, 2, 4]
    assert found[1] == (found[1].fields, {"number": 1}, Fitted(1, 0.5, {"a": 1.0}, "plateau"))


def test_windows_share_the_progress():
    told = []
    fit_windows(SPANS, Counting(), journal=NO_JOURNAL, progress=Progress(lambda *step: told.append(step[:2])))
    assert told == [(1, 3), (2, 3), (3, 3)]
