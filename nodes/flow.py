"""Motion: RAFTFlow and FlowToRGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..vdp_core.types import Flow


class RAFTFlow(host.Foreseeing):
    """Estimate the motion between neighbouring frames."""

    CATEGORY = "VDP/flow"
    DESCRIPTION = (
        "Estimates how every pixel moves from frame to frame, both ways, and which pixels are occluded in the other "
        "frame, with RAFT if its weights are on disk, else with OpenCV's DIS."
    )
    SEARCH_ALIASES = ["optical flow", "motion", "motion vectors", "track motion", "RAFT", "DIS", "estimate flow"]
    FUNCTION = "estimate"
    RETURN_TYPES = ("VDP_FLOW",)
    RETURN_NAMES = ("flow",)
    OUTPUT_TOOLTIPS = ("Motion and occlusion of every pair of neighbouring frames.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip, two frames or more."}),
                "model": (
                    ["auto", "raft_large", "raft_small", "dis"],
                    {
                        "default": "auto",
                        "tooltip": "auto: RAFT if its weights are in models/optical_flow or torch's cache, else DIS. "
                        "raft_large and raft_small download their weights where they are missing (20 and 4 MB). "
                        "dis needs none and is fast on a CPU.",
                    },
                ),
                "updates": (
                    "INT",
                    {
                        "default": 12,
                        "min": 1,
                        "max": 64,
                        "advanced": True,
                        "tooltip": "Refinements that RAFT makes; more is slower and finer, up to about 20. "
                        "DIS does not use it.",
                    },
                ),
                "max_side": (
                    "INT",
                    {
                        "default": 512,
                        "min": 0,
                        "max": 8192,
                        "advanced": True,
                        "tooltip": "Motion is estimated on a copy of at most this width and height; 0 uses the "
                        "frames' own size, for which RAFT may need much memory. 16 or more works; the nodes that use "
                        "the motion scale it to their frames.",
                    },
                ),
                "lift_dark": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "advanced": True,
                        "tooltip": "Estimate on an equalised and denoised copy where the clip is dark. Bright clips "
                        "are left as they are.",
                    },
                ),
            },
            "optional": {
                "shots": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "advanced": True,
                        "tooltip": "Look for cuts, dissolves and fades. Each shot is then decomposed by itself, and "
                        "nothing is compared across a cut. Off: the clip is one shot.",
                    },
                ),
            },
        }

    @classmethod
    def foresee(cls, frames: Tensor | None = None, **_: object) -> tuple[None]:
        from ..vdp_core.motion.flow import check_clip

        if host.known(frames) is not None:
            check_clip(host.on_cpu(frames))
        return (None,)

    def estimate(
        self,
        frames: Tensor,
        model: str = "auto",
        updates: int = 12,
        max_side: int = 512,
        lift_dark: bool = True,
        shots: bool = True,
    ) -> tuple[Flow]:
        """See DESCRIPTION."""
        from ..vdp_core.motion.flow import estimate_flow, memory_needed

        frames = host.on_cpu(frames)
        done = host.compute(
            "Flow",
            len(frames) - 1,
            lambda device, on_step: estimate_flow(
                frames,
                model=model,
                updates=updates,
                max_side=max_side,
                lift_dark=lift_dark,
                shots=shots,
                device=device,
                half=host.use_half(device),
                memory=host.free_memory(device),
                weights_folders=host.weights_folders(),
                on_step=on_step,
            ),
            memory=0 if model == "dis" else memory_needed(frames, max_side),
            previews=False,
            cure="lower max_side",
        )
        flow = done.result
        height, width = flow.size
        occluded = 100.0 * float(flow.backward_occlusion.mean())
        pairs = f"{len(flow)} pair{'s' * (len(flow) != 1)}"
        cuts = f", {len(flow.shots)} shots" if flow.cuts else ""
        host.say(done.with_warning(f"flow: {flow.method}, {pairs} at {width}x{height}, {occluded:.0f} % hidden{cuts}"))
        return (flow,)


class FlowToRGB(host.Foreseeing):
    """Show motion as colours."""

    CATEGORY = "VDP/flow"
    DESCRIPTION = (
        "Shows motion as pictures: the hue is the direction, the saturation the speed, white is rest. One scale "
        "serves the whole clip."
    )
    SEARCH_ALIASES = ["optical flow", "visualize flow", "flow to image", "flow colors", "motion colours"]
    FUNCTION = "show"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("One picture a frame, at the size the motion was estimated at.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"flow": ("VDP_FLOW", {"tooltip": "Motion from RAFTFlow."})}}

    @classmethod
    def foresee(cls, **_: object) -> tuple[None]:
        return (None,)

    def show(self, flow: Flow) -> tuple[Tensor]:
        """See DESCRIPTION."""
        from ..vdp_core.motion.colours import flow_to_rgb

        with host.progress(len(flow) + 1, "Flow to RGB") as on_step:
            pictures = flow_to_rgb(flow, on_step=on_step)
        (image,) = host.hand_on(pictures)
        return (image,)
