"""How data sets lie on disk: which clip belongs to which truth.

A folder of clips and one of truths lie side by side, under names that the field gives them, anywhere below the data
set's folder: ``input`` and ``GT`` (SDSD), ``hazy`` and ``gt`` (REVIDE), ``JPEGImages`` and ``Annotations`` (DAVIS,
whose smaller size is taken), ``com`` and ``pha`` with ``fgr`` (VideoMatte's test clips, each of which has its own
three; VideoMatte240K's ``fgr`` and ``pha`` are put over the clips and stills of a folder ``bgr``). A clip is a folder
of pictures or a video. Clips and truths of the same names belong together, else those at the same place in their order;
frames always by their place in order, as SDSD's have different numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...vdp_core.media.pictures import is_picture
from ...vdp_core.media.source import clips_and_stills, files_of, is_clip
from ..graph.types import GraphError

__all__ = ["Case", "find_cases"]

CLIPS = ("input", "inputs", "hazy", "low", "degraded", "jpegimages", "frames", "com", "src")
"""Names of folders, or of videos, that hold what a task is given."""
PICTURES = ("gt", "clear", "clean", "target", "truth", "reference")
TRUTHS = {
    "pictures": PICTURES,
    "regions": ("annotations", "masks", "gt", "truth"),
    "mattes": ("pha", "alpha", "mattes", "gt", "truth"),
}
"""Names of what is measured against, by what is measured."""
FOREGROUNDS = ("fgr", "fg", "foreground")
BACKGROUNDS = ("bgr", "bg", "backgrounds", "background")
AIRLIGHTS = ("airlight", "airlights")
SIZES = ("480p",)
"""Of a data set's sizes, those that figures are published of."""
DEPTH = 5
"""How far below a data set's folder its clips are looked for."""
ABOUT = ("mask", "masks", "maskrcnn", "mattes", "alpha", "pha", "flow", "gt")
"""Ends of names that say that something is about the clip whose name comes before."""


@dataclass(frozen=True)
class Case:
    """A clip of a data set, and what is known of it."""

    name: str
    """Its path from the data set's folder, without the names that all have in common."""
    clip: Path
    truth: Path
    foreground: Path | None = None
    airlight: Path | None = None
    background: Path | None = None
    """What the foreground is put over, where that has still to be done."""
    wrong: str = ""
    """Why it cannot be measured, in a sentence."""


