"""Changing what was found: Relight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..vdp_core.types import Layers


class Relight:
    """Put new light on a decomposed clip."""

    CATEGORY = "VDP/edit"
    DESCRIPTION = (
        "Applies the light that VDPOptimize found, at the clip's own size, and lets you set how much, how bright and "
        "how warm. Nothing is optimised again when a slider moves."
    )
    SEARCH_ALIASES = ["brighten", "darken", "exposure", "low light", "denoise", "grade", "warmth"]
    FUNCTION = "relight"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("frames",)
    OUTPUT_TOOLTIPS = ("The relit clip.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": ("VDP_LAYERS", {"tooltip": "From VDPOptimize with the task relight, or LoadLayers."}),
                "strength": _slider(1.0, 0.0, 1.5, "0 leaves the light as it is, 1 takes off what was found."),
                "exposure": _slider(0.0, -4.0, 4.0, "Brighter or darker, in stops of scene light."),
                "gamma": _slider(1.0, 0.2, 5.0, "Above 1 lifts the middle tones, below 1 lowers them."),
                "warmth": _slider(0.0, -1.0, 1.0, "Above 0 warmer (more red, less blue), below 0 cooler."),
                "denoise": _slider(
                    1.0, 0.0, 1.0, "How much of the noise to take out. The first run takes a while, then it is kept."
                ),
            },
        }

    def relight(
        self, layers: Layers, strength: float, exposure: float, gamma: float, warmth: float, denoise: float
    ) -> tuple[Tensor]:
        from ..vdp_core.tasks import relight

        with host.progress(len(layers), "Relight") as on_step:
            return (
                relight.apply(
                    layers,
                    strength=strength,
                    exposure=exposure,
                    gamma=gamma,
                    warmth=warmth,
                    denoise=denoise,
                    device=host.device(),
                    on_step=on_step,
                ),
            )


def _slider(default: float, low: float, high: float, tooltip: str) -> tuple[str, dict[str, Any]]:
    return (
        "FLOAT",
        {
            "default": default,
            "min": low,
            "max": high,
            "step": 0.01,
            "round": 0.001,
            "display": "slider",
            "tooltip": tooltip,
        },
    )
