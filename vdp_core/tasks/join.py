"""What was found in the shots of a clip, put together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..optim.fit import Fitted
from ..optim.windows import Window, combined_fit
from ..store.scratch import large_empty
from .base import Found, Given

__all__ = ["join"]


def join(found: Sequence[Found], spans: Sequence[range], given: Given) -> Found:
    """Put the fields of shots one after the other, and what they have to say under their numbers.

    Args:
        found: of each shot, in order; assets are those of the first.
        spans: the frames of each shot.
        given: the inputs of the whole clip.
    """
    fields = {}
    for name, field in found[0].fields.items():
        fields[name] = whole = large_empty(spans[-1].stop, *field.shape[1:], dtype=field.dtype)
        torch.cat([part.fields[name] for part in found], out=whole)
    notes = dict(found[0].notes)
    notes["said"] = "; ".join([f"{len(found)} shots", *dict.fromkeys(_numbered(found, "said"))])
    notes.pop("warning", None)
    if warnings := list(dict.fromkeys(_numbered(found, "warning"))):
        notes["warning"] = "; ".join(warnings)
    fitted: Fitted = combined_fit([Window({}, {}, part.fitted) for part in found])
    return Found(fields, fitted, notes, found[0].assets)


def _numbered(found: Sequence[Found], key: str) -> list[str]:
    """What shots have to say, by their number; nothing where they have nothing to say."""
    return [f"shot {number}: {part.notes[key]}" for number, part in enumerate(found, 1) if part.notes.get(key)]
