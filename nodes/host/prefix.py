"""Tokens in the names that results are saved under."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = ["fill_prefix"]

TOKEN = re.compile(r"%([^%]+)%")
DATE_PART = re.compile("yyyy|yyy|yy|MM?|dd?|hh?|mm?|ss?")
TIMES = {"year": "yyyy", "month": "MM", "day": "dd", "hour": "hh", "minute": "mm", "second": "ss", "date": "yyyy-MM-dd"}
NOT_IN_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
MOST_OF_A_VALUE = 100  # bytes of a node's value; names have an end


def fill_prefix(
    prefix: str,
    *,
    prompt: object = None,
    workflow: object = None,
    size: tuple[int, int] | None = None,
    now: datetime | None = None,
) -> str:
    """A prefix with its tokens filled in as ComfyUI's editor and server do; tokens that mean nothing stay.

    ``%date:yyyy-MM-dd hh:mm:ss%`` with any of these parts, ``%date%``, ``%year%``, ``%month%``, ``%day%``, ``%hour%``,
    ``%minute%``, ``%second%``; ``%width%`` and ``%height%``; ``%NODE.widget%``, where NODE is a node's name for search
    and replace (its type, unless somebody chose another), or its title. What a file name cannot hold becomes ``_``,
    but for the ``/`` of a date, which makes folders.

    Args:
        prefix: as a person typed it.
        prompt: the graph in API format.
        workflow: the graph in the editor's format, which knows the names for search and replace.
        size: width and height in pixels of what is saved.
        now: the time, in the machine's own zone; by default when this is called.
    """
    moment = now or datetime.now()

    def filled(match: re.Match[str]) -> str:
        text = match[1]
        if size is not None and text in ("width", "height"):
            return str(size[text == "height"])
        if text.startswith("date:") or text in TIMES:
            written = DATE_PART.sub(lambda part: _date_part(part[0], moment), TIMES.get(text, text[len("date:") :]))
            return "/".join(map(_as_name, written.split("/")))
        node, dot, widget = text.partition(".")
        value = _widget_value(prompt, workflow, node, widget) if dot else None
        return match[0] if value is None else _as_name(value)

    return TOKEN.sub(filled, prefix)


def _as_name(text: str) -> str:
    """A text as a part of a file's name, which is neither empty nor a folder around this one."""
    named = NOT_IN_NAMES.sub("_", text.encode(errors="replace")[:MOST_OF_A_VALUE].decode(errors="ignore"))
    return named if named.strip(". ") else "_"


def _date_part(part: str, moment: datetime) -> str:
    if part == "yyy":  # means nothing in the editor
        return part
    numbers = {"M": moment.month, "d": moment.day, "h": moment.hour, "m": moment.minute, "s": moment.second}
    return str(moment.year)[-len(part) :] if part[0] == "y" else str(numbers[part[0]]).zfill(len(part))


def _widget_value(prompt: object, workflow: object, name: str, widget: str) -> str | None:
    """A constant of the node that goes by this name, in the editor's spelling; None where there is no such constant."""
    nodes = {str(key): _object(node) for key, node in _object(prompt).items()}
    listed = _object(workflow).get("nodes")
    aliases = {
        str(node.get("id")): _object(node.get("properties")).get("Node name for S&R")
        for node in map(_object, listed if isinstance(listed, list) else ())
    }
    called = [node for key, node in nodes.items() if (aliases.get(key) or node.get("class_type")) == name]
    called += [node for node in nodes.values() if _object(node.get("_meta")).get("title") == name]
    value = _object(called[0].get("inputs")).get(widget) if called else None
    for _ in range(10):  # from a node that holds a value, and passes for a widget
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            break
        value = _object(_object(nodes.get(str(value[0]))).get("inputs")).get("value")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value) if isinstance(value, (str, int, float)) else None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
