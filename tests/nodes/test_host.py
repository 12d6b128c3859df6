"""The host's answers headless, and inside a ComfyUI made of the few modules it asks."""

from __future__ import annotations

import glob
import json
import sys
import time
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.vdp_core.errors import InputError, MediaError, ShapeError
from comfyui_vdp.vdp_core.store import lazy


@pytest.fixture
def headless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[host.Headless]:
    said: list[str] = []
    monkeypatch.chdir(tmp_path)
    with host.running(host.Headless(device="cpu", output_folder=tmp_path / "out", say=said.append)):
        yield host.headless


class Interrupted(BaseException):
    """As ComfyUI's own, which newer releases derive from BaseException."""


class FakeComfy:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.cancelled = False
        self.steps: list[tuple[int, int, Any]] = []
        self.texts: list[tuple[str, str]] = []
        self.node: str | None = "7"
        self.memory: list[str] = []
        self.place = torch.device("meta")
        self.keys: dict[str, Any] = {}
        self.args = types.SimpleNamespace(disable_metadata=False)

    def modules(self) -> dict[str, types.ModuleType]:
        comfy = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total = total

            def update_absolute(self, value: int, total: int, preview: Any) -> None:
                comfy.steps.append((value, total, preview))

        def throw() -> None:
            if comfy.cancelled:
                raise Interrupted

        def send(text: str, node: str) -> None:
            comfy.texts.append((text, node))

        def context() -> types.SimpleNamespace | None:
            return None if comfy.node is None else types.SimpleNamespace(node_id=comfy.node)

        instance = types.SimpleNamespace(send_progress_text=send)
        contents: dict[str, dict[str, Any]] = {
            "comfy.model_management": {
                "get_torch_device": lambda: self.place,
                "should_use_fp16": lambda device: device.type == "meta",
                "throw_exception_if_processing_interrupted": throw,
                "InterruptProcessingException": Interrupted,
                "intermediate_device": lambda: torch.device("cpu"),
                "get_free_memory": lambda device: 5000,
                "free_memory": lambda need, device: self.memory.append(f"{need} on {device}"),
                "unload_all_models": lambda: self.memory.append("unload"),
                "soft_empty_cache": lambda: self.memory.append("empty"),
            },
            "comfy_execution.utils": {"get_executing_context": context},
            "comfy.utils": {"ProgressBar": ProgressBar},
            "comfy.cli_args": {"args": self.args},
            "folder_paths": {
                "get_output_directory": lambda: str(self.root / "output"),
                "get_input_directory": lambda: str(self.root / "input"),
                "get_temp_directory": lambda: str(self.root / "temp"),
                "models_dir": str(self.root / "models"),
                "folder_names_and_paths": self.keys,
                "get_folder_paths": lambda name: self.keys[name][0],
            },
            "server": {"PromptServer": types.SimpleNamespace(instance=instance)},
        }
        modules = {}
        for name, content in contents.items():
            modules[name] = types.ModuleType(name)
            vars(modules[name]).update(content)
        return modules


@pytest.fixture
def comfy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeComfy:
    fake = FakeComfy(tmp_path)
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    return fake


# Device


