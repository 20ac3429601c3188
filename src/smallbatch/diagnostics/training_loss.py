"""The training loss at rows drawn once: images of a part, their noise and their times, the same for every denoiser."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smallbatch.denoiser import Denoiser
from smallbatch.densities import Window
from smallbatch.diagnostics.diagnostic import Part
from smallbatch.draws import Stratified
from smallbatch.ema import trainable
from smallbatch.masking import Unmasked
from smallbatch.notation import Batch, PerImage
from smallbatch.objective import Objective
from smallbatch.randomness import Step
from smallbatch.schedules import NoiseSchedule
from smallbatch.timesteps import Timesteps
from smallbatch.weightings import Weighting

Vector = Float[Tensor, " weights"]  # all trainable weights of a network in a row
Ends = tuple[float, float]  # of a window of time


def within(ends: Ends, weighting: Weighting, schedule: NoiseSchedule) -> Objective:
    """The training loss at times even between two ends. Refuses a window that holds none of a table's times."""
    timesteps = Timesteps(Stratified(), Window(*ends))
    timesteps.check(schedule)
    return Objective(timesteps, weighting, Unmasked())


def some_of(part: Part, step: Step, rows: int) -> Batch:
    """Images for a micro-batch, drawn from all of the part, with repeats."""

    def numbers(shape: tuple[int], generator: torch.Generator, device: torch.device | str) -> Int[Tensor, " b"]:
        return torch.randint(part.count, shape, generator=generator, device=device)

    return part.take(step.draw("images", numbers, (rows,)))


class Rows(NamedTuple):
    """`count` rows of one step, in pieces of one length, at most `most` rows: what is drawn does not depend on it."""

    objective: Objective
    part: Part
    count: int
    step: Step
    most: int

    def pieces(self) -> Iterator[tuple[Batch, Step]]:
        micros = next(n for n in range(1, self.count + 1) if self.count % n == 0 and self.count // n <= self.most)
        for micro in range(micros):
            step = replace(self.step, micro=micro, micros=micros)
            yield some_of(self.part, step, self.count // micros), step

    @torch.no_grad()
    def losses(self, denoiser: Denoiser) -> PerImage:
        pieces = [self.objective(denoiser, x0, condition, step) for (x0, condition), step in self.pieces()]
        return torch.cat([piece.per_image for piece in pieces]).cpu().double()

    def means(self, denoiser: Denoiser) -> Iterator[Tensor]:
        """The mean loss of each piece, to be differentiated one at a time."""
        for (x0, condition), step in self.pieces():
            yield self.objective(denoiser, x0, condition, step).value

    def gradient(self, denoiser: Denoiser) -> Vector:
        """Of the mean loss, in the network's weights."""
        weights = [*trainable(denoiser.network).values()]
        return running_mean(slope(loss, weights) for loss in self.means(denoiser))


def running_mean(vectors: Iterable[Vector]) -> Vector:
    """Holds no more than two at once."""
    total, count = 0.0, 0
    for vector in vectors:
        total, count = total + vector, count + 1
    return total / count


def slope(loss: Tensor, weights: list[Tensor], **how: bool) -> Vector:
    """The gradient; 0 in weights that played no part. `how` is passed on to torch.autograd.grad."""
    parts = torch.autograd.grad(loss, weights, materialize_grads=True, **how)
    return torch.cat([part.flatten() for part in parts])
