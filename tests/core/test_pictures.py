"""Stills of every kind come out as the light that was put in, animations as clips, and what cannot be read is named."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from comfyui_vdp.nodes import host
from comfyui_vdp.nodes.layers import SaveLayers
from comfyui_vdp.nodes.video import LoadFrames
from comfyui_vdp.vdp_core.edit.export import write_exr as write_exr_layers
from comfyui_vdp.vdp_core.edit.layers import cut_out
from comfyui_vdp.vdp_core.errors import InputError, MediaError
from comfyui_vdp.vdp_core.media import clip as video
from comfyui_vdp.vdp_core.media import icc, light
from comfyui_vdp.vdp_core.media.source import files_of, open_source

FILES = Path(__file__).parents[1] / "files" / "stills"
Y, X = np.mgrid[0:20, 0:24]
RAMPS = np.stack([10 * X, 12 * Y, 200 - 5 * X], axis=-1).astype(np.uint8)
"""What every file in ``tiff`` shows."""


def levels(path: Path | str, frame: int = 0) -> np.ndarray:
    """A frame ``(H, W, 3)``, 255 = white."""
    return video.read_clip(path).frames[frame].numpy() * 255.0


def alpha(path: Path) -> np.ndarray:
    return video.read_clip(path).alpha[0].numpy() * 255.0


# --- TIFF ---


@pytest.mark.parametrize("path", sorted((FILES / "tiff").iterdir()), ids=lambda path: path.stem)
def test_every_way_of_tiff(path):
    close = 1.0 if "jpeg" in path.stem else 0.07 if path.stem in ("f16", "u12_packed") else 0.01
    assert np.abs(levels(path) - RAMPS).max() < close


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.float32])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_grey_and_colour_with_alpha(tmp_path, order, planar, kind, tile):
    top = np.iinfo(kind).max if kind != np.float32 else 1
    for name, samples in (("g", RAMPS[..., [0, 1]]), ("c", np.dstack([RAMPS, RAMPS[..., 0]]))):
        values = np.rint(samples * (top / 255)).astype(kind) if top > 1 else (samples / 255).astype(kind)
        tifffile.imwrite(
            tmp_path / f"{name}.tif",
            np.moveaxis(values, -1, 0).copy() if planar == "separate" else values,
            photometric="minisblack" if name == "g" else "rgb",
            extrasamples=["unassalpha"],
            planarconfig=planar,
            byteorder=order,
            tile=tile,
        )
        assert np.abs(levels(tmp_path / f"{name}.tif") - (samples[..., :1] if name == "g" else RAMPS)).max() < 0.01
        assert np.abs(alpha(tmp_path / f"{name}.tif") - samples[..., -1]).max() < 0.01


def test_straight_alpha_stays_straight_and_premultiplied_alpha_is_divided_out(tmp_path):
    clip = video.read_clip(FILES / "straight_alpha_8bit.tif")
    assert torch.equal((clip.frames * 255).round(), torch.tensor([230.0, 60, 30]).expand(1, 16, 16, 3))
    assert set((clip.alpha * 255).round().unique().tolist()) == {0, 128, 255}
    premultiplied = np.zeros((4, 6, 4), np.uint16)
    premultiplied[:, :3] = (20_000, 10_000, 5_000, 40_000)
    tifffile.imwrite(tmp_path / "a.tif", premultiplied, photometric="rgb", extrasamples=["assocalpha"])
    read = video.read_clip(tmp_path / "a.tif")
    assert read.frames[0, 0, 0].tolist() == pytest.approx([0.5, 0.25, 0.125])
    assert read.frames[0, 0, 5].tolist() == [0, 0, 0]
    assert read.alpha[0, 0].tolist() == pytest.approx([40_000 / 65_535] * 3 + [0] * 3)


def test_a_channel_of_no_meaning_is_no_alpha(tmp_path):
    samples = np.dstack([RAMPS, RAMPS[..., 0], RAMPS[..., 1]])
    tifffile.imwrite(tmp_path / "a.tif", samples[..., :4], photometric="rgb", extrasamples=["unspecified"])
    clip = video.read_clip(tmp_path / "a.tif")
    assert bool((clip.alpha == 1).all())
    assert "a channel that is neither colour nor alpha" in clip.notes[0]
    tifffile.imwrite(tmp_path / "b.tif", samples, photometric="rgb", extrasamples=["unspecified", "unassalpha"])
    assert np.array_equal(np.rint(alpha(tmp_path / "b.tif")), RAMPS[..., 1])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_white_is_zero(tmp_path, kind):
    top = np.iinfo(kind).max if kind != np.float32 else 1
    ramp = (np.arange(6) * (top / 5)).astype(kind)[None].repeat(4, 0)
    tifffile.imwrite(tmp_path / "white.tif", top - ramp, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "black.tif", ramp, photometric="minisblack")
    assert np.abs(levels(tmp_path / "white.tif") - levels(tmp_path / "black.tif")).max() < 1e-3
    assert np.abs(levels(tmp_path / "black.tif")[0, :, 0] - np.arange(6) * 51).max() < 0.01


def test_palettes_faxes_inks_and_other_colours(tmp_path):
    picture = Image.fromarray(RAMPS)
    for number, (made, options) in enumerate(
        [
            (picture.quantize(256), {}),
            (picture.quantize(16), {"compression": "tiff_lzw"}),
            (picture.convert("1"), {"compression": "group4"}),
            (picture.convert("1"), {"compression": "packbits"}),
            (picture.convert("CMYK"), {"compression": "tiff_adobe_deflate"}),
            (picture.convert("YCbCr"), {}),
            (picture.convert("LA"), {}),
        ]
    ):
        made.save(tmp_path / f"{number}.tif", **options)
        assert np.abs(levels(tmp_path / f"{number}.tif") - np.asarray(made.convert("RGB"))).max() <= 1


def test_a_stack_of_pages_is_a_clip(tmp_path):
    pages = np.stack([np.full((6, 8), 1000 * page, np.uint16) for page in range(12)])
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    clip = video.read_clip(tmp_path / "pages.tif")
    assert (clip.frames[:, 0, 0, 0] * 65_535).round().int().tolist() == [1000 * page for page in range(12)]
    assert clip.fps == 24
    some = video.read_clip(tmp_path / "pages.tif", start=3, every_nth=4)
    assert (some.frames[:, 0, 0, 0] * 65_535).round().int().tolist() == [3000, 7000, 11_000]


def test_smaller_copies_are_no_pages_and_pages_of_other_sizes_are_left_out(tmp_path):
    for name, kind in (("pyramid", 1), ("scans", 0)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            file.write(RAMPS, photometric="rgb")
            file.write(RAMPS[::2, ::2], photometric="rgb", subfiletype=kind)
    assert video.read_clip(tmp_path / "pyramid.tif").notes == ()
    (note,) = video.read_clip(tmp_path / "scans.tif").notes
    assert "2 pages of different sizes, of which the first is taken" in note


def test_a_tiff_that_cannot_be_read_says_its_kind(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMPS, photometric="rgb")
    content = (tmp_path / "a.tif").read_bytes()
    entry = struct.pack("<HHI", 259, 3, 1)
    at = content.index(entry)
    for codec, words in ((34712, "compressed by JPEG 2000"), (50001, "compressed by WebP"), (77, "codec 77")):
        (tmp_path / "a.tif").write_bytes(content[:at] + entry + struct.pack("<I", codec) + content[at + 12 :])
        with pytest.raises(MediaError, match=words):
            video.read_clip(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["u16_lzw_predictor", "f32_predictor_tiled", "u12_packed"])
def test_a_tiff_that_is_cut_is_refused(tmp_path, name):
    content = (FILES / "tiff" / f"{name}.tif").read_bytes()
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "cut.tif").write_bytes(content[: round(len(content) * share)])
        with pytest.raises(MediaError, match=r"cut\.tif: is not a picture that can be read, or is damaged"):
            video.read_clip(tmp_path / "cut.tif")


def test_float_values_that_are_none_are_said(tmp_path):
    values = np.array([[[0.5, 2.0, np.nan]]], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    clip = video.read_clip(tmp_path / "a.tif")
    assert clip.frames.tolist() == [[[[0.5, 1.0, 0.0]]]]
    assert "values above 1 or none at all" in clip.notes[0]


# --- orientation ---


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_orientation_of_every_format(tmp_path, suffix, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}, "avif": {"quality": 100}}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMPS).save(path, exif=exif, **options.get(suffix, {}))
    with Image.open(path) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    assert (video.probe(path).height, video.probe(path).width) == upright.shape[:2]
    assert np.abs(levels(path) - upright).max() <= 1


def test_orientation_after_the_pixels_of_a_png(tmp_path):
    content = (FILES / "exif_turned.png").read_bytes()
    begin = content.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(content[begin : begin + 4], "big")
    last = content.index(b"IEND") - 4
    (tmp_path / "late.png").write_bytes(content[:begin] + content[end:last] + content[begin:end] + content[last:])
    assert video.read_clip(FILES / "exif_turned.png").frames.shape == (1, 64, 32, 3)
    assert np.array_equal(levels(tmp_path / "late.png"), levels(FILES / "exif_turned.png"))


# --- colour profiles ---


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))


def profile(space: str, gamma: float, primaries: tuple[tuple[float, ...], ...] = ()) -> bytes:
    """A display profile (ICC.1:2022) of a power curve and, for RGB, XYZ of its primaries."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249)}
    for name, primary in zip("rgb", primaries, strict=False):
        tags |= {f"{name}XYZ": b"XYZ \0\0\0\0" + fixed(*primary), f"{name}TRC": curve}
    tags |= {} if primaries else {"kTRC": curve}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name.encode() + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(body), 0x02400000, b"mntr", space.encode(), b"XYZ ", b"acsp")
    head = head.ljust(68, b"\0") + fixed(0.9642, 1.0, 0.8249).ljust(60, b"\0")
    return head + struct.pack(">I", len(tags)) + table + body


