"""The help pages that ComfyUI shows: one for every node, whole, and with their pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from comfyui_vdp.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.base import Task

DOCS = Path(__file__).parents[2] / "web" / "docs"


def pictures(page: str) -> list[str]:
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_a_page_explains_every_input_with_two_pictures(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {NODE_DISPLAY_NAME_MAPPINGS[name]}\n")
    declared = NODE_CLASS_MAPPINGS[name].INPUT_TYPES()
    inputs = {**declared.get("required", {}), **declared.get("optional", {})}
    (table,) = re.findall(r"\| input \| what it does \|\n\|---\|---\|\n((?:\|.*\n)+)", page)
    rows = {name: row for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(rows) == set(inputs)
    folded = {key for key, spec in inputs.items() if len(spec) > 1 and spec[1].get("advanced")}
    assert {key for key, row in rows.items() if "(advanced)" in row.split("|")[1]} == folded
    effect, place = pictures(page)
    assert (effect, place) == (f"images/{name}.jpg", f"images/{name}_graph.png")
    for picture in (effect, place):
        assert (DOCS / picture).stat().st_size < 150_000
        with Image.open(DOCS / picture) as opened:
            opened.verify()


def test_no_page_and_no_picture_is_left_over() -> None:
    assert {page.stem for page in DOCS.glob("*.md")} == set(NODE_CLASS_MAPPINGS)
    shown = {picture for page in DOCS.glob("*.md") for picture in pictures(page.read_text(encoding="utf-8"))}
    assert shown == {path.relative_to(DOCS).as_posix() for path in (DOCS / "images").iterdir()}


def test_the_table_of_tasks_is_what_the_tasks_declare() -> None:
    page = (DOCS / "VDPOptimize.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| task \| finds \| takes \| presets \|\n\|---\|---\|---\|---\|\n((?:\|.*\n)+)", page)
    assert table == "".join(row(task) for task in TASKS.values())


def row(task: Task) -> str:
    taken = [*(["flow"] if task.needs_flow else []), *(one.name for one in task.inputs)]
    presets = [
        f"`{name}`" + "".join(f" without `{one.name}`" for one in preset.without)
        for name, preset in task.presets.items()
    ]
    return f"| `{task.name}` | {task.says} | {', '.join(f'`{name}`' for name in taken)} | {', '.join(presets)} |\n"
