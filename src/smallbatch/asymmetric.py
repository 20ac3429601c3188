"""SpeeD: the times of slow change drawn less often, in pairs, and weighted by how fast the noise rises."""

import torch
from torch import Tensor

from smallbatch.densities import Density
from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.notation import PerImage, Time
from smallbatch.schedules import NoiseSchedule, interval


class SpeeD(Density):
    """Fewer of the times at which nearly all is noise already, and more weight where the noise rises fast.

    Wang et al. 2024 (2405.17403). With alpha_bar that of the unit circle, tau is the first time after which
    sqrt(1 - alpha_bar) rises by less than `threshold` per thousandth of time. For u < 1/2, p(t) is `ratio` / Z below
    tau and 1 / Z above, Z = ratio tau + 1 - tau; u + 1/2 gives its mirror |tau - t|. Together
    p(t) = ([t < tau] ratio + [t > tau] / 2 + [t < 1 - tau] / 2) / Z. The paper draws in such pairs: draw=pairs.

    In place of the importance it returns the change-aware weight, which changes the objective too: 1 above tau; below,
    the rise of 1 - alpha_bar, scaled from its least and largest to 1 - strength and strength.

    Deviation: the public code takes tau = 700 of 1000 for ratio and weight, whatever the schedule, and the threshold
    for the mirror only; on DDPM's linear schedule the threshold gives 642, which serves all three here.
    """

    def __init__(self, ratio: float = 5.0, strength: float = 0.6, threshold: float = 1e-4):
        super().__init__()
        refuse_unless_positive("timesteps", ratio=ratio, threshold=threshold)
        if not 0.5 <= strength <= 1:
            raise UserError(f"timesteps: {strength=} must lie in 0.5..1: weights go from 1 - strength to strength")
        self.ratio, self.strength, self.threshold = ratio, strength, threshold

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        noise = noise_of(schedule, u.device)
        tau = self.tau(noise)
        t = self.asymmetric(2 * u % 1, tau)
        t = torch.where(u < 0.5, t, (tau - t).abs())
        return t, self.weights(noise, tau)[interval(t, len(noise))]

    def asymmetric(self, v: Time, tau: Tensor) -> Time:
        area = self.ratio * tau + 1 - tau
        return torch.where(v * area < self.ratio * tau, v * area / self.ratio, 1 - (1 - v) * area).clamp(0, 1)

    def tau(self, noise: Tensor) -> Tensor:
        """1 where the rise stays above the threshold to the end, 0 where it never reaches it."""
        rise = per_thousandth(noise.sqrt())
        steps = torch.arange(2, len(noise) + 2, device=noise.device)
        return torch.where(rise >= self.threshold, steps, 0).amax().clamp(max=len(noise)) / len(noise)

    def weights(self, noise: Tensor, tau: Tensor) -> Tensor:
        rise = per_thousandth(noise)
        change = (rise - rise.amin()) / (rise.amax() - rise.amin())
        steps = torch.arange(1, len(noise) + 1, device=noise.device)
        below = 1 - self.strength + (2 * self.strength - 1) * change
        return torch.where(steps <= tau * len(noise) + 1e-3, below, 1.0)

    def check(self, schedule: NoiseSchedule) -> None:
        if schedule.steps is not None and schedule.steps < 3:
            raise UserError(f"timesteps: a slope needs 3 times, but schedule.steps={schedule.steps}")
        rise = per_thousandth(noise_of(schedule, torch.device("cpu")).sqrt())
        if not rise[-1] < self.threshold <= rise.amax():
            raise UserError(
                f"timesteps: threshold={self.threshold} must lie above the last and below the fastest rise of "
                f"sqrt(1 - alpha_bar) on this schedule, {rise[-1]:.2g} and {rise.amax():.2g} per thousandth of time"
            )


def noise_of(schedule: NoiseSchedule, device: torch.device) -> Tensor:
    """1 - alpha_bar at every time of a table, or at a thousand times."""
    steps = schedule.steps or 1000
    return (-schedule.logsnr(torch.arange(1, steps + 1, device=device) / steps)).sigmoid()


def per_thousandth(curve: Tensor) -> Tensor:
    """How much it rises in a thousandth of time."""
    return torch.gradient(curve)[0] * len(curve) / 1000
