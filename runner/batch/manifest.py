"""The manifest of a batch, ``manifest.jsonl``: a line for each clip, written anew whenever a clip is done."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..graph.types import GraphError

__all__ = ["MANIFEST", "REPORT", "Entry", "Manifest", "alone", "explained", "folder_name"]

MANIFEST, REPORT, STATE = "manifest.jsonl", "report.html", ".vdp-batch"


@dataclass
class Entry:
    """One clip: a line of the manifest."""

    input: str
    """The absolute path, or a pattern of pictures."""
    folder: str
    """Name of the folder with its results."""
    state: str = "waiting"
    """waiting, done or failed."""
    error: str = ""
    bad_input: bool = False
    """Whether it failed because of what it was given, or of where it is to be written, rather than while running."""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    """``path`` below the output folder, and ``bytes``."""
    numbers: dict[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = ""
    notes: list[str] = field(default_factory=list)
    """What the nodes said."""
    made_from: dict[str, Any] = field(default_factory=dict)
    """Hashes of the clip's and the workflow's content, the version, the length of parts: what makes results new."""
    seen: str = ""
    """Names, sizes and times of the clip's files when their content was last read."""


def folder_name(clip: str, taken: set[str]) -> str:
    """A name for the folder of a clip's results that any file system takes and that is not ``taken`` yet.

    Args:
        clip: its path.
        taken: names in use, casefolded.
    """
    from ...nodes.host import is_there
    from ...vdp_core.media.source import is_pattern

    path = Path(clip)
    if is_there(path):
        name = path.name if path.is_dir() else path.stem
    else:
        name = path.parent.name if is_pattern(path.name) else path.stem
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).strip("._-")
    name = name.encode()[:100].decode(errors="ignore").rstrip("._-") or "clip"
    if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE):
        name = f"clip_{name}"  # Windows has devices of these names
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    return free


class Manifest:
    """The lines of ``manifest.jsonl``, by input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        with explained(folder / MANIFEST):
            lines = (folder / MANIFEST).read_bytes().splitlines() if (folder / MANIFEST).is_file() else []
        for line in lines:
            entry = _entry(line)
            if entry is not None:
                self.entries[entry.input] = entry
        self._taken = {name.casefold() for name in [MANIFEST, REPORT, *(path.name for path in folder.iterdir())]}
        self._taken |= {entry.folder.casefold() for entry in self.entries.values()}

    def entry(self, clip: str) -> Entry:
        """The line of a clip; a new one reserves its folder, which nothing else has."""
        if clip not in self.entries:
            self.entries[clip] = Entry(clip, folder_name(clip, self._taken))
            self._taken.add(self.entries[clip].folder.casefold())
        return self.entries[clip]

    def give_way(self, entry: Entry) -> None:
        """Reserve another folder: in the one that an entry has, somebody else has put something."""
        self._taken |= {path.name.casefold() for path in self.folder.iterdir()}
        entry.folder = folder_name(entry.input, self._taken)
        self._taken.add(entry.folder.casefold())

    def save(self) -> None:
        from ...vdp_core.store.files import beside

        target = self.folder / MANIFEST
        with explained(target), beside(target) as partial:
            partial.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in self.entries.values()))


def _entry(line: bytes) -> Entry | None:
    """A line of a manifest, or None for what is none: anyone may have edited the file."""
    try:
        raw = json.loads(line)
        entry = Entry(**{known.name: raw[known.name] for known in fields(Entry)})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    kinds = all(isinstance(value, type(getattr(Entry("", ""), name))) for name, value in asdict(entry).items())
    # What is looked at and replaced by this must lie inside.
    inside = kinds and re.fullmatch(r"\w[\w.-]*", entry.folder) and all(map(_is_output, entry.outputs))
    return entry if inside else None


def _is_output(raw: object) -> bool:
    path, size = (raw.get("path"), raw.get("bytes")) if isinstance(raw, dict) else (None, None)
    return isinstance(path, str) and isinstance(size, int) and not {"", "..", "."} & set(re.split(r"[/\\]", path))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say which path is at fault where the system refuses.

    Raises:
        MediaError: in place of an OSError.
    """
    from ...vdp_core.errors import MediaError

    try:
        yield
    except OSError as error:
        raise MediaError(f"{path}: cannot be used ({error.strerror or error})") from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Refuse a second batch in the same folder; the lock goes with the process that holds it."""
    from ...vdp_core.store.files import held

    with explained(folder):
        (folder / STATE).mkdir(exist_ok=True)
    with held(folder / STATE / "lock", wait=0.0) as is_ours:
        if not is_ours:
            raise GraphError(
                f"another batch is at work in {folder} (or its file system has no locks); wait for it, or choose "
                "another --output-dir"
            )
        yield
