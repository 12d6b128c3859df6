"""Training of the matting network (``vdp_core.nets.recurrent_matting``) on a clip, from a few corrected mattes.

As Nuke's CopyCat does: what a person corrects in a few frames, the network learns for the others of the clip. A step
takes a corrected frame and some frames before it, as the network remembers what it saw, mirrored, cut and lit at
random, and compares what is drawn at native size with the corrected matte: for the matte a, the truth a* and the
foreground F of a frame x::

    L = |a - a*|_1 + sum_k 2^k / 5 |L_k(a) - L_k(a*)|_1 + |F - x|_1 where a* = 1 + 5 (d(a - a*) / dt)^2

with L_k the levels of a Laplacian pyramid: the losses that the network was published with (Lin et al., WACV 2022,
section 4.2), as far as the truth is known. Steps are taken by ``optim.fit``, which goes on where it was cut off.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..vdp_core.edit.matte_video import check_clip, check_settings
from ..vdp_core.errors import InputError, MediaError
from ..vdp_core.image.selection import as_matte
from ..vdp_core.media.clip import read_clip
from ..vdp_core.media.source import files_of
from ..vdp_core.motion.flow import SMALLEST_SIDE, find_cuts
from ..vdp_core.nets.matting_weights import load_matting
from ..vdp_core.nets.recurrent_matting import RecurrentMatting, drawn, shrunk
from ..vdp_core.optim.fit import fit
from ..vdp_core.store.files import beside
from ..vdp_core.store.journal import Journal
from ..vdp_core.store.memo import digest

__all__ = ["Log", "begun", "fine_tune", "matte_losses", "read_corrected", "save_weights"]

LEVELS = 5
"""Of the Laplacian pyramid."""
STEADY = 5.0
"""Weight of how differently mattes and foregrounds change from frame to frame."""
OPAQUE = 0.99
"""From which on a frame's own colour is the foreground's."""
CUT = 0.75
"""Least part of a frame's sides that a step sees."""
LIGHT = 0.1
"""How much contrast and brightness change at most."""
EMA = 0.98
TELL_EVERY = 10


def read_corrected(folder: Path, frames: Tensor) -> dict[int, Tensor]:
    """Corrected mattes by the number of their frame, which is the last number in a picture's name.

    Args:
        folder: of pictures: a shape in the alpha, or white on black.
        frames: the clip, ``(T, H, W, 3)``.

    Returns:
        Mattes ``(H, W)`` in 0..1 by number, counted from 0.

    Raises:
        MediaError: a picture cannot be read, or the folder has none.
        InputError: a name has no number, or one that the clip has no frame of, or a size is not the clip's.
    """
    mattes: dict[int, Tensor] = {}
    for path in files_of(folder):
        found = re.findall(r"\d+", path.stem)
        if not found:
            raise InputError(f"{path}: its name has no number; name corrected mattes by their frames, such as 0012.png")
        number = int(found[-1])
        if number >= len(frames):
            raise InputError(f"{path}: the clip has no frame {number}; its last is {len(frames) - 1}, the first is 0")
        if number in mattes:
            raise InputError(f"{path}: there is another matte of frame {number}; leave one")
        picture = read_clip(path)
        matte = picture.alpha[0] if picture.has_alpha else as_matte(picture.frames, path.name)[0]
        if matte.shape != frames.shape[1:3]:
            (h, w), (height, width) = matte.shape, frames.shape[1:3]
            raise InputError(f"{path}: is {w}x{h} pixels, the clip {width}x{height}; mattes must be of its size")
        mattes[number] = matte.float()
    if not mattes:
        raise MediaError(f"{folder}: holds no pictures; give a folder of corrected mattes, such as 0012.png")
    return dict(sorted(mattes.items()))


