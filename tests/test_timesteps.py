"""Draws and densities."""

from collections import Counter

import pytest
import torch

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
    t, importance = Timesteps(draw, density)(at(0), 256, SCHEDULES[schedule], CPU)
    assert (t >= 0).all() and (t <= 1).all() and (importance > 0).all()


def test_lognormal_has_its_mean_and_spread_in_log_sigma():
    t, importance = Timesteps(DRAWS["stratified"], DENSITIES["lognormal"])(at(0), 20_000, SCHEDULES["edm"], CPU)
    log_sigma = -SCHEDULES["edm"].logsnr(t) / 2
    assert abs(log_sigma.mean() + 1.2) < 1e-3 and abs(log_sigma.std() - 1.2) < 2e-3
    assert (importance == 1).all()
