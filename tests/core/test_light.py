"""Shape and light of video: pixel aspect, rotation, interlaced frames, high dynamic range, colour, ten bits."""

from __future__ import annotations

import io
import itertools
import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from comfyui_vdp.vdp_core.errors import InputError, MediaError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media import pixels, ycbcr
from comfyui_vdp.vdp_core.media.info import Notes
from comfyui_vdp.vdp_core.media.interlace import deinterlaced
from comfyui_vdp.vdp_core.media.tone import HLG, PQ, ToneMap, peak_of

FILES = Path(__file__).parents[1] / "files"


def write(path: Path, codec: str, layout: str, frames, *, rate: int = 25, options=None, prepare=None) -> Path:
    """Write frames as somebody else would; ``prepare`` may set what the stream says."""
    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, layout
        if prepare is not None:
            prepare(stream.codec_context)
        for index, frame in enumerate(itertools.chain([first], frames)):
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frame_of(picture: np.ndarray, layout: str) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=layout)


def flat(layout: str, codes: list[int], width: int = 64, height: int = 48, **said: int) -> av.VideoFrame:
    """A frame of one colour, by the code values of its planes; ``said`` are its tags."""
    frame = av.VideoFrame(width, height, layout)
    for plane, code in zip(frame.planes, codes, strict=True):
        kind = np.uint16 if layout.endswith("le") else np.uint8
        np.frombuffer(memoryview(plane), kind)[:] = code
    for name, value in said.items():
        setattr(frame, name, value)
    return frame


# shape


def disc(width: int, height: int, ratio: float) -> np.ndarray:
    """A circle as pixels of that ratio hold it, white on black."""
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) * ratio) ** 2 + (y - height / 2) ** 2 < (0.35 * min(width * ratio, height)) ** 2
    return np.repeat(np.where(inside, 255, 0).astype(np.uint8)[..., None], 3, 2)


def extent(clip: video.Clip) -> tuple[int, int]:
    """How wide and how high what is bright is."""
    bright = clip.frames[0, ..., 1] > 0.5
    return int(bright.any(0).sum()), int(bright.any(1).sum())


def test_a_circle_is_a_circle():
    clip = video.read_clip(FILES / "anamorphic.mp4")
    assert clip.frames.shape[1:3] == (144, 256)  # 176 pixels of 16:11
    assert clip.done == ("pixels of 16:11 scaled from 176x144 to 256x144 square ones",)
    bright = clip.frames[0].mean(-1) > 0.9
    rows, columns = bright.any(1).sum(), bright.any(0).sum()
    assert abs(int(rows) - int(columns)) <= 2


@pytest.mark.parametrize(
    ("name", "codec", "size", "ratio", "shown"),
    [
        ("a.mp4", "libx264", (96, 72), Fraction(4, 3), (128, 72)),
        ("a.mov", "mpeg4", (96, 72), Fraction(4, 3), (128, 72)),
        ("a.mkv", "libx264", (96, 72), Fraction(2, 3), (96, 108)),  # nothing is lost: the height grows
        ("a.avi", "mpeg4", (96, 72), Fraction(4, 3), (128, 72)),
        ("a.ts", "libx264", (96, 72), Fraction(4, 3), (128, 72)),
        ("a.mpg", "mpeg2video", (720, 576), Fraction(16, 15), (768, 576)),
        ("a.dv", "dvvideo", (720, 576), Fraction(64, 45), (1024, 576)),
    ],
)
def test_pixels_become_square(tmp_path, name, codec, size, ratio, shown):
    def prepare(context):
        context.sample_aspect_ratio = ratio

    picture = frame_of(disc(*size, float(ratio)), "yuv420p")
    path = write(tmp_path / name, codec, "yuv420p", [picture] * 12, options={"qscale": "2"}, prepare=prepare)
    clip = video.read_clip(path)
    assert clip.frames.shape[2:0:-1] == shown
    assert video.probe(path).width == shown[0]
    assert f"scaled from {size[0]}x{size[1]} to {shown[0]}x{shown[1]}" in clip.done[0]
    across, down = extent(clip)
    assert abs(across - down) <= 2
    small = video.read_clip(path, max_side=60).frames
    assert max(small.shape[1:3]) == 60
    assert small.shape[1] / small.shape[2] == pytest.approx(shown[1] / shown[0], rel=0.02)


