"""Figures: MeasureVideo."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ..vdp_core.metrics import Figures
    from ..vdp_core.types import Flow


class MeasureVideo(host.Foreseeing):
    """Measure a clip against a reference, along its motion, and masks against masks."""

    CATEGORY = "VDP/measure"
    DESCRIPTION = (
        "Measures a clip: PSNR and SSIM against a reference, the warping error (flicker along the motion), and a mask "
        "or matte against a true one: IoU, boundary F, MAD, MSE and dtSSD, and if wanted what papers on matting print. "
        "Writes the figures, also those of each frame, into a JSON file. A figure whose inputs are not linked is left "
        "out of the report and comes out as not-a-number."
    )
    SEARCH_ALIASES = [
        "psnr",
        "ssim",
        "iou",
        "metrics",
        "compare video",
        "warping error",
        "quality",
        "flicker",
        "jaccard",
        "boundary F",
        "DAVIS",
        "matte error",
    ]
    FUNCTION = "measure"
    OUTPUT_NODE = True
    RETURN_TYPES = ("FLOAT", "FLOAT", "FLOAT", "FLOAT", "STRING", "FLOAT", "FLOAT", "FLOAT")
    RETURN_NAMES = ("psnr", "ssim", "warping_error", "iou", "report", "boundary_f", "mad", "mse")
    OUTPUT_TOOLTIPS = (
        "dB, higher is better; 100 for identical frames. Needs reference.",
        "Structural similarity, 1 is best. Needs reference.",
        "Mean difference, 0 to 1, between a frame and the frame before, warped along the motion; lower is calmer. "
        "Needs flow or reference.",
        "Intersection over union, 1 is best. Needs mask and reference_mask.",
        "All figures as text, one a line.",
        "How well outlines agree, 1 is best: the F of DAVIS. Needs mask and reference_mask.",
        "Mean absolute difference of mattes, 0 to 1, lower is better; papers give it times 1000. Needs mask and "
        "reference_mask.",
        "Mean squared difference of mattes, 0 to 1, lower is better; papers give it times 1000. Needs mask and "
        "reference_mask.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip to measure.", "lazy": True}),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "measure",
                        "tooltip": "Name of the JSON file below the output folder; may hold sub-folders.",
                    },
                ),
            },
            "optional": {
                "reference": ("IMAGE", {"tooltip": "The true clip: as many frames, of the same size."}),
                "mask": (
                    "MASK,IMAGE",
                    {
                        "tooltip": "A found mask or matte, or pictures of one, measured against reference_mask.",
                        "lazy": True,
                    },
                ),
                "reference_mask": ("MASK,IMAGE", {"tooltip": "The true mask: as many frames as mask, of its size."}),
                "flow": (
                    "VDP_FLOW",
                    {
                        "tooltip": "Motion of the clip, for the warping error, best estimated on the reference. "
                        "Without it the motion of the reference is estimated.",
                        "lazy": True,
                    },
                ),
                "published": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "advanced": True,
                        "tooltip": "With masks: also the figures that papers on video matting print, in their units: "
                        "MAD and MSE times 1000, Grad, Conn, dtSSD times 100; with a reference the foreground's MSE "
                        "times 1000.",
                    },
                ),
            },
            "hidden": {"prompt": "PROMPT"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: str | None = None) -> bool | str:
        return host.prefix_verdict(filename_prefix)

    @classmethod
    def foresee(cls, **given: Any) -> tuple[None, ...]:
        from ..vdp_core.metrics import check_given, check_same_clips, check_same_masks

        check_given(*(name in given for name in ("reference", "flow", "mask", "reference_mask")))
        frames, reference = given.get("frames"), given.get("reference")
        if frames is not None and reference is not None:
            check_same_clips(frames, reference)
        mask, reference_mask = (host.given_mask(given.get(name)) for name in ("mask", "reference_mask"))
        if mask is not None and reference_mask is not None:
            check_same_masks(mask, reference_mask)
        return (None,) * len(cls.RETURN_TYPES)

    def measure(
        self,
        frames: Tensor,
        filename_prefix: str = "measure",
        reference: Tensor | None = None,
        mask: Tensor | None = None,
        reference_mask: Tensor | None = None,
        flow: Flow | None = None,
        published: bool = False,
        prompt: object = None,
    ) -> dict[str, Any]:
        """See DESCRIPTION."""
        from ..vdp_core.image.selection import odd_masks
        from ..vdp_core.metrics import figures

        size = (frames.shape[2], frames.shape[1])
        path = host.output_path(host.fill_prefix(filename_prefix, prompt=prompt, size=size))
        started = time.perf_counter()
        mask, reference_mask = (host.on_cpu(host.given_mask(one)) for one in (mask, reference_mask))
        with host.progress(len(frames), "Measure") as on_step:
            numbers, per_frame = figures(
                host.on_cpu(frames),
                host.on_cpu(reference),
                mask,
                reference_mask,
                flow,
                on_step=on_step,
            )
        if published and mask is not None and reference_mask is not None:
            more = _published(frames, reference, mask, reference_mask)
            numbers |= more.numbers
            per_frame |= more.per_frame
        path = _write(path, json.dumps({**numbers, "per_frame": per_frame}, indent=2) + "\n")
        report = "\n".join(f"{name}: {value:.6g}" for name, value in numbers.items())
        result = tuple(report if name == "report" else numbers.get(name, math.nan) for name in self.RETURN_NAMES)
        saved = path.relative_to(host.output_folder()).as_posix()
        shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        line = f"measured: {shown}, {time.perf_counter() - started:.1f} s on cpu"
        masks = {"mask": mask, "reference_mask": reference_mask}
        odd = [note for name, one in masks.items() if one is not None for note in odd_masks(one, name)]
        host.say(line, *odd)
        return {"ui": {"vdp_numbers": [numbers], "vdp_outputs": [saved]}, "result": result}


def _published(frames: Tensor, reference: Tensor | None, mask: Tensor, reference_mask: Tensor) -> Figures:
    """The figures of papers, under names of their own; that of the foreground where frames are of the masks' size."""
    from ..vdp_core.metrics import Figures, published

    fits = reference is not None and frames.shape[1:3] == mask.shape[1:3]
    clips = (host.on_cpu(frames), host.on_cpu(reference)) if fits else (None, None)
    with host.progress(len(mask), "Measure mattes") as on_step:
        found = published(mask, reference_mask, *clips, on_step=on_step)
    return Figures(
        {f"published_{name}": value for name, value in found.numbers.items()},
        {f"published_{name}": values for name, values in found.per_frame.items()},
    )


def _write(path: Path, text: str) -> Path:
    """Write a small JSON file whole or not at all, under the first number that nothing has."""
    from ..vdp_core.errors import MediaError
    from ..vdp_core.store.files import numbered

    try:
        with numbered(path.parent, path.name, ".json") as place:
            place.partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({error.strerror or error})") from error
    return place.target
