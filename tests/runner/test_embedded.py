"""Workflows inside pictures, videos and sounds, as ComfyUI and others save them, and other ways to hand one over."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin, features

from comfyui_vdp.runner import cli
from comfyui_vdp.runner.graph.read import load, read, to_api
from comfyui_vdp.runner.graph.types import Graph, GraphError, Link, Specs
from comfyui_vdp.vdp_core.media import clip as video

PIXELS = np.zeros((16, 16, 3), np.uint8)


@pytest.fixture
def workflow() -> dict[str, Any]:
    """The editor's format of Number -> Report, whose value is another than that of ``api_graph``."""
    number = {"id": 1, "type": "Number", "widgets_values": [4, 0, "fixed", "plain", 2.0, "n", False]}
    inputs = [{"name": "number", "type": "NUMBER", "link": 1}]
    report = {"id": 3, "type": "Report", "inputs": inputs, "widgets_values": ["é"]}
    return {"nodes": [{**number, "outputs": [{"type": "NUMBER"}]}, report], "links": [[1, 1, 0, 3, 0, "NUMBER"]]}


def png(path: Path, texts: dict[str, str], *, packed: bool = False, exif: Image.Exif | None = None) -> Path:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text, zip=packed)
    Image.fromarray(PIXELS).save(path, "PNG", pnginfo=info, exif=exif)
    return path


def exif_of(texts: dict[int, str]) -> Image.Exif:
    exif = Image.Exif()
    exif.update(texts)
    return exif


