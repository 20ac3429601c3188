"""Noise schedules and paths."""

import math

import pytest
import torch

from smallbatch import schedules as S
from smallbatch import tables as T
from smallbatch.errors import UserError
from tests.leaves import PATHS, SCHEDULES

cases = pytest.mark.parametrize
FINE = torch.linspace(0, 1, 1001)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_both_ends_are_finite_and_logsnr_falls(schedule):
    level = schedule(FINE)
    assert level.alpha.isfinite().all() and level.sigma.isfinite().all()
    assert (level.alpha > 0).all() and (level.sigma > 0).all()
    assert (schedule.logsnr(FINE).diff() <= 0).all()


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_time_inverts_logsnr(schedule):
    t = torch.linspace(0.02, 0.98, 49)
    torch.testing.assert_close(schedule.time(schedule.logsnr(t)), schedule.snap(t), atol=1e-4, rtol=1e-4)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_logsnr_beyond_the_ends_gives_the_nearest_end(schedule):
    ends = schedule.time(torch.tensor([-40.0, 40.0]))
    torch.testing.assert_close(schedule.logsnr(ends), schedule.logsnr(torch.tensor([1.0, 0.0])))


@cases("path", PATHS.values(), ids=PATHS)
def test_a_path_has_the_logsnr_it_was_given(path):
    logsnr = torch.linspace(-14, 14, 29, dtype=torch.float64)
    alpha, sigma = path(logsnr)
    torch.testing.assert_close(2 * (alpha / sigma).log(), logsnr)


def test_paths_keep_their_invariants():
    logsnr = torch.linspace(-14, 14, 29)
    sums = {name: path(logsnr) for name, path in PATHS.items()}
    one = torch.ones_like(logsnr)
    torch.testing.assert_close(sums["preserving"][0] ** 2 + sums["preserving"][1] ** 2, one)
    torch.testing.assert_close(sums["exploding"][0], one)
    torch.testing.assert_close(sums["straight"][0] + sums["straight"][1], one)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_unit_level_has_the_same_logsnr_on_the_unit_circle(schedule):
    level = schedule(FINE)
    unit = level.unit
    torch.testing.assert_close(unit.alpha.square() + unit.sigma.square(), torch.ones_like(unit.alpha))
    torch.testing.assert_close(unit.logsnr, level.logsnr, atol=1e-3, rtol=1e-4)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_unmix_undoes_mix(schedule):
    level = schedule(torch.linspace(0.1, 0.9, 5).double())
    x0, eps = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(level.unmix(level.mix(x0, eps), x0).eps, eps, atol=1e-5, rtol=1e-5)


def test_rectified_flow_is_a_straight_line_in_t():
    t = torch.linspace(0.01, 0.99, 99)
    level = SCHEDULES["rectified_flow"](t)
    torch.testing.assert_close(level.sigma.flatten(), t)
    torch.testing.assert_close(level.alpha.flatten(), 1 - t)


def test_the_cosine_schedule_is_cosine():
    t = torch.linspace(0.01, 0.99, 99)
    torch.testing.assert_close(SCHEDULES["cosine"](t).alpha.flatten(), (t * torch.pi / 2).cos())


def test_linear_logsnr_falls_evenly_from_10_to_minus_10():
    torch.testing.assert_close(SCHEDULES["linear_logsnr"].logsnr(FINE), torch.linspace(10, -10, 1001))


@cases("start, end, tau", [(-3, 3, 1), (-3, 3, 0.9), (0, 3, 0.5), (-1, 4, 2)])
def test_the_sigmoid_schedule_is_the_published_one(start, end, tau):
    def s(x):
        return 1 / (1 + math.exp(-x / tau))

    t = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    signal = torch.tensor([(s(end) - s(u * (end - start) + start)) / (s(end) - s(start)) for u in t.tolist()]).double()
    schedule = S.Sigmoid(S.VariancePreserving(), start, end, tau)
    torch.testing.assert_close(schedule(t).alpha.flatten().square(), signal, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(schedule.time(schedule.logsnr(t)), t)


LEAVES = [S.Cosine, S.Logistic, S.LogLinear, S.Sigmoid, T.LinearBetas, T.CosineBetas]


@cases("leaf", LEAVES)
def test_shift_moves_the_whole_curve_in_logsnr(leaf):
    plain, shifted = leaf(S.VariancePreserving()), leaf(S.VariancePreserving(), shift=-2.0)
    torch.testing.assert_close(shifted.logsnr(FINE), plain.logsnr(FINE) - 2)
    t = torch.linspace(0.02, 0.98, 49)
    torch.testing.assert_close(shifted.time(shifted.logsnr(t)), shifted.snap(t), atol=1e-4, rtol=1e-4)


def test_a_shifted_rectified_flow_is_stable_diffusion_3s():
    t, k = torch.linspace(0.01, 0.99, 99), 3.0
    level = S.Logistic(S.Straight(), shift=-2 * math.log(k))(t)
    torch.testing.assert_close(level.sigma.flatten(), k * t / (1 + (k - 1) * t))


@cases(
    "leaf, wrong",
    [
        (S.LogLinear, dict(sigma_min=2.0, sigma_max=1.0)),
        (S.Sigmoid, dict(start=3.0)),
        (S.Sigmoid, dict(tau=0.0)),
    ],
)
def test_a_schedule_refuses_what_has_no_curve(leaf, wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(UserError, match=f"{name}={value}"):
        leaf(S.VariancePreserving(), **wrong)
