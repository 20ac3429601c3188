"""The held-out loss in stretches of log-SNR, and over even times, of which every stretch holds a share."""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from smallbatch.denoiser import Denoiser
from smallbatch.diagnostics.diagnostic import Case, Subject
from smallbatch.diagnostics.training_loss import Ends, Rows, within
from smallbatch.errors import UserError
from smallbatch.randomness import Step, key

Losses = Float64[Tensor, "stretches rows"]
PerStretch = Float64[Tensor, " stretches"]


class Stretches(NamedTuple):
    """Even in log-SNR, from a schedule's start to its end. Times are even within each."""

    case: Case
    subject: Subject
    ends: list[Ends]  # in time
    logsnr: list[float]  # in the middle

    @property
    def shares(self) -> PerStretch:
        return torch.tensor([high - low for low, high in self.ends], dtype=torch.float64)

    def rows(self, count: int, purpose: str) -> list[Rows]:
        """`count` rows of each, drawn anew for every purpose."""
        schedule, case = self.subject.denoiser.schedule, self.case
        objectives = [within(ends, self.subject.weighting, schedule) for ends in self.ends]
        steps = [Step(key(case.seed, purpose), number, 0, 0.0) for number in range(len(self.ends))]
        drawn = zip(objectives, steps, strict=True)
        return [Rows(objective, case.held_out, count, step, case.batch) for objective, step in drawn]

    def losses(self, count: int, denoiser: Denoiser) -> Losses:
        return torch.stack([rows.losses(denoiser) for rows in self.rows(count, "held out")])

    def estimates(self, of: Losses) -> tuple[list[float], list[float]]:
        """The mean over all times, then of every stretch, and their standard errors."""
        mean, error = of.mean(dim=1), of.std(dim=1) / of.shape[1] ** 0.5
        whole = (self.shares * mean).sum(), (self.shares * error).square().sum().sqrt()
        return [whole[0].item(), *mean.tolist()], [whole[1].item(), *error.tolist()]


def stretches(case: Case, subject: Subject, count: int) -> Stretches:
    schedule = subject.denoiser.schedule
    first, last = schedule.logsnr(torch.tensor([0.0, 1.0], device=case.device)).tolist()
    edges = torch.linspace(first, last, count + 1)
    inner = schedule.time(edges[1:-1].to(case.device)).tolist()
    ends = list(pairwise([0.0, *inner, 1.0]))
    if any(high - low < 0.5 / (schedule.steps or 1e6) for low, high in ends):
        raise UserError(
            f"{subject.name}: one of {count} even bins of log-SNR holds no time of its schedule: take fewer"
        )
    return Stretches(case, subject, ends, ((edges[1:] + edges[:-1]) / 2).tolist())