@pytest.mark.parametrize(("ratio", "note"), [(Fraction(405, 404), None), (Fraction(16, 1), "taken for an error")])
def test_pixels_that_stay_as_they_are(tmp_path, ratio, note):
    def prepare(context):
        context.sample_aspect_ratio = ratio

    path = write(tmp_path / "a.mp4", "libx264", "yuv420p", [flat("yuv420p", [90, 128, 128])], prepare=prepare)
    clip = video.read_clip(path)
    assert clip.frames.shape[1:3] == (48, 64)
    assert [note in said for said in clip.notes] == ([True] if note else [])


# of a stored point (p, q): where it is shown, (a p + c q, b p + d q)
MATRICES = [(a, 0, 0, d) if straight else (0, a, d, 0) for straight in (True, False) for a in (1, -1) for d in (1, -1)]


def set_display_matrix(path, matrix):
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # 40 bytes before the matrix: a b u, c d v, x y w
    for place, value in zip((0, 1, 3, 4), matrix, strict=True):
        data[at + 4 * place : at + 4 * place + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize(("degrees", "turned"), [(45, True), (120, True), (0.5, False), (89.5, False)])
def test_a_turn_by_no_quarter_is_said(tmp_path, degrees, turned):
    picture = np.zeros((48, 64, 3), np.uint8)
    path = write(tmp_path / "m.mp4", "libx264", "yuv420p", [frame_of(picture, "yuv420p")])
    along, across = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    set_display_matrix(path, (along, across, -across, along))
    clip = video.read_clip(path)
    assert clip.frames.shape[1:3] == ((64, 48) if degrees > 60 else (48, 64))
    assert bool(clip.notes) == turned
    assert not turned or "no quarter of a circle" in clip.notes[0]


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_every_display_matrix(tmp_path, matrix, stretched):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16] = 255
    picture[:16, 48:] = 128

    def prepare(context):
        context.sample_aspect_ratio = Fraction(3, 2) if stretched else Fraction(1)

    path = write(tmp_path / "m.mp4", "libx264", "yuv420p", [frame_of(picture, "yuv420p")], prepare=prepare)
    set_display_matrix(path, matrix)
    wide = picture.repeat(3, 1)[:, 1::2] if stretched else picture
    a, b, c, d = matrix
    q, p = np.mgrid[: wide.shape[0], : wide.shape[1]]
    x, y = a * p + c * q, b * p + d * q
    expected = np.zeros((y.max() - y.min() + 1, x.max() - x.min() + 1, 3))
    expected[y - y.min(), x - x.min()] = wide / 255
    frames = video.read_clip(path).frames
    assert frames.shape[1:] == expected.shape
    assert (frames[0] - torch.from_numpy(expected)).abs().mean() < 0.02


def of_still(folder, content, codec, layout, size):
    """A mov of one frame, which is a finished picture."""
    path = folder / "still.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        (stream.width, stream.height), stream.pix_fmt = size, layout
        packet = av.Packet(content)
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
        packet.is_keyframe = True
        container.mux(packet)
    return path


def test_jpeg_frames_that_say_how_they_were_held(tmp_path):
    notes = Image.Exif()
    notes[0x0112] = 6  # the right side is up
    file = io.BytesIO()
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 255
    Image.fromarray(picture).save(file, "JPEG", exif=notes, quality=95)
    frames = video.read_clip(of_still(tmp_path, file.getvalue(), "mjpeg", "yuvj420p", (64, 32))).frames
    assert frames.shape == (1, 64, 32, 3)
    assert frames[0, :28, 20:].min() > 0.9
    assert frames[0, 36:].max() < 0.1


