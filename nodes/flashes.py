"""Flashes: FlashSafety."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor


class FlashSafety(host.Foreseeing):
    """Measure a clip's flashes and stripes, and lower what may set off seizures."""

    CATEGORY = "VDP/edit"
    DESCRIPTION = (
        "Measures general and red flashes and striped patterns by the limits of ITU-R BT.1702 and WCAG 2.3.1, and "
        "lowers what fails just enough to pass. A clip that passes comes out as it is. It is no certified test."
    )
    SEARCH_ALIASES = [
        "photosensitive epilepsy",
        "PSE",
        "Harding test",
        "strobe",
        "flash",
        "flicker",
        "flashing lights",
        "seizure",
        "broadcast safe",
        "accessibility",
        "WCAG",
        "BT.1702",
        "stripes",
    ]
    FUNCTION = "make_safe"
    RETURN_TYPES = ("IMAGE", "STRING", "IMAGE")
    RETURN_NAMES = ("frames", "report", "chart")
    OUTPUT_TOOLTIPS = (
        "The clip, lowered where it failed.",
        "What was found before and after, and what was done, as JSON.",
        "Luminance and flashes in a second over time, with what failed shaded.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip.", "lazy": True}),
                "fps": host.rate("Frames a second, as the clip will be played: link the fps of Load Frames."),
            },
        }

    @classmethod
    def foresee(cls, frames: Tensor | None = None, **_: object) -> tuple[Tensor | None, None, None]:
        return host.frames_like(frames, host.alpha_of(frames)), None, None

    def make_safe(self, frames: Tensor, fps: float = 24.0) -> tuple[Tensor, str, Tensor]:
        from ..vdp_core.edit import flash_safety

        alpha, clip = host.alpha_of(frames), host.on_cpu(frames)
        done = host.compute(
            "Flash safety",
            len(clip),
            lambda device, on_step: flash_safety.make_safe(clip, fps, device=device, on_step=on_step),
            memory=host.native_memory(clip),
            previews=False,
        )
        safety = done.result
        before, after = safety.report["before"], safety.report["after"]
        found = f"{host.described(clip)}: {_counted(before)}"
        if before["passes"]:
            host.say(f"FlashSafety: {found}: passes, and is left as it is, {done.seconds:.1f} s")
        else:
            spans = ", ".join("{}-{}".format(*part["frames"]) for part in safety.report["lowered"])
            still = "" if after["passes"] else f"still fails, with {_counted(after)}"
            host.say(done.with_warning(f"FlashSafety: {found}: failed, lowered in frames {spans}", still))
        made, chart = host.hand_on(safety.frames, safety.chart)
        return host.with_alpha(made, alpha), json.dumps(safety.report), chart


def _counted(found: dict[str, Any]) -> str:
    """What was found, in words."""
    general, red = found["flashes_per_second"], found["red_flashes_per_second"]
    return f"{general:g} flashes and {red:g} red ones in a second, stripes over {found['striped_area']:.0%}"
