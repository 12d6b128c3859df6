"""The client of a running ComfyUI, against a small server that answers as one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfyui_vdp.runner import cli
from comfyui_vdp.runner.graph.read import read
from comfyui_vdp.runner.graph.specs import server_specs
from comfyui_vdp.runner.graph.types import Graph, GraphError
from comfyui_vdp.runner.run import server
from comfyui_vdp.runner.run.execute import NodeFailed

INFO = {
    "Number": {"input": {"required": {"value": ["INT", {"default": 1}]}}, "output": ["NUMBER"]},
    "SaveFrames": {"input": {"required": {"number": ["NUMBER"]}}, "output": [], "output_node": True},
}
GRAPH = {
    "1": {"class_type": "Number", "inputs": {"value": 3}, "_meta": {"title": "Clip"}},
    "2": {"class_type": "SaveFrames", "inputs": {"number": ["1", 0]}, "_meta": {"title": "Result"}},
}


class FakeServer:
    """Answers like ComfyUI; what it says about a prompt is set by the test."""

    def __init__(self) -> None:
        self.url = ""
        self.events: list[tuple[str, dict[str, Any]]] = [("execution_success", {})]
        self.answer: tuple[int, dict[str, Any]] = (200, {"prompt_id": "p", "node_errors": {}})
        self.outputs: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.queued: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.on_queue: Callable[[], None] = lambda: None
        self._socket: web.WebSocketResponse | None = None

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        self._socket = web.WebSocketResponse()
        await self._socket.prepare(request)
        await self._socket.send_json({"type": "status", "data": {"status": {}}})
        await self._socket.send_bytes(b"\0\0\0\1preview")
        async for _ in self._socket:
            pass
        return self._socket

    async def prompt(self, request: web.Request) -> web.Response:
        self.queued.append(await request.json())
        status, body = self.answer
        assert self._socket is not None
        self.on_queue()
        if status == 200:
            for kind, data in self.events:
                if kind == "close":
                    await self._socket.close()
                else:
                    await self._socket.send_json({"type": kind, "data": {"prompt_id": "p", **data}})
        return web.json_response(body, status=status)

    async def view(self, request: web.Request) -> web.Response:
        assert request.query["type"] == "output"
        name = "/".join(part for part in (request.query["subfolder"], request.query["filename"]) if part)
        return web.Response(body=self.files[name]) if name in self.files else web.Response(status=404)

    async def post(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.path} {json.dumps(await request.json())}")
        return web.Response()

    def app(self) -> web.Application:
        def answers(body: Callable[[], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
            async def handler(request: web.Request) -> web.Response:
                return web.json_response(body())

            return handler

        app = web.Application()
        app.router.add_get("/ws", self.websocket)
        app.router.add_post("/prompt", self.prompt)
        app.router.add_get("/view", self.view)
        app.router.add_post("/queue", self.post)
        app.router.add_post("/interrupt", self.post)
        app.router.add_get("/object_info", answers(lambda: INFO))
        app.router.add_get("/queue", answers(lambda: {"queue_running": [[0, "p", {}]], "queue_pending": []}))
        app.router.add_get("/system_stats", answers(lambda: {"devices": [{"type": "cpu"}]}))
        app.router.add_get("/history/p", answers(lambda: {"p": {"outputs": self.outputs}}))
        return app


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    running = FakeServer()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(running.app())

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        running.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield running
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def graph() -> Graph:
    return read(GRAPH, server_specs(INFO))


shown: list[str] = []


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[..., None]]:
    shown.append(f"{label} of {total}")
    yield lambda done, total, preview: shown.append(f"{done}/{total}")


def test_outputs_are_fetched_and_numbers_read(fake: FakeServer, graph: Graph, tmp_path: Path) -> None:
    shown.clear()
    fake.events = [
        ("progress", {"node": "1", "value": 1, "max": 2}),
        ("progress", {"node": "1", "value": 2, "max": 2}),
        ("progress", {"node": "2", "value": 1, "max": 1}),
        ("progress", {"node": "2", "value": 9, "max": 9, "prompt_id": "somebody else's"}),
        ("executing", {"node": None}),
    ]
    fake.outputs = {
        "2": {
            "vdp_outputs": ["sub/vdp.v2_00001.mp4", "vdp.v2_00001"],
            "images": [{"filename": "preview.png", "subfolder": "", "type": "output"}],
        },
        "3": {"vdp_numbers": [{"psnr": 31.5}]},
        "4": {"gifs": [{"filename": "a.gif", "subfolder": "x", "type": "output"}, {"filename": "t", "type": "temp"}]},
    }
    fake.files = {f"vdp.v2_00001/{i:05}.png": bytes([i]) for i in range(3)}
    fake.files |= {"sub/vdp.v2_00001.mp4": b"film" * 100_000, "x/a.gif": b"gif", "vdp.v2_00001/audio.wav": b"wav"}
    result = server.run(fake.url, graph, tmp_path, progress)
    assert shown == ["Clip (Number) of 2", "1/2", "2/2", "Result (SaveFrames) of 1", "1/1"]
    assert [Path(path).relative_to(tmp_path).as_posix() for path in result.outputs] == [
        "sub/vdp.v2_00001.mp4",
        "vdp.v2_00001",
        "x/a.gif",
    ]
    assert Path(result.outputs[0]).read_bytes() == fake.files["sub/vdp.v2_00001.mp4"]
    names = sorted(path.name for path in Path(result.outputs[1]).iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "audio.wav"]
    assert (result.numbers, result.device) == ({"psnr": 31.5}, "cpu")
    assert fake.queued[0]["prompt"]["2"]["inputs"] == {"number": ["1", 0]}
    again = server.run(fake.url, graph, tmp_path, progress)
    assert Path(again.outputs[0]).name == "vdp.v2_00001_2.mp4"  # what was fetched before is kept
    assert not list(tmp_path.rglob(".fetching-*"))


@pytest.mark.parametrize("name", ["../evil.mp4", "/etc/evil.mp4", "a/../../evil.mp4", "C:\\evil.mp4", "", ".."])
def test_names_from_the_server_stay_inside(fake: FakeServer, graph: Graph, tmp_path: Path, name: str) -> None:
    fake.outputs = {"2": {"vdp_outputs": [name]}}
    with pytest.raises(server.ServerFailed, match="outside its output folder"):
        server.run(fake.url, graph, tmp_path / "out", progress)


def test_an_output_that_is_gone_leaves_nothing(fake: FakeServer, graph: Graph, tmp_path: Path) -> None:
    fake.outputs = {"2": {"vdp_outputs": ["gone_00001.mp4"]}}
    with pytest.raises(server.ServerFailed, match=r"gone_00001\.mp4 is no longer on the server"):
        server.run(fake.url, graph, tmp_path, progress)
    assert not list(tmp_path.iterdir())


def test_a_refused_graph_names_the_node(fake: FakeServer, graph: Graph, tmp_path: Path) -> None:
    error = {"type": "value_bigger_than_max", "message": "Value 9 bigger than max of 4", "details": "value"}
    refused = {"error": {"message": "failed"}, "node_errors": {"1": {"errors": [error], "class_type": "Number"}}}
    fake.answer = (400, refused)
    sentence = r"refuses the graph: Clip \(Number\): Value 9 bigger than max of 4: value"
    with pytest.raises(GraphError, match=sentence):
        server.run(fake.url, graph, tmp_path, progress)
    error |= {
        "type": "custom_validation_failed",
        "message": "Custom validation failed",
        "details": "path - no such file",
    }
    with pytest.raises(GraphError, match=r"refuses the graph: Clip \(Number\): no such file$"):
        server.run(fake.url, graph, tmp_path, progress)
    fake.answer = (400, {"error": {"message": "Prompt has no outputs", "details": ""}, "node_errors": []})
    with pytest.raises(GraphError, match="Prompt has no outputs"):
        server.run(fake.url, graph, tmp_path, progress)


def test_a_graph_accepted_in_part_is_taken_back(fake: FakeServer, graph: Graph, tmp_path: Path) -> None:
    error = {"message": "Required input is missing", "details": "number"}
    fake.answer = (200, {"prompt_id": "p", "node_errors": {"2": {"errors": [error]}}})
    with pytest.raises(GraphError, match=r"Result \(SaveFrames\): Required input is missing: number"):
        server.run(fake.url, graph, tmp_path, progress)
    assert fake.calls == ['/queue {"delete": ["p"]}', '/interrupt {"prompt_id": "p"}']


@pytest.mark.parametrize(
    ("kind", "bad_input", "sentence"),
    [
        ("pack.vdp_core.errors.InputError", True, "Result (SaveFrames): fps must be above 0"),
        ("RuntimeError", False, "Result (SaveFrames): RuntimeError: fps must be above 0"),
    ],
)
def test_a_node_that_fails(
    fake: FakeServer, graph: Graph, tmp_path: Path, kind: str, bad_input: bool, sentence: str
) -> None:
    data = {
        "node_id": "2",
        "node_type": "SaveFrames",
        "exception_type": kind,
        "exception_message": "fps must be above 0\n",
    }
    fake.events = [("execution_error", data)]
    with pytest.raises(NodeFailed) as caught:
        server.run(fake.url, graph, tmp_path, progress)
    assert (str(caught.value), caught.value.bad_input) == (sentence, bad_input)
    assert fake.calls == []


def test_cancelled_there_and_lost(fake: FakeServer, graph: Graph, tmp_path: Path) -> None:
    fake.events = [("execution_interrupted", {})]
    with pytest.raises(server.Interrupted):
        server.run(fake.url, graph, tmp_path, progress)
    fake.events = [("close", {})]
    with pytest.raises(server.ServerFailed, match="closed the connection"):
        server.run(fake.url, graph, tmp_path, progress)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_client_stops_the_server(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    fake.events = []
    fake.on_queue = lambda: threading.Timer(0.3, os.kill, (os.getpid(), getattr(signal, name))).start()
    output = str(tmp_path / "out")
    assert cli.main(["run", str(tmp_path / "graph.json"), "--server", fake.url, "--output-dir", output]) == 130
    assert fake.calls == ['/queue {"delete": ["p"]}', '/interrupt {"prompt_id": "p"}']
    assert capsys.readouterr().err.strip() == "vdp: interrupted"


def test_the_command_runs_a_graph_there(fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workflow = {
        "nodes": [
            {"id": 1, "type": "Number", "title": "Clip", "widgets_values": [3]},
            {"id": 2, "type": "SaveFrames", "inputs": [{"name": "number", "link": 7}]},
        ],
        "links": [[7, 1, 0, 2, 0, "NUMBER"]],
    }
    (tmp_path / "graph.json").write_text(json.dumps(workflow))
    address = fake.url.removeprefix("http://")
    output = str(tmp_path / "out")
    arguments = ["run", str(tmp_path / "graph.json"), "--server", address, "--set", "Clip.value=5"]
    assert cli.main([*arguments, "--output-dir", output]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == []
    assert fake.queued[0]["prompt"]["1"]["inputs"] == {"value": 5}
    assert fake.queued[0]["prompt"]["2"]["inputs"] == {"number": ["1", 0]}
    assert fake.queued[0]["extra_data"]["extra_pnginfo"]["workflow"] == workflow


def test_tokens_that_only_an_editor_fills_in_are_filled_in_before(fake: FakeServer, tmp_path: Path) -> None:
    info = {**INFO, "SaveImage": {"input": {"required": {"number": ["NUMBER"], "filename_prefix": ["STRING", {}]}}}}
    graph = json.loads(json.dumps(GRAPH))
    graph["2"] = {"class_type": "SaveImage", "inputs": {"number": ["1", 0], "filename_prefix": "%Clip.value%_%width%"}}
    server.run(fake.url, read(graph, server_specs(info)), tmp_path, progress)
    assert fake.queued[0]["prompt"]["2"]["inputs"]["filename_prefix"] == "3_%width%"
