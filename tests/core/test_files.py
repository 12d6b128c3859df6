from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import programs
import pytest
from processes import Started

from comfyui_vdp.vdp_core.store.files import beside, held, remove_left_overs, scratch, watching

needs_kill = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "clip.mp4"
    with beside(target) as partial:
        partial.write_text("half")
        assert partial.suffix == ".mp4"
        assert partial.name.startswith(".")
        assert not target.exists()
    assert target.read_text() == "half"
    assert names(target.parent) == ["clip.mp4"]


def test_a_folder_too(tmp_path):
    target = tmp_path / "clip"
    target.mkdir()
    with beside(target) as partial:
        partial.mkdir()
        (partial / "00000.png").touch()
    assert names(target) == ["00000.png"]
    assert names(tmp_path) == ["clip"]


def test_an_interruption_while_things_are_tidied_up_leaves_nothing(tmp_path, monkeypatch):
    """What is left without its mark would stay for good."""
    removing = os.unlink
    stops = iter([True])

    def stopped(path, *more, **named):
        if "partial" in str(path) and next(stops, False):
            raise KeyboardInterrupt
        removing(path, *more, **named)

    monkeypatch.setattr(os, "unlink", stopped)
    with pytest.raises(KeyboardInterrupt), beside(tmp_path / "clip.mp4") as partial:
        partial.touch()
        raise OSError
    assert names(tmp_path) == []
    (tmp_path / ".clip.01234567.partial.mp4").touch()
    (tmp_path / ".clip.01234567.lock").touch()
    stops = iter([True])
    with pytest.raises(KeyboardInterrupt):
        remove_left_overs(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_nothing_is_left_of_what_failed(tmp_path, error):
    target = tmp_path / "clip.mp4"
    target.write_text("before")
    with pytest.raises(error), beside(target) as partial:
        partial.write_text("half")
        raise error
    with pytest.raises(error), beside(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "00000.png").touch()
        raise error
    assert target.read_text() == "before"
    assert names(tmp_path) == ["clip.mp4"]


def start(tmp_path_factory: pytest.TempPathFactory, target: Path, kind: str) -> Started:
    """A process that writes beside a target until it is killed, or a file ``end`` is there."""
    told = tmp_path_factory.mktemp("told")
    writer = Started(programs.writer, target, kind, told / "end", folder=told)
    while writer.out != "writing\n":
        assert writer.wait(0.01) is None, writer.err
    return writer


@needs_kill
@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
@pytest.mark.parametrize("name", ["clip.mp4", "a [b] *?.v2", "übung"])
def test_left_overs_of_a_killed_writer_go_with_the_next(tmp_path, tmp_path_factory, kind, name):
    (tmp_path / ".other.12345678.partial.mp4").touch()
    start(tmp_path_factory, tmp_path / name, kind).end()
    assert len(names(tmp_path)) == (2 if kind == "nothing" else 3)
    with beside(tmp_path / "next.mp4") as partial:
        partial.touch()
    assert names(tmp_path) == [".other.12345678.partial.mp4", "next.mp4"]


def test_what_another_process_is_writing_stays(tmp_path, tmp_path_factory):
    writer = start(tmp_path_factory, tmp_path / "clip.mp4", "file")
    before = names(tmp_path)
    remove_left_overs(tmp_path)
    assert names(tmp_path) == before
    writer.folder.joinpath("end").touch()
    assert writer.wait() == 0
    assert names(tmp_path) == ["clip.mp4"]


def test_many_write_to_one_folder_at_once(tmp_path):
    def write(number: int) -> None:
        for index in range(10):
            with beside(tmp_path / f"{number}_{index}.txt") as partial:
                partial.write_text("whole")

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == sorted(f"{number}_{index}.txt" for number in range(8) for index in range(10))


def test_a_lock_is_held_by_one(tmp_path):
    mark = tmp_path / "run.lock"
    with held(mark) as first, held(mark, wait=0.0) as second:
        assert (first, second) == (True, False)
    assert names(tmp_path) == []


@needs_kill
def test_a_temporary_folder_goes_too(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = tmp_path_factory.mktemp("told")
    process = Started(programs.scratcher, folder=told, environment={"TMPDIR": str(tmp_path)})
    while not process.out.endswith("\n"):
        assert process.wait(0.01) is None, process.err
    folder = Path(process.out.strip())
    with scratch() as mine:
        assert mine.is_dir()
        assert folder.is_dir()  # of a process that lives
    process.end()
    assert (folder / "preview.mp4").exists()
    with scratch() as mine:
        assert mine.stat().st_mode & 0o777 == 0o700
        assert not folder.exists()
    assert names(tmp_path) == []


def test_who_watches_is_told_before_anything_gets_its_name(tmp_path):
    told = []

    def watch(partial: Path, target: Path) -> None:
        told.append((partial.stat().st_ino, target.name, target.exists()))

    with watching(watch):
        with beside(tmp_path / "clip.mp4") as partial:
            partial.touch()
        with pytest.raises(OSError), beside(tmp_path / "failed.mp4") as partial:
            raise OSError
    with beside(tmp_path / "later.mp4") as partial:
        partial.touch()
    assert told == [((tmp_path / "clip.mp4").stat().st_ino, "clip.mp4", False)]
