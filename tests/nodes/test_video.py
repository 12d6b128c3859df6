from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.video import LoadFrames, SaveFrames
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.image.selection import as_mask
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media.formats import TIMINGS
from comfyui_vdp.vdp_core.store import lazy


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Output and temp folders of this test's own."""
    monkeypatch.setattr(host.headless, "output_folder", tmp_path / "out")
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(host, "temp_folder", lambda: tmp_path / "temp")
    return tmp_path


def clip(count: int = 5, height: int = 30, width: int = 40) -> torch.Tensor:
    return torch.rand(count, 1, 1, 3, generator=torch.Generator().manual_seed(0)).expand(count, height, width, 3)


def test_widgets_keep_their_order():
    # saved workflows hold widget values by position: new widgets go last
    load = LoadFrames.INPUT_TYPES()
    assert list(load["required"]) == ["path", "start", "count", "every_nth", "max_side"]
    assert list(load["optional"]) == ["timing", "sound_track"]
    assert load["optional"]["timing"][0] == list(TIMINGS)
    save = SaveFrames.INPUT_TYPES()
    assert list(save["required"]) == ["frames", "filename_prefix", "format", "fps", "quality"]
    assert list(save["optional"]) == ["alpha", "audio", "bitrate"]
    assert save["required"]["format"][0] == list(video.FORMATS)
    for node in (LoadFrames, SaveFrames):
        inputs = node.INPUT_TYPES()
        options = [spec[1] for family in ("required", "optional") for spec in inputs.get(family, {}).values()]
        assert all(option["tooltip"] for option in options)


@pytest.mark.parametrize("name", video.FORMATS)
def test_save_then_load(folders, name):
    saved = SaveFrames().save(clip(), "shots/a", format=name, fps=29.97)
    (written,) = saved["ui"]["vdp_outputs"]
    path = folders / "out" / written
    assert path.exists()
    assert written.startswith("shots/a")
    frames, alpha, audio, fps, count = LoadFrames().load(str(path))
    assert frames.shape == (5, 30, 40, 3)
    assert alpha.shape == (5, 30, 40)
    assert audio is None
    assert fps == 30000 / 1001
    assert count == 5
    assert [p for p in path.parent.iterdir() if p.name.startswith(".")] == []


@pytest.fixture
def watched(monkeypatch) -> None:
    monkeypatch.setattr(host, "has_viewer", lambda: True)


def test_headless_no_preview_is_made(folders):
    assert SaveFrames().save(clip(), "a", format="png")["ui"]["images"] == []
    assert not (folders / "temp").exists() or not list((folders / "temp").iterdir())


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", video.FORMATS)
def test_the_node_has_something_to_play(folders, name):
    alpha = None if name in ("mp4", "h265") else torch.zeros(30, 40)
    ui = SaveFrames().save(clip(), "a", format=name, alpha=alpha)["ui"]
    (shown,) = ui["images"]
    assert ui["animated"] == (True,)
    root = {"output": folders / "out", "temp": folders / "temp"}[shown["type"]]
    path = root / shown["subfolder"] / shown["filename"]
    assert path.suffix == {"mp4": ".mp4", "webm": ".webm"}.get(name, ".mp4")
    assert (shown["type"] == "temp") == (name not in ("mp4", "webm"))
    frames = video.read_clip(path).frames
    assert len(frames) == 5
    if shown["type"] == "temp":
        assert alpha is None or frames.max() < 0.02  # over black where it is transparent


@pytest.mark.usefixtures("watched")
def test_preview_of_large_frames_is_small(folders):
    ui = SaveFrames().save(torch.rand(2, 600, 1100, 3), "a", format="png")["ui"]
    frames = video.read_clip(folders / "temp" / ui["images"][0]["filename"]).frames
    assert frames.shape == (2, 279, 512, 3)


@pytest.mark.parametrize("name", video.FORMATS)
def test_a_mask_is_saved_white_on_black(folders, name):
    assert SaveFrames.INPUT_TYPES()["required"]["frames"][0] == "IMAGE,MASK"
    mask = torch.zeros(4, 31, 41)  # odd sides
    mask[:, 8:24, 8:24] = 1.0
    mask[3] = 0.0
    ui = SaveFrames().save(mask, "m", format=name)["ui"]
    frames = video.read_clip(folders / "out" / ui["vdp_outputs"][0]).frames
    assert frames.shape == (4, 31, 41, 3)
    assert (frames - mask[..., None]).abs().mean() < 0.01
    assert torch.equal(as_mask(frames), mask)


