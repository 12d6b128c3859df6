"""What is fuzzed: for each reader a check that takes any bytes, seeds to start from, and a way to damage them.

A check raises where the reader does anything but read, or refuse in words. The tests beside it damage the seeds a few
hundred times; ``fuzz.py`` does so for as long as one likes, led by what code the damage reaches.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from golden_set import needed
from torch import Tensor

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.flow import LoadFlow
from comfyui_vdp.nodes.layers import LoadLayers
from comfyui_vdp.nodes.video import LoadFrames
from comfyui_vdp.runner import cli
from comfyui_vdp.runner.graph import read
from comfyui_vdp.runner.graph.specs import local_specs
from comfyui_vdp.runner.graph.types import GraphError
from comfyui_vdp.runner.run import server
from comfyui_vdp.vdp_core.errors import VDPError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media.info import MOST_FPS
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.motion.flow_files import FORMATS, SUFFIXES, load_flow, save_flow
from comfyui_vdp.vdp_core.nets.weights import read_weights
from comfyui_vdp.vdp_core.store.files import numbered
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.driver import decompose

LOCAL = local_specs()
WORKFLOWS = Path(__file__).parents[2] / "workflows"

Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """One reader."""

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    damage: Damage


@cache
def scratch() -> Path:
    """A folder of this process's own."""
    keep = tempfile.TemporaryDirectory(prefix="vdp-fuzz-")
    _kept.append(keep)
    return Path(keep.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def refused_in_words(error: BaseException) -> None:
    """A refusal is one sentence that can be shown anywhere."""
    text = str(error)
    assert text.strip()
    assert "Traceback" not in text
    assert len(text) < 20_000, len(text)


# Damage

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, 0.5, float("nan"), float("inf")),
    *("", "a", "0", "-1", "nan", "\0", "\ud800", "\x1b[2J", "a\nb", "../../x", "/dev/zero", "/dev/stdin", "*", "**/*"),
    *("x" * 5000, "9" * 5000, "\u202e\u00e9", "-10", "-20", "Reroute", "PrimitiveNode", "LoadFrames", "SaveFrames"),
    *("SetNode", "GetNode", "workflow>Inner", "workflow>Outer", "Reroute (x)", "Anything Everywhere"),
    *([], {}, [[]], [{}], {"": []}, ["1", 0], [1, 0], [None, None], [0, 10**18], [10**9] * 8, list(range(50))),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON value that something else could stand in, as container and key."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        entries = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, entry in entries:
            yield holder, key
            if isinstance(entry, (dict, list)):
                waiting.append(entry)


