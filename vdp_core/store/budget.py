"""What clips may take: a share of the memory, and of the room for temporary files, that is free now."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil

__all__ = ["fits_in_memory", "lies_in_memory", "memory_free", "scratch_free"]

SHARE = 4
"""Of what is free, a clip takes one part in so many: several are in use at once, and each next one asks anew."""
MEMBERSHIP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_free() -> int:
    """Bytes of memory that this process can still take: what the machine has, and its container (cgroup) allows."""
    return max(0, min([psutil.virtual_memory().available, *_left_in_groups()]))


def fits_in_memory(size: int) -> bool:
    """Whether so many bytes of frames should be kept in memory rather than laid into a file."""
    return size * SHARE <= memory_free()


def scratch_free() -> int:
    """Bytes that the folder for temporary files has free; where it lies in memory, at most half of what memory has."""
    free = int(psutil.disk_usage(tempfile.gettempdir()).free)
    return min(free, memory_free() // 2) if lies_in_memory() else free


def lies_in_memory() -> bool:
    """Whether the folder for temporary files is memory (tmpfs)."""
    kinds = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    folder = Path(tempfile.gettempdir()).resolve()
    return next((kinds[str(place)] for place in (folder, *folder.parents) if str(place) in kinds), "") == "tmpfs"


def _left_in_groups() -> Iterator[int]:
    """What each control group around this process leaves; files that it keeps in memory give way, and count as free.

    Linux kernel documentation: "Control Group v2", section 5.2, and "Memory Resource Controller" of version 1.
    """
    lines: list[str] = []
    with suppress(OSError):  # there are none but on Linux
        lines = MEMBERSHIP.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limits, used, total = GROUPS, ["memory.max", "memory.high"], "memory.current", ""
        elif "memory" in controllers.split(","):
            root, limits, used = GROUPS / "memory", ["memory.limit_in_bytes"], "memory.usage_in_bytes"
            total = "total_"  # with the groups inside
        else:
            continue
        group = PurePosixPath(path).relative_to("/")
        for place in (root / part for part in (group, *group.parents)):
            for limit in limits:
                # a group may set no limit ("max"), or be named as it is outside of the container and not be found
                with suppress(OSError, ValueError):
                    most = int((place / limit).read_text())
                    stat = dict(pair.split() for pair in (place / "memory.stat").read_text().splitlines())
                    cached = sum(int(stat.get(f"{total}{kind}_file", 0)) for kind in ("active", "inactive"))
                    yield most - int((place / used).read_text()) + cached
