"""Small clips and graphs, and the command line they are run through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_vdp.runner import cli
from comfyui_vdp.vdp_core.media import clip as video

WIDTH, HEIGHT = 64, 48


def moving(count: int, noise: float = 0.0) -> Tensor:
    """A soft dark pattern that goes two pixels a frame, ``(T, H, W, 3)``, with noise that does not compress."""
    across, down = torch.arange(float(WIDTH)), torch.arange(float(HEIGHT))[:, None]
    frames = [0.5 + 0.25 * torch.sin((across + 2 * at) / 3.0) + 0.25 * torch.sin(down / 4.0) for at in range(count)]
    clip = 0.4 * torch.stack(frames)[..., None] * torch.tensor([1.0, 0.9, 0.8])
    return clip + noise * torch.rand(clip.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a clip of so many frames."""

    def write(count: int = 6, name: str = "clip", noise: float = 0.0, **more: Any) -> Path:
        return video.write_clip(tmp_path / name, moving(count, noise), **{"fps": 24, **more})

    return write


@pytest.fixture
def vdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Call the command in an empty folder: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return code, out, err

    return call


@pytest.fixture
def copy(tmp_path: Path, vdp: Callable[..., Any]) -> Callable[..., tuple[int, list[str], str]]:
    """Load a clip and save it: exit code, what was made and stderr."""

    def call(path: Path, kind: str = "png", output: str = "out", **inputs: object) -> tuple[int, list[str], str]:
        load = {"path": str(path), "start": 0, "count": 0, "every_nth": 1, "max_side": 0, **inputs}
        save = {
            "frames": ["1", 0],
            "filename_prefix": "x",
            "format": kind,
            "fps": ["1", 3],
            "quality": 80,
            "audio": ["1", 2],
        }
        graph = {"1": {"class_type": "LoadFrames", "inputs": load}, "2": {"class_type": "SaveFrames", "inputs": save}}
        (tmp_path / "graph.json").write_text(json.dumps(graph))
        code, out, err = vdp("run", "graph.json", "--output-dir", output, "--device", "cpu", "--quiet")
        return code, json.loads(out.splitlines()[-1])["outputs"] if code == 0 else [], err

    return call
