"""Draws and densities."""

from collections import Counter

import pytest
import torch

from smallbatch.densities import TowardData, TowardNoise, UShaped, Window
from smallbatch.draws import Rounds
from smallbatch.errors import UserError
from smallbatch.randomness import Step
from smallbatch.timesteps import Timesteps
from tests.chi_square import fits
from tests.leaves import DENSITIES, DRAWS, SCHEDULES

cases = pytest.mark.parametrize
CPU = torch.device("cpu")


def at(index, **where):
    return Step(seed=0, index=index, images=64 * index, progress=0.0, **where)


@cases("draw", DRAWS.values(), ids=DRAWS)
def test_points_lie_in_the_half_open_unit_interval_and_are_even(draw):
    u = torch.cat([draw(at(i), 64, CPU) for i in range(400)])
    assert (u >= 0).all() and (u < 1).all()
    counts = (u * 16).long().bincount(minlength=16).double()
    chi_square = ((counts - len(u) / 16) ** 2 / (len(u) / 16)).sum()
    assert chi_square < 37.7  # 99.9 % of chi-square with 15 degrees of freedom


@cases("draw", [DRAWS["stratified"], DRAWS["low_discrepancy"]], ids=["stratified", "low_discrepancy"])
def test_every_slot_of_the_global_batch_is_hit_once_over_ranks_and_micro_batches(draw):
    parts = [draw(at(3, rank=r, ranks=2, micro=m, micros=2), 16, CPU) for m in range(2) for r in range(2)]
    u = torch.cat(parts)
    assert sorted((u * 64).long().tolist()) == list(range(64))
    torch.testing.assert_close(u, draw(at(3), 64, CPU), rtol=0, atol=0)


@cases("rows", [1, 4])
def test_low_discrepancy_fills_in_across_steps(rows):
    steps = 64 // rows
    u = torch.cat([DRAWS["low_discrepancy"](at(i), rows, CPU) for i in range(steps)])
    assert max(Counter((u * 32).long().tolist()).values()) <= 4  # i.i.d. points reach 6 or more nearly always
    assert len(set((u * 32).long().tolist())) >= 30


@cases("schedule", ["cosine", "rectified_flow", "edm"])
@cases("density", DENSITIES.values(), ids=DENSITIES)
@cases("draw", DRAWS.values(), ids=DRAWS)
def test_time_is_in_range_and_importance_positive(draw, density, schedule):
    t, importance, _ = Timesteps(draw, density)(at(0), 256, SCHEDULES[schedule], CPU)
    assert (t >= 0).all() and (t <= 1).all() and (importance > 0).all()


NORMAL = torch.distributions.Normal(0.0, 1.0)
DISTRIBUTION = {  # of time, from t and log-SNR
    "uniform": lambda t, logsnr: t,
    "lognormal": lambda t, logsnr: NORMAL.cdf((-logsnr / 2 + 1.2) / 1.2),
    "logit_normal": lambda t, logsnr: NORMAL.cdf(((t / (2 - t)).logit() + 0.4) / 0.8),
    "laplace": lambda t, logsnr: 1 - torch.distributions.Laplace(0.5, 0.5).cdf(logsnr),
    "toward_noise": lambda t, logsnr: t**2.5,
    "toward_data": lambda t, logsnr: 1 - (1 - t) ** 2.5,
    "u_shaped": lambda t, logsnr: 0.5 + 0.1 * (2 * t - 1) + 0.4 * (2 * t - 1) ** 3,
    "window": lambda t, logsnr: (t - 0.3) / 0.4,
}


@cases("name", DENSITIES)
def test_a_density_has_its_distribution(name):
    n, schedule = 4000, SCHEDULES["cosine"]
    t, importance, _ = Timesteps(DRAWS["stratified"], DENSITIES[name])(at(0), n, schedule, CPU)
    t = t.sort().values.double()
    slots = (torch.arange(n) + 0.5) / n
    assert (DISTRIBUTION[name](t, schedule.logsnr(t)) - slots).abs().max() < 0.6 / n  # 0.5 / n is what strata leave
    assert (importance == 1).all()