P3 = profile("RGB ", 2.2, ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)))


def test_adobe_rgb_becomes_srgb_at_either_depth(tmp_path):
    assert np.abs(levels(FILES / "adobe_rgb_profile.png")[0, 0] - [200, 60, 40]).max() < 1
    with Image.open(FILES / "adobe_rgb_profile.png") as picture:
        adobe, stored = picture.info["icc_profile"], np.asarray(picture.convert("RGB"))
    content = cv2.imencode(".png", stored[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    chunk = b"iCCPadobe\0\0" + zlib.compress(adobe)
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "deep.png").write_bytes(content[:33] + chunk + content[33:])
    assert video.probe(tmp_path / "deep.png").bit_depth == 16
    assert np.abs(levels(tmp_path / "deep.png") - levels(FILES / "adobe_rgb_profile.png")).max() < 0.01


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_display_p3_in_every_format(tmp_path, suffix):
    options = {"quality": 100} if suffix in ("jpg", "avif") else {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (8, 8), (200, 100, 50)).save(path, icc_profile=P3, **options)
    # By hand: light is value^2.2, and (R, G, B) of sRGB are (1.2249 R - .2247 G, -.0421 R + 1.0419 G,
    # -.0197 R - .0786 G + 1.0979 B) of it, for the primaries of P3.
    r, g, b = (np.array([200, 100, 50]) / 255) ** 2.2
    by_hand = np.array([1.2249 * r - 0.2247 * g, 1.0419 * g - 0.0421 * r, 1.0979 * b - 0.0197 * r - 0.0786 * g])
    assert np.abs(levels(path)[4, 4] - 255 * (1.055 * by_hand ** (1 / 2.4) - 0.055)).max() < 2


def test_profile_of_an_animated_png(tmp_path):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in [(200, 100, 50), (20, 90, 160), (20, 190, 60)]]
    pictures[0].save(tmp_path / "still.png", icc_profile=P3)
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], duration=100, icc_profile=P3)
    assert np.abs(levels(tmp_path / "a.png") - levels(tmp_path / "still.png")).max() < 0.1


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_a_shade_of_grey_that_is_transparent(tmp_path, bits):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    top = 2**bits - 1
    rows = b"".join(b"\0" + shade * bits for shade in (b"\x00", b"\xff"))
    head = struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tRNS", struct.pack(">H", top)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks))
    assert levels(tmp_path / "a.png")[:, 0, 0].tolist() == [0, 255]
    assert alpha(tmp_path / "a.png")[:, 0].tolist() == [255, 0]


