"""Scenes drawn at any size, only by operations that IEEE 754 rounds exactly (no sine, no sum over an axis)."""

from collections.abc import Callable
from functools import reduce

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from smallbatch.data.scenes import BACKGROUNDS, COLOURS, SHAPES, UNIT, Scenes

BLOCK = 1 << 16  # pixels drawn at a time: what fits the cache

Plane = Float[ndarray, "m h w"]
Outline = Callable[[Plane, Plane], tuple[Plane, ...]]


def circle(x: Plane, y: Plane) -> tuple[Plane, ...]:
    return (np.sqrt(x * x + y * y) - 0.84,)


def square(x: Plane, y: Plane) -> tuple[Plane, ...]:
    return np.abs(x) - 0.71, np.abs(y) - 0.71


def triangle(x: Plane, y: Plane) -> tuple[Plane, ...]:
    """Equilateral, the point up."""
    return y - 0.55, x * 0.8660254 - y * 0.5 - 0.55, x * -0.8660254 - y * 0.5 - 0.55


def cross(x: Plane, y: Plane) -> tuple[Plane, ...]:
    """Upright, as a plus sign."""
    x, y = np.abs(x), np.abs(y)
    return np.maximum(x, y) - 0.95, np.minimum(x, y) - 0.31


def ring(x: Plane, y: Plane) -> tuple[Plane, ...]:
    far = np.sqrt(x * x + y * y)
    return far - 0.92, 0.42 - far


# Signed distances (x, y) -> d, all negative inside, around the centroid
OUTLINES: dict[str, Outline] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "cross": cross,
    "ring": ring,
}
assert [*OUTLINES] == [*SHAPES]


def draw(scenes: Scenes, size: int) -> UInt8[ndarray, "n 3 size size"]:
    """Each pixel is what its square covers, to first order: the edges are anti-aliased."""
    pixels = np.empty((len(scenes.count), 3, size, size), np.uint8)
    step = max(1, BLOCK // size**2)
    for start in range(0, len(pixels), step):
        rows = slice(start, start + step)
        pixels[rows] = np.rint(painted(scenes.at(rows), size))
    return pixels


def painted(scenes: Scenes, size: int) -> Float[ndarray, "n 3 size size"]:
    middles = (np.arange(size, dtype=np.float32) + 0.5) / size
    rise = 2 * middles - 1
    right, down = scenes.slope.astype(np.float32).T[..., None, None]
    tone = np.array([*BACKGROUNDS.values()], np.float32)[scenes.background]
    picture = tone[..., None, None] + (right * rise + down * rise[:, None])[:, None]
    colour = np.array([*COLOURS.values()], np.float32)[scenes.colour][..., None, None]
    covered = coverage(scenes, middles)
    for k in range(2):
        picture += covered[:, k, None] * (colour[:, k] - picture)
    return picture


def coverage(scenes: Scenes, middles: Float[ndarray, " size"]) -> Float[ndarray, "n objects size size"]:
    """The share of each pixel that each object covers, shape by shape."""
    covered = np.zeros((*scenes.present.shape, len(middles), len(middles)), np.float32)
    for number, outline in enumerate(OUTLINES.values()):
        of = scenes.present & (scenes.shape == number)
        lengths = [field[of].astype(np.float32) / UNIT for field in (scenes.centre, scenes.radius, scenes.turn)]
        covered[of] = share(outline, *lengths, middles)
    return covered


def share(
    outline: Outline,
    centre: Float[ndarray, "m xy"],
    radius: Float[ndarray, " m"],
    turn: Float[ndarray, " m"],
    middles: Float[ndarray, " size"],
) -> Float[ndarray, "m size size"]:
    radius, turn = radius[:, None, None], turn[:, None, None]
    cosine, sine = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)  # exact on every machine
    x, y = (middles - centre[:, :1])[:, None], (middles - centre[:, 1:])[:, :, None]
    x, y = (x * cosine + y * sine) / radius, (y * cosine - x * sine) / radius
    shares = [np.clip(0.5 - distance * (radius * len(middles)), 0, 1) for distance in outline(x, y)]
    return reduce(np.multiply, shares)  # where two edges cross in a pixel, as if they crossed at a right angle
