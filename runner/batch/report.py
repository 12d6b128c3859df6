"""What a batch came to: a table for the terminal, and a page for the browser that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .work import PICTURE

if TYPE_CHECKING:
    from .manifest import Entry

__all__ = ["summary_table", "write_report"]

PAGE = "report.html"  # the template, beside this file


def _figures(entry: Entry) -> str:
    return ", ".join(f"{name} {'none' if value is None else f'{value:.4g}'}" for name, value in entry.numbers.items())


def summary_table(entries: Sequence[Entry]) -> str:
    """A line for each clip: its folder, how it stands, seconds, figures or what went wrong."""
    wide = max((len(entry.folder) for entry in entries), default=0)
    return "\n".join(
        f"{entry.folder:{wide}}  {entry.state:7}  {entry.seconds:8.1f} s  {entry.error or _figures(entry)}".rstrip()
        for entry in entries
    )


def write_report(path: Path, entries: Sequence[Entry]) -> None:
    """Write the page, with the pictures of before and after inside and links to the results beside it.

    Raises:
        OSError: it cannot be written.
    """
    from jinja2 import Environment

    from ...vdp_core.store.files import beside

    def picture(entry: Entry) -> str:
        file = path.parent / entry.folder / PICTURE
        if entry.state != "done" or not file.is_file():
            return ""
        return f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name(PAGE).read_text(encoding="utf-8")
    )
    states = ("done", "failed", "waiting")
    page = template.render(
        entries=entries,
        counts={state: sum(entry.state == state for entry in entries) for state in states},
        figures=_figures,
        picture=picture,
        address=lambda output: quote(output, errors="surrogateescape"),
    )
    with beside(path) as partial:
        # Names of files may hold what is no text.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
