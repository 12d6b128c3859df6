"""Flow in files: each format round-trips, other programs' folders are understood, and what is no flow is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from golden_set import needed
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import InputError, MediaError, ShapeError, VDPError
from comfyui_vdp.vdp_core.image.resize import resize
from comfyui_vdp.vdp_core.motion.estimator import with_confidence, with_occlusion
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.motion.flow_files import FORMATS, fingerprint, left_out, load_flow, save_flow
from comfyui_vdp.vdp_core.motion.inverse import inverse_flow
from comfyui_vdp.vdp_core.motion.warp import resize_flow
from comfyui_vdp.vdp_core.store import budget
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Flow

COUNT, HEIGHT, WIDTH, CUT = 4, 6, 10, 2
"""Pairs of frames, their size, and the first frame of the second shot."""
VECTORS = ("forward", "backward")
OCCLUSION = ("forward_occlusion", "backward_occlusion")


@pytest.fixture
def flow() -> Flow:
    """Random motion of up to some pixels, with masks of all kinds and a cut."""
    generator = torch.Generator().manual_seed(0)

    def chance(*shape: int) -> torch.Tensor:
        return torch.rand(COUNT, *shape, HEIGHT, WIDTH, generator=generator)

    made = Flow(
        8.0 * chance(2) - 4.0,
        8.0 * chance(2) - 4.0,
        (chance() < 0.2).float(),
        (chance() < 0.2).float(),
        (60, 100),
        "dis",
        (CUT,),
        chance(),
        chance(),
    )
    for name, value in zip((*VECTORS, *OCCLUSION), (0.0, 0.0, 1.0, 1.0), strict=True):
        getattr(made, name)[CUT - 1] = value
    return made


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.zeros(COUNT + 1, 2 * HEIGHT, 2 * WIDTH, 3)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Round trips


def test_an_npz_keeps_everything_and_is_plain_numpy(flow: Flow, tmp_path: Path) -> None:
    file = save_flow(flow, tmp_path / "a")
    assert names(tmp_path) == ["a.npz"]
    with np.load(file, allow_pickle=False) as arrays:
        for name, values in flow.tensors().items():
            assert arrays[name].dtype == np.float32
            assert np.array_equal(arrays[name], values.numpy())
        assert arrays["source_size"].tolist() == [60, 100]
    loaded, notes = load_flow(file)
    assert notes == ()
    assert (loaded.source_size, loaded.method, loaded.cuts) == ((60, 100), "dis", (CUT,))
    for name, values in flow.tensors().items():
        assert torch.equal(getattr(loaded, name), values), name


@pytest.mark.parametrize("format", FORMATS[1:])
def test_folders_keep_vectors_and_cuts(flow: Flow, tmp_path: Path, format: str) -> None:
    loaded, notes = load_flow(save_flow(flow, tmp_path / "a", format=format))
    assert (loaded.source_size, loaded.method, loaded.cuts) == ((60, 100), "dis", (CUT,))
    off = 0.5 / 64 if format == "kitti" else 0.0
    assert_close(loaded.forward, flow.forward, atol=off, rtol=0.0)
    if format != "videodip":
        assert_close(loaded.backward, flow.backward, atol=off, rtol=0.0)
    assert ("the motion back is found from the motion ahead" in notes) == (format == "videodip")
    assert ("occlusion is found from the motion" in notes) == (format != "kitti")
    if format == "kitti":
        for name in OCCLUSION:
            assert torch.equal(getattr(loaded, name), getattr(flow, name))
    for name, value in zip((*VECTORS, *OCCLUSION), (0.0, 0.0, 1.0, 1.0), strict=True):
        assert getattr(loaded, name)[CUT - 1].eq(value).all()
    assert "confidence is not known" in notes
    assert "confidence" in left_out(format)


def test_confidence_is_found_from_the_frames(tmp_path: Path) -> None:
    noise = torch.rand(1, 3, 6, 12, generator=torch.Generator().manual_seed(0))
    wide = resize(noise.mean(dim=1, keepdim=True), (32, 64), mode="bicubic").movedim(1, -1).expand(-1, -1, -1, 3)
    frames = torch.cat([wide[:, :, start : start + 56] for start in (0, 2, 4)])
    estimated = estimate_flow(frames, model="dis", shots=False)
    loaded, notes = load_flow(save_flow(estimated, tmp_path / "a", format="flo"), frames)
    assert "confidence is found from the frames" in notes
    grey = frames.movedim(-1, 1)[:, :1]
    found = with_confidence(with_occlusion(estimated.forward, estimated.backward), grey[:-1], grey[1:])
    assert_close(loaded.forward_confidence, found.forward_confidence, atol=1e-3, rtol=0.0)
    assert_close(loaded.backward_confidence, found.backward_confidence, atol=1e-3, rtol=0.0)


def test_equal_flow_makes_equal_files(flow: Flow, tmp_path: Path) -> None:
    first, second = save_flow(flow, tmp_path / "a"), save_flow(flow, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("format", ["npz", "flo"])
def test_motion_is_brought_to_the_frames(flow: Flow, frames: torch.Tensor, tmp_path: Path, format: str) -> None:
    size = (2 * HEIGHT, 2 * WIDTH)
    saved = save_flow(flow, tmp_path / "a", format=format, size=size)
    loaded, _ = load_flow(saved, frames)
    assert loaded.size == loaded.source_size == size
    assert_close(loaded.forward, resize_flow(flow, size).forward)
    if format == "npz":
        assert_close(loaded.tensors(), resize_flow(flow, size).tensors())


def test_flow_knows_the_frames_it_is_linked_to(flow: Flow, frames: torch.Tensor, tmp_path: Path) -> None:
    loaded, _ = load_flow(save_flow(flow, tmp_path / "a"), frames)
    assert loaded.size == (HEIGHT, WIDTH)
    assert loaded.source_size == (2 * HEIGHT, 2 * WIDTH)


def test_what_the_file_says_of_the_frames_counts_more_than_its_size(flow: Flow, tmp_path: Path) -> None:
    """Sides of less than 16 pixels are widened where motion is estimated."""
    narrow = replace(flow, source_size=(6, 100))
    loaded, _ = load_flow(save_flow(narrow, tmp_path / "a"), torch.zeros(COUNT + 1, 12, 200, 3))
    assert loaded.source_size == (12, 200)


def test_long_flow_goes_through_a_file(flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_flow(flow, tmp_path / "a")
    monkeypatch.setattr(budget, "memory_free", lambda: 0)
    loaded, _ = load_flow(file)
    file.unlink()
    assert_close(loaded.tensors(), flow.tensors())


# The formats as others have them


def test_a_flo_file_byte_by_byte(tmp_path: Path) -> None:
    """Middlebury's layout: tag, width, height, and dx, dy of each pixel, row by row, little-endian."""
    vectors = torch.tensor([[[1.0, 2.0]], [[-0.5, 0.25]]])  # two pixels beside each other: (1, -0.5), (2, 0.25)
    flow = Flow(vectors[None], vectors[None], torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), (1, 2))
    folder = save_flow(flow, tmp_path / "a", format="flo")
    content = (folder / "forward_flo" / "00000.flo").read_bytes()
    assert content == b"PIEH\2\0\0\0\1\0\0\0" + np.array([1.0, -0.5, 2.0, 0.25], "<f4").tobytes()
    assert names(folder) == ["backward_flo/00000.flo", "flow.json", "forward_flo/00000.flo"]