def test_frames_with_a_colour_profile_do_not_end_the_process(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (200, 100, 50)).save(file, "PNG", icc_profile=profile)
    frames = video.read_clip(of_still(tmp_path, file.getvalue(), "png", "rgb24", (32, 24))).frames
    assert (frames[0, 0, 0] * 255).round().tolist() == [200, 100, 50]


# interlaced


def fields(count: int, layout: str, *, top_first: bool = True, width: int = 128, height: int = 96):
    """Frames, flagged as interlaced, of a bar that goes right by 4 pixels from field to field."""
    source = av.filter.Graph()
    entry = source.add_buffer(width=width, height=height, format=av.VideoFormat(layout), time_base=Fraction(1, 25))
    flag, out = source.add("setfield", "tff" if top_first else "bff"), source.add("buffersink")
    entry.link_to(flag)
    flag.link_to(out)
    source.configure()
    for index in range(count):
        picture = np.full((height, width, 3), 60, np.uint8)
        for line in (0, 1):
            x = 8 * index % (width - 24) + (0 if (line == 0) == top_first else 4)
            picture[line::2, x : x + 16] = 220
        frame = frame_of(picture, layout)
        frame.pts, frame.time_base = index, Fraction(1, 25)
        source.push(frame)
        yield source.pull()


def combing(frames: torch.Tensor) -> float:
    """How far lines are from the mean of those above and below."""
    return float((frames[:, 1:-1] - (frames[:, 2:] + frames[:, :-2]) / 2).abs().mean())


def test_a_file_with_woven_fields():
    clip = video.read_clip(FILES / "interlaced.mp4")
    assert (len(clip.frames), clip.fps) == (12, 25)
    assert clip.done == ("interlaced, deinterlaced to one frame for each",)
    woven = video.read_clip(FILES / "interlaced.mp4").frames
    assert combing(woven) < 0.01


INTERLACED = {"flags": "+ilme+ildct", "b": "20M"}


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("i.mp4", "libx264", "yuv420p"),
        ("i.mkv", "libx264", "yuv422p10le"),
        ("i.ts", "mpeg2video", "yuv420p"),
        ("i.mxf", "mpeg2video", "yuv422p"),
        ("i.mov", "prores_ks", "yuv422p10le"),
        ("i.avi", "mpeg4", "yuv420p"),
    ],
)
def test_fields_become_frames(tmp_path, name, codec, layout, top_first):
    path = write(tmp_path / name, codec, layout, fields(12, layout, top_first=top_first), options=INTERLACED)
    clip = video.read_clip(path)
    assert (len(clip.frames), clip.fps) == (12, 25)
    assert "interlaced, deinterlaced to one frame for each" in clip.done
    assert combing(clip.frames) < 0.003  # woven it is 0.04
    left = (clip.frames[..., 48, :, 1] > 0.5).float().argmax(-1)  # of the bar in the first field
    assert all(abs(int(x) - 8 * index) <= 1 for index, x in enumerate(left))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "layout", ["yuv420p", "yuv422p10le", "yuva444p", "gray", "bgra", "uyvy422", "nv12", "gbrp10le"]
)
def test_deinterlacing_leaves_colour_and_time_alone(layout, full):
    def flagged():
        for index, frame in enumerate(fields(5, layout)):
            frame.colorspace, frame.color_range, frame.pts = 1, 2 if full else 1, 1000 + 3 * index
            yield frame

    look = pixels.Look((128, 96), (128, 96), pixels.UPRIGHT, left=True, tone=None)
    made = list(deinterlaced(flagged(), Notes(Path("clip"))))
    assert [frame.pts for frame in made] == [1000, 1003, 1006, 1009, 1012]
    for before, after in zip(flagged(), made, strict=True):
        assert (after.width, after.height) == (128, 96)
        woven, whole = np.empty((2, 96, 128, 3), np.float32)
        look.paint(before, woven, None)
        look.paint(after, whole, None)
        assert np.abs(woven - whole)[:, 110:].max() < 0.006  # where nothing moves


