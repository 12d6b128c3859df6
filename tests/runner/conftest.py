"""Small throwaway nodes, so that the runner is tested apart from the pack's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comfyui_vdp.nodes import host
from comfyui_vdp.runner.graph.specs import spec_of_class
from comfyui_vdp.runner.graph.types import Specs
from comfyui_vdp.vdp_core.errors import InputError
from comfyui_vdp.vdp_core.store.files import numbered

log: list[str] = []
"""What the nodes did, in order."""


class Number:
    FUNCTION, RETURN_TYPES = "make", ("NUMBER",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "value": ("INT", {"default": 1, "min": 0, "max": 10, "tooltip": "What it gives."}),
                "seed": ("INT", {"default": 0, "control_after_generate": True}),
                "kind": (["plain", "odd"], {}),
                "scale": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 4.0}),
                "name": ("STRING", {"default": "n"}),
                "loud": ("BOOLEAN", {"default": False}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, name: str) -> bool | str:
        return True if name != "missing.mp4" else "no file missing.mp4"

    def make(self, value: int, seed: int, kind: str, scale: float, name: str, loud: bool) -> tuple[Any]:
        log.append(f"make {name}")
        if name == "bad input":
            raise InputError("value is bad; give another")
        if name == "defect":
            raise ZeroDivisionError("by nought")
        return (value * scale,)


class Add:
    FUNCTION, RETURN_TYPES, RETURN_NAMES = "add", ("NUMBER", "STRING"), ("sum", "text")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("NUMBER",)}, "optional": {"b": ("NUMBER",), "note": ("STRING", {"default": ""})}}

    def add(self, a: float, b: float = 0.0, note: str = "") -> tuple[float, str]:
        log.append("add")
        return (a + b, f"{a + b}")


class Report:
    FUNCTION, RETURN_TYPES, OUTPUT_NODE = "show", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"number": ("NUMBER",), "filename_prefix": ("STRING", {"default": "report"})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO", "unique_id": "UNIQUE_ID"},
        }

    def show(self, number: float, filename_prefix: str, prompt: Any, extra_pnginfo: Any, unique_id: str) -> Any:
        log.append(f"show {number} as {unique_id} of {len(prompt)}, {sorted(extra_pnginfo or {})}")
        path = host.output_path(filename_prefix)
        with numbered(path.parent, path.name, ".txt") as place:
            place.partial.write_text(str(number))
        path = place.target
        return {
            "ui": {
                "vdp_outputs": [str(path.relative_to(host.output_folder()))],
                "vdp_numbers": [{"number": number, "loss": float("inf")}],
            }
        }


@pytest.fixture
def node_log() -> list[str]:
    log.clear()
    return log


@pytest.fixture
def make_specs() -> Callable[..., Specs]:
    """Specs of the throwaway nodes and of any classes given by name."""

    def make(**classes: type) -> Specs:
        primitive = {"Number": Number, "Add": Add, "Report": Report}
        return {name: spec_of_class(name, node_class) for name, node_class in {**primitive, **classes}.items()}

    return make


@pytest.fixture
def specs(make_specs: Callable[..., Specs]) -> Specs:
    return make_specs()


@pytest.fixture
def api_graph() -> dict[str, Any]:
    """Number -> Add -> Report, in API format."""
    number = {"value": 3, "seed": 0, "kind": "plain", "scale": 2.0, "name": "n", "loud": False}
    return {
        "1": {"class_type": "Number", "inputs": number, "_meta": {"title": "Clip"}},
        "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": ["1", 0]}},
        "3": {"class_type": "Report", "inputs": {"number": ["2", 0], "filename_prefix": "report"}},
    }
