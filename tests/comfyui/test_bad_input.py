"""What a person is told, and at which node, when a graph is wrong: DESIGN's list, in a real ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from comfyui_vdp.vdp_core.media import clip as video

pytestmark = [pytest.mark.comfyui, pytest.mark.slow, pytest.mark.timeout(600)]

Graph = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def files(comfyui: Any, synthetic: Any) -> Path:
    """A sound clip of six frames of 96x64, and what is wrong with the others, in ComfyUI's input folder."""
    folder = Path(comfyui.folder / "input" / "bad")
    folder.mkdir()
    frames, _ = synthetic.pan(6, 64, 96)
    video.write_clip(folder / "clip", frames, fps=12)
    (folder / "text.mp4").write_text("no video")
    (folder / "text.png").write_text("no picture")
    shape = torch.zeros(6, 64, 96)
    shape[:, 20:40, 30:60] = 1.0
    video.write_clip(folder / "alpha", frames, fps=12, format="png", alpha=shape)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "nothing").mkdir()
    (folder / "sizes").mkdir()
    for index, width in enumerate((96, 96, 90)):
        Image.new("RGB", (width, 64)).save(folder / "sizes" / f"{index}.png")
    Image.new("RGB", (64, 64)).save(folder / "square.png")
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("RGB", (96, 64)).save(folder / "black.png")
    (folder / "corrupt.safetensors").write_bytes(b"\x08" + bytes(40))
    save_file({"weight": torch.zeros(3)}, str(folder / "foreign.safetensors"))
    return folder


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


CLIP: Graph = {"clip": node("LoadFrames", path="bad/clip.mp4")}
FLOW: Graph = {**CLIP, "flow": node("RAFTFlow", frames=["clip", 0], model="dis")}


def layers(task: str, **inputs: Any) -> Graph:
    taken = node(
        "VDPOptimize", frames=["clip", 0], flow=["flow", 0], task=task, **{"preset": "fast", "steps": 2, **inputs}
    )
    return {**FLOW, "layers": taken, "save": node("SaveLayers", layers=["layers", 0])}


def loaded(path: str, **inputs: Any) -> Graph:
    return {"clip": node("LoadFrames", path=path, **inputs), "save": node("SaveFrames", frames=["clip", 0])}


def then(start: Graph, **nodes: dict[str, Any]) -> Graph:
    return {**start, **nodes}


def saved(class_type: str, **inputs: Any) -> Graph:
    """An edit of something, saved."""
    return {"edit": node(class_type, **inputs), "result": node("SaveFrames", frames=["edit", 0])}


def kept(path: str) -> Graph:
    return then(saved("Relight", layers=["load", 0]), load=node("LoadLayers", path=path))


