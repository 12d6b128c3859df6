"""Changing what was found: Relight and Dehaze."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from ..vdp_core.models.base import Model
    from ..vdp_core.types import Layers


class Relight(host.Foreseeing):
    """Put new light on a decomposed clip."""

    CATEGORY = "VDP/edit"
    DESCRIPTION = (
        "Applies the light that VDPOptimize found, at the clip's own size, with its strength, brightness and warmth "
        "as you set them. Nothing is optimised again when a slider moves."
    )
    SEARCH_ALIASES = [
        "brighten",
        "darken",
        "relighting",
        "exposure",
        "brightness",
        "gamma",
        "low light",
        "night",
        "even out light",
        "denoise",
        "remove noise",
        "color grade",
        "color temperature",
        "warmth",
    ]
    FUNCTION = "relight"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("frames",)
    OUTPUT_TOOLTIPS = ("The relit clip.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": ("VDP_LAYERS", {"tooltip": "From VDPOptimize with the task relight, or LoadLayers."}),
                "strength": _slider(1.0, 0.0, 1.5, "0 keeps the light as it is, 1 removes the light that was found."),
                "exposure": _slider(0.0, -4.0, 4.0, "Brighter or darker, in stops of scene light."),
                "gamma": _slider(1.0, 0.2, 5.0, "Above 1 lifts the middle tones, below 1 lowers them."),
                "warmth": _slider(0.0, -1.0, 1.0, "Above 0 warmer (more red, less blue), below 0 cooler."),
                "denoise": _slider(
                    1.0, 0.0, 1.0, "Share of the noise to remove. The first run takes a while; its result is kept."
                ),
            },
        }

    @classmethod
    def foresee(cls, layers: Layers | None = None, **_: object) -> tuple[Tensor | None]:
        from ..vdp_core.models import light

        return _foreseen(layers, light.MODEL, "Relight")

    def relight(
        self, layers: Layers, strength: float, exposure: float, gamma: float, warmth: float, denoise: float
    ) -> tuple[Tensor]:
        from ..vdp_core.models import light

        return _edited(
            "Relight",
            layers,
            lambda device, on_step: light.apply(
                layers,
                strength=strength,
                exposure=exposure,
                gamma=gamma,
                warmth=warmth,
                denoise=denoise,
                device=device,
                on_step=on_step,
            ),
        )


class Dehaze(host.Foreseeing):
    """Take the haze off a decomposed clip, or put some on."""

    CATEGORY = "VDP/edit"
    DESCRIPTION = (
        "Takes off the haze, fog or smoke that VDPOptimize found, at the clip's own size, or adds more of it by the "
        "same model. Nothing is optimised again when a slider moves."
    )
    SEARCH_ALIASES = [
        "haze",
        "fog",
        "mist",
        "smoke",
        "smog",
        "defog",
        "remove haze",
        "remove fog",
        "add haze",
        "add fog",
        "clarity",
        "contrast",
        "denoise",
    ]
    FUNCTION = "dehaze"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("frames",)
    OUTPUT_TOOLTIPS = ("The clip with less haze, or more.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": ("VDP_LAYERS", {"tooltip": "From VDPOptimize with the task dehaze, or LoadLayers."}),
                "strength": _slider(
                    1.0, -1.0, 1.0, "1 removes the haze that was found, 0 keeps it, below 0 adds haze."
                ),
                "min_transmission": _slider(
                    0.1,
                    0.0,
                    1.0,
                    "How far to look through the haze: higher leaves haze in the distance, with less noise.",
                ),
                "airlight_tint": _slider(
                    0.0, -1.0, 1.0, "Colour of the haze that is taken off or added: above 0 warmer, below 0 cooler."
                ),
                "denoise": _slider(
                    1.0,
                    0.0,
                    1.0,
                    "Share of the noise to remove; removing haze would amplify it. The first run takes a while; its "
                    "result is kept.",
                ),
            },
        }

    @classmethod
    def foresee(cls, layers: Layers | None = None, **_: object) -> tuple[Tensor | None]:
        from ..vdp_core.models import haze

        return _foreseen(layers, haze.MODEL, "Dehaze")

    def dehaze(
        self, layers: Layers, strength: float, min_transmission: float, airlight_tint: float, denoise: float
    ) -> tuple[Tensor]:
        from ..vdp_core.models import haze

        return _edited(
            "Dehaze",
            layers,
            lambda device, on_step: haze.apply(
                layers,
                strength=strength,
                min_transmission=min_transmission,
                tint=airlight_tint,
                denoise=denoise,
                device=device,
                on_step=on_step,
            ),
        )


def _foreseen(layers: Layers | None, model: Model, what: str) -> tuple[Tensor | None]:
    """Refuse layers of another model; else what the edited frames will be."""
    if layers is None:
        return (None,)
    model.require(layers, what)
    return (host.frames_like(layers.frames, layers.alpha),)


def _edited(label: str, layers: Layers, work: Callable[[torch.device, host.OnStep], Tensor]) -> tuple[Tensor]:
    """Apply an edit on the host's device, and say how it went."""
    done = host.compute(label, len(layers), work, memory=host.native_memory(layers.frames))
    host.say(done.with_warning(f"{label}: {host.described(done.result)}"))
    (frames,) = host.hand_on(done.result)
    return (host.with_alpha(frames, layers.alpha),)


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
