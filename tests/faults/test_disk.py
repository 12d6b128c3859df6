"""Disks that are full, folders that may not be written to: what is said, and that nothing half is left."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.models.file import save_layers
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks.driver import decompose

Copy = Callable[..., tuple[int, list[str], str]]
Make = Callable[..., Path]


class Disk:
    """A small file system of its own, which takes the rights to mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "vdp-test", str(self.folder)], check=True, capture_output=True
        )

    def fill(self, but: int) -> None:
        """Leave so many bytes free."""
        import shutil

        (self.folder / "filler").write_bytes(bytes(max(0, shutil.disk_usage(self.folder).free - but)))

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.name != "filler")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if not sys.platform.startswith("linux"):
        pytest.skip("a small disk is made on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = Disk(folder)
    try:
        made.mount("size=4m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no rights to mount a small disk")
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("free", [0, 20_000])
@pytest.mark.parametrize("kind", ["mp4", "webm", "prores4444", "png", "h265"])
def test_a_full_disk(clip: Make, copy: Copy, disk: Disk, kind: str, free: int) -> None:
    path = clip(24, noise=0.5)
    disk.fill(but=free)
    code, _, err = copy(path, kind=kind, output=str(disk.folder))
    assert code == 1
    assert "SaveFrames" in err and ("the disk is full" in err or "No space left on device" in err), err
    assert len(err.splitlines()) == 1
    assert disk.files() == []
    (disk.folder / "filler").unlink()  # with room again
    assert copy(path, kind=kind, output=str(disk.folder))[0] == 0


def test_a_full_disk_under_layers_and_figures(clip: Make, vdp: Callable[..., Any], disk: Disk, tmp_path: Path) -> None:
    frames = video.read_clip(clip(4, noise=0.5)).frames
    path = save_layers(
        decompose("relight", frames, estimate_flow(frames, model="dis"), preset="fast", steps=1),
        tmp_path / "layers.safetensors",
    )
    disk.fill(but=0)
    layers = {"class_type": "LoadLayers", "inputs": {"path": str(path)}}
    keep = {"class_type": "SaveLayers", "inputs": {"layers": ["1", 0], "filename_prefix": "x", "with_frames": True}}
    (tmp_path / "graph.json").write_text(json.dumps({"1": layers, "2": keep}))
    code, _, err = vdp("run", "graph.json", "--output-dir", disk.folder, "--quiet")
    assert code == 1 and "the layers cannot be written" in err and len(err.splitlines()) == 1
    load = {"path": str(clip(4)), "start": 0, "count": 0, "every_nth": 1, "max_side": 0}
    measure = {"frames": ["1", 0], "reference": ["1", 0], "filename_prefix": "x"}
    graph = {"1": {"class_type": "LoadFrames", "inputs": load}, "2": {"class_type": "MeasureVideo", "inputs": measure}}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    code, _, err = vdp("run", "graph.json", "--output-dir", disk.folder, "--quiet")
    assert code == 1 and "cannot be written" in err and len(err.splitlines()) == 1
    assert disk.files() == []


@pytest.mark.parametrize("kind", ["png", "mp4"])
def test_a_full_temporary_folder(
    clip: Make, copy: Copy, disk: Disk, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What was asked for is made; only the preview of a PNG sequence is not."""
    path = clip()
    disk.fill(but=0)
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    code, (made,), _ = copy(path, kind=kind)
    assert code == 0
    assert len(video.read_clip(made).frames) == 6
    assert disk.files() == []


def test_a_disk_that_is_read_only(clip: Make, copy: Copy, disk: Disk) -> None:
    disk.mount("remount,ro")
    code, _, err = copy(clip(), output=str(disk.folder))
    assert code == 1
    assert f"the output folder {disk.folder} cannot be used: {disk.folder} is read-only; choose another" in err
    code, _, err = copy(clip(), output=str(disk.folder / "new"))
    assert code == 1
    assert "read-only" in err.lower() and len(err.splitlines()) == 1


def test_output_that_nobody_takes(clip: Make, tmp_path: Path) -> None:
    """stdout is a pipe that is closed, or a full disk: the run is done, and says so by its exit code."""
    command = [sys.executable, "-m", "comfyui_vdp.runner.cli", "nodes"]
    closed = subprocess.run(f"{' '.join(command)} | head -c 1", shell=True, capture_output=True, text=True)
    assert "Traceback" not in closed.stderr, closed.stderr
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr, done.stderr