def test_dv(tmp_path):
    path = write(tmp_path / "i.dv", "dvvideo", "yuv420p", fields(4, "yuv420p", width=720, height=576))
    clip = video.read_clip(path)
    assert clip.frames.shape == (4, 576, 768, 3)
    assert [note.split(",")[0] for note in clip.done] == [
        "pixels of 16:15 scaled from 720x576 to 768x576 square ones",
        "interlaced",
    ]
    assert combing(clip.frames) < 0.003


def test_reading_from_the_middle_deinterlaces_alike(tmp_path):
    path = write(
        tmp_path / "i.mp4",
        "libx264",
        "yuv420p",
        fields(150, "yuv420p", width=64, height=48),
        options={"flags": "+ilme+ildct", "g": "30", "crf": "10"},
    )
    whole = video.read_clip(path).frames
    for start in (0, 1, 119, 120, 121, 140, 149):  # keyframes among them
        assert torch.equal(video.read_clip(path, start=start, count=3).frames, whole[start : start + 3])
    assert torch.equal(video.read_clip(path, start=5, every_nth=7).frames, whole[5::7])


def test_only_flagged_frames_are_touched(tmp_path):
    plain = [frame_of(np.full((96, 128, 3), 30 * index, np.uint8), "yuv420p") for index in range(4)]
    stripes = np.zeros((96, 128, 3), np.uint8)
    stripes[::2] = 255
    frames = [*plain, frame_of(stripes, "yuv420p"), *fields(4, "yuv420p")]
    lossless = {"g": "1", "level": "3"}
    mixed = video.read_clip(write(tmp_path / "m.mkv", "ffv1", "yuv420p", frames, options=lossless))
    assert len(mixed.frames) == 9
    assert mixed.frames[0].max() < 1e-6
    assert combing(mixed.frames[4:5]) > 0.9
    assert combing(mixed.frames[5:]) < 0.003
    woven = write(tmp_path / "p.mkv", "ffv1", "yuv420p", frames[4:5], options=lossless)
    assert video.read_clip(woven).done == ()


# light


def in_nits(light: float) -> float:
    """The PQ signal of a light in cd/m2: BT.2100-2 table 4."""
    y = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def mapped(curve: ToneMap, *rgb: float) -> list[float]:
    picture = np.array([[rgb]], np.float32)
    curve.apply(picture)
    return picture[0, 0].tolist()


@pytest.mark.parametrize("peak", [203.0, 1000.0, 4000.0, 10_000.0])
def test_tones_below_the_knee_stay_and_the_peak_is_white(peak):
    curve = ToneMap(PQ, 9, peak)
    assert mapped(curve, 0, 0, 0) == [0, 0, 0]
    for light in (1.0, 5.0, 20.0):
        assert mapped(curve, *[in_nits(light)] * 3) == pytest.approx([(light / 203) ** (1 / 2.4)] * 3, abs=2e-3)
    assert mapped(curve, *[in_nits(peak)] * 3) == pytest.approx([1.0] * 3, abs=2e-3)
    ramp = np.repeat(np.linspace(0, 1, 500, dtype=np.float32)[None, :, None], 3, 2)
    curve.apply(ramp)
    assert (np.diff(ramp[0, :, 1]) >= -1e-4).all()
    assert np.abs(ramp - ramp[..., :1]).max() < 1e-3  # grey stays grey


