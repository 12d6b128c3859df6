"""Clean clips made worse by the models that the tasks invert: for the demo, tests and benchmarks, with known truth."""

from .flicker import KINDS, Change, changed, flicker
from .layers import darken, drifting_field, haze, hazy_depth

__all__ = ["KINDS", "Change", "changed", "darken", "drifting_field", "flicker", "haze", "hazy_depth"]
