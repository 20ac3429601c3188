"""Slots of equal loss: time cut so that each slot holds the same share of the loss, and each drawn equally often.

Xie & Agam 2025 (2502.01990), table 1: ten slots, the first of five timesteps, the last of 723.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smallbatch import curves
from smallbatch.curves import Curve, named
from smallbatch.densities import Density, Uniform
from smallbatch.errors import UserError
from smallbatch.notation import Observed
from smallbatch.proposals import Knots, Piecewise, between, bin_of, shares, whole
from smallbatch.running import Running
from smallbatch.schedules import NoiseSchedule, VariancePreserving
from smallbatch.tables import LinearBetas

PAPER = (4, 12, 22, 36, 55, 81, 119, 176, 276)  # last timesteps of slots 1-9 of 10, among 0..999


def slots(
    slots: int = 10, curve: str | None = None, bins: int = 128, halflife_images: float = 32_768
) -> "OnlineSlots | CurveSlots":
    """Slots of a measured loss curve; without one, slots that follow the loss while training."""
    if curve is None:
        return OnlineSlots(slots, bins, halflife_images)
    return CurveSlots(curves.read(curve), slots)


class OnlineSlots(Piecewise):
    """Slots of the running mean loss in bins of u: of equal length until every bin has been seen.

    Deviation: the paper measures the loss once, with a trained model.
    """

    def __init__(self, slots: int = 10, bins: int = 128, halflife_images: float = 32_768):
        super().__init__()
        self.slots = self.strata = whole("slots", slots)
        self.bins = whole("bins", bins)
        if slots > bins:
            raise UserError(f"timesteps.proposal.{slots=} cannot be told apart in {bins=}: give more bins")
        self.running = Running(bins, halflife_images)

    def knots(self, schedule: NoiseSchedule) -> Knots:
        loss = self.running.mean.double()
        loss = loss.clamp(min=1e-6 * loss.mean()) + 1e-30  # a bin without loss still takes some room
        mass = _even(self.slots, loss)
        place, _ = between(mass, *shares(torch.where(self.running.complete, loss, 1.0)))
        return mass, place.clamp(max=1)

    def observe(self, observed: Observed) -> None:
        self.running.update(bin_of(observed.u, self.bins), observed.weighted)

    def check(self, schedule: NoiseSchedule, density: Density) -> None:
        _refuse_more_slots_than_timesteps(self.slots, schedule)


class FixedSlots(Piecewise):
    """Slots of even time, kept as the log-SNR at which they meet, so that every schedule can place them."""

    edges: Tensor

    @abstractmethod
    def __init__(self, edges: Float[Tensor, " edges"]):
        super().__init__()
        self.slots = self.strata = len(edges) + 1
        self.register_buffer("edges", edges.float(), persistent=False)

    def knots(self, schedule: NoiseSchedule) -> Knots:
        mass = _even(self.slots, self.edges.double())
        return mass, torch.cat([mass[:1], schedule.time(self.edges).to(mass), mass[-1:]])

    def check(self, schedule: NoiseSchedule, density: Density) -> None:
        if not isinstance(density, Uniform):
            raise UserError(
                f"timesteps: these slots are of even time, not of {type(density).__name__}'s: leave timesteps.density "
                "as it is, or let slots follow the loss with timesteps=slots timesteps.proposal.curve=null"
            )
        _refuse_more_slots_than_timesteps(self.slots, schedule)
        self.check_origin(schedule)
        empty = (self.knots(schedule)[1].diff() * (schedule.steps or 1e6) < 0.5).nonzero().flatten().tolist()
        if empty:
            here = named(type(schedule).__name__, schedule.steps)
            raise UserError(
                f"timesteps: slot {empty[0] + 1} of {self.slots} would hold no time of {here}: take fewer slots, "
                "more timesteps, or timesteps=slots timesteps.proposal.curve=null"
            )

    def check_origin(self, schedule: NoiseSchedule) -> None:
        """Slots that no schedule was measured for suit every schedule."""


class PaperSlots(FixedSlots):
    """The ten ranges of Xie & Agam 2025 (2502.01990), table 1, on a thousand steps of DDPM's linear betas."""

    def __init__(self):
        super().__init__(_ends(LinearBetas(VariancePreserving()), PAPER))


class CurveSlots(FixedSlots):
    """Slot k = {t: ceil(S c_t) = k} with c = cumsum(loss) / sum(loss). Xie & Agam 2025 (2502.01990), section 2."""

    def __init__(self, curve: Curve, slots: int = 10):
        super().__init__(cut(curve, whole("slots", slots)))
        self.curve = curve

    def check_origin(self, schedule: NoiseSchedule) -> None:
        device = self.edges.device
        here = schedule.logsnr(self.curve.time.to(device)).cpu()
        if schedule.steps == self.curve.steps and torch.allclose(here, self.curve.logsnr, rtol=1e-3, atol=1e-2):
            return
        now, most = named(type(schedule).__name__, schedule.steps), (here - self.curve.logsnr).abs().max()
        raise UserError(
            f"the loss curve was measured on {self.curve.origin}, and this schedule is {now}: their log-SNR "
            f"differ by up to {most:.3g}; give the loss_curve.csv of a run with this schedule"
        )


def cut(curve: Curve, slots: int) -> Float[Tensor, " edges"]:
    """The log-SNR where each slot but the last ends: at its last row."""
    slot = slot_of(curve.loss, slots)
    last = torch.searchsorted(slot, torch.arange(1, slots), right=True) - 1
    return curve.logsnr[last.clamp(min=0)]


def slot_of(loss: Float[Tensor, " rows"], slots: int) -> Int[Tensor, " rows"]:
    """The slot, from 1, in which each row of a curve lies."""
    held = loss.double().cumsum(dim=0)
    return (slots * held / held[-1] - 1e-9).ceil().long().clamp(min=1)  # the margin absorbs rounding


def _ends(table: LinearBetas, indices: Sequence[int]) -> Float[Tensor, " edges"]:
    return table.logsnr((torch.tensor(indices) + 1) / table.steps)


def _even(slots: int, like: Tensor) -> Float[Tensor, " n"]:
    return torch.linspace(0, 1, slots + 1, dtype=like.dtype, device=like.device)


def _refuse_more_slots_than_timesteps(slots: int, schedule: NoiseSchedule) -> None:
    most = schedule.steps
    if most is not None and slots > most:
        raise UserError(f"timesteps.proposal.{slots=}, but the schedule has {most} timesteps: take {most} or fewer")
