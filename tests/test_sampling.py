"""Solvers, grids, guidance and the sampler, against closed forms."""

import math

import pytest
import torch

from smallbatch import schedules as S
from smallbatch.churn import Churn
from smallbatch.errors import UserError
from smallbatch.notation import Condition, Denoised
from smallbatch.oracle import DatasetOracle, GaussianOracle
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Karras, Respaced, Sampler, Strided, Trailing, UniformLogSNR
from smallbatch.solvers import DDIM, Ancestral, DPMpp2M, Heun, UniPC, integrate
from smallbatch.wrappers import clipped, guided, swapped
from tests.leaves import CONTINUOUS, EVERY_SOLVER, GRIDS, PATHS, PREDICTIONS, SCHEDULES, SOLVERS, STOCHASTIC, TABLES
from tests.tiny import tiny_denoiser

cases = pytest.mark.parametrize
CPU = torch.device("cpu")
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
@cases("curve", [S.Cosine, S.Logistic, S.LogLinear, S.Sigmoid])
@cases("name", SOLVERS)
def test_a_solver_converges_at_its_order_on_every_path(name, curve, path):
    solver, expected = SOLVERS[name]
    window = dict(low=0.35, high=0.65) if curve is S.LogLinear else {}  # spans 21 in log-SNR
    assert expected - 0.25 < order(solver, curve(path).double(), **window) < expected + 0.6


def test_the_last_step_lands_on_the_clean_image():
    images = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    schedule = SCHEDULES["cosine"]
    x = torch.randn(16, 1, 2, 2, dtype=torch.float64)
    grid = levels(schedule, Trailing()(schedule, 50, x.device).double())
    *_, x0 = integrate(DatasetOracle(images), DDIM(), x, grid, noise=unused)
    nearest = (x0[:, None] - images).abs().amax(dim=(2, 3, 4)).amin(dim=1)
    assert nearest.max() < 1e-6


@cases("solver", [DPMpp2M(), UniPC()], ids=["dpmpp_2m", "unipc"])
def test_a_multistep_solver_calls_the_denoiser_once_per_level(solver):
    asked = []

    def counted(x, level):
        asked.append(level)
        return ORACLE(x, level)

    grid = levels(SCHEDULES["cosine"], torch.linspace(1, 0.1, 7))
    assert len([*integrate(counted, solver, torch.randn(16, 1, 1, 1), grid, noise=unused)]) == len(asked) == 7


def test_unipc_predicts_as_dpmpp_2m_does():
    first, second, third = levels(SCHEDULES["cosine"], torch.tensor([0.6, 0.5, 0.4]).double())
    x = torch.randn(16, 1, 1, 1, dtype=torch.float64)
    predicted, memory = UniPC().step(ORACLE, x, first, second, None, unused)
    torch.testing.assert_close(predicted, DPMpp2M().step(ORACLE, x, first, second, None, unused)[0])
    ahead, (corrected, point, before) = UniPC().step(ORACLE, predicted, second, third, memory, unused)
    rule = DPMpp2M().step(lambda x, level: Denoised(point[0], x), corrected, second, third, before, unused)
    torch.testing.assert_close(ahead, rule[0])


@cases("schedule", ["ddpm_linear", "cosine", "edm"])
@cases("solver", STOCHASTIC.values(), ids=STOCHASTIC)
def test_ancestral_sampling_has_the_data_distribution(solver, schedule):
    schedule = SCHEDULES[schedule]
    grid = [schedule(t.expand(20_000)) for t in Trailing()(schedule, 500, CPU)]
    generator = torch.Generator().manual_seed(0)

    def draw(k):
        return torch.randn(20_000, 1, 1, 1, generator=generator)

    *_, x0 = integrate(ORACLE, solver, grid[0].sigma * draw(0), grid[:-1], draw)
    assert abs(x0.mean() - 0.3) < 0.02
    # one jump remains from the last level: what it leaves out is known
    last = grid[-2]
    kept = (last.alpha.square() * 0.25 / ORACLE.spread(last).square()).mean().sqrt()
    assert abs(x0.std() / (0.5 * kept) - 1) < 0.03


