"""The targets, which ``fuzz.py`` and the tests share; tests are no package, so that they cannot be imported by name."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def targets() -> ModuleType:
    spec = spec_from_file_location("fuzz_targets", Path(__file__).with_name("targets.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["fuzz_targets"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
