"""Learned variances."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from smallbatch.errors import UserError
from smallbatch.notation import Condition, Denoised, ImageSpec
from smallbatch.predictions import Eps, V
from smallbatch.solvers import Ancestral
from smallbatch.tables import CosineBetas, LinearBetas
from smallbatch.variances import LearnedVariance, discretised_nll, log_variances
from tests.leaves import PATHS, SCHEDULES, TABLES
from tests.tiny import tiny_denoiser

cases = pytest.mark.parametrize
LINEAR = TABLES["ddpm_linear"]
INDEX = torch.tensor([0, 1, 2, 10, 500, 998, 999])
LATER = INDEX > 0  # all but the last step of sampling


def published(table):
    """alpha_bar of both ends, beta and the clipped posterior variance of every index, from the betas alone."""
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)
    curve = ((u + 0.008) / 1.008 * math.pi / 2).cos().square()
    betas = {"ddpm_linear": 1e-4 + (0.02 - 1e-4) * torch.arange(1000, dtype=torch.float64) / 999}
    beta = (betas | {"iddpm_cosine": (1 - curve[1:] / curve[:-1]).clamp(max=0.999)})[table]
    bar = (1 - beta).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    posterior = beta * (1 - before) / (1 - bar)
    posterior[0] = posterior[1]
    return [value[INDEX, None, None, None] for value in (bar, before, beta, posterior)]


def a_batch(dtype=torch.float64, table=LINEAR):
    """A level, data on the 256 values, noise, and an output of two maps."""
    torch.manual_seed(0)
    x0 = torch.randint(256, (len(INDEX), 3, 8, 8)).to(dtype) / 127.5 - 1
    eps, wrong, last = torch.randn(3, *x0.shape, dtype=torch.float64).to(dtype)
    return table((INDEX + 1).to(dtype) / 1000), x0, eps, torch.cat([eps + wrong / 10, last], dim=1)


def bits(prediction, level, x0, eps, out, seen=None):
    return prediction.terms(out, x0, eps, level, seen).unweighted


@cases("table", TABLES)
def test_the_bound_is_the_kl_between_the_gaussians_of_ddpm(table):
    level, x0, eps, out = a_batch(table=TABLES[table])
    bar, before, beta, posterior = published(table)
    x_t = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
    estimate = (x_t - (1 - bar).sqrt() * out[:, :3]) / bar.sqrt()
    fraction = (out[:, 3:] + 1) / 2

    def mean(x0):
        return (beta * before.sqrt() * x0 + (1 - before) * (1 - beta).sqrt() * x_t) / (1 - bar)

    learned = Normal(mean(estimate), (0.5 * (fraction * beta.log() + (1 - fraction) * posterior.log())).exp())
    kl = kl_divergence(Normal(mean(x0), posterior.sqrt()), learned).mean(dim=(1, 2, 3)) / math.log(2)
    got = bits(LearnedVariance(Eps(), TABLES[table]), level, x0, eps, out)
    torch.testing.assert_close(got[LATER], kl[LATER], rtol=1e-4, atol=1e-9)  # the table is float32


@cases("table", TABLES)
def test_the_last_step_to_clean_data_costs_the_bits_of_its_256_values(table):
    level, x0, eps, out = a_batch(table=TABLES[table])
    _, _, beta, posterior = published(table)
    fraction = (out[:, 3:] + 1) / 2
    std = (0.5 * (fraction * beta.log() + (1 - fraction) * posterior.log())).exp()
    estimate = Eps().decode(out[:, :3], level.mix(x0, eps), level).x0
    nll = discretised_nll(x0, estimate, std).mean(dim=(1, 2, 3)) / math.log(2)
    got = bits(LearnedVariance(Eps(), TABLES[table]), level, x0, eps, out)
    torch.testing.assert_close(got[~LATER], nll[~LATER], rtol=1e-4, atol=0)


@cases("table", TABLES)
def test_float32_suffices_at_both_ends_of_the_table(table):
    prediction = LearnedVariance(Eps(), TABLES[table])
    single, double = (bits(prediction, *a_batch(dtype, TABLES[table])) for dtype in (torch.float32, torch.float64))
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)


@cases("path", ["exploding", "straight"])
def test_the_bound_is_the_same_on_every_path(path):
    (level, x0, eps, out), table = a_batch(), LinearBetas(PATHS[path])
    (there, *_), other = a_batch(table=table), LearnedVariance(V(), table)
    expected = bits(LearnedVariance(V(), LINEAR), level, x0, eps, out)
    torch.testing.assert_close(bits(other, there, x0, eps, out), expected, rtol=1e-5, atol=1e-9)


def test_the_exact_mean_with_the_posterior_variance_costs_nothing():
    level, x0, eps, _ = a_batch()
    out = torch.cat([eps, -torch.ones_like(eps)], dim=1)
    got = bits(LearnedVariance(Eps(), LINEAR), level, x0, eps, out)
    assert got[LATER].abs().max() < 1e-12 and got[~LATER] > 0


def test_the_bound_teaches_the_last_map_alone_and_the_error_the_others():
    level, x0, eps, out = a_batch()
    out.requires_grad_()
    terms = LearnedVariance(Eps(), LINEAR).terms(out, x0, eps, level)
    (of_bound,) = torch.autograd.grad(terms.unweighted.sum(), out)
    (of_error,) = torch.autograd.grad(terms.error.sum(), out)
    assert of_bound[:, :3].count_nonzero() == 0 and of_bound[:, 3:].ne(0).float().mean() > 0.99
    assert of_error[:, 3:].count_nonzero() == 0 and of_error[:, :3].ne(0).all()


@cases("mean", [Eps(), V()], ids=["eps", "v"])
def test_means_and_their_scores_are_those_of_the_wrapped_prediction(mean):
    level, x0, eps, out = a_batch()
    prediction, x_t = LearnedVariance(mean, LINEAR), level.mix(x0, eps)
    free = mean.decode(out[:, :3], x_t, level)
    got = prediction.decode(out, x_t, level)
    assert prediction.outputs == 2 and torch.equal(got.x0, free.x0) and torch.equal(got.eps, free.eps)
    assert torch.equal(got.variance, (out[:, 3:] + 1) / 2)
    assert torch.equal(prediction.each(out, x_t, level)[0].x0, free.x0)
    terms, plain = prediction.terms(out, x0, eps, level), mean.terms(out[:, :3], x0, eps, level)
    assert all(torch.equal(*pair) for pair in zip(terms[:3], plain[:3], strict=True))
    assert torch.equal(prediction.shares(terms.error), mean.shares(plain.error))


def test_scale_multiplies_the_bound():
    batch = a_batch()
    once, thrice = (bits(LearnedVariance(Eps(), LINEAR, scale), *batch) for scale in (1, 3))
    torch.testing.assert_close(thrice, 3 * once)


def test_the_bound_over_seen_pixels_averages_to_the_bound_over_all():
    batch, prediction = a_batch(), LearnedVariance(Eps(), LINEAR)
    seen = torch.zeros(2, len(INDEX), 1, 8, 8, dtype=torch.float64)
    seen[0, :, :, :3], seen[1, :, :, 3:] = 1, 1
    top, bottom = (bits(prediction, *batch, part) for part in seen)
    torch.testing.assert_close((3 * top + 5 * bottom) / 8, bits(prediction, *batch))


@cases("path", PATHS)
def test_ancestral_sampling_adds_the_variance_that_the_bound_scored(path):
    table = LinearBetas(PATHS[path])
    now, _, _, out = a_batch(table=table)
    then, fraction, nothing = table.before(now), (out[:, 3:] + 1) / 2, torch.zeros_like(out[:, 3:])
    least, most = log_variances(now, then)
    told = Denoised(nothing, nothing, fraction)
    added, _ = Ancestral().step(lambda x, level: told, nothing, now, then, None, lambda: torch.ones_like(nothing))
    scored = then.sigma / then.unit.sigma * (0.5 * torch.lerp(least, most, fraction)).exp()
    torch.testing.assert_close(added[LATER], scored[LATER])


@cases("std", [0.003, 0.02, 0.5])
def test_the_masses_of_the_256_values_sum_to_one(std):
    values = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(256, 1, 1, 1)
    for mean in (-1.3, -1.0, 0.1234, 0.99, 2.0):
        mass = (-discretised_nll(values, torch.full_like(values, mean), torch.tensor(std).double())).exp()
        torch.testing.assert_close(mass.sum(), torch.tensor(1.0).double(), rtol=0, atol=1e-9)


def test_both_tails_of_a_value_are_resolved_in_float32():
    x0 = torch.tensor([-254.0, -100.0, -1.0, 0.0, 7.0, 254.0]).view(6, 1, 1, 1) / 255
    mean, std = x0 + 0.05, torch.tensor(0.008)
    below, above = discretised_nll(x0, mean, std), discretised_nll(-x0, -mean, std)
    normal = Normal(mean.double(), std.double())
    exact = -(normal.cdf(x0.double() + 1 / 255) - normal.cdf(x0.double() - 1 / 255)).log()
    torch.testing.assert_close(below, above)
    torch.testing.assert_close(below.double(), exact, rtol=1e-4, atol=0)
    assert exact.min() > 15 and exact.max() < 27  # far out, and short of the floor


def reverse_variance(level, before, data_variance):
    """Of x_before given x_t, for Gaussian data."""
    kept = level.alpha.square() / before.alpha.square()
    return 1 / (1 / (before.alpha.square() * data_variance + before.sigma.square()) + kept / (1 - kept))


@cases("index", [5, 100])
def test_training_under_an_ideal_mean_finds_the_variance_of_the_true_reverse_step(index):
    torch.manual_seed(0)
    level = LINEAR(torch.full((16,), (index + 1) / 1000, dtype=torch.float64))
    before, (x0, eps) = LINEAR.before(level), torch.randn(2, 16, 1, 32, 32, dtype=torch.float64)
    ideal = level.mix(x0 / 2, eps) * level.sigma / (level.alpha.square() / 4 + level.sigma.square())

    def bound(fraction):
        out = torch.cat([ideal, (2 * fraction - 1).expand_as(ideal)], dim=1)
        return bits(LearnedVariance(Eps(), LINEAR), level, x0 / 2, eps, out).mean()

    fraction = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([fraction], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        bound(fraction).backward()
        optimizer.step()
    grid = torch.linspace(0.5, 1.1, 31, dtype=torch.float64)
    least_bound = grid[torch.stack([bound(point) for point in grid]).argmin()]
    least, most = log_variances(level, before)
    true = ((reverse_variance(level, before, 0.25).log() - least) / (most - least)).mean()
    assert abs(fraction - least_bound) < 0.02 and abs(fraction - true) < 0.03, (fraction, least_bound, true)


def test_200_steps_of_a_network_lower_the_bound():
    prediction = LearnedVariance(Eps(), LINEAR)
    denoiser, x0 = tiny_denoiser(LINEAR, prediction, ImageSpec(1, 8, 0), None), torch.rand(16, 1, 8, 8) * 2 - 1
    optimizer, bounds = torch.optim.AdamW(denoiser.parameters(), lr=5e-3), []
    fixed = LINEAR(torch.linspace(0.03, 1, 16)), torch.randn_like(x0)

    def terms(level, eps):
        return prediction.terms(denoiser(level.mix(x0, eps), level, Condition()), x0, eps, level)

    for step in range(201):
        if step % 100 == 0:
            bounds.append(terms(*fixed).unweighted.mean().item())
        now = terms(LINEAR(torch.rand(16)), torch.randn_like(x0))
        (now.error.mean() + now.unweighted.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert bounds[0] > 1.4 * bounds[1] and bounds[1] > 1.05 * bounds[2], bounds


@cases(
    "schedule, scale, line",
    [
        (SCHEDULES["cosine"], 1.0, "schedule=ddpm_linear or iddpm_cosine"),
        (CosineBetas(PATHS["preserving"], steps=1), 1.0, "raise schedule.steps"),
        (LINEAR, 0.0, "must be above 0"),
    ],
)
def test_a_variance_that_cannot_be_learned_is_refused(schedule, scale, line):
    with pytest.raises(UserError, match=line):
        LearnedVariance(Eps(), schedule, scale)
