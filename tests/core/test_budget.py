from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from comfyui_vdp.vdp_core.store import budget

GIB = 2**30


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 64 GiB free, whose control groups are written into a folder."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))
    monkeypatch.setattr(budget, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(budget, "MEMBERSHIP", tmp_path / "cgroup")
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def second(folder: Path, most: object, used: int, stat: str = "anon 5", high: object = "max") -> None:
    write(folder, memory__max=most, memory__high=high, memory__current=used, memory__stat=stat)


def test_without_groups_it_is_what_the_machine_has(machine):
    assert budget.memory_free() == 64 * GIB


def test_a_group_without_a_limit(machine):
    (machine / "cgroup").write_text("0::/work\n")
    second(machine / "groups" / "work", "max", 3 * GIB)
    assert budget.memory_free() == 64 * GIB


def test_the_limit_of_a_container_and_of_what_it_lies_in(machine):
    (machine / "cgroup").write_text("0::/pod/work\n")
    second(machine / "groups" / "pod" / "work", 8 * GIB, 3 * GIB)
    assert budget.memory_free() == 5 * GIB
    second(machine / "groups" / "pod", 10 * GIB, 6 * GIB)
    assert budget.memory_free() == 4 * GIB
    second(machine / "groups" / "pod", 10 * GIB, 6 * GIB, high=7 * GIB)
    assert budget.memory_free() == GIB


def test_files_that_the_system_keeps_in_memory_give_way(machine):
    (machine / "cgroup").write_text("0::/\n")
    second(machine / "groups", 8 * GIB, 7 * GIB, f"anon 5\nactive_file {GIB}\ninactive_file {2 * GIB}\nshmem 9")
    assert budget.memory_free() == 4 * GIB


def test_the_first_version_of_control_groups(machine):
    (machine / "cgroup").write_text("5:devices:/\n4:cpu,memory:/docker/abc\n0::/\n")
    stat = f"inactive_file 1\ntotal_active_file {GIB}\ntotal_inactive_file 0"
    # a container knows its group by the name it has outside, and finds its files at the root
    write(
        machine / "groups" / "memory",
        memory__limit_in_bytes=4 * GIB,
        memory__usage_in_bytes=2 * GIB,
        memory__stat=stat,
    )
    assert budget.memory_free() == 3 * GIB


def test_more_in_use_than_allowed_is_nothing_free(machine):
    (machine / "cgroup").write_text("0::/\n")
    second(machine / "groups", GIB, 2 * GIB)
    assert budget.memory_free() == 0


def test_a_quarter_of_what_is_free_fits(machine):
    assert budget.fits_in_memory(16 * GIB)
    assert not budget.fits_in_memory(16 * GIB + 1)


@pytest.mark.parametrize(("kind", "free"), [("ext4", 200 * GIB), ("tmpfs", 32 * GIB)])
def test_temporary_files_in_memory_count_as_memory(machine, monkeypatch, kind, free):
    place = machine / "tmp" / "inner"
    place.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    parts = [SimpleNamespace(mountpoint=str(path), fstype=fs) for path, fs in (("/", "xfs"), (place.parent, kind))]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    monkeypatch.setattr(psutil, "disk_usage", lambda path: SimpleNamespace(free=200 * GIB))
    assert budget.lies_in_memory() == (kind == "tmpfs")
    assert budget.scratch_free() == free
