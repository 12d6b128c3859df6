"""Rough masks of things by name: DetectMasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "detection"
"""ComfyUI's folder for weights."""
BYTES, PIXEL_BYTES = 2**30, 1200
"""Of a GPU's memory: the network at the size it works at, up to 1333x800, and masks of up to 100 things a pixel."""


class DetectMasks(host.Foreseeing):
    """Find rough masks of things by their name."""

    CATEGORY = "VDP/decompose"
    DESCRIPTION = (
        "Finds rough masks of things by their name, such as person, dog or car, or of anything, with torchvision's "
        "Mask R-CNN. Optimize makes clean ones of them, with the task segment or atlas. The network's weights are not "
        "part of this pack."
    )
    SEARCH_ALIASES = [
        "Mask R-CNN",
        "maskrcnn",
        "object detection",
        "instance segmentation",
        "segment anything",
        "detect objects",
        "find person",
        "mask by class",
        "COCO",
        "auto mask",
    ]
    FUNCTION = "detect"
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    OUTPUT_TOOLTIPS = ("Rough masks, one a frame, for the mask of Optimize; black where nothing is found.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from ..vdp_core.nets.coco import ANYTHING, CLASSES

        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip.", "lazy": True}),
                "class_name": (
                    [ANYTHING, *CLASSES.values()],
                    {
                        "default": ANYTHING,
                        "tooltip": "What to look for, one of the 80 classes of COCO; anything: all of them.",
                    },
                ),
                "score": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "How sure the network must be; lower finds more, and more that is wrong.",
                    },
                ),
                "every": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 10000,
                        "advanced": True,
                        "tooltip": "Looks at each so many-th frame only. Optimize holds on to what is shown and finds "
                        "the object in the frames between.",
                    },
                ),
                "weights": (
                    "STRING",
                    {
                        "default": "auto",
                        "advanced": True,
                        "tooltip": "auto: maskrcnn_resnet50_fpn_v2, or else maskrcnn_resnet50_fpn, from "
                        "models/detection or torch's cache. A file's name there, or a path. Nothing is downloaded.",
                    },
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, weights: str | None = None) -> bool | str:
        from ..vdp_core.nets.detector import find_detector

        return weights is None or host.weights_problem(lambda: find_detector(weights, host.weights_folders(WEIGHTS)))

    @classmethod
    def IS_CHANGED(cls, weights: str | None = None, **_: object) -> str:
        from ..vdp_core.nets.detector import find_detector

        return host.weights_state(lambda: find_detector(weights or "auto", host.weights_folders(WEIGHTS)))

    @classmethod
    def foresee(
        cls,
        frames: Tensor | None = None,
        class_name: str | None = None,
        score: float | None = None,
        every: int | None = None,
        weights: str | None = None,
        **_: object,
    ) -> tuple[Tensor | None]:
        from ..vdp_core.edit.detect_masks import check_clip, check_settings
        from ..vdp_core.nets.coco import ANYTHING
        from ..vdp_core.nets.detector import find_detector

        if weights is not None:
            find_detector(weights, host.weights_folders(WEIGHTS))
        check_settings(class_name or ANYTHING, 0.5 if score is None else score, 1 if every is None else every)
        if frames is None:
            return (None,)
        check_clip(host.on_cpu(frames))
        return (host.mask_like(frames),)

    def detect(
        self, frames: Tensor, class_name: str = "anything", score: float = 0.5, every: int = 1, weights: str = "auto"
    ) -> tuple[Tensor]:
        """See DESCRIPTION."""
        from ..vdp_core.edit.detect_masks import detect_masks
        from ..vdp_core.nets.detector import find_detector, load_detector

        path = find_detector(weights, host.weights_folders(WEIGHTS))
        clip = host.on_cpu(frames)
        net = load_detector(path)
        looked_at = len(range(0, len(clip), every))
        done = host.compute(
            "Detect",
            looked_at,
            lambda device, on_step: detect_masks(
                clip,
                net.to(device),
                class_name=class_name,
                score=score,
                every=every,
                device=device,
                on_step=on_step,
            ),
            memory=BYTES + PIXEL_BYTES * clip.shape[1] * clip.shape[2],
            previews=False,
            cure="make the frames smaller",
        )
        masks, seen = done.result
        (mask,) = host.hand_on(masks)
        host.say(done.with_warning(f"detect: {path.name}, {class_name} in {seen} of {looked_at} frames"))
        return (mask,)
