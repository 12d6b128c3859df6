"""Parts of a workflow file, each of the kind it has to be or named in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .types import GraphError, short

__all__ = ["as_kind", "at", "dicts", "inputs_of", "key_of", "outputs_of", "shown_widgets", "title_of"]


def as_kind(kind: type, value: Any, what: str) -> Any:
    """``value`` if it is of this kind (an absent list or dict is empty), or the sentence that it is not."""
    if value is None and kind in (dict, list):
        return kind()
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise GraphError(f"the workflow is damaged: {short(what)} is {type(value).__name__}, expected {kind.__name__}")
    return value


def key_of(value: Any, what: str) -> str:
    """An id, which files give as a number or a text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise GraphError(
            f"the workflow is damaged: {short(what)} is {type(value).__name__}, expected a number or a text"
        )
    return str(value)


def dicts(value: Any, what: str) -> list[dict[str, Any]]:
    """A list of objects."""
    return [as_kind(dict, entry, f"an entry of {what}") for entry in as_kind(list, value, what)]


def at(entries: Sequence[dict[str, Any]], index: int) -> dict[str, Any] | None:
    """The entry at this place, None where there is none."""
    return entries[index] if 0 <= index < len(entries) else None


def inputs_of(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """What a node lists as its inputs."""
    return dicts(raw.get("inputs"), "the inputs of a node")


def outputs_of(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """What a node lists as its outputs."""
    return dicts(raw.get("outputs"), "the outputs of a node")


def shown_widgets(raw: dict[str, Any]) -> list[str]:
    """Names of the inputs that a node lists together with a widget."""
    return [name for entry in inputs_of(raw) if entry.get("widget") and isinstance(name := entry.get("name"), str)]


def title_of(raw: dict[str, Any]) -> str:
    """What a node is called: its title, else its type."""
    title = raw.get("title")
    return title if isinstance(title, str) and title else str(raw.get("type"))
