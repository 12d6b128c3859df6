"""What is kept of a run that was cut off, what the next one makes of it, and what remains in the end."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
import torch
from golden_set import SHOWN_BY, needed
from processes import Started, ended_at, states_of

from comfyui_vdp.nodes import host
from comfyui_vdp.runner import cli
from comfyui_vdp.runner.graph.check import needed_nodes
from comfyui_vdp.runner.graph.read import read
from comfyui_vdp.runner.graph.specs import local_specs
from comfyui_vdp.runner.graph.types import RunResult, Specs
from comfyui_vdp.runner.run import resume as module
from comfyui_vdp.runner.run.execute import RESUME_FOLDER, run
from comfyui_vdp.runner.run.resume import Kept, identities
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.store.files import numbered, remove
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL, Journal
from comfyui_vdp.vdp_core.tasks import TASKS

needs_kill = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")


class Killed(BaseException):
    """Stands for the end of the process."""


class Long:
    """Counts, and keeps how far it came."""

    FUNCTION, RETURN_TYPES = "count", ("NUMBER",)
    killed_at = 0
    counted: list[int] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": ("NUMBER",), "steps": ("INT", {"default": 5})}}

    def count(self, number: float, steps: int) -> tuple[float]:
        kept = host.journal()
        found = kept.load("count")
        done = 0 if found is None else int(found[0]["done"])
        while done < steps:
            done += 1
            self.counted.append(done)
            kept.save("count", {"done": torch.tensor(done)})
            if done == self.killed_at:
                raise Killed
        return (number + done,)


class Reader:
    """Gives the length of a text file."""

    FUNCTION, RETURN_TYPES = "read", ("NUMBER",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"path": ("STRING", {}), "scale": ("FLOAT", {"default": 1.0})}}

    @classmethod
    def IS_CHANGED(cls, path: str) -> str:
        return Path(path).read_text()

    def read(self, path: str, scale: float) -> tuple[float]:
        return (scale * len(Path(path).read_text()),)


class Save:
    """Leaves a file, or a folder of two, as the pack's nodes do."""

    FUNCTION, RETURN_TYPES, OUTPUT_NODE = "save", (), True
    killed = False

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": ("NUMBER",), "folder": ("BOOLEAN", {"default": False})}}

    def save(self, number: float, folder: bool) -> Any:
        path = host.output_path("saved")
        with numbered(path.parent, path.name) as place:
            if folder:
                place.partial.mkdir()
                (place.partial / "00000.png").write_text(str(number))
            else:
                place.partial.write_text(str(number))
        if self.killed:
            raise Killed
        return {"ui": {"vdp_outputs": [place.target.name]}}


@pytest.fixture(autouse=True)
def output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(Long, "counted", [])
    with host.running(host.Headless(device="cpu", output_folder=folder)):
        yield folder


@pytest.fixture
def long_specs(make_specs: Callable[..., Specs]) -> Specs:
    return {**local_specs(), **make_specs(Long=Long, Reader=Reader, Save=Save)}


@pytest.fixture
def long_graph(api_graph: Any) -> Any:
    """Number -> Long -> Report, and a second Report of the number itself, which comes first."""
    return {
        "1": api_graph["1"],
        "2": {"class_type": "Report", "inputs": {"number": ["1", 0], "filename_prefix": "early"}},
        "3": {"class_type": "Long", "inputs": {"number": ["1", 0], "steps": 5}, "_meta": {"title": "Long"}},
        "4": {"class_type": "Report", "inputs": {"number": ["3", 0], "filename_prefix": "late"}},
    }


def resumed(graph: Any, specs: Specs, folder: Path) -> RunResult:
    return run(read(graph, specs), specs, resume=folder / RESUME_FOLDER)