def damaged_json(value: Any, chance: random.Random) -> Any:
    """``value`` with a few of its parts replaced, removed, doubled, swapped or nested."""
    box = [value]
    for _ in range(chance.randint(1, 4)):
        spots = list(places(box))
        holder, key = chance.choice(spots)
        other_holder, other_key = chance.choice(spots)
        match chance.randrange(6):
            case 0 | 1:
                holder[key] = json.loads(json.dumps(chance.choice(HOSTILE)))
            case 2:
                holder[key] = json.loads(json.dumps(other_holder[other_key]))
            case 3 if holder is not box:
                del holder[key]
            case 4 if isinstance(holder, list):
                holder.insert(chance.randint(0, len(holder)), json.loads(json.dumps(holder[key])))
            case 4 if isinstance(holder, dict):
                holder[str(chance.choice(HOSTILE))] = holder[key]
            case _:
                deep: Any = holder[key]
                for _ in range(chance.choice((1, 3, 200, 2000))):
                    deep = [deep] if chance.random() < 0.5 else {"a": deep}
                    if len(spots) > 5000:
                        break
                holder[key] = deep
    return box[0]


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """``data`` with a few bytes changed, cut, doubled or put in."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at, length = chance.randint(0, len(found)), chance.choice((1, 1, 1, 2, 4, 8, 64))
        match chance.randrange(5):
            case 0 | 1:
                found[at : at + length] = chance.randbytes(min(length, len(found) - at))
            case 2:
                found[at : at + length] = chance.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * length
            case 3:
                del found[at : at + chance.choice((1, 8, 1000))]
            case _:
                found[at:at] = found[at : at + length]
    return bytes(found)


def dumped(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"{}"


def damaged_workflow(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return damaged_bytes(data, chance)
    try:
        return dumped(damaged_json(json.loads(data), chance))
    except (ValueError, RecursionError):
        return damaged_bytes(data, chance)


def damaged_layers(data: bytes, chance: random.Random) -> bytes:
    """Damage within the table of tensors, the header of ours inside it, or anywhere."""
    kind = chance.random()
    try:
        (length,) = struct.unpack("<Q", data[:8])
        table, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
        if kind < 0.1:
            return damaged_bytes(data, chance)
        if kind < 0.6:
            table["__metadata__"]["vdp_layers"] = json.dumps(
                damaged_json(json.loads(table["__metadata__"]["vdp_layers"]), chance)
            )
        elif kind < 0.9:
            names = [name for name in table if name != "__metadata__"]
            one, two = chance.choice(names), chance.choice(names)
            match chance.randrange(5):
                case 0:
                    table[one], table[two] = table[two], table[one]
                case 1:
                    table[one]["shape"] = chance.sample(table[one]["shape"], len(table[one]["shape"]))
                case 2:
                    table[one]["shape"] = damaged_json(table[one]["shape"], chance)
                case 3:
                    table[chance.choice((two, "field.x", "picture.mask_1", "flow.cuts", "\ud800", ""))] = table.pop(one)
                case _:
                    table[one]["dtype"] = chance.choice(
                        ("F64", "F32", "F16", "BF16", "I64", "U8", "U16", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64")
                    )
        else:
            at = chance.randrange(len(rest))
            rest = rest[:at] + chance.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f")) + rest[at + 4 :]
        header = json.dumps(table).encode()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, struct.error):
        return damaged_bytes(data, chance)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + rest


# Workflows


def check_workflow(data: bytes) -> None:
    """``vdp check`` says in lines what is wrong, whatever the file holds."""
    path = scratch() / "workflow.json"
    path.write_bytes(data)
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["check", str(path)])
        out.flush()
        err.flush()
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    assert code in (0, 1), said
    assert "Traceback" not in said[1], said[1]
    assert all(line.isprintable() for text in said for line in text.split("\n")), ascii(said)
    assert sum(map(len, said)) < 50_000 + 20 * len(data), [len(text) for text in said]


def api_of(workflow: dict[str, Any]) -> dict[str, Any]:
    return read.to_api(read.read(workflow, LOCAL))


def subgraph_workflow() -> dict[str, Any]:
    """Subgraphs two deep, with reroutes, a primitive and a bypassed node."""
    node = {"id": 1, "type": "LoadFrames", "widgets_values": ["x.mp4", 0, 0, 1, 0], "outputs": [{"type": "IMAGE"}]}
    inner = {
        "id": "inner",
        "name": "Inner",
        "inputs": [{"name": "frames", "type": "IMAGE"}],
        "outputs": [{"name": "frames", "type": "IMAGE"}],
        "nodes": [{"id": 1, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 1}]}],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0},
            {"id": 2, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        ],
    }
    outer = {
        **inner,
        "id": "outer",
        "nodes": [{"id": 1, "type": "inner", "inputs": [{"name": "frames", "type": "IMAGE", "link": 1}]}],
    }
    save = {
        "id": 3,
        "type": "SaveFrames",
        "inputs": [
            {"name": "frames", "type": "IMAGE", "link": 2},
            {"name": "fps", "type": "FLOAT", "link": 3, "widget": {"name": "fps"}},
        ],
        "widgets_values": ["vdp", "mp4", 24.0, 80],
    }
    return {
        "nodes": [
            node,
            {
                "id": 2,
                "type": "outer",
                "inputs": [{"name": "frames", "type": "IMAGE", "link": 1}],
                "outputs": [{"type": "IMAGE"}],
                "properties": {"proxyWidgets": [["1", "value"], ["-1", "frames"]]},
                "widgets_values": [1, 2],
            },
            save,
            {"id": 4, "type": "PrimitiveNode", "widgets_values": [24.0, "fixed"], "outputs": [{"type": "FLOAT"}]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 4, 0, 3, 1, "FLOAT"]],
        "definitions": {"subgraphs": [inner, outer]},
        "version": 0.4,
    }


def workflow_seeds() -> list[bytes]:
    shipped = [json.loads(path.read_text()) for path in sorted(WORKFLOWS.glob("*.json"))]
    for workflow in shipped:  # their notes are long, and nothing reads them
        workflow["nodes"] = [node for node in workflow["nodes"] if node["type"] != "MarkdownNote"]
    graphs = [*shipped[:3], subgraph_workflow(), api_of(shipped[0]), api_of(subgraph_workflow())]
    return [json.dumps(graph).encode() for graph in [*graphs, set_and_grouped_workflow()]]


def set_and_grouped_workflow() -> dict[str, Any]:
    """Values set and got, two groups one in the other, and reroutes of several packs."""

    def node(key: int, kind: str, link: int | None, values: list[Any], given: str = "IMAGE") -> dict[str, Any]:
        inputs = [] if link is None else [{"name": "frames", "type": "IMAGE", "link": link}]
        return {"id": key, "type": kind, "inputs": inputs, "outputs": [{"name": given}], "widgets_values": values}

    flow, save = node(0, "RAFTFlow", 1, ["auto", 12, 512, True, True], "flow"), ["vdp", "mp4", 24.0, 80]
    groups = {
        "Outer": {"nodes": [node(0, "workflow>Inner", 1, [])], "links": [], "external": [[0, 0, "VDP_FLOW"]]},
        "Inner": {"nodes": [node(0, "Reroute (rgthree)", 1, []), flow], "links": [[0, 0, 1, 0, 4, "IMAGE"]]},
    }
    groups["Inner"]["config"] = {"1": {"input": {"model": {"name": "m", "visible": True}}, "output": {}}}
    nodes = [
        node(1, "LoadFrames", None, ["x.mp4", 0, 0, 1, 0]),
        node(2, "SetNode", 1, ["clip"]),
        node(3, "GetNode", None, ["clip"]),
        node(4, "workflow>Outer", 2, []),
        node(5, "FlowToRGB", 3, []),
        node(6, "SaveFrames", 4, save),
    ]
    nodes[4]["inputs"][0]["name"] = "flow"
    links = [[1, 1, 0, 2, 0, "*"], [2, 3, 0, 4, 0, "*"], [3, 4, 0, 5, 0, "*"], [4, 5, 0, 6, 0, "*"]]
    return {"nodes": nodes, "links": links, "extra": {"groupNodes": groups, "linearMode": True}, "version": 0.4}


# Workflows inside pictures and videos


@cache
def embedded_seeds() -> list[bytes]:
    """Pictures of every kind with both texts, and clips with both tags."""
    import numpy as np
    from PIL import Image, PngImagePlugin

    graph, workflow = json.dumps(api_of(subgraph_workflow())), json.dumps(subgraph_workflow())
    picture, found = Image.fromarray(np.zeros((8, 8, 3), np.uint8)), []
    exif = Image.Exif()
    exif.update({0x0110: f"prompt:{graph}", 0x010F: f"workflow:{workflow}"})
    for packed in (False, True):
        texts = PngImagePlugin.PngInfo()
        texts.add_text("prompt", graph, zip=packed)
        texts.add_itxt("workflow", workflow, zip=packed)
        held = io.BytesIO()
        picture.save(held, "PNG", pnginfo=texts, exif=exif)
        found.append(held.getvalue())
    for kind in ("WEBP", "JPEG", "TIFF"):
        held = io.BytesIO()
        picture.save(held, kind, exif=exif)
        found.append(held.getvalue())
    tags = {"prompt": graph, "workflow": workflow}
    for kind in ("mp4", "webm"):
        clip = video.write_clip(scratch() / "embedded", torch.zeros(1, 16, 16, 3), fps=24, format=kind, metadata=tags)
        found.append(clip.read_bytes())
    frames = video.write_clip(scratch() / "embedded", torch.zeros(1, 8, 8, 3), fps=24, format="exr", metadata=tags)
    found.append((frames / "00000.exr").read_bytes())
    return found


def check_embedded(data: bytes) -> None:
    """The workflow in a file is read, or it is said in words why there is none."""
    path = scratch() / "embedded.bin"
    path.write_bytes(data)
    try:
        read.load(path, LOCAL)
    except GraphError as error:
        refused_in_words(error)


# Layers files


def small_layers() -> Iterator[Any]:
    """Layers of every model, edited and with pictures of their own, of four tiny frames."""
    across, down = torch.arange(32.0), torch.arange(24.0)[:, None]
    frames = [0.5 + 0.25 * torch.sin((across + 2 * at) / 3.0) + 0.25 * torch.sin(down / 4.0) for at in range(4)]
    clip = (0.4 * torch.stack(frames)[..., None] * torch.tensor([1.0, 0.9, 0.8])).contiguous()
    flow = estimate_flow(clip, model="dis")
    for name in TASKS:
        yield decompose(name, clip, flow, preset="fast", steps=1, **needed(name, clip))


@cache
def layers_seeds() -> list[bytes]:
    path = scratch() / "seed.safetensors"
    return [save_layers(layers, path).read_bytes() for layers in small_layers()]


@cache
def layers_npz_seeds() -> list[bytes]:
    path = scratch() / "seed.npz"
    return [save_layers(layers, path, format="npz").read_bytes() for layers in small_layers()]


def check_layers(data: bytes) -> None:
    """A layers file is loaded, and what it holds can be put together, or it is refused."""
    path = scratch() / "layers.safetensors"
    path.write_bytes(data)
    given: Tensor | None = None
    for _ in range(2):  # also with frames linked
        try:
            layers = load_layers(path, given)
            repr(layers)
            if layers.frames.numel() <= 2**16 and all(field.numel() <= 2**16 for field in layers.fields.values()):
                reconstruct(layers)
        except VDPError as error:
            refused_in_words(error)
        given = torch.rand(4, 24, 32, 3, generator=torch.Generator().manual_seed(0))


# Weights


@cache
def weights_seeds() -> list[bytes]:
    from safetensors.torch import save

    table = {"conv.weight": torch.rand(2, 3, generator=torch.Generator().manual_seed(0)), "conv.bias": torch.zeros(2)}
    found = [save(table)]
    for wrapped in (table, {"state_dict": table, "epoch": 3}):
        for zipped in (True, False):
            held = io.BytesIO()
            torch.save(wrapped, held, _use_new_zipfile_serialization=zipped)
            found.append(held.getvalue())
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))), held)
    found.append(held.getvalue())
    return found


def damaged_archive(data: bytes, chance: random.Random) -> bytes:
    """Damage anywhere, and in what a zip file holds, such as a pickle, with its checksum made right."""
    import zipfile

    if not data.startswith(b"PK") or chance.random() < 0.2:
        return damaged_bytes(data, chance)
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name.endswith("data.pkl") or chance.random() < 0.1:
                    content = damaged_bytes(content, chance)
                new.writestr(name, content)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError):
        return damaged_bytes(data, chance)
    return made.getvalue()


def check_weights(data: bytes) -> None:
    """A file of either kind is read as a table of tensors, or refused."""
    for suffix in (".pth", ".safetensors"):
        path = scratch() / f"weights{suffix}"
        path.write_bytes(data)
        try:
            table = read_weights(path)
        except VDPError as error:
            refused_in_words(error)
        else:
            assert table and all(isinstance(value, Tensor) for value in table.values())


# Flow


@cache
def flow_seeds() -> list[bytes]:
    """A file of each format."""
    frames = next(small_layers()).frames
    flow = estimate_flow(frames, model="dis")
    found = [save_flow(flow, scratch() / "seed").read_bytes()]
    for format in FORMATS[1:]:
        folder = save_flow(flow, scratch() / "seed", format=format, numbered=True)
        found.append(next(file for file in sorted(folder.rglob("*")) if file.suffix in SUFFIXES).read_bytes())
    return found


def check_flow(data: bytes) -> None:
    """A file is read as flow, with frames and without, or refused."""
    path = scratch() / "flow"
    path.write_bytes(data)
    for frames in (None, torch.zeros(2, 24, 32, 3), torch.zeros(4, 24, 32, 3)):
        try:
            flow, _ = load_flow(path, frames)
        except VDPError as error:
            refused_in_words(error)
        else:
            assert all(bool(tensor.isfinite().all()) for tensor in flow.tensors().values())


# Names and paths


@cache
def hostile_folder() -> Path:
    """A folder in which names lead to links, circles, pipes, devices, and an output folder with a link out of it."""
    root = scratch() / "hostile"
    (root / "output").mkdir(parents=True)
    (root / "folder").mkdir()
    for link, target in {
        "circle": "circle",
        "up": "..",
        "zero.png": "/dev/zero",
        "gone.mp4": "nothing",
        "folder/self": ".",
        "output/out": "..",
        "output/circle": "circle",
        "output/name_00001.mp4": "../escaped.mp4",
    }.items():
        with contextlib.suppress(OSError):
            (root / link).symlink_to(target)
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.mp4")
        os.mkfifo(root / "folder" / "pipe.png")
    return root


NAMES = (
    *("/", "..", ".", "a", "name", "out", "output", "circle", "up", "folder", "self", "zero.png", "pipe.mp4", "*.png"),
    *("**", "*", "?", "[", "[a-", "]", "{", "~", "~root", "~nobody", "$HOME", "%", "\\", "C:", "//server/share", ":"),
    *("\0", "\n", "\x1b[2J", "\ud800", "\udcff", "\u202e", "\u00e9" * 40, "x" * 260, "a/" * 30, " ", '"', "'", "con"),
    *("/dev/zero", "/dev/stdin", "/dev/tty", "/proc/self/fd/0", "/proc/self/environ", "/proc/self/cwd", ".mp4"),
)


def path_seeds() -> list[bytes]:
    return [name.encode("utf-8", "surrogatepass") for name in (*NAMES, "output/out/../x", "folder/**/*.png")]


def damaged_path(data: bytes, chance: random.Random) -> bytes:
    parts = [chance.choice(NAMES) for _ in range(chance.randint(0, 5))] + [data.decode("utf-8", "replace")]
    chance.shuffle(parts)
    joined = chance.choice(("", "/", "\\")).join(parts).encode("utf-8", "surrogatepass")
    return damaged_bytes(joined, chance) if chance.random() < 0.2 else joined


def check_path(data: bytes) -> None:
    """Whatever is typed as a path is read as a clip or refused; what is typed as a prefix stays below the output."""
    text = data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace") if _decodes(data) else repr(data)
    root = hostile_folder()
    settings, there = host.Headless(output_folder=root / "output", say=lambda text: None), Path.cwd()
    os.chdir(root)
    try:
        with host.running(settings):
            if "**" in text and not _stays_below(text, root):
                return  # to look through the whole disk takes its time
            for validate in (
                LoadFrames.VALIDATE_INPUTS,
                LoadLayers.VALIDATE_INPUTS,
                LoadFlow.VALIDATE_INPUTS,
                host.prefix_verdict,
            ):
                verdict = validate(text)
                assert verdict is True or (isinstance(verdict, str) and verdict)
            with contextlib.suppress(VDPError):
                video.probe(host.input_path(text))
            with contextlib.suppress(VDPError):
                load_layers(host.input_path(text))
            with contextlib.suppress(VDPError):
                load_flow(host.input_path(text))
            with contextlib.suppress(VDPError):
                video.fingerprint(host.input_path(text))
            try:
                path = host.output_path(text)
            except VDPError:
                assert host.prefix_verdict(text) is not True
            else:
                assert host.prefix_verdict(text) is True
                assert path.parent.resolve().is_relative_to((root / "output").resolve())
                with numbered(path.parent, path.name, ".safetensors") as place:  # the name can be had
                    place.partial.touch()
                assert place.target.parent == path.parent
                place.target.unlink()
            with contextlib.suppress(server.ServerFailed):
                target = server._target(text, root / "output")
                assert target.resolve().is_relative_to((root / "output").resolve())
            assert not (root / "escaped.mp4").exists()
    finally:
        os.chdir(there)


def _stays_below(text: str, root: Path) -> bool:
    try:
        return host.input_path(text.partition("**")[0] + "x").resolve().is_relative_to(root)
    except (VDPError, OSError, ValueError, RuntimeError):
        return False


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace")
    except UnicodeDecodeError:
        return False
    return True


# Clips


@cache
def clip_seeds() -> list[bytes]:
    frames = torch.rand(6, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    sound = {"waveform": torch.rand(1, 2, 8000) - 0.5, "sample_rate": 32_000}
    found = [
        video.write_clip(scratch() / "seed", frames, fps=24, format=kind, audio=sound).read_bytes()
        for kind in ("mp4", "webm", "prores4444")
    ]
    pictures = video.write_clip(scratch() / "pictures", frames, fps=24, format="png")
    return [*found, (pictures / "00000.png").read_bytes()]


def check_clip(data: bytes) -> None:
    """A damaged clip or picture is read as far as it goes, or refused."""
    path = scratch() / ("clip.png" if data.startswith(b"\x89P") else "clip.bin")
    path.write_bytes(data)
    check_read(path, 50)


def check_read(path: Path, count: int) -> None:
    """What is read of a clip are frames in 0..1 that can be played; anything else is refused."""
    try:
        clip = video.read_clip(path, count=count)
    except VDPError as error:
        refused_in_words(error)
    else:
        assert len(clip.frames) and clip.frames.isfinite().all()
        assert 0.0 <= float(clip.frames.min()) <= float(clip.frames.max()) <= 1.0
        assert 0.0 <= float(clip.alpha.min()) <= float(clip.alpha.max()) <= 1.0
        assert 0 < clip.fps <= MOST_FPS


# Stills


STILLS = Path(__file__).parents[1] / "files" / "stills"


def tiff_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted((STILLS / "tiff").iterdir())]


def damaged_tiff(data: bytes, chance: random.Random) -> bytes:
    """Damage anywhere, or within a directory of tags, which lies at an end and decides everything."""
    if chance.random() < 0.3:
        return damaged_bytes(data, chance)
    order = "<" if data[:2] == b"II" else ">"
    found = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        tag = chance.choice((254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 338, 339))
        at = found.find(struct.pack(f"{order}H", tag), 8)
        if at < 0 or at + 12 > len(found):
            continue
        value = chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 255, 4095, 65_535, 2**31, 2**32 - 1))
        match chance.randrange(4):
            case 0:
                struct.pack_into(f"{order}H", found, at + 2, chance.randint(0, 18))
            case 1:
                struct.pack_into(f"{order}I", found, at + 4, value)
            case _:
                struct.pack_into(
                    f"{order}I", found, at + 8, value if chance.random() < 0.7 else value << 16 & 2**32 - 1
                )
    return bytes(found)


@cache
def exr_seeds() -> list[bytes]:
    import OpenEXR

    plane = torch.rand(12, 16, generator=torch.Generator().manual_seed(0)).numpy().astype("float16")
    found = []
    for index, kind in enumerate(("NO", "RLE", "ZIP", "PIZ", "PXR24", "B44", "DWAA")):
        names = ("R", "G", "B", "A", "depth.Z", "light.R")[: 3 + index % 4]
        header = {"compression": getattr(OpenEXR, f"{kind}_COMPRESSION"), "type": OpenEXR.scanlineimage}
        path = scratch() / "seed.exr"
        OpenEXR.File(header, dict.fromkeys(names, plane)).write(str(path))
        found.append(path.read_bytes())
    return found


@cache
def still_seeds() -> list[bytes]:
    """A colour profile, animations, EXIF, inks, Radiance, DPX and others of FFmpeg's."""
    from fractions import Fraction

    import av
    import cv2
    import numpy as np
    from PIL import Image

    names = ("adobe_rgb_profile.png", "animated.png", "animated.webp", "exif_turned.png")
    found = [(STILLS / name).read_bytes() for name in names]
    with Image.open(STILLS / names[0]) as picture:
        profile = picture.info["icc_profile"]
    made: list[Any] = []
    for mode, kind in (("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("RGB", "AVIF"), ("P", "PNG")):
        made.append(io.BytesIO())
        Image.new(mode, (12, 9), 77).save(made[-1], kind, icc_profile=profile if mode == "RGB" else None)
    pages = [Image.new("RGB", (12, 9), level) for level in (9, 200)]
    for kind in ("WEBP", "AVIF"):
        made.append(io.BytesIO())
        pages[0].save(made[-1], kind, save_all=True, append_images=pages[1:], duration=[40, 200])
    found += [file.getvalue() for file in made]
    plain = cv2.imencode(".png", np.full((9, 12, 3), 90, np.uint8))[1].tobytes()
    told = {b"cICP": b"\x09\x10\0\1", b"cLLI": bytes(range(8)), b"mDCV": bytes(range(24))}
    chunks = (len(data).to_bytes(4, "big") + name + data + bytes(4) for name, data in told.items())
    found.append(plain[:33] + b"".join(chunks) + plain[33:])
    found.append(cv2.imencode(".hdr", np.full((9, 12, 3), 0.3, np.float32))[1].tobytes())
    for codec, pixels in (("dpx", "gbrp10be"), ("sgi", "rgb48be"), ("ppm", "rgb48be")):
        context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt = 12, 9, pixels
        context.time_base, context.framerate = Fraction(1, 24), Fraction(24)
        frame = av.VideoFrame.from_ndarray(np.full((9, 12, 3), 7, np.uint8), "rgb24").reformat(format=pixels)
        frame.pts, frame.time_base = 0, Fraction(1, 24)
        found.append(b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None))))
    return found


def check_still(data: bytes) -> None:
    """A damaged still of any kind is read or refused, whatever it is called."""
    heads = {b"SDPX": "dpx", b"\x01\xda": "sgi", b"P6": "ppm"}
    suffix = next((suffix for head, suffix in heads.items() if data.startswith(head)), "png")
    path = scratch() / f"still.{suffix}"
    path.write_bytes(data)
    check_read(path, 20)


TARGETS: Mapping[str, Target] = {
    "workflow": Target(check_workflow, workflow_seeds, damaged_workflow),
    "embedded": Target(check_embedded, embedded_seeds, damaged_bytes),
    "layers": Target(check_layers, layers_seeds, damaged_layers),
    "layers_npz": Target(check_layers, layers_npz_seeds, damaged_archive),
    "weights": Target(check_weights, weights_seeds, damaged_archive),
    "flow": Target(check_flow, flow_seeds, damaged_archive),
    "path": Target(check_path, path_seeds, damaged_path),
    "clip": Target(check_clip, clip_seeds, damaged_bytes),
    "tiff": Target(check_still, tiff_seeds, damaged_tiff),
    "exr": Target(check_still, exr_seeds, damaged_bytes),
    "still": Target(check_still, still_seeds, damaged_bytes),
}