def test_the_curve_of_bt_2390_by_hand():
    # a peak of 1000, 203 cd/m2 in: E1 = maxLum = 0.77237, KS = 0.65856, T = 0.33333, E2 = 0.73821
    signal = 0.738216 * in_nits(1000)
    power = signal ** (1 / 78.84375)
    light = 10_000 * ((power - 0.8359375) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    expected = (light / 203) ** (1 / 2.4)
    assert mapped(ToneMap(PQ, 9, 1000.0), *[in_nits(203)] * 3) == pytest.approx([expected] * 3, abs=2e-3)


def test_hlg_is_the_light_of_a_display_of_1000():
    # BT.2100-2 table 5: 0.5 is a twelfth of the scene's light, the OOTF takes it to 1000 * (1 / 12) ** 1.2 = 50.7 cd/m2
    assert mapped(ToneMap(HLG, 9, 1000.0), 0.5, 0.5, 0.5) == pytest.approx([(50.7 / 203) ** (1 / 2.4)] * 3, abs=2e-3)
    assert mapped(ToneMap(HLG, 9, 1000.0), 1, 1, 1) == pytest.approx([1, 1, 1], abs=2e-3)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_colours_beyond_bt_709_keep_their_hue(transfer):
    curve = ToneMap(transfer, 9, 1000.0)
    red, green, blue = (mapped(curve, *rgb) for rgb in ((0.6, 0, 0), (0, 0.6, 0), (0, 0, 0.6)))
    assert red[0] > 0.5 and max(red[1:]) < 0.35 * red[0]
    assert green[1] > 0.5 and green[1] == max(green)
    assert blue[2] > 0.4 and blue[2] == max(blue)
    assert all(0 <= value <= 1 for value in (*red, *green, *blue))
    # what has BT.709's primaries already is scaled, not turned
    assert mapped(ToneMap(transfer, 1, 1000.0), 0.4, 0, 0)[1:] == pytest.approx([0, 0], abs=1e-3)


def test_the_peak_that_a_stream_says():
    content = np.array([1200, 300], np.uint32).tobytes()
    display = np.zeros(22, np.int32)
    display[16:20] = 50, 10_000, 40_000_000, 10_000  # 0.005 and 4000 cd/m2
    display[20:] = 1
    assert peak_of({"CONTENT_LIGHT_LEVEL": content, "MASTERING_DISPLAY_METADATA": display.tobytes()}) == 1200
    assert peak_of({"MASTERING_DISPLAY_METADATA": display.tobytes()}) == 4000
    assert peak_of({"CONTENT_LIGHT_LEVEL": bytes(8)}) == 1000
    assert peak_of({}) == 1000


def test_a_file_of_hlg():
    clip = video.read_clip(FILES / "hlg_ok.mp4")
    assert clip.done == ("high dynamic range (HLG) tone-mapped to SDR",)
    assert clip.frames.shape == (10, 90, 160, 3)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("h.mp4", "libx265", {"x265-params": "log-level=none"}),
        (
            "h.mkv",
            "libx265",
            {
                "x265-params": "log-level=none:master-display=G(13250,34500)B(7500,3000)R(34000,16000)"
                "WP(15635,16450)L(40000000,50):max-cll=1000,400"
            },
        ),
        ("h.mov", "prores_ks", {}),
        ("a.mp4", "libsvtav1", {}),
        ("a.mkv", "libsvtav1", {}),
    ],
)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_high_dynamic_range_of_other_codecs(tmp_path, name, codec, options, transfer):
    def prepare(context):
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = transfer, 9, 9, 1

    layout = "yuv422p10le" if codec == "prores_ks" else "yuv420p10le"
    level = in_nits(20) if transfer == PQ else 0.5
    code = round(64 + 876 * level)
    frames = [flat(layout, [code, 512, 512], 128, 96, colorspace=9, color_range=1) for _ in range(3)]
    clip = video.read_clip(write(tmp_path / name, codec, layout, frames, options=options, prepare=prepare))
    kind = "PQ up to 1000 cd/m2" if transfer == PQ else "HLG"
    assert clip.done == (f"high dynamic range ({kind}) tone-mapped to SDR",)
    light = 20.0 if transfer == PQ else 50.7
    assert (clip.frames - (light / 203) ** (1 / 2.4)).abs().max() < 0.01