def video_with(path: Path, tags: dict[str, str], codec: str = "libx264", **options: str) -> Path:
    """Two frames."""
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags)
        stream = container.add_stream(codec, rate=Fraction(5))
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(PIXELS, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def value_of(graph: Graph) -> Any:
    return graph.nodes["1"].inputs["value"]


PICTURES: dict[str, Callable[[Path, str, str], Path]] = {
    "png.png": lambda path, prompt, work: png(path, {"prompt": prompt, "workflow": work}),
    "packed.png": lambda path, prompt, work: png(path, {"prompt": prompt, "workflow": work}, packed=True),
    "exif.png": lambda path, prompt, work: png(
        path, {}, exif=exif_of({0x0110: f"prompt:{prompt}", 0x010F: f"workflow:{work}"})
    ),
    "disguised.txt": lambda path, prompt, work: png(path, {"prompt": prompt, "workflow": work}),
    "mp4.mp4": lambda path, prompt, work: video_with(
        path, {"prompt": prompt, "workflow": work}, movflags="use_metadata_tags"
    ),
    "mov.mov": lambda path, prompt, work: video_with(
        path, {"prompt": prompt, "workflow": work}, movflags="use_metadata_tags"
    ),
    "mkv.mkv": lambda path, prompt, work: video_with(path, {"prompt": prompt, "workflow": work}),
    "webm.webm": lambda path, prompt, work: video_with(path, {"PROMPT": prompt, "WORKFLOW": work}, "libvpx-vp9"),
    "comment.mp4": lambda path, prompt, work: video_with(
        path, {"comment": json.dumps({"prompt": prompt, "workflow": json.loads(work)})}
    ),
}


def saved_by_pillow(path: Path, prompt: str, work: str) -> Path:
    exif = exif_of({0x0110: f"prompt:{prompt}", 0x010F: f"Workflow: {work}"})
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


def saved_as_exr(path: Path, prompt: str, work: str) -> Path:
    frames, tags = torch.rand(1, 8, 8, 3), {"prompt": prompt, "workflow": work}
    return video.write_clip(path.with_suffix(""), frames, fps=5, format="exr", metadata=tags) / "00000.exr"


PICTURES["exr.exr"] = saved_as_exr
PICTURES |= dict.fromkeys(["webp.webp", "jpeg.jpg", "tiff.tif"], saved_by_pillow)
if features.check("avif"):
    PICTURES["avif.avif"] = saved_by_pillow


@pytest.mark.parametrize("name", PICTURES)
def test_a_file_that_holds_both_gives_the_graph_that_ran(
    name: str, tmp_path: Path, api_graph: Any, workflow: Any, specs: Specs
) -> None:
    path = PICTURES[name](tmp_path / name, json.dumps(api_graph), json.dumps(workflow))
    graph = load(path, specs)
    assert to_api(graph) == to_api(read(api_graph, specs))
    assert graph.workflow == workflow  # what is saved from it opens in the editor again


@pytest.mark.parametrize(
    "texts",
    [
        lambda prompt, work: {"workflow": work},
        lambda prompt, work: {"prompt": "a cat, masterpiece", "workflow": work},  # of another program
        lambda prompt, work: {"prompt": "{}", "workflow": work},
        lambda prompt, work: {"prompt": prompt[:-20], "workflow": work},
        lambda prompt, work: {"Workflow": json.dumps(json.dumps(json.loads(work)))},
        lambda prompt, work: {"parameters": "{", "Comment": json.dumps({"workflow": work})},
    ],
)
def test_without_a_graph_that_ran_the_editors_is_read(
    texts: Any, tmp_path: Path, api_graph: Any, workflow: Any, specs: Specs
) -> None:
    path = png(tmp_path / "picture.png", texts(json.dumps(api_graph), json.dumps(workflow, ensure_ascii=False)))
    graph = load(path, specs)
    assert value_of(graph) == 4
    assert graph.nodes["3"].inputs == {"number": Link("1", 0), "filename_prefix": "é"}


@pytest.mark.parametrize("kind", [b"tEXt", b"comf"])  # the second in ComfyUI's animated ones
def test_a_text_behind_the_pixels_of_a_png_is_read(kind: bytes, tmp_path: Path, api_graph: Any, specs: Specs) -> None:
    whole = png(tmp_path / "a.png", {}).read_bytes()
    text = b"prompt\0" + json.dumps(api_graph).encode()
    chunk = struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
    end = whole.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(whole[:end] + chunk + whole[end:])
    assert value_of(load(tmp_path / "a.png", specs)) == 3
    (tmp_path / "a.png").write_bytes(whole[:end] + chunk[:-9])
    with pytest.raises(GraphError, match="no workflow is in it"):
        load(tmp_path / "a.png", specs)


@pytest.mark.parametrize("format", ["mp4", "webm", "prores4444", "png"])
def test_what_this_pack_saves_can_be_run_again(format: str, tmp_path: Path, api_graph: Any, specs: Specs) -> None:
    path = video.write_clip(
        tmp_path / "clip", torch.rand(2, 16, 16, 3), fps=5, format=format, metadata={"prompt": json.dumps(api_graph)}
    )
    assert value_of(load(path, specs)) == 3


def test_a_sound(tmp_path: Path, api_graph: Any, specs: Specs) -> None:
    with av.open(str(tmp_path / "sound.flac"), "w") as container:
        container.metadata["prompt"] = json.dumps(api_graph)
        stream = container.add_stream("flac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert value_of(load(tmp_path / "sound.flac", specs)) == 3


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp", "clip.mp4", "clip.webm", "broken.mp4"])
def test_files_without_a_workflow_are_named(name: str, tmp_path: Path, specs: Specs) -> None:
    path = tmp_path / name
    if name.startswith("photo"):
        Image.fromarray(PIXELS).save(path)
    else:
        video_with(path, {"title": "{"}, "libvpx-vp9" if name.endswith("webm") else "libx264")
    if name == "broken.mp4":
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(GraphError, match=rf"{name} cannot be read: no workflow is in it"):
        load(path, specs)


def test_a_picture_too_large_to_decode_is_not_decoded(tmp_path: Path, api_graph: Any, specs: Specs) -> None:
    file = io.BytesIO()
    saved_by_pillow(tmp_path / "a.jpg", json.dumps(api_graph), "")
    file.write((tmp_path / "a.jpg").read_bytes())
    size = file.getvalue().rindex(b"\xff\xc0") + 5
    path = tmp_path / "huge.jpg"
    path.write_bytes(file.getvalue()[:size] + struct.pack(">HH", 12_000, 12_000) + file.getvalue()[size + 4 :])
    assert value_of(load(path, specs)) == 3


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_encoding(encoding: str, tmp_path: Path, workflow: Any, specs: Specs) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(workflow, ensure_ascii=False), encoding=encoding)
    assert load(tmp_path / "graph.json", specs).nodes["3"].inputs["filename_prefix"] == "é"


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda api, work: {"prompt": api},
        lambda api, work: {"prompt": api, "client_id": "x", "extra_data": {"extra_pnginfo": {"workflow": work}}},
        lambda api, work: {"prompt": [3, "id", api, {"extra_pnginfo": {"workflow": work}}, ["3"]], "outputs": {}},
        lambda api, work: {"id": {"prompt": [3, "id", api, {"extra_pnginfo": {"workflow": work}}], "status": {}}},
        lambda api, work: [3, "id", api, {"extra_pnginfo": {"workflow": work}}, ["3"]],
        lambda api, work: {"id": "x", "workflow": {"prompt": api, "extra_data": {"extra_pnginfo": {"workflow": work}}}},
    ],
)
def test_requests_jobs_and_entries_of_a_history(wrapped: Any, api_graph: Any, workflow: Any, specs: Specs) -> None:
    graph = read(wrapped(api_graph, workflow), specs)
    assert to_api(graph) == to_api(read(api_graph, specs))
    assert graph.workflow in (workflow, None)


