"""What bad input gets, on the real command line: one sentence and exit code 1, before anything long, nothing left.

And what looks odd but is not bad: it must simply work.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from comfyui_vdp.nodes.decompose import VDPOptimize
from comfyui_vdp.nodes.flow import RAFTFlow
from comfyui_vdp.nodes.measure import MeasureVideo
from comfyui_vdp.nodes.video import SaveFrames
from comfyui_vdp.runner import cli
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media import encode as sinks
from comfyui_vdp.vdp_core.models.file import save_layers
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.tasks.driver import decompose

WORKFLOWS = Path(__file__).parents[2] / "workflows"
WIDTH, HEIGHT = 64, 48
OUT = "out"

Graph = dict[str, dict[str, Any]]
Vdp = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]

is_root = getattr(os, "geteuid", lambda: 1)() == 0
windows = sys.platform == "win32"


# The command line


@pytest.fixture
def vdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Vdp:
    """Call the command in an empty folder; gives exit code, stdout and stderr, also what libraries write themselves."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        return (code, *capfd.readouterr())

    return call


@pytest.fixture
def refused(vdp: Vdp, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Call the command, which must refuse in one line that holds these words, without fitting or leaving anything."""

    def no_fit(*arguments: object, **more: object) -> None:
        raise AssertionError("the fit began")

    def call(arguments: list[str], *words: str) -> str:
        before = files_in(Path(OUT))
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim, "Adam", no_fit)
            code, out, err = vdp(*arguments)
        assert (code, out) == (1, ""), err
        assert err.startswith("vdp: ") and len(err.splitlines()) == 1
        for word in words:
            assert word in err
        assert "Traceback" not in err
        assert files_in(Path(OUT)) == before
        return err

    return call


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def run(path: Path | str, *settings: str) -> list[str]:
    pairs = [part for setting in settings for part in ("--set", setting)]
    return ["run", str(path), "--output-dir", OUT, "--device", "cpu", "--quiet", *pairs]


def relight(clip: Path | str, *settings: str, workflow: str = "relight.json") -> list[str]:
    """The shipped workflow, made quick."""
    quick = ("Flow.model=dis", "Optimize.preset=fast", "Optimize.steps=4")
    return run(WORKFLOWS / workflow, f"Clip.path={clip}", *quick, *settings)


def follow(clip: Path | str, still: Path | str, *settings: str) -> list[str]:
    return relight(clip, f"Reference.path={still}", *settings, workflow="relight_to_reference.json")


def node(kind: str, title: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


def load(path: Path | str, title: str = "Clip", count: int = 0) -> dict[str, Any]:
    return node("LoadFrames", title, path=str(path), start=0, count=count, every_nth=1, max_side=0)


def flow_of(frames: str) -> dict[str, Any]:
    return node("RAFTFlow", "Flow", frames=[frames, 0], model="dis", updates=12, max_side=512, lift_dark=True)


def optimize(frames: str, flow: str, **more: object) -> dict[str, Any]:
    plain = {"task": "relight", "preset": "fast", "steps": 4, "layers": 2, "seed": 0}
    return node("VDPOptimize", "Optimize", frames=[frames, 0], flow=[flow, 0], **plain, **more)


def apply(layers: str) -> dict[str, Any]:
    return node(
        "Relight", "Relight", layers=[layers, 0], strength=1.0, exposure=0.0, gamma=1.0, warmth=0.0, denoise=1.0
    )


def save(frames: str, kind: str = "mp4", **more: object) -> dict[str, Any]:
    plain = {"filename_prefix": "x", "format": kind, "fps": 24.0, "quality": 80}
    return node("SaveFrames", "Result", frames=[frames, 0], **{**plain, **more})


def keep(layers: str, **more: object) -> dict[str, Any]:
    plain = {"filename_prefix": "x", "with_frames": True}
    return node("SaveLayers", "Keep", layers=[layers, 0], **{**plain, **more})


def load_layers(path: Path | str) -> Graph:
    return {"1": node("LoadLayers", "Layers", path=str(path)), "2": apply("1"), "3": save("2")}


@pytest.fixture
def api(tmp_path: Path) -> Callable[[Graph], list[str]]:
    def arguments(graph: Graph) -> list[str]:
        path = tmp_path / "graph.json"
        path.write_text(json.dumps(graph))
        return run(path)

    return arguments


# Clips


def moving(count: int = 4, width: int = WIDTH, height: int = HEIGHT, top: float = 0.4) -> Tensor:
    """A soft dark pattern that goes two pixels a frame, ``(T, H, W, 3)``."""
    across, down = torch.arange(float(width)), torch.arange(float(height))
    frames = [
        0.5 + 0.25 * torch.sin((across + 2 * index) / 3.0)[None, :] + 0.25 * torch.sin(down / 4.0)[:, None]
        for index in range(count)
    ]
    colour = torch.tensor([1.0, 0.9, 0.8])
    return (top * torch.stack(frames)[..., None] * colour).contiguous()


def pictures(folder: Path, frames: np.ndarray[Any, Any]) -> Path:
    """A folder of pictures, of as many bits and channels (BGR) as the array has."""
    import cv2

    folder.mkdir()
    for index, frame in enumerate(frames):
        (folder / f"{index:03}.png").write_bytes(cv2.imencode(".png", frame)[1].tobytes())
    return folder


def eight_bit(frames: Tensor) -> np.ndarray[Any, Any]:
    return (frames * 255.0).round().byte().numpy()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return pictures(tmp_path / "clip", eight_bit(moving()))


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Six frames that do not compress."""
    generator = torch.Generator().manual_seed(0)
    return pictures(tmp_path / "noise", eight_bit(torch.rand(6, HEIGHT, WIDTH, 3, generator=generator)))


# Files that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.mp4", None, "path: there is no such file or folder"),
        ("*.mp4", None, "path: no file matches this pattern"),
        ("~nobody-of-that-name.mp4", None, "path: there is no such file or folder"),
        ("a" * 300, None, "path: there is no such file or folder"),
        ("text.mp4", b"not a video at all\n" * 50, "text.mp4: is not a video that can be read, or is damaged"),
        ("empty.mp4", b"", "empty.mp4: the file is empty"),
        ("text.png", b"not a picture", "text.png: is not a picture that can be read, or is damaged"),
        ("empty.png", b"", "empty.png: is not a picture that can be read, or is damaged"),
    ],
)
def test_files_that_are_no_clip(refused: Refused, tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(relight(name), "vdp: Clip (LoadFrames): ", words)


def test_a_folder_without_pictures(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(relight("folder"), "vdp: Clip (LoadFrames): ", "the folder holds no pictures (png, jpg,")


def test_a_video_without_a_frame(refused: Refused, tmp_path: Path) -> None:
    audio = {"waveform": torch.zeros(1, 1, 8000), "sample_rate": 8000}
    sound = video.write_clip(tmp_path / "s", moving(1), fps=24, format="png", audio=audio) / sinks.SOUND_NAME
    refused(relight(sound), "vdp: Clip (LoadFrames): ", "holds no video stream")


def test_a_video_cut_short(refused: Refused, tmp_path: Path, noise: Path) -> None:
    whole = video.write_clip(tmp_path / "whole", video.read_clip(noise).frames, fps=24)
    for length in (30, 400, 1000):  # within its name, its list of streams and its list of frames
        (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:length])
        refused(relight("cut.mp4"), "vdp: Clip (LoadFrames): ", "cut.mp4: ", "damaged")


def test_a_picture_cut_short(refused: Refused, clip: Path) -> None:
    picture = clip / "002.png"
    picture.write_bytes(picture.read_bytes()[:-200])
    refused(relight(clip), "vdp: Clip (LoadFrames): ", "002.png: is not a picture that can be read, or is damaged")


@pytest.mark.skipif(is_root or windows, reason="root may read everything, and Windows has no modes")
def test_a_file_that_may_not_be_read(refused: Refused, tmp_path: Path, clip: Path) -> None:
    path = video.write_clip(tmp_path / "locked", moving(), fps=24)
    path.chmod(0)
    refused(relight(path), "vdp: Clip (LoadFrames): ", "locked.mp4: cannot be read (permission denied)")
    (clip / "001.png").chmod(0)
    refused(relight(clip), "vdp: Clip (LoadFrames): ", "001.png: cannot be read (Permission denied)")


def test_a_folder_given_as_a_file(refused: Refused, clip: Path, api: Callable[[Graph], list[str]]) -> None:
    refused(api(load_layers(clip)), "vdp: Layers (LoadLayers): path: there is no layers file")
    refused(run(clip), "the workflow", "cannot be read: ")


# Frames that will not do


def test_a_single_frame(refused: Refused, clip: Path) -> None:
    refused(relight(clip, "Clip.count=1"), "vdp: Flow (RAFTFlow): frames: got 1 frame, motion needs at least two")


def test_a_start_beyond_the_end(refused: Refused, clip: Path) -> None:
    refused(relight(clip, "Clip.start=4"), "vdp: Clip (LoadFrames): start: 4 is beyond the end, clip holds 4 frames")


def test_frames_of_different_sizes(refused: Refused, clip: Path) -> None:
    Image.new("RGB", (60, HEIGHT)).save(clip / "002.png")
    refused(relight(clip), "002.png: is 60x48 pixels, 000.png is 64x48; all pictures of a clip must have one size")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (15, 48), (64, 15)])