def test_grey_profile(tmp_path):
    Image.new("L", (8, 8), 128).save(tmp_path / "a.png", icc_profile=profile("GRAY", 1.0))
    linear = 1.055 * (128 / 255) ** (1 / 2.4) - 0.055
    assert np.abs(levels(tmp_path / "a.png") - 255 * linear).max() < 0.1


def test_a_profile_of_srgb_changes_nothing(tmp_path):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RAMPS).save(tmp_path / "a.png", icc_profile=srgb)
    assert np.array_equal(np.rint(levels(tmp_path / "a.png")), RAMPS)
    assert icc.usable(srgb, "RGB") == (None, ())


@pytest.mark.parametrize("broken", [P3[:200], b"no profile", profile("GRAY", 1.8), P3.replace(b"curv", b"cork")])
def test_a_profile_that_cannot_be_used_is_said(tmp_path, broken):
    Image.fromarray(RAMPS).save(tmp_path / "a.png", icc_profile=broken)
    clip = video.read_clip(tmp_path / "a.png")
    assert np.array_equal(np.rint(clip.frames[0].numpy() * 255), RAMPS)
    assert "a colour profile that is broken" in clip.notes[0]


def told_by_code_points(folder: Path, colour: tuple[int, int, int], points: bytes, **chunks: bytes) -> Iterator[Path]:
    """A PNG and an AVIF of one colour, which say by code points of H.273 what it means."""
    content = cv2.imencode(".png", np.full((16, 16, 3), colour[::-1], np.uint8))[1].tobytes()
    chunks = {"cICP": points + b"\0\1", **chunks}
    named = [(name.encode(), data) for name, data in chunks.items()]
    said = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in named
    )
    (folder / "a.png").write_bytes(content[:33] + said + content[33:])
    yield folder / "a.png"
    Image.new("RGB", (16, 16), colour).save(folder / "a.avif", quality=100, subsampling="4:4:4")
    avif = (folder / "a.avif").read_bytes()
    at = avif.index(b"colrnclx") + 8
    (folder / "a.avif").write_bytes(avif[:at] + bytes((0, points[0], 0, points[1])) + avif[at + 4 :])
    yield folder / "a.avif"


def test_high_dynamic_range_of_stills_is_tone_mapped_as_that_of_videos(tmp_path):
    # 80 cd/m2, which the curve leaves alone: 124 of 255 by PQ's own formula
    for path in told_by_code_points(tmp_path, (124, 124, 124), b"\x09\x10"):
        clip = video.read_clip(path)
        assert float(clip.frames.mean()) == pytest.approx((80 / 203) ** (1 / 2.4), abs=0.01), path
        assert (clip.notes, clip.done) == ((), ("high dynamic range (PQ up to 1000 cd/m2) tone-mapped to SDR",))
    # a signal of a half is 50.7 cd/m2 on a display of 1000 by HLG
    for path in told_by_code_points(tmp_path, (128, 128, 128), b"\x09\x12"):
        assert float(video.read_clip(path).frames.mean()) == pytest.approx((50.7 / 203) ** (1 / 2.4), abs=0.01), path


