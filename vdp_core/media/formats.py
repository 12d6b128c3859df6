"""What frames are saved as, what each can hold, and how they are timed: the choices of nodes, listed without numpy."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError

__all__ = ["FORMATS", "LEAST_SIDE", "MOST_MEGABITS", "TIMINGS", "Format", "alpha_left_out", "check_holds_alpha"]

TIMINGS = ("constant", "as recorded")
"""What is made of a clip of variable rate: the rate constant, frames repeated and left out, or each frame once."""
LEAST_SIDE = 64
"""What the sides of an H.265 clip are padded to."""
MOST_MEGABITS = 1000
"""Most that may be asked of a clip's picture, a second."""


@dataclass(frozen=True)
class Format:
    """How one output format is made."""

    suffix: str
    codec: str = ""
    pixels: str = ""
    pixels_with_alpha: str = ""
    sound: str = ""
    bits: int = 8
    """Of a channel, as far as it is exact."""
    subsampled: bool = False
    even: bool = False
    """Whether sizes must be even."""
    least: int = 1
    """The smallest side."""
    code: str = ""
    """What the container calls the codec, where FFmpeg's choice is one that some players refuse."""
    marks: str = ""
    """A bitstream filter that notes the colours in each frame, where the encoder leaves them open."""
    lead: int | None = None
    """By how many frames decoding runs ahead, where the encoder leaves that open in clips that have no more."""

    def padded(self, side: int) -> int:
        """The side that is written for a side."""
        return max(side + side % 2 if self.even else side, self.least)

    @property
    def holds_alpha(self) -> bool:
        """Whether alpha can be stored; pictures hold it, videos with a pixel format for it."""
        return not self.codec or bool(self.pixels_with_alpha)


FORMATS: dict[str, Format] = {
    "mp4": Format(".mp4", "libx264", "yuv420p", "", "aac", subsampled=True, even=True),
    "webm": Format(".webm", "libvpx-vp9", "yuv420p", "yuva420p", "libopus", subsampled=True),
    "prores4444": Format(
        ".mov",
        "prores_ks",
        "yuv444p10le",
        "yuva444p10le",
        "pcm_s24le",
        bits=10,
        marks="prores_metadata=color_primaries=bt709:color_trc=bt709:colorspace=bt709",
    ),
    "png": Format(""),
    "exr": Format("", bits=16),
    "h265": Format(
        ".mp4",
        "libx265",
        "yuv420p10le",
        "",
        "aac",
        bits=10,
        subsampled=True,
        even=True,
        least=LEAST_SIDE,  # below, x265 refuses a clip or writes beyond its memory
        code="hvc1",
        lead=2,
    ),
}


def _holding_alpha() -> list[str]:
    """The formats that hold alpha."""
    return [name for name, form in FORMATS.items() if form.holds_alpha]


def check_holds_alpha(name: str) -> None:
    """Refuse alpha for a format that cannot hold it.

    Raises:
        InputError: it cannot.
    """
    if not FORMATS[name].holds_alpha:
        *able, last = _holding_alpha()
        raise InputError(
            f"alpha: {name} holds no alpha; choose {', '.join(able)} or {last}, or leave alpha unconnected"
        )


def alpha_left_out(name: str) -> str:
    """What to say where the alpha that a clip carries is left out, as a format cannot hold it."""
    return f"the clip's alpha is left out, as {name} holds none; these formats do: {', '.join(_holding_alpha())}"
