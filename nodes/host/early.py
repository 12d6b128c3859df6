"""What nodes refuse before long work: each says what it can of its inputs as soon as some of them are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Foreseeing", "frames_like", "known", "mask_like"]


class Foreseeing:
    """A node whose work, or that which leads to it, may take long.

    The runner asks all such nodes of a graph before it runs the first of them. ComfyUI knows no such pass; but it has
    inputs made that are declared ``lazy`` only once ``check_lazy_status`` asks for them, when the others are there.
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
        """What ComfyUI has to make next: the inputs that are lazy, after a look at the others."""
        declared = type(self).INPUT_TYPES()  # type: ignore[attr-defined]  # every node has it
        options = {
            name: spec[1] for group in ("required", "optional") for name, spec in declared.get(group, {}).items()
        }
        missing = [name for name in given if options.get(name, {}).get("lazy") and given[name] is None]
        if missing:
            self.foresee(**given)
        return missing


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
