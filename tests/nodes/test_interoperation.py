"""What other nodes hand on, in every form it comes in, goes into ours; and ours give what core nodes expect."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_set import SHOWN_BY, needed, run

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.decompose import VDPOptimize
from comfyui_vdp.nodes.flow import FlowToRGB, RAFTFlow
from comfyui_vdp.nodes.layers import Composite, ReplaceLayer, SplitLayers
from comfyui_vdp.nodes.measure import MeasureVideo
from comfyui_vdp.nodes.video import SaveFrames
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.tasks import TASKS

SETTINGS = {"preset": "fast", "steps": 2, "layers": 2, "seed": 0}
AS_IT_IS = {"layer": "objects", "visibility": 1.0, "gain": 0.0, "saturation": 1.0, "offset_x": 0.0, "offset_y": 0.0}
STRAIGHT = {**AS_IT_IS, "linear_light": False, "premultiplied": False}


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The status lines; headless on the CPU, with no weights at hand and folders of the test's own."""
    lines: list[str] = []
    (tmp_path / "temp").mkdir()
    settings = host.Headless("cpu", tmp_path / "out", None, tmp_path / "temp", say=lines.append)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with host.running(settings):
        yield lines


@pytest.fixture
def frames(synthetic: Any) -> torch.Tensor:
    """Four frames in 8 bits, as decoders give them."""
    clip, _ = synthetic.pan(4, 32, 48)
    return (clip * 255.0).round() / 255.0


def half(frames: torch.Tensor) -> torch.Tensor:
    return frames.half()


def with_alpha(frames: torch.Tensor) -> torch.Tensor:
    return torch.cat((frames, torch.ones_like(frames[..., :1])), dim=-1)


def strided(frames: torch.Tensor) -> torch.Tensor:
    """The same values, as a crop of a larger picture that was flipped and transposed has them."""
    wide = torch.nn.functional.pad(frames.movedim(-1, 1), (3, 5, 2, 7))
    return wide[:, :, 2:-7, 3:-5].movedim(1, -1)


def frozen(frames: torch.Tensor) -> torch.Tensor:
    """As nodes get it inside ComfyUI."""
    with torch.inference_mode():
        return frames.clone()


every_form = pytest.mark.parametrize("form", [half, with_alpha, strided, frozen])


def same(given: Any, wanted: Any, form: Callable[..., torch.Tensor]) -> bool:
    gap = (given - wanted).abs()
    # the first steps of Adam are as large for the smallest gradient, so that rounding shows where little pulls
    close = gap.mean() < 0.01 if form is half else gap.max() < 1e-5
    return bool(given.dtype == torch.float32 and close)


@every_form
@pytest.mark.parametrize("task", TASKS)
def test_from_frames_to_frames(frames: torch.Tensor, form: Callable[..., torch.Tensor], task: str) -> None:
    def made(given: torch.Tensor) -> torch.Tensor:
        (flow,) = RAFTFlow().estimate(given)
        (layers,) = VDPOptimize().optimize(given, flow, task=task, **needed(task, frames), **SETTINGS)
        return run(SHOWN_BY[task], layers=layers)[0]

    given = form(frames)
    before = given.clone()
    assert same(made(given), made(frames), form)
    assert torch.equal(given, before)  # other nodes share it


