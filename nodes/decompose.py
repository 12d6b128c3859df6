"""Taking a clip apart: VDPOptimize."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..vdp_core.tasks import TASKS
from ..vdp_core.tasks.inputs import INPUTS
from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..vdp_core.tasks.base import Input
    from ..vdp_core.types import Flow, Layers

# Of a GPU's memory, on the generous side: the small copy of the frames, fields, gradients, and networks of the paper.
BYTES = 2 * 2**30
BYTES_A_FRAME = 16 * 2**20


class VDPOptimize(host.Foreseeing):
    """Find the layers of a clip by optimising on the clip itself."""

    CATEGORY = "VDP/decompose"
    DESCRIPTION = (
        "Takes a clip apart by optimising on the clip itself, with no training data. "
        f"{' '.join(f'{task.name} finds {task.says}.' for task in TASKS.values())} "
        "It runs once; the other nodes then edit the result in moments."
    )
    SEARCH_ALIASES = [
        "decompose",
        "video decomposition prior",
        "VDP",
        *(word for task in TASKS.values() for word in task.aliases),
    ]
    FUNCTION = "optimize"
    RETURN_TYPES = ("VDP_LAYERS",)
    RETURN_NAMES = ("layers",)
    OUTPUT_TOOLTIPS = ("Small fields and numbers that rebuild the clip together with its frames.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        presets = dict.fromkeys(name for task in TASKS.values() for name in ("balanced", *task.presets))
        moving = [task.name for task in TASKS.values() if task.needs_flow]
        found = " ".join(f"{task.name}: {task.says}." for task in TASKS.values())
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The clip, two frames or more."}),
                "task": (list(TASKS), {"default": next(iter(TASKS)), "tooltip": f"What to find. {found}"}),
                "preset": (
                    list(presets),
                    {
                        "default": "balanced",
                        "tooltip": "More work gives a finer result. paper runs the published networks and losses, for "
                        "comparison: far slower, and its result depends on chance.",
                    },
                ),
                "steps": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 100_000,
                        "advanced": True,
                        "tooltip": "Most optimisation steps; 0: the preset's.",
                    },
                ),
                **{one.name: _declared(one) for one in INPUTS if one.required},
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 2**32 - 1,
                        "control_after_generate": True,
                        "tooltip": "The same seed gives the same result on a CPU, and nearly the same on a GPU.",
                    },
                ),
            },
            "optional": {
                "flow": (
                    "VDP_FLOW",
                    {
                        "tooltip": f"{_for(moving)}Motion of the same clip, from RAFTFlow.",
                        "lazy": True,
                        "needed_where": {"task": moving},  # what the runner's check goes by
                    },
                ),
                **{one.name: _declared(one) for one in INPUTS if not one.required},
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, task: str | None = None, input_types: dict[str, str] | None = None) -> bool | str:
        """Refuse a graph before it runs: no such task, no flow for a task that needs it, or a link of another type.

        ComfyUI leaves the choices of a widget and the types of links to a node that asks for them here, as one must to
        know what is linked.
        """
        if task is not None and task not in TASKS:
            return f"task: there is no '{task}'; known: {', '.join(TASKS)}"
        if input_types is None:
            return True
        declared = {name: spec[0] for group in cls.INPUT_TYPES().values() for name, spec in group.items()}
        for name, given in input_types.items():
            wanted = declared.get(name, "*")
            wanted = "COMBO" if isinstance(wanted, list) else wanted
            if given != wanted and "*" not in (given, wanted) and not {*given.split(",")} & {*wanted.split(",")}:
                return f"{name}: takes {wanted}, but is linked to {given}"
        if task is not None and TASKS[task].needs_flow and "flow" not in input_types:
            return f"flow: the task {task} needs the motion of the clip; link RAFTFlow's output"
        return True

    @classmethod
    def foresee(cls, **given: Any) -> tuple[Layers | None]:
        from ..vdp_core.models import MODELS
        from ..vdp_core.tasks.driver import check_inputs

        frames, task = given.get("frames"), given.get("task")
        if frames is None or task not in TASKS:
            return (None,)
        clip = host.known(frames)
        if clip is not None:
            inputs = {one.name: given[one.name] for one in INPUTS if given.get(one.name) is not None}
            preset, steps = given.get("preset") or "balanced", given.get("steps") or 0
            check_inputs(task, host.on_cpu(clip), preset=preset, steps=steps, **_on_cpu(inputs, only_known=True))
        layers = MODELS[TASKS[task].model].stand_in(frames, TASKS[task].lengths(given))
        return (replace(layers, alpha=host.alpha_of(frames)),)

    def optimize(
        self, frames: Tensor, flow: Flow | None = None, *, task: str, preset: str, steps: int, seed: int, **given: Any
    ) -> tuple[Layers]:
        from ..vdp_core.image.selection import odd_masks
        from ..vdp_core.tasks.driver import decompose

        alpha = host.on_cpu(host.alpha_of(frames))
        frames = host.on_cpu(frames)
        given = _on_cpu(given)
        odd = [note for name in _masks(given) for note in odd_masks(given[name], name)]
        done = host.compute(
            f"Optimize ({task})",
            steps or 1,
            lambda device, on_step: decompose(
                task,
                frames,
                flow,
                preset=preset,
                steps=steps,
                seed=seed,
                device=device,
                weights_folders=tuple(host.weights_folders()),
                journal=host.journal(),
                on_step=on_step,
                **given,
            ),
            memory=_memory(task, preset, len(frames)),
            gradients=True,
        )
        host.say(_status(task, done), done.warning, *odd, done.result.info.get("warning", ""))
        return (replace(done.result, alpha=alpha),)


def _declared(one: Input) -> tuple[str | list[str], dict[str, Any]]:
    """A task's input as the node has it, with the tasks that take it named first.

    ComfyUI wants choices in place of the type. ``shown_where`` is what the editor's script goes by.
    """
    takers = [task.name for task in TASKS.values() if one in task.inputs]
    options = {**one.options, "tooltip": f"{_for(takers)}{one.options['tooltip']}"}
    choices = options.pop("choices", None)
    if "default" in options and not one.required and len(takers) < len(TASKS):
        options["shown_where"] = {"task": takers}
    return (one.socket if choices is None else [*choices], options)


def _for(tasks: list[str]) -> str:
    """Which tasks something is for, before its tooltip; nothing where it is for all."""
    return "" if len(tasks) == len(TASKS) else f"({', '.join(tasks)}) "


def _memory(task: str, preset: str, frames: int) -> int:
    """About how many bytes of a GPU's an optimisation takes: only a window of a long clip is on it at a time."""
    from ..vdp_core.optim.windows import WINDOW_OVERLAP

    window = TASKS[task].presets[preset].config.window if task in TASKS and preset in TASKS[task].presets else 0
    return BYTES + BYTES_A_FRAME * (frames if window is None else min(frames, window + WINDOW_OVERLAP))


