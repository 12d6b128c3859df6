"""Every shipped workflow opens in the editor and runs headless: its file is sound, complete, and passes ``check``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_matting import trained

from comfyui_vdp.runner import cli
from comfyui_vdp.runner.graph.check import check, check_files
from comfyui_vdp.runner.graph.read import load
from comfyui_vdp.runner.graph.specs import local_specs
from comfyui_vdp.runner.graph.types import types_fit
from comfyui_vdp.vdp_core.edit.flash_safety import make_safe
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.tasks.inputs import CAUSE

FOLDER = Path(__file__).parents[2] / "workflows"
FILES = sorted(FOLDER.glob("*.json"))
TITLES = {
    "Clip": "LoadFrames",
    "Edit": "LoadFrames",
    "Reference": "LoadFrames",
    "Mask": "LoadFrames",
    "Background": "LoadFrames",
    "Flow": "RAFTFlow",
    "Optimize": "VDPOptimize",
    "Points": "LoadPoints",
    "Saved": "SaveFlow",
    "Result": "SaveFrames",
    "Matte": "SaveFrames",
    "Foreground": "SaveFrames",
    "Network": "MatteVideo",
    "Key": "KeyScreen",
    "Checker": "SaveFrames",
    "Curve": "SaveFrames",
    "BackgroundTexture": "SaveFrames",
    "ForegroundTexture": "SaveFrames",
}

every_workflow = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def nodes_of(path: Path) -> list[dict[str, Any]]:
    return [node for node in json.loads(path.read_text())["nodes"] if node["type"] != "MarkdownNote"]


@every_workflow
def test_the_graph_is_sound(path: Path) -> None:
    specs = local_specs()
    graph = load(path, specs)
    assert check(graph, specs) == []
    # The default paths lead nowhere, so that nobody relights a clip unasked.
    assert check_files(graph, specs)


@every_workflow
def test_the_titles_are_the_agreed_ones(path: Path) -> None:
    titles = {node["title"]: node["type"] for node in nodes_of(path)}
    made = {"flow": "Saved", "flash_safety": "Curve", "matte": "Network", "replace_background_matte": "Network"}
    made["green_screen"] = "Key"
    assert {"Clip", made.get(path.stem, "Optimize"), "Result"} <= set(titles)
    assert all(TITLES.get(title, kind) == kind for title, kind in titles.items())


@every_workflow
def test_it_is_saved_as_the_editor_would(path: Path) -> None:
    specs = local_specs()
    for node in nodes_of(path):
        spec = specs[node["type"]]
        sockets = [entry.name for entry in spec.inputs.values() if not entry.is_widget]
        widgets = [entry for entry in spec.inputs.values() if entry.is_widget]
        assert [entry["name"] for entry in node["inputs"]] == sockets + [entry.name for entry in widgets]
        assert all(entry["type"] == spec.inputs[entry["name"]].type for entry in node["inputs"])
        assert [entry["type"] for entry in node["outputs"]] == list(spec.output_types)
        assert [entry["name"] for entry in node["outputs"]] == list(spec.output_names)
        seeds = sum(bool(entry.options.get("control_after_generate")) for entry in widgets)
        assert len(node["widgets_values"]) == len(widgets) + seeds


@every_workflow
def test_links_agree_at_both_ends(path: Path) -> None:
    workflow = json.loads(path.read_text())
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert workflow["last_node_id"] == max(nodes)
    assert workflow["last_link_id"] == max(link[0] for link in workflow["links"])
    for link, origin, origin_slot, target, target_slot, kind in workflow["links"]:
        assert link in nodes[origin]["outputs"][origin_slot]["links"]
        assert types_fit(nodes[origin]["outputs"][origin_slot]["type"], kind)
        assert nodes[target]["inputs"][target_slot]["link"] == link
        assert types_fit(kind, nodes[target]["inputs"][target_slot]["type"])
    ends = [entry["link"] for node in workflow["nodes"] for entry in node["inputs"] if entry["link"] is not None]
    assert sorted(ends) == sorted(link[0] for link in workflow["links"])


@every_workflow
def test_no_two_nodes_overlap_and_groups_hold_them(path: Path) -> None:
    workflow = json.loads(path.read_text())
    boxes = [
        (*node["pos"], node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]) for node in nodes_of(path)
    ]
    for index, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[index + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
        assert any(
            x <= left and y <= top and right <= x + width and bottom <= y + height
            for x, y, width, height in (group["bounding"] for group in workflow["groups"])
        )


# Runs on small clips


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six dark frames of 96x64 with a second of sound, at 12 frames a second."""
    coarse = 0.3 * torch.rand(1, 1, 9, 13, generator=torch.Generator().manual_seed(0))
    scene = torch.nn.functional.interpolate(coarse, size=(64, 96), mode="bilinear", align_corners=True)[0, 0]
    frames = torch.stack([torch.roll(scene, 2 * i, dims=1) for i in range(6)])[..., None].expand(-1, -1, -1, 3)
    audio = {"waveform": torch.zeros(1, 1, 16_000), "sample_rate": 16_000}
    return video.write_clip(tmp_path / "clip", frames.contiguous(), fps=12, audio=audio)


