"""Motion: RAFTFlow, FlowToRGB, SaveFlow and LoadFlow."""

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
    SEARCH_ALIASES = [
        "optical flow",
        "motion",
        "motion vectors",
        "track motion",
        "RAFT",
        "DIS",
        "Farneback",
        "estimate flow",
    ]
    FUNCTION = "estimate"
    RETURN_TYPES = ("VDP_FLOW",)
    RETURN_NAMES = ("flow",)
    OUTPUT_TOOLTIPS = ("Motion of every pair of neighbouring frames, its occlusion and confidence.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip, two frames or more."}),
                "model": (
                    ["auto", "raft_large", "raft_small", "dis", "farneback", "dis_refined"],
                    {
                        "default": "auto",
                        "tooltip": "auto: RAFT if its weights are in models/optical_flow or torch's cache, else DIS. "
                        "raft_large and raft_small download their weights where they are missing (20 and 4 MB). "
                        "dis needs none and is fast on a CPU. farneback needs none either: smoother, for slow motion. "
                        "dis_refined is DIS, mended by a network whose weights `vdp train flow` writes; put them into "
                        "models/optical_flow.",
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
                        "The others do not use it.",
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
            memory=0 if model in ("dis", "farneback", "dis_refined") else memory_needed(frames, max_side),
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
        return {"required": {"flow": ("VDP_FLOW", {"tooltip": "Motion from RAFTFlow or LoadFlow."})}}

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


class SaveFlow(host.Foreseeing):
    """Write motion to a file or a folder of files."""

    CATEGORY = "VDP/flow"
    DESCRIPTION = (
        "Saves motion: all of it in one .npz file, or as .flo, KITTI PNG or .npy files, named as published programs "
        "look for them."
    )
    SEARCH_ALIASES = ["export flow", "write flow", "optical flow", "motion vectors", "flo", "KITTI", "npy", "npz"]
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "flow": ("VDP_FLOW", {"tooltip": "Motion from RAFTFlow or LoadFlow.", "lazy": True}),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "vdp_flow",
                        "tooltip": "Name in the output folder; sub-folders with /. A number is added.",
                    },
                ),
                "format": (
                    ["npz", "flo", "kitti", "lna", "deflicker", "videodip"],
                    {
                        "default": "npz",
                        "tooltip": "npz: everything in one file, for LoadFlow and NumPy. flo: Middlebury files. kitti: "
                        "16-bit PNG files with a mask. lna, deflicker, videodip: .npy files as Layered Neural Atlases, "
                        "Blind Video Deflickering and VideoDIP name them.",
                    },
                ),
            },
            "optional": {
                "frames": (
                    "IMAGE",
                    {"tooltip": "The clip: motion is written at its size and in its pixels, not as it was estimated."},
                ),
            },
            "hidden": {"prompt": "PROMPT"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: str | None = None) -> bool | str:
        return host.prefix_verdict(filename_prefix)

    @classmethod
    def foresee(cls, flow: Flow | None = None, frames: Tensor | None = None, **_: object) -> tuple[()]:
        from ..vdp_core.checks import check_flow

        if flow is not None and frames is not None:
            check_flow(flow, len(frames))
        return ()

    def save(
        self,
        flow: Flow,
        filename_prefix: str = "vdp_flow",
        format: str = "npz",
        frames: Tensor | None = None,
        prompt: object = None,
    ) -> dict[str, Any]:
        from ..vdp_core.motion.flow_files import left_out, save_flow

        self.foresee(flow=flow, frames=frames)
        height, width = flow.size if frames is None else frames.shape[1:3]
        path = host.output_path(host.fill_prefix(filename_prefix, prompt=prompt, size=(width, height)))
        with host.progress(len(flow), "Saving flow") as on_step:
            path = save_flow(flow, path, format=format, size=(height, width), numbered=True, on_step=on_step)
        saved = path.relative_to(host.output_folder()).as_posix()
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))
        host.say(f"saved: {saved}, {_described(flow, (height, width))}, {size / 1e6:.1f} MB", left_out(format))
        return {"ui": {"vdp_outputs": [saved]}, "result": ()}


class LoadFlow:
    """Read motion from files."""

    CATEGORY = "VDP/flow"
    DESCRIPTION = (
        "Reads motion that SaveFlow or another program wrote: .npz, .flo, KITTI PNG, or .npy files of Layered Neural "
        "Atlases, Blind Video Deflickering or VideoDIP. What they do not hold is found from what they do."
    )
    SEARCH_ALIASES = ["import flow", "read flow", "optical flow", "motion vectors", "flo", "KITTI", "npy", "npz"]
    FUNCTION = "load"
    RETURN_TYPES = ("VDP_FLOW",)
    RETURN_NAMES = ("flow",)
    OUTPUT_TOOLTIPS = ("Motion of every pair of neighbouring frames, its occlusion and confidence.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "path": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "A file, or a folder with a file for each pair of frames. A relative path is looked "
                        "up in the input folder first, then where the program was started.",
                    },
                ),
            },
            "optional": {
                "frames": (
                    "IMAGE",
                    {
                        "tooltip": "The clip, to check that the motion is its own. It also helps to find motion back "
                        "where the files hold only motion ahead.",
                    },
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, path: str | None = None) -> bool | str:
        return host.input_verdict(path, "flow file or folder", folders=True)

    @classmethod
    def IS_CHANGED(cls, path: str | None = None, unique_id: str | None = None, **_: object) -> str:
        from ..vdp_core.motion.flow_files import fingerprint

        return host.changed(unique_id, path, fingerprint)

    def load(self, path: str, frames: Tensor | None = None, unique_id: str | None = None) -> tuple[Flow]:
        from ..vdp_core.motion.flow_files import fingerprint, load_flow

        source = host.input_path(path)
        with host.progress(1, "Loading flow") as on_step:
            flow, notes = load_flow(source, host.on_cpu(frames), on_step=on_step)
        host.remember(unique_id, source, fingerprint)
        host.say(f"loaded: {flow.method}, {_described(flow, flow.size)}", *notes)
        return (flow,)


def _described(flow: Flow, size: tuple[int, int]) -> str:
    """A flow in words, of a size (h, w)."""
    shots = f", {len(flow.shots)} shots" if flow.cuts else ""
    return f"{len(flow)} pair{'s' * (len(flow) != 1)} at {size[1]}x{size[0]}{shots}"
