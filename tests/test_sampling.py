"""Solvers, grids, guidance and the sampler, against closed forms."""

import math

import pytest
import torch

from smallbatch import schedules as S
from smallbatch.errors import UserError
from smallbatch.notation import Condition
from smallbatch.oracle import DatasetOracle, GaussianOracle
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Karras, Sampler, UniformTime
from smallbatch.solvers import DDIM, integrate
from smallbatch.wrappers import clipped, guided, swapped
from tests.leaves import PATHS, PREDICTIONS, SCHEDULES, SOLVERS
from tests.tiny import tiny_denoiser

cases = pytest.mark.parametrize
ORACLE = GaussianOracle(mean=0.3, std=0.5)


def unused(k):
    raise AssertionError("a deterministic solver drew noise")


def levels(schedule, times):
    return [schedule(t.expand(16)) for t in times]


def order(solver, schedule, low=0.1, high=0.9, steps=64):
    """log2 of how the error at the last level falls when the steps double."""
    x = torch.randn(16, 1, 1, 1, dtype=torch.float64)

    def error(n):
        grid = levels(schedule, torch.linspace(high, low, n + 1, dtype=torch.float64))
        first, last = grid[0], grid[-1]
        start, exact = (at.alpha * ORACLE.mean + ORACLE.spread(at) * x for at in (first, last))
        *_, got, _ = integrate(ORACLE, solver, start, grid, noise=unused)
        return (got - exact).abs().max().item()

    return math.log2(error(steps) / error(2 * steps))


@cases("path", PATHS.values(), ids=PATHS)
@cases("curve", [S.Cosine, S.Logistic, S.LogLinear])
@cases("name", SOLVERS)
def test_a_solver_converges_at_its_order_on_every_path(name, curve, path):
    solver, expected = SOLVERS[name]
    window = dict(low=0.35, high=0.65) if curve is S.LogLinear else {}  # spans 21 in log-SNR
    assert expected - 0.25 < order(solver, curve(path).double(), **window) < expected + 0.6


def test_the_last_step_lands_on_the_clean_image():
    images = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    schedule = SCHEDULES["cosine"]
    x = torch.randn(16, 1, 2, 2, dtype=torch.float64)
    grid = levels(schedule, UniformTime()(schedule, 50, x.device).double())
    *_, x0 = integrate(DatasetOracle(images), DDIM(), x, grid, noise=unused)
    nearest = (x0[:, None] - images).abs().amax(dim=(2, 3, 4)).amin(dim=1)
    assert nearest.max() < 1e-6


@cases("schedule", ["ddpm_linear", "cosine", "edm"])
def test_ancestral_sampling_has_the_data_distribution(schedule):
    schedule = SCHEDULES[schedule]
    times = UniformTime()(schedule, 500, torch.device("cpu"))
    grid = [schedule(t.expand(20_000)) for t in times]
    generator = torch.Generator().manual_seed(0)

    def draw(k):
        return torch.randn(20_000, 1, 1, 1, generator=generator)

    *_, x0 = integrate(ORACLE, DDIM(eta=1.0), grid[0].sigma * draw(0), grid[:-1], draw)
    assert abs(x0.mean() - 0.3) < 0.02
    # one jump remains from the last level: what it leaves out is known
    last = grid[-2]
    kept = (last.alpha.square() * 0.25 / ORACLE.spread(last).square()).mean().sqrt()
    assert abs(x0.std() / (0.5 * kept) - 1) < 0.03


def test_eta_one_has_the_posterior_variance_of_ddpm():
    table = SCHEDULES["ddpm_linear"]
    now = table(torch.tensor([0.5]))
    then = table.before(now)
    beta = 1 - (now.alpha / then.alpha).square()
    posterior = beta * then.sigma.square() / now.sigma.square()
    zero = torch.zeros(1, 1, 1, 1)
    moved, _ = DDIM(eta=1.0).step(lambda x, level: (zero, zero, None), zero, now, then, None, lambda: zero + 1)
    torch.testing.assert_close(moved.square(), posterior, rtol=2e-3, atol=0)


def test_karras_grid_is_even_in_sigma_to_the_seventh_root_between_its_ends():
    schedule = SCHEDULES["edm"]
    sigma = (-schedule.logsnr(Karras()(schedule, 18, torch.device("cpu"))) / 2).exp().double()
    torch.testing.assert_close(sigma[[0, -1]], torch.tensor([80.0, 0.002]).double(), rtol=1e-3, atol=0)
    gaps = sigma.pow(1 / 7).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(17), rtol=1e-3, atol=0)