def test_frames_too_small(refused: Refused, tmp_path: Path, width: int, height: int) -> None:
    small = pictures(tmp_path / "small", eight_bit(moving(3, width, height)))
    refused(relight(small), f"vdp: Flow (RAFTFlow): frames: frames are {width}x{height} pixels, at least 16x16 needed")


def test_nan_is_refused_by_every_node_that_takes_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = moving()
    flow = estimate_flow(good, model="dis")
    bad = good.clone()
    bad[1, 0, 0, 0] = 1.5  # out of range, which is clamped
    bad[2, 3, 4, 1] = float("nan")
    settings = {"task": "relight", "preset": "fast", "steps": 4, "layers": 2, "seed": 0}
    with pytest.raises(InputError, match="frames: frame 2 holds NaN or infinite values"):
        RAFTFlow().estimate(bad, model="dis")
    with pytest.raises(InputError, match="frames: frame 2 holds NaN or infinite values"):
        VDPOptimize().optimize(bad, flow, **settings)
    with pytest.raises(InputError, match="reference: frame 0 holds NaN or infinite values"):
        VDPOptimize().optimize(good, flow, reference=bad[2:3], **settings)
    with pytest.raises(InputError, match="frames: frame 2 holds NaN or infinite values"):
        SaveFrames().save(bad)
    with pytest.raises(InputError, match="frames: frame 2 holds NaN or infinite values"):
        MeasureVideo().measure(bad, reference=good)
    with pytest.raises(InputError, match="mask: holds NaN or infinite values"):
        MeasureVideo().measure(good, mask=bad[..., 1], reference_mask=good[..., 1])
    assert files_in(tmp_path) == []


