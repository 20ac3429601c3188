"""Draws and densities."""

from collections import Counter

import pytest
import torch

from smallbatch.densities import TowardData, TowardNoise, Window
from smallbatch.errors import UserError
from smallbatch.randomness import Step
from smallbatch.timesteps import Timesteps
from tests.leaves import DENSITIES, DRAWS, SCHEDULES

cases = pytest.mark.parametrize
CPU = torch.device("cpu")


def at(index, **where):
    return Step(seed=0, index=index, images=0, progress=0.0, **where)


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


@cases("density", [TowardNoise, TowardData])
def test_a_power_without_an_integral_is_refused(density):
    with pytest.raises(UserError, match="power=-1"):
        density(-1)