def test_device_headless(headless: host.Headless, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.device() == torch.device("cpu")
    assert not host.use_half(torch.device("cpu"))
    assert host.use_half(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    headless.device = "auto"
    assert host.device() == torch.device("cpu")
    headless.device = "cuda"
    with pytest.raises(InputError, match="finds no CUDA device; use cpu or auto"):
        host.device()


def test_device_in_comfyui(comfy: FakeComfy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.device() == torch.device("cpu")  # for a device that torch cannot fit on
    management = sys.modules["comfy.model_management"]
    monkeypatch.setattr(management, "get_torch_device", lambda: torch.device("cuda:1"), raising=False)
    assert host.device() == torch.device("cuda:1")
    assert host.use_half(torch.device("meta"))


# Progress


def test_progress_headless_is_silent_unless_the_runner_shows_it(
    headless: host.Headless, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with host.progress(3, "work") as on_step:
        on_step(1, 3, None)
    assert capfd.readouterr() == ("", "")

    @contextmanager
    def shown(total: int, label: str) -> Iterator[Callable[..., None]]:
        print(total, label)
        yield lambda *step: print(*step)

    monkeypatch.setattr(headless, "progress", shown)
    with host.progress(3, "work") as on_step:
        on_step(1, 3, None)
    assert capfd.readouterr().out == "3 work\n1 3 None\n"


def test_progress_in_comfyui_shows_a_preview_about_every_second(
    comfy: FakeComfy, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = []

    def preview() -> torch.Tensor:
        made.append(now)
        return torch.full((4, 6, 3), 2.0, requires_grad=True)

    with host.progress(5, "work", previews=True) as on_step:
        for step, now in enumerate([100.0, 100.4, 101.1, 101.5, 102.3], 1):  # noqa: B007
            on_step(step, 5, preview)
    assert made == [100.0, 101.1, 102.3]
    assert [(value, total) for value, total, _ in comfy.steps] == [(i, 5) for i in range(1, 6)]
    kind, picture, side = comfy.steps[0][2]
    assert (kind, picture.size, picture.getpixel((0, 0)), side) == ("JPEG", (6, 4), (255, 255, 255), 512)


def test_cancelling_in_comfyui_ends_the_work(comfy: FakeComfy) -> None:
    with pytest.raises(Interrupted), host.fitting(2, "work") as on_step:
        on_step(1, 2, None)
        comfy.cancelled = True
        on_step(2, 2, None)
    assert len(comfy.steps) == 1


def test_fitting_allows_gradients_under_inference_mode(headless: host.Headless) -> None:
    with torch.inference_mode():
        given = torch.ones(2)
        with host.fitting(1, "work"):
            weight = torch.ones(2, requires_grad=True)
            (weight * given.clone()).sum().backward()
            assert weight.grad is not None
        assert torch.is_inference_mode_enabled()


def test_status_lines(headless: host.Headless) -> None:
    heard: list[str] = []
    headless.say = heard.append
    host.say("step 3")
    assert heard == ["step 3"]


def test_status_lines_in_comfyui(comfy: FakeComfy) -> None:
    host.say("step 3")
    comfy.node = None
    host.say("no node to show it on")
    assert comfy.texts == [("step 3", "7")]


def test_the_node_says_how_far_it_is_and_how_long_it_will_take(
    comfy: FakeComfy, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with host.progress(200, "work") as on_step:
        for step, now in [(1, 100.1), (10, 101.0), (11, 101.1), (50, 105.0), (200, 120.0)]:  # noqa: B007
            on_step(step, 200, None)
    texts = [text for text, _ in comfy.texts]
    assert texts == ["work: 10/200, 19 s left", "work: 50/200, 15 s left", "work: 200/200"]
    assert all(picture is None for _, _, picture in comfy.steps)


def test_time_left() -> None:
    assert host.time_left(0, 10, 5.0) == ""
    assert host.time_left(10, 10, 5.0) == ""
    assert host.time_left(1, 10, 5.0) == ", 45 s left"
    assert host.time_left(1, 31, 5.0) == ", 2 min 30 s left"


# Interruption


def test_cancelling_stops_work_that_reports_no_steps(comfy: FakeComfy) -> None:
    with pytest.raises(Interrupted), host.progress(1, "work"):
        total = torch.zeros(4) + 1.0
        comfy.cancelled = True
        total = total.relu()
        pytest.fail("the operation after the button was pressed ran")
    torch.zeros(4).relu()  # outside, nothing is looked at


def test_what_is_an_interruption(comfy: FakeComfy) -> None:
    management = sys.modules["comfy.model_management"]
    management.InterruptProcessingException = KeyError  # type: ignore[attr-defined]
    assert host.is_interruption(KeyError())
    assert not host.is_interruption(ValueError())


# Memory


def out_of_memory() -> RuntimeError:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_out_of_memory_is_tried_again_and_then_on_the_cpu(comfy: FakeComfy, fails: int) -> None:
    comfy.place = torch.device("cuda")
    tried: list[str] = []

    def work(device: torch.device, on_step: host.OnStep) -> int:
        tried.append(device.type)
        if len(tried) <= fails:
            raise out_of_memory()
        return 5

    done = host.compute("Relight", 3, work, memory=1000)
    assert done.result == 5
    assert tried == ["cuda", "cuda", "cpu"][: fails + 1]
    assert comfy.memory == ["1000 on cuda", *["unload", "empty"] * fails]
    assert done.device == torch.device("cpu" if fails == 2 else "cuda")
    warned = "warning: Relight ran out of memory on cuda, so it ran on the CPU; use smaller frames or fewer to stay on "
    assert done.with_warning("done").startswith(warned if fails == 2 else "done, ")


def test_out_of_memory_headless_goes_to_the_cpu(headless: host.Headless, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.work, "device", lambda: torch.device("cuda"))
    tried: list[str] = []

    def work(device: torch.device, on_step: host.OnStep) -> torch.device:
        tried.append(device.type)
        if device.type == "cuda":
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return device

    assert host.compute("work", 1, work, memory=0).device.type == "cpu"
    assert tried == ["cuda", "cpu"]


def test_what_the_failed_try_held_is_gone_before_the_next(comfy: FakeComfy) -> None:
    comfy.place = torch.device("cuda")
    held: list[weakref.ref[torch.Tensor]] = []

    def work(device: torch.device, on_step: host.OnStep) -> bool:
        if not held:
            large = torch.zeros(4)
            held.append(weakref.ref(large))
            raise out_of_memory()
        return held[0]() is None

    assert host.compute("work", 1, work, memory=0).result


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), InputError("frames: wrong"), Interrupted()])
def test_other_failures_pass(comfy: FakeComfy, error: BaseException) -> None:
    comfy.place = torch.device("cuda")

    def work(device: torch.device, on_step: host.OnStep) -> None:
        raise error

    with pytest.raises(type(error)):
        host.compute("work", 1, work, memory=10)
    assert comfy.memory == ["10 on cuda"]


def test_the_cpu_needs_no_room(comfy: FakeComfy) -> None:
    done = host.compute("work", 1, lambda device, on_step: device, memory=10)
    assert done.result == torch.device("cpu")
    assert comfy.memory == []


def test_what_is_free_is_what_comfyui_says(comfy: FakeComfy) -> None:
    assert host.free_memory(torch.device("cuda")) == 5000
    assert host.free_memory(torch.device("cpu")) is None


def test_headless_nobody_but_torch_says_what_is_free(headless: host.Headless) -> None:
    assert host.free_memory(torch.device("cuda")) is None


def test_a_full_cpu_is_no_reason_to_try_again(comfy: FakeComfy) -> None:
    tried = []

    def work(device: torch.device, on_step: host.OnStep) -> None:
        tried.append(device)
        raise out_of_memory()

    with pytest.raises(torch.cuda.OutOfMemoryError):
        host.compute("work", 1, work, memory=0)
    assert len(tried) == 1


# Frames of long clips, which are made by other nodes


class Made:
    """Work that leaves five frames to be made later: 1.0 where a device other than the CPU makes them, else 0.5."""

    def __init__(self, fails_at: int = 5) -> None:
        self.fails_at = fails_at
        self.made: list[str] = []

    def __call__(self, device: torch.device, on_step: host.OnStep) -> torch.Tensor:
        def walk(start: int) -> Iterator[torch.Tensor]:
            for index in range(start, 5):
                if device.type != "cpu" and index >= self.fails_at:
                    raise out_of_memory()
                self.made.append(f"{index} on {device}")
                yield torch.full((1, 2, 2, 3), 0.5 if device.type == "cpu" else 1.0) + 0.0

        return lazy.computed(walk, (5, 2, 2, 3), on_step=on_step)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clip is a long one."""
    monkeypatch.setattr(lazy, "fits_in_memory", lambda size: False)


@pytest.mark.usefixtures("long")
def test_a_long_clip_is_made_where_there_is_memory(comfy: FakeComfy) -> None:
    """Each frame once; the host's models are unloaded before the CPU takes over, and a person is told."""
    comfy.place = torch.device("cuda")
    work = Made(fails_at=2)
    done = host.compute("Relight", 5, work, memory=1000)
    assert done.with_warning("5 frames") == "5 frames, made when they are needed on cuda"
    assert (work.made, comfy.memory) == ([], ["1000 on cuda"])
    assert [float(frame[0].mean()) for frame in done.result.split(1)] == [1.0, 1.0, 0.5, 0.5, 0.5]
    assert work.made == ["0 on cuda", "1 on cuda", "2 on cpu", "3 on cpu", "4 on cpu"]
    assert comfy.memory == ["1000 on cuda", "1000 on cuda", "unload", "empty", "unload", "empty"]
    warned, told = (text for text, _ in comfy.texts)
    assert warned == (
        "warning: Relight ran out of memory on cuda, so it ran on the CPU; use smaller frames or fewer to stay on the "
        "GPU"
    )
    assert told.startswith("Relight: 5 frames made, 0.0 s on cpu")


@pytest.mark.usefixtures("long")
def test_a_long_clip_stays_on_a_gpu_that_had_to_be_cleared(comfy: FakeComfy, monkeypatch: pytest.MonkeyPatch) -> None:
    comfy.place = torch.device("cuda")
    work = Made(fails_at=2)
    monkeypatch.setattr(
        sys.modules["comfy.model_management"], "unload_all_models", lambda: setattr(work, "fails_at", 5)
    )
    frames = host.compute("Relight", 5, work, memory=0).result
    assert bool((frames[:] == 1.0).all())
    assert [text for text, _ in comfy.texts if "warning" in text] == []


@pytest.mark.usefixtures("long")
def test_frames_and_masks_of_a_long_clip_move_on_together(comfy: FakeComfy) -> None:
    comfy.place = torch.device("cuda")

    def work(device: torch.device, on_step: host.OnStep) -> tuple[torch.Tensor, torch.Tensor]:
        def walk(start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for index in range(start, 5):
                if device.type != "cpu" and index == 2:
                    raise out_of_memory()
                yield torch.full((2, 2, 3), index / 8.0), torch.full((2, 2), index / 4.0)

        return lazy.computed_with_mask(walk, (5, 2, 2, 3))

    frames, mask = host.compute("Split", 5, work, memory=0).result
    assert [float(frame.mean()) for frame in frames.split(1)] == [0.0, 0.125, 0.25, 0.375, 0.5]
    assert [float(frame.mean()) for frame in mask.split(1)] == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.usefixtures("long")
def test_making_a_long_clip_can_be_cancelled_and_fail(comfy: FakeComfy) -> None:
    frames = host.compute("Relight", 5, Made(), memory=0).result
    comfy.cancelled = True
    with pytest.raises(Interrupted):
        frames[3]
    comfy.cancelled = False

    def broken(device: torch.device, on_step: host.OnStep) -> torch.Tensor:
        def walk(start: int) -> Iterator[torch.Tensor]:
            raise RuntimeError("size mismatch")
            yield

        return lazy.computed(walk, (5, 2, 2, 3))

    comfy.place = torch.device("cuda")
    frames = host.compute("Relight", 5, broken, memory=0).result
    with pytest.raises(RuntimeError, match="size mismatch"):
        frames[3]


@pytest.mark.usefixtures("long")
def test_making_a_long_clip_shows_progress_once_it_takes_a_while(
    comfy: FakeComfy, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))  # a frame takes a second
    frames = host.compute("Relight", 5, Made(), memory=0).result
    comfy.steps.clear()
    frames[:].mean()
    assert [(done, total) for done, total, _ in comfy.steps] == [(2, 5), (3, 5), (4, 5), (5, 5)]
    assert comfy.texts[-1][0] == "Relight: 5 frames made, 5.0 s on cpu"


# Between nodes


@pytest.mark.usefixtures("long")
def test_a_long_clip_stays_on_the_cpu_with_gpu_only(comfy: FakeComfy) -> None:
    management = sys.modules["comfy.model_management"]
    management.intermediate_device = lambda: torch.device("meta")  # type: ignore[attr-defined]
    management.intermediate_dtype = lambda: torch.float16  # type: ignore[attr-defined]
    work = Made()
    frames = host.compute("Relight", 5, work, memory=0).result
    short = torch.rand(2, 4, 4, 3)
    kept, moved = host.hand_on(frames, short)
    assert kept is frames
    assert (moved.device.type, moved.dtype) == ("meta", torch.float16)
    assert work.made == []


def test_clips_are_handed_on_as_the_host_has_them(comfy: FakeComfy) -> None:
    frames = torch.rand(2, 4, 4, 3)
    assert host.hand_on(frames)[0] is frames
    management = sys.modules["comfy.model_management"]
    management.intermediate_dtype = lambda: torch.float16  # type: ignore[attr-defined]
    assert [given.dtype for given in host.hand_on(frames, frames[..., 0])] == [torch.float16] * 2


def test_masks_as_other_nodes_give_them() -> None:
    mask = torch.rand(3, 8, 8)
    assert host.given_mask(mask) is mask
    assert host.given_mask(None) is None
    assert host.given_mask(torch.zeros(1, 64, 64)) is None
    assert host.given_mask(torch.zeros(2, 64, 64)) is not None
    selected = torch.zeros(1, 64, 64)
    selected[0, 3, 3] = 1.0
    assert host.given_mask(selected) is selected
    assert torch.equal(host.given_mask([mask[:1], mask[1], mask[2:]]), mask)
    with pytest.raises(ShapeError, match="the masks in the list are of 4x8 and 8x8 pixels; all must have one size"):
        host.given_mask([mask, mask[..., :4]])


# Files that change


def test_a_typed_path_is_looked_at(headless: host.Headless, tmp_path: Path) -> None:
    (tmp_path / "clip").write_text("a")
    assert host.changed("1", "clip", Path.read_text) == "a"


def test_a_linked_path_is_read_again_only_when_the_file_changed(tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.write_text("a")
    node = str(tmp_path)  # no other test's
    first = host.changed(node, None, Path.read_text)
    host.remember(node, clip, Path.read_text)
    assert host.changed(node, None, Path.read_text) == first
    clip.write_text("b")
    second = host.changed(node, None, Path.read_text)
    assert second != first
    host.remember(node, clip, Path.read_text)
    assert host.changed(node, None, Path.read_text) == second


# Paths


def test_input_paths_headless(headless: host.Headless, tmp_path: Path) -> None:
    assert host.input_path(" 'clip.mp4' ") == tmp_path / "clip.mp4"
    assert host.input_path(str(tmp_path / "x.mp4")) == tmp_path / "x.mp4"
    assert host.input_path("~/x.mp4") == Path.home() / "x.mp4"
    assert host.input_path(str(tmp_path / "end'")) == tmp_path / "end'"  # a quote of the name's own
    assert host.input_path("x" * 5000) == tmp_path / ("x" * 5000)  # too long for a file system; reading will say so
    for empty in ("", "  ", '""'):
        with pytest.raises(InputError, match="path is empty; give a video file"):
            host.input_path(empty)
    with pytest.raises(InputError, match="zero character"):
        host.input_path("a\0b")


def test_patterns_in_a_folder_with_brackets(
    headless: host.Headless, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a [1]"
    folder.mkdir()
    (folder / "0.png").touch()
    monkeypatch.chdir(folder)
    assert list(glob.iglob(str(host.input_path("*.png")))) == [str(folder / "0.png")]  # noqa: PTH207
    assert host.input_path("0.png") == folder / "0.png"


def test_input_paths_prefer_the_input_folder(comfy: FakeComfy, tmp_path: Path) -> None:
    (tmp_path / "input" / "frames").mkdir(parents=True)
    (tmp_path / "input" / "frames" / "0.png").touch()
    (tmp_path / "here[1].mp4").touch()
    assert host.input_path("frames/*.png") == tmp_path / "input" / "frames" / "*.png"
    assert host.input_path("frames") == tmp_path / "input" / "frames"
    assert host.input_path("here[1].mp4") == tmp_path / "here[1].mp4"
    assert host.input_path("nowhere.mp4") == tmp_path / "input" / "nowhere.mp4"


def test_output_paths_are_below_the_output_folder(headless: host.Headless, tmp_path: Path) -> None:
    assert host.output_path("clip") == tmp_path / "out" / "clip"
    assert host.output_path("sub\\deep/clip") == tmp_path / "out" / "sub" / "deep" / "clip"
    assert (tmp_path / "out" / "sub" / "deep").is_dir()


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        ("", "names no file"),
        ("folder/", "names no file"),
        ("/etc/clip", "outside the output folder"),
        ("\\\\host\\share\\clip", "outside the output folder"),
        ("C:\\clip", "outside the output folder"),
        ("../clip", "outside the output folder"),
        ("a/../../clip", "outside the output folder"),
        ("link/clip", "outside the output folder .* through a link"),
        ("a\nb", "control characters"),
        ("x" * 300, "more than 200 bytes"),
    ],
)
def test_output_paths_stay_inside(headless: host.Headless, tmp_path: Path, prefix: str, sentence: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=sentence):
        host.output_path(prefix)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_an_output_folder_that_cannot_be(headless: host.Headless, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(MediaError, match=r"the output folder .* cannot be used"):
        host.output_path("clip")


def test_folders(headless: host.Headless, tmp_path: Path) -> None:
    assert host.output_folder() == tmp_path / "out"
    assert host.temp_folder().is_dir()
    assert host.weights_folders() == []


def test_folders_in_comfyui(comfy: FakeComfy, tmp_path: Path) -> None:
    assert host.output_folder() == tmp_path / "output"
    assert host.temp_folder() == tmp_path / "temp"
    assert host.weights_folders() == [tmp_path / "models" / "optical_flow"]
    comfy.keys["optical_flow"] = ([str(tmp_path / "flow")], set())
    assert host.weights_folders() == [tmp_path / "flow"]


# Metadata


@pytest.mark.parametrize("disabled", [False, True])
def test_metadata(comfy: FakeComfy, disabled: bool) -> None:
    comfy.args.disable_metadata = disabled
    found = host.embed_metadata({"1": {}}, {"workflow": {"nodes": []}})
    assert found == ({} if disabled else {"prompt": '{"1": {}}', "workflow": '{"nodes": []}'})


def test_metadata_headless(headless: host.Headless) -> None:
    assert host.embed_metadata(None, None) == {}
    assert json.loads(host.embed_metadata({"1": {"x": "ü"}}, None)["prompt"]) == {"1": {"x": "ü"}}
