"""Layers as pictures and as files: SplitLayers, ReplaceLayer, Composite, SaveLayers and LoadLayers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch
    from torch import Tensor

    from ..vdp_core.types import Layers


LAZY_LAYERS = (
    "VDP_LAYERS",
    {"tooltip": "From VDPOptimize with the task segment or atlas, or LoadLayers.", "lazy": True},
)
"""Made last, when the other inputs have been looked at."""
CHECKPOINT_MEMORY = 2**29
"""About how many bytes of a GPU's the networks of a checkpoint take."""


class SplitLayers(host.Foreseeing):
    """Take one layer out as frames and mask, for any other node."""

    CATEGORY = "VDP/layers"
    DESCRIPTION = (
        "Gives one layer as frames and mask: layer 0 is the background, filled where objects cover it, 1 and up are "
        "the objects. Dehaze layers have 0, the clear picture, and 1, the haze. ReplaceLayer puts it back."
    )
    SEARCH_ALIASES = [
        "extract layer",
        "separate layers",
        "clean plate",
        "remove object",
        "cut out",
        "extract object",
        "extract foreground",
        "extract background",
        "background fill",
        "matte",
        "mask",
    ]
    FUNCTION = "split"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("frames", "mask")
    OUTPUT_TOOLTIPS = (
        "The layer's own colours, not multiplied with its mask; the background is whole, without objects.",
        "Where the layer is seen, 1 = this layer alone.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": (
                    "VDP_LAYERS",
                    {"tooltip": "From VDPOptimize with the task segment, atlas or dehaze, or LoadLayers."},
                ),
                "layer": ("INT", {"default": 0, "min": 0, "max": 3, "tooltip": "0 is the background."}),
            },
        }

    @classmethod
    def foresee(
        cls, layers: Layers | None = None, layer: int | None = None, **_: object
    ) -> tuple[Tensor | None, Tensor | None]:
        from ..vdp_core.models import model_of

        if layers is None:
            return None, None
        if layer is not None and layers.fields:
            model_of(layers).check_layer(layers, layer)
        return host.frames_like(layers.frames, layers.alpha), host.mask_like(layers.frames)

    def split(self, layers: Layers, layer: int) -> tuple[Tensor, Tensor]:
        from ..vdp_core.edit.layers import split_layer

        done = host.compute(
            "Split layers",
            len(layers),
            lambda device, on_step: split_layer(layers, layer, device=device, on_step=on_step),
            memory=host.native_memory(layers.frames),
        )
        colours, mask = host.hand_on(*done.result)
        host.say(done.with_warning(f"layer {layer}: {host.described(colours)}{_coverage(mask, 'covers')}"))
        return host.with_alpha(colours, layers.alpha), mask


class ReplaceLayer(host.Foreseeing):
    """Put other frames in the place of a layer."""

    CATEGORY = "VDP/layers"
    DESCRIPTION = (
        "Puts frames in the place of one layer, for Composite to use: a layer that SplitLayers gave and another node "
        "changed, or a new background. Frames hold plain colours, not multiplied with the mask."
    )
    SEARCH_ALIASES = ["edit layer", "swap layer", "insert layer", "replace object", "replace background"]
    FUNCTION = "replace"
    RETURN_TYPES = ("VDP_LAYERS",)
    RETURN_NAMES = ("layers",)
    OUTPUT_TOOLTIPS = ("The layers with this one replaced.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": LAZY_LAYERS,
                "layer": ("INT", {"default": 1, "min": 0, "max": 3, "tooltip": "0 is the background."}),
                "frames": (
                    "IMAGE",
                    {"tooltip": "As many frames as the clip, of its size, or one still. A background of any size."},
                ),
            },
            "optional": {
                "mask": (
                    "MASK,IMAGE",
                    {"tooltip": "Opacity of the layer, 1 = this layer alone; without a mask the layer keeps its own."},
                ),
            },
        }

    @classmethod
    def foresee(
        cls, layers: Layers | None = None, layer: int | None = None, frames: Tensor | None = None, **given: Any
    ) -> tuple[Layers | None]:
        from ..vdp_core.edit.layers import check_background, check_picture, check_replaced
        from ..vdp_core.models import look_of

        mask = host.given_mask(given.get("mask"))
        if layers is not None:
            look_of(layers, "ReplaceLayer")
            if layer is not None and layers.fields:
                check_replaced(layers, layer, has_mask=mask is not None)
            _check_matte(mask, layers.frames)
        if layer == 0 and frames is not None:
            check_background(host.on_cpu(frames), None if layers is None else len(layers))
        elif layer is not None and layers is not None and frames is not None:
            check_picture(frames, layers.frames)
        return (layers,)

    def replace(self, layers: Layers, layer: int, frames: Tensor, mask: Tensor | None = None) -> tuple[Layers]:
        from ..vdp_core.edit.layers import replace_layer
        from ..vdp_core.image.selection import as_matte

        mask = host.given_mask(mask)
        matte = None if mask is None else as_matte(host.on_cpu(mask))
        return (replace_layer(layers, layer, host.on_cpu(frames), matte),)