@cases("name", DENSITIES)
def test_a_hundred_thousand_draws_follow_a_density_and_not_one_a_little_off(name):
    schedule, edges = SCHEDULES["cosine"], torch.linspace(0, 1, 33)
    t, _, _ = Timesteps(DRAWS["iid"], DENSITIES[name])(at(0), 100_000, schedule, CPU)
    for off in (1.0, 1.03):
        share = DISTRIBUTION[name](t**off, schedule.logsnr(t**off)).clamp(0, 1)
        assert fits(share, edges, torch.ones(32)) == (off == 1.0)


@cases("density", DENSITIES.values(), ids=DENSITIES)
def test_time_follows_u_and_both_its_ends_are_finite(density):
    u = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-24])
    for schedule in SCHEDULES.values():
        t, _ = density(u, schedule, 0.0)
        assert (t >= 0).all() and (t <= 1).all() and (t.diff() >= 0).all() and t[-1] > t[0]


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_window_holds_every_time_that_a_schedule_stands_at(schedule):
    u = torch.cat([torch.rand(1000), torch.tensor([0.0, 1 - 2**-24])])
    t = schedule.snap(DENSITIES["window"](u, schedule, 0.0)[0])
    assert (t > 0.3 - 1e-6).all() and (t < 0.7 + 1e-6).all()


@cases("low, high", [(-0.1, 0.5), (0.5, 0.5), (0.6, 0.4), (0.5, 1.1)])
def test_a_window_with_nothing_inside_is_refused(low, high):
    with pytest.raises(UserError, match=f"low={low}, high={high}"):
        Window(low, high)


@cases("low, high, nearest", [(0.3001, 0.3009, 0.301), (0.3, 0.3005, 0.301), (0.0, 0.0005, 0.001)])
def test_a_window_that_holds_no_time_of_a_table_is_refused(low, high, nearest):
    window = Window(low, high)
    with pytest.raises(UserError, match=rf"low={low}, high={high} holds none .* T=1000: .* nearest, {nearest}"):
        window.check(SCHEDULES["ddpm_linear"])
    window.check(SCHEDULES["cosine"])
    Window(low, nearest).check(SCHEDULES["ddpm_linear"])


@cases("k", [0, 1, 57, 643, 998, 999])
def test_a_window_of_one_time_of_a_table_gives_that_time(k):
    window = Window(k / 1000, (k + 1) / 1000)
    window.check(SCHEDULES["ddpm_linear"])
    t, _ = window(torch.tensor([0.01, 0.5, 0.99]), SCHEDULES["ddpm_linear"], 0.0)
    assert (SCHEDULES["ddpm_linear"].index(t) == k).all()


@cases("depth", [1e-4, 0.1, 0.8, 0.999])
def test_a_u_shaped_density_inverts_its_distribution_in_float32_up_to_both_ends(depth):
    low = torch.logspace(-7, -1, 100)
    u = torch.cat([torch.tensor([0.0, 1 - 2**-24]), low, 1 - low, torch.rand(999)])
    t, _ = UShaped(depth)(u, SCHEDULES["cosine"], 0.0)
    x = 2 * t.double() - 1
    distribution = 0.5 + (1 - depth) * x / 2 + depth * x**3 / 2
    torch.testing.assert_close(distribution, u.double(), rtol=0, atol=1e-6)
    assert (t >= 0).all() and (t <= 1).all()


def test_a_u_shaped_density_fits_its_law_and_no_other():
    t, _ = UShaped(0.8)(torch.rand(200_000, generator=torch.Generator().manual_seed(0)), SCHEDULES["cosine"], 0.0)
    edges = torch.linspace(0, 1, 51).double()
    x = 2 * edges - 1
    assert fits(t, edges, (0.2 * x + 0.8 * x**3).diff())
    assert not fits(t, edges, (0.23 * x + 0.77 * x**3).diff())
    variance = 0.2 / 12 + 0.8 * 3 / 20  # of (1 - depth) even and depth * 3 x^2, with t = (1 + x) / 2
    assert t.var() == pytest.approx(variance, rel=0.01) and t.mean() == pytest.approx(0.5, abs=0.005)


