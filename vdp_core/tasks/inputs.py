"""The inputs of all tasks, each declared once."""

from __future__ import annotations

from .base import Input, later

__all__ = ["INPUTS", "LAYERS", "MASK", "MASK_FRAME", "REFERENCE", "REFERENCE_FRAME"]

LAYERS = Input(
    name="layers",
    socket="INT",
    options={
        "default": 2,
        "min": 2,
        "max": 4,
        "tooltip": "How many layers, the background included. Other tasks ignore it.",
    },
    check=later(__package__, ".given:check_layers"),
    required=True,
)
REFERENCE = Input(
    name="reference",
    socket="IMAGE",
    options={"tooltip": "One frame of this clip as it should look, graded by you; the whole clip follows it."},
    check=later(__package__, ".given:check_reference"),
    of_shot=later(__package__, ".given:reference_of_shot"),
)
REFERENCE_FRAME = Input(
    name="reference_frame",
    socket="INT",
    options={
        "default": -1,
        "min": -1,
        "max": 10_000_000,
        "advanced": True,
        "tooltip": "Which frame the reference shows, counted from 0; -1 looks for it.",
    },
    check=later(__package__, ".given:check_reference_frame"),
)
MASK = Input(
    name="mask",
    socket="MASK,IMAGE",
    options={
        "tooltip": "The object, in one frame (say which in mask_frame) or in as many frames as the clip has, of which "
        "any may be empty. Pictures will do: white on black, a shape in the alpha, ids or a palette."
    },
    check=later(__package__, ".given:check_masks"),
    of_shot=later(__package__, ".given:masks_of_shot"),
)
MASK_FRAME = Input(
    name="mask_frame",
    socket="INT",
    options={"default": 0, "min": 0, "max": 10_000_000, "tooltip": "Which frame a single mask belongs to."},
    check=later(__package__, ".given:check_mask_frame"),
)

INPUTS = (LAYERS, REFERENCE, MASK, REFERENCE_FRAME, MASK_FRAME)
"""In the order that the node shows them and saved workflows hold them: new ones go last."""
