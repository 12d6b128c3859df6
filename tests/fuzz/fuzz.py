"""Fuzz one reader for as long as you like, led by coverage: ``pip install atheris``, then in an empty folder ::

    python .../tests/fuzz/fuzz.py workflow -max_total_time=600

What comes after the target goes to libFuzzer. What it finds it leaves there as ``crash-...``, ``timeout-...`` or
``oom-...``; give that file as the last argument to see it again, then add a small case to ``test_found.py``.
"""

from __future__ import annotations

import logging
import random
import sys
import tempfile
from pathlib import Path

import atheris
import torch  # noqa: F401 (before the others: to follow every step of torch takes minutes)

with atheris.instrument_imports(include=["comfyui_vdp"]):
    import targets

LIMITS = (
    *("-timeout=30", "-rss_limit_mb=6000", "-max_len=1000000", "-len_control=0", "-print_final_stats=1"),
    *("-handle_term=0", "-handle_int=0"),  # the readers have handlers of their own
)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in targets.TARGETS:
        sys.exit(f"usage: fuzz.py {{{','.join(targets.TARGETS)}}} [libFuzzer options]")
    logging.disable(logging.WARNING)
    tempfile.tempdir = str(Path.cwd())  # libFuzzer ends without tidying up
    target = targets.TARGETS[sys.argv[1]]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        made = target.damage(data, chance) if chance.random() < 0.8 else atheris.Mutate(data, most)
        return made[:most]

    corpus = Path(f"corpus-{sys.argv[1]}")
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(seed)
    arguments = [sys.argv[0], *LIMITS, *sys.argv[2:]]
    if not any(Path(argument).is_file() for argument in sys.argv[2:]):
        arguments.append(str(corpus))
    atheris.Setup(arguments, target.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
