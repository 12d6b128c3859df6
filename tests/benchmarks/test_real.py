"""The benchmark of real clips: what it says no to, and where its sheets look."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    names = [path.stem for path in FOLDER.glob("*.py")]
    for name in names:  # some of them are those of tests as well
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("real")
    for name in names:
        sys.modules.pop(name, None)
    return module


def figures(**changed: float) -> dict[str, float]:
    names = ("blocks", "bands", "burnt", "crushed", "neon", "colour in black", "noise", "flicker", "brightness")
    return dict.fromkeys(names, 0.1) | {"saturation": 0.3} | changed


@pytest.mark.parametrize(
    ("task", "after", "faults"),
    [
        ("relight", {}, []),
        ("relight", {"blocks": 0.104, "burnt": 0.104, "noise": 0.5, "colour in black": 4.0, "saturation": 0.35}, []),
        ("relight", {"blocks": 0.106, "burnt": 0.106}, ["blocks", "burnt"]),
        ("relight", {"noise": 0.7, "colour in black": 4.2}, ["colour in black", "noise"]),
        ("relight", {"noise": 0.7, "brightness": 0.3}, []),
        ("relight", {"noise": 0.9, "brightness": 0.3}, ["noise"]),
        ("relight", {"saturation": 0.38}, ["saturation"]),
        ("dehaze", {"saturation": 0.45}, []),
        ("dehaze", {"saturation": 0.55}, ["saturation"]),
        ("deflicker", {"flicker": 0.2}, ["flicker"]),
        ("relight", {"flicker": 0.2, "brightness": 0.9}, []),
    ],
)
def test_what_is_over_its_bar(real: ModuleType, task: str, after: dict[str, float], faults: list[str]) -> None:
    assert real.Row("a", task, figures(), figures(**after), 1.0).faults() == faults


def test_the_square_is_where_what_is_dark_or_far_changed_most(real: ModuleType) -> None:
    before = torch.full((32, 48, 3), 0.5)
    before[:8, :8] = 0.0
    before[24:, 40:] = 0.9
    after = before + 0.1
    assert real.changed_most("relight", before, after, 8) == (0, 0)
    assert real.changed_most("dehaze", before, after, 8) == (24, 40)
    after[8:16, 16:24] += 0.2
    assert real.changed_most("deflicker", before, after, 8) == (8, 16)


@pytest.mark.parametrize(("height", "width"), [(36, 64), (64, 36)])
def test_rows_of_a_sheet_are_as_large_as_asked_for(real: ModuleType, height: int, width: int) -> None:
    before = torch.rand(3, height, width, 3)
    part = real.rows("relight", before, before, 128)
    assert part.shape == (2 * 2 * height, 3 * 2 * width + 2 * height, 3)
