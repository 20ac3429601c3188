"""Reads pictures of coloured shapes: what a person would say they show, from the pixels alone."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from scipy import ndimage

from smallbatch.data.prompts import Content
from smallbatch.data.scenes import BACKGROUNDS, SIZES
from smallbatch.metrics.colour_layers import Layers, Pictures, ground, layers
from smallbatch.metrics.outlines import fitted

BLOCK = 1 << 16  # pixels read at a time: what fits the cache

COVERED = 0.4  # share of a pixel from which it can join an object's others
LEAST = 0.015  # area of the smallest object: half of what is drawn
MISFIT = 0.2  # of an outline that can be told
TONE = 30  # levels by which a background may be off: half the least distance between two
PLAIN = 25  # root mean square in levels of what may lie beside the objects
ENOUGH = 0.3  # share of the picture that must lie beside them
SLANT = 0.7  # of a line from object to object across the axis of their relation; none is drawn beyond 0.4
LIMITS = np.array([0.11, 0.19, 0.28])  # of the radii of SIZES: halfway between them, and as far beyond

TONES = np.array([*BACKGROUNDS.values()], np.float32)
TOUCHING = np.zeros((3, 3, 3), bool)
TOUCHING[1] = True  # in the plane, corners too, and not from plane to plane


class Objects(NamedTuple):
    """m objects of n pictures: those of the first picture first, of each the largest first."""

    picture: Int[ndarray, " m"]
    layer: Int[ndarray, " m"]
    cover: Float[ndarray, "m size size"]


def read(pictures: UInt8[ndarray, "n 3 size size"]) -> Content:
    """What cannot be told is -1: of clutter the count and the background, of a blot its shape.

    Of more than two objects the two largest are described, in any picture the larger one first.
    """
    assert pictures.shape[1] == 3 and pictures.shape[2] >= 16, f"{pictures.shape=}"
    step = max(1, BLOCK // pictures.shape[-1] ** 2)
    parts = [_read(pictures[i : i + step].astype(np.float32)) for i in range(0, max(1, len(pictures)), step)]
    return Content(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _read(pictures: Pictures) -> Content:
    back = ground(pictures)
    apart = layers(pictures, back)
    objects, rest = find(apart)
    count, background = np.bincount(objects.picture, minlength=len(pictures)), tones(back)
    clutter = (((pictures - back) ** 2).mean(1) * rest).sum((1, 2)) > PLAIN**2 * rest.sum((1, 2))
    clutter |= rest.mean((1, 2)) < ENOUGH
    count[clutter] = background[clutter] = -1
    return Content(count, background, *described(objects, apart))


def tones(back: Pictures) -> Int[ndarray, " n"]:
    """The nearest of BACKGROUNDS to the middle of each, unless it is far."""
    away = np.linalg.norm(back.mean((2, 3))[:, None] - TONES, axis=2)
    return np.where(away.min(1) < TONE, away.argmin(1), -1)


def find(apart: Layers) -> tuple[Objects, Bool[ndarray, "n size size"]]:
    """Connected regions of one layer with the pixels around them, and what is left of each picture."""
    n, kinds, size, _ = apart.cover.shape
    cover = apart.cover.reshape(-1, size, size)
    marks, count = ndimage.label(cover > COVERED, TOUCHING)
    area = np.bincount(marks.ravel(), cover.clip(0, 1).ravel(), count + 1)[1:] / size**2
    plane = np.array([where[0].start for where in ndimage.find_objects(marks)], int)
    order = np.lexsort((-area, plane // kinds))
    order = order[area[order] >= LEAST]
    plane = plane[order]
    region = ndimage.binary_dilation(marks[plane] == order[:, None, None] + 1, TOUCHING)
    rest = np.ones((n, size, size), bool)
    np.logical_and.at(rest, plane // kinds, ~region)
    return Objects(plane // kinds, plane % kinds, cover[plane] * region), rest


def described(objects: Objects, apart: Layers) -> tuple[Int[ndarray, "..."], ...]:
    """Of each picture the relation; of its two largest objects the sizes, colours and shapes."""
    n = len(apart.colour)
    turn = np.arange(len(objects.picture)) - np.searchsorted(objects.picture, objects.picture)
    two = turn < 2
    picture, layer, cover = (field[two] for field in objects)
    found = fitted(cover)
    told = found.misfit < MISFIT
    size = np.searchsorted(LIMITS, found.radius) - 1
    seen = np.full((3, n, 2), -1)
    seen[0, picture, turn[two]] = np.where(told & (size < len(SIZES)), size, -1)
    seen[1, picture, turn[two]] = apart.colour[picture, layer]
    seen[2, picture, turn[two]] = np.where(told, found.shape, -1)
    centre = np.full((n, 2, 2), np.nan)
    centre[picture, turn[two]] = found.centre
    return relations(centre), *seen


def relations(centre: Float[ndarray, "n objects xy"]) -> Int[ndarray, " n"]:
    """Of the first object to the second, where there are two."""
    away = centre[:, 1] - centre[:, 0]
    far = np.abs(away)
    axis = far.argmax(1)  # across, then down
    told = far.min(1) < SLANT * far.max(1)
    before = away[np.arange(len(away)), axis] > 0
    return np.where(told, 2 * axis + ~before, -1)
