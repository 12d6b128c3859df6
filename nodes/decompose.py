"""Taking a clip apart: VDPOptimize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..vdp_core.types import Flow, Layers


class VDPOptimize:
    """Find the layers of a clip by optimising on the clip itself."""

    CATEGORY = "VDP/decompose"
    DESCRIPTION = (
        "Takes a clip apart by optimising on the clip itself, with no training data: for the task relight, the light "
        "that falls on the scene, as a smooth map that may drift in time. Runs once; Relight then plays with the "
        "result in moments. A reference, one graded still of any frame, makes the whole clip follow it."
    )
    SEARCH_ALIASES = ["decompose", "video decomposition prior", "VDP", "low light", "dark", "brighten", "layers"]
    FUNCTION = "optimize"
    RETURN_TYPES = ("VDP_LAYERS",)
    RETURN_NAMES = ("layers",)
    OUTPUT_TOOLTIPS = ("What was found: small fields and numbers that, with the frames, rebuild the clip.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip, two frames or more."}),
                "flow": ("VDP_FLOW", {"tooltip": "Motion of the same clip, from RAFTFlow."}),
                "task": (["relight"], {"default": "relight", "tooltip": "What to find: relight finds light."}),
                "preset": (
                    ["balanced", "fast", "quality", "paper"],
                    {
                        "default": "balanced",
                        "tooltip": "How much work to put in. paper runs the published networks and losses, for "
                        "comparison: far slower, and brightness is left to chance.",
                    },
                ),
                "steps": (
                    "INT",
                    {"default": 0, "min": 0, "max": 100_000, "tooltip": "Most optimisation steps; 0: the preset's."},
                ),
                "layers": (
                    "INT",
                    {
                        "default": 2,
                        "min": 2,
                        "max": 4,
                        "tooltip": "Number of layers; the task relight has no use of it.",
                    },
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 2**32 - 1,
                        "control_after_generate": True,
                        "tooltip": "The same seed gives the same result.",
                    },
                ),
            },
            "optional": {
                "reference": (
                    "IMAGE",
                    {"tooltip": "One frame of this clip as it should look, graded by you: the whole clip follows it."},
                ),
                "mask": ("MASK", {"tooltip": "For tasks that separate objects; relight takes none."}),
                "reference_frame": (
                    "INT",
                    {
                        "default": -1,
                        "min": -1,
                        "max": 10_000_000,
                        "tooltip": "Which frame the reference shows, counted from 0; -1 looks for it.",
                    },
                ),
                "mask_frame": (
                    "INT",
                    {"default": 0, "min": 0, "max": 10_000_000, "tooltip": "Which frame a single mask belongs to."},
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def optimize(
        self,
        frames: Tensor,
        flow: Flow,
        task: str,
        preset: str,
        steps: int,
        layers: int,
        seed: int,
        reference: Tensor | None = None,
        mask: Tensor | None = None,
        reference_frame: int = -1,
        mask_frame: int = 0,
        unique_id: str | None = None,
    ) -> tuple[Layers]:
        from ..vdp_core.errors import InputError
        from ..vdp_core.tasks import task as find_task

        model = find_task(task)
        if mask is not None:
            raise InputError(f"mask: the task {task} takes none; unlink it")
        with host.fitting(steps or 1, f"Optimize ({task})") as on_step:
            found = model.decompose(
                frames,
                flow,
                preset=preset,
                steps=steps,
                seed=seed,
                reference=reference,
                reference_frame=reference_frame,
                device=host.device(),
                weights_folders=tuple(host.weights_folders()),
                on_step=on_step,
            )
        told = found.info
        end = "stopped at a plateau after" if told["stopped"] == "plateau" else "all"
        shown = f", reference is frame {told['reference_frame']}" if "reference_frame" in told else ""
        host.say(
            f"{task}: {end} {told['steps']} steps, {told['seconds']} s on {host.device()}, flow {told['flow']}, "
            f"gamma {found.scalars['gamma']:.2f}{shown}",
            unique_id,
        )
        return (found,)