class Composite(host.Foreseeing):
    """Put layers together: drop, dim, move or recolour one, or put another background behind."""

    CATEGORY = "VDP/layers"
    DESCRIPTION = (
        "Puts layers together again with your edits: it removes an object (frames that saw the background fill it), "
        "dims, moves or recolours it, or puts another background behind it. It takes layers, or frames with a mask. "
        "The layers it returns keep the edits, so a second Composite can edit another layer."
    )
    SEARCH_ALIASES = [
        "remove object",
        "erase object",
        "move object",
        "recolor object",
        "cut out",
        "replace background",
        "change background",
        "remove background",
        "darken background",
        "dim background",
        "selective color",
        "green screen",
        "overlay",
        "blend",
        "alpha over",
        "clean plate",
        "inpaint",
    ]
    FUNCTION = "composite"
    RETURN_TYPES = ("IMAGE", "MASK", "VDP_LAYERS")
    RETURN_NAMES = ("frames", "mask", "layers")
    OUTPUT_TOOLTIPS = (
        "The clip put together.",
        "Where objects are, as shown: 1 = an object alone.",
        "The layers with these edits, for another Composite.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layer": (
                    ["objects", "background", "1", "2", "3"],
                    {
                        "default": "objects",
                        "tooltip": "The layer that the settings change: all objects, the background, or one.",
                    },
                ),
                "visibility": _number_input(
                    1.0, 0.0, 1.0, "0 takes it out, 1 shows it whole. The background goes to black."
                ),
                "gain": _number_input(0.0, -4.0, 4.0, "Brighter or darker, in stops of scene light."),
                "saturation": _number_input(1.0, 0.0, 4.0, "0 is grey, 1 as it is, above 1 more colourful."),
                "offset_x": _number_input(0.0, -10_000.0, 10_000.0, "To the right, in pixels.", slider=False),
                "offset_y": _number_input(0.0, -10_000.0, 10_000.0, "Down, in pixels.", slider=False),
                "linear_light": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "advanced": True,
                        "tooltip": "Mix light instead of display values: soft borders look as a camera records them.",
                    },
                ),
                "premultiplied": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "advanced": True,
                        "tooltip": "For frames with a mask: their colours are multiplied with the mask already, over "
                        "black. Off for whole pictures and for straight alpha.",
                    },
                ),
            },
            "optional": {
                "layers": LAZY_LAYERS,
                "frames": ("IMAGE", {"tooltip": "In place of layers: frames with a mask."}),
                "mask": (
                    "MASK,IMAGE",
                    {"tooltip": "With frames: what is in front, 1 = opaque. One mask for all frames, or one each."},
                ),
                "background": (
                    "IMAGE",
                    {
                        "tooltip": "Put behind the objects: one still, or as many frames as the clip. It is scaled to "
                        "cover the frame and cropped."
                    },
                ),
                "background_colour": (
                    "STRING",
                    {
                        "default": "",
                        "advanced": True,
                        "tooltip": "In place of a background picture: one colour, as #78ff9b or 120, 255, 155.",
                    },
                ),
            },
        }

    @classmethod
    def foresee(cls, **given: Any) -> tuple[Tensor | None, Tensor | None, Layers | None]:
        from ..vdp_core.edit.layers import check_background, layer_numbers
        from ..vdp_core.models import look_of
        from ..vdp_core.models.masks import MODEL

        layers, mask, background = (given.get(name) for name in ("layers", "mask", "background"))
        _refuse_together(given.keys(), premultiplied=bool(given.get("premultiplied")))
        coloured = _still_of(given.get("background_colour"), is_linked="background" in given) is not None
        if layers is None and given.get("frames") is not None:
            layers = MODEL.stand_in(given["frames"], {"L": 2})
            layers = replace(layers, alpha=host.alpha_of(given["frames"]))
        clip = None
        if layers is not None:
            look_of(layers, "Composite")
            clip = layers.frames
            if given.get("layer") is not None and layers.fields:
                layer_numbers(layers, given["layer"])
            _check_matte(host.given_mask(mask), clip)
        if background is not None:
            check_background(host.on_cpu(background), None if clip is None else len(clip))
        alpha = None if layers is None or background is not None or coloured else layers.alpha
        return host.frames_like(clip, alpha), host.mask_like(clip), layers

    def composite(
        self,
        layer: str,
        visibility: float,
        gain: float,
        saturation: float,
        offset_x: float,
        offset_y: float,
        linear_light: bool,
        premultiplied: bool,
        layers: Layers | None = None,
        frames: Tensor | None = None,
        mask: Tensor | None = None,
        background: Tensor | None = None,
        background_colour: str = "",
    ) -> tuple[Tensor, Tensor, Layers]:
        import torch

        from ..vdp_core.edit import layers as core
        from ..vdp_core.edit.composite import composite
        from ..vdp_core.image.selection import as_matte, odd_masks
        from ..vdp_core.types import Edit

        linked = {"layers": layers, "frames": frames, "mask": mask}
        _refuse_together([name for name in linked if linked[name] is not None], premultiplied=premultiplied)
        still = _still_of(background_colour, is_linked=background is not None)
        behind = background if still is None else still
        clip = frames if layers is None else layers.frames
        assert clip is not None
        given = host.on_cpu(host.given_mask(mask))

        def work(device: torch.device, on_step: host.OnStep) -> tuple[Tensor, Tensor, Layers]:
            whole = layers
            if whole is None:
                matte = torch.zeros(clip.shape[:3]) if given is None else as_matte(given)
                whole = core.cut_out(host.on_cpu(clip), matte, premultiplied=premultiplied)
                whole = replace(whole, alpha=host.on_cpu(host.alpha_of(clip)))
            if behind is not None:
                whole = core.add_background(whole, host.on_cpu(behind))
            whole = core.edit(whole, layer, Edit(visibility, gain, saturation, (offset_x, offset_y)))
            return (*composite(whole, linear_light=linear_light, device=device, on_step=on_step), whole)

        done = host.compute("Composite", len(clip), work, memory=host.native_memory(clip))
        odd = [] if given is None else odd_masks(given)
        made, mattes, edited = done.result
        shown, covered = host.hand_on(made, mattes)
        host.say(done.with_warning(f"Composite: {host.described(shown)}{_coverage(covered, 'objects cover')}", *odd))
        return host.with_alpha(shown, edited.alpha), covered, edited