def killed(graph: Any, specs: Specs, folder: Path, monkeypatch: pytest.MonkeyPatch, at: int = 3) -> None:
    monkeypatch.setattr(Long, "killed_at", at)
    with pytest.raises(Killed):
        resumed(graph, specs, folder)
    monkeypatch.setattr(Long, "killed_at", 0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# in this process


def test_work_goes_on_and_nothing_is_done_twice(long_graph, long_specs, output_folder, monkeypatch, node_log):
    killed(long_graph, long_specs, output_folder, monkeypatch)
    assert names(output_folder) == [RESUME_FOLDER, "early_00001.txt"]
    node_log.clear()
    result = resumed(long_graph, long_specs, output_folder)
    assert Long.counted == [1, 2, 3, 4, 5]
    assert node_log == ["make n", "show 11.0 as 4 of 4, []"]  # the early one was there
    assert names(output_folder) == ["early_00001.txt", "late_00001.txt"]
    assert [Path(path).name for path in result.outputs] == ["early_00001.txt", "late_00001.txt"]
    assert result.numbers == {"2.number": 6.0, "2.loss": None, "4.number": 11.0, "4.loss": None}


def test_without_a_folder_nothing_is_kept(long_graph, long_specs, output_folder, monkeypatch):
    monkeypatch.setattr(Long, "killed_at", 3)
    with pytest.raises(Killed):
        run(read(long_graph, long_specs), long_specs)
    assert names(output_folder) == ["early_00001.txt"]
    assert host.journal() is NO_JOURNAL


def test_a_run_that_is_done_is_done_anew(long_graph, long_specs, output_folder):
    for _ in range(2):
        resumed(long_graph, long_specs, output_folder)
    assert Long.counted == [1, 2, 3, 4, 5] * 2
    assert names(output_folder) == ["early_00001.txt", "early_00002.txt", "late_00001.txt", "late_00002.txt"]


@pytest.mark.parametrize("change", ["taken away", "changed"])
def test_an_output_that_is_not_as_it_was_is_made_again(long_graph, long_specs, output_folder, monkeypatch, change):
    killed(long_graph, long_specs, output_folder, monkeypatch)
    early = output_folder / "early_00001.txt"
    early.unlink() if change == "taken away" else early.write_text("something else")
    result = resumed(long_graph, long_specs, output_folder)
    again = Path(result.outputs[0])
    assert again.read_text() == "6.0"
    assert (again == early) == (change == "taken away")  # what has become something else is not touched
    assert early.read_text() == ("6.0" if change == "taken away" else "something else")


def test_another_graph_starts_anew_and_leaves_the_first_alone(long_graph, long_specs, output_folder, monkeypatch):
    killed(long_graph, long_specs, output_folder, monkeypatch)
    other = json.loads(json.dumps(long_graph))
    other["3"]["inputs"]["steps"] = 4
    resumed(other, long_specs, output_folder)
    assert Long.counted == [1, 2, 3, 1, 2, 3, 4]
    assert RESUME_FOLDER in names(output_folder)
    resumed(long_graph, long_specs, output_folder)
    assert Long.counted == [1, 2, 3, 1, 2, 3, 4, 4, 5]
    assert RESUME_FOLDER not in names(output_folder)


def test_what_nobody_came_back_for_goes_after_a_week(long_graph, long_specs, output_folder, monkeypatch):
    killed(long_graph, long_specs, output_folder, monkeypatch)
    kept = output_folder / RESUME_FOLDER
    for path in (*kept.rglob("*"), kept):
        os.utime(path, (time.time() - module.KEPT_FOR - 60,) * 2)
    long_graph["3"]["inputs"]["steps"] = 4
    resumed(long_graph, long_specs, output_folder)
    assert RESUME_FOLDER not in names(output_folder)


@pytest.fixture(params=[False, True], ids=["file", "folder"])
def saving(request: pytest.FixtureRequest, api_graph: Any) -> Any:
    """Number -> Save."""
    return {"1": api_graph["1"], "2": {"class_type": "Save", "inputs": {"number": ["1", 0], "folder": request.param}}}


def test_what_was_whole_but_not_yet_known_is_not_left_twice(saving, long_specs, output_folder, monkeypatch):
    """Killed just after the output got its name."""
    monkeypatch.setattr(Save, "killed", True)
    for _ in range(2):
        with pytest.raises(Killed):
            resumed(saving, long_specs, output_folder)
        assert names(output_folder) == [RESUME_FOLDER, "saved_00001"]
    monkeypatch.setattr(Save, "killed", False)
    resumed(saving, long_specs, output_folder)
    assert names(output_folder) == ["saved_00001"]


@pytest.mark.parametrize("change", ["written to", "replaced"])
def test_what_is_not_its_own_is_never_taken_away(saving, long_specs, output_folder, monkeypatch, change):
    monkeypatch.setattr(Save, "killed", True)
    with pytest.raises(Killed):
        resumed(saving, long_specs, output_folder)
    monkeypatch.setattr(Save, "killed", False)
    saved = output_folder / "saved_00001"
    if change == "replaced":
        remove(saved)
        saved.write_text("a person's")
    elif saved.is_dir():
        (saved / "notes.txt").write_text("a person's")
    else:
        saved.write_text("a person's")
    resumed(saving, long_specs, output_folder)
    assert names(output_folder) == ["saved_00001", "saved_00002"]
    assert "a person's" in [path.read_text() for path in (saved, *saved.rglob("*")) if path.is_file()]


def test_a_kill_at_the_very_end_leaves_all_known_as_done(saving, long_specs, output_folder, monkeypatch):
    clear = Journal.clear

    def cut_off(journal: Journal) -> None:
        if journal.folder.name.startswith("run-"):
            raise Killed
        clear(journal)

    monkeypatch.setattr(Journal, "clear", cut_off)
    with pytest.raises(Killed):
        resumed(saving, long_specs, output_folder)
    monkeypatch.setattr(Journal, "clear", clear)
    assert [Path(path).name for path in resumed(saving, long_specs, output_folder).outputs] == ["saved_00001"]
    assert names(output_folder) == ["saved_00001"]


def test_a_kill_while_a_journal_is_removed_leaves_none_after_the_next_run(
    long_graph, long_specs, output_folder, monkeypatch
):
    clear = Journal.clear

    def cut_off(journal: Journal) -> None:
        for path in journal.folder.iterdir():
            path.unlink()
        raise Killed

    monkeypatch.setattr(Journal, "clear", cut_off)
    with pytest.raises(Killed):
        resumed(long_graph, long_specs, output_folder)
    monkeypatch.setattr(Journal, "clear", clear)
    assert len(resumed(long_graph, long_specs, output_folder).outputs) == 2
    assert Long.counted == [1, 2, 3, 4, 5]
    assert names(output_folder) == ["early_00001.txt", "late_00001.txt"]


def test_a_folder_that_cannot_be_used_stops_nothing(long_graph, long_specs, output_folder, caplog):
    (output_folder / RESUME_FOLDER).write_text("a file")
    resumed(long_graph, long_specs, output_folder)
    assert Long.counted == [1, 2, 3, 4, 5]
    assert "this one keeps nothing there" in caplog.text


def test_two_at_once_do_not_share(long_graph, long_specs, output_folder, monkeypatch):
    killed(long_graph, long_specs, output_folder, monkeypatch)
    graph = read(long_graph, long_specs)
    keys = identities(graph, long_specs, needed_nodes(graph, long_specs), "cpu")
    with Kept(output_folder / RESUME_FOLDER, keys, output_folder) as first:
        assert first.journal("3").load("count") is not None
        Long.counted.clear()
        resumed(long_graph, long_specs, output_folder)
        assert Long.counted == [1, 2, 3, 4, 5]
        assert first.journal("3").load("count") is not None


def test_equal_nodes_keep_apart(long_graph, long_specs, output_folder, monkeypatch):
    long_graph["5"] = {**long_graph["4"], "inputs": {**long_graph["4"]["inputs"], "number": ["6", 0]}}
    long_graph["6"] = long_graph["3"]
    killed(long_graph, long_specs, output_folder, monkeypatch)
    resumed(long_graph, long_specs, output_folder)
    assert Long.counted == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_damaged_journals_are_left_aside(long_graph, long_specs, output_folder, monkeypatch, content):
    killed(long_graph, long_specs, output_folder, monkeypatch)
    for path in (output_folder / RESUME_FOLDER).rglob("*.safetensors"):
        path.write_bytes(content)
    resumed(long_graph, long_specs, output_folder)
    assert Long.counted == [1, 2, 3, 1, 2, 3, 4, 5]


# what makes work the same


@pytest.fixture
def reading(tmp_path: Path) -> Any:
    """A path -> Reader -> Report."""
    (tmp_path / "text.txt").write_text("abc")
    return {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": str(tmp_path / "text.txt")}},
        "2": {"class_type": "Reader", "inputs": {"path": ["1", 0], "scale": 1.0}},
        "3": {"class_type": "Report", "inputs": {"number": ["2", 0], "filename_prefix": "report"}},
    }


def names_of(graph: Any, specs: Specs, device: str = "cpu") -> dict[str, str | None]:
    parsed = read(graph, specs)
    return identities(parsed, specs, needed_nodes(parsed, specs), device)


def test_a_change_is_known_below_and_not_above(reading, long_specs):
    before = names_of(reading, long_specs)
    assert len(set(before.values())) == 3
    assert names_of(reading, long_specs) == before
    reading["2"]["inputs"]["scale"] = 2.0
    after = names_of(reading, long_specs)
    assert [key for key in before if before[key] != after[key]] == ["2", "3"]


def test_a_file_that_changes_is_known(reading, long_specs, tmp_path):
    before = names_of(reading, long_specs)
    (tmp_path / "text.txt").write_text("abd")
    after = names_of(reading, long_specs)
    assert [key for key in before if before[key] != after[key]] == ["2", "3"]
    (tmp_path / "text.txt").write_text("abc")
    assert names_of(reading, long_specs) == before


def test_device_and_version_are_known(reading, long_specs, monkeypatch):
    before = names_of(reading, long_specs)
    assert not set(before.values()) & set(names_of(reading, long_specs, "cuda").values())
    monkeypatch.setattr("comfyui_vdp.vdp_core.models.file.own_version", lambda: "99")
    assert not set(before.values()) & set(names_of(reading, long_specs).values())


def test_a_value_is_the_same_however_it_is_written(reading, long_specs):
    before = names_of(reading, long_specs)
    reading["2"]["inputs"]["scale"] = 1
    reading["2"]["_meta"] = {"title": "Another title"}
    assert names_of(reading, long_specs) == before


def test_a_path_that_is_computed_is_not_known_beforehand(reading, long_specs, api_graph, output_folder):
    reading["1"] = {"class_type": "Add", "inputs": {"a": ["4", 0]}}
    reading["2"]["inputs"]["path"] = ["1", 1]
    reading["4"] = api_graph["1"]
    found = names_of(reading, long_specs)
    assert (found["2"], found["3"]) == (None, None)
    assert found["1"] is not None
    assert Kept(output_folder / RESUME_FOLDER, found, output_folder).journal("2") is NO_JOURNAL


# processes that are killed


def learning(pause: float) -> Any:
    saver = {"frames": ["1", 0], "fps": 24.0, "quality": 80}
    return {
        "1": {"class_type": "Learn", "inputs": {"pause": pause}},
        "2": {"class_type": "SaveFrames", "inputs": {**saver, "format": "png", "filename_prefix": "a"}},
        "3": {"class_type": "SaveFrames", "inputs": {**saver, "format": "mp4", "filename_prefix": "b"}},
    }


class Jobs:
    """``vdp run --resume`` of a graph in processes of their own, which see one temporary folder."""

    def __init__(self, folder: Path, graph: Any) -> None:
        self.folder, self.temp = folder, folder / "temp"
        self.temp.mkdir()
        (folder / "graph.json").write_text(json.dumps(graph))
        self._more = {"folder": folder / "told", "environment": {"TMPDIR": str(self.temp)}}

    def _arguments(self, out: Path) -> list[str]:
        return ["run", str(self.folder / "graph.json"), "--resume", "--quiet", "--output-dir", str(out)]

    def states(self, out: Path) -> list[str]:
        """Run to the end; returns the states on the way."""
        return states_of(programs.learning, self._arguments(out), within=self.folder, **self._more)

    def finish(self, out: Path) -> float:
        """Run to the end; returns the seconds it took."""
        began = time.monotonic()
        run = Started(programs.learning, self._arguments(out), **self._more)
        assert run.wait() == 0, run.err
        return time.monotonic() - began

    def kill_at(self, out: Path, state: str, nth: int = 1) -> None:
        arguments = self._arguments(out)
        run = ended_at(state, signal.SIGKILL, programs.learning, arguments, within=self.folder, nth=nth, **self._more)
        assert (state, run.code) == (state, -signal.SIGKILL)

    def kill_after(self, out: Path, seconds: float) -> bool:
        """Run, and kill after some seconds; whether it still ran."""
        run = Started(programs.learning, self._arguments(out), **self._more)
        run.wait(seconds)
        return run.end() != 0

    def check_that_nothing_is_left(self) -> None:
        assert names(self.temp) == []


def assert_alike(one: Path, other: Path) -> None:
    """All files are of the same names, equal to the byte, or videos of equal frames."""
    files = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (one, other)]
    assert files[0] == files[1]
    for name in files[0]:
        if name.suffix == ".mp4":
            assert torch.equal(video.read_clip(one / name).frames, video.read_clip(other / name).frames)
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def is_over(out: Path) -> bool:
    """Whether a run was killed when all was done: the record of what it made goes last, and has gone."""
    made = out.exists() and any(not name.startswith(".") for name in names(out))
    return made and not any((out / RESUME_FOLDER).glob("run-*/*.safetensors"))


