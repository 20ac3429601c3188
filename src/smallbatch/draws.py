"""Uniform points in [0, 1) for a whole optimizer step: what a density turns into times."""

from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from smallbatch.errors import UserError
from smallbatch.notation import Time, below_one
from smallbatch.randomness import Step, generator

GOLDEN = 0.6180339887498949
CHUNK = 64  # rounds that one generator shuffles


class Draw(ABC):
    """Uniform points for one micro-batch, drawn for the whole optimizer step."""

    @abstractmethod
    def __call__(self, step: Step, rows: int, device: torch.device) -> Time: ...


class IID(Draw):
    """Independent points."""

    def __call__(self, step: Step, rows: int, device: torch.device) -> Time:
        return step.draw("timesteps", torch.rand, (rows,), device)


class Stratified(Draw):
    """One point in each 1/n slot of the global batch, in random order."""

    def __call__(self, step: Step, rows: int, device: torch.device) -> Time:
        def one_per_slot(shape: tuple[int], generator: torch.Generator, device: torch.device) -> Time:
            slots = torch.randperm(*shape, generator=generator, device=device)
            return (slots + torch.rand(shape, generator=generator, device=device)) / shape[0]

        return below_one(step.draw("timesteps", one_per_slot, (rows,), device))


class LowDiscrepancy(Draw):
    """A regular grid over the global batch, shifted by the golden ratio from step to step.

    Kingma et al. 2021 (2107.00630), appendix I.1 shares one random offset within a batch; the golden-ratio walk
    (a Kronecker sequence) makes the union of successive batches even too, down to a batch of one.
    """

    def __call__(self, step: Step, rows: int, device: torch.device) -> Time:
        start = torch.rand(1, generator=generator(step.seed, "timesteps offset"), dtype=torch.float64).item()
        offset = (start + GOLDEN * step.index) % 1

        def shifted_grid(shape: tuple[int], generator: torch.Generator, device: torch.device) -> Time:
            return (torch.randperm(*shape, generator=generator, device=device) + offset) / shape[0]

        return below_one(step.draw("timesteps", shifted_grid, (rows,), device))


class Pairs(Draw):
    """u / 2 and (u + 1) / 2 for each u, one in each slot of half the global batch, in random order: exact partners.

    Where the batch is odd, one point has no partner; a coin says which half of the interval it lies in.
    """

    def __call__(self, step: Step, rows: int, device: torch.device) -> Time:
        def partners(shape: tuple[int], generator: torch.Generator, device: torch.device) -> Time:
            pairs = (shape[0] + 1) // 2
            slots = torch.randperm(pairs, generator=generator, device=device)
            u = below_one((slots + torch.rand(pairs, generator=generator, device=device)) / pairs)
            u = (u * 2**23).floor() / 2**23  # so that u + 1 is exact
            coin = torch.randint(2, (1,), generator=generator, device=device)
            row = torch.randperm(*shape, generator=generator, device=device)
            return (u[row % pairs] + (row // pairs + coin) % 2) / 2

        return step.draw("timesteps", partners, (rows,), device)


class Rounds(Draw):
    """Every `strata` consecutive rows of the whole run cover as many even strata, each once, in an order of their own.

    A round that a step cannot finish goes on in the next, so that strata stay even when the batch holds fewer rows.
    """

    def __init__(self, strata: int):
        if not isinstance(strata, int) or not 1 <= strata <= 2**16:
            raise UserError(
                f"timesteps.draw.strata={strata} must be a whole number from 1 to 65536; "
                "it follows timesteps.proposal.slots where there are any"
            )
        self.strata = strata

    def __call__(self, step: Step, rows: int, device: torch.device) -> Time:
        edge = self.strata * 2**-24  # what float32 may round: no point leaves its stratum
        inside = step.draw("timesteps", torch.rand, (rows,), device).double().clamp(edge, 1 - edge)
        first = step.images + step.rows(rows).start
        return ((self._order(step.seed, first, rows, device) + inside) / self.strata).float()

    def _order(self, seed: int, first: int, rows: int, device: torch.device) -> Int[Tensor, " b"]:
        """The strata of the run's rows from `first` on."""
        span = CHUNK * self.strata
        chunks = range(first // span, (first + rows - 1) // span + 1)
        order = torch.cat([shuffled_rounds(seed, chunk, self.strata, device) for chunk in chunks])
        return order[first - chunks[0] * span :][:rows]


@lru_cache(maxsize=8)
def shuffled_rounds(seed: int, chunk: int, strata: int, device: torch.device) -> Int[Tensor, " n"]:
    """CHUNK rounds, each a permutation of the strata."""
    source = generator(seed, "timesteps rounds", chunk, device=device)
    return torch.rand(CHUNK, strata, generator=source, device=device).argsort(dim=1).flatten()