def test_wide_colours_without_high_dynamic_range_stay_and_are_said(tmp_path):
    def prepare(context):
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = 1, 9, 9, 1

    frames = [flat("yuv420p10le", [502, 512, 512], colorspace=9, color_range=1)]
    clip = video.read_clip(write(tmp_path / "w.mkv", "ffv1", "yuv420p10le", frames, prepare=prepare))
    assert (clip.frames - 0.5).abs().max() < 1e-3
    assert clip.done == ("values of wide primaries (BT.2020 or P3) taken as they are",)


@pytest.mark.parametrize(("profile", "full", "refused"), [(0, 1, True), (0, 0, False), (1, 0, False)])
def test_dolby_vision_of_profile_5_is_refused(tmp_path, profile, full, refused):
    header = bytes([0, 0, 0, 0, profile, 0, 0, 0, 0, 0, full, 10])
    frame = SimpleNamespace(
        side_data={"DOVI_METADATA": (24).to_bytes(8, "little") + bytes(16) + header},
        colorspace=2,
        format=SimpleNamespace(is_rgb=False),
        rotation=0,
    )
    context = SimpleNamespace(name="hevc", color_trc=2, color_primaries=2, colorspace=2, sample_aspect_ratio=None)
    stream = SimpleNamespace(codec_context=context, sample_aspect_ratio=None)
    path = tmp_path / "d.mp4"
    if refused:
        with pytest.raises(MediaError, match="Dolby Vision of profile 5"):
            pixels.look_of(path, stream, frame, pixels.Colours.of(context), (64, 48), Notes(path))
    else:
        assert pixels.look_of(path, stream, frame, pixels.Colours.of(context), (64, 48), Notes(path)).size == (64, 48)


# colour

CHART = np.array(list(itertools.product(np.linspace(0, 1, 5), repeat=3)), np.float32)
PATCH = 16


def patches(rgb: np.ndarray) -> np.ndarray:
    """``(125, 3)`` colours as a picture ``(80, 400, 3)`` of 5 x 25 patches."""
    return np.ascontiguousarray(rgb.reshape(5, 25, 3).repeat(PATCH, 0).repeat(PATCH, 1))


def middles(picture: np.ndarray) -> np.ndarray:
    """The middle of each patch, which chroma of its neighbours does not reach: ``(125, 3)``."""
    return picture[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].reshape(-1, 3)


def by_ffmpeg(frame: av.VideoFrame, matrix: str, full: bool) -> np.ndarray:
    """The frame as swscale makes 8-bit RGB of it when it may take its time."""
    graph = av.filter.Graph()
    entry = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))
    exact = "accurate_rnd+full_chroma_int+full_chroma_inp"
    scale = graph.add(
        "scale", f"in_color_matrix={matrix}:in_range={'full' if full else 'limited'}:out_range=full:flags={exact}"
    )
    kind, out = graph.add("format", "rgb24"), graph.add("buffersink")
    entry.link_to(scale)
    scale.link_to(kind)
    kind.link_to(out)
    graph.configure()
    graph.push(frame)
    return graph.pull().to_ndarray()


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "name"), [(6, "smpte170m"), (1, "bt709"), (9, "bt2020")])
@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
def test_a_chart_is_what_ffmpeg_makes_of_it(tmp_path, matrix, name, full, bits, subsampling):
    # BT.709-6 section 3 and H.273 section 8.3, written out once more
    kr, kb = {6: (0.299, 0.114), 1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}[matrix]
    r, g, b = patches(CHART).astype(np.float64).transpose(2, 0, 1)
    y = kr * r + (1 - kr - kb) * g + kb * b
    chroma = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    most, step = 2**bits - 1, 2 ** (bits - 8)
    luma = y * most if full else (16 + 219 * y) * step
    blue, red = (c * most + 128 * step if full else (128 + 224 * c) * step for c in chroma)
    across, down = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[subsampling]
    layout = f"yuv{subsampling}p" + ("" if bits == 8 else f"{bits}le")

    def frame() -> av.VideoFrame:
        made = av.VideoFrame(400, 80, layout)
        for part, plane in zip(made.planes, (luma, blue[::down, ::across], red[::down, ::across]), strict=True):
            kind = np.uint8 if bits == 8 else np.uint16
            rows = np.frombuffer(memoryview(part), kind).reshape(part.height, -1)
            rows[:, : part.width] = np.rint(plane).clip(0, most)
        made.colorspace, made.color_range, made.pts = matrix, 2 if full else 1, 0
        return made

    def prepare(context):
        context.colorspace, context.color_range = matrix, 2 if full else 1

    path = write(tmp_path / "c.mkv", "ffv1", layout, [frame()], prepare=prepare)
    ours = middles(video.read_clip(path).frames[0].numpy())
    assert np.abs(np.rint(ours * 255) - middles(by_ffmpeg(frame(), name, full)).astype(int)).max() <= 1
    # and what 8 bits of limited range leave of the truth, in which chroma has 224 steps
    assert np.abs(ours - CHART).max() < 1.5 / 255 / (1 if bits == 8 else 4)


