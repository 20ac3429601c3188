"""Moving averages of the weights: how each profile forgets, and the average itself."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.sharding import for_file, local, part_of

Weights = dict[str, Tensor]


class Profile(ABC):
    """How an average forgets, counted in images."""

    @abstractmethod
    def keep(self, images: int, batch: int) -> float:
        """Share of the average that survives a step on `batch` images, the last of `images` seen."""


@dataclass(frozen=True)
class Power(Profile):
    """Weight t^gamma on the weights of time t: relative_std is its width as a share of the run so far.

    Karras et al. 2023 (2312.02696), sec. 3.1. Whatever the batches, a step weighs in with the integral of the
    profile over its images, and the first step replaces the initial weights.
    """

    relative_std: float

    def __post_init__(self) -> None:
        if not 0 < self.relative_std <= 12**-0.5:
            raise UserError(f"relative_std={self.relative_std}: give more than 0, at most 0.288 (a flat average)")

    @cached_property
    def gamma(self) -> float:
        """The one root >= 0 of relative_std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))."""
        precision = self.relative_std**-2
        return float(np.roots([1, 7, 16 - precision, 12 - precision]).real.max())

    def keep(self, images: int, batch: int) -> float:
        return (1 - batch / images) ** (self.gamma + 1)


@dataclass(frozen=True)
class Halflife(Profile):
    """The classic average, its half-life capped at a share of the images seen. Karras et al. 2022 (2206.00364).

    Without the cap (`rampup` infinite) a run shorter than the half-life stays near its first weights.
    """

    images: int
    rampup: float = 0.05

    def __post_init__(self) -> None:
        if min(self.images, self.rampup) <= 0:
            raise UserError(f"{self}: give a half-life and a ramp-up above 0, or use ema=none")

    def keep(self, images: int, batch: int) -> float:
        return 0.5 ** (batch / min(self.images, self.rampup * images))


@dataclass(frozen=True)
class Latest(Profile):
    """No average: the weights of the last step."""

    def keep(self, images: int, batch: int) -> float:
        return 0.0


class Average:
    """A float32 average of named parameters; until the first update empty, and so equal to the current weights."""

    def __init__(self, profile: Profile):
        self.profile = profile
        self.weights: Weights = {}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], images: int, batch: int) -> None:
        if not self.weights:
            self.weights = {name: value.detach().to(torch.float32, copy=True) for name, value in parameters.items()}
            return
        changed = self.weights.keys() ^ parameters.keys()
        assert not changed, f"the averaged parameters changed: {sorted(changed)}"
        current = [local(parameters[name]).float() for name in self.weights]
        torch._foreach_lerp_([*map(local, self.weights.values())], current, 1 - self.profile.keep(images, batch))

    def follow(self, parameters: Mapping[str, Tensor]) -> None:
        """Moves a loaded average to where the parameters are, shared out as they are."""
        self.weights = {name: part_of(value, parameters[name]) for name, value in self.weights.items()}

    def for_file(self) -> "Average":
        """The same, whole, on the CPU of the first rank. Every rank must call this."""
        gathered = Average(self.profile)
        gathered.weights = {name: for_file(value) for name, value in self.weights.items()}
        return gathered

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """The average, written into the module's own storage; afterwards the module's weights again, bit for bit."""
        parameters = dict(module.named_parameters())
        own = {name: parameters[name].detach().clone() for name in self.weights}
        try:
            overwrite(parameters, self.weights)
            yield
        finally:
            overwrite(parameters, own)


@torch.no_grad()
def overwrite(parameters: Mapping[str, Tensor], values: Weights) -> None:
    for name, value in values.items():
        local(parameters[name]).copy_(local(value))


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """What is averaged: never a buffer, never a frozen parameter."""
    chosen = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert chosen, f"{type(network).__name__} has no trainable parameter to average"
    return chosen