def run(path: Path, output: Path, *settings: str) -> list[str]:
    pairs = [part for setting in settings for part in ("--set", setting)]
    return ["run", str(path), "--output-dir", str(output), "--device", "cpu", "--quiet", *pairs]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_relight_keeps_length_rate_and_sound(
    clip: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"Clip.path={clip}", "Optimize.preset=fast", "Flow.model=dis", f"Result.format={kind}"]
    assert cli.main(run(FOLDER / "relight.json", tmp_path / "out", *settings)) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    result = video.read_clip(output)
    assert result.frames.shape == (6, 64, 96, 3)
    assert result.frames.mean() > 0.15  # the mean of the dark clip
    if kind == "mp4":
        assert result.fps == 12
        assert result.audio is not None


@pytest.mark.slow
def test_the_clip_follows_one_graded_still(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = video.read_clip(clip).frames
    graded = (source * 2.0).clamp(0.0, 1.0)
    still = video.write_clip(tmp_path / "still", graded[:1], fps=1, format="png") / "00000.png"
    settings = [f"Clip.path={clip}", f"Reference.path={still}", "Optimize.preset=fast", "Flow.model=dis"]
    path = FOLDER / "relight_to_reference.json"
    assert cli.main(run(path, tmp_path / "out", *settings, "Result.format=png")) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    result = video.read_clip(output).frames
    assert (result - graded).abs().mean() < 0.5 * (source - graded).abs().mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edit_frame", "edit_atlas"])
def test_what_is_painted_is_in_every_frame(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A white square on a clip that moves right by 2 pixels a frame, as a picture with alpha."""
    alpha = torch.zeros(1, 64, 96)
    alpha[0, 20:36, 40:56] = 1.0
    over = video.write_clip(tmp_path / "over", torch.ones(1, 64, 96, 3), fps=1, format="png", alpha=alpha)
    settings = [f"Clip.path={clip}", f"Edit.path={over}", "Optimize.preset=fast", "Optimize.steps=20", "Flow.model=dis"]
    assert cli.main(run(FOLDER / f"{name}.json", tmp_path / "out", *settings, "Result.format=png")) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    source, result = video.read_clip(clip).frames, video.read_clip(output).frames
    white = (result > 0.9).all(dim=-1)
    first = white.any(dim=1).float().argmax(dim=1)
    assert (first - (first[0] + 2 * torch.arange(6))).abs().max() <= 1
    assert all(180 < int(count) < 330 for count in white.sum(dim=(1, 2)))
    assert torch.equal(result[:, 50:], (source[:, 50:] * 255).round() / 255)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Of a network that sees something everywhere."""
    path = tmp_path / "rvm_mobilenetv3.pth"
    torch.save(trained("mobilenetv3").state_dict(), path)
    return path


def test_people_come_over_a_colour_with_their_matte_and_their_own_colours(
    clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = [f"{title}.format=png" for title in ("Result", "Matte", "Foreground")]
    settings = [f"Clip.path={clip}", f"Network.weights={weights}", "Network.downsample_ratio=0.5", *formats]
    assert cli.main(run(FOLDER / "matte.json", tmp_path / "out", *settings)) == 0
    files = json.loads(capsys.readouterr().out)["outputs"]
    made = {Path(file).name.rpartition("_")[0]: video.read_clip(file) for file in files}
    assert set(made) == {"composited", "matte", "foreground"}
    matte = made["matte"].frames[..., :1]
    assert 0.05 < matte.mean() < 0.95
    foreground = made["foreground"]
    assert foreground.has_alpha
    assert (foreground.alpha[..., None] - matte).abs().max() < 1e-2
    green = torch.tensor([120.0, 255.0, 155.0]) / 255.0
    expected = matte * foreground.frames + (1.0 - matte) * green
    assert (made["composited"].frames - expected).abs().max() < 1.5e-2  # three roundings to 8 bits


def test_people_come_over_another_background(
    clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    white = video.write_clip(tmp_path / "white", torch.ones(1, 30, 40, 3), fps=1, format="png") / "00000.png"
    settings = [f"Clip.path={clip}", f"Background.path={white}", f"Network.weights={weights}", "Result.format=png"]
    assert cli.main(run(FOLDER / "replace_background_matte.json", tmp_path / "out", *settings, "Matte.format=png")) == 0
    files = json.loads(capsys.readouterr().out)["outputs"]
    made = {Path(file).name.rpartition("_")[0]: video.read_clip(file).frames for file in files}
    nobody = made["matte"][..., 0] == 0.0
    assert made["composited"][nobody].eq(1.0).all()
    assert made["composited"].shape == (6, 64, 96, 3)


def test_a_green_screen_gives_way_to_another_background(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = torch.tensor([0.2, 0.6, 0.25]).repeat(3, 64, 96, 1)
    frames[:, 16:48, 30:66] = torch.tensor([0.7, 0.5, 0.4])
    clip = video.write_clip(tmp_path / "clip", frames, fps=12, format="png")
    white = video.write_clip(tmp_path / "white", torch.ones(1, 30, 40, 3), fps=1, format="png") / "00000.png"
    formats = [f"{title}.format=png" for title in ("Result", "Matte", "Foreground")]
    settings = [f"Clip.path={clip}", f"Background.path={white}", *formats]
    assert cli.main(run(FOLDER / "green_screen.json", tmp_path / "out", *settings)) == 0
    files = json.loads(capsys.readouterr().out)["outputs"]
    made = {Path(file).name.rpartition("_")[0]: video.read_clip(file) for file in files}
    assert set(made) == {"composited", "matte", "foreground"}
    matte, result = made["matte"].frames[..., 0], made["composited"].frames
    assert matte[:, :12].eq(0.0).all()
    assert matte[:, 18:46, 32:64].eq(1.0).all()
    assert result[matte == 0.0].eq(1.0).all()
    assert (result[:, 18:46, 32:64] - frames[:, 18:46, 32:64]).abs().max() < 1.5e-2
    assert made["foreground"].has_alpha


def test_without_weights_a_workflow_says_where_to_get_them(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert cli.main(run(FOLDER / "matte.json", tmp_path / "out", f"Clip.path={clip}")) == 1
    said = capsys.readouterr().err.strip()
    assert "licence GPL-3.0" in said
    assert "\n" not in said


def test_flow_gives_one_file_in_pixels_of_the_clip(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clip moves right by 2 pixels a frame; its motion is estimated on a copy of a third of the size."""
    settings = [f"Clip.path={clip}", "Flow.model=dis", "Flow.max_side=32", "Result.format=png"]
    assert cli.main(run(FOLDER / "flow.json", tmp_path / "out", *settings)) == 0
    files = json.loads(capsys.readouterr().out)["outputs"]
    (saved,) = (file for file in files if file.endswith(".npz"))
    with np.load(saved, allow_pickle=False) as arrays:
        assert all(arrays[name].shape == (5, 2, 64, 96) for name in ("forward", "backward"))
        masks = [arrays[f"{way}_{kind}"] for way in ("forward", "backward") for kind in ("occlusion", "confidence")]
        assert all(mask.shape == (5, 64, 96) and 0 <= mask.min() <= mask.max() <= 1 for mask in masks)
        middle = np.s_[:, :, 16:-16, 16:-16]
        assert np.abs(np.median(arrays["forward"][middle], axis=(0, 2, 3)) - (2.0, 0.0)).max() < 0.3
        assert np.abs(np.median(arrays["backward"][middle], axis=(0, 2, 3)) - (-2.0, 0.0)).max() < 0.3
    (colours,) = (file for file in files if file != saved)
    assert video.probe(colours).frame_count == 6


def test_a_strobe_is_lowered_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five flashes a second of the clip's own rate, which no widget is told."""
    bright = torch.tensor([float(index // 5 % 2) for index in range(60)])
    strobe = bright.view(-1, 1, 1, 1).expand(-1, 64, 96, 3)
    clip = video.write_clip(tmp_path / "clip", strobe, fps=50, quality=95)
    settings = [f"Clip.path={clip}", "Result.format=png"]
    assert cli.main(run(FOLDER / "flash_safety.json", tmp_path / "out", *settings)) == 0
    files = {Path(file).name.removesuffix("_00001"): file for file in json.loads(capsys.readouterr().out)["outputs"]}
    (chart,) = (file for name, file in files.items() if name.startswith("curve"))
    (safe,) = (file for name, file in files.items() if name.startswith("safe"))
    assert video.read_clip(chart).frames.shape == (1, 480, 960, 3)
    made = video.read_clip(safe).frames
    assert made.shape == strobe.shape
    assert make_safe(made, 50.0).report["before"]["passes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deflicker", "old_film"])
def test_a_clip_that_flickers_is_steady_and_its_curve_is_drawn(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The clip moves, and every other frame has a third less light."""
    truth = 2.0 * video.read_clip(clip).frames
    gain = torch.tensor([1.0, 0.7] * 3).view(-1, 1, 1, 1)
    folder = video.write_clip(tmp_path / "bad", gain * truth, fps=12, format="png")
    settings = [f"Clip.path={folder}", "Flow.model=dis", "Optimize.preset=fast", "Result.format=png"]
    assert cli.main(run(FOLDER / f"{name}.json", tmp_path / "out", *settings)) == 0
    files = {
        Path(file).name.removesuffix("_00001"): file
        for file in json.loads(capsys.readouterr().out.splitlines()[-1])["outputs"]
    }
    assert video.read_clip(files["curve"]).frames.shape == (1, 480, 960, 3)
    (made,) = (video.read_clip(file).frames for name, file in files.items() if name != "curve")
    before, after = (
        (frames.mean(dim=(1, 2, 3)) / truth.mean(dim=(1, 2, 3))).log().std() for frames in (gain * truth, made)
    )
    assert after < 0.3 * before


@pytest.mark.slow
@pytest.mark.parametrize("cause", CAUSE.options["choices"])
def test_every_cause_can_be_chosen(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cause: str) -> None:
    settings = [f"Clip.path={clip}", "Flow.model=dis", "Optimize.preset=fast", f"Optimize.cause={cause}"]
    assert cli.main(run(FOLDER / "deflicker.json", tmp_path / "out", *settings)) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["outputs"]) == 2


@pytest.mark.slow
def test_atlas_gives_the_clip_again_and_each_layer_as_one_picture(
    synthetic: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rendered = synthetic.layered(6, 64, 96, objects=1)
    clip = video.write_clip(tmp_path / "clip", rendered.frames, fps=12, format="png")
    settings = [f"Clip.path={clip}", "Flow.model=dis", "Optimize.preset=fast", "Optimize.steps=40"]
    clips = [f"{title}.format=png" for title in ("Result", "Matte", "Checker")]
    assert cli.main(run(FOLDER / "atlas.json", tmp_path / "out", *settings, *clips)) == 0
    files = {Path(file).name: file for file in json.loads(capsys.readouterr().out)["outputs"]}
    made = {name.removesuffix("_00001"): video.read_clip(file).frames for name, file in files.items()}
    assert made.keys() == {"atlas", "atlas_matte", "checker", "texture_background", "texture_foreground"}
    assert psnr(made["atlas"], rendered.frames) > 30.0
    assert (made["atlas_matte"][..., 0] - rendered.masks[:, 1]).abs().mean() < 0.05
    assert made["checker"].shape == made["atlas"].shape
    assert psnr(made["checker"], rendered.frames) < 15.0
    count, height, width, _ = made["texture_background"].shape
    assert count == 1 and height >= 64 and width >= 96
    assert len(made["texture_foreground"]) == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["Clip.path=nowhere.mp4"], "vdp: Clip (LoadFrames): path: there is no such file or folder"),
        (["Clip.path="], "vdp: Clip (LoadFrames): path is empty; give a video file"),
        (["Clip.count=1"], "got 1 frame, motion needs at least two frames"),
        (["Clip.start=100"], "vdp: Clip (LoadFrames): "),
        (["Optimize.steps=-1"], "vdp: Optimize (VDPOptimize): steps must be a whole number from 0"),
        (
            ["Optimize.cause=ghosts"],
            "vdp: Optimize (VDPOptimize): cause must be one of auto, mains, time-lapse, film, seams, cartoon",
        ),
        (
            ["Result.format=avi"],
            "vdp: Result (SaveFrames): format must be one of mp4, webm, prores4444, png, exr, h265, got 'avi'",
        ),
        (["Result.quality=high"], "vdp: Result (SaveFrames): quality must be a whole number from 1 to 100, got 'high'"),
    ],
)
def test_bad_input_gets_a_sentence(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], sentence: str
) -> None:
    arguments = run(FOLDER / "relight.json", tmp_path / "out", f"Clip.path={clip}", "Flow.model=dis", *settings)
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not list((tmp_path / "out").rglob("*.*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_leaves_no_half_file(clip: Path, tmp_path: Path, name: str) -> None:
    program = "import sys; from comfyui_vdp.runner.cli import main; sys.exit(main(sys.argv[1:]))"
    settings = [f"Clip.path={clip}", "Optimize.preset=paper", "Optimize.steps=10000", "Flow.model=dis"]
    arguments = run(FOLDER / "relight.json", tmp_path / "out", *settings)
    arguments.remove("--quiet")
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "RAFTFlow" not in process.stderr.readline():  # it runs now, and fits next
        assert process.poll() is None
    time.sleep(1.0)
    os.kill(process.pid, getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.strip().endswith("vdp: interrupted")
    assert not list((tmp_path / "out").rglob("*"))