def fine_tune(
    frames: Tensor,
    corrected: Mapping[int, Tensor],
    weights: Path,
    folder: Path,
    *,
    steps: int = 200,
    rate: float = 1e-4,
    window: int = 6,
    ratio: float = 0.0,
    refiner: str = "deep",
    seed: int = 0,
    device: torch.device | str = "cpu",
    tell: Callable[[str], None] = print,
) -> Path:
    """Fit the network to corrected frames of a clip, or go on with it.

    Args:
        frames: ``(T, H, W, 3)`` in 0..1.
        corrected: mattes ``(H, W)`` in 0..1 by the number of their frame.
        weights: to begin with, see ``nets.matting_weights.load_matting``.
        folder: of the training; what it has found is kept there as it goes.
        steps: in all.
        rate: Adam's, at the beginning.
        window: most frames of a step, the corrected one being the last.
        ratio, refiner: as ``edit.matte_video.matte_video`` will be given.
        seed: of what each step takes.
        device: where to compute.
        tell: told a line of the log.

    Returns:
        The weights, ``FOLDER/weights.safetensors``, for ``MatteVideo``.

    Raises:
        InputError, ShapeError: the clip, a setting, or the folder of another training.
        WeightsError: the weights cannot be used.
    """
    frames = check_clip(frames)
    size = (frames.shape[1], frames.shape[2])
    taken = check_settings(size, ratio=ratio, refiner=refiner, chunk=1, warm_up=0)
    if not corrected:
        raise InputError("corrected: no matte was given; correct one frame or more")
    if window < 1:
        raise InputError(f"window: 1 frame or more needed, got {window}")
    net = load_matting(weights, refiner=refiner).requires_grad_(True)
    settings = {"steps": steps, "rate": rate, "window": window, "ratio": taken, "refiner": refiner, "seed": seed}
    settings |= {"weights": f"{weights.name} {digest(weights.read_bytes()).hex()[:8]}"}
    settings |= {"corrected": {str(number): digest(matte).hex()[:8] for number, matte in corrected.items()}}
    settings |= {"frames": list(frames.shape), "clip": digest(*(frames[index] for index in (0, -1))).hex()[:8]}
    target, notes = folder / "weights.safetensors", {key: str(value) for key, value in settings.items()}
    if begun(folder, settings) and _notes_of(target) == notes:
        tell(json.dumps({"step": steps, "weights": str(target)}))
        return target
    place = torch.device(device)
    net.to(place)
    how = None if taken == 1.0 else refiner
    unused = {"refiner"} if how != "deep" else set()
    parameters = [value for name, value in net.named_parameters() if name.split(".")[0] not in unused]
    cuts = find_cuts(frames) if len(frames) > 1 and min(size) >= SMALLEST_SIDE else ()
    starts, numbers = (0, *cuts), sorted(corrected)
    log = Log(folder, tell)

    def step(index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, index))
        last = numbers[int(rng.integers(len(numbers)))]
        shot = starts[bisect_right(starts, last) - 1]
        span = range(max(shot, last - int(rng.integers(window))), last + 1)
        run = torch.stack([frames[number] for number in span]).movedim(-1, 1)
        known = [place for place, number in enumerate(span) if number in corrected]
        truth = torch.stack([corrected[span[place]] for place in known])[:, None]
        run, truth = (part.to(place) for part in _varied(run, truth, rng))
        lines, _ = net.find(shrunk(run, taken), refiner=how)
        foreground, matte = drawn(lines[known], run[known])
        terms = matte_losses(matte, truth, steady=_neighbours(known))
        own = (truth > OPAQUE).float()
        terms["foreground"] = ((foreground - run[known]).abs() * own).mean()
        return log.terms(terms)

    fit(
        step,
        parameters,
        steps=steps,
        learning_rate=rate,
        plateau=0.0,
        clip=1.0,
        ema=EMA,
        on_step=log.step,
        journal=Journal(folder / "state"),
    )
    left_out = {"refiner"} if refiner == "fast" else set()
    save_weights(net, target, without=left_out, notes=notes)
    Journal(folder / "state").clear()
    return target


def _notes_of(weights: Path) -> dict[str, str] | None:
    """What a file of weights says that it was made with; None where there is none."""
    from safetensors import safe_open

    if not weights.is_file():
        return None
    with safe_open(weights, framework="pt") as file:
        notes: dict[str, str] | None = file.metadata()
    return notes


