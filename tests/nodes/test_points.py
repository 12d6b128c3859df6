from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.points import LoadPoints, SaveTracks, TrackPoints
from comfyui_vdp.vdp_core.edit.track_files import FORMATS
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.types import Layers

COUNT, HEIGHT, WIDTH = 5, 40, 64
POINTS = json.dumps([{"frame": 0, "x": 20.0, "y": 10.0}, {"frame": 3, "x": 70.0, "y": 30.0}])


@pytest.fixture
def said(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(host.headless, "say", lines.append)
    return lines


@pytest.fixture
def output(monkeypatch, tmp_path):
    monkeypatch.setattr(host.headless, "output_folder", tmp_path)
    return tmp_path


@pytest.fixture
def layers(synthetic) -> Layers:
    """A pan of whole pixels, two a frame, as one background; its texture is the scene."""
    frames, _ = synthetic.pan(COUNT, HEIGHT, WIDTH, motion=(2.0, 0.0))
    wide = WIDTH + 2 * (COUNT - 1)
    masks = torch.zeros(COUNT, 2, HEIGHT, WIDTH)
    masks[:, 0] = 1.0
    x = torch.stack([torch.tensor([0.5, WIDTH - 0.5]) + 2 * index for index in range(COUNT)]) / wide
    y = torch.tensor([0.5, HEIGHT - 0.5]) / HEIGHT
    mapping = torch.stack((x[:, None, :].expand(-1, 2, -1), y[:, None].expand(COUNT, 2, 2)), dim=1)
    texture = torch.ones(4, HEIGHT, wide)
    texture[:3] = torch.cat((frames[0], frames[-1][:, WIDTH - wide :]), dim=1).movedim(-1, 0)
    fields = {
        "masks": masks,
        "mapping": mapping[:, None].expand(-1, 2, -1, -1, -1).contiguous(),
        "light": torch.zeros(COUNT, 3, 4, 7),
    }
    return Layers("atlas", fields, frames, assets={"texture_0": texture, "texture_1": torch.zeros(4, 2, 2)})


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    assert list(LoadPoints.INPUT_TYPES()["required"]) == ["path"]
    assert list(TrackPoints.INPUT_TYPES()["required"]) == ["layers", "points"]
    assert list(SaveTracks.INPUT_TYPES()["required"]) == ["tracks", "filename_prefix", "format", "fps"]
    assert SaveTracks.INPUT_TYPES()["required"]["format"][0] == list(FORMATS)
    for node in (LoadPoints, TrackPoints, SaveTracks):
        assert all(spec[1]["tooltip"] for spec in node.INPUT_TYPES()["required"].values())
        assert len(getattr(node, "OUTPUT_TOOLTIPS", ())) == len(node.RETURN_TYPES)


def test_points_go_in_and_tracks_come_out(said, output, layers):
    (output / "points.json").write_text(POINTS)
    (points,) = LoadPoints().load(str(output / "points.json"))
    tracks, drawn = TrackPoints().track(layers, points)
    assert drawn.shape == layers.frames.shape
    first, second = json.loads(tracks)["tracks"]
    assert first["xy"] == [
        [pytest.approx(20.0 - 2 * index, abs=0.2), pytest.approx(10.0, abs=0.2)] for index in range(5)
    ]
    assert first["visible"] == [True] * COUNT
    # outside in its own frame, where the camera has yet to go
    assert second["xy"][3] == [70.0, 30.0]
    assert second["visible"][:4] == [False] * 4
    saved = SaveTracks().save(tracks, "a/tracks", "json")["ui"]["vdp_outputs"]
    assert saved == ["a/tracks_00001.json"]
    assert json.loads((output / saved[0]).read_text()) == json.loads(tracks)
    assert said[0] == "read: 2 points of points.json"
    assert re.fullmatch(
        r"warning: 1 point outside the frame: followed all the same, never seen\n?.*"
        r"tracked: 2 points in 5 frames of 64x40, seen in \d+ %, \d+\.\d s on cpu",
        said[1],
        re.DOTALL,
    )
    assert said[2] == "saved: a/tracks_00001.json, 2 points in 5 frames"


def test_opacity_goes_along(said, layers):
    alpha = torch.rand(COUNT, HEIGHT, WIDTH)
    _, drawn = TrackPoints().track(replace(layers, alpha=alpha), POINTS)
    assert host.alpha_of(drawn) is alpha


def test_it_runs_under_inference_mode(said, layers):
    with torch.inference_mode():
        tracks, _ = TrackPoints().track(layers, POINTS)
    assert len(json.loads(tracks)["tracks"]) == 2


def test_what_cannot_be_followed_is_refused_before_long_work(layers):
    with pytest.raises(InputError, match="points: is not JSON"):
        TrackPoints.foresee(points="nose")
    with pytest.raises(InputError, match="point 0 is of frame 5, the clip has 5"):
        TrackPoints.foresee(layers=layers, points='[{"frame": 5, "x": 1, "y": 1}]')
    with pytest.raises(InputError, match="TrackPoints needs 'atlas'"):
        TrackPoints.foresee(layers=Layers("light", {}, layers.frames))
    assert TrackPoints.foresee(points=POINTS) == (None, None)
    _, frames = TrackPoints.foresee(layers=layers, points=POINTS)
    assert frames.is_meta
    assert frames.shape == layers.frames.shape


def test_paths_are_looked_at_before_anything_runs(output):
    assert LoadPoints.VALIDATE_INPUTS(None) is True
    assert "there is no file of points" in str(LoadPoints.VALIDATE_INPUTS(str(output / "a.json")))
    assert "path is empty" in str(LoadPoints.VALIDATE_INPUTS(" "))
    (output / "a.json").write_text(POINTS)
    assert LoadPoints.VALIDATE_INPUTS(str(output / "a.json")) is True
    assert "outside the output folder" in str(SaveTracks.VALIDATE_INPUTS("../a"))


def test_a_changed_file_is_read_again(output):
    file = output / "a.json"
    file.write_text(POINTS)
    before = LoadPoints.IS_CHANGED(str(file))
    assert LoadPoints.IS_CHANGED(str(file)) == before
    file.write_text(POINTS + " ")
    assert LoadPoints.IS_CHANGED(str(file)) != before