def test_the_editors_format_wrapped(workflow: Any, specs: Specs) -> None:
    assert value_of(read({"workflow": workflow}, specs)) == 4


def test_a_history_of_several_runs_is_refused(api_graph: Any, specs: Specs) -> None:
    entries = {name: {"prompt": [1, name, api_graph, {}]} for name in "ab"}
    with pytest.raises(GraphError, match="a history of 2 runs; give a file with one"):
        read(entries, specs)


def test_reroutes_in_api_format_hand_on_what_they_get(api_graph: Any, specs: Specs) -> None:
    for key, source in (("8", "2"), ("9", "8")):
        api_graph[key] = {"class_type": "ReroutePrimitive|pysssss", "inputs": {"value": [source, 0]}}
    api_graph["3"]["inputs"]["number"] = ["9", 0]
    graph = read(api_graph, specs)
    assert set(graph.nodes) == {"1", "2", "3"}
    assert graph.nodes["3"].inputs["number"] == Link("2", 0)


# The command line


def test_a_result_runs_again_with_the_settings_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    video.write_clip(tmp_path / "clip", torch.rand(3, 16, 16, 3), fps=5)
    graph = {
        "1": {"class_type": "LoadFrames", "inputs": {"path": "none.mp4"}, "_meta": {"title": "Clip"}},
        "2": {"class_type": "SaveFrames", "inputs": {"frames": ["1", 0], "filename_prefix": "copy"}},
    }
    graph["1"]["inputs"] |= {"start": 0, "count": 0, "every_nth": 1, "max_side": 0}
    graph["2"]["inputs"] |= {"format": "mp4", "fps": ["1", 3], "quality": 80}
    Path("graph.json").write_text(json.dumps(graph))
    settings = ["--set", "Clip.path=clip.mp4", "--set", "Clip.count=2"]
    assert cli.main(["run", "graph.json", *settings, "--output-dir", "out", "--quiet"]) == 0
    (first,) = json.loads(capsys.readouterr().out)["outputs"]
    assert cli.main(["run", first, "--output-dir", "again", "--set", "2.format=png", "--quiet"]) == 0
    (second,) = json.loads(capsys.readouterr().out)["outputs"]
    assert len(list(Path(second).glob("*.png"))) == 2
    assert cli.main(["check", second]) == 0
    assert "2 nodes, nothing wrong" in capsys.readouterr().out
