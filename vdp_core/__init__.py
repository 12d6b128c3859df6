"""The core: video decomposition without any host."""

from .denoise.noise import estimate_noise
from .denoise.temporal import denoised
from .errors import VDPError
from .media.clip import iter_frames, probe, read_clip, write_clip
from .metrics import measure
from .models.file import load_layers, save_layers
from .models.rebuild import reconstruct
from .motion.colours import flow_to_rgb
from .motion.flow import estimate_flow
from .motion.warp import resize_flow, warp
from .tasks import TASKS
from .types import Flow, Layers

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
