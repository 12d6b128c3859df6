"""Core's nodes and ours in one graph, in a real ComfyUI: pictures, masks, sound and videos both ways."""

from __future__ import annotations

import asyncio
import math
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from PIL import Image

from comfyui_vdp.runner.graph.read import load
from comfyui_vdp.runner.graph.specs import server_specs
from comfyui_vdp.vdp_core.media import clip as video

pytestmark = [pytest.mark.comfyui, pytest.mark.slow, pytest.mark.timeout(600)]

RATE = Fraction(24000, 1001)
TONE = 440.0  # Hz

Graph = dict[str, dict[str, Any]]


def tone(seconds: float, sample_rate: int = 44_100) -> dict[str, Any]:
    moments = torch.arange(int(seconds * sample_rate)) / sample_rate
    return {"waveform": 0.5 * torch.sin(2 * math.pi * TONE * moments)[None, None], "sample_rate": sample_rate}


@pytest.fixture(scope="module")
def clip(comfyui: Any, synthetic: Any) -> str:
    """Twelve dark frames of 96x64 with half a second of a tone, in ComfyUI's input folder."""
    frames, _ = synthetic.pan(12, 64, 96)
    path = comfyui.folder / "input" / "interoperation"
    return Path(video.write_clip(path, 0.4 * frames, fps=RATE, audio=tone(0.5))).name


@pytest.fixture(scope="module")
def picture(comfyui: Any) -> str:
    """A picture without alpha, of the clip's size."""
    Image.new("RGB", (96, 64), (200, 120, 40)).save(comfyui.folder / "input" / "backdrop.png")
    return "backdrop.png"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def taken_apart(frames: list[Any], task: str, **settings: Any) -> Graph:
    """Flow and layers of frames, as nodes ``flow`` and ``layers``."""
    return {
        "flow": node("RAFTFlow", frames=frames, model="dis"),
        "layers": node("VDPOptimize", frames=frames, flow=["flow", 0], task=task, preset="fast", steps=5, **settings),
    }


def pitch(audio: dict[str, Any]) -> float:
    wave = audio["waveform"][0, 0]
    return float(torch.fft.rfft(wave).abs().argmax()) * audio["sample_rate"] / len(wave)


def test_a_video_of_core_through_our_nodes_keeps_rate_and_sound(queue: Any, clip: str) -> None:
    graph = {
        "1": node("LoadVideo", file=clip),
        "2": node("GetVideoComponents", video=["1", 0]),
        **taken_apart(["2", 0], "relight"),
        "3": node("Relight", layers=["layers", 0], denoise=0.0),
        "4": node("CreateVideo", images=["3", 0], audio=["2", 1], fps=["2", 2]),
        "5": node("SaveVideo", video=["4", 0], filename_prefix="through", format="auto", codec="auto"),
    }
    made = video.read_clip(queue.file(queue(graph), "5"))
    assert made.frames.shape == (12, 64, 96, 3)
    assert float(made.fps) == pytest.approx(float(RATE), abs=2e-3)  # core rounds to thousandths
    assert made.audio is not None
    assert made.audio["waveform"].shape[-1] / made.audio["sample_rate"] == pytest.approx(0.5, abs=0.06)
    assert pitch(made.audio) == pytest.approx(TONE, abs=5.0)


def test_our_frames_and_sound_in_a_video_of_core_and_back(queue: Any, clip: str, comfyui: Any) -> None:
    graph = {
        "1": node("LoadFrames", path=clip, every_nth=2),
        "2": node("CreateVideo", images=["1", 0], audio=["1", 2], fps=["1", 3]),
        "3": node("GetVideoComponents", video=["2", 0]),
        "4": node("SaveFrames", frames=["3", 0], audio=["3", 1], fps=["3", 2], filename_prefix="back", format="png"),
        "5": node("MeasureVideo", frames=["3", 0], reference=["1", 0]),
    }
    entry = queue(graph)
    made = video.read_clip(comfyui.folder / "output" / entry["outputs"]["4"]["vdp_outputs"][0])
    assert len(made.frames) == 6
    assert made.fps == RATE / 2
    assert made.audio is not None
    assert pitch(made.audio) == pytest.approx(TONE, abs=5.0)
    assert entry["outputs"]["5"]["vdp_numbers"][0]["psnr"] > 90.0


