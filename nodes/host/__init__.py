"""The one room that knows where the nodes run: inside ComfyUI, or headless with the settings in ``headless``."""

from .alpha import alpha_of, with_alpha
from .comfy import (
    Headless,
    OnStep,
    embed_metadata,
    has_viewer,
    headless,
    is_interruption,
    journal,
    keeping,
    running,
    say,
)
from .devices import device, free_memory, hand_on, native_memory, on_cpu, use_half
from .early import Foreseeing, Refused, foresee_all, frames_like, known, mask_like
from .inputs import changed, given_mask, rate, remember, selected, weights_problem, weights_state
from .paths import (
    input_path,
    input_verdict,
    is_there,
    output_folder,
    output_path,
    prefix_verdict,
    temp_folder,
    weights_folders,
)
from .prefix import fill_prefix
from .reporting import described, fitting, progress, time_left
from .work import Computed, compute

__all__ = [
    "Computed",
    "Foreseeing",
    "Headless",
    "OnStep",
    "Refused",
    "alpha_of",
    "changed",
    "compute",
    "described",
    "device",
    "embed_metadata",
    "fill_prefix",
    "fitting",
    "foresee_all",
    "frames_like",
    "free_memory",
    "given_mask",
    "hand_on",
    "has_viewer",
    "headless",
    "input_path",
    "input_verdict",
    "is_interruption",
    "is_there",
    "journal",
    "keeping",
    "known",
    "mask_like",
    "native_memory",
    "on_cpu",
    "output_folder",
    "output_path",
    "prefix_verdict",
    "progress",
    "rate",
    "remember",
    "running",
    "say",
    "selected",
    "temp_folder",
    "time_left",
    "use_half",
    "weights_folders",
    "weights_problem",
    "weights_state",
    "with_alpha",
]
