"""What nodes take and give, read from the node classes here or from a server's ``/object_info``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .types import InputSpec, NodeSpec

__all__ = ["Primitive", "local_specs", "server_specs", "spec_of_class"]


DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"  # its choices add inputs of their own


def _input_spec(name: str, declared: Any, *, required: bool) -> InputSpec:
    kind = declared[0]
    options = dict(declared[1]) if len(declared) > 1 and isinstance(declared[1], Mapping) else {}
    if isinstance(kind, (list, tuple)):
        return InputSpec(name, "COMBO", required, options, tuple(kind))
    choices = options.get("options") if kind in ("COMBO", DYNAMIC_COMBO) else None
    if kind == DYNAMIC_COMBO:
        found = {str(choice["key"]): choice.get("inputs") or {} for choice in choices or ()}
        branches = {key: _input_specs(inputs, within=f"{name}.") for key, inputs in found.items()}
        return InputSpec(name, "COMBO", required, options, tuple(found), branches)
    return InputSpec(name, str(kind), required, options, tuple(choices) if isinstance(choices, list) else None)


def _input_specs(declared: Mapping[str, Any], *, within: str = "") -> dict[str, InputSpec]:
    return {
        within + name: _input_spec(within + name, entry, required=family == "required")
        for family in ("required", "optional")
        for name, entry in (declared.get(family) or {}).items()
    }


def _type_name(kind: Any) -> str:
    return "COMBO" if isinstance(kind, (list, tuple)) else str(kind)


def spec_of_class(name: str, node_class: Any, display_name: str = "") -> NodeSpec:
    """The spec of a node class of ComfyUI's first generation (``INPUT_TYPES``, ``RETURN_TYPES``, ``FUNCTION``)."""
    declared = node_class.INPUT_TYPES()
    output_types = tuple(_type_name(kind) for kind in node_class.RETURN_TYPES)
    return NodeSpec(
        name=name,
        inputs=_input_specs(declared),
        output_types=output_types,
        output_names=tuple(getattr(node_class, "RETURN_NAMES", output_types)),
        is_output=bool(getattr(node_class, "OUTPUT_NODE", False)),
        display_name=display_name or name,
        description=getattr(node_class, "DESCRIPTION", ""),
        category=getattr(node_class, "CATEGORY", ""),
        hidden=declared.get("hidden") or {},
        node_class=node_class,
    )


class Primitive:
    """ComfyUI's own nodes that hold one value, so that graphs with them run headless too."""

    CATEGORY = "utils/primitive"
    FUNCTION = "give"
    RETURN_TYPES: tuple[str, ...] = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (cls.RETURN_TYPES[0], {})}}

    def give(self, value: Any) -> tuple[Any]:
        return (value,)


_PRIMITIVES = {
    "PrimitiveInt": "INT",
    "PrimitiveFloat": "FLOAT",
    "PrimitiveString": "STRING",
    "PrimitiveStringMultiline": "STRING",
    "PrimitiveBoolean": "BOOLEAN",
}


def local_specs() -> dict[str, NodeSpec]:
    """The nodes that run without a server: this pack's, and ComfyUI's value nodes."""
    from ...nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    specs = {
        name: spec_of_class(name, type(name, (Primitive,), {"RETURN_TYPES": (kind,)}))
        for name, kind in _PRIMITIVES.items()
    }
    for name, node_class in NODE_CLASS_MAPPINGS.items():
        specs[name] = spec_of_class(name, node_class, NODE_DISPLAY_NAME_MAPPINGS.get(name, ""))
    return specs


def server_specs(object_info: Mapping[str, Any]) -> dict[str, NodeSpec]:
    """The nodes that a server has, from the answer of its ``/object_info``."""
    return {
        name: NodeSpec(
            name=name,
            inputs=_input_specs(info.get("input") or {}),
            output_types=tuple(_type_name(kind) for kind in info.get("output") or ()),
            output_names=tuple(str(output) for output in info.get("output_name") or ()),
            is_output=bool(info.get("output_node")),
            display_name=info.get("display_name") or name,
            description=info.get("description") or "",
            category=info.get("category") or "",
        )
        for name, info in object_info.items()
    }