def test_pictures_with_alpha_and_views_of_core(queue: Any, clip: str) -> None:
    """Four channels, a crop of a flip, and part of a batch."""
    graph = {
        "1": node("LoadFrames", path=clip),
        "2": node("InvertMask", mask=["1", 1]),  # what core calls alpha is 1 where it is transparent
        "3": node("JoinImageWithAlpha", image=["1", 0], alpha=["2", 0]),
        "4": node("ImageFlip", image=["3", 0], flip_method="y-axis: horizontally"),
        "5": node("ImageCrop", image=["4", 0], x=8, y=8, width=64, height=48),
        "6": node("ImageFromBatch", image=["5", 0], batch_index=2, length=6),
        **taken_apart(["6", 0], "segment"),
        "7": node("Composite", layers=["layers", 0], visibility=0.5),
        "8": node("SaveFrames", frames=["6", 0], format="mp4", filename_prefix="views"),
        "9": node("MeasureVideo", frames=["7", 0], reference=["6", 0]),
        "10": node("Relight", layers=["lit", 0]),
        "lit": node("VDPOptimize", frames=["6", 0], flow=["flow", 0], task="relight", preset="fast", steps=2),
        "11": node("PreviewImage", images=["10", 0]),
    }
    entry = queue(graph)
    assert entry["outputs"]["9"]["vdp_numbers"][0]["psnr"] > 20.0
    assert len(entry["outputs"]["11"]["images"]) == 6


def test_alpha_goes_along_with_frames_from_node_to_node(queue: Any, comfyui: Any, synthetic: Any) -> None:
    """Only frames are linked, and ComfyUI keeps results between runs."""
    frames, _ = synthetic.pan(6, 64, 96)
    shape = torch.zeros(6, 64, 96)
    shape[:, 20:40, 30:60] = 1.0
    path = video.write_clip(comfyui.folder / "input" / "see_through", frames, fps=RATE, format="png", alpha=shape)
    graph = {
        "1": node("LoadFrames", path=path.name),
        **taken_apart(["1", 0], "relight"),
        "2": node("Relight", layers=["layers", 0]),
        "3": node("SaveFrames", frames=["2", 0], format="webm", filename_prefix="see_through"),
    }
    for strength in (1.0, 0.5):
        graph["2"]["inputs"]["strength"] = strength
        (name,) = queue(graph)["outputs"]["3"]["vdp_outputs"]
        made = video.read_clip(comfyui.folder / "output" / name)
        assert (made.alpha - shape).abs().mean() < 0.01


def test_masks_of_core_in_and_ours_out(queue: Any, clip: str, picture: str) -> None:
    """A mask made by core selects the object; our masks and layers go through core's nodes and come back."""
    graph = {
        "1": node("LoadFrames", path=clip),
        "2": node("SolidMask", value=0.0, width=96, height=64),
        "3": node("SolidMask", value=1.0, width=32, height=32),
        "4": node("MaskComposite", destination=["2", 0], source=["3", 0], x=24, y=16, operation="add"),
        **taken_apart(["1", 0], "segment", mask=["4", 0]),
        "5": node("SplitLayers", layers=["layers", 0], layer=1),
        "6": node("GrowMask", mask=["5", 1], expand=2, tapered_corners=True),
        "7": node("ImageInvert", image=["5", 0]),
        "8": node("ReplaceLayer", layers=["layers", 0], layer=1, frames=["7", 0], mask=["6", 0]),
        "9": node("LoadImage", image=picture),
        "10": node("Composite", layers=["8", 0], background=["9", 0]),
        "11": node(
            "ImageCompositeMasked",
            destination=["1", 0],
            source=["10", 0],
            mask=["10", 1],
            x=0,
            y=0,
            resize_source=False,
        ),
        "12": node("MaskToImage", mask=["10", 1]),
        "13": node("ImageToMask", image=["12", 0], channel="red"),
        "14": node("MeasureVideo", frames=["11", 0], mask=["13", 0], reference_mask=["10", 1]),
        "15": node("SaveImage", images=["11", 0], filename_prefix="composited"),
    }
    entry = queue(graph)
    assert len(entry["outputs"]["15"]["images"]) == 12
    assert entry["outputs"]["14"]["vdp_numbers"][0]["iou"] == 1.0