def test_the_peak_that_a_png_says(tmp_path):
    light = struct.pack(">II", 4_000 * 10_000, 0)
    path = next(told_by_code_points(tmp_path, (124, 124, 124), b"\x09\x10", cLLI=light))
    assert video.read_clip(path).done == ("high dynamic range (PQ up to 4000 cd/m2) tone-mapped to SDR",)
    display = bytes(16) + struct.pack(">II", 2_000 * 10_000, 1)
    path = next(told_by_code_points(tmp_path, (124, 124, 124), b"\x09\x10", mDCV=display))
    assert video.read_clip(path).done == ("high dynamic range (PQ up to 2000 cd/m2) tone-mapped to SDR",)


def test_wide_primaries_of_stills_become_srgb(tmp_path):
    # P3's (200, 100, 90) in sRGB is the same as by its profile, see test_display_p3_in_every_format.
    light = np.array([((level / 255 + 0.055) / 1.055) ** 2.4 for level in (200, 100, 90)])
    turn = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
    right = (1.055 * (turn @ light) ** (1 / 2.4) - 0.055) * 255
    for path in told_by_code_points(tmp_path, (200, 100, 90), b"\x0c\x0d"):
        clip = video.read_clip(path)
        assert np.abs(clip.frames[0, 4, 4].numpy() * 255 - right).max() < 2, path
        assert (clip.notes, clip.done) == ((), ("colours converted from P3 to sRGB",))


def test_jpeg_of_inks_with_and_without_the_mark_of_adobe(tmp_path):
    # (200, 60, 40) is light of these inks; Pillow writes them inverted, with the mark.
    Image.new("CMYK", (16, 16), (55, 195, 215, 0)).save(tmp_path / "adobe.jpg", quality=95)
    Image.new("CMYK", (16, 16), (200, 60, 40, 255)).save(tmp_path / "plain.jpg", quality=95)
    content = (tmp_path / "plain.jpg").read_bytes()
    mark = content.index(b"Adobe") - 4
    length = int.from_bytes(content[mark + 2 : mark + 4], "big")
    (tmp_path / "plain.jpg").write_bytes(content[:mark] + content[mark + 2 + length :])
    for name in ("adobe.jpg", "plain.jpg"):
        assert np.abs(levels(tmp_path / name)[0, 0] - [200, 60, 40]).max() <= 1, name


# --- animations ---


@pytest.mark.parametrize("name", ["animated.png", "animated.webp"])
def test_an_animation_is_a_clip(name):
    clip = video.read_clip(FILES / name)
    assert (len(clip.frames), clip.fps) == (12, Fraction(25, 2))
    assert not torch.equal(clip.frames[0], clip.frames[-1])
    assert torch.equal(video.read_clip(FILES / name, start=7, count=2).frames, clip.frames[7:9])


@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_unequal_delays_become_repeats(tmp_path, suffix):
    pictures = [Image.new("RGB", (16, 16), (level, level, level)) for level in (10, 80, 150, 220)]
    path = tmp_path / f"a.{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 200, 50, 300], quality=100)
    clip = video.read_clip(path)
    assert clip.fps == 20
    shown = [min((10, 80, 150, 220), key=lambda level: abs(level - float(f.mean() * 255))) for f in clip.frames]
    assert shown == [10] * 2 + [80] * 4 + [150] + [220] * 6
    assert (clip.notes, clip.done) == ((), ("variable rate: 4 frames laid on 20 fps, 9 repeated",))
    once = video.read_clip(path, timing="as recorded")
    assert (len(once.frames), once.fps, once.done) == (4, Fraction(80, 13), ())


@pytest.mark.parametrize("suffix", ["webp", "gif", "png", "avif"])
def test_a_last_picture_that_stays_is_shown_for_as_long_in_every_format(tmp_path, suffix):
    pictures = [Image.new("RGB", (16, 16), (level, level, level)) for level in (10, 80, 150)]
    for name, last, count in (("a", 800, 12), ("b", 80, 3)):
        path = tmp_path / f"{name}.{suffix}"
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[80, 80, last])
        clip = video.read_clip(path)
        assert (len(clip.frames), clip.fps) == (count, Fraction(25, 2))


def test_delays_of_whole_milliseconds_are_a_usual_rate(tmp_path):
    pictures = [Image.new("RGB", (16, 16), (level, level, level)) for level in range(10, 70, 10)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=[33, 34, 33] * 2)
    clip = video.read_clip(tmp_path / "a.webp")
    assert (len(clip.frames), clip.fps, clip.done) == (6, 30, ())


def test_a_sound_track_that_is_not_there_is_refused_before_pictures_are_read(tmp_path):
    audio = {"waveform": torch.zeros(1, 1, 800), "sample_rate": 8000}
    folder = video.write_clip(tmp_path / "x", torch.rand(2, 8, 8, 3), fps=10, format="png", audio=audio)
    assert video.read_clip(folder, sound_track=1).audio is not None
    for path, held in ((folder, "1 sound track"), (folder / "00000.png", "no sound"), (FILES / "animated.webp", "no")):
        with pytest.raises(InputError, match=f"sound_track: 2 is beyond the last, .* holds {held}"):
            open_source(path, sound_track=2)