def respaced_ddpm(kept):
    """DDPM's posterior between kept indices, from betas derived anew: coefficients of x0 and x_t, variances."""
    bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[sorted(kept)]
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    beta = 1 - bar / before
    of_x0, of_xt = before.sqrt() * beta / (1 - bar), (1 - beta).sqrt() * (1 - before) / (1 - bar)
    return of_x0[1:], of_xt[1:], beta[1:] * (1 - before[1:]) / (1 - bar[1:]), beta[1:]


@cases("steps", [1000, 250, 10])
def test_ancestral_on_a_respaced_table_is_ddpm_with_betas_derived_anew(steps):
    table = SCHEDULES["ddpm_linear"]
    times = Respaced()(table, steps, CPU).double().flip(0)  # from data to noise
    of_x0, of_xt, small, large = respaced_ddpm(table.index(times).tolist())
    now, then = table(times[1:]), table(times[:-1])
    x0, x_t, fresh = torch.randn(3, steps - 1, 1, 1, 1, dtype=torch.float64)
    for fraction, variance in ((0.0, small), (0.5, (small * large).sqrt()), (1.0, large)):
        moved, _ = Ancestral(fraction).step(lambda x, level: level.unmix(x, x0), x_t, now, then, None, lambda: fresh)
        expected = of_x0 * x0.flatten() + of_xt * x_t.flatten() + variance.sqrt() * fresh.flatten()
        torch.testing.assert_close(moved.flatten(), expected, atol=1e-5, rtol=1e-4)


@cases("solver", STOCHASTIC.values(), ids=STOCHASTIC)
def test_float32_suffices_for_a_long_step_where_the_data_is_nearly_lost(solver):
    def moved(dtype):
        now, then = levels(SCHEDULES["iddpm_cosine"], torch.tensor([1.0, 0.889], dtype=dtype))
        x0, x_t, fresh = (torch.full((16, 1, 1, 1), value, dtype=dtype) for value in (1, 2, 0.5))
        return solver.step(lambda x, level: level.unmix(x, x0), x_t, now, then, None, lambda: fresh)[0]

    torch.testing.assert_close(moved(torch.float32).double(), moved(torch.float64), atol=1e-6, rtol=0)


def test_a_learned_variance_lies_between_the_small_and_the_large_pixel_by_pixel():
    now, then = levels(SCHEDULES["cosine"], torch.tensor([0.5, 0.4]))
    x, fresh = torch.randn(2, 16, 1, 1, 2)
    learned = torch.tensor([0.0, 1.0]).expand_as(x)

    def moved(solver, variance):
        def denoise(x, level):
            return ORACLE(x, level)._replace(variance=variance)

        return solver.step(denoise, x, now, then, None, lambda: fresh)[0]

    got, small, large = moved(Ancestral(0.3), learned), moved(Ancestral(0.0), None), moved(Ancestral(1.0), None)
    torch.testing.assert_close(got, torch.cat([small[..., :1], large[..., 1:]], dim=-1))
    assert not torch.allclose(small, large)


@cases("path", PATHS.values(), ids=PATHS)
@cases("solver", STOCHASTIC.values(), ids=STOCHASTIC)
def test_ancestral_steps_are_the_same_on_every_path(solver, path):
    def steps(path):
        now, then = levels(S.Cosine(path), torch.tensor([0.6, 0.5]).double())
        length = [at.alpha / at.unit.alpha for at in (now, then)]
        x = torch.linspace(-2, 2, 16, dtype=torch.float64).view(16, 1, 1, 1)
        return solver.step(ORACLE, length[0] * x, now, then, None, lambda: x + 1)[0] / length[1]

    torch.testing.assert_close(steps(path), steps(S.VariancePreserving()))


@cases("solver", [Ancestral(0.0), DDIM(1.0)], ids=["ancestral", "ddim"])
def test_a_repeated_level_is_no_step_and_no_noise(solver):
    now = SCHEDULES["cosine"](torch.tensor([0.5]))
    x = torch.randn(1, 1, 2, 2)
    moved, _ = solver.step(ORACLE, x, now, now, None, lambda: torch.full_like(x, 9.0))
    torch.testing.assert_close(moved, x)


