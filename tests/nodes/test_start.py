"""What loading the pack costs a ComfyUI that starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from comfyui_vdp.vdp_core.tasks import TASKS

ROOT = Path(__file__).parents[2]

LOAD = """
import importlib.util, sys
root = sys.argv[1]
spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
for node in pack.NODE_CLASS_MAPPINGS.values():
    node.INPUT_TYPES()
print(len(pack.NODE_CLASS_MAPPINGS), *(name for name in sys.modules if name.startswith("pack.vdp_core.")))
"""


def test_loading_the_pack_and_listing_its_nodes_takes_the_standard_library_alone() -> None:
    """No site-packages on the path: an import of torch, cv2, av, numpy or PIL at load time would fail."""
    program = [sys.executable, "-I", "-S", "-c", LOAD, str(ROOT)]
    answer = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    nodes, *core = answer.stdout.split()
    assert int(nodes) >= 13
    # of the numeric half only the declarations: the rest waits for a node to run
    assert {name.split(".")[2] for name in core} == {"errors", "media", "nets", "tasks"}
    declarations = {"errors", "tasks", "base", "inputs", "config", "media", "formats", "nets", "coco", *TASKS}
    assert {name.rpartition(".")[2] for name in core} <= declarations
