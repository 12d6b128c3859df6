"""The exceptions of the core, and the checks that raise them.

Every message is one sentence that names the input, what was found, what was expected and, where there is one, the cure.
Host interruptions (KeyboardInterrupt, ComfyUI's own) are never caught or wrapped here.
"""

from __future__ import annotations

__all__ = ["FitError", "InputError", "LayersFileError", "MediaError", "ShapeError", "VDPError", "WeightsError"]


class VDPError(Exception):
    """Base of everything the core raises on purpose; its text can be shown to a person as it is."""


class InputError(VDPError, ValueError):
    """A value is outside what the function takes."""


class ShapeError(InputError):
    """Tensors whose sizes do not belong together."""


class MediaError(VDPError, OSError):
    """A video, picture or output file cannot be read or written."""


class FitError(VDPError):
    """An optimisation went astray."""


class WeightsError(VDPError):
    """Pretrained weights are missing, damaged or of another model."""


class LayersFileError(VDPError):
    """A file is not a layers file, or is damaged."""