def test_a_kitti_file_pixel_by_pixel(tmp_path: Path) -> None:
    """64 levels a pixel around 2^15 in red and green; blue is whether it is valid."""
    vectors = torch.tensor([[[1.0, -2.5]], [[0.0, 600.0]]])
    flow = Flow(vectors[None], vectors[None] * 0, torch.tensor([[[0.0, 1.0]]]), torch.zeros(1, 1, 2), (1, 2))
    folder = save_flow(flow, tmp_path / "a", format="kitti")
    blue, green, red = np.moveaxis(cv2.imread(str(folder / "forward" / "00000.png"), cv2.IMREAD_UNCHANGED), -1, 0)
    # the second one does not fit, which is no loss, as it is occluded
    assert (red.tolist(), green.tolist(), blue.tolist()) == ([[32832, 0]], [[32768, 0]], [[1, 0]])
    loaded, _ = load_flow(folder)
    assert loaded.forward_occlusion.tolist() == [[[0.0, 1.0]]]
    assert loaded.forward[0, :, 0, 1].tolist() == [1.0, 0.0]  # from around


def test_kitti_refuses_motion_that_it_cannot_hold(flow: Flow, tmp_path: Path) -> None:
    flow.forward[0, 0], flow.forward_occlusion[0] = 600.0, 0.0
    with pytest.raises(InputError, match="moves by 600 pixels, and kitti holds at most 511"):
        save_flow(flow, tmp_path / "a", format="kitti")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("format", "folder", "first"),
    [
        ("lna", "bear_flow", ["00000.jpg_00001.jpg.npy", "00001.jpg_00000.jpg.npy"]),
        ("deflicker", "bear_flow", ["00000.png_00001.png.npy", "00001.png_00000.png.npy"]),
        ("videodip", "bear", ["00001.jpg.npy", "00002.jpg.npy"]),
    ],
)
def test_npy_folders_are_named_as_published(
    flow: Flow, tmp_path: Path, format: str, folder: str, first: list[str]
) -> None:
    saved = save_flow(flow, tmp_path / "bear", format=format)
    assert saved == tmp_path / folder
    assert names(saved)[:2] == first
    assert np.array_equal(np.load(saved / first[0]), flow.forward[0].movedim(0, -1).numpy())
    if format != "videodip":
        assert np.array_equal(np.load(saved / first[1]), flow.backward[0].movedim(0, -1).numpy())


