"""Scenes of one or two coloured shapes: what scene i holds, and how it reads in words.

Scene i follows from i alone, in whole numbers: it is the same in any batch, in any order, on any machine.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64
from numpy import ndarray

VERSION = 1  # must rise with any change of which scenes there are or how they are drawn

UNIT = 1 << 16  # lengths are whole numbers of 1 / UNIT of the picture's side
MARGIN = UNIT // 64  # between an object and the edge
GAP = UNIT // 16  # between two objects along the axis of their relation: a pixel at 16x16
RADII = (np.array([[0.14, 0.16], [0.22, 0.25]]) * UNIT).astype(np.int64)  # smallest and largest of each of SIZES
TURN = 13 * UNIT // 100  # tangent of half the largest rotation, 15 degrees
SLOPE = 10  # levels of 255 by which a background rises or falls from the middle to an edge

SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")  # of the first object to the second
COLOURS = {
    "red": (215, 25, 30),
    "orange": (255, 130, 0),
    "yellow": (255, 230, 30),
    "green": (20, 160, 50),
    "cyan": (50, 220, 235),
    "blue": (20, 80, 240),
    "purple": (165, 45, 205),
    "pink": (255, 130, 195),
}
BACKGROUNDS = {
    "charcoal": (45, 45, 50),
    "grey": (125, 125, 125),
    "brown": (100, 75, 55),
    "slate": (70, 85, 110),
    "beige": (205, 192, 165),
}

# How far each reaches from its centroid at radius 1, however turned. At radius 1 their areas are 1.6 to 2.2: a large
# object is larger than a small one whatever the shapes.
SHAPES = {"circle": 0.84, "square": 1.01, "triangle": 1.1, "cross": 1.0, "ring": 0.92}
REACHES = np.array([int(reach * UNIT) + 1 for reach in SHAPES.values()])
CLASS_NAMES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


class Scenes(NamedTuple):
    """n scenes. Of two objects the first is large, the second small; where `count` is 1 the second is not there.

    Names are positions in the tables above. Lengths are in 1 / UNIT of the picture's side, x to the right, y down.
    """

    count: Int[ndarray, " n"]
    background: Int[ndarray, " n"]
    slope: Int[ndarray, "n xy"]  # levels the background gains from the middle to the right and to the lower edge
    relation: Int[ndarray, " n"]
    size: Int[ndarray, "n objects"]
    colour: Int[ndarray, "n objects"]
    shape: Int[ndarray, "n objects"]
    radius: Int[ndarray, "n objects"]
    turn: Int[ndarray, "n objects"]  # tangent of half the rotation, clockwise, in 1 / UNIT
    centre: Int[ndarray, "n objects xy"]

    def at(self, rows: int | slice | Int[ndarray, " m"] | Bool[ndarray, " n"]) -> "Scenes":
        """These scenes; of a single one, without the leading axis."""
        return Scenes(*(field[rows] for field in self))

    @property
    def present(self) -> Bool[ndarray, "n objects"]:
        return np.arange(2) < self.count[:, None]

    @property
    def label(self) -> Int[ndarray, " n"]:
        """The larger object's position in CLASS_NAMES."""
        return self.colour[:, 0] * len(SHAPES) + self.shape[:, 0]


class Attribute(IntEnum):
    """What is drawn by lot, two numbers each: of the two objects, of the two axes, or the second unused."""

    COUNT = 0
    BACKGROUND = 1
    SLOPE = 2
    RELATION = 3
    SIZE = 4
    COLOUR = 5
    SHAPE = 6
    RADIUS = 7
    TURN = 8
    PLACE = 9  # the rest say where the objects are: see `placed`
    APART = 10
    SHIFT = 11
    ACROSS = 12


def mixed(word: UInt64[ndarray, "*n"]) -> UInt64[ndarray, "*n"]:
    """splitmix64's output function, a bijection. Steele, Lea, Flood 2014 (10.1145/2714064.2660195)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def words(indices: Int[ndarray, " n"], attribute: Attribute) -> UInt64[ndarray, "n 2"]:
    """Two random words for each (scene, attribute), whatever else is drawn."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    state = mixed(indices.astype(np.uint64)[:, None] * golden)
    return mixed(state + np.array([2 * attribute, 2 * attribute + 1], np.uint64) * golden)


