"""Where training time is spent while it moves with the progress of training: all of it changes the objective."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from smallbatch.densities import Density
from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.notation import Observed, PerImage, Time, below_one
from smallbatch.running import Running
from smallbatch.schedules import NoiseSchedule, interval


class Toward(Density):
    """p = (1 - c) U + c target, with c = progress / length, at most 1. Importance 1.

    The mixture is composed exactly, as it has no closed inverse: u below c goes to the target as u / c, the rest to U.
    """

    def __init__(self, length: float):
        super().__init__()
        self.length = _share_of_budget(length)

    @abstractmethod
    def target(self, u: Time, schedule: NoiseSchedule) -> Time:
        """The inverse distribution function of where the curriculum ends."""

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        c = min(progress / self.length, 1.0)  # what the branch not taken computes must be finite too
        inside = self.target(below_one(u / max(c, 1e-30)), schedule)
        outside = below_one((u - c) / max(1 - c, 1e-30))
        return torch.where(u < c, inside, outside), torch.ones_like(u)


class CLTS(Toward):
    """From even in t to N(mean, std^2) cut to 0..1: fewer easy noisy times as training goes on.

    Xu et al. 2024 (2404.07946), curriculum learning based timestep schedule. Known: the mixture, c linear in the step,
    mean 0.3 T. Not published: std and length; those here are ours. The one public code (of Wang et al. 2024) divides
    where it should multiply, so that its Gaussian is a spike on one index.
    """

    def __init__(self, mean: float = 0.3, std: float = 0.3, length: float = 0.5):
        super().__init__(length)
        refuse_unless_positive("timesteps", std=std)
        if not 0 <= mean <= 1:
            raise UserError(f"timesteps: {mean=} is a time and must lie in 0..1")
        self.mean, self.std = mean, std

    def target(self, u: Time, schedule: NoiseSchedule) -> Time:
        return truncated_normal(u, self.mean, self.std, u.new_zeros(()), u.new_ones(()))


class CLTSInLogSNR(Toward):
    """CLTS with the Gaussian over log-SNR, cut to the schedule's range, so that it means the same on every schedule.

    The default mean is t = 0.3 of DDPM's linear schedule, where Xu et al. 2024 (2404.07946) found it. On a table, the
    Gaussian's mass goes to the index nearest in log-SNR.
    """

    def __init__(self, mean: float = -0.43, std: float = 2.0, length: float = 0.5):
        super().__init__(length)
        refuse_unless_positive("timesteps", std=std)
        self.mean, self.std = mean, std

    def target(self, u: Time, schedule: NoiseSchedule) -> Time:
        high, low = schedule.logsnr(torch.arange(2.0, device=u.device))
        return schedule.time(truncated_normal(1 - u, self.mean, self.std, low, high))

    def check(self, schedule: NoiseSchedule) -> None:
        high, low = schedule.logsnr(torch.tensor([0.0, 1.0])).tolist()
        if not low <= self.mean <= high:
            raise UserError(f"timesteps: mean={self.mean} must lie in the schedule's log-SNR, {low:.3g} to {high:.3g}")


class EasyToHard(Density):
    """Even over the open ones of `clusters` even parts of time: the noisiest first, at last all. Importance 1.

    Kim et al. 2024 (2403.10348): the next less noisy cluster opens when the newest one's running loss has found no new
    low (by 1 %) within `patience_images`. Deviations: durations count rows; and clusters open at least at an even pace,
    so that `length` of the budget always sees the last one, after which the objective is the baseline's.
    """

    opened: Tensor
    lowest: Tensor
    stalled_for: Tensor

    def __init__(
        self,
        clusters: int = 20,
        length: float = 0.2,
        patience_images: float = 1000,
        halflife_images: float = 4000,
    ):
        super().__init__()
        refuse_unless_positive("timesteps", patience_images=patience_images)
        if not isinstance(clusters, int) or clusters < 1:
            raise UserError(f"timesteps: {clusters=} must be a whole number, at least 1")
        self.clusters, self.length, self.patience_images = clusters, _share_of_budget(length), patience_images
        self.loss = Running(clusters, halflife_images)
        self.register_buffer("opened", torch.ones(1, dtype=torch.long))
        self.register_buffer("lowest", torch.full((1,), math.inf))
        self.register_buffer("stalled_for", torch.zeros(1, dtype=torch.long))
        self.due = 1

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        pace = math.floor((self.clusters - 1) * progress / self.length + 1e-6)
        self.due = min(1 + pace, self.clusters)  # by this step's progress alone: observe does not hear of it
        share = self.opened.clamp(min=self.due).to(u) / self.clusters
        return (share * u + (1 - share)).clamp(max=1), torch.ones_like(u)

    @torch.no_grad()
    def observe(self, observed: Observed) -> None:
        self.loss.update(interval(observed.t, self.clusters), observed.weighted)
        opened = self.opened.clamp(min=self.due)
        newest = self.clusters - opened
        loss, seen = self.loss.mean[newest], self.loss.weight[newest] > 0
        lowest = torch.where(opened > self.opened, math.inf, self.lowest)
        better = seen & (loss < 0.99 * lowest)
        stalled_for = torch.where(better | ~seen, 0, self.stalled_for + len(observed.t))
        opens = (stalled_for >= self.patience_images) & (opened < self.clusters)
        self.opened.copy_(opened + opens)
        self.lowest.copy_(torch.where(opens, math.inf, torch.where(better, loss, lowest)))
        self.stalled_for.copy_(torch.where(opens, 0, stalled_for))

    def check(self, schedule: NoiseSchedule) -> None:
        if schedule.steps is not None and schedule.steps < self.clusters:
            raise UserError(f"timesteps: clusters={self.clusters} must be at most schedule.steps={schedule.steps}")


def truncated_normal(u: Time, mean: float, std: float, low: Tensor, high: Tensor) -> Time:
    """The inverse distribution function of N(mean, std^2) cut to low..high; each half from its own, smaller tail."""
    before, after = (torch.special.ndtr(edge / std) for edge in (low - mean, mean - high))
    left, right = torch.lerp(before, 1 - after, u), torch.lerp(after, 1 - before, 1 - u)
    score = torch.where(left < right, torch.special.ndtri(left), -torch.special.ndtri(right))
    return torch.clamp(mean + std * score, low, high)


def _share_of_budget(length: float) -> float:
    if not 0 < length <= 1:
        raise UserError(f"timesteps: {length=} is a share of the budget: it must lie above 0 and be at most 1")
    return length