def find_cases(folder: Path, measured: str, *, split: str = "", names: Sequence[str] = ()) -> list[Case]:
    """The clips of a data set, in order.

    Args:
        folder: of the data set.
        measured: see ``Task.measured``.
        split: a list of names below ``ImageSets``, or a folder that clips lie in; empty for all clips.
        names: of clips; none for all.

    Raises:
        GraphError: there are none, in any layout that is known, or not those.
    """
    try:
        if not folder.is_dir():
            raise GraphError(f"{folder}: there is no such folder; give that of a data set")
        cases = list(_alone(folder) if measured == "rebuilt" else _paired(folder, TRUTHS[measured]))
        cases = [replace(case, wrong=case.wrong or _uneven(case)) for case in cases]
        if not cases:
            raise GraphError(f"{folder}: {_wanted(measured)}")
        if split:
            cases = _of_split(folder, split, cases)
    except OSError as error:
        raise GraphError(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from error
    for name in names:
        if not any(_is_called(case, name) for case in cases):
            known = ", ".join(case.name for case in cases[:20]) + ", ..." * (len(cases) > 20)
            raise GraphError(f"{folder}: has no clip {name}; there are {known}")
    return [case for case in cases if not names or any(_is_called(case, name) for name in names)]


def _wanted(measured: str) -> str:
    if measured == "rebuilt":
        return "holds no clips; give a folder of videos or of folders of pictures"
    return (
        f"holds no clips with their truth; looked for a folder called {', '.join(CLIPS[:-1])} or {CLIPS[-1]} beside "
        f"one called {', '.join(TRUTHS[measured][:-1])} or {TRUTHS[measured][-1]}, in any case of letters"
    )


def _is_called(case: Case, name: str) -> bool:
    return name.casefold() in (case.name.casefold(), case.name.rpartition("/")[2].casefold())


def _paired(folder: Path, truths: Sequence[str]) -> Iterator[Case]:
    """Clips and their truths below a folder, wherever two folders of such names lie side by side."""
    for place, children in _walk(folder):
        clips, truth = _first(children, CLIPS), _first(children, truths)
        ground = _first(children, BACKGROUNDS) if clips is None else None
        clips = clips or (_first(children, FOREGROUNDS) if ground is not None else None)
        if clips is None or truth is None:
            continue
        beside = {"foreground": _first(children, FOREGROUNDS), "airlight": _first(children, AIRLIGHTS)}
        prefix = "" if place == folder else f"{place.relative_to(folder).as_posix()}/"
        if is_clip(clips):
            name = prefix.rstrip("/") or folder.name
            light = beside["airlight"] or _table(clips, AIRLIGHTS[0])
            yield Case(name, clips, truth, beside["foreground"], light, ground)
            continue
        clips, truth = _of_one_size(clips, truth)
        given, known = _clips_in(clips), _clips_in(truth)
        by_place = len(given) == len(known) and not given.keys() & known.keys()
        partners = dict(zip(given, known.values(), strict=True)) if by_place else known
        grounds = [] if ground is None else clips_and_stills(ground)
        if ground is not None and not grounds:
            raise GraphError(f"{ground}: holds no backgrounds; give videos, folders of pictures or pictures")
        for index, (name, clip) in enumerate(given.items()):
            if name not in partners:
                yield Case(prefix + name, clip, truth, wrong=f"{clip}: has no truth; there is no {name} in {truth}")
                continue
            colours, light = (None if one is None else _inside(one, name) for one in beside.values())
            behind = grounds[index % len(grounds)] if grounds else None
            yield Case(prefix + name, clip, partners[name], colours, light or _table(clip, name), behind)


def _alone(folder: Path) -> Iterator[Case]:
    """Clips that are their own truth: in one folder, or in one that is called so below it.

    What is called ``NAME_masks``, or the like (``ABOUT``), beside a clip ``NAME`` is about that clip.
    """
    if is_clip(folder):
        yield Case(folder.name, folder, folder)
        return
    for place, children in _walk(folder):
        clips = _first(children, CLIPS)
        given = _clips_in(_of_one_size(clips, clips)[0] if clips is not None and not is_clip(clips) else place)
        given = {name: clip for name, clip in given.items() if not _is_about(name, given)}
        prefix = "" if place == folder else f"{place.relative_to(folder).as_posix()}/"
        yield from (Case(prefix + name, clip, clip) for name, clip in given.items())
        if given:
            return


def _is_about(name: str, others: dict[str, Path]) -> bool:
    head, _, kind = name.rpartition("_")
    return head in others and kind.casefold() in ABOUT


def _walk(folder: Path) -> Iterator[tuple[Path, dict[str, Path]]]:
    """Folders below one, it first, and what lies in each, by its name without suffix in small letters."""
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop(0)
        inside = _sorted(path for path in place.iterdir() if not path.name.startswith("."))
        # a folder is what is meant, and not the archive beside it that it was unpacked from
        files = {path.stem.casefold(): path for path in inside if path.is_file()}
        yield place, files | {path.name.casefold(): path for path in inside if not path.is_file()}
        if depth < DEPTH:
            waiting += [(path, depth + 1) for path in inside if path.is_dir() and not is_clip(path)]


def _first(children: dict[str, Path], names: Sequence[str]) -> Path | None:
    return next((children[name] for name in names if name in children), None)


def _inside(folder: Path, name: str) -> Path | None:
    """The clip or the table of that name in a folder."""
    return _clips_in(folder).get(name) or next((file for file in [folder / f"{name}.csv"] if file.is_file()), None)


def _table(clip: Path, name: str) -> Path | None:
    """The airlight of a clip, where it lies in the clip or beside it."""
    places = [clip / f"{AIRLIGHTS[0]}.csv", clip.parent / f"{name}.csv"]
    return next((file for file in places if file.is_file()), None)


def _of_one_size(clips: Path, truth: Path) -> tuple[Path, Path]:
    """The folders themselves, or, where they hold a folder for each size, those of one size that both have."""
    if _clips_in(clips):
        return clips, truth
    shared = [path.name for path in _sorted(clips.iterdir()) if path.is_dir() and (truth / path.name).is_dir()]
    size = next((name for name in (*SIZES, *shared) if name in shared), None)
    return (clips, truth) if size is None else (clips / size, truth / size)


def _clips_in(folder: Path) -> dict[str, Path]:
    """The clips that lie in a folder, by name without suffix, in order."""
    if not folder.is_dir():
        return {}
    found = (path for path in _sorted(folder.iterdir()) if not path.name.startswith(".") and is_clip(path))
    return {path.stem if path.is_file() else path.name: path for path in found}


def _sorted(paths: Iterator[Path]) -> list[Path]:
    from natsort import natsorted, ns

    return natsorted(paths, key=lambda path: path.name, alg=ns.IGNORECASE)


def _uneven(case: Case) -> str:
    """What is wrong with the numbers of frames, as far as folders show."""
    counts = {
        path: sum(map(is_picture, files_of(path)))
        for path in (case.clip, case.truth, case.foreground)
        if path is not None and path.is_dir()
    }
    if len(set(counts.values())) < 2:
        return ""
    (clip, count), *rest = counts.items()
    other, wrong = next((path, number) for path, number in rest if number != count)
    return f"{other}: has {wrong} frames, {clip} has {count}; frames belong together by their order, so give as many"


def _of_split(folder: Path, split: str, cases: list[Case]) -> list[Case]:
    lists = sorted(folder.rglob(f"ImageSets/**/{split}.txt"))
    if lists:
        lines = lists[0].read_text(encoding="utf-8").split("\n")
        firsts = [Path(line.split()[0]) for line in lines if line.strip()]
        names = {path.parent.name if path.suffix else path.name for path in firsts}
        chosen = [case for case in cases if case.name.rpartition("/")[2] in names]
    else:
        chosen = [case for case in cases if split.casefold() in case.name.casefold().split("/")[:-1]]
    if not chosen:
        raise GraphError(
            f"{folder}: has no split {split}, neither as ImageSets/.../{split}.txt nor as a folder of clips"
        )
    return chosen
