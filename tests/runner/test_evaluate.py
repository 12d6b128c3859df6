"""Data sets: which truth belongs to which clip, what is measured, what is not measured anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import HerePool

from comfyui_vdp.runner import cli
from comfyui_vdp.runner.batch import schedule
from comfyui_vdp.runner.evaluate import evaluation
from comfyui_vdp.runner.evaluate.figures import _as_davis, _table_of
from comfyui_vdp.runner.evaluate.layouts import find_cases
from comfyui_vdp.runner.graph.types import GraphError
from comfyui_vdp.vdp_core.errors import VDPError

LOAD = {"path": "clip.mp4", "start": 0, "count": 0, "every_nth": 1, "max_side": 0}
GREY = np.full((16, 24, 3), 128, np.uint8)
Vdp = Callable[..., tuple[int, Any, str]]


def graph_of(title: str, *, source: str = "1") -> dict[str, Any]:
    """A workflow that gives back what it is given."""
    loaders = {
        key: {"class_type": "LoadFrames", "inputs": LOAD, "_meta": {"title": name}}
        for key, name in (("1", "Clip"), ("2", "Mask"))
        if key in ("1", source)
    }
    inputs = {"frames": [source, 0], "fps": ["1", 3], "filename_prefix": "x", "format": "mp4", "quality": 80}
    after = {"frames": ["1", 0], "fps": 24.0, "filename_prefix": "other", "format": "png", "quality": 80}
    return {
        **loaders,
        "3": {"class_type": "SaveFrames", "inputs": inputs, "_meta": {"title": title}},
        "4": {"class_type": "SaveFrames", "inputs": after, "_meta": {"title": "Other"}},
    }


def write(folder: Path, pictures: Iterable[np.ndarray], *, first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, first):
        Image.fromarray(picture).save(folder / f"{number:05d}.png")
    return folder


def square(left: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A mask of 10x10 pixels, white on black."""
    mask = np.zeros(size, np.uint8)
    mask[15:25, left : left + 10] = 255
    return mask