def test_numbers_are_added_as_elsewhere(flow: Flow, tmp_path: Path) -> None:
    saved = [save_flow(flow, tmp_path / "a", format=format, numbered=True) for format in ("npz", "npz", "lna", "flo")]
    assert [path.name for path in saved] == ["a_00001.npz", "a_00002.npz", "a_00003_flow", "a_00004"]


def test_frames_of_any_name_are_put_in_order(flow: Flow, tmp_path: Path) -> None:
    saved = save_flow(flow, tmp_path / "a", format="lna")
    for index in range(COUNT):
        for a, b in ((index, index + 1), (index + 1, index)):
            name = f"my_frame {9 + a}.jpeg_my_frame {9 + b}.jpeg.npy"
            (saved / f"{a:05}.jpg_{b:05}.jpg.npy").rename(saved / name)
    loaded, _ = load_flow(saved)
    assert torch.equal(loaded.forward, flow.forward)
    assert torch.equal(loaded.backward, flow.backward)


def test_a_folder_of_flo_files_is_motion_ahead(synthetic: ModuleType, tmp_path: Path) -> None:
    """As data sets have it. The motion back is found; frames say which of two vectors to one place is seen there."""
    clip = synthetic.layered(4, 96, 160, objects=2, crossing=True)
    saved = save_flow(clip.flow, tmp_path / "a", format="flo") / "forward_flo"
    for index in range(3):
        (saved / f"{index:05}.flo").rename(saved / f"frame_{index + 9}.flo")
    visible = 1.0 - clip.flow.backward_occlusion

    def error(loaded: Flow) -> float:
        gap = (loaded.backward - clip.flow.backward).norm(dim=1)
        return float((gap * visible).sum() / visible.sum())

    blind, notes = load_flow(saved)
    seeing, _ = load_flow(saved, clip.frames)
    assert notes[0] == "the motion back is found from the motion ahead"
    assert torch.equal(seeing.forward, clip.flow.forward)
    assert error(seeing) < 0.1
    assert error(seeing) < 0.2 * error(blind)
    hidden = seeing.backward_occlusion[clip.flow.backward_occlusion.bool()].mean()
    assert hidden > 5 * seeing.backward_occlusion[visible.bool()].mean()


