"""What tests run in processes of their own."""

from __future__ import annotations

import signal

from comfyui_vdp.runner.cli import main


def ignoring_hangups(arguments: list[str]) -> int:
    """The ``vdp`` command as ``nohup`` starts it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code = main(arguments)
    print("still ignored" if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else "no longer ignored")
    return code
