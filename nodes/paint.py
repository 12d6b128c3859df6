"""Pictures painted into a clip: EditAtlas and EditFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from ..vdp_core.types import Layers

LAYERS = ("VDP_LAYERS", {"tooltip": "From VDPOptimize with the task atlas, or LoadLayers.", "lazy": True})
"""Made last, when the other inputs have been looked at."""
RETURN_TYPES = ("IMAGE", "VDP_LAYERS", "MASK")
RETURN_NAMES = ("frames", "layers", "confidence")
OUTPUT_TOOLTIPS = (
    "The clip with the edit. What it does not touch is exactly as it came in.",
    "The layers with this edit, for another one, or for Composite and SplitLayers.",
    "How sure the place of the edit is: 1 where it is, and where nothing was edited.",
)


class EditAtlas(host.Foreseeing):
    """Put an edited texture on a layer of the clip."""

    CATEGORY = "VDP/edit"
    DESCRIPTION = (
        "Paints on a layer: what you change in the texture that AtlasTexture gives, or lay over it, appears in every "
        "frame in its place, in the frame's light, behind what is in front. Nothing is optimised again."
    )
    SEARCH_ALIASES = [
        "paint",
        "edit texture",
        "layered neural atlases",
        "edit propagation",
        "logo",
        "sticker",
        "tattoo",
        "overlay",
        "replace texture",
        "projection",
        "retouch",
        "clean up",
    ]
    FUNCTION = "paint"
    RETURN_TYPES = RETURN_TYPES
    RETURN_NAMES = RETURN_NAMES
    OUTPUT_TOOLTIPS = OUTPUT_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": LAYERS,
                "picture": (
                    "IMAGE",
                    {
                        "tooltip": "The texture with your edit: what differs from it is the edit. Or a picture with "
                        "alpha, or with a mask, laid over it. It covers the whole texture."
                    },
                ),
                "layer": ("INT", {"default": 0, "min": 0, "max": 3, "tooltip": "0 is the background."}),
            },
            "optional": {"mask": _mask("picture")},
        }

    @classmethod
    def foresee(
        cls,
        layers: Layers | None = None,
        picture: Tensor | None = None,
        layer: int | None = None,
        mask: Any = None,
        **_: object,
    ) -> tuple[Tensor | None, Layers | None, Tensor | None]:
        from ..vdp_core.edit.atlas import check_pictures
        from ..vdp_core.models.atlas import MODEL

        if layers is not None:
            MODEL.require(layers, "EditAtlas")
            if layer is not None and layers.fields:
                MODEL.check_layer(layers, layer)
        if picture is not None:
            check_pictures(host.on_cpu(picture), _opacity(picture, mask), most=1)
        return _foreseen(layers)

    def paint(self, layers: Layers, picture: Tensor, layer: int, mask: Any = None) -> tuple[Tensor, Layers, Tensor]:
        from ..vdp_core.edit.atlas import edit_texture

        alpha = _opacity(picture, mask)
        return _edited(
            "EditAtlas",
            layers,
            lambda device, on_step: edit_texture(
                layers, layer, host.on_cpu(picture), alpha, device=device, on_step=on_step
            ),
        )


class EditFrame(host.Foreseeing):
    """Have what was changed in one frame appear in all others."""

    CATEGORY = "VDP/edit"
    DESCRIPTION = (
        "Paints in one frame and has the whole clip follow: what you change in a frame, or lay over it, appears in "
        "every other frame on what it was painted on, in the frame's light, behind what is in front. Several edited "
        "frames may be given: each counts most near it. Nothing is optimised again."
    )
    SEARCH_ALIASES = [
        "paint",
        "edit propagation",
        "edit one frame",
        "keyframe",
        "ebsynth",
        "layered neural atlases",
        "logo",
        "sticker",
        "tattoo",
        "overlay",
        "retouch",
        "clean up",
        "track picture",
        "match move",
    ]
    FUNCTION = "paint"
    RETURN_TYPES = RETURN_TYPES
    RETURN_NAMES = RETURN_NAMES
    OUTPUT_TOOLTIPS = OUTPUT_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": LAYERS,
                "picture": (
                    "IMAGE",
                    {
                        "tooltip": "The edited frame: what differs from the frame is the edit. Or a picture with "
                        "alpha, or with a mask, laid over it. Several frames in one batch, see frames."
                    },
                ),
                "frame": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 1_000_000,
                        "tooltip": "Which frame of the clip was edited, counted from 0.",
                    },
                ),
            },
            "optional": {
                "mask": _mask("picture"),
                "frames": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "For several edited frames: the number of each, such as 0, 20, 39. It then counts "
                        "in place of frame.",
                    },
                ),
            },
        }

    @classmethod
    def foresee(
        cls,
        layers: Layers | None = None,
        picture: Tensor | None = None,
        frame: int | None = None,
        mask: Any = None,
        frames: str | None = None,
        **_: object,
    ) -> tuple[Tensor | None, Layers | None, Tensor | None]:
        from ..vdp_core.edit.atlas import check_numbers, check_pictures
        from ..vdp_core.models.atlas import MODEL

        if layers is not None:
            MODEL.require(layers, "EditFrame")
        if picture is not None:
            check_pictures(host.on_cpu(picture), _opacity(picture, mask))
            if frame is not None or frames:
                check_numbers(_numbers(frame or 0, frames or ""), len(picture), None if layers is None else len(layers))
        return _foreseen(layers)

    def paint(
        self, layers: Layers, picture: Tensor, frame: int, mask: Any = None, frames: str = ""
    ) -> tuple[Tensor, Layers, Tensor]:
        from ..vdp_core.edit.atlas import edit_frames

        alpha, numbers = _opacity(picture, mask), _numbers(frame, frames)
        return _edited(
            "EditFrame",
            layers,
            lambda device, on_step: edit_frames(
                layers, numbers, host.on_cpu(picture), alpha, device=device, on_step=on_step
            ),
        )


def _mask(of: str) -> tuple[str, dict[str, Any]]:
    tooltip = f"What of the {of} is the edit, 1 = all of it; in place of what differs, and of the {of}'s own alpha."
    return ("MASK,IMAGE", {"tooltip": tooltip})


def _numbers(frame: int, frames: str) -> list[int]:
    """The numbers of the edited frames.

    Raises:
        InputError: something in ``frames`` is no number.
    """
    from ..vdp_core.errors import InputError

    parts = frames.replace(",", " ").split()
    for part in parts:
        if not part.isdecimal():
            raise InputError(f"frames: '{part[:50]}' is no number of a frame; give such as 0, 20, 39")
    return [int(part) for part in parts] or [frame]


def _opacity(picture: Tensor, mask: Any) -> Tensor | None:
    """What of pictures is the edit, by the mask or their alpha; None where what differs is."""
    from ..vdp_core.image.selection import as_matte

    given = host.known(host.given_mask(mask))
    if given is not None:
        return as_matte(host.on_cpu(given))
    alpha = host.on_cpu(host.alpha_of(picture))
    # an editor that adds an alpha channel has edited nothing by that
    return None if alpha is None or alpha.is_meta or bool((alpha >= 1.0).all()) else alpha


def _foreseen(layers: Layers | None) -> tuple[Tensor | None, Layers | None, Tensor | None]:
    if layers is None:
        return None, None, None
    return host.frames_like(layers.frames, layers.alpha), layers, host.mask_like(layers.frames)


def _edited(
    label: str, layers: Layers, work: Callable[[torch.device, host.OnStep], tuple[Tensor, Tensor, Layers]]
) -> tuple[Tensor, Layers, Tensor]:
    """Paint on the host's device, and say how it went."""
    done = host.compute(label, len(layers), work, memory=host.native_memory(layers.frames))
    made, sure, edited = done.result
    host.say(done.with_warning(f"{label}: {host.described(made)}"))
    frames, confidence = host.hand_on(made, sure)
    return host.with_alpha(frames, layers.alpha), edited, confidence