def churned(schedule, solver, steps):
    """20 000 pixels sampled from ORACLE, and for which k noise was drawn."""
    generator = torch.Generator().manual_seed(0)
    drawn = []

    def draw(k):
        drawn.append(k)
        return torch.randn(1, 1, 1, 20_000, generator=generator)

    grid = [schedule(t[None]) for t in UniformLogSNR(-9, 8)(schedule, steps, CPU)]
    stir = Churn(amount=30.0, low=0.05, high=20.0)(schedule, steps)
    *_, x0 = integrate(ORACLE, solver, grid[0].sigma * draw(0), grid, draw, stir)
    return x0, drawn


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_churn_keeps_the_data_distribution(schedule):
    x0, drawn = churned(schedule, Heun(), 100)
    assert abs(x0.mean() - 0.3) < 0.015 and abs(x0.std() / 0.5 - 1) < 0.015
    assert len(drawn) > 60 and max(drawn) == 0 and len(set(drawn)) == len(drawn)


@cases("solver", EVERY_SOLVER.values(), ids=EVERY_SOLVER)
def test_churn_goes_with_any_solver(solver):
    x0, drawn = churned(SCHEDULES["cosine"], solver, 400)  # of first order, as fresh noise ends a memory
    assert abs(x0.mean() - 0.3) < 0.015 and abs(x0.std() / 0.5 - 1) < 0.05
    assert len(set(drawn)) == len(drawn)


def test_churn_of_nothing_changes_no_bit_and_draws_no_noise():
    def draw(k):
        assert k >= 0
        return SampleNoise(0, range(4), (1, 8, 8))(k)

    def sample(**churn):
        return Sampler(Ancestral(), Trailing(), 5, **churn)(tiny_denoiser(), draw, Condition())

    assert sample().equal(sample(churn=Churn(0.0))) and sample().equal(sample(churn=Churn(40.0, low=1e6)))


