"""Progress over phases: one total, never back."""

from __future__ import annotations

import pytest

from comfyui_vdp.vdp_core.optim.progress import Progress


class Host:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.progress = Progress(lambda done, total, _: self.told.append((done, total)))


def all_of(progress: Progress, steps: int) -> None:
    for index in range(steps):
        progress(index + 1, steps)


def test_without_phases_steps_are_told_as_they_are():
    host = Host()
    all_of(host.progress, 3)
    assert host.told == [(1, 3), (2, 3), (3, 3)]


def test_phases_of_equal_weight_are_counted_through():
    host = Host()
    for phase in host.progress.phases(1, 1):
        all_of(phase, 3)
    assert host.told == [(done, 6) for done in range(1, 7)]


def test_weights_are_steps_where_they_are_given_as_steps():
    host = Host()
    for phase, steps in zip(host.progress.phases(3, 4), (3, 4), strict=True):
        all_of(phase, steps)
    assert host.told == [(done, 7) for done in range(1, 8)]


def test_phases_have_phases():
    host = Host()
    first, second = host.progress.phases(1, 1)
    for phase in (*first.phases(1, 1), *second.phases(1, 1)):
        all_of(phase, 2)
    assert host.told == [(done, 8) for done in range(1, 9)]


def test_the_total_stays_when_later_phases_have_other_steps():
    host = Host()
    first, second = host.progress.phases(3, 1)
    all_of(first, 6)
    all_of(second, 5)
    assert host.told == [*((done, 8) for done in range(1, 7)), (6, 8), (6, 8), (7, 8), (7, 8), (8, 8)]


def test_a_phase_that_ends_early_or_is_left_out_is_passed_over():
    host = Host()
    first, _, third = host.progress.phases(1, 1, 1)
    first(1, 4)
    all_of(third, 4)
    assert host.told == [(1, 12), (9, 12), (10, 12), (11, 12), (12, 12)]


def test_it_never_goes_back():
    host = Host()
    first, second = host.progress.phases(1, 1)
    second(1, 2)
    first(1, 2)
    assert host.told == [(3, 4), (3, 4)]


def test_a_phase_without_weight_only_lets_the_host_stop():
    class Stop(Exception):
        pass

    host = Host()
    waiting, working = host.progress.phases(0, 1)
    waiting(2, 5)
    all_of(working, 2)
    waiting(3, 5)
    assert host.told == [(0, 5), (1, 2), (2, 2), (2, 2)]

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        Progress(stop).phases(0, 1)[0](1, 2)


def test_previews_are_handed_on():
    seen = []
    (phase,) = Progress(lambda done, total, preview: seen.append(preview)).phases(1)
    picture = object()
    phase(1, 2, lambda: picture)
    phase(2, 2)
    assert seen[0]() is picture
    assert seen[1] is None


def test_nobody_need_listen():
    Progress(None).phases(1, 2)[1](1, 1)
