"""What a batch is given: which node reads the clips, which clips there are, and what makes their results new."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..graph.check import constant
from ..graph.read import to_api
from ..graph.types import Graph, GraphError, Link, Node, Specs
from .manifest import explained
from .work import saved_by

__all__ = ["check_parts", "clips_of", "content", "digest", "find_clip_node", "hash_workflow"]

LOADER = "LoadFrames"
SETTINGS = ("start", "count", "every_nth", "timing", "sound_track", "filename_prefix", "format", "quality", "bitrate")
"""What parts of a clip must know of the nodes that read and save it."""


def find_clip_node(graph: Graph) -> tuple[Node, str]:
    """The node that reads the clip, and what is to be said about the choice: nothing where it is titled ``Clip``.

    Raises:
        GraphError: there is none, or no telling which.
    """
    loaders = [node for node in graph.nodes.values() if node.class_type == LOADER]
    titled = [node for node in loaders if node.title == "Clip"]
    chosen = titled or loaders
    if len(chosen) == 1:
        node = chosen[0]
        return node, "" if titled else f"no node is titled Clip; the clips go to the only {LOADER}, {node}"
    if not chosen:
        raise GraphError(f"the graph has no {LOADER} node, which the clips would go to")
    listed = ", ".join(f"{node} with id {node.id}" for node in chosen)
    raise GraphError(f"there is no telling which of {len(chosen)} nodes reads the clips ({listed}); title one Clip")


def clips_of(inputs: Sequence[str]) -> list[str]:
    """The clips that inputs name, as absolute paths, each once.

    A glob that matches nothing but pictures is one clip, as LoadFrames has it; any other stands for all it matches.
    """
    from natsort import natsorted

    from ...nodes.host import is_there
    from ...vdp_core.media.pictures import PICTURE_SUFFIXES
    from ...vdp_core.media.source import find_names, is_pattern

    clips: dict[str, None] = {}
    for text in inputs:
        path = _absolute(text, os.getcwd())  # noqa: PTH109 (text is joined to it)
        matches: list[str] = []
        if is_pattern(text) and not is_there(path):
            path = _absolute(text, glob.escape(os.getcwd()))  # noqa: PTH109
            matches = natsorted(map(str, find_names(str(path))))
        if all(name.lower().endswith(PICTURE_SUFFIXES) for name in matches):
            matches = [str(path)]
        clips.update(dict.fromkeys(matches))
    return list(clips)


def _absolute(text: str, folder: str) -> Path:
    # resolve would follow links
    return Path(os.path.normpath(os.path.join(folder, os.path.expanduser(text))))  # noqa: PTH111, PTH118


def digest(*parts: object) -> str:
    """A hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def content(files: Sequence[Path]) -> str:
    """A hash of what files hold, in their order."""
    whole = hashlib.sha256()
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
        whole.update(digest.digest())
    return whole.hexdigest()


def hash_workflow(graph: Graph, specs: Specs, clip: Node, needed: Sequence[str]) -> str:
    """What a graph makes of a clip, in short: its nodes and settings, and the content of other files that it reads.

    Args:
        graph: one that passes ``check``.
        specs: what its nodes are.
        clip: the node that reads the clip, whose path does not count.
        needed: ids of the nodes that run.

    Raises:
        MediaError: a file that it reads cannot be read.
    """
    from ...nodes import host

    nodes = {key: graph.nodes[key] for key in needed}
    nodes[clip.id] = replace(clip, inputs={**clip.inputs, "path": ""})
    files = {}
    for key, node in nodes.items():
        path = constant(node.inputs.get("path"), graph, specs)
        if isinstance(path, Link):
            files[key] = uuid.uuid4().hex  # nobody knows which file, so it may be another each time
        elif key != clip.id and isinstance(path, str):
            with explained(Path(path)):
                files[key] = content(_files_read(node, host.input_path(path)))
    return digest(to_api(Graph(nodes)), files)


def _files_read(node: Node, path: Path) -> list[Path]:
    """The files that a node reads where it is given a path."""
    if node.class_type == "LoadFlow":
        from ...vdp_core.motion.flow_files import files_of
    else:
        from ...vdp_core.media.source import files_of
    return files_of(path)


def check_parts(graph: Graph, specs: Specs, clip: Node, needed: Sequence[str]) -> None:
    """Refuse parts where they would not know of each other what they must.

    Raises:
        GraphError: another file belongs to the whole clip, or a setting of loader or saver comes from another node.
    """
    for key in needed:
        node = graph.nodes[key]
        if key != clip.id and "path" in specs[node.class_type].inputs:
            raise GraphError(f"{node} belongs to the whole clip, so the clip cannot be worked on in parts (--shard)")
    for node in (clip, *(graph.nodes[key] for key in saved_by(graph, needed))):
        for name in SETTINGS:
            if isinstance(node.inputs.get(name), Link):
                raise GraphError(f"{node}: {name} comes from another node; --shard needs it as a value")
