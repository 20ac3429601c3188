"""Where u is drawn when not evenly: proposals, each with the density q that corrects for it."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from smallbatch.densities import Density
from smallbatch.errors import UserError
from smallbatch.notation import Observed, PerImage, Time, below_one
from smallbatch.running import Running
from smallbatch.schedules import NoiseSchedule

Knots = tuple[Tensor, Tensor]  # (n + 1,) each, from 0 to 1


class Proposal(nn.Module, ABC):
    """Moves evenly drawn points to where they are of more use, and says how densely they then lie."""

    strata: int | None = None  # parts of u between which a round of draws should go; None: any

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
        moved, q = between(u.to(mass), mass, place)
        return below_one(moved.to(u)), q.to(u)


def between(u: Time, mass: Tensor, place: Tensor) -> tuple[Time, PerImage]:
    """The straight lines from (mass, place) to (mass, place) at u, and how densely evenly drawn u then lie."""
    piece = torch.searchsorted(mass[1:-1].contiguous(), u, right=True)
    width, share = place.diff()[piece], mass.diff()[piece]
    return place[piece] + (u - mass[piece]) / share * width, share / width


def shares(amount: Float[Tensor, " bins"]) -> Knots:
    """Even bins that hold these amounts: what lies before each of their ends, as a share of all, and the ends."""
    mass = torch.cat([amount.new_zeros(1), amount.cumsum(dim=0)])
    return mass / mass[-1], torch.linspace(0, 1, len(mass), dtype=mass.dtype, device=mass.device)


class Binned(Piecewise):
    """q is constant in even bins of u, which the density turns into bins of equal mass of its own.

    q is float64: its rarest bins must not drown in the rounding of a sum that reaches 1.
    """

    def __init__(self, bins: int):
        super().__init__()
        self.bins = whole("bins", bins)

    @abstractmethod
    def wanted(self) -> Float[Tensor, " bins"]:
        """q, with a mean of 1."""

    def knots(self, schedule: NoiseSchedule) -> Knots:
        return shares(self.wanted())


class Importance(Binned):
    """q ~ root of the mean square of a timestep's last losses, and a small uniform share.

    The loss-second-moment resampler of Nichol & Dhariwal 2021 (2102.09672), section 3.3: uniform until every timestep
    holds `history` losses. On a continuous schedule, T = `steps` even bins stand for the timesteps.
    """

    losses: Tensor
    count: Tensor

    def __init__(self, steps: int = 1000, history: int = 10, uniform: float = 0.001):
        super().__init__(whole("steps", steps))
        self.history, self.uniform = whole("history", history), _share("uniform", uniform)
        self.register_buffer("losses", torch.zeros(steps, history))
        self.register_buffer("count", torch.zeros(steps, dtype=torch.long))  # of all losses ever seen

    def wanted(self) -> Float[Tensor, " bins"]:
        root = self.losses.double().square().mean(dim=1).sqrt()
        q = self.uniform + (1 - self.uniform) * root / root.mean().clamp(min=1e-30)
        return torch.where((self.count >= self.history).all(), q / q.mean(), 1.0)

    @torch.no_grad()
    def observe(self, observed: Observed) -> None:
        """A ring of losses for each bin. Of more than `history` rows of one bin the last count."""
        bin, order = bin_of(observed.u, self.bins).sort(stable=True)
        ends = torch.searchsorted(bin, bin, right=True)
        place = torch.arange(len(bin), device=bin.device) - torch.searchsorted(bin, bin)
        after = ends - torch.searchsorted(bin, bin) - place  # rows of this bin from here on
        cell = bin * self.history + (self.count[bin] + place) % self.history
        nowhere = torch.full_like(cell, self.losses.numel())  # a cell that is cut off: no row is picked on the host
        cells = torch.cat([self.losses.flatten(), self.losses.new_zeros(1)])
        cells.scatter_(0, torch.where(after > self.history, nowhere, cell), observed.loss[order].to(cells))
        self.losses.copy_(cells[:-1].view_as(self.losses))
        self.count.scatter_add_(0, bin, torch.ones_like(bin))

    def check(self, schedule: NoiseSchedule, density: Density) -> None:
        if schedule.steps not in (None, self.bins):
            raise UserError(
                f"timesteps.proposal.steps={self.bins}, but the schedule has {schedule.steps} timesteps: "
                f"use timesteps.proposal.steps={schedule.steps}"
            )


class Learned(Binned):
    """q ~ a power of the running mean of a signal, mixed with a uniform share.

    Clipped to `least`..`most` of its mean, and then scaled back to a mean of 1.

    Uniform until every bin has been seen. The variance of a corrected estimate is least where q follows the root of the
    gradient's mean square (Katharopoulos & Fleuret 2018 (1803.00942)); what leaves measure stands in for it.
    """

    power: float

    def __init__(
        self,
        bins: int = 32,
        halflife_images: float = 8192,
        uniform: float = 0.3,
        least: float = 0.3,
        most: float = 4.0,
    ):
        super().__init__(bins)
        if not 0 <= least <= 1 <= most:
            raise UserError(f"timesteps.proposal: {least=} and {most=} must have 1, the mean of q, between them")
        self.uniform, self.least, self.most = _share("uniform", uniform), least, most
        self.running = Running(bins, halflife_images)

    @abstractmethod
    def signal(self, observed: Observed) -> PerImage: ...

    def wanted(self) -> Float[Tensor, " bins"]:
        drive = self.running.mean.double() ** self.power
        q = self.uniform + (1 - self.uniform) * drive / drive.mean().clamp(min=1e-30)
        q = q.clamp(self.least, self.most)
        return torch.where(self.running.complete, q / q.mean(), 1.0)

    def observe(self, observed: Observed) -> None:
        self.running.update(bin_of(observed.u, self.bins), self.signal(observed))


class RootLoss(Learned):
    """q ~ root of the mean square of the weighted loss's slope at the output; for a plain weight, of the loss."""

    power = 0.5

    def signal(self, observed: Observed) -> PerImage:
        return observed.slope


class PooledGradient(Learned):
    """q ~ root mean square of the slope's mean over the pixels: the gradient of the output's bias.

    Weights are shared by all pixels, so the part of the slope that does not cancel between them is what moves most.
    """

    power = 0.5

    def signal(self, observed: Observed) -> PerImage:
        return observed.pooled


class LossProportional(Learned):
    """q ~ the weighted loss, so that every stretch of time drawn has the same. Kingma & Gao 2023 (2303.00848).

    Deviation: bins are even in u and not in log-SNR, and a uniform share keeps the importance below its inverse.
    """

    power = 1.0

    def __init__(self, bins: int = 100, halflife_images: float = 25_600, uniform: float = 0.1):
        super().__init__(bins, halflife_images, uniform, least=0.0, most=math.inf)

    def signal(self, observed: Observed) -> PerImage:
        return observed.weighted


def bin_of(u: Time, bins: int) -> Int[Tensor, " b"]:
    return (u * bins).long().clamp(max=bins - 1)


def whole(name: str, count: int) -> int:
    if not isinstance(count, int) or count < 1:
        raise UserError(f"timesteps.proposal.{name}={count} must be a whole number, at least 1")
    return count


def _share(name: str, share: float) -> float:
    if not 0 < share <= 1:
        raise UserError(f"timesteps.proposal.{name}={share} must lie above 0, so that no time dies out, and up to 1")
    return share
