from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import programs
import pytest
from processes import Started

from comfyui_vdp.vdp_core.store.files import beside, held, numbered, remove_left_overs, scratch, watching

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


# Numbered files


def write_numbered(folder, content, suffix=".txt"):
    with numbered(folder, "clip", suffix) as place:
        place.partial.write_text(content)
    return place.target.name


def test_numbers_count_up_and_are_never_given_twice(tmp_path):
    assert write_numbered(tmp_path / "out", "first") == "clip_00001.txt"
    assert write_numbered(tmp_path / "out", "second") == "clip_00002.txt"
    assert write_numbered(tmp_path / "out", "third", suffix=".mov") == "clip_00003.mov"
    for foreign in ("Clip_00041_.png", "clipper_00099.mp4", "clip_12.mp4"):  # as ComfyUI's own savers number
        (tmp_path / "out" / foreign).touch()
    (tmp_path / "out" / "clip_00043").mkdir()
    assert write_numbered(tmp_path / "out", "fourth") == "clip_00044.txt"
    assert (tmp_path / "out" / "clip_00001.txt").read_text() == "first"
    assert not [name for name in names(tmp_path / "out") if name.startswith(".")]


def test_a_number_is_reserved_while_it_is_written(tmp_path):
    with numbered(tmp_path, "clip", ".mp4") as slow:
        slow.partial.write_text("slow")
        assert slow.target.name == "clip_00001.mp4"
        assert write_numbered(tmp_path, "quick") == "clip_00002.txt"
        assert [name for name in names(tmp_path) if not name.startswith(".")] == ["clip_00002.txt"]
    assert names(tmp_path) == ["clip_00001.mp4", "clip_00002.txt"]


def test_a_number_is_free_again_after_a_failure(tmp_path):
    with pytest.raises(KeyboardInterrupt), numbered(tmp_path, "clip") as place:
        place.partial.mkdir()
        (place.partial / "00000.png").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    assert write_numbered(tmp_path, "next") == "clip_00001.txt"


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_name_that_is_taken_at_the_last_moment_is_left_to_who_took_it(tmp_path, monkeypatch, kind, has_links):
    def no_links(*_):
        raise PermissionError("no hard links here")

    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    with numbered(tmp_path, "clip") as place:
        if kind == "file":
            place.partial.write_text("ours")
            (tmp_path / "clip_00001").write_text("theirs")
        else:
            place.partial.mkdir()
            (place.partial / "0.png").write_text("ours")
            (tmp_path / "clip_00001").mkdir()
            (tmp_path / "clip_00001" / "0.png").write_text("theirs")
    assert names(tmp_path) == ["clip_00001", "clip_00002"]
    first, second = (path if kind == "file" else path / "0.png" for path in sorted(tmp_path.iterdir()))
    assert (first.read_text(), second.read_text()) == ("theirs", "ours")


def test_a_name_that_is_taken_between_the_look_and_the_naming_is_left_too(tmp_path, monkeypatch):
    link = os.link

    def just_before(partial, target):
        Path(target).write_text("theirs")
        monkeypatch.setattr(os, "link", link)
        return link(partial, target)

    monkeypatch.setattr(os, "link", just_before)
    assert write_numbered(tmp_path, "ours") == "clip_00002.txt"
    assert (tmp_path / "clip_00001.txt").read_text() == "theirs"


@needs_kill
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_reserved_goes_with_the_next(tmp_path, tmp_path_factory, kind):
    told = tmp_path_factory.mktemp("told")
    writer = Started(programs.numbered_writer, tmp_path, kind, told / "end", folder=told)
    while writer.out != "writing\n":
        assert writer.wait(0.01) is None, writer.err
    assert write_numbered(tmp_path, "beside it") == "clip_00002.txt"
    writer.end()
    assert any(name.startswith(".") for name in names(tmp_path))
    assert write_numbered(tmp_path, "next") == "clip_00003.txt"
    assert names(tmp_path) == ["clip_00002.txt", "clip_00003.txt"]


def test_eight_processes_at_once_leave_eight_results(tmp_path, tmp_path_factory):
    told = tmp_path_factory.mktemp("told")
    writers = [
        Started(programs.saver, tmp_path, f"{number}", 5, told / "go", folder=told / str(number)) for number in range(8)
    ]
    while not all(writer.out == "ready\n" for writer in writers):
        assert all(writer.wait(0.01) is None for writer in writers)
    (told / "go").touch()
    assert [writer.wait() for writer in writers] == [0] * 8, [writer.err for writer in writers]
    assert names(tmp_path) == [f"clip_{number:05}" for number in range(1, 41)]
    written = sorted(
        file.read_text() for path in tmp_path.iterdir() for file in ([path] if path.is_file() else path.iterdir())
    )
    assert written == sorted(f"{number}-{index}" for number in range(8) for index in range(5))
