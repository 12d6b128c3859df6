from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from comfyui_vdp.vdp_core.store import journal as module
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL, Journal


def test_what_is_saved_comes_back(tmp_path):
    kept = Journal(tmp_path / "deep" / "down")
    tensors = {
        "grid": torch.rand(3, 4).T,
        "state": torch.Generator().get_state(),
        "losses": torch.rand(5, dtype=torch.float64),
        "number": torch.tensor(2.5, requires_grad=True),
    }
    kept.save("window_3", tensors, {"steps": "120", "said": "gamma 0.5 — naïve"})
    found, notes = kept.load("window_3")
    assert_close(found, {name: tensor.detach() for name, tensor in tensors.items()}, rtol=0.0, atol=0.0)
    assert notes == {"steps": "120", "said": "gamma 0.5 — naïve"}


def test_what_was_never_saved_is_none(tmp_path):
    assert Journal(tmp_path / "nothing").load("fit") is None
    assert not (tmp_path / "nothing").exists()


def test_a_second_save_takes_the_place_of_the_first(tmp_path):
    kept = Journal(tmp_path)
    kept.save("fit", {"x": torch.zeros(2)}, {"steps": "1"})
    first, _ = kept.load("fit")
    kept.save("fit", {"y": torch.ones(3)})
    second, notes = kept.load("fit")
    assert_close(first, {"x": torch.zeros(2)})
    assert_close(second, {"y": torch.ones(3)})
    assert notes == {}
    assert [path.name for path in tmp_path.iterdir()] == ["fit.safetensors"]


def test_parts_do_not_meet(tmp_path):
    kept = Journal(tmp_path / "run")
    for number in (3, 30):
        kept.part(f"window_{number}").save("fit", {"x": torch.tensor(number)})
    kept.part("window_3").clear()
    assert kept.part("window_3").load("fit") is None
    assert int(kept.part("window_30").load("fit")[0]["x"]) == 30
    kept.clear()
    kept.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_short_counts_as_absent(tmp_path, caplog):
    kept = Journal(tmp_path)
    kept.save("fit", {"x": torch.rand(1000)})
    file = tmp_path / "fit.safetensors"
    whole = file.read_bytes()
    for length in (0, 7, 8, 50, len(whole) // 2, len(whole) - 1):
        caplog.clear()
        file.write_bytes(whole[:length])
        assert kept.load("fit") is None
        assert "fit.safetensors is left aside" in caplog.text
    file.write_bytes(whole)
    assert kept.load("fit") is not None


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"vdp_checkpoint": "1", "notes": "{}"},
        {"vdp_journal": "0", "notes": "{}"},
        {"vdp_journal": "2"},
        {"vdp_journal": "2", "notes": "no JSON"},
        {"vdp_journal": "2", "notes": "[1, 2]"},
        {"vdp_journal": "2", "notes": "[" * 100_000},
    ],
)
def test_a_foreign_file_counts_as_absent(tmp_path, caplog, metadata):
    save_file({"x": torch.rand(3)}, tmp_path / "fit.safetensors", metadata)
    assert Journal(tmp_path).load("fit") is None
    assert "fit.safetensors is left aside" in caplog.text


def test_a_folder_in_the_place_of_the_file_counts_as_absent(tmp_path):
    (tmp_path / "fit.safetensors").mkdir()
    assert Journal(tmp_path).load("fit") is None


def test_a_full_disk_leaves_the_earlier_ones(tmp_path, caplog, monkeypatch):
    kept = Journal(tmp_path)
    kept.save("fit", {"x": torch.zeros(2)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_to_disk", full)
    kept.save("fit", {"x": torch.ones(2)})
    assert "No space left on device" in caplog.text
    assert "the work goes on without" in caplog.text
    assert_close(kept.load("fit")[0]["x"], torch.zeros(2))
    assert [path.name for path in tmp_path.iterdir()] == ["fit.safetensors"]


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").touch()
    Journal(tmp_path / "file" / "run").save("fit", {"x": torch.zeros(2)})
    assert "nothing could be kept" in caplog.text


def test_a_step_is_done_once(tmp_path):
    done = []

    def make(part: Journal) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        done.append(part.load("half"))
        part.save("half", {"x": torch.zeros(2)})
        if len(done) == 1:
            raise KeyboardInterrupt
        return {"x": torch.ones(2)}, {"steps": 3, "terms": {"a": 0.1}, "none": None}

    with pytest.raises(KeyboardInterrupt):
        Journal(tmp_path).step("whole", make)
    first = Journal(tmp_path).step("whole", make)
    second = Journal(tmp_path).step("whole", make)
    assert [None if half is None else half[0]["x"].tolist() for half in done] == [None, [0.0, 0.0]]
    for tensors, notes in (first, second):
        assert torch.equal(tensors["x"], torch.ones(2))
        assert notes == {"steps": 3, "terms": {"a": 0.1}, "none": None}
    assert [path.name for path in tmp_path.iterdir()] == ["whole.safetensors"]


def test_no_journal_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = []
    for _ in range(2):
        NO_JOURNAL.step("whole", lambda part: (parts.append(part) or {"x": torch.ones(1)}, {}))
    NO_JOURNAL.save("x", {"x": torch.ones(1)})
    NO_JOURNAL.clear()
    assert len(parts) == 2
    assert parts[0].load("x") is None
    assert NO_JOURNAL.load("x") is None
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys, torch
from comfyui_vdp.vdp_core.store.journal import Journal
kept = Journal(sys.argv[1])
number = 0
while True:
    kept.save("fit", {"x": torch.full((250_000,), float(number)), "number": torch.tensor(number)})
    number += 1
    print(number, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
@pytest.mark.parametrize("saves", [1, 3, 8])
def test_a_killed_writer_leaves_the_last_whole_one(tmp_path, saves):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(saves):
            told = int(writer.stdout.readline())
        writer.kill()
    kept = Journal(folder)
    tensors, _ = kept.load("fit")
    number = int(tensors["number"])
    assert number >= told - 1
    assert bool((tensors["x"] == number).all())
    kept.save("fit", tensors)
    kept.clear()
    assert not Path(folder).exists()
