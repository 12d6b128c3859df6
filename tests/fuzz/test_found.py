"""What fuzzing found, and what a stranger might try, each as small as it gets."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.video import LoadFrames
from comfyui_vdp.runner import cli
from comfyui_vdp.runner.run import server
from comfyui_vdp.vdp_core.errors import LayersFileError, MediaError, VDPError, WeightsError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media.raster import is_animated_png
from comfyui_vdp.vdp_core.media.source import files_of
from comfyui_vdp.vdp_core.models.file import load_layers
from comfyui_vdp.vdp_core.nets.weights import read_weights

posix = pytest.mark.skipif(os.name == "nt", reason="files of POSIX")

Said = tuple[int, str, str]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """``vdp check`` of a graph: exit code, stdout and stderr."""

    def call(graph: object, *settings: str) -> Said:
        path = tmp_path / "graph.json"
        path.write_text(graph if isinstance(graph, str) else json.dumps(graph))
        code = cli.main(["check", str(path), *(part for setting in settings for part in ("--set", setting))])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert all(line.isprintable() for line in (out + err).split("\n")), ascii(out + err)
        return code, out, err

    return call


def ui(nodes: list[Any], links: list[Any] | None = None, subgraphs: list[Any] | None = None) -> dict[str, Any]:
    return {"nodes": nodes, "links": links or [], "definitions": {"subgraphs": subgraphs or []}}


# Workflows


@pytest.mark.parametrize("name", [[], {}, ["a"], {"a": 1}, None, 3])
def test_an_input_whose_name_is_no_text(check: Any, name: object) -> None:
    """The names of inputs with widgets were put into a set."""
    entry = {"name": name, "type": "INT", "link": None, "widget": {"name": "x"}}
    code, _, err = check(ui([{"id": 1, "type": "SaveFrames", "inputs": [entry]}]))
    assert code == 1 and err


@pytest.mark.parametrize(
    "text", ["\ud800", "\x1b[2J\x1b]0;x\x07", "a\nvdp: nothing wrong", "\u202egpj.exe", "x" * 10_000]
)
def test_names_do_not_command_the_terminal(check: Any, text: str) -> None:
    node = {"class_type": text, "inputs": {text: [text, 0]}, "_meta": {"title": text}}
    save = {"class_type": "SaveFrames", "inputs": {"frames": [text, 0], "fps": text, "format": text, text: text}}
    code, out, _ = check({text: node, "2": {**save, "_meta": {"title": text}}})
    assert code == 1
    assert max(map(len, out.splitlines())) < 1000
    code, out, err = check(ui([{"id": text, "type": text, "title": text, "inputs": [{"name": text, "link": text}]}]))
    assert code == 1 and max(map(len, (out + err).splitlines())) < 1000


@pytest.mark.parametrize("depth", [300, 900, 5000, 100_000])
@pytest.mark.parametrize(
    "inner", ['{"nodes": %s}', '{"1": {"class_type": "SaveFrames", "inputs": {"fps": {"a": %s}}}}']
)
def test_deep_nesting(check: Any, depth: int, inner: str) -> None:
    """What Python can read need not be what Python can show."""
    code, _, err = check(inner % ("[" * depth + "]" * depth))
    assert code == 1 and "nested too deeply to be a workflow" in err


def test_a_key_that_comes_twice_counts_once_as_in_comfyui(check: Any) -> None:
    save = '{"class_type": "SaveFrames", "inputs": {"fps": 0, "fps": 24, "frames": ["9", 0]}}'
    _, out, _ = check('{"1": {"class_type": "None", "inputs": {}}, "1": ' + save + "}")
    assert "node '9'" in out or "node 9, which is not in the graph" in out
    assert "fps" not in out


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "9" * 5000])
def test_numbers_that_are_none(check: Any, number: str) -> None:
    for name in ("fps", "quality"):
        code, out, err = check(f'{{"1": {{"class_type": "SaveFrames", "inputs": {{"{name}": {number}}}}}}}')
        assert code == 1
        assert f"{name} must be" in out or "integer string conversion" in err


def test_work_has_an_end(check: Any) -> None:
    """Small files that ask for any amount of work: chains of reroutes, and subgraphs that multiply links and inputs."""
    reroutes = [{"id": at, "type": "Reroute", "inputs": [{"name": "", "link": at}]} for at in range(5000)]
    users = [{"id": 9000 + at, "type": "SaveFrames", "inputs": [{"name": "frames", "link": 4999}]} for at in range(500)]
    chain = ui(reroutes + users, [[at, at - 1, 0, at, 0, "*"] for at in range(5000)])
    inside = {"id": "s", "name": "s", "nodes": [{"id": 1, "type": "Note"}]}
    wide = {**inside, "inputs": [{"name": str(at)} for at in range(5000)], "links": []}
    linked = {**inside, "links": [[at, 1, 0, 1, 0, "*"] for at in range(5000)]}
    uses = [{"id": at, "type": "s"} for at in range(500)]
    for graph in (chain, ui(uses, subgraphs=[wide]), ui(uses, subgraphs=[linked])):
        code, _, err = check(graph)
        assert code == 1 and "too large: its links take too many steps to follow" in err


def test_subgraphs_one_in_another(check: Any) -> None:
    bottom = {"id": "s0", "nodes": [{"id": 0, "type": "Note"}], "links": []}
    levels = [{"id": f"s{at}", "nodes": [{"id": 0, "type": f"s{at - 1}"}], "links": []} for at in range(1, 2000)]
    code, _, err = check(ui([{"id": 0, "type": "s1999"}], subgraphs=[bottom, *levels]))
    assert code == 1 and "nests subgraphs more than 50 deep" in err
    circle = [{"id": name, "nodes": [{"id": 0, "type": other}], "links": []} for name, other in ("ab", "ba")]
    code, _, err = check(ui([{"id": 0, "type": "a"}], subgraphs=circle))
    assert code == 1 and "contains itself" in err


def test_a_long_chain_and_a_long_circle(check: Any) -> None:
    chain = {str(at): {"class_type": "X", "inputs": {"a": [str(at - 1), 0]}} for at in range(20_000)}
    assert check(chain)[0] == 1
    code, out, _ = check({**chain, "0": {"class_type": "X", "inputs": {"a": ["19999", 0]}}})
    assert code == 1 and "the links run in a circle" in out


@posix
def test_workflows_that_never_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with (tmp_path / "hole.json").open("wb") as file:
        file.truncate(2**36)
    for path, words in (
        ("/dev/zero", "it is no file"),
        (tmp_path / "pipe.json", "it is no file"),
        (tmp_path, "it is no file"),
        (tmp_path / "hole.json", "it is larger than 64 MiB"),
    ):
        assert cli.main(["run", str(path)]) == 1
        assert words in capsys.readouterr().err


def test_the_file_does_not_choose_what_is_loaded(check: Any, tmp_path: Path) -> None:
    """A workflow names node classes; nothing else in it is looked up or run."""
    made = tmp_path / "made"
    for kind in ("os.system", "__import__('os')", "comfyui_vdp.nodes.video.LoadFrames", "builtins.exec"):
        code, out, _ = check({"1": {"class_type": kind, "inputs": {"command": f"touch {made}"}}})
        assert code == 1 and "no node" in out
    assert not made.exists()


# Layers files


@pytest.fixture
def layers_file(targets: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """A layers file of relight, with its header or its table of tensors changed."""

    def make(
        header: Callable[[dict[str, Any]], object] = lambda header: None,
        table: Callable[[dict[str, Any]], object] = lambda table: None,
    ) -> Path:
        whole = targets.layers_seeds()[0]
        (length,) = struct.unpack("<Q", whole[:8])
        entries = json.loads(whole[8 : 8 + length])
        ours = json.loads(entries["__metadata__"]["vdp_layers"])
        changed = header(ours)
        text = changed if isinstance(changed, str) else json.dumps(ours)
        entries["__metadata__"]["vdp_layers"] = text
        table(entries)
        packed = json.dumps(entries).encode()
        path = tmp_path / "layers.safetensors"
        path.write_bytes(struct.pack("<Q", len(packed)) + packed + whole[8 + length :])
        return path

    return make


def test_the_helper_damages_nothing(layers_file: Any) -> None:
    assert len(load_layers(layers_file())) == 4


@pytest.mark.parametrize("shape", [[], [4], [4, 24], "4", None, {}, [[]], [1e30] * 4, [0, 0, 0, 3]])
def test_a_shape_that_is_none(layers_file: Any, shape: object) -> None:
    """The sentence on frames of another clip looked for four numbers."""
    path = layers_file(lambda header: header.update(frames=shape))
    for frames in (None, torch.rand(4, 24, 32, 3), torch.rand(5, 24, 32, 3)):
        with pytest.raises(VDPError):
            load_layers(path, frames)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_deep_header(layers_file: Any, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    path = layers_file(lambda header: json.dumps(header)[:-1] + f', "edits": {deep}, "info": {deep}}}')
    with pytest.raises(LayersFileError, match="damaged"):
        load_layers(path)


@pytest.mark.parametrize(
    "change",
    [
        {"edits": {"x": {}}},
        {"edits": {"1": {"visibility": 1, "gain": 1, "saturation": 1, "offset": [0, 0, 0]}}},
        {"edits": [1]},
        {"seed": "9" * 5000},
        {"seed": None},
        {"info": [1]},
        {"flow": {"source_size": [0], "method": 1, "cuts": []}},
        {"flow": {"source_size": [24, 32], "method": 1, "cuts": [99]}},
        {"flow": {"source_size": [24, 32], "method": 1, "cuts": "ab"}},
        {"model": ["relight"]},
        {"model": {}},
    ],
)
def test_headers_of_other_kinds(layers_file: Any, change: dict[str, Any]) -> None:
    with pytest.raises(VDPError):
        load_layers(layers_file(lambda header: header.update(change)))


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E8M0", "F4", "C64", "BOOL", "I64", "X"])
def test_numbers_of_other_kinds(layers_file: Any, kind: str) -> None:
    def change(table: dict[str, Any]) -> None:
        for name, entry in table.items():
            if name != "__metadata__":
                entry["dtype"] = kind

    with pytest.raises(VDPError):
        load_layers(layers_file(table=change))


@posix
def test_a_table_that_claims_more_than_there_is(layers_file: Any) -> None:
    for shape in ([2**40], [2**31, 2**31, 2**31], [4, 2**20, 2**20, 3]):
        with pytest.raises(LayersFileError, match=r"not a whole \.safetensors file"):
            load_layers(layers_file(table=lambda table, shape=shape: table["frames"].update(shape=shape)))


@posix
def test_a_file_full_of_holes_takes_no_memory(layers_file: Any) -> None:
    """The claim is true here, but takes a terabyte as soon as it is looked at."""
    size = 2**40
    shape = [4, 2**18, 2**18 // 3, 3]

    def change(table: dict[str, Any]) -> None:
        begin, _ = table["frames"]["data_offsets"]
        table["frames"].update(shape=shape, data_offsets=[begin, begin + 4 * shape[1] * shape[2] * 3])

    path = layers_file(lambda header: header.update(frames=shape), change)
    with path.open("r+b") as file:
        try:
            file.truncate(size)
        except OSError:
            pytest.skip("no files of this size here")
    with pytest.raises(VDPError):
        load_layers(path)


# Weights


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02G\x00",  # a float that ends early
        b"\x80\x02X\x00",  # the length of a text that ends early
        b"\x80\x02M\x00",
        b"\x80\x02K\x01Q.",  # a tensor's storage that is a number
        b"\x80\x02]q\x01h\x01\x85Q.",
        b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",  # a number of 255 bytes
        b"\x80\x02X\xff\xff\xff\x7fabc",  # a text of two gigabytes
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",  # a hundred thousand lists, one in another
        b"\x80\x02ccollections\nOrderedDict\n)R}b.",
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x02ctorch.hub\nload\n)R.",
        b"PK\x03\x04" + b"\0" * 40,
        b"PK\x05\x06" + b"\0" * 18,
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_weights_that_are_none(tmp_path: Path, content: bytes, suffix: str) -> None:
    """The reader of pickles raises what its small parts do: struct.error, AssertionError, OverflowError."""
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        read_weights(path)


@posix
def test_weights_that_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.pth", tmp_path / "zero.pth", tmp_path):
        with pytest.raises(WeightsError, match="there is no such file"):
            read_weights(path)


# Paths


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with host.running(host.Headless(output_folder=tmp_path / "out")):
        yield tmp_path


@posix
@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "pipe.mp4", "pipe.png", "zero.mp4", "zero.png"])
def test_devices_and_pipes_are_no_clips(root: Path, name: str) -> None:
    for pipe in ("pipe.mp4", "pipe.png"):
        os.mkfifo(root / pipe)
    for link in ("zero.mp4", "zero.png"):
        (root / link).symlink_to("/dev/zero")
    assert "is a device or a pipe" in str(LoadFrames.VALIDATE_INPUTS(name))
    with pytest.raises(MediaError, match="is a device or a pipe"):
        video.probe(host.input_path(name))


@posix
@pytest.mark.timeout(20)
def test_a_pipe_is_no_animation_and_is_not_waited_for(root: Path) -> None:
    """What the system makes up, such as /proc/kmsg, calls itself a file and waits for ever like this pipe."""
    os.mkfifo(root / "pipe.png")
    with pytest.raises(MediaError, match=r"pipe\.png"):
        is_animated_png(root / "pipe.png")


@posix
def test_a_folder_with_devices_and_pipes_has_no_pictures(root: Path) -> None:
    (root / "folder").mkdir()
    os.mkfifo(root / "folder" / "0.png")
    (root / "folder" / "1.png").symlink_to("/dev/zero")
    for name, words in (("folder", "holds no pictures"), ("folder/*.png", "no file matches"), ("**", "no file")):
        with pytest.raises(MediaError, match=words):
            video.probe(host.input_path(name))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="files that the system makes up")
@pytest.mark.parametrize("name", ["/proc/self/mem", "/proc/kmsg", "/proc/self/environ", "link.png"])
def test_what_the_system_makes_up(root: Path, name: str) -> None:
    """Such a file says it is empty, and may wait for ever when it is read."""
    (root / "link.png").symlink_to("/proc/kmsg")
    if not Path(name).exists():
        pytest.skip("not here")
    with pytest.raises(MediaError):
        video.probe(name)


@posix
def test_links_in_circles(root: Path) -> None:
    (root / "a").mkdir()
    for name in ("one", "two", "three"):
        (root / "a" / name).symlink_to(".")
    (root / "circle").symlink_to("circle")
    with pytest.raises(MediaError, match="no file matches"):
        video.probe(root / "**" / "*.png")  # with links followed, 3 ** 40 folders
    with pytest.raises(MediaError, match="holds \\*\\* more than once"):
        video.probe(root / "**" / "**" / "*.png")
    with pytest.raises(MediaError, match="a link to circle, where nothing is"):
        video.probe(root / "circle")
    torch.save(1, root / "a" / "x.pt")
    assert [path.name for path in files_of(root / "**" / "*.pt")] == ["x.pt"]


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("a/" * 1500 + "x", "at most 20 folders"),  # making them one in another ran out of stack
        ("/".join(["x" * 150] * 10), "1000 bytes"),
        ("x" * 5000, "more than 200 bytes"),
        ("\ud800", "control characters"),
        ("\udcff/x", "control characters"),
        ("a\x7f\nb", "control characters"),
        ("\0", "control characters"),
    ],
)
def test_prefixes_that_no_disk_takes(root: Path, prefix: str, words: str) -> None:
    assert words in str(host.prefix_verdict(prefix))
    with pytest.raises(VDPError, match=words):
        host.output_path(prefix)
    assert not (root / "out").exists()


@pytest.mark.parametrize("name", ["\ud800.mp4", "a/\udfff\ud800", "\0", "x" * 5000, "x/" * 5000])
def test_input_paths_that_no_disk_has(root: Path, name: str) -> None:
    assert isinstance(LoadFrames.VALIDATE_INPUTS(name), str)
    with pytest.raises(VDPError):
        video.read_clip(host.input_path(name))


@posix
@pytest.mark.parametrize("name", ["circle/x", "\0", "link/x", "..", "/x", "C:/x", "\\\\server\\x", ""])
def test_names_that_a_server_gives(root: Path, name: str) -> None:
    (root / "circle").symlink_to("circle")
    (root / "link").symlink_to("/tmp")
    with pytest.raises(server.ServerFailed, match="the server names an output"):
        server._target(name.replace("\\", "/"), root)


@pytest.mark.parametrize(
    "answer", [b"[1]", b"3", b'{"a": 1}', b'{"a": {"input": [1]}}', b'{"a": {"input": {"required": {"x": 1}}}}']
)
def test_a_server_that_is_no_comfyui(answer: bytes) -> None:
    import http.server
    import threading

    class Strange(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Strange) as strange:
        threading.Thread(target=strange.serve_forever, daemon=True).start()
        try:
            with pytest.raises(server.ServerFailed, match="answers otherwise than a ComfyUI does"):
                server.fetch_specs(f"127.0.0.1:{strange.server_port}")
        finally:
            strange.shutdown()
