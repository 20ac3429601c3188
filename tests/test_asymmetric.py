"""SpeeD: how often, in which pairs and with what weight it trains a time."""

import math

import pytest
import torch

from smallbatch.asymmetric import SpeeD, noise_of
from smallbatch.draws import Pairs
from smallbatch.errors import UserError
from smallbatch.randomness import Step
from tests.chi_square import fits
from tests.leaves import SCHEDULES

cases = pytest.mark.parametrize
CPU = torch.device("cpu")
FALLING = {name: schedule for name, schedule in SCHEDULES.items() if name != "sigmoid"}


def tau(schedule, density):
    return density.tau(noise_of(schedule, CPU)).item()


def marginal(tau, ratio, edges):
    """The distribution function of the stated density."""
    area = ratio * tau + 1 - tau
    beyond = (edges - tau).clamp(min=0)
    return (ratio * edges.clamp(max=tau) + beyond / 2 + edges.clamp(max=1 - tau) / 2) / area


def test_ddpms_linear_schedule_slows_down_at_642_of_1000():
    assert tau(SCHEDULES["ddpm_linear"], SpeeD()) == pytest.approx(0.642)
    closed_form = 2 / math.pi * math.acos(0.2 / math.pi)  # where pi / 2 cos(pi t / 2) = 0.1
    assert tau(SCHEDULES["cosine"], SpeeD()) == pytest.approx(closed_form, abs=1.5e-3)


@cases("schedule", FALLING.values(), ids=FALLING)
def test_after_tau_the_noise_rises_slowly_and_before_it_fast(schedule):
    end = tau(schedule, SpeeD())
    noise = (-schedule.logsnr(torch.tensor([end - 3e-3, end - 1e-3, end + 1e-3, 1.0]))).sigmoid().sqrt()
    assert noise[1] - noise[0] > 1.9e-4 and noise[3] - noise[2] < 1e-4 * 1000 * (1 - end)


@cases("ratio", [1.0, 5.0, 25.0])
@cases("schedule", ["ddpm_linear", "cosine", "edm"])
def test_the_marginal_density_is_the_stated_one(schedule, ratio):
    schedule, density = SCHEDULES[schedule], SpeeD(ratio)
    end = tau(schedule, density)
    t, _ = density(torch.rand(200_000, generator=torch.Generator().manual_seed(0)), schedule, 0.0)
    edges = torch.cat([torch.linspace(0, end, 30), torch.linspace(end, 1, 11)[1:]]).double()
    law = marginal(end, ratio, edges)
    assert law[-1] == pytest.approx(1) and fits(t, edges, law.diff())


def test_another_density_is_told_apart():
    schedule, edges = SCHEDULES["ddpm_linear"], torch.linspace(0, 1, 11).double()
    t, _ = SpeeD()(torch.rand(200_000, generator=torch.Generator().manual_seed(0)), schedule, 0.0)
    unmirrored = (5 * edges.clamp(max=0.642) + (edges - 0.642).clamp(min=0)) / (5 * 0.642 + 0.358)
    assert fits(t, edges, marginal(0.642, 5.0, edges).diff())
    assert not fits(t, edges, marginal(0.642, 5.5, edges).diff()) and not fits(t, edges, unmirrored.diff())


def test_where_change_stops_early_the_mirror_of_the_rest_reaches_beyond_tau():
    schedule, density = SCHEDULES["ddpm_linear"], SpeeD(threshold=1.2e-3)
    end = tau(schedule, density)
    t, _ = density(torch.rand(100_000, generator=torch.Generator().manual_seed(0)), schedule, 0.0)
    edges = torch.tensor([0, end / 2, end, 0.5, 1 - end, 1]).double()
    assert end < 0.5 and fits(t, edges, marginal(end, 5.0, edges).diff())


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_upper_half_of_the_interval_mirrors_the_lower(schedule):
    u = torch.rand(10_000).mul(2**23).floor() / 2**24
    density = SpeeD()
    lower, upper = (density(part, schedule, 0.0)[0] for part in (u, u + 0.5))
    assert torch.equal(upper, (tau(schedule, density) - lower).abs())
    assert (lower[u.argsort()].diff() >= 0).all()


def test_with_pairs_a_step_holds_every_time_with_its_mirror():
    schedule, density = SCHEDULES["ddpm_linear"], SpeeD()
    u = Pairs()(Step(0, 3, 0, 0.0), 64, CPU).sort().values
    lower, upper = density(u, schedule, 0.0)[0].view(2, 32)
    assert torch.equal(upper, (tau(schedule, density) - lower).abs())


def test_the_weight_is_one_above_tau_and_follows_the_noise_below():
    schedule, density = SCHEDULES["ddpm_linear"], SpeeD(strength=0.7)
    t, weight = density(torch.linspace(0, 1 - 2**-24, 100_000), schedule, 0.0)
    noise = (-schedule.table).sigmoid().double()
    rise = torch.gradient(noise)[0]
    expected = 0.3 + 0.4 * (rise - rise.min()) / (rise.max() - rise.min())
    expected[642:] = 1
    torch.testing.assert_close(weight.double(), expected[schedule.index(t)], rtol=0, atol=1e-4)
    assert weight[t < 0.64].min() >= 0.3 - 1e-6 and weight[t < 0.64].max() == pytest.approx(0.7)


def test_a_schedule_that_changes_fast_to_its_end_is_refused():
    with pytest.raises(UserError, match=r"threshold=0\.0001 must lie above .* 0\.00015 and"):
        SpeeD().check(SCHEDULES["sigmoid"])
    with pytest.raises(UserError, match=r"threshold=1\.0 must lie"):
        SpeeD(threshold=1.0).check(SCHEDULES["cosine"])
    for schedule in FALLING.values():
        SpeeD().check(schedule)


@cases("settings, message", [({"ratio": 0}, "ratio=0"), ({"strength": 0.4}, r"strength=0\.4 must lie in 0\.5")])
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SpeeD(**settings)