@every_form
def test_layers_and_back(frames: torch.Tensor, form: Callable[..., torch.Tensor]) -> None:
    mask = torch.zeros(4, 32, 48)
    mask[:, 8:24, 8:24] = 1.0

    def made(given: torch.Tensor, selected: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shown, covered, layers = Composite().composite(**STRAIGHT, frames=given, mask=selected, background=given[:1])
        (layers,) = ReplaceLayer().replace(layers, 0, given)
        colour, matte = SplitLayers().split(layers, 1)
        return shown, covered, colour, matte

    form_of_mask = form if form in (half, frozen) else torch.Tensor.clone
    for found, wanted in zip(made(form(frames), form_of_mask(mask)), made(frames, mask), strict=True):
        assert same(found, wanted, form)


@every_form
def test_measured_and_saved(frames: torch.Tensor, form: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    numbers = MeasureVideo().measure(form(frames), reference=frames)["ui"]["vdp_numbers"][0]
    assert numbers["psnr"] > 60.0
    (saved,) = SaveFrames().save(form(frames), format="png")["ui"]["vdp_outputs"]
    assert (video.read_clip(tmp_path / "out" / saved).frames - frames).abs().max() < 1.01 / 255.0
    SaveFrames().save(form(frames), format="mp4")


def test_colours_that_are_seen_through_are_no_mp4(frames: torch.Tensor) -> None:
    with pytest.raises(InputError, match="mp4 holds no alpha"):
        SaveFrames().save(torch.cat((frames, frames[..., :1]), dim=-1), format="mp4")


def test_what_nodes_give_is_float_on_the_cpu(frames: torch.Tensor) -> None:
    (flow,) = RAFTFlow().estimate(half(frames))
    (picture,) = FlowToRGB().show(flow)
    assert picture.dtype == torch.float32
    assert picture.is_contiguous()


# Masks


EMPTY = torch.zeros(1, 64, 64)


def test_the_empty_mask_of_a_picture_without_alpha(frames: torch.Tensor, tmp_path: Path) -> None:
    (flow,) = RAFTFlow().estimate(frames)
    with pytest.raises(InputError, match="mask: it is the empty one that Load Image gives for a picture without alpha"):
        VDPOptimize().optimize(frames, flow, task="segment", **SETTINGS, mask=EMPTY)
    backdrop = torch.rand(1, 32, 48, 3)
    shown, covered, layers = Composite().composite(**STRAIGHT, frames=frames, mask=EMPTY, background=backdrop)
    assert not covered.any()
    assert torch.equal(shown, backdrop.expand_as(shown))
    (replaced,) = ReplaceLayer().replace(layers, 1, frames, EMPTY)
    assert "mask_1" not in replaced.pictures
    (saved,) = SaveFrames().save(frames, format="png", alpha=EMPTY)["ui"]["vdp_outputs"]
    assert video.read_clip(tmp_path / "out" / saved).alpha.eq(1.0).all()


@pytest.mark.parametrize(
    "form",
    [
        lambda mask: mask,
        lambda mask: mask[0],
        lambda mask: mask[:, None],
        lambda mask: [mask],
        lambda mask: (mask[0],),
        lambda mask: mask.half(),
        lambda mask: mask[..., None].expand(-1, -1, -1, 3),
        lambda mask: mask.repeat_interleave(2, 1).repeat_interleave(2, 2),
    ],
)
def test_masks_from_segmenters(frames: torch.Tensor, form: Callable[[torch.Tensor], Any]) -> None:
    mask = torch.zeros(1, 32, 48)
    mask[:, 8:24, 8:24] = 1.0
    (flow,) = RAFTFlow().estimate(frames)
    settings = {**SETTINGS, "task": "segment"}
    (wanted,) = VDPOptimize().optimize(frames, flow, **settings, mask=mask)
    (found,) = VDPOptimize().optimize(frames, flow, **settings, mask=form(mask))
    assert torch.equal(found.fields["masks"], wanted.fields["masks"])


def test_a_mask_for_every_frame_as_a_list(frames: torch.Tensor) -> None:
    masks = torch.zeros(4, 32, 48)
    for index in range(4):
        masks[index, 8:24, 8 + index : 24 + index] = 1.0
    (flow,) = RAFTFlow().estimate(frames)
    settings = {**SETTINGS, "task": "segment"}
    (wanted,) = VDPOptimize().optimize(frames, flow, **settings, mask=masks)
    (found,) = VDPOptimize().optimize(frames, flow, **settings, mask=list(masks))
    assert torch.equal(found.fields["masks"], wanted.fields["masks"])


# Sound


class Lazy(Mapping[str, Any]):
    """Sound that is decoded when it is looked into, which fails where there is none."""

    def __init__(self, sound: dict[str, Any] | None) -> None:
        self._sound = sound

    def _decoded(self) -> dict[str, Any]:
        if self._sound is None:
            raise Exception("no audio stream")
        return self._sound

    def __getitem__(self, name: str) -> Any:
        return self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())


def saved_sound(frames: torch.Tensor, audio: Any, folder: Path) -> dict[str, Any] | None:
    (saved,) = SaveFrames().save(frames, format="prores4444", fps=10.0, audio=audio)["ui"]["vdp_outputs"]
    return video.read_clip(folder / "out" / saved).audio


def test_sound_that_is_decoded_late(frames: torch.Tensor, tmp_path: Path, said: list[str]) -> None:
    sound = {"waveform": torch.linspace(-0.5, 0.5, 4000).expand(1, 2, 4000), "sample_rate": 10_000}
    found = saved_sound(frames, Lazy(sound), tmp_path)
    assert found is not None
    assert (found["waveform"] - sound["waveform"]).abs().max() < 1e-3
    assert saved_sound(frames, Lazy(None), tmp_path) is None
    assert said[-1].startswith("warning: the sound could not be read, so there is none (no audio stream); saved: ")


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint8, torch.float16])
def test_sound_in_the_samples_of_its_codec(frames: torch.Tensor, tmp_path: Path, dtype: torch.dtype) -> None:
    wave = torch.linspace(-0.5, 0.5, 4000, dtype=torch.float64).expand(1, 1, 4000)
    given = wave.to(dtype)
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        half_range = (info.max - info.min + 1) / 2
        given = (wave * half_range + (info.max + info.min + 1) / 2).to(dtype)
    found = saved_sound(frames, {"waveform": given, "sample_rate": 10_000}, tmp_path)
    assert found is not None
    assert (found["waveform"] - wave).abs().max() < 0.01


# Memory


def test_an_interrupted_optimisation_leaves_nothing_behind(
    frames: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    @contextmanager
    def progress(total: int, label: str) -> Iterator[Callable[..., None]]:
        def on_step(done: int, total: int, preview: object = None) -> None:
            if done == 5:
                raise Interrupted

        yield on_step

    (flow,) = RAFTFlow().estimate(frames)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    monkeypatch.setattr(host.headless, "progress", progress)
    before = None
    for _ in range(3):  # what the first run loads may stay
        with pytest.raises(Interrupted):
            VDPOptimize().optimize(frames, flow, task="relight", **{**SETTINGS, "steps": 50})
        before = tensors() if before is None else before
    assert tensors() == before


def test_out_of_memory_while_optimising_goes_on_with_the_cpu(
    frames: torch.Tensor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is the CPU in disguise, and is full at the first step."""
    from comfyui_vdp.vdp_core.tasks import driver

    (flow,) = RAFTFlow().estimate(frames)
    (wanted,) = VDPOptimize().optimize(frames, flow, task="relight", **SETTINGS)
    decompose = driver.decompose

    def full(*given: Any, device: torch.device, **settings: Any) -> Any:
        if device.type == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return decompose(*given, device=device, **settings)

    monkeypatch.setattr(driver, "decompose", full)
    monkeypatch.setattr(host.work, "device", lambda: torch.device("cuda"))
    (found,) = VDPOptimize().optimize(frames, flow, task="relight", **SETTINGS)
    assert torch.equal(found.fields["log_gain"], wanted.fields["log_gain"])
    assert said[-1].startswith("warning: Optimize (relight) ran out of memory on cuda, so it ran on the CPU; ")
    assert " s on cpu, " in said[-1]