def test_single_files(flow: Flow, tmp_path: Path) -> None:
    saved = save_flow(flow, tmp_path / "a", format="flo")
    loaded, _ = load_flow(saved / "forward_flo" / "00003.flo")
    assert len(loaded) == 1
    assert torch.equal(loaded.forward[0], flow.forward[3])
    assert loaded.source_size == (HEIGHT, WIDTH)


def test_vectors_that_are_unknown_are_filled_in_and_occluded(tmp_path: Path) -> None:
    vectors = torch.full((1, 2, 4, 8), 2.0)
    vectors[..., 3:] = 2e9
    flow = Flow(vectors, vectors, torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), (4, 8))
    loaded, _ = load_flow(save_flow(flow, tmp_path / "a", format="flo") / "forward_flo" / "00000.flo")
    assert_close(loaded.forward, torch.full((1, 2, 4, 8), 2.0))
    assert loaded.forward_occlusion[..., 3:].eq(1).all()
    assert loaded.forward_occlusion[0, 0, 0] == 0


def test_an_npz_of_motion_ahead_alone_in_half_floats(flow: Flow, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", forward=flow.forward.half().numpy())
    loaded, notes = load_flow(tmp_path / "a.npz")
    assert torch.equal(loaded.forward, flow.forward.half().float())
    assert len(notes) == 3
    assert loaded.forward_confidence.eq(1).all()


@pytest.mark.parametrize("task", TASKS)
def test_tasks_find_the_same_with_loaded_flow(task: str, synthetic: ModuleType, tmp_path: Path) -> None:
    clip = synthetic.layered(5, 48, 80, objects=1)
    trust = torch.rand(4, 48, 80, generator=torch.Generator().manual_seed(0))
    flow = replace(clip.flow, forward_confidence=trust, backward_confidence=trust.flip(1))
    loaded, _ = load_flow(save_flow(flow, tmp_path / "a"), clip.frames)
    mask = {name: masks[:1] for name, masks in needed(task, clip.frames).items()}
    ours, theirs = (decompose(task, clip.frames, given, preset="fast", steps=2, **mask) for given in (flow, loaded))
    for name, field in ours.fields.items():
        assert torch.equal(theirs.fields[name], field), name


# Motion the other way round


def test_an_even_motion_is_turned_round() -> None:
    ahead = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 6, 8)
    back, unseen = inverse_flow(ahead)
    assert_close(back, -ahead)
    # two columns come in on the left, a row from below
    expected = torch.zeros(6, 8)
    expected[:, :2], expected[-1] = 1.0, 1.0
    assert torch.equal(unseen[0], expected)


def test_the_colours_tell_which_of_two_vectors_is_seen() -> None:
    """A white pixel moves over a grey one, which rests: one of both is seen in the second frame."""
    ahead, first = torch.zeros(1, 2, 1, 6), torch.full((1, 3, 1, 6), 0.5)
    ahead[0, 0, 0, 1], first[..., 1] = 2.0, 1.0
    seen, hidden = first.clone(), torch.full((1, 3, 1, 6), 0.5)
    seen[..., 1], seen[..., 3] = 0.5, 1.0
    assert_close(inverse_flow(ahead, (first, seen))[0][0, 0, 0, 3], torch.tensor(-2.0), atol=1e-2, rtol=0.0)
    assert_close(inverse_flow(ahead, (first, hidden))[0][0, 0, 0, 3], torch.tensor(0.0), atol=1e-2, rtol=0.0)
    assert inverse_flow(ahead)[0][0, 0, 0, 3] == -1.0


# What is refused

Damage = Callable[[Path], object]


