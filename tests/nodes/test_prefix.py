"""Tokens in the names that results are saved under."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from comfyui_vdp.nodes.host import fill_prefix

NOW = datetime(2026, 3, 5, 14, 7, 9)
PROMPT: dict[str, Any] = {
    "1": {
        "class_type": "LoadFrames",
        "inputs": {"path": "in/a:b.mp4", "start": 3, "rate": 2.0, "half": 0.5, "loop": True},
        "_meta": {"title": "Clip"},
    },
    "2": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
    "3": {
        "class_type": "SaveFrames",
        "inputs": {"frames": ["1", 0], "quality": ["2", 0]},
        "_meta": {"title": "Result"},
    },
    "4": {"class_type": "SaveFrames", "inputs": {"quality": 90}, "_meta": {"title": "LoadFrames"}},
}


def filled(prefix: str, **more: Any) -> str:
    return fill_prefix(prefix, **{"prompt": PROMPT, "size": (640, 360), "now": NOW, **more})


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("plain", "plain"),
        ("%date:yyyy-MM-dd%/clip", "2026-03-05/clip"),
        ("%date:yyyy/MM%/clip", "2026/03/clip"),
        ("%date:yyyyMMdd_hhmmss%", "20260305_140709"),
        ("%date:yy-M-d h:m:s%", "26-3-5 14_7_9"),
        ("%date:yyy%", "yyy"),
        ("%date%", "2026-03-05"),
        ("%year%%month%%day%-%hour%%minute%%second%", "20260305-140709"),
        ("%width%x%height%", "640x360"),
        ("%Clip.start%_%LoadFrames.rate%_%Clip.half%_%Clip.loop%", "3_2_0.5_true"),
        ("%Clip.path%", "in_a_b.mp4"),
        ("%Result.quality%", "7"),  # through a node that holds a value
    ],
)
def test_tokens(prefix: str, name: str) -> None:
    assert filled(prefix) == name


@pytest.mark.parametrize(
    "prefix", ["100%", "50% of 100%", "%nothing%", "%Clip.none%", "%None.start%", "%Result.frames%"]
)
def test_what_means_nothing_stays(prefix: str) -> None:
    assert filled(prefix) == prefix
    assert fill_prefix("%width%_%Clip.start%") == "%width%_%Clip.start%"


def test_a_name_for_search_and_replace_comes_before_type_and_title() -> None:
    workflow = {"nodes": [{"id": 4, "properties": {"Node name for S&R": "Saver"}}, {"id": "1", "properties": None}]}
    assert filled("%Saver.quality%", workflow=workflow) == "90"
    assert filled("%LoadFrames.start%", workflow=workflow) == "3"
    assert filled("%Saver.quality%", workflow={"nodes": 3}) == "%Saver.quality%"


@pytest.mark.parametrize(
    ("value", "name"),
    [("", "_"), ("..", "_"), (" . ", "_"), ("a\0\x1b\n", "a___"), ("\ud800", "_"), ("../../x", ".._.._x")],
)
def test_no_value_leads_out_of_the_folder_or_to_no_name(value: str, name: str) -> None:
    assert filled("%T.text%/%date:../.%", prompt={"1": {"class_type": "T", "inputs": {"text": value}}}) == f"{name}/_/_"


def test_a_long_value_leaves_room_for_the_rest() -> None:
    prompt = {"1": {"class_type": "Text", "inputs": {"text": "long " * 100}}}
    assert filled("%Text.text%", prompt=prompt) == ("long " * 100)[:100]
