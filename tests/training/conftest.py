"""What tests of trainings have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from comfyui_vdp.training import matte
from comfyui_vdp.vdp_core.optim import fit

Train = Callable[[Path, Callable[[str], None]], Path]
"""Trains four steps in a folder, telling of them, and gives the file of weights."""
CutOff = Callable[[Train], tuple[list[dict[str, Any]], Path, Callable[[str], None]]]


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CutOff:
    """Trains once as a whole and once cut off after two steps: losses and weights are the same.

    Gives what was told of all steps, the weights, and what tells of more.
    """
    monkeypatch.setattr(fit, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(fit, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(matte, "TELL_EVERY", 1)
    lines: list[dict[str, Any]] = []

    def tell(line: str) -> None:
        if "step" in (said := json.loads(line)):
            lines.append(said)

    def stop(line: str) -> None:
        if json.loads(line).get("step") == 2:
            raise KeyboardInterrupt

    def trained_twice(train: Train) -> tuple[list[dict[str, Any]], Path, Callable[[str], None]]:
        whole = train(tmp_path / "whole", tell)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", stop)
        rest = train(tmp_path / "cut", tell)
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 2, 3, 4]
        assert lines[4:] == lines[1:4]
        first, second = load_file(whole), load_file(rest)
        assert all(torch.equal(second[name], value) for name, value in first.items())
        return lines, rest, tell

    return trained_twice