BY_THE_NODE = "custom_validation_failed"  # in its VALIDATE_INPUTS, before anything runs
CASES: dict[str, tuple[Graph, str, str, str]] = {
    # what is wrong: the graph, the node it is said at, what kind of error, what is said
    "no such file": (loaded("bad/nowhere.mp4"), "clip", BY_THE_NODE, "there is no such file or folder"),
    "no path": (loaded(""), "clip", BY_THE_NODE, "path is empty; give a video file"),
    "no match": (loaded("bad/*.tiff"), "clip", BY_THE_NODE, "no file matches this pattern"),
    "no video": (loaded("bad/text.mp4"), "clip", "MediaError", "text.mp4"),
    "empty file": (loaded("bad/empty.mp4"), "clip", "MediaError", "empty.mp4"),
    "empty folder": (loaded("bad/nothing"), "clip", "MediaError", "nothing"),
    "pictures of different sizes": (loaded("bad/sizes"), "clip", "MediaError", "90x64"),
    "start after the end": (loaded("bad/clip.mp4", start=100), "clip", "InputError", "start"),
    "every_nth of nought": (loaded("bad/clip.mp4", every_nth=0), "clip", "value_smaller_than_min", "every_nth"),
    "one frame has no motion": (
        then(FLOW, clip=node("LoadFrames", path="bad/black.png"), show=node("FlowToRGB", flow=["flow", 0]))
        | {"save": node("SaveFrames", frames=["show", 0])},
        "flow",
        "ShapeError",
        "got 1 frame, motion needs at least two frames",
    ),
    "flow of fewer frames": (
        then(layers("relight"), part=node("LoadFrames", path="bad/clip.mp4", count=3))
        | {"flow": node("RAFTFlow", frames=["part", 0], model="dis")},
        "layers",
        "ShapeError",
        "flow",
    ),
    "unknown task": (layers("cartoon"), "layers", BY_THE_NODE, "task: there is no 'cartoon'; known: relight"),
    "steps below nought": (layers("relight", steps=-1), "layers", "value_smaller_than_min", "steps"),
    "reference of another shape": (
        then(layers("relight", reference=["still", 0]), still=node("LoadFrames", path="bad/square.png")),
        "layers",
        "ShapeError",
        "reference",
    ),
    "reference of a frame that is not there": (
        then(
            layers("relight", reference=["still", 0], reference_frame=9),
            still=node("LoadFrames", path="bad/clip.mp4", count=1),
        ),
        "layers",
        "InputError",
        "reference",
    ),
    "reference for another task": (layers("dehaze", reference=["clip", 0]), "layers", "InputError", "reference"),
    "mask of fewer frames": (
        then(layers("segment", mask=["part", 0]), part=node("LoadFrames", path="bad/clip.mp4", count=3)),
        "layers",
        "ShapeError",
        "mask",
    ),
    "mask of a frame that is not there": (
        then(layers("segment", mask=["part", 1], mask_frame=9), part=node("LoadFrames", path="bad/black.png")),
        "layers",
        "InputError",
        "mask_frame",
    ),
    "mask that selects nothing": (
        then(layers("segment", mask=["part", 0]), part=node("LoadFrames", path="bad/black.png")),
        "layers",
        "InputError",
        "mask",
    ),
    "frames of one pixel": (
        then(
            layers("relight"),
            still=node("LoadFrames", path="bad/pixel.png"),
            clip=node("RepeatImageBatch", image=["still", 0], amount=4),
        ),
        "layers",
        "ShapeError",
        "1x1",
    ),
    "layers of another task": (
        then(layers("segment"), **saved("Relight", layers=["layers", 0])),
        "layers",
        "InputError",
        "Relight (node edit): layers: they are of the model 'segment'",
    ),
    "a layer too many": (
        then(layers("segment"), **saved("SplitLayers", layers=["layers", 0], layer=3)),
        "layers",
        "InputError",
        "SplitLayers (node edit): layer: there is no layer 3",
    ),
    "nothing to put together": (saved("Composite"), "edit", "InputError", "link layers, or both frames and mask"),
    "layers and frames": (
        then(layers("segment"), **saved("Composite", layers=["layers", 0], frames=["clip", 0])),
        "layers",
        "InputError",
        "Composite (node edit): layers: frames or a mask are linked too; link layers alone",
    ),
    "matte of fewer frames": (
        then(CLIP, part=node("LoadFrames", path="bad/clip.mp4", count=3))
        | saved("Composite", frames=["clip", 0], mask=["part", 1]),
        "edit",
        "ShapeError",
        "mask",
    ),
    "corrupt layers": (kept("bad/corrupt.safetensors"), "load", "LayersFileError", "corrupt.safetensors"),
    "foreign layers": (kept("bad/foreign.safetensors"), "load", "LayersFileError", "foreign.safetensors"),
    "no layers there": (kept("bad/none.safetensors"), "load", BY_THE_NODE, "there is no layers file"),
    "leads outside": (
        then(CLIP, save=node("SaveFrames", frames=["clip", 0], filename_prefix="../x")),
        "save",
        BY_THE_NODE,
        "leads outside the output folder",
    ),
    "layers lead outside": (
        then(layers("relight"), save=node("SaveLayers", layers=["layers", 0], filename_prefix="/x")),
        "save",
        BY_THE_NODE,
        "leads outside the output folder",
    ),
    "figures lead outside": (
        then(CLIP, save=node("MeasureVideo", frames=["clip", 0], filename_prefix="a/../../x")),
        "save",
        BY_THE_NODE,
        "leads outside the output folder",
    ),
    "no rate": (
        then(CLIP, save=node("SaveFrames", frames=["clip", 0], fps=0.0)),
        "save",
        "value_smaller_than_min",
        "fps",
    ),
    "unknown format": (
        then(CLIP, save=node("SaveFrames", frames=["clip", 0], format="avi")),
        "save",
        "custom_validation_failed",
        "format: expected one of mp4",
    ),
    "alpha of fewer frames": (
        then(CLIP, part=node("LoadFrames", path="bad/clip.mp4", count=3))
        | {"save": node("SaveFrames", frames=["clip", 0], alpha=["part", 1], format="png")},
        "save",
        "ShapeError",
        "alpha",
    ),
    "reference of fewer frames": (
        then(CLIP, part=node("LoadFrames", path="bad/clip.mp4", count=3))
        | {"save": node("MeasureVideo", frames=["clip", 0], reference=["part", 0])},
        "save",
        "ShapeError",
        "reference",
    ),
    "a picture for a flow": (
        then(FLOW, **saved("FlowToRGB", flow=["clip", 0])),
        "edit",
        "return_type_mismatch",
        "VDP_FLOW",
    ),
    "nothing linked": (saved("Relight"), "edit", "required_input_missing", "layers"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_gets_its_sentence_at_the_right_node(queue: Any, files: Path, name: str) -> None:
    graph, where, kind, sentence = CASES[name]
    at, found, said = queue.refused(graph)
    assert (at, found) == (where, kind), said
    assert sentence in said
    assert len(said.splitlines()) == 1


# What takes long runs last, so that what else is wrong shows first. Seeds of their own keep results from the cache.


EARLY: dict[str, tuple[Graph, str, str]] = {
    "a background that is no picture": (
        then(
            layers("segment", seed=101),
            other=node("LoadFrames", path="bad/text.png"),
            **saved("Composite", layers=["layers", 0], background=["other", 0]),
        ),
        "other",
        "is not a picture",
    ),
    "alpha for mp4": (
        then(
            layers("relight", seed=102),
            other=node("LoadFrames", path="bad/alpha"),
            edit=node("Relight", layers=["layers", 0]),
            result=node("SaveFrames", frames=["edit", 0], alpha=["other", 1], format="mp4"),
        ),
        "result",
        "mp4 holds no alpha",
    ),
    "a background of another length": (
        then(
            layers("segment", seed=104),
            other=node("LoadFrames", path="bad/clip.mp4", count=4),
            **saved("Composite", layers=["layers", 0], background=["other", 0]),
        ),
        "layers",
        "Composite (node edit): background: got 4 frames for a clip of 6; give one still",
    ),
    "a picture for a layer that will not be there": (
        then(
            layers("segment", seed=105),
            other=node("LoadFrames", path="bad/clip.mp4"),
            replaced=node("ReplaceLayer", layers=["layers", 0], layer=2, frames=["other", 0]),
            **saved("Composite", layers=["replaced", 0]),
        ),
        "layers",
        "ReplaceLayer (node replaced): layer: there is no layer '2'; these layers have a background (0) and only",
    ),
    "a true mask of another length": (
        then(
            layers("segment", seed=106),
            other=node("LoadFrames", path="bad/alpha", count=2),
            split=node("SplitLayers", layers=["layers", 0], layer=1),
            edit=node("MeasureVideo", frames=["split", 0], mask=["split", 1], reference_mask=["other", 1]),
        ),
        "layers",
        "MeasureVideo (node edit): mask: got 6 masks, the reference has 2",
    ),
    "too many masks": (
        then(layers("segment", mask=["other", 0], seed=103), other=node("LoadFrames", path="bad/alpha", count=2)),
        "layers",
        "one, or one for each of the 6 frames",
    ),
}


@pytest.mark.parametrize("name", EARLY)
def test_it_is_refused_before_motion_is_estimated(queue: Any, files: Path, name: str) -> None:
    graph, where, sentence = EARLY[name]
    graph = {key: value for key, value in graph.items() if key != "save" or name == "too many masks"}
    graph["clip"] = node("LoadFrames", path="bad/clip.mp4", max_side=90 + len(name))  # so that no flow is cached
    at, _, said = queue.refused(graph)
    assert (at, sentence in said) == (where, True), said
    assert "flow" not in queue.ran_before
    assert where == "other" or {"clip", "other"} & queue.ran_before
