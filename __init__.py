"""Video decomposition nodes for ComfyUI."""
