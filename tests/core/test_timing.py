"""Frames by their times: constant rates are left alone, variable ones made constant, in step with the sound."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.video import LoadFrames
from comfyui_vdp.vdp_core.errors import InputError, MediaError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media import sound as sounds
from comfyui_vdp.vdp_core.media import video_file
from comfyui_vdp.vdp_core.media.info import Notes
from comfyui_vdp.vdp_core.media.timeline import constant_rate, laid, lay, lie_evenly, nominal_rate, timed
from comfyui_vdp.vdp_core.store import scratch

from ..sync import beeps, flashes, write_sync_clip

FILES = Path(__file__).parent.parent / "files"
MS = Fraction(1, 1000)
CAPTURED = [*range(0, 2000, 20), *range(2000, 4000, 100)]  # milliseconds: 50 frames a second, then 10
WITH_GAPS = [round(at * 1000 / 30) for at in range(120) if at % 11 != 5]  # 30, of which some were lost


# --- where frames lie ---


def test_places_follow_gaps_and_crowds():
    assert lay([0, 100, 200, 500, 600], MS, Fraction(10)) == [0, 1, 2, 5, 6]
    assert lay([0, 100, 130, 160, 200, 300], MS, Fraction(10)) == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("timing", ["constant", "as recorded"])
@pytest.mark.parametrize(("times", "unit"), [([0, 1, 2, 40], Fraction(1, 9000)), ([0, 1, 3, 4, 9], Fraction(4000))])
def test_a_rate_of_times_that_lie_can_be_played(times, unit, timing):
    rate, _ = timed(times, unit, Fraction(24), 1, timing, Notes(Path("x")))
    assert Fraction(1, 1000) <= rate <= 1000


def test_what_jitters_is_counted():
    assert lay([0, 60, 240, 290, 400], MS, Fraction(10)) == [0, 1, 2, 3, 4]
    assert lay([0, 100, 190, 380, 400, 500], MS, Fraction(10)) == [0, 1, 2, 3, 4, 5]  # one that is late by itself
    assert lay([0, 100, 200, 400], MS, Fraction(10)) == [0, 1, 2, 3]  # nothing comes after it that could be late


def test_no_frame_strays_from_its_time_by_more_than_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = np.cumsum(rng.choice([1, 8, 17, 33, 33, 33, 40, 250], 400)).tolist()
        slots = lay(times, MS, Fraction(30))
        assert all(a <= b for a, b in pairwise(slots))
        shown = dict(zip(slots, times, strict=True))  # the last of each place
        off = [abs((time - times[0]) * 0.03 - slot) for slot, time in shown.items()]
        assert max(off) <= 1.25
        assert np.mean(off) < 0.5


def test_a_line_tells_what_was_done():
    line = laid([0, 100, 110, 120, 500], MS, Fraction(10), 200)
    assert (list(line.slots), line.count) == ([0, 1, 1, 1, 5], 7)
    assert [line.shown_at(slot) for slot in range(7)] == [0, 3, 3, 3, 3, 4, 4]
    assert line.told() == "variable rate: 5 frames laid on 10 fps, 4 repeated, 2 left out"


@pytest.mark.parametrize(
    ("times", "said", "rate"),
    [
        ([0, 33, 67, 100, 133], Fraction(30), Fraction(30)),
        ([round(at * 1001 / 30) for at in range(200)], Fraction(50), Fraction(30000, 1001)),
        ([round(at * 1001 / 30) for at in range(99)], Fraction(989, 33), Fraction(30000, 1001)),
        ([0, 80, 160, 240], Fraction(100), Fraction(25, 2)),
        ([0, 700, 1400], Fraction(25), Fraction(10, 7)),
        ([0, 33, 83, 117, 167, 200, 250, 283, 333], Fraction(30), Fraction(24)),  # film, shown for two fields and three
        ([5], Fraction(24), Fraction(24)),
        (CAPTURED, Fraction(50), None),
        (WITH_GAPS, Fraction(30), None),
    ],
)
def test_a_constant_rate_is_known(times, said, rate):
    assert constant_rate(times, MS, said) == rate


def test_a_clock_that_stands_still_tells_nothing():
    assert not lie_evenly([7, 7, 7, 7], MS, Fraction(25))
    notes = Notes(Path("x"))
    assert timed([7, 7, 7, 7], MS, Fraction(25), 0, "constant", notes) == (25, None)
    assert timed([0, 0, 0, 0, 90], MS, Fraction(25), 0, "constant", notes, last_counts=True)[0] > 0


@pytest.mark.parametrize(
    ("times", "last", "rate"),
    [
        (WITH_GAPS, 33, Fraction(30)),
        ([*WITH_GAPS, *(60_000 + at for at in WITH_GAPS)], 33, Fraction(30)),  # a pause of a minute
        (CAPTURED, 100, Fraction(30)),
        ([7 + at for at in CAPTURED], 20, Fraction(1500, 49)),
        ([0, 100, 200, 700, 800], 100, Fraction(10)),
        ([0, 1000, 3000, 3500], 1500, Fraction(2)),  # what all delays are multiples of
        ([0, 33, 67, 100, 133, 175, 217, 258, 300], 42, Fraction(30)),  # a phone in low light: no frame is lost
    ],
)
def test_a_rate_is_chosen(times, last, rate):
    assert nominal_rate(times, MS, Fraction(50), last) == rate


def test_times_that_count_frames_keep_their_rate():
    assert nominal_rate([0, 3, 4, 5, 10, 15, 20], Fraction(1, 50), Fraction(50), 1) == 50


# --- what others wrote ---


@pytest.mark.parametrize(
    ("name", "count", "rate", "told"),
    [
        ("vp8_variable_rate.webm", 120, Fraction(1500, 49), "laid on 30.6122 fps, 39 repeated, 39 left out"),
        ("avi_dropped_frames.avi", 198, Fraction(50), "120 frames laid on 50 fps, 78 repeated"),
    ],
)
def test_recordings_of_browsers_and_capture_cards(name, count, rate, told):
    clip = video.read_clip(FILES / name)
    assert (len(clip.frames), clip.fps, clip.notes) == (count, rate, ())
    assert video.probe(FILES / name).frame_count == count
    assert told in clip.done[0]
    assert clip.audio is not None
    assert clip.audio["waveform"].shape[2] / 48_000 == pytest.approx(float(count / rate), abs=0.01)
    assert len(flashes(clip)) == 3
    # in the AVI they lie 0.04 s late, and its beeps 0.02 s: ffmpeg -fps_mode cfr finds them there too
    assert flashes(clip) == pytest.approx([1.0, 2.0, 3.0], abs=0.041)
    assert beeps(clip) == pytest.approx(flashes(clip), abs=1 / 30.7)


def test_packets_of_nothing_repeat_a_frame():
    clip = video.read_clip(FILES / "theora_still_parts.ogv")
    assert (len(clip.frames), clip.fps, clip.notes, clip.done) == (24, 24, (), ())
    repeats = [bool((a == b).all()) for a, b in zip(clip.frames[1:], clip.frames, strict=False)]
    assert sum(repeats) == 20
    assert len(video.read_clip(FILES / "theora_still_parts.ogv", start=20).frames) == 4
    assert len(video.read_clip(FILES / "theora_still_parts.ogv", timing="as recorded").frames) == 24


def test_what_an_edit_list_leaves_out_is_not_missed():
    clip = video.read_clip(FILES / "trimmed_edit_list.mp4")
    assert (len(clip.frames), clip.fps, clip.notes, clip.done) == (27, 25, (), ())


def test_a_recording_that_is_cut_between_key_frames():
    clip = video.read_clip(FILES / "ts_cut_between_keyframes.ts")
    assert (len(clip.frames), clip.fps, clip.notes, clip.done) == (25, 25, (), ())


KINDS = {
    "mp4": ("h264.mp4", {}),
    "b_frames": ("h264.mp4", {"options": {"bf": "3", "g": "40"}}),
    "fragments": ("h264.mov", {"options": {"bf": "2", "movflags": "frag_keyframe"}}),
    "mkv": ("h264.mkv", {"late": 5.0}),
    "vp8": ("vp8.webm", {"codec": "libvpx", "sound": "libopus", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "vp9": ("vp9.webm", {"codec": "libvpx-vp9", "sound": "libopus", "options": {"cpu-used": "8"}}),
    "ts": ("h264.ts", {"late": 400.0}),
    "flv": ("h264.flv", {}),
    "flv1": ("old.flv", {"codec": "flv", "sound": "aac"}),
    "wmv": ("wmv2.wmv", {"codec": "wmv2", "sound": "wmav2"}),
    "mpeg4": ("mpeg4.mkv", {"codec": "mpeg4", "options": {"bf": "2"}}),
    "mjpeg": ("mjpeg.mov", {"codec": "mjpeg", "pixels": "yuvj420p", "sound": "pcm_s16le"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [CAPTURED, WITH_GAPS], ids=["captured", "gaps"])
def test_picture_and_sound_stay_together(tmp_path, kind, times):
    name, settings = KINDS[kind]
    clip = video.read_clip(write_sync_clip(tmp_path / name, times, **settings))
    assert clip.done[0].startswith("variable rate: ")
    assert len(clip.frames) / clip.fps == pytest.approx(4.0, abs=0.1)
    assert len(flashes(clip)) == len(beeps(clip)) == 3
    assert flashes(clip) == pytest.approx(beeps(clip), abs=1 / float(clip.fps))


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_null_frames_of_avi(tmp_path, codec):
    times = [at // 20 for at in CAPTURED]
    path = tmp_path / "x.avi"
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    write_sync_clip(path, times, unit=Fraction(1, 50), codec=codec, pixels=pixels, sound="pcm_s16le")
    clip = video.read_clip(path)
    assert clip.fps == 50
    assert clip.done == ("variable rate: 120 frames laid on 50 fps, 76 repeated",)
    assert flashes(clip) == pytest.approx([1.0, 2.0, 3.0], abs=0.021)
    assert beeps(clip) == pytest.approx(flashes(clip), abs=0.03)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_null_frames_of_avi_whose_frames_are_put_in_order(tmp_path, codec):
    """AVI tells when frames are stored; with frames that look back and ahead that is later than they are shown."""
    times = [at // 20 for at in CAPTURED]
    settings = {"unit": Fraction(1, 50), "codec": codec, "sound": "pcm_s16le", "options": {"bf": "2"}}
    clip = video.read_clip(write_sync_clip(tmp_path / "x.avi", times, **settings))
    assert clip.fps == 50
    assert flashes(clip) == pytest.approx([1.0, 2.0, 3.0], abs=0.001)
    assert beeps(clip) == pytest.approx(flashes(clip), abs=0.001)


@pytest.mark.parametrize("times", [range(120), [at for at in range(120) if at % 7 != 3]], ids=["even", "null frames"])
@pytest.mark.parametrize("frames_back", ["0", "2"])
def test_sound_of_avi_begins_with_its_first_chunk(tmp_path, times, frames_back):
    settings = {"unit": Fraction(1, 30), "sound": "pcm_s16le", "options": {"bf": frames_back}}
    clip = video.read_clip(write_sync_clip(tmp_path / "x.avi", times, **settings))
    assert beeps(clip) == pytest.approx([1.0, 2.0, 3.0], abs=0.001)
    assert flashes(clip) == pytest.approx(beeps(clip), abs=0.034)


@pytest.mark.parametrize("format", ["mp4", "webm", "prores4444"])
def test_and_after_they_are_saved(tmp_path, format):
    clip = video.read_clip(write_sync_clip(tmp_path / "x.mp4", CAPTURED))
    path = video.write_clip(tmp_path / "saved", clip.frames, fps=clip.fps, format=format, audio=clip.audio)
    saved = video.read_clip(path)
    assert (saved.fps, saved.done, len(saved.frames)) == (clip.fps, (), len(clip.frames))
    assert len(flashes(saved)) == len(beeps(saved)) == 3
    assert flashes(saved) == pytest.approx(beeps(saved), abs=1 / float(saved.fps))


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_rate_of_two_pictures(tmp_path, suffix):
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    pictures[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=pictures[1:], duration=200)
    clip = video.read_clip(tmp_path / f"x.{suffix}")
    assert (clip.fps, len(clip.frames), clip.notes) == (5, 2, ())


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_a_last_picture_that_is_held(tmp_path, suffix):
    pictures = [Image.new("L", (16, 16), 20 * level) for level in range(1, 6)]
    delays = [100, 100, 100, 100, 1000]
    pictures[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=pictures[1:], duration=delays)
    clip = video.read_clip(tmp_path / f"x.{suffix}")
    assert (clip.fps, len(clip.frames)) == (10, 14)
    assert "repeated" in (clip.notes + clip.done)[0]
    assert torch.equal(clip.frames[4], clip.frames[13])


def test_sound_goes_on_while_the_last_frame_is_held(tmp_path):
    import av

    source = write_sync_clip(tmp_path / "x.mp4", range(0, 4000, 40), options={"bf": "0"})
    held = tmp_path / "held.mp4"
    with av.open(str(source)) as given, av.open(str(held), "w") as container:
        streams = {stream: container.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            is_picture = packet.stream.type == "video"
            seconds = float((packet.pts or 0) * packet.time_base)
            if not packet.size or (is_picture and seconds > 2.01):
                continue
            if is_picture and seconds > 1.99:
                packet.duration = round(2 / packet.time_base)
            packet.stream = streams[packet.stream]
            container.mux(packet)
    clip = video.read_clip(held)
    assert (clip.fps, len(clip.frames)) == (25, 100)
    assert beeps(clip) == pytest.approx([1.0, 2.0, 3.0], abs=0.01)


def test_delays_of_an_animated_picture(tmp_path):
    levels = [0, 60, 120, 180]
    pictures = [Image.new("L", (16, 16), level) for level in levels]
    pictures[0].save(
        tmp_path / "x.gif", save_all=True, append_images=pictures[1:], duration=[100, 300, 100, 200], loop=0
    )
    clip = video.read_clip(tmp_path / "x.gif")
    assert clip.fps == 10
    shown = clip.frames[:, 8, 8, 0].mul(255).round().int().tolist()
    assert shown == [0, 60, 60, 60, 120, 180, 180]


def test_a_constant_rate_with_a_late_start_is_left_alone(tmp_path):
    times = list(range(0, 4000, 40))
    clips = [video.read_clip(write_sync_clip(tmp_path / f"{late}.ts", times, late=late)) for late in (1.0, 500.0)]
    for clip in clips:
        assert (len(clip.frames), clip.fps, clip.done) == (100, 25, ())
        assert beeps(clip) == pytest.approx([1.0, 2.0, 3.0], abs=0.03)
    assert torch.equal(clips[0].frames, clips[1].frames)


def test_a_constant_rate_is_not_read_through(tmp_path, monkeypatch):
    path = write_sync_clip(tmp_path / "x.mp4", list(range(0, 4000, 40)), options={"bf": "3"})
    monkeypatch.setattr(video_file, "packets", None)  # what reads packets without decoding
    assert video.probe(path).frame_count == 100


# --- taking a part ---


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.mkv"])
def test_a_part_is_counted_on_the_constant_rate(tmp_path, monkeypatch, name):
    path = write_sync_clip(tmp_path / name, WITH_GAPS, codec="mpeg4" if "mpeg4" in name else "libx264")
    whole = video.read_clip(path)
    assert (len(whole.frames), whole.fps) == (120, 30)
    assert whole.audio is not None
    for seek_from in (10_000, 10):
        monkeypatch.setattr(video_file, "_SEEK_FROM", seek_from)
        for start, count, nth in ((0, 7, 1), (5, 3, 1), (28, 6, 1), (29, 0, 1), (60, 20, 3), (119, 1, 1)):
            part = video.read_clip(path, start=start, count=count, every_nth=nth)
            assert part.fps == Fraction(30, nth)
            assert torch.equal(part.frames, whole.frames[start::nth][: count or None])
            assert part.audio is not None
            at = start * 1600
            wave = part.audio["waveform"]
            assert (wave - whole.audio["waveform"][..., at : at + wave.shape[2]]).abs().max() < 1e-3
    pieces = list(video.iter_frames(path, start=20, chunk=16))
    assert torch.equal(torch.cat(pieces), whole.frames[20:])
    with pytest.raises(InputError, match="start: 120 is beyond the end"):
        video.read_clip(path, start=120)


def test_a_long_one_is_read_when_looked_at(tmp_path, monkeypatch):
    path = write_sync_clip(tmp_path / "x.mp4", CAPTURED)
    wanted = video.read_clip(path).frames
    monkeypatch.setattr(video, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(scratch, "scratch_free", lambda: 10 * 48 * 64 * 6 * scratch.SHARE)
    found = video.read_clip(path).frames
    for index in (119, 60, 0, 90, 89):
        assert (found[index : index + 1].clone() - wanted[index]).abs().max() < 1e-5


def test_as_recorded_gives_each_frame_once(tmp_path):
    path = write_sync_clip(tmp_path / "x.mp4", CAPTURED)
    clip = video.read_clip(path, timing="as recorded")
    assert (len(clip.frames), clip.done) == (120, ())
    assert clip.fps == pytest.approx(30, abs=0.7)
    with pytest.raises(InputError, match="timing: expected one of constant, as recorded, got 'vfr'"):
        video.read_clip(path, timing="vfr")


def test_a_clock_that_jumps_is_not_followed(tmp_path):
    path = write_sync_clip(tmp_path / "x.mkv", [*WITH_GAPS, 90_000_000], sound=None)
    clip = video.read_clip(path)
    assert len(clip.frames) == len(WITH_GAPS) + 1
    assert "holds times that jump too far" in clip.notes[0]


def test_the_node_says_it_once(tmp_path, monkeypatch, capsys):
    said: list[str] = []
    monkeypatch.setattr(host.headless, "say", said.append)
    frames, _, audio, fps, count = LoadFrames().load(str(write_sync_clip(tmp_path / "x.mp4", WITH_GAPS)))
    assert (len(frames), fps, count) == (120, 30.0, 120)
    assert audio is not None
    assert len(said) == 1
    assert said[0].startswith("read: 120 frames")
    assert "30 fps, variable rate: 109 frames laid on 30 fps, 11 repeated, with sound" in said[0]
    LoadFrames().load(str(write_sync_clip(tmp_path / "x.mp4", WITH_GAPS)), timing="as recorded")
    assert "variable" not in said[1]


# --- sound ---


def pitch(clip: video.Clip) -> int:
    assert clip.audio is not None
    wave = clip.audio["waveform"][0, 0]
    return round(int(torch.fft.rfft(wave).abs().argmax()) * clip.audio["sample_rate"] / len(wave), -2)


def test_the_default_picture_is_taken(tmp_path):
    import av
    from av.stream import Disposition

    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream, width in zip(streams, (32, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
        streams[1].disposition = Disposition.default
        for stream in streams:
            picture = np.zeros((32, stream.width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    assert video.probe(tmp_path / "x.mkv").width == 64


def test_the_default_track_is_taken_and_others_are_told():
    path = FILES / "two_sound_tracks.mkv"
    clip = video.read_clip(path)
    assert pitch(clip) == 2000
    assert clip.done == ("sound track 2 of 2 (sound_track takes another)",)
    assert [pitch(video.read_clip(path, sound_track=track)) for track in (1, 2)] == [300, 2000]
    assert video.read_clip(path, sound_track=1).done == ()
    with pytest.raises(InputError, match=r"sound_track: 3 is beyond the last, .* holds 2 sound tracks; 0 takes"):
        video.read_clip(path, sound_track=3)
    with pytest.raises(InputError, match=r"sound_track: 1 is beyond the last, .* holds no sound"):
        video.read_clip(FILES / "theora_still_parts.ogv", sound_track=1)


def test_a_gap_in_the_sound_stays_a_gap(tmp_path):
    import av

    source, cut = write_sync_clip(tmp_path / "x.mkv", list(range(0, 4000, 40))), tmp_path / "cut.mkv"
    with av.open(str(source)) as given, av.open(str(cut), "w") as made:
        streams = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            is_lost = packet.stream.type == "audio" and packet.pts is not None and 1500 <= packet.pts < 1550
            if packet.size and not is_lost:
                packet.stream = streams[packet.stream.index]
                made.mux(packet)
    assert beeps(video.read_clip(cut)) == pytest.approx([1.0, 2.0, 3.0], abs=0.02)


@pytest.fixture
def in_files(monkeypatch) -> None:
    monkeypatch.setattr(sounds, "_IN_MEMORY", 10_000)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_long_sound_lies_in_a_file(tmp_path, in_files, monkeypatch, name):
    path = write_sync_clip(tmp_path / name, CAPTURED)
    found = video.read_clip(path).audio
    monkeypatch.undo()
    wanted = video.read_clip(path).audio
    assert found is not None and wanted is not None
    assert found["waveform"].shape == wanted["waveform"].shape
    assert torch.equal(found["waveform"], wanted["waveform"])
    assert not found["waveform"].is_inference()
    saved = [
        video.write_clip(tmp_path / n, torch.rand(8, 16, 16, 3), fps=2, format="png", audio=a)
        for n, a in (("a", found), ("b", wanted))
    ]
    assert (saved[0] / "audio.wav").read_bytes() == (saved[1] / "audio.wav").read_bytes()


def test_sound_that_begins_late_in_a_file_is_preceded_by_silence(tmp_path, in_files):
    folder = video.write_clip(
        tmp_path / "p",
        torch.rand(48, 16, 16, 3),
        fps=24,
        format="prores4444",
        audio={"waveform": torch.full((1, 1, 96_000), 0.5), "sample_rate": 48_000},
    )
    late = sounds.read_sound(folder, -0.5, 2.0, video_file.Notes(folder))
    assert late is not None
    assert late["waveform"].shape == (1, 1, 96_000)
    assert bool((late["waveform"][..., :24_000] == 0).all())
    assert (late["waveform"][..., 24_000:] - 0.5).abs().max() < 1e-5


def test_sound_for_which_there_is_no_room(tmp_path, in_files, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = write_sync_clip(tmp_path / "x.mp4", CAPTURED)
    monkeypatch.setattr(sounds, "mapped", full)
    with pytest.raises(MediaError, match=r"x\.mp4: its sound needs .* of temporary space, which is not there"):
        video.read_clip(path)


def test_whole_numbers_are_sound_too():
    wave = torch.tensor([[-32768, 0, 16384, 32767]], dtype=torch.int16)
    assert sounds.interleaved(wave, 1, 4)[:, 0].tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-4)
    assert sounds.interleaved(torch.tensor([[2.0, -3.0]]), 0, 2)[:, 0].tolist() == [1.0, -1.0]


def test_recordings_that_were_joined_keep_their_sound(tmp_path):
    part = write_sync_clip(tmp_path / "part.ts", list(range(0, 4000, 40))).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part * 2)  # the clock starts anew
    clip = video.read_clip(tmp_path / "joined.ts")
    assert (len(clip.frames), clip.fps) == (200, 25)
    assert flashes(clip) == [1.0, 2.0, 3.0, 5.0, 6.0, 7.0]
    assert beeps(clip)[:3] == pytest.approx([1.0, 2.0, 3.0], abs=0.001)
    assert len(beeps(clip)) == 6