def test_the_empty_mask_of_load_image(queue: Any, clip: str, picture: str) -> None:
    """It stands for no mask; as the mask of an object it is refused, with what to do about it."""
    start = {"1": node("LoadFrames", path=clip), "2": node("LoadImage", image=picture)}
    entry = queue(
        {
            **start,
            "3": node("Composite", frames=["1", 0], mask=["2", 1], background=["2", 0]),
            "4": node("SaveFrames", frames=["3", 0], alpha=["2", 1], format="png", filename_prefix="empty"),
        }
    )
    assert entry["outputs"]["4"]["vdp_outputs"]
    refused = {
        **start,
        **taken_apart(["1", 0], "segment", mask=["2", 1]),
        "3": node("SaveLayers", layers=["layers", 0]),
    }
    entry = queue.history(queue.post(refused)["prompt_id"])
    error = dict(entry["status"]["messages"])["execution_error"]
    assert error["node_id"] == "layers"
    assert error["exception_message"].startswith("mask: it is the empty one that Load Image gives")


def test_a_silent_video_of_core(queue: Any, comfyui: Any) -> None:
    video.write_clip(comfyui.folder / "input" / "silent", torch.rand(3, 32, 32, 3), fps=10)
    graph = {
        "1": node("LoadVideo", file="silent.mp4"),
        "2": node("GetVideoComponents", video=["1", 0]),
        "3": node("SaveFrames", frames=["2", 0], audio=["2", 1], fps=["2", 2], filename_prefix="silent"),
    }
    entry = queue(graph)
    assert video.read_clip(queue.file(entry, "3")).audio is None


# Caching


@pytest.mark.parametrize("linked", [False, True], ids=["typed", "linked"])
def test_only_a_changed_file_is_read_again(queue: Any, comfyui: Any, linked: bool) -> None:
    name = f"changing{linked}"

    def write(seed: int) -> None:
        frames = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(seed))
        video.write_clip(comfyui.folder / "input" / name, frames, fps=10)

    graph = {
        "path": node("PrimitiveString", value=f"{name}.mp4"),
        "load": node("LoadFrames", path=["path", 0] if linked else f"{name}.mp4"),
        "flow": node("RAFTFlow", frames=["load", 0], model="dis"),
        "show": node("FlowToRGB", flow=["flow", 0]),
        "save": node("SaveFrames", frames=["show", 0], filename_prefix=name),
    }
    if not linked:
        del graph["path"]
    write(1)
    assert queue.ran(graph) == set(graph)
    assert queue.ran(graph) == set()
    write(2)
    assert queue.ran(graph) == {"load", "flow", "show", "save"}
    assert queue.ran(graph) == set()


def test_a_setting_of_an_edit_runs_that_edit_alone(queue: Any, clip: str) -> None:
    def graph(warmth: float, visibility: float, seed: int = 0) -> Graph:
        return {
            "load": node("LoadFrames", path=clip, count=4),
            **taken_apart(["load", 0], "relight", seed=seed),
            "objects": node("VDPOptimize", frames=["load", 0], flow=["flow", 0], task="segment", preset="fast"),
            "relight": node("Relight", layers=["layers", 0], warmth=warmth),
            "composite": node("Composite", layers=["objects", 0], visibility=visibility),
            "lit": node("SaveFrames", frames=["relight", 0], filename_prefix="lit"),
            "composited": node("SaveFrames", frames=["composite", 0], filename_prefix="composited"),
        }

    assert queue.ran(graph(0.0, 1.0)) == set(graph(0.0, 1.0))
    assert queue.ran(graph(0.5, 1.0)) == {"relight", "lit"}
    assert queue.ran(graph(0.5, 0.0)) == {"composite", "composited"}
    assert queue.ran(graph(0.5, 0.0, seed=1)) == {"layers", "relight", "lit"}
    assert queue.ran(graph(0.5, 0.0, seed=1)) == set()