def test_a_long_mask_is_not_laid_out_to_be_saved(folders, monkeypatch):
    mask = torch.linspace(0.0, 1.0, 5).round().view(5, 1, 1).expand(5, 30, 40)
    monkeypatch.setattr(lazy, "AT_ONCE", 0)
    monkeypatch.setattr(lazy, "large_empty", None)  # what lays a clip out
    long = lazy.LazyFrames.over(lambda first: (one[None, ..., None] for one in mask[first:]), (5, 30, 40, 1))
    (written,) = SaveFrames().save(long.cut(..., 0), "m", format="png")["ui"]["vdp_outputs"]
    assert torch.equal(video.read_clip(folders / "out" / written).frames, mask[..., None].expand(-1, -1, -1, 3))


def test_one_mask_alone_and_an_alpha_beside_a_mask(folders):
    (written,) = SaveFrames().save(torch.ones(30, 40), "m", format="png")["ui"]["vdp_outputs"]
    assert video.read_clip(folders / "out" / written).frames.shape == (1, 30, 40, 3)
    (written,) = SaveFrames().save(torch.ones(2, 30, 40), "m", format="png", alpha=torch.zeros(30, 40))["ui"][
        "vdp_outputs"
    ]
    assert not video.read_clip(folders / "out" / written).alpha.any()


def test_graph_is_written_into_the_file(folders):
    prompt, extra = {"1": {"class_type": "LoadFrames"}}, {"workflow": {"nodes": []}}
    for name in ("mp4", "png"):
        (written,) = SaveFrames().save(clip(), "g", format=name, prompt=prompt, extra_pnginfo=extra)["ui"][
            "vdp_outputs"
        ]
        path = folders / "out" / written
        if name == "mp4":
            with av.open(str(path)) as container:
                tags = dict(container.metadata)
        else:
            tags = Image.open(path / "00000.png").text
        assert tags["prompt"] == '{"1": {"class_type": "LoadFrames"}}'
        assert tags["workflow"] == '{"nodes": []}'


def test_part_and_alpha_and_sound(folders):
    sound = {"waveform": torch.rand(1, 2, 48_000) - 0.5, "sample_rate": 48_000}
    alpha = torch.linspace(0, 1, 12)[:, None, None].expand(12, 30, 40)
    saved = SaveFrames().save(clip(12), "a", format="prores4444", fps=24.0, alpha=alpha, audio=sound)
    path = folders / "out" / saved["ui"]["vdp_outputs"][0]
    frames, matte, audio, fps, count = LoadFrames().load(str(path), start=2, count=4, every_nth=2, max_side=20)
    assert frames.shape == (4, 15, 20, 3)
    assert (count, fps) == (4, 12.0)
    assert (matte[:, 0, 0] - alpha[2:10:2, 0, 0]).abs().max() < 0.002
    assert audio["waveform"].shape == (1, 2, 16_000)


def test_a_path_is_checked_before_anything_runs(tmp_path):
    assert LoadFrames.VALIDATE_INPUTS(None) is True  # linked, known later
    (tmp_path / "a.png").touch()
    assert LoadFrames.VALIDATE_INPUTS(str(tmp_path)) is True
    assert LoadFrames.VALIDATE_INPUTS(str(tmp_path / "*.png")) is True
    assert "there is no such file or folder" in str(LoadFrames.VALIDATE_INPUTS(str(tmp_path / "b.png")))
    assert "no file matches this pattern" in str(LoadFrames.VALIDATE_INPUTS(str(tmp_path / "*.jpg")))
    assert "empty" in str(LoadFrames.VALIDATE_INPUTS("  "))


def test_a_changed_file_is_read_again(tmp_path):
    path = video.write_clip(tmp_path / "a", clip(), fps=24)
    before = LoadFrames.IS_CHANGED(path=str(path), start=0)
    assert LoadFrames.IS_CHANGED(path=str(path), start=0) == before
    video.write_clip(tmp_path / "a", clip(7), fps=24)
    assert LoadFrames.IS_CHANGED(path=str(path), start=0) != before


def test_a_prefix_stays_inside_the_output_folder(folders):
    with pytest.raises(InputError):
        SaveFrames().save(clip(), "../a")
    assert not Path(folders / "a_00001.mp4").exists()
