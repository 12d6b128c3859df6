"""Points and tracks as text, of this pack and of other programs."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit.points import Point, Tracks
from comfyui_vdp.vdp_core.edit.track_files import (
    FORMATS,
    parse_points,
    parse_tracks,
    read_points,
    save_tracks,
    tracks_text,
)
from comfyui_vdp.vdp_core.errors import InputError, MediaError


@pytest.fixture
def tracks() -> Tracks:
    """Two points in three frames of 64x48; the second comes into the frame and is seen there."""
    xy = torch.tensor([[[12.5, 40.0], [13.0, 39.25], [14.0, 38.5]], [[-3.125, 7.0], [-1.0, 7.0], [1.5, 7.0]]])
    return Tracks(xy, torch.tensor([[True, True, False], [False, False, True]]), (48, 64))


def test_points_are_read_as_they_stand():
    text = '[{"frame": 0, "x": 12.5, "y": 80}, {"frame": 3.0, "x": -1, "y": 0, "name": "nose"}]'
    assert parse_points(text) == [Point(0, 12.5, 80.0), Point(3, -1.0, 0.0)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "points: is not JSON (line 1: Expecting value)"),
        ('[{"frame": 0,', "points: is not JSON (line 1: "),
        ("[" * 100_000, "points: is not JSON (nested too deep)"),
        ('{"frame": 0, "x": 1, "y": 2}', "points: a list of points needed, got an object"),
        ("[]", "points: the list is empty"),
        ("[[0, 1, 2]]", "points: point 0 is a list"),
        ('[{"frame": 0, "x": 1, "y": 2}, {"frame": 0}]', "points: point 1 has no x and no y"),
        ('[{"frame": -1, "x": 1, "y": 2}]', "points: point 0: frame must be a whole number from 0 on, got -1"),
        ('[{"frame": 0.5, "x": 1, "y": 2}]', "points: point 0: frame must be a whole number from 0 on, got 0.5"),
        ('[{"frame": true, "x": 1, "y": 2}]', "points: point 0: frame must be a whole number from 0 on, got True"),
        ('[{"frame": 0, "x": NaN, "y": 2}]', "points: point 0: x must be a number of pixels, got nan"),
        ('[{"frame": 0, "x": 1, "y": Infinity}]', "points: point 0: y must be a number of pixels, got inf"),
        ('[{"frame": 0, "x": "1", "y": 2}]', "points: point 0: x must be a number of pixels, got '1'"),
        ('[{"frame": 0, "x": null, "y": 2}]', "points: point 0: x must be a number of pixels, got None"),
    ],
)
def test_what_are_no_points_is_refused_in_a_sentence(text, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)) as refused:
        parse_points(text)
    assert "\n" not in str(refused.value)


def test_json_holds_what_scripts_ask_for(tracks):
    assert json.loads(tracks_text(tracks)) == {
        "tracks": [
            {"xy": [[12.5, 40.0], [13.0, 39.25], [14.0, 38.5]], "visible": [True, True, False]},
            {"xy": [[-3.125, 7.0], [-1.0, 7.0], [1.5, 7.0]], "visible": [False, False, True]},
        ],
        "size": [64, 48],
    }


def test_after_effects_counts_from_the_corner(tracks):
    text = tracks_text(tracks, "after effects", fps=23.976)
    assert text.startswith("Adobe After Effects 8.0 Keyframe Data\r\n\r\n\tUnits Per Second\t23.976\r\n")
    assert text.count("End of Keyframe Data") == 2
    assert "\tSource Width\t64\r\n\tSource Height\t48\r\n" in text
    assert "Transform\tPosition\r\n\tFrame\tX pixels\tY pixels\tZ pixels\t\r\n\t0\t13.000\t40.500\t0\t\r\n" in text
    assert "Transform\tOpacity\r\n\tFrame\tpercent\t\r\n\t0\t100\t\r\n\t1\t100\t\r\n\t2\t0\t\r\n" in text


def test_nuke_counts_from_below(tracks):
    text = tracks_text(tracks, "nuke")
    assert text.startswith("Tracker4 {")
    assert '{curve x0 1 1 0} "track 1" {curve x0 13 13.500 14.500} {curve x0 7.500 8.250 9}' in text
    assert "{ 1 31 2 }" in text
    assert text.count("{") == text.count("}")
    # a cell for each column of the table
    row = next(line for line in text.splitlines() if '"track 1"' in line)
    assert len(re.findall(r'\{curve [^{}]*\}|\{\}|"[^"]*"|-?\d+', row[3:-2])) == 31


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_comes_back(tracks, tmp_path, format):
    file = save_tracks(tracks_text(tracks), tmp_path / "a", format=format, fps=25.0)
    assert file == tmp_path / f"a_00001{FORMATS[format]}"
    assert save_tracks(tracks_text(tracks), tmp_path / "a", format=format).name == f"a_00002{FORMATS[format]}"
    found = parse_tracks(file.read_text(encoding="utf-8"))
    assert_close(found.xy, tracks.xy, atol=2e-3, rtol=0)
    assert torch.equal(found.visible, tracks.visible)
    assert found.size == tracks.size
    first = parse_points(read_points(file))
    assert [point.frame for point in first] == [0, 2]
    assert first[1].x == pytest.approx(1.5, abs=2e-3)


def test_keyframes_of_position_alone_are_seen_everywhere(tracks):
    text = tracks_text(tracks, "after effects")
    found = parse_tracks(re.sub(r"Transform\tOpacity.*?(?=End of)", "", text, flags=re.DOTALL))
    assert found.visible.all()
    assert_close(found.xy, tracks.xy, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("visible", "v"),
        lambda text: text.replace("[14.0, 38.5]", "[14.0]"),
        lambda text: text.replace("[14.0, 38.5]", "[NaN, 38.5]"),
        lambda text: text.replace(", [14.0, 38.5]", ""),
        lambda text: text.replace('"size": [64, 48]', '"size": 64'),
    ],
)
def test_damaged_tracks_are_refused(tracks, damage):
    with pytest.raises(InputError, match="tracks: the tracks are damaged"):
        parse_tracks(damage(tracks_text(tracks)))


def test_files_that_hold_no_points_are_refused(tracks, tmp_path):
    file = tmp_path / "a.json"
    for content, sentence in (
        (b"\xff\xfe\x00", "a.json: is not text"),
        (b"hello", "a.json: holds neither points nor tracks"),
        (b"", "a.json: holds neither points nor tracks"),
        (b'[{"frame": 0}]', "a.json: point 0 has no x and no y"),
        (tracks_text(tracks, "nuke").replace("label", "note").encode(), "copy Root with it"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(sentence)):
            read_points(file)
    with pytest.raises(MediaError, match="cannot be read"):
        read_points(tmp_path / "b.json")


def test_settings_that_cannot_be_are_refused(tracks):
    with pytest.raises(InputError, match="expected one of json, nuke, after effects, got 'mocha'"):
        tracks_text(tracks, "mocha")
    with pytest.raises(InputError, match="fps: a rate above 0 needed, got 0"):
        tracks_text(tracks, fps=0.0)
