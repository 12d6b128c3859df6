"""What nodes refuse before long work: each says what it can of its inputs as soon as some of them are there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from .comfy import RunningNode, running_node

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Foreseeing", "Refused", "foresee_all", "frames_like", "known", "mask_like"]


class Foreseeing:
    """A node whose work, or that which leads to it, may take long.

    The runner asks all such nodes of a graph before it runs the first of them. ComfyUI knows no such pass; but it has
    inputs made that are declared ``lazy`` only once ``check_lazy_status`` asks for them, when the others are there. So
    a node looks at what it has before anything long is begun for it; and the long node, before it begins, has those
    that wait for it look again, now that it can tell them what it will give.
    """

    @classmethod
    def foresee(cls, **given: Any) -> tuple[Any, ...]:
        """Refuse what the node would refuse, and say what it will give, without doing its work.

        Args:
            given: the inputs that are set or linked. What another node has yet to make is what that node foresees, None
                where it cannot tell.

        Returns:
            A stand-in for each output: tensors of the right shape on the device ``meta``, layers of a model and frames
            without fields, None for what cannot be told.

        Raises:
            InputError, ShapeError: as the node does.
        """
        raise NotImplementedError

    def check_lazy_status(self, **given: Any) -> list[str]:
        """What ComfyUI has to make next: the inputs that are lazy, after a look at the others and at what follows."""
        declared = type(self).INPUT_TYPES()  # type: ignore[attr-defined]  # every node has it
        options = {
            name: spec[1] for group in ("required", "optional") for name, spec in declared.get(group, {}).items()
        }
        missing = [name for name in given if options.get(name, {}).get("lazy") and given[name] is None]
        if missing:
            foreseen = self.foresee(**given)
            if (node := running_node()) is not None:
                _look_ahead(node, given, foreseen)
        return missing


class Refused(Exception):
    """A node of a graph refused what it foresaw; ``__cause__`` is what it raised."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key
        """Id of the node."""


def foresee_all(
    order: Iterable[str],
    prompt: Mapping[str, Any],
    foreseen: dict[str, tuple[Any, ...]],
    *,
    classes: Mapping[str, type],
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Have nodes of a graph refuse what they would refuse later, each knowing what those before it will give.

    Args:
        order: ids of the nodes to ask, sources first.
        prompt: the graph in the format of ComfyUI's API.
        foreseen: outputs by the id of their node, made or stand-ins; those of the nodes that are asked are added.
        classes: the nodes, by the name of their type.
        given: inputs that are made already, by id and name.

    Raises:
        Refused: a node does.
    """
    for key in order:
        foresee = getattr(classes.get(prompt[key]["class_type"]), "foresee", None)
        if key in foreseen or foresee is None:
            continue
        made = (given or {}).get(key, {})
        inputs = {}
        for name, value in prompt[key]["inputs"].items():
            if not _is_link(value):
                inputs[name] = value
            elif value[0] in foreseen:
                inputs[name] = foreseen[value[0]][value[1]]
            else:
                inputs[name] = made.get(name)
        try:
            foreseen[key] = foresee(**inputs)
        except Exception as error:
            raise Refused(key) from error


def _is_link(value: object) -> bool:
    """Whether an input in the format of the API is the output of another node, ``[id, slot]``."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


@dataclass
class _Waiting:
    """What nodes of the prompt that runs in ComfyUI were given, while they wait for their lazy inputs."""

    prompt: Mapping[str, Any] = field(default_factory=dict)
    given: dict[str, dict[str, Callable[[], Any]]] = field(default_factory=dict)
    """By id and name; tensors are only looked at as long as somebody else holds them."""


_waiting = _Waiting()


def _look_ahead(node: RunningNode, given: Mapping[str, Any], foreseen: tuple[Any, ...]) -> None:
    """In ComfyUI, have the nodes that follow one refuse what they would refuse later, as far as it can be told now.

    They have looked at their own inputs before, and wait for this one; now it is known what it will give them.

    Raises:
        InputError, ShapeError: one of them does; the sentence names it.
    """
    if _waiting.prompt is not node.prompt:
        _waiting.prompt, _waiting.given = node.prompt, {}
    _waiting.given[node.id] = {name: _held(value) for name, value in given.items() if value is not None}
    made = {key: {name: get() for name, get in inputs.items()} for key, inputs in _waiting.given.items()}
    classes = {kind.__name__: kind for kind in Foreseeing.__subclasses__()}
    try:
        foresee_all(_after(node), node.prompt, {node.id: foreseen}, classes=classes, given=made)
    except Refused as refused:
        from ...vdp_core.errors import VDPError

        cause, other = refused.__cause__, node.prompt[refused.key]
        if not isinstance(cause, VDPError):
            raise
        title = other.get("_meta", {}).get("title") or other["class_type"]
        raise type(cause)(f"{title} (node {refused.key}): {cause}") from cause


def _held(value: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(value)
    except TypeError:  # a plain value
        return lambda: value


def _after(node: RunningNode) -> list[str]:
    """Ids of the nodes that lead from one to an output, sources first."""
    sources: dict[str, list[str]] = {}
    waiting = list(node.outputs)
    while waiting:
        key = waiting.pop()
        if key in node.prompt and key not in sources:
            sources[key] = [value[0] for value in node.prompt[key].get("inputs", {}).values() if _is_link(value)]
            waiting += sources[key]
    reached = {node.id}
    order = []
    for key in TopologicalSorter(sources).static_order():
        if key in sources and reached & set(sources[key]):
            reached.add(key)
            order.append(key)
    return order


def known(value: Any) -> Any:
    """A tensor that has been made already, else None."""
    import torch

    return value if isinstance(value, torch.Tensor) and value.device.type != "meta" else None


def frames_like(frames: Tensor | None, alpha: Tensor | None = None) -> Tensor | None:
    """A stand-in for frames of the same number and size, which carry an opacity."""
    from .alpha import with_alpha

    return None if frames is None else with_alpha(_meta(*frames.shape[:3], 3), alpha)


def mask_like(frames: Tensor | None) -> Tensor | None:
    """A stand-in for a mask of as many frames and their size."""
    return None if frames is None else _meta(*frames.shape[:3])


def _meta(*shape: int) -> torch.Tensor:
    import torch

    return torch.empty(shape, device="meta")
