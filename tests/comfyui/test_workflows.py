"""Every shipped workflow in a real ComfyUI: listed, run, the same as headless, and live."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_set import WORSENED
from plain_matting import trained
from torch import Tensor

from comfyui_vdp.runner import cli
from comfyui_vdp.runner.graph.read import load, to_api
from comfyui_vdp.runner.graph.set import set_value
from comfyui_vdp.runner.graph.specs import local_specs
from comfyui_vdp.vdp_core import metrics
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.tasks import TASKS

pytestmark = [pytest.mark.comfyui, pytest.mark.slow, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[2] / "workflows"
FILES = sorted(FOLDER.glob("*.json"))
LENGTH, HEIGHT, WIDTH, RATE = 6, 96, 160, 12
SAME = 60.0  # dB

every_workflow = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
Settings = Callable[[Path], list[str]]


@pytest.fixture(scope="module")
def settings(comfyui: Any, synthetic: Any) -> Settings:
    """Small clips for every workflow, with a second of sound, and what sets them (as ``vdp run --set`` takes it)."""
    rendered = synthetic.layered(LENGTH, HEIGHT, WIDTH, objects=1)
    folder = comfyui.folder / "input" / "workflows"
    folder.mkdir()
    audio = {"waveform": torch.zeros(1, 1, 16_000), "sample_rate": 16_000}

    def clip(name: str, frames: Tensor) -> Path:
        return video.write_clip(folder / name, frames, fps=RATE, quality=95, audio=audio)

    def still(name: str, frame: Tensor) -> Path:
        return video.write_clip(folder / name, frame[None], fps=1, format="png") / "00000.png"

    plain = clip("plain", rendered.frames)
    weights = folder / "rvm_mobilenetv3.pth"
    torch.save(trained("mobilenetv3").state_dict(), weights)
    points = folder / "points.json"
    points.write_text('[{"frame": 0, "x": 60.5, "y": 40}, {"frame": 5, "x": 80, "y": 48}]')
    clips = {task: clip(task, WORSENED[task](rendered.frames)) for task in TASKS}
    screen = torch.tensor([0.2, 0.6, 0.25])
    clips["green_screen"] = clip("green_screen", rendered.frames.lerp(screen, rendered.masks[:, 0, ..., None]))
    stills = {
        "Reference": still("reference", rendered.frames[0]),
        "Mask": still("mask", rendered.masks[0, 1, ..., None].expand(-1, -1, 3)),
        "Background": still("background", rendered.colours[0, 1].flip(0)),
        "Edit": still("edit", rendered.painted(lambda x, y: (torch.zeros(*x.shape, 3), (y % 32 < 8).float()), 0)[0]),
    }

    def of(path: Path) -> list[str]:
        titles = {node.get("title") for node in json.loads(path.read_text())["nodes"]}
        chosen = next((clip for task, clip in clips.items() if path.stem.startswith(task)), plain)
        files = [f"{title}.path={file}" for title, file in stills.items() if title in titles]
        files += [f"Points.path={points}"] if "Points" in titles else []
        files += [f"Network.weights={weights}"] if "Network" in titles else []
        preset = ["Optimize.preset=fast"] if "Optimize" in titles else []
        flow = ["Flow.model=dis"] if "Flow" in titles else []
        return [f"Clip.path={chosen}", *files, *preset, *flow]

    return of


def arguments(path: Path, output: Path, settings: list[str]) -> list[str]:
    pairs = [part for setting in settings for part in ("--set", setting)]
    return ["run", str(path), "--output-dir", str(output), "--seed", "3", "--quiet", *pairs]


def outputs(path: Path) -> set[str]:
    """Titles of the nodes that write clips, or textures."""
    return {node["title"] for node in json.loads(path.read_text())["nodes"] if node["type"] == "SaveFrames"}


def is_picture(name: str) -> bool:
    """Whether a file, or a node that writes it, is of a texture or a chart: one picture of a size of its own."""
    return "texture" in name.lower() or "curve" in name.lower()


def test_every_workflow_is_a_template_with_a_picture(comfyui: Any) -> None:
    assert set(comfyui.get("/api/workflow_templates")["vdp-nodes"]) == {path.stem for path in FILES}
    for path in FILES:
        where = f"/api/workflow_templates/vdp-nodes/{path.stem}"
        assert comfyui.get(f"{where}.json") == json.loads(path.read_text())
        with urllib.request.urlopen(f"{comfyui.url}{where}.jpg", timeout=30) as response:
            assert response.headers["Content-Type"] == "image/jpeg"
            assert response.read() == path.with_suffix(".jpg").read_bytes()


@every_workflow
def test_it_gives_its_files_and_the_same_frames_as_headless(
    comfyui: Any, settings: Settings, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *more: str) -> list[Path]:
        kinds = {title: "prores4444" if name == "mp4" and title == "Foreground" else name for title in outputs(path)}
        chosen = settings(path) + [f"{title}.format={kind}" for title, kind in kinds.items() if not is_picture(title)]
        output = tmp_path / f"{name}{more[0]}"
        assert cli.main([*arguments(path, output, chosen), *more]) == 0, capsys.readouterr().err
        files = sorted(Path(file) for file in json.loads(capsys.readouterr().out.splitlines()[-1])["outputs"])
        assert sum(file.suffix == ".npz" for file in files) == (path.stem == "flow")
        assert sum(file.suffix == ".json" for file in files) == (path.stem == "track_points")
        return [file for file in files if file.suffix not in (".npz", ".json")]

    there = run("png", "--server", comfyui.url)
    here = run("png", "--device", "cpu")
    assert len(there) == len(here) == len(outputs(path))
    for one, other in zip(there, here, strict=True):
        frames = video.read_clip(one).frames
        assert (len(frames) == 1) if is_picture(one.name) else (frames.shape == (LENGTH, HEIGHT, WIDTH, 3))
        assert frames.std() > 0.02  # not an empty picture
        assert metrics.psnr(frames, video.read_clip(other).frames) > SAME

    for file in run("mp4", "--server", comfyui.url):
        if is_picture(file.name):
            continue
        made = video.read_clip(file)
        assert made.frames.shape == (LENGTH, HEIGHT, WIDTH, 3)
        assert made.fps == RATE
        silent = ("matte", "checker", "foreground")
        assert (made.audio is None) == any(word in file.name for word in silent)


@pytest.mark.parametrize(
    ("name", "setting", "expected"),
    [
        ("relight", "Relight.exposure=0.5", {"Relight", "Result"}),
        ("relight_to_reference", "Relight.strength=0.5", {"Relight", "Result"}),
        ("dehaze", "Dehaze.strength=0.5", {"Dehaze", "Result"}),
        ("segment", "Composite.visibility=0.5", {"Composite", "Result", "Matte"}),
        ("segment_from_mask", "Composite.gain=1", {"Composite", "Result", "Matte"}),
        ("replace_background", "Composite.offset_x=4", {"Composite", "Result", "Matte"}),
        ("atlas", "Composite.gain=0.5", {"Composite", "Result", "Matte", "Checkerboards", "Checker"}),
        ("edit_one_layer", "Surroundings.saturation=0.5", {"Surroundings", "Result", "Matte"}),
        ("edit_frame", "Paint.frame=1", {"Paint", "Result"}),
        ("edit_atlas", "Paint.layer=1", {"Paint", "Result"}),
        ("flow", "Saved.format=flo", {"Saved"}),
        ("deflicker", "Deflicker.strength=0.5", {"Deflicker", "Result", "Curve"}),
        ("old_film", "Deflicker.pivot=1", {"Deflicker", "Result", "Curve"}),
        ("flash_safety", "Result.quality=50", {"Result"}),
        ("track_points", "Tracks.format=nuke", {"Tracks"}),
        ("matte", "Composite.background_colour=#ff0000", {"Composite", "Result"}),
        ("replace_background_matte", "Composite.gain=1", {"Composite", "Result", "Matte"}),
        ("green_screen", "Composite.gain=1", {"Composite", "Result", "Matte"}),
    ],
)
def test_a_slider_runs_its_node_and_what_saves_it(
    queue: Any, settings: Settings, name: str, setting: str, expected: set[str]
) -> None:
    specs = local_specs()
    graph = load(FOLDER / f"{name}.json", specs)
    for first in settings(FOLDER / f"{name}.json"):
        set_value(graph, specs, first)
    queue(to_api(graph))
    assert queue.ran(to_api(graph)) == set()
    set_value(graph, specs, setting)
    assert {graph.nodes[key].title for key in queue.ran(to_api(graph))} == expected
