"""Progress and status lines on stderr, for a person at a terminal and for a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ..nodes.host import time_left
from .graph.types import in_line

__all__ = ["Terminal"]

LOG_EVERY = 10.0  # seconds between two lines of progress where stderr is no terminal


class Terminal:
    """Shows what is going on; ``title`` is put before the label of the work that runs."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.title = ""

    def say(self, text: str) -> None:
        """One status line, or several; names in it come from files, and must not command the terminal."""
        if not self.quiet:
            tqdm.write("\n".join(map(in_line, text.split("\n"))), file=sys.stderr)

    @contextmanager
    def progress(self, total: int, label: str) -> Iterator[Callable[[int, int, Any], None]]:
        """Progress of one piece of work; yields ``on_step(done, total, preview)``, which shows no previews."""
        label = f"{self.title}: {label}" if self.title and label else self.title or label
        shown = self._bar(total, label) if sys.stderr.isatty() else self._lines(label)
        if self.quiet:
            yield _ignore_step
        else:
            yield from shown

    @contextmanager
    def overall(self, total: int, label: str) -> Iterator[Callable[[int, str], None]]:
        """Progress over many pieces of work; yields ``show(done, doing)``, the second in words."""
        if self.quiet or not sys.stderr.isatty():
            with self.progress(total, label) as on_step:
                yield lambda done, doing: on_step(done, total, None)
            return
        with tqdm(total=total, desc=label, file=sys.stderr, dynamic_ncols=True) as bar:

            def show(done: int, doing: str) -> None:
                bar.update(done - bar.n)
                bar.set_postfix_str(doing)

            yield show

    @staticmethod
    def _bar(total: int, label: str) -> Iterator[Callable[[int, int, Any], None]]:
        with tqdm(total=total, desc=label, file=sys.stderr, leave=True, dynamic_ncols=True) as bar:

            def on_step(done: int, total: int, preview: Any = None) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield on_step

    @staticmethod
    def _lines(label: str) -> Iterator[Callable[[int, int, Any], None]]:
        start = last = now = time.monotonic()
        said = reached = (0, 0)

        def say() -> None:
            nonlocal last, said
            last, said = now, reached
            left = time_left(*reached, now - start)
            print(f"{label}: {reached[0]}/{reached[1]} after {now - start:.0f} s{left}", file=sys.stderr, flush=True)

        def on_step(done: int, total: int, preview: Any = None) -> None:
            nonlocal now, reached
            now, reached = time.monotonic(), (done, total)
            if now - last >= LOG_EVERY and reached != said:
                say()

        yield on_step
        # Work that does not know how long it is may come to its end many times, so the last line waits for the last.
        if reached != said and reached[0] == reached[1]:
            say()


def _ignore_step(done: int, total: int, preview: Any = None) -> None:
    """Show no progress."""
