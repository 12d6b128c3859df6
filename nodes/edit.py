"""Changing what was found: Relight, Dehaze and Deflicker."""

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
            "optional": {
                "neutral": _slider(0.0, 0.0, 1.0, "0 keeps the colour of the light, as of a lamp, 1 takes it off."),
            },
        }

    @classmethod
    def foresee(cls, layers: Layers | None = None, **_: object) -> tuple[Tensor | None]:
        from ..vdp_core.models import light

        return _foreseen(layers, light.MODEL, "Relight")

    def relight(
        self,
        layers: Layers,
        strength: float,
        exposure: float,
        gamma: float,
        warmth: float,
        denoise: float,
        neutral: float = 0.0,
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
                neutral=neutral,
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
            "optional": {
                "haze": (
                    ["auto", "believe"],
                    {
                        "default": "auto",
                        "tooltip": "auto takes off as much as is sure to be haze, VDPOptimize says how much that is; "
                        "believe takes off all that may be.",
                    },
                ),
            },
        }

    @classmethod
    def foresee(cls, layers: Layers | None = None, **_: object) -> tuple[Tensor | None]:
        from ..vdp_core.models import haze

        return _foreseen(layers, haze.MODEL, "Dehaze")

    def dehaze(
        self,
        layers: Layers,
        strength: float,
        min_transmission: float,
        airlight_tint: float,
        denoise: float,
        haze: str = "auto",
    ) -> tuple[Tensor]:
        from ..vdp_core.models import haze as model

        return _edited(
            "Dehaze",
            layers,
            lambda device, on_step: model.apply(
                layers,
                strength=strength,
                min_transmission=min_transmission,
                tint=airlight_tint,
                denoise=denoise,
                believe=haze == "believe",
                device=device,
                on_step=on_step,
            ),
        )


class Deflicker(host.Foreseeing):
    """Take the flicker out of a decomposed clip."""

    CATEGORY = "VDP/edit"
    DESCRIPTION = (
        "Takes out the flicker that VDPOptimize found, at the clip's own size: gain, contrast and cast of each frame, "
        "bands, and what flickers in a part of the frame. Grain, edges and real changes of light stay. Nothing is "
        "optimised again when a slider moves."
    )
    SEARCH_ALIASES = [
        "deflicker",
        "flicker",
        "remove flicker",
        "flickering light",
        "time-lapse",
        "timelapse",
        "exposure",
        "pulsing",
        "banding",
        "rolling bands",
        "mains hum",
        "LED lights",
        "old film",
        "brightness jumps",
        "color shift",
        "match brightness",
        "temporal consistency",
        "stabilize exposure",
    ]
    FUNCTION = "deflicker"
    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("frames", "curve")
    OUTPUT_TOOLTIPS = (
        "The clip without flicker.",
        "Over time: mean brightness before and after, and the gain of red, green and blue.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": (
                    "VDP_LAYERS",
                    {"tooltip": "From VDPOptimize with the task deflicker, or LoadLayers.", "lazy": True},
                ),
                "strength": _slider(1.0, 0.0, 1.5, "0 keeps the flicker, 1 takes out what was found."),
                "pivot": (
                    "INT",
                    {
                        "default": -1,
                        "min": -1,
                        "max": 10_000_000,
                        "tooltip": "The frame whose look is right, counted from 0: all others are matched to it. -1: "
                        "to the mean of the clip.",
                    },
                ),
                "smoothing": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 60.0,
                        "step": 0.1,
                        "round": 0.001,
                        "tooltip": "Seconds over which real changes of light are blended; 0 keeps them as they are.",
                    },
                ),
                "fps": host.rate("Frames a second, for smoothing and the curve: link the fps of Load Frames."),
            },
            "optional": {
                "region": (
                    "MASK,IMAGE",
                    {
                        "tooltip": "Measure here: the mean change in it is made in the whole frame. One mask for all "
                        "frames, or one each; pictures will do."
                    },
                ),
                "matte": (
                    "MASK,IMAGE",
                    {
                        "tooltip": "Change here: 1 takes the flicker out, 0 leaves the frame as it is. One for all "
                        "frames, or one each; pictures will do."
                    },
                ),
            },
        }

    @classmethod
    def foresee(cls, layers: Layers | None = None, **given: Any) -> tuple[Tensor | None, None]:
        from ..vdp_core.models import colour

        if layers is None:
            return None, None
        settings = {name: value for name, value in given.items() if value is not None}
        masks = {name: host.selected(name, settings.pop(name, None)) for name in ("region", "matte")}
        colour.check_settings(layers, **settings, **masks)
        return host.frames_like(layers.frames, layers.alpha), None

    def deflicker(
        self,
        layers: Layers,
        strength: float,
        pivot: int,
        smoothing: float,
        fps: float = 24.0,
        region: Tensor | None = None,
        matte: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        from ..vdp_core.models import colour

        settings: dict[str, Any] = {
            "strength": strength,
            "pivot": pivot,
            "smoothing": smoothing,
            "fps": fps,
            "region": host.selected("region", region),
            "matte": host.selected("matte", matte),
        }

        def work(device: torch.device, on_step: host.OnStep) -> tuple[Tensor, Tensor]:
            settings.update(device=device, on_step=on_step)
            return colour.apply(layers, **settings), colour.curves(layers, **settings)

        done = host.compute("Deflicker", len(layers), work, memory=host.native_memory(layers.frames))
        frames, curve = done.result
        host.say(done.with_warning(f"Deflicker: {host.described(frames)}"))
        frames, curve = host.hand_on(frames, curve)
        return host.with_alpha(frames, layers.alpha), curve


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