def go_on(jobs: Jobs, out: Path) -> None:
    """What a person does after a kill."""
    if is_over(out):
        shutil.rmtree(out / RESUME_FOLDER, ignore_errors=True)
    else:
        jobs.finish(out)
        assert not (out / RESUME_FOLDER).exists()


@needs_kill
def test_a_run_that_is_killed_in_any_state_ends_as_one_that_is_not(tmp_path):
    jobs, whole = Jobs(tmp_path, learning(0.0)), tmp_path / "out"
    states = jobs.states(whole)
    assert len(states) > 10
    for index, state in enumerate(states):
        (tmp_path / str(index)).mkdir()
        out = tmp_path / str(index) / "out"
        jobs.kill_at(out, state)
        go_on(jobs, out)
        assert_alike(whole, out)
    jobs.finish(tmp_path / "last")  # takes away the mark of the one that was killed as it took its own away
    jobs.check_that_nothing_is_left()


@needs_kill
def test_a_run_that_is_killed_over_and_over_ends_as_one_that_is_not(tmp_path):
    jobs, whole, out = Jobs(tmp_path, learning(0.0)), tmp_path / "whole", tmp_path / "out"
    jobs.finish(whole)
    for _ in range(5):  # each keeps the ten steps before it is killed
        jobs.kill_at(out, "step Learning", nth=11)
    jobs.finish(out)
    assert_alike(whole, out)
    jobs.check_that_nothing_is_left()