# Flow, masks and references of something else


def test_flow_of_another_clip(refused: Refused, clip: Path, api: Callable[[Graph], list[str]]) -> None:
    graph = {"1": load(clip), "2": load(clip, "Other", 3), "3": flow_of("2"), "4": optimize("1", "3"), "5": keep("4")}
    refused(api(graph), "vdp: Optimize (VDPOptimize): flow: holds 2 frame pairs, a clip of 4 frames has 3")
    measure = node("MeasureVideo", "Measure", frames=["1", 0], flow=["3", 0], filename_prefix="m")
    graph = {"1": load(clip), "2": load(clip, "Other", 3), "3": flow_of("2"), "4": measure}
    refused(api(graph), "vdp: Measure (MeasureVideo): flow: holds 2 frame pairs, a clip of 4 frames has 3")


def test_a_mask_for_a_task_that_takes_none(refused: Refused, clip: Path, api: Callable[[Graph], list[str]]) -> None:
    graph = {"1": load(clip), "2": flow_of("1"), "3": optimize("1", "2", mask=["1", 1]), "4": keep("3")}
    refused(api(graph), "vdp: Optimize (VDPOptimize): mask: the task relight takes none; unlink it")


def test_masks_that_segment_cannot_use(
    refused: Refused, tmp_path: Path, clip: Path, api: Callable[[Graph], list[str]]
) -> None:
    def graph(mask: Path, count: int = 1, **more: object) -> list[str]:
        settings = {**optimize("1", "2", mask=["3", 0])["inputs"], "task": "segment", **more}
        found = node("VDPOptimize", "Optimize", **settings)
        return api({"1": load(clip), "2": flow_of("1"), "3": load(mask, "Mask", count), "4": found, "5": keep("4")})

    black = pictures(tmp_path / "black", np.zeros((1, HEIGHT, WIDTH, 3), np.uint8))
    white = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    white[:, 10:30, 10:30] = 255
    one = pictures(tmp_path / "one", white)
    square = pictures(tmp_path / "square", np.full((1, HEIGHT, HEIGHT, 3), 255, np.uint8))
    start = "vdp: Optimize (VDPOptimize): "
    refused(graph(clip, 3), start + "mask: one, or one for each of the 4 frames, got 3; set count to 1")
    refused(graph(black), start + "mask: it is empty everywhere; paint the object white, or unlink it")
    refused(graph(square), start + "mask: it is 48x48 pixels, the frames are 64x48; it must show the whole frame")
    refused(graph(clip, mask_frame=4), start + "mask_frame: 0 to 3 in this clip, got 4")
    refused(graph(one, layers=3), start + "layers: with a mask of one object there are 2, the")
    refused(graph(clip, preset="paper"), start + "mask: the preset 'paper' takes none")
    refused(graph(clip, reference=["1", 0]), start + "reference: the task segment takes none; unlink it")


