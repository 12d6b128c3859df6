"""Taking a clip apart: VDPOptimize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..vdp_core.types import Flow, Layers

# Of a GPU's memory, on the generous side: the small copy of the clip, fields, gradients, and networks of the paper.
BYTES = 2 * 2**30
BYTES_A_FRAME = 16 * 2**20


class VDPOptimize:
    """Find the layers of a clip by optimising on the clip itself."""

    CATEGORY = "VDP/decompose"
    DESCRIPTION = (
        "Takes a clip apart by optimising on the clip itself, with no training data. relight finds the light that "
        "falls on the scene, for Relight; dehaze finds the haze and its colour, for Dehaze; segment separates what "
        "moves from the background, for SplitLayers and Composite. Runs once; the other nodes then play with the "
        "result in moments."
    )
    SEARCH_ALIASES = [
        "decompose",
        "video decomposition prior",
        "VDP",
        "low light",
        "dark",
        "brighten",
        "darken",
        "relighting",
        "layers",
        "haze",
        "fog",
        "smoke",
        "dehaze",
        "defog",
        "segment",
        "unsupervised segmentation",
        "moving objects",
        "foreground",
        "background removal",
        "remove background",
        "remove object",
        "cut out",
        "matte",
        "rotoscope",
    ]
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
                "task": (
                    ["relight", "dehaze", "segment"],
                    {
                        "default": "relight",
                        "tooltip": "What to find. relight: light that drifts or is missing. dehaze: haze, fog or smoke "
                        "and its colour. segment: layers, the background and what moves in front of it.",
                    },
                ),
                "preset": (
                    ["balanced", "fast", "quality", "paper"],
                    {
                        "default": "balanced",
                        "tooltip": "How much work to put in. paper runs the published networks and losses, for "
                        "comparison: far slower, and what is found is left to chance.",
                    },
                ),
                "steps": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 100_000,
                        "advanced": True,
                        "tooltip": "Most optimisation steps; 0: the preset's.",
                    },
                ),
                "layers": (
                    "INT",
                    {
                        "default": 2,
                        "min": 2,
                        "max": 4,
                        "tooltip": "For segment: how many layers, the background included. Other tasks ignore it.",
                    },
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 2**32 - 1,
                        "control_after_generate": True,
                        "tooltip": "The same seed gives the same result on a CPU, and nearly the same on a GPU.",
                    },
                ),
            },
            "optional": {
                "reference": (
                    "IMAGE",
                    {
                        "tooltip": "For relight: one frame of this clip as it should look, graded by you; the whole "
                        "clip follows it."
                    },
                ),
                "mask": (
                    "MASK,IMAGE",
                    {
                        "tooltip": "For segment: the object, in one frame (say which in mask_frame) or in as many "
                        "frames as the clip has, of which any may be empty. Black and white pictures will do."
                    },
                ),
                "reference_frame": (
                    "INT",
                    {
                        "default": -1,
                        "min": -1,
                        "max": 10_000_000,
                        "advanced": True,
                        "tooltip": "Which frame the reference shows, counted from 0; -1 looks for it.",
                    },
                ),
                "mask_frame": (
                    "INT",
                    {"default": 0, "min": 0, "max": 10_000_000, "tooltip": "Which frame a single mask belongs to."},
                ),
            },
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
    ) -> tuple[Layers]:
        from ..vdp_core.tasks import decompose

        frames = host.on_cpu(frames)
        selected = _selected(mask)
        done = host.compute(
            f"Optimize ({task})",
            steps or 1,
            lambda device, on_step: decompose(
                task,
                frames,
                flow,
                preset=preset,
                steps=steps,
                seed=seed,
                layers=layers,
                reference=host.on_cpu(reference),
                reference_frame=reference_frame,
                mask=selected,
                mask_frame=mask_frame,
                device=device,
                weights_folders=tuple(host.weights_folders()),
                checkpoint=host.checkpoint(),
                on_step=on_step,
            ),
            memory=BYTES + BYTES_A_FRAME * len(frames),
            gradients=True,
        )
        host.say(_status(task, done))
        return (done.result,)


def _selected(mask: Any) -> Tensor | None:
    """The mask that was linked, as the tasks take it."""
    from ..vdp_core.checks import as_mask
    from ..vdp_core.errors import InputError

    if mask is None:
        return None
    given = host.given_mask(mask)
    if given is None:
        raise InputError(
            "mask: it is the empty one that Load Image gives for a picture without alpha; link the picture's IMAGE "
            "output instead, black and white pictures will do"
        )
    return as_mask(host.on_cpu(given))


def _status(task: str, done: host.Computed[Layers]) -> str:
    """How it went, in one line: warnings first, then steps, time and loss, then what the task has to say itself."""
    info = done.result.info
    end = "stopped at a plateau after" if info["stopped"] == "plateau" else "all"
    told = [f"{end} {info['steps']} steps", f"{info['seconds']} s on {done.device}", f"flow {info['flow']}"]
    losses = [float(value) for name, value in info.items() if name.startswith("loss_")]
    if losses:
        told.append(f"loss {sum(losses):.4g}")
    if info.get("said"):
        told.append(info["said"])
    if "reference_frame" in info:
        told.append(f"reference is frame {info['reference_frame']}")
    warnings = [text for text in (done.warning, info.get("warning")) if text]
    line = f"{task}: {', '.join(told)}"
    return f"warning: {'; '.join([*warnings, line])}" if warnings else line