def matte_losses(matte: Tensor, truth: Tensor, *, steady: Sequence[int]) -> dict[str, Tensor]:
    """The losses of mattes that the network was published with, each a scalar.

    Args:
        matte: ``(T, 1, H, W)``.
        truth: the same shape.
        steady: places of frames whose predecessor in time is the one before.
    """
    terms = {"alpha": (matte - truth).abs().mean(), "pyramid": _pyramid_loss(matte, truth)}
    if steady:
        error = matte - truth
        after = list(steady)
        terms["steady"] = STEADY * (error[after] - error[[place - 1 for place in after]]).square().mean()
    return terms


def _pyramid_loss(matte: Tensor, truth: Tensor) -> Tensor:
    """Mean differences of the levels of Laplacian pyramids; coarse levels count more, as published."""
    total = matte.new_zeros(())
    error = matte - truth  # the levels are linear in the pictures
    for level in range(LEVELS):
        if min(error.shape[-2:]) < 2:
            break
        small = F.avg_pool2d(F.pad(error, (1, 1, 1, 1), mode="replicate"), 3, stride=1)[..., ::2, ::2]
        back = F.interpolate(small, size=error.shape[-2:], mode="bilinear", align_corners=False)
        total = total + 2.0**level / LEVELS * (error - back).abs().mean()
        error = small
    return total


def _neighbours(known: Sequence[int]) -> list[int]:
    """Places in a list of numbers that are one more than the number before."""
    return [place for place in range(1, len(known)) if known[place] == known[place - 1] + 1]


def _varied(run: Tensor, truth: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Frames ``(T, 3, H, W)`` and mattes ``(N, 1, H, W)``, cut and mirrored alike; frames lit another way."""
    height, width = run.shape[-2:]
    part = rng.uniform(CUT, 1.0)
    tall, wide = (max(32, round(part * side)) for side in (height, width))
    top, left = (int(rng.integers(max(1, side - cut + 1))) for side, cut in ((height, tall), (width, wide)))
    where = (..., slice(top, top + tall), slice(left, left + wide))
    run, truth = run[where], truth[where]
    if rng.random() < 0.5:
        run, truth = run.flip(-1), truth.flip(-1)
    contrast, brightness = 1.0 + rng.uniform(-LIGHT, LIGHT), rng.uniform(-LIGHT, LIGHT)
    return ((run - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0), truth


class Log:
    """What is told of a training, in a file too."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = folder / "log.jsonl", tell
        self._last: dict[str, Tensor] = {}

    def terms(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Remember the terms of a step."""
        self._last = {name: term.detach() for name, term in terms.items()}
        return terms

    def step(self, done: int, total: int, preview: Any = None) -> None:
        """Tell of a step, now and then."""
        if done % TELL_EVERY and done != total:
            return
        values = {name: round(float(term), 6) for name, term in self._last.items()}
        line = json.dumps({"step": done, "loss": round(sum(values.values()), 6), **values})
        with self._path.open("a") as log:
            log.write(line + "\n")
        self._tell(line)


def begun(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a training with these settings was begun in a folder; notes them where none was.

    Raises:
        InputError: one with other settings was, or the folder cannot be made.
    """
    path = folder / "settings.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with beside(path) as partial:
                partial.write_text(json.dumps(dict(settings), indent=2) + "\n")
            return False
        known = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{folder}: cannot be used for a training ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"{path}: is damaged; remove it, or give another folder") from error
    wanted = json.loads(json.dumps(dict(settings)))
    other = [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)]
    if other:
        name = other[0]
        raise InputError(
            f"{folder}: holds a training whose {name} is {known.get(name)}, not {wanted.get(name)}; give the same "
            "settings to go on, or another folder"
        )
    return True


def save_weights(
    net: RecurrentMatting, path: Path, *, without: set[str] | None = None, notes: Mapping[str, str] | None = None
) -> None:
    """Write weights as ``load_matting`` reads them; parts that were not trained are left out by name."""
    from safetensors.torch import save_file

    table = {
        name: value.detach().float().cpu().contiguous()
        for name, value in net.state_dict().items()
        if name.split(".")[0] not in (without or set())
    }
    with beside(path) as partial:
        save_file(table, partial, metadata=dict(notes or {}))
