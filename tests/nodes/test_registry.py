"""What ComfyUI's registry asks of a pack: https://docs.comfy.org/registry/standards and /specifications."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SHIPPED = [
    ROOT / "__init__.py",
    *(path for folder in ("nodes", "runner", "vdp_core") for path in (ROOT / folder).rglob("*.py")),
]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    with (ROOT / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file))


def test_the_version_is_semantic_and_opens_the_changelog(project: dict[str, Any]) -> None:
    version = project["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0] == version


def test_the_pack_is_named_as_the_registry_wants(project: dict[str, Any]) -> None:
    name, comfy = project["project"]["name"], project["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", name)
    assert "comfyui" not in name
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    with Image.open(ROOT / "docs" / "icon.png") as icon:
        assert max(icon.size) <= 400


def test_requirements_are_the_package_s_own_and_leave_torch_to_comfyui(project: dict[str, Any]) -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {line for line in lines if line and not line.startswith("#")}
    assert wanted <= set(project["project"]["dependencies"])
    assert not any(line.startswith("torch") for line in wanted)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_runs_foreign_code_or_installs_packages(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {"subprocess", "pip", "ensurepip", "ctypes"} & set(imported(tree))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not {"eval", "exec", "compile", "__import__"} & called
    assert not re.search(r"\bos\.(system|popen|exec\w*|spawn\w*)\b", path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level names of every module imported anywhere in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