def below(indices: Int[ndarray, " n"], attribute: Attribute, bound: int | Int[ndarray, "#n #2"]) -> Int[ndarray, "n 2"]:
    """Uniform on 0 .. bound - 1, for bound <= 2^32."""
    bound = np.asarray(bound, np.uint64)
    return ((words(indices, attribute) >> np.uint64(32)) * bound >> np.uint64(32)).astype(np.int64)


def scenes(indices: Int[ndarray, " n"]) -> Scenes:
    """Scene i is the same whoever asks; all indices start from different states, so repeats are left to chance."""
    pick = partial(below, indices)
    count = 1 + pick(Attribute.COUNT, 2)[:, 0]
    relation = pick(Attribute.RELATION, len(RELATIONS))[:, 0]
    first, other = pick(Attribute.COLOUR, np.array([[len(COLOURS), len(COLOURS) - 1]])).T
    shape = pick(Attribute.SHAPE, len(SHAPES))
    size = np.where((count == 2)[:, None], [1, 0], pick(Attribute.SIZE, len(SIZES)))
    least, most = np.moveaxis(RADII[size], 2, 0)
    radius = least + pick(Attribute.RADIUS, most - least + 1)
    return Scenes(
        count=count,
        background=pick(Attribute.BACKGROUND, len(BACKGROUNDS))[:, 0],
        slope=pick(Attribute.SLOPE, 2 * SLOPE + 1) - SLOPE,
        relation=relation,
        size=size,
        colour=np.stack([first, (first + 1 + other) % len(COLOURS)], axis=1),  # never twice the same
        shape=shape,
        radius=radius,
        turn=pick(Attribute.TURN, 2 * TURN + 1) - TURN,
        centre=placed(pick, count, relation, radius * REACHES[shape] // UNIT + 1),
    )


def placed(
    pick: Callable[..., Int[ndarray, "n 2"]],
    count: Int[ndarray, " n"],
    relation: Int[ndarray, " n"],
    reach: Int[ndarray, "n objects"],
) -> Int[ndarray, "n objects xy"]:
    """Centres: of one object anywhere, of two as their relation says, within 22 degrees of its axis."""
    inner = MARGIN + reach  # how near a centre may come to the edge
    alone = inner[:, :1] + pick(Attribute.PLACE, UNIT - 2 * inner[:, :1] + 1)  # (n, xy)
    touching = reach.sum(1, keepdims=True) + GAP
    spare = UNIT - inner.sum(1, keepdims=True) - touching
    extra = pick(Attribute.APART, spare + 1)[:, :1]
    start = inner[:, :1] + pick(Attribute.SHIFT, spare - extra + 1)[:, :1]
    apart = touching + extra
    along = np.concatenate([start, start + apart], axis=1)  # (n, objects), the first before the second
    along = np.where((relation % 2)[:, None], UNIT - along, along)
    beside = alone[:, 1:]
    least = np.maximum(inner[:, 1:], beside - apart * 2 // 5)
    most = np.minimum(UNIT - inner[:, 1:], beside + apart * 2 // 5)
    across = np.concatenate([beside, least + pick(Attribute.ACROSS, most - least + 1)[:, :1]], axis=1)
    centre = np.stack([along, across], axis=2)
    centre = np.where((relation < 2)[:, None, None], centre, centre[..., ::-1])
    return np.where((count == 2)[:, None, None], centre, alone[:, None])


def caption(scene: Scenes) -> str:
    """Of one scene, `scenes.at(i)`: what it holds, the larger object first."""
    objects = " ".join(
        f"{RELATIONS[scene.relation] + ' ' if k else ''}a {SIZES[scene.size[k]]} "
        f"{[*COLOURS][scene.colour[k]]} {[*SHAPES][scene.shape[k]]}"
        for k in range(scene.count)
    )
    return f"{objects} on a {[*BACKGROUNDS][scene.background]} background"
