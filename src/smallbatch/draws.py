"""Uniform points in [0, 1) for a whole optimizer step: what a density turns into times."""

from abc import ABC, abstractmethod

import torch

from smallbatch.notation import Time
from smallbatch.randomness import Step, generator

GOLDEN = 0.6180339887498949


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

        return _below_one(step.draw("timesteps", one_per_slot, (rows,), device))


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

        return _below_one(step.draw("timesteps", shifted_grid, (rows,), device))


def _below_one(u: Time) -> Time:
    """float32 rounds the last slot's upper end to 1."""
    return u.clamp(max=1 - 2**-24)