@needs_kill
@pytest.mark.slow
def test_kills_at_random_moments(tmp_path):
    jobs, whole = Jobs(tmp_path, learning(0.02)), tmp_path / "whole"
    seconds = jobs.finish(whole)
    chance, kills, number = random.Random(2), 0, 0
    while kills < 20:
        number += 1
        out = tmp_path / f"killed_{number}"
        while kills < 20 and jobs.kill_after(out, chance.uniform(0.0, seconds)):
            kills += 1
            if is_over(out):
                shutil.rmtree(out / RESUME_FOLDER, ignore_errors=True)
                break
        else:
            if kills == 20:
                jobs.finish(out)
        assert_alike(whole, out)
    jobs.check_that_nothing_is_left()


def with_defaults(graph: Any) -> Any:
    """A graph in which every required value is given."""
    specs = local_specs()
    for node in graph.values():
        for entry in specs[node["class_type"]].inputs.values():
            if entry.required and entry.is_widget:
                first = entry.choices[0] if entry.choices else None
                node["inputs"].setdefault(entry.name, entry.options.get("default", first))
    return graph


@needs_kill
@pytest.mark.parametrize("task", TASKS)
def test_a_decomposition_that_is_killed_ends_as_one_that_is_not(tmp_path, synthetic, task):
    """Killed early and late in the fit, and when the layers are about to get their name."""
    clip = video.write_clip(tmp_path / "clip", synthetic.layered(8, 48, 64).frames * 0.3, fps=24, format="png")
    sources: Any = {"frames": ["1", 0], "flow": ["2", 0]}
    graph = {
        "1": {"class_type": "LoadFrames", "inputs": {"path": str(clip)}},
        "2": {"class_type": "RAFTFlow", "inputs": {"frames": ["1", 0], "model": "dis"}},
        "3": {"class_type": "VDPOptimize", "inputs": {**sources, "task": task, "steps": 60}},
        "4": {"class_type": SHOWN_BY[task], "inputs": {"layers": ["3", 0]}},
        "5": {"class_type": "SaveLayers", "inputs": {"layers": ["3", 0], "filename_prefix": "layers"}},
        "6": {"class_type": "SaveFrames", "inputs": {"frames": ["4", 0], "format": "png"}},
    }
    if given := needed(task, synthetic.layered(8, 48, 64).frames):
        masks = given["mask"][..., None].expand(-1, -1, -1, 3)
        drawn = video.write_clip(tmp_path / "mask", masks, fps=24, format="png")
        graph["7"] = {"class_type": "LoadFrames", "inputs": {"path": str(drawn), "count": 1}}
        graph["3"]["inputs"]["mask"] = ["7", 0]
    jobs = Jobs(tmp_path, with_defaults(graph))
    whole, out = tmp_path / "whole", tmp_path / "out"
    jobs.finish(whole)
    for state, nth in (
        (f"step Optimize ({task})", 10),
        (f"step Optimize ({task})", 30),
        ("os.link layers_#.safetensors", 1),
    ):
        jobs.kill_at(out, state, nth)
    jobs.finish(out)
    assert_alike(whole, out)
    jobs.check_that_nothing_is_left()


def test_a_server_does_not_resume(capsys):
    assert cli.main(["run", "graph.json", "--resume", "--server", "http://127.0.0.1:1"]) == 2
    assert "--resume has no effect with --server" in capsys.readouterr().err
