"""The whole of training on one page: draw a time, add noise, hide, predict, score."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.masking import Masking
from smallbatch.notation import Condition, Image, Observed, PerImage, Time
from smallbatch.randomness import Step
from smallbatch.timesteps import Timesteps
from smallbatch.weightings import Weighting


class Loss(NamedTuple):
    value: Tensor  # scalar, what is minimised
    t: Time
    per_image: PerImage  # weighted, with what stays unweighted, before the importance correction
    observed: Observed


class Objective(nn.Module):
    """`drop_condition` is the share of rows that are told nothing, for classifier-free guidance.

    `noise_condition` is the most noise, as a standard deviation, that small images to enlarge are given: each a share
    of it drawn evenly, of which the network is not told. Ho et al. 2021 (2106.15282), section 4.2.
    """

    def __init__(
        self,
        timesteps: Timesteps,
        weighting: Weighting,
        masking: Masking,
        drop_condition: float = 0.0,
        noise_condition: float = 0.0,
    ):
        super().__init__()
        if not 0 <= drop_condition <= 1:
            raise UserError(f"{drop_condition=} must lie in 0..1")
        if noise_condition < 0:
            raise UserError(f"{noise_condition=} must be at least 0")
        self.timesteps, self.weighting, self.masking = timesteps, weighting, masking
        self.drop_condition, self.noise_condition = drop_condition, noise_condition

    def forward(self, denoiser: Denoiser, x0: Image, condition: Condition, step: Step) -> Loss:
        rows, device = len(x0), x0.device
        t, importance, u = self.timesteps(step, rows, denoiser.schedule, device)
        level = denoiser.schedule(t)
        eps = step.draw("noise", torch.randn, x0.shape, device)
        drop = step.draw("dropped conditions", torch.rand, (rows,), device) < self.drop_condition
        told = self.noised(denoiser.network.forget(condition, drop), step)
        hidden = self.masking(step, x0, denoiser.network)

        x_t = level.mix(x0, eps)
        out = denoiser(x_t, level, told, hidden.keep)
        terms = denoiser.prediction.terms(out, x0, eps, level, hidden.seen)
        factor = self.weighting.counts(denoiser.prediction, terms, level)
        weighted = (factor * terms.error).sum(dim=1)
        unweighted = terms.unweighted + self.weighting.penalty(level)
        if hidden.keep is not None:
            denoised = denoiser.prediction.decode(out, x_t, level).x0
            unweighted = unweighted + self.masking.auxiliary(denoised, x_t, hidden.keep, denoiser.network)
        per_image = weighted + unweighted

        with torch.no_grad():
            slope, pooled = ((factor.square() * power).sum(dim=1) for power in (terms.slope, terms.pooled))
            seen = Observed(level.t, u, level.logsnr.flatten(), per_image, weighted, slope, pooled, factor, terms.gram)
        observed = Observed(*(None if column is None else column.detach() for column in seen))
        return Loss((importance * per_image).mean(), level.t, per_image.detach(), observed)

    def noised(self, condition: Condition, step: Step) -> Condition:
        small = condition.image
        if small is None or self.noise_condition == 0:
            return condition
        std = self.noise_condition * step.draw("noise of conditions", torch.rand, (len(small), 1, 1, 1), small.device)
        return condition._replace(image=small + std * step.draw("conditions", torch.randn, small.shape, small.device))

    def observe(self, observed: Observed) -> None:
        """Once per optimizer step, after it, with the rows of all ranks and micro-batches: the one way to adapt."""
        self.timesteps.observe(observed)
        self.weighting.observe(observed)