@pytest.mark.parametrize(
    ("name", "close"), [("mp4", 0.02), ("webm", 0.05), ("h265", 0.015), ("prores4444", 0.004), ("exr", 0.001)]
)
def test_a_chart_saved_and_loaded(tmp_path, name, close):
    frames = torch.from_numpy(patches(CHART))[None].repeat(2, 1, 1, 1)
    path = video.write_clip(tmp_path / "c", frames, fps=25, format=name, quality=100)
    assert np.abs(middles(video.read_clip(path).frames[0].numpy()) - CHART).max() < close


@pytest.mark.parametrize(
    "layout",
    [
        "gray",
        "gray10le",
        "gray16be",
        "grayf32le",
        "ya8",
        "ya16le",
        "rgb24",
        "bgr24",
        "rgba",
        "argb",
        "bgr0",
        "rgb48le",
        "rgba64be",
        "x2rgb10le",
        "gbrp",
        "gbrp10le",
        "gbrp12le",
        "gbrp16le",
        "gbrap",
        "gbrap12le",
        "gbrpf32le",
        "xyz12le",
        "yuvj420p",
        "yuvj422p",
        "yuvj444p",
        "yuv422p",
        "yuv440p",
        "yuv440p12le",
        "yuv411p",
        "yuv410p",
        "yuva420p",
        "yuva422p10le",
        "yuva444p12le",
        "yuva444p16le",
        "yuv420p9le",
        "yuv420p14le",
        "yuv420p10be",
        "nv12",
        "nv21",
        "nv16",
        "nv24",
        "p010le",
        "p016le",
        "p210le",
        "p412le",
        "yuyv422",
        "uyvy422",
        "y210le",
        "xv36le",
        "vuya",
        "v30xle",
    ],
)
def test_every_pixel_format(layout):
    levels = np.array([[40, 90, 200], [220, 60, 30], [250, 250, 250], [0, 0, 0]], np.uint8)
    picture = np.ascontiguousarray(levels[None].repeat(32, 1).repeat(64, 0))
    try:
        frame = frame_of(picture, layout)
    except (ValueError, OSError, av.error.FFmpegError):
        pytest.skip("this FFmpeg does not make it")
    if layout.startswith(("gray", "ya")):
        picture = frame_of(picture, "gray").to_ndarray()[..., None].repeat(3, 2)
    out, alpha = np.empty((64, 128, 3), np.float32), np.empty((64, 128), np.float32)
    pixels.Look((128, 64), (128, 64), pixels.UPRIGHT, left=True, tone=None).paint(frame, out, alpha)
    assert np.abs(out - picture / 255.0)[:, 15::32].max() < (0.03 if layout.startswith("xyz") else 0.013)
    assert alpha.min() == 1.0


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgba"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.mkv", "ffv1", "yuva444p10le"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.avi", "utvideo", "gbrap"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.webm", "libvpx", "yuva420p"),
    ],
)
def test_colour_under_alpha_is_straight(tmp_path, name, codec, layout):
    picture = np.empty((48, 64, 4), np.uint8)
    picture[..., :3] = (230, 60, 30)
    picture[..., 3] = 128
    frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format=layout)
    options = {"auto-alt-ref": "0", "crf": "4", "b": "4M"} if "vpx" in codec else {}
    clip = video.read_clip(write(tmp_path / name, codec, layout, [frame] * 2, options=options))
    assert (clip.alpha - 128 / 255).abs().max() < 0.01
    assert (clip.frames * 255 - torch.tensor([230.0, 60.0, 30.0])).abs().max() < 5


