"""A graph run: in this process, resumed after a kill, or on a ComfyUI server."""
