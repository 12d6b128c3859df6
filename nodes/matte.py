"""Mattes without a mask: MatteVideo of people, KeyScreen of what stands in front of a screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..vdp_core.types import Layers

WEIGHTS = "video_matting"
"""ComfyUI's folder for weights."""


class MatteVideo(host.Foreseeing):
    """Find mattes of people, and their colours, with the network of Robust Video Matting."""

    CATEGORY = "VDP/decompose"
    DESCRIPTION = (
        "Finds soft mattes of people in a clip, and their own colours without what shines through, with the recurrent "
        "network of Robust Video Matting. It needs no mask and no optimisation. The network's weights are not part of "
        "this pack (GPL-3.0)."
    )
    SEARCH_ALIASES = [
        "robust video matting",
        "RVM",
        "matting",
        "remove background",
        "rembg",
        "green screen",
        "cut out person",
        "people",
        "portrait",
        "alpha",
        "rotoscope",
    ]
    FUNCTION = "find"
    RETURN_TYPES = ("MASK", "IMAGE", "VDP_LAYERS")
    RETURN_NAMES = ("mask", "foreground", "layers")
    OUTPUT_TOOLTIPS = (
        "How far people cover each pixel, 1 = people alone.",
        "People's own colours, not multiplied with the mask, which they carry as alpha; black where there is nobody.",
        "Background and people, for Composite, ReplaceLayer, SplitLayers and SaveLayers.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip.", "lazy": True}),
                "weights": (
                    "STRING",
                    {
                        "default": "auto",
                        "tooltip": "auto: rvm_mobilenetv3, or else rvm_resnet50, from models/video_matting or torch's "
                        "cache. A file's name there, or a path. The authors' .pth and .torchscript files work; their "
                        "licence is GPL-3.0. Nothing is downloaded.",
                    },
                ),
                "downsample_ratio": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.005,
                        "round": 0.0001,
                        "tooltip": "The network sees a copy of so many times the size; 0: of 512 pixels at most. "
                        "People who fill the frame: 0.25 for 1920x1080, 0.375 for 1280x720; whole figures: 0.4 and "
                        "0.6.",
                    },
                ),
                "refiner": (
                    ["deep", "fast"],
                    {
                        "default": "deep",
                        "tooltip": "How borders reach native size where the copy is smaller. deep: learnt, the better "
                        "one. fast: a plain guided filter.",
                    },
                ),
                "chunk": (
                    "INT",
                    {
                        "default": 4,
                        "min": 1,
                        "max": 64,
                        "advanced": True,
                        "tooltip": "Frames that go through the network at once. More is faster on a GPU, and takes "
                        "memory; the result is the same.",
                    },
                ),
            },
            "optional": {
                "warm_up": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 60,
                        "advanced": True,
                        "tooltip": "So many frames of the beginning of each shot are shown to the network backwards "
                        "before it begins, so that it does not begin from nothing. 15 is enough.",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, weights: str | None = None) -> bool | str:
        from ..vdp_core.nets.matting_weights import find_matting

        return weights is None or host.weights_problem(lambda: find_matting(weights, host.weights_folders(WEIGHTS)))

    @classmethod
    def IS_CHANGED(cls, weights: str | None = None, **_: object) -> str:
        from ..vdp_core.nets.matting_weights import find_matting

        return host.weights_state(lambda: find_matting(weights or "auto", host.weights_folders(WEIGHTS)))

    @classmethod
    def foresee(
        cls,
        frames: Tensor | None = None,
        weights: str | None = None,
        downsample_ratio: float | None = None,
        refiner: str | None = None,
        chunk: int | None = None,
        warm_up: int | None = None,
        **_: object,
    ) -> tuple[Tensor | None, Tensor | None, Layers | None]:
        from ..vdp_core.edit.matte_video import check_clip, check_settings
        from ..vdp_core.models import masks
        from ..vdp_core.nets.matting_weights import find_matting

        if weights is not None:
            find_matting(weights, host.weights_folders(WEIGHTS))
        if frames is None:
            return None, None, None
        clip = check_clip(host.on_cpu(frames))
        check_settings(
            (clip.shape[1], clip.shape[2]),
            ratio=downsample_ratio or 0.0,
            refiner=refiner or "deep",
            chunk=1 if chunk is None else chunk,
            warm_up=warm_up or 0,
        )
        layers = masks.MODEL.stand_in(frames, {"L": 2})
        return host.mask_like(frames), host.frames_like(frames), replace(layers, alpha=host.alpha_of(frames))

    def find(
        self,
        frames: Tensor,
        weights: str = "auto",
        downsample_ratio: float = 0.0,
        refiner: str = "deep",
        chunk: int = 4,
        warm_up: int = 0,
    ) -> tuple[Tensor, Tensor, Layers]:
        """See DESCRIPTION."""
        from ..vdp_core.edit.matte_video import matte_video, memory_needed
        from ..vdp_core.models.masks import matte_and_colours
        from ..vdp_core.nets.matting_weights import find_matting

        path = find_matting(weights, host.weights_folders(WEIGHTS))
        alpha, clip = host.on_cpu(host.alpha_of(frames)), host.on_cpu(frames)
        done = host.compute(
            "Matte",
            len(clip),
            lambda device, on_step: matte_video(
                clip,
                path,
                ratio=downsample_ratio,
                refiner=refiner,
                chunk=chunk,
                warm_up=warm_up,
                device=device,
                half=host.use_half(device),
                on_step=on_step,
            ),
            memory=memory_needed(clip.shape[1], clip.shape[2], downsample_ratio, chunk) + host.native_memory(clip),
            cure="lower chunk or downsample_ratio",
        )
        layers = replace(done.result, alpha=alpha)
        mask, foreground = host.hand_on(*matte_and_colours(layers))
        shots = int(layers.info["shots"])
        cuts = f", {shots} shots" if shots > 1 else ""
        host.say(done.with_warning(f"matte: {path.name}, {host.described(clip)} at ratio {layers.info['ratio']}{cuts}"))
        return mask, host.with_alpha(foreground, mask), layers