def _on_cpu(given: dict[str, Any], *, only_known: bool = False) -> dict[str, Any]:
    """The tasks' inputs as the core takes them."""
    sockets = {one.name: one.socket for one in INPUTS}
    taken = {}
    for name, value in given.items():
        is_clip = "IMAGE" in sockets.get(name, "")
        if only_known and is_clip and not isinstance(value, list):
            value = host.known(value)
        taken[name] = host.selected(name, value) if "MASK" in sockets.get(name, "") else host.on_cpu(value)
    return taken


def _masks(given: dict[str, Any]) -> list[str]:
    """The inputs of these that are masks."""
    return [one.name for one in INPUTS if "MASK" in one.socket and given.get(one.name) is not None]


def _status(task: str, done: host.Computed[Layers]) -> str:
    """How it went, in one line: steps, time and loss, then what the task has to say itself."""
    info = done.result.info
    end = "stopped at a plateau after" if info["stopped"] == "plateau" else "all"
    phrases = [f"{end} {info['steps']} steps", f"{info['seconds']} s on {done.device}", f"flow {info['flow']}"]
    losses = [float(value) for name, value in info.items() if name.startswith("loss_")]
    if losses:
        phrases.append(f"loss {sum(losses):.4g}")
    if info.get("said"):
        phrases.append(info["said"])
    if "reference_frame" in info:
        phrases.append(f"reference is frame {info['reference_frame']}")
    return f"{task}: {', '.join(phrases)}"
