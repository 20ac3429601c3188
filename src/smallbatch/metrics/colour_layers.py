"""A picture of coloured shapes taken apart: the background, and how much of each pixel which colour covers."""

from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import ndimage

from smallbatch.data.scenes import COLOURS

PALETTE = np.array([*COLOURS.values()], np.float32)
PAIRS = np.array([*combinations_with_replacement(range(len(PALETTE)), 2)])
ALONE = PAIRS[:, 0] == PAIRS[:, 1]

# In levels of 255
NEAR = 45  # from the median: what may be background, for its slope and noise
SECOND = 6  # root mean square over the picture that a second colour must explain
STRANGE = 45  # from every mixture of a colour with the background, on average over 3 x 3 pixels: another colour

CHANCE = 12  # a pixel's squared distance from the background in variances of a channel: one in 150 by noise alone
DEVIATION = 1.4826  # of a normal distribution, in its median absolute deviations

Pictures = Float[ndarray, "n 3 size size"]


class Layers(NamedTuple):
    """Of two colours and, last, of what is neither; the second is empty where there is but one."""

    cover: Float[ndarray, "n layers size size"]  # share of each pixel, beyond 0..1 by noise alone
    colour: Int[ndarray, "n layers"]  # position in COLOURS; of the last -1


class Mixtures(NamedTuple):
    """Each pixel as a mixture of the background and each colour alone."""

    cover: Float[ndarray, "n colours pixels"]
    left: Float[ndarray, "n colours pixels"]  # squared distance from the nearest mixture, over the channels


def ground(pictures: Pictures) -> Pictures:
    """The background behind everything: the median, which no object reaches, and a plane through what is near it."""
    n, channels, size, _ = pictures.shape
    flat, basis = pictures.reshape(n, channels, -1), planes(size)
    tone = np.median(flat, axis=2, keepdims=True)
    part = (np.abs(flat - tone).max(1, keepdims=True) < NEAR) * basis
    gram = part @ basis.T + np.eye(len(basis), dtype=np.float32)  # where nothing is near, the median stays
    plane = np.linalg.solve(gram, part @ (flat - tone).swapaxes(1, 2))
    return (tone + plane.swapaxes(1, 2) @ basis).reshape(pictures.shape)


def planes(size: int) -> Float[ndarray, "3 pixels"]:
    """A constant, a rise to the right and one downwards."""
    rise = np.linspace(-1, 1, size, dtype=np.float32)
    return np.stack([np.ones(size * size, np.float32), np.tile(rise, size), np.repeat(rise, size)])


def mixtures(pictures: Pictures, back: Pictures) -> Mixtures:
    """The nearest point to p on the way from the background b to the colour c is b + cover (c - b)."""
    n, channels = pictures.shape[:2]
    back = back.reshape(n, channels, -1)
    off = pictures.reshape(back.shape) - back
    along = PALETTE @ off - (back * off).sum(1, keepdims=True)  # (c - b) . (p - b)
    square = (PALETTE**2).sum(1)[:, None] - 2 * PALETTE @ back + (back**2).sum(1, keepdims=True)  # |c - b|^2
    cover = along / square
    inside = cover.clip(0, 1)
    left = (off**2).sum(1, keepdims=True) - 2 * inside * along + inside**2 * square
    return Mixtures(cover, left)


def beyond_noise(pictures: Pictures, back: Pictures) -> Bool[ndarray, "n pixels"]:
    off = (pictures - back).reshape(len(pictures), pictures.shape[1], -1)
    noise = DEVIATION * np.median(np.abs(off), axis=(1, 2))
    return (off**2).sum(1) > CHANCE * noise[:, None] ** 2


def layers(pictures: Pictures, back: Pictures) -> Layers:
    """The one or two colours that together leave least unexplained, tried all; each pixel holds only the nearer one."""
    n, _, size, _ = pictures.shape
    cover, left = mixtures(pictures, back)
    counted = left * beyond_noise(pictures, back)[:, None]
    unexplained = np.stack([np.minimum(counted[:, i], counted[:, j]).mean(1) for i, j in PAIRS], axis=1)
    pair = PAIRS[(unexplained - SECOND**2 * ALONE).argmin(1)]
    rows = np.arange(n)[:, None]
    cover, left = cover[rows, pair], left[rows, pair]
    nearer = np.arange(2)[:, None] == left.argmin(1)[:, None]
    strange = ndimage.uniform_filter(left.min(1).reshape(n, 1, size, size), (0, 0, 3, 3)) > STRANGE**2
    own = (cover * nearer).reshape(n, 2, size, size) * ~strange
    return Layers(np.concatenate([own, strange], axis=1), np.column_stack([pair, np.full(n, -1)]))