class KeyScreen(host.Foreseeing):
    """Find mattes and colours of what stands in front of a green or blue screen."""

    CATEGORY = "VDP/decompose"
    DESCRIPTION = (
        "Takes a green or blue screen out of a clip: soft mattes of what stands in front of it, and its own colours "
        "without the screen's light on them. The screen's colour, its uneven light and its wrinkles are found on the "
        "clip itself."
    )
    SEARCH_ALIASES = [
        "green screen",
        "greenscreen",
        "blue screen",
        "bluescreen",
        "chroma key",
        "chromakey",
        "keyer",
        "keying",
        "keylight",
        "despill",
        "spill suppression",
        "remove background",
        "alpha",
        "matting",
    ]
    FUNCTION = "key"
    RETURN_TYPES = ("MASK", "IMAGE", "VDP_LAYERS")
    RETURN_NAMES = ("mask", "foreground", "layers")
    OUTPUT_TOOLTIPS = (
        "How far the screen is covered in each pixel, 1 = nothing of it is seen.",
        "Colours without the screen and its light, not multiplied with the mask, which they carry as alpha; black "
        "where there is only screen.",
        "The screen and what stands in front of it, for Composite, ReplaceLayer, SplitLayers and SaveLayers.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip.", "lazy": True}),
                "screen": (
                    "STRING",
                    {
                        "default": "auto",
                        "tooltip": "auto: green or blue, whichever fills more of the clip. green or blue; or, of any "
                        "other screen, about its colour: #a03090, or 160, 48, 144.",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, screen: str | None = None) -> bool | str:
        from ..vdp_core.edit.key_screen import check_screen
        from ..vdp_core.errors import InputError

        try:
            _ = screen is None or check_screen(screen)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def foresee(
        cls, frames: Tensor | None = None, screen: str | None = None, **_: object
    ) -> tuple[Tensor | None, Tensor | None, Layers | None]:
        from ..vdp_core.edit.key_screen import check_clip, check_screen
        from ..vdp_core.models import masks

        check_screen(screen or "auto")
        if frames is None:
            return None, None, None
        check_clip(host.on_cpu(frames))
        layers = masks.MODEL.stand_in(frames, {"L": 2})
        return host.mask_like(frames), host.frames_like(frames), replace(layers, alpha=host.alpha_of(frames))

    def key(self, frames: Tensor, screen: str = "auto") -> tuple[Tensor, Tensor, Layers]:
        """See DESCRIPTION."""
        from ..vdp_core.edit.key_screen import key_screen
        from ..vdp_core.models.masks import matte_and_colours

        alpha, clip = host.on_cpu(host.alpha_of(frames)), host.on_cpu(frames)
        done = host.compute(
            "Key",
            len(clip),
            lambda device, on_step: key_screen(clip, screen=screen, device=device, on_step=on_step),
            memory=host.native_memory(clip),
            cure="make the clip smaller",
        )
        layers = replace(done.result, alpha=alpha)
        mask, foreground = host.hand_on(*matte_and_colours(layers))
        host.say(done.with_warning(f"key: screen {layers.info['screen']}, {host.described(clip)}"))
        return mask, host.with_alpha(foreground, mask), layers
