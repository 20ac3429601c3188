"""Learned variance: one more output map places the variance of the reverse step between its two bounds."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from smallbatch.errors import UserError
from smallbatch.notation import Coefficient, Denoised, Image, NoiseLevel, Observed, Output, PerTerm, Seen
from smallbatch.predictions import Linear, Prediction, Terms, over_seen
from smallbatch.schedules import NoiseSchedule
from smallbatch.tables import Table


class LearnedVariance(Prediction):
    """The last map's (out + 1) / 2 interpolates the log variance from that of q(x_before | x_t, x0) to beta's.

    Nichol & Dhariwal 2021 (2102.09672), eqs. 15-16: to the terms of `mean` comes `scale` times the bound, which teaches
    the last map alone. Scale 1 is guided-diffusion's loss, T / 1000 improved-diffusion's L_hybrid. Variances are those
    of unit levels, so that the bound is the same on every path.
    """

    def __init__(self, mean: Prediction, schedule: NoiseSchedule, scale: float = 1.0):
        super().__init__()
        if not isinstance(schedule, Table):
            kind = type(schedule).__name__
            raise UserError(
                f"prediction: a learned variance needs a table, not {kind}: schedule=ddpm_linear or iddpm_cosine"
            )
        if schedule.steps < 2:
            raise UserError(f"prediction: a learned variance needs 2 steps, not {schedule.steps}: raise schedule.steps")
        if scale <= 0:
            raise UserError(f"prediction: {scale=} must be above 0; for no learned variance use prediction=eps")
        self.mean, self.schedule, self.scale = mean, schedule, scale
        self.outputs = mean.outputs + 1

    @property
    def heads(self) -> Mapping[str, Linear]:
        return self.mean.heads

    def terms(self, out: Output, x0: Image, eps: Image, level: NoiseLevel, seen: Seen | None = None) -> Terms:
        maps, fraction = self._split(out)
        estimate = self.mean.decode(maps, level.mix(x0, eps), level).x0.detach()
        bits = self.scale * over_seen(self.bound(x0, estimate, fraction, level), seen).mean(dim=(1, 2, 3))
        terms = self.mean.terms(maps, x0, eps, level, seen)
        return terms._replace(unweighted=terms.unweighted + bits)

    def shares(self, weighted: PerTerm) -> PerTerm:
        return self.mean.shares(weighted)

    def each(self, out: Output, x_t: Image, level: NoiseLevel) -> list[Denoised]:
        return self.mean.each(self._split(out)[0], x_t, level)

    def decode(self, out: Output, x_t: Image, level: NoiseLevel) -> Denoised:
        maps, fraction = self._split(out)
        return self.mean.decode(maps, x_t, level)._replace(variance=fraction)

    def observe(self, observed: Observed) -> None:
        self.mean.observe(observed)

    def bound(self, x0: Image, estimate: Image, fraction: Image, level: NoiseLevel) -> Image:
        """This timestep's share of the variational bound, in bits of every dimension; `estimate` is not clipped."""
        then, (least, most) = self.schedule.before(level), self._bounds(level)
        spread = fraction * (most - least)
        miss = -torch.expm1(level.logsnr - then.logsnr) * then.unit.alpha * (x0 - estimate)  # of the posterior mean
        kl = 0.5 * (spread + torch.expm1(-spread) + miss.square() * (-least - spread).exp())
        nats = torch.where(then.sigma == 0, discretised_nll(x0, estimate, (0.5 * (least + spread)).exp()), kl)
        return nats / math.log(2)

    def _bounds(self, level: NoiseLevel) -> tuple[Coefficient, Coefficient]:
        """Least and most log variance. The first index, whose posterior has none, takes the second's as its least."""
        second = self.schedule(level.t.clamp(min=2 / self.schedule.steps))
        least, _ = log_variances(second, self.schedule.before(second))
        _, most = log_variances(level, self.schedule.before(level))
        return least, most

    def _split(self, out: Output) -> tuple[Tensor, Image]:
        channels = out.shape[1] // self.outputs
        return out[:, :-channels], (out[:, -channels:] + 1) / 2


def log_variances(now: NoiseLevel, then: NoiseLevel) -> tuple[Coefficient, Coefficient]:
    """Of q(x_then | x_now, x0) and of q(x_now | x_then), beta, at unit levels. Ho et al. 2020 (2006.11239), eq. 7."""
    shared = (-torch.expm1(now.logsnr - then.logsnr)).log()
    return shared + F.logsigmoid(-then.logsnr), shared + F.logsigmoid(-now.logsnr)


def discretised_nll(x0: Image, mean: Image, std: Tensor) -> Image:
    """-log of the Gaussian's mass in the bin of each of 256 values, the outer bins open; in nats, at most -log 1e-12.

    Ho et al. 2020 (2006.11239), eq. 13, with the exact distribution function where their code has a tanh. Bins above
    the mean are mirrored below it, where float32 resolves the tail.
    """
    half, outer = 1 / 255, x0.abs() > 0.999
    away = torch.where(outer, -x0.sign() * (x0 - mean), -(x0 - mean).abs())
    beyond = torch.where(outer, 0.0, _below((away - half) / std))
    return -(_below((away + half) / std) - beyond).clamp(min=1e-12).log()


def _below(z: Tensor) -> Tensor:
    """The normal distribution function; torch's own, 1 + erf in float32, is 0 below -5.4."""
    return 0.5 * torch.erfc(-z / math.sqrt(2))
