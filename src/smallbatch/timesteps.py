"""The times of one optimizer step: a draw, moved by a proposal, turned into times by a density."""

from typing import NamedTuple

import torch
from torch import nn

from smallbatch.densities import Density
from smallbatch.draws import Draw, Rounds
from smallbatch.errors import UserError
from smallbatch.notation import Observed, PerImage, Time
from smallbatch.proposals import AsDrawn, Proposal
from smallbatch.randomness import Step
from smallbatch.schedules import NoiseSchedule


class Drawn(NamedTuple):
    t: Time
    importance: PerImage
    u: Time  # what the density was given


class Timesteps(nn.Module):
    """Any draw with any proposal and any density.

    A proposal that draws u with density q is corrected by (1 / q)^correction: 1 keeps the density's objective, 0 makes
    the proposal part of it.
    """

    def __init__(self, draw: Draw, density: Density, proposal: Proposal | None = None, correction: float = 1.0):
        super().__init__()
        if not isinstance(draw, Draw):
            raise UserError(f"timesteps.draw={draw} is a group: choose it as timesteps/draw={draw}")
        if not 0 <= correction <= 1:
            raise UserError(f"timesteps.correction={correction} must lie in 0..1: 1 keeps the objective")
        self.draw, self.density, self.proposal = draw, density, proposal or AsDrawn()
        self.correction = correction

    def forward(self, step: Step, rows: int, schedule: NoiseSchedule, device: torch.device) -> Drawn:
        u, q = self.proposal(self.draw(step, rows, device), schedule)
        t, importance = self.density(u, schedule, step.progress)
        return Drawn(t, importance * q**-self.correction, u)

    def observe(self, observed: Observed) -> None:
        """Once per optimizer step, after it."""
        self.proposal.observe(observed)
        self.density.observe(observed)

    def check(self, schedule: NoiseSchedule) -> None:
        """Refuses, before training, what makes no sense on this schedule."""
        wanted = self.proposal.strata
        if isinstance(self.draw, Rounds) and wanted not in (None, self.draw.strata):
            raise UserError(f"timesteps.draw.strata={self.draw.strata} follows the {wanted} slots: set slots alone")
        self.density.check(schedule)
        self.proposal.check(schedule, self.density)