def test_masks_that_cannot_be_compared(
    refused: Refused, tmp_path: Path, clip: Path, api: Callable[[Graph], list[str]]
) -> None:
    def graph(true: dict[str, Any], **more: object) -> list[str]:
        links = {"mask": ["1", 1], "reference_mask": ["2", 1], **more}
        measure = node("MeasureVideo", "Measure", frames=["1", 0], filename_prefix="m", **links)
        return api({"1": load(clip), "2": true, "3": measure})

    small = pictures(tmp_path / "small", eight_bit(moving(4, 32, 24)))
    start = "vdp: Measure (MeasureVideo): "
    refused(graph(load(clip, "True", 3)), start + "mask: got 4 masks, the reference has 3; give as many")
    refused(graph(load(small, "True")), start + "mask: masks are 64x48 pixels, the reference's are 32x24")
    refused(graph(load(small, "True"), reference=["2", 0]), start + "frames: got 4 of 64x48 pixels, the reference has")


def test_references_that_do_not_fit(refused: Refused, tmp_path: Path, clip: Path) -> None:
    Image.new("RGB", (WIDTH, WIDTH)).save(tmp_path / "square.png")
    start = "vdp: Optimize (VDPOptimize): "
    refused(follow(clip, "square.png"), start + "reference: the still is 64x64 pixels, the frames are 64x48; it must")
    refused(follow(clip, clip, "Reference.count=0"), start + "reference: one graded still is needed, got 4 frames")
    refused(follow(clip, clip, "Optimize.reference_frame=4"), start + "reference_frame: -1 to look for it, or 0 to 3")
    refused(follow(clip, "none.png"), "vdp: Reference (LoadFrames): path: there is no such file or folder")
    refused(follow(clip, clip, "Optimize.preset=paper"), start + "reference: the preset 'paper' takes none")


# Layers files


@pytest.fixture
def layers_file(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, **more: bool) -> Path:
        frames = moving()
        found = decompose("relight", frames, estimate_flow(frames, model="dis"), preset="fast", steps=2)
        return save_layers(found, tmp_path / name, **more)

    return make


def test_damaged_layers_files(
    refused: Refused, tmp_path: Path, layers_file: Callable[..., Path], api: Callable[[Graph], list[str]]
) -> None:
    whole = layers_file("whole.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    middle = len(whole) // 2
    for content in (b"", whole[:10], whole[:middle], b"not layers\n" * 50, b"\xff" * 8 + whole[8:]):
        bad.write_bytes(content)
        refused(
            api(load_layers(bad)),
            "vdp: Layers (LoadLayers): ",
            "bad.safetensors: not a whole .safetensors file (",
            "save the layers again",
        )
    bad.write_bytes(whole.replace(b"field.log_gain", b"field.log_pain"))
    refused(api(load_layers(bad)), "Layers (LoadLayers): ", "bad.safetensors: the layers hold no 'log_gain'")


def test_weights_are_no_layers(refused: Refused, tmp_path: Path, api: Callable[[Graph], list[str]]) -> None:
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.rand(4)}, tmp_path / "model.safetensors")
    refused(
        api(load_layers("model.safetensors")),
        "vdp: Layers (LoadLayers): ",
        "model.safetensors: not a layers file; give one that SaveLayers wrote, not model weights",
    )


