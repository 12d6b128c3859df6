"""Clips that lie, break off or change: what a person sees, and what is made of them."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.video import LoadFrames
from comfyui_vdp.vdp_core.errors import MediaError
from comfyui_vdp.vdp_core.media import clip as video

Copy = Callable[..., tuple[int, list[str], str]]
Make = Callable[..., Path]

RAW = {"noise": 0.5}  # so that every frame takes some kilobytes


def left(folder: str = "out") -> list[str]:
    """What lies in the output folder, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*")) if Path(folder).is_dir() else []


def packets(path: Path, kind: str = "video") -> list[tuple[int, int]]:
    """Where the packets of a stream lie in the file: begin and length."""
    import av

    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(**{kind: 0}) if packet.size]


def patched(path: Path, *changes: tuple[int, bytes]) -> Path:
    content = bytearray(path.read_bytes())
    for at, new in changes:
        content[at : at + len(new)] = new
    path.write_bytes(content)
    return path


def as_avi(path: Path) -> Path:
    """The clip as MJPEG in AVI, whose header is easily made to lie."""
    import av

    made = path.with_suffix(".avi")
    with av.open(str(path)) as source, av.open(str(made), "w") as target:
        stream = target.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for frame in source.decode(video=0):
            target.mux(stream.encode(frame.reformat(format="yuvj420p")))
        target.mux(stream.encode(None))
    return made


def test_an_mp4_without_its_end_where_its_index_is(clip: Make, copy: Copy) -> None:
    """What a camera leaves whose battery ran out."""
    import av

    whole = clip(20, **RAW)
    cut = whole.with_name("cut.mp4")
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:  # the index last, unlike ours
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    code, _, err = copy(cut)
    assert code == 1
    assert "cut.mp4: is not a video that can be read, or is damaged (its index is missing" in err
    assert len(err.splitlines()) == 1
    assert left() == []