def _refuse_together(linked: Collection[str], *, premultiplied: bool) -> None:
    """Refuse inputs of Composite that do not go together, or are not enough."""
    from ..vdp_core.errors import InputError

    if "layers" in linked and ("frames" in linked or "mask" in linked):
        raise InputError("layers: frames or a mask are linked too; link layers alone, or frames with a mask")
    if "layers" not in linked and not {"frames", "mask"} <= set(linked):
        raise InputError("nothing to put together: link layers, or both frames and mask")
    if "layers" in linked and premultiplied:
        raise InputError("premultiplied: layers keep straight colours; switch it off, it is for frames with a mask")


def _still_of(colour: str | None, *, is_linked: bool) -> Tensor | None:
    """A background of one colour as a still of one pixel; None where none is wanted."""
    from ..vdp_core.errors import InputError
    from ..vdp_core.image.colour import colour_of

    if not (colour or "").strip():
        return None
    if is_linked:
        raise InputError("background_colour: a background is linked too; unlink it, or clear the colour")
    return colour_of(str(colour), "background_colour").view(1, 1, 1, 3)


def _check_matte(mask: Tensor | None, clip: Tensor) -> None:
    """Refuse a mask that does not belong to a clip, by its number and size."""
    from ..vdp_core.checks import check_mask
    from ..vdp_core.image.selection import are_pictures

    if mask is not None:
        matte = mask[..., 0] if are_pictures(mask) else mask
        check_mask(host.on_cpu(matte), "mask", count=len(clip), size=(clip.shape[1], clip.shape[2]))


def _coverage(mask: Tensor, words: str) -> str:
    """How much a mask covers; nothing of one that is yet to be computed, which asking would do."""
    from ..vdp_core.store.lazy import LazyFrames

    return "" if isinstance(mask, LazyFrames) else f", {words} {100.0 * float(mask.mean()):.1f} %"


def _number_input(
    default: float, low: float, high: float, tooltip: str, *, slider: bool = True
) -> tuple[str, dict[str, Any]]:
    shown = {"display": "slider"} if slider else {}
    step = 0.01 if slider else 0.5
    options = {"default": default, "min": low, "max": high, "step": step, "round": 0.001, **shown, "tooltip": tooltip}
    return ("FLOAT", options)