@cases("depth", [0.0, 1.0, -0.5])
def test_a_depth_that_is_not_a_u_is_refused(depth):
    with pytest.raises(UserError, match=f"depth={depth} must lie between 0"):
        UShaped(depth)


@cases("rows", [1, 2, 7, 64, 65])
def test_pairs_are_exact_partners_and_cover_every_slot(rows):
    u = DRAWS["pairs"](at(5), rows, CPU)
    within, counts = (2 * u % 1).unique(return_counts=True)
    assert len(within) == (rows + 1) // 2 and counts.sum() == rows and (counts == 1).sum() == rows % 2
    assert ((within * len(within)).long() == torch.arange(len(within))).all()
    assert ((u < 0.5).sum() - (u >= 0.5).sum()).abs() == rows % 2


@cases("rows", [1, 3])
def test_pairs_are_even_over_many_steps_also_where_one_has_no_partner(rows):
    u = torch.cat([DRAWS["pairs"](at(i), rows, CPU) for i in range(300)])
    assert fits(u, torch.linspace(0, 1, 7), torch.ones(6))


def test_pairs_are_shuffled_over_the_whole_step():
    u = DRAWS["pairs"](at(3), 64, CPU)
    assert 4 < (u[:32] < 0.5).sum() < 28
    parts = [DRAWS["pairs"](at(3, rank=r, ranks=2, micro=m, micros=2), 16, CPU) for m in range(2) for r in range(2)]
    assert torch.equal(torch.cat(parts), u)


@cases("density", [TowardNoise, TowardData])
def test_a_power_without_an_integral_is_refused(density):
    with pytest.raises(UserError, match="power=-1"):
        density(-1)


def rounds_of(strata, batch, steps, seed=0):
    """The strata of the first rows of a run."""
    step = [Step(seed, i, images=batch * i, progress=0.0) for i in range(steps)]
    u = torch.cat([Rounds(strata)(s, batch, CPU) for s in step])
    return (u.double() * strata).long()


@cases("strata, batch", [(10, 8), (8, 8), (3, 8), (10, 1), (7, 64), (1, 4), (1000, 96)])
def test_every_round_of_consecutive_rows_covers_all_strata_once_across_steps(strata, batch):
    got = rounds_of(strata, batch, steps=-(-70 * strata // batch))
    whole = got[: 70 * strata].view(70, strata)  # more rounds than one chunk holds
    torch.testing.assert_close(whole.sort(dim=1).values, torch.arange(strata).expand(70, -1))


def test_rounds_run_in_an_order_of_their_own_which_the_seed_decides():
    first, other = rounds_of(10, 8, 800), rounds_of(10, 8, 800, seed=1)
    assert len({tuple(order) for order in first.view(-1, 10).tolist()}) > 600  # of 640, 10! orders exist
    assert (first != other).float().mean() > 0.8


class AtTheEdge(Step):
    """Draws nothing but one number: the end of what torch.rand may give."""

    def draw(self, purpose, fill, shape, device="cpu"):
        return torch.full(shape, self.progress)


@cases("end", [0.0, 1 - 2**-24])
def test_points_of_rounds_never_leave_their_stratum_however_float32_rounds(end):
    u = Rounds(1000)(AtTheEdge(seed=0, index=0, images=0, progress=end), 1000, CPU)
    assert sorted((u.double() * 1000).long().tolist()) == list(range(1000)) and (u < 1).all()


@cases("ranks", [1, 2, 4])
@cases("micros", [1, 2, 4])
@cases("draw", DRAWS.values(), ids=DRAWS)
def test_ranks_and_micro_batches_slice_one_global_draw(draw, ranks, micros):
    where = [dict(rank=r, ranks=ranks, micro=m, micros=micros) for m in range(micros) for r in range(ranks)]
    parts = [draw(at(5, **here), 64 // len(where), CPU) for here in where]
    torch.testing.assert_close(torch.cat(parts), draw(at(5), 64, CPU), rtol=0, atol=0)


@cases("strata", [0, -1, 100_000])
def test_strata_that_make_no_rounds_are_refused(strata):
    with pytest.raises(UserError, match="must be a whole number from 1 to 65536"):
        Rounds(strata)
