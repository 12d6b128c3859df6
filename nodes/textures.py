"""What an atlas holds, as pictures: AtlasTexture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..vdp_core.types import Layers


class AtlasTexture(host.Foreseeing):
    """One layer of an atlas as a picture, for painting anywhere."""

    CATEGORY = "VDP/layers"
    DESCRIPTION = (
        "Gives the texture of one layer: all that was ever seen of it in one picture, for painting in any program, and "
        "the clip with a checkerboard in its place, which shows how well the texture is laid onto the frames. Mapping "
        "and light come as pictures too."
    )
    SEARCH_ALIASES = [
        "texture",
        "texture atlas",
        "layered neural atlases",
        "mosaic",
        "panorama",
        "unwrap",
        "uv map",
        "st map",
        "checkerboard",
        "mapping",
        "clean plate",
        "export texture",
    ]
    FUNCTION = "show"
    RETURN_TYPES = ("IMAGE", "MASK", "IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("texture", "mask", "checker", "mapping", "light")
    OUTPUT_TOOLTIPS = (
        "The texture, grey where nothing of the layer was ever seen.",
        "Where something was seen: 1 = in full.",
        "The clip with a checkerboard in place of the texture. Squares that stay on what they lie on are right.",
        "Where each pixel lies in the texture: across in red, down in green, 0..1.",
        "How much brighter each frame is than the texture: grey 0.5 plus the natural logarithm.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": ("VDP_LAYERS", {"tooltip": "From VDPOptimize with the task atlas, or LoadLayers."}),
                "layer": ("INT", {"default": 0, "min": 0, "max": 3, "tooltip": "0 is the background."}),
            },
        }

    @classmethod
    def foresee(cls, layers: Layers | None = None, layer: int | None = None, **_: object) -> tuple[Tensor | None, ...]:
        from ..vdp_core.edit.textures import check_texture

        if layers is None:
            return (None,) * 5
        check_texture(layers, layer)
        frames = host.frames_like(layers.frames)
        return None, None, host.frames_like(layers.frames, layers.alpha), frames, frames

    def show(self, layers: Layers, layer: int) -> tuple[Tensor, ...]:
        from ..vdp_core.edit import textures

        def work(device: torch.device, on_step: host.OnStep) -> tuple[Tensor, ...]:
            return (
                *textures.texture_picture(layers, layer),
                textures.checker(layers, layer, device=device),
                textures.mapping_picture(layers, layer, device=device),
                textures.light_picture(layers, device=device),
            )

        done = host.compute("Atlas texture", 1, work, memory=host.native_memory(layers.frames))
        texture, seen, checker, mapping, light = host.hand_on(*done.result)
        share = 100.0 * float(seen.mean())
        host.say(f"layer {layer}: a texture of {texture.shape[2]}x{texture.shape[1]}, {share:.1f} % of it seen")
        return texture, seen, host.with_alpha(checker, layers.alpha), mapping, light