# ten bits


def test_h265_keeps_what_lies_between_two_steps_of_eight_bits(tmp_path):
    ramp = torch.linspace(0.4, 0.5, 256).view(1, 1, 256, 1).expand(4, 96, 256, 3).contiguous()
    fine = video.read_clip(video.write_clip(tmp_path / "f", ramp, fps=25, format="h265", quality=100))
    coarse = video.read_clip(video.write_clip(tmp_path / "c", ramp, fps=25, format="mp4", quality=100))
    assert video.probe(tmp_path / "f.mp4").bit_depth == 10
    assert len(fine.frames[0, 48, :, 1].unique()) > 2 * len(coarse.frames[0, 48, :, 1].unique())
    assert (fine.frames - ramp).abs().max() < 1 / 255
    with av.open(str(tmp_path / "f.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.codec_tag) == ("hevc", "hvc1")
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)


def test_h265_holds_no_alpha(tmp_path):
    with pytest.raises(InputError, match="h265 holds no alpha; choose webm, prores4444, png or exr"):
        video.write_clip(tmp_path / "a", torch.zeros(2, 64, 64, 3), fps=25, format="h265", alpha=torch.zeros(2, 64, 64))


@pytest.mark.parametrize("size", [(18, 20), (63, 65), (50, 200)])
def test_sizes_that_x265_does_not_take(tmp_path, size):
    frames = torch.rand(1, 1, 1, 3).expand(3, *size, 3)
    path = video.write_clip(tmp_path / "s", frames, fps=25, format="h265")
    assert video.read_clip(path).frames.shape == (3, *size, 3)
    with av.open(str(path)) as container:
        stored = container.streams.video[0]
        assert min(stored.width, stored.height) >= 64


def test_prores_says_its_colours_in_the_file_and_in_each_frame(tmp_path):
    path = video.write_clip(tmp_path / "p", torch.rand(2, 48, 64, 3), fps=25, format="prores4444")
    data = path.read_bytes()
    at = data.index(b"colrnclc") + 8
    assert [int.from_bytes(data[at + 2 * i : at + 2 * i + 2], "big") for i in range(3)] == [1, 1, 1]
    frames = [at for at in range(len(data)) if data.startswith(b"icpf", at)]
    assert len(frames) == 2
    assert all(list(data[at + 18 : at + 21]) == [1, 1, 1] for at in frames)  # RDD 36, 5.1.1


def test_the_matrix_that_nobody_names_is_said(tmp_path):
    frames = [flat("yuv420p", [126, 128, 128], colorspace=8, color_range=1)]

    def prepare(context):
        context.colorspace = 8  # YCgCo

    clip = video.read_clip(write(tmp_path / "m.mp4", "libx264", "yuv420p", frames, prepare=prepare))
    assert clip.notes == ("has a colour matrix that is not known here (8), read as if it said none",)
    assert 8 not in ycbcr.MATRICES
