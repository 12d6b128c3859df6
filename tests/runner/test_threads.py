"""Threads of OpenMP wait without taking a core, unless a person wants it otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

PROGRAM = "import sys; from comfyui_vdp.runner.cli import main; sys.exit(main(['measure', 'none', 'none']))"


@pytest.mark.skipif(sys.platform != "linux", reason="where torch's OpenMP tells what it was told")
@pytest.mark.parametrize(("wanted", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_they_wait_quietly_unless_told_otherwise(wanted: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= (
        {"OMP_DISPLAY_ENV": "TRUE"} if wanted is None else {"OMP_DISPLAY_ENV": "TRUE", "OMP_WAIT_POLICY": wanted}
    )
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert ended.returncode == 1  # there is no clip of that name
    assert re.findall(r"OMP_WAIT_POLICY ?= ?'(\w+)'", ended.stderr) == [found]
