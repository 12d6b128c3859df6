"""What may import what: ``runner -> nodes -> vdp_core``, inside the core only downwards, nowhere in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from comfyui_vdp.vdp_core.tasks import TASKS

ROOT = Path(__file__).parents[1]
HOUSES = {"vdp_core": {"vdp_core"}, "training": {"training", "vdp_core"}, "nodes": {"nodes", "vdp_core"}}
HOUSES["runner"] = {"runner", *HOUSES["nodes"], *HOUSES["training"]}
ROOMS = ("errors", "types", "store", "checks", "image", "nets", "media", "motion", "denoise", "optim", "metrics")
ROOMS += ("degrade", "models", "tasks", "edit")
"""Rooms of the core; each may use those before it."""
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "execution", "folder_paths", "latent_preview", "server"}
OWN_ROOMS = ("vdp_core/tasks/", "vdp_core/models/", "nodes/decompose.py", "nodes/edit.py", "nodes/layers.py")
"""Where names of tasks and models are at home."""


def name_of(path: Path) -> str:
    """A module's name from the root of the pack, such as ``vdp_core.store.lazy``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for house in HOUSES for path in sorted((ROOT / house).rglob("*.py"))}


@cache
def imports_of(module: str) -> dict[str, int]:
    """Modules of the pack that a module imports, anywhere but for types alone, and in which line."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: dict[str, int] = {}
    for node in imports_in(ast.parse(path.read_text())):
        if isinstance(node, ast.Import) or not node.level:
            continue
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            found.setdefault(whole if whole in MODULES else base, node.lineno)
    return found


def imports_in(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from imports_in(node)


def test_every_room_has_its_place():
    rooms = {module.split(".")[1] for module in MODULES if module.startswith("vdp_core.")}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("house", HOUSES)
def test_arrows_between_houses_go_one_way(house):
    wrong = [
        f"{MODULES[module]}:{line} imports {other}"
        for module in MODULES
        if module.split(".")[0] == house
        for other, line in imports_of(module).items()
        if other.split(".")[0] not in HOUSES[house]
    ]
    assert wrong == []


def test_arrows_between_rooms_of_the_core_go_downwards():
    wrong = [
        f"{MODULES[module]}:{line} imports {other}"
        for module in MODULES
        if module.startswith("vdp_core.")
        for other, line in imports_of(module).items()
        if "." not in other or ROOMS.index(other.split(".")[1]) > ROOMS.index(module.split(".")[1])
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    """Also not where an import hides in a function."""
    try:
        TopologicalSorter({module: set(imports_of(module)) - {module} for module in MODULES}).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_only_the_host_knows_comfyui():
    found = set()
    for module, path in MODULES.items():
        for node in imports_in(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if not getattr(node, "level", 0) and COMFYUI & {name.split(".")[0] for name in names}:
                found.add(module)
    assert all(module.startswith("nodes.host") for module in found), found


def test_tasks_are_named_only_in_their_own_rooms():
    named = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {node.value}"
        for path in MODULES.values()
        if not path.relative_to(ROOT).as_posix().startswith(OWN_ROOMS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in TASKS
    ]
    assert len(named) <= 2, "\n".join(named)
