"""Training on one page."""

import pytest
import torch

from smallbatch.densities import Density, LogNormal, Uniform
from smallbatch.draws import Stratified
from smallbatch.masking import Unmasked
from smallbatch.notation import Condition
from smallbatch.objective import Objective
from smallbatch.predictions import Eps
from smallbatch.randomness import Step
from smallbatch.timesteps import Timesteps
from smallbatch.variances import LearnedVariance
from smallbatch.weightings import Plain
from tests.leaves import MIXTURES, PREDICTIONS, SCHEDULES, TABLES, WEIGHTINGS
from tests.tiny import tiny_denoiser

cases = pytest.mark.parametrize
STEP = Step(seed=0, index=0, images=0, progress=0.0)


def images(rows=16):
    return torch.rand(rows, 1, 8, 8) * 2 - 1, Condition(torch.arange(rows) % 3)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
@cases("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
@cases("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_every_combination_trains_one_step(schedule, prediction, weighting):
    trains_one_step(schedule, prediction, weighting)


@cases("schedule", TABLES.values(), ids=TABLES)
@cases("mean", PREDICTIONS.values(), ids=PREDICTIONS)
@cases("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_every_combination_with_a_learned_variance_trains_one_step(schedule, mean, weighting):
    trains_one_step(schedule, LearnedVariance(mean, schedule), weighting)


def trains_one_step(schedule, prediction, weighting):
    denoiser = tiny_denoiser(schedule, prediction)
    objective = Objective(Timesteps(Stratified(), LogNormal()), weighting, Unmasked(), drop_condition=0.1)
    optimizer = torch.optim.AdamW(denoiser.parameters())
    before = [p.clone() for p in denoiser.parameters()]
    loss = objective(denoiser, *images(), STEP)
    loss.value.backward()
    optimizer.step()
    assert loss.value.isfinite() and loss.per_image.shape == (16,)
    assert all(p.isfinite().all() and not torch.equal(p, b) for p, b in zip(denoiser.parameters(), before, strict=True))


class Tilted(Density):
    """p(t) = 2 t, with the importance that keeps the uniform objective."""

    def forward(self, u, schedule, progress):
        t = u.sqrt()
        return t, 1 / (2 * t)


def test_importance_keeps_the_objective():
    denoiser, (x0, condition) = tiny_denoiser(), images(8192)
    losses = [
        Objective(Timesteps(Stratified(), density), Plain(), Unmasked())(denoiser, x0, condition, STEP).value
        for density in (Uniform(), Tilted())
    ]
    torch.testing.assert_close(*losses, rtol=0.02, atol=0)


@cases("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_no_weighting_touches_what_stays_unweighted(weighting):
    batch, table = images(), TABLES["ddpm_linear"]

    def per_image(scale, weighting):
        denoiser = tiny_denoiser(table, LearnedVariance(Eps(), table, scale))
        return Objective(Timesteps(Stratified(), Uniform()), weighting, Unmasked())(denoiser, *batch, STEP).per_image

    bound, plain = (per_image(1e6, w) - per_image(1, w) for w in (weighting, Plain()))
    torch.testing.assert_close(bound, plain, rtol=1e-3, atol=0)


def test_an_objective_reports_what_it_saw():
    loss = Objective(Timesteps(Stratified(), Uniform()), Plain(), Unmasked())(tiny_denoiser(), *images(), STEP)
    seen = loss.observed
    torch.testing.assert_close(seen.logsnr, SCHEDULES["cosine"](seen.t).logsnr.flatten())
    torch.testing.assert_close(seen.loss.mean(), loss.value.detach())
    assert seen.factor.shape == (16, 1) and seen.pooled.shape == (16,) and not seen.loss.requires_grad


@cases("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
@cases("prediction", [PREDICTIONS["v"], *MIXTURES.values()], ids=["v", *MIXTURES])
def test_slope_and_pooled_are_the_gradient_at_the_output_up_to_a_constant(weighting, prediction):
    denoiser, outputs = tiny_denoiser(prediction=prediction), []
    denoiser.network.register_forward_hook(lambda network, inputs, out: outputs.append(out) or out.retain_grad())
    loss = Objective(Timesteps(Stratified(), Uniform()), weighting, Unmasked())(denoiser, *images(), STEP)
    loss.value.backward()
    gradient = outputs[0].grad * 16 * 64 / 2  # the loss is a mean over 16 images of means over 64 pixels
    torch.testing.assert_close(loss.observed.slope, gradient.square().mean(dim=(2, 3)).sum(dim=1))
    torch.testing.assert_close(loss.observed.pooled, gradient.mean(dim=(2, 3)).square().sum(dim=1))


def test_dropped_conditions_are_the_asked_share_and_told_to_the_network_as_none():
    told = []
    denoiser = tiny_denoiser()
    denoiser.network.register_forward_pre_hook(lambda network, inputs: told.append(inputs[2].label))
    Objective(Timesteps(Stratified(), Uniform()), Plain(), Unmasked(), 0.25)(denoiser, *images(8000), STEP)
    assert abs((told[0] == -1).float().mean() - 0.25) < 0.02
    assert set(told[0].tolist()) == {-1, 0, 1, 2}


def test_the_loss_of_a_step_is_the_mean_over_its_micro_batches():
    denoiser, (x0, condition) = tiny_denoiser(), images(16)
    objective = Objective(Timesteps(Stratified(), Uniform()), Plain(), Unmasked(), 0.5)
    whole = objective(denoiser, x0, condition, STEP).value
    parts = [
        objective(denoiser, x0[rows], Condition(condition.label[rows]), Step(0, 0, 0, 0.0, micro=m, micros=4)).value
        for m, rows in enumerate(torch.arange(16).split(4))
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
