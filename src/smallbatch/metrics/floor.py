"""What real images that a reference has not seen score against it: lower, and samples cannot be told from real ones."""

from typing import NamedTuple

import torch

from smallbatch.data.module import ImageData
from smallbatch.data.store import Source
from smallbatch.metrics import ranks
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.frechet import frechet
from smallbatch.metrics.looking import look
from smallbatch.metrics.reference import Reference
from smallbatch.metrics.shares import real
from smallbatch.metrics.validity import Seen


class Measured(NamedTuple):
    """A Frechet distance, and from how many images."""

    value: float
    images: int
    marks: list[str]


class Floor:
    """Of the part of `data` that is not the reference's.

    A held-out part that has each class in its share scores less than one drawn at random, on digits 2.6 times less.
    """

    def __init__(self, data: ImageData | None, reference: Reference, extractor: Extractor, batch: int):
        self.data, self.reference, self.extractor, self.batch = data, reference, extractor, batch
        self.part = "train" if reference.stamp and reference.stamp.split == "held_out" else "held_out"
        self._known: dict[int, Measured] = {}  # by n: the same at every evaluation

    @property
    def missing(self) -> list[str]:
        """Why there is none."""
        if self.data is None:
            return ["no floor: give data=... for other real images"]
        n = len(self.source)
        return [f"no floor: of the part {self.part} there is only {n=}"] if n < max(2, ranks.world_size()) else []

    @property
    def source(self) -> Source:
        return getattr(self.data, f"{self.part}_store")

    def __call__(self, n: int, device: torch.device) -> Measured:
        """Of n images; where there are fewer, what is to be expected of n. Every rank must call it."""
        if n not in self._known:
            self._known[n] = self._measured(n, device)
        return self._known[n]

    def _measured(self, n: int, device: torch.device) -> Measured:
        reference, m = self.reference.moments, min(n, len(self.source))
        seen = Seen(self.data.spec.channels)
        value = frechet(look(real(self.source, m, self.batch), self.extractor, seen, device).sums.moments(), reference)
        if m == n:
            return Measured(value, m, [])
        mark = f"expected from {m} images of the part {self.part}, which score {value:.4g}"
        return Measured(value * chance(n, reference.n) / chance(m, reference.n), m, [mark])


def chance(n: int, of_reference: int) -> float:
    """What the distance between two sets of the same distribution is in proportion to, but for terms of second order.

    Means and covariances are off by random amounts of variance 1 / n, and the distance is quadratic in them.
    """
    return 1 / n + (1 / of_reference if of_reference else 0)
