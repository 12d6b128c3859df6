"""The core: video decomposition without any host."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "TASKS": ".tasks",
    "Flow": ".types",
    "Layers": ".types",
    "VDPError": ".errors",
    "decompose": ".tasks.driver",
    "denoised": ".denoise.temporal",
    "estimate_flow": ".motion.flow",
    "estimate_noise": ".denoise.noise",
    "flow_to_rgb": ".motion.colours",
    "iter_frames": ".media.clip",
    "load_flow": ".motion.flow_files",
    "load_layers": ".models.file",
    "measure": ".metrics",
    "probe": ".media.clip",
    "read_clip": ".media.clip",
    "reconstruct": ".models.rebuild",
    "resize_flow": ".motion.warp",
    "save_flow": ".motion.flow_files",
    "save_layers": ".models.file",
    "warp": ".motion.warp",
    "write_clip": ".media.clip",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: programs that list tasks need not wait for torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __name__), name)