@pytest.fixture
def vdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vdp:
    """``vdp evaluate TASK set --workflow graph.json``; gives code, the last line of stdout, and what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(schedule, "LocalPool", HerePool)

    def call(task: str, title: str, *arguments: str, source: str = "1") -> tuple[int, Any, str]:
        Path("graph.json").write_text(json.dumps(graph_of(title, source=source)))
        code = cli.main(["evaluate", task, "set", "--workflow", "graph.json", "--output-dir", "out", *arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]) if out else None, out + err

    return call


def names_of(folder: Path, measured: str, **settings: Any) -> list[str]:
    return [case.name for case in find_cases(folder, measured, **settings)]


# Layouts


def test_pairs_of_sdsd_belong_together_by_their_place(vdp: Vdp, tmp_path: Path) -> None:
    for place in ("indoor", "outdoor"):
        write(tmp_path / "set" / place / "input" / "pair1", [GREY // 2] * 3)
        write(tmp_path / "set" / place / "GT" / "pair1", [GREY] * 3, first=70)  # numbers of their own, as there
    code, told, said = vdp("relight", "Result")
    assert (code, told["clips"], told["failed"], told["computed"]) == (0, 2, 0, 2)
    # 64 of 255 levels everywhere
    assert told["mean"]["psnr"] == pytest.approx(-20 * np.log10(64 / 255), abs=1e-4)
    assert told["mean"]["input_psnr"] == told["mean"]["psnr"]
    assert [line.split()[0] for line in said.splitlines() if "pair1" in line] == ["indoor/pair1", "outdoor/pair1"]
    clips = json.loads(Path("out/evaluation.json").read_text())["clips"]
    assert [clip["name"] for clip in clips] == ["indoor/pair1", "outdoor/pair1"]
    assert names_of(tmp_path / "set", "pictures", split="outdoor") == ["outdoor/pair1"]


def test_truths_under_other_names_belong_to_the_clip_at_their_place(tmp_path: Path) -> None:
    for name in ("a2", "a10"):
        write(tmp_path / "input" / name, [GREY])
        write(tmp_path / "GT" / name.replace("a", "true"), [GREY])
    found = find_cases(tmp_path, "pictures")
    assert [(case.clip.name, case.truth.name) for case in found] == [("a2", "true2"), ("a10", "true10")]


def test_revide_and_its_airlight(vdp: Vdp, tmp_path: Path) -> None:
    for part, name in (("Train", "C001"), ("Test", "C005")):
        write(tmp_path / "set" / part / "hazy" / name, [GREY] * 2)
        write(tmp_path / "set" / part / "gt" / name, [GREY] * 2)
        write(tmp_path / "set" / part / "gt" / "unused", [GREY])
    (tmp_path / "set" / "Test" / "hazy" / "C005.csv").write_text("r,g,b\n200,200,210\n")
    (case,) = find_cases(tmp_path / "set", "pictures", split="test")
    assert case.name == "Test/C005" and case.airlight is not None and case.airlight.name == "C005.csv"
    code, told, _ = vdp("dehaze", "Result", "--clip", "C001")
    assert (code, told["clips"], told["mean"]["ssim"]) == (0, 1, 1.0)


def test_davis(vdp: Vdp, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("bear", "camel"):
        for size in ("1080p", "480p"):
            # halves overlap: J is 50 of 150 pixels; frames at the ends do not count
            lefts = [40, 20, 20, 20, 40]
            write(root / "JPEGImages" / size / name, [np.dstack([square(left)] * 3) for left in lefts])
            write(root / "Annotations" / size / name, [square(25)] * 5)
    lists = root / "ImageSets" / "480p"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text(
        "".join(f"/JPEGImages/480p/camel/0000{i}.jpg /Annotations/480p/camel/0000{i}.png\n" for i in range(5))
    )
    code, told, _ = vdp("segment", "Matte", "--split", "val")
    assert (code, told["clips"]) == (0, 1)
    assert told["mean"]["j_mean"] == pytest.approx(1 / 3)
    assert told["mean"]["j_recall"] == told["mean"]["j_decay"] == 0.0
    assert 0.0 < told["mean"]["f_mean"] < 1.0
    assert "480p" in str(find_cases(root, "regions")[0].clip)
    assert names_of(root, "rebuilt") == ["bear", "camel"]


def test_decay_is_what_the_last_quarter_lacks() -> None:
    # eight frames count; quarters share frames where they meet: 0, 2, 4, 5, 7 are their ends
    found = _as_davis([0.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.0])
    assert found["mean"] == pytest.approx(0.65)
    assert found["recall"] == 5 / 8
    assert found["decay"] == pytest.approx((1.0 + 0.9 + 0.8) / 3 - (0.5 + 0.4 + 0.3) / 3)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("frame,r,g,b\n0,0.8,0.8,0.9\n1,0.4,0.5,0.6\n", (0.8, 0.8, 0.9), (0.4, 0.5, 0.6)),
        ("204, 204, 255\n", (0.8, 0.8, 1.0), (0.8, 0.8, 1.0)),
    ],
)
def test_a_table_of_airlight(tmp_path: Path, text: str, first: tuple[float, ...], last: tuple[float, ...]) -> None:
    (tmp_path / "a.csv").write_text(text)
    found = _table_of(tmp_path / "a.csv", 2)
    assert found[0].tolist() == pytest.approx(first) and found[1].tolist() == pytest.approx(last)


@pytest.mark.parametrize(
    ("text", "words"), [("", "red, green and blue"), ("1,1,1\n" * 3, "has 3 rows, the clip has 2")]
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(VDPError, match=words):
        _table_of(tmp_path / "a.csv", 2)


def test_videomatte(vdp: Vdp, tmp_path: Path) -> None:
    alpha = np.zeros((16, 24), np.uint8)
    alpha[:, :12] = 255
    for name in ("0000", "0001"):
        place = tmp_path / "set" / "videomatte_512x288" / "videomatte_motion" / name
        write(place / "com", [np.dstack([np.minimum(alpha, 204)] * 3)] * 2)
        write(place / "pha", [alpha] * 2)
        write(place / "fgr", [GREY] * 2)
    code, told, _ = vdp("matte", "Matte")
    assert (code, told["clips"]) == (0, 2)
    # what is given back is 0.8 where it should be 1, in half of the frame
    assert told["mean"]["mad"] == pytest.approx(100.0, abs=0.01)
    assert told["mean"]["mse"] == pytest.approx(20.0, abs=0.01)
    assert told["mean"]["dtssd"] == 0.0


def test_foregrounds_are_put_over_backgrounds_by_turns(vdp: Vdp, tmp_path: Path) -> None:
    alpha = np.zeros((16, 24), np.uint8)
    alpha[:, :12] = 255
    for name in ("0000", "0001"):
        write(tmp_path / "set" / "test" / "fgr" / name, [np.full_like(GREY, 255)] * 2)
        write(tmp_path / "set" / "test" / "pha" / name, [alpha] * 2)
    write(tmp_path / "set" / "test" / "bgr", [np.full((32, 32, 3), level, np.uint8) for level in (0, 51)])
    code, told, _ = vdp("matte", "Matte")
    assert (code, told["clips"]) == (0, 2)
    clips = json.loads(Path("out/evaluation.json").read_text())["clips"]
    # black behind the first gives the matte itself, a fifth behind the second that much in half of the frame
    assert [clip["numbers"]["mad"] for clip in clips] == pytest.approx([0.0, 100.0], abs=0.01)
    assert vdp("matte", "Matte")[1]["computed"] == 0


def test_a_workflow_that_needs_a_mask_gets_the_first_true_one(vdp: Vdp, tmp_path: Path) -> None:
    for left, name in ((5, "a"), (20, "b")):
        write(tmp_path / "set" / "frames" / name, [np.zeros((40, 60, 3), np.uint8)])
        write(tmp_path / "set" / "masks" / name, [square(left)])
    code, told, _ = vdp("segment", "Matte", source="2")
    assert (code, told["clips"], told["mean"]["j_mean"], told["mean"]["f_mean"]) == (0, 2, 1.0, 1.0)


@pytest.mark.slow
def test_a_clip_is_its_own_truth_where_it_is_rebuilt(vdp: Vdp, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(30, 220, (8, 16, 3)), np.ones((8, 8, 1)))
    frames = [ground[:, 2 * number : 96 + 2 * number] + rng.normal(0.0, 8.0, (64, 96, 3)) for number in range(4)]
    write(tmp_path / "set" / "swan", [frame.clip(0.0, 255.0).astype(np.uint8) for frame in frames])
    write(tmp_path / "set" / "swan_maskrcnn", [GREY] * 2)
    shipped = str(cli.WORKFLOWS / "atlas.json")
    code, told, _ = vdp("atlas", "Result", "--workflow", shipped, "--set", "Optimize.preset=fast")
    # textures cannot hold noise of 8 levels, which alone gives 30 dB
    assert (code, told["clips"]) == (0, 1) and 27.0 < told["mean"]["psnr"] < 40.0
    code, _, said = vdp("atlas", "Result")
    assert code == 1 and "has no VDPOptimize" in said


# What is done, done again, and what fails


def test_an_archive_beside_its_folder_and_names_that_begin_alike_hide_no_clip(tmp_path: Path) -> None:
    for name in ("shot", "shot_2", "shot_masks"):
        write(tmp_path / "input" / name, [GREY])
        write(tmp_path / "gt" / name, [GREY])
    for name in ("input.zip", "gt.txt"):
        (tmp_path / name).write_bytes(b"")
    assert names_of(tmp_path, "pictures") == ["shot", "shot_2", "shot_masks"]
    assert names_of(tmp_path / "input", "rebuilt") == ["shot", "shot_2"]


def test_only_what_is_missing_or_changed_is_measured(vdp: Vdp, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "set" / "input" / name, [GREY])
        write(tmp_path / "set" / "gt" / name, [GREY])
    assert [vdp("relight", "Result")[1]["computed"] for _ in range(2)] == [2, 0]
    Image.fromarray(GREY // 2).save(tmp_path / "set" / "gt" / "b" / "00000.png")
    _, told, _ = vdp("relight", "Result")
    assert told["computed"] == 1 and told["mean"]["psnr"] == pytest.approx((100 + 12.0) / 2, abs=0.1)


def test_a_clip_that_fails_stops_no_other(vdp: Vdp, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        write(tmp_path / "set" / "input" / name, [GREY] * 2)
        if name != "c":
            write(tmp_path / "set" / "gt" / name, [GREY] * (1 if name == "b" else 2))
    (tmp_path / "set" / "input" / "d" / "00001.png").write_bytes(b"no picture")
    code, told, said = vdp("relight", "Result")
    assert (code, told["clips"], told["failed"], told["mean"]["psnr"]) == (1, 4, 3, 100.0)
    assert "gt/b: has 1 frames, " in said and "so give as many" in said
    assert "there is no c in" in said
    assert "00001.png" in said and "Traceback" not in said


def test_a_defect_while_one_clip_is_measured_stops_no_other(
    vdp: Vdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write(tmp_path / "set" / "input" / name, [GREY])
        write(tmp_path / "set" / "gt" / name, [GREY])
    measured = evaluation.measure_case

    def fails(kind: str, case: Any, *more: Any) -> dict[str, float]:
        if case.name == "a":
            raise ZeroDivisionError("by nought")
        return measured(kind, case, *more)

    monkeypatch.setattr(evaluation, "measure_case", fails)
    code, told, said = vdp("relight", "Result")
    assert (code, told["failed"], told["mean"]["psnr"]) == (3, 1, 100.0)
    assert "a: ZeroDivisionError: by nought" in said


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("paint", [], "there is no 'paint'; known: relight"),
        ("segment", [], "holds no clips with their truth; looked for a folder called input"),
        ("relight", ["--clip", "z"], "has no clip z; there are a"),
        ("relight", ["--split", "val"], "has no split val, neither as ImageSets/.../val.txt nor as a folder of clips"),
    ],
)
def test_bad_folders_are_refused(vdp: Vdp, tmp_path: Path, task: str, settings: list[str], words: str) -> None:
    write(tmp_path / "set" / "input" / "a", [GREY])
    write(tmp_path / "set" / "clear" / "a", [GREY])
    code, told, said = vdp(task, "Result", *settings)
    assert (code, told) == (1, None)
    assert words in said and not Path("out").exists()


def test_a_folder_that_is_not_there_and_a_workflow_that_saves_nothing_are_refused(vdp: Vdp, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="there is no such folder"):
        find_cases(tmp_path / "gone", "pictures")
    write(tmp_path / "set" / "input" / "a", [GREY])
    write(tmp_path / "set" / "gt" / "a", [GREY])
    code, _, said = vdp("relight", "Elsewhere")
    assert code == 1 and "has no SaveFrames titled Result" in said
