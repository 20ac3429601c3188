"""Which outline an object has, where it is and how large, from how much of each pixel it covers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from smallbatch.data.drawing import OUTLINES, share
from smallbatch.data.scenes import TURN, UNIT

TURNS = np.linspace(-TURN, TURN, 7, dtype=np.float32) / UNIT

Covers = Float[ndarray, "m size size"]


class Fitted(NamedTuple):
    """Of m objects; lengths in sides of the picture."""

    shape: Int[ndarray, " m"]
    radius: Float[ndarray, " m"]
    centre: Float[ndarray, "m xy"]
    misfit: Float[ndarray, " m"]  # squared error of the cover over the object's area


def fitted(cover: Covers) -> Fitted:
    """Every shape has its centroid in its centre and grows with its radius: only the rotation is left to be tried."""
    centre, area = moments(cover)
    radius = np.sqrt(area[:, None] / AREAS)
    misfit = np.stack([misfits(cover, k, centre, radius[:, k]) for k in range(len(OUTLINES))], axis=1)
    shape = misfit.argmin(1)
    of = np.arange(len(cover)), shape
    return Fitted(shape, radius[of], centre, misfit[of] / area)


def moments(cover: Covers) -> tuple[Float[ndarray, "m xy"], Float[ndarray, " m"]]:
    """The centroid and the area."""
    at, mass = middles(cover.shape[-1]), cover.sum((1, 2))
    centre = np.stack([cover.sum(1) @ at, cover.sum(2) @ at], axis=1) / mass[:, None]
    return centre, mass / cover.shape[-1] ** 2


def misfits(
    cover: Covers, shape: int, centre: Float[ndarray, "m xy"], radius: Float[ndarray, " m"]
) -> Float[ndarray, " m"]:
    """Mean squared error over the picture, at the best rotation."""
    outline = [*OUTLINES.values()][shape]
    drawn = (share(outline, centre, radius, np.full_like(radius, turn), middles(cover.shape[-1])) for turn in TURNS)
    return np.min([((cover - one) ** 2).mean((1, 2)) for one in drawn], axis=0)


def middles(size: int) -> Float[ndarray, " size"]:
    return (np.arange(size, dtype=np.float32) + 0.5) / size


def _areas() -> Float[ndarray, " shapes"]:
    """Of each shape at radius 1."""
    centre, half, zero = np.full((1, 2), 0.5, np.float32), np.full(1, 0.5, np.float32), np.zeros(1, np.float32)
    return np.array([share(outline, centre, half, zero, middles(256)).mean() for outline in OUTLINES.values()]) * 4


AREAS = _areas().astype(np.float32)
