"""Run a graph on a ComfyUI that is running already: queue it, follow its progress, fetch what it made.

Nothing is uploaded: paths in the graph are paths on the server.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import aiohttp

from ..graph.read import to_api
from ..graph.types import Graph, GraphError, RunResult, Specs, shown
from .execute import NodeFailed, collect_numbers

__all__ = ["Interrupted", "ServerFailed", "fetch_specs", "run"]

Progress = Callable[[int, str], AbstractContextManager[Callable[..., None]]]

CHUNK = 1 << 20
MOST_BYTES = 1 << 26  # of a message; previews have a few hundred thousand
# What a node raises when its input is at fault, by the name the server reports (its module path is the server's).
BAD_INPUT = frozenset({"InputError", "ShapeError", "MediaError", "LayersFileError", "WeightsError"})
# What working with an answer of another form than ComfyUI's raises.
STRANGE = (TypeError, AttributeError, LookupError, ValueError, RecursionError)
HISTORY_WAIT = 10.0  # seconds; a server says that a graph is done a moment before its history has it


class Interrupted(Exception):
    """Somebody cancelled the graph on the server."""


class ServerFailed(Exception):
    """The server failed, was lost, or answered what cannot be used."""


def _address(url: str) -> str:
    return (url if "://" in url else f"http://{url}").rstrip("/")


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=20)
    )  # a graph may run for hours


async def _json(response: aiohttp.ClientResponse) -> Any:
    try:
        return await response.json(content_type=None)
    except ValueError as error:
        raise ServerFailed(f"{response.url.path} answered {response.status} without JSON; is it a ComfyUI?") from error


async def _fetch_specs(url: str) -> Specs:
    from ..graph.specs import server_specs

    try:
        async with _session() as session, session.get(f"{url}/object_info") as response:
            if response.status != 200:
                raise GraphError(f"the server {url} answered {response.status} to /object_info; is it a ComfyUI?")
            answer = await _json(response)
    except (aiohttp.ClientError, TimeoutError, asyncio.TimeoutError, ValueError) as error:
        raise GraphError(f"the server {url} cannot be reached: {error or type(error).__name__}") from error
    try:
        return server_specs(answer)
    except STRANGE as error:
        raise _strange(url, error) from error


def _strange(url: str, error: Exception) -> ServerFailed:
    return ServerFailed(f"{url} answers otherwise than a ComfyUI does ({type(error).__name__}: {error})")


def fetch_specs(url: str) -> Specs:
    """The nodes that the server has.

    Raises:
        GraphError: there is no ComfyUI at this address.
        ServerFailed: it answers, but not as a ComfyUI does.
    """
    return asyncio.run(_fetch_specs(_address(url)))


def run(url: str, graph: Graph, output_folder: Path, progress: Progress) -> RunResult:
    """Queue ``graph`` on the server, wait for it, and fetch its outputs into ``output_folder``.

    Cancelling (Ctrl-C) takes the graph off the server's queue, or interrupts it where it runs already.

    Raises:
        GraphError: the server refuses the graph.
        NodeFailed: a node failed there.
        Interrupted: somebody cancelled it there.
        ServerFailed: the connection broke, or an output cannot be fetched.
    """
    return asyncio.run(_run(_address(url), graph, output_folder, progress))


async def _run(url: str, graph: Graph, output_folder: Path, progress: Progress) -> RunResult:
    client = uuid.uuid4().hex
    try:
        async with _session() as session:
            async with session.ws_connect(f"{url}/ws?clientId={client}", max_msg_size=MOST_BYTES) as socket:
                prompt = await _queue(session, url, graph, client)
                try:
                    await _follow(socket, prompt, graph, progress)
                except BaseException as error:
                    if not isinstance(error, (NodeFailed, Interrupted)):
                        await _cancel(session, url, prompt)
                    raise
            shown = await _shown(session, url, prompt, graph)
            outputs = []
            for _, ui in shown.values():
                outputs.extend(await _fetch_outputs(session, url, ui, output_folder))
            return RunResult(outputs, collect_numbers(shown), await _device(session, url))
    except (aiohttp.ClientError, TimeoutError, asyncio.TimeoutError) as error:
        raise ServerFailed(f"the connection to {url} failed: {error or type(error).__name__}") from error
    except OSError as error:
        raise ServerFailed(f"the outputs cannot be written to {output_folder}: {error.strerror or error}") from error
    except STRANGE as error:
        raise _strange(url, error) from error


async def _queue(session: aiohttp.ClientSession, url: str, graph: Graph, client: str) -> str:
    """Queue the graph whole or not at all; returns the id the server gave it."""
    extra = {} if graph.workflow is None else {"extra_pnginfo": {"workflow": graph.workflow}}
    body = {"prompt": _with_names(to_api(graph), graph.workflow), "client_id": client, "extra_data": extra}
    async with session.post(f"{url}/prompt", json=body) as response:
        answer = await _json(response)
    node_errors = answer.get("node_errors") or {}
    problems = [_sentence(graph, key, error) for key, info in node_errors.items() for error in info.get("errors", ())]
    if "prompt_id" in answer:
        if problems:  # the server dropped some outputs and would run the rest
            await _cancel(session, url, answer["prompt_id"])
            raise GraphError("; ".join(problems))
        return str(answer["prompt_id"])
    if not problems:
        error = answer.get("error") or {}
        problems = [
            _joined_message([error.get("message"), error.get("details")]) if isinstance(error, dict) else str(error)
        ]
    raise GraphError(f"the server refuses the graph: {'; '.join(problems)}")


def _with_names(prompt: dict[str, Any], workflow: object) -> dict[str, Any]:
    """The graph with the tokens of its prefixes filled in that only an editor can; sizes are known to the server."""
    from ...nodes.host import fill_prefix

    for node in prompt.values():
        typed = node["inputs"].get("filename_prefix")
        if isinstance(typed, str):
            node["inputs"]["filename_prefix"] = fill_prefix(typed, prompt=prompt, workflow=workflow)
    return prompt


def _joined_message(parts: Iterable[Any]) -> str:
    return ": ".join(str(part) for part in parts if part)


def _sentence(graph: Graph, key: str, error: Mapping[str, Any]) -> str:
    if error.get("type") == "custom_validation_failed":  # "input - what the node itself says", and that is enough
        return f"{graph.nodes.get(key, key)}: {str(error.get('details', '')).partition(' - ')[2] or error['message']}"
    return f"{graph.nodes.get(key, key)}: {_joined_message([error.get('message'), error.get('details')])}"


async def _follow(socket: AsyncIterable[Any], prompt: str, graph: Graph, progress: Progress) -> None:
    """Show progress until the graph is done."""
    with ExitStack() as shown:
        current: tuple[str, Callable[..., None]] | None = None
        async for message in socket:  # aiohttp.WSMessage, whose type varies with its version
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue  # preview pictures
            event = json.loads(message.data)
            kind, data = event.get("type"), event.get("data") or {}
            if data.get("prompt_id") != prompt:
                continue
            if kind == "progress":
                key = str(data.get("node"))
                if current is None or current[0] != key:
                    shown.close()
                    label = str(graph.nodes.get(key, f"node {key}"))
                    current = (key, shown.enter_context(progress(int(data["max"]), label)))
                current[1](int(data["value"]), int(data["max"]), None)
            elif kind == "execution_success" or (kind == "executing" and data.get("node") is None):
                return
            elif kind == "execution_interrupted":
                raise Interrupted("the graph was cancelled on the server")
            elif kind == "execution_error":
                raise _node_failed(graph, data)
    raise ServerFailed("the server closed the connection before the graph was done")


def _node_failed(graph: Graph, data: Mapping[str, Any]) -> NodeFailed:
    node = graph.nodes.get(str(data.get("node_id")), data.get("node_type"))
    name = str(data.get("exception_type", "")).rpartition(".")[2]
    text = str(data.get("exception_message", "")).strip()
    bad_input = name in BAD_INPUT
    return NodeFailed(f"{node}: {text}" if bad_input else f"{node}: {name}: {text}", bad_input=bad_input)


async def _cancel(session: aiohttp.ClientSession, url: str, prompt: str) -> None:
    """Take the prompt off the queue, or interrupt it if it is the one that runs (older servers know no ids)."""
    async with session.post(f"{url}/queue", json={"delete": [prompt]}):
        pass
    async with session.get(f"{url}/queue") as response:
        queue = await _json(response)
    if any(len(entry) > 1 and entry[1] == prompt for entry in queue.get("queue_running", ())):
        async with session.post(f"{url}/interrupt", json={"prompt_id": prompt}):
            pass


async def _shown(
    session: aiohttp.ClientSession, url: str, prompt: str, graph: Graph
) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """What the nodes showed (their ``ui``), with their titles, by id."""
    end = asyncio.get_running_loop().time() + HISTORY_WAIT
    while True:
        async with session.get(f"{url}/history/{prompt}") as response:
            history = await _json(response)
        if prompt in history:
            break
        if asyncio.get_running_loop().time() > end:
            raise ServerFailed("the server finished the graph but keeps no history of it")
        await asyncio.sleep(0.1)
    outputs = history[prompt].get("outputs") or {}
    return {key: (graph.nodes[key].title if key in graph.nodes else key, ui) for key, ui in outputs.items()}


async def _device(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(f"{url}/system_stats") as response:
        devices = (await _json(response)).get("devices") or [{}]
    return str(devices[0].get("type", "unknown"))


# Outputs


async def _fetch_outputs(
    session: aiohttp.ClientSession, url: str, ui: Mapping[str, Any], output_folder: Path
) -> list[str]:
    if "vdp_outputs" in ui:
        names = [str(name).replace("\\", "/") for name in ui["vdp_outputs"]]
    else:  # core's savers and other packs' list their files under images, gifs, audio, ...
        names = [
            f"{entry.get('subfolder') or ''}/{entry['filename']}".lstrip("/")
            for entries in ui.values()
            if isinstance(entries, list)
            for entry in entries
            if isinstance(entry, dict) and entry.get("type") == "output" and entry.get("filename")
        ]
    fetched = []
    for name in names:
        target = await _fetch(session, url, name, _target(name, output_folder))
        fetched.append(str(target.resolve()))
    return fetched


def _target(name: str, output_folder: Path) -> Path:
    """Where an output of this name goes; names come from the server and must not lead outside the folder."""
    path = PurePosixPath(name)
    outside = not path.parts or path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(name).drive)
    target = output_folder.joinpath(*path.parts) if not outside else output_folder
    try:
        outside = outside or not target.resolve().is_relative_to(output_folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # too long, no name at all, links in a circle
        raise ServerFailed(f"the server names an output that cannot be written: {shown(name)}") from error
    if outside:
        raise ServerFailed(f"the server names an output outside its output folder: {shown(name)}")
    return target


def _names(path: Path) -> Iterator[Path]:
    """``path``, then ones with a number after it: what an earlier run left is kept."""
    yield path
    yield from (path.with_name(f"{path.stem}_{number}{path.suffix}") for number in count(2))


async def _download(session: aiohttp.ClientSession, url: str, name: str, target: Path) -> bool:
    """Write one file of the server's output folder to ``target``; False where the server has no such file."""
    path = PurePosixPath(name)
    subfolder = "" if path.parent == PurePosixPath(".") else str(path.parent)
    query = {"filename": path.name, "subfolder": subfolder, "type": "output"}
    async with session.get(f"{url}/view", params=query) as response:
        if response.status == 404:
            return False
        if response.status != 200:
            raise ServerFailed(f"the output {name} cannot be fetched: the server answers {response.status}")
        with target.open("wb") as file:
            async for chunk in response.content.iter_chunked(CHUNK):
                file.write(chunk)
    return True


async def _fetch(session: aiohttp.ClientSession, url: str, name: str, target: Path) -> Path:
    """Fetch a file, or a folder of pictures: 00000.png or .exr, 00001, ... with its sound (a server lists none).

    It gets the name of ``target``, or the first after it that nothing has.
    """
    from ...vdp_core.store.files import with_name

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as folder:
        part = Path(folder) / target.name
        if not await _download(session, url, name, part):
            part.mkdir()
            count = 0
            for suffix in ("png", "exr"):
                while await _download(session, url, f"{name}/{count:05}.{suffix}", part / f"{count:05}.{suffix}"):
                    count += 1
            if not count:
                raise ServerFailed(f"the output {name} is no longer on the server")
            await _download(session, url, f"{name}/audio.wav", part / "audio.wav")
        return next(free for free in _names(target) if with_name(part, free))