def with_array(name: str, array: Any) -> Damage:
    """An .npz that holds something else under a name."""

    def damage(file: Path) -> None:
        with np.load(file) as there:
            arrays = {**there, name: array}
        np.savez(file, **{name: value for name, value in arrays.items() if value is not None})

    return damage


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def changed_inside(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[400] ^= 255
    file.write_bytes(content)


def shorter_member(file: Path) -> None:
    """The array's header promises more than there is."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 2, 10**4, 10**4)}
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("forward.npy", header.getvalue() + b"\0" * 80)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_off, "damaged, or not flow"),
        (changed_inside, r"damaged, or not flow \(Bad CRC-32"),
        (shorter_member, "forward holds 80 bytes, its shape .* takes 800000000000000"),
        (lambda file: file.write_bytes(b""), "no flow file; expected .npz, .flo"),
        (lambda file: file.write_bytes(b"PK and more"), "damaged, or not flow"),
        (with_array("forward", None), "holds backward, backward_confidence, .*expected forward and backward"),
        (with_array("forward", np.array([object()] * 3)), "forward is object, expected floats"),
        (with_array("forward", np.zeros((4, 6, 10, 2), np.float32)), r"forward is \(4, 6, 10, 2\), expected \(T-1, 2"),
        (with_array("forward", np.full((4, 2, 6, 10), np.nan)), "forward of pair 0: holds NaN or infinite"),
        (with_array("forward", np.full((4, 2, 6, 10), 1e20)), "or such as no frame has"),
        (with_array("backward", np.full((4, 2, 6, 10), np.inf, np.float16)), "backward of pair 0: holds NaN"),
        (with_array("forward", np.zeros((4, 2, 6, 10), np.int16)), "forward is int16, expected floats"),
        (with_array("forward", np.asfortranarray(np.zeros((4, 2, 6, 10)))), "in Fortran order, expected"),
        (with_array("backward", np.zeros((3, 2, 6, 10))), r"backward is \(3, 2, 6, 10\), expected \(4, 2, 6, 10\)"),
        (with_array("forward_occlusion", np.full((4, 6, 10), 255, np.uint8)), "holds values from 255 to 255, expected"),
        (with_array("cuts", np.array([9])), r"cuts must rise and lie within 1 to 4, got \(9,\)"),
        (with_array("cuts", np.array(["a"])), "damaged, or not flow"),
        (with_array("source_size", np.array([object()])), "damaged, or not flow"),
        (with_array("source_size", np.array([3])), "damaged, or not flow"),
        (with_array("source_size", np.array([0, 9])), "damaged, or not flow"),
    ],
)
def test_a_damaged_or_foreign_npz(flow: Flow, tmp_path: Path, damage: Damage, said: str) -> None:
    file = save_flow(flow, tmp_path / "a")
    damage(file)
    with pytest.raises(VDPError, match=said) as refused:
        load_flow(file)
    assert "\n" not in str(refused.value)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "run",)

    np.savez(tmp_path / "a.npz", forward=np.array([Bomb()]), allow_pickle=True)
    np.save(tmp_path / "a.npy", np.array([Bomb()]), allow_pickle=True)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(VDPError):
            load_flow(tmp_path / name)
    assert not (tmp_path / "run").exists()


def first_of(folder: Path, *, content: bytes | None = None) -> None:
    file = folder / names(folder)[0]
    file.write_bytes(file.read_bytes()[:-8] if content is None else content)


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    ("format", "damage", "said"),
    [
        ("flo", first_of, r"holds 484 bytes, a .flo file of 10x6 has 492"),
        ("flo", lambda folder: first_of(folder, content=b"PIEH"), "a .flo file of 0x0 has 12"),
        ("flo", lambda folder: first_of(folder, content=b"PIEH" + b"\xff" * 8), "a .flo file of -1x-1"),
        ("flo", lambda folder: (folder / "forward_flo" / "00000.flo").unlink(), "holds 3 files of one direction and 4"),
        ("flo", lambda folder: (folder / "forward_flo").rename(folder / "x"), "holds only motion back"),
        ("flo", lambda folder: (folder / "flow.json").write_text("[1]"), "damaged, or not flow"),
        ("flo", lambda folder: (folder / "flow.json").write_text('{"cuts": 3}'), "damaged, or not flow"),
        ("kitti", first_of, "00000.png: is not a picture"),
        ("kitti", lambda folder: first_of(folder, content=b"\x89PNG"), "00000.png: is not a picture"),
        ("lna", lambda folder: (folder / "00001.jpg_00002.jpg.npy").unlink(), "00001.jpg_00002.jpg.npy is missing"),
        ("lna", lambda folder: (folder / "00001.jpg_00000.jpg.npy").unlink(), "00001.jpg_00000.jpg.npy is missing"),
        ("lna", first_of, "damaged, or not flow"),
        (
            "lna",
            lambda folder: first_of(folder, content=npy(np.zeros((6, 10)))),
            r"of shape \(6, 10\), expected floats",
        ),
        ("lna", lambda folder: first_of(folder, content=npy(np.full((6, 10, 2), np.nan))), "holds NaN or infinite"),
        ("lna", lambda folder: first_of(folder, content=npy(np.full((6, 10, 2), 1e20))), "or such as no frame has"),
        ("videodip", lambda folder: (folder / names(folder)[1]).write_bytes(npy(np.zeros((2, 3, 2)))), "is 3x2 pixels"),
        ("videodip", lambda folder: first_of(folder, content=b"text"), "no flow file"),
    ],
)
def test_a_damaged_or_foreign_folder(flow: Flow, tmp_path: Path, format: str, damage: Damage, said: str) -> None:
    folder = save_flow(flow, tmp_path / "a", format=format)
    damage(folder)
    with pytest.raises(VDPError, match=said) as refused:
        load_flow(folder)
    assert "\n" not in str(refused.value)


def test_pictures_are_no_flow(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "00000.png"), np.zeros((6, 10, 3), np.uint8))
    with pytest.raises(MediaError, match="a picture, not flow; KITTI's PNG files of flow have 16 bits"):
        load_flow(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="there is no such flow file or folder"):
        load_flow(tmp_path / "a.npz")
    with pytest.raises(MediaError, match=r"holds no \.flo, \.npy or \.png files"):
        load_flow(tmp_path)


def test_another_clip_is_refused_before_anything_is_read(flow: Flow, frames: torch.Tensor, tmp_path: Path) -> None:
    file = save_flow(replace(flow, forward=torch.full_like(flow.forward, torch.nan)), tmp_path / "a")
    with pytest.raises(ShapeError, match="holds the motion of 5 frames, the clip has 3; load the frames"):
        load_flow(file, frames[:3])
    with pytest.raises(ShapeError, match="motion of frames of 100x60, these are 12x20, of another shape"):
        load_flow(file, torch.zeros(COUNT + 1, 20, 12, 3))


def test_a_folder_that_is_there_stays(flow: Flow, tmp_path: Path) -> None:
    saved = save_flow(flow, tmp_path / "a", format="lna")
    with pytest.raises(MediaError, match="a_flow: is there already"):
        save_flow(flow, tmp_path / "a", format="lna")
    assert len(names(saved)) == 2 * COUNT + 1


def test_a_full_disk_leaves_nothing(flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MediaError, match="a: cannot be written, the disk is full"):
        save_flow(flow, tmp_path / "a", format="flo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_steps_reach_the_end(flow: Flow, tmp_path: Path, format: str) -> None:
    steps: list[tuple[int, int]] = []
    saved = save_flow(flow, tmp_path / "a", format=format, on_step=lambda done, total, _: steps.append((done, total)))
    assert steps == [(index + 1, len(steps)) for index in range(len(steps))]
    steps.clear()
    load_flow(saved, on_step=lambda done, total, _: steps.append((done, total)))
    assert steps == [(index + 1, len(steps)) for index in range(len(steps))]


def test_the_fingerprint_follows_the_files(flow: Flow, tmp_path: Path) -> None:
    saved = save_flow(flow, tmp_path / "a", format="flo")
    before = fingerprint(saved)
    assert fingerprint(saved) == before
    (saved / "forward_flo" / "00001.flo").write_bytes(b"")
    assert fingerprint(saved) != before


def test_the_about_file_is_plain_json(flow: Flow, tmp_path: Path) -> None:
    saved = save_flow(flow, tmp_path / "a", format="kitti")
    about = json.loads((saved / "flow.json").read_text())
    assert about == {"source_size": [60, 100], "method": "dis", "cuts": [CUT]}
