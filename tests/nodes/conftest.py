"""What tests of nodes have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from comfyui_vdp.nodes import host


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the node says; no weights but those that a test puts there."""
    lines: list[str] = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with host.running(host.Headless(device="cpu", say=lines.append)):
        yield lines