def test_an_animation_keeps_its_alpha_and_delays_of_nothing_are_what_browsers_show(tmp_path):
    pictures = [Image.new("RGBA", (8, 8), (250, 9, 9, opacity)) for opacity in (255, 120, 60)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=0, lossless=True)
    clip = video.read_clip(tmp_path / "a.webp")
    assert clip.fps == 10
    assert (clip.alpha[:, 0, 0] * 255).round().tolist() == [255, 120, 60]


def test_of_several_animations_the_first_pictures_are_taken(tmp_path):
    for name in ("0.webp", "1.webp"):
        shutil.copy(FILES / "animated.webp", tmp_path / name)
    clip = video.read_clip(tmp_path)
    assert len(clip.frames) == 2
    assert "several pages, of which the first is taken" in clip.notes[0]


# --- scene light ---


def write_exr(path: Path, channels: dict[str, np.ndarray], **header: object) -> Path:
    plain = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File({**plain, **header}, channels).write(str(path))
    return path


def rgb(value: float, prefix: str = "", shape: tuple[int, int] = (4, 6)) -> dict[str, np.ndarray]:
    return {f"{prefix}{letter}": np.full(shape, value, np.float16) for letter in "RGB"}


def test_scene_light_becomes_srgb_and_what_is_brighter_than_white_is_kept_apart():
    clip = video.read_clip(FILES / "linear.exr")
    assert clip.fps == 25
    assert float(clip.frames[0, 0, 0, 0]) == pytest.approx(0.5, abs=1e-3)
    assert 0.98 < float(clip.frames.max()) < 1.0  # 2.5 by the curve: 0.8 + 0.2 * 8.5 / 9.5 of light
    assert "light above white (first in linear.exr) rolled off from 0.8 up" in clip.done[0]


def test_a_side_that_no_picture_has_is_refused_before_it_is_decoded(tmp_path):
    path = write_exr(tmp_path / "a.exr", {name: np.zeros((1, 65_536), np.float16) for name in "RGB"})
    with pytest.raises(MediaError, match="says it is 65536x1 pixels, a side of more than 65535"):
        video.read_clip(path)


def test_the_most_light_that_a_file_can_hold_is_white():
    most = np.array([np.finfo(np.float32).max, np.inf], np.float32)
    assert light.shown(most, True) == pytest.approx([1.0, 1.0])


def test_the_roll_off_is_smooth_and_starts_where_it_says():
    x = np.linspace(0, 20, 20_001, dtype=np.float32)
    plain, rolled = light.shown(x, False), light.shown(x, True)
    assert np.array_equal(plain[x <= 0.8], rolled[x <= 0.8])
    assert (np.diff(rolled[::200]) > 0).all()
    assert rolled.max() < 1.0
    # No corner: bends by 2 / (1 - 0.8) of light at most, a corner of slopes by a hundred times as much.
    assert np.abs(np.diff(rolled, 2))[700:].max() < 10 * 1e-3**2


def test_a_clip_without_light_above_white_is_not_rolled_off(tmp_path):
    write_exr(tmp_path / "0.exr", rgb(1.0))
    write_exr(tmp_path / "1.exr", rgb(0.9))
    clip = video.read_clip(tmp_path)
    assert clip.done == ()
    assert clip.frames[:, 0, 0, 0].tolist() == pytest.approx([1.0, 1.055 * 0.9 ** (1 / 2.4) - 0.055], abs=1e-3)
    write_exr(tmp_path / "2.exr", rgb(4.0))
    clip = video.read_clip(str(tmp_path / "*.exr"))
    assert clip.frames[0, 0, 0, 0] < 0.97  # one curve for all
    assert "first in 2.exr" in clip.done[0]


def test_alpha_of_exr_is_divided_out_before_light_becomes_colour(tmp_path):
    write_exr(tmp_path / "a.exr", {**rgb(0.107), "A": np.full((4, 6), 0.5, np.float16)})
    clip = video.read_clip(tmp_path / "a.exr")
    assert float(clip.frames[0, 0, 0, 0]) == pytest.approx(0.5, abs=1e-3)
    assert float(clip.alpha[0, 0, 0]) == 0.5


def test_layers_of_exr_are_named(tmp_path):
    depth = {"ViewLayer.Depth.Z": np.full((4, 6), 9, np.float32)}
    write_exr(tmp_path / "a.exr", {**rgb(0.214, "ViewLayer.Combined."), **rgb(1.0, "ViewLayer.Diffuse."), **depth})
    clip = video.read_clip(tmp_path / "a.exr")
    assert float(clip.frames.mean()) == pytest.approx(0.5, abs=1e-3)
    assert clip.done == ("layer ViewLayer.Combined taken, and not ViewLayer.Depth, ViewLayer.Diffuse",)
    parts = [
        OpenEXR.Part({"name": name, "type": OpenEXR.scanlineimage}, channels)
        for name, channels in (("depth", {"Z": np.ones((4, 6), np.float32)}), ("left", rgb(0.214)))
    ]
    OpenEXR.File(parts).write(str(tmp_path / "parts.exr"))
    clip = video.read_clip(tmp_path / "parts.exr")
    assert float(clip.frames.mean()) == pytest.approx(0.5, abs=1e-3)
    assert clip.done == ("layer left taken, and not depth",)


