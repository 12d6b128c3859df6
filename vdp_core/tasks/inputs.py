"""The inputs of all tasks, each declared once."""

from __future__ import annotations

from .base import Input, later

__all__ = [
    "CAUSE",
    "FPS",
    "GUIDE",
    "INPUTS",
    "KEEP",
    "LAYERS",
    "MASK",
    "MASK_FRAME",
    "REFERENCE",
    "REFERENCE_FRAME",
    "WITH_SHADOW",
]

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

GUIDE = Input(
    name="guide",
    socket="IMAGE",
    options={"tooltip": "The steady original of a clip that was processed frame by frame, as long as the clip."},
    check=later(__package__, ".given:check_guide"),
    of_shot=later(__package__, ".given:frames_of_shot"),
)
CAUSE = Input(
    name="cause",
    socket="COMBO",
    options={
        "choices": ("auto", "mains", "time-lapse", "film", "seams", "cartoon", "processed", "lamp"),
        "default": "auto",
        "tooltip": "Where the flicker comes from. auto finds out, and keeps lamps that are switched; seams are steps "
        "between the pieces of generated clips, mains are bands of a rolling shutter.",
    },
    check=later(__package__, ".given:check_cause"),
)
KEEP = Input(
    name="keep",
    socket="FLOAT",
    options={
        "default": 1.0,
        "min": 0.0,
        "max": 3600.0,
        "step": 0.1,
        "tooltip": "Seconds from which on a change of light is real and stays, such as a sunset.",
    },
    check=later(__package__, ".given:check_keep"),
)
FPS = Input(
    name="fps",
    socket="FLOAT",
    options={
        "default": 24.0,
        "min": 0.01,
        "max": 1000.0,
        "step": 0.001,
        "round": False,
        "tooltip": "Frames a second: link the fps of Load Frames.",
    },
    check=later(__package__, ".given:check_fps"),
)

WITH_SHADOW = Input(
    name="with_shadow",
    socket="BOOLEAN",
    options={
        "default": False,
        "tooltip": "Find the object's shadow, or its reflection, too: a layer of its own behind the object, that goes "
        "with it onto another background, and away with it.",
    },
    check=later(__package__, ".given:check_with_shadow"),
)

INPUTS = (LAYERS, REFERENCE, MASK, REFERENCE_FRAME, MASK_FRAME, GUIDE, CAUSE, KEEP, FPS, WITH_SHADOW)
"""In the order that the node shows them and saved workflows hold them: new ones go last."""
