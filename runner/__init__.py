"""Graphs without ComfyUI: read, check, run here or on a server. ``cli`` is the ``vdp`` command."""