def test_pixels_of_exr_lie_where_its_windows_say(tmp_path):
    def corners(left: int, top: int, right: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array([left, top], np.int32), np.array([right, bottom], np.int32)

    path = write_exr(
        tmp_path / "a.exr", rgb(1.0, shape=(3, 4)), dataWindow=corners(-1, 2, 2, 4), displayWindow=corners(0, 0, 7, 3)
    )
    shown = np.zeros((4, 8))
    shown[2:, :3] = 1
    assert np.abs(levels(path)[..., 0] - 255 * shown).max() < 1e-3


@pytest.mark.parametrize(("ratio", "size"), [(2.0, (4, 12)), (0.5, (8, 6)), (1.0, (4, 6))])
def test_oblong_pixels_of_exr_become_square(tmp_path, ratio, size):
    """Anamorphic film: each pixel of a lens of 2:1 is shown twice as wide."""
    left = np.array([1, 1, 1, 0, 0, 0], np.float16)
    channels = {name: np.tile(left, (4, 1)) for name in "RGB"}
    clip = video.read_clip(write_exr(tmp_path / "a.exr", channels, pixelAspectRatio=ratio))
    assert clip.frames.shape[1:3] == size
    assert clip.notes == ()
    assert ("pixels of" in "".join(clip.done)) == (ratio != 1.0)
    assert clip.frames[0, 0, 0, 0] > 0.999
    assert clip.frames[0, 0, -1, 0] < 0.001
    assert float(clip.frames.mean()) == pytest.approx(0.5, abs=0.01)


def test_a_pixel_of_exr_that_no_lens_makes(tmp_path):
    channels = {name: np.full((4, 6), 0.5, np.float16) for name in "RGB"}
    clip = video.read_clip(write_exr(tmp_path / "a.exr", channels, pixelAspectRatio=100.0))
    assert clip.frames.shape[1:3] == (4, 6)
    assert clip.notes == ("says that it has pixels of 100:1, which is taken for an error: they are read as square",)


def test_primaries_of_exr_become_srgb(tmp_path):
    acescg = (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767)
    path = write_exr(tmp_path / "white.exr", rgb(0.214), chromaticities=acescg)
    assert np.abs(levels(path) - 127.5).max() < 0.3  # white stays white
    red = {**rgb(0.0), "R": np.full((4, 6), 0.5, np.float16)}
    path = write_exr(tmp_path / "red.exr", red, chromaticities=acescg)
    # ACES, TB-2014-004: red of AP1 is (1.7051, -0.1302, -0.0240) of Rec. 709
    assert np.abs(levels(path)[0, 0] - [255 * (1.055 * 0.8525 ** (1 / 2.4) - 0.055), 0, 0]).max() < 0.5


def test_infinite_light_is_white_and_none_is_black(tmp_path):
    odd = {"R": np.full((4, 6), np.inf, np.float16), "G": np.full((4, 6), np.nan, np.float16)}
    path = write_exr(tmp_path / "a.exr", {**rgb(0.214), **odd})
    assert levels(path)[0, 0].tolist() == pytest.approx([255, 0, 127.5], abs=0.3)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_exr_that_is_cut_is_refused(tmp_path, share):
    noise = np.random.default_rng(0).random((64, 80)).astype(np.float16)
    parts = [
        OpenEXR.Part({"name": name, "type": OpenEXR.scanlineimage}, dict.fromkeys("RGB", noise))
        for name in ("right", "left")
    ]
    OpenEXR.File(parts).write(str(tmp_path / "parts.exr"))
    write_exr(tmp_path / "one.exr", dict.fromkeys("RGB", noise))
    for name in ("parts.exr", "one.exr"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: round(len(content) * share)])
        with pytest.raises(MediaError, match="is not a picture that can be read, or is damaged"):
            video.read_clip(tmp_path / name)


def test_what_is_written_as_exr_comes_back(tmp_path):
    frames = torch.rand(3, 10, 14, 3, generator=torch.Generator().manual_seed(0))
    matte = torch.full((3, 10, 14), 0.25)
    path = video.write_clip(tmp_path / "x", frames, fps=23.976, format="exr", alpha=matte, metadata={"prompt": "{}"})
    with OpenEXR.File(str(path / "00000.exr"), separate_channels=True) as file:
        kinds = {name: channel.pixels.dtype for name, channel in file.channels().items()}
        assert kinds == dict.fromkeys("ABGR", np.float16)
        assert file.header()["prompt"] == "{}"
    clip = video.read_clip(path)
    assert clip.fps == Fraction(24_000, 1001)
    assert clip.notes == ()
    assert (clip.frames - frames).abs().max() < 1e-3
    assert torch.equal(clip.alpha, matte)


