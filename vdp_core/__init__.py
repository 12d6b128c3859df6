"""The core: video decomposition without any host."""

from .denoise import denoised, estimate_noise
from .errors import VDPError
from .flow import estimate_flow, flow_to_rgb
from .layers import load_layers, reconstruct, save_layers
from .metrics import measure
from .tasks import TASKS
from .types import Flow, Layers
from .video import iter_frames, probe, read_clip, write_clip
from .warp import resize_flow, warp

__all__ = [
    "TASKS",
    "Flow",
    "Layers",
    "VDPError",
    "denoised",
    "estimate_flow",
    "estimate_noise",
    "flow_to_rgb",
    "iter_frames",
    "load_layers",
    "measure",
    "probe",
    "read_clip",
    "reconstruct",
    "resize_flow",
    "save_layers",
    "warp",
    "write_clip",
]