def test_an_mp4_that_breaks_off_is_read_as_far_as_it_goes(
    clip: Make, copy: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    whole = clip(20, **RAW)
    before = video.read_clip(whole).frames
    begin, _ = packets(whole)[12]
    whole.write_bytes(whole.read_bytes()[: begin + 100])
    code, (made,), _ = copy(whole)
    assert code == 0
    frames = video.read_clip(made).frames
    assert f"announces more frames than it holds; {len(frames)} were read of 20" in caplog.text
    assert 8 < len(frames) <= 12
    assert (frames - before[: len(frames)]).abs().max() < 0.01


@pytest.mark.parametrize("start", [0, 3])
def test_a_frame_in_the_middle_that_cannot_be_decoded(clip: Make, copy: Copy, start: int) -> None:
    damaged = clip(20, **RAW)
    before = video.read_clip(damaged).frames
    begin, length = packets(damaged)[12]
    patched(damaged, (begin, b"\xff" * length))
    code, _, err = copy(damaged, start=start)
    assert code == 1 and left() == []
    assert "clip.mp4: is damaged after " in err and len(err.splitlines()) == 1
    count = int(err.partition("set count to ")[2].partition(" to read what lies before")[0])
    assert err.partition("damaged after ")[2].startswith(f"{start + count} frames")
    code, (made,), _ = copy(damaged, start=start, count=count)  # what it says helps
    assert code == 0
    assert (video.read_clip(made).frames - before[start : start + count]).abs().max() < 0.01


def test_a_frame_that_the_decoder_repairs_is_told(
    clip: Make, copy: Copy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(20, **RAW)
    begin, length = packets(path)[8]
    chance = random.Random(0)
    patched(path, *((begin + 60 + chance.randrange(length - 80), chance.randbytes(1)) for _ in range(12)))
    code, (made,), _ = copy(path)
    assert code == 0
    assert len(video.read_clip(made).frames) == 20
    assert video.read_clip(path).notes == ("is damaged at frame 7, and taken as the decoder repaired it",)
    said: list[str] = []
    monkeypatch.setattr(host.headless, "say", said.append)
    LoadFrames().load(str(path))
    assert said[0].startswith(
        "warning: clip.mp4: is damaged at frame 7, and taken as the decoder repaired it; read: 20 "
    )
    caplog.clear()
    LoadFrames().load(str(path))
    assert caplog.text.count("clip.mp4: is damaged at frame 7, and taken as the decoder repaired it") == 1


@pytest.mark.parametrize(("scale", "rate"), [(0, 0), (1, 0), (0, 24), (1, 2_000_000_000), (2_000_000_000, 1)])
def test_a_rate_that_is_none(clip: Make, copy: Copy, scale: int, rate: int) -> None:
    """Whatever the header says, there is a rate at which the clip can be saved again."""
    path = as_avi(clip())
    content = path.read_bytes()
    patched(
        path,
        (content.index(b"strh") + 8 + 20, struct.pack("<II", scale, rate)),
        (content.index(b"avih") + 8, struct.pack("<I", 0)),
    )
    code, (made,), _ = copy(path, kind="mp4")
    assert code == 0
    found = video.read_clip(made)
    assert len(found.frames) == 6
    assert 0 < found.fps <= 1000


def test_a_rate_beyond_all_measure_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from PIL import Image, PngImagePlugin

    for noted in ("90000", "1/999999999", "9" * 5000, "0/0", "-1", "nan"):
        notes = PngImagePlugin.PngInfo()
        notes.add_text("vdp_fps", noted)
        Image.new("RGB", (16, 16)).save(tmp_path / "0.png", pnginfo=notes)
        assert 0 < video.probe(tmp_path).fps <= 1000
    assert "says a rate of 9e+04 frames a second, so it is taken as 24; set fps" in caplog.text


@pytest.mark.parametrize("said", [1, 5, 100, 2**31 - 1])
def test_a_header_that_lies_on_the_number_of_frames(clip: Make, copy: Copy, said: int) -> None:
    path = as_avi(clip(6))
    whole = video.read_clip(path).frames
    content = path.read_bytes()
    patched(
        path,
        (content.index(b"strh") + 8 + 32, struct.pack("<I", said)),
        (content.index(b"avih") + 8 + 16, struct.pack("<I", said)),
    )
    code, (made,), _ = copy(path)
    assert code == 0
    assert len(video.read_clip(made).frames) == len(whole) == 6


@pytest.mark.parametrize("how", ["another", "longer", "gone"])
def test_a_video_that_is_replaced_while_it_is_read(clip: Make, how: str) -> None:
    path, other = clip(12), clip(9, "other", fps=25)

    def replace(done: int, total: int, preview: object) -> None:
        if done == 4:
            match how:
                case "another":
                    other.replace(path)
                case "longer":
                    with path.open("ab") as file:
                        file.write(b"more")
                case "gone":
                    path.unlink()

    words = "cannot be read any more" if how == "gone" else "was changed while it was being read; run again"
    with pytest.raises(MediaError, match=words):
        video.read_clip(path, on_step=replace)


def test_a_picture_that_is_replaced_while_they_are_read(clip: Make) -> None:
    folder = clip(6, format="png")

    def replace(done: int, total: int, preview: object) -> None:
        if done == 2:
            (folder / "00004.png").write_bytes((folder / "00001.png").read_bytes() + b"more")

    with pytest.raises(MediaError, match=r"00004\.png: was changed while it was being read"):
        video.read_clip(folder, on_step=replace)


def test_frames_that_change_their_size(tmp_path: Path, copy: Copy) -> None:
    """Two H.264 streams one after the other, as some recorders leave them."""
    import av

    joined = b""
    for side in (64, 96):
        part = tmp_path / "part.h264"
        with av.open(str(part), "w") as target:
            stream = target.add_stream("libx264", rate=24, options={"tune": "zerolatency"})
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for _ in range(5):
                target.mux(stream.encode(av.VideoFrame(side, side, "yuv420p")))
            target.mux(stream.encode(None))
        joined += part.read_bytes()
    (tmp_path / "two.h264").write_bytes(joined)
    code, _, err = copy(tmp_path / "two.h264")
    assert code == 1 and left() == []
    assert "two.h264: is damaged after 5 frames (its size changes to 96x96); set count to 5" in err


def test_sound_that_is_damaged_is_silent_there(clip: Make, copy: Copy, caplog: pytest.LogCaptureFixture) -> None:
    wave = torch.rand(1, 1, 48_000, generator=torch.Generator().manual_seed(0)) - 0.5
    path = clip(24, audio={"waveform": wave, "sample_rate": 48_000})
    places = packets(path, "audio")
    patched(path, *((begin, b"\xff" * length) for begin, length in places[20:24]))
    code, (made,), _ = copy(path, kind="mp4")
    assert code == 0
    assert "its sound is damaged at 0.4 s and silent where it cannot be decoded" in caplog.text
    assert len(video.read_clip(made).frames) == 24


@pytest.mark.parametrize("layout", ["7.1", "hexadecagonal"])
def test_sound_of_more_channels_than_can_be_saved_is_left_out(tmp_path: Path, copy: Copy, layout: str) -> None:
    """And eight end no process: PyAV itself reads beyond a frame of so many planes."""
    import av

    with av.open(str(tmp_path / "many.mkv"), "w") as target:
        stream = target.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = target.add_stream("pcm_s16le", rate=48_000, layout=layout)
        for at in range(6):
            target.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
            part = av.AudioFrame(format="s16", layout=layout, samples=2000)
            part.sample_rate, part.pts = 48_000, 2000 * at
            target.mux(sound.encode(part))
        target.mux(stream.encode(None))
        target.mux(sound.encode(None))
    assert video.probe(tmp_path / "many.mkv").has_audio == (layout == "7.1")
    assert copy(tmp_path / "many.mkv", kind="mp4")[0] == 0
    found = video.read_clip(tmp_path / "many.mkv")
    assert len(found.frames) == 6
    assert (found.audio is not None and found.audio["waveform"].shape[1] == 8) == (layout == "7.1")


@pytest.mark.parametrize("kind", ["mp4", "webm", "prores4444", "png", "h265"])
@pytest.mark.parametrize("channels", range(1, 9))
def test_each_number_of_channels_comes_back(clip: Make, kind: str, channels: int) -> None:
    tones = torch.arange(1, channels + 1)[:, None] * torch.arange(48_000) / 48_000 * 440.0
    wave = 0.2 * torch.sin(2 * torch.pi * tones)[None]
    path = clip(24, format=kind, audio={"waveform": wave, "sample_rate": 48_000})
    heard = video.read_clip(path).audio
    assert heard is not None and heard["waveform"].shape[1] == channels
    spectra = torch.fft.rfft(heard["waveform"][0, :, :48_000]).abs()
    found = spectra[:, 20:].argmax(dim=1) + 20
    wanted = 440 * torch.arange(1, channels + 1)
    if kind == "webm" and channels in (5, 7):  # FFmpeg's Opus swaps some
        found = found.sort().values
    full = [at for at in range(channels) if not (channels > 5 and at == 3)]  # codecs keep the lows of the bass channel
    assert (found - wanted)[full].abs().max() <= 2


def test_a_codec_that_cannot_be_decoded(clip: Make, copy: Copy) -> None:
    path = clip()
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    code, _, err = copy(path)
    assert code == 1 and left() == []
    assert "clip.mp4: its video is damaged or of a kind without a decoder; convert it to H.264" in err


def test_a_codec_that_cannot_be_encoded(clip: Make, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfyui_vdp.nodes import video as nodes
    from comfyui_vdp.vdp_core.media.formats import FORMATS, Format

    monkeypatch.setitem(FORMATS, "webm", Format(".webm", "libnone", "yuv420p", "", "libopus"))
    monkeypatch.setattr(nodes.LoadFrames, "load", None)  # nothing is read in vain
    code, _, err = copy(clip(), kind="webm")
    assert code == 1 and left() == []
    assert "libnone: this PyAV was built without the encoder" in err


def test_names_that_are_no_text(tmp_path: Path, clip: Make, copy: Copy) -> None:
    """File names are bytes; those of old disks are in no encoding of today."""
    name = b"old \xff\xe9.mp4"
    try:
        clip().rename(Path(str(tmp_path)) / name.decode(errors="surrogateescape"))
    except OSError:
        pytest.skip("this file system knows text only")
    code, (made,), _ = copy(tmp_path / name.decode(errors="surrogateescape"))
    assert code == 0
    assert len(video.read_clip(made).frames) == 6


def test_tags_that_are_no_text(clip: Make) -> None:
    path = clip(metadata={"comment": "x" * 40})
    path.write_bytes(path.read_bytes().replace(b"x" * 40, b"\xff\xfe" * 20))
    assert len(video.read_clip(path).frames) == 6


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_picture_that_says_it_is_huge(tmp_path: Path, copy: Copy, side: int) -> None:
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    code, _, err = copy(tmp_path / "huge.png")
    assert code == 1 and left() == []
    assert "huge.png: says it is larger than 179 million pixels; make it smaller, or repair it" in err


def test_a_file_of_nothing_and_of_any_size(tmp_path: Path, copy: Copy) -> None:
    for name, words in (("hole.png", "larger than 2048 MiB, too large for a picture"), ("hole.mp4", "is not a video")):
        with (tmp_path / name).open("wb") as file:
            try:
                file.truncate(2**40)
            except OSError:
                pytest.skip("no files of this size here")
        code, _, err = copy(tmp_path / name)
        assert code == 1 and words in err


def test_the_rate_stays_exact(clip: Make) -> None:
    assert video.probe(clip(fps=Fraction(30000, 1001))).fps == Fraction(30000, 1001)


def test_noise_does_not_compress(clip: Make) -> None:
    """What the tests above rely on."""
    assert np.mean([length for _, length in packets(clip(20, **RAW))]) > 1000


_: Any


LOGGED = """
import logging, sys
from pathlib import Path
import av
from comfyui_vdp.vdp_core.errors import MediaError
from comfyui_vdp.vdp_core.media import clip as video
av.logging.set_level(av.logging.ERROR)
logging.getLogger("libav").setLevel(logging.CRITICAL)
for _ in range(20):
    try:
        video.read_clip(Path(sys.argv[1]))
    except MediaError:
        pass
print("done")
"""


def test_a_damaged_clip_does_not_hang_where_another_pack_turned_the_log_on(clip: Make) -> None:
    """As import of torchvision.io does: decoders' threads would wait for the lock of whoever waits for them."""
    path = clip(20, **RAW)
    patched(path, *((at + size // 2, bytes(64)) for at, size in packets(path)[2:]))
    ended = subprocess.run([sys.executable, "-c", LOGGED, str(path)], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "done\n"