def test_layers_are_written_as_one_exr_a_frame(tmp_path):
    frames = torch.rand(2, 12, 16, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 12, 16)
    mask[:, 3:9, 4:10] = 1.0
    with host.running(host.Headless(output_folder=tmp_path, say=lambda text: None)):
        (name,) = SaveLayers().save(cut_out(frames, mask), "layers", True, "exr")["ui"]["vdp_outputs"]
    with OpenEXR.File(str(tmp_path / name / "00001.exr"), separate_channels=True) as file:
        channels = {key: channel.pixels.astype(np.float32) for key, channel in file.channels().items()}
    assert set(channels) == {*"RGB", *(f"{name}.{c}" for name in ("background", "object_1") for c in "RGBA")}
    assert np.array_equal(channels["object_1.A"], mask[1])
    for letter in "RGB":  # the object over the background is the frame
        over = channels[f"object_1.{letter}"] + channels[f"background.{letter}"] * (1 - channels["object_1.A"])
        assert np.abs(over - channels[letter]).max() < 1e-3
    clip = video.read_clip(tmp_path / name)
    assert (clip.frames - frames).abs().max() < 1e-3
    assert "not background, object_1" in clip.done[0]


def test_the_alpha_of_a_clip_goes_into_the_exr_of_its_layers(tmp_path):
    frames, alpha = torch.full((1, 8, 8, 3), 0.5), torch.full((1, 8, 8), 0.25)
    layers = replace(cut_out(frames, torch.zeros(1, 8, 8)), alpha=alpha)
    clip = video.read_clip(write_exr_layers(tmp_path / "x", layers))
    assert (clip.frames - 0.5).abs().max() < 1e-3
    assert torch.equal(clip.alpha, alpha)


def test_layers_without_pictures_are_refused_as_exr(tmp_path, synthetic):
    layers = cut_out(torch.rand(2, 8, 8, 3), torch.zeros(2, 8, 8))
    object.__setattr__(layers, "model", "relight")
    with host.running(host.Headless(output_folder=tmp_path)), pytest.raises(InputError, match="has no layers"):
        SaveLayers().save(layers, "layers", True, "exr")


def test_radiance_pictures(tmp_path):
    cv2.imwrite(str(tmp_path / "a.hdr"), np.full((8, 10, 3), (0.01, 0.214, 3.0), np.float32))
    clip = video.read_clip(tmp_path / "a.hdr")
    assert float(clip.frames[0, 0, 0, 1]) == pytest.approx(0.5, abs=0.02)  # the mantissa has 8 bits
    assert float(clip.frames[0, 0, 0, 0]) > 0.98
    assert "light above white" in clip.done[0]


