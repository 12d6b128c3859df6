"""The manifest of batches, ``manifest.jsonl``: a line for each clip, written anew whenever a clip is done."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..graph.types import GraphError

__all__ = ["MANIFEST", "REPORT", "Entry", "Manifest", "explained", "folder_name", "locked"]

MANIFEST, REPORT, STATE = "manifest.jsonl", "report.html", ".vdp-batch"
LOCK = "lock"
"""A file in STATE that is locked by the batch that looks at the output folder or changes it."""
LOCK_WAIT = 600.0  # seconds; each holds it for a moment, or for as long as a report takes


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
    by: str = ""
    """The folder of work in progress of the batch that is at work on it, or was when it was killed."""


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
    """The lines of ``manifest.jsonl``. Batches that work side by side share it; each changes its own lines alone.

    Args:
        folder: the output folder.
        room: the batch's own folder of work in progress, whose name its lines bear as long as it is at work.
    """

    def __init__(self, folder: Path, room: Path) -> None:
        self.folder = folder
        self.entries: list[Entry] = []
        """All lines, those of others as they were at the last look."""
        self._room = room
        self._own: dict[str, Entry] = {}  # by the folder that the file knows them by
        self._taken: set[str] = set()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Read what others wrote, keep them from the output folder inside the block, and write all lines in the end.

        Raises:
            GraphError, MediaError: as ``locked``; the folder cannot be read or written to.
        """
        from ...vdp_core.store.files import beside

        target = self.folder / MANIFEST
        with locked(self.folder):
            with explained(target):
                lines = target.read_bytes().splitlines() if target.is_file() else []
                there = [path.name for path in self.folder.iterdir()]
            found = {entry.folder: entry for entry in map(_entry, lines) if entry is not None} | self._own
            self.entries = list(found.values())
            self._taken = {name.casefold() for name in [MANIFEST, REPORT, *there, *found]}
            yield
            with explained(target), beside(target) as partial:
                partial.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in self.entries))
            self._own = {entry.folder: entry for entry in self._own.values()}

    def claim(self, clips: Sequence[str], workflow: str) -> list[Entry]:
        """A line for each clip: that which the same workflow left, else any that no other batch is at work on.

        Where another batch that is at work has the line of the workflow, and it is done, a copy is given, which stays
        what it is unless ``own`` makes a new line of it; where it is not done, a new line is made. To be called in
        ``shared``.

        Args:
            clips: their paths.
            workflow: its hash.
        """
        lines: dict[str, list[Entry]] = {}
        for entry in self.entries:
            lines.setdefault(entry.input, []).append(entry)
        entries = []
        for clip in clips:
            there = lines.get(clip, [])
            free = [entry for entry in there if not self._is_of_another(entry)]
            same = [entry for entry in there if entry.made_from.get("workflow") == workflow]
            entry = next(
                chain(
                    (one for one in free if one in same and one.state == "done"),
                    (replace(one) for one in same if one not in free and one.state == "done"),
                    (one for one in free if one in same),
                    (one for one in free if not same),
                ),
                Entry(clip, ""),
            )
            if entry in free:
                self._take(entry)
            elif not entry.folder:
                self.own(entry)
            # what a batch had begun that was killed, or could not do
            gone = [one for one in free if one is not entry and one.state != "done"]
            if gone:
                self.entries = [one for one in self.entries if not any(one is left for left in gone)]
            entries.append(entry)
        return entries

    def own(self, entry: Entry) -> None:
        """Make a new line of an entry that is not this batch's, which reserves a folder that nothing else has."""
        if self._own.get(entry.folder) is not entry:
            entry.folder, entry.state, entry.outputs = self._free_name(entry.input), "waiting", []
            self.entries.append(entry)
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        entry.by = self._room.name
        self._own[entry.folder] = entry

    def _is_of_another(self, entry: Entry) -> bool:
        from ...vdp_core.store.files import is_live

        return entry.by not in ("", self._room.name) and is_live(self._room.with_name(entry.by))

    def give_way(self, entry: Entry) -> None:
        """Reserve another folder: in the one that an entry has, somebody else has put something."""
        with explained(self.folder):
            self._taken |= {path.name.casefold() for path in self.folder.iterdir()}
        entry.folder = self._free_name(entry.input)

    def _free_name(self, clip: str) -> str:
        name = folder_name(clip, self._taken)
        self._taken.add(name.casefold())
        return name


def _entry(line: bytes) -> Entry | None:
    """A line of a manifest, or None for what is none: anyone may have edited the file."""
    try:
        raw = json.loads(line)
        # the lines of earlier versions have fewer fields
        entry = Entry(**{known.name: raw[known.name] for known in fields(Entry) if known.name in raw})
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = all(isinstance(value, type(getattr(Entry("", ""), name))) for name, value in asdict(entry).items())
    kinds = kinds and all(value is None or isinstance(value, (int, float)) for value in entry.numbers.values())
    kinds = kinds and all(isinstance(note, str) for note in entry.notes)
    # What is looked at and replaced by this must lie inside.
    inside = (
        kinds
        and re.fullmatch(r"\w[\w.-]*", entry.folder)
        and re.fullmatch(r"(\.vdp\.[0-9a-f]{8}\.partial)?", entry.by)
        and all(map(_is_output, entry.outputs))
    )
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
def locked(folder: Path) -> Iterator[None]:
    """Keep other batches from an output folder inside the block; they wait. The lock goes with the process.

    Raises:
        GraphError: it cannot be had.
        MediaError: the folder cannot be written to.
    """
    from ...vdp_core.store.files import held

    with explained(folder):
        (folder / STATE).mkdir(exist_ok=True)
    with held(folder / STATE / LOCK, wait=LOCK_WAIT, stays=True) as is_ours:
        if not is_ours:
            raise GraphError(
                f"{folder}: cannot be locked: its file system has no locks, or another batch there has hung; choose "
                "another --output-dir"
            )
        yield
