"""Samples held against their prompts, beside what real images score against their captions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.metrics import ranks
from smallbatch.metrics.judged import Score
from smallbatch.metrics.looking import Samples, Stream
from smallbatch.metrics.rows import spread
from smallbatch.metrics.shares import real
from smallbatch.notation import ImageSpec


class Fit(ABC):
    """How well images fit their prompts, added up while they pass. Image i has prompt i."""

    sums: Tensor  # all of it, to be added up over ranks

    @abstractmethod
    def look(self, images: Stream) -> Stream:
        """The same images, once they are counted."""

    @property
    @abstractmethod
    def scores(self) -> list[Score]:
        """The headline first."""


class Judge(ABC):
    """What tells how well an image fits a prompt."""

    score: ClassVar[str]  # what it is asked for by

    @abstractmethod
    def prepare(self, spec: ImageSpec) -> None:
        """Refuses, before long work, images that it cannot judge, and what is not there."""

    @abstractmethod
    def fit(self, prompts: Sequence[str], device: torch.device) -> Fit:
        """Of images with these prompts, none of which has passed yet."""


class Prompted:
    """`data`: whose held-out images show what the judge makes of real ones; None: not asked."""

    def __init__(self, judge: Judge, data: ImageData | None, batch: int):
        self.judge, self.data, self.batch = judge, data, batch
        self._real: dict[int, list[Score]] = {}  # by n: the same at every evaluation

    def fit(self, samples: Samples) -> Fit:
        if samples.prompts is None:
            score = self.judge.score
            raise UserError(f"metrics.scores={score} needs prompts: a run that hears a text, or prompts=FILE")
        return self.judge.fit(samples.prompts, samples.device)

    def scores(self, fit: Fit, samples: Samples) -> list[Score]:
        """Once these have passed. Every rank must call it."""
        n = samples.n
        if n not in self._real:
            self._real[n] = self._of_real(n, samples.device)
        ours = [score._replace(marks=[*score.marks, *samples.marks]) for score in summed(fit)]
        return [*ours, *self._real[n]]

    def _of_real(self, n: int, device: torch.device) -> list[Score]:
        if self.data is None:
            return []
        source = self.data.held_out_store
        m = min(n, len(source))
        captions = self.data.parts.held_out.captions(spread(m, len(source)))  # also of a set that no network hears
        if captions is None:
            return []
        fit = self.judge.fit(captions, device)
        for _ in fit.look(real(source, m, self.batch)):
            pass
        headline = summed(fit)[0]
        name = headline.name.replace("@", "_real@")
        return [headline._replace(name=name, marks=["of held-out images and their captions"])]


def summed(fit: Fit) -> list[Score]:
    """Of all ranks together."""
    ranks.summed_(fit.sums)
    return fit.scores
