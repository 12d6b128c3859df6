"""Each reader is given damaged files: it reads, or refuses in words; see ``targets.py``."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = ("workflow", "embedded", "layers", "layers_npz", "weights", "flow", "path", "clip", "tiff", "exr", "still")


def test_every_target_is_here(targets: ModuleType) -> None:
    assert tuple(targets.TARGETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_whole_passes(targets: ModuleType, name: str) -> None:
    for seed in targets.TARGETS[name].seeds():
        targets.TARGETS[name].check(seed)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_what_is_damaged(targets: ModuleType, name: str, seed: int) -> None:
    target, chance = targets.TARGETS[name], random.Random(seed)
    data = chance.choice(target.seeds())
    for _ in range(chance.randint(1, 2)):
        data = target.damage(data, chance)
    target.check(data)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_what_is_anything(targets: ModuleType, name: str, data: bytes) -> None:
    targets.TARGETS[name].check(data)