# Live


TEXT = 3  # kind of a binary message: four bytes of kind, four of the length of the node's id, id, text


@contextmanager
def listening(url: str) -> Iterator[dict[str, list[str]]]:
    """The lines that nodes show meanwhile, by the node's id."""
    texts: dict[str, list[str]] = {}
    ready, done = threading.Event(), threading.Event()

    async def listen() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws", max_msg_size=0) as socket:
            ready.set()
            while not done.is_set():
                try:
                    message = await socket.receive(timeout=0.2)
                except (TimeoutError, asyncio.TimeoutError):
                    continue
                if message.type is aiohttp.WSMsgType.BINARY and struct.unpack(">I", message.data[:4])[0] == TEXT:
                    length = struct.unpack(">I", message.data[4:8])[0]
                    name, text = message.data[8 : 8 + length].decode(), message.data[8 + length :].decode()
                    texts.setdefault(name, []).append(text)

    thread = threading.Thread(target=lambda: asyncio.run(listen()), daemon=True)
    thread.start()
    assert ready.wait(30.0)
    try:
        yield texts
    finally:
        time.sleep(1.0)  # for what is on its way
        done.set()
        thread.join(30.0)


def test_nodes_say_how_far_they_are_and_what_they_did(queue: Any, comfyui: Any, clip: str) -> None:
    graph = {
        "load": node("LoadFrames", path=clip),
        **taken_apart(["load", 0], "relight", seed=77),
        "relight": node("Relight", layers=["layers", 0]),
        "save": node("SaveFrames", frames=["relight", 0], filename_prefix="told"),
    }
    graph["layers"]["inputs"].update(preset="paper", steps=12)
    with listening(comfyui.url) as heard:
        queue(graph)
    last = {name: texts[-1] for name, texts in heard.items()}
    assert last["load"].startswith("read: 12 frames of 96x64, 23.976 fps, with sound, ")
    assert last["flow"].startswith("flow: dis, 11 pairs at 96x64, ")
    assert last["layers"].startswith("relight: all 12 steps, ")
    assert last["relight"].startswith("Relight: 12 frames of 96x64, ")
    assert last["save"].startswith("saved: told_")
    assert any(text.endswith(" s left") for text in heard["layers"])


def test_what_core_saves_holds_the_workflow_and_what_we_save_too(comfyui: Any, queue: Any, clip: str) -> None:
    graph = {
        "1": node("LoadVideo", file=clip),
        "2": node("GetVideoComponents", video=["1", 0]),
        "9": node("ImageFromBatch", image=["2", 0], batch_index=0, length=1),
        "3": node("SaveImage", images=["9", 0], filename_prefix="holding"),
        "4": node("SaveVideo", video=["1", 0], filename_prefix="holding", format="auto", codec="auto"),
        "5": node("SaveWEBM", images=["2", 0], filename_prefix="holding", codec="vp9", fps=24.0, crf=32.0),
        "6": node(
            "SaveAnimatedWEBP",
            images=["2", 0],
            filename_prefix="holding",
            fps=6.0,
            lossless=True,
            quality=80,
            method="default",
        ),
        "7": node("SaveAnimatedPNG", images=["2", 0], filename_prefix="holding", fps=6.0, compress_level=4),
        "8": node("SaveFrames", frames=["2", 0], filename_prefix="%date:yyyy%/%width%x%height%_%SaveWEBM.codec%"),
    }
    done, specs = queue(graph), server_specs(comfyui.get("/object_info"))
    for key in "345678":
        found = load(queue.file(done, key), specs)
        assert set(found.nodes) == set(graph), key
        assert found.nodes["1"].inputs["file"] == clip
    year = time.strftime("%Y")
    assert queue.file(done, "8").relative_to(comfyui.folder / "output").as_posix() == f"{year}/96x64_vp9_00001.mp4"