class SaveLayers(host.Foreseeing):
    """Write layers to one file."""

    CATEGORY = "VDP/layers"
    DESCRIPTION = "Saves layers of VDPOptimize in one file, so that nothing need be optimised again."
    SEARCH_ALIASES = ["export layers", "write layers", "safetensors", "npz", "numpy"]
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": ("VDP_LAYERS", {"tooltip": "What to keep."}),
                "filename_prefix": (
                    "STRING",
                    {"default": "vdp_layers", "tooltip": "Name in the output folder; sub-folders with /."},
                ),
                "with_frames": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Keep the source frames in the file too. Without them it is small, but LoadLayers "
                        "needs the same frames linked.",
                    },
                ),
            },
            "optional": {
                "format": (
                    ["safetensors", "exr", "npz"],
                    {
                        "default": "safetensors",
                        "tooltip": "safetensors: for LoadLayers. exr: for other programs, a folder of OpenEXR files "
                        "with the frame and all layers of it, linear, multiplied with alpha. npz: the same arrays as "
                        "safetensors, for NumPy; LoadLayers reads it too.",
                    },
                ),
            },
            "hidden": {"prompt": "PROMPT"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: str | None = None) -> bool | str:
        return host.prefix_verdict(filename_prefix)

    @classmethod
    def foresee(cls, **_: object) -> tuple[()]:
        return ()

    def save(
        self,
        layers: Layers,
        filename_prefix: str,
        with_frames: bool,
        format: str = "safetensors",
        prompt: object = None,
    ) -> dict[str, Any]:
        from ..vdp_core.edit.export import write_exr
        from ..vdp_core.models.file import save_layers

        wide_high = (layers.frames.shape[2], layers.frames.shape[1])
        path = host.output_path(host.fill_prefix(filename_prefix, prompt=prompt, size=wide_high))
        if format == "exr":
            path = host.compute(
                "Saving layers",
                len(layers),
                lambda device, on_step: write_exr(path, layers, device=device, on_step=on_step),
                memory=host.native_memory(layers.frames),
            ).result
        else:
            with host.progress(1, "Saving layers"):
                path = save_layers(layers, path, with_frames=with_frames, numbered=True, format=format)
        saved = path.relative_to(host.output_folder()).as_posix()
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
        host.say(f"saved: {saved}, {size / 1e6:.1f} MB")
        return {"ui": {"vdp_outputs": [saved]}, "result": ()}


class LoadLayers:
    """Read layers that SaveLayers wrote, or a published atlas."""

    CATEGORY = "VDP/layers"
    DESCRIPTION = (
        "Reads layers that SaveLayers wrote, ready for Relight, Dehaze or Composite, or a checkpoint of Layered Neural "
        "Atlases."
    )
    SEARCH_ALIASES = ["import layers", "read layers", "safetensors", "layered neural atlases checkpoint"]
    FUNCTION = "load"
    RETURN_TYPES = ("VDP_LAYERS",)
    RETURN_NAMES = ("layers",)
    OUTPUT_TOOLTIPS = ("The layers, as they were saved.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "path": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "The .safetensors or .npz file, or a checkpoint of Layered Neural Atlases with its "
                        "config.json beside it. A relative path is looked up in the input folder first, then where the "
                        "program was started.",
                    },
                ),
            },
            "optional": {
                "frames": (
                    "IMAGE",
                    {"tooltip": "The source frames, for layers that were saved without them, and for a checkpoint."},
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, path: str | None = None) -> bool | str:
        return host.input_verdict(path, "layers file")

    @classmethod
    def IS_CHANGED(cls, path: str | None = None, unique_id: str | None = None, **_: object) -> str:
        return host.changed(unique_id, path)

    def load(self, path: str, frames: Tensor | None = None, unique_id: str | None = None) -> tuple[Layers]:
        from ..vdp_core.models.checkpoint import is_checkpoint, load_checkpoint
        from ..vdp_core.models.file import load_layers

        file = host.input_path(path)
        clip, alpha, warning = host.on_cpu(frames), host.on_cpu(host.alpha_of(frames)), ""
        if is_checkpoint(file):
            done = host.compute(
                "Loading layers",
                1,
                lambda device, on_step: load_checkpoint(file, clip, alpha, device=device, on_step=on_step),
                memory=CHECKPOINT_MEMORY,
            )
            layers, warning = done.result, done.warning
        else:
            with host.progress(1, "Loading layers"):
                layers = load_layers(file, clip, alpha)
        host.remember(unique_id, file)
        host.say(f"loaded: {layers.model} layers, {host.described(layers.frames)}", warning)
        return (layers,)