def encode_still(path: Path, codec: str, pixels: str, value: tuple[int, int, int]) -> None:
    """One colour of 16 bits, by FFmpeg's own encoder."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 16, 8, pixels
    context.time_base, context.framerate = Fraction(1, 24), Fraction(24)
    frame = av.VideoFrame.from_ndarray(np.full((8, 16, 3), value, np.uint16), "rgb48le").reformat(format=pixels)
    frame.pts, frame.time_base = 0, Fraction(1, 24)
    path.write_bytes(b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None))))


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix", "close"),
    [
        ("dpx", "rgb48be", "dpx", 1e-4),
        ("dpx", "gbrp10be", "dpx", 1 / 1000),
        ("dpx", "gbrp12be", "dpx", 1 / 4000),
        ("targa", "bgr24", "tga", 1 / 250),
        ("ppm", "rgb48be", "ppm", 1e-4),
        ("sgi", "rgb48be", "sgi", 1e-4),
        ("jpeg2000", "rgb48le", "jp2", 1 / 1000),
    ],
)
def test_what_ffmpeg_reads(tmp_path, codec, pixels, suffix, close):
    value = (50_000, 20_000, 1_000)
    for number in range(2):
        encode_still(tmp_path / f"{number}.{suffix}", codec, pixels, value)
    clip = video.read_clip(tmp_path)
    assert clip.frames.shape == (2, 8, 16, 3)
    assert np.abs(clip.frames[0, 4, 8].numpy() - np.array(value) / 65_535).max() < close


def test_densities_of_film_become_light(tmp_path):
    for name, code in (("white", 685), ("black", 95)):
        encode_still(tmp_path / f"{name}.dpx", "dpx", "gbrp10be", (code << 6 | code >> 4,) * 3)
        content = bytearray((tmp_path / f"{name}.dpx").read_bytes())
        content[801] = 1  # printing density
        content[1664:1664] = bytes(384)  # the headers of film and television, which FFmpeg leaves out
        struct.pack_into(">I", content, 4, 2048)
        struct.pack_into(">f", content, 1724, 25.0)
        (tmp_path / f"{name}.dpx").write_bytes(content)
    white, black = video.read_clip(tmp_path / "white.dpx"), video.read_clip(tmp_path / "black.dpx")
    assert (white.frames.min(), white.fps) == (pytest.approx(1.0, abs=1e-3), 25)
    assert black.frames.max() < 0.01
    assert "densities of film" in white.done[0]


@pytest.mark.parametrize(
    ("head", "module", "words"),
    [
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "pillow_heif",
            "is HEIC, which needs another package; pip install pillow-heif",
        ),
        (
            b"\xff\x0a" + bytes(30),
            "pillow_jxl",
            "is JPEG XL, which needs another package; pip install pillow-jxl-plugin",
        ),
    ],
)
def test_kinds_that_need_another_package_say_so(tmp_path, monkeypatch, head, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "phone.jpg").write_bytes(head)  # whatever it is called
    with pytest.raises(MediaError, match=words):
        video.read_clip(tmp_path / "phone.jpg")


# --- names and paths ---


def named(folder: Path, *names: str) -> None:
    """Pictures of the levels 10, 20, ... in this order."""
    for number, name in enumerate(names, 1):
        Image.new("RGB", (8, 6), (10 * number,) * 3).save(folder / name)


def shown(path: Path | str) -> list[int]:
    return (video.read_clip(path).frames[:, 0, 0, 0] * 25.5).round().int().tolist()


@pytest.mark.parametrize("name", ["frame_%04d.png", "frame_####.png", "frame_%d.png", "*me_%04d.p?g", "frame_##.png"])
def test_names_with_the_number_left_open(tmp_path, name):
    folder = tmp_path / "shot [1]"
    folder.mkdir()
    names = [f"frame_{number}.png" for number in ("0008", "0009", "0010", "10000")]
    named(folder, *names, "frame_x.png", "frame_.png")
    assert shown(folder / name) == [1, 2, 3, 4]
    assert files_of(folder / name) == [folder / file for file in names]
    assert LoadFrames.VALIDATE_INPUTS(str(folder / name)) is True


def test_names_with_the_number_left_open_where_nothing_is(tmp_path):
    named(tmp_path, "frame_1.png")
    for name in ("frame_%04d.png", "frame_####.png", "other_%d.png"):
        with pytest.raises(MediaError, match="no file matches this pattern"):
            open_source(tmp_path / name)
        assert "no file matches this pattern" in str(LoadFrames.VALIDATE_INPUTS(str(tmp_path / name)))


def test_a_file_of_that_very_name_wins(tmp_path):
    named(tmp_path, "a_%04d.png", "a_0001.png", "take#1.png", "take11.png")
    assert shown(tmp_path / "a_%04d.png") == [1]
    assert shown(tmp_path / "take#1.png") == [3]
    assert shown(tmp_path / "a_####.png") == [2]


def test_a_pattern_is_looked_up_in_the_input_folder(tmp_path):
    named(tmp_path, "f_0001.png", "f_0002.png")
    with host.running(host.Headless(input_folder=tmp_path, output_folder=tmp_path)):
        assert shown(host.input_path("f_%04d.png")) == [1, 2]
        assert LoadFrames.VALIDATE_INPUTS("f_####.png") is True


@pytest.mark.parametrize(
    "names",
    [
        ("4.5", "4.55", "4.6", "4.65", "10.05", "10.1"),
        ("t_4.5", "t_4.55", "t_9", "t_10.05"),
        ("-2", "-1.5", "0", "1"),
        ("f_-0002", "f_-0001", "f_0000"),
        ("depth-0.25", "depth-0.5", "depth-1.0"),
        ("1.1", "1.9", "1.10"),
        ("v1.9", "v1.10"),
        ("v1.2.3_009", "v1.2.3_010", "v1.10.0_001"),
        ("shot2.9999", "shot2.10000"),
        ("shot_1.9", "shot_1.10", "shot_1.100"),
        ("2023-12-31", "2024-01-02", "2024-01-10"),
        ("a", "IMG_2", "img_10"),
    ],
)
def test_order_of_names(tmp_path, names):
    named(tmp_path, *(f"{name}.png" for name in names))
    assert shown(tmp_path) == list(range(1, len(names) + 1))


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_a_link_that_leads_nowhere_is_named(tmp_path):
    named(tmp_path, "0.png", "2.png")
    (tmp_path / "1.png").symlink_to("gone.png")
    (tmp_path / "notes.txt").symlink_to("gone.txt")
    for path in (tmp_path, tmp_path / "*.png", tmp_path / "%d.png", tmp_path / "1.png"):
        with pytest.raises(
            MediaError, match=r"1\.png: is a link to gone\.png, where nothing is; mend the link or remove"
        ):
            open_source(path)
    (tmp_path / "1.png").unlink()
    (tmp_path / "1.png").symlink_to("0.png")
    assert shown(tmp_path) == [1, 1, 2]


def test_an_unreadable_picture_in_the_middle_is_named(tmp_path):
    named(tmp_path, "0.png", "1.png", "2.png")
    (tmp_path / "1.png").write_text("gone.png")
    with pytest.raises(MediaError, match=r"1\.png: is not a picture that can be read, or is damaged"):
        video.read_clip(tmp_path)


def test_what_a_file_holds_counts_and_not_its_name(tmp_path):
    for name, (suffix, kind) in zip("abc", itertools.product(["png"], ["TIFF", "JPEG", "WEBP"]), strict=True):
        content = io.BytesIO()
        Image.new("RGB", (8, 8), (90, 90, 90)).save(content, kind)
        (tmp_path / f"{name}.{suffix}").write_bytes(content.getvalue())
    assert np.abs(levels(tmp_path, 2) - 90).max() <= 1


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        (("f_08", "f_09", "f_12"), ("lacks 2 of the numbers from 8 to 12, the first of them 10; frames follow on",)),
        (("f_08", "f_09", "f_10"), ()),
        (("f_00", "f_10", "f_20"), ()),
        (("a", "b", "f_12"), ()),
        (("a_1", "a_2", "b_9"), ()),
    ],
)
def test_numbers_that_are_left_out_are_said(tmp_path, names, lacking):
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    clip = video.read_clip(tmp_path)
    assert len(clip.frames) == 3
    assert clip.notes == lacking