@pytest.mark.parametrize("name", ["none.safetensors", "a" * 300])
def test_layers_that_are_not_there(refused: Refused, api: Callable[[Graph], list[str]], name: str) -> None:
    refused(api(load_layers(name)), "vdp: Layers (LoadLayers): path: there is no layers file ", name)


def test_layers_without_their_frames(
    refused: Refused, vdp: Vdp, clip: Path, layers_file: Callable[..., Path], api: Callable[[Graph], list[str]]
) -> None:
    path = layers_file("bare.safetensors", with_frames=False)
    start = "vdp: Layers (LoadLayers): "
    graph = load_layers(path)
    refused(
        api(graph), start, "bare.safetensors: the layers were saved without their frames; link the source frames too"
    )
    graph["1"]["inputs"]["frames"] = ["4", 0]
    graph["4"] = load(clip, count=3)
    refused(api(graph), start + "frames: the layers were found on 4 frames of 64x48 pixels, these are 3 of 64x48")
    graph["4"] = load(clip)
    assert vdp(*api(graph))[0] == 0


# Weights


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub of this test's own."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return folder


class Opens:
    """What unpickling would run: it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self._path, "w"))


@pytest.mark.parametrize("model", ["raft_large", "auto"])
def test_weights_of_another_network(refused: Refused, hub: Path, clip: Path, model: str) -> None:
    from safetensors.torch import save_file

    sentence = "not the weights of raft_large; give another file or choose another model"
    torch.save({"feature_encoder.conv.weight": torch.rand(4)}, hub / "raft_large_a.pth")
    refused(relight(clip, f"Flow.model={model}"), "vdp: Flow (RAFTFlow): ", f"raft_large_a.pth: {sentence}")
    (hub / "raft_large_a.pth").unlink()
    save_file({"feature_encoder.conv.weight": torch.rand(4)}, hub / "raft_large_b.safetensors")
    refused(relight(clip, f"Flow.model={model}"), "vdp: Flow (RAFTFlow): ", f"raft_large_b.safetensors: {sentence}")


def test_vgg_weights_of_another_network(refused: Refused, hub: Path, clip: Path) -> None:
    torch.save({"features.0.weight": torch.rand(4)}, hub / "vgg16-a.pth")
    refused(relight(clip, "Optimize.preset=paper"), "vdp: Optimize (VDPOptimize): the VGG weights do not fit")


@pytest.mark.parametrize("content", [b"", b"\x80", b"not weights\n" * 50, b"\x80\x02q\x01."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights(refused: Refused, hub: Path, clip: Path, suffix: str, content: bytes) -> None:
    (hub / f"raft_large{suffix}").write_bytes(content)
    words = "damaged, or holds more than weights" if suffix == ".pth" else "not a whole .safetensors file"
    refused(relight(clip, "Flow.model=raft_large"), "vdp: Flow (RAFTFlow): ", words, "download it again")


@pytest.mark.parametrize("table", [[1, 2], {}, {0: torch.rand(2)}, {"a": 1}, torch.rand(3)])
def test_weights_that_are_no_table(refused: Refused, hub: Path, clip: Path, table: object) -> None:
    torch.save(table, hub / "raft_large.pth")
    refused(relight(clip, "Flow.model=raft_large"), "holds no table of weights; give a state dict")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_is_never_run(
    refused: Refused, hub: Path, clip: Path, tmp_path: Path, protocol: int, zipped: bool
) -> None:
    made, path = tmp_path / "made", hub / "raft_large.pth"
    if zipped:
        torch.save({"weight": Opens(made)}, path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(Opens(made), protocol))
    refused(relight(clip, "Flow.model=raft_large"), "raft_large.pth: damaged, or holds more than weights")
    assert not made.exists()


def test_no_weights_and_no_network(refused: Refused, hub: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: object, **more: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    refused(
        relight(clip, "Flow.model=raft_large"),
        "vdp: Flow (RAFTFlow): raft_large_C_T_SKHT_V2",
        "cannot be downloaded from https://",
        "no route to host",
        "choose the model 'dis', which needs none",
    )
    assert list(hub.iterdir()) == []


# Where nothing can be written


class FullDisk:
    """Stands in for a function: works a few times, then the disk is full."""

    def __init__(self, function: Callable[..., Any], times: int) -> None:
        self._function = function
        self._left = times

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._function(*arguments, **more)


@pytest.mark.parametrize(
    ("kind", "owner", "name"),
    [
        ("mp4", "comfyui_vdp.vdp_core.media.encode", "_encoded_frame"),
        ("webm", "comfyui_vdp.vdp_core.media.encode", "_encoded_frame"),
        ("png", "PIL.Image", "fromarray"),
    ],
)
def test_a_full_disk(
    refused: Refused,
    clip: Path,
    api: Callable[[Graph], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    owner: str,
    name: str,
) -> None:
    module = sys.modules[owner]
    monkeypatch.setattr(module, name, FullDisk(getattr(module, name), 2))
    refused(
        api({"1": load(clip), "2": save("1", kind)}), "vdp: Result (SaveFrames): ", "cannot be written, the disk is"
    )
    assert list(Path(OUT).iterdir()) == []


@pytest.mark.skipif(windows, reason="POSIX limits")
@pytest.mark.parametrize("kind", ["mp4", "webm", "prores4444", "png", "layers"])
def test_a_disk_that_takes_no_more_in_the_middle(
    refused: Refused,
    tmp_path: Path,
    noise: Path,
    layers_file: Callable[..., Path],
    api: Callable[[Graph], list[str]],
    kind: str,
) -> None:
    """The same for real: the system lets no file grow beyond 4 kB."""
    import resource

    if kind == "layers":
        graph = {"1": node("LoadLayers", "Layers", path=str(layers_file("a.safetensors"))), "2": keep("1")}
    else:
        graph = {"1": load(noise), "2": save("1", kind)}
    arguments = api(graph)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        refused(arguments, "cannot be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(Path(OUT).iterdir()) == []


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("../x", "leads outside the output folder; give a relative path without '..'"),
        ("a/../../x", "leads outside the output folder"),
        ("/tmp/x", "leads outside the output folder"),
        ("C:\\x", "leads outside the output folder"),
        ("link/x", "through a link"),
        ("circle/x", "cannot be followed"),
        ("taken/x", "is a file"),
        ("folder/", "names no file"),
        ("", "names no file"),
    ],
)
@pytest.mark.parametrize("saver", ["SaveFrames", "SaveLayers", "MeasureVideo"])
def test_prefixes_that_lead_nowhere(
    refused: Refused, tmp_path: Path, clip: Path, api: Callable[[Graph], list[str]], saver: str, prefix: str, words: str
) -> None:
    out = tmp_path / OUT
    out.mkdir()
    if prefix.startswith(("link", "circle")):
        target = tmp_path / "elsewhere" if prefix.startswith("link") else out / "circle"
        (tmp_path / "elsewhere").mkdir()
        try:
            (out / prefix.split("/")[0]).symlink_to(target, target_is_directory=True)
        except OSError:
            pytest.skip("links cannot be made here")
    if prefix.startswith("taken"):
        (out / "taken").touch()
    graph = {"1": load(clip), "2": flow_of("1"), "3": optimize("1", "2"), "4": apply("3")}
    graph["5"] = {
        "SaveFrames": save("4", filename_prefix=prefix),
        "SaveLayers": keep("3", filename_prefix=prefix),
        "MeasureVideo": node("MeasureVideo", "Measure", frames=["4", 0], reference=["1", 0], filename_prefix=prefix),
    }[saver]
    refused(api(graph), f"({saver}): ", words)
    assert {path.name for path in tmp_path.iterdir()} <= {"clip", "graph.json", OUT, "elsewhere"}
    assert files_in(tmp_path / "elsewhere") == []


@pytest.mark.skipif(is_root or windows, reason="root may write everywhere, and Windows has no modes")
def test_a_read_only_output_folder(refused: Refused, tmp_path: Path, clip: Path) -> None:
    (tmp_path / OUT).mkdir(mode=0o500)
    refused(relight(clip), "vdp: Result (SaveFrames): the output folder out cannot be used: out is read-only")


def test_a_file_for_an_output_folder(refused: Refused, tmp_path: Path, clip: Path) -> None:
    (tmp_path / OUT).touch()
    refused(relight(clip), "vdp: Result (SaveFrames): the output folder out cannot be used: out is a file")


# Measuring from the command line


def test_measuring_what_cannot_be(refused: Refused, tmp_path: Path, clip: Path) -> None:
    small = pictures(tmp_path / "small", eight_bit(moving(4, 32, 24)))
    short = pictures(tmp_path / "short", eight_bit(moving(3)))
    (tmp_path / "text.mp4").write_text("no video")

    def measure(*arguments: object) -> list[str]:
        return ["measure", "--quiet", *map(str, arguments)]

    refused(measure("none.mp4", clip), "none.mp4: there is no such file or folder")
    refused(measure(clip, "none.mp4"), "none.mp4: there is no such file or folder")
    refused(measure(clip, "a" * 300), "cannot be read (File name too long)")
    refused(measure(clip, ""), "path is empty; give a video file")
    refused(measure(clip, "text.mp4"), "text.mp4: is not a video that can be read, or is damaged")
    refused(measure(clip, small), "frames: got 4 of 64x48 pixels, the reference has 4 of 32x24")
    refused(measure(clip, short), "frames: got 4 of 64x48 pixels, the reference has 3 of 64x48")
    refused(measure(clip, clip, "--mask", clip), "reference mask: none was given")
    refused(measure(clip, clip, "--mask", clip, "--ref-mask", short), "mask: got 4 masks, the reference has 3")
    refused(measure(clip, clip, "--mask", clip, "--ref-mask", small), "mask: masks are 64x48 pixels, the reference's")


def test_a_single_pixel_can_be_measured(vdp: Vdp, tmp_path: Path) -> None:
    pixel = pictures(tmp_path / "pixel", eight_bit(moving(2, 1, 1)))
    code, out, _ = vdp("measure", str(pixel), str(pixel), "--quiet")
    assert (code, json.loads(out)) == (0, {"psnr": 100.0})


# What must work


def relit(vdp: Vdp, clip: Path | str, *settings: str) -> Tensor:
    """The frames that come out, of which none is NaN: a PNG cannot hold it, and the saver refuses it."""
    code, out, err = vdp(*relight(clip, "Result.format=png", *settings))
    assert (code, err) == (0, "")
    (output,) = json.loads(out.splitlines()[-1])["outputs"]
    return video.read_clip(output).frames


def test_greyscale(vdp: Vdp, tmp_path: Path) -> None:
    frames = relit(vdp, pictures(tmp_path / "grey", eight_bit(moving())[..., 1]))
    assert frames.shape == (4, HEIGHT, WIDTH, 3)
    assert (frames.amax(dim=-1) - frames.amin(dim=-1)).max() <= 1.5 / 255  # still grey
    assert frames.mean() > moving()[..., 1].mean()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits(vdp: Vdp, tmp_path: Path, channels: int) -> None:
    source = moving()
    deep = (source.numpy() * 65535.0).round().astype(np.uint16)
    if channels == 4:
        deep = np.concatenate([deep, np.full_like(deep[..., :1], 40_000)], axis=-1)
    folder = pictures(tmp_path / "deep", deep[..., 0] if channels == 1 else deep)
    assert (video.read_clip(folder).frames[..., 0 if channels == 1 else 2] - source[..., 0]).abs().max() < 1e-4
    frames = relit(vdp, folder)
    assert frames.shape == (4, HEIGHT, WIDTH, 3)
    assert source.mean() < frames.mean() < 0.6


@pytest.mark.parametrize("kind", ["png", "webm"])
def test_alpha_is_kept(vdp: Vdp, tmp_path: Path, api: Callable[[Graph], list[str]], kind: str) -> None:
    alpha = torch.linspace(0.0, 1.0, WIDTH).expand(4, HEIGHT, WIDTH)
    source = video.write_clip(tmp_path / "source", moving(), fps=24, format=kind, alpha=alpha)
    graph = {"1": load(source), "2": flow_of("1"), "3": optimize("1", "2"), "4": apply("3")}
    graph["5"] = save("4", "png", alpha=["1", 1])
    code, out, _ = vdp(*api(graph))
    assert code == 0
    result = video.read_clip(json.loads(out)["outputs"][0])
    assert result.frames.shape == (4, HEIGHT, WIDTH, 3)
    assert (result.alpha - alpha).abs().max() < (0.01 if kind == "png" else 0.05)


@pytest.mark.parametrize("kind", ["mp4", "webm", "prores4444", "png"])
def test_odd_sizes(vdp: Vdp, tmp_path: Path, kind: str) -> None:
    source = video.write_clip(tmp_path / "odd", moving(3, 61, 47), fps=24, format=kind)
    code, out, _ = vdp(*relight(source, f"Result.format={kind}"))
    assert code == 0
    frames = video.read_clip(json.loads(out.splitlines()[-1])["outputs"][0]).frames
    assert frames.shape == (3, 47, 61, 3)
    assert frames.mean() > 1.3 * moving(3, 61, 47).mean()


@pytest.mark.parametrize("size", [(16, 16), (16, 90), (90, 16)])
def test_the_smallest_clip(vdp: Vdp, tmp_path: Path, size: tuple[int, int]) -> None:
    frames = relit(vdp, pictures(tmp_path / "small", eight_bit(moving(2, *size))))
    assert frames.shape == (2, size[1], size[0], 3)
    assert frames.mean() > 1.3 * moving(2, *size).mean()


def test_names_of_files_do_not_matter(vdp: Vdp, tmp_path: Path) -> None:
    written = video.write_clip(tmp_path / "plain", moving(3), fps=24)
    wanted = relit(vdp, written)
    for name in ("a clip.mp4", "cl\u00efp \u30d5\u30a1.mp4", "clip [1] (2) {3}.mp4", "~clip.mp4", "c=l,i;p.mp4"):
        written = written.rename(tmp_path / name)
        assert torch.equal(relit(vdp, name), wanted), name


def test_names_of_folders_do_not_matter(vdp: Vdp, tmp_path: Path) -> None:
    wanted = relit(vdp, pictures(tmp_path / "plain", eight_bit(moving(3))))
    folder = pictures(tmp_path / "shots [a] \u00fc", eight_bit(moving(3)))
    assert torch.equal(relit(vdp, folder, "Result.filename_prefix=\u00fc [1]/x y"), wanted)


def test_all_black_stays_black(vdp: Vdp, tmp_path: Path) -> None:
    frames = relit(vdp, pictures(tmp_path / "black", np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)))
    assert frames.shape == (4, HEIGHT, WIDTH, 3)
    assert frames.max() < 0.02


def test_all_white_stays_even(vdp: Vdp, tmp_path: Path) -> None:
    frames = relit(vdp, pictures(tmp_path / "white", np.full((4, HEIGHT, WIDTH, 3), 255, np.uint8)))
    assert frames.shape == (4, HEIGHT, WIDTH, 3)
    assert frames.mean() > 0.3
    assert frames.std() < 0.02


def test_a_clip_that_stands_still(vdp: Vdp, tmp_path: Path) -> None:
    still = moving(1)
    frames = relit(vdp, pictures(tmp_path / "still", eight_bit(still.expand(4, -1, -1, -1))), "Optimize.steps=0")
    assert frames.shape == (4, HEIGHT, WIDTH, 3)
    assert (frames - frames[:1]).abs().max() < 0.01  # its light stands still
    assert still.mean() < frames.mean() < 0.6


def test_one_frame_of_noise_again_and_again(vdp: Vdp, tmp_path: Path) -> None:
    noise = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    frames = relit(vdp, pictures(tmp_path / "same", eight_bit(noise.expand(4, -1, -1, -1))))
    assert frames.shape == (4, HEIGHT, WIDTH, 3)
    assert 0.2 < frames.mean() < 0.8