def test_a_grid_that_visits_an_index_twice_is_refused():
    denoiser = tiny_denoiser(schedule=SCHEDULES["ddpm_linear"])
    with pytest.raises(UserError, match="steps=2000"):
        Sampler(DDIM(), UniformTime(), 2000)(denoiser, SampleNoise(0, [0], (1, 8, 8)), Condition())


@cases("solver", [solver for solver, _ in SOLVERS.values()] + [DDIM(1.0)], ids=[*SOLVERS, "ancestral"])
def test_a_sample_depends_on_its_own_number_alone(solver):
    denoiser = tiny_denoiser()
    sampler = Sampler(solver, UniformTime(), 5, guidance=2.0)
    label = torch.arange(6) % 3
    whole = sampler(denoiser, SampleNoise(3, range(6), (1, 8, 8)), Condition(label))
    part = sampler(denoiser, SampleNoise(3, [4, 1], (1, 8, 8)), Condition(label[[4, 1]]))
    torch.testing.assert_close(part, whole[[4, 1]], atol=1e-5, rtol=1e-5)


def guided_x0(scale, interval=(-torch.inf, torch.inf)):
    denoiser = tiny_denoiser()
    level = denoiser.schedule(torch.tensor([0.2, 0.8]))
    condition = Condition(torch.tensor([0, 1]))
    sampler = Sampler(DDIM(), UniformTime(), 2, scale, interval)
    x = torch.ones(2, 1, 8, 8)
    return guided(denoiser, condition, sampler.guidance, sampler.guidance_interval)(x, level).x0


def test_guidance_extrapolates_from_untold_to_told():
    told, untold = guided_x0(1.0), guided_x0(0.0)
    assert not torch.allclose(told, untold)
    torch.testing.assert_close(guided_x0(3.0), untold + 3 * (told - untold))


def test_guidance_acts_only_inside_its_interval():
    inside = guided_x0(3.0, (0.0, torch.inf))  # t = 0.2 has positive log-SNR, t = 0.8 negative
    torch.testing.assert_close(inside[0], guided_x0(3.0)[0])
    torch.testing.assert_close(inside[1], guided_x0(1.0)[1])


def test_clipping_bounds_the_image_and_keeps_x_t():
    level = SCHEDULES["cosine"](torch.tensor([0.5]))
    x_t = torch.full((1, 1, 2, 2), 5.0)
    got = clipped(ORACLE)(x_t, level)
    assert got.x0.abs().max() <= 1
    torch.testing.assert_close(level.mix(got.x0, got.eps), x_t)


def test_swapped_uses_the_oracle_only_inside_its_window():
    level = SCHEDULES["cosine"](torch.tensor([0.2, 0.5]))
    x_t, other = torch.randn(2, 1, 2, 2), GaussianOracle(-0.9, 0.1)
    got = swapped(ORACLE, other, 0.4, 0.6)(x_t, level)
    torch.testing.assert_close(got.x0[0], ORACLE(x_t, level).x0[0])
    torch.testing.assert_close(got.eps[1], other(x_t, level).eps[1])


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_dataset_oracle_is_the_gaussian_one_for_gaussian_data(schedule):
    quantiles = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    images = (0.3 + 0.5 * quantiles).view(-1, 1, 1, 1)
    logsnr = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.float64)
    level = schedule(schedule.time(logsnr.float()).double())
    x_t = level.alpha * torch.tensor([0.2, 0.5, -0.4], dtype=torch.float64).view(3, 1, 1, 1)
    torch.testing.assert_close(DatasetOracle(images)(x_t, level).x0, ORACLE(x_t, level).x0, atol=1e-3, rtol=1e-3)


@cases("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
@cases("solver", [solver for solver, _ in SOLVERS.values()], ids=SOLVERS)
def test_every_combination_samples(solver, schedule, prediction):
    denoiser = tiny_denoiser(schedule=schedule, prediction=prediction)
    x0 = Sampler(solver, UniformTime(), 4)(denoiser, SampleNoise(0, [0, 1], (1, 8, 8)), Condition())
    assert x0.shape == (2, 1, 8, 8) and x0.isfinite().all()