@cases("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_churn_raises_sigma_over_alpha_by_its_factor_inside_its_ends(schedule):
    stir = Churn(amount=2.0, low=0.1, high=10.0, noise_scale=1.5)(schedule, 10)
    x, fresh = torch.randn(2, 3, 1, 1, 1)
    for ratio, factor in ((0.05, 1.0), (0.2, 1.2), (5.0, 1.2), (20.0, 1.0)):
        now = schedule(schedule.time(torch.full((3,), -2 * math.log(ratio))))
        moved, raised = stir(x, now, lambda: fresh)
        expected = torch.full((3, 1, 1, 1), ratio * factor)
        torch.testing.assert_close(raised.sigma / raised.alpha, expected, rtol=1e-4, atol=0)
        added = 1.5 * ratio * math.sqrt(factor**2 - 1) * fresh
        torch.testing.assert_close(moved / raised.alpha, x / now.alpha + added, rtol=1e-3, atol=1e-3)


def test_churn_never_more_than_doubles_the_variance():
    schedule = SCHEDULES["edm"]
    now = schedule(torch.tensor([0.5]))
    _, raised = Churn(amount=1e6)(schedule, 10)(torch.zeros(1, 1, 1, 1), now, lambda: torch.zeros(1, 1, 1, 1))
    torch.testing.assert_close(raised.sigma, math.sqrt(2) * now.sigma)


@cases("leaf, wrong", [(Churn, "amount=-1"), (Ancestral, "variance=-1")])
def test_a_negative_amount_of_noise_is_refused(leaf, wrong):
    with pytest.raises(UserError, match=wrong):
        leaf(-1)


def test_trailing_is_even_in_t_and_in_indices():
    table = SCHEDULES["ddpm_linear"]
    assert table.index(Trailing()(table, 4, CPU)).tolist() == [999, 749, 499, 249]
    torch.testing.assert_close(Trailing()(SCHEDULES["cosine"], 4, CPU), torch.tensor([1.0, 0.75, 0.5, 0.25]))


@cases("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_uniform_logsnr_is_even_between_its_ends_or_the_schedules_own(schedule):
    got = schedule.logsnr(UniformLogSNR(-9, 30)(schedule, 20, CPU))
    own = schedule.logsnr(torch.zeros(1)).item()
    high, low = own, max(-9.0, schedule.logsnr(torch.ones(1)).item())
    torch.testing.assert_close(got, torch.linspace(low, high, 20), rtol=1e-3, atol=1e-2)


def test_respaced_gives_the_published_indices():
    table = SCHEDULES["ddpm_linear"]
    for steps in (250, 3):  # 3: an index at a half, rounded to even
        published = [round(i * (999 / (steps - 1))) for i in range(steps)]
        assert table.index(Respaced()(table, steps, CPU)).tolist() == published[::-1]


@cases("steps, stride", [(25, 40), (10, 100), (1000, 1), (334, 3)])
def test_strided_takes_every_so_many_th_index_from_the_first(steps, stride):
    table = SCHEDULES["ddpm_linear"]
    assert table.index(Strided()(table, steps, CPU)).tolist() == [*range(0, 1000, stride)][::-1]


@cases("steps, fits", [(600, "use 500 or 1000"), (37, "use 36 or 38"), (1200, "use 1000")])
def test_a_count_of_steps_that_no_stride_has_is_refused(steps, fits):
    with pytest.raises(UserError, match=fits):
        Strided()(SCHEDULES["ddpm_linear"], steps, CPU)


@cases("grid", [Respaced(), Strided()], ids=["respaced", "strided"])
def test_grids_of_indices_ask_for_a_table(grid):
    with pytest.raises(UserError, match="Cosine is none: choose sampler/grid=trailing"):
        grid(SCHEDULES["cosine"], 10, CPU)


def test_karras_grid_is_even_in_sigma_to_the_seventh_root_between_its_ends():
    schedule = SCHEDULES["edm"]
    sigma = (-schedule.logsnr(Karras()(schedule, 18, torch.device("cpu"))) / 2).exp().double()
    torch.testing.assert_close(sigma[[0, -1]], torch.tensor([80.0, 0.002]).double(), rtol=1e-3, atol=0)
    gaps = sigma.pow(1 / 7).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(17), rtol=1e-3, atol=0)


def test_a_grid_that_visits_an_index_twice_is_refused():
    denoiser = tiny_denoiser(schedule=SCHEDULES["ddpm_linear"])
    with pytest.raises(UserError, match="steps=2000"):
        Sampler(DDIM(), Trailing(), 2000)(denoiser, SampleNoise(0, [0], (1, 8, 8)), Condition())


@cases("solver", EVERY_SOLVER.values(), ids=EVERY_SOLVER)
def test_a_sample_depends_on_its_own_number_alone(solver):
    denoiser = tiny_denoiser()
    sampler = Sampler(solver, Trailing(), 5, guidance=2.0, churn=Churn(1.0))
    label = torch.arange(6) % 3
    whole = sampler(denoiser, SampleNoise(3, range(6), (1, 8, 8)), Condition(label))
    part = sampler(denoiser, SampleNoise(3, [4, 1], (1, 8, 8)), Condition(label[[4, 1]]))
    torch.testing.assert_close(part, whole[[4, 1]], atol=1e-5, rtol=1e-5)


def guided_x0(scale, interval=(-torch.inf, torch.inf)):
    denoiser = tiny_denoiser()
    level = denoiser.schedule(torch.tensor([0.2, 0.8]))
    condition = Condition(torch.tensor([0, 1]))
    sampler = Sampler(DDIM(), Trailing(), 2, scale, interval)
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


def sampled(solver, grid, schedule, prediction, churn):
    denoiser = tiny_denoiser(schedule=schedule, prediction=prediction)
    return Sampler(solver, grid, 4, churn=churn)(denoiser, SampleNoise(0, [0, 1], (1, 8, 8)), Condition())


@cases("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
@cases("solver", EVERY_SOLVER.values(), ids=EVERY_SOLVER)
def test_every_combination_samples(solver, schedule, prediction):
    x0 = sampled(solver, Trailing(), schedule, prediction, Churn())
    assert x0.shape == (2, 1, 8, 8) and x0.isfinite().all()


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
@cases("solver", EVERY_SOLVER.values(), ids=EVERY_SOLVER)
def test_every_grid_samples_with_churn(solver, schedule):
    grids = {**GRIDS, "respaced": Respaced(), "strided": Strided()} if schedule in TABLES.values() else GRIDS
    for grid in grids.values():
        assert sampled(solver, grid, schedule, None, Churn(1.0)).isfinite().all()
