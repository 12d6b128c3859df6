"""Video decomposition nodes for ComfyUI: take a video apart into layers, change the parts, put it back together.

ComfyUI loads this folder by path; pip installs it as the package ``comfyui_vdp``. Nothing heavy is imported here.
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
