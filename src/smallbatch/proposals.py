"""Where u is drawn when not evenly: proposals, each with the density q that corrects for it."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from smallbatch.densities import Density
from smallbatch.notation import Observed, PerImage, Time
from smallbatch.schedules import NoiseSchedule

Knots = tuple[Tensor, Tensor]  # (n + 1,) each, from 0 to 1


class Proposal(nn.Module, ABC):
    """Moves evenly drawn points to where they are of more use, and says how densely they then lie."""

    @abstractmethod
    def forward(self, u: Time, schedule: NoiseSchedule) -> tuple[Time, PerImage]:
        """The moved points and q, their density."""

    def observe(self, observed: Observed) -> None:
        """Called once per optimizer step, after it. Fixed proposals learn nothing."""

    def check(self, schedule: NoiseSchedule, density: Density) -> None:
        """Refuses, before training, a schedule or a density on which it makes no sense."""


class AsDrawn(Proposal):
    """Moves nothing."""

    def forward(self, u: Time, schedule: NoiseSchedule) -> tuple[Time, PerImage]:
        return u, torch.ones_like(u)


class Piecewise(Proposal):
    """q is constant between knots: what is drawn between two entries of `mass` goes between those of `place`."""

    @abstractmethod
    def knots(self, schedule: NoiseSchedule) -> Knots:
        """mass, place."""

    def forward(self, u: Time, schedule: NoiseSchedule) -> tuple[Time, PerImage]:
        mass, place = self.knots(schedule)
        piece = torch.searchsorted(mass[1:-1], u, right=True)
        width, share = place.diff()[piece], mass.diff()[piece]
        inside = ((u - mass[piece]) / share).clamp(0, 1 - 2**-24)
        return place[piece] + inside * width, share / width
