"""A diagnostic: one question to trained denoisers, answered by a tidy table, a picture and a line."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from PIL import Image as PILImage
from torch import Tensor

from smallbatch.denoiser import Denoiser
from smallbatch.generation import Told
from smallbatch.notation import Batch
from smallbatch.sampler import Sampler
from smallbatch.weightings import Weighting

Picture = PILImage.Image
Row = Mapping[str, float | int | str | None]
Table = list[Row]  # one observation a row; all rows have the same columns
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]  # shows how far a loop of known length is
CPU = torch.device("cpu")


def silently(steps: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    return steps


class Subject(NamedTuple):
    """A run under examination: its averaged weights, ready to denoise on the case's device."""

    name: str
    denoiser: Denoiser
    weighting: Weighting  # that it was trained with; one that learns is as at the start
    folder: Path = Path()  # for what training wrote there; most diagnostics do not look


@dataclass(frozen=True)
class Part:
    """Images by number, with what a network is told of them."""

    count: int
    take: Callable[[Int[Tensor, " n"]], Batch]

    def around(self, numbers: Int[Tensor, " n"]) -> Batch:
        """Beyond the last image the first comes again."""
        return self.take(numbers % self.count)


@dataclass(frozen=True)
class Case:
    """What a diagnostic may look at. Every draw is keyed by `seed` and by the image: all subjects meet the same."""

    subjects: list[Subject]
    held_out: Part | None  # of the data that was named, or that the first subject was trained on
    train: Part | None
    told: Told  # what the network is told of sample i
    sampler: Sampler
    seed: int = 0
    batch: int = 250  # images at once: no figure depends on it
    device: torch.device = CPU
    track: Track = silently


class Found(NamedTuple):
    """The table, and images that were made or seen on the way, by name."""

    table: Table
    images: Mapping[str, Picture] = {}


class Diagnostic(ABC):
    """Leaves say how many runs they need, whether they look at data, and whether what they measure is pixels."""

    least_runs: int = 1
    most_runs: int | None = None
    needs_data: bool = True
    of_pixels: bool = False

    def check(self, case: Case) -> None:  # noqa: B027 - most can answer every case
        """Refuses, in no time, a case that `measure` could not answer: asked of all diagnostics before the first."""

    @abstractmethod
    def measure(self, case: Case) -> Found: ...

    @abstractmethod
    def figure(self, table: Table) -> Picture: ...

    @abstractmethod
    def line(self, table: Table) -> str:
        """What was found, in a sentence with its figures."""


def column(table: Table, name: str, **where: Any) -> list[Any]:
    """The values under `name` in the rows that have all of `where`."""
    return [row[name] for row in table if all(row[key] == value for key, value in where.items())]


def names(table: Table, key: str) -> list[Any]:
    """Each value under `key` once, in the order of the rows."""
    return list(dict.fromkeys(row[key] for row in table))


def estimated(values: Float[Tensor, " n"]) -> tuple[float, float]:
    """The mean of independent values, and its standard error."""
    values = values.double()
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()
