"""Layers to a file and back: SaveLayers and LoadLayers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..vdp_core.types import Layers


class SaveLayers:
    """Write layers to one .safetensors file."""

    CATEGORY = "VDP/layers"
    DESCRIPTION = "Keeps what VDPOptimize found in one .safetensors file, so that it need not be optimised again."
    SEARCH_ALIASES = ["export layers", "write layers", "safetensors"]
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
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: str | None = None) -> bool | str:
        return host.prefix_verdict(filename_prefix)

    def save(self, layers: Layers, filename_prefix: str, with_frames: bool) -> dict[str, Any]:
        from ..vdp_core.layers import save_layers

        path = host.output_path(filename_prefix)
        path = save_layers(layers, path.with_name(f"{path.name}.safetensors"), with_frames=with_frames)
        return {"ui": {"vdp_outputs": [path.relative_to(host.output_folder()).as_posix()]}, "result": ()}


class LoadLayers:
    """Read layers that SaveLayers wrote."""

    CATEGORY = "VDP/layers"
    DESCRIPTION = "Reads layers that SaveLayers wrote, ready for Relight."
    SEARCH_ALIASES = ["import layers", "read layers", "safetensors"]
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
                        "tooltip": "The .safetensors file. A relative path is looked up in the input folder first, "
                        "then where the program was started.",
                    },
                ),
            },
            "optional": {
                "frames": ("IMAGE", {"tooltip": "The source frames, for layers that were saved without them."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, path: str | None = None) -> bool | str:
        if path is None:  # linked: known when it runs
            return True
        try:
            found = host.input_path(path)
        except ValueError as error:
            return str(error)
        return True if host.is_there(found) and found.is_file() else f"path: there is no layers file {found}"

    @classmethod
    def IS_CHANGED(cls, path: str, frames: Tensor | None = None) -> str:
        state = host.input_path(path).stat()
        return f"{state.st_size} {state.st_mtime_ns}"

    def load(self, path: str, frames: Tensor | None = None) -> tuple[Layers]:
        from ..vdp_core.layers import load_layers

        return (load_layers(host.input_path(path), frames),)
